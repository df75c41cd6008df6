"""Small random language models in Hugging Face's layout: a base and two fine-tuned ones.

python tests/made_up/language_models.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

WIDTH, HIDDEN, VOCABULARY, LAYERS = 64, 176, 512, 2


def shapes():
    yield "model.embed_tokens.weight", (VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for part in "qkvo":
            yield f"{at}.self_attn.{part}_proj.weight", (WIDTH, WIDTH)
        for part in ("gate", "up"):
            yield f"{at}.mlp.{part}_proj.weight", (HIDDEN, WIDTH)
        yield f"{at}.mlp.down_proj.weight", (WIDTH, HIDDEN)
        yield f"{at}.input_layernorm.weight", (WIDTH,)
        yield f"{at}.post_attention_layernorm.weight", (WIDTH,)
    yield "model.norm.weight", (WIDTH,)
    yield "lm_head.weight", (VOCABULARY, WIDTH)


def save_sharded(folder, weights):
    """Two shards with their index, and what else such a folder has."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(weights)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    where = {}
    for number, half in enumerate(halves, start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in half}, folder / file, {"format": "pt"})
        where |= dict.fromkeys(half, file)
    size = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": WIDTH}))
    (folder / "tokenizer.json").write_text("{}")


def make(folder):
    generator = torch.Generator().manual_seed(0)
    base = {n: 0.1 * torch.randn(shape, generator=generator) for n, shape in shapes()}
    save_sharded(folder / "base", {name: w.bfloat16() for name, w in base.items()})
    for task in ("math", "code"):
        tuned = {n: w + 0.01 * torch.randn(w.shape, generator=generator) for n, w in base.items()}
        save_sharded(folder / task, {name: w.bfloat16() for name, w in tuned.items()})


if __name__ == "__main__":
    make(Path(sys.argv[1]))
