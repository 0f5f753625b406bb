"""BlockGibbs inside PyMC: exactness, clamping, registration, state, processes, bad input."""

import multiprocessing

import cloudpickle
import numpy as np
import pymc as pm
import pytest
from pymc.step_methods import STEP_METHODS
from pymc.step_methods.compound import Competence, CompoundStep
from pymc.step_methods.state import equal_dataclass_values

import pm_neural as pmn

pytestmark = [
    pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning"),
    pytest.mark.filterwarnings("ignore:.*number of samples"),
]

QUIET = {"progressbar": False, "compute_convergence_checks": False}


def masked(values, free):
    return np.ma.masked_array(values, mask=free)


# ---------------------------------------------------------------------------------- exactness


def model_with(parameters, v_observed=None, h_observed=None, hidden=True, **kwargs):
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", *parameters, observed=v_observed, **kwargs)
        if hidden:
            pmn.HiddenUnits("h", v, observed=h_observed)
    return model


CLAMPED_V = masked([1, 0, 0, 1], [0, 1, 1, 0])
CLAMPED_H = masked([1, 0, 0], [0, 1, 1])


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ({}, ["v", "h"]),
        ({}, ["h", "v"]),
        ({"hidden": False}, ["v"]),
        ({}, ["v"]),
        ({}, ["h"]),
        ({"v_observed": CLAMPED_V}, ["v", "h"]),
        ({"v_observed": CLAMPED_V, "hidden": False}, ["v"]),
        ({"v_observed": CLAMPED_V}, ["v"]),
        ({"v_observed": CLAMPED_V}, ["h"]),
        ({"h_observed": CLAMPED_H}, ["v", "h"]),
        ({"h_observed": np.array([1, 0, 1])}, ["v"]),
        ({"v_observed": np.array([1, 0, 1, 1])}, ["h"]),
        ({"v_observed": CLAMPED_V, "h_observed": CLAMPED_H}, ["v", "h"]),
    ],
    ids=lambda value: "+".join(value) if value else "free",
)
def test_the_kernel_leaves_the_models_posterior_invariant(parameters, options, variables, certify):
    """The exact p of the model is left as it is to 1e-12 by the kernel that the step runs."""
    model = model_with(parameters, **options)
    with model:
        step = pmn.BlockGibbs([model[name] for name in variables])
    certify(step, model.initial_point())


# ---------------------------------------------------------------------------------- evidence


def normal(model):
    sigma = pm.HalfNormal("sigma")
    pm.Normal("y", 2 * model["v"] - 1, sigma, observed=[0.3, -1.0, 0.2, 1.5])


def bernoulli_of_two_layers(model):
    flip = pm.Beta("flip", 2, 20)
    pm.Bernoulli("y", pm.math.switch(model["v"] > 0, 1 - flip, flip), observed=[1, 0, 0, 1])
    pm.Poisson("counts", 0.5 + model["h"], observed=[1, 0, 2])


def replicates_groups_and_potentials(model):
    v = model["v"]
    pm.StudentT("y", nu=3, mu=pm.Deterministic("mu", v[None, :] * np.ones((5, 1))), sigma=1, observed=np.eye(5, 4))
    pm.Normal("grouped", v[np.array([0, 0, 1, 3, 3])], 1, observed=np.arange(5.0))
    pm.Potential("pull", pm.Normal("x", shape=4) * v)


def mixture(model):
    weights = pm.math.stack([0.8 - 0.5 * model["v"], 0.2 + 0.5 * model["v"]], axis=-1)
    pm.NormalMixture("y", weights, mu=[-1, 1], sigma=1, observed=[0.3, -1.0, 0.2, 1.5])


def child(model):
    pm.Normal("y", mu=model["v"])


def excluded_unit(model):
    pm.Potential("y", pm.math.switch(model["v"] > np.array([1, 0, 1, 1]), -np.inf, 0.0))


