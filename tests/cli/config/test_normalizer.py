"""The accuracies that a run's are divided by, and the message if there are none."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from made_up.generalization import beyond
from made_up.runs import LABELS, make_run, make_vision_run
from omegaconf import OmegaConf

from tsv_bench.benchmark import published
from tsv_bench.benchmark.runs import Run, save_run
from tsv_bench.checkpoints.checkpoint import Checkpoint
from tsv_bench.cli.config import normalizer
from tsv_bench.cli.config.normalizer import check_normalizer, make_normalizer
from tsv_bench.cli.typed.repeated import repeating
from tsv_bench.methods.method import Method
from tsv_bench.scores import Score

SEARCHED = [0.5, 1.0]


@pytest.fixture(autouse=True)
def command_line():
    """As while a command runs."""
    with repeating(["method=tsv_merge", "checkpoints.folder='my models'", "paths.runs=else"]):
        yield


def config(folder, normalizer="own", backbone="mini"):
    return OmegaConf.create(
        {"normalizer": normalizer, "paths": {"runs": str(folder)}, "backbone": {"name": backbone}}
    )


def a_method(name="tsv_merge", alphas=SEARCHED):
    return Method(name=name, label=LABELS[name], alphas=alphas, knobs={}, serve=dict)


def made(folder, run, method, scores=None, unseen=(), **changes):
    """`make_normalizer` for a run on the models and images of ``run``, some of them unseen."""
    tasks = {
        task: SimpleNamespace(fingerprint=run.data[task], variant=run.variants.get(task, ""))
        for task in run.tasks
    }
    checkpoints = {
        task: Checkpoint(path=folder / task, sha256=run.checkpoints[task]["sha256"],
                         generation=run.checkpoints[task]["generation"],
                         scores=(scores or {}).get(task))
        for task in run.tasks
    }  # fmt: skip
    backbone = SimpleNamespace(
        name=run.backbone, fingerprint=run.checkpoints["pretrained"]["sha256"]
    )
    settings = dict(run.settings)
    if unseen:
        settings["unseen"] = {task: settings["tasks"][task] for task in unseen}
        settings["tasks"] = {t: s for t, s in settings["tasks"].items() if t not in unseen}
    cell = SimpleNamespace(
        backbone=backbone, method=method, settings=settings, all_tasks=tasks,
        tasks={task: of for task, of in tasks.items() if task not in unseen},
        unseen={task: tasks[task] for task in unseen},
    )  # fmt: skip
    return make_normalizer(config(folder, backbone=run.backbone, **changes), cell, checkpoints)


def score(correct):
    return Score(accuracy=correct / 4, correct=correct, total=4)


def both(val, test):
    return {"val": score(val), "test": score(test)}


def test_own_scores_of_the_checkpoints_count_without_any_run(tmp_path):
    run, _ = make_run(tasks=("digits", "land"))
    scores = {"digits": both(1, 2), "land": both(3, 4)}
    found, source = made(tmp_path / "none", run, a_method(), scores)
    assert found == {"val": {"digits": 0.25, "land": 0.75}, "test": {"digits": 0.5, "land": 1.0}}
    assert source == "each task's own checkpoint (finetune), same test images"
    assert not published.is_published(source)


def test_own_comes_from_the_run_of_the_individual_models_of_another_suite(tmp_path):
    individual, correct = make_vision_run("individual", "vision14", generation="fixed")
    val = dict.fromkeys(individual.tasks, score(3))
    save_run(replace(individual, val=val), correct, tmp_path)
    run, _ = make_vision_run("ties", "vision8", generation="fixed")
    found, source = made(tmp_path, run, a_method())
    assert found["test"] == {task: individual.test[task].accuracy for task in run.tasks}
    assert found["val"] == dict.fromkeys(run.tasks, 0.75)
    assert "(fixed)" in source


def test_a_run_completes_what_some_checkpoints_say(tmp_path):
    individual, correct = make_run("individual", tasks=("digits", "land"))
    save_run(replace(individual, val={"land": score(1)}), correct, tmp_path)
    scores = {"digits": both(1, 2)}
    with pytest.raises(ValueError, match="fine-tuned models of digits are on val and test"):
        made(tmp_path, individual, a_method())
    found, _ = made(tmp_path, individual, a_method(alphas=[1.0]), scores)
    assert found["test"]["land"] == individual.test["land"].accuracy


def test_unseen_tasks_need_no_validation(tmp_path):
    settings = {"tasks": {"digits": {"data": "1"}, "land": {"data": "2"}}}
    individual, correct = make_run("individual", tasks=("digits", "land"), settings=settings)
    save_run(replace(individual, val={"digits": score(1)}), correct, tmp_path)
    found, _ = made(tmp_path, individual, a_method(), unseen=("land",))
    assert found["val"] == {"digits": 0.25}
    assert found["test"] == {t: individual.test[t].accuracy for t in ("digits", "land")}
    with pytest.raises(ValueError, match="fine-tuned models of land are on val and test"):
        made(tmp_path, individual, a_method(), unseen=("digits",))


def test_own_models_of_unseen_tasks_are_found_in_a_run_of_the_same_split(tmp_path):
    run, correct = beyond("individual")
    settings = {"tasks": {"digits": {"data": "1"}}, "unseen": {"land": {}, "greek": {"data": "3"}}}
    save_run(replace(run, val={"digits": score(1)}, settings=settings), correct, tmp_path)
    tasks = settings["tasks"] | settings["unseen"]
    checkpoints = run.checkpoints | run.unseen.checkpoints
    whole = replace(run, tasks=dict.fromkeys(tasks, "T"), checkpoints=checkpoints, unseen=None,
                    settings={"tasks": tasks})  # fmt: skip
    found, _ = made(tmp_path, whole, a_method(), unseen=("land", "greek"))
    assert found["test"] == {t: s.accuracy for t, s in (run.test | run.unseen.test).items()}


def test_without_one_the_message_says_how_to_make_it(tmp_path):
    run, _ = make_run(tasks=("digits", "land"))
    with pytest.raises(ValueError) as caught:
        made(tmp_path / "none", run, a_method())
    assert str(caught.value) == (
        f"accuracies of TSV-M cannot be normalized: no Run in {tmp_path / 'none'} says how good "
        f"the fine-tuned models of digits, land are on val and test. Make it with: "
        f"tsv-bench method=individual 'checkpoints.folder='\"'\"'my models'\"'\"'' paths.runs=else"
    ), "published ones are not offered for tasks that have none"


def test_published_ones_are_offered_where_there_are_any(tmp_path):
    run, _ = make_vision_run()
    with pytest.raises(ValueError, match="cannot be normalized.*\nOr .*normalizer=published"):
        made(tmp_path, run, a_method())


def test_a_run_without_validation_is_enough_where_alpha_is_fixed(tmp_path):
    individual, correct = make_run("individual", tasks=("digits", "land"))
    save_run(individual, correct, tmp_path)  # val: {}, as older ones
    found, _ = made(tmp_path, individual, a_method("tsv_compress", [1.0]))
    assert found == {"test": {task: s.accuracy for task, s in individual.test.items()}}
    with pytest.raises(ValueError, match="models of digits, land are on val and test. Make it"):
        made(tmp_path, individual, a_method())


def test_an_older_run_without_variants_counts_for_what_deviates_in_nothing(tmp_path):
    individual, correct = make_run("individual", tasks=("digits", "land"))
    path = save_run(individual, correct, tmp_path)
    content = json.loads(path.read_text())
    del content["variants"]
    path.write_text(json.dumps(content))
    compress = a_method("tsv_compress", [1.0])
    assert made(tmp_path, individual, compress)[0]["test"].keys() == {"digits", "land"}
    other: Run = replace(individual, variants={"land": "prompts of the paper"})
    with pytest.raises(ValueError, match="models of land are on test. Make it"):
        made(tmp_path, other, compress)


def test_individual_models_at_alpha_one_are_divided_by_themselves(tmp_path):
    run, _ = make_run("individual")
    found, source = made(tmp_path / "none", run, a_method("individual", [1.0]))
    assert found is None and not published.is_published(source)
    with pytest.raises(ValueError, match="accuracies of Individual cannot be normalized"):
        made(tmp_path / "none", run, a_method("individual", [0.5]))


@pytest.mark.parametrize("method", [a_method(), a_method("individual", [1.0])])
def test_published_is_taken_when_it_is_asked_for(method, tmp_path):
    run, correct = make_vision_run("individual", generation="fixed")
    save_run(run, correct, tmp_path)
    found, source = made(tmp_path, run, method, normalizer="published")
    assert found["test"]["cars"] == 0.7818679268747668
    assert found["val"]["dtd"] == 0.7854609929078015
    assert list(found["test"]) == list(found["val"]) == published.suites()["vision8"]
    assert published.is_published(source) and "original checkpoints" in source


@pytest.mark.parametrize(
    ("normalizer", "backbone", "tasks", "message"),
    [
        ("theirs", "vit_b32", ["cars"], "normalizer='theirs' is not one of own, published."),
        (None, "vit_b32", ["cars"], "normalizer=None is not one of own, published."),
        ("published", "mini", ["cars"], "'mini' is published; .*normalizer=own"),
        ("published", "vit_b32", ["cars", "digits"], "first 'digits'.*normalizer=own"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(normalizer, backbone, tasks, message):
    with pytest.raises(ValueError, match=message):
        check_normalizer(config("runs", normalizer, backbone), dict.fromkeys(tasks))


def test_what_can_be_is_not_refused():
    check_normalizer(config("runs", "published", "vit_l14"), dict.fromkeys(["cars", "kmnist"]))
    check_normalizer(config("runs"), dict.fromkeys(["digits"]))
    assert normalizer.CHOICES == ("own", "published")


@pytest.mark.parametrize(
    ("changed", "known"),
    [
        ({}, True),
        ({"evaluation": {"precision": "bfloat16"}}, False),
        ({"tasks": {"digits": {"templates": ["another {}"]}}}, False),
        ({"version": "1"}, True),
    ],
)
def test_own_is_of_the_same_prompts_and_precision(changed, known, tmp_path):
    settings = {
        "tasks": {"digits": {"templates": ["a {}"]}},
        "evaluation": {"precision": "float32"},
        "version": "0",
    }
    individual, correct = make_run("individual", tasks=("digits",))
    save_run(replace(individual, settings=settings), correct, tmp_path)
    run = replace(make_run(tasks=("digits",))[0], settings=settings | changed)
    if known:
        found, _ = made(tmp_path, run, a_method(alphas=[1.0]))
        assert found == {"test": {"digits": individual.test["digits"].accuracy}}
    else:
        with pytest.raises(ValueError, match="no Run in .* fine-tuned models of digits"):
            made(tmp_path, run, a_method(alphas=[1.0]))
