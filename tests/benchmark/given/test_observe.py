"""Methods that see images get statistics of them, and the Run says what was seen."""

import dataclasses
from pathlib import Path

import pytest
import torch
from made_up import tasks as made_up
from stand_ins.commands import SMALL, TASKS, begin_from, runs, tsv

from tsv_bench.benchmark.evaluate import unseen
from tsv_bench.benchmark.given.observe import draw, observe
from tsv_bench.benchmark.runs import find_runs
from tsv_bench.methods.method import Method
from tsv_bench.methods.needs import Needs

OWN = """
from tsv_bench.task_vectors import mean, merge_entries

def my_method(task_vectors, *, inputs, means, power):
    for task in task_vectors:
        for layer, gram in inputs.get(task, {}).items():
            assert gram.shape == (len(means[task][layer]),) * 2
    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), mean))
"""
YAML = """
name: my_method
label: Mine
alphas: [0.5, 1.0]
power: 1
needs: [inputs, means]
images: 7
split: val
serve: {_target_: my_method.my_method, _partial_: true, power: '${..power}'}
"""


@pytest.fixture(scope="module")
def folder(fine_tuned, tmp_path_factory):
    folder = begin_from(fine_tuned, tmp_path_factory.mktemp("observe"))
    (folder / "conf" / "method").mkdir(parents=True)
    (folder / "conf" / "method" / "my_method.yaml").write_text(YAML)
    (folder / "my_method.py").write_text(OWN)
    return folder


MINE = ("bench", "--config-dir", "conf", "method=my_method", *SMALL)


def test_a_packaged_and_an_own_method_see_images_and_the_run_says_which(folder):
    done = tsv(folder, "bench", "method=regmean", "method.images=9", *SMALL)
    assert done.code == 0, done.err
    header, row = [line for line in done.out.splitlines() if line.startswith(("method", "RegMean"))]
    assert "data" in header and "9 unlabelled train" in row
    done = tsv(folder, *MINE)
    assert done.code == 0, done.err
    found = runs(folder)
    seen = found["regmean"].seen
    assert (seen.split, seen.images, seen.labels) == ("train", 9, False)
    assert (seen.forward_passes, seen.backward_passes) == (9 * len(TASKS), 0)
    assert "statistics" in found["regmean"].seconds and seen.seconds > 0
    assert found["regmean"].knobs == {"off_diagonal": 0.95, "images": 9, "split": "train"}
    own = found["my_method"]
    # Two kinds of one pass. Of 10 validation images 7 were seen, so 3 choose alpha.
    assert own.seen.text == "7 unlabelled val" and own.seen.forward_passes == 7 * len(TASKS)
    assert {score.total for score in own.val.values()} == {3}
    assert own.settings["method"]["needs"]["arguments"] == ["inputs", "means"]


def test_what_was_gathered_is_found_again_by_another_method(folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / "data").rglob("*.inputs.*")}
    assert len(before) == 2 * len(TASKS)
    more = ("method.power=2", "overwrite=true")
    assert tsv(folder, *MINE, *more).code == 0
    after = {path: path.stat().st_mtime_ns for path in (folder / "data").rglob("*.inputs.*")}
    assert after == before


def test_alpha_is_chosen_on_what_was_seen_only_if_the_yaml_says_so(folder):
    done = tsv(folder, *MINE, "+method.alpha_on_seen=true", "method.power=3")
    assert done.code == 0, done.err
    [run] = [run for _, run in find_runs(folder / "runs") if run.knobs.get("power") == 3]
    assert {score.total for score in run.val.values()} == {10}
    assert run.settings["method"]["needs"]["alpha_on_seen"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method.images=11", "the val images of signs are 10 images, and the method is to see 11"),
        ("method.images=10", "sees all 10 validation images of signs, which leaves none"),
        ("method.images=0", "images=0 is not a whole number from 1 on"),
        ("method.split=test", "looks at test images is transductive, which every table says"),
        ("method.needs=[gram]", "needs='gram' is not what a method can receive"),
        ("method.needs=[inputs,bench]", "an argument that my_method.my_method does not take"),
    ],
)
def test_a_mistake_is_one_message_before_any_work(folder, change, message):
    # Another seed has no checkpoints yet: none may be made.
    done = tsv(folder, *MINE, change, "seed=3")
    assert done.code == 1 and message in done.err, done.err
    assert "Traceback" not in done.err and not list(folder.glob("checkpoints/*/*seed3*"))


