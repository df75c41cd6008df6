"""The models whose answers to all items are known, before any candidate is asked."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor

from tsv_bench.methods.entrywise.arithmetic import task_arithmetic, weight_average, zero_shot
from tsv_bench.methods.evolved.examiner import PRETRAINED, Examiner
from tsv_bench.task_vectors.lazy import TaskVectors
from tsv_bench.task_vectors.merge import times
from tsv_bench.task_vectors.streaming import watched

log = logging.getLogger(__name__)


class Respondent(NamedTuple):
    """A model by its name, and the vector that makes it."""

    name: str
    vector: Mapping


def respondents_of(task_vectors: TaskVectors, alphas: Sequence[float]) -> list[Respondent]:
    """Return the endpoints, and the merges that are asked beside them.

    The endpoints are the pretrained model and the task's own ones. The merges are their average
    and Task Arithmetic at the alphas.
    """
    any_task = next(iter(task_vectors))

    def merged(method) -> Mapping:
        return method(task_vectors)[any_task]

    endpoints = [Respondent(PRETRAINED, merged(zero_shot))]
    endpoints += [Respondent(task, vector) for task, vector in task_vectors.items()]
    total = merged(task_arithmetic)
    return [
        *endpoints,
        Respondent("average", merged(weight_average)),
        *(Respondent(f"sum times {alpha:g}", times(total, alpha)) for alpha in alphas),
    ]


@dataclass(frozen=True)
class Responses:
    """Who answered which item right. The first ``num_endpoints`` names are the endpoints."""

    names: Sequence[str]
    right: Bool[Tensor, "respondents items"]  # of all groups, one after the other
    sizes: Mapping[str, int]  # group -> its number of items, in order
    num_endpoints: int

    def accuracies(self, name: str) -> dict[str, float]:
        """Return group -> a respondent's accuracy."""
        row = self.right[list(self.names).index(name)].double()
        parts = row.split(list(self.sizes.values()))
        return {group: float(part.mean()) for group, part in zip(self.sizes, parts, strict=True)}

    @property
    def normalizer(self) -> dict[str, float]:
        """Group -> the accuracy of the model of that name, else the endpoints' best; 1 for 0."""
        endpoints = {name: self.accuracies(name) for name in self.names[: self.num_endpoints]}
        return {
            group: endpoints.get(group, {}).get(group)
            or max(of_model[group] for of_model in endpoints.values())
            or 1.0
            for group in self.sizes
        }


def ask(examiner: Examiner, respondents: Sequence[Respondent], num_endpoints: int) -> Responses:
    """Ask all respondents all items; answers that were kept are not asked for again.

    Raises ValueError if an endpoint cannot be asked. Another one is left out.
    """
    found: dict[str, dict[str, Tensor]] = {}
    steps = watched(enumerate(respondents), len(respondents), "merge3: respondents")
    for number, respondent in steps:
        kept = examiner.kept(f"answers-{number}")
        if kept is not None:
            found[respondent.name] = {group: kept[group].bool() for group in kept}
            continue
        answers = examiner.answers(respondent.name, respondent.vector)
        sizes = {g: len(right) for g, right in (found.get(PRETRAINED) or answers or {}).items()}
        if answers is None or not fits(respondent.name, answers, sizes):
            if number < num_endpoints:
                raise ValueError(
                    f"merge3 could not ask {respondent.name}, one of the models that are merged, "
                    f"so that nothing could be estimated."
                )
            continue
        found[respondent.name] = answers
        examiner.keep(f"answers-{number}", {g: right.byte() for g, right in answers.items()})
    groups = sorted(next(iter(found.values())))
    right = [torch.cat([answers[group] for group in groups]) for answers in found.values()]
    sizes = {group: len(found[PRETRAINED][group]) for group in groups}
    return Responses(list(found), torch.stack(right), sizes, num_endpoints)


def fits(name: str, answers: Mapping[str, Tensor], sizes: Mapping[str, int]) -> bool:
    """Return whether answers are to so many items of each group; warn if not."""
    if {group: len(right) for group, right in answers.items()} == dict(sizes):
        return True
    found, wanted = (
        ", ".join(f"{count} items of {group}" for group, count in sorted(counts.items()))
        for counts in ({group: len(right) for group, right in answers.items()}, sizes)
    )
    log.warning(f"{name} is left out: it answered {found}, and {PRETRAINED} {wanted}.")
    return False
