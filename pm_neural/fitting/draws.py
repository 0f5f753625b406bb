"""Draws of many chains as a DataTree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xarray import DataTree


def draws_as_datatree(
    posterior: Mapping[str, np.ndarray],
    *,
    dims: Mapping[str, list[str]],
    sample_stats: Mapping[str, np.ndarray] | None = None,
) -> DataTree:
    """Make a DataTree of draws, (n_chains, n_draws, ...) each; `dims` names the axes after these."""
    from arviz import from_dict  # takes seconds to import, and training does without it

    groups = {"posterior": dict(posterior)}
    if sample_stats is not None:
        groups["sample_stats"] = dict(sample_stats)
    return from_dict(groups, dims=dict(dims), check_conventions=False)
