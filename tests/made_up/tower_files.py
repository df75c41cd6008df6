"""One image tower as each code base saves it; Hugging Face's layout by transformers itself."""

import open_clip
import torch
import transformers
from safetensors.torch import save_file

from tsv_bench.models.clip import build_clip


def vision_config(architecture):
    """Of transformers, for an architecture of open_clip."""
    settings = open_clip.get_model_config(architecture)
    assert settings["quick_gelu"]
    tower = settings["vision_cfg"]
    return transformers.CLIPVisionConfig(
        hidden_size=tower["width"],
        intermediate_size=4 * tower["width"],
        num_hidden_layers=tower["layers"],
        num_attention_heads=tower["width"] // tower.get("head_width", 64),
        image_size=tower["image_size"],
        patch_size=tower["patch_size"],
        projection_dim=settings["embed_dim"],
        hidden_act="quick_gelu",
    )


def hugging_face(architecture, kind=transformers.CLIPVisionModelWithProjection, seed=0):
    """transformers' own model with random weights; no bias is zero and no scale is one."""
    config = vision_config(architecture)
    if kind is transformers.CLIPModel:
        text = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
                "num_attention_heads": 2, "vocab_size": 50, "bos_token_id": 0,
                "eos_token_id": 1}  # fmt: skip
        config = transformers.CLIPConfig(
            text_config=text, vision_config=config.to_dict(), projection_dim=config.projection_dim
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        with torch.no_grad():
            for param in model.parameters():
                if param.ndim == 1:
                    param.add_(torch.randn_like(param), alpha=0.3)
    return model.eval().requires_grad_(False)


def text_tower(architecture):
    """The parameters beside the image tower: zeros, of which a torch file keeps one each."""
    state = build_clip(architecture).state_dict()
    return zeros({name: param for name, param in state.items() if not name.startswith("visual.")})


def zeros(state):
    return {name: torch.zeros(()).expand(param.shape) for name, param in state.items()}


def save(tower, layout, folder, architecture):
    """``tower``, named as open_clip does, in one of the layouts that keep its names."""
    text = text_tower(architecture)
    if layout == "visual":
        path = folder / "tower.safetensors"
        save_file(dict(tower), path)
        return path
    if layout == "open_clip":
        content = {f"visual.{name}": tensor for name, tensor in tower.items()} | text
    elif layout == "clip_model":  # all of a training, with what it says of itself
        state = {f"visual.{name}": tensor for name, tensor in tower.items()} | text
        content = {
            "state_dict": {f"clip_model.model.{name}": tensor for name, tensor in state.items()},
            "task": "Cars", "strategy": "full", "classnames": ["a", "b"], "best_epoch": 3,
            "metrics": {"val_top1": 0.5, "test_top1": None}, "format": "full",
        }  # fmt: skip
    else:  # the paper's encoder: its class deletes the text tower's blocks and no more
        content = {f"model.visual.{name}": tensor for name, tensor in tower.items()}
        content |= {
            f"model.{name}": tensor
            for name, tensor in text.items()
            if not name.startswith("transformer.")
        }
    path = folder / f"{layout}.pt"
    torch.save(content, path)
    return path
