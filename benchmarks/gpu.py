"""What the code does on one accelerator, in at most eight minutes. On request:

.venv/bin/python benchmarks/gpu.py [--out FOLDER] [--device cuda] [--files FOLDER] [--small]

Prints tables, and writes gpu.md and gpu.json into FOLDER (here, by default) after every line, so
that a run which is cut off leaves what it had. Sections are processes of their own, each with its
seconds: one that fails or hangs costs its own lines alone. They need nothing from the hub.

--files: where random checkpoints are made, 33 GB of them; by default in memory (/dev/shm) where it
has the room, else in the system's temporary folder. They are removed at the end; those of a folder
that is named stay, for the next run. --small runs all sections on the CPU in tiny sizes, in a
minute: it measures nothing, and shows that the script works.
"""

import argparse
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from gpu_sections import SECTIONS
from gpu_timing import Plan

from tsv_bench import provenance

SECONDS = 480  # of all sections together
ROW = "ROW "  # before each line of a table that a section prints
NEEDED = 40e9  # bytes of checkpoints and what is merged of them
GRACE = 5  # seconds that a section has beyond its own, to end by itself


def about(device: str) -> dict[str, str]:
    """The machine, and what runs on it."""
    said = {
        "device": provenance.machine(device),
        "processor": f"{provenance.processor()}, {len(os.sched_getaffinity(0))} cores",
        "torch": torch.__version__,
        "commit": provenance.commit(),
    }
    if torch.device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        capability = f"{properties.major}.{properties.minor}"
        said["device"] += f", {properties.total_memory / 1e9:.0f} GB, capability {capability}"
        said["cuda"] = str(torch.version.cuda)
    return said


def rows_of(command: Sequence[object], seconds: float) -> Iterator[dict]:
    """Yield what a process prints after `ROW`, as it does; at its end what went wrong, if it did.

    It is ended after so many seconds.
    """
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1"}, start_new_session=True,
    )  # fmt: skip
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read)
    reader.start()
    end, last = time.monotonic() + seconds, "no word"
    try:
        while (line := lines.get(timeout=max(0.0, end - time.monotonic()))) is not None:
            if line.startswith(ROW):
                yield json.loads(line.removeprefix(ROW))
            else:
                last = line.strip() or last
        if process.wait():
            yield {"problem": f"failed, exit code {process.returncode}: {last}"}
    except queue.Empty:
        yield {"problem": f"ended after its {seconds:.0f} s"}
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
            process.wait()
        reader.join()


def page(found: dict) -> str:
    """The tables, as Markdown."""
    machine = "; ".join(f"{what} {value}" for what, value in found["about"].items())
    parts = [f"# On an accelerator\n\n{machine}."]
    for name, section in found["sections"].items():
        rows = [row for row in section["rows"] if "problem" not in row]
        problems = [row["problem"] for row in section["rows"] if "problem" in row]
        text = f"## {section['title']}\n\n{table(rows)}".rstrip()
        text += "".join(f"\n\nThe section {name} {problem}." for problem in problems)
        parts.append(f"{text}\n\n{section['seconds']:.0f} s.")
    return "\n\n".join(parts) + "\n"


def table(rows: list[dict]) -> str:
    """Rows with the same keys in one table, those with others in a table of their own."""
    groups: list[list[dict]] = []
    for row in rows:
        if groups and list(groups[-1][0]) == list(row):
            groups[-1].append(row)
        else:
            groups.append([row])
    return "\n\n".join(map(one_table, groups))


def one_table(rows: list[dict]) -> str:
    names = list(rows[0])
    right = [all(not isinstance(row[name], str) for row in rows) for name in names]
    lines = [names, ["-:" if is_right else "-" for is_right in right]]
    lines += [[shown(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def write(found: dict, folder: Path) -> None:
    (folder / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "gpu.md").write_text(page(found))


def place_of_files(needed: float) -> str:
    """Where checkpoints are made: in memory if half of it is enough."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    shared = Path("/dev/shm")
    if shared.is_dir() and min(shutil.disk_usage(shared).free, memory / 2) > needed:
        return str(shared)
    return tempfile.gettempdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--device")
    parser.add_argument("--files", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all together")
    # How this script calls itself.
    parser.add_argument("--one", choices=["about", *SECTIONS], help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.device = args.device or ("cpu" if args.small else "cuda")
    if args.one:
        plan = Plan(args.device, args.files, args.small, time.monotonic() + args.seconds)
        rows = [about(args.device)] if args.one == "about" else SECTIONS[args.one].run(plan)
        for row in rows:
            print(ROW + json.dumps(row), flush=True)
        return
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here; --small tries the script without one.")
    args.out.mkdir(parents=True, exist_ok=True)
    made = None
    if args.files is None:
        made = tempfile.mkdtemp(dir=place_of_files(0 if args.small else NEEDED))
    try:
        measure(args, Path(made or args.files))
    finally:
        if made:
            shutil.rmtree(made, ignore_errors=True)


def measure(args: argparse.Namespace, files: Path) -> None:
    end = time.monotonic() + args.seconds
    own = ["--device", args.device, "--files", files, *(["--small"] if args.small else [])]
    own = [sys.executable, __file__, *own]
    # In a process of its own, too: this one takes nothing of the device's memory.
    [machine] = rows_of([*own, "--one", "about"], 60)
    found = {"about": machine, "sections": {}}
    for name in args.sections:
        section, started = SECTIONS[name], time.monotonic()
        seconds = min(section.seconds, end - started - GRACE)
        of_it = {"title": section.title, "seconds": 0.0, "rows": []}
        found["sections"][name] = of_it
        if seconds < GRACE:
            of_it["rows"].append({"problem": "was left out: the time was over"})
            write(found, args.out)
            continue
        command = [*own, "--one", name, "--seconds", seconds]
        for row in rows_of(command, seconds + GRACE):
            print(f"{name}: " + ", ".join(f"{k} {shown(v)}" for k, v in row.items()), flush=True)
            of_it["rows"].append(row)
            of_it["seconds"] = time.monotonic() - started
            write(found, args.out)
        of_it["seconds"] = time.monotonic() - started
        write(found, args.out)
    print(f"\n{page(found)}\nwritten to {args.out.resolve()}/gpu.md and gpu.json")


if __name__ == "__main__":
    main()
