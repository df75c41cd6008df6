"""The forms in which a method serves vectors: how each is kept in memory, how many bytes it stores.

`merging` has a writer for each form.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from torch import Tensor

from tsv_bench.linalg.precision import all_finite
from tsv_bench.methods.checked import checked
from tsv_bench.methods.learned.adapters import AdaptedVector, Adapter
from tsv_bench.methods.masked.masked_vector import (
    MaskedVector,
    Masks,
    PackedVector,
    masked_rows,
    pack_vectors,
)
from tsv_bench.methods.matrixwise.decomposition import CompressedVector
from tsv_bench.methods.routed.routed_vector import RoutedVector, Router
from tsv_bench.task_vectors.bits import num_mask_bytes
from tsv_bench.task_vectors.lazy import LazyMapping, as_lazy
from tsv_bench.task_vectors.streaming import gather, stream
from tsv_bench.task_vectors.task_vector import is_changed

log = logging.getLogger(__name__)
NUM_BYTES = 4  # of a stored weight, in float32


class Served(Mapping[str, LazyMapping]):
    """Task -> the vector that it is served with; each layer is checked when it is computed.

    A vector that is served to several tasks is one object. `vectors` holds the method's own ones,
    unchecked. `seconds` is the wall time that `layers` has spent.
    """

    def __init__(
        self, vectors: Mapping[str, Mapping], task_vectors: Mapping[str, Mapping], name: str
    ) -> None:
        """Raises ValueError for a vector that `checked` refuses."""
        self.task_vectors = {task: as_lazy(vector) for task, vector in task_vectors.items()}
        self.vectors, self.name, self.seconds = dict(vectors), name, 0.0
        self._checked: dict[int, LazyMapping] = {}
        for task, vector in self.vectors.items():
            if id(vector) not in self._checked:
                like, who = self.task_vectors[task], f"{name} serves {task}"
                self._checked[id(vector)] = checked(vector, like, who)

    def __getitem__(self, task: str) -> LazyMapping:
        return self._checked[id(self.vectors[task])]

    def __iter__(self) -> Iterator[str]:
        return iter(self.vectors)

    def __len__(self) -> int:
        return len(self.vectors)

    def layers(self, task: str) -> Mapping[str, Tensor]:
        """Compute the vector of one task. A dict is returned as it is."""
        if isinstance(self.vectors[task], dict):
            return self.vectors[task]
        started = time.monotonic()
        layers = gather(stream(self[task]))
        self.seconds += time.monotonic() - started
        return layers

    def adapter(self, task: str) -> Adapter | None:
        """Return what a task's features pass through before its head; None: nothing."""
        return None

    def in_memory(self, done: Callable[[], object] = lambda: None) -> "Served":
        """Return the same with what tasks share in memory; calls ``done`` once a layer."""
        return self

    def stored_bytes(self) -> int:
        """Return the bytes that tsv-merge writes for all tasks, without the pretrained weights.

        What tasks share counts once. A layer that no task changed does not count.
        """
        distinct = {id(vector): as_lazy(vector) for vector in self.vectors.values()}
        return sum(dense_bytes(vector) for vector in distinct.values())


class Shared(Served):
    """One vector for all tasks."""

    def in_memory(self, done: Callable[[], object] = lambda: None) -> "Shared":
        layers = gathered(next(iter(self.values())), done)
        return Shared(dict.fromkeys(self, layers), self.task_vectors, self.name)


class Each(Served):
    """A vector for each task; one is computed at a time, on access."""


class LowRank(Each):
    """A vector for each task, its matrices at low rank: `CompressedVector`."""

    def stored_bytes(self) -> int:
        return NUM_BYTES * sum(
            self._num_stored(task, name)
            for task, vector in self.task_vectors.items()
            for name in vector
            if is_changed(vector, name)
        )

    def _num_stored(self, task: str, name: str) -> int:
        """Return the number of entries of a layer's factors, or of the layer if it stays whole."""
        vector = self.vectors[task]
        return sum(shape.numel() for shape in vector.factor_shapes(name) or [vector.shape(name)])


class Masked(Served):
    """One vector that all tasks share, and a mask for each: `MaskedVector`."""

    @property
    def masks(self) -> Masks:
        return next(iter(self.vectors.values())).masks

    def rows(
        self,
        pack: bool,
        finish: Callable[[str, int, tuple[Tensor, Tensor]], Any] = lambda name, start, found: found,
    ) -> Iterator[tuple[str, int, Any]]:
        """Yield (name, first row, ``finish`` of it, (shared rows, masks)) in one pass over all.

        Masks are bool [tasks, rows, ...], or bits [tasks, bytes] if ``pack``. Raises ValueError for
        shared rows that are not finite.
        """

        def check_and_finish(name: str, start: int, found: tuple[Tensor, Tensor]) -> Any:
            if not all_finite(found[0]):
                raise ValueError(f"{self.name} serves {name!r} with NaN or infinity in it.")
            return finish(name, start, found)

        yield from masked_rows(self.masks, pack, check_and_finish)

    def in_memory(self, done: Callable[[], object] = lambda: None) -> "Packed":
        return Packed(pack_vectors(self.vectors, done), self.task_vectors, self.name)

    def stored_bytes(self) -> int:
        return self.in_memory().stored_bytes()


