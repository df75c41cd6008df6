"""Small checkpoints in every format."""

import json

import torch
from safetensors.torch import save_file

FORMATS = ["safetensors", "torch", "old torch"]


def state():
    return {
        "w": torch.randn(6, 4),
        "deep": torch.randn(5, 2, 3).half(),
        "flag": torch.tensor([True, False, True]),
        "step": torch.tensor(7),
        "none": torch.zeros(0, 4),
        "double": torch.randn(3, dtype=torch.float64),
    }


def save(content, path, format="safetensors"):
    if format == "safetensors":
        save_file(content, path, {"by": "us"})
    else:
        torch.save(content, path, _use_new_zipfile_serialization=format == "torch")
    return path


def save_sharded(folder, format="safetensors", content=None, **changes):
    """Two shards of ``content`` and their index, in which ``changes`` are made."""
    kind, stem = ("safetensors", "model") if format == "safetensors" else ("bin", "pytorch_model")
    folder.mkdir(exist_ok=True)
    items = list((content or state()).items())
    shards = {f"{stem}-1.{kind}": dict(items[:2]), f"{stem}-2.{kind}": dict(items[2:])}
    for shard, tensors in shards.items():
        save(tensors, folder / shard, format)
    weight_map = {name: shard for shard, tensors in shards.items() for name in tensors}
    index = {"metadata": {}, "weight_map": {**weight_map, **changes}}
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index))
    return dict(items)
