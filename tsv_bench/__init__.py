"""Task singular vectors and the methods they are compared with, from checkpoints to tables."""
