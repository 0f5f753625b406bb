"""Arrays of users, torch's among them, where torch need not be installed."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["as_array"]


def as_array(values: Any) -> np.ndarray:
    """Do as ``np.asarray``, which refuses torch parameters and tensors on other devices."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values)
