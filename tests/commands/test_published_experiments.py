"""The paper's tables as experiments: cut to two embedded tasks, and composed as they are."""

import shlex
import shutil

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from stand_ins.commands import SMALL, TASKS, begin_from, checkpoints, runs, tsv

from tsv_bench.cli.config.overrides import CONF

CUT = ["backbone=mini", "suite=mini8", *SMALL]
ABLATION = ["experiment=ablation", "checkpoints=finetune", "method.alphas=[1.0,2.0]", *CUT]
EXPERIMENTS = ("table_2", "table_3", "ablation")


def swept(experiment):
    """What the experiment sweeps: group -> names, in its order."""
    node = OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml")
    return {group: text.split(",") for group, text in node.hydra.sweeper.params.items()}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in (folder / "runs" / "mini").rglob("*.*")}


@pytest.fixture(scope="module")
def ablation(fine_tuned, tmp_path_factory):
    """(folder, what `experiment=ablation` with our own checkpoints printed)."""
    folder = begin_from(fine_tuned, tmp_path_factory.mktemp("ablation"))
    result = tsv(folder, "bench", *ABLATION)
    assert result.code == 0, result.err
    return folder, result


def test_an_experiment_runs_its_cells_and_shows_them_in_the_papers_layout(ablation):
    folder, result = ablation
    found = runs(folder)
    assert list(found) == sorted(swept("ablation")["method"])
    assert {(run.backbone, run.suite) for run in found.values()} == {("mini", "signs+shapes")}
    lines = result.out.splitlines()
    for method, label in (("tsv_low_rank", "Low rank only"), ("individual", "Individual"),
                          ("tsv_interference_only", "Interference reduction only"),
                          ("tsv_merge", "TSV-M")):  # fmt: skip
        run = found[method]
        [line] = [line for line in lines if line.startswith(label)]
        assert line.endswith(f" {100 * run.absolute:.2f} ({100 * run.normalized:.2f})")
    assert len(found["tsv_low_rank"].alpha_curve) == 2
    written = {path.name for path in (folder / "runs" / "report").iterdir()}
    assert {"paper.md", "paper.csv", "paper.tex"} < written


def test_what_is_finished_is_skipped(ablation, tmp_path):
    """As after an interruption between two cells: only what is missing is made."""
    folder = tmp_path / "copy"
    shutil.copytree(ablation[0], folder)
    missing = [*(folder / "runs" / "mini").rglob("tsv_interference_only-*")]
    before = {path: time for path, time in times(folder).items() if path not in missing}
    for path in missing:
        path.unlink()
    again = tsv(folder, "bench", *ABLATION)
    assert again.code == 0, again.err
    assert again.err.count("already there") == 3 and "fine-tune" not in again.err
    assert len(missing) == 2 and all(path.exists() for path in missing)
    assert before.items() < times(folder).items()
    assert again.out == ablation[1].out


def test_checkpoints_of_others_are_normalized_by_a_run_of_the_individual_models(ablation, tmp_path):
    (tmp_path / "mine").mkdir()
    for path in checkpoints(ablation[0]):
        [task] = [task for task in TASKS if task in str(path.relative_to(ablation[0]))]
        shutil.copy(path, tmp_path / "mine" / f"{task}.safetensors")
    arguments = [f"paths.data={ablation[0] / 'data'}", "checkpoints=folder",
                 "checkpoints.folder=mine", *CUT]  # fmt: skip

    alone = tsv(tmp_path, "bench", "method=tsv_compress", *arguments)
    assert alone.code == 1 and not (tmp_path / "runs" / "mini").exists()
    assert "accuracies of TSV-C cannot be normalized: no Run in runs" in alone.err
    assert "Traceback" not in alone.err
    # What it says to run makes it work.
    [advice] = [line for line in alone.err.splitlines() if "tsv-bench method=individual" in line]
    command = shlex.split(advice.split("tsv-bench ", 1)[1])
    made = tsv(tmp_path, "bench", *command, "threads=1")
    assert made.code == 0, made.err
    table = tsv(tmp_path, "bench", "experiment=table_3", *arguments)
    assert table.code == 0, table.err
    assert table.err.count("already there") == 1, "the individual models' Run"

    found, own = runs(tmp_path), runs(ablation[0])
    assert set(found) == set(swept("table_3")["method"])
    for run in found.values():
        assert run.normalizer == own["individual"].normalizer
        assert run.normalizer_source == "each task's own checkpoint (other), same test images"
    assert set(found["individual"].val) == set(TASKS), "to normalize validation accuracies"


@pytest.mark.parametrize("choice", ["published", "theirs"])
def test_a_normalizer_that_cannot_be_is_refused_before_any_work(choice, tmp_path):
    result = tsv(tmp_path, "bench", f"normalizer={choice}", "suite.tasks=[signs]")
    assert result.code == 1 and not list(tmp_path.iterdir())
    assert {"published": "'mini' is published", "theirs": "is not one of own"}[choice] in result.err


@pytest.mark.parametrize("index", [0, -1])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_first_and_the_last_cell_compose(experiment, index):
    """test_conf.py composes every backbone, suite and method, which do not look at each other."""
    cell = {group: names[index] for group, names in swept(experiment).items()}
    overrides = [f"experiment={experiment}", *(f"{group}={cell[group]}" for group in cell)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("bench", overrides, return_hydra_config=True)
    assert config.hydra.mode.name == "MULTIRUN"
    assert config.layout == "paper" and config.checkpoints.repo == "nik-dim/tall_masks"
    assert {group: config[group].name for group in cell} == cell
    assert config.checkpoints.backbones[cell["backbone"]]
