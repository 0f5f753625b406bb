"""The partition function of an energy network, by quadrature or by annealed importance sampling."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pm_neural.fitting.backend import TorchBackend
from pm_neural.training.energy.base import EnergyWithBase
from pm_neural.training.energy.langevin import LangevinChains, StepSizeTuner

# Intervals an axis, at first and at most, for points of one and of two coordinates.
_INTERVALS = {1: (8192, 1 << 20), 2: (256, 2048)}
_TOLERANCE = 1e-4  # of log Z
_MARGIN = 7.0  # standard deviations of the base on either side, at first
_MOST_DOUBLINGS = 4
_NEGLIGIBLE = 23.0  # in log-density; the density at the border of the grid is 1e-10 of the highest, or less
_ROWS_AT_A_TIME = 65536
# Of an interval, for the grid that must give the same: irrational, so that it has no point in common with finer ones.
_SHIFT = (3 - math.sqrt(5)) / 2
_N_PROBES, _PROBE_STEPS = 512, 400
# In log-density. On a grid that is fine enough for a smooth density, a point exceeds the corners of its cell by a
# fraction of 1: by 0.25 in the middle of a Gaussian, at the step for which log Z is right to the tolerance.
_LARGEST_EXCESS = 2.0


@torch.no_grad()
def log_partition_by_quadrature(network: EnergyWithBase) -> float:
    """Integrate exp(-E(x)) over the line or the plane by the trapezoidal rule.

    The grid is made wider until the density at its border is negligible, and then finer until log Z no longer changes,
    a shifted grid gives the same, and Langevin chains find no point that rises above the grid around it.

    Raises
    ------
    ValueError
        The points have more than two coordinates, or the density falls too slowly or is too uneven for the grid.
    """
    n = network.base_sd.numel()
    if n > 2:
        raise ValueError(f"method='quadrature' is for points of one or two coordinates, got {n}; use method='ais'")
    n_intervals, most_intervals = _INTERVALS[n]
    margin = _MARGIN
    for _ in range(_MOST_DOUBLINGS + 1):
        log_density = _on_grid(network, margin, n_intervals)
        if _largest_at_border(log_density) < log_density.max() - _NEGLIGIBLE:
            break
        margin *= 2
    else:
        raise ValueError(
            f"the density is not negligible {margin / 2:g} standard deviations of the base away from its mean: the "
            "module's energy falls too fast there, and may have no normalizer"
        )
    probes = None
    estimate = _log_integral(network, log_density, margin, n_intervals)
    while n_intervals < most_intervals:
        n_intervals *= 2
        log_density = _on_grid(network, margin, n_intervals)
        before, estimate = estimate, _log_integral(network, log_density, margin, n_intervals)
        if abs(estimate - before) >= _TOLERANCE:
            continue
        shifted = _log_integral(network, _on_grid(network, margin, n_intervals, _SHIFT), margin, n_intervals)
        if abs(estimate - shifted) >= _TOLERANCE:
            continue
        if probes is None:
            probes = _probes(network, log_density, margin)
        if _largest_excess(*probes, log_density, margin) <= _LARGEST_EXCESS:
            return estimate
    raise ValueError(f"a grid of {n_intervals} intervals an axis is too coarse for this density; use method='ais'")


def _on_grid(network: EnergyWithBase, margin: float, n_intervals: int, shift: float = 0.0) -> np.ndarray:
    """Return -E on an even grid, n_intervals + 1 points an axis, or without the last where it is shifted."""
    steps = np.linspace(-margin, margin, n_intervals + 1)
    if shift:
        steps = steps[:-1] + shift * 2 * margin / n_intervals
    means, sds = _base(network)
    axes = [mean + sd * steps for mean, sd in zip(means, sds, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    points = torch.as_tensor(grid.reshape(-1, *network.shape)).to(network.base_mean)
    energies = torch.cat([network.energy(rows) for rows in points.split(_ROWS_AT_A_TIME)])
    return -energies.double().cpu().numpy().reshape(grid.shape[:-1])


def _base(network: EnergyWithBase) -> tuple[np.ndarray, np.ndarray]:
    mean, sd = (b.flatten().cpu().double().numpy() for b in (network.base_mean, network.base_sd))
    return mean, sd


def _largest_at_border(log_density: np.ndarray) -> float:
    ends = (np.take(log_density, [0, -1], axis=axis).max() for axis in range(log_density.ndim))
    return float(max(ends))


def _log_integral(network: EnergyWithBase, log_density: np.ndarray, margin: float, n_intervals: int) -> float:
    spacing = 2 * margin / n_intervals
    n = log_density.ndim
    volume = n * math.log(spacing) + network.base_sd.double().log().sum().item()
    return float(np.logaddexp.reduce(log_density, axis=None) + volume)


def _probes(network: EnergyWithBase, log_density: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Let Langevin chains look for what the grid has missed.

    Half of the chains start from the base and half from the grid's density. A narrow well holds a chain that comes
    upon it.

    Returns
    -------
    positions : ndarray, (n, n_coordinates)
        In standard deviations of the base from its mean.
    log_density : ndarray, (n,)
        -E there.
    """
    rng = np.random.default_rng(0)
    backend = TorchBackend(network.base_mean.dtype, rng, network.base_mean.device)
    weights = np.exp(log_density - log_density.max()).ravel()
    cells = np.searchsorted(np.cumsum(weights), rng.random(_N_PROBES // 2) * weights.sum())
    nodes = np.stack(np.unravel_index(np.minimum(cells, weights.size - 1), log_density.shape), axis=-1)
    spacing = 2 * margin / (log_density.shape[0] - 1)
    inside = -margin + spacing * (nodes + rng.random(nodes.shape) - 0.5)
    mean, sd = _base(network)
    from_grid = torch.as_tensor((mean + sd * inside).reshape(-1, *network.shape)).to(network.base_mean)
    from_base = network.base_draws(_N_PROBES - len(from_grid), backend)

    chains = LangevinChains(network, torch.cat([from_grid, from_base]), backend)
    tuner = StepSizeTuner(network.first_step_size())
    positions, values = [], []
    for _ in range(_PROBE_STEPS):
        tuner.update(chains.adjusted_step(tuner.step_size).mean().item())
        positions.append((_as_numpy(chains.x).reshape(_N_PROBES, -1) - mean) / sd)
        values.append(-_as_numpy(chains.learnt_energy + network.base_energy(chains.x)))
    return np.concatenate(positions), np.concatenate(values)


def _largest_excess(positions: np.ndarray, values: np.ndarray, log_density: np.ndarray, margin: float) -> float:
    """By how much a point's log-density is above the highest at the corners of its cell, where it is not negligible."""
    seen = values > log_density.max() + math.log(_TOLERANCE)
    if not seen.any():
        return 0.0
    n_intervals = log_density.shape[0] - 1
    cells = np.clip(((positions[seen] + margin) * n_intervals / (2 * margin)).astype(np.int64), 0, n_intervals - 1)
    corners = [log_density[tuple((cells + offset).T)] for offset in np.ndindex((2,) * log_density.ndim)]
    return float((values[seen] - np.max(corners, axis=0)).max())


@torch.no_grad()
def annealed_importance_sampling(
    network: EnergyWithBase, *, n_chains: int, n_steps: int, backend: TorchBackend, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Run chains from the base to the model and back, one accepted or rejected Langevin step at each temperature.

    The step sizes are tuned in a run of their own, so that they do not depend on the chains that are averaged.

    Returns
    -------
    forward, reverse : ndarray, (n_chains,)
        The estimate of log Z from each chain. The reverse chains start from where the forward ones ended, resampled by
        their weights and moved `n_steps` steps on.
    """
    betas = np.linspace(0, 1, n_steps + 1)
    tuner = StepSizeTuner(network.first_step_size())
    step_sizes = np.empty(n_steps)
    chains = LangevinChains(network, network.base_draws(n_chains, backend), backend)
    for step, beta in enumerate(betas[1:]):
        step_sizes[step] = tuner.step_size
        chains.beta = beta
        tuner.update(chains.adjusted_step(tuner.step_size).mean().item())

    chains = LangevinChains(network, network.base_draws(n_chains, backend), backend)
    log_weights = np.zeros(n_chains)
    for (beta, next_beta), step_size in zip(pairwise(betas), step_sizes, strict=True):
        log_weights -= (next_beta - beta) * _as_numpy(chains.learnt_energy)
        chains.beta = next_beta
        chains.adjusted_step(step_size)
    forward = network.log_base_volume() + log_weights

    weights = np.exp(log_weights - log_weights.max())
    rows = rng.choice(n_chains, n_chains, p=weights / weights.sum())
    chains = LangevinChains(network, chains.x[backend.array(rows)], backend)
    for _ in range(n_steps):
        chains.adjusted_step(step_sizes[-1])
    log_weights = np.zeros(n_chains)
    for (beta, next_beta), step_size in zip(pairwise(betas[::-1]), step_sizes[::-1], strict=True):
        chains.beta = beta
        chains.adjusted_step(step_size)
        log_weights -= (next_beta - beta) * _as_numpy(chains.learnt_energy)
    return forward, network.log_base_volume() - log_weights


def _as_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().double().numpy()
