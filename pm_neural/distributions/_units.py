"""What the distributions of two-valued units share."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.distribution import Discrete
from pytensor.tensor import TensorVariable

from pm_neural.distributions._checks import binary_data, binary_initval, check_start_of_masked

__all__ = ["BinaryUnits", "as_float", "loop_over_batch", "on_support"]


class BinaryUnits(Discrete):
    """Units of two values: what is passed for them is checked before PyMC casts or trims it."""

    values: tuple[int, int] = (0, 1)

    def __new__(cls, name, *args, event_shape=(), observed=None, initval=None, **kwargs):
        """Register the distribution as a variable of the current model."""
        if observed is not None:
            observed = binary_data(name, observed, event_shape, values=cls.values)
            check_start_of_masked(name, observed, initval)
        return super().__new__(
            cls,
            name,
            *args,
            observed=observed,
            initval=binary_initval(name, initval, event_shape, cls.values),
            **kwargs,
        )


def loop_over_batch(draw, n_core_dims, inputs, size, dtype=np.int64) -> np.ndarray:
    """Call a draw for each element of a batch, in backends other than numba; it has the shape of the last input."""
    batch_shapes = [x.shape[: x.ndim - n] for x, n in zip(inputs, n_core_dims, strict=True)]
    batch = tuple(size) if size is not None else np.broadcast_shapes(*batch_shapes)
    inputs = [np.broadcast_to(x, batch + x.shape[x.ndim - n :]) for x, n in zip(inputs, n_core_dims, strict=True)]
    draws = [draw(*(np.ascontiguousarray(x[i]) for x in inputs)) for i in np.ndindex(batch)]
    return np.reshape(draws, inputs[-1].shape).astype(dtype)


def on_support(value: TensorVariable, values: tuple[int, int] = (0, 1), n_axes: int = 1) -> TensorVariable:
    """Whether all units of the last axes have one of their two values."""
    either = pt.eq(value, values[0]) | pt.eq(value, values[1])
    return pt.all(either, axis=tuple(range(-n_axes, 0)))


def as_float(value: TensorVariable, like: TensorVariable) -> TensorVariable:
    """Convert units to the float type of a parameter."""
    return value.astype(like.dtype)
