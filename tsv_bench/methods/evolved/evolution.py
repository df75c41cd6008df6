"""One search of MERGE3 from beginning to end: ask, fit, search, choose, and say how good it was."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tsv_bench.methods.evolved.account import Searched
from tsv_bench.methods.evolved.anchors import Anchors, choose_anchors
from tsv_bench.methods.evolved.contributions import Contributions
from tsv_bench.methods.evolved.estimators import Estimator
from tsv_bench.methods.evolved.examiner import Examiner
from tsv_bench.methods.evolved.genotype import Genotype
from tsv_bench.methods.evolved.irt import fit
from tsv_bench.methods.evolved.respondents import Responses, ask, fits, respondents_of
from tsv_bench.methods.evolved.search import WORST, Generation, Search, check_objectives
from tsv_bench.task_vectors.lazy import TaskVectors
from tsv_bench.task_vectors.streaming import watched

log = logging.getLogger(__name__)

TOP = 3  # candidates that are asked all items at the end


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The knobs of `merge3` that say how fitness is estimated."""

    anchors: int
    anchors_by: str
    estimator: str
    abilities: str
    together: str
    endpoints: str
    dimensions: int
    normalized: bool
    objectives: Sequence[Sequence[str]] | str | None
    respondent_alphas: Sequence[float]
    check: bool


