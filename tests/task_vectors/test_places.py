"""A layer's place in a network is read from its name."""

import pytest

from tsv_bench.task_vectors.places import place_of, relative_depths

PLACES = {
    "visual.transformer.resblocks.11.attn.in_proj_weight":
        ("visual.transformer.resblocks", 11, "attn.in_proj"),
    "model.layers.3.self_attn.q_proj.weight": ("model.layers", 3, "self_attn.q_proj"),
    "layers.0.experts.5.w1.weight": ("layers", 0, "experts.*.w1"),
    "visual.proj": ("", None, "visual.proj"),
    "lm_head.weight": ("", None, "lm_head"),
    "heads.7": ("", None, "heads.7"),
    "w": ("", None, "w"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_place_is_read_from_the_name(name):
    place = place_of(name)
    assert (place.stack, place.depth, place.kind) == PLACES[name]
    assert place.block == (f"{place.stack}.{place.depth}" if place.stack else place.kind)


def test_depths_are_relative_to_the_stack():
    names = [
        f"visual.transformer.resblocks.{i}.{w}" for i in range(5) for w in ("bias", "ln.weight")
    ]
    text = [f"transformer.resblocks.{i}.bias" for i in range(3)]
    found = relative_depths([*reversed(names), *text, "visual.proj", "head.0.weight"])
    assert [found[name] for name in names[::2]] == [0, 0.25, 0.5, 0.75, 1]
    assert all(
        found[bias] == found[weight] for bias, weight in zip(*[iter(names)] * 2, strict=True)
    )
    assert [found[name] for name in text] == [0, 0.5, 1]
    assert found["visual.proj"] == found["head.0.weight"] == 0
    assert relative_depths([]) == {}
