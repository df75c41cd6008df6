"""Small models of five families that open_clip knows, with random weights, as files."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tsv_bench.models import load_open_clip
from tsv_bench.models.quick_import import let_build_timm

WORDS = ["[PAD]", "</s>", "[UNK]", "a", "photo", "of", "red", "green", "blue", "signs", "."]
_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
_VIT = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
ARCHITECTURES = {
    # LAION's and DataComp's: as OpenAI's, but for the activation.
    "tiny-vit": {"embed_dim": 24, "vision_cfg": _VIT, "text_cfg": _TEXT},
    # CLIPA: no class token, positions that are computed, a text tower that sees all.
    "tiny-clipa": {
        "embed_dim": 24,
        "vision_cfg": _VIT | {
            "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True,
            "pos_embed_type": "sin_cos_2d",
        },
        "text_cfg": _TEXT | {"context_length": 32, "pool_type": "last", "no_causal_mask": True},
    },
    "tiny-siglip": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 160, "timm_model_name": "test_vit", "timm_model_pretrained": False,
            "timm_pool": "map", "timm_proj": "none",
        },
        "text_cfg": _TEXT | {
            "context_length": 12, "vocab_size": len(WORDS), "no_causal_mask": True,
            "hf_tokenizer_name": "nobody/tokenizer", "proj_bias": True, "pool_type": "last",
            "tokenizer_kwargs": {"clean": "canonicalize"}, "norm_kwargs": {"eps": 1e-6},
        },
    },
    "tiny-convnext": {
        "embed_dim": 24,
        "vision_cfg": {
            "image_size": 160, "timm_model_name": "test_convnext", "timm_model_pretrained": False,
            "timm_pool": "", "timm_proj": "linear", "timm_drop": 0.0, "timm_drop_path": 0.5,
        },
        "text_cfg": _TEXT,
    },
    # Its positions are rotations, which no file holds.
    "tiny-eva": {
        "embed_dim": 24,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 224, "timm_model_name": "eva02_tiny_patch14_224",
            "timm_model_pretrained": False, "timm_pool": "token", "timm_proj": None,
        },
        "text_cfg": _TEXT,
    },
}  # fmt: skip
PREPROCESSING = {
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
    "interpolation": "bilinear", "resize_mode": "squash",
}  # fmt: skip


def register():
    """Make the architectures known to open_clip, which keeps what it has read."""
    with TemporaryDirectory() as folder:
        for name, settings in ARCHITECTURES.items():
            (Path(folder) / f"{name}.json").write_text(json.dumps(settings))
        open_clip.add_model_config(folder)


register()


def model(architecture, path=None, **settings):
    """open_clip's own: with random weights, or those at ``path``."""
    let_build_timm()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = open_clip.create_model(architecture, pretrained=path and str(path), **settings)
    return made.eval().requires_grad_(False)


def save(made, folder, architecture, **changes):
    """A file with the weights, and what open_clip writes beside it in ``changes``."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    if changes:
        (folder / "open_clip_config.json").write_text(json.dumps(changes))
    if "hf_tokenizer_name" in ARCHITECTURES[architecture]["text_cfg"]:
        write_tokenizer(folder)
    return folder / "open_clip_model.safetensors"


def write_tokenizer(folder):
    """A tokenizer of a few words, as transformers reads it."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    made.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def load(path, architecture, **settings):
    """What a small yaml would load."""
    return load_open_clip(
        name="own", label="Own", architecture=architecture, pretrained=str(path), **settings
    )