@pytest.mark.parametrize("clamped", [False, True], ids=["free", "clamped"])
@pytest.mark.parametrize(
    "terms", [normal, bernoulli_of_two_layers, replicates_groups_and_potentials, mixture, child, excluded_unit]
)
def test_the_kernel_conditions_on_evidence(parameters, terms, clamped, certify):
    model = model_with(parameters, v_observed=CLAMPED_V if clamped else None)
    with model:
        terms(model)
        layers = [rv for rv in model.free_RVs if rv.name in ("v", "v_unobserved", "h")]
        step = pmn.BlockGibbs(layers)
    point = model.initial_point()
    for name in ("sigma_log__", "flip_logodds__"):
        if name in point:
            point[name] = np.array(-0.7)
    certify(step, point)


@pytest.mark.parametrize("sweeps", [1, 2])
def test_terms_that_join_two_networks(rng, sweeps, certify):
    with pm.Model() as model:
        first = pmn.BernoulliRBM("first", rng.normal(size=(2, 1)), np.zeros(2), np.zeros(1))
        second = pmn.BernoulliRBM("second", rng.normal(size=(2, 1)), np.zeros(2), np.zeros(1))
        pm.Potential("bridge", 1.5 * first * second)
        step = pmn.BlockGibbs([first, second], sweeps_per_draw=sweeps)
    certify(step, model.initial_point())


def test_shared_data_of_a_term_are_read_again_for_each_chain(parameters):
    with pm.Model():
        v = pmn.BernoulliRBM("v", *parameters)
        data = pm.Data("data", np.full(4, 100.0))
        pm.Normal("y", 2 * v - 1, 1, observed=data)
        step = pmn.BlockGibbs([v])
        options = {"tune": 0, "chains": 1, "cores": 1, "random_seed": 1, "step": step, **QUIET}
        assert pm.sample(5, **options).posterior["v"].values.all()
        pm.set_data({"data": np.full(4, -100.0)})
        assert not pm.sample(5, **options).posterior["v"].values.any()


def test_energy_leaves_evidence_out(parameters):
    model = model_with(parameters)
    with model:
        bernoulli_of_two_layers(model)
        step = pmn.BlockGibbs([model["v"], model["h"]])
    point = model.initial_point()
    network = model.compile_logp(vars=[model["v"], model["h"]])
    for _ in range(5):
        point, (stats,) = step.step(point)
        np.testing.assert_allclose(stats["network_energy"], -network(point), atol=1e-12)


# ---------------------------------------------------------------------------------- statistics


def test_energy_is_minus_the_logp_of_the_draw(parameters):
    for options in ({}, {"hidden": False}, {"v_observed": CLAMPED_V}, {"h_observed": CLAMPED_H}):
        model = model_with(parameters, **options)
        logp = model.compile_logp()
        with model:
            step = pmn.BlockGibbs(model.free_RVs, sweeps_per_draw=3)
        point = model.initial_point()
        for _ in range(5):
            point, (stats,) = step.step(point)
            np.testing.assert_allclose(stats["network_energy"], -logp(point), atol=1e-12)


def test_flip_rate_counts_the_units_that_changed(parameters):
    model = model_with(parameters, v_observed=CLAMPED_V)
    with model:
        step = pmn.BlockGibbs(model.free_RVs)
    point, _ = step.step(model.initial_point())
    for _ in range(20):
        new, (stats,) = step.step(point)
        changed = sum((new[name] != point[name]).sum() for name in point)
        assert stats["flip_rate"] == changed / 5
        point = new


def test_a_step_leaves_the_old_point_alone(parameters):
    model = model_with(parameters)
    with model:
        step = pmn.BlockGibbs(model.free_RVs)
    point = model.initial_point()
    before = {name: value.copy() for name, value in point.items()}
    for _ in range(5):
        step.step(point)
    for name, value in before.items():
        np.testing.assert_array_equal(point[name], value)


# ---------------------------------------------------------------------------------- inside PyMC


