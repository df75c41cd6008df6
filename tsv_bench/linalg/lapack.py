"""The leading eigenvectors of a symmetric matrix, by LAPACK's steps; tridiagonal form.

torch.linalg.eigh computes all 768 eigenvectors where we need about 70, and that is most of its
time. Names are LAPACK's where it has one: tau, work, iwork, info.

LAPACK is called by ctypes, through the pointers that scipy.linalg.cython_lapack publishes for
compiled code: SciPy's own wrappers hold Python's lock while they compute, so that layers could not
be computed side by side. Measurements: results/engine.md.
"""

import ctypes
import math
from contextlib import AbstractContextManager
from functools import cache
from types import ModuleType

import torch
from jaxtyping import Float
from threadpoolctl import ThreadpoolController
from torch import Tensor

BLOCK = 64  # columns that LAPACK's blocked routines work on together
# Up to n / FEW of n eigenvectors are found faster one by one (bisection and inverse iteration) than
# all together (divide and conquer): of 768, 70 take 10 ms, all take 16.
FEW = 8
LETTERS = {torch.float32: "s", torch.float64: "d"}  # first letter of LAPACK's routines for a type


class Tridiagonal:
    """A symmetric matrix as q t q^T with t tridiagonal: its `diagonal` and `off_diagonal`.

    ``matrix``: [n, n], float32 or float64 on the CPU; only its lower triangle is read. Raises
    TypeError for another type or device, ArithmeticError if LAPACK gives up.
    """

    def __init__(self, matrix: Float[Tensor, "n n"]) -> None:
        if matrix.dtype not in LETTERS or matrix.is_cuda:
            raise TypeError(
                f"expected float32 or float64 on the CPU, not {matrix.dtype} on {matrix.device}."
            )
        n = len(matrix)
        reflectors = matrix.clone(memory_format=torch.contiguous_format)
        self.diagonal, self._off_diagonal, tau = (matrix.new_empty(n) for _ in range(3))
        work = matrix.new_empty(BLOCK * n)
        # LAPACK goes by columns: our lower triangle is its upper one.
        call(
            f"{LETTERS[matrix.dtype]}sytrd", b"U", n, reflectors, n, self.diagonal,
            self._off_diagonal, tau, work, len(work),
        )  # fmt: skip
        self._rotation = reflectors, tau, work

    @property
    def off_diagonal(self) -> Float[Tensor, " below"]:
        """The entries next to t's diagonal, [n - 1]."""
        return self._off_diagonal[:-1]

    def apply_q(self, rows: Float[Tensor, "count n"], transposed: bool = False) -> None:
        """Rotate rows in place, from t's coordinates to the matrix's: rows @ q^T.

        If ``transposed``, rotate them back: rows @ q. Computed in the type of ``rows``.
        """
        count, n = rows.shape
        reflectors, tau, work = (x.to(rows.dtype) for x in self._rotation)
        call(
            f"{LETTERS[rows.dtype]}ormtr", b"L", b"U", b"T" if transposed else b"N", n, count,
            reflectors, n, tau, rows, n, work, len(work),
        )  # fmt: skip


class LeadingEigenvectors:
    """The ``count`` largest eigenvalues of a symmetric matrix, ascending, and their eigenvectors.

    ``gram``: [n, n], float32 or float64 on the CPU; only its lower triangle is read. Raises
    TypeError for another type or device, ArithmeticError if LAPACK gives up.
    """

    def __init__(self, gram: Float[Tensor, "n n"], count: int) -> None:
        n = len(gram)
        self._tridiagonal = Tridiagonal(gram)
        self._letter = LETTERS[gram.dtype]
        self._diagonal = self._tridiagonal.diagonal
        self._off_diagonal = self._tridiagonal.off_diagonal
        self._all: tuple[Tensor, Tensor] | None = None  # what `_divide` found
        self._blocks: tuple[Tensor, Tensor] | None = None  # iblock and isplit of `_bisect`
        if count <= n // FEW:
            self.values = self._bisect(count)
        else:
            self.values = self._divide()[0][n - count :]

    def leading(self, count: int) -> Float[Tensor, "n count"]:
        """Return the eigenvectors of the ``count`` largest; at most as many as there are values."""
        if self._blocks is None:
            return self._rotated(self._divide()[1][len(self._diagonal) - count :].clone())
        return self._rotated(self._iterate(count))

    def others(self, count: int) -> tuple[Float[Tensor, " rest"], Float[Tensor, "n rest"]]:
        """Return the eigenvalues and eigenvectors of all but the ``count`` largest."""
        values, rows = self._divide()
        rest = len(values) - count
        return values[:rest], self._rotated(rows[:rest].clone())

    def _divide(self) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
        """Return all eigenvalues and, as rows, eigenvectors of the tridiagonal matrix."""
        if self._all is None:
            n = len(self._diagonal)
            values, rows = self._diagonal.clone(), self._diagonal.new_empty(n, n)
            work = values.new_empty(1 + 4 * n + n * n)
            iwork = torch.empty(3 + 5 * n, dtype=torch.int32)
            call(
                f"{self._letter}stedc", b"I", n, values, self._off_diagonal.clone(), rows, n,
                work, len(work), iwork, len(iwork),
            )  # fmt: skip
            self._all = values, rows
        return self._all

    def _bisect(self, count: int) -> Float[Tensor, " count"]:
        """Return the ``count`` largest eigenvalues, ascending."""
        n = len(self._diagonal)
        values, unused = self._diagonal.new_empty(n), self._diagonal.new_zeros(1)
        found = _integers(2)
        iblock, isplit = _integers(n), _integers(n)
        work, iwork = values.new_empty(4 * n), _integers(3 * n)
        call(
            f"{self._letter}stebz", b"I", b"B", n, unused, unused, n - count + 1, n, unused,
            self._diagonal, self._off_diagonal, found[:1], found[1:], values, iblock, isplit, work,
            iwork,
        )  # fmt: skip
        if found.tolist() != [count, 1]:  # several blocks: their values are not in order
            return self._divide()[0][n - count :]
        self._blocks = iblock, isplit
        return values[:count]

    def _iterate(self, count: int) -> Float[Tensor, "count n"]:
        """Return eigenvectors of the tridiagonal matrix as rows, by inverse iteration."""
        n, values = len(self._diagonal), self.values[len(self.values) - count :].clone()
        rows, failed = values.new_empty(count, n), _integers(count)
        work, iwork = values.new_empty(5 * n), _integers(n)
        call(
            f"{self._letter}stein", n, self._diagonal, self._off_diagonal, count, values,
            *self._blocks, rows, n, work, iwork, failed,
        )  # fmt: skip
        return rows

    def _rotated(self, rows: Float[Tensor, "count n"]) -> Float[Tensor, "n count"]:
        """Rotate rows to the original matrix's coordinates; return them as columns."""
        self._tridiagonal.apply_q(rows)
        return rows.mT


