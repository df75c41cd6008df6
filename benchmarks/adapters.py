"""LoRA adapters of a Llama of 7 billion parameters, merged from their factors and as whole deltas.

.venv/bin/python benchmarks/adapters.py [METHOD ...] [--layers 1] [--tasks 8] [--rank 16]

The seven matrices of a block have three shapes. ``--layers`` matrices of each shape are written to
files, the pretrained ones in bfloat16 and random adapters in float32. A figure is the mean over
these layers, in a process of its own: adapters are read and merged, nothing is written. "Whole"
hides the factors from the method: each delta is multiplied out and decomposed. That takes minutes
for each method, and is measured of the shapes that ``--whole`` names. Peak memory is that of the
process, with torch in it. The second table counts each shape as often as the 32 blocks have it:
extrapolated.

A method may carry knobs: knots,method.rule=sum, and iso_c,method.mean_over=all, as without it the
two ways take different means. The distance is the largest between both ways, relative to the
largest entry.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from engine import THREADS, run
from full_size_methods import made
from safetensors.torch import load_file, save_file

from tsv_bench.provenance import peak_memory
from tsv_bench.state_dicts.inputs import open_inputs
from tsv_bench.task_vectors.lazy import OtherLayers

BLOCKS = 32
SHAPES = {  # a matrix of the shape -> outputs, inputs, how many a block has
    "self_attn.q_proj": (4096, 4096, 4),
    "mlp.up_proj": (11008, 4096, 2),
    "mlp.down_proj": (4096, 11008, 1),
}
METHODS = ["tsv_merge", "iso_c,method.mean_over=all", "knots,method.rule=sum", "core_space"]
STD = 0.02


def write(folder, num_layers, num_tasks, rank):
    """A pretrained checkpoint and adapters, of ``num_layers`` layers of each shape."""
    generator = torch.Generator().manual_seed(0)

    def randn(*size):
        return STD * torch.randn(size, generator=generator)

    names = {f"layers.{i}.{name}": size for i in range(num_layers) for name, size in SHAPES.items()}
    base = {f"{name}.weight": randn(m, n).bfloat16() for name, (m, n, _) in names.items()}
    save_file(base, folder / "base.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
    for task in range(num_tasks):
        tensors = {}
        for name, (m, n, _) in names.items():
            tensors[f"base_model.model.{name}.lora_A.weight"] = randn(rank, n)
            tensors[f"base_model.model.{name}.lora_B.weight"] = randn(m, rank)
        (folder / f"task{task}").mkdir()
        save_file(tensors, folder / f"task{task}" / "adapter_model.safetensors")
        (folder / f"task{task}" / "adapter_config.json").write_text(json.dumps(settings))


class Whole(OtherLayers):
    """A task vector that does not tell its factors."""


def serve(method, way, shape, folder, threads, output):
    """In this process: the seconds of each layer of a shape, and the peak memory."""
    torch.set_num_threads(threads)
    tasks = {path.name: path for path in sorted(folder.glob("task*"))}
    vectors = open_inputs(folder / "base.safetensors", tasks).vectors
    if way == "whole":
        vectors = {task: Whole(vector) for task, vector in vectors.items()}
    merged = next(iter(made(method).serve(vectors).values()))
    seconds, last = [], None
    for name in (name for name in merged if f".{shape}." in name):
        started = time.monotonic()
        last = merged[name]
        seconds.append(time.monotonic() - started)
    save_file({"merged": last.contiguous()}, output)
    print(json.dumps({"seconds": sum(seconds) / len(seconds), "peak": peak_memory() / 1e9}))


def measured(folder, threads, method, way, shape):
    """The figures of a process, and the file of the last layer that it merged."""
    output = folder / f"{method}-{way}.safetensors"
    command = [sys.executable, __file__, "serve", method, way, shape, folder, threads, output]
    return json.loads(run(*command)[1].strip().splitlines()[-1]), output


def compare(args):
    total = {method: 0.0 for method in args.methods}
    print("| matrix | method | from factors, s | peak, GB | whole, s | peak, GB | distance |")
    print("|-|-|-:|-:|-:|-:|-:|")
    with TemporaryDirectory(dir=args.folder) as folder:
        folder = Path(folder)
        write(folder, args.layers, args.tasks, args.rank)
        for shape, (m, n, often) in SHAPES.items():
            for method in args.methods:
                found, own = measured(folder, args.threads, method, "factors", shape)
                total[method] += BLOCKS * often * found["seconds"]
                cells = [f"{found['seconds']:.2f}", f"{found['peak']:.2f}", "", "", ""]
                if shape in args.whole:
                    whole, other = measured(folder, args.threads, method, "whole", shape)
                    one, two = (load_file(path)["merged"] for path in (own, other))
                    distance = float((one - two).abs().max() / two.abs().max())
                    cells[2:] = f"{whole['seconds']:.1f}", f"{whole['peak']:.2f}", f"{distance:.0e}"
                print(f"| {m} x {n} | {method} | {' | '.join(cells)} |", flush=True)
    print("\n| method | all matrices from factors, s |\n|-|-:|")
    for method, seconds in total.items():
        print(f"| {method} | {seconds:.0f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        method, way, shape, folder, threads, output = sys.argv[2:]
        serve(method, way, shape, Path(folder), int(threads), Path(output))
    else:
        parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
        parser.add_argument("methods", nargs="*", default=METHODS)
        parser.add_argument("--layers", type=int, default=1, help="of each shape")
        parser.add_argument("--tasks", type=int, default=8)
        parser.add_argument("--rank", type=int, default=16)
        parser.add_argument("--threads", type=int, default=THREADS)
        parser.add_argument("--whole", nargs="*", default=["self_attn.q_proj"], choices=SHAPES)
        parser.add_argument("--folder", type=Path, help="for the files; by default a temporary one")
        compare(parser.parse_args())
