"""BlockGibbs on RBMs with Gaussian visible units: conditionals, clamping, evidence, processes, bad input."""

import cloudpickle
import numpy as np
import pymc as pm
import pytest
from pymc.step_methods.compound import Competence
from scipy.special import expit
from scipy.stats import chisquare

import pm_neural as pmn

pytestmark = [
    pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning"),
    pytest.mark.filterwarnings("ignore:.*number of samples"),
]

QUIET = {"progressbar": False, "compute_convergence_checks": False}


@pytest.fixture
def parameters(rng):
    return rng.normal(size=(3, 4)), rng.normal(size=3), rng.normal(size=4), rng.uniform(0.5, 1.5, 3)


def masked(values, free):
    return np.ma.masked_array(values, mask=free)


def model_with(parameters, v_observed=None, h_observed=None, hidden=True, **kwargs):
    with pm.Model() as model:
        v = pmn.GaussianRBM("v", *parameters, observed=v_observed, **kwargs)
        if hidden:
            pmn.HiddenUnits("h", v, observed=h_observed)
    return model


CLAMPED_V = masked([0.7, np.nan, -1.3], [0, 1, 0])
CLAMPED_H = masked([1, 0, 0, 1], [0, 1, 1, 0])

OPTIONS = [
    {},
    {"hidden": False},
    {"v_observed": CLAMPED_V},
    {"v_observed": CLAMPED_V, "hidden": False},
    {"h_observed": CLAMPED_H},
    {"h_observed": np.array([1, 0, 1, 1])},
    {"v_observed": CLAMPED_V, "h_observed": CLAMPED_H},
    {"v_observed": np.array([0.7, 2.0, -1.3])},
]


# ---------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("order", ["fixed", "random"])
@pytest.mark.parametrize("options", [OPTIONS[i] for i in (0, 6, 7)])
def test_the_hidden_units_given_the_visible_ones(parameters, options, order, certify):
    """The exact law of h given v is left as it is to 1e-12 by the kernel that the step runs."""
    model = model_with(parameters, **options)
    with model:
        step = pmn.BlockGibbs([model["h"]], order=order)
    point = model.initial_point()
    if "v" in point:
        point["v"] = np.array([0.3, -2.0, 1.1])
    certify(step, point)


def hidden_evidence(model):
    flip = pm.Beta("flip", 2, 20)
    pm.Bernoulli("y", pm.math.switch(model["h"] > 0, 1 - flip, flip), observed=[1, 0, 0, 1])


def evidence_that_also_depends_on_v(model):
    pm.Normal("y", model["h"] * model["v"].sum(), 1, observed=[0.3, -1.0, 0.2, 1.5])


@pytest.mark.parametrize("terms", [hidden_evidence, evidence_that_also_depends_on_v])
def test_evidence_on_the_hidden_units(parameters, terms, certify):
    model = model_with(parameters)
    with model:
        terms(model)
        step = pmn.BlockGibbs([model["h"]])
    point = model.initial_point()
    point["v"] = np.array([0.3, -2.0, 1.1])
    certify(step, point)


@pytest.mark.parametrize("v_observed", [None, CLAMPED_V], ids=["free", "clamped_v"])
@pytest.mark.parametrize("h_observed", [None, CLAMPED_H], ids=["free", "clamped_h"])
def test_the_visible_units_given_the_hidden_ones(parameters, v_observed, h_observed):
    """The draws of one stream minus a + Wh, over sigma, are the same normal numbers whatever h and the clamp."""
    W, a, _, sigma = parameters
    model = model_with(parameters, v_observed=v_observed, h_observed=h_observed)
    with model:
        step = pmn.BlockGibbs([model["v"]])
    is_free = np.ones(3, bool) if v_observed is None else np.ma.getmaskarray(v_observed)
    hidden = "h" if h_observed is None else "h_unobserved"
    point = model.initial_point()
    noise = []
    for k in range(4):
        point[hidden] = (k + np.arange(point[hidden].size)) % 3 % 2
        step.setup_chain(np.random.default_rng(5), 0, 1)
        new, _ = step.step(point)
        v, h = complete(v_observed, new, "v"), complete(h_observed, new, "h")
        noise.append(((v - a - W @ h) / sigma)[is_free])
    np.testing.assert_allclose(noise, np.broadcast_to(noise[0], (4, noise[0].size)), atol=1e-12)
    assert np.abs(noise[0]).max() < 5


