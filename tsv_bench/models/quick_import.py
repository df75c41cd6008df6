"""Import open_clip and torchvision when they are first used, without what no tower here needs.

A Run that is found finished needs neither, and both take a second.
open_clip tries to import timm and transformers for towers of theirs, and does without where they
are not installed. torchvision imports torch's compiler for one question that nobody asks here.
"""

import importlib
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

OPTIONAL = ("timm", "transformers")  # for open_clip
COMPILER = ("torch._dynamo", "torch._dynamo.utils")


class Later(ModuleType):
    """A module that is imported when something of it is first asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(imported()[self.__name__], name)


@cache
def imported() -> dict[str, ModuleType]:
    """Return open_clip, which then knows the architectures of this folder, and torchvision.

    Modules that are imported already are used as they are.
    """
    hidden = [name for name in OPTIONAL if name not in sys.modules]
    stubs = COMPILER if not any(name in sys.modules for name in COMPILER) else ()
    sys.modules.update(dict.fromkeys(hidden))  # None makes an import fail as if not installed
    sys.modules.update({name: _stub(name) for name in stubs})
    try:
        import open_clip
        import torchvision

        open_clip.add_model_config(Path(__file__).parent)
        return {"open_clip": open_clip, "torchvision": torchvision}
    finally:
        for name in (*hidden, *stubs):
            del sys.modules[name]


@cache
def let_build_timm() -> None:
    """Let open_clip build towers of timm, which it was imported without."""
    imported()
    timm_model = sys.modules["open_clip.timm_model"]
    if timm_model.timm is None:
        timm_model = importlib.reload(timm_model)
        sys.modules["open_clip.model"].TimmModel = timm_model.TimmModel


def _stub(name: str) -> ModuleType:
    """Return a module that has torchvision's one function of torch._dynamo.utils."""

    def is_compile_supported(device_type: str) -> bool:
        return importlib.import_module(name).is_compile_supported(device_type)

    module = ModuleType(name)
    module.is_compile_supported = is_compile_supported
    return module


open_clip, torchvision = Later("open_clip"), Later("torchvision")
