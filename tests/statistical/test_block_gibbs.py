"""Long runs of BlockGibbs inside PyMC against exact values and against PyMC's own step methods."""

import arviz as az
import numpy as np
import pymc as pm
import pytensor
import pytest

import pm_neural as pmn
from pm_neural.diagnostics import exact_marginals

pytestmark = pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")

QUIET = {"progressbar": False, "compute_convergence_checks": False}


def masked(values, free):
    return np.ma.masked_array(values, mask=free)


CLAMPED = masked([1, 0, 0, 1], [0, 1, 1, 0])


@pytest.fixture
def parameters(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)


def model_with(parameters, v_observed=None, hidden=True):
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", *parameters, observed=v_observed)
        if hidden:
            pmn.HiddenUnits("h", v)
    return model


def test_long_run_against_exact_moments(parameters):
    """Means and pair moments within 4 Monte Carlo standard errors: 30 numbers, false-alarm rate 2e-3."""
    exact = exact_marginals(parameters)
    model = model_with(parameters)
    with model:
        idata = pm.sample(20_000, tune=100, chains=2, cores=1, random_seed=1, **QUIET)
    v, h = (idata.posterior[name].values.astype(float) for name in "vh")
    for samples, expected in (
        (v, exact.visible),
        (h, exact.hidden),
        (np.einsum("cdi,cdj->cdij", v, h), exact.visible_hidden_pairs),
        (np.einsum("cdi,cdj->cdij", v, v), exact.visible_pairs),
    ):
        flat = samples.reshape(2, 20_000, -1)
        mcse = az.mcse(az.convert_to_dataset({"x": flat}))["x"].values
        assert (np.abs(flat.mean(axis=(0, 1)) - expected.ravel()) < 4 * mcse).all()


@pytest.mark.parametrize("hidden", [True, False], ids=["hidden", "auxiliary"])
def test_clamped_long_run_against_exact_conditionals(parameters, hidden):
    """Means of the free units within 4 Monte Carlo standard errors; false-alarm rate 3e-4."""
    exact = exact_marginals(parameters, CLAMPED)
    with model_with(parameters, v_observed=CLAMPED, hidden=hidden):
        idata = pm.sample(10_000, tune=100, chains=2, cores=1, random_seed=2, **QUIET)
    posterior = idata.posterior.to_dataset()
    np.testing.assert_array_equal(posterior["v"][..., [0, 3]], np.broadcast_to([1, 1], (2, 10_000, 2)))
    mcse = az.mcse(posterior)
    free = posterior["v_unobserved"]
    error = np.abs(free.mean(("chain", "draw")).values - exact.visible[1:3])
    assert (error < 4 * mcse["v_unobserved"].values).all()
    if hidden:
        error = np.abs(posterior["h"].mean(("chain", "draw")).values - exact.hidden)
        assert (error < 4 * mcse["h"].values).all()


def test_agreement_with_binary_gibbs_metropolis(parameters):
    """Differences of means within 4 combined Monte Carlo standard errors; false-alarm rate 5e-4."""
    model = model_with(parameters)
    means, errors = [], []
    with model:
        for step in (pmn.BlockGibbs(model.free_RVs), pm.BinaryGibbsMetropolis(model.free_RVs)):
            idata = pm.sample(3000, tune=100, chains=2, cores=1, random_seed=3, step=step, **QUIET)
            posterior = idata.posterior.to_dataset()
            means.append(posterior.mean(("chain", "draw")))
            errors.append(az.mcse(posterior))
    for name in ("v", "h"):
        combined = np.hypot(errors[0][name], errors[1][name])
        assert (np.abs(means[0][name] - means[1][name]) < 4 * combined).all()


@pytest.mark.numba
def test_random_parameters_keep_their_prior(parameters):
    """Geweke's joint test: with nothing observed, the parameter's marginal is its prior.

    Mean and second moment of a Normal within 4 Monte Carlo standard errors; false-alarm rate 1.3e-4.
    """
    W, a, b = parameters
    with pm.Model() as model:
        scale = pm.Normal("scale", 1, 1)
        v = pmn.BernoulliRBM("v", scale * W, scale * a, b, normalize="exact")
        pmn.HiddenUnits("h", v)
        step = [pm.Metropolis([scale]), pmn.BlockGibbs([v, model["h"]])]
        idata = pm.sample(20_000, tune=500, chains=2, cores=1, random_seed=4, step=step, **QUIET)
    draws = idata.posterior["scale"].values
    for moment, expected in ((draws, 1.0), (draws**2, 2.0)):
        mcse = float(az.mcse(az.convert_to_dataset({"x": moment}))["x"])
        assert abs(moment.mean() - expected) < 4 * mcse


