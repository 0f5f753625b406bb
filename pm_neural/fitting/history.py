"""What was measured during training, as a Dataset over epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr


class History:
    """Rows of measurements, one per look at the model.

    Parameters
    ----------
    descriptions : mapping of str to dict
        Attributes, such as ``long_name`` and ``units``, of each variable; its keys are the
        variables.
    """

    def __init__(self, descriptions: Mapping[str, Mapping[str, str]]) -> None:
        self._descriptions = descriptions
        self._epochs: list[int] = []
        self._columns: dict[str, list[float]] = {name: [] for name in descriptions}

    def append(self, epoch: int, row: Mapping[str, float]) -> None:
        """Add the measurements made after `epoch` epochs."""
        self._epochs.append(epoch)
        for name, column in self._columns.items():
            column.append(row[name])

    def to_dataset(self, attrs: Mapping[str, Any]) -> xr.Dataset:
        """Make a Dataset with the dimension ``epoch``, counted from 1."""
        variables = {name: ("epoch", column, dict(self._descriptions[name])) for name, column in self._columns.items()}
        return xr.Dataset(variables, coords={"epoch": self._epochs}, attrs=dict(attrs))

    def state_dict(self) -> dict[str, Any]:
        """Return all rows, by reference."""
        return {
            "epochs": list(self._epochs),
            "columns": {k: list(c) for k, c in self._columns.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""
        self._epochs = list(state["epochs"])
        self._columns = {name: list(state["columns"][name]) for name in self._descriptions}
