"""The parameters of an RBM, read and checked."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Parameters", "ParametersLike", "as_binary_rows", "as_parameters"]


class Parameters(NamedTuple):
    """Parameters of an RBM in float64: W (n_visible, n_hidden), a (n_visible,), b (n_hidden,)."""

    W: np.ndarray
    a: np.ndarray
    b: np.ndarray

    def transposed(self) -> Parameters:
        """Return the same network with its two layers exchanged."""
        return Parameters(self.W.T, self.b, self.a)


@runtime_checkable
class _HasParameters(Protocol):
    def parameters_as_numpy(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...


type ParametersLike = tuple[ArrayLike, ArrayLike, ArrayLike] | _HasParameters


def as_parameters(params: ParametersLike) -> Parameters:
    """Read (W, a, b) from a tuple or from an object with `parameters_as_numpy`, and check them.

    Raises
    ------
    TypeError
        If `params` is neither, or an array is not real numbers.
    ValueError
        If the shapes do not fit together or a number is not finite.
    """
    if isinstance(params, _HasParameters):
        params = params.parameters_as_numpy()
    if not isinstance(params, tuple | list) or len(params) != 3:
        raise TypeError(
            f"params must be a tuple (W, a, b) or have a method parameters_as_numpy(), got {type(params).__name__}"
        )
    W, a, b = (
        _as_finite(value, name, ndim) for value, name, ndim in zip(params, ("W", "a", "b"), (2, 1, 1), strict=True)
    )
    n_visible, n_hidden = W.shape
    if n_visible == 0 or n_hidden == 0:
        raise ValueError(f"W must have at least one row and one column, got shape {W.shape}")
    if a.shape != (n_visible,) or b.shape != (n_hidden,):
        raise ValueError(
            f"a and b must have the shapes ({n_visible},) and ({n_hidden},) to fit W of shape "
            f"{W.shape}, got {a.shape} and {b.shape}"
        )
    return Parameters(W, a, b)


def _as_finite(value: ArrayLike, name: str, ndim: int) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return array.astype(np.float64)


def as_binary_rows(X: ArrayLike, n_visible: int, name: str = "X") -> np.ndarray:
    """Check visible states, one per row, and return them in float64.

    Raises
    ------
    TypeError
        If `X` does not hold numbers.
    ValueError
        If `X` is not a non-empty matrix with `n_visible` columns of zeros and ones, or if some of
        it is masked.
    """
    if np.ma.is_masked(X):
        raise ValueError(f"{name} must not have masked values")
    rows = np.asarray(X)
    if rows.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold zeros and ones, got dtype {rows.dtype}")
    if rows.ndim != 2 or len(rows) == 0 or rows.shape[1] != n_visible:
        raise ValueError(
            f"{name} must have the shape (n_rows, {n_visible}), one visible state per row, got {rows.shape}"
        )
    wrong = rows[(rows != 0) & (rows != 1)]
    if wrong.size:
        raise ValueError(f"{name} must hold zeros and ones only, got {wrong[0]}")
    return rows.astype(np.float64)
