"""A GPU that is not there: tensors that say they are on one and compute on the CPU.

What a real one refuses is refused: a tensor of the CPU among those of the GPU, a view as an array,
a pointer. Tests marked gpu run on it without a device, for the devices of their tensors alone: it
tells nothing of speed, of memory or of kernels.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
# They may read or write a tensor of the CPU beside one of the GPU.
COPIES = {aten.copy_.default, aten._to_copy.default}
# Of a tensor on the GPU, by indices on either.
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default,
            aten._index_put_impl_.default}  # fmt: skip


class OnGpu(torch.Tensor):
    """A tensor whose device is a GPU, with the CPU's that holds its values."""

    @staticmethod
    def __new__(cls, values):
        with torch.inference_mode(False):
            return torch.Tensor._make_wrapper_subclass(
                cls, values.shape, dtype=values.dtype, device="cuda:0", strides=values.stride(),
                storage_offset=values.storage_offset(),
            )  # fmt: skip

    def __init__(self, values):
        self.values_here = values

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatched(func, args, kwargs or {})

    def data_ptr(self):
        raise RuntimeError("a pointer of the GPU's memory means nothing to a routine of the CPU.")

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")

    def tolist(self):
        return self.values_here.tolist()

    def __repr__(self):
        return f"{self.values_here!r} on a GPU"


class PretendedGpu(TorchDispatchMode):
    """Within this context, of one thread, "cuda" makes tensors on the pretended GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatched(func, args, kwargs or {})


def dispatched(func, args, kwargs):
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, OnGpu)]
    check_devices(func, args, tensors, there)
    wanted = kwargs.get("device")
    on_gpu = bool(there) if wanted is None else torch.device(wanted).type == "cuda"
    if func is aten.copy_.default:
        on_gpu = isinstance(args[0], OnGpu)
    if wanted is not None and on_gpu:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    known = {id(x.values_here): x for x in there}

    def value(x):
        return x.values_here if isinstance(x, OnGpu) else x

    def answer(x):
        if not isinstance(x, torch.Tensor):
            return x
        if not on_gpu:
            return x.clone() if id(x) in known else x  # a copy that had nothing to do
        return known[id(x)] if id(x) in known else OnGpu(x)

    found = func(*tree_map(value, args), **tree_map(value, kwargs))
    if torch.Tag.inplace_view in func.tags and there:  # as squeeze_: the shape changes here, too
        with no_dispatch():
            func(*args, **kwargs)
    return tree_map(answer, found)


def check_devices(func, args, tensors, there):
    """Raise RuntimeError, as a real GPU does, if tensors of two devices meet."""
    if not there or func in COPIES:
        return
    others = [x for x in tensors if not isinstance(x, OnGpu)]
    if func in INDEXING and isinstance(args[0], OnGpu):
        others = [x for x in others if x is args[-1] and x.ndim]
    elif len(there) and all(x.ndim == 0 for x in there) and others:
        others = [x for x in others if x.ndim]
    if any(x.ndim for x in others):
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {func} has tensors of the CPU, "
            f"{[tuple(x.shape) for x in others]}, beside {[tuple(x.shape) for x in there]} "
            f"of the GPU."
        )


@contextmanager
def pretended_gpu():
    """Pretend that there is a GPU, in this thread and in those of pools that begin to work."""
    torch._C._ensureCUDADeviceGuardSet()
    submit = ThreadPoolExecutor.submit

    def within(function):
        def run(*args, **kwargs):
            with in_this_thread():
                return function(*args, **kwargs)

        return run

    with pytest.MonkeyPatch.context() as patch, in_this_thread():
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        # A module that moves there gets new parameters: the old ones cannot change their type.
        overwrite = "get_overwrite_module_params_on_conversion"
        patch.setattr(torch.__future__, overwrite, lambda: True)
        patch.setattr(torch.Tensor, "pin_memory", lambda self: self)
        patch.setattr(
            ThreadPoolExecutor, "submit",
            lambda pool, function, *args, **kwargs: submit(pool, within(function), *args, **kwargs),
        )  # fmt: skip
        yield


@contextmanager
def in_this_thread():
    """Pretend so in one thread."""
    # torch.tensor(numbers, device=) then copies them where the mode sees it.
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with PretendedGpu():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
