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
