"""A merging method as the commands choose it."""

import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsv_bench.scaling import check_alphas
from tsv_bench.served import served_mapping


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
    code: dict[str, str] | None = None  # of a user's own: its function, sha256 of the file it is in

    @property
    def settings(self) -> dict[str, Any]:
        """What may change a result."""
        settings = {"name": self.name, "knobs": self.knobs, "alphas": self.alphas}
        if self.chosen_by_task:
            settings["candidates"] = list(self.choice.candidates)
        return settings | ({"code": self.code} if self.code else {})

    def check(self) -> None:
        """ValueError or TypeError for a knob or an alpha out of range, before any work.

        And for a user's own method that fails on two small, made-up tasks.
        """
        check_alphas(self.alphas)
        if self.chosen_by_task:
            self.choice.check()
        method = self.by_default()
        if not self.code:
            method.serve({})
            return
        method._try({}, "no task vectors, which checks its knobs alone")
        method._try(made_up_vectors(), "two small made-up tasks, before any work")

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

    def _try(self, task_vectors: Mapping[str, Mapping[str, Tensor]], what: str) -> None:
        try:
            for vector in served_mapping(self.serve, task_vectors, self.name).values():
                for layer in vector:
                    vector[layer]
        except Exception as error:  # whatever it is, in code that is not ours
            own = inspect.getsourcefile(inspect.unwrap(getattr(self.serve, "func", self.serve)))
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == own]
            place = f" ({Path(own).name}, line {lines[-1]})" if lines else ""
            raise ValueError(
                f"{self.name} was tried on {what}: {type(error).__name__}{place}: {error}"
            ) from error


def made_up_vectors() -> dict[str, dict[str, Tensor]]:
    """Of two tasks, small ones, with layers of every form that a backbone has."""
    shapes = {"proj": (6, 6), "in_proj_weight": (12, 4), "conv1.weight": (4, 3, 2, 2), "bias": (4,)}
    generator = torch.Generator().manual_seed(0)
    return {
        task: {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        | {"logit_scale": torch.randn((), generator=generator)}
        for task in ("a", "b")
    }


def serves_one(serve: Callable[[Mapping], Mapping], tasks: Iterable[str]) -> bool:
    """Whether one vector is served to all tasks; told by made-up ones, at once."""
    served = list(made_up(serve, tasks).values())
    return all(vector is served[0] for vector in served)


def made_up(serve: Callable[[Mapping], Mapping], tasks: Iterable[str]) -> Mapping[str, Mapping]:
    """What is served to these tasks, and to two at least, if all they have is a tiny layer."""
    names = [*tasks]
    names += [f"{names[0]} too"] if len(names) == 1 else []
    return serve({task: {"layer": torch.eye(2)} for task in names})
