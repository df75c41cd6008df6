"""What a merge would do, how large and how long: asked before hours of work."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from tsv_bench import provenance
from tsv_bench.merging.arguments import check_arguments, check_dtype
from tsv_bench.merging.merge_files import check_choices
from tsv_bench.merging.outputs import check_outputs
from tsv_bench.merging.scaling.layer_alphas import LayerAlphas
from tsv_bench.merging.told.extent import extent_of
from tsv_bench.merging.writers import STORED, make_writer
from tsv_bench.methods.forms import Served
from tsv_bench.methods.served import form_by_trial, served_by, unseen
from tsv_bench.state_dicts.entries.choices import Choices
from tsv_bench.state_dicts.inputs import Inputs, check_tasks, open_inputs
from tsv_bench.task_vectors.lazy import LazyMapping, OtherLayers
from tsv_bench.task_vectors.streaming import IN_FLIGHT, stream

FLOAT = 4  # bytes


def planned(
    serve: Callable[[Mapping], Mapping],
    pretrained: Path | str | None,
    finetuned: Mapping[str, Path | str],
    output: Path | str,
    *,
    alpha: LayerAlphas,
    write: str = "model",
    precision: str = "float32",
    overwrite: bool = False,
    device: str = "cpu",
    dtype: str | None = None,
    rank: int | None = None,
    choices: Choices = Choices(),  # noqa: B008, it is frozen
) -> str:
    """Return what `merge` would do with these arguments; nothing is written.

    One layer of each shape is merged to tell how long all take. Raises ValueError or OSError for
    what `merge` would refuse before it reads the files whole.
    """
    check_arguments(alpha.default, write, precision, rank)
    check_dtype(dtype)
    check_tasks(finetuned)
    check_choices(choices, finetuned, write)
    serve({})  # raises ValueError for a wrong knob
    inputs = open_inputs(pretrained, finetuned, device, choices=choices)
    inputs = inputs if write in STORED else inputs.once_each()
    alphas = alpha.of(next(iter(inputs.vectors.values())))
    form = form_by_trial(serve, finetuned)
    writer = make_writer(
        form, inputs, Path(output), write, precision, alphas, overwrite, dtype, rank
    )
    check_outputs(writer.outputs, writer.folders, inputs.states, overwrite)
    extent = extent_of(serve, inputs.base, inputs.vectors)
    num_read = sum(f.stat().st_size for state in inputs.states.values() for f in state.files)
    where = writer.outputs[0] if len(writer.outputs) == 1 else writer.outputs[0].parent
    seconds, memory = estimated(serve, inputs)
    distinct = len(writer.outputs) if form.__name__ != "Shared" else 1
    to_write = writer.num_bytes()
    lines = [
        extent.table(),
        "",
        f"reads    {len(inputs.states)} checkpoints, {num_read / 1e9:.3g} GB",
        f"writes   {where}: {len(writer.outputs)} outputs, "
        + (f"at most {to_write / 1e9:.3g} GB" if to_write else "as large as their ranks say"),
        f"takes    about {seconds * distinct:.1f} s here beside reading and writing, and about "
        f"{memory / 1e9:.2g} GB of memory",
        "Nothing was written: dry_run=true.",
    ]
    return "\n".join(lines)


def estimated(serve: Callable, inputs: Inputs) -> tuple[float, float]:
    """Return the seconds that one served vector takes, and a bound of the memory, in bytes.

    Of each shape one layer is merged; what others of it take is the same.
    """
    like = next(iter(inputs.vectors.values()))
    of_shape: dict[tuple[int, ...], list[str]] = {}
    for name in like:
        of_shape.setdefault(tuple(like.shape(name)), []).append(name)
    seconds = 0.0
    for names in of_shape.values():
        only = {task: Only(vector, names[:1]) for task, vector in inputs.vectors.items()}
        with unseen():
            started = time.monotonic()
            served: Served = served_by(serve, only, "the method")
            _exhaust(stream(served[next(iter(served))]))
            seconds += (time.monotonic() - started) * len(names)
    largest = max((like.shape(name).numel() for name in like), default=0) * len(inputs.vectors)
    total = sum(like.shape(name).numel() for name in like) * len(inputs.vectors)
    # What the layers above took is in the peak; as many more entries may be in flight.
    return seconds, provenance.peak_memory() + FLOAT * max(0, min(IN_FLIGHT, total) - largest)


class Only(OtherLayers):
    """Some layers of a vector."""

    def __init__(self, vector: LazyMapping, names: Collection[str]) -> None:
        super().__init__(vector)
        self.weight, self._names = vector.weight, dict.fromkeys(names)

    @property
    def names(self) -> Collection[str]:
        return self._names.keys()


def _exhaust(steps: Iterable) -> None:
    for _ in steps:
        pass
