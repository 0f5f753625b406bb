"""Stop when a monitored value has got worse and stays so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pm_neural.fitting.checks import check_integer, check_number


@dataclass(frozen=True)
class EarlyStopping:
    """When to stop training for good.

    Training stops once the monitored value has been more than `tolerance` above its smallest value
    so far at `patience` looks in a row. The parameters then go back to those of the last look that
    was within the tolerance (with ``tolerance=0``: the best look).

    The free-energy gap of an RBM rises from the start, slowly at first, so that it needs a
    tolerance: how many nats per image the training data may gain on the validation data.

    Parameters
    ----------
    tolerance : float
        Not negative.
    patience : int
        At least 1.

    Raises
    ------
    ValueError, TypeError
        One of them is no such number.
    """

    tolerance: float = 1.0
    patience: int = 5

    def __post_init__(self) -> None:
        check_number(self.tolerance, "tolerance", minimum=0)
        check_integer(self.patience, "patience", minimum=1)


class Stopper:
    """The state of one `EarlyStopping` during training."""

    def __init__(self, rule: EarlyStopping) -> None:
        self._rule = rule
        self._smallest = float("inf")
        self._looks_outside = 0

    def within_tolerance(self, value: float) -> bool:
        """Take note of a new value; NaN is out of tolerance."""
        self._smallest = min(value, self._smallest)
        is_within = value <= self._smallest + self._rule.tolerance
        self._looks_outside = 0 if is_within else self._looks_outside + 1
        return is_within

    @property
    def should_stop(self) -> bool:
        """Whether patience is at its end."""
        return self._looks_outside >= self._rule.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the values seen, by reference."""
        return {"smallest": self._smallest, "looks_outside": self._looks_outside}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""
        self._smallest = state["smallest"]
        self._looks_outside = state["looks_outside"]