def test_looking_at_test_images_is_in_the_table(folder):
    done = tsv(folder, *MINE, "method.split=test", "+method.transductive=true")
    assert done.code == 0, done.err
    assert "7 unlabelled test-time" in done.out


LEARNED = """
import torch
from tsv_bench.task_vectors import mean, merge_entries

def my_learned(task_vectors, *, bench):
    if task_vectors and bench.kept("half") is None:
        bench.keep("half", {"found": torch.ones(3)})
        raise ValueError("the power is gone")
    if task_vectors:
        bench.note("my_learned", {"sum": bench.kept("half")["found"].sum().item()})
    return dict.fromkeys(task_vectors, merge_entries(task_vectors.values(), mean))
"""


def test_a_method_goes_on_where_it_was_stopped(folder):
    text = YAML.replace("my_method", "my_learned").replace("inputs, means", "bench")
    text = "\n".join(line.replace(", power: '${..power}'", "") for line in text.splitlines())
    yaml = folder / "conf" / "method" / "my_learned.yaml"
    yaml.write_text(text.replace("power: 1\n", "").replace("[0.5, 1.0]", "[1.0]"))
    (folder / "my_learned.py").write_text(LEARNED)
    mine = [*MINE[:3], "method=my_learned", *SMALL]
    done = tsv(folder, *mine)
    assert done.code == 1 and "the power is gone" in done.err, done.err
    [kept] = (folder / "runs").rglob("*.unfinished")
    assert [path.name for path in kept.iterdir()] == ["half.safetensors"]
    done = tsv(folder, *mine)
    assert done.code == 0, done.err
    [(_, run)] = find_runs(folder / "runs", method="my_learned")
    assert run.details == {"my_learned": {"sum": 3}} and not kept.exists()


def test_without_needs_nothing_is_looked_at():
    method = Method(name="m", label="M", alphas=[1.0], knobs={}, serve=dict)
    given = observe(method, None, {}, {}, {}, None, folder=None, device="cpu", seed=0)
    assert given.method is method and given.seen(1.0) is None and not given.seen_rows


def test_a_backbone_that_says_nothing_of_fine_tuning_is_named():
    needs = Needs(arguments=("bench",), images=None, labels=True, fine_tunes=True)
    method = Method(name="m", label="M", alphas=[1.0], knobs={}, serve=dict, needs=needs)
    with pytest.raises(ValueError, match="conf/backbone/tiny.yaml does not say how: it needs fine"):
        observe(method, made_up.backbone(), {}, {}, {}, None, folder=Path(), device="cpu", seed=0)


@pytest.mark.parametrize(("images", "count"), [(None, 20), (0.6, 12), (0.01, 1), (7, 7)])
def test_all_images_or_a_share_of_them_can_be_seen(images, count):
    needs = Needs(arguments=("inputs",), images=images)
    method = Method(name="m", label="M", alphas=[1.0], knobs={}, serve=dict, needs=needs)
    rows = draw(method, {"t": made_up.task()}, lambda _, s: made_up.load(s), 0)["t"]
    assert rows.tolist() == sorted(set(rows.tolist())) and len(rows) == count
    if images is None:
        with pytest.raises(ValueError, match="sees all 20 validation images of t, which leaves"):
            draw(dataclasses.replace(method, alphas=[0.5, 1.0]), {"t": made_up.task()},
                 lambda _, s: made_up.load(s), 0)  # fmt: skip


def test_images_depend_on_the_seed_alone():
    needs = Needs(arguments=("inputs",), images=5)
    method = Method(name="m", label="M", alphas=[1.0], knobs={}, serve=dict, needs=needs)
    task = made_up.task()
    rows = [
        draw(method, {"t": task}, lambda _, s: made_up.load(s), seed)["t"] for seed in (0, 0, 1)
    ]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    everything = dataclasses.replace(needs, images=made_up.NUM_IMAGES["val"])
    method = dataclasses.replace(method, needs=everything)  # a fixed alpha needs none to be left
    assert len(draw(method, {"t": task}, lambda _, s: made_up.load(s), 0)["t"]) == 20


def test_seen_images_choose_nothing():
    hits = {"a": torch.tensor([True, False, True]).numpy(), "b": torch.tensor([True]).numpy()}
    left = unseen(hits, {"a": [0, 2]})
    assert left["a"].tolist() == [False] and left["b"].tolist() == [True]
    assert unseen(hits, None)["a"].tolist() == hits["a"].tolist()
