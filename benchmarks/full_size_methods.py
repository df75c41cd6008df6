"""Every method that needs no data on full-size random checkpoints; the solvers of WUDI. On request:

.venv/bin/python benchmarks/full_size_methods.py speed [METHOD ...]    # 8 ViT-B/32, 4 GB
.venv/bin/python benchmarks/full_size_methods.py memory [METHOD ...]   # 20 ViT-L/14, 29 GB
.venv/bin/python benchmarks/full_size_methods.py wudi [METHOD ...]     # 8 ViT-B/32, or --files

A method may carry knobs: wudi,method.iterations=10. Checkpoints as for engine.py. A line is
printed as soon as it is measured. BLOCKS=3 leaves out all but three of the transformer's blocks,
which are alike: minutes become seconds, and what is in memory at once stays (kind "served" only).

Every figure is of a process of its own, on two threads:

- whole: tsv-merge, imports, reading, checking and hashing all files, and writing included;
- served: a method that serves each task its own writes as many models as there are tasks. This is
  what it takes to compute all of them once (memory: that of one task), from opening the files on.

Speed: TSV-M runs before and after every method (EVERY=4: every four) in turn, so that a slow minute
of the machine hits both; ratios are to the mean of the two. CPU seconds, of all threads together,
are less disturbed by what else runs.
"""

import argparse
import os
import re
import resource
import sys
import time
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from engine import THREADS, checkpoints, run, warm
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tqdm import tqdm

from tsv_bench.cli.config.method import make_method
from tsv_bench.cli.config.overrides import CONF, options
from tsv_bench.cli.work.machine import keep_freed_memory
from tsv_bench.methods.masked.masked_vector import MaskedVector, masked_rows
from tsv_bench.methods.matrixwise.wudi import interference, merge_matrix
from tsv_bench.provenance import peak_memory
from tsv_bench.state_dicts.open_vectors import open_task_vector
from tsv_bench.state_dicts.state_dict import CachedReads, open_state_dict
from tsv_bench.task_vectors.matrices import Matrices
from tsv_bench.task_vectors.streaming import stream
from tsv_bench.task_vectors.task_vector import is_changed

REFERENCE = "tsv_merge"
BLOCKS = int(os.environ.get("BLOCKS", "0"))
EVERY = int(os.environ.get("EVERY", "1"))


def split(method):
    """The name of a method and the overrides of its knobs."""
    name, *knobs = method.split(",")
    return name, [f"method={name}", *knobs]


def made(method):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return make_method(compose("merge", split(method)[1])).by_default()


def needs_data(name):
    """Whether a method sees statistics of data: benchmarks/observed.py is for these."""
    return "needs" in OmegaConf.load(CONF / "method" / f"{name}.yaml")


def serves_one(method):
    served = made(method).serve({task: {"layer": torch.eye(2)} for task in ("a", "b")})
    return served["a"] is served["b"]


def whole(method, found, write="model"):
    """tsv-merge as a process: wall and CPU seconds, peak in GB."""
    pretrained, tasks = found
    with TemporaryDirectory(dir=pretrained.parent) as folder:
        finetuned = ", ".join(f"{task}: '{path}'" for task, path in tasks.items())
        output = Path(folder) / ("merged.safetensors" if serves_one(method) else "merged")
        return timed(
            "-m", "tsv_bench.cli.merge", f"pretrained={pretrained}", f"finetuned={{{finetuned}}}",
            f"output={output}", f"threads={THREADS}", "cache.folder=null", f"write={write}",
            *split(method)[1],
        )  # fmt: skip


def served(method, backbone, num_tasks, num_served):
    """Computing what is served in a process: wall and CPU seconds, peak in GB."""
    return timed(__file__, "serve", method, backbone, num_tasks, num_served)


