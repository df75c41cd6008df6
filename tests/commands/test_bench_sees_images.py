"""tsv-bench by methods that run the network themselves: what they saw is in the Run."""

import pytest
from stand_ins.commands import SMALL, TASKS, begin_from, runs, tsv

# Method, images a task, passes of an image through the network: forward, backward.
METHODS = [
    ("regmean_plus_plus", ["method.images=9"], "9 unlabelled train", (2 * 9, 0)),
    # Own blocks, the losses at start and end, and the merged blocks; learning.
    (
        "pro_distill",
        ["method.images=9", "method.epochs=2"],
        "9 unlabelled train",
        ((1 + 2 + 1 + 2) * 9, 2 * 9),
    ),
    (
        "localize_and_stitch",
        ["method.images=9", "method.epochs=2"],
        "9 labelled train",
        (2 * 9, 2 * 9),
    ),
]


@pytest.mark.parametrize(("method", "settings", "seen", "passes"), METHODS)
def test_a_run_says_what_was_seen(method, settings, seen, passes, fine_tuned, tmp_path):
    folder = begin_from(fine_tuned, tmp_path)
    done = tsv(folder, "bench", f"method={method}", *settings, *SMALL)
    assert done.code == 0, done.err
    run = runs(folder)[method]
    assert seen in done.out and run.seen.text == seen
    found = (run.seen.forward_passes, run.seen.backward_passes)
    assert found == tuple(len(TASKS) * number for number in passes)
    assert run.seen.seconds >= run.seconds["merge"] > 0
