"""What methods see of data: lazily, a task at a time, and checked."""

import weakref
from functools import partial

import pytest
import torch
from made_up.statistics import grams_of, made_up_fisher, made_up_grams, made_up_inputs
from made_up.vectors import SHAPES, close, random_vectors

from tsv_bench import methods
from tsv_bench.methods.forms import Shared
from tsv_bench.methods.observed.observations import Observations, merge_observed
from tsv_bench.methods.served import served_by
from tsv_bench.task_vectors.lazy import PlainLayers
from tsv_bench.task_vectors.statistics import Statistics


class Counted(PlainLayers):
    """Statistics or deltas that know how many tensors of all of them are alive."""

    reads_rows = False

    def __getitem__(self, name):
        found = super().__getitem__(name).clone()
        Tensors.alive[id(found)] = weakref.ref(found)
        Tensors.reads.append(name)
        Tensors.most = max(Tensors.most, sum(ref() is not None for ref in Tensors.alive.values()))
        return found


class Tensors:
    alive, most, reads = {}, 0, []


@pytest.fixture(autouse=True)
def none_alive():
    Tensors.alive, Tensors.most, Tensors.reads = {}, 0, []


def test_nothing_is_read_before_a_layer_is_wanted_and_then_a_task_at_a_time():
    vectors = random_vectors(5)
    grams = {t: Statistics(Counted(dict(g))) for t, g in made_up_grams(SHAPES, vectors).items()}
    deltas = {task: Counted(vector) for task, vector in vectors.items()}
    merged = merge_observed(deltas, grams, lambda name, seen: sum(x.delta @ x.gram for x in seen))
    assert not Tensors.reads
    found = merged["proj"]
    assert Tensors.reads == ["proj"] * 10
    assert Tensors.most <= 4  # a delta and its Gram, while the next are being read
    expected = sum(vectors[t]["proj"] @ made_up_grams(SHAPES, vectors)[t]["proj"] for t in vectors)
    torch.testing.assert_close(found, expected, **close)


def test_a_rule_gets_outputs_by_inputs_and_the_count():
    vectors = random_vectors(2)
    grams = {t: grams_of(x, axis=0) for t, x in made_up_inputs(SHAPES, vectors, 17).items()}
    stored = {t: {"w": v["in_proj_weight"].mT} for t, v in vectors.items()}
    named = {t: Statistics({"w": g["in_proj_weight"]}, {"w": g.gathered("in_proj_weight")})
             for t, g in grams.items()}  # fmt: skip
    for seen, vector in zip(Observations(stored, named).each("w"), vectors.values(), strict=True):
        assert torch.equal(seen.delta, vector["in_proj_weight"]) and seen.count == 17


def test_a_layer_that_one_task_has_no_statistics_of_is_averaged():
    vectors = random_vectors(3)
    grams = made_up_grams(SHAPES, vectors)
    grams["task1"] = {name: g for name, g in grams["task1"].items() if name != "proj"}
    merged, mean = methods.regmean(vectors, inputs=grams)["task0"], methods.weight_average(vectors)
    for name in ("proj", "bias", "conv1.weight", "logit_scale"):
        assert torch.equal(merged[name], mean["task0"][name])
    grams = {task: dict(of_task) for task, of_task in grams.items()}
    assert not torch.allclose(
        methods.regmean(vectors, inputs=grams)["task0"]["in_proj_weight"],
        mean["task0"]["in_proj_weight"],
    )


def test_no_layer_in_common_is_a_warning(caplog):
    vectors = random_vectors(2)
    merged = methods.regmean(vectors, inputs={"task0": {}, "task1": {}})["task0"]
    assert torch.equal(merged["proj"], methods.weight_average(vectors)["task0"]["proj"])
    merged["bias"]
    assert caplog.text.count("no layer has statistics of its inputs in every task") == 1


def test_a_task_without_statistics_is_named_once_a_layer_is_wanted():
    vectors = random_vectors(2)
    served = methods.regmean(vectors, inputs={"task0": {}})
    with pytest.raises(ValueError, match="no statistics of the inputs of task1, but of task0"):
        served["task0"]["proj"]


@pytest.mark.parametrize("name", ["regmean", "lot", "mats", "esm", "anchored_regression", "fisher"])
@pytest.mark.parametrize("num_tasks", [1, 3])
def test_their_form_is_found_by_a_trial_of_other_layers_and_tasks(name, num_tasks):
    vectors = random_vectors(num_tasks)
    if name == "fisher":
        knobs = {"fisher": made_up_fisher(SHAPES, vectors)}
    else:
        knobs = {"inputs": made_up_grams(SHAPES, vectors)}
    served = served_by(partial(getattr(methods, name), **knobs), vectors, name)
    assert type(served) is Shared
    assert served["task0"]["proj"].shape == (12, 12)


def broken(kind, gram):
    gram = gram.clone()
    if kind == "shape":
        return gram[:5, :5]
    if kind == "nan":
        gram[0, 0] = torch.nan
    elif kind == "asymmetric":
        gram[0, 1] += 0.01 * gram.abs().max()
    elif kind == "negative":
        gram[3, 3] = -1
    elif kind == "whole":
        return gram.long()
    return gram


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("shape", r"with shape \(5, 5\); its 12 inputs make it \(12, 12\)"),
        ("nan", "no finite numbers"),
        ("asymmetric", "not symmetric"),
        ("negative", "negative diagonal"),
        ("whole", "no finite numbers"),
    ],
)
def test_what_are_no_statistics_of_the_inputs_is_refused_with_task_and_layer(kind, message):
    vectors = random_vectors(3)
    grams = {task: dict(of_task) for task, of_task in made_up_grams(SHAPES, vectors).items()}
    grams["task1"]["proj"] = broken(kind, grams["task1"]["proj"])
    served = methods.regmean(vectors, inputs=grams)
    with pytest.raises(ValueError, match="the statistics of task1 have 'proj'.*" + message):
        served["task0"]["proj"]


def test_tasks_that_do_not_agree_on_the_axis_are_refused():
    vectors = random_vectors(2)
    inputs = made_up_inputs(SHAPES, vectors)
    grams = {t: grams_of(inputs[t], axis) for axis, t in enumerate(inputs)}
    with pytest.raises(ValueError, match="the statistics say {'task0': 0, 'task1': 1}"):
        methods.regmean(vectors, inputs=grams)["task0"]["proj"]


def test_no_inputs_are_refused():
    vectors = random_vectors(1)
    grams = made_up_grams(SHAPES, vectors, 0)
    with pytest.raises(ValueError, match="of 0 inputs"):
        methods.regmean(vectors, inputs=grams)["task0"]["proj"]
