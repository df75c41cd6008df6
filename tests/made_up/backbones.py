"""CLIPs of open_clip with random weights: small ones, and the paper's in full size."""

import json
import os
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import torch
from safetensors.torch import save_file

from tsv_bench.models import load_clip

SMALL, OTHER, PLAIN = "small-quickgelu", "other-quickgelu", "small"
_TOWERS = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}  # fmt: skip
_ARCHITECTURES = {
    SMALL: {**_TOWERS, "quick_gelu": True},
    OTHER: {**_TOWERS, "quick_gelu": True, "vision_cfg": {**_TOWERS["vision_cfg"], "layers": 3}},
    PLAIN: _TOWERS,
}


def register():
    """Make the small architectures known to open_clip, which keeps what it has read."""
    with TemporaryDirectory() as folder:
        for name, settings in _ARCHITECTURES.items():
            (Path(folder) / f"{name}.json").write_text(json.dumps(settings))
        open_clip.add_model_config(folder)


register()


def clip(architecture=SMALL, seed=0):
    """open_clip's own model, whole, with activations far from zero, where GELUs differ."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**open_clip.get_model_config(architecture))
        with torch.no_grad():
            for name, param in model.named_parameters():
                if name.endswith("bias"):
                    param.normal_(std=0.3)
            model.logit_scale.fill_(4.0)
    return model.eval().requires_grad_(False)


def full_size_visual(architecture):
    """An image tower of open_clip in full size: pieces of one noise in half precision."""
    with torch.device("meta"):
        visual = open_clip.CLIP(**open_clip.get_model_config(architecture)).visual
    noise = torch.randn(4_000_000).mul_(0.02).half()  # more than any parameter has
    state = {}
    for number, (name, param) in enumerate(visual.state_dict().items()):
        values = noise[1000 * number :][: param.numel()].view(param.shape)
        state[name] = (values + float("ln_" in name and name.endswith("weight"))).float()
    visual.load_state_dict(state, assign=True)
    return visual.eval().requires_grad_(False)


def save(model, path, *, suffix=".safetensors", **changes):
    """Its state dict with ``changes``; None takes a tensor away."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    state = {name: tensor for name, tensor in state.items() if tensor is not None}
    path = path.with_suffix(suffix)
    (save_file if suffix == ".safetensors" else torch.save)(state, path)
    return path


def load(path, architecture=SMALL, **settings):
    """What a small yaml would load."""
    return load_clip(
        name="small", label="Small", architecture=architecture, weights=str(path), **settings
    )


def save_shapes(architecture, path):
    """A file of the architecture's size and zeros, of which only the header takes room."""
    with torch.device("meta"):
        state = open_clip.CLIP(**open_clip.get_model_config(architecture)).state_dict()
    header, end = {}, 0
    for name, tensor in state.items():
        offsets = [end, end := end + 4 * tensor.numel()]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end)
    return path
