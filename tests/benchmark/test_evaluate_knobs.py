"""A knob that the benchmark chooses on validation, by task or suite; merges take its default."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from made_up.chosen_by_task import tall
from made_up.merges import made, merge, same, write_checkpoints
from made_up.vectors import random_vectors
from stand_ins.commands import SMALL, TASKS, begin_from, runs, tsv

from tsv_bench import methods
from tsv_bench.benchmark.evaluate import choose_knob
from tsv_bench.methods.forms import Packed
from tsv_bench.state_dicts.state_dict import open_state_dict


class Judge:
    """Stands for an evaluator: each task is best with masks of a certain density."""

    liked = {"task0": 0.2, "task1": 0.6, "task2": 0.4}

    def correct(self, served, alpha, splits, done):
        assert alpha == 1.0
        found = {}
        for task in splits:
            assert isinstance(served, Packed)
            kept = served[task]["proj"].count_nonzero()
            wanted = methods.tall_mask_ta(self.vectors, mask_lambda=self.liked[task])[task]["proj"]
            found[task] = np.arange(10) < (9 if kept == wanted.count_nonzero() else 4)
            done()
        return found


@pytest.mark.parametrize("name", ["tall_mask_ta", "consensus_ta"])
def test_each_task_gets_the_candidate_that_its_mask_is_best_with(name):
    vectors, judge = random_vectors(3), Judge()
    judge.vectors = vectors
    method = tall()
    if name == "consensus_ta":  # decided by the TALL masks, whatever they are then used for
        serve = partial(methods.consensus_ta, mask_lambda=None, min_tasks=2)
        method = replace(method, name=name, serve=serve)
    found = choose_knob(method, vectors, judge, dict.fromkeys(vectors), None)
    assert found == judge.liked
    served = method.with_knob(found).serve(vectors)
    expected = getattr(methods, name)(
        vectors, mask_lambda=judge.liked, **({"min_tasks": 2} if name == "consensus_ta" else {})
    )
    for task in vectors:
        assert torch.equal(served[task]["proj"], expected[task]["proj"])


@pytest.mark.parametrize(
    ("own", "best"), [((1, 1, 1), 0.2), ((1, 0.1, 1), 0.6), ((1, 1, 0.1), 0.4)]
)
def test_a_suite_gets_one_candidate_by_its_mean_normalized_accuracy(own, best):
    """Each candidate is best for one task; the one that counts most by its normalizer decides."""
    vectors, judge = random_vectors(3), Judge()
    judge.vectors = vectors
    method = tall(by="suite")
    normalizer = {"val": dict(zip(vectors, own, strict=True))}
    found = choose_knob(method, vectors, judge, dict.fromkeys(vectors), normalizer)
    assert found == best  # the smallest on a tie
    assert method.with_knob(found).serve.keywords == {"mask_lambda": best}


def test_the_benchmark_chooses_for_the_suite_and_says_what(fine_tuned, tmp_path):
    begin_from(fine_tuned, tmp_path)
    few = "method.choose.candidates=[0.2,0.9]"
    result = tsv(tmp_path, "bench", "method=lines", few, *SMALL)
    assert result.code == 0, result.err
    run = runs(tmp_path)["lines"]
    [value] = {knobs["beta"] for knobs in run.task_knobs.values()}
    assert list(run.task_knobs) == list(TASKS) and value in (0.2, 0.9)
    assert run.settings["method"]["by"] == "suite" and run.knobs["beta"] is None
    assert run.alpha == 1 and not run.task_known and not run.alpha_curve and "knobs" in run.seconds
    fixed = ["method=lines", f"method.beta={value}", "paths.runs=fixed/runs"]
    result = tsv(tmp_path, "bench", *fixed, *SMALL)
    assert result.code == 0, result.err
    again = runs(tmp_path / "fixed")["lines"]
    assert again.test == run.test and not again.task_knobs


def test_the_benchmark_chooses_and_says_what(fine_tuned, tmp_path):
    begin_from(fine_tuned, tmp_path)
    methods_ = ["individual", "tall_mask_ta", "consensus_ta", "tsv_compress"]
    alphas = "method.alphas=[0.3,0.6]"
    for name in methods_:
        extra = [alphas] if name == "consensus_ta" else []
        result = tsv(tmp_path, "bench", f"method={name}", *SMALL, *extra)
        assert result.code == 0, result.err
    found = runs(tmp_path)
    masks, consensus = found["tall_mask_ta"], found["consensus_ta"]
    assert list(masks.task_knobs) == list(TASKS)
    for knobs in masks.task_knobs.values():
        assert list(knobs) == ["mask_lambda"] and knobs["mask_lambda"] in (0.2, 0.3, 0.4, 0.5, 0.6)
    assert consensus.task_knobs == masks.task_knobs
    assert "knobs" in masks.seconds and len(consensus.alpha_curve) == 2
    assert masks.settings["method"]["candidates"] == [0.2, 0.3, 0.4, 0.5, 0.6]
    known = {name: run.task_known for name, run in found.items()}
    assert known == dict(zip(methods_, (True, True, False, True), strict=True))
    whole = found["individual"].stored_bytes
    assert found["consensus_ta"].stored_bytes <= whole / 2
    # The sum, half as large as both tasks, and for each of them a bit where it has 32.
    assert masks.stored_bytes == pytest.approx(whole * (1 / 2 + 1 / 32), rel=1e-3)


def test_a_merge_takes_the_default_of_a_suite_too(tmp_path):
    write_checkpoints(tmp_path)
    knobs = {"base": "ties", "base_knobs": {"density": 0.3}}
    arguments = ["method.base=ties", "method.base_knobs={density: 0.3}"]
    result = merge(tmp_path, "out.safetensors", "method=lines", *arguments)
    assert "beta=0.5 for every task: tsv-bench chooses it for the suite on val" in result.err
    [expected] = made(tmp_path, "lines", "there.safetensors", knobs=knobs | {"beta": 0.5})
    same(open_state_dict(tmp_path / "out.safetensors"), expected)


def test_a_merge_takes_the_default_and_says_so(tmp_path):
    write_checkpoints(tmp_path)
    result = merge(tmp_path, "out.safetensors", "method=consensus_ta", "method.min_tasks=1")
    assert "mask_lambda=0.4 for every task" in result.err
    said = "alpha=0.3, the default of consensus_ta without validation. tsv-bench chooses it"
    assert said in result.err
    knobs = {"mask_lambda": 0.4, "min_tasks": 1}
    [expected] = made(tmp_path, "consensus_ta", "there.safetensors", knobs=knobs, alpha=0.3)
    same(open_state_dict(tmp_path / "out.safetensors"), expected)


@pytest.mark.parametrize(("arguments", "alpha"), [([], 0.5), (["alpha=1"], 1.0)])
def test_a_merge_takes_the_alpha_that_a_method_fixes(tmp_path, arguments, alpha):
    write_checkpoints(tmp_path)
    result = merge(tmp_path, "out.safetensors", "method=magmax", *arguments)
    assert "alpha=" not in result.err
    [expected] = made(tmp_path, "magmax", "there.safetensors", alpha=alpha)
    same(open_state_dict(tmp_path / "out.safetensors"), expected)
