"""unseen= and evaluation.corruptions= on two small tasks, of which one is merged."""

import pytest
from stand_ins.commands import SMALL, begin_from, checkpoints, runs, tsv

from tsv_bench.benchmark.runs import find_runs, load_correct

BEYOND = ["unseen=[shapes]", "evaluation.corruptions=[contrast,jpeg_compression]"]
SUITE = "signs+shapes-unseen-shapes-contrast+jpeg_compression-3"


@pytest.mark.slow
def test_a_task_is_left_out_and_tested_and_images_are_corrupted(fine_tuned, tmp_path):
    folder = begin_from(fine_tuned, tmp_path)
    before = checkpoints(folder)
    methods = "method=individual,tsv_merge"
    result = tsv(folder, "bench", "--multirun", methods, "method.alphas=[1.0]", *BEYOND, *SMALL)
    assert result.code == 0, result.err
    assert checkpoints(folder) == before
    assert f"mini on {SUITE}, 1 task, 1 unseen" in result.out
    assert "Shapes (unseen)" in result.out and "jpeg compression" in result.out
    found = runs(folder)
    merged, individual = found["tsv_merge"], found["individual"]
    for run in (merged, individual):
        assert (list(run.tasks), list(run.unseen.tasks), run.suite) == (
            ["signs"],
            ["shapes"],
            SUITE,
        )
        assert list(run.checkpoints) == ["signs", "pretrained"]
        assert list(run.corrupted.test) == ["contrast", "jpeg_compression"]
        assert list(run.settings["tasks"]) == ["signs"] and "shapes" in run.settings["unseen"]
    # One merged task is served its own model, as by individual; the other is not.
    assert merged.test == individual.test and merged.corrupted == individual.corrupted
    assert merged.unseen.test["shapes"].correct < individual.unseen.test["shapes"].correct
    assert merged.unseen.normalizer == {"shapes": individual.unseen.test["shapes"].accuracy}
    assert individual.unseen.normalized == 1
    [(path, run)] = find_runs(folder, method="tsv_merge")
    assert set(load_correct(path, run)) == set(run.scores)

    refused = tsv(folder, "bench", "method=tsv_compress", *BEYOND, *SMALL)
    assert refused.code == 1 and "has a model for each of the merged tasks" in refused.err
