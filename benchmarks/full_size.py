"""Random checkpoints as large as the fine-tuned CLIP backbones of the paper, for benchmarks.

.venv/bin/python benchmarks/full_size.py FOLDER vit_b32 8 [shared|power]
"""

import argparse
import math
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tsv_bench.models.quick_import import open_clip

OPEN_CLIP_NAMES = {"vit_b32": "ViT-B-32", "vit_b16": "ViT-B-16", "vit_l14": "ViT-L-14"}
# As small as these are large, to try a benchmark out.
TINY = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 1, "layers": 1},
}
VISUAL = "model.visual."
WEIGHT_STD = 0.02
RELATIVE_DELTA = 1e-2  # Frobenius norm of a delta over that of its weights


def clip(name: str, device: str = "meta") -> open_clip.CLIP:
    """A CLIP with open_clip's random weights; on the meta device it has shapes alone."""
    config = open_clip.get_model_config(OPEN_CLIP_NAMES[name]) if name in OPEN_CLIP_NAMES else TINY
    with torch.device(device):
        return open_clip.CLIP(**{**config, "quick_gelu": True})


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Parameters of the files the paper reads: CLIP without the blocks of its text tower."""
    return {
        f"model.{key}": tuple(param.shape)
        for key, param in clip(name).state_dict().items()
        if not key.startswith("transformer.")
    }


def make(
    folder: Path,
    name: str,
    num_tasks: int,
    *,
    spectrum: str = "shared",
    seed: int = 0,
    suffix: str = ".safetensors",
    device: str = "cpu",
    until: float = math.inf,
) -> tuple[Path, dict[str, Path]]:
    """Write a pretrained and ``num_tasks`` fine-tuned checkpoints; files already there are kept.

    A folder holds one backbone, spectrum, seed and kind of ``device``, each of which draws numbers
    of its own: the names of the files tell only the task. Text leftovers have a zero delta, as in
    the paper's checkpoints. After ``until``, of time.monotonic(), tasks beyond the second are left
    out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pretrained = folder / f"pretrained{suffix}"
    tasks = {f"task{i:02d}": folder / f"task{i:02d}{suffix}" for i in range(num_tasks)}
    if all(path.exists() for path in [pretrained, *tasks.values()]):
        return pretrained, tasks

    # Drawn again rather than read back: the same seeds give the same weights, whatever the suffix.
    weights = {
        layer: _randn(shape, _generator(device, name, seed, "weights", layer)).mul_(WEIGHT_STD)
        for layer, shape in shapes(name).items()
    }
    if not pretrained.exists():
        _write(weights, pretrained)
    for number, (task, path) in enumerate(list(tasks.items())):
        if number > 1 and not path.exists() and time.monotonic() > until:
            del tasks[task]
        elif not path.exists():
            finetuned = {
                layer: _delta(weight.shape, spectrum, (name, seed), task, layer, device).add_(
                    weight
                )
                if layer.startswith(VISUAL)
                else weight
                for layer, weight in weights.items()
            }
            _write(finetuned, path)
    return pretrained, tasks


def link_more(paths: Mapping[str, Path], num_tasks: int, folder: Path) -> dict[str, Path]:
    """Present a few checkpoints as ``num_tasks``, by hard links, where the disk is short.

    For time and memory only. Equal tasks make the concatenated singular vectors rank deficient,
    so their polar factor, and with it the merged model, is arbitrary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = list(paths.values())
    linked = {}
    for i in range(num_tasks):
        source = files[i % len(files)]
        linked[f"task{i:02d}"] = target = folder / f"task{i:02d}{source.suffix}"
        if not target.exists():
            os.link(source, target)
    return linked


def _delta(
    shape: torch.Size, spectrum: str, world: tuple, task: str, layer: str, device: str
) -> Tensor:
    own = _generator(device, *world, task, layer)
    if len(shape) == 2:
        delta = SPECTRA[spectrum](*shape, _generator(device, *world, "common", layer), own)
    else:
        delta = _randn(shape, own)
    size = RELATIVE_DELTA * WEIGHT_STD * math.sqrt(delta.numel())
    return delta.mul_(size / torch.linalg.vector_norm(delta))


def _shared(m: int, n: int, common: torch.Generator, own: torch.Generator) -> Tensor:
    """Thirty-two directions that the tasks share, over 1.5 decades, above each task's noise."""
    rank = min(m, n, 32)
    left, right = (_factor(side, rank, 0.05, common, own) for side in (m, n))
    # sqrt(m) + sqrt(n) is the largest singular value of the noise. The gaussian factors have
    # nearly orthogonal columns of lengths sqrt(m) and sqrt(n), hence the division.
    top = 3 * (math.sqrt(m) + math.sqrt(n)) / math.sqrt(m * n)
    scale = top * torch.logspace(0, -1.5, rank, device=own.device)
    return _randn((m, n), own).addmm_(left * scale, right.T)


def _power(m: int, n: int, common: torch.Generator, own: torch.Generator) -> Tensor:
    """Singular values of about 1, 1/2, 1/3, ... and no gap anywhere."""
    rank = min(m, n)
    left, right = (_factor(side, rank, 0.5, common, own) for side in (m, n))
    return left / torch.arange(1, rank + 1, device=own.device) @ right.T


SPECTRA = {"shared": _shared, "power": _power}


def _factor(
    side: int, rank: int, own_share: float, common: torch.Generator, own: torch.Generator
) -> Tensor:
    shared = _randn((side, rank), common)
    return shared.add_(_randn((side, rank), own), alpha=own_share)


def _randn(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _generator(device: str, *key: str | int) -> torch.Generator:
    # crc32 and not hash(), which differs from process to process.
    return torch.Generator(device).manual_seed(zlib.crc32(repr(key).encode()))


def _write(state: dict[str, Tensor], path: Path) -> None:
    part = path.with_name(f".{path.name}.part")  # an interrupted run leaves no half file behind
    state = {name: tensor.cpu() for name, tensor in state.items()}
    {".safetensors": save_file, ".pt": torch.save}[path.suffix](state, part)
    part.rename(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name", choices=OPEN_CLIP_NAMES)
    parser.add_argument("num_tasks", type=int)
    parser.add_argument("spectrum", nargs="?", choices=SPECTRA, default="shared")
    args = parser.parse_args()
    make(args.folder, args.name, args.num_tasks, spectrum=args.spectrum)
