"""The partition function of an energy network, by quadrature or by annealed importance sampling."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pm_neural.training._backend import TorchBackend
from pm_neural.training._langevin import LangevinChains, StepSizeTuner

if TYPE_CHECKING:
    from pm_neural.training.energy_network import EnergyNetwork

_FIRST_INTERVALS, _MOST_INTERVALS = 256, 2048
_TOLERANCE = 1e-4  # of log Z
_MARGIN = 7.0  # standard deviations of the base on either side, at first
_MOST_DOUBLINGS = 4
_NEGLIGIBLE = 23.0  # in log-density; the density at the border of the grid is 1e-10 of the highest, or less
_ROWS_AT_A_TIME = 65536


@torch.no_grad()
def log_partition_by_quadrature(network: EnergyNetwork) -> float:
    """Integrate exp(-E(x)) over the line or the plane by the trapezoidal rule.

    The grid is made wider until the density at its border is negligible, and then finer until log Z no longer changes.

    Raises
    ------
    ValueError
        The points have more than two coordinates, or the density falls too slowly or is too uneven for the grid.
    """
    n = network.base_sd.numel()
    if n > 2:
        raise ValueError(f"method='quadrature' is for points of one or two coordinates, got {n}; use method='ais'")
    margin = _MARGIN
    for _ in range(_MOST_DOUBLINGS + 1):
        log_density = _on_grid(network, margin, _FIRST_INTERVALS)
        if _largest_at_border(log_density) < log_density.max() - _NEGLIGIBLE:
            break
        margin *= 2
    else:
        raise ValueError(
            f"the density is not negligible {margin / 2:g} standard deviations of the base away from its mean: the "
            "module's energy falls too fast there, and may have no normalizer"
        )
    n_intervals, estimate = _FIRST_INTERVALS, _log_integral(network, log_density, margin)
    while n_intervals < _MOST_INTERVALS:
        n_intervals *= 2
        before, estimate = estimate, _log_integral(network, _on_grid(network, margin, n_intervals), margin)
        if abs(estimate - before) < _TOLERANCE:
            return estimate
    raise ValueError(f"a grid of {n_intervals} intervals an axis is too coarse for this density; use method='ais'")


def _on_grid(network: EnergyNetwork, margin: float, n_intervals: int) -> np.ndarray:
    """Return -E on an even grid, n_intervals + 1 points an axis."""
    steps = np.linspace(-margin, margin, n_intervals + 1)
    means, sds = (b.flatten().cpu().double().numpy() for b in (network.base_mean, network.base_sd))
    axes = [mean + sd * steps for mean, sd in zip(means, sds, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    points = torch.as_tensor(grid.reshape(-1, *network.shape)).to(network.base_mean)
    energies = torch.cat([network.energy(rows) for rows in points.split(_ROWS_AT_A_TIME)])
    return -energies.double().cpu().numpy().reshape(grid.shape[:-1])


def _largest_at_border(log_density: np.ndarray) -> float:
    ends = (np.take(log_density, [0, -1], axis=axis).max() for axis in range(log_density.ndim))
    return float(max(ends))


def _log_integral(network: EnergyNetwork, log_density: np.ndarray, margin: float) -> float:
    spacing = 2 * margin / (log_density.shape[0] - 1)
    n = log_density.ndim
    volume = n * math.log(spacing) + network.base_sd.double().log().sum().item()
    return float(np.logaddexp.reduce(log_density, axis=None) + volume)


@torch.no_grad()
def annealed_importance_sampling(
    network: EnergyNetwork, *, n_chains: int, n_steps: int, backend: TorchBackend, rng: np.random.Generator
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