def test_registered_once_and_ahead_of_pymcs_own():
    import importlib

    import step_methods

    importlib.reload(step_methods)
    assert STEP_METHODS.count(pmn.BlockGibbs) == 1
    assert STEP_METHODS.index(pmn.BlockGibbs) < STEP_METHODS.index(pm.Metropolis)


def test_competence(parameters):
    with pm.Model():
        v = pmn.BernoulliRBM("v", *parameters)
        h = pmn.HiddenUnits("h", v)
        coin = pm.Bernoulli("coin", 0.5)
        x = pm.Normal("x")
    assert [pmn.BlockGibbs.competence(var) for var in (v, h)] == [Competence.IDEAL] * 2
    assert [pmn.BlockGibbs.competence(var) for var in (coin, x)] == [Competence.INCOMPATIBLE] * 2


def test_a_bare_sample_picks_it_for_its_variables_only(parameters):
    with model_with(parameters, v_observed=CLAMPED_V):
        pm.Normal("x")
        coin = pm.Bernoulli("coin", 0.5)
        provided, assigned = pm.sampling.mcmc.assign_step_methods(pm.modelcontext(None))
        assert not provided
        names = {method.__name__: {var.name for var in vars} for method, vars in assigned.items()}
        assert names["BlockGibbs"] == {"v_unobserved", "h"}
        assert coin.name in names["BinaryGibbsMetropolis"]
        assert "x" in names["NUTS"]


def test_options_go_through_sample(parameters):
    with model_with(parameters):
        options = {"tune": 0, "chains": 1, "cores": 1, "random_seed": 1, **QUIET}
        one = pm.sample(20, block_gibbs={"sweeps_per_draw": 1}, **options).posterior["v"]
        three = pm.sample(20, block_gibbs={"sweeps_per_draw": 3}, **options).posterior["v"]
    assert not np.array_equal(one, three)


def test_masked_variables_are_named_as_the_user_has_them(parameters):
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", *parameters, observed=CLAMPED_V)
        h = pmn.HiddenUnits("h", v)
        assert pmn.BlockGibbs([v, h]).vars == pmn.BlockGibbs([model["v_unobserved"], h]).vars
        assert [var.name for var in pmn.BlockGibbs(v).vars] == ["v_unobserved"]


def test_tuning_may_be_left_out(parameters):
    with model_with(parameters):
        idata = pm.sample(10, chains=1, cores=1, discard_tuned_samples=False, **QUIET)
    assert idata.warmup_posterior.sizes["draw"] == pmn.BlockGibbs.default_tune_steps


def test_progress_bar_has_columns_of_its_own(parameters, capsys):
    with model_with(parameters):
        pm.sample(20, tune=0, chains=1, cores=1, progressbar=True, compute_convergence_checks=False)
    printed = capsys.readouterr().out
    assert "Energy" in printed
    assert "Flip" in printed


def test_shared_parameters_are_read_again_for_each_chain(parameters):
    W, _, b = parameters
    with pm.Model():
        bias = pm.Data("bias", np.full(4, 30.0))
        v = pmn.BernoulliRBM("v", W, bias, b)
        step = pmn.BlockGibbs([v])
        options = {"tune": 0, "chains": 1, "cores": 1, "random_seed": 1, "step": step, **QUIET}
        assert pm.sample(10, **options).posterior["v"].values.all()
        pm.set_data({"bias": np.full(4, -30.0)})
        assert not pm.sample(10, **options).posterior["v"].values[:, 1:].any()


def test_shared_data_are_read_again_for_each_chain(parameters):
    _, a, _ = parameters
    with pm.Model():
        data = pm.Data("data", np.array([1, 0, 0, 0]))
        v = pmn.BernoulliRBM("v", 30 * np.eye(4, 3), a, np.full(3, -15.0), observed=data)
        h = pmn.HiddenUnits("h", v)
        step = pmn.BlockGibbs([h])
        options = {"tune": 0, "chains": 1, "cores": 1, "random_seed": 1, "step": step, **QUIET}
        np.testing.assert_array_equal(pm.sample(3, **options).posterior["h"][0, -1], [1, 0, 0])
        pm.set_data({"data": np.array([0, 1, 0, 0])})
        np.testing.assert_array_equal(pm.sample(3, **options).posterior["h"][0, -1], [0, 1, 0])
        pm.set_data({"data": np.array([0, 3, 0, 0])})
        with pytest.raises(ValueError, match="data of 'v' must be 0 or 1 everywhere, got 3"):
            pm.sample(3, **options)


