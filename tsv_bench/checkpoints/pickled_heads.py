"""Heads pickled by the paper's code and its ancestors, read without executing any code.

Such a head is a whole module: a linear layer [classes, dim] whose weights include the logit scale
and which takes normalized image features.
"""

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor

HEAD = "ClassificationHead"
# Empty classes in place of those that the file names: unpickling sets their instances' attributes.
STUBS = [type(HEAD, (), {"__module__": name}) for name in ("src.models.modeling", "src.modeling")]
# Image encoders that are pickled as whole modules, and by whom.
MODULES = {
    "src.modeling.ImageEncoder": "mlfoundations/task_vectors",
    "src.models.modeling.ImageEncoder": "the paper's code",
}


def read_head(path: Path) -> Tensor:
    """Return the weights of a pickled head, float32 [classes, dim]; execute nothing in the file.

    Raises ValueError if the file holds anything else, or a head with a bias, without normalized
    features or with values that are not finite.
    """
    try:
        with torch.serialization.safe_globals(STUBS):
            found = torch.load(path, weights_only=True, map_location="cpu")
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle fails in any way
        if needed := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(
                f"{path} needs code to be run, {needed[1]}, which was not executed. A head is a "
                f"{HEAD} of {' or '.join(stub.__module__ for stub in STUBS)}, of weights only. Set "
                f"checkpoints.heads=text to have heads built from prompts."
            ) from error
        if "persistent_load" in str(error):
            raise ValueError(
                f"{path} is a whole module in torch's old format, which cannot be read without its "
                f"code. Set checkpoints.heads=text to have heads built from prompts."
            ) from error
        raise ValueError(
            f"{path} is not a whole torch file ({type(error).__name__}). Fetch it again, or set "
            f"checkpoints.heads=text."
        ) from error
    if type(found) not in STUBS:
        raise ValueError(
            f"{path} is no head: it holds a {type(found).__name__}, expected is a pickled {HEAD}."
        )
    attributes = vars(found)
    parameters = attributes.get("_parameters") or {}
    weight, bias = parameters.get("weight"), parameters.get("bias")
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise ValueError(f"{path} is no whole head: it has no weights of classes x dim.")
    if bias is not None and bool(bias.any()):
        raise ValueError(
            f"{path} has a bias, up to {bias.abs().max():.3g}; zero-shot heads have none. Set "
            f"checkpoints.heads=text."
        )
    if not attributes.get("normalize", True):
        raise ValueError(
            f"{path} is for image features that are not normalized; here they always are. Set "
            f"checkpoints.heads=text."
        )
    if not weight.isfinite().all():
        raise ValueError(f"{path} holds NaN or infinity. Fetch it again.")
    return weight.detach().float()


def pickled_by(path: Path) -> str | None:
    """Return who pickled the file at ``path`` as a whole image encoder, or None if it is none."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
        return None  # torch.save did not write it, or it is damaged
    return next((whose for name, whose in MODULES.items() if name in names), None)
