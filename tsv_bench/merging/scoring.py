"""Ask models by a command of the user's own, for methods that search.

A model's files go in, and json comes out that says which items it answered right.
"""

import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tsv_bench.files.atomic import temporary_beside
from tsv_bench.methods.evolved.examiner import PRETRAINED
from tsv_bench.methods.knobs import check_positive, check_whole
from tsv_bench.state_dicts.inputs import Inputs
from tsv_bench.state_dicts.steps.unfinished import Unfinished

log = logging.getLogger(__name__)

MODEL, ITEMS = "{model}", "{items}"
ONE_GROUP = "items"  # the name of the items of a command that prints a plain list
SAID = 300  # characters of what a failing command said, at its end
FORM = '{"cars": [1, 0, 1], ...} or [1, 0, 1]'

# Writes a candidate, given the vector that makes it, in a folder; returns its path.
WriteModel = Callable[[Mapping, Path], Path]


@dataclass(frozen=True, kw_only=True)
class ScoringCommand:
    """A command that prints json: for each item, or each of some groups', whether it was right.

    ``{model}`` in it is the path of a model. ``{items}``, if it is there, is the path of a json
    file with the numbers of the items that are wanted, in the form in which answers are printed,
    or null for all: answers come in that order. It is ended after so many ``seconds``.
    """

    command: str
    seconds: float | int
    seed: int = 0

    def __post_init__(self) -> None:
        check_positive("score_seconds", self.seconds, "how long one run of the command may take")
        check_whole("seed", self.seed, "what the search is drawn from", 0)
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise ValueError(f"score={self.command!r} is no command: {error}.") from error
        if not any(MODEL in word for word in words):
            raise ValueError(
                f"score={self.command!r} has no {MODEL}, where the path of a model is put: as in "
                f"score='my_eval {MODEL}'."
            )
        if shutil.which(words[0]) is None:
            raise ValueError(f"score={self.command!r}: there is no program {words[0]!r} here.")

    @property
    def asks_some(self) -> bool:
        """Whether the command can be asked some items and no others."""
        return ITEMS in self.command

    def words(self, model: Path, items: Path) -> list[str]:
        """Return the command as a list of words, with the paths in it."""
        return [
            word.replace(MODEL, str(model)).replace(ITEMS, str(items))
            for word in shlex.split(self.command)
        ]

    def run(self, model: Path, items: Path) -> dict[str, Tensor] | str:
        """Return group -> what was right, or a text that says why there is no answer."""
        with subprocess.Popen(
            self.words(model, items), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                out, err = process.communicate(timeout=self.seconds)
            except BaseException as error:  # whatever it started ends with it
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    return f"it was ended after {self.seconds:g} s (score_seconds)"
                raise
        if process.returncode:
            return f"it ended with code {process.returncode}: {_end_of(err or out)}"
        return parsed(out.decode(errors="replace"))


def parsed(text: str) -> dict[str, Tensor] | str:
    """Return group -> what was right, of all that was printed or of its last line."""
    content: Any = None
    for part in (text, *text.strip().splitlines()[-1:]):
        try:
            content = json.loads(part)
            break
        except (ValueError, RecursionError):
            continue
    groups = {ONE_GROUP: content} if isinstance(content, list) else content
    if not isinstance(groups, dict) or not groups:
        return f"it printed no json as {FORM}: {_end_of(text.encode())}"
    for group, right in groups.items():
        if not isinstance(right, list) or not right or any(r not in (0, 1) for r in right):
            return f"it printed json, and {group!r} in it is no list of 0 and 1, as {FORM}"
    return {group: torch.tensor([bool(r) for r in right]) for group, right in groups.items()}


def _end_of(said: bytes) -> str:
    text = said.decode(errors="replace").strip()
    return repr(text[-SAID:]) if text else "it said nothing"


class CommandExaminer:
    """An `Examiner` that writes each candidate to files, and has a command ask it."""

    def __init__(self, scoring: ScoringCommand, output: Path) -> None:
        self.seed, self.asks_some = scoring.seed, scoring.asks_some
        self._scoring, self._output = scoring, Path(output)

    def begin(self, inputs: Inputs, write: WriteModel, made_of: Sequence[Any]) -> None:
        """Remember where the models are, and what the search depends on beside the command."""
        self._known = {PRETRAINED: inputs.base.path} | {
            task: state.path for task, state in inputs.finetuned.items()
        }
        self._write = write
        made_of = [*made_of, self._scoring.command, self.seed]
        folder = self._output.with_name(f"{self._output.name}.unfinished")
        self._unfinished = Unfinished(folder, made_of)

    def end(self) -> None:
        """Remove what was kept: the result is written."""
        self._unfinished.remove()

    def answers(
        self, name: str, vector: Mapping, items: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor] | None:
        with temporary_beside(self._output) as folder:
            path = self._known.get(name) or self._write(vector, folder)
            listed = folder / "items.json"
            listed.write_text(json.dumps(_plain(items)))
            found = self._scoring.run(path.resolve(), listed.resolve())
        if not isinstance(found, str) and items is not None:
            found = self._of_items(found, items)
        if isinstance(found, str):
            log.warning(f"{name} is skipped, {self._scoring.command!r} gave no answer: {found}")
            return None
        return found

    def _of_items(
        self, found: dict[str, Tensor], items: Mapping[str, Tensor]
    ) -> dict[str, Tensor] | str:
        """Return the answers to the wanted items, or a text that says why there are none."""
        for group, rows in items.items():
            count = len(found.get(group, ()))
            if count != len(rows):
                return f"it was asked {len(rows)} items of {group} and answered {count}"
        return {group: found[group] for group in items}

    def kept(self, name: str) -> Mapping[str, Tensor] | None:
        return self._unfinished.kept(name)

    def keep(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        self._unfinished.keep(name, tensors)

    def note(self, name: str, content: Any) -> None:
        chosen = content["chosen"]
        for number, genes in enumerate(chosen["genes"]):
            which = f", group {number} of layers by depth" if len(chosen["genes"]) > 1 else ""
            listed = ", ".join(f"{column} {gene:.3f}" for column, gene in genes.items())
            log.info(f"{name}{which}: {listed}")


def _plain(items: Mapping[str, Tensor] | None) -> Any:
    """Return the numbers of the items in the form in which answers are printed."""
    if items is None:
        return None
    listed = {group: rows.tolist() for group, rows in items.items()}
    return listed[ONE_GROUP] if list(listed) == [ONE_GROUP] else listed
