"""Seconds, memory and copies of what benchmarks/gpu.py runs on a device."""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd import DeviceType

from tsv_bench.provenance import forget_peak_memory, peak_memory


@dataclass(frozen=True)
class Plan:
    """Where a section runs, in which sizes, and until when it may begin something new."""

    device: str
    files: Path
    small: bool = False
    until: float = math.inf  # of time.monotonic()

    def left(self) -> float:
        return self.until - time.monotonic()


def synchronize(device: str | torch.device) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def timed(device: str, run: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds of a run, and the peak of the device's memory in GB; of the CPU's on a CPU."""
    is_cuda = torch.device(device).type == "cuda"
    if is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        forget_peak_memory()
    synchronize(device)
    started = time.perf_counter()
    run()
    synchronize(device)
    seconds = time.perf_counter() - started
    return seconds, (torch.cuda.max_memory_allocated(device) if is_cuda else peak_memory()) / 1e9


def median(device: str, run: Callable[[], object], rounds: int) -> float:
    """Seconds of a run, the median of some after one that does not count."""
    return sorted([timed(device, run)[0] for _ in range(rounds + 1)][1:])[rounds // 2]


def copying(device: str, run: Callable[[], object]) -> tuple[float | None, float | None]:
    """Share of a run's wall time in which the device copies from or to the host; computes.

    By torch's profiler, which sees the copies of all threads. None without a GPU, or where the
    profiler may not look at it.
    """
    if torch.device(device).type != "cuda":
        return None, None
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            seconds, _ = timed(device, run)
    except (AssertionError, RuntimeError) as error:
        print(f"no profile: {error}", flush=True)
        return None, None
    spans = [
        (e.name, e.time_range.elapsed_us() / 1e6)
        for e in profiler.events()
        if e.device_type == DeviceType.CUDA
    ]
    return shares(spans, seconds) if spans else (None, None)


def shares(spans: list[tuple[str, float]], seconds: float) -> tuple[float, float]:
    copies = sum(s for name, s in spans if re.match(r"Memcpy (HtoD|DtoH)", name))
    return copies / seconds, (sum(s for _, s in spans) - copies) / seconds
