"""Data: tasks, the sources of their images, and the caches that keep them."""

from typing import TYPE_CHECKING

from tsv_bench.faces import late

if TYPE_CHECKING:
    from .cache import Split, bytes_to_write, check_source, load_split
    from .task import SPLITS, Task

__all__ = ["SPLITS", "Split", "Task", "bytes_to_write", "check_source", "load_split"]
__getattr__ = late(__name__, "task", "cache")
