"""Data sets: tasks, where their images come from, and the caches they are kept in."""

from .cache import Split, load_split
from .task import Task

__all__ = ["Split", "Task", "load_split"]
