"""Task singular vectors and the methods they are compared with, from checkpoints to tables."""

__version__ = "0.1.0"
