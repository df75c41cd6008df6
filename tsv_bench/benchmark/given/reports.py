"""Accuracies of a method on its way, which it never learns: they are noted for readers."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from tsv_bench.state_dicts.steps.unfinished import Unfinished

log = logging.getLogger(__name__)

# Of a vector that all tasks are served: task -> which validation images are right, bool [images].
Evaluate = Callable[[Mapping[str, Tensor]], Mapping[str, np.ndarray]]
CONTENT = "report"  # in a file's metadata: what was reported so far


class Reports:
    """Evaluates vectors on validation images that the method did not see.

    What was reported before the process was killed is found beside the method's unfinished work.
    """

    def __init__(self, evaluate: Evaluate, unfinished: Unfinished | None) -> None:
        self._evaluate, self._unfinished = evaluate, unfinished
        self._nothing_left = False
        self._contents: dict[str, dict[str, Any]] = {}

    def add(self, name: str, step: int, vector: Mapping[str, Tensor]) -> dict[str, Any]:
        """Evaluate a vector, unless that step has been; return all steps so far, for the Run.

        These are the ``steps``, and of each task how many ``images`` there are and how many were
        ``right`` at each step; nothing if of a task there are none to evaluate on.
        """
        if name not in self._contents:
            self._contents[name] = self._before(name)
        content = self._contents[name]
        if step not in content["steps"]:
            hits = {} if self._nothing_left else self._evaluate(vector)
            if whole := [task for task, bits in hits.items() if not bits.size]:
                self._nothing_left = True
                log.warning(
                    f"the method sees all validation images of {whole[0]}: what it is worth on its "
                    f"way cannot be noted. Lower method.images to leave some."
                )
            if self._nothing_left:
                return {}
            content["steps"].append(step)
            for task, bits in hits.items():
                content["images"][task] = bits.size
                content["right"].setdefault(task, []).append(int(bits.sum()))
            if self._unfinished:
                self._unfinished.keep(f"report {name}", {}, {CONTENT: json.dumps(content)})
        return content

    def _before(self, name: str) -> dict[str, Any]:
        found = self._unfinished.kept(f"report {name}") if self._unfinished else None
        if found is None:
            return {"steps": [], "images": {}, "right": {}}
        return json.loads(found.metadata[CONTENT])
