"""The embedded backbone mini: building it, its vocabulary, and its file."""

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tsv_bench.models.backbone import Backbone
from tsv_bench.models.quick_import import open_clip

FOLDER = Path(__file__).parent

# The file holds only those rows of the token embedding that pretraining has seen, and their ids.
TOKENS, ROWS = "token_embedding.ids", "token_embedding.rows"


def build_mini(architecture: str, num_tokens: int) -> nn.Module:
    """Build an untrained CLIP of ``models/<architecture>.json`` for ``num_tokens`` tokens.

    Raises ValueError if there is no such architecture.
    """
    settings = open_clip.get_model_config(architecture)
    if settings is None:
        raise ValueError(
            f"unknown architecture {architecture!r}: there is no {architecture}.json in "
            f"{FOLDER.name}/. Write one, or choose mini."
        )
    settings["text_cfg"]["vocab_size"] = num_tokens
    return open_clip.CLIP(**settings)


@cache
def _tokenizer(architecture: str) -> "open_clip.SimpleTokenizer":
    """Read the tokenizer where a head is built, and once: it is packed in a file of a megabyte."""
    return open_clip.get_tokenizer(architecture)


def compact_tokens(architecture: str, texts: Iterable[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the sorted ids of the texts' tokens, and each text as indices of these [context]."""
    texts = list(dict.fromkeys(texts))
    table = _tokenizer(architecture)(texts)
    ids = table.unique()
    return ids, dict(zip(texts, torch.searchsorted(ids, table), strict=True))


def save_mini(model: nn.Module, ids: Tensor, path: Path, metadata: dict[str, str]) -> None:
    """Write the weights as float16. Of the token embedding these are the rows of ``ids``."""
    tensors = {name: p.detach().half().contiguous() for name, p in model.state_dict().items()}
    tensors[ROWS] = tensors.pop("token_embedding.weight")
    tensors[TOKENS] = ids.int()
    tensors.pop("attn_mask", None)
    save_file(tensors, path, metadata)


def load_mini(*, name: str, label: str, architecture: str, weights: str, sha256: str) -> Backbone:
    """Load the embedded backbone from ``weights``, a file in models/ or a path.

    Raises ValueError if the file does not have the ``sha256`` (null: any), is damaged, or does not
    fit the architecture. Its `encode_text` raises ValueError for a word that pretraining has not
    seen.
    """
    path = FOLDER / weights
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 and found != sha256:
        raise ValueError(
            f"{path.name} has sha256 {found[:12]}..., conf/backbone/{name}.yaml expects "
            f"{sha256[:12]}.... Restore the file, or put its own hash into the yaml."
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}.") from error
    if not {TOKENS, ROWS} <= set(tensors):
        raise ValueError(f"{path} was not written by tsv-pretrain: it holds no {ROWS!r}.")
    ids = tensors.pop(TOKENS)
    tensors["token_embedding.weight"] = tensors.pop(ROWS)
    model = build_mini(architecture, len(ids))
    try:
        model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    except RuntimeError as error:  # its second line names the first parameter that does not fit
        raise ValueError(f"{path} does not fit architecture {architecture!r}: {error}") from error
    model.eval().requires_grad_(False)

    def encode_text(prompts: list[str]) -> Tensor:
        tokenizer = _tokenizer(architecture)
        tokens = tokenizer(prompts)
        unseen = ~torch.isin(tokens, ids)
        if unseen.any():
            row = int(unseen.any(dim=1).nonzero()[0])
            word = tokenizer.decode([int(tokens[row][unseen[row]][0])]).strip()
            raise ValueError(
                f"{name} was never shown the word piece {word!r} of the prompt {prompts[row]!r}. "
                f"Its vocabulary is that of the embedded suite: choose other words."
            )
        return model.encode_text(torch.searchsorted(ids.long(), tokens))

    return Backbone(
        name=name,
        label=label,
        image_size=model.visual.image_size[0],
        visual=model.visual,
        fingerprint=found,
        logit_scale=model.logit_scale.exp().item(),
        encode_text=torch.no_grad()(encode_text),
    )
