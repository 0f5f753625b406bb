"""Checks of arguments, before any work starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike


def check_binary(X: ArrayLike | torch.Tensor, name: str, n_columns: int) -> np.ndarray:
    """Return `X` as a NumPy array of zeros and ones, (n_rows, n_columns) with at least one row.

    Raises
    ------
    TypeError
        `X` is not numeric.
    ValueError
        `X` has another shape or other values, NaN included, or masked ones.
    """
    values = _check_rows(X, name, (n_columns,), numbers="numbers 0 and 1")
    _check_values(values, (values == 0) | (values == 1), name, "only 0 and 1")
    return values


def check_real(X: ArrayLike | torch.Tensor, name: str, *shape: int) -> np.ndarray:
    """Return `X` as a NumPy array of finite numbers, (n_rows, *shape) with at least one row; else raise likewise."""
    values = _check_rows(X, name, shape, numbers="numbers")
    _check_values(values, np.isfinite(values), name, "finite numbers")
    return values


def _check_rows(X: ArrayLike | torch.Tensor, name: str, shape: tuple[int, ...], *, numbers: str) -> np.ndarray:
    if np.ma.isMaskedArray(X):
        raise ValueError(f"{name} must be complete; got a masked array")
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu()  # first: not all devices have double precision
        X = (X.double() if X.dtype in (torch.float16, torch.bfloat16) else X).numpy()
    values = np.asarray(X)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be an array of {numbers}; got dtype {values.dtype}")
    if values.dtype.kind == "f" and values.dtype.itemsize not in (4, 8):
        values = values.astype(float)  # sums over many rows overflow in half precision, and torch has none longer
    if values.ndim == 0 or values.shape[1:] != shape or not len(values):
        wanted = ", ".join(["n", *map(str, shape)])
        raise ValueError(f"{name} must have shape ({wanted}) with n >= 1; got shape {values.shape}")
    return values


def _check_values(values: np.ndarray, right: np.ndarray, name: str, wanted: str) -> None:
    if not right.all():
        row, *place = np.argwhere(~right)[0].tolist()
        where = f"column {place[0]}" if len(place) == 1 else f"place {tuple(place)}"
        raise ValueError(f"{name} must hold {wanted}; got {values[row, *place]} in row {row}, {where}")


def check_positive(value: float | ArrayLike, name: str, n: int) -> np.ndarray:
    """Return `value`, a number or `n` of them, as an array of `n` positive finite numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers; got dtype {array.dtype}")
    if array.shape not in ((), (n,)):
        raise ValueError(f"{name} must be a number or have shape ({n},); got shape {array.shape}")
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{name} must be positive and finite; got {value!r}")
    return np.broadcast_to(array.astype(float), n)


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse a type of parameters that training cannot use."""
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64; got {dtype}")


def check_parameters(parameters: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return the values of `parameters`, which must be finite, and float32 or float64."""
    for name, parameter in parameters.items():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name} must be float32 or float64; got {parameter.dtype}")
        if not torch.isfinite(parameter).all():
            raise ValueError(f"{name} must be finite; got NaN or infinity in it")
    return tuple(parameters.values())


def check_not_inference(parameters: Mapping[str, torch.Tensor]) -> None:
    """Refuse `parameters` that torch neither changes in place nor keeps for gradients."""
    for name, parameter in parameters.items():
        if parameter.is_inference():
            raise ValueError(f"{name} was made in torch.inference_mode() and can have no gradients: make it outside")


def check_learnable(parameters: Mapping[str, torch.Tensor]) -> None:
    """Refuse frozen `parameters`: all of them would be learnt."""
    check_not_inference(parameters)
    for name, parameter in parameters.items():
        if not parameter.requires_grad:
            raise ValueError(f"{name} must require a gradient to be learnt; it is frozen, with requires_grad=False")


def check_integer(value: Any, name: str, *, minimum: int) -> int:
    """Return `value` as an int of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}; got {value}")
    return int(value)


def check_number(value: Any, name: str, *, minimum: float, below: float = math.inf, exclusive: bool = False) -> float:
    """Return `value` as a finite float that is at least (or above, if `exclusive`) `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number; got {value!r}")
    if not (minimum < value < below if exclusive else minimum <= value < below):
        left = "(" if exclusive else "["
        raise ValueError(f"{name} must be in {left}{minimum}, {below}); got {value}")
    return float(value)
