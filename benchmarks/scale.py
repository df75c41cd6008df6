"""A sweep of many jobs in many processes that share what is made first, some of them killed.

.venv/bin/python benchmarks/scale.py [--jobs 1000] [--workers 64] [--shared 60] [--killed 0.05]

A job stands in for a cell of a sweep. It needs three of the shared files, which stand in for
fine-tuned checkpoints: whoever needs one first makes it, by a lease as the package does
(tsv_bench/files/lease.py). Then it writes its result, unless that is there. Both are a sleep of
some milliseconds. Workers take the jobs from one queue, as launchers give them out; half of them
say that they are on another machine, so that nothing but the files tells who is alive. A share of
the workers is killed by SIGKILL. Then the same jobs are given out once more, as by the same command
again. Prints how often each file was made, and what leases cost. Ends with an error if a job is
lost, or a file that was finished is made again.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from queue import Empty

from tsv_bench.files import lease, leased, replace_text

BEAT, PATIENCE = 0.5, 5.0  # seconds: a tenth of the package's, so that the dead are noticed soon
MAKING, WORKING = 0.2, 0.05  # seconds of a shared file and of a job
NEEDED = 3


def needed(job, shared):
    """Return the shared files that a job needs, the same each time."""
    return sorted(random.Random(job).sample(range(shared), NEEDED))


def note(folder, kind, what):
    """Add a line to this process's own log."""
    with (folder / "logs" / f"{os.getpid()}").open("a") as file:
        file.write(json.dumps([kind, what]) + "\n")


def once(folder, kind, number, seconds):
    """Make a file unless it is there."""
    path = folder / kind / str(number)
    if path.exists():
        return
    with leased(path, BEAT, PATIENCE):
        if path.exists():
            return
        note(folder, f"{kind} begun", number)
        time.sleep(seconds)
        replace_text(path, f"{kind} {number}\n")
        note(folder, f"{kind} made", number)


def work(folder, jobs, shared, far):
    """Take jobs from the queue until it is empty."""
    if far:
        lease._machine = lambda: None  # as on another machine: its processes are not seen
    while True:
        try:
            job = jobs.get(timeout=1)
        except Empty:
            return
        for number in needed(job, shared):
            once(folder, "shared", number, MAKING)
        once(folder, "jobs", job, WORKING)


def sweep(folder, args, kill):
    """Give all jobs out once; kill so many workers on the way. Return seconds, and CPU seconds."""
    jobs = multiprocessing.Queue()
    for job in range(args.jobs):
        jobs.put(job)
    before, started = os.times(), time.monotonic()
    workers = [
        multiprocessing.Process(target=work, args=(folder, jobs, args.shared, number % 2))
        for number in range(args.workers)
    ]
    for worker in workers:
        worker.start()
    doomed = random.Random(0).sample(workers, kill)
    for worker in doomed:
        time.sleep(MAKING * 1.5)
        os.kill(worker.pid, signal.SIGKILL)
    for worker in workers:
        worker.join()
    after = os.times()
    used = after.children_user + after.children_system
    return time.monotonic() - started, used - before.children_user - before.children_system


def logged(folder):
    """Return how often each thing was begun and made."""
    lines = [line for log in (folder / "logs").iterdir() for line in log.read_text().splitlines()]
    return Counter(tuple(json.loads(line)) for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--shared", type=int, default=60)
    parser.add_argument("--killed", type=float, default=0.05)
    args = parser.parse_args()
    kill = round(args.killed * args.workers)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("logs", "shared", "jobs"):
            (folder / name).mkdir()
        first, first_cpu = sweep(folder, args, kill)
        left = args.jobs - sum(not p.name.startswith(".") for p in (folder / "jobs").iterdir())
        second, _ = sweep(folder, args, 0)
        counts = logged(folder)
        print(
            f"{args.jobs} jobs, {args.workers} workers, {kill} killed, {args.shared} shared files\n"
        )
        print("| | wanted | begun | made | most of one |\n|-|-:|-:|-:|-:|")
        for kind, total in (("shared", args.shared), ("jobs", args.jobs)):
            begun, made = (
                {n: c for (k, n), c in counts.items() if k == f"{kind} {verb}"}
                for verb in ("begun", "made")
            )
            most = max(made.values())
            print(f"| {kind} | {total} | {sum(begun.values())} | {sum(made.values())} | {most} |")
            there = {int(p.name) for p in (folder / kind).iterdir() if not p.name.startswith(".")}
            if kind == "jobs" and there != set(range(total)):
                raise SystemExit(f"lost: {set(range(total)) - there}")
            if most > 1:
                raise SystemExit(f"made more than once: {[n for n, c in made.items() if c > 1]}")
        ideal = (args.shared * MAKING + args.jobs * WORKING) / args.workers
        print(
            f"\nFirst time {first:.1f} s, of which sleep is {ideal:.1f} s a worker; {left} jobs "
            f"were left, and took {second:.1f} s with the look at all others. CPU: "
            f"{1000 * first_cpu / args.jobs:.1f} ms a job, processes and queue included."
        )


if __name__ == "__main__":
    main()
