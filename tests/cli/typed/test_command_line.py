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
    "bench ~": "Give a key= another value",
    "bench method=null": "method=null: tsv-bench does not go without, as in method=tsv_merge",
    "pretrain task@tasks=null": "task@tasks=null names no task",
    "bench method=ties,magmax": "has several values, and a command runs once with each",
    "bench -m experiment=embedded,leaderboard": "an experiment is a sweep itself",
    "bench seed.x=1": "seed.x=1: seed is one value and has no keys",
    "bench paths=null": "paths holds settings, paths.data, paths.heads",
    "bench suite.tasks.signs=null": "Set one of them, as in suite.tasks.signs.name=",
    "bench hydra.mode=x": "hydra.mode=x: Invalid value 'x', expected one of [RUN, MULTIRUN]",
    "bench hydra.foo=1": "unknown key 'foo' in hydra",
    "bench hydra.job.chdr=true": "unknown key 'chdr' in hydra.job; did you mean 'chdir'?",
    "bench hydra.launcher=joblib": "it is chosen by hydra/launcher=joblib.",
    "bench -m hydra/launcher=joblib,basic": "unknown hydra/launcher 'joblib,basic'",
    "bench hydra/nothing=1": "Hydra has no group hydra/nothing",
    "bench hydra/sweeper/sampler=tpe": "hydra/sweeper/sampler= goes with hydra/sweeper=optuna",
    "bench launcher=joblib": "A launcher is chosen by hydra/launcher=.",
    "bench multirun=true": "A flag has dashes: --multirun.",
    "bench --method ties": "a setting has no dashes before it, as in method=VALUE",
    "merge --dry-run": "a setting has no dashes before it, as in dry_run=VALUE",
    "bench seed 1": "did you mean seed=VALUE?",
    "bench ++method=ties": "there is a method already. Choose without +",
    "bench +seed=3": "there is a seed already. Set it without +: seed=3",
    "bench method=ties:density=0.1": "what it has is set beside it, as in method=ties method.den",
    "bench method={name:ties}": "a method is chosen by its name, and what it has is set beside",
    "bench -m method=ties, magmax": "Of several names, none has a space before it",
    "bench experiment=[embedded,unseen]": "an experiment is a sweep itself",
    "bench -m method=interval(0,1)": "a method is chosen by its name, as in method=a,b",
    "bench -m seed=interval(3,0)": "seed=interval(3,0) has no values: it is interval(low,high).",
    "bench -m seed=range(3,0)": "seed=range(3,0) has no values",
    "bench -m seed=range(0,3,0)": "seed=range(0,3,0) has no values",
    "bench -m seed=glob(*)": "glob() chooses among the files of a group",
    "bench -m method=ties,null": "method=ties,null: null is no method",
    "bench seed=choice(": "cannot read seed=choice(",
    "bench seed=choice()": "Sweeps are seed=a,b or choice(a,b), range(start,stop,step)",
    "bench sed\u00e9=1": "is no key, which has a-z, digits, _ and points",
    "bench suite.tasks+=[latin]": "'suite.tasks+' is no key",
    "bench suite.tasks=(signs,land)": "A list is suite.tasks=[a,b].",
    "bench suite.tasks=[signs, land]": "in quotes for the shell: 'suite.tasks=[signs, ...'.",
    "bench unseen={signs,land}": "A list is unseen=[a,b].",
    "bench unseen={signs:1}": "unseen is a list, as in unseen=[a,b].",
    "bench suite.tasks=signs,land suite.tasks.land.epochs=1": "A list is suite.tasks=[signs,land].",
    "bench suite=signs": "signs is a task: suite.tasks=[signs].",
    "bench suite.tasks=[mini4]": "mini4 is a suite: suite=mini4.",
    "merge suite.tasks=[signs]": "suite.tasks=[signs]: tsv-merge takes no list of tasks",
    "merge density=0.1 method=ties": "There is method.density.",
    "finetune epochs=1 task=signs": "There is task.signs.epochs.",
    "bench ~suite.tasks": "Give suite.tasks= another value",
    "bench ~suite.tasks=[signs]": "only tasks can be left out, as by ~suite.tasks.land",
    "bench ~paths.runs": "Give paths.runs= another value",
    "merge ~finetuned.a": "only tasks can be left out",
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
     "finetune task=[signs,shapes]", "bench --info suite.tasks=[signs]",
     "merge finetuned={a:b,c:d} ~finetuned.a", "bench -m method=glob(t*)",
     "bench ~suite.tasks.signs", "merge finetuned={a:b} pretrained=a,b", "bench --cfg job",
     "bench paths={data:x}", "bench hydra.mode=MULTIRUN seed=0,1"],
)  # fmt: skip
def test_what_is_right_passes(line):
    command, *arguments = line.split()
    assert len(checked(command, arguments)) == len(arguments)


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        ("bench experiment=null", ""),  # its default, which Hydra does not take
        ("fetch checkpoints=tall_masks checkpoints=null", ""),
        ("merge finetuned.a=x.pt weights.a=1", "++finetuned.a=x.pt ++weights.a=1"),
        (
            "bench method=lines method.base_knobs.density=1",
            "method=lines ++method.base_knobs.density=1",
        ),
        ("merge +recipe=r.yaml", "recipe=r.yaml"),
        (
            "bench -m method=lines,surgery method.base_knobs.density=1",
            "-m method=lines,surgery ++method.base_knobs.density=1",
        ),
        ("bench +hydra/launcher=joblib", "hydra/launcher=joblib"),
    ],
)
def test_what_hydra_would_refuse_is_put_as_it_takes_it(line, taken):
    command, *arguments = line.split()
    assert checked(command, arguments) == taken.split()
