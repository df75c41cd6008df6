"""Adapters written by hand, for what peft does not write or no longer writes."""

import json

import torch
from safetensors.torch import save_file

PREFIX = "base_model.model."
MODULE = "layers.0.q"


def base():
    generator = torch.Generator().manual_seed(0)
    shapes = {f"{MODULE}.weight": (6, 4), f"{MODULE}.bias": (6,), "norm.weight": (4,)}
    shapes |= {"embed_tokens.weight": (9, 4), "layers.0.square.weight": (4, 4)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def factors(module=MODULE, m=6, n=4, r=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(r, n, generator=generator), torch.randn(m, r, generator=generator)
    return {
        f"{PREFIX}{module}.lora_A.weight": a,
        f"{PREFIX}{module}.lora_B.weight": b,
    }


def config(**settings):
    return {"peft_type": "LORA", "r": 2, "lora_alpha": 2} | settings


def write(folder, tensors=None, **settings):
    """An adapter's folder with these tensors and settings; with its base beside it."""
    folder.mkdir(parents=True)
    save_file(base(), folder.parent / "base.safetensors")
    save_file(factors() if tensors is None else tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config(**settings)))
    return folder
