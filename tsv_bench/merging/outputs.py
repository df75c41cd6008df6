"""Where a merge goes: files or folders laid out like the pretrained checkpoint."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from tsv_bench.files import check_place
from tsv_bench.state_dicts.low_rank import FACTORS
from tsv_bench.state_dicts.state_dict import StateDict, open_state_dict
from tsv_bench.state_dicts.writer import MADE_BY, Shards

WRITES = ("model", "vector", "compressed")


def output_paths(
    output: Path, pretrained: StateDict, tasks: Iterable[str], one: bool, write: str
) -> dict[str | None, Path]:
    """The file or folder of the merged vector (None), or of each task's own.

    ValueError where a name cannot be an output.
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
    """ValueError or OSError where an output would replace something or has no room."""
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
    """Whether a merge has written this folder, or nobody anything."""
    if not any(folder.iterdir()):
        return True
    try:
        state = open_state_dict(folder)
        return all(MADE_BY in open_state_dict(file).metadata for file in state.files)
    except (ValueError, OSError):
        return False


def dense_shards(path: Path, pretrained: StateDict, write: str) -> Shards:
    """Parameters in the pretrained checkpoint's order, types and shards.

    A vector has no entry for integer buffers; a model has the pretrained ones.
    """

    def specs(names: Iterable[str]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        return {
            name: (pretrained.dtype(name), tuple(pretrained.shape(name)))
            for name in names
            if write == "model" or pretrained.dtype(name).is_floating_point
        }

    if path.suffix == ".safetensors":
        return Shards({path.name: specs(pretrained)})
    files = {_safetensors(file): specs(names) for file, names in pretrained.shards.items()}
    index = pretrained.index_name
    return Shards(
        {file: params for file, params in files.items() if params},
        index_name=index and _safetensors(index.removesuffix(".index.json")) + ".index.json",
        other_files=tuple(pretrained.other_files),
        folder=True,
    )


def _safetensors(name: str) -> str:
    """The name that Hugging Face's loaders expect in place of pytorch_model.bin's."""
    stem = name.rsplit(".", 1)[0]
    return stem.replace("pytorch_model", "model") + ".safetensors"


def factor_shards(
    path: Path, factors: Mapping[str, list[torch.Size]], rest: StateDict, names: Iterable[str],
    precision: torch.dtype,
) -> Shards:  # fmt: skip
    """``factors``: shapes of u, s, vh of every compressed layer; ``names``: what is kept whole."""
    params = {
        f"{name}.{key}": (precision, tuple(shape))
        for name, shapes in factors.items()
        for key, shape in zip(FACTORS, shapes, strict=True)
    }
    whole = {name: (rest.dtype(name), tuple(rest.shape(name))) for name in names}
    if odd := set(params) & set(whole):
        raise ValueError(f"the parameter {min(odd)!r} has the name of another's factor.")
    return Shards({path.name: params | whole})
