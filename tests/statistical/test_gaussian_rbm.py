"""Long runs of BlockGibbs on Gaussian RBMs against exact moments, against NUTS, and inside larger models."""

from itertools import product

import arviz as az
import numpy as np
import pymc as pm
import pytensor
import pytest
from scipy.special import logsumexp

import pm_neural as pmn

pytestmark = pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")

QUIET = {"progressbar": False, "compute_convergence_checks": False}


@pytest.fixture
def parameters(rng):
    return rng.normal(0, 0.6, (2, 4)), rng.normal(size=2), rng.normal(size=4), rng.uniform(0.7, 1.5, 2)


def hidden_law(W, a, b, sigma):
    """All hidden states and their exact probabilities."""
    h = np.array(list(product([0, 1], repeat=len(b))))
    log_p = h @ b + (((a + h @ W.T) ** 2 - a**2) / (2 * sigma**2)).sum(axis=1)
    return h, np.exp(log_p - logsumexp(log_p))


def visible_moments(W, a, b, sigma):
    """E[v] and E[v vᵀ]."""
    h, p = hidden_law(W, a, b, sigma)
    means = a + h @ W.T
    return p @ means, (p * means.T) @ means + np.diag(sigma**2)


def assert_means(samples, expected):
    """Compare means of samples (chain, draw, ...) with exact ones: 4 Monte Carlo standard errors."""
    flat = samples.reshape(*samples.shape[:2], -1)
    mcse = az.mcse(az.convert_to_dataset({"x": flat}))["x"].values
    assert (np.abs(flat.mean(axis=(0, 1)) - np.ravel(expected)) < 4 * mcse).all()


@pytest.mark.parametrize("order", ["fixed", "random"])
@pytest.mark.parametrize("hidden", [True, False], ids=["hidden", "auxiliary"])
def test_long_run_against_exact_moments(parameters, hidden, order):
    """Means, second moments and pairs: 18 numbers, false-alarm rate 1.2e-3."""
    with pm.Model():
        visible = pmn.GaussianRBM("v", *parameters)
        if hidden:
            pmn.HiddenUnits("h", visible)
        options = {"order": order, "sweeps_per_draw": 2}
        idata = pm.sample(10_000, tune=100, chains=2, cores=1, random_seed=1, block_gibbs=options, **QUIET)
    v = idata.posterior["v"].values
    mean, second = visible_moments(*parameters)
    assert_means(v, mean)
    assert_means(np.einsum("cdi,cdj->cdij", v, v), second)
    if hidden:
        h, p = hidden_law(*parameters)
        assert_means(idata.posterior["h"].values.astype(float), p @ h)
        means = parameters[1] + h @ parameters[0].T
        pairs = np.einsum("cdi,cdj->cdij", v, idata.posterior["h"].values)
        assert_means(pairs, (p * means.T) @ h)


def test_clamped_units_against_the_exact_conditional(parameters):
    """A visible unit held at 1.3: mean and square of the other, and the hidden units; false-alarm rate 4e-4."""
    W, a, b, sigma = parameters
    with pm.Model():
        v = pmn.GaussianRBM("v", *parameters, observed=np.ma.masked_array([1.3, 0.0], mask=[0, 1]))
        pmn.HiddenUnits("h", v)
        idata = pm.sample(10_000, tune=100, chains=2, cores=1, random_seed=2, **QUIET)
    rest = W[1:], a[1:], b + 1.3 / sigma[0] ** 2 * W[0], sigma[1:]
    mean, second = visible_moments(*rest)
    free = idata.posterior["v_unobserved"].values
    assert_means(free, mean)
    assert_means(free**2, second)
    h, p = hidden_law(*rest)
    assert_means(idata.posterior["h"].values.astype(float), p @ h)
    assert (idata.posterior["v"].values[..., 0] == 1.3).all()


def test_agreement_with_nuts(parameters):
    """Means and squares within 4 Monte Carlo standard errors of the exact ones; false-alarm rate 3e-4."""
    with pm.Model() as model:
        pmn.GaussianRBM("v", *parameters)
        idata = pm.sample(2000, tune=500, chains=2, cores=1, random_seed=3, step=pm.NUTS(model.free_RVs), **QUIET)
    v = idata.posterior["v"].values
    mean, second = visible_moments(*parameters)
    assert_means(v, mean)
    assert_means(v**2, np.diag(second))


def test_a_measurement_of_v_by_nuts_and_block_gibbs(parameters):
    """NUTS for v, whose evidence BlockGibbs refuses, and BlockGibbs for h; false-alarm rate 4e-4.

    A measurement y = v + noise multiplies each Gaussian of the mixture, so the posterior is one, too.
    """
    W, a, _, sigma = parameters
    y, noise = np.array([1.0, -0.5]), 0.8
    with pm.Model():
        v = pmn.GaussianRBM("v", *parameters)
        h = pmn.HiddenUnits("h", v)
        pm.Normal("y", v, noise, observed=y)
        step = [pm.NUTS([v]), pmn.BlockGibbs([h])]
        idata = pm.sample(1500, tune=500, chains=2, cores=1, random_seed=4, step=step, **QUIET)
    states, p = hidden_law(*parameters)
    means = a + states @ W.T
    total = sigma**2 + noise**2
    p = p * np.exp(-((y - means) ** 2 / (2 * total)).sum(axis=1))
    p /= p.sum()
    expected = p @ ((means * noise**2 + y * sigma**2) / total)
    assert_means(idata.posterior["v"].values, expected)
    assert_means(idata.posterior["h"].values.astype(float), p @ states)


@pytest.mark.numba
def test_random_parameters_keep_their_prior(parameters):
    """Geweke's joint test: with nothing observed, the marginals of the parameters are their priors.

    First and second moments within 4 Monte Carlo standard errors; false-alarm rate 2.6e-4.
    """
    W, a, b, sigma = parameters
    with pm.Model():
        scale = pm.Normal("scale", 1, 0.5)
        spread = pm.Uniform("spread", 0.5, 1.5, default_transform=None)
        v = pmn.GaussianRBM("v", scale * W, a, b, spread * sigma, normalize="exact")
        h = pmn.HiddenUnits("h", v)
        step = [pm.Metropolis([scale, spread]), pmn.BlockGibbs([v, h])]
        idata = pm.sample(5000, tune=500, chains=2, cores=1, random_seed=5, step=step, **QUIET)
    scale, spread = (idata.posterior[name].values for name in ("scale", "spread"))
    assert_means(np.stack([scale, scale**2, spread, spread**2], axis=-1), [1, 1.25, 1, 1 + 1 / 12])


def test_float32_models(parameters):
    """Means within 4 Monte Carlo standard errors; false-alarm rate 4e-4."""
    with pytensor.config.change_flags(floatX="float32"), pm.Model() as model:
        v = pmn.GaussianRBM("v", *parameters)
        pmn.HiddenUnits("h", v)
        idata = pm.sample(5000, tune=0, chains=2, cores=1, random_seed=6, step=pmn.BlockGibbs(model.free_RVs), **QUIET)
    assert idata.posterior["v"].dtype == np.float32
    h, p = hidden_law(*parameters)
    assert_means(idata.posterior["v"].values.astype(float), visible_moments(*parameters)[0])
    assert_means(idata.posterior["h"].values.astype(float), p @ h)