class Evolution:
    """The search for the genes of the vector that is served."""

    def __init__(
        self,
        examiner: Examiner,
        task_vectors: TaskVectors,
        contributions: Contributions,
        genotype: Genotype,
        search: Search,
        settings: Settings,
    ) -> None:
        self._examiner, self._task_vectors = examiner, task_vectors
        self._contributions, self._genotype = contributions, genotype
        self._search, self._settings = search, settings

    def run(self) -> Float[Tensor, " genes"]:
        """Return the genes of the best candidate, and note what the search did.

        Raises ValueError if there are fewer items than anchors, or no candidate could be asked.
        """
        settings = self._settings
        respondents = respondents_of(self._task_vectors, settings.respondent_alphas)
        num_endpoints = 1 + len(self._task_vectors)
        responses = ask(self._examiner, respondents, num_endpoints)
        asks_some = self._examiner.asks_some
        if asks_some:
            check_enough(settings.anchors, responses.sizes)
        else:
            log.info("merge3: every candidate is asked all items, so that nothing is estimated")
        groups = list(responses.sizes)
        objectives = groups_of_objectives(settings.objectives, groups)
        check_objectives(self._search.algorithm, len(objectives))
        estimator = self._estimator(responses)
        own = responses.normalizer if settings.normalized else dict.fromkeys(groups, 1.0)
        divisors = torch.tensor([own[group] for group in groups], dtype=torch.float64)
        rows = [[groups.index(group) for group in objective] for objective in objectives]

        def fitness(estimates: Float[Tensor, "candidates groups"]) -> Tensor:
            shares = estimates / divisors
            means = torch.stack([shares[:, of].mean(dim=1) for of in rows], dim=1)
            return means.nan_to_num(nan=WORST)

        generations, estimates = self._generations(estimator, fitness, len(objectives))
        found = Searched(
            responses=responses,
            objectives=[" + ".join(objective) for objective in objectives],
            num_asked=sum(len(anchors) for anchors in estimator.anchors.values()),
            generations=generations,
            estimates=torch.cat(estimates),
            asks_some=asks_some,
        )
        accuracy = partial(self._accuracy, responses.sizes)
        top = found.best(TOP)
        for index in watched(top, len(top), "merge3: the best on all items"):
            found.ask_all(index, accuracy)
        chosen = found.choose(top, fitness)
        last = found.last if settings.check else []
        for index in watched(last, len(last), "merge3: the last generation on all items"):
            found.ask_all(index, accuracy)
        genes = found.genotypes[chosen]
        self._examiner.note("merge3", found.account(chosen, last, self._genotype.plain(genes)))
        log.info(found.sentence(chosen))
        return genes

    def _estimator(self, responses: Responses) -> Estimator:
        settings, seed = self._settings, self._search.seed
        fitted, abilities = fit(responses.right, settings.dimensions, seed)
        items, start = {}, 0
        for group, size in responses.sizes.items():
            items[group] = fitted[start : start + size]
            start += size
        generator = torch.Generator().manual_seed(seed)
        number = settings.anchors if self._examiner.asks_some else None  # None: all
        anchors: dict[str, Anchors] = {
            group: choose_anchors(of_group, number or len(of_group), settings.anchors_by, generator)
            for group, of_group in items.items()
        }
        known = responses.num_endpoints if settings.endpoints == "models" else len(abilities)
        return Estimator(
            kind=settings.estimator,
            combination=settings.abilities,
            together=settings.together,
            items=items,
            anchors=anchors,
            endpoints=abilities[:known],
        )

    def _generations(
        self, estimator: Estimator, fitness: Callable[[Tensor], Tensor], num_objectives: int
    ) -> tuple[list[Generation], list[Float[Tensor, "candidates groups"]]]:
        """Return the search's generations, and for each its candidates' estimated accuracies."""
        search = self._search
        total = search.population * search.generations
        steps = iter(watched(range(total), total, "merge3: candidates"))
        estimates: list[Tensor] = []

        def evaluate(number: int, genotypes: Tensor) -> Tensor:
            estimates.append(self._estimated(number, genotypes, estimator, steps))
            return fitness(estimates[-1])

        found = search.run(self._genotype.num_genes, num_objectives, evaluate)
        next(steps, None)  # which ends the bar
        return found, estimates

    def _estimated(
        self, number: int, genotypes: Tensor, estimator: Estimator, steps: Iterator
    ) -> Float[Tensor, "candidates groups"]:
        """Return a generation's estimates; those that were kept before a break are not asked for.

        NaN for a candidate that could not be asked.
        """
        name, done = f"generation-{number}", torch.zeros(0, len(estimator.items)).double()
        kept = self._examiner.kept(name)
        if kept is not None:
            known = kept["genotypes"]
            if torch.equal(known, genotypes[: len(known)]):
                done = kept["estimates"]
        rows = {group: anchors.rows for group, anchors in estimator.anchors.items()}
        unknown = torch.full((len(rows),), torch.nan, dtype=torch.float64)
        for index, genes in enumerate(genotypes):
            next(steps, None)
            if index < len(done):
                continue
            right = self._answers(f"candidate {number}.{index}", genes, rows)
            row = estimator(right) if right is not None else unknown
            done = torch.cat([done, row[None]])
            self._examiner.keep(name, {"genotypes": genotypes[: index + 1], "estimates": done})
        return done

    def _answers(
        self, name: str, genes: Tensor, rows: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor] | None:
        candidate = self._contributions.candidate(self._genotype.numbers(genes))
        return self._examiner.answers(name, candidate, rows)

    def _accuracy(self, sizes: Mapping[str, int], genes: Tensor) -> Float[Tensor, " groups"] | None:
        """Return a candidate's accuracy on all items of each group; None if it has none."""
        right = self._answers("one of the best", genes)
        if right is None or not fits("one of the best", right, sizes):
            return None
        return torch.stack([right[group].double().mean() for group in sizes])


def groups_of_objectives(
    objectives: Sequence[Sequence[str]] | str | None, groups: Sequence[str]
) -> list[list[str]]:
    """Return the groups whose mean is each objective.

    Null is one objective, "task" one for each group. Raises ValueError for a group that is none.
    """
    if objectives is None:
        return [list(groups)]
    if objectives == "task":
        return [[group] for group in groups]
    for group in (group for objective in objectives for group in objective):
        if group not in groups:
            raise ValueError(
                f"objectives has {group!r}, of which there are no items: there are "
                f"{', '.join(groups)}."
            )
    return [list(objective) for objective in objectives]


def check_enough(anchors: int, sizes: Mapping[str, int]) -> None:
    """Raise ValueError if a group has fewer items than anchors are wanted."""
    for group, size in sizes.items():
        if size < anchors:
            raise ValueError(
                f"anchors={anchors} of each task, and of {group} there are {size} items: lower "
                f"method.anchors, or raise method.images."
            )