def condition(factor: Float[Tensor, "n n"]) -> float:
    """Return an upper bound on the condition number of a a^T, by its lower Cholesky factor.

    The bound is the trace times the 1-norm of the inverse. LAPACK estimates that norm, hardly ever
    at less than a third, so three times the estimate is taken. ``factor`` is in float64.
    """
    n, by_columns = len(factor), factor.mT.contiguous()
    trace = factor.square().sum().reshape(1)
    reciprocal, work = factor.new_empty(1), factor.new_empty(3 * n)
    call("dpocon", b"L", n, by_columns, n, trace, reciprocal, work, _integers(n))
    return 3 / float(reciprocal) if reciprocal else math.inf


def lowest_and_highest(
    diagonal: Float[Tensor, " n"], off_diagonal: Float[Tensor, " below"]
) -> tuple[float, float]:
    """Return the smallest and the largest eigenvalue of a tridiagonal matrix in float64."""
    n, values, unused = len(diagonal), diagonal.new_empty(len(diagonal)), diagonal.new_zeros(1)
    found, blocks = _integers(2), _integers(2 * n)
    work, iwork = unused.new_empty(4 * n), _integers(3 * n)
    ends = []
    for index in (1, n):
        call(
            "dstebz", b"I", b"E", n, unused, unused, index, index, unused, diagonal, off_diagonal,
            found[:1], found[1:], values, blocks[:n], blocks[n:], work, iwork,
        )  # fmt: skip
        ends.append(float(values[0]))
    return ends[0], ends[1]


def _integers(count: int) -> Tensor:
    return torch.zeros(count, dtype=torch.int32)


def lower_squares(a: Float[Tensor, "m n"]) -> Float[Tensor, "n n"]:
    """Return a^T a's lower triangle, zeros above it, of a float32 or float64 matrix on the CPU."""
    if a.mT.is_contiguous():
        rows, order = a.shape[0], b"T"
    else:
        a = a.contiguous()
        rows, order = a.shape[1], b"N"
    m, n = a.shape
    squares = a.new_zeros(n, n)
    one, zero = a.new_ones(1), a.new_zeros(1)
    syrk = _routine(f"{LETTERS[a.dtype]}syrk", 10, "blas")
    syrk(*_passed(b"U", order, n, m, one, a, rows, zero, squares, n))
    return squares


def one_thread() -> AbstractContextManager:
    """Return a context within which this module's LAPACK starts no threads of its own."""
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> ThreadpoolController:
    """Find the libraries' threads once: that goes through all that the process has loaded."""
    _libraries()  # loaded first: what is not yet loaded cannot be limited
    return ThreadpoolController()


def call(routine: str, *arguments: bytes | int | Tensor) -> None:
    """Call a LAPACK routine with all its arguments but the last, its info.

    Raises ArithmeticError if info says that the routine gave up.
    """
    info = ctypes.c_int()
    found = _routine(routine, len(arguments) + 1)
    found(*_passed(*arguments), ctypes.byref(info))
    if info.value:
        raise ArithmeticError(f"LAPACK's {routine} gave up, info {info.value}.")


def _passed(*arguments: bytes | int | Tensor) -> list:
    return [
        a if isinstance(a, bytes)
        else ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor)
        else ctypes.byref(ctypes.c_int(a))
        for a in arguments
    ]  # fmt: skip


@cache
def _libraries() -> dict[str, ModuleType]:
    # Here: plain merges need neither, and their import takes a fifth of a second.
    from scipy.linalg import cython_blas, cython_lapack

    return {"blas": cython_blas, "lapack": cython_lapack}


@cache
def _routine(name: str, num_arguments: int, library: str = "lapack") -> ctypes._CFuncPtr:
    capsule = _libraries()[library].__pyx_capi__[name]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    signature = api.PyCapsule_GetName(capsule)
    assert signature.endswith(b" int *)"), signature  # the last one: integers are C's ints
    assert ctypes.sizeof(ctypes.c_int) == 4  # as in `_integers`
    pointer = api.PyCapsule_GetPointer(capsule, signature)
    # CFUNCTYPE releases Python's lock during the call.
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * num_arguments)(pointer)
