"""Long runs of NeuralSampling inside PyMC against exact values and against PyMC's own step methods."""

import arviz as az
import numpy as np
import pymc as pm
import pytest
from scipy.special import softmax

import pm_neural as pmn
from pm_neural.diagnostics import enumerate_states, exact_marginals

pytestmark = pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")

QUIET = {"progressbar": False, "compute_convergence_checks": False, "tune": 50, "chains": 2, "cores": 1}

MODES = {
    "sequential": {"tau": 5, "steps_per_draw": 20},
    "random": {"tau": 5, "steps_per_draw": 20, "order": "random"},
    "blocks": {"tau": 5, "steps_per_draw": 20, "order": "blocks"},
    "continuous": {"time": "continuous", "steps_per_draw": 4.0},
}


@pytest.fixture
def parameters(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)


def z_scores(samples, expected):
    """Return the deviations of means in Monte Carlo standard errors."""
    flat = samples.reshape(*samples.shape[:2], -1).astype(float)
    mcse = az.mcse(az.convert_to_dataset({"x": flat}))["x"].values
    return np.abs(flat.mean(axis=(0, 1)) - np.ravel(expected)) / mcse


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("hidden", [True, False], ids=["hidden", "auxiliary"])
def test_long_run_of_a_restricted_network(parameters, hidden, mode):
    """Means and pair moments within 4 standard errors: at most 30 numbers a case, false-alarm rate 2e-3 each."""
    exact = exact_marginals(parameters)
    with pm.Model():
        v = pmn.BernoulliRBM("v", *parameters)
        variables = [v, pmn.HiddenUnits("h", v)] if hidden else [v]
        idata = pm.sample(5000, step=pmn.NeuralSampling(variables, **MODES[mode]), random_seed=1, **QUIET)
    v = idata.posterior["v"].values
    assert (z_scores(v, exact.visible) < 4).all()
    pairs = np.einsum("cdi,cdj->cdij", v, v)[..., *np.triu_indices(4, 1)]
    assert (z_scores(pairs, exact.visible_pairs[np.triu_indices(4, 1)]) < 4).all()
    if hidden:
        h = idata.posterior["h"].values
        assert (z_scores(h, exact.hidden) < 4).all()
        assert (z_scores(np.einsum("cdi,cdj->cdij", v, h), exact.visible_hidden_pairs) < 4).all()


@pytest.mark.parametrize("mode", MODES)
def test_long_run_of_a_dense_network(rng, mode):
    """Means of 5 units and of the products of all of them; false-alarm rate 4e-4 a mode. Rates are mean activities."""
    J = np.triu(rng.normal(size=(5, 5)), 1)
    J, b = J + J.T, rng.normal(size=5)
    states = enumerate_states(5)
    p = softmax(states @ b + np.einsum("si,ij,sj->s", states, J, states) / 2)
    with pm.Model():
        z = pmn.BoltzmannMachine("z", J, b)
        idata = pm.sample(5000, step=pmn.NeuralSampling([z], **MODES[mode]), random_seed=2, **QUIET)
    z = idata.posterior["z"].values
    assert (z_scores(z, p @ states) < 4).all()
    assert (z_scores((1 - z).prod(axis=-1, keepdims=True), p[:1]) < 4).all()
    rate = idata.sample_stats["rate"].values[..., None]
    assert (z_scores(rate, [(p @ states).mean()]) < 4).all()


@pytest.mark.parametrize("mode", ["sequential", "continuous"])
def test_long_run_through_the_logp(rng, mode):
    """Means of 4 bits of a regression; false-alarm rate 3e-4 a mode."""
    X, y = rng.normal(size=(6, 4)), rng.normal(size=6)
    states = enumerate_states(4)
    p = softmax(-((y - states @ X.T) ** 2).sum(axis=1) / 2 + np.log(0.3 / 0.7) * states.sum(axis=1))
    options = {"tau": 3, "steps_per_draw": 3} if mode == "sequential" else {"time": "continuous", "steps_per_draw": 1}
    with pm.Model():
        z = pm.Bernoulli("z", np.float64(0.3), shape=4)
        pm.Normal("y", pm.math.dot(X, 1.0 * z), 1, observed=y)
        idata = pm.sample(3000, step=pmn.NeuralSampling([z], **options), random_seed=3, **QUIET)
    assert (z_scores(idata.posterior["z"].values, p @ states) < 4).all()


def test_clamped_long_run(parameters):
    """Means of the free units within 4 standard errors; false-alarm rate 2e-4."""
    clamped = np.ma.masked_array([1, 0, 0, 1], mask=[0, 1, 1, 0])
    exact = exact_marginals(parameters, clamped)
    with pm.Model():
        v = pmn.BernoulliRBM("v", *parameters, observed=clamped)
        step = pmn.NeuralSampling([v], tau=5, steps_per_draw=20)
        idata = pm.sample(5000, step=step, random_seed=4, **QUIET)
    assert (z_scores(idata.posterior["v_unobserved"].values, exact.visible[1:3]) < 4).all()


def test_agreement_with_binary_gibbs_metropolis(rng):
    """Spins with a term that joins all of them, as bits; 5 means within 4 standard errors, false-alarm rate 3e-4."""
    J = np.triu(rng.normal(size=(5, 5)), 1)
    with pm.Model():
        z = pmn.BoltzmannMachine("z", J + J.T, rng.normal(size=5))
        pm.Potential("even", -0.5 * (z.sum() - 2) ** 2)
        means, errors = [], []
        for step in (pmn.NeuralSampling([z], tau=2, steps_per_draw=2), pm.BinaryGibbsMetropolis([z])):
            idata = pm.sample(3000, step=step, random_seed=5, **QUIET)
            means.append(idata.posterior["z"].mean(("chain", "draw")).values)
            errors.append(az.mcse(idata.posterior.to_dataset())["z"].values)
    assert (np.abs(means[0] - means[1]) < 4 * np.hypot(*errors)).all()


@pytest.mark.numba
@pytest.mark.parametrize("hidden", ["auxiliary", "none"])
def test_successive_conditional_simulation(rng, hidden):
    """Geweke's joint test: data are drawn anew at each step, so a random bias keeps its prior, and so do the units.

    Inside the loop another step changes the bias given the units, and the counters must follow. First and second
    moment of the bias within 4 standard errors; false-alarm rate 1.3e-4 each.
    """
    n_draws = 20_000
    W = rng.normal(size=(3, 3)) * (hidden == "auxiliary")
    with pm.Model() as model:
        bias = pm.Normal("bias")
        data = pm.Data("data", np.zeros(3))
        v = pmn.BernoulliRBM("v", W + 0.0 * bias, bias + np.zeros(3), bias + np.zeros(3), normalize="exact")
        pm.Normal("y", v, 1, observed=data)
        spikes = pmn.NeuralSampling([v], tau=3, rng=6)
        metropolis = pm.Metropolis([bias], rng=7, S=np.array([1.5]), tune=False)
    point = model.initial_point()
    draws = np.empty(n_draws)
    noise = rng.normal(size=(n_draws, 3))
    for i in range(n_draws):
        data.set_value(point["v"] + noise[i])
        point, _ = spikes.step(point)
        point, _ = metropolis.step(point)
        draws[i] = float(point["bias"])
    chains = draws.reshape(2, -1, 1)
    assert (z_scores(chains, [0.0]) < 4).all()
    assert (z_scores(chains**2, [1.0]) < 4).all()
