"""The partition function of a Gaussian RBM with one or two visible units, by numerical integration."""

from __future__ import annotations

import numpy as np

from pm_neural.diagnostics._parameters import GaussianParameters

__all__ = ["log_partition_by_quadrature"]

# In units of sigma. By Poisson's summation formula the trapezoidal rule with this step integrates a Gaussian with a
# relative error of 2 exp(−2π²/step²) = 1e-15, and less than 1e-18 of it is beyond the margin.
_STEP = 0.75
_MARGIN = 9.0
_LARGEST_GRID = 10_000_000


def log_partition_by_quadrature(params: GaussianParameters) -> float:
    """Integrate exp(−F(v)) by the trapezoidal rule; see `log_partition`.

    The density is a mixture of Gaussians of standard deviation sigma, one for each state of the hidden layer, whose
    means lie between the extreme values of a + Wh. So a grid that is fine in units of sigma, and wide enough for these
    means, is exact to rounding, without any look at the function.
    """
    axes = [_axis(*column) for column in zip(params.W, params.a, params.sigma, strict=True)]
    if len(axes) > 2:
        raise ValueError(f"params: method='quadrature' is for at most 2 visible units, got {len(axes)}")
    n_points = np.prod([len(axis) for axis in axes])
    if n_points > _LARGEST_GRID:
        raise ValueError(
            f"params: the weights are so large in units of sigma that the grid would need {n_points} points, and at "
            f"most {_LARGEST_GRID} are supported; use method='ais'"
        )
    first, *others = axes
    lines = [np.column_stack([np.full(len(other), x), other]) for other in others for x in first] or [first[:, None]]
    log_sums = [np.logaddexp.reduce(-params.free_energy(line)) for line in lines]
    return float(np.logaddexp.reduce(log_sums) + np.log(_STEP * params.sigma).sum())


def _axis(weights: np.ndarray, bias: float, sigma: float) -> np.ndarray:
    """Equally spaced values of one visible unit."""
    low = bias + weights[weights < 0].sum() - _MARGIN * sigma
    high = bias + weights[weights > 0].sum() + _MARGIN * sigma
    return np.arange(low, high + _STEP * sigma, _STEP * sigma)
