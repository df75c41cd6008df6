"""tsv-observe: statistics of a checkpoint file, under the names that the file has."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from tsv_bench.checkpoints.image_tower import ImageTower, Place, image_tower
from tsv_bench.files import check_place
from tsv_bench.files.atomic import temporary_beside
from tsv_bench.models import Backbone
from tsv_bench.observation import language
from tsv_bench.observation.gather import Observatory, Shown, statistic_shape
from tsv_bench.observation.statistics_file import StatisticsFile, write_statistics
from tsv_bench.state_dicts.state_dict import StateDict
from tsv_bench.task_vectors.kinds import check_kinds
from tsv_bench.task_vectors.statistics import Gathered


def output_paths(output: Path, kinds: Sequence[str], overwrite: bool) -> dict[str, Path]:
    """Return the file of each kind.

    Raises ValueError for an unknown kind, or if a file is there already and is not to be replaced.
    """
    check_kinds(kinds)
    paths = {kind: output.with_name(f"{output.name}.{kind}.safetensors") for kind in kinds}
    for path in paths.values():
        if path.exists() and not overwrite:
            raise ValueError(
                f"output {path} is there already. Name another, or replace it with overwrite=true."
            )
        if path.exists():
            StatisticsFile(path)  # raises for what tsv-observe has not written
    check_place(output.parent, 0)
    return paths


@dataclass(frozen=True)
class Layer:
    """Statistics of one layer under its name in a file."""

    shape: tuple[int, ...]
    gathered: Gathered
    read: Callable[[], Tensor]


def observe_images(
    backbone: Backbone,
    state: StateDict,
    paths: Mapping[str, Path],
    images: Tensor,
    head: Tensor | None,
    about: Mapping[str, Any],
    classes: str,
    device: str,
) -> None:
    """Write statistics of images through the image tower in a file, under the file's names.

    ``images``: uint8 [images, 3, size, size]. ``head``: [classes, dim], for the Fisher information.
    ``about``: of what they are. Raises ValueError if the tower is not the backbone's, or computes
    NaN or infinity.
    """
    tower = image_tower(state, backbone.pretrained)
    observed = Shown(task=next(iter(paths.values())).name.split(".")[0], state=tower, head=head,
                        images=images, about=about)  # fmt: skip
    with temporary_beside(next(iter(paths.values()))) as folder:  # as large as what is written
        observatory = Observatory(backbone.visual, folder, device)
        found = observatory.statistics(observed, list(paths), classes)
        for kind, file in found.items():
            _write(paths[kind], kind, dict(_in_file(tower, kind, file)), file.about)


def observe_texts(
    folder: Path,
    state: StateDict,
    paths: Mapping[str, Path],
    texts: Path,
    sequences: int,
    tokens: int,
    about: Mapping[str, Any],
    device: str,
) -> None:
    """Write statistics of texts through a causal language model, under its files' names.

    Raises ValueError if transformers is missing or cannot load the model, or if the text is empty.
    """
    started = time.monotonic()
    model, tokenizer = language.load_language_model(folder, device)
    pieces = language.pieces_of(texts, tokenizer, sequences, tokens)
    about = {**about, "images": len(pieces), "tokens": sum(piece.numel() for piece in pieces)}
    linear = tuple(kind for kind in paths if kind != "fisher")
    of_kind: dict[str, dict[str, Layer]] = {}
    shapes = {name: p.shape for name, p in model.named_parameters()}
    if linear:
        inputs = language.text_inputs(model, pieces, linear)
        names = language.names_in_file(model, inputs.gathered, state)
        for kind in linear:
            of_kind[kind] = {
                names[name]: Layer(
                    statistic_shape(kind, shapes[name][how.axis]), how,
                    partial(inputs.statistics, kind, name),
                )
                for name, how in inputs.gathered.items()
            }  # fmt: skip
    if "fisher" in paths:
        fisher = language.text_fisher(model, pieces, int(about["seed"]))
        names = language.names_in_file(model, dict.fromkeys(fisher), state)
        how = Gathered(about["tokens"])
        of_kind["fisher"] = {
            names[name]: Layer(tuple(value.shape), how, partial(fisher.__getitem__, name))
            for name, value in fisher.items()
        }
    for kind, layers in of_kind.items():
        passes = {"forward_passes": len(pieces), "seconds": round(time.monotonic() - started, 3),
                  "backward_passes": len(pieces) if kind == "fisher" else 0}  # fmt: skip
        _write(paths[kind], kind, layers, {**about, **passes})


def _in_file(
    tower: StateDict | ImageTower, kind: str, file: StatisticsFile
) -> Iterator[tuple[str, Layer]]:
    """Yield the layers under the names of the checkpoint's file, and as it stores them."""
    for name in file:
        how, shape = file.gathered(name), tuple(file.shape(name))
        place = tower.places[name] if isinstance(tower, ImageTower) else Place((name,))
        if place is None:
            continue
        if kind != "fisher":  # parts of a fused projection have the same inputs
            how = replace(how, axis=1 - how.axis) if place.transposed else how
            for part in place.parts:
                yield part, Layer(shape, how, partial(file.__getitem__, name))
        elif place.transposed:
            yield place.parts[0], Layer(shape[::-1], how, lambda name=name: file[name].T)
        else:
            rows = shape[0] // len(place.parts) if shape else 1
            for number, part in enumerate(place.parts):
                start = number * rows
                yield part, Layer(
                    (rows, *shape[1:]) if shape else shape, how,
                    partial(file.rows, name, start, start + rows),
                )  # fmt: skip


def _write(path: Path, kind: str, layers: Mapping[str, Layer], about: Mapping[str, Any]) -> None:
    write_statistics(
        path,
        kind,
        {name: layer.gathered for name, layer in layers.items()},
        {name: layer.shape for name, layer in layers.items()},
        lambda name: layers[name].read(),
        {key: value for key, value in about.items() if key != "kind"},
        overwrite=True,
    )
