"""Masks as bits: packed in one pass, what is served stays the same."""

from collections import Counter

import pytest
import torch
from made_up.vectors import randn, random_vectors, read

from tsv_bench import methods
from tsv_bench.methods.masked.masked_vector import MaskedVector, pack_vectors
from tsv_bench.task_vectors import lazy
from tsv_bench.task_vectors.bits import num_mask_bytes
from tsv_bench.task_vectors.lazy import PlainLayers
from tsv_bench.task_vectors.task_vector import TaskVector

MASKING = {
    "tall_mask_ta": {"mask_lambda": 0.4},
    "tall_mask_ties": {"mask_lambda": 0.4, "density": 0.2},
    "magnitude_mask": {"density": 0.1},
    "emr": {},
}
every = pytest.mark.parametrize("name", MASKING)


def serve(name, vectors):
    return getattr(methods, name)(vectors, **MASKING[name])


def subtracted(vectors):
    zeros = {name: torch.zeros_like(delta) for name, delta in vectors["task0"].items()}
    return {task: TaskVector(zeros, vector) for task, vector in vectors.items()}


@every
@pytest.mark.parametrize("block", [2**20, 50, 7])
def test_packed_vectors_are_what_is_served(name, block, monkeypatch):
    """In blocks as small as a row too, of layers whose rows are no multiple of eight entries."""
    vectors = subtracted(random_vectors(3) | {})
    expected = read(serve(name, vectors))
    monkeypatch.setattr(lazy, "BLOCK", block)
    served = serve(name, vectors)
    assert all(isinstance(vector, MaskedVector) for vector in served.values())
    layers = []
    packed = pack_vectors(served, lambda: layers.append(1))
    assert len(layers) == len(expected["task0"])
    torch.testing.assert_close(read(packed), expected, rtol=1e-12, atol=0)
    assert len({id(vector.shared) for vector in packed.values()}) == 1
    for vector in packed.values():
        size = sum(bits.numel() for bits in vector.bits.values())
        assert size == num_mask_bytes(vector, list(vector))


@every
def test_packing_reads_every_task_once(name):
    vectors = random_vectors(4)
    served = serve(name, vectors)  # passes of their own lie behind

    reads = Counter()

    class Counted(PlainLayers):
        def __getitem__(self, layer):
            reads[layer] += 1
            return super().__getitem__(layer)

        def rows(self, layer, start, stop):
            reads[layer] += 1
            return super().rows(layer, start, stop)

    masks = served["task0"].masks
    masks.vectors[:] = [Counted(vector) for vector in masks.vectors]
    pack_vectors(served)
    assert reads == dict.fromkeys(vectors["task0"], 4)


def test_blocks_are_of_whole_bytes():
    vectors = [{"w": randn(100, 3)}, {"w": randn(100, 3)}]
    rows = [TaskVector({"w": torch.zeros(100, 3)}, vector) for vector in vectors]
    parts = lazy.blocks(rows, "w", len, multiple=8)
    assert len(parts) == 1
    streaming_block, lazy.BLOCK = lazy.BLOCK, 60
    try:
        starts = [part.start for part in lazy.blocks(rows, "w", len, multiple=8)]
    finally:
        lazy.BLOCK = streaming_block
    assert starts == list(range(0, 100, 8))
