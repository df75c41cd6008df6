"""Symmetric matrices made tridiagonal, and their few leading eigenvectors, by LAPACK's steps.

torch.linalg.eigh computes every eigenvector of the tridiagonal matrix and turns each back into the
coordinates of the original. That is most of its time, and of 768 eigenvectors 70 may be wanted.
SciPy's own
wrappers hold Python's lock while they compute, which ends computing layers side by side; so LAPACK
is called through the pointers that scipy.linalg.cython_lapack publishes for compiled code.
"""

import ctypes
import math
from contextlib import AbstractContextManager
from functools import cache

import torch
from jaxtyping import Float
from scipy.linalg import cython_lapack
from threadpoolctl import threadpool_limits
from torch import Tensor

BLOCK = 64  # columns that LAPACK's blocked routines work on together
# Of n eigenvectors, up to a share of 1 / FEW is quicker found one by one, by bisection and inverse
# iteration, than all together by divide and conquer: of 768, 70 in 10 ms, all in 16.
FEW = 8
LETTERS = {torch.float32: "s", torch.float64: "d"}  # that the names of LAPACK's routines begin with


class Tridiagonal:
    """A symmetric matrix as q t q^T with t tridiagonal.

    ``matrix``: [n, n], float32 or float64 on the CPU; only its lower triangle is read.
    ArithmeticError where LAPACK gives up.
    """

    def __init__(self, matrix: Float[Tensor, "n n"]) -> None:
        if matrix.dtype not in LETTERS or matrix.is_cuda:
            raise TypeError(
                f"float32 or float64 on the CPU is wanted, not {matrix.dtype} on {matrix.device}."
            )
        n = len(matrix)
        self._letter = LETTERS[matrix.dtype]
        self._reflectors = matrix.clone(memory_format=torch.contiguous_format)
        self.diagonal, self._beside, self._scales = (matrix.new_empty(n) for _ in range(3))
        self._work = matrix.new_empty(BLOCK * n)
        # LAPACK goes by columns: the lower triangle of ours is the upper one of its.
        call(
            f"{self._letter}sytrd", b"U", n, self._reflectors, n, self.diagonal, self._beside,
            self._scales, self._work, len(self._work),
        )  # fmt: skip

    @property
    def beside(self) -> Float[Tensor, " below"]:
        """The entries next to t's diagonal."""
        return self._beside[:-1]

    def turn(self, rows: Float[Tensor, "count n"], transposed: bool = False) -> None:
        """Rows for t to rows for the matrix, in place: rows @ q^T; transposed, back: rows @ q."""
        count, n = rows.shape
        call(
            f"{self._letter}ormtr", b"L", b"U", b"T" if transposed else b"N", n, count,
            self._reflectors, n, self._scales, rows, n, self._work, len(self._work),
        )  # fmt: skip


class LeadingEigenvectors:
    """The ``count`` largest eigenvalues of a symmetric matrix, ascending, and their eigenvectors.

    ``gram``: [n, n], float32 on the CPU; only its lower triangle is read. ArithmeticError where
    LAPACK gives up.
    """

    def __init__(self, gram: Float[Tensor, "n n"], count: int) -> None:
        if gram.dtype != torch.float32 or gram.is_cuda:
            raise TypeError(f"float32 on the CPU is wanted, not {gram.dtype} on {gram.device}.")
        n = len(gram)
        self._tridiagonal = Tridiagonal(gram)
        self._diagonal, self._beside = self._tridiagonal.diagonal, self._tridiagonal.beside
        self._all: tuple[Tensor, Tensor] | None = None  # of the tridiagonal matrix, by `_divide`
        self._places: tuple[Tensor, Tensor] | None = None  # of its blocks, by `_bisect`
        if count <= n // FEW:
            self.values = self._bisect(count)
        else:
            self.values = self._divide()[0][n - count :]

    def leading(self, count: int) -> Float[Tensor, "n count"]:
        """Eigenvectors of the ``count`` largest, as many as there are values or fewer; columns."""
        if self._places is None:
            return self._turned(self._divide()[1][len(self._diagonal) - count :].clone())
        return self._turned(self._iterate(count))

    def others(self, count: int) -> tuple[Float[Tensor, " rest"], Float[Tensor, "n rest"]]:
        """Eigenvalues and eigenvectors of all but the ``count`` largest."""
        values, rows = self._divide()
        rest = len(values) - count
        return values[:rest], self._turned(rows[:rest].clone())

    def _divide(self) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
        """All eigenvalues and, as rows, eigenvectors of the tridiagonal matrix."""
        if self._all is None:
            n = len(self._diagonal)
            values, rows = self._diagonal.clone(), self._diagonal.new_empty(n, n)
            work = values.new_empty(1 + 4 * n + n * n)
            whole = torch.empty(3 + 5 * n, dtype=torch.int32)
            call(
                "sstedc", b"I", n, values, self._beside.clone(), rows, n,
                work, len(work), whole, len(whole),
            )  # fmt: skip
            self._all = values, rows
        return self._all

    def _bisect(self, count: int) -> Float[Tensor, " count"]:
        """The ``count`` largest eigenvalues, ascending within each block of the matrix."""
        n = len(self._diagonal)
        values, unused, found = self._diagonal.new_empty(n), torch.zeros(1), _integers(2)
        blocks, ends = _integers(n), _integers(n)
        work, whole = values.new_empty(4 * n), _integers(3 * n)
        call(
            "sstebz", b"I", b"B", n, unused, unused, n - count + 1, n, unused, self._diagonal,
            self._beside, found[:1], found[1:], values, blocks, ends, work, whole,
        )  # fmt: skip
        if found.tolist() != [count, 1]:  # more blocks than one: their values are not in order
            return self._divide()[0][n - count :]
        self._places = blocks, ends
        return values[:count]

    def _iterate(self, count: int) -> Float[Tensor, "count n"]:
        """Eigenvectors of the tridiagonal matrix as rows, by inverse iteration."""
        n, values = len(self._diagonal), self.values[len(self.values) - count :].clone()
        rows, failed = values.new_empty(count, n), _integers(count)
        work, whole = values.new_empty(5 * n), _integers(n)
        call(
            "sstein", n, self._diagonal, self._beside, count, values, *self._places, rows, n,
            work, whole, failed,
        )  # fmt: skip
        return rows

    def _turned(self, rows: Float[Tensor, "count n"]) -> Float[Tensor, "n count"]:
        """Rows for the tridiagonal matrix as columns for the original."""
        self._tridiagonal.turn(rows)
        return rows.mT


def condition(factor: Float[Tensor, "n n"]) -> float:
    """At least the condition number of a a^T, by the lower Cholesky factor of that in float64.

    Its trace times the 1-norm of its inverse; LAPACK estimates the latter, hardly ever at less than
    a third.
    """
    n, by_columns = len(factor), factor.mT.contiguous()
    trace = factor.square().sum().reshape(1)
    reciprocal, work = factor.new_empty(1), factor.new_empty(3 * n)
    call("dpocon", b"L", n, by_columns, n, trace, reciprocal, work, _integers(n))
    return 3 / float(reciprocal) if reciprocal else math.inf


def _integers(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int32)


def one_thread() -> AbstractContextManager:
    """Within it this module's LAPACK starts no threads of its own."""
    return threadpool_limits(1, user_api="blas")


def call(routine: str, *arguments: bytes | int | Tensor) -> None:
    """Call a LAPACK routine whose last argument, left out here, is its info.

    ArithmeticError where that says that the routine gave up.
    """
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
