"""Training in several processes that torchrun started: one rank for each GPU of a machine."""

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

Value = TypeVar("Value")

# A rank may wait for long: the first decodes, evaluates and writes alone. One that fails ends all
# the others through torchrun, so a wait without end is not to be feared.
TIMEOUT = timedelta(days=2)


@dataclass(frozen=True)
class Group:
    """Those at work on one training; rank 0 is the first, and the only one that writes."""

    rank: int = 0
    size: int = 1  # processes

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor by its sum over all processes."""
        if self.size > 1:
            for work in [distributed.all_reduce(t, async_op=True) for t in tensors]:
                work.wait()

    def broadcast_state(self, module: nn.Module) -> None:
        """Give every process the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, src=0)

    def broadcast(self, value: Value) -> Value:
        """What the first process has, as plain data; the others wait for it."""
        if self.size == 1:
            return value
        sent = [value]
        distributed.broadcast_object_list(sent, src=0, device=torch.device("cpu"))
        return sent[0]


ALONE = Group()


def join_group(device: str) -> Group:
    """The processes that torchrun started, joined at the first call; just this one without it.

    Afterwards "cuda" means this process' own GPU. ValueError for more processes than GPUs, and for
    one GPU by its number.
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
    """Whether torchrun started this process and others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def take_own_gpu() -> None:
    """Make "cuda" this process' own GPU, if torchrun gave it one.

    To be called before anything else uses a GPU: what each process keeps on the first one, from
    its first use on, is half a gigabyte.
    """
    if torchrun() and (local := int(os.environ["LOCAL_RANK"])) < torch.cuda.device_count():
        torch.cuda.set_device(local)