def test_random_parameters_are_read_at_each_step(parameters):
    W, a, b = parameters
    with pm.Model() as model:
        bias = pm.Normal("bias")
        v = pmn.BernoulliRBM("v", W, a + bias, b, normalize="exact")
        step = pmn.BlockGibbs([v])
    point = model.initial_point()
    for sign in (1, -1, 1):
        point, _ = step.step({**point, "bias": np.array(sign * 50.0)})
        assert (point["v"] == (sign > 0)).all()


# ---------------------------------------------------------------------------------- state


def test_sampling_state_round_trip(parameters):
    model = model_with(parameters)
    with model:
        step = pmn.BlockGibbs(model.free_RVs, sweeps_per_draw=2)
        other = pmn.BlockGibbs(model.free_RVs, sweeps_per_draw=2, rng=99)
    step.setup_chain(np.random.default_rng(1), 0, 10)
    point = model.initial_point()
    for _ in range(3):
        point, _ = step.step(point)
    state = cloudpickle.loads(cloudpickle.dumps(step.sampling_state))

    def go_on(step, point):
        draws = []
        for _ in range(5):
            point, (stats,) = step.step(point)
            draws.append([*point["v"], *point["h"], stats["network_energy"], stats["flip_rate"]])
        return draws

    expected = go_on(step, point)
    other.sampling_state = state
    assert equal_dataclass_values(other.sampling_state, state)
    assert go_on(other, point) == expected
    step.sampling_state = state
    assert go_on(step, point) == expected


def test_chains_of_one_instance_do_not_depend_on_each_other(parameters):
    model = model_with(parameters)
    with model:
        step = pmn.BlockGibbs(model.free_RVs)
    point = model.initial_point()

    def chain(n_before):
        for _ in range(n_before):
            step.step(point)
        step.setup_chain(np.random.default_rng(5), 0, 10)
        return [step.step(point)[0]["h"].tolist() for _ in range(5)]

    assert chain(0) == chain(7)


def test_a_step_survives_pickling(parameters):
    model = model_with(parameters, v_observed=CLAMPED_V)
    with model:
        step = pmn.BlockGibbs(model.free_RVs, sweeps_per_draw=4)
    copy = cloudpickle.loads(cloudpickle.dumps(step))
    assert copy.sweeps_per_draw == 4
    point = model.initial_point()
    for one in (step, copy):
        one.setup_chain(np.random.default_rng(3), 0, 1)
    np.testing.assert_array_equal(step.step(point)[0]["h"], copy.step(point)[0]["h"])


