"""Kill merges at random moments, and let several write one output: what is there is whole.

.venv/bin/python benchmarks/kills.py [ROUNDS]

Each round starts a merge over a folder with a file of the user's in it, and sends it SIGKILL,
SIGTERM, SIGINT or SIGHUP after a random time. The next command that looks at the folder must find
the old model or the new one, whole, and no temporaries; the user's file stays. Then four merges of
different alphas begin at once, without overwrite=true: one of them writes.
"""

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import save_file

from tsv_bench import merging, methods
from tsv_bench.files import sha256
from tsv_bench.files.atomic import sweep
from tsv_bench.process.signals import ended_by_signals

ALPHAS = (0.5, 1.0)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
FORK = multiprocessing.get_context("fork")


def write_inputs() -> None:
    """Write a base in two shards with a config, and two fine-tuned checkpoints."""
    generator = torch.Generator().manual_seed(0)
    base = {f"layers.{i}.weight": torch.randn(96, 96, generator=generator) for i in range(12)}
    Path("base").mkdir()
    Path("base/config.json").write_text("{}")
    names = list(base)
    shards = {"model-1.safetensors": names[:6], "model-2.safetensors": names[6:]}
    for shard, own in shards.items():
        save_file({name: base[name] for name in own}, f"base/{shard}")
    weight_map = {name: shard for shard, own in shards.items() for name in own}
    text = str({"metadata": {}, "weight_map": weight_map}).replace("'", '"')
    Path("base/model.safetensors.index.json").write_text(text)
    for task in ("a", "b"):
        tuned = {n: w + 0.01 * torch.randn(96, 96, generator=generator) for n, w in base.items()}
        save_file(tuned, f"{task}.safetensors")


def merge(alpha: float, output: str, overwrite: bool) -> None:
    torch.set_num_threads(1)
    tuned = {task: f"{task}.safetensors" for task in ("a", "b")}
    with ended_by_signals():
        merging.merge(
            methods.tsv_merge, "base", tuned, output, alpha=alpha, overwrite=overwrite,
            progress=False,
        )  # fmt: skip


def child(alpha: float, output: str, overwrite: bool) -> None:
    """What a process does: it says nothing, and its exit code tells."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # Shells start background jobs with SIGINT ignored, nohup with SIGHUP.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    merge(alpha, output, overwrite)


def content(output: str) -> dict[str, str]:
    return {p.name: sha256(p) for p in sorted(Path(output).iterdir()) if p.name != "README.md"}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    random.seed(0)
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        write_inputs()
        started = time.monotonic()
        for alpha in ALPHAS:
            merge(alpha, f"expected-{alpha}", False)
        longest = (time.monotonic() - started) / 2
        whole = {alpha: content(f"expected-{alpha}") for alpha in ALPHAS}
        merge(ALPHAS[0], "out", False)
        Path("out/README.md").write_text("mine")

        found: Counter[str] = Counter()
        for number in range(rounds):
            before = content("out")
            alpha, kind = random.choice(ALPHAS), SIGNALS[number % len(SIGNALS)]
            process = FORK.Process(target=child, args=(alpha, "out", True))
            process.start()
            time.sleep(random.uniform(0, 2 * longest))
            if process.is_alive():
                os.kill(process.pid, kind)
            process.join()
            ended = "in time" if process.exitcode == 0 else kind.name
            litter = bool(list(Path().glob(".out*")))
            sweep(Path())
            now = content("out")
            assert now in (before, whole[alpha]), "neither the old model nor the new one"
            assert Path("out/README.md").read_text() == "mine"
            assert not list(Path().glob(".out*")), "temporaries stay"
            found[f"{ended}: {'new' if now != before else 'as before'}"] += 1
            found["temporaries that the next one removed"] += litter
        print(f"{rounds} merges over a folder, ended at random moments:")
        for what, count in sorted(found.items()):
            print(f"  {count:4} {what}")

        times = max(1, rounds // 5)
        for number in range(times):
            together = [
                FORK.Process(target=child, args=(1 + i / 10, f"together-{number}", False))
                for i in range(4)
            ]
            for process in together:
                process.start()
            for process in together:
                process.join()
            wrote = sum(process.exitcode == 0 for process in together)
            assert wrote == 1 and content(f"together-{number}").keys() == whole[0.5].keys()
        print(f"{times} times four merges to one output at once: one wrote, each time")


if __name__ == "__main__":
    main()
