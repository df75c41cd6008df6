"""A merging method as the commands choose it."""

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from tsv_bench.methods.forms import Served
from tsv_bench.methods.knobs import check_alphas
from tsv_bench.methods.needs import Needs
from tsv_bench.methods.served import made_up_statistics, made_up_vectors, served_mapping


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A knob that, if null, is chosen for each task by its accuracy on validation."""

    knob: str
    candidates: Sequence[float]
    default: float  # used without validation
    serve: Callable[..., Mapping]  # serves the vectors whose accuracy decides, given a candidate

    def check(self) -> None:
        """Raise ValueError unless the candidates are distinct, valid values of the knob."""
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
    alphas: list[float]  # candidates; a single one fixes alpha
    knobs: dict[str, Any]
    serve: Callable[[Mapping], Mapping]
    choice: Choice | None = None
    code: dict[str, str] | None = None  # a user's own method: its function, sha256 of its file
    needs: Needs | None = None  # what it receives beside task vectors

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that may change a result."""
        settings = {"name": self.name, "knobs": self.knobs, "alphas": self.alphas}
        if self.chosen_by_task:
            settings["candidates"] = list(self.choice.candidates)
        if self.needs:
            settings["needs"] = self.needs.settings
        return settings | ({"code": self.code} if self.code else {})

    def check(self) -> None:
        """Check knobs and alphas before any work, and try a user's own method on made-up tasks.

        Raises ValueError or TypeError for a knob or an alpha out of range, ValueError if a user's
        own method fails on two small tasks.
        """
        check_alphas(self.alphas)
        if self.chosen_by_task:
            self.choice.check()
        method = self.by_default()
        knobs_alone = method.given(**self.needs.nothing) if self.needs else method
        if not self.code:
            knobs_alone.serve({})
            return
        knobs_alone._try({}, "no task vectors, which checks its knobs alone")
        if self.needs and self.needs.learns:
            return  # there is no bench before the images are read
        if self.needs:
            made_up = {kind: made_up_statistics(kind) for kind in self.needs.statistics}
            method = method.given(**made_up)
        method._try(made_up_vectors(), "two small made-up tasks, before any work")

    @property
    def chosen_by_task(self) -> bool:
        """Whether a knob is still to be chosen for each task."""
        return self.choice is not None and self.knobs[self.choice.knob] is None

    def by_default(self) -> "Method":
        """Return the method with the default of a knob that is to be chosen by task."""
        return self.with_knob(self.choice.default) if self.chosen_by_task else self

    def with_knob(self, value: float | Mapping[str, float]) -> "Method":
        """Return the method with its chosen knob bound to one value, or to one for each task."""
        return replace(self, serve=partial(self.serve, **{self.choice.knob: value}))

    def given(self, **arguments: Any) -> "Method":
        """Return the method with what it needs bound to its arguments."""
        return replace(self, serve=partial(self.serve, **arguments))

    def _try(self, task_vectors: Mapping[str, Mapping[str, Tensor]], what: str) -> None:
        try:
            vectors = served_mapping(self.serve, task_vectors, self.name)
            for vector in Served(vectors, task_vectors, self.name).values():
                for layer in vector:
                    vector[layer]
        except Exception as error:  # the code is the user's: it may raise anything
            own = inspect.getsourcefile(inspect.unwrap(getattr(self.serve, "func", self.serve)))
            frames = traceback.extract_tb(error.__traceback__)
            lines = [frame.lineno for frame in frames if frame.filename == own]
            place = f" ({Path(own).name}, line {lines[-1]})" if lines else ""
            raise ValueError(
                f"{self.name} was tried on {what}: {type(error).__name__}{place}: {error}"
            ) from error