def energy_of(parameters, v, h):
    W, a, b, sigma = parameters
    return ((v - a) ** 2 / (2 * sigma**2)).sum() - b @ h - (v / sigma**2) @ W @ h


def complete(data, point, name):
    """Values of a layer, of which data may clamp a part."""
    if data is None:
        return point[name]
    free = np.ma.getmaskarray(data)
    whole = np.array(np.ma.getdata(data), float)
    if free.any():
        whole[free] = point[f"{name}_unobserved"]
    return whole


@pytest.mark.parametrize("order", ["fixed", "random"])
@pytest.mark.parametrize("options", OPTIONS)
def test_energy_is_that_of_the_draw(parameters, options, order):
    """E(v, h), or the free energy F(v) where the model has no hidden units; clamped units count."""
    model = model_with(parameters, **options)
    with model:
        step = pmn.BlockGibbs(model.free_RVs, sweeps_per_draw=3, order=order)
    point = model.initial_point()
    for _ in range(3):
        point, (stats,) = step.step(point)
        v = complete(options.get("v_observed"), point, "v")
        if options.get("hidden", True):
            expected = energy_of(parameters, v, complete(options.get("h_observed"), point, "h"))
        else:
            W, _, b, sigma = parameters
            expected = energy_of(parameters, v, np.zeros(4)) - np.logaddexp(0, b + (v / sigma**2) @ W).sum()
        np.testing.assert_allclose(stats["network_energy"], expected, atol=1e-11)


def test_energy_leaves_evidence_out(parameters):
    model = model_with(parameters)
    with model:
        hidden_evidence(model)
        pm.Potential("never", pm.math.switch(model["h"] > np.array([0, 1, 1, 1]), -np.inf, 0.0))
        step = pmn.BlockGibbs([model["v"], model["h"]])
    point = model.initial_point() | {"h": np.zeros(4, int)}
    for _ in range(5):
        point, (stats,) = step.step(point)
        assert point["h"][0] == 0
        np.testing.assert_allclose(stats["network_energy"], energy_of(parameters, point["v"], point["h"]), atol=1e-12)


def test_flip_rate_counts_the_two_valued_units(parameters):
    model = model_with(parameters)
    with model:
        step = pmn.BlockGibbs(model.free_RVs)
        visible = pmn.BlockGibbs([model["v"]])
    point, _ = step.step(model.initial_point())
    for _ in range(5):
        new, (stats,) = step.step(point)
        assert stats["flip_rate"] == np.mean(new["h"] != point["h"])
        point = new
    assert visible.step(point)[1][0]["flip_rate"] == 0.0


# ---------------------------------------------------------------------------------- random order


def test_a_random_order_picks_one_layer_after_the_other(rng):
    """Of two picks, each pair of layers is as likely; v tells which h it was drawn for.

    Chi-square test of 400 steps, false-alarm rate 1e-4 (fixed seed).
    """
    with pm.Model() as model:
        v = pmn.GaussianRBM("v", np.full((1, 1), 5.0), np.zeros(1), np.full(1, 1e6), np.full(1, 0.1))
        pmn.HiddenUnits("h", v)
        step = pmn.BlockGibbs(model.free_RVs, order="random")
    step.setup_chain(rng, 0, 1)
    point = {"v": np.array([-9.0]), "h": np.array([0])}
    expected = {(0, 0): (-9, 1), (1, 1): (0, 0), (0, 1): (5, 1), (1, 0): (0, 1)}
    counts = dict.fromkeys(expected.values(), 0)
    for _ in range(400):
        new, (stats,) = step.step(point)
        assert stats["flip_rate"] == new["h"][0]
        counts[round(new["v"][0]), int(new["h"][0])] += 1
    assert chisquare(list(counts.values())).pvalue > 1e-4


def test_a_layer_that_is_not_picked_stays(parameters, rng):
    """The visible units of two machines, one pick each on average: energies count all the same."""
    W, a, b, sigma = parameters
    with pm.Model() as model:
        for name in "uv":
            pmn.HiddenUnits(f"h_{name}", pmn.GaussianRBM(name, W, a, b, sigma))
        step = pmn.BlockGibbs([model["u"], model["v"]], order="random")
    step.setup_chain(rng, 0, 1)
    point, _ = step.step(model.initial_point())
    n_changed = set()
    for _ in range(20):
        new, (stats,) = step.step(point)
        n_changed.add(sum(int((new[name] != point[name]).all()) for name in "uv"))
        energy = sum(energy_of(parameters, new[name], new[f"h_{name}"]) for name in "uv")
        assert stats["network_energy"] == pytest.approx(energy, abs=1e-11)
        assert stats["flip_rate"] == 0.0
        point = new
    assert n_changed == {1, 2}


