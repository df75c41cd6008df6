"""Methods that see statistics of data, on full-size random checkpoints, beside TSV-M. On request:

.venv/bin/python benchmarks/observed.py speed [METHOD ...]     # 8 ViT-B/32, 4 GB and 1 GB
.venv/bin/python benchmarks/observed.py memory [METHOD ...]    # 20 ViT-L/14, 29 GB and 4 GB

A method may carry knobs: esm,as_released=false. Checkpoints and their folder as for engine.py; the
statistics, of inputs that are drawn, are made beside them on first use. BLOCKS=3 leaves out all but
three of the transformer's blocks, which are alike.

Every figure is of a process of its own, on two threads: imports, opening the files and computing
what is served, nothing hashed or written. TSV-M runs before and after every method, so that a slow
minute of the machine hits both; ratios are to the mean of the two.
"""

import argparse
import re

import torch
from engine import FOLDER, THREADS, checkpoints
from full_size_methods import BLOCKS, opened, timed
from omegaconf import OmegaConf
from safetensors.torch import save_file

from tsv_bench import methods
from tsv_bench.cli.config.search_path import CONF, options
from tsv_bench.cli.work.machine import keep_freed_memory
from tsv_bench.provenance import peak_memory
from tsv_bench.state_dicts.state_dict import open_state_dict
from tsv_bench.task_vectors.lazy import LazyMapping
from tsv_bench.task_vectors.statistics import KINDS, Gathered, Statistics
from tsv_bench.task_vectors.streaming import stream

REFERENCE = "tsv_merge"
TOKENS = {"vit_b32": 1600, "vit_l14": 8224}  # of 32 images
LINEAR = re.compile(r"resblocks\..*\.(in_proj_weight|out_proj\.weight|c_fc\.weight|c_proj\.weight)")
WORLDS = 2  # files of statistics; tasks take them in turn, to save disk


def yaml_of(name):
    return OmegaConf.load(CONF / "method" / f"{name}.yaml")


# Those that see data, and two that put the deltas themselves in its place.
CHOSEN = [name for name in options("method") if {*yaml_of(name).get("needs", ())} & {*KINDS}]
CHOSEN += ["anchored_regression,data_free=true", *{"ace"}.intersection(options("method"))]


def statistics_files(backbone, vector):
    """Files with x^T x of linear layers, of inputs with a mean and a spectrum of two decades."""
    names = [f"inputs{world}-{BLOCKS or 'all'}-blocks.safetensors" for world in range(WORLDS)]
    files = [FOLDER / backbone / name for name in names]
    names = [name for name in vector if LINEAR.search(name)]
    for world, path in enumerate(files):
        if path.exists():
            continue
        generator = torch.Generator().manual_seed(world)
        grams = {}
        for name in names:
            n = vector.shape(name)[1]
            scales = torch.logspace(0, -2, n)[torch.randperm(n, generator=generator)]
            x = torch.randn(TOKENS[backbone], n, generator=generator)
            x = (x + torch.randn(n, generator=generator)) * scales
            grams[name] = x.mT @ x
        part = path.with_name(f".{path.name}.part")
        save_file(grams, part)
        part.rename(path)
    return files


def seen(backbone, vectors):
    """Task -> statistics, of the layers that its vector has."""
    first = next(iter(vectors.values()))
    files = [open_state_dict(path) for path in statistics_files(backbone, first)]
    found = {}
    for number, task in enumerate(vectors):
        file = files[number % WORLDS]
        gathered = {name: Gathered(TOKENS[backbone]) for name in file}
        found[task] = Statistics(file, gathered)
    return found


class Squares(LazyMapping):
    """A task's own deltas, squared when they are read, in place of a Fisher matrix's diagonal."""

    def __init__(self, vector):
        self._vector = vector

    @property
    def names(self):
        return self._vector.names

    def shape(self, name):
        return self._vector.shape(name)

    def dtype(self, name):
        return self._vector.dtype(name)

    def rows(self, name, start, stop):
        return self._vector.rows(name, start, stop).square()


def squares(backbone, vectors):
    return {task: Statistics(Squares(vector)) for task, vector in vectors.items()}


def mean_inputs(backbone, vectors):
    """A vector of each layer's width, drawn, in place of the mean of its inputs."""
    generator, found = torch.Generator().manual_seed(9), {}
    for task, vector in vectors.items():
        widths = {name: vector.shape(name)[1] for name in vector if LINEAR.search(name)}
        found[task] = Statistics(
            {name: torch.randn(width, generator=generator) for name, width in widths.items()}
        )
    return found


def called(method, vectors, backbone):
    """What a method serves, its knobs those of its yaml and the ones that it carries."""
    name, *given = method.split(",")
    node = OmegaConf.merge(yaml_of(name), OmegaConf.from_dotlist(given))
    knobs = OmegaConf.to_container(node.serve, resolve=True)
    knobs = {key: value for key, value in knobs.items() if not key.startswith("_")}
    for need in node.get("needs", ()):
        knobs[need] = {"inputs": seen, "means": mean_inputs, "fisher": squares}[need](
            backbone, vectors
        )
    return getattr(methods, name)(vectors, **knobs)


def serve(method, backbone, num_tasks):
    """In this process; what is served is dropped block by block."""
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    vectors = opened(*checkpoints(backbone, num_tasks))
    for _ in stream(next(iter(called(method, vectors, backbone).values()))):
        pass
    print(f"peak memory {peak_memory() / 1e9:.2f} GB")


def measured(backbone, num_tasks, chosen):
    statistics_files(backbone, opened(*checkpoints(backbone, num_tasks))["task00"])

    def measure(method):
        return timed(__file__, "serve", method, backbone, num_tasks)

    print("| method | wall, s | of TSV-M's | CPU, s | of TSV-M's | peak, GB | TSV-M's wall, s |")
    print("|-|-:|-:|-:|-:|-:|-|", flush=True)
    before = measure(REFERENCE)
    for method in chosen:
        wall, cpu, peak = measure(method)
        after = measure(REFERENCE)
        walls, cpus = (before[i] + after[i] for i in (0, 1))
        print(
            f"| {method} | {wall:.1f} | {2 * wall / walls:.2f} | {cpu:.1f} | {2 * cpu / cpus:.2f} |"
            f" {peak:.2f} | {before[0]:.1f}, {after[0]:.1f} |",
            flush=True,
        )
        before = after


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("speed", "memory"):
        commands.add_parser(name).add_argument("methods", nargs="*", default=CHOSEN)
    one = commands.add_parser("serve")
    for argument, kind in (("method", str), ("backbone", str), ("tasks", int)):
        one.add_argument(argument, type=kind)
    args = parser.parse_args()
    if args.command == "serve":
        serve(args.method, args.backbone, args.tasks)
    else:
        measured(*{"speed": ("vit_b32", 8), "memory": ("vit_l14", 20)}[args.command], args.methods)
