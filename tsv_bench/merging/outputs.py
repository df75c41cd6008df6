"""Where a merge writes: the outputs' paths, and the checks that nothing is in the way."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tsv_bench.files import check_place
from tsv_bench.state_dicts.state_dict import StateDict, open_state_dict
from tsv_bench.state_dicts.writer import MADE_BY

WRITES = ("model", "vector", "compressed")


def output_paths(
    output: Path, pretrained: StateDict, tasks: Iterable[str], one: bool, write: str
) -> dict[str | None, Path]:
    """Return task -> its output, or None -> the output of all tasks if there is only ``one``.

    An output is a safetensors file, or a folder if the pretrained checkpoint is one. Raises
    ValueError if ``output`` cannot be the name of what is written.
    """
    in_folder = pretrained.path.is_dir() and output.suffix != ".safetensors"
    if one:
        if not in_folder and output.suffix != ".safetensors":
            raise ValueError(
                f"output={output} does not end in .safetensors, the format that is written. Name "
                f"the file so."
            )
        return {None: output}
    if output.suffix == ".safetensors":
        raise ValueError(
            f"output={output} names one file, but this writes one for every task. Name a folder: "
            f"it will hold <task>.safetensors."
        )
    end = "" if in_folder and write != "compressed" else ".safetensors"
    return {task: output / f"{task}{end}" for task in tasks}


def check_outputs(
    paths: Iterable[Path], inputs: Mapping[str, StateDict], overwrite: bool, num_bytes: int
) -> None:
    """Check that the outputs replace nothing that must stay.

    Raises ValueError for an output that is an input or holds one, or that is already there unless
    ``overwrite`` says so and a merge wrote it; OSError if the place cannot be written to or has no
    room for ``num_bytes``.
    """
    for path in paths:
        for name, state in inputs.items():
            taken = {state.path.resolve(), *(file.resolve() for file in state.files)}
            if path.resolve() in taken:
                raise ValueError(f"output {path} is the checkpoint of {name}: name another place.")
            if any(path.resolve() in file.parents for file in taken):
                raise ValueError(
                    f"output {path} holds the checkpoint of {name}, which it would replace: name "
                    f"another place."
                )
        if not path.exists():
            continue
        if not overwrite:
            raise ValueError(
                f"output {path} is there already. Name another, or replace it with overwrite=true."
            )
        if path.is_dir() and not _ours(path):
            raise ValueError(
                f"output {path} is a folder that no merge has written, so overwrite=true does not "
                f"replace it. Name another, or remove it yourself."
            )
    for folder in {path.parent for path in paths}:
        check_place(folder, num_bytes)


def _ours(folder: Path) -> bool:
    """Return whether the folder is empty or a merge has written it."""
    if not any(folder.iterdir()):
        return True
    try:
        state = open_state_dict(folder)
        return all(MADE_BY in open_state_dict(file).metadata for file in state.files)
    except (ValueError, OSError):
        return False
