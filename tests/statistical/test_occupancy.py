"""An occupancy model, whose switches are plain `pm.Bernoulli` variables, against its posterior on a grid."""

import arviz as az
import numpy as np
import pymc as pm
import pytest
from scipy import stats
from scipy.special import expit

import pm_neural as pmn

N_VISITS = 5
ALTITUDE = np.repeat([-1.0, 0.0, 1.5], 10)
N_SEEN = np.array([0] * 8 + [1, 2] + [0] * 5 + [1, 1, 2, 2, 3] + [0] * 2 + [1, 1, 1, 2, 2, 2, 3, 4])


def means_on_a_grid() -> np.ndarray:
    """Return the posterior means of intercept, slope, detection and number of occupied sites, switches summed out."""
    intercept, slope = np.linspace(-6, 6, 61)[:, None, None], np.linspace(-6, 6, 61)[:, None]
    detection = np.linspace(0, 1, 122)[1:-1]
    log_weights = stats.norm.logpdf(intercept, 0, 1.5) + stats.norm.logpdf(slope, 0, 1.5) + 0 * detection
    n_occupied = np.zeros_like(log_weights)
    for altitude, n_seen in zip(ALTITUDE, N_SEEN, strict=True):
        p = expit(intercept + slope * altitude)
        occupied = p * stats.binom.pmf(n_seen, N_VISITS, detection)
        total = occupied + (1 - p) * (n_seen == 0)
        log_weights += np.log(total)
        n_occupied += occupied / total
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    return np.array([(weights * x).sum() for x in (intercept, slope, detection, n_occupied)])


@pytest.mark.slow
@pytest.mark.numba
def test_posterior_is_that_of_the_grid():
    """False alarm below 1e-5: five Monte Carlo standard errors, for each of four means."""
    with pm.Model():
        intercept = pm.Normal("intercept", 0, 1.5)
        slope = pm.Normal("slope", 0, 1.5)
        detection = pm.Beta("detection", 1, 1)
        occupied = pm.Bernoulli("occupied", logit_p=intercept + slope * ALTITUDE)
        pm.Binomial("seen", N_VISITS, detection * occupied, observed=N_SEEN)
        pm.Deterministic("n_occupied", occupied.sum())
        step = pmn.BlockGibbs([occupied])
        options = {"cores": 1, "progressbar": False, "compute_convergence_checks": False}
        idata = pm.sample(10_000, tune=1000, chains=4, step=step, random_seed=1, **options)
    posterior = idata["posterior"].to_dataset()[["intercept", "slope", "detection", "n_occupied"]]
    deviations = posterior.mean(("chain", "draw")).to_array().values - means_on_a_grid()
    errors = az.mcse(posterior).to_array().values
    assert (errors < 0.05).all()
    assert (abs(deviations) < 5 * errors).all(), deviations / errors
