"""What is left after a loss of power: copy a file system's image as soon as a write has returned.

sudo .venv/bin/python benchmarks/power_loss.py

Each operation writes into an ext4 image that is mounted through a loop device; the image file
holds exactly what the file system has handed to its disk. It is copied when the operation returns,
mounted again and compared. The same without fsync is the control: it must lose something, or the
comparison shows nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tsv_bench import merging, methods
from tsv_bench.benchmark.runs import Run, load_run, save_run
from tsv_bench.checkpoints.checkpoint import save_checkpoint
from tsv_bench.files import sha256
from tsv_bench.models.training import save_state

RESULTS = Path(__file__).resolve().parents[1] / "results" / "embedded" / "runs"
MEGABYTES = 200


def write_inputs(folder: Path) -> None:
    """Write a base in a folder with a config, and two fine-tuned checkpoints."""
    torch.manual_seed(0)
    base = {f"layers.{i}.weight": torch.randn(256, 256) for i in range(8)}
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}")
    save_file(base, folder / "base" / "model.safetensors")
    for task in ("a", "b"):
        tuned = {name: weight + 0.01 * torch.randn(256, 256) for name, weight in base.items()}
        save_file(tuned, folder / f"{task}.safetensors")


def merge(output: str, **settings: object) -> None:
    tuned = {task: f"{task}.safetensors" for task in ("a", "b")}
    merging.merge(methods.tsv_merge, "base", tuned, output, progress=False, **settings)


def save_a_run(folder: str) -> None:
    path = next(RESULTS.rglob("zero_shot-*.json"))
    run: Run = load_run(path)
    bits = {t: np.arange(s.total) < s.correct for t, s in run.test.items()}
    save_run(run, bits, Path(folder))


# name -> what it needs first, and what it does; the outputs are in out/
OPERATIONS = {
    "merge to a file": (None, lambda: merge("out/m.safetensors")),
    "merge over a file": (
        lambda: merge("out/m.safetensors"),
        lambda: merge("out/m.safetensors", alpha=0.5, overwrite=True),
    ),
    "merge to a folder": (None, lambda: merge("out/m")),
    "merge over a folder": (
        lambda: merge("out/m"),
        lambda: merge("out/m", alpha=0.5, overwrite=True),
    ),
    "Run": (None, lambda: save_a_run("out")),
    "checkpoint": (
        None,
        lambda: save_checkpoint(Path("out/c.safetensors"), {"w": torch.ones(512, 512)}, {}),
    ),
    "state to resume from": (
        None,
        lambda: save_state(Path("out/c.resume"), {"w": torch.ones(512, 512)}),
    ),
}


def hashes(folder: Path) -> dict[str, str]:
    """Hash the files but for hidden ones, temporaries that the next command removes."""
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def cut(name: str, fsync: bool, work: Path) -> str:
    """Do an operation, cut the power; return what became of its outputs."""
    image, snapshot, mount = work / "image", work / "snapshot", work / "mount"
    with image.open("wb") as file:
        file.truncate(MEGABYTES * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    mount.mkdir(exist_ok=True)
    # No commit for five minutes but what fsync asks for.
    subprocess.run(["mount", "-o", "loop,commit=300", image, mount], check=True)
    try:
        write_inputs(mount)
        child = [sys.executable, __file__, "--child", name]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*child, "first"], cwd=mount, env=environment, check=True)
        os.sync()
        before = hashes(mount / "out") if (mount / "out").exists() else {}
        how = "fsync" if fsync else "none"
        subprocess.run([*child, how], cwd=mount, env=environment, check=True)
        shutil.copyfile(image, snapshot)
        expected = hashes(mount / "out")
    finally:
        subprocess.run(["umount", mount], check=True)
    subprocess.run(["mount", "-o", "loop", snapshot, mount], check=True)
    try:
        found = hashes(mount / "out") if (mount / "out").exists() else {}
    finally:
        subprocess.run(["umount", mount], check=True)
    if found == expected:
        return "whole"
    kept = "as before" if found == before and before else f"{len(found)} of {len(expected)} files"
    return f"LOST: {kept}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    if child := parser.parse_args().child:
        name, how = child
        if how == "none":
            os.fsync = lambda descriptor: None
        operation = OPERATIONS[name][0 if how == "first" else 1]
        if operation is not None:
            operation()
        return
    if os.geteuid() != 0:
        sys.exit("needs root: it mounts an image. Run it with sudo.")
    print("| operation | after a loss of power | control, without fsync |\n|-|-|-|")
    for name in OPERATIONS:
        with tempfile.TemporaryDirectory() as work:
            with_fsync, control = (cut(name, fsync, Path(work)) for fsync in (True, False))
        print(f"| {name} | {with_fsync} | {control} |", flush=True)


if __name__ == "__main__":
    main()
