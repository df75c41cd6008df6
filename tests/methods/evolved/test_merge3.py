"""MERGE3 as a whole: what is served, said and refused, and that it goes on after a break."""

import logging
import sys

import pytest
import torch
from made_up.bench import NUM_IMAGES
from made_up.kept_work import Ended, KeepingBench
from made_up.vectors import close, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.evolved import evolution
from tsv_bench.methods.needs import Needs

pytestmark = pytest.mark.usefixtures("without_shape_checks", "short_fits")

TASKS = ["task0", "task1", "task2"]
FEW = {"population": 4, "generations": 3, "anchors": 5, "dimensions": 2}


def run(bench=None, num_tasks=3, **knobs):
    """The task vectors, always the same, the layers that are served, the bench with its notes."""
    torch.manual_seed(0)
    vectors = random_vectors(num_tasks)
    bench = bench or KeepingBench(list(vectors))
    served = methods.merge3(vectors, bench=bench, **FEW | knobs)
    return vectors, read(served)["task0"], bench


def weights_of(note):
    (genes,) = note["chosen"]["genes"]
    return genes


@pytest.fixture(scope="module")
def whole():
    """A search without a break."""
    return run()


def test_what_is_served_are_the_task_vectors_times_the_chosen_genes(whole):
    vectors, served, bench = whole
    genes = weights_of(bench.notes["merge3"])
    assert set(genes) == set(TASKS) and all(0 <= gene <= 1 for gene in genes.values())
    wanted = {name: sum(genes[task] * vectors[task][name] for task in TASKS) for name in served}
    torch.testing.assert_close(served, wanted, **close)


def test_only_anchors_are_asked_and_the_account_says_so(whole):
    *_, bench = whole
    note = bench.notes["merge3"]
    images, candidates = note["images"], note["candidates"]
    assert candidates == 12 and note["skipped"] == 0
    assert images["items"] == 3 * NUM_IMAGES and images["search"] == candidates * 3 * 5
    assert images["full_search"] == candidates * 3 * NUM_IMAGES
    asked = images["respondents"] + images["search"] + images["on_all"]
    assert bench.images_passed == asked
    assert len(note["last_generation"]["estimate"]) == 4
    assert max(note["best_by_generation"]) <= 2
    alone = run(check=False)[-1]
    assert alone.notes["merge3"]["last_generation"]["estimate"] == []
    assert weights_of(alone.notes["merge3"]) == weights_of(note)  # it chooses nothing


def test_each_task_has_its_own_items_of_the_fit(monkeypatch):
    fitted, made, fit, estimator = [], {}, evolution.fit, evolution.Estimator
    monkeypatch.setattr(evolution, "fit", lambda *how: fitted.append(fit(*how)) or fitted[0])
    monkeypatch.setattr(evolution, "Estimator", lambda **how: made.update(how) or estimator(**how))
    run(generations=1, check=False)
    [(items, _)] = fitted
    assert list(made["items"]) == TASKS
    assert torch.cat([own.difficulty for own in made["items"].values()]).equal(items.difficulty)


@pytest.mark.parametrize("estimator", ["mean", "p_irt", "mp_irt", "gmp_irt"])
def test_with_all_images_as_anchors_estimates_are_accuracies(estimator):
    *_, bench = run(anchors=NUM_IMAGES, estimator=estimator, anchors_by="kmeans")
    note = bench.notes["merge3"]
    last = note["last_generation"]
    assert last["error"] == pytest.approx(0, abs=1e-12)
    for estimate, accuracy in zip(last["estimate"], last["accuracy"], strict=True):
        assert estimate == pytest.approx(accuracy, abs=1e-12)
    assert note["chosen"]["estimate"] == pytest.approx(note["chosen"]["accuracy"], abs=1e-12)


# When an answer of a respondent is to be kept, the first and the last of a generation.
@pytest.mark.parametrize("call", [3, 9, 16])
def test_after_a_break_it_goes_on_with_the_same_result(call, whole):
    _, wanted, whole = whole
    store = {}
    with pytest.raises(Ended):
        run(KeepingBench(TASKS, store, ends_at=call))
    before = len(store)
    _, served, bench = run(KeepingBench(TASKS, store))
    torch.testing.assert_close(served, wanted, rtol=0, atol=0)
    assert bench.notes == whole.notes
    assert before == 0 or bench.images_passed < whole.images_passed


