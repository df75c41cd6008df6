"""The weights within what a training script saved: a state dict in other dicts."""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

NESTED = ("state_dict", "model_state_dict", "model")  # where training scripts put the weights
# Beginnings of keys under which they put what is no model.
BESIDE = ("optim", "sched", "lr_sched", "scaler", "callback", "rng", "hyper", "args", "config")


def weights_in(path: Path, content: dict[Any, Any]) -> dict[Any, Any]:
    """Return the dict with the weights: ``content``, or one nested in it, the innermost.

    The usual keys lead to it (`NESTED`); else any key that leads to one only. Each dict is looked
    at once: there may be any number, and one may hold itself. Raises ValueError that names the
    file's keys if several hold weights.
    """
    way, seen = [content], {id(content)}
    while way:
        inside = (way[-1].get(key) for key in NESTED)
        inner = next((d for d in inside if isinstance(d, dict) and id(d) not in seen), None)
        if inner is not None:
            way.append(inner)
            seen.add(id(inner))
        elif _holds_weights(way[-1]):
            return way[-1]
        else:
            way.pop()
    found = _under_any_key(content)
    if len(found) > 1:
        keys = list(found)
        raise ValueError(
            f"{path} holds weights under {len(keys)} keys, {', '.join(keys[:3])}: which are meant? "
            f"Give them alone, as by torch.save(torch.load(...)[{reprlib.repr(keys[0])}], ...)."
        )
    return next(iter(found.values()), content)


def tensors_of(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return what of a dict is a tensor with a name."""
    return {n: t for n, t in content.items() if isinstance(n, str) and isinstance(t, Tensor)}


def _holds_weights(content: Mapping[Any, Any]) -> bool:
    """Return whether there is a tensor that is more than one number, as an accuracy is."""
    return any(tensor.ndim for tensor in tensors_of(content).values())


def _under_any_key(content: dict[Any, Any]) -> dict[str, dict]:
    """Return key -> dict with weights, of all that keys of names lead to, but for `BESIDE`."""
    found: dict[str, dict] = {}
    waiting, seen = [("", content)], {id(content)}
    while waiting:
        above, own = waiting.pop()
        for key, inner in own.items():
            named = isinstance(key, str) and not key.startswith(BESIDE)
            if not named or not isinstance(inner, dict) or id(inner) in seen:
                continue
            seen.add(id(inner))
            where = f"{above}.{key}"[-100:] if above else key
            if _holds_weights(inner):
                found[where] = inner
            else:
                waiting.append((where, inner))
    return found