def test_hidden_units_that_a_term_joins_in_random_order(parameters, certify):
    """Picks of the hidden units come between those of a field, and their evidence is read at each."""
    with model_with(parameters, v_observed=np.array([0.7, 2.0, -1.3])) as model:
        z = pmn.Ising("z", np.zeros((4, 4)), np.full(4, 0.3))
        pm.Potential("bridge", 0.8 * model["h"] * z)
        steps = [pmn.BlockGibbs([model["h"], z], order=order) for order in ("fixed", "random")]
    for step in steps:
        certify(step, model.initial_point())


# ---------------------------------------------------------------------------------- inside PyMC


def test_a_bare_sample_picks_it(parameters):
    with model_with(parameters) as model:
        pm.Normal("x")
        _, assigned = pm.sampling.mcmc.assign_step_methods(model)
    names = {method.__name__: {var.name for var in vars} for method, vars in assigned.items()}
    assert names == {"BlockGibbs": {"v", "h"}, "NUTS": {"x"}}
    assert pmn.BlockGibbs.competence(model["v"], True) == Competence.IDEAL


def test_several_sweeps_are_one_draw(parameters):
    model = model_with(parameters)
    with model:
        one, three = (pmn.BlockGibbs(model.free_RVs, sweeps_per_draw=n) for n in (1, 3))
    point = model.initial_point()
    for step in (one, three):
        step.setup_chain(np.random.default_rng(3), 0, 1)
    assert not np.array_equal(one.step(point)[0]["v"], three.step(point)[0]["v"])
    assert three.stream.tolist() != one.stream.tolist()


def test_a_step_leaves_the_old_point_alone(parameters):
    model = model_with(parameters, v_observed=CLAMPED_V)
    with model:
        step = pmn.BlockGibbs(model.free_RVs)
    point = model.initial_point()
    before = {name: value.copy() for name, value in point.items()}
    for _ in range(5):
        step.step(point)
    for name, value in before.items():
        np.testing.assert_array_equal(point[name], value)


def test_shared_parameters_and_data_are_read_again_for_each_chain(parameters):
    W, _, _, sigma = parameters
    with pm.Model():
        bias = pm.Data("bias", np.full(3, 1e6))
        spread = pm.Data("spread", sigma)
        v = pmn.GaussianRBM("v", W, bias, np.zeros(4), spread)
        step = pmn.BlockGibbs([v])
        options = {"tune": 0, "chains": 1, "cores": 1, "random_seed": 1, "step": step, **QUIET}
        assert pm.sample(5, **options).posterior["v"].values.min() > 1e5
        pm.set_data({"bias": np.full(3, -1e6)})
        assert pm.sample(5, **options).posterior["v"].values.max() < -1e5
        pm.set_data({"spread": -sigma})
        with pytest.raises(ValueError, match="standard deviations sigma of 'v' must be positive"):
            pm.sample(5, **options)


def test_random_parameters_are_read_at_each_step(parameters):
    W, a, b, sigma = parameters
    with pm.Model() as model:
        shift = pm.Normal("shift")
        v = pmn.GaussianRBM("v", W, a + shift, b, sigma, normalize="exact")
        step = pmn.BlockGibbs([v])
    point = model.initial_point()
    for value in (1e6, -1e6, 1e6):
        point, _ = step.step({**point, "shift": np.array(value)})
        assert (np.sign(point["v"]) == np.sign(value)).all()


def test_a_batch_of_machines(rng):
    """Two machines whose hidden units are certain: v is a + W h of its own machine, up to sigma = 1e-6."""
    W, a = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3))
    b = np.array([[1e3, -1e3, 1e3, -1e3], [-1e3, 1e3, 1e3, 1e3]])
    data = masked([[np.nan, 5.0, np.nan], [np.nan] * 3], [[1, 0, 1], [1, 1, 1]])
    model = model_with((1e-6 * W, a, b, np.full(3, 1e-3)), v_observed=data)
    with model:
        step = pmn.BlockGibbs(model.free_RVs)
    point, _ = step.step(model.initial_point())
    assert point["v_unobserved"].shape == (5,)
    np.testing.assert_allclose(point["v_unobserved"], [a[0, 0], a[0, 2], *a[1]], atol=0.01)