@pytest.mark.parametrize(
    "method",
    [
        "fork",
        "spawn",
        pytest.param("forkserver", marks=pytest.mark.slow),
    ],
)
def test_draws_do_not_depend_on_the_processes(parameters, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    options = {"draws": 20, "tune": 5, "chains": 2, "random_seed": 11, **QUIET}
    with model_with(parameters, v_observed=CLAMPED_V):
        alone = pm.sample(cores=1, **options)
        together = pm.sample(cores=2, mp_ctx=method, **options)
    for group in ("posterior", "sample_stats"):
        for name in alone[group].data_vars:
            np.testing.assert_array_equal(alone[group][name], together[group][name])


def test_compound_with_other_step_methods(parameters):
    with model_with(parameters) as model:
        x = pm.Normal("x")
        step = pm.step_methods.CompoundStep([pmn.BlockGibbs(model.free_RVs[:2]), pm.Metropolis([x])])
    assert isinstance(step, CompoundStep)
    _, stats = step.step(model.initial_point())
    assert {"network_energy", "flip_rate", "start_hash", "warning"} == set(stats[0])


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(("sweeps", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_bad_sweeps_per_draw(parameters, sweeps, error):
    with model_with(parameters) as model, pytest.raises(error, match="sweeps_per_draw must be"):
        pmn.BlockGibbs(model.free_RVs, sweeps_per_draw=sweeps)


def test_a_variable_that_is_not_in_the_model(parameters):
    other = model_with(parameters)["v"]
    with (
        model_with(parameters),
        pytest.raises(ValueError, match="not random variables in the model"),
    ):
        pmn.BlockGibbs([other])


def test_a_variable_that_is_no_layer(parameters):
    with model_with(parameters):
        die = pm.Categorical("die", np.full(6, 1 / 6))
        with pytest.raises(ValueError, match="'die' is not a layer of a network"):
            pmn.BlockGibbs([die])


def test_something_that_is_no_variable(parameters):
    with (
        model_with(parameters),
        pytest.raises(TypeError, match="vars must be variables of the model"),
    ):
        pmn.BlockGibbs([np.zeros(4)])


def test_a_layer_without_free_units(parameters):
    model = model_with(parameters, v_observed=np.array([1, 0, 0, 1]))
    with model, pytest.raises(ValueError, match="'v' is observed entirely: no unit of it is left"):
        pmn.BlockGibbs([model["v"]])


def test_data_with_nothing_masked_leave_nothing_to_sample(parameters):
    model = model_with(parameters, v_observed=masked([1, 0, 0, 1], False))
    with model, pytest.raises(ValueError, match="'v' is observed entirely"):
        pmn.BlockGibbs([model["v"]])


def test_a_start_value_off_the_support(parameters):
    message = "start value of 'v' must be 0 or 1 everywhere, got 257"
    with model_with(parameters) as model:
        bad = {**model.initial_point(), "v": np.array([0, 1, 257, 0])}
        with pytest.raises(ValueError, match=message):
            pmn.BlockGibbs(model.free_RVs, initial_point=bad)
        with pytest.raises(ValueError, match=message):
            pm.sample(5, tune=0, chains=1, cores=1, initvals={"v": bad["v"]}, **QUIET)


def sum_of_units(v):
    pm.Normal("y", v.sum(), 1, observed=0.5)


def sum_potential(v):
    pm.Potential("y", 1.0 * v.sum())


def product_of_neighbors(v):
    pm.Potential("y", 1.0 * v[1:] * v[:-1])


def correlated_normal(v):
    pm.MvNormal("y", v, np.eye(4), observed=np.zeros(4))


def linear_map(v):
    pm.Normal("y", pm.math.dot(np.ones((5, 4)), v), 1, observed=np.zeros(5))


def random_index(v):
    pm.Potential("y", 1.0 * v[pm.Categorical("which", [0.5, 0.5])])


def network_on_top(v):
    pmn.BernoulliRBM("y", np.ones((4, 2)), 1.0 * v, np.zeros(2), normalize="exact")


@pytest.mark.parametrize(
    "term",
    [
        sum_of_units,
        sum_potential,
        product_of_neighbors,
        correlated_normal,
        linear_map,
        random_index,
        network_on_top,
    ],
)
def test_terms_that_mix_units_are_refused(parameters, term):
    with pm.Model():
        v = pmn.BernoulliRBM("v", *parameters)
        term(v)
        with pytest.raises(ValueError, match=r"the term 'y' of the model may depend on several units"):
            pmn.BlockGibbs([v])
        with pytest.raises(ValueError, match="BinaryGibbsMetropolis"):
            pm.sample(5, tune=0, chains=1, cores=1, **QUIET)


def test_several_copies_of_the_hidden_units_are_refused(parameters):
    """Given five copies of h, v is not distributed as given one."""
    with pm.Model():
        v = pmn.BernoulliRBM("v", *parameters)
        pmn.HiddenUnits("h", v, shape=(5, 3))
        with pytest.raises(ValueError, match=r"the term 'h' of the model may depend on several units"):
            pmn.BlockGibbs([v])


def test_terms_matter_only_to_the_layer_that_is_updated(parameters):
    with model_with(parameters, v_observed=CLAMPED_V) as model:
        pm.Potential("on_h", model["h"].sum())
        with pytest.raises(ValueError, match="'on_h' of the model may depend on several units"):
            pmn.BlockGibbs(model.free_RVs)
        pmn.BlockGibbs([model["v"]])  # conditions on h, where the term is a constant
        pm.Potential("on_v", model["v"].sum())
        with pytest.raises(ValueError, match="'on_v' of the model may depend on several units"):
            pmn.BlockGibbs([model["v"]])


def test_a_term_on_both_layers_is_refused_for_both_at_once(parameters):
    with model_with(parameters) as model:
        pm.Potential("bridge", 1.0 * model["v"][0] * model["h"][0])
        with pytest.raises(ValueError, match=r"'bridge' of the model depends on both layers of 'v'.*blocked=False"):
            pmn.BlockGibbs(model.free_RVs)
        one_each = pmn.BlockGibbs(model.free_RVs, blocked=False)
        assert [step.vars for step in one_each.methods] == [[model.rvs_to_values[rv]] for rv in model.free_RVs]


def test_a_minibatch_is_refused(parameters):
    with pm.Model():
        v = pmn.BernoulliRBM("v", *parameters)
        data = pm.Minibatch(np.zeros((100, 4)), batch_size=10)
        pm.Normal("y", v, 1, observed=data, total_size=(100, 4))
        with pytest.raises(ValueError, match="the term 'y' of the model sees a minibatch"):
            pmn.BlockGibbs([v])


def test_a_term_that_excludes_both_values_of_a_unit_is_an_error(parameters):
    with pm.Model():
        v = pmn.BernoulliRBM("v", *parameters)
        pm.Potential("impossible", pm.math.switch(v > -1, -np.inf, 0.0))
        with pytest.raises(ValueError, match="the term 'impossible' of the model has no probability"):
            pmn.BlockGibbs([v])


def test_terms_that_do_not_depend_on_the_units_are_fine(parameters):
    with model_with(parameters) as model:
        x = pm.Normal("x")
        pm.Potential("on_x", -(x**2))
        pmn.BlockGibbs(model["v"])


def test_two_layers_of_hidden_units_are_refused(parameters):
    with model_with(parameters) as model:
        pmn.HiddenUnits("again", model["v"])
        with pytest.raises(ValueError, match="more than one layer of hidden units of 'v'"):
            pmn.BlockGibbs([model["v"]])


def test_random_parameters_without_a_normalizer_are_refused(parameters):
    W, a, b = parameters
    with pm.Model():
        scale = pm.HalfNormal("scale")
        v = pmn.BernoulliRBM("v", scale * W, a, b)
        with pytest.raises(ValueError, match=r"depend on other random variables \(scale\)"):
            pmn.BlockGibbs([v])


def test_parameters_that_turn_infinite_are_refused(parameters):
    W, a, b = parameters
    with pm.Model():
        bias = pm.Data("bias", a)
        v = pmn.BernoulliRBM("v", W, bias, b)
        step = pmn.BlockGibbs([v])
        pm.set_data({"bias": np.full(4, np.inf)})
        with pytest.raises(ValueError, match="the visible biases a of 'v' must be finite"):
            pm.sample(5, tune=0, chains=1, cores=1, step=step, **QUIET)


def test_shapes_that_turn_out_not_to_fit(parameters):
    W, a, b = parameters
    with pm.Model():
        bias = pm.Data("bias", b)
        v = pmn.BernoulliRBM("v", W, a, bias)
        step = pmn.BlockGibbs([v])
        pm.set_data({"bias": np.zeros(5)})
        with pytest.raises(ValueError, match=r"b of 'v' must have the shape \(3,\)"):
            pm.sample(5, tune=0, chains=1, cores=1, step=step, **QUIET)
