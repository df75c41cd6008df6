"""Statistics of tasks' networks: gathered in one pass over a few images, and kept on disk."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tsv_bench.data import Split
from tsv_bench.files import check_leases, check_room, leased
from tsv_bench.models import normalize
from tsv_bench.models.devices import batch_sizes, with_smaller_batches
from tsv_bench.models.forward.other_weights import features_with
from tsv_bench.observation.fisher import diagonal_fisher
from tsv_bench.observation.linear_inputs import LinearInputs, visible_products
from tsv_bench.observation.statistics_file import StatisticsFile, write_statistics
from tsv_bench.state_dicts.integrity import hash_weights
from tsv_bench.task_vectors.statistics import Gathered

log = logging.getLogger(__name__)

VERSION = 1  # part of every key: raise it when what is gathered changes


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A fine-tuned network and the images that it is shown."""

    task: str
    state: Mapping[str, Tensor]  # its weights, under the names of the backbone
    head: Tensor | None  # [classes, dim]; only the Fisher information needs it
    images: Tensor  # uint8 [images, 3, size, size]
    about: Mapping[str, Any]  # what tells it from others: checkpoint, data, split, seed


def drawn(split: Split, count: int, seed: int, what: str, setting: str = "method.images") -> Tensor:
    """Return the rows of ``count`` images of a split, ascending, drawn by the seed.

    As the code of ESM draws them. Messages call the images ``what``, and what sets their number
    ``setting``. Raises ValueError if the split has fewer.
    """
    if count > len(split):
        raise ValueError(
            f"{what} are {len(split)} images, and the method is to see {count}. Set "
            f"{setting}={len(split)} or less, or choose another split."
        )
    rows = np.random.RandomState(seed).choice(len(split), count, replace=False)
    return torch.from_numpy(np.sort(rows))


class Observatory:
    """Gathers statistics of a network with the weights of a task, and keeps them in a folder.

    Processes may share the folder: what one gathers the others wait for.
    """

    def __init__(self, visual: nn.Module, folder: Path, device: str) -> None:
        self._visual = visual.eval().requires_grad_(False)
        self._folder, self._device = Path(folder), device
        self._sizes = batch_sizes(None, device, visual)

    def statistics(
        self, observed: Shown, kinds: Sequence[str], classes: str | None = None
    ) -> dict[str, StatisticsFile]:
        """Return statistics of these kinds, from the folder or gathered in one pass.

        ``classes``: of the Fisher information, see `class_weights`. Raises ValueError if the
        network's output is not finite, OSError if there is no room.
        """
        paths = {kind: self._path(observed, kind, classes) for kind in kinds}
        found = _kept(paths)
        if len(found) == len(paths):  # also in a folder that is for reading only
            return found
        with leased(self._folder / observed.task):
            # Another process may have gathered them meanwhile.
            found = _kept(paths, remove=True)
            missing = {kind: path for kind, path in paths.items() if kind not in found}
            if missing:
                self._gather(observed, missing, classes)
                found |= {kind: StatisticsFile(path) for kind, path in missing.items()}
        return found

    def _path(self, observed: Shown, kind: str, classes: str | None) -> Path:
        made_of = [VERSION, kind, dict(observed.about)]
        if kind == "fisher":  # of the classifier: other prompts are another one
            made_of += [classes, hash_weights({"head": observed.head}, list)]
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{observed.task}-{digest[:16]}.{kind}.safetensors"

    def _gather(self, observed: Shown, paths: Mapping[str, Path], classes: str | None) -> None:
        started = time.monotonic()
        # Nothing else holds them: a second copy of a large network would be a fifth of the memory.
        weights = {name: p.to(self._device).float() for name, p in observed.state.items()}
        images = observed.images.to(self._device)
        shapes = {name: p.shape for name, p in weights.items()}
        linear = tuple(kind for kind in paths if kind != "fisher")
        if linear:
            run = partial(linear_inputs, self._visual, weights, images, linear)
            inputs, size = with_smaller_batches(
                run,
                self._sizes,
                self._device,
                "observe",
                "End what else uses it, or set device=cpu.",
            )
            self._sizes = self._sizes[self._sizes.index(size) :]
            passes = {"forward_passes": len(images), "backward_passes": 0}
        for kind in linear:
            of_kind = {
                name: statistic_shape(kind, shapes[name][how.axis])
                for name, how in inputs.gathered.items()
            }
            self._write(
                paths[kind], kind, inputs.gathered, of_kind,
                partial(inputs.statistics, kind), observed, passes, started,
            )  # fmt: skip
        if "fisher" in paths:
            fisher, count = diagonal_fisher(
                self._visual, weights, observed.head.to(self._device), images, classes,
                int(observed.about["seed"]),
            )  # fmt: skip
            gathered = {name: Gathered(len(images)) for name in fisher}
            passes = {"forward_passes": len(images) + count, "backward_passes": count}
            self._write(
                paths["fisher"], "fisher", gathered, shapes, fisher.__getitem__, observed, passes,
                started,
            )  # fmt: skip

    def _write(self, path, kind, gathered, shapes, read, observed, passes, started) -> None:
        check_room(
            self._folder, 4 * sum(map(np.prod, shapes.values())) + 2**20, "paths.statistics="
        )
        about = {**observed.about, **passes, "seconds": round(time.monotonic() - started, 3)}

        def checked(name: str) -> Tensor:
            tensor = read(name)
            if not tensor.isfinite().all():
                raise ValueError(
                    f"the network of {observed.task} computes NaN or infinity at {name!r}: no "
                    f"statistics. Is its checkpoint damaged?"
                )
            return tensor

        check_leases()  # gathering takes long, writing does not
        write_statistics(path, kind, gathered, shapes, checked, about, overwrite=True)


def _kept(paths: Mapping[str, Path], remove: bool = False) -> dict[str, StatisticsFile]:
    """Return those statistics that are there whole; with ``remove``, remove damaged ones, aloud."""
    found = {}
    for kind, path in paths.items():
        try:
            found[kind] = StatisticsFile(path)
        except FileNotFoundError:
            continue
        except ValueError as error:
            if remove:
                log.warning(f"the kept statistics are damaged, gathering them again: {error}")
                path.unlink()
    return found


def statistic_shape(kind: str, width: int) -> tuple[int, ...]:
    """Return the shape of what is kept of a layer with ``width`` inputs: "inputs" or "means"."""
    return (width, width) if kind == "inputs" else (width,)


@torch.no_grad()
def linear_inputs(
    visual: nn.Module,
    weights: Mapping[str, Tensor],
    images: Tensor,
    kinds: tuple[str, ...],
    batch_size: int,
) -> LinearInputs:
    """Return the sums over the inputs of linear layers, all tokens of all images.

    ``weights`` are used in place of the tower's own.
    """
    with visible_products(), LinearInputs(weights, kinds) as inputs:
        for batch in images.split(batch_size):
            features_with(visual, weights, normalize(batch, visual))
    return inputs
