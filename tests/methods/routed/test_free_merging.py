"""FREE-Merging's experts, by hand: what is kept, by how much it is scaled, what it replaces."""

import math

import pytest
import torch
from made_up.vectors import close, randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.forms import Routed
from tsv_bench.methods.served import served_by
from tsv_bench.task_vectors.matrices import Matrices

MATRICES = ["in_proj_weight", "proj", "c_proj.weight"]  # text_projection is averaged by the policy


def largest(delta, count):
    """Where the largest entries of a flat tensor are."""
    kept = torch.zeros(delta.numel(), dtype=torch.bool)
    kept[delta.flatten().abs().argsort(descending=True)[:count]] = True
    return kept.reshape(delta.shape)


def kept_by(top, density, vector):
    """Layer -> what an expert keeps."""
    if top == "whole":
        sizes = torch.cat([delta.abs().flatten() for delta in vector.values()])
        bound = sizes.sort(descending=True).values[round(density * len(sizes)) - 1]
        return {name: (delta.abs() >= bound) for name, delta in vector.items()}
    found = {}
    for name, delta in vector.items():
        rows = [delta] if top == "tensor" or delta.ndim < 2 else delta.reshape(-1, delta.shape[-1])
        kept = [largest(row, max(1, int(density * row.numel()))) for row in rows]
        found[name] = torch.stack(kept).reshape(delta.shape) & (delta != 0)
    return found


def scale_of(rescale, density, vectors, task, kept):
    delta = vectors[task]
    if rescale == "fixed":
        return 3.0
    if rescale == "code":
        means = [delta[name].abs().mean() for name in MATRICES]
        of_kept = [delta[name][kept[name]].abs().mean() for name in MATRICES]
        return -math.log10(density) * sum(of_kept) / sum(means)
    total = {t: sum(d.abs().sum() for d in v.values()) for t, v in vectors.items()}
    masked = sum(delta[name][kept[name]].abs().sum() for name in delta)
    share = total[task] / sum(total.values())
    return -math.log(density) * masked / total[task] / share


@pytest.mark.parametrize("combine", ["replace", "add"])
@pytest.mark.parametrize(
    ("top", "rescale"), [("row", "code"), ("tensor", "paper"), ("whole", "fixed"), ("row", "paper")]
)
def test_experts_are_those_of_the_definition(top, rescale, combine):
    vectors, density = random_vectors(3), 0.2
    vectors = {t: {n: d for n, d in v.items() if n != "frozen"} for t, v in vectors.items()}
    served = read(
        methods.free_merging(
            vectors, bench=None, top=top, rescale=rescale, factor=3, combine=combine,
            density=density, backbone_scale=0.4, expert_scale=0.7,
        )
    )  # fmt: skip
    fr = methods.fr_merging(vectors, centre="highest", radius=0.7, weights="one")
    for task, vector in vectors.items():
        kept = kept_by(top, density, vector)
        scale = scale_of(rescale, density, vectors, task, kept)
        for name, delta in vector.items():
            factor = 0.7 * (scale if name in MATRICES else 1)
            shared = 0.4 * fr[task][name]
            expert = torch.where(kept[name], factor * delta, 0)
            expected = torch.where(kept[name], expert, shared)
            expected = expected if combine == "replace" else shared + expert
            torch.testing.assert_close(served[task][name], expected, **close)


def test_matrices_are_those_of_the_policy():
    assert [n for n in random_vectors(1)["task0"] if Matrices().is_matrix(n, (2, 2))][
        :3
    ] == MATRICES


def test_a_task_that_changed_nothing_has_no_expert():
    vectors = random_vectors(2)
    vectors["task1"] = {name: torch.zeros_like(d) for name, d in vectors["task1"].items()}
    served = read(methods.free_merging(vectors, bench=None))
    fr = methods.fr_merging(vectors, centre="highest", radius=0.7, weights="one")["task1"]
    for name, delta in served["task1"].items():
        torch.testing.assert_close(delta, 0.25 * fr[name], **close)


def test_stored_are_the_shared_vector_and_what_experts_keep_with_its_places():
    vectors = {t: {"m": randn(10, 200), "bias": randn(7)} for t in "ab"}
    served = served_by(lambda v: methods.free_merging(v, bench=None), vectors, "free")
    assert isinstance(served, Routed)
    # Two of each row of 200, one of the bias; a value and where it stands.
    assert served.routing.expert_bytes() == 2 * (10 * 2 + 1) * 8


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"density": 0}, "density=0"), ({"top": "column"}, "top='column'"),
        ({"rescale": "no"}, "rescale='no'"), ({"factor": 0}, "factor=0"),
        ({"combine": "mix"}, "combine='mix'"), ({"backbone_scale": 0}, "backbone_scale=0"),
        ({"expert_scale": -1}, "expert_scale=-1"), ({"router_epochs": 0}, "router_epochs=0"),
        ({"radius": -1}, "radius=-1"),
    ],
)  # fmt: skip
def test_knobs_out_of_range(knob, message):
    with pytest.raises(ValueError, match=message):
        methods.free_merging({}, bench=None, **knob)
