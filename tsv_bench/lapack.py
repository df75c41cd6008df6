"""The few leading eigenvectors of a symmetric matrix, by LAPACK's steps one by one.

torch.linalg.eigh turns every eigenvector back from the tridiagonal matrix into the coordinates of
the original. That is a third of its time, and of 768 eigenvectors 70 may be wanted. SciPy's own
wrappers hold Python's lock while they compute, which ends computing layers side by side; so LAPACK
is called through the pointers that scipy.linalg.cython_lapack publishes for compiled code.
"""

import ctypes
from contextlib import AbstractContextManager
from functools import cache

import torch
from jaxtyping import Float
from scipy.linalg import cython_lapack
from threadpoolctl import threadpool_limits
from torch import Tensor

BLOCK = 64  # columns that LAPACK's blocked routines work on together


class LeadingEigenvectors:
    """Eigenvalues of a symmetric matrix, ascending, and those eigenvectors that are asked for.

    ``gram``: [n, n], float32 on the CPU; only its lower triangle is read. ArithmeticError where
    LAPACK gives up.
    """

    def __init__(self, gram: Float[Tensor, "n n"]) -> None:
        if gram.dtype != torch.float32 or gram.is_cuda:
            raise TypeError(f"float32 on the CPU is wanted, not {gram.dtype} on {gram.device}.")
        n = len(gram)
        self._reflectors = gram.clone(memory_format=torch.contiguous_format)
        self._scales, self._work = gram.new_empty(n), gram.new_empty(BLOCK * n)
        self.values, beside = gram.new_empty(n), gram.new_empty(n)
        # LAPACK goes by columns: the lower triangle of ours is the upper one of its.
        _call(
            "ssytrd", b"U", n, self._reflectors, n, self.values, beside, self._scales,
            self._work, len(self._work),
        )  # fmt: skip
        self._tridiagonal = gram.new_empty(n, n)  # its eigenvectors, as rows
        work, whole = gram.new_empty(1 + 4 * n + n * n), torch.empty(3 + 5 * n, dtype=torch.int32)
        _call(
            "sstedc", b"I", n, self.values, beside, self._tridiagonal, n,
            work, len(work), whole, len(whole),
        )  # fmt: skip

    def vectors(self, start: int, stop: int) -> Float[Tensor, "n count"]:
        """Eigenvectors of the eigenvalues ``start`` to ``stop``, as columns."""
        rows = self._tridiagonal[start:stop].clone()
        n = rows.shape[1]
        _call(
            "sormtr", b"L", b"U", b"N", n, len(rows), self._reflectors, n, self._scales, rows, n,
            self._work, len(self._work),
        )  # fmt: skip
        return rows.mT


def one_thread() -> AbstractContextManager:
    """Within it this module's LAPACK starts no threads of its own."""
    return threadpool_limits(1, user_api="blas")


def _call(routine: str, *arguments: bytes | int | Tensor) -> None:
    """Call a LAPACK routine whose last argument, left out here, is its info."""
    info = ctypes.c_int()
    passed = [
        a if isinstance(a, bytes)
        else ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor)
        else ctypes.byref(ctypes.c_int(a))
        for a in arguments
    ]  # fmt: skip
    _routine(routine, len(passed) + 1)(*passed, ctypes.byref(info))
    if info.value:
        raise ArithmeticError(f"LAPACK's {routine} gave up, info {info.value}.")


@cache
def _routine(name: str, num_arguments: int) -> ctypes._CFuncPtr:
    capsule = cython_lapack.__pyx_capi__[name]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    pointer = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    # CFUNCTYPE lets go of Python's lock during the call.
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * num_arguments)(pointer)
