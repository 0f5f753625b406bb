"""Constant couplings of a field: what a user may pass for J, and how an operation holds it."""

from __future__ import annotations

import sys
from hashlib import sha256
from typing import Any

import numpy as np
import pytensor
from pytensor.graph.basic import Constant, Variable
from scipy.sparse import csr_array, issparse

__all__ = ["Couplings", "as_couplings"]


class Couplings:
    """A sparse symmetric matrix that is compared by its contents, and so may be a property of an operation.

    Parameters
    ----------
    matrix : csr_array, shape (n, n)
    """

    def __init__(self, matrix: csr_array):
        self.matrix = matrix
        contents = sha256(repr((matrix.shape, matrix.dtype.str)).encode())
        for array in self.arrays:
            array.flags.writeable = False
            contents.update(array.tobytes())
        self._digest = contents.hexdigest()

    @property
    def n_units(self) -> int:
        """Number of units."""
        return self.matrix.shape[0]

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, columns and the first entry of each row: the three arrays of the format."""
        return self.matrix.data, self.matrix.indices, self.matrix.indptr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Couplings) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        # PyTensor tells compiled functions apart by what their operations print.
        return f"Couplings(n_units={self.n_units}, nnz={self.matrix.nnz}, sha256={self._digest})"


def as_couplings(J: Any) -> Couplings:
    """Check couplings and store them in the model's float type.

    Parameters
    ----------
    J : array_like, sparse array or matrix, or networkx graph; shape (n, n)
        A graph's couplings are the attribute "weight" of its edges, 1 without one, in the order of its nodes.

    Raises
    ------
    TypeError
        If J is symbolic or not numeric, or a graph has an edge whose weight is no number.
    ValueError
        If J is not a square matrix, not finite, not symmetric, or its diagonal is not zero.
    """
    if isinstance(J, Couplings):
        return J
    if isinstance(J, Variable):
        if not isinstance(J, Constant):
            raise TypeError(
                f"J must be constant data, got the variable {J}; let coupling= multiply a constant J where it varies"
            )
        J = J.data
    matrix = _as_sparse(J)
    if matrix.dtype.kind not in "biuf":
        raise TypeError(f"J must be real numbers, got dtype {matrix.dtype}")
    if not np.isfinite(matrix.data).all():
        raise ValueError("J must be finite, got NaN or infinity")
    rounding = 100 * (np.finfo(matrix.dtype).eps if matrix.dtype.kind == "f" else 0)
    matrix = matrix.astype(np.float64)
    if matrix.diagonal().any():
        raise ValueError(f"J must have a zero diagonal, got {matrix.diagonal()[matrix.diagonal() != 0][0]} on it")
    largest = abs(matrix).max() if matrix.nnz else 0
    asymmetry = abs(matrix - matrix.T)
    if asymmetry.nnz and asymmetry.max() > rounding * largest:
        raise ValueError(f"J must be symmetric, got entries that differ from their mirror image by {asymmetry.max()}")
    matrix = csr_array((matrix + matrix.T) / 2)
    with np.errstate(over="ignore"):
        matrix = matrix.astype(pytensor.config.floatX)
    if not np.isfinite(matrix.data).all():
        raise ValueError(f"J must be finite in {matrix.dtype}, got values that overflow")
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return Couplings(matrix)


def _is_number(weight: Any) -> bool:
    return isinstance(weight, int | float) or (np.ndim(weight) == 0 and np.asarray(weight).dtype.kind in "biufc")


def _as_sparse(J: Any) -> csr_array:
    networkx = sys.modules.get("networkx")  # who passes a graph has imported it
    if networkx is not None and isinstance(J, networkx.Graph):
        for one, other, weight in J.edges(data="weight", default=1):
            if not _is_number(weight):
                raise TypeError(
                    f"J must have real numbers for the weights of its edges, got weight={weight!r} for the edge "
                    f"between {one!r} and {other!r}"
                )
        return csr_array(networkx.to_scipy_sparse_array(J, format="csr"))
    if not issparse(J):
        J = np.asarray(J)
        if J.dtype.kind not in "biuf":
            raise TypeError(f"J must be real numbers, got dtype {J.dtype}")
    if J.ndim != 2 or J.shape[0] != J.shape[1] or not J.shape[0]:
        raise ValueError(f"J must be a square matrix, got the shape {J.shape}")
    matrix = csr_array(J)
    if matrix is J:
        matrix = matrix.copy()
    matrix.sum_duplicates()
    return matrix
