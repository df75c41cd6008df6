"""Data sets: tasks, where their images come from, and the caches they are kept in."""

from .cache import Split, bytes_to_write, check_source, load_split
from .task import SPLITS, Task

__all__ = ["SPLITS", "Split", "Task", "bytes_to_write", "check_source", "load_split"]
