"""Packages whose names come from their files only when wanted, so that importing one is quick.

Without it a check that needs no tensor, in a package that has some, would wait for torch.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def late(package: str, *files: str) -> Callable[[str], Any]:
    """Return a package's ``__getattr__``: its ``__all__`` is looked for in ``files``, in order."""

    def __getattr__(name: str) -> Any:
        face = sys.modules[package]
        if name in face.__all__:
            for file in files:
                module = import_module(f"{package}.{file}")
                if hasattr(module, name):
                    setattr(face, name, getattr(module, name))
                    return getattr(module, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=face)

    return __getattr__
