"""NeuralSampling inside PyMC: exactness on extended states, refractory state, all kinds of models, bad input."""

import itertools
import multiprocessing
import re
import warnings
from functools import partial
from pathlib import Path

import cloudpickle
import numpy as np
import pymc as pm
import pytest
import scipy.sparse
import scipy.stats
from pymc.step_methods import STEP_METHODS
from pymc.step_methods.compound import Competence
from pymc.step_methods.state import equal_dataclass_values
from pytensor.compile.mode import Mode
from scipy.special import expit, softmax

import pm_neural as pmn
from pm_neural.diagnostics import stationary_distribution, transition_matrix
from step_methods.raster import unpack_spikes
from step_methods.spiking.logp import SpikingLogp
from step_methods.spiking.refractory import RandomDecisions, firing_probability, refractory_function, renew

pytestmark = [
    pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning"),
    pytest.mark.filterwarnings("ignore:.*number of samples"),
]

# Compiles in milliseconds, where numba takes seconds.
IN_PYTHON = {"mode": Mode(linker="py", optimizer="fast_run")}
QUIET = {"progressbar": False, "compute_convergence_checks": False}


def masked(values, free):
    return np.ma.masked_array(values, mask=free)


def symmetric(rng, n, scale=1.0):
    J = np.triu(rng.normal(scale=scale, size=(n, n)), 1)
    return J + J.T


@pytest.fixture
def small(rng):
    """Give an RBM with two layers of two units."""
    return rng.normal(size=(2, 2)), rng.normal(size=2), rng.normal(size=2)


def rbm_model(parameters, v_observed=None, h_observed=None, hidden=True, **kwargs):
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", *parameters, observed=v_observed, **kwargs)
        if hidden:
            pmn.HiddenUnits("h", v, observed=h_observed)
    return model


# ---------------------------------------------------------------------------------- exactness


ORDERS = ["sequential", "random", "blocks"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("n", "tau"),
    [
        *((3, tau) for tau in range(1, 6)),
        *(pytest.param(4, tau, marks=[pytest.mark.slow] * (tau > 2)) for tau in range(1, 6)),
    ],
)
def test_the_kernel_leaves_the_extended_law_invariant(rng, order, n, tau):
    """On a random dense and a random sparse network, p on all counters is left as it is to 1e-12."""
    ring = np.roll(np.eye(n), 1, axis=1) * rng.normal()
    for couplings in (symmetric(rng, n), ring + ring.T):
        biases = rng.normal(size=n)
        with pm.Model():
            z = pmn.BoltzmannMachine("z", couplings, biases)
            T = transition_matrix(pmn.NeuralSampling([z], tau=tau, order=order))
        p = extended_law(T.states, couplings, biases, tau)
        np.testing.assert_allclose(T.matrix.sum(axis=1), 1, atol=1e-12)
        assert np.abs(p @ T.matrix - p).max() <= 1e-12


def extended_law(counters, couplings, biases, tau):
    """Return p(z) tau^(−number of ones)."""
    z = (counters > 0).astype(float)
    return softmax(z @ (biases - np.log(tau)) + np.einsum("si,ij,sj->s", z, couplings, z) / 2)


@pytest.mark.parametrize("order", ["sequential", "blocks"])
@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ({}, ["v", "h"]),
        ({}, ["v"]),
        ({}, ["h"]),
        ({"hidden": False}, ["v"]),
        ({"v_observed": masked([1, 0], [0, 1])}, ["v", "h"]),
        ({"v_observed": masked([1, 0], [0, 1]), "hidden": False}, ["v"]),
        ({"h_observed": masked([1, 0], [0, 1])}, ["v", "h"]),
        ({"h_observed": np.array([1, 0])}, ["v"]),
        ({"v_observed": np.array([1, 0])}, ["h"]),
    ],
    ids=lambda value: "+".join(value) if value else "free",
)
def test_restricted_networks(small, options, variables, order, certify):
    """Auxiliary hidden neurons (no `HiddenUnits` in the model) are drawn and summed out."""
    model = rbm_model(small, **options)
    with model:
        step = pmn.NeuralSampling([model[name] for name in variables], tau=2, order=order)
    certify(step, model.initial_point())


def test_random_order_with_auxiliary_neurons_and_in_batches(rng, certify):
    """A step is then forced as a whole, its picks included."""
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", rng.normal(size=(2, 1)), rng.normal(size=2), rng.normal(size=1))
        z = pmn.BoltzmannMachine("z", symmetric(rng, 2), rng.normal(size=(2, 2)))
        for variable, tau in ((v, 2), (z, 1)):
            step = pmn.NeuralSampling([variable], tau=tau, order="random")
            assert step.n_stages == 1
            certify(step, model.initial_point())


def sparse_spins(rng):
    ring = np.roll(np.eye(4), 1, axis=1)
    return pmn.Ising("z", scipy.sparse.csr_array(ring + ring.T), rng.normal(size=4), coupling=-0.7)


