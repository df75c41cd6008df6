"""A method may be another one's knob."""

import pytest
from made_up.pixel_bench import PixelBench

from tsv_bench import methods
from tsv_bench.methods.by_name import method_by_name


def named(name, knobs=None):
    return method_by_name("base", name, "base_knobs", knobs)


def test_the_method_gets_the_knobs_that_are_not_null():
    found = named("ties", {"density": 0.1, "merge": None})
    assert found.func is methods.ties and found.keywords == {"density": 0.1}
    for knobs in (None, {}, {"density": None}):
        assert named("ties", knobs).keywords == {}


def test_what_a_method_needs_is_given_to_the_one_that_takes_it_and_is_no_knob():
    bench = PixelBench({}, "a")
    found = method_by_name("base", "ada_merging", "base_knobs", {"steps": 2}, bench=bench)
    assert found.keywords == {"steps": 2, "bench": bench}
    found = method_by_name("base", "task_arithmetic", "base_knobs", None, bench=bench)
    assert found.keywords == {}
    with pytest.raises(ValueError, match="base_knobs has 'bench', .* its knobs are by, start,"):
        method_by_name("base", "ada_merging", "base_knobs", {"bench": None}, bench=bench)


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("tie", None, "base='tie' is not a method: .*, ties, "),
        (None, None, "base=None is not a method"),
        (["ties"], None, r"base=\['ties'\] is not a method"),
        ("regmean", None, "base=regmean needs inputs, which is data and no knob. Choose a method"),
        ("ties", {"densty": 0.1}, "base_knobs has 'densty', .* its knobs are density, merge"),
        ("task_arithmetic", {"a": 1}, "base=task_arithmetic does not take: its knobs are none"),
        ("ties", {"density": 2}, r"density=2 is not in \(0, 1\]"),
        ("ties", "density", "base_knobs='density' is not a mapping of knobs"),
        ("ties", [0.1], r"base_knobs=\[0.1\] is not a mapping"),
    ],
)
def test_mistakes_are_named(name, knobs, message):
    with pytest.raises(ValueError, match=message):
        named(name, knobs)
