"""Merging layer by layer, by the rule of each layer."""

from functools import partial

import pytest
import torch

from tsv_bench.task_vectors import merge
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.merge import map_layers, merge_entries, merge_layers


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("visual.transformer.resblocks.0.attn.in_proj_weight", (9, 3), True),
        ("model.visual.positional_embedding", (5, 3), True),
        ("model.visual.proj", (3, 2), True),
        ("model.text_projection", (3, 2), False),
        ("token_embedding.weight", (9, 3), False),
        ("visual.conv1.weight", (3, 3, 2, 2), False),
        ("visual.ln_pre.weight", (3,), False),
        ("logit_scale", (), False),
    ],
)
def test_which_layers_are_matrices(name, shape, expected):
    assert Matrices().is_matrix(name, shape) is expected


def test_layers_are_merged_by_their_rule():
    vectors = [{"w": torch.ones(2, 3), "b": torch.ones(3), "z": torch.zeros(2, 2)} for _ in "ab"]
    vectors[1]["b"] = torch.full((3,), 4.0)

    def largest(deltas):
        assert deltas.shape == (2, 2, 3)  # never asked about z, which is zero
        return 5 * deltas.amax(dim=0)

    merged = merge_layers(iter(vectors), largest)
    assert list(merged) == ["w", "b", "z"]
    assert torch.equal(merged["w"], torch.full((2, 3), 5.0))
    assert torch.equal(merged["b"], torch.full((3,), 2.5))
    assert torch.equal(merged["z"], torch.zeros(2, 2))
    merged = merge_layers(vectors, largest, lambda deltas: deltas.sum(dim=0))
    assert torch.equal(merged["b"], torch.full((3,), 5.0))


def test_a_rule_that_has_a_parameter_for_it_gets_the_layers_name():
    vectors = [{"w": torch.ones(2, 3), "b": torch.ones(3)}] * 2
    seen = []

    def rule(deltas, name=None):
        seen.append(name)
        return deltas.sum(dim=0)

    def of_first(name):  # deltas, whatever they are called
        return name.sum(dim=0)

    merge_layers(vectors, rule, rule)["w"]
    merge_layers(vectors, rule, rule)["b"]
    merge_entries(vectors, partial(rule))["b"]
    assert seen == ["w", "b", "b"]
    merge_entries(vectors, partial(rule, name="mine"))["b"]
    assert seen[3:] == ["mine"]
    assert torch.equal(merge_entries(vectors, of_first)["b"], torch.full((3,), 2.0))
    merged = merge_layers(vectors, lambda deltas, *, name: deltas[0] * len(name), torch.sum)
    assert torch.equal(merged["w"], torch.ones(2, 3))


def test_matrices_that_take_much_memory_are_merged_one_at_a_time(monkeypatch):
    vectors = [{"w": torch.ones(4, 6), "bias": torch.ones(3)}] * 2
    monkeypatch.setattr(merge, "IN_FLIGHT", 200)

    def part(**settings):
        [found] = merge_layers(vectors, lambda deltas: deltas[0], **settings).parts("w")
        return found.num_entries, found.alone

    assert part() == (48, False)
    assert part(work=lambda shape: shape[0] * 10) == (88, False)
    assert part(work=lambda shape: shape[1] * 10) == (108, True)  # two would be more than 200
    [of_bias] = merge_layers(vectors, torch.sum, work=lambda shape: 10**9).parts("bias")
    assert not of_bias.alone


def test_vectors_of_different_backbones_do_not_merge():
    with pytest.raises(
        ValueError, match="different layers: 2 appear in only one of them, first 'a'"
    ):
        merge_layers([{"a": torch.ones(1)}, {"b": torch.ones(1)}], torch.sum)


def test_map_layers_computes_on_access_only():
    seen = []

    def double(name, delta):
        seen.append(name)
        return 2 * delta

    vector = map_layers({"w": torch.ones(2), "b": torch.ones(3)}, double)
    seen.clear()  # of what the type checker of the tests looked at
    assert torch.equal(vector["b"], torch.full((3,), 2.0))
    assert seen == ["b"]