def lattice_spins(rng):
    return pmn.Ising("z", 0.4 * pmn.lattice((2, 2)), rng.normal(size=(2, 2)))


def batch_of_spins(rng):
    return pmn.Ising("z", symmetric(rng, 2), rng.normal(size=(2, 2)), coupling=np.array([0.5, -1.0]))


def clamped_bits(rng):
    return pmn.BoltzmannMachine(
        "z", symmetric(rng, 5), rng.normal(size=5), observed=masked([1, 0, 0, 1, 1], [0, 1, 1, 0, 1])
    )


def clamped_spins(rng):
    return pmn.Ising(
        "z",
        pmn.lattice((2, 3)),
        rng.normal(size=(2, 3)),
        observed=masked([[1, -1, 1], [-1, 1, -1]], [[0, 1, 1], [1, 0, 0]]),
    )


@pytest.mark.parametrize("evidence", [False, True], ids=["alone", "evidence"])
@pytest.mark.parametrize("field", [sparse_spins, lattice_spins, batch_of_spins, clamped_bits, clamped_spins])
def test_pairwise_networks(rng, field, evidence, certify):
    with pm.Model() as model:
        z = field(rng)
        if evidence:
            sigma = pm.HalfNormal("sigma")
            pm.Normal("y", 2.0 * z, sigma, observed=rng.normal(size=z.type.shape))
        step = pmn.NeuralSampling([rv for rv in model.free_RVs if rv.name.startswith("z")], tau=2)
    assert step.through_logp == ()
    certify(step, {**model.initial_point(), **({"sigma_log__": np.array(-0.3)} if evidence else {})})


def test_random_parameters_are_read_at_each_step(rng, certify):
    with pm.Model() as model:
        beta = pm.Normal("beta")
        z = pmn.Ising("z", pmn.lattice((2, 2)), rng.normal(size=(2, 2)), coupling=beta, normalize="exact")
        step = pmn.NeuralSampling([z], tau=2)
    for value in (0.7, -0.4):
        certify(step, {**model.initial_point(), "beta": np.array(value)})


@pytest.mark.parametrize("steps", [1, 2])
def test_terms_that_join_two_networks(rng, steps, certify):
    with pm.Model() as model:
        first = pmn.BernoulliRBM("first", rng.normal(size=(2, 1)), np.zeros(2), np.zeros(1))
        second = pmn.Ising("second", symmetric(rng, 2), np.zeros(2))
        pm.Potential("bridge", 1.5 * first * second)
        step = pmn.NeuralSampling([first, second], tau=2, steps_per_draw=steps)
    assert step._n_rounds == steps
    certify(step, model.initial_point())


def test_sequential_tau_1_is_gibbs_sampling(rng):
    """The same seed gives the very draws of BlockGibbs, which sweeps a dense network unit by unit."""
    J = symmetric(rng, 20, 0.3)
    with pm.Model():
        z = pmn.BoltzmannMachine("z", J, rng.normal(size=20))
        options = {"draws": 200, "tune": 0, "chains": 1, "cores": 1, "random_seed": 3, **QUIET}
        spikes = pm.sample(step=pmn.NeuralSampling([z], tau=1, steps_per_draw=2), **options)
        gibbs = pm.sample(step=pmn.BlockGibbs([z], sweeps_per_draw=2), **options)
    np.testing.assert_array_equal(spikes.posterior["z"], gibbs.posterior["z"])
    np.testing.assert_allclose(spikes.sample_stats["network_energy"], gibbs.sample_stats["network_energy"])


# ---------------------------------------------------------------------------------- relative refractory periods


