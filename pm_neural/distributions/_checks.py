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

__all__ = [
    "binary_data",
    "binary_initval",
    "check_length",
    "check_shape",
    "check_start_of_masked",
    "finite_parameter",
    "known_value",
    "machine_parameters",
    "real_data",
    "real_initval",
]


def binary_data(
    name: str,
    data: Any,
    event_shape: tuple[int | None, ...],
    what: str = "observed",
    values: tuple[int, int] = (0, 1),
) -> Any:
    """Check data of two-valued units, and return them as integers.

    PyMC casts data to the integers of a discrete variable, where 0.5 turns into 0 without a word.

    Parameters
    ----------
    name : str
        Name of the variable, for errors.
    data : array_like, masked array or shared data
        What is masked may also be NaN, the usual mark of a missing value.
    event_shape : tuple of int or None
        The last lengths that the data must have, None for one that is not known yet.
    what : str
        Name of the argument, for errors.
    values : tuple of int
        The two values of a unit.

    Returns
    -------
    ndarray or masked array of int64, or the shared data as they are

    Raises
    ------
    ValueError
        If an entry is not one of the values, if all entries are masked, or if the shape does not fit.
    """
    if isinstance(data, Variable):
        if isinstance(data, SharedVariable | Constant):
            binary_data(name, extract_obs_data(data), event_shape, what, values)
        return data
    mask = np.ma.getmaskarray(data) if isinstance(data, np.ma.MaskedArray) else None
    entries = np.asarray(data.data if mask is not None else data)
    if entries.dtype.kind not in "buif":
        raise TypeError(
            f"{what} of {name!r} must be numbers {values[0]} and {values[1]}, got an array of {_dtype_of(entries)}"
        )
    _check_event_shape(name, entries.shape, event_shape, what)
    if mask is None:
        _check_entries(name, entries, what, values)
        return entries.astype(np.int64)
    _check_mask(name, mask, what)
    entries = np.where(mask & np.isnan(entries), values[0], entries)
    _check_entries(name, entries[~mask], what, values)
    _check_entries(name, entries[mask], f"what is masked in {what}", values)
    return np.ma.masked_array(entries.astype(np.int64), mask=mask)


def _dtype_of(entries: np.ndarray) -> str:
    """Describe entries that are no numbers; objects are most often numbers with None or ``pandas.NA`` among them."""
    if entries.dtype.kind != "O":
        return f"dtype {entries.dtype}"
    return (
        "dtype object; for missing values use a masked array of numbers, such as "
        "numpy.ma.masked_invalid(data.astype(float))"
    )


def _check_mask(name: str, mask: np.ndarray, what: str) -> None:
    if mask.all():
        raise ValueError(f"{what} of {name!r} is masked everywhere, which clamps nothing: leave {what} out")


def real_data(name: str, data: Any, event_shape: tuple[int | None, ...], what: str = "observed") -> Any:
    """Check data of real-valued units.

    Parameters
    ----------
    name : str
        Name of the variable, for errors.
    data : array_like, masked array or shared data
        What is masked may be anything, such as NaN, the usual mark of a missing value.
    event_shape : tuple of int or None
        The last lengths that the data must have, None for one that is not known yet.
    what : str
        Name of the argument, for errors.

    Returns
    -------
    ndarray or masked array of float, or the shared data as they are; zero under the mask

    Raises
    ------
    ValueError
        If an entry is not finite, if all entries are masked, or if the shape does not fit.
    TypeError
        If the data are not real numbers.
    """
    if isinstance(data, Variable):
        if isinstance(data, SharedVariable | Constant):
            real_data(name, extract_obs_data(data), event_shape, what)
        return data
    mask = np.ma.getmaskarray(data) if isinstance(data, np.ma.MaskedArray) else None
    entries = np.asarray(data.data if mask is not None else data)
    if entries.dtype.kind not in "iuf":
        raise TypeError(f"{what} of {name!r} must be real numbers, got an array of {_dtype_of(entries)}")
    _check_event_shape(name, entries.shape, event_shape, what)
    entries = entries.astype(np.result_type(entries, pytensor.config.floatX))
    if mask is None:
        _check_finite(name, entries, what)
        return entries
    _check_mask(name, mask, what)
    _check_finite(name, entries[~mask], what)
    return np.ma.masked_array(np.where(mask, 0, entries), mask=mask)


def _check_finite(name: str, entries: np.ndarray, what: str) -> None:
    wrong = entries[~np.isfinite(entries)]
    if wrong.size:
        raise ValueError(
            f"{what} of {name!r} must be finite everywhere, got {wrong.flat[0]}; for a missing value use a masked "
            "array, such as numpy.ma.masked_invalid(data)"
        )


