"""Statistics of texts through language models: sums of what each layer was given."""

import pytest
import torch
import torch.nn.functional as F
from made_up import texts
from made_up.texts import TEXT, gpt2, llama, save
from safetensors.torch import load_file

from tsv_bench.observation.language import (
    linear_weights,
    load_language_model,
    names_in_file,
    pieces_of,
    text_fisher,
    text_inputs,
)
from tsv_bench.task_vectors.statistics import Gathered

MODELS = {"llama": (llama, 2 * 7 + 1), "gpt2": (gpt2, 2 * 4)}  # and the number of linear layers


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    make, count = MODELS[request.param]
    folder = save(make(), tmp_path_factory.mktemp(request.param))
    (folder / "text.txt").write_text(TEXT)
    return folder, count


def test_sums_are_those_of_what_each_layer_was_given(folder):
    folder, count = folder
    model, tokenizer = load_language_model(folder, "cpu")
    pieces = pieces_of(folder / "text.txt", tokenizer, 3, 10)
    assert [piece.shape for piece in pieces] == 3 * [(1, 10)]
    given = {}

    def keep(name):
        def hook(module, args):
            given.setdefault(name, []).append(args[0].flatten(0, -2))

        return hook

    hooks = [
        module.register_forward_pre_hook(keep(f"{name}.weight"))
        for name, module in model.named_modules()
        if f"{name}.weight" in linear_weights(model) and module.weight.ndim == 2
    ]
    inputs = text_inputs(model, pieces, ("inputs", "means"))
    for hook in hooks:
        hook.remove()
    assert len(inputs.gathered) == count and set(given) == set(inputs.gathered)
    for name, how in inputs.gathered.items():
        x = torch.cat(given[name])
        assert how == Gathered(30, 0 if "gpt2" in str(type(model)).lower() else 1), name
        torch.testing.assert_close(inputs.statistics("inputs", name), x.mT @ x)
        torch.testing.assert_close(inputs.statistics("means", name), x.mean(dim=0))
    names = names_in_file(model, inputs.gathered, load_file(folder / "model.safetensors"))
    assert set(names.values()) <= set(load_file(folder / "model.safetensors"))


def test_the_fisher_information_has_the_sum_of_single_tokens_for_its_mean():
    model = llama()
    ids = torch.tensor([[0, 1, 2, 3]])
    weight = model.lm_head.weight
    exact = torch.zeros_like(weight)
    logits = model(ids).logits[0]
    for position in range(4):
        for token, p in enumerate(logits[position].softmax(-1).detach()):
            model.zero_grad()
            value = F.log_softmax(logits[position], -1)[token]
            [gradient] = torch.autograd.grad(value, weight, retain_graph=True)
            exact += p * gradient.square() / 4
    model.requires_grad_(False)
    found = sum(text_fisher(model, [ids], seed)["lm_head.weight"] for seed in range(200)) / 200
    # The mean of 200 draws; a wrong scale, or one gradient for all tokens, is off by far more.
    assert (found - exact).norm() < 0.25 * exact.norm()


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(ValueError, match="holds no causal language model"):
        load_language_model(tmp_path, "cpu")
    folder = save(llama(), tmp_path / "model")
    _, tokenizer = load_language_model(folder, "cpu")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match="has 0 tokens; a language model needs two"):
        pieces_of(tmp_path / "empty.txt", tokenizer, 1, 10)
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match="is no text in UTF-8"):
        pieces_of(tmp_path / "latin.txt", tokenizer, 1, 10)
    with pytest.raises(ValueError, match="calls a layer 'lm_head.weight', and"):
        names_in_file(llama(), {"lm_head.weight": Gathered()}, {"head": None})


def test_without_transformers_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'tsv_bench\[language\]'"):
        load_language_model(tmp_path, "cpu")


def test_texts_are_of_the_vocabulary():
    assert set(TEXT.split()) <= set(texts.WORDS)