def relative(vars, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return pmn.NeuralSampling(vars, refractory="relative", **options)


NAMED = ("linear", "smooth", "early", "late")


def test_named_refractory_functions():
    """Against the formulas of the paper's table. With tau = 21, half the period after a spike is the counter 11."""
    g = {name: refractory_function(name, 21) for name in NAMED}
    s = np.maximum(np.arange(22) - 1, 0) / 20
    formulas = {
        "linear": 1 - s,
        "smooth": 1 - s + np.sin(2 * np.pi * s) / (2 * np.pi),
        "early": 4 * (1 - s) + np.sin(8 * np.pi * s) / (2 * np.pi),
        "late": 1 - 2 * s + np.sin(4 * np.pi * s) / (2 * np.pi),
    }
    for name, values in formulas.items():
        np.testing.assert_allclose(g[name], np.clip(values, 0, 1), rtol=0, atol=1e-14)
        assert (np.diff(g[name]) <= 0).all()
    assert (g["early"] >= g["smooth"]).all()
    assert (g["smooth"] >= g["late"]).all()
    assert (g["late"][11:] == 0).all()
    assert (g["late"][:11] > 0).all()
    assert (g["early"][:17] == 1).all()
    assert (g["early"][17:] < 1).all()


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("tau", [2, 3, 1000])
def test_named_refractory_functions_end_at_0_and_1_exactly(name, tau):
    """With tau = 2, and in the case of "late" with 3, the relative period is the absolute one."""
    values = refractory_function(name, tau)
    assert (values[:2] == 1).all()
    assert values[-1] == 0
    if tau == 3:
        assert values[2] == {"early": 1, "late": 0}.get(name, 0.5)


@pytest.mark.parametrize(
    ("g", "tau"),
    [*((name, 6) for name in NAMED), (lambda s: (1 - s) ** 2, 4), ([1, 1, 0.2, 0.1, 0], 4)],
    ids=[*NAMED, "callable", "array"],
)
def test_one_relative_neuron_has_the_right_odds(g, tau):
    """The condition that defines f."""
    for bias in (-3.0, 0.0, 2.0):
        with pm.Model():
            z = pmn.BoltzmannMachine("z", np.zeros((1, 1)), [bias])
            T = transition_matrix(relative([z], tau=tau, g=g))
        on = stationary_distribution(T.matrix)[1:].sum()
        np.testing.assert_allclose(on, expit(bias), atol=1e-12)


def test_the_relative_mechanism_is_biased_and_says_so(rng):
    couplings, biases = symmetric(rng, 3, 2.0), rng.normal(size=3)
    with pm.Model():
        z = pmn.BoltzmannMachine("z", couplings, biases)
        with pytest.warns(UserWarning, match="relative' is approximate"):
            step = pmn.NeuralSampling([z], tau=3, refractory="relative")
        T = transition_matrix(step)
    code = (T.states > 0) @ [4, 2, 1]
    exact = np.bincount(code, extended_law(T.states, couplings, biases, 3))
    sampled = np.bincount(code, stationary_distribution(T.matrix))
    assert 1e-3 < np.abs(exact - sampled).sum() / 2 < 0.2
    assert "Approximate if" in pmn.NeuralSampling.__doc__


@pytest.mark.parametrize(
    ("tau", "g"),
    [
        (3, "linear"),
        (3, "early"),
        *(pytest.param(3, g, marks=pytest.mark.slow) for g in ("smooth", "late")),
        *(pytest.param(6, g, marks=pytest.mark.slow) for g in NAMED),
    ],
)
def test_bias_is_that_of_the_table_in_the_docs(tau, g):
    """Mean and largest of ten networks, to the four digits printed for each scale of the couplings."""
    page = (Path(__file__).parents[2] / "docs" / "exactness.md").read_text()
    (row,) = re.findall(rf"^\| {tau} +\| `{g}` *\|(.*)\|$", page, re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")]
    for cell, scale in zip(cells, (0.3, 0.6, 1.2, 2.4), strict=True):
        rng = np.random.default_rng(1)
        bias = [relative_bias(symmetric(rng, 3, scale), rng.normal(size=3), tau, g) for _ in range(10)]
        assert cell == f"{np.mean(bias):.4f} ({max(bias):.4f})"


def relative_bias(couplings, biases, tau, g):
    """Return the total variation distance of the neurons' own stationary law from the network's."""
    with pm.Model():
        z = pmn.BoltzmannMachine("z", couplings, biases)
        T = transition_matrix(relative([z], tau=tau, g=g))
    code = (T.states > 0) @ [4, 2, 1]
    exact = np.bincount(code, extended_law(T.states, couplings, biases, tau))
    return np.abs(exact - np.bincount(code, stationary_distribution(T.matrix))).sum() / 2


@pytest.mark.parametrize("through_logp", [False, True])
@pytest.mark.parametrize("g", [[1, 1, 0, 0, 0], [1, 1, 0.6, 0.3, 0]], ids=str)
def test_relative_units_that_are_on_start_from_their_stationary_law(g, through_logp):
    """Frequencies of 4 counters in 3000 starts, within 5 standard errors: false-alarm rate 2e-6."""
    n, bias = 3000, 0.5
    with pm.Model() as model:
        if through_logp:
            z = pm.Bernoulli("z", logit_p=np.float64(bias), shape=n)
        else:
            z = pmn.BoltzmannMachine("z", scipy.sparse.csr_array((n, n)), np.full(n, bias))
        step = relative([z], tau=4, g=g)
    counters = start_counters(step, {**model.initial_point(), "z": np.ones(n, np.int64)})
    stay = 1 - np.array(g) * firing_probability(bias, 4, np.array(g, float))
    expected = np.array([stay[2:].prod(), stay[3:].prod(), stay[4], 1.0])
    expected /= expected.sum()
    frequencies = np.bincount(counters, minlength=5)[1:] / n
    assert (np.abs(frequencies - expected) < 5 * np.sqrt(expected / n)).all()


def start_counters(step, point):
    """Return the counters that a chain starts with, before time goes by."""
    (sampler,) = step.samplers
    sampler.start()
    sampler.read(point)
    ones = point["z"] > 0
    counters = np.zeros(ones.size, np.int64)
    if isinstance(sampler, SpikingLogp):
        logits = sampler.reduced.logits
    else:
        logits = partial(sampler._logits, sampler.reduced.fields[0], ones)
    renew(counters, ones, step.dynamics, logits, RandomDecisions(np.random.default_rng(7)))
    return counters


# ---------------------------------------------------------------------------------- the refractory state


def test_setting_the_counters_of_units_that_are_on_to_tau_is_a_bias(rng):
    """Start exactly at p(z): with uniform counters it stays there, with ζ = tau it is far off some steps later."""
    couplings, biases, tau = symmetric(rng, 2), np.zeros(2), 20
    with pm.Model():
        z = pmn.BoltzmannMachine("z", couplings, biases)
        T = transition_matrix(pmn.NeuralSampling([z], tau=tau))
    p = extended_law(T.states, couplings, biases, tau)
    code = (T.states > 0) @ [2, 1]
    exact = np.bincount(code, p)
    newest = np.all((T.states == 0) | (T.states == tau), axis=1)
    wrong = np.zeros(len(p))
    wrong[newest] = exact[code[newest]]

    def distance_later(start, n_steps):
        law = start @ np.linalg.matrix_power(T.matrix, n_steps)
        return np.abs(np.bincount(code, law) - exact).sum() / 2

    assert max(distance_later(p, n) for n in (1, 19, 20)) < 1e-12
    assert max(distance_later(wrong, n) for n in (1, 19, 20)) > 0.3


def counters_of(step):
    return step.samplers[0].counters[0]


def test_units_that_are_on_at_the_start_get_uniform_counters(rng):
    """5 counters of 5000 units: chi-squared test with a false-alarm rate of 1e-4."""
    n, tau = 5000, 5
    with pm.Model() as model:
        z = pmn.BoltzmannMachine("z", scipy.sparse.csr_array((n, n)), np.full(n, 50.0), initval=np.ones(n, int))
        step = pmn.NeuralSampling([z], tau=tau, rng=1)
    step.setup_chain(np.random.default_rng(5), 0, 1)
    # With such a bias nobody goes off, and one step turns uniform counters into uniform counters.
    step.step({**model.initial_point(), "z": np.ones(n, np.int64)})
    counts = np.bincount(counters_of(step), minlength=tau + 1)
    assert counts[0] == 0
    assert scipy.stats.chisquare(counts[1:]).pvalue > 1e-4


def test_counters_stay_with_the_units_that_no_other_step_changed(rng):
    n, tau = 50, 1000
    with pm.Model() as model:
        z = pmn.BoltzmannMachine("z", scipy.sparse.csr_array((n, n)), np.zeros(n))
        step = pmn.NeuralSampling([z], tau=tau)
    point, _ = step.step({**model.initial_point(), "z": np.ones(n, np.int64)})
    before = counters_of(step).copy()
    z = point["z"].copy()
    z[:10] = 1 - z[:10]
    after, _ = step.step({**point, "z": z})
    old_on = before > 1
    np.testing.assert_array_equal(counters_of(step)[10:][old_on[10:]], before[10:][old_on[10:]] - 1)
    changed_off = np.flatnonzero(z[:10] == 0)
    assert (after["z"][changed_off] == (counters_of(step)[changed_off] == tau)).all()


def auxiliary_model(rng, hidden_bias=0.0, **kwargs):
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", rng.normal(size=(6, 30)), np.zeros(6), hidden_bias + np.zeros(30), **kwargs)
        step = pmn.NeuralSampling([v], tau=1000)
    return model, step


def hidden_counters(step):
    return counters_of(step)[:30].copy()


def test_auxiliary_neurons_persist_until_another_step_changes_the_visible_units(rng):
    model, step = auxiliary_model(rng)
    point, _ = step.step({**model.initial_point(), "v": np.ones(6, np.int64)})
    before = hidden_counters(step)
    point, _ = step.step(point)
    old = before > 1
    np.testing.assert_array_equal(hidden_counters(step)[old], before[old] - 1)
    before = hidden_counters(step)
    step.step({**point, "v": 1 - point["v"]})
    after = hidden_counters(step)
    old = before > 1
    assert (after[old] == before[old] - 1).mean() < 0.5


def test_auxiliary_neurons_are_drawn_anew_when_their_parameters_change(rng):
    with pm.Model() as model:
        bias = pm.Normal("bias")
        pull = pm.Normal("pull")
        v = pmn.BernoulliRBM("v", np.zeros((6, 12)), np.zeros(6), bias + np.zeros(12), normalize="exact")
        pm.Potential("evidence", pull * v)
        step = pmn.NeuralSampling([v], tau=1000)
    point, _ = step.step({**model.initial_point(), "bias": np.array(50.0)})
    before = counters_of(step)[:12].copy()
    assert (before > 0).all()
    # Evidence on v says nothing about h given v, so they persist ...
    point, _ = step.step({**point, "pull": np.array(0.1)})
    np.testing.assert_array_equal(counters_of(step)[:12], before - 1)
    # ... but not under another p(h | v).
    step.step({**point, "bias": np.array(-50.0)})
    assert (counters_of(step)[:12] == 0).all()


def test_sampling_state_round_trip(rng):
    with pm.Model() as model:
        scale = pm.HalfNormal("scale")
        v = pmn.BernoulliRBM("v", scale * rng.normal(size=(4, 3)), np.zeros(4), np.zeros(3), normalize="exact")
        z = pm.Bernoulli("z", 0.4, shape=3)
        pm.Potential("pair", 1.0 * z[0] * z[1])
        step, other = (pmn.NeuralSampling([v, z], tau=4, steps_per_draw=2, rng=seed) for seed in (1, 99))
    point = model.initial_point()
    for _ in range(3):
        point, _ = step.step(point)
    state = cloudpickle.loads(cloudpickle.dumps(step.sampling_state))

    def go_on(step, point):
        draws = []
        for _ in range(5):
            point, (stats,) = step.step(point)
            draws.append([*point["v"], *point["z"], stats["network_energy"], stats["spikes"]])
        return draws

    expected = go_on(step, point)
    other.sampling_state = state
    assert equal_dataclass_values(other.sampling_state, state)
    assert go_on(other, point) == expected
    step.sampling_state = state
    assert go_on(step, point) == expected


@pytest.mark.parametrize("options", [{"tau": 5}, {"time": "continuous"}], ids=["discrete", "continuous"])
def test_chains_of_one_instance_do_not_depend_on_each_other(small, options):
    model = rbm_model(small, hidden=False)
    with model:
        step = pmn.NeuralSampling([model["v"]], **options)
    point = {**model.initial_point(), "v": np.array([1, 1])}

    def chain(n_before):
        for _ in range(n_before):
            step.step(point)
        step.setup_chain(np.random.default_rng(5), 0, 10)
        return [step.step(point)[0]["v"].tolist() for _ in range(5)]

    assert chain(0) == chain(7)


def test_a_step_leaves_the_old_point_alone(small):
    model = rbm_model(small)
    with model:
        step = pmn.NeuralSampling(model.free_RVs, tau=2)
    point = model.initial_point()
    before = {name: value.copy() for name, value in point.items()}
    for _ in range(5):
        step.step(point)
    for name, value in before.items():
        np.testing.assert_array_equal(point[name], value)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_draws_do_not_depend_on_the_processes(small, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    with rbm_model(small, hidden=False) as model:
        z = pm.Bernoulli("z", 0.4, shape=2)
        step = pmn.NeuralSampling([model["v"], z], tau=3, steps_per_draw=2, record_spikes=True)
        options = {"draws": 20, "tune": 5, "chains": 2, "random_seed": 11, "step": step, **QUIET}
        alone = pm.sample(cores=1, **options)
        together = pm.sample(cores=2, mp_ctx=method, **options)
    for group in ("posterior", "sample_stats"):
        for name in alone[group].data_vars:
            np.testing.assert_array_equal(alone[group][name], together[group][name])


# ---------------------------------------------------------------------------------- any binary model


def regression(model, rng):
    z = pm.Bernoulli("z", 0.4, shape=3)
    pm.Normal("y", pm.math.dot(rng.normal(size=(4, 3)), 1.0 * z), 1, observed=rng.normal(size=4))
    return [z]


def two_variables(model, rng):
    a = pm.Bernoulli("a", 0.3)
    b = pm.Bernoulli("b", pm.math.switch(a, 0.8, 0.1), shape=2)
    pm.Potential("pair", -1.5 * (b.sum() - a) ** 2)
    return [b, a]


def masked_bits(model, rng):
    z = pm.Bernoulli("z", 0.4, observed=masked([1, 0, 1], [0, 1, 1]))
    pm.Potential("odd", 1.0 * z[0] * z[1] * z[2])
    return [z]


def spins_with_a_joint_term(model, rng):
    z = pmn.Ising("z", symmetric(rng, 3), rng.normal(size=3))
    pm.Potential("magnetization", -0.4 * z.sum() ** 2)
    return [z]


def rbm_with_a_term_on_both_layers(model, rng):
    v = pmn.BernoulliRBM("v", rng.normal(size=(2, 2)), np.zeros(2), np.zeros(2))
    h = pmn.HiddenUnits("h", v)
    pm.Potential("bridge", 1.0 * v[0] * h[0])
    return [v, h]


def rbm_with_auxiliary_units(model, rng):
    v = pmn.BernoulliRBM("v", rng.normal(size=(3, 2)), np.zeros(3), np.zeros(2))
    pm.Potential("two", -1.0 * (v.sum() - 2) ** 2)
    return [v]


def impossible_states(model, rng):
    """One unit at most, of three."""
    z = pm.Bernoulli("z", 0.4, shape=3)
    pm.Potential("one", pm.math.switch(z.sum() > 1, -np.inf, 0.0))
    return [z]


BINARY_MODELS = [
    regression,
    two_variables,
    masked_bits,
    spins_with_a_joint_term,
    rbm_with_a_term_on_both_layers,
    rbm_with_auxiliary_units,
    impossible_states,
]


@pytest.mark.parametrize("build", BINARY_MODELS)
def test_any_binary_model_through_its_logp(rng, build):
    with pm.Model() as model:
        order = "random" if build is two_variables else "sequential"
        step = pmn.NeuralSampling(build(model, rng), tau=2, order=order, compile_kwargs=IN_PYTHON)
    assert set(step.through_logp) == {value.name for value in step.vars}
    for all_at_once in (False, True):
        for gains in step.samplers[0].reduced.gains.values():
            gains.all_at_once = all_at_once
        certificate = pmn.diagnostics.certify(step)
        assert certificate.invariant, str(certificate)
        assert certificate.irreducible


def test_networks_and_bernoulli_variables_in_one_step(rng, certify):
    """A term that joins both makes them take turns at every step."""
    with pm.Model() as model:
        s = pmn.Ising("s", symmetric(rng, 2), rng.normal(size=2))
        coin = pm.Bernoulli("coin", 0.3)
        pm.Normal("y", s + 2.0 * coin, 1, observed=rng.normal(size=2))
        step = pmn.NeuralSampling([s, coin], tau=2, steps_per_draw=3)
    assert step.through_logp == ("coin",)
    assert step._n_rounds == 3
    certify(step, model.initial_point())


def test_a_coin_that_decides_on_the_couplings_of_a_network(rng, certify):
    with pm.Model() as model:
        coin = pm.Bernoulli("coin", 0.3)
        s = pmn.Ising("s", symmetric(rng, 2), rng.normal(size=2), coupling=1.0 + coin, normalize="exact")
        step = pmn.NeuralSampling([s, coin], tau=2, compile_kwargs=IN_PYTHON)
    assert step._n_rounds == 1
    assert len(step.samplers) == 2
    certify(step, model.initial_point())


def test_the_other_methods_name_the_way_out(rng):
    with pm.Model() as model:
        spins_with_a_joint_term(model, rng)
        with pytest.raises(ValueError, match=r"Use NeuralSampling \(tau=1 is Gibbs sampling\)"):
            pmn.BlockGibbs(model.free_RVs)


def test_the_logits_are_found_both_ways(rng):
    with pm.Model() as model:
        z = regression(model, rng)[0]
        step = pmn.NeuralSampling([z])
    (gains,) = step.samplers[0].reduced.gains.values()
    logp = model.compile_logp(**IN_PYTHON)
    for bits in itertools.product((0, 1), repeat=3):
        point = {"z": np.array(bits)}
        exact = []
        for k in range(3):
            high, low = point["z"].copy(), point["z"].copy()
            high[k], low[k] = 1, 0
            exact.append(logp({"z": high}) - logp({"z": low}))
        np.testing.assert_allclose(gains.of_all(point), exact, atol=1e-12)
        np.testing.assert_allclose([gains.of_one(point, k) for k in range(3)], exact, atol=1e-12)


@pytest.mark.parametrize("check_bounds", [True, False])
def test_a_parameter_out_of_bounds_excludes_one_state_alone(check_bounds):
    with pm.Model(check_bounds=check_bounds):
        z = pm.Bernoulli("z", 0.5, shape=2)
        pm.Bernoulli("y", p=0.7 + 0.5 * z[0] + 0.1 * z[1], observed=1)
        step = pmn.NeuralSampling([z], compile_kwargs=IN_PYTHON)
    (gains,) = step.samplers[0].reduced.gains.values()
    first = -np.inf if check_bounds else np.log(1.2 / 0.7)
    point = {"z": np.array([0, 0])}
    for logits in (gains.of_all(point), [gains.of_one(point, k) for k in (0, 1)]):
        np.testing.assert_allclose(logits, [first, np.log(0.8 / 0.7)], rtol=1e-6)


@pytest.mark.parametrize("all_at_once", [False, True])
@pytest.mark.parametrize("wrong", [-np.inf, np.nan])
def test_a_unit_without_a_possible_value_is_an_error(wrong, all_at_once):
    with pm.Model() as model:
        z = pm.Bernoulli("z", 0.4, shape=2)
        pm.Potential("p", pm.math.switch(z[1] > -1, wrong, 0.0))
        step = pmn.NeuralSampling([z], tau=2, compile_kwargs=IN_PYTHON)
    next(iter(step.samplers[0].reduced.gains.values())).all_at_once = all_at_once
    with pytest.raises(ValueError, match="neither value of unit 0 of 'z' a probability"):
        step.step(model.initial_point())


def test_energy_is_minus_the_logp(rng):
    for build in (regression, two_variables, rbm_with_a_term_on_both_layers, impossible_states):
        with pm.Model() as model:
            step = pmn.NeuralSampling(build(model, rng), tau=2, compile_kwargs=IN_PYTHON)
        logp = model.compile_logp(**IN_PYTHON)
        point, (stats,) = step.step(model.initial_point())
        np.testing.assert_allclose(stats["network_energy"], -logp(point), atol=1e-12)


# ---------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("options", [{"tau": 3}, {"time": "continuous", "steps_per_draw": 0.5}], ids=["tau 3", "time"])
def test_energy_of_networks_is_minus_the_logp(small, options):
    for arguments in ({}, {"hidden": False}, {"v_observed": masked([1, 0], [0, 1])}, {"h_observed": np.array([1, 0])}):
        model = rbm_model(small, **arguments)
        logp = model.compile_logp(**IN_PYTHON)
        with model:
            step = pmn.NeuralSampling(model.free_RVs, **options)
        point = model.initial_point()
        for _ in range(5):
            point, (stats,) = step.step(point)
            np.testing.assert_allclose(stats["network_energy"], -logp(point), atol=1e-12)


def test_rate_counts_spikes_per_neuron_and_refractory_period(small):
    model = rbm_model(small, hidden=False)
    for options, periods in (
        ({"tau": 5, "steps_per_draw": 20}, 4),
        ({"time": "continuous", "tau": 7.0, "steps_per_draw": 2.5}, 2.5),
    ):
        with model:
            step = pmn.NeuralSampling([model["v"]], record_spikes=True, **options)
        _, (stats,) = step.step(model.initial_point())
        assert stats["rate"] == stats["spikes"] / (4 * periods)  # two neurons are auxiliary
        spikes = unpack_spikes(stats["spike_raster"])
        assert spikes.n_neurons == 4
        assert spikes.units.size == stats["spikes"]
        assert (np.diff(spikes.times) >= 0).all()
        assert step.neurons_of == {"v": range(2)}


def test_the_raster_is_that_of_the_state(rng):
    """In discrete time z is 1 for tau steps after each spike, so the raster says which units are on."""
    n, tau, steps = 6, 4, 12
    with pm.Model() as model:
        z = pmn.Ising("z", pmn.lattice((2, 3)), rng.normal(size=(2, 3)))
        step = pmn.NeuralSampling([z], tau=tau, steps_per_draw=steps, record_spikes=True)
    point = model.initial_point()
    for _ in range(5):
        point, (stats,) = step.step(point)
        spikes = unpack_spikes(stats["spike_raster"])
        assert (spikes.n_neurons, spikes.duration, spikes.tau, spikes.once) == (n, steps, tau, True)
        on = np.isin(np.arange(n), spikes.units[spikes.times >= steps - tau])
        np.testing.assert_array_equal(point["z"].ravel() == 1, on)


# ---------------------------------------------------------------------------------- inside PyMC


def test_it_is_never_chosen_by_itself(small):
    with rbm_model(small) as model:
        coin = pm.Bernoulli("coin", 0.5)
        _, assigned = pm.sampling.mcmc.assign_step_methods(model)
    assert pmn.NeuralSampling in STEP_METHODS
    assert pmn.NeuralSampling not in assigned
    assert pmn.NeuralSampling.competence(model["v"]) is Competence.INCOMPATIBLE
    assert pmn.NeuralSampling.competence(coin) is Competence.INCOMPATIBLE


def test_progress_bar_has_columns_of_its_own(small, capsys):
    with rbm_model(small) as model:
        step = pmn.NeuralSampling(model.free_RVs)
        pm.sample(20, tune=0, chains=1, cores=1, step=step, progressbar=True, compute_convergence_checks=False)
    printed = capsys.readouterr().out
    assert "Energy" in printed
    assert "Rate" in printed


def test_shared_data_are_read_again_for_each_chain(small):
    W, _, b = small
    with pm.Model():
        bias = pm.Data("bias", np.full(2, 300.0))
        v = pmn.BernoulliRBM("v", W, bias, b)
        step = pmn.NeuralSampling([v], tau=2, steps_per_draw=4)
        options = {"tune": 0, "chains": 1, "cores": 1, "random_seed": 1, "step": step, **QUIET}
        assert pm.sample(10, **options).posterior["v"].values.all()
        pm.set_data({"bias": np.full(2, -300.0)})
        assert not pm.sample(10, **options).posterior["v"].values.any()


def test_draws_are_int64_and_spins_stay_spins(rng):
    with pm.Model():
        z = sparse_spins(rng)
        idata = pm.sample(20, tune=0, chains=1, cores=1, step=pmn.NeuralSampling([z], tau=3), **QUIET)
    values = idata.posterior["z"].values
    assert values.dtype == np.int64
    assert set(np.unique(values)) == {-1, 1}


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tau": 0}, ValueError, "tau must be at least 1, got 0"),
        ({"tau": 2.5}, TypeError, "tau must be an integer in discrete time, got 2.5"),
        ({"tau": True}, TypeError, "tau must be an integer"),
        ({"tau": "20"}, TypeError, "tau must be an integer"),
        ({"tau": 2**24}, ValueError, "tau must be below"),
        ({"tau": 0.0, "time": "continuous"}, ValueError, "tau must be positive and finite, got 0"),
        ({"tau": np.inf, "time": "continuous"}, ValueError, "tau must be positive and finite"),
        ({"steps_per_draw": 0}, ValueError, "steps_per_draw must be at least 1, got 0"),
        ({"steps_per_draw": 1.5}, TypeError, "steps_per_draw must be an integer in discrete time"),
        ({"steps_per_draw": -1.0, "time": "continuous"}, ValueError, "steps_per_draw must be positive"),
        ({"steps_per_draw": np.nan, "time": "continuous"}, ValueError, "steps_per_draw must be positive"),
        ({"time": "real"}, ValueError, "time must be one of 'discrete', 'continuous', got 'real'"),
        ({"refractory": "none"}, ValueError, "refractory must be one of"),
        ({"order": "parallel"}, ValueError, "order must be one of 'sequential', 'random', 'blocks', got 'parallel'"),
        ({"order": "random", "time": "continuous"}, ValueError, "order='random' has no meaning in continuous time"),
        ({"refractory": "relative", "time": "continuous"}, ValueError, "refractory='relative' is for discrete time"),
        ({"refractory": "relative", "tau": 1}, ValueError, "refractory='relative' needs tau of at least 2"),
        ({"g": "linear"}, ValueError, "g is the refractory function of refractory='relative'"),
        ({"record_spikes": 1}, TypeError, "record_spikes must be True or False, got 1"),
    ],
)
def test_bad_options(small, options, error, message):
    with rbm_model(small) as model, pytest.raises(error, match=message):
        pmn.NeuralSampling(model.free_RVs, **options)


@pytest.mark.parametrize(
    ("g", "error", "message"),
    [
        (
            "square",
            ValueError,
            r"g must be one of \['early', 'late', 'linear', 'smooth'\], a function or an array, got 'square'",
        ),
        (object(), TypeError, "g must be the name of a function, a function or an array"),
        ([1, 1, 0], ValueError, r"g must have tau \+ 1 = 5 values, for the counters 0 to tau, got shape \(3,\)"),
        ([1, 1, 0.5, 0.5, -0.1], ValueError, "g must be between 0 and 1 everywhere"),
        ([1, 1, np.nan, 0, 0], ValueError, "g must be between 0 and 1 everywhere"),
        ([1, 0.5, 0.2, 0, 0], ValueError, "g must be 1 for the counters 0 and 1"),
        (lambda s: s, ValueError, "g must be 1 for the counters 0 and 1"),
    ],
)
def test_bad_refractory_functions(small, g, error, message):
    with rbm_model(small) as model, pytest.raises(error, match=message):
        relative(model.free_RVs, tau=4, g=g)


def test_other_distributions_are_refused():
    with pm.Model():
        x = pm.Categorical("x", [0.5, 0.5])
        with pytest.raises(ValueError, match="'x' with the distribution Categorical"):
            pmn.NeuralSampling([x])


def test_blocks_of_a_model_without_known_couplings_are_refused():
    with pm.Model():
        z = pm.Bernoulli("z", 0.4, shape=2)
        with pytest.raises(ValueError, match="order='blocks' needs to know which neurons interact"):
            pmn.NeuralSampling([z], order="blocks")


def test_minibatches_are_refused(rng):
    with pm.Model():
        z = pm.Bernoulli("z", 0.4, shape=3)
        data = pm.Minibatch(rng.normal(size=100), batch_size=10)
        pm.Normal("y", z.sum(), 1, observed=data, total_size=100)
        with pytest.raises(ValueError, match="the term 'y' of the model sees a minibatch"):
            pmn.NeuralSampling([z])


def test_random_parameters_without_a_normalizer_are_refused(small):
    W, a, b = small
    with pm.Model():
        v = pmn.BernoulliRBM("v", pm.HalfNormal("scale") * W, a, b)
        with pytest.raises(ValueError, match=r"depend on other random variables \(scale\)"):
            pmn.NeuralSampling([v])


def test_start_values_that_are_no_units_are_refused():
    with pm.Model() as model:
        z = pm.Bernoulli("z", 0.4, shape=2)
        step = pmn.NeuralSampling([z])
    with pytest.raises(ValueError, match="start value of 'z' must be 0 or 1 everywhere, got 3"):
        step.step({**model.initial_point(), "z": np.array([0, 3])})


def test_continuous_time_has_no_transition_matrix(small):
    with rbm_model(small) as model:
        step = pmn.NeuralSampling(model.free_RVs, time="continuous")
    with pytest.raises(TypeError, match="in continuous time a step makes no finite number of decisions"):
        pmn.diagnostics.certify(step)


def test_too_many_extended_states(rng):
    with pm.Model():
        z = pmn.BoltzmannMachine("z", symmetric(rng, 4), np.zeros(4))
        with pytest.raises(ValueError, match=r"4 units with 14641 states, refractory counters included"):
            pmn.diagnostics.certify(pmn.NeuralSampling([z], tau=10))
