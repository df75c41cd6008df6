"""Where a merge writes: the outputs' paths, and the checks that nothing is in the way."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from tsv_bench.files.atomic import sweep
from tsv_bench.merging.told.card import FILE, is_own
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.state_dicts.writer import Shards, owned, written_by_merge


class Metadata(Protocol):
    """What a writer asks for the metadata of its outputs."""

    def __call__(self, final: bool) -> Mapping[str | None, Mapping[str, str]]:
        """Return task, None for all -> the output's metadata.

        Before they are ``final``, hashes of inputs may be zeros, as many digits; they are final
        once all has been read.
        """


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
    paths: Iterable[Path],
    folders: Mapping[Path, Shards],
    inputs: Mapping[str, StateDict],
    overwrite: bool,
) -> None:
    """Check that the outputs replace nothing that must stay.

    ``folders``: the files of those outputs that are folders. What a merge that was killed has left
    half replaced is restored first. Raises ValueError for an
    output that is an input or holds one, or that is already there unless ``overwrite`` says so and
    a merge wrote it.
    """
    for folder in {path.parent for path in paths}:
        sweep(folder)
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
        if not path.exists() or path.is_dir() and not any(path.iterdir()):
            continue
        kind = "folder" if path.is_dir() else "file"
        if not overwrite:
            raise ValueError(
                f"output {path} is there already. Name another, or replace it with overwrite=true."
            )
        if not written_by_merge(path):
            raise ValueError(
                f"output {path} is a {kind} that no merge has written, so overwrite=true does not "
                f"replace it. Name another, or remove it yourself."
            )
        if path in folders and path.is_dir():
            card = path / FILE
            texts = folders[path].texts
            pretrained = next(iter(inputs.values()))  # or what stands in for it
            if FILE in texts and card.is_file() and not is_own(card, pretrained.path):
                raise ValueError(
                    f"output {path} has a {FILE} that somebody has written or edited, and gets a "
                    f"model card of this name. Move it, or name another place."
                )
            strange = {p.name for p in path.iterdir()} - owned(path, folders[path])
            if clash := sorted(strange & set(folders[path].names)):
                raise ValueError(
                    f"output {path} has a file {clash[0]!r} that no merge has written, and gets "
                    f"one of this name. Move it, or name another place."
                )
