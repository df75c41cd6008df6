"""Suggested commands repeat what the running one was told, and can be pasted."""

import shlex

import pytest

from tsv_bench.cli.config.overrides import checked
from tsv_bench.cli.typed.repeated import repeated, repeating
from tsv_bench.wording import suggested

INDIVIDUAL = ("tsv-bench", "method=individual")
# What was typed -> what is suggested -> what it then is.
CASES = {
    "bench method=ties method.density=0.1 suite=mini2 paths.runs=a seed=1 overwrite=true": (
        INDIVIDUAL, "method=individual suite=mini2 paths.runs=a seed=1",
    ),
    "bench method=individual method.alphas=[1.0,2.0]": (
        INDIVIDUAL, "method=individual 'method.alphas=[1.0,2.0]'",
    ),
    "bench --multirun suite=mini2,mini4 method=ties,tsv_merge tracker=wandb tracker.project=p": (
        INDIVIDUAL, "--multirun method=individual suite=mini2,mini4",
    ),
    "bench suite.tasks=[digits,signs] suite.tasks.signs.epochs=2 ~suite.tasks.digits": (
        INDIVIDUAL,
        "method=individual 'suite.tasks=[digits,signs]' suite.tasks.signs.epochs=2 "
        "'~suite.tasks.digits'",
    ),
    "bench --config-dir CONF method=mine checkpoints=folder checkpoints.folder='my|models'": (
        INDIVIDUAL,
        "--config-dir CONF method=individual checkpoints=folder "
        "'checkpoints.folder='\"'\"'my models'\"'\"''",
    ),
    "bench suite=vision8 backbone=vit_b32 backbone.load.weights=w checkpoints=tall_masks": (
        ("tsv-fetch",), "suite=vision8 backbone=vit_b32 backbone.load.weights=w "
        "checkpoints=tall_masks",
    ),
    "finetune task=cars task.cars.source.repo=my/cars backbone=vit_b32 paths.data=d": (
        ("tsv-fetch",), "'suite.tasks=[cars]' suite.tasks.cars.source.repo=my/cars "
        "backbone=vit_b32",
    ),
    "fetch suite=vision8 suite.tasks=[cars] check=true": (
        ("tsv-bench",), "suite=vision8 'suite.tasks=[cars]'",
    ),
    "bench checkpoints=folder checkpoints.folder=mine suite.tasks=[signs] "
    "suite.tasks.signs.epochs=2 paths.data=d": (
        ("tsv-finetune", "backbone=mini", "task=signs"),
        "backbone=mini task=signs task.signs.epochs=2 paths.data=d",
    ),
    "report paths.runs=elsewhere layout=paper html=true": (
        INDIVIDUAL, "method=individual paths.runs=elsewhere",
    ),
    "merge method=merge3 method.population=3 pretrained=a finetuned={b:c} output=d threads=1": (
        ("tsv-bench", "method=merge3"), "method=merge3 method.population=3 threads=1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("typed", CASES)
def test_what_the_other_command_takes_is_repeated(typed, tmp_path):
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("name: mine\n")
    command, *arguments = (a.replace("|", " ") for a in typed.split())
    arguments = [str(tmp_path) if a == "CONF" else a for a in arguments]
    (program, *anew), expected = CASES[typed]
    taken = arguments if "merge3" in typed else checked(command, arguments)
    told = " ".join(repeated(taken, program, anew, ["checkpoints"] if "task=signs" in anew else []))
    assert told == expected.replace("CONF", str(tmp_path))
    checked(program.removeprefix("tsv-"), shlex.split(told))  # as when it is pasted


def test_within_a_command_suggestions_are_complete_and_from_python_plain():
    assert suggested.command(*INDIVIDUAL) == "tsv-bench method=individual"
    with repeating(["suite=mini2", "method=ties"]):
        assert suggested.command(*INDIVIDUAL) == "tsv-bench method=individual suite=mini2"
    assert suggested.command("tsv-fetch") == "tsv-fetch"


@pytest.mark.parametrize("flags", [["--config-dir", "my conf"], ["-cd=my conf"]])
def test_a_folder_of_own_yamls_is_repeated_however_it_was_given(flags):
    told = repeated([*flags, "suite=mini2"], "tsv-bench", ["method=mine"])
    assert shlex.split(" ".join(told)) == [*flags, "method=mine", "suite=mini2"]
