"""The forms of serving: what each stores, and what is in memory."""

from functools import partial

import pytest
import torch
from made_up.pixel_bench import PixelBench
from made_up.vectors import SHAPES, random_vectors

from tsv_bench import methods
from tsv_bench.methods.forms import as_served
from tsv_bench.methods.served import served_by

SIZE = sum(d.numel() for name, d in random_vectors(1)["task0"].items() if name != "frozen")
BITS = sum(-(-d.numel() // 8) for name, d in random_vectors(1)["task0"].items() if name != "frozen")
BENCH = PixelBench(SHAPES, [f"task{t}" for t in range(3)])
FACTORS = {"in_proj_weight": (30, 10), "proj": (12, 12), "c_proj.weight": (10, 40),
           "text_projection": (6, 6)}  # fmt: skip


@pytest.mark.parametrize(
    ("serve", "expected"),
    [
        (methods.zero_shot, 0),
        (methods.task_arithmetic, 4 * SIZE),
        (methods.individual, 3 * 4 * SIZE),
        (partial(methods.tall_mask_ta, mask_lambda=0.4), 4 * SIZE + 3 * BITS),
        (methods.emr, 4 * SIZE + 3 * BITS),
        (partial(methods.surgery, bench=BENCH, steps=1), 4 * SIZE + 3 * 4 * 2 * 16 * BENCH.dim),
        (
            partial(methods.tsv_compress, rank_fraction=0.5),
            3 * 4 * (
                SIZE - sum(m * n for m, n in FACTORS.values())
                + sum((m + n + 1) * (min(m, n) // 2) for m, n in FACTORS.values())
            ),
        ),
    ],
)  # fmt: skip
def test_stored_bytes_are_those_of_the_files(serve, expected):
    """Frozen layers are in none of them; what tasks share counts once."""
    vectors = random_vectors(3)
    served = served_by(serve, vectors, "made up")
    assert served.stored_bytes() == served.in_memory().stored_bytes() == expected


@pytest.mark.parametrize(
    "serve",
    [
        methods.task_arithmetic,
        methods.individual,
        methods.tsv_compress,
        partial(methods.tall_mask_ta, mask_lambda=0.4),
        partial(methods.surgery, bench=BENCH, steps=1),
    ],
)
def test_in_memory_it_is_the_same(serve):
    vectors, layers = random_vectors(3), []
    served = served_by(serve, vectors, "made up")
    found = served.in_memory(lambda: layers.append(1))
    assert len(layers) in (0, len(vectors["task0"]))  # none where each task has its own
    for task in vectors:
        expected = served.layers(task)
        assert list(found.layers(task)) == list(expected) == list(vectors[task])
        for name, layer in expected.items():
            torch.testing.assert_close(found.layers(task)[name], layer, rtol=0, atol=0)


def test_computing_what_is_served_is_timed_and_only_that():
    served = served_by(methods.tsv_compress, random_vectors(2), "made up")
    assert served.seconds == 0
    served.layers("task0")
    assert served.seconds > 0
    there = as_served(random_vectors(2))
    there.layers("task0")
    assert there.seconds == 0


def test_adapters_stand_beside_one_vector_that_is_one_object():
    served = served_by(partial(methods.surgery, bench=BENCH, steps=1), random_vectors(3), "made up")
    there = served.in_memory()
    assert there["task0"] is there["task2"] and there.layers("task0") is there.layers("task2")
    for task in there:
        assert there.adapter(task) is served.adapter(task) is not None
    assert as_served(random_vectors(2)).adapter("task0") is None
