"""A merging method as the commands choose it."""

import inspect
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from tsv_bench.methods.forms import Served
from tsv_bench.methods.knobs import check_alphas, check_choice, check_num_tasks, check_whole
from tsv_bench.methods.needs import PRETRAINED, Needs
from tsv_bench.methods.served import made_up_statistics, made_up_vectors, served_mapping

BY = ("task", "suite")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A knob that, if null, is chosen on validation.

    By "task" for each task by its accuracy, or by "suite" for all by their mean normalized one.
    """

    knob: str
    by: str = "task"
    candidates: Sequence[float]
    default: float  # used without validation
    serve: Callable[..., Mapping]  # serves the vectors whose accuracy decides, given a candidate

    def check(self) -> None:
        """Raise ValueError unless the candidates are distinct, valid values of the knob."""
        check_choice("method.choose.by", self.by, BY, "for what a knob is chosen")
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
    num_tasks: int | None = None  # how many tasks it is for; None: any number
    code: dict[str, str] | None = None  # a user's own method: its function, sha256 of its file
    needs: Needs | None = None  # what it receives beside task vectors
    instructed: bool = False  # whether it receives an instruction vector, as ``instruction``
    sees_weights: bool = False  # whether it receives the pretrained weights, as ``pretrained``

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that may change a result."""
        settings = {"name": self.name, "knobs": self.knobs, "alphas": self.alphas}
        if self.knob_is_open:
            settings["candidates"] = list(self.choice.candidates)
            if self.choice.by != "task":  # else as in Runs from before there was another way
                settings["by"] = self.choice.by
        if self.needs:
            settings["needs"] = self.needs.settings
        return settings | ({"code": self.code} if self.code else {})

    def check(self) -> None:
        """Check knobs and alphas before any work, and try a user's own method on made-up tasks.

        Raises ValueError or TypeError for a knob or an alpha out of range, ValueError if a user's
        own method fails on two small tasks.
        """
        check_alphas(self.alphas)
        if self.num_tasks is not None:
            check_whole("num_tasks", self.num_tasks, "how many tasks the method is for", 2)
        if self.knob_is_open:
            self.choice.check()
        method = self.by_default()
        knobs_alone = method.given(**self.nothing)
        if not self.code:
            knobs_alone.serve({})
            return
        knobs_alone._try({}, "no task vectors, which checks its knobs alone")
        if self.instructed or (self.needs and self.needs.learns):
            return  # there is no instruction vector, no bench before files or images are read
        count = self.num_tasks or 2
        if self.needs:
            made_up = {kind: made_up_statistics(kind, count) for kind in self.needs.statistics}
            method = method.given(**made_up)
        if self.sees_weights:
            [weights] = made_up_vectors(1).values()
            method = method.given(**{PRETRAINED: weights})
        what = f"{'two' if count == 2 else count} small made-up tasks, before any work"
        method._try(made_up_vectors(count), what)

    def check_tasks(self, tasks: Collection[str]) -> None:
        """Raise ValueError unless there are as many tasks as the method is for."""
        if self.num_tasks is not None:
            check_num_tasks(self.name, self.num_tasks, tasks)

    @property
    def nothing(self) -> dict[str, Any]:
        """Arguments with which it only checks its knobs."""
        nothing = dict(self.needs.nothing) if self.needs else {}
        nothing |= {"instruction": {}} if self.instructed else {}
        return nothing | ({PRETRAINED: {}} if self.sees_weights else {})

    @property
    def knob_is_open(self) -> bool:
        """Whether a knob is still to be chosen on validation."""
        return self.choice is not None and self.knobs[self.choice.knob] is None

    @property
    def compares_means(self) -> bool:
        """Whether alpha or a knob is chosen by the suite's mean normalized accuracy."""
        return len(self.alphas) > 1 or (self.knob_is_open and self.choice.by == "suite")

    def by_default(self) -> "Method":
        """Return the method with the default of a knob that is to be chosen."""
        return self.with_knob(self.choice.default) if self.knob_is_open else self

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
            place = f" ({self._place(error)})" if self._place(error) else ""
            raise ValueError(
                f"{self.name} was tried on {what}: {type(error).__name__}{place}: {error}"
            ) from error

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Name file and line of a user's own method where its code raises within the block.

        What it raises becomes a ValueError.
        """
        try:
            yield
        except Exception as error:
            if self.code and (place := self._place(error)):
                raise ValueError(
                    f"{self.name} failed ({place}): {type(error).__name__}: {error}"
                ) from error
            raise

    def _place(self, error: Exception) -> str | None:
        """Return "my_method.py, line 8" where the file of the method raised an error, or None."""
        function = self.serve
        while isinstance(function, partial):  # Hydra's own kind is not merged into another
            function = function.func
        own = inspect.getsourcefile(inspect.unwrap(function))
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == own]
        return f"{Path(own).name}, line {lines[-1]}" if lines else None
