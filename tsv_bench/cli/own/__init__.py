"""Backbones and tasks of a user's own: what their yamls must say, and one that is written."""
