"""plan=true: what a command would do, and about how long; nothing is done."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from made_up.generalization import beyond
from made_up.runs import make_run
from made_up.tasks import task
from stand_ins.commands import SMALL, begin_from, tsv

from tsv_bench import provenance
from tsv_bench.benchmark.runs import save_run
from tsv_bench.cli.plan import seconds
from tsv_bench.cli.plan.cells import images_of
from tsv_bench.cli.plan.seconds import Seconds, images_of_run, readable
from tsv_bench.methods.method import Choice, Method

METHODS = ("--multirun", "method=weight_average,task_arithmetic")


@pytest.fixture(autouse=True)
def a_rate(monkeypatch):
    """A hundred images a second."""
    monkeypatch.setattr(seconds, "measured_rate", lambda *args: 100.0)


def rows(out):
    """Method -> the rest of its line."""
    lines = [line.split() for line in out.splitlines()]
    return {words[2]: words[3:] for words in lines if words[:1] == ["mini"]}


def test_unseen_tasks_and_corrupted_images_are_counted():
    sizes = {"train": 100, "val": 10, "test": 50}
    tasks = {name: task(name, sizes=sizes) for name in "ab"}
    method = Method(name="m", label="M", alphas=[0.5, 1.0], knobs={}, serve=dict)
    assert images_of(method, tasks, {}, 0) == 2 * 50 + 2 * 2 * 10
    assert images_of(method, tasks, {"c": tasks["a"]}, 3) == 4 * 2 * 50 + 50 + 2 * 2 * 10
    fixed = replace(method, alphas=[1.0])
    assert images_of(fixed, tasks, {}, 0) == 2 * 50
    assert images_of(replace(fixed, name="individual"), tasks, {}, 0) == 2 * 50 + 2 * 10
    choice = Choice(knob="k", candidates=[1, 2, 3], default=1, serve=dict)
    opened = replace(fixed, knobs={"k": None}, choice=choice)
    assert images_of(opened, tasks, {}, 0, validates=True) == 2 * 50 + 4 * 2 * 10
    assert images_of(fixed, {"a": task("a")}, {}, 0) is None  # whose source does not tell
    run, _ = beyond(num_images=40)
    assert images_of_run(replace(run, alpha_curve=[])) == (1 + 2 + 2) * 40
    searched = [{"alpha": alpha, "normalized": 0.5} for alpha in (0.5, 1.0, 1.5)]
    validated = replace(run, alpha_curve=searched, val=run.test)
    assert images_of_run(validated) == (1 + 2 + 2 + 3) * 40


def everything(folder):
    return sorted(path for path in folder.rglob("*"))


def test_cells_are_listed_finished_ones_told_and_nothing_is_made(fine_tuned, tmp_path):
    folder = begin_from(fine_tuned, tmp_path)
    before = everything(folder)
    plan = tsv(folder, "bench", *METHODS, "plan=true", *SMALL)
    assert plan.code == 0, plan.err
    assert everything(folder) == before
    assert rows(plan.out) == {
        "weight_average": ["0", "to", "run", "50", "1", "s"],  # two tasks, 25 images each
        "task_arithmetic": ["0", "to", "run", "650", "6", "s"],  # and 30 alphas on 10 of each
    }
    assert "2 cells, 0 of them finished" in plan.out and "first" not in plan.out
    assert "about 7 s on cpu, by a measurement (without merging)" in plan.out

    assert tsv(folder, "bench", "method=weight_average", *SMALL).code == 0
    again = tsv(folder, "bench", *METHODS, "plan=true", *SMALL)
    assert rows(again.out)["weight_average"] == ["0", "finished"]
    assert "2 cells, 1 of them finished" in again.out
    assert "by Runs of other methods (without merging)" in again.out
    more = ["plan=true", *SMALL]
    alone = tsv(folder, "bench", "method=weight_average", "overwrite=true", *more)
    assert rows(alone.out)["weight_average"][1:3] == ["to", "run"]
    assert "1 cell, 0 of them finished" in alone.out and "by an earlier Run" in alone.out
    validated = tsv(folder, "bench", "method=weight_average", "evaluation.validate=true", *more)
    assert rows(validated.out)["weight_average"] == ["0", "to", "run", "20", "1", "s"]


def test_what_is_made_first_is_told_once(tmp_path):
    # Hydra composes first without what is swept: the default method has no density.
    trimming = ["--multirun", "method=ties,dare_ties", "method.density=0.2"]
    plan = tsv(tmp_path, "bench", *trimming, "plan=true", *SMALL)
    assert plan.code == 0 and {*rows(plan.out)} == {"ties", "dare_ties"}, plan.err
    assert "first, images of 2 tasks to be drawn or decoded: at most 40 MB in data" in plan.out
    # 2 epochs of 64 images of each task, in training 3.5 times as long as through the network
    assert "first, checkpoints to be fine-tuned: 2 (signs, shapes), about 9 s" in plan.out
    assert not everything(tmp_path)


def test_what_is_not_fetched_is_told_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    line = ["suite=vision8", "suite.tasks=[cars,dtd]", "backbone=vit_b32", "checkpoints=tall_masks"]
    plan = tsv(tmp_path, "bench", "plan=true", *line)
    assert plan.code == 0, plan.err
    assert "to fetch  45,621      ?" in plan.out
    told = next(line for line in plan.out.splitlines() if line.startswith("first, to be fetched"))
    assert told.startswith("first, to be fetched: 5 things, about 4.1 GB: tsv-fetch suite=vision8 ")
    assert "how long is known once all of it is here" in plan.out and not everything(tmp_path)


def test_a_cell_that_cannot_run_is_named(tmp_path):
    line = ["method=ties", "checkpoints=folder", "checkpoints.folder=nowhere", *SMALL]
    plan = tsv(tmp_path, "bench", "plan=true", *line)
    assert plan.code == 1 and rows(plan.out)["ties"] == ["0", "cannot", "run"]
    assert "1 of 1 cannot run:\nties: no checkpoint of mini on signs at nowhere" in plan.err


def test_a_plan_is_true_or_false(tmp_path):
    assert "plan='later' is neither true nor false" in tsv(tmp_path, "bench", "plan=later").err


def test_an_earlier_run_is_scaled_by_images_and_tasks(tmp_path):
    run, correct = make_run("ties", tasks=("digits", "land"))
    taken = {"data": 100.0, "checkpoints": 100.0, "merge": 4.0, "alpha": 8.0, "test": 2.0}
    run = replace(run, machine=provenance.machine("cpu"), seconds=taken)
    save_run(run, correct, tmp_path)
    of_others = {"machine": "another"}, {"backbone": "other"}, {"method": "svc"}
    for number, other in enumerate(of_others):
        newer = {"created": "2031-01-01", "fingerprint": f"{number:012x}", "seconds": {"test": 9e9}}
        save_run(replace(run, **newer | other), correct, tmp_path)
    of_fewer, correct = make_run("ties", tasks=("digits",), created="2020-01-01")
    save_run(replace(of_fewer, machine=run.machine, fingerprint="5" * 12), correct, tmp_path)
    method = SimpleNamespace(name="ties")
    cell = SimpleNamespace(backbone=run.backbone, method=method, num_tasks=4, lacking=())
    cell.images = 3 * images_of_run(run)
    assert Seconds(tmp_path, ["cpu"]).of(cell) == (3 * 10 + 2 * 4, "an earlier Run")
    cell.images = None
    assert Seconds(tmp_path, ["cpu"]).of(cell) == (None, "")


def test_how_a_knob_was_chosen_is_not_counted_in_images(tmp_path):
    """A Run does not say how many went through a network for it."""
    run, correct = make_run("ties", tasks=("digits", "land"), alpha_curve=[])
    run = replace(run, machine=provenance.machine("cpu"), seconds={"knobs": 28.0, "test": 2.0})
    save_run(replace(run, task_knobs={"digits": {"density": 0.1}}), correct, tmp_path)
    save_run(*slow_of_another_method(run.machine), tmp_path)
    cell = SimpleNamespace(backbone=run.backbone, num_tasks=4, images=9999, lacking=())
    cell.method = SimpleNamespace(name="ties")
    assert Seconds(tmp_path, "cpu").of(cell) == (2 * 30, "an earlier Run")
    cell.method, cell.images = SimpleNamespace(name="svc"), 800
    taken, by = Seconds(tmp_path, "cpu").of(cell)
    assert taken == 20 and by.startswith("Runs of other methods")


def slow_of_another_method(machine):
    """A Run that took ten seconds for 400 images."""
    run, correct = make_run("weight_average", tasks=("digits", "land"))
    return replace(run, machine=machine, seconds={"test": 10.0}), correct


def test_seconds_are_written_as_people_do():
    assert readable([0.2]) == "1 s" and readable([30, 30]) == "60 s"
    assert readable([300, 300]) == "10 min" and readable([7200.0]) == "2.0 h"
    assert readable([1, None]) == "?"
