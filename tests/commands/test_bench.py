"""The commands as people use them, on a two-task cut of the embedded suite."""

import csv
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from stand_ins.commands import SMALL, TASKS, checkpoints, numbers, runs, small, tsv
from stand_ins.wandb_files import own_folders

from tsv_bench.cli.config import objects
from tsv_bench.cli.sweep.comparison import page_command
from tsv_bench.data import cache
from tsv_bench.models import head

COMPARED = "method=weight_average,tsv_merge,individual"
OTHERS = "method=task_arithmetic,emr"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """(folder, what the first comparison in it printed); tests add Runs to it, and spoil none."""
    folder = tmp_path_factory.mktemp("comparison")
    result = tsv(folder, "bench", "--multirun", COMPARED, *SMALL)
    assert result.code == 0, result.err
    return folder, result


@pytest.fixture
def folder(comparison):
    return comparison[0]


@pytest.fixture
def copy(folder, tmp_path):
    """The comparison's folder, to spoil."""
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def times(folder):
    """When each Run and checkpoint was written."""
    paths = [*(folder / "runs" / "mini").rglob("[!.]*.*"), *checkpoints(folder)]
    return {path.name: path.stat().st_mtime_ns for path in paths}


def test_a_comparison_prints_its_table_and_says_where_all_is(comparison):
    folder, result = comparison
    lines = result.out.splitlines()
    table = lines[: lines.index(next(line for line in lines if line.startswith("wrote into")))]
    assert max(map(len, lines)) <= 100
    for label in ("Weight average", "TSV-M", "Individual"):
        assert any(line.startswith(label) for line in table)
    assert lines[-2] == "Runs are in runs, fine-tuned checkpoints in checkpoints."
    assert lines[-1] == "All Runs as a page for the browser: tsv-report html=true"
    written = {path.name for path in (folder / "runs" / "report").glob("[!.]*")}
    assert {"table.md", "table.csv"} < written
    plots = {name.rpartition("-")[2] for name in written if name.endswith((".png", ".svg"))}
    ends = ("png", "svg")
    assert {f"{p}.{end}" for p in ("methods", "tasks", "alpha") for end in ends} <= plots
    listed = " ".join(result.out.split()).partition(" wrote into runs/report: ")[2]
    for name in written - {"sweep.yaml"}:
        assert f" {name.removesuffix('.svg').removesuffix('.png')}" in f" {listed}"
    for bar in ("fine-tune Signs", "fine-tune Shapes", "TSV-M: alpha", "TSV-M: test"):
        assert f"{bar}: 0/" in result.err


