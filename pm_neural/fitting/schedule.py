"""How the learning rate falls during training."""

from __future__ import annotations

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}
"""Factor of the learning rate as a function of the part of training that is done, from 0 to 1."""


def check_schedule(name: str) -> None:
    """Refuse a name that is not in `SCHEDULES`."""
    if name not in SCHEDULES:
        names = ", ".join(map(repr, SCHEDULES))
        raise ValueError(f"learning_rate_schedule must be one of {names}; got {name!r}")
