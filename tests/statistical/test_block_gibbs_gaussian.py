"""Long runs of BlockGibbs on PyMC's MvNormal against exact moments and against NUTS."""

import arviz as az
import numpy as np
import pymc as pm
import pytest

import pm_neural as pmn

pytestmark = pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")

QUIET = {"progressbar": False, "compute_convergence_checks": False}


def test_long_run_against_exact_moments(rng):
    """Means and second moments within 4 Monte Carlo standard errors: 14 numbers, false-alarm rate 9e-4."""
    factor, mean = rng.normal(size=(4, 4)), rng.normal(size=4)
    cov = factor @ factor.T + 0.5 * np.eye(4)
    with pm.Model():
        x = pm.MvNormal("x", mean, cov=cov, initval=np.full(4, 3.0))
        step = pmn.BlockGibbs([x], sweeps_per_draw=3)
        idata = pm.sample(10_000, tune=100, chains=2, cores=1, random_seed=1, step=step, **QUIET)
    x = idata.posterior["x"].values
    pairs = np.einsum("cdi,cdj->cdij", x - mean, x - mean)[..., *np.tril_indices(4)]
    for samples, expected in ((x, mean), (pairs, cov[np.tril_indices(4)])):
        mcse = az.mcse(az.convert_to_dataset({"x": samples}))["x"].values
        assert (np.abs(samples.mean(axis=(0, 1)) - expected) < 4 * mcse).all()


def test_agreement_with_nuts_inside_a_larger_model(rng):
    """A random mean, and a vector around it that data clamp in part: NUTS for both, or BlockGibbs for the vector.

    Differences of six means and six second moments within 4 combined Monte Carlo standard errors: false-alarm rate
    8e-4.
    """
    data = np.ma.masked_array([[1.0, 0.3, 0.0], [-0.5, 0.0, 0.0]], mask=[[0, 0, 1], [0, 1, 1]])
    cov = 0.3 + 0.7 * np.eye(3)
    moments = {}
    for name in ("nuts", "gibbs"):
        with pm.Model() as model:
            mu = pm.Normal("mu", shape=3)
            pm.MvNormal("x", mu, cov=cov, observed=data)
            step = pmn.BlockGibbs([model["x_unobserved"]], sweeps_per_draw=3) if name == "gibbs" else None
            idata = pm.sample(2000, tune=500, chains=2, cores=1, random_seed=2, step=step, **QUIET)
        draws = np.concatenate([idata.posterior["mu"].values, idata.posterior["x_unobserved"].values], axis=-1)
        draws = az.convert_to_dataset({"moments": np.concatenate([draws, draws**2], axis=-1)})
        moments[name] = draws["moments"].mean(("chain", "draw")).values, az.mcse(draws)["moments"].values
    (nuts, nuts_error), (gibbs, gibbs_error) = moments.values()
    assert (np.abs(nuts - gibbs) < 4 * np.hypot(nuts_error, gibbs_error)).all()
