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
