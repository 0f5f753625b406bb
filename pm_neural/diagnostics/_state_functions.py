"""Functions of the state of a chain, one number a draw: they see collective changes that single units hide."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from scipy.sparse.linalg import LinearOperator, eigsh

__all__ = [
    "SAMPLE_DIMS",
    "count_starts",
    "energies",
    "is_counted",
    "leading_directions",
    "r_hat_functions",
    "state_functions",
]

SAMPLE_DIMS = ["chain", "draw"]
_COMPONENT = "first component of "


def energies(idata: xr.DataTree) -> xr.Dataset:
    """Return the energies that step methods recorded, one variable of dims chain and draw for each of them.

    They are named energy, or energy[0], energy[1], … if there are several.
    """
    if "sample_stats" not in idata.children or "network_energy" not in idata["sample_stats"]:
        return xr.Dataset()
    return _split_by_step(idata["sample_stats"].to_dataset()["network_energy"].rename("energy"))


def count_starts(idata: xr.DataTree) -> dict[str, int]:
    """Count the different states that chains began in, for each step method that recorded it."""
    if "sample_stats" not in idata.children or "start_hash" not in idata["sample_stats"]:
        return {}
    hashes = _split_by_step(idata["sample_stats"].to_dataset()["start_hash"])
    return {str(name): len(np.unique(values[:, 0])) for name, values in hashes.items()}


def is_counted(draws: xr.DataArray) -> bool:
    """Whether the sum of a variable's units is their activity."""
    return draws.ndim > len(SAMPLE_DIMS) and draws.dtype.kind in "iu"


def state_functions(draws: xr.Dataset, energies: xr.Dataset, directions: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Evaluate the energies, the activities and the components in given directions for every draw.

    Parameters
    ----------
    draws : Dataset
        Of dims chain, draw and those of the units.
    energies : Dataset
        Of dims chain and draw.
    directions : dict of str to ndarray, shape (n_units,)

    Returns
    -------
    Dataset
        Of dims chain and draw.
    """
    functions = {str(name): (SAMPLE_DIMS, energy.values) for name, energy in energies.items()}
    for name, units in draws.items():
        if is_counted(units):
            functions[f"activity of {name}"] = SAMPLE_DIMS, _flat(units).sum(axis=-1, dtype=np.int64)
        if name in directions:
            functions[f"{_COMPONENT}{name}"] = SAMPLE_DIMS, _flat(units) @ directions[str(name)]
    return xr.Dataset(functions)


def r_hat_functions(draws: xr.Dataset, energies: xr.Dataset) -> dict[str, float]:
    """Return R-hat of the functions of the state, as `Report` says."""
    from arviz_stats import rhat

    half = draws.sizes["draw"] // 2
    directions = leading_directions(draws.isel(draw=slice(max(half, 1))))
    functions = state_functions(draws, energies, directions)
    if not functions:
        return {}
    on_all, on_half = rhat(functions), rhat(functions.isel(draw=slice(half, None)))
    return {str(name): float((on_half if str(name).startswith(_COMPONENT) else on_all)[name]) for name in functions}


def leading_directions(*samples: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the direction of the largest variance of each variable that has several units, over all samples.

    Each of the samples has the same weight, however many draws it has. Variables without any variance are left out.
    """
    directions = {}
    for name, units in samples[0].items():
        rows = [_flat(sample[name]).reshape(-1, units[0, 0].size).astype(np.float64) for sample in samples]
        direction = _leading_direction(rows)
        if direction is not None:
            directions[str(name)] = direction
    return directions


def _leading_direction(samples: list[np.ndarray]) -> np.ndarray | None:
    """Return the leading eigenvector of the covariance of samples of equal weight, each a row a draw."""
    n_units = samples[0].shape[1]
    center = np.mean([rows.mean(axis=0) for rows in samples], axis=0)
    X = np.concatenate([(rows - center) / np.sqrt(len(rows) * len(samples)) for rows in samples])
    variances = np.einsum("ij,ij->j", X, X)
    if n_units < 2 or not np.isfinite(variances).all() or not variances.any():
        return None
    if n_units <= 100:
        return np.linalg.eigh(X.T @ X)[1][:, -1]
    covariance = LinearOperator((n_units, n_units), matvec=lambda x: X.T @ (X @ x), dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(n_units)  # by default SciPy's is random
    return eigsh(covariance, k=1, v0=start, tol=1e-6)[1][:, 0]


def _split_by_step(statistic: xr.DataArray) -> xr.Dataset:
    """Return a sampler statistic as one variable for each step method that recorded it."""
    by_step = [dim for dim in statistic.dims if dim not in SAMPLE_DIMS]
    if not by_step:
        return xr.Dataset({statistic.name: (SAMPLE_DIMS, statistic.transpose(*SAMPLE_DIMS).values)})
    stacked = statistic.stack({"step": by_step}).transpose(*SAMPLE_DIMS, "step").values
    return xr.Dataset({f"{statistic.name}[{i}]": (SAMPLE_DIMS, stacked[..., i]) for i in range(stacked.shape[2])})


def _flat(units: xr.DataArray) -> np.ndarray:
    """Return draws as an array of chains, draws and units."""
    values = units.transpose(*SAMPLE_DIMS, ...).values
    return values.reshape(*values.shape[:2], -1)
