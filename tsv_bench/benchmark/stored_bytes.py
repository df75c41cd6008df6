"""Bytes that serving takes beside the pretrained weights, as tsv-merge would write them."""

from collections.abc import Mapping

from torch import Tensor

from tsv_bench.methods.masked.masked_vector import PackedVector
from tsv_bench.methods.matrixwise.decomposition import CompressedVector
from tsv_bench.task_vectors.bits import num_mask_bytes
from tsv_bench.task_vectors.lazy import shape_of
from tsv_bench.task_vectors.task_vector import is_changed

NUM_BYTES = 4  # of a weight, in float32


def stored_bytes(
    served: Mapping[str, Mapping[str, Tensor]], vectors: Mapping[str, Mapping[str, Tensor]]
) -> int:
    """Of all tasks together; what they share counts once, layers that nobody changed not at all.

    ``served`` is what a method makes of the task vectors ``vectors``, masks packed.
    """
    total, counted = 0, set()
    for task, vector in served.items():
        if id(vector) in counted:
            continue
        counted.add(id(vector))
        changed = [name for name in vectors[task] if is_changed(vectors[task], name)]
        if isinstance(vector, CompressedVector):
            total += NUM_BYTES * sum(num_stored(vector, name) for name in changed)
        elif isinstance(vector, PackedVector):
            shared = vector.shared
            names = [name for name in shared if shared[name].any()]
            total += num_mask_bytes(shared, names)
            if id(shared) not in counted:
                counted.add(id(shared))
                total += dense_bytes(shared, names)
        elif vector is vectors[task]:
            total += dense_bytes(vector, changed)
        else:
            total += dense_bytes(vectors[task], [n for n in vector if is_changed(vector, n)])
    return total


def num_stored(vector: CompressedVector, name: str) -> int:
    """Entries of a layer's factors, or of the layer where it is whole."""
    shapes = vector.factor_shapes(name)
    return sum(shape.numel() for shape in shapes or [vector.shape(name)])


def dense_bytes(vector: Mapping[str, Tensor], names: list[str]) -> int:
    return NUM_BYTES * sum(shape_of(vector, name).numel() for name in names)
