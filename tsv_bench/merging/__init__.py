"""Merge checkpoint files. The output is put in place when it is whole.

`merge_files` checks, opens, serves and writes; each form of serving has a writer.

from functools import partial
from tsv_bench import merging, methods
serve = partial(methods.tsv_merge, rank_fraction=0.1)
merging.merge(serve, "base.safetensors", {"a": "a.pt", "b": "b/"}, "merged.safetensors")
"""

from typing import TYPE_CHECKING

from tsv_bench.faces import late

if TYPE_CHECKING:
    from tsv_bench.merging.merge_files import Merged, merge

__all__ = ["Merged", "merge"]
__getattr__ = late(__name__, "merge_files")
