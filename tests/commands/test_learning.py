"""Methods that learn, by tsv-bench on two small tasks: the Run says what they saw."""

import pytest
from stand_ins.commands import SMALL, TASKS, begin_from, numbers, runs, tsv


@pytest.fixture(scope="module")
def folder(fine_tuned, tmp_path_factory):
    return begin_from(fine_tuned, tmp_path_factory.mktemp("learning"))


def test_coefficients_are_learned_and_the_run_says_of_what(folder):
    few = ("method=ada_merging", "method.steps=3", "method.batch_size=4", "method.images=9")
    done = tsv(folder, "bench", *few, *SMALL)
    assert done.code == 0, done.err
    header, row = [
        line for line in done.out.splitlines() if line.startswith(("method", "AdaMerging"))
    ]
    assert "data" in header and "9 unlabelled val" in row
    run = runs(folder)["ada_merging"]
    assert run.seen.text == "9 unlabelled val" and not run.task_known
    passes = 3 * 4 * len(TASKS)
    assert (run.seen.forward_passes, run.seen.backward_passes) == (passes, passes)
    assert run.seen.seconds > 0 and run.alpha == 1.0
    first = numbers(folder, "ada_merging")
    assert tsv(folder, "bench", *few, *SMALL, "overwrite=true").code == 0
    assert numbers(folder, "ada_merging") == first


def test_adapters_are_learned_on_a_learned_base_and_the_tasks_are_known(folder):
    few = ["method=surgery", "method.base=ada_merging", "method.base_alpha=1", "method.images=9"]
    knobs = "method.base_knobs={steps: 3, batch_size: 4}"
    done = tsv(folder, "bench", *few, knobs, "method.steps=4", *SMALL)
    assert done.code == 0, done.err
    found = [line for line in done.out.splitlines() if line.startswith(("method", "Surgery"))]
    assert "data" in found[0] and "9 unlabelled val" in found[1]
    run, base = (runs(folder)[method] for method in ("surgery", "ada_merging"))
    learned = 3 * 4 * len(TASKS)
    assert (run.seen.forward_passes, run.seen.backward_passes) == (2 * 9 * 2 + learned, learned)
    assert run.task_known and run.seen.text == "9 unlabelled val"
    adapter = 16 * 128 + 128 * 16
    assert run.stored_bytes == base.stored_bytes + len(TASKS) * 4 * adapter
    first = numbers(folder, "surgery")
    assert tsv(folder, "bench", *few, knobs, "method.steps=4", *SMALL, "overwrite=true").code == 0
    assert numbers(folder, "surgery") == first


def test_images_are_routed_and_the_table_says_how_well(folder):
    few = ["method=free_merging", "method.images=9", "method.router_epochs=3"]
    done = tsv(folder, "bench", *few, *SMALL, "layout=leaderboard")
    assert done.code == 0, done.err
    assert "router chooses, train" in done.out
    assert "FREE-Merging: its router finds the task of" in done.out
    run = runs(folder)["free_merging"]
    assert not run.task_known and run.seen.text == "9 unlabelled train"
    assert run.seen.forward_passes == 9 * len(TASKS)
    for kind in (run.router.found, run.router.oracle, run.router.head_found):
        assert {t: s.total for t, s in kind.items()} == {t: s.total for t, s in run.test.items()}
    assert run.details["router"]["held_out"] == dict.fromkeys(TASKS, 2)
    first = numbers(folder, "free_merging")
    assert tsv(folder, "bench", *few, *SMALL, "overwrite=true").code == 0
    assert numbers(folder, "free_merging") == first


def test_a_router_is_for_one_scale(folder):
    done = tsv(
        folder,
        "bench",
        "method=twin_merging",
        "method.images=9",
        "method.alphas=[0.5, 1.0]",
        *SMALL,
    )
    assert done.code == 1 and "its alphas are [0.5, 1.0] and must be [1.0]" in done.err
