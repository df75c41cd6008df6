"""A bench asks models for the classes of its images."""

import pytest
import torch
from made_up.bench import NUM_IMAGES, MadeUpBench
from made_up.vectors import random_vectors

from tsv_bench.methods.evolved.examiner import BenchExaminer, Examiner

TASKS = ["task0", "task1"]


def by_definition(bench, vector, task):
    weights = {name: w + vector.get(name, 0) for name, w in bench.pretrained.items()}
    logits = bench.logits(task, bench.features(weights, bench.images(task)))
    return logits.argmax(dim=1) == bench.labels(task)


def test_answers_are_whether_the_class_is_right():
    bench, vectors = MadeUpBench(TASKS), random_vectors(2)
    examiner = BenchExaminer(bench, vectors)
    assert isinstance(examiner, Examiner) and not isinstance(bench, Examiner)
    for vector in (vectors["task1"], {}):
        found = examiner.answers("candidate", vector)
        assert list(found) == TASKS
        for task in TASKS:
            assert found[task].equal(by_definition(bench, vector, task))
            assert found[task].dtype == torch.bool and len(found[task]) == NUM_IMAGES


def test_answers_to_some_rows_are_those_among_all():
    bench, vectors = MadeUpBench(TASKS), random_vectors(2)
    examiner = BenchExaminer(bench, vectors)
    rows = {"task0": torch.tensor([1, 5, 7]), "task1": torch.tensor([0, 11])}
    every = examiner.answers("candidate", vectors["task0"])
    found = examiner.answers("candidate", vectors["task0"], rows)
    assert {task: right.tolist() for task, right in found.items()} == {
        task: every[task][rows[task]].tolist() for task in TASKS
    }


def test_a_task_without_images_is_refused():
    with pytest.raises(ValueError, match="the bench has no images of task1"):
        BenchExaminer(MadeUpBench(["task0"]), random_vectors(2))
