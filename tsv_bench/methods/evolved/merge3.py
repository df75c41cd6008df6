"""MERGE3: https://arxiv.org/abs/2502.10436."""

import logging
from collections.abc import Mapping, Sequence
from functools import cache

from torch import Tensor

from tsv_bench.methods.bench import Bench, check_bench
from tsv_bench.methods.evolved.abilities import COMBINATIONS
from tsv_bench.methods.evolved.anchors import CHOICES
from tsv_bench.methods.evolved.contributions import Base, Contributions
from tsv_bench.methods.evolved.estimators import ESTIMATORS, TOGETHER
from tsv_bench.methods.evolved.evolution import Evolution, Settings
from tsv_bench.methods.evolved.examiner import BenchExaminer, Examiner
from tsv_bench.methods.evolved.genotype import BY, Genotype
from tsv_bench.methods.evolved.search import ALGORITHMS, Search, check_objectives, check_pymoo
from tsv_bench.methods.knobs import (
    check_choice,
    check_num_tasks,
    check_positive,
    check_switch,
    check_whole,
)
from tsv_bench.task_vectors.lazy import LazyVector, Part, ServedVectors, TaskVectors

__all__ = ["merge3"]

log = logging.getLogger(__name__)

ENDPOINTS = ("models", "respondents")


def merge3(
    task_vectors: TaskVectors,
    *,
    bench: Bench | Examiner | None,
    base: str = "task_arithmetic",
    base_knobs: Mapping | None = None,
    by: str = "task",
    depth_groups: int = 5,
    highest: float | int = 1.0,
    algorithm: str = "ga",
    population: int = 25,
    generations: int = 7,
    objectives: Sequence | str | None = None,
    normalized: bool = True,
    anchors: int = 20,
    anchors_by: str = "random",
    estimator: str = "gmp_irt",
    abilities: str = "convex",
    together: str = "joint",
    endpoints: str = "respondents",
    dimensions: int = 5,
    respondent_alphas: Sequence = (0.2, 0.4, 0.6),
    check: bool = True,
) -> ServedVectors:
    """Serve every task a merge by ``base`` whose coefficients are found by evolution.

    There is a coefficient from 0 to ``highest`` for each task, or ``by`` "depth" for each task and
    each of ``depth_groups`` groups of layers; with SLERP the place between two tasks, from 0 to 1.
    A candidate's fitness is the mean over tasks of its accuracy, ``normalized`` by that of the
    task's own model, estimated from its answers to a few ``anchors`` of each task. ``objectives``
    of several algorithms are lists of tasks, or "task". ``check``: whether the last generation is
    asked all images, for the record alone. ``bench`` may be an `Examiner`. The search begins when
    the first layer is wanted. Raises ValueError for knobs out of range, without pymoo, or without a
    bench.
    """
    chosen = Base.of(base, base_knobs)
    check_choice("by", by, BY, "for what there is a coefficient of each task")
    check_whole("depth_groups", depth_groups, "the number of groups of layers by depth", 1)
    check_positive("highest", highest, "the largest coefficient")
    check_choice("algorithm", algorithm, ALGORITHMS, "a way to search")
    check_whole("population", population, "the number of candidates in a generation", 4)
    check_whole("generations", generations, "the number of generations", 1)
    check_lists(objectives, algorithm)
    check_switch("normalized", normalized)
    check_whole("anchors", anchors, "the number of items of each task that candidates answer", 1)
    check_choice("anchors_by", anchors_by, CHOICES, "a way to choose anchors")
    check_choice("estimator", estimator, ESTIMATORS, "an estimator of accuracies")
    check_choice("abilities", abilities, COMBINATIONS, "a way to combine abilities")
    check_choice("together", together, TOGETHER, "for what there is one ability")
    check_choice("endpoints", endpoints, ENDPOINTS, "whose abilities are combined")
    check_whole("dimensions", dimensions, "the number of abilities of a model", 1)
    check_alphas_of_respondents(respondent_alphas)
    check_switch("check", check)
    check_pymoo()
    if not task_vectors:
        return {}
    check_bench("merge3", bench)
    if base == "slerp":
        check_num_tasks("merge3 with base=slerp", 2, list(task_vectors))
    # A sum is rounded as its terms are ordered, and a search enlarges that: the order is fixed.
    ordered = {task: task_vectors[task] for task in sorted(task_vectors)}
    contributions = Contributions(ordered, chosen)
    groups = depth_groups if by == "depth" else 1
    genotype = Genotype(contributions.columns, list(contributions.vectors[0]), groups)
    settings = Settings(
        anchors=anchors, anchors_by=anchors_by, estimator=estimator, abilities=abilities,
        together=together, endpoints=endpoints, dimensions=dimensions, normalized=normalized,
        objectives=objectives, respondent_alphas=respondent_alphas, check=check,
    )  # fmt: skip

    @cache
    def genes() -> Tensor:
        if len(ordered) == 1:
            log.warning(
                f"merge3 has one task, {next(iter(ordered))}: there is nothing to weigh it "
                f"against, so that the search only scales its vector."
            )
        examiner = bench if isinstance(bench, Examiner) else BenchExaminer(bench, ordered)
        search = Search(
            algorithm=algorithm, population=population, generations=generations,
            highest=1.0 if base == "slerp" else highest, seed=examiner.seed,
        )  # fmt: skip
        found = Evolution(examiner, ordered, contributions, genotype, search, settings).run()
        contributions.forget()
        return found

    def parts(name: str) -> Sequence[Part]:
        # Searched here and not in a part: there torch's threads are shared among parts.
        numbers = genotype.numbers(genes())
        return contributions.candidate_parts(name, numbers(name))

    return dict.fromkeys(task_vectors, LazyVector(contributions.vectors, parts))


def check_lists(objectives: object, algorithm: str) -> None:
    """Raise ValueError unless these are objectives that the algorithm takes.

    How many "task" is, and whether there are such tasks, is known later.
    """
    if objectives is None:
        check_objectives(algorithm, 1)
    elif objectives != "task":
        lists = isinstance(objectives, Sequence) and not isinstance(objectives, str)
        if not lists or not all(
            isinstance(tasks, Sequence) and not isinstance(tasks, str) and len(tasks)
            for tasks in objectives
        ):
            raise ValueError(
                f"objectives={objectives!r} are neither null, for the mean of all tasks, nor task, "
                f"for one a task, nor lists of tasks, such as [[a, b], [c]]."
            )
        check_objectives(algorithm, len(objectives))


def check_alphas_of_respondents(alphas: object) -> None:
    """Raise ValueError unless these are positive numbers, each once."""
    if not isinstance(alphas, Sequence) or isinstance(alphas, str):
        raise ValueError(
            f"respondent_alphas={alphas!r} are no list of numbers, such as [0.2, 0.4]."
        )
    for alpha in alphas:
        check_positive("respondent_alphas", alpha, "what Task Arithmetic is multiplied by")
    if len(set(alphas)) < len(alphas):
        raise ValueError(f"respondent_alphas has the same number twice: {list(alphas)}.")
