"""Whole steps of long work, kept on disk as state dicts."""
