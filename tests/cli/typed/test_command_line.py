"""What Hydra would refuse in words of its own, or take for something else, is our message."""

import pytest

from tsv_bench.cli.config.overrides import checked

REFUSED = {
    "bench --multrun": "unrecognized arguments: --multrun; did you mean '--multirun'",
    "bench --cfg jobb": "invalid choice: 'jobb'",
    "bench --config-dir": "expected one argument. tsv-bench --help says what there is",
    "bench foo": "'foo' is no setting, which has the form key=value. tsv-bench --help",
    "merge ties": "did you mean method=ties?",
    "bench methods seed=1": "methods stands alone, as in tsv-bench methods",
    "fetch method=ties": "tsv-fetch takes no method=: its groups are backbone, suite",
    "report suite=mini8": "tsv-report takes no suite=: it has no groups",
    "bench method@x=ties": "a method is chosen by method=",
    "bench +method=ties": "there is a method already. Choose without +",
    "bench ~method": "only tasks can be left out, as by ~suite.tasks.land",
    "bench --multirun method=ties,dare_ties ~method.density": "Give method.density= another value.",
    "bench ~seed": "Give seed= another value",
    "bench method=[ties,magmax]": "Each in a job of its own is --multirun method=ties,magmax",
    "bench method=null": "method=null: tsv-bench does not go without, as in method=tsv_merge",
    "pretrain task@tasks=null": "task@tasks=null names no task",
    "bench method=ties,magmax": "has several values, and a command runs once with each",
    "bench -m experiment=embedded,leaderboard": "an experiment is a sweep itself",
    "bench seed.x=1": "seed.x=1: seed is one value and has no keys",
    "bench paths=null": "paths holds settings, paths.data, paths.heads",
    "bench suite.tasks.signs=null": "Set one of them, as in suite.tasks.signs.name=",
    "bench hydra.mode=x": "Error merging override hydra.mode=x: Invalid value 'x', expected one",
    "bench hydra.foo=1": "Could not override 'hydra.foo'",
    "analyze foo=1": "There are: cache, device, embeddings",
}


def test_every_mistake_has_its_message():
    for line, message in REFUSED.items():
        command, *arguments = line.split()
        with pytest.raises(ValueError) as caught:
            checked(command, arguments)
        assert message in str(caught.value), line
        assert "Traceback" not in str(caught.value) and "full_key" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    ["bench method=ties -m seed=0,1", "bench experiment=embedded seed=0,1", "bench tracker=wandb",
     "bench experiment=null", "fetch checkpoints=null", "finetune task=[signs,shapes]",
     "bench ~suite.tasks.signs", "merge finetuned={a:b} pretrained=a,b", "bench --cfg job",
     "bench paths={data:x}", "bench hydra.mode=MULTIRUN seed=0,1"],
)  # fmt: skip
def test_what_is_right_passes(line):
    command, *arguments = line.split()
    assert len(checked(command, arguments)) == len(arguments)