def test_nsga2_notes_its_front_and_serves_one_of_it():
    objectives = [["task0", "task2"], ["task1"]]
    *_, bench = run(algorithm="nsga2", objectives=objectives, estimator="mean")
    note = bench.notes["merge3"]
    assert note["objectives"] == ["task0 + task2", "task1"]
    assert len(note["asked"]) == 12 and 1 <= len(note["front"]) <= 12
    assert all(point in note["asked"] for point in note["front"])


def test_cma_es_asks_its_start_too_and_depth_groups_have_genes_of_their_own():
    *_, bench = run(algorithm="cma_es", by="depth", depth_groups=2)
    note = bench.notes["merge3"]
    assert note["candidates"] == 13 and len(note["chosen"]["genes"]) == 2


def test_slerp_searches_a_place_between_two():
    vectors, served, bench = run(num_tasks=2, base="slerp", highest=5.0)
    t = weights_of(bench.notes["merge3"])["t"]
    assert 0 <= t <= 1
    torch.testing.assert_close(served, read(methods.slerp(vectors, t=t))["task0"], **close)
    message = "merge3 with base=slerp is for exactly 2 tasks, and the tasks here are 3"
    with pytest.raises(ValueError, match=message):
        run(base="slerp")


def test_one_task_is_said_to_leave_nothing_to_weigh(caplog):
    with caplog.at_level(logging.WARNING):
        run(num_tasks=1)
    assert "merge3 has one task, task0: there is nothing to weigh it against" in caplog.text


def test_more_anchors_than_images_are_refused():
    message = f"anchors=13 of each task, and of task0 there are {NUM_IMAGES} items: lower"
    with pytest.raises(ValueError, match=message):
        run(anchors=13)


def test_no_test_image_is_ever_an_item():
    needs = {"arguments": ("bench",), "images": 80, "labels": True}
    assert Needs(**needs, split="val").learns
    with pytest.raises(ValueError, match="no method may look at labels of test images"):
        Needs(**needs, split="test", transductive=True)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"algorithm": "nsga2"}, "nsga2 is for 2 or 3 objectives, and there are 1"),
        ({"algorithm": "nsga2", "objectives": [["a"]] * 4}, "2 or 3 objectives, and there are 4"),
        ({"algorithm": "ga", "objectives": [["a"], ["b"]]}, "1 objectives, and there are 2"),
        ({"objectives": "cars"}, "objectives='cars' are neither null"),
        ({"objectives": [[]]}, r"objectives=\[\[\]\] are neither null"),
        ({"objectives": ["a", "b"]}, "are neither null"),
        ({"respondent_alphas": "0.3"}, "respondent_alphas='0.3' are no list of numbers"),
        ({"respondent_alphas": [0.3, 0.3]}, "respondent_alphas has the same number twice"),
        ({"respondent_alphas": [0]}, "respondent_alphas=0 is not a positive number"),
        ({"population": 3}, "population=3 is not a whole number from 4 on"),
        ({"base": "ties", "base_knobs": {"k": 1}}, "base_knobs has 'k', which base=ties does not"),
    ],
)
def test_wrong_knobs_are_refused_before_anything_is_read(knobs, message):
    with pytest.raises(ValueError, match=message):
        methods.merge3({}, bench=None, **knobs)


def test_what_only_the_tasks_tell_is_refused_before_the_search():
    with pytest.raises(ValueError, match="objectives has 'cars', of which there are no items"):
        run(algorithm="nsga2", objectives=[["task0"], ["cars"]])
    with pytest.raises(ValueError, match="ga is for 1 objectives, and there are 3"):
        run(objectives="task")


def test_without_pymoo_the_extra_is_named_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymoo", None)
    with pytest.raises(ValueError, match=r"pip install 'tsv_bench\[evolve\]'"):
        methods.merge3({}, bench=None)


@pytest.mark.parametrize(
    ("knob", "values", "unmet", "met"),
    [
        ("depth_groups", (1, 3), {"by": "task"}, {"by": "depth"}),
        ("highest", (0.5, 1.5), {"base": "slerp", "num_tasks": 2}, {}),
        ("abilities", ("convex", "free"), {"estimator": "mean"}, {}),
        ("together", ("joint", "task"), {"estimator": "mean"}, {}),
        ("endpoints", ("respondents", "models"), {"estimator": "mean"}, {}),
    ],
)
def test_what_the_yaml_says_of_knobs_that_count_only_beside_others(knob, values, unmet, met):
    for others, same in ((unmet, True), (met, False)):
        notes = [run(**others, **{knob: value})[-1].notes["merge3"] for value in values]
        first, second = (note["last_generation"]["estimate"] for note in notes)
        assert (first == second) == same, (knob, others)
