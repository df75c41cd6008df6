"""The merging engine on full-size random checkpoints, beside the paper's procedure. On request:

.venv/bin/pytest benchmarks/engine.py -k speed     # seconds, ratio; 8 and 20 ViT-B/32, 10 GB
.venv/bin/pytest benchmarks/engine.py -k memory    # peak resident memory; 20 ViT-L/14, 29 GB
.venv/bin/pytest benchmarks/engine.py -k sweep     # eleven rank fractions; 8 ViT-B/32, 4 GB

Every figure is of a whole process, imports included, on two threads. Checkpoints are made on first
use in FULL_SIZE (a folder; by default in the system's temporary one) and kept. ROUNDS=3 repeats.
What a GPU does is measured by gpu.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import full_size
import pytest

FOLDER = Path(os.environ.get("FULL_SIZE", Path(tempfile.gettempdir()) / "tsv-bench-full-size"))
ROUNDS = int(os.environ.get("ROUNDS", "1"))
FRACTIONS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5)
PAPERS = Path(__file__).with_name("papers_procedure.py")
THREADS = 2


def checkpoints(name, num_tasks, spectrum="shared"):
    folder = FOLDER / (name if spectrum == "shared" else f"{name}-{spectrum}")
    return full_size.make(folder, name, num_tasks, spectrum=spectrum)


def run(*command):
    """Wall seconds and output of a process. The peak is what it says of itself: its own."""
    start = time.monotonic()
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return time.monotonic() - start, done.stdout + done.stderr


def warm(checkpoints):
    """Read the files: the other one's memory may have pushed them out of the page cache."""
    for path in (checkpoints[0], *checkpoints[1].values()):
        with path.open("rb") as file:
            while file.read(2**24):
                pass


def tsv_merge(checkpoints, output, *arguments):
    pretrained, tasks = checkpoints
    finetuned = ", ".join(f"{task}: '{path}'" for task, path in tasks.items())
    seconds, said = run(
        sys.executable, "-m", "tsv_bench.cli.merge", f"pretrained={pretrained}",
        f"finetuned={{{finetuned}}}", f"output={output}", "overwrite=true", f"threads={THREADS}",
        *arguments,
    )  # fmt: skip
    peaks = re.findall(r"in ([\d.]+) s, peak memory ([\d.]+) GB", said)
    assert peaks, said[-3000:]
    return seconds, float(peaks[-1][1])


def papers(checkpoints, output, *arguments):
    pretrained, tasks = checkpoints
    seconds, said = run(
        sys.executable,
        PAPERS,
        output,
        pretrained,
        *tasks.values(),
        "--threads",
        THREADS,
        *arguments,
    )
    found = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    return seconds, found["peak_rss_bytes"] / 1e9, found


@pytest.mark.parametrize("spectrum", ["shared", "power"])
@pytest.mark.parametrize("num_tasks", [8, 20])
def test_speed(num_tasks, spectrum, benchmark, tmp_path, show):
    """Ours and the paper's procedure in turn, so that a slow minute of the machine hits both.

    The second ratio leaves out what the paper's procedure spends on layers without any delta.
    """
    found = checkpoints("vit_b32", num_tasks, spectrum)
    ratios = []

    def pair():
        warm(found)
        ours, our_peak = tsv_merge(found, tmp_path / "ours.safetensors", "cache.folder=null")
        warm(found)
        theirs, their_peak, said = papers(found, tmp_path / "theirs.safetensors")
        idle = sum(said["seconds_of_zero_layers"].values())
        ratios.append((theirs / ours, (theirs - idle) / ours))
        show(
            f"TSV-M, {num_tasks} x ViT-B/32, {spectrum}: ours {ours:.1f} s, {our_peak:.2f} GB; "
            f"the paper's procedure {theirs:.1f} s ({idle:.1f} s of it on zero deltas), "
            f"{their_peak:.2f} GB; ratio {ratios[-1][0]:.2f} ({ratios[-1][1]:.2f} without these)"
        )
        return ours

    benchmark.pedantic(pair, rounds=ROUNDS)
    benchmark.extra_info["ratios"] = ratios


@pytest.mark.parametrize("method", ["tsv_merge", "ties", "task_arithmetic"])
def test_memory(method, benchmark, tmp_path, show):
    found = checkpoints("vit_l14", 20)

    def merge():
        seconds, peak = tsv_merge(
            found, tmp_path / "merged.safetensors", f"method={method}", "cache.folder=null"
        )
        show(f"{method}, 20 x ViT-L/14: {seconds:.0f} s, peak resident memory {peak:.2f} GB")

    benchmark.pedantic(merge, rounds=1)


@pytest.mark.parametrize("method", ["tsv_merge", "tsv_compress"])
def test_sweep(method, benchmark, tmp_path, show):
    """Eleven rank fractions against the largest one alone, each from an empty factor cache."""
    found = checkpoints("vit_b32", 8)

    def pair():
        alone, _ = tsv_merge(
            found, tmp_path / "alone.safetensors" if method == "tsv_merge" else tmp_path / "alone",
            f"method={method}", f"method.rank_fraction={FRACTIONS[-1]}",
            f"cache.folder={tmp_path / 'cache1'}",
        )  # fmt: skip
        shutil.rmtree(tmp_path / "cache1")
        end = ".safetensors" if method == "tsv_merge" else ""
        sweep, _ = tsv_merge(
            found, f"{tmp_path}/out{end}", "--multirun", f"method={method}",
            f"method.rank_fraction={','.join(map(str, FRACTIONS))}",
            f"cache.folder={tmp_path / 'cache2'}", f"hydra.sweep.dir={tmp_path}",
        )  # fmt: skip
        shutil.rmtree(tmp_path / "cache2")
        show(
            f"{method}, 8 x ViT-B/32: rank fraction {FRACTIONS[-1]} alone {alone:.1f} s, all "
            f"eleven {sweep:.1f} s; ratio {sweep / alone:.2f}"
        )

    benchmark.pedantic(pair, rounds=ROUNDS)
