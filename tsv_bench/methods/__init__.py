"""Methods: each maps the suite's task vectors to the vectors that the tasks are served with.

    method(task_vectors, *, knobs) -> served

`task_vectors` maps a task's name to its task vector, `served` the same names to the vectors that
evaluation adds to the pretrained backbone: pretrained + alpha * served[task].

- A method that merges serves one vector: the same object for every task, so that it is added once.
- A method that serves each task its own returns lazy vectors: one is computed at a time, on access.
- Layers are read one at a time. Inputs are never changed, and a lazy one may be read again.
- Half-precision deltas are computed on, and served, in float32; float64 stays float64.
- Knobs are checked before anything is read (ValueError), so `method({}, **knobs)` only checks them.
- The result does not depend on the order of the tasks (but for `slerp`, which goes from the first
  to the second), and on chance only by a seed.
- One that sees data takes its statistics too, as ``inputs``: task -> layer -> tensor
  (`task_vectors.statistics`). It reads and looks up nothing of them before a layer is wanted.
- One that sees the pretrained weights takes ``pretrained``: layer -> tensor, read on access.
- One that learns or searches takes a ``bench`` (`methods.bench`), when the first layer is wanted.
- One that sends images to experts serves `RoutedVector`s: one a task, and a router they share.
- One that changes features serves `AdaptedVector`s: a vector for all, and each task's adapter.

A method's paper, label, candidates for alpha and knobs are in its yaml in conf/method/.
"""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tsv_bench.task_vectors.lazy import ServedVectors

FOLDERS = (
    "entrywise",
    "matrixwise",
    "shared_bases",
    "masked",
    "observed",
    "learned",
    "evolved",
    "routed",
)


def __getattr__(name: str) -> "Callable[..., ServedVectors]":
    """Import the methods when the first is asked for: knobs and needs are checked without torch."""
    if name != "__all__" and (name.startswith("__") or name in _modules()):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if "__all__" not in globals():
        _import_methods()
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]


def _modules() -> set[str]:
    """Return the names of the files and folders beside this one."""
    return {module.name for module in iter_modules(__path__)}


def _import_methods() -> None:
    """Import what the files of the folders name in __all__: a new method needs no line here."""
    found = {}
    for folder in FOLDERS:
        package = import_module(f"{__name__}.{folder}")
        for file in iter_modules(package.__path__, f"{package.__name__}."):
            module = import_module(file.name)
            found |= {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    globals().update(found, __all__=list(found))