class Packed(Served):
    """`Masked` in memory: the shared vector once, and for each task one bit an entry."""

    def stored_bytes(self) -> int:
        shared = as_lazy(next(iter(self.vectors.values())).shared)
        names = [name for name in shared if is_changed(shared, name)]
        return len(self) * num_mask_bytes(shared, names) + dense_bytes(shared)


class Adapted(Served):
    """One vector that all tasks share, and for each an adapter of its features: `AdaptedVector`.

    As a mapping it serves the shared vector, which is one object. `adapters` are learned on it.
    """

    def __init__(
        self, vectors: Mapping[str, AdaptedVector], task_vectors: Mapping[str, Mapping], name: str
    ) -> None:
        super().__init__(
            {task: vector.shared for task, vector in vectors.items()}, task_vectors, name
        )
        self._learn = next(iter(vectors.values())).learn

    @cached_property
    def adapters(self) -> Mapping[str, Adapter]:
        """Task -> its adapter."""
        return self._learn(next(iter(self.values())))

    def adapter(self, task: str) -> Adapter | None:
        return self.adapters[task]

    def in_memory(self, done: Callable[[], object] = lambda: None) -> "Adapted":
        layers = gathered(next(iter(self.values())), done)
        adapters = self._learn(layers)
        vectors = dict.fromkeys(self, AdaptedVector(layers, lambda _: adapters))
        return Adapted(vectors, self.task_vectors, self.name)

    def stored_bytes(self) -> int:
        tensors = [t for adapter in self.adapters.values() for t in adapter.tensors.values()]
        return super().stored_bytes() + NUM_BYTES * sum(tensor.numel() for tensor in tensors)


class Routed(Served):
    """A vector that experts share, and one of its own for each task: `RoutedVector`.

    As a mapping it serves each task its expert alone. `router` sends images to experts; it is
    learned when it is first wanted.
    """

    def __init__(
        self, vectors: Mapping[str, RoutedVector], task_vectors: Mapping[str, Mapping], name: str
    ) -> None:
        super().__init__(vectors, task_vectors, name)
        self.routing = next(iter(vectors.values())).routing

    @cached_property
    def router(self) -> Router:
        """What sends images to the tasks' experts."""
        if len(self) == 1:
            log.warning(
                f"{self.name} has one task, {next(iter(self))}: its router chooses nothing."
            )
        return self.routing.learn(self.routing.shared)

    def in_memory(self, done: Callable[[], object] = lambda: None) -> "Routed":
        like, who = next(iter(self.task_vectors.values())), f"{self.name} shares"
        shared = gathered(checked(self.routing.shared, like, who), done)
        routing = replace(self.routing, shared=shared)
        there = Routed(routing.vectors(list(self)), self.task_vectors, self.name)
        _ = there.router
        return there

    def stored_bytes(self) -> int:
        router = sum(tensor.numel() for tensor in self.router.tensors.values())
        shared = dense_bytes(as_lazy(self.routing.shared))
        return shared + self.routing.expert_bytes() + NUM_BYTES * router


FORMS = {
    AdaptedVector: Adapted,
    CompressedVector: LowRank,
    MaskedVector: Masked,
    PackedVector: Packed,
    RoutedVector: Routed,
}


def form_of(vectors: Mapping[str, Mapping]) -> type[Served]:
    """Return the form of what a method serves. A single task's vector counts as shared."""
    first, *others = vectors.values()
    for kind, form in FORMS.items():
        if isinstance(first, kind):
            return form
    return Shared if all(vector is first for vector in others) else Each


def as_served(vectors: Mapping[str, Mapping]) -> Served:
    """Return the mapping itself if it is in a form, else wrap it in that of its vectors."""
    if isinstance(vectors, Served):
        return vectors
    return form_of(vectors)(vectors, vectors, "the method")


def gathered(vector: Mapping, done: Callable[[], object] = lambda: None) -> dict[str, Tensor]:
    """Return all layers of a vector in memory; calls ``done`` once a layer."""

    def rows() -> Iterator[tuple[str, int, Tensor]]:
        for name, start, tensor in stream(vector):
            if start == 0:
                done()
            yield name, start, tensor

    return gather(rows())


def dense_bytes(vector: LazyMapping) -> int:
    """Return the bytes of the layers that are not zero."""
    return NUM_BYTES * sum(vector.shape(n).numel() for n in vector if is_changed(vector, n))
