"""Devices: copies to them, precision, and batch sizes that fit their memory."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)
Result = TypeVar("Result")

# Images. On the CPU the activations of a batch should stay in a core's cache, hence the limit in
# tokens. On a GPU launching the kernels should not take most of the time.
BATCH_SIZES = {"cpu": 125, "cuda": 500}
TOKENS = 2000  # ViT-B/32: 40 images of 50 tokens, 26 ms an image; 125 images at a time take 31 ms
PRECISIONS = ("float32", "bfloat16", "float16")


def device_batches(images: Tensor, batch_size: int, device: str) -> Iterator[Tensor]:
    """Yield images, uint8 [images, 3, size, size], batch by batch on the device.

    For a GPU a thread reads the next batch from the memory map into pinned memory while this one is
    computed. On the CPU batches are views of the map: a thread would only take time from the
    forward pass.
    """
    parts = images.split(batch_size)
    if torch.device(device).type != "cuda":
        yield from (part.to(device) for part in parts)
        return
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = reader.submit(parts[0].pin_memory)
        for following in (*parts[1:], None):
            ready = ahead.result()
            if following is not None:
                ahead = reader.submit(following.pin_memory)
            yield ready.to(device, non_blocking=True)


def side_by_side(run: Callable[..., Result], device: str, *batches: Iterable[Any]) -> list[Result]:
    """Return what ``run`` gives of each batch, in order.

    On a CPU each is computed by one thread, as many at a time as torch has. Threads within a batch
    wait for each other after every operation, twice as long if another process has one's core.
    """
    threads = torch.get_num_threads()
    if torch.device(device).type != "cpu" or threads == 1:
        return list(map(run, *batches))
    pool = ThreadPoolExecutor(threads, "batch", torch.set_num_threads, (1,))
    try:
        return list(pool.map(run, *batches))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def even_batch_size(count: int, batch_size: int, device: str) -> int:
    """Return the size, at most ``batch_size``, of batches that occupy all of `side_by_side`."""
    threads = torch.get_num_threads()
    if torch.device(device).type != "cpu" or threads == 1:
        return batch_size
    rounds = math.ceil(count / (threads * batch_size))
    return math.ceil(count / (threads * rounds))


def copy_async(tensor: Tensor, device: str) -> Tensor:
    """Return the tensor on the device; a copy to a GPU does not wait for the work queued there."""
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def autocast(precision: str | None, device: str) -> Callable[[], AbstractContextManager]:
    """Return a function that makes the context of computing in a precision (`chosen_precision`)."""
    precision = chosen_precision(precision, device)
    if precision == "float32":
        return nullcontext
    return partial(torch.autocast, torch.device(device).type, getattr(torch, precision))


def chosen_precision(precision: str | None, device: str) -> str:
    """Return the precision; None means float32 on the CPU and bfloat16 on a GPU.

    Raises ValueError if there is no such precision.
    """
    if precision is None:
        return "bfloat16" if torch.device(device).type == "cuda" else "float32"
    check_precision(precision, "evaluation.precision")
    return precision


def check_precision(precision: str, setting: str) -> None:
    """Check a precision that the user chose with ``setting``.

    Raises ValueError if there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"{setting}={precision!r} is not one of {', '.join(PRECISIONS)}.")


def batch_sizes(batch_size: int | None, device: str, visual: nn.Module | None = None) -> list[int]:
    """Return the batch sizes to try in turn: the one asked for, or the device's own, then half.

    Raises ValueError if ``batch_size`` is not a whole number of at least 1.
    """
    if batch_size is None:
        kind = torch.device(device).type
        batch_size = BATCH_SIZES.get(kind, BATCH_SIZES["cpu"])
        positions = getattr(visual, "positional_embedding", None)
        if kind == "cpu" and positions is not None:
            batch_size = max(1, min(batch_size, TOKENS // len(positions)))
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(
            f"evaluation.batch_size={batch_size!r} is not a whole number of at least 1."
        )
    return [batch_size] if batch_size == 1 else [batch_size, batch_size // 2]


def with_smaller_batches(
    run: Callable[[int], Result],
    sizes: Sequence[int],
    device: str,
    work: str = "evaluate",
    remedy: str = "Lower evaluation.batch_size, end what else uses it, or set device=cpu.",
) -> tuple[Result, int]:
    """Call ``run`` with one batch size after another until the device has enough memory.

    Returns the result and the size that gave it. Raises ValueError with the ``remedy`` if the
    memory does not even suffice for the last size.
    """
    for tried, size in enumerate(sizes, start=1):
        try:
            return run(size), size
        except torch.OutOfMemoryError:
            pass
        # Outside of the except clause, whose traceback holds the activations.
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()
        if tried < len(sizes):
            log.warning(f"{device} is out of memory at {size} images; trying {sizes[tried]}")
    raise ValueError(
        f"{device} has no memory to {work} {' or '.join(map(str, sizes))} images at a time. "
        f"{remedy}"
    )


def state_on_device(state: Mapping[str, Tensor], device: str) -> Mapping[str, Tensor]:
    """Return the tensors on the device. On the CPU it is ``state`` itself, lazy or not."""
    if torch.device(device).type == "cpu":
        return state
    return {name: state[name].to(device) for name in state}
