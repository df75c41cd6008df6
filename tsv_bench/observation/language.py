"""Statistics of texts through a language model in Hugging Face's layout."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tsv_bench.observation.linear_inputs import LinearInputs, visible_products
from tsv_bench.task_vectors.statistics import Gathered


def load_language_model(folder: Path, device: str) -> tuple[nn.Module, Any]:
    """Load a causal language model and its tokenizer from a folder; no hub is asked.

    Raises ValueError if transformers is not installed, or cannot load what is there.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            "statistics of texts need transformers, which is not installed: pip install "
            "'tsv_bench[language]'"
        ) from error
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{folder} holds no causal language model that transformers can load, with its "
            f"tokenizer: {reason}"
        ) from error
    return model.to(device).eval().requires_grad_(False), tokenizer


def pieces_of(path: Path, tokenizer: Any, sequences: int, tokens: int) -> list[Tensor]:
    """Return the first pieces of a text, at most ``tokens`` tokens [1, tokens] each.

    Raises OSError if the file cannot be read, ValueError if it has no token.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}.") from error
    ids = tokenizer(text, return_tensors="pt", verbose=False).input_ids
    if ids.shape[1] < 2:
        raise ValueError(f"{path} has {ids.shape[1]} tokens; a language model needs two at least.")
    pieces = [piece for piece in ids.split(tokens, dim=1) if piece.shape[1] > 1]
    return pieces[:sequences]


def linear_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that may be linear layers: an embedding, also a tied one, is none."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return {name: p for name, p in model.named_parameters() if id(p) not in tables}


@torch.no_grad()
def text_inputs(model: nn.Module, pieces: list[Tensor], kinds: tuple[str, ...]) -> LinearInputs:
    """Return the sums over the inputs of the model's linear layers, all tokens of all pieces."""
    device = next(model.parameters()).device
    with visible_products(), LinearInputs(linear_weights(model), kinds) as inputs:
        for piece in pieces:
            model(piece.to(device))
    return inputs


def text_fisher(model: nn.Module, pieces: list[Tensor], seed: int) -> dict[str, Tensor]:
    """Return the diagonal Fisher information of each parameter, the mean over tokens.

    For each token one next token is drawn by the model's own probabilities. Given the text these
    are independent and their gradients have mean zero, so that the square of a piece's summed
    gradient has the sum of the tokens' Fisher information for its expectation.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())
    squares = {name: torch.zeros_like(p) for name, p in parameters.items()}
    count = 0
    device = next(iter(parameters.values())).device
    model.requires_grad_(True)
    try:
        for piece in pieces:
            logits = model(piece.to(device)).logits[0]
            drawn = torch.multinomial(logits.detach().softmax(-1).cpu(), 1, generator=generator)
            loss = logits.log_softmax(dim=-1).gather(1, drawn.to(device)).sum()
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    squares[name] += gradient.square()
            count += len(drawn)
    finally:
        model.requires_grad_(False)
    return {name: total / count for name, total in squares.items()}


def names_in_file(
    model: nn.Module, gathered: Mapping[str, Gathered], names: Mapping[str, Any]
) -> dict[str, str]:
    """Return for each layer of the model its name in the checkpoint's files.

    Files may lack the prefix of the base model, which transformers then adds. Raises ValueError
    that names the first layer under no known name.
    """
    prefix = f"{model.base_model_prefix}."
    found = {name: next((n for n in (name, name.removeprefix(prefix)) if n in names), None)
             for name in gathered}  # fmt: skip
    if odd := [name for name, own in found.items() if own is None]:
        raise ValueError(
            f"transformers calls a layer {odd[0]!r}, and the checkpoint's files have none of that "
            f"name: {len(odd)} such. It converts these weights when it loads them; save the model "
            f"again with save_pretrained, so that both agree."
        )
    return found