def test_state_pickling_and_reproducibility(parameters):
    model = model_with(parameters, v_observed=CLAMPED_V)
    with model:
        step = pmn.BlockGibbs(model.free_RVs, sweeps_per_draw=2)
    copy = cloudpickle.loads(cloudpickle.dumps(step))
    point = model.initial_point()
    for one in (step, copy):
        one.setup_chain(np.random.default_rng(3), 0, 1)
    state = cloudpickle.loads(cloudpickle.dumps(step.sampling_state))
    first = [step.step(point)[0] for _ in range(3)]
    copied = [copy.step(point)[0] for _ in range(3)]
    step.sampling_state = state
    again = [step.step(point)[0] for _ in range(3)]
    for one, two, three in zip(first, copied, again, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
            np.testing.assert_array_equal(one[name], three[name])


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_draws_do_not_depend_on_the_processes(parameters, method):
    options = {"draws": 10, "tune": 5, "chains": 2, "random_seed": 11, **QUIET}
    with model_with(parameters, v_observed=CLAMPED_V):
        alone = pm.sample(cores=1, **options)
        together = pm.sample(cores=2, mp_ctx=method, **options)
    for name in ("v", "h"):
        np.testing.assert_array_equal(alone.posterior[name], together.posterior[name])


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("variables", [["v"], ["v", "h"]])
def test_evidence_on_the_visible_units_is_refused(parameters, variables):
    with model_with(parameters) as model:
        pm.Normal("noisy", model["v"], 0.1, observed=np.zeros(3))
        with pytest.raises(ValueError, match=r"the term 'noisy' .* pymc\.NUTS instead\. Its hidden units may stay"):
            pmn.BlockGibbs([model[name] for name in variables])
        step = pmn.BlockGibbs([model["h"]])
    p = expit(parameters[2] + (np.zeros(3) / parameters[3] ** 2) @ parameters[0])
    _, probabilities = step.forced_step(model.initial_point() | {"v": np.zeros(3)}, np.zeros(4, np.uint8))
    np.testing.assert_allclose(probabilities, p, atol=1e-12)


def test_random_parameters_without_a_normalizer(parameters):
    W, a, b, _ = parameters
    with pm.Model():
        v = pmn.GaussianRBM("v", W, a, b, pm.HalfNormal("sigma"))
        with pytest.raises(ValueError, match=r"depend on other random variables \(sigma\)"):
            pmn.BlockGibbs([v])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_start_values_that_are_not_finite(parameters, bad):
    with model_with(parameters) as model:
        step = pmn.BlockGibbs(model.free_RVs)
        with pytest.raises(ValueError, match="start value of 'v' must be finite everywhere"):
            step.step(model.initial_point() | {"v": np.array([0, bad, 1.0])})


def test_decisions_do_not_determine_real_units(parameters):
    with model_with(parameters) as model:
        step = pmn.BlockGibbs(model.free_RVs)
    with pytest.raises(TypeError, match="the visible units of 'v' are real numbers"):
        step.forced_step(model.initial_point(), np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match=r"two values per unit.* got 'v' with the distribution GaussianRBMRV"):
        pmn.diagnostics.certify(step)


@pytest.mark.parametrize("name", ["v", "h"])
def test_blocks_of_a_layer_are_refused(parameters, name):
    with model_with(parameters) as model:
        z = pmn.Ising("z", np.zeros((2, 2)))
        units = [[0], [1, 2]] if name == "v" else [[0, 1, 2], [3]]
        with pytest.raises(ValueError, match=f"blocks must not be of '{name}', a layer of an RBM with Gaussian units"):
            pmn.BlockGibbs([model["v"], model["h"], z], blocks={name: units})
        pmn.BlockGibbs([model["v"], model["h"], z], blocks={"z": [[1], [0]]})


def test_a_sigma_of_another_length(parameters):
    W, a, b, _ = parameters
    with pm.Model():
        v = pmn.GaussianRBM("v", W, a, b, pm.Data("sigma", np.ones(3)))
        pm.set_data({"sigma": np.ones(2)})
        with pytest.raises(ValueError, match=r"sigma of 'v' must have the shape \(3,\)"):
            pmn.BlockGibbs([v])
