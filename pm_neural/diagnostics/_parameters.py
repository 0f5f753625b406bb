"""The parameters of an RBM, read and checked."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from pm_neural._arrays import as_array
from pm_neural.diagnostics._activations import softplus

__all__ = [
    "AnyParametersLike",
    "GaussianParameters",
    "Parameters",
    "ParametersLike",
    "as_any_parameters",
    "as_binary_rows",
    "as_parameters",
]


class Parameters(NamedTuple):
    """Parameters of an RBM in float64: W (n_visible, n_hidden), a (n_visible,), b (n_hidden,)."""

    W: np.ndarray
    a: np.ndarray
    b: np.ndarray

    def transposed(self) -> Parameters:
        """Return the same network with its two layers exchanged."""
        return Parameters(self.W.T, self.b, self.a)

    def check_rows(self, X: ArrayLike) -> np.ndarray:
        """Return visible states, one per row, in float64; raise as `as_binary_rows`."""
        return as_binary_rows(X, len(self.a))

    def free_energy(self, v: np.ndarray) -> np.ndarray:
        """Return F(v) = −a·v − Σ_j softplus(b + vW)_j of each row."""
        return -v @ self.a - softplus(self.b + v @ self.W).sum(axis=1)


class GaussianParameters(NamedTuple):
    """Parameters of a Gaussian RBM in float64: as those of an RBM, and sigma (n_visible,)."""

    W: np.ndarray
    a: np.ndarray
    b: np.ndarray
    sigma: np.ndarray

    def check_rows(self, X: ArrayLike) -> np.ndarray:
        """Return visible states, one per row, in float64; raise as `as_real_rows`."""
        return as_real_rows(X, len(self.a))

    def free_energy(self, v: np.ndarray) -> np.ndarray:
        """Return F(v) = Σ_i (v − a)²_i/2σ²_i − Σ_j softplus(b + (v/σ²)W)_j of each row."""
        distance = (((v - self.a) / self.sigma) ** 2).sum(axis=1) / 2
        return distance - softplus(self.b + (v / self.sigma**2) @ self.W).sum(axis=1)


@runtime_checkable
class _HasParameters(Protocol):
    def parameters_as_numpy(self) -> tuple[np.ndarray, ...]: ...


type ParametersLike = tuple[ArrayLike, ArrayLike, ArrayLike] | _HasParameters
type AnyParametersLike = ParametersLike | tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike]


def as_parameters(params: ParametersLike) -> Parameters:
    """Read (W, a, b) from a tuple or from an object with `parameters_as_numpy`, and check them.

    Raises
    ------
    TypeError
        If `params` is neither, or an array is not real numbers.
    ValueError
        If the shapes do not fit together or a number is not finite.
    """
    arrays = _as_tuple(params)
    if len(arrays) == 4:
        raise TypeError("params must be those of a binary RBM, (W, a, b), got four arrays: those of a Gaussian RBM?")
    return _as_binary(arrays)


def as_any_parameters(params: AnyParametersLike) -> Parameters | GaussianParameters:
    """Read (W, a, b), or (W, a, b, sigma) of a Gaussian RBM, and check them; raise as `as_parameters`."""
    arrays = _as_tuple(params)
    if len(arrays) != 4:
        return _as_binary(arrays)
    W, a, b = _as_binary(arrays[:3])
    sigma = _as_finite(arrays[3], "sigma", 1)
    if sigma.shape != a.shape:
        raise ValueError(f"sigma must have the shape {a.shape} of a, got {sigma.shape}")
    if not (sigma > 0).all():
        raise ValueError(f"sigma must be positive, got {sigma.min()}")
    return GaussianParameters(W, a, b, sigma)


def _as_tuple(params: AnyParametersLike) -> tuple[ArrayLike, ...]:
    arrays = params.parameters_as_numpy() if isinstance(params, _HasParameters) else params
    if not isinstance(arrays, tuple | list) or len(arrays) not in (3, 4):
        found = type(params).__name__
        own = [f"{found}.{name}" for name in ("log_partition", "log_likelihood") if hasattr(params, name)]
        raise TypeError(
            f"params must be a tuple (W, a, b) or have a method parameters_as_numpy(), got {found}"
            + (f"; use {' or '.join(own)}" if own else "")
        )
    return tuple(arrays)


def _as_binary(params: tuple[ArrayLike, ...]) -> Parameters:
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
    array = as_array(value)
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
    rows = _as_rows(X, n_visible, name, "zeros and ones")
    wrong = rows[(rows != 0) & (rows != 1)]
    if wrong.size:
        raise ValueError(f"{name} must hold zeros and ones only, got {wrong[0]}")
    return rows.astype(np.float64)


def as_real_rows(X: ArrayLike, n_visible: int, name: str = "X") -> np.ndarray:
    """Check visible states of finite numbers likewise; raise as `as_binary_rows`."""
    rows = _as_rows(X, n_visible, name, "numbers")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return rows.astype(np.float64)


def _as_rows(X: ArrayLike, n_visible: int, name: str, numbers: str) -> np.ndarray:
    if np.ma.is_masked(X):
        raise ValueError(f"{name} must not have masked values")
    rows = as_array(X)
    if rows.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold {numbers}, got dtype {rows.dtype}")
    if rows.ndim != 2 or len(rows) == 0 or rows.shape[1] != n_visible:
        raise ValueError(
            f"{name} must have the shape (n_rows, {n_visible}), one visible state per row, got {rows.shape}"
        )
    return rows
