"""Checks of numbers that a user passes: counts and sizes."""

from __future__ import annotations

import numpy as np

__all__ = ["at_least", "positive"]


def at_least(minimum: int, argument: str, value: int) -> int:
    """Return a count.

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is less than `minimum`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{argument} must be an integer, got {value!r}")
    if value < minimum:
        raise ValueError(f"{argument} must be at least {minimum}, got {value}")
    return int(value)


def positive(argument: str, value: float) -> float:
    """Return a positive number.

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is not positive and finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{argument} must be a number, got {value!r}")
    if not (value > 0 and np.isfinite(value)):
        raise ValueError(f"{argument} must be positive and finite, got {value}")
    return float(value)
