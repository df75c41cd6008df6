"""A merging method as the commands choose it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from tsv_bench.scaling import check_alphas


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A knob that, left null, is chosen for each task by its accuracy on validation."""

    knob: str
    candidates: Sequence[float]
    default: float  # where there is no validation
    serve: Callable[..., Mapping]  # the accuracies are those of what this serves with a candidate

    def check(self) -> None:
        """ValueError for candidates that are none."""
        if not self.candidates or len(set(self.candidates)) < len(self.candidates):
            raise ValueError(
                f"method.choose.candidates={list(self.candidates)} are no distinct values of "
                f"{self.knob}. Give at least one, each once."
            )
        for value in (*self.candidates, self.default):
            self.serve({}, **{self.knob: value})


@dataclass(frozen=True, kw_only=True)
class Method:
    """A merging method as its yaml describes it."""

    name: str
    label: str
    alphas: list[float]  # candidates; one: alpha is fixed
    knobs: dict[str, Any]
    serve: Callable[[Mapping], Mapping]
    choice: Choice | None = None

    def check(self) -> None:
        """ValueError or TypeError for a knob or an alpha out of range, before any work."""
        check_alphas(self.alphas)
        if self.chosen_by_task:
            self.choice.check()
        self.by_default().serve({})

    @property
    def chosen_by_task(self) -> bool:
        """Whether a knob is still to be chosen for each task."""
        return self.choice is not None and self.knobs[self.choice.knob] is None

    def by_default(self) -> "Method":
        """The method with its default for a knob that is to be chosen by task."""
        return self.with_knob(self.choice.default) if self.chosen_by_task else self

    def with_knob(self, value: float | Mapping[str, float]) -> "Method":
        """The method with the knob of its choice bound: to one value, or one for each task."""
        return replace(self, serve=partial(self.serve, **{self.choice.knob: value}))


def serves_one(serve: Callable[[Mapping], Mapping], tasks: Iterable[str]) -> bool:
    """Whether one vector is served to all tasks; told by made-up ones, at once."""
    served = list(made_up(serve, tasks).values())
    return all(vector is served[0] for vector in served)


def made_up(serve: Callable[[Mapping], Mapping], tasks: Iterable[str]) -> Mapping[str, Mapping]:
    """What is served to these tasks, and to two at least, if all they have is a tiny layer."""
    names = [*tasks]
    names += [f"{names[0]} too"] if len(names) == 1 else []
    return serve({task: {"layer": torch.eye(2)} for task in names})
