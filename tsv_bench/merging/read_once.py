"""Merge files that are hashed and checked while they are merged, in the same reading."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tsv_bench.merging.dense_writer import DenseWriter
from tsv_bench.merging.masked_writer import MaskedDenseWriter
from tsv_bench.methods.served import is_entrywise
from tsv_bench.state_dicts.adapters.adapter import is_adapter
from tsv_bench.state_dicts.inputs import Inputs
from tsv_bench.state_dicts.integrity import HashedReading, check_contents
from tsv_bench.task_vectors.task_vector import NotFiniteError, TaskVector


def reads_once(serve: Callable[[Mapping], Mapping], writer: object, inputs: Inputs) -> bool:
    """Return whether files are hashed and checked while they are merged, and not before.

    So it is where merging is quick: entry by entry, into one output or all outputs at once.
    """
    plain = all(type(vector) is TaskVector for vector in inputs.vectors.values())
    plain = plain and not any(map(is_adapter, inputs.states.values()))  # those of BASE+ADAPTER
    if not plain or inputs.instruction is not None:
        return False
    at_once = type(writer) is MaskedDenseWriter or (
        type(writer) is DenseWriter and len(writer.paths) == 1
    )
    return at_once and is_entrywise(serve, inputs.vectors)


@contextmanager
def hashed_reading(inputs: Inputs) -> Iterator[HashedReading]:
    """Hash the checkpoints while they are read; name the one that holds NaN or infinity.

    Raises ValueError in place of `NotFiniteError`.
    """
    try:
        yield HashedReading(inputs.states)
    except NotFiniteError:
        check_contents(inputs.states, lambda: None, inputs.alike)  # raises ValueError that names it
        raise
