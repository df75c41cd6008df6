"""Data: tasks, the sources of their images, and the caches that keep them."""

from .cache import Split, bytes_to_write, check_source, load_split
from .task import SPLITS, Task

__all__ = ["SPLITS", "Split", "Task", "bytes_to_write", "check_source", "load_split"]
