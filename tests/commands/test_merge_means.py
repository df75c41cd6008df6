"""A mean of models by tsv-merge, without the pretrained one: the first stands in for it."""

import json

import pytest
import torch
from made_up.merges import files, finetuned, made, same, write_checkpoints
from made_up.state_dicts import save
from stand_ins.commands import tsv

import tsv_bench
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.state_dicts.writer import MADE_BY

TASKS = ("a", "b", "c")
FINETUNED = "finetuned={a: a.safetensors, b: b.safetensors, c: c.safetensors}"


def merge(folder, *arguments):
    given = {argument.partition("=")[0] for argument in arguments}
    line = ["method=weight_average", FINETUNED, "output=out.safetensors"]
    line = [setting for setting in line if setting.partition("=")[0] not in given]
    return tsv(folder, "merge", *line, *arguments)


def mean(states, weights=(1, 1, 1)):
    """Of what is not an integer; integer buffers are those of the first."""
    first, *_ = states.values()
    weighted = [*zip(states.values(), weights, strict=True)]
    return {
        name: sum(w * state[name].double() for state, w in weighted) / sum(weights)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.items()
    }


def is_mean(found, expected):
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].double(), tensor.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weights", [(1, 1, 1), (2, 0, 1)])
def test_it_is_the_mean_of_the_models(weights, tmp_path):
    states = write_checkpoints(tmp_path, TASKS)
    (tmp_path / "base.safetensors").unlink()
    shares = ", ".join(f"{t}: {w}" for t, w in zip(TASKS, weights, strict=True))
    done = merge(tmp_path, f"weights={{{shares}}}")
    assert done.code == 0, done.err
    assert "Without pretrained=, a stands in for it" in done.err
    assert "changes nothing" not in done.err
    written = open_state_dict(tmp_path / "out.safetensors")
    is_mean(dict(written), mean(states, weights))
    assert [*json.loads(written.metadata[MADE_BY])["inputs"]] == [*TASKS]


def test_a_card_names_the_models_and_its_recipe_makes_it_again(tmp_path):
    for seed, task in enumerate(TASKS):
        (tmp_path / task).mkdir()
        save(finetuned(seed), tmp_path / task / "model.safetensors")
    line = ["method=weight_average", "finetuned={a: a, b: b, c: c}"]
    done = tsv(tmp_path, "merge", *line, "output=out")
    assert done.code == 0, done.err
    card = (tmp_path / "out/README.md").read_text()
    assert "pretrained" not in card and "| c | c |" in card
    (tmp_path / "again.yaml").write_text(card.partition("```yaml\n")[2].partition("```")[0])
    assert tsv(tmp_path, "merge", "recipe=again.yaml", "output=again").code == 0
    same(dict(open_state_dict(tmp_path / "again")), dict(open_state_dict(tmp_path / "out")))


def test_in_memory_as_in_files(tmp_path):
    states = write_checkpoints(tmp_path, TASKS)
    [written] = made(tmp_path, "weight_average", "out.safetensors", base=None, tuned=files(TASKS))
    merged = tsv_bench.merge(None, states, "weight_average")
    same(merged, written)
    same(states["a"], finetuned(0))
    twice = {"a": states["a"], "b": states["a"], "c": states["b"]}  # not all need differ
    is_mean(tsv_bench.merge(None, twice, "weight_average"), mean(twice))


def test_values_that_are_not_finite_are_those_of_a_model(tmp_path):
    states = write_checkpoints(tmp_path, TASKS)
    for task in TASKS:  # the same in all: a mask
        states[task]["frozen"][0] = -torch.inf
        save(states[task], tmp_path / f"{task}.safetensors")
    assert merge(tmp_path).code == 0
    merged = open_state_dict(tmp_path / "out.safetensors")["frozen"]
    assert torch.equal(merged[0], states["a"]["frozen"][0]) and merged[1:].isfinite().all()
    for task in ("a", "b"):
        states[task]["frozen"][1, 1] = torch.nan
        save(states[task], tmp_path / f"{task}.safetensors")
        refused = merge(tmp_path, "overwrite=true")
        assert refused.code == 1 and "a: " in refused.err and "NaN or infinity" in refused.err


MISTAKES = {
    "method=ties": "pretrained= is missing. As in: tsv-merge method=ties pretrained=",
    "finetuned={a:a.safetensors}": "a mean without pretrained= needs two models or more",
    "finetuned={a:a.safetensors,b:a.safetensors}": "a, b are all the same",
    "alpha=0.5": "alpha= scales what is added to the pretrained model, which is not given",
    "alpha_by_depth=[0,1]": "alpha_by_depth= scales what is added to the pretrained model",
    "write=vector": "write=vector writes differences from the pretrained model",
    "write=lora rank=2": "write=lora writes differences from the pretrained model",
    "output=a.safetensors": "output a.safetensors is the checkpoint of a",
    "finetuned={a:a.safetensors,b:packed/b.safetensors}": "b.safetensors holds a difference",
}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    write_checkpoints(folder, TASKS)
    made(folder, "tsv_compress", "packed", write="compressed", tuned=files(TASKS))
    return folder


@pytest.mark.parametrize("line", MISTAKES)
def test_what_makes_no_sense_without_it_is_refused(line, three):
    refused = merge(three, *line.split(" "))
    assert refused.code == 1 and MISTAKES[line] in refused.err, refused.err
    assert not (three / "out.safetensors").exists()


def test_in_memory_it_is_refused_alike():
    states = {task: finetuned(seed) for seed, task in enumerate(TASKS)}
    with pytest.raises(ValueError, match="'ties' merges differences from a pretrained model"):
        tsv_bench.merge(None, states, "ties")
    with pytest.raises(ValueError, match="alpha= scales what is added to the pretrained model"):
        tsv_bench.merge(None, states, "weight_average", alpha=0.5)
