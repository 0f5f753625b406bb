"""Checks of what a user passes to a distribution, made before PyMC casts it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytensor
from pymc.pytensorf import extract_obs_data
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.tensor import TensorVariable, as_tensor_variable

__all__ = ["binary_data", "binary_initval", "check_shape", "finite_parameter"]


def binary_data(name: str, data: Any, n_units: int | None, what: str = "observed") -> Any:
    """Check data of binary units, and return them as integers.

    PyMC casts data to the integers of a discrete variable, where 0.5 turns into 0 without a word.

    Parameters
    ----------
    name : str
        Name of the variable, for errors.
    data : array_like, masked array or shared data
        What is masked may also be NaN, the usual mark of a missing value.
    n_units : int or None
        The number of columns that the data must have, None if it is not known yet.
    what : str
        Name of the argument, for errors.

    Returns
    -------
    ndarray or masked array of int64, or the shared data as they are

    Raises
    ------
    ValueError
        If an entry is not 0 or 1, if all entries are masked, or if there are too many or too few columns.
    """
    if isinstance(data, Variable):
        if isinstance(data, SharedVariable | Constant):
            binary_data(name, extract_obs_data(data), n_units, what)
        return data
    mask = np.ma.getmaskarray(data) if isinstance(data, np.ma.MaskedArray) else None
    values = np.asarray(data.data if mask is not None else data)
    if values.dtype.kind not in "buif":
        raise TypeError(f"{what} of {name!r} must be numbers 0 and 1, got an array of dtype {values.dtype}")
    if n_units is not None and values.shape[-1:] != (n_units,):
        raise ValueError(
            f"{what} of {name!r} must have {n_units} columns, one for each unit, got the shape {values.shape}"
        )
    if mask is None:
        _check_entries(name, values, what)
        return values.astype(np.int64)
    if mask.all():
        raise ValueError(f"{what} of {name!r} is masked everywhere, which clamps nothing: leave {what} out")
    values = np.where(mask & np.isnan(values), 0, values)
    _check_entries(name, values[~mask], what)
    _check_entries(name, values[mask], f"what is masked in {what}")
    return np.ma.masked_array(values.astype(np.int64), mask=mask)


def _check_entries(name: str, values: np.ndarray, what: str) -> None:
    wrong = values[(values != 0) & (values != 1)]
    if wrong.size:
        missing = (
            "; for a missing value use a masked array, such as numpy.ma.masked_invalid(data)"
            if np.isnan(wrong).any()
            else ""
        )
        raise ValueError(f"{what} of {name!r} must be 0 or 1 everywhere, got {wrong.flat[0]}{missing}")


def binary_initval(name: str, initval: Any, n_units: int | None) -> Any:
    """Check a start value of binary units; strategies such as "prior" and symbolic values pass.

    Raises
    ------
    ValueError
        If an entry is not 0 or 1, or if there are too many or too few columns.
    """
    if initval is None or isinstance(initval, str | Variable):
        return initval
    return binary_data(name, np.asarray(initval), n_units, "initval")


def check_shape(distribution: str, shape: Any, n_units: int | None) -> None:
    """Raise if the last length of a shape is known and is not the number of units: PyMC would ignore it.

    Raises
    ------
    ValueError
    """
    last = shape[-1] if isinstance(shape, Sequence) and shape else shape
    if isinstance(last, SharedVariable | Constant):
        last = extract_obs_data(last)
    if n_units is None or last is None or last is ... or isinstance(last, Variable):
        return
    if int(last) != n_units:
        raise ValueError(
            f"the last axis of the shape (or dims) of {distribution} must have length {n_units}, "
            f"one for each unit, got {last}"
        )


def finite_parameter(argument: str, value: Any, ndim: int) -> TensorVariable:
    """Convert a parameter to a tensor in the model's float type; check its rank and, where known, its values.

    Parameters
    ----------
    argument : str
        Name of the argument, for errors.
    value : tensor_like
    ndim : int
        The rank that the distribution needs at the least; leading axes beyond it are a batch.

    Raises
    ------
    ValueError
        If the rank is too low, or if a known value is not finite.
    TypeError
        If the value is not numeric.
    """
    if not isinstance(value, Variable):
        value = np.asarray(value)
        if value.dtype.kind not in "iuf":
            raise TypeError(f"{argument} must be real numbers, got dtype {value.dtype}")
        value = value.astype(pytensor.config.floatX)
    tensor = as_tensor_variable(value)
    if tensor.ndim < ndim:
        raise ValueError(f"{argument} must have at least {ndim} dimension{'s' if ndim > 1 else ''}, got {tensor.ndim}")
    known: np.ndarray | None = None
    if isinstance(tensor, Constant):
        known = tensor.data
    elif isinstance(tensor, SharedVariable):
        known = tensor.get_value(borrow=True)
    if known is not None and not np.isfinite(known).all():
        raise ValueError(f"{argument} must be finite, got NaN or infinity")
    return tensor.astype(pytensor.config.floatX)