def check_start_of_masked(name: str, observed: Any, initval: Any) -> None:
    """Raise if a variable whose data are masked is given a start value, which PyMC would ignore.

    Raises
    ------
    ValueError
    """
    if initval is not None and np.ma.is_masked(observed):
        raise ValueError(
            f"initval of {name!r}, whose data are masked, would be ignored by PyMC: give its free units a start in "
            f"pm.sample(initvals={{'{name}_unobserved': ...}}), a value for each masked entry in row-major order"
        )


def real_initval(name: str, initval: Any, event_shape: tuple[int | None, ...]) -> Any:
    """Check a start value of real-valued units; strategies such as "prior" and symbolic values pass.

    Raises
    ------
    ValueError
        If an entry is not finite, or if the shape does not fit.
    TypeError
        If the entries are not real numbers.
    """
    if initval is None or isinstance(initval, str | Variable):
        return initval
    return real_data(name, np.asarray(initval), event_shape, "initval")


def _check_event_shape(name: str, shape: tuple[int, ...], event_shape: tuple[int | None, ...], what: str) -> None:
    last = shape[-len(event_shape) :] if event_shape else ()
    fits = len(last) == len(event_shape) and all(
        expected in (None, got) for got, expected in zip(last, event_shape, strict=True)
    )
    if not fits:
        expected = f"{event_shape[0]} columns" if len(event_shape) == 1 else f"last axes of the lengths {event_shape}"
        raise ValueError(f"{what} of {name!r} must have {expected}, one entry for each unit, got the shape {shape}")


def _check_entries(name: str, entries: np.ndarray, what: str, values: tuple[int, int]) -> None:
    wrong = entries[(entries != values[0]) & (entries != values[1])]
    if wrong.size:
        missing = (
            "; for a missing value use a masked array, such as numpy.ma.masked_invalid(data)"
            if np.isnan(wrong).any()
            else ""
        )
        raise ValueError(
            f"{what} of {name!r} must be {values[0]} or {values[1]} everywhere, got {wrong.flat[0]}{missing}"
        )


def binary_initval(
    name: str, initval: Any, event_shape: tuple[int | None, ...], values: tuple[int, int] = (0, 1)
) -> Any:
    """Check a start value of two-valued units; strategies such as "prior" and symbolic values pass.

    Raises
    ------
    ValueError
        If an entry is not one of the values, or if the shape does not fit.
    """
    if initval is None or isinstance(initval, str | Variable):
        return initval
    return binary_data(name, np.asarray(initval), event_shape, "initval", values)


def machine_parameters(distribution: str, W: Any, *others: Any) -> tuple[Any, ...]:
    """Return the parameters of a machine: as they are given, or those of a trained one in the place of the first.

    Parameters
    ----------
    distribution : str
        Its name, for errors.
    W : tensor_like, or object with ``parameters_as_numpy()``
    *others
        The other parameters, None where they are not given.

    Raises
    ------
    TypeError
        If parameters are missing, or given beside a trained machine, or if that has other ones.
    """
    if not hasattr(W, "parameters_as_numpy"):
        if any(other is None for other in others):
            raise TypeError(
                f"{distribution} needs all of its parameters, arrays beside W, or a trained machine in the place of W"
            )
        return W, *others
    if any(other is not None for other in others):
        raise TypeError(f"{distribution} takes a trained machine alone: it has parameters of its own")
    parameters = W.parameters_as_numpy()
    if len(parameters) != 1 + len(others):
        raise TypeError(
            f"{distribution} takes a machine with {1 + len(others)} parameters, got a {type(W).__name__} with "
            f"{len(parameters)}"
        )
    return tuple(parameters)


def check_length(argument: str, vector: TensorVariable, expected: int | None, axis: str, W: TensorVariable) -> None:
    """Raise if the last length of a parameter is known and does not fit the couplings.

    Raises
    ------
    ValueError
    """
    length = vector.type.shape[-1]
    if None not in (length, expected) and length != expected:
        raise ValueError(
            f"{argument} must have {axis} = {expected} entries, as W of shape {W.type.shape} says, got {length}"
        )


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
    known = known_value(tensor)
    if known is not None and not np.isfinite(known).all():
        raise ValueError(f"{argument} must be finite, got NaN or infinity")
    return tensor.astype(pytensor.config.floatX)


def known_value(tensor: TensorVariable) -> np.ndarray | None:
    """Return the value of a constant or of shared data, None if a tensor is neither."""
    if isinstance(tensor, Constant):
        return tensor.data
    return tensor.get_value(borrow=True) if isinstance(tensor, SharedVariable) else None