def test_the_page_is_of_these_runs_by_a_command_that_the_shell_finds(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr("sys.argv", [str(tmp_path / "tsv-bench")])
    assert page_command("my runs") == "tsv-report html=true 'paths.runs=my runs'"
    (tmp_path / "tsv-report").touch()
    assert page_command("runs") == f"{tmp_path}/tsv-report html=true"


def test_on_several_devices_a_run_is_the_same(comparison, copy):
    """Two names of the CPU stand for two GPUs."""
    line = ["method=tsv_merge", "device=cpu,cpu", "overwrite=true", *SMALL]
    result = tsv(copy, "bench", *line)
    assert result.code == 0, result.err
    assert "TSV-M: test: 2/2" in result.err
    assert numbers(copy, "tsv_merge") == numbers(comparison[0], "tsv_merge")


def test_a_comparison_leaves_nothing_else(folder):
    assert {path.name for path in folder.iterdir()} == {"checkpoints", "data", "runs"}
    assert not [*folder.rglob("*.tmp"), *folder.rglob("*.resume")]
    [sweep] = (folder / "runs" / "sweeps").iterdir()
    jobs = {f"{number}.{end}" for number in range(3) for end in ("yaml", "log")}
    assert {path.name for path in sweep.iterdir()} == {*jobs, "jobs.yaml", "multirun.yaml"}
    assert len([*folder.rglob("*.log")]) == 3
    assert len(checkpoints(folder)) == 2


def test_runs_hold_what_is_needed_to_believe_them(folder):
    found = runs(folder)
    merged, individual = found["tsv_merge"], found["individual"]
    assert merged.suite == "signs+shapes" and list(merged.tasks) == list(TASKS)
    assert [point["alpha"] for point in merged.alpha_curve] == [k / 10 for k in range(1, 31)]
    best = max(point["normalized"] for point in merged.alpha_curve)
    firsts = [p["alpha"] for p in merged.alpha_curve if p["normalized"] == best]
    assert merged.alpha == firsts[0]
    assert {s.total for s in merged.test.values()} == {25}
    assert {s.total for s in merged.val.values()} == {10}
    assert individual.normalized == 1.0 and individual.alpha_curve == []
    assert merged.normalizer == {task: s.accuracy for task, s in individual.test.items()}
    assert merged.knobs == {
        "rank_fraction": None,
        "svd": "gram",
        "polar": "eigen",
        "exclude": None,
        "split_qkv": False,
    }
    assert set(merged.checkpoints) == {*TASKS, "pretrained"}
    records = {c.stem.split("-")[0]: json.loads(c.with_suffix(".json").read_text())
               for c in checkpoints(folder)}  # fmt: skip
    for task in TASKS:
        assert merged.checkpoints[task]["sha256"] == records[task]["sha256"]
        # Measured after fine-tuning and as a method: the same model on the same images.
        assert individual.test[task].correct == records[task]["scores"]["test"]["correct"]


def test_the_same_command_again_computes_nothing(comparison):
    folder, first = comparison
    before = times(folder)
    result = tsv(folder, "bench", "--multirun", COMPARED, *SMALL)
    assert result.code == 0
    assert times(folder) == before
    assert result.err.count("already there") == 3 and "fine-tune" not in result.err
    assert result.out == first.out


def test_overwriting_evaluates_again_with_the_same_numbers(copy):
    before, same = times(copy), numbers(copy, "weight_average")
    result = tsv(copy, "bench", "method=weight_average", "overwrite=true", *SMALL)
    assert result.code == 0 and "Weight average" in result.out
    changed = {name for name, time in times(copy).items() if time != before[name]}
    assert {name.partition("-")[0] for name in changed} == {"weight_average"}
    log = (copy / "runs" / "tsv-bench.log").read_text()
    assert "tsv-bench method=weight_average" in log and "Weight average: " in log
    assert numbers(copy, "weight_average") == same


def test_a_run_without_its_correctness_is_made_again(copy):
    [path] = (copy / "runs").rglob("weight_average-*.npz")
    path.unlink()
    result = tsv(copy, "bench", "method=weight_average", *SMALL)
    assert result.code == 0 and path.exists()
    assert "Evaluating again" in result.err


def test_a_run_without_its_correctness_does_not_stop_another(copy):
    [path] = (copy / "runs").rglob("individual-*.npz")
    path.unlink()
    result = tsv(copy, "bench", "method=weight_average", "overwrite=true", *SMALL)
    assert result.code == 0, result.err
    assert "Weight average" in result.out and "Individual: no intervals" in result.out
    assert (
        f"cannot read per-image correctness from runs/mini/signs+shapes/{path.name}" in result.err
    )


def test_nothing_is_read_or_built_twice_in_one_command(folder, monkeypatch):
    opened, heads, read, read_head = [], [], cache.read_pixels, head.read_head
    monkeypatch.setattr(cache, "read_pixels", lambda path: opened.append(path) or read(path))
    monkeypatch.setattr(head, "build_head", lambda *args: pytest.fail("its head was kept"))
    monkeypatch.setattr(head, "read_head", lambda p, key: heads.append(p.name) or read_head(p, key))
    result = tsv(folder, "bench", "--multirun", OTHERS, "method.alphas=[0.5,1.0]", *SMALL)
    assert result.code == 0, result.err
    assert sorted(name.partition("-")[0] for name in heads) == sorted(TASKS)
    assert len(opened) == len(set(opened)) == 4  # val and test
    assert objects._load_backbone.cache_info().misses == 1


def test_report_shows_all_runs_of_a_folder(folder, tmp_path):
    result = tsv(folder, "report", f"paths.report={tmp_path / 'report'}")
    assert result.code == 0
    table = [line for line in result.out.splitlines() if not line.startswith("wrote")]
    assert max(map(len, table)) <= 100
    rows = list(csv.DictReader((tmp_path / "report" / "table.csv").read_text().splitlines()))
    found = runs(folder)
    assert sorted(row["method"] for row in rows) == sorted(found)
    for row in rows:
        assert float(row["absolute"]) == pytest.approx(found[row["method"]].absolute)


def test_report_without_runs_says_how_to_make_one(tmp_path):
    result = tsv(tmp_path, "report")
    assert result.code == 1
    assert f"no Run in runs: looked for json files in {tmp_path / 'runs'} and below" in result.err
    assert "does not exist" in result.err and "tsv-bench method=tsv_merge" in result.err


def test_finetune_takes_what_bench_has_made(folder):
    before = times(folder)
    result = tsv(folder, "finetune", "task=signs", *small("task", ["signs"]))
    assert result.code == 0, result.err
    correct = runs(folder)["individual"].test["signs"].correct
    assert f"{4 * correct:.1f}% on test" in result.err  # of 25 images
    assert times(folder) == before


def test_finetune_with_other_settings_makes_another_checkpoint(copy):
    result = tsv(copy, "finetune", "task=signs", *small("task", ["signs"]), "seed=1")
    assert result.code == 0 and "fine-tuned Signs" in result.err
    assert len(checkpoints(copy)) == 3


def test_wandb_offline_leaves_a_run(copy, tmp_path, monkeypatch):
    own_folders(monkeypatch, tmp_path)
    arguments = ["method=weight_average", "overwrite=true", "tracker=wandb", *SMALL]
    result = tsv(copy, "bench", *arguments, f"tracker.dir={tmp_path}")
    assert result.code == 0 and "W&B did not take" not in result.err
    assert len([*tmp_path.glob("wandb/offline-run-*/run-*.wandb")]) == 1


def test_a_tracker_that_fails_warns_and_loses_nothing(copy, tmp_path):
    (tmp_path / "file").write_text("")
    before = times(copy)
    arguments = ["method=weight_average", "overwrite=true", "tracker=wandb", *SMALL]
    result = tsv(copy, "bench", *arguments, f"tracker.dir={tmp_path / 'file' / 'wandb'}")
    assert result.code == 0
    assert "W&B did not take the run of weight_average" in result.err
    assert "Weight average" in result.out and times(copy) != before


@pytest.fixture
def mine(folder, tmp_path):
    """A folder with somebody's own checkpoints."""
    mine = tmp_path / "mine"
    mine.mkdir()
    for path in checkpoints(folder):
        shutil.copy(path, mine / f"{path.stem.split('-')[0]}.safetensors")
    return mine


def with_mine(folder, tmp_path, mine):
    """Data of the comparison, everything else new."""
    paths = [f"paths.data={folder / 'data'}", "checkpoints=folder", f"checkpoints.folder={mine}"]
    return tsv(tmp_path, "bench", "method=individual", *paths, *SMALL)


def test_own_checkpoints_are_evaluated(folder, tmp_path, mine):
    result = with_mine(folder, tmp_path, mine)
    assert result.code == 0, result.err
    assert runs(tmp_path)["individual"].test == runs(folder)["individual"].test
    assert runs(tmp_path)["individual"].checkpoints["signs"]["generation"] == "other"


def test_own_checkpoints_that_are_missing_are_named(folder, tmp_path, mine):
    (mine / "shapes.safetensors").unlink()
    result = with_mine(folder, tmp_path, mine)
    assert result.code == 1 and "no checkpoint of mini on shapes at" in result.err
    assert "task=shapes" in result.err


def spoil_with_nan(state):
    name = next(name for name in state if name.endswith("weight"))
    state[name].view(-1)[0] = torch.nan
    return state


SPOILED = {
    "holds NaN or infinity": spoil_with_nan,
    "different parameters": lambda state: {f"model.{n}": p for n, p in state.items()},
    "different shapes": lambda state: {n: torch.cat([p, p]) for n, p in state.items() if p.ndim},
}


@pytest.mark.parametrize("message", SPOILED)
def test_own_checkpoints_that_cannot_be_used_are_named(message, folder, tmp_path, mine):
    path = mine / "shapes.safetensors"
    save_file(SPOILED[message](load_file(path)), path)
    result = with_mine(folder, tmp_path, mine)
    assert result.code == 1 and message in result.err
    assert "the checkpoint of shapes at" in result.err and "Traceback" not in result.err
    assert not [*(tmp_path / "runs").rglob("*.json")]


def test_own_checkpoints_need_a_folder(tmp_path):
    result = tsv(tmp_path, "bench", "checkpoints=folder")
    assert result.code == 1
    assert "checkpoints.folder" in result.err and "Traceback" not in result.err


def test_a_checkpoint_that_was_changed_is_not_used(copy):
    path = checkpoints(copy)[0]
    path.write_bytes(path.read_bytes()[:-1])
    result = tsv(copy, "bench", "method=weight_average", "overwrite=true", *SMALL)
    assert result.code == 1 and "is not what was written there" in result.err


def test_a_full_disk_is_found_before_fine_tuning(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=15_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    result = tsv(tmp_path, "bench", *SMALL)
    assert result.code == 1 and "has 15 MB free, 40 MB are needed" in result.err
    assert "building" not in result.err and not checkpoints(tmp_path)
