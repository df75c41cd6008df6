"""Two methods compared: the numbers, what is refused, and the names of rows."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from made_up.runs import TASKS, make_run, of_generation
from stand_ins.commands import tsv

from tsv_bench.benchmark.runs import save_run
from tsv_bench.report.tables import statistics
from tsv_bench.report.tables.two_methods import compare
from tsv_bench.report.text.two_methods import (
    comparison_csv,
    comparison_markdown,
    comparison_terminal,
)

pytestmark = pytest.mark.usefixtures("few_resamples")

METHODS = ("tsv_merge", "ties", "individual")


def evaluated(seeds=(0,), methods=METHODS, **changes):
    return [make_run(method, seed, **changes) for method in methods for seed in seeds]


def one(runs, names=("tsv_merge", "ties")):
    [compared], refused = compare(runs, names)
    assert refused == []
    return compared


def stacked(method, seeds):
    bits = [make_run(method, seed)[1] for seed in seeds]
    return {task: np.stack([b[task] for b in bits]) for task in TASKS}


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_means_are_those_of_the_runs(seeds):
    compared = one(evaluated(seeds))
    runs = [[make_run(method, seed)[0] for seed in seeds] for method in METHODS]
    for name in ("absolute", "normalized"):
        paired = getattr(compared, name)
        first, second = ([getattr(run, name) for run in side] for side in runs[:2])
        assert paired.first.value == pytest.approx(np.mean(first))
        assert paired.second.value == pytest.approx(np.mean(second))
        assert paired.difference.value == pytest.approx(np.mean(first) - np.mean(second))
        by_seed = np.subtract(first, second)
        expected = statistics.over_seeds(by_seed)
        if expected is None:
            assert paired.difference.seeds is None
        else:
            found = paired.difference.seeds
            assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
        found = paired.difference.images
        assert found.low < paired.difference.value < found.high
        assert 0 < paired.p < 0.05
    first, second = (stacked(method, seeds) for method in METHODS[:2])
    assert compared.absolute.difference == statistics.difference(first, second)
    assert compared.notes == ()


def test_the_other_way_round_it_is_the_same_with_the_other_sign():
    here, there = one(evaluated()), one(evaluated(), ("ties", "tsv_merge"))
    assert here.absolute.difference.value == -there.absolute.difference.value
    assert here.absolute.p == there.absolute.p
    for task in TASKS:
        a, b = here.tasks[task], there.tasks[task]
        assert (a.only_first, a.only_second) == (b.only_second, b.only_first)
        assert {a.outcome, b.outcome} in ({"tie"}, {"win", "loss"})


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_counts_of_a_task_are_mcnemars_cells(seeds):
    compared = one(evaluated(seeds))
    first, second = (stacked(method, seeds) for method in METHODS[:2])
    for task, of_task in compared.tasks.items():
        assert of_task.only_first == (first[task] & ~second[task]).sum()
        assert of_task.only_second == (~first[task] & second[task]).sum()
        discordant = of_task.only_first - of_task.only_second
        assert of_task.difference == pytest.approx(discordant / (len(seeds) * of_task.num_images))
        assert of_task.first_interval.low < of_task.first < of_task.first_interval.high
        assert of_task.first_interval == statistics.wilson(of_task.first, 200)


def test_outcomes_need_an_interval_without_zero():
    run, correct = make_run("ties", tasks=("digits", "land", "greek"))
    right = {task: np.ones(200, bool) for task in correct}
    other = {task: bits.copy() for task, bits in right.items()}
    other["digits"][:20] = False
    other["land"][:2] = False
    right["greek"][:20] = False
    runs = []
    for method, bits in (("tsv_merge", right), ("ties", other)):
        scored, _ = make_run(method, tasks=("digits", "land", "greek"))
        test = {t: replace(scored.test[t], accuracy=float(b.mean()), correct=int(b.sum()))
                for t, b in bits.items()}  # fmt: skip
        runs.append((replace(scored, test=test), bits))
    outcomes = {task: found.outcome for task, found in one(runs).tasks.items()}
    assert outcomes == {"digits": "win", "land": "tie", "greek": "loss"}
    assert "1 win, 1 tie, 1 loss for TSV-M" in comparison_markdown([one(runs)])


def test_without_the_individual_models_the_normalized_difference_has_no_image_interval():
    paired = one(evaluated((0, 1), METHODS[:2])).normalized
    assert paired.difference.images is None and paired.p is None
    assert paired.difference.seeds
    means = [np.mean([make_run(m, s)[0].normalized for s in (0, 1)]) for m in METHODS[:2]]
    assert paired.difference.value == pytest.approx(means[0] - means[1])


def test_seeds_that_only_one_has_are_left_out_and_said():
    compared = one([*evaluated((0, 1)), make_run("ties", 2)])
    assert compared.first.seeds == compared.second.seeds == (0, 1)
    assert any("seeds that both have, 0, 1, of 2 and 3" in note for note in compared.notes)
    with pytest.raises(ValueError, match="no fine-tuning seed in common: 1 and 0"):
        compare([make_run("tsv_merge", 1), make_run("ties", 0)], ["tsv_merge", "ties"])


def test_the_newest_of_two_runs_of_a_cell_counts_and_is_said():
    old, _ = make_run("ties", created="2024-01-01T00:00:00+00:00", fingerprint="old")
    bits = {task: np.zeros(200, bool) for task in TASKS}
    compared = one([(old, bits), *evaluated()])
    assert compared.absolute.second.value == pytest.approx(make_run("ties")[0].absolute)
    assert any("TIES, seed 0: the newest of several" in note for note in compared.notes)


def changed(what):
    run, correct = make_run("ties")
    if what == "checkpoints":
        other = run.checkpoints | {"land": {"sha256": "0ther", "generation": "finetune"}}
        run = replace(run, checkpoints=other)
    elif what == "pretrained":
        other = run.checkpoints | {"pretrained": {"sha256": "0ther", "generation": "pretrain"}}
        run = replace(run, checkpoints=other)
    elif what == "generation":
        run = replace(run, checkpoints=of_generation(run, {"land": "fixed"}))
    elif what == "data":
        run = replace(run, data=run.data | {"land": "other"})
    elif what == "split":
        run = replace(run, variants={"land": "test images of the train split"})
    elif what == "number":
        return make_run("ties", num_images=150)
    return run, correct


@pytest.mark.parametrize(("what", "named"), [
    ("checkpoints", "'land' checkpoints are not of one file.*0ther"),
    ("pretrained", "'pretrained' checkpoints are not of one file"),
    ("generation", "'land' checkpoints are not of one generation, finetune .* against fixed"),
    ("data", "task 'land': 200 images of data data-land against 200 of other"),
    ("split", "task 'land': the default against test images of the train split"),
    ("number", "200 images of .* against 150"),
])  # fmt: skip
def test_what_cannot_be_compared_is_refused_and_named(what, named):
    with pytest.raises(ValueError, match=named):
        compare([make_run("tsv_merge"), changed(what)], ["tsv_merge", "ties"])


def test_one_table_that_is_refused_leaves_the_others():
    small = evaluated(suite="mini2", tasks=TASKS[:2])
    compared, [refused] = compare([make_run("tsv_merge"), changed("data"), *small],
                                  ["tsv_merge", "ties"])  # fmt: skip
    assert [c.name for c in compared] == ["mini-mini2"]
    assert refused.startswith("mini-mini8: ") and "'land'" in refused
    for render in (comparison_markdown, comparison_terminal):
        assert "not compared, mini-mini8: " in render(compared, [refused])


def test_lost_images_are_named():
    run, _ = make_run("ties")
    with pytest.raises(ValueError, match="correctness of TIES, seed 0 .* is lost"):
        compare([make_run("tsv_merge"), (run, None)], ["tsv_merge", "ties"])


def test_other_precisions_are_said():
    rough = make_run("ties", settings={"evaluation": {"precision": "bfloat16"}})
    notes = one([make_run("tsv_merge"), rough]).notes
    assert any("different precisions: TSV-M in float32, TIES in bfloat16" in n for n in notes)


def several():
    knobs = [{"density": density, "merge": "mean"} for density in (0.1, 0.2)]
    return [make_run("tsv_merge"),
            *(make_run("ties", knobs=k, fingerprint=str(k["density"])) for k in knobs)]  # fmt: skip


def test_rows_of_one_method_are_named_by_their_knobs():
    compared = one(several(), ("ties:density=0.1", "ties:density=0.20"))
    assert compared.first.label == "TIES (density=0.1)"
    assert compared.first.runs[0].knobs["density"] == 0.1
    assert compared.second.runs[0].knobs["density"] == 0.2
    assert one(several(), ("tsv_merge", "ties:density=0.1:merge=mean"))


@pytest.mark.parametrize(("names", "message"), [
    (["tsv_merge", "ties"], "'ties' is 2 rows of mini-mini8; name one of: ties:density=0.1, "
                            "ties:density=0.2"),
    (["tsv_merg", "ties"], "'tsv_merg'; did you mean 'tsv_merge'. There are Runs of: ties, tsv_m"),
    (["tsv_merge", "ties:densty=0.1"], "no knob 'densty'; did you mean 'density'"),
    (["tsv_merge", "ties:density=0.3"], "of ties has density=0.3; there is density=0.1, 0.2"),
    (["tsv_merge", "ties:density=x"], "no Run of ties has density=x"),
    (["tsv_merge"], "not a list of two rows"),
    (["ties", "ties"], "not a list of two rows"),
    ("tsv_merge", "not a list of two rows"),
    (["tsv_merge:rank_fraction=null", "tsv_merge"], "both names are the same row"),
])  # fmt: skip
def test_names_that_are_no_two_rows_are_answered(names, message):
    with pytest.raises(ValueError, match=message):
        compare(several(), names)


def test_methods_of_different_tables_are_not_paired():
    runs = [make_run("tsv_merge"), make_run("ties", suite="mini2", tasks=TASKS[:2])]
    with pytest.raises(ValueError, match="tsv_merge is in mini-mini8; ties is in mini-mini2"):
        compare(runs, ["tsv_merge", "ties"])


def test_csv_holds_everything_and_fractions():
    compared = one(evaluated((0, 1)))
    records = list(csv.DictReader(io.StringIO(comparison_csv([compared]))))
    assert [record["what"] for record in records] == ["absolute", "normalized", *TASKS]
    assert float(records[0]["difference"]) == compared.absolute.difference.value
    assert float(records[1]["difference_seeds_low"]) == compared.normalized.difference.seeds.low
    assert float(records[0]["p"]) == compared.absolute.p
    for record in records[2:]:
        found = compared.tasks[record["what"]]
        assert float(record["difference_images_high"]) == found.interval.high
        assert float(record["first_images_low"]) == found.first_interval.low
        assert (record["outcome"], record["only_first"]) == (found.outcome, str(found.only_first))


def test_the_command_prints_and_writes(tmp_path):
    for run, correct in several():
        save_run(run, correct, tmp_path / "runs")
    damaged = tmp_path / "runs" / "mini" / "mini8" / "cut.json"
    damaged.write_text('{"backbone": "mi')
    result = tsv(tmp_path, "report", "compare=[tsv_merge,ties:density=0.2]")
    assert result.code == 0, result.err
    assert "cut.json is not readable json" in result.err
    folder = tmp_path / "runs" / "report"
    assert {path.name for path in folder.glob("[!.]*")} == {"compare.md", "compare.csv"}
    shown = " ".join(result.out.split())
    assert "TSV-M against TIES (density=0.2): mini on mini8, 8 tasks" in shown
    assert max(map(len, result.out.splitlines())) <= 110
    wrong = tsv(tmp_path, "report", "compare=[tsv_merge,tise]")
    assert wrong.code == 1 and "did you mean 'ties'?" in wrong.err
    (tmp_path / "file").touch()
    wrong = tsv(tmp_path, "report", "paths.report=file")
    assert wrong.code == 1 and "Choose another folder with paths.report=." in wrong.err
