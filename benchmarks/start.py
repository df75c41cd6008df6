"""How long commands take to start: help, settings, and mistakes that need no tensor.

    .venv/bin/python benchmarks/start.py [runs]

Prints a row for each command line: the least wall and CPU seconds of so many runs (3), each in a
process of its own, and whether torch was imported. Wall time counts on a quiet machine only.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES = (
    *(f"{name} --help" for name in ("merge", "analyze", "bench", "report", "fetch", "finetune")),
    "observe --help",
    "pretrain --help",
    "bench --cfg job",
    "merge metod=ties",
    "merge",
    "merge pretrained=nowhere finetuned={a:b} output=c",
    "analyze pretrained=nowhere finetuned={a:b} output=c",
    "bench method.alphas=[]",
    "finetune seed=one",
    "merge method=ties method.density=2 pretrained=README.md finetuned={a:README.md} output=c",
)
RUN = """
import importlib, sys
command, *arguments = sys.argv[1:]
sys.argv = [f"tsv-{command}", *arguments]
try:
    importlib.import_module(f"tsv_bench.cli.{command}").main()
finally:
    print("torch" if "torch" in sys.modules else "", file=sys.stderr)
"""


def measure(line: str) -> tuple[float, float, bool]:
    """Return wall seconds, CPU seconds, and whether torch was imported."""
    before, started = os.times(), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", RUN, *line.split()],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    wall, after = time.monotonic() - started, os.times()
    used = after.children_user + after.children_system
    return (
        wall,
        used - before.children_user - before.children_system,
        done.stderr.rstrip("\n").endswith("torch"),
    )


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print("| command line | wall s | CPU s | torch |\n|-|-:|-:|-|")
    for line in LINES:
        found = zip(*(measure(line) for _ in range(runs)), strict=True)
        wall, cpu, torch = (min(values) for values in found)
        print(f"| `tsv-{line}` | {wall:.2f} | {cpu:.2f} | {'yes' if torch else 'no'} |", flush=True)


if __name__ == "__main__":
    main()
