"""The machine as a command uses it: threads, memory, devices."""

import ctypes
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from tsv_bench.process.cores import num_cores

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # parameters in malloc.h
LARGE_BLOCK = 64 * 2**20  # bytes; larger blocks go back to the system when they are freed
NEVER = 2**31 - 1  # the largest int: freed memory at the end of the heap is never given back


@dataclass(frozen=True)
class Machine:
    """The devices that a command computes on. tsv-bench evaluates tasks on all of them."""

    devices: tuple[str, ...]
    named: bool = False  # whether the user named several

    @property
    def device(self) -> str:
        """The one that runs any other network."""
        return self.devices[0]

    @property
    def all_devices(self) -> str:
        """Those among which the layers of a merge go round, as in "cuda:0,cuda:1"."""
        return ",".join(self.devices)


def set_up_machine(config: DictConfig) -> Machine:
    """Apply ``threads`` and return the devices that ``device`` means.

    Raises ValueError if either cannot be.
    """
    import torch  # here: what is wrong with a command line is said without it

    keep_freed_memory()
    # The only place that sets it. Work that goes in blocks or layers takes as many threads, each
    # with one of torch's; what is not side by side has all of torch's.
    torch.set_num_threads(chosen_threads(config.threads))
    torch.backends.cudnn.allow_tf32 = False  # convolutions, too, are as precise as precision= says
    return Machine(chosen_devices(config.device), named="," in str(config.device))


def one_device(machine: Machine) -> str:
    """Return the only device, or the first GPU of all. Raises ValueError if several were named."""
    if len(machine.devices) > 1 and machine.named:
        raise ValueError(
            f"device={machine.all_devices} names {len(machine.devices)} devices, and this command "
            f"uses one. Name one; tsv-finetune uses several by torchrun."
        )
    return "cuda" if len(machine.devices) > 1 else machine.device


def check_threads(threads: object) -> None:
    """Raise ValueError unless it is a number of threads, or None for the usual one."""
    whole = isinstance(threads, int) and not isinstance(threads, bool)
    if threads is not None and (not whole or threads < 1):
        raise ValueError(
            f"threads={threads!r} is not a whole number of at least 1. Leave it null for the "
            f"{num_cores()} cores that this process may use."
        )


def chosen_threads(threads: int | None) -> int:
    """Return the number of threads: as many as asked for, or as cores, or OMP_NUM_THREADS.

    More than cores would wait for each other: then it is the cores, and a warning says so.
    """
    check_threads(threads)
    cores = num_cores()
    if threads is None:
        usual = os.environ.get("OMP_NUM_THREADS", "")
        return min(cores, int(usual)) if usual.isdecimal() and int(usual) else cores
    if threads > cores:
        log.warning(f"threads={threads}: this process may use {cores} cores, so it takes {cores}.")
    return min(threads, cores)


def chosen_devices(device: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the devices of a name, as cuda (all GPUs), or of several, as cuda:0,cuda:1.

    None is cuda where there is a GPU, else the CPU. Raises ValueError for a device that is not
    there, naming those that are.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if isinstance(device, Sequence) and not isinstance(device, str):
        device = ",".join(map(str, device))
    names = [name.strip() for name in str(device or ("cuda" if count else "cpu")).split(",")]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    there = ["cpu", *mps, *(f"cuda:{number}" for number in range(count))]
    for name in names:
        try:
            torch.empty(0, device=name)
            if torch.device(name).type == "meta":
                raise RuntimeError("meta holds no numbers")
        except (RuntimeError, ImportError, AssertionError) as error:
            raise ValueError(
                f"device={device}: {name!r} is none that torch can use here. There are: "
                f"{', '.join(there)}."
            ) from error
    if len({torch.device(name).type for name in names}) > 1:
        raise ValueError(
            f"device={device} names devices of several kinds. Name one, or several of one kind, as "
            f"cuda:0,cuda:1. There are: {', '.join(there)}."
        )
    if names == ["cuda"] and count > 1:
        return tuple(f"cuda:{number}" for number in range(count))
    return tuple(names)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor of that size.

    By default it returns blocks above 128 kB to the system, which hands them out again page by
    page, zeroed. That was a twelfth of the time of a merge. Other allocators are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
        mallopt(M_TRIM_THRESHOLD, NEVER)
