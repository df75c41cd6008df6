"""Data-parallel training in processes that torchrun started, one for each GPU of a machine."""

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

Value = TypeVar("Value")

# Ranks wait long while rank 0 decodes, evaluates and writes. None waits forever: torchrun ends all
# of them if one fails.
TIMEOUT = timedelta(days=2)


@dataclass(frozen=True)
class Group:
    """The processes of one training. Rank 0 is the main one, and alone writes files."""

    rank: int = 0
    size: int = 1  # processes

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor by its sum over all processes, in place."""
        if self.size > 1:
            for work in [distributed.all_reduce(t, async_op=True) for t in tensors]:
                work.wait()

    def broadcast_state(self, module: nn.Module) -> None:
        """Copy the main process' parameters and buffers to all others."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, src=0)

    def broadcast(self, value: Value) -> Value:
        """Return the main process' value, plain data, in every process."""
        if self.size == 1:
            return value
        sent = [value]
        distributed.broadcast_object_list(sent, src=0, device=torch.device("cpu"))
        return sent[0]


ALONE = Group()


def join_group(device: str) -> Group:
    """Join the processes that torchrun started. Without torchrun return the group of this one.

    Afterwards "cuda" means this process' own GPU. Raises ValueError if torchrun started more
    processes than there are GPUs, or if ``device`` is one GPU by its number.
    """
    if not torchrun():
        return ALONE
    if not distributed.is_initialized():
        backend = "gloo"
        if torch.device(device).type == "cuda":
            if torch.device(device).index is not None:
                raise ValueError(
                    f"device={device} is one GPU for all the processes that torchrun started; "
                    f"device=cuda gives each its own."
                )
            if int(os.environ["LOCAL_RANK"]) >= (present := torch.cuda.device_count()):
                raise ValueError(
                    f"torchrun started more processes on this machine than it has GPUs "
                    f"({present}). Start it with --nproc-per-node={present}."
                )
            take_own_gpu()
            backend = "cpu:gloo,cuda:nccl"
        distributed.init_process_group(backend, timeout=TIMEOUT)
        atexit.register(distributed.destroy_process_group)
    return Group(rank=distributed.get_rank(), size=distributed.get_world_size())


def torchrun() -> bool:
    """Return whether torchrun started this process together with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def take_own_gpu() -> None:
    """Make "cuda" mean this process' own GPU, if torchrun started it.

    Call it before anything uses a GPU: otherwise every process keeps half a gigabyte on the first.
    """
    if torchrun() and (local := int(os.environ["LOCAL_RANK"])) < torch.cuda.device_count():
        torch.cuda.set_device(local)
