"""Backbones of any architecture and weights of open_clip; those of the paper are in clip.py."""
