"""Whole modules as the paper's code and its ancestors pickle them, by classes that are not here."""

import sys
import types
import warnings
from unittest import mock

import torch
from torch import nn


class Head(nn.Linear):
    """Like the reference's: a linear layer, with a switch for normalizing its input."""

    def __init__(self, weights, normalize=True):
        super().__init__(weights.shape[1], len(weights))
        self.normalize = normalize
        self.weight = nn.Parameter(weights.clone())
        self.bias = nn.Parameter(torch.zeros_like(self.bias))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Linear(2, 2)


def pickle_as(content, path, module="src.models.modeling", name="ClassificationHead", **settings):
    """Save it as if its class were of this module and name, which are gone afterwards."""
    parts = module.split(".")
    packages = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    made = {package: types.ModuleType(package) for package in packages}
    kind = type(content)
    setattr(made[module], name, kind)
    names = {"__module__": module, "__name__": name, "__qualname__": name}
    with mock.patch.dict(sys.modules, made), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Couldn't retrieve source code")  # the old format's
        before = {key: getattr(kind, key) for key in names}
        for key, value in names.items():
            setattr(kind, key, value)
        torch.save(content, path, **settings)
        for key, value in before.items():
            setattr(kind, key, value)
    return path