def test_several_networks_in_one_step(parameters):
    W, a, b = parameters
    with pm.Model() as model:
        first = pmn.BernoulliRBM("first", W, a, b)
        pmn.BernoulliRBM("second", -W, -a, b)
        pmn.HiddenUnits("hidden", first)
        idata = pm.sample(10_000, tune=0, chains=2, cores=1, random_seed=5, **QUIET)
    assert model.free_RVs
    posterior = idata.posterior.to_dataset()
    mcse = az.mcse(posterior)
    for name, expected in (
        ("first", exact_marginals((W, a, b)).visible),
        ("hidden", exact_marginals((W, a, b)).hidden),
        ("second", exact_marginals((-W, -a, b)).visible),
    ):
        error = np.abs(posterior[name].mean(("chain", "draw")).values - expected)
        assert (error < 4 * mcse[name].values).all()  # 11 numbers, false-alarm rate 7e-4


def test_a_batch_with_a_mask_of_its_own_in_every_row(parameters, rng):
    """Rows fully clamped, fully free and in between; 4 standard errors, false-alarm rate 1e-3."""
    data = masked([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]], [[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 0]])
    with model_with(parameters, v_observed=data) as model:
        assert {rv.name for rv in model.free_RVs} == {"v_unobserved", "h"}
        idata = pm.sample(10_000, tune=0, chains=2, cores=1, random_seed=6, **QUIET)
    posterior = idata.posterior.to_dataset()
    mcse = az.mcse(posterior)
    W, _, b = parameters
    exact = [exact_marginals(parameters), exact_marginals(parameters, data[2])]
    hidden = [1 / (1 + np.exp(-(b + data.data[0] @ W))), exact[0].hidden, exact[1].hidden]
    visible = [data.data[0], exact[0].visible, exact[1].visible]
    for name, expected in (("h", hidden), ("v", visible)):
        error = np.abs(posterior[name].mean(("chain", "draw")).values - expected)
        tolerance = np.nan_to_num(4 * mcse[name].values)  # clamped units have no error
        assert (error <= tolerance).all()


def test_whole_rows_masked(parameters):
    """PyMC splits such data into two variables, and the hidden units belong to both."""
    data = masked([[1, 0, 1, 1], [0, 0, 0, 0]], [[0] * 4, [1] * 4])
    with model_with(parameters, v_observed=data):
        idata = pm.sample(10_000, tune=0, chains=2, cores=1, random_seed=7, **QUIET)
    W, _, b = parameters
    means = idata.posterior.to_dataset().mean(("chain", "draw"))
    exact = exact_marginals(parameters)
    # 4 standard errors of nearly independent draws of a bit are 0.015 here
    np.testing.assert_allclose(means["v"][1], exact.visible, atol=0.02)
    np.testing.assert_allclose(means["h"], [1 / (1 + np.exp(-(b + data.data[0] @ W))), exact.hidden], atol=0.02)


def test_a_batch_of_different_machines(rng):
    W, a, b = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4)), rng.normal(size=2)
    with pm.Model():
        pmn.BernoulliRBM("v", W, a, b)
        idata = pm.sample(10_000, tune=0, chains=2, cores=1, random_seed=8, **QUIET)
    means = idata.posterior["v"].mean(("chain", "draw")).values
    expected = [exact_marginals((W[i], a[i], b)).visible for i in range(3)]
    np.testing.assert_allclose(means, expected, atol=0.02)  # above 4 standard errors


def test_one_masked_unit(parameters):
    data = masked([1, 0, 1, 1], [0, 0, 1, 0])
    with model_with(parameters, v_observed=data):
        idata = pm.sample(5000, tune=0, chains=2, cores=1, random_seed=9, **QUIET)
    exact = exact_marginals(parameters, data)
    means = idata.posterior.to_dataset().mean(("chain", "draw"))
    np.testing.assert_allclose(means["v"], exact.visible, atol=0.02)
    np.testing.assert_allclose(means["h"], exact.hidden, atol=0.02)


def test_float32_models(parameters):
    with pytensor.config.change_flags(floatX="float32"), model_with(parameters) as model:
        step = pmn.BlockGibbs(model.free_RVs)
        idata = pm.sample(5000, tune=0, chains=2, cores=1, random_seed=10, step=step, **QUIET)
    assert step.samplers[0]._rbms[0][0][0].dtype == np.float32
    exact = exact_marginals(parameters)
    np.testing.assert_allclose(idata.posterior["v"].mean(("chain", "draw")), exact.visible, atol=0.02)