def timed(*command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall, said = run(sys.executable, *command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, float(re.findall(r"peak memory ([\d.]+) GB", said)[-1])


def opened(pretrained, tasks):
    base = CachedReads(shortened(pretrained))
    return {task: open_task_vector(base, shortened(path)) for task, path in tasks.items()}


def shortened(path):
    """A checkpoint without the blocks from number `BLOCKS` on."""
    state = open_state_dict(path)
    numbers = {name: re.search(r"resblocks\.(\d+)\.", name) for name in state}
    state._part = {
        name: part
        for name, part in state._part.items()
        if not BLOCKS or not numbers[name] or int(numbers[name][1]) < BLOCKS
    }
    return state


def serve(method, backbone, num_tasks, num_served):
    """In this process; what is served is dropped block by block."""
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    vectors = opened(*checkpoints(backbone, num_tasks))
    distinct = {id(vector): vector for vector in made(method).serve(vectors).values()}
    for vector in islice(distinct.values(), num_served):
        masked = isinstance(vector, MaskedVector)
        for _ in masked_rows(vector.masks, pack=True) if masked else stream(vector):
            pass
        if masked:
            break  # one pass makes the bits of all tasks
    print(f"peak memory {peak_memory() / 1e9:.2f} GB")


def speed(methods):
    found = checkpoints("vit_b32", 8)
    print("| method | | wall, s | ratio | CPU, s | ratio | peak, GB | TSV-M, s |")
    print("|-|-|-:|-:|-:|-:|-:|-|")

    def measured(kind, method):
        warm(found)
        return whole(method, found) if kind == "whole" else served(method, "vit_b32", 8, 8)

    for kind in ("whole", "served"):
        measure = partial(measured, kind)
        chosen = [m for m in methods if kind == "whole" or not serves_one(m)]
        before = None
        for first in range(0, len(chosen), EVERY):
            before = before or measure(REFERENCE)
            figures = {method: measure(method) for method in chosen[first : first + EVERY]}
            after = measure(REFERENCE)
            walls, cpus = (before[i] + after[i] for i in (0, 1))
            for method, (wall, cpu, peak) in figures.items():
                print(
                    f"| {method} | {kind} | {wall:.1f} | {2 * wall / walls:.2f} | {cpu:.1f} | "
                    f"{2 * cpu / cpus:.2f} | {peak:.2f} | {before[0]:.1f}, {after[0]:.1f} |",
                    flush=True,
                )
            before = after


def memory(methods):
    print("| method | | wall, s | CPU, s | peak, GB |\n|-|-|-:|-:|-:|")
    for method in methods:
        tasks = made(method).num_tasks or 20  # slerp is for two
        if serves_one(method) and not BLOCKS:
            wall, cpu, peak = whole(method, checkpoints("vit_l14", tasks))
            kind = "whole"
        else:
            wall, cpu, peak = served(method, "vit_l14", tasks, 1)
            kind = f"served, {BLOCKS or 'all'} blocks"
        print(f"| {method} | {kind} | {wall:.0f} | {cpu:.0f} | {peak:.2f} |", flush=True)


def solvers(methods, files):
    """The objective of WUDI over all matrices, and seconds in this process, by way to solve."""
    torch.set_num_threads(THREADS)
    vectors = list(opened(*(files or checkpoints("vit_b32", 8))).values())
    names = [n for n in vectors[0] if Matrices().is_matrix(n, vectors[0].shape(n))]
    names = [n for n in names if is_changed(vectors[0], n)]
    ways = {"sum": lambda deltas: deltas.sum(dim=0)}
    for method in methods:
        knobs = dict(made(method).serve.keywords)
        ways[method] = partial(
            merge_matrix, **{k: v for k, v in knobs.items() if k not in ("exclude", "split_qkv")}
        )
    objective, seconds = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    sizes = []
    for name in tqdm(names, unit="layer"):
        deltas = torch.stack([vector[name] for vector in vectors])
        sizes.append(float(deltas.square().mean().sqrt()))
        for way, solve in ways.items():
            start = time.monotonic()
            merged = solve(deltas)
            seconds[way] += time.monotonic() - start
            # Task by task: the products of all at once are large.
            objective[way] += sum(
                float(interference(merged.double(), delta[None].double())) for delta in deltas
            )
    print(
        f"{len(vectors)} tasks, {len(names)} matrices; root mean square of a layer's deltas "
        f"{min(sizes):.2g} to {max(sizes):.2g}\n\n"
        f"| solver | interference | of the sum's | s |\n|-|-:|-:|-:|"
    )
    for way, value in objective.items():
        print(f"| {way} | {value:.4g} | {value / objective['sum']:.4f} | {seconds[way]:.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    # Of those that need no data, those for any number of tasks.
    without_data = [name for name in options("method") if not needs_data(name)]
    of_any = [name for name in without_data if made(name).num_tasks is None]
    for name in ("speed", "memory"):
        commands.add_parser(name).add_argument("methods", nargs="*", default=of_any)
    ways = commands.add_parser("wudi")
    ways.add_argument("methods", nargs="*", default=["wudi", "wudi,method.solver=closed_form"])
    ways.add_argument("--files", nargs="+", type=Path, help="pretrained and fine-tuned")
    one = commands.add_parser("serve")
    for argument, kind in (("method", str), ("backbone", str), ("tasks", int), ("served", int)):
        one.add_argument(argument, type=kind)
    args = parser.parse_args()
    if args.command == "serve":
        serve(args.method, args.backbone, args.tasks, args.served)
    elif args.command == "wudi":
        files = args.files and (args.files[0], {path.stem: path for path in args.files[1:]})
        solvers(args.methods, files)
    else:
        {"speed": speed, "memory": memory}[args.command](args.methods)
