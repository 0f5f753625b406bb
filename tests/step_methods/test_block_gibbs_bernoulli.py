"""A plain `pm.Bernoulli` is a field without couplings."""

import numpy as np
import pymc as pm
import pytest
from scipy.special import expit

import pm_neural as pmn
from pm_neural.diagnostics import certify, check_conditionals

Y = np.array([[0.3, -1.0, 0.4], [0.2, 1.5, 2.5]])


def fixed(z_observed=None):
    return pm.Bernoulli("z", [0.2, 0.5, 0.9], shape=(2, 3), observed=z_observed)


def with_random_odds():
    return pm.Bernoulli("z", logit_p=pm.Normal("a", 0, 2) + pm.Normal("b", 0, 1, shape=(2, 1)), shape=(2, 3))


def with_masked_data():
    known = np.ma.masked_array([[1, 0, 0], [0, 1, 1]], mask=[[True, True, False], [False, True, True]])
    with pytest.warns(pm.exceptions.ImputationWarning):
        fixed(known)
    return pm.modelcontext(None)["z"]


def of_one_unit():
    return pm.Bernoulli("z", pm.Beta("p", 2, 3))


def with_certain_units():
    return pm.Bernoulli("z", [[0.0, 0.5, 1.0], [0.3, 1.0, 0.7]])


MODELS = [fixed, with_random_odds, with_masked_data, of_one_unit, with_certain_units]


@pytest.mark.parametrize("order", ["fixed", "random"])
@pytest.mark.parametrize("declare", MODELS)
def test_conditionals_are_those_of_the_model(declare, order):
    with pm.Model():
        z = declare()
        pm.Normal("y", 1.5 * z, pm.HalfNormal("sigma", 1), observed=Y if z.ndim else 1.2)
        assert check_conditionals(pmn.BlockGibbs([z], order=order), random_seed=1).passed


@pytest.mark.parametrize("options", [{}, {"order": "random"}, {"blocks": [[0, 2], [1]]}])
def test_certified(options):
    with pm.Model():
        z = pm.Bernoulli("z", [0.2, 0.5, 0.9])
        pm.Normal("y", 1.5 * z, 1, observed=Y[0])
        assert certify(pmn.BlockGibbs([z], **options)).passed


def test_draws_have_the_probabilities_of_the_posterior():
    """False alarm below 1e-6: five standard errors of 20,000 independent draws, for each of three units."""
    with pm.Model():
        pm.Normal("y", 1.5 * pm.Bernoulli("z", [0.2, 0.5, 0.9]), 1, observed=Y[0])
        step = pmn.BlockGibbs(["z"])
        idata = pm.sample(20_000, tune=0, chains=1, cores=1, step=step, random_seed=1, progressbar=False)
    gain = -0.5 * ((Y[0] - 1.5) ** 2 - Y[0] ** 2)
    p = expit(np.log([0.25, 1, 9]) + gain)
    error = np.sqrt(p * (1 - p) / 20_000)
    assert (abs(idata["posterior"]["z"].mean(("chain", "draw")).values - p) < 5 * error).all()


def test_one_sweep_draws_all_units_together():
    with pm.Model():
        z = pm.Bernoulli("z", 0.5, shape=100)
        assert pmn.BlockGibbs([z], order="random")._first_block[-1] == 1


def test_a_child_among_the_units_of_the_same_step():
    with pm.Model():
        parent = pm.Bernoulli("parent", 0.3, shape=2)
        child = pm.Bernoulli("child", 0.2 + 0.6 * parent)
        pm.Normal("y", child, 1, observed=[0.4, 1.7])
        step = pmn.BlockGibbs([parent, child], sweeps_per_draw=2)
        assert step.joined
        for order in ("fixed", "random"):
            assert certify(pmn.BlockGibbs([parent, child], order=order)).passed
            assert check_conditionals(pmn.BlockGibbs([parent, child], order=order), random_seed=1).passed
        assert len(step._fixed_turns) == 4


def test_beside_a_field():
    with pm.Model():
        spins = pmn.Ising("spins", pmn.lattice(3), coupling=0.5)
        switch = pm.Bernoulli("switch", pm.math.sigmoid(spins), shape=3)
        assert check_conditionals(pmn.BlockGibbs([spins, switch]), random_seed=1).passed


@pytest.mark.numba
def test_log_odds_keep_what_a_probability_cannot_hold():
    with pm.Model():
        z = pm.Bernoulli("z", logit_p=pm.Data("log_odds", [-800.0, 40.0, -40.0]))
        pm.Potential("evidence", np.array([798.0, 0, 0]) * z)
        step = pmn.BlockGibbs([z])
        assert check_conditionals(step, random_seed=1).passed
    (field,) = step.samplers[0].reduced.fields
    assert field.biases.tolist() == [-2, 40, -40]


def test_evidence_against_a_certain_unit():
    with pm.Model():
        z = pm.Bernoulli("z", [1.0, 0.5])
        pm.Potential("zero", pm.math.switch(pm.math.eq(z, 1), -np.inf, 0.0))
        with pytest.raises(ValueError, match="'zero' of the model leave no value to the unit 0 of 'z'"):
            pmn.BlockGibbs([z])


def test_a_probability_out_of_bounds():
    with pm.Model():
        z = pm.Bernoulli("z", pm.Data("p", [0.5, 1.5]))
        with pytest.raises(ValueError, match="log-odds of 'z' must be finite, got NaN"):
            pmn.BlockGibbs([z])


def test_energy_is_that_of_the_possible_units():
    with pm.Model():
        z = pm.Bernoulli("z", [1.0, 0.0, 0.75])
        idata = pm.sample(20, tune=0, chains=1, cores=1, step=pmn.BlockGibbs([z]), random_seed=1, progressbar=False)
    draws = idata["posterior"]["z"].values[0]
    assert (draws[:, :2] == [1, 0]).all()
    np.testing.assert_allclose(idata["sample_stats"]["network_energy"].values[0], -np.log(3) * draws[:, 2])


def test_data_of_the_next_chain():
    with pm.Model():
        p = pm.Data("p", [0.5, 0.5])
        step = pmn.BlockGibbs([pm.Bernoulli("z", p)])
        pm.set_data({"p": [0.0, 1.0]})
        step.setup_chain(np.random.default_rng(1), 0, 0)
        assert step.step({"z": np.array([1, 0])})[0]["z"].tolist() == [0, 1]


def test_a_subclass_with_another_law_is_not_taken():
    class OtherRV(type(pm.Bernoulli.dist(0.5).owner.op)):
        pass

    from pymc.logprob.abstract import _logprob

    @_logprob.register(OtherRV)
    def other(op, values, *inputs, **kwargs):
        return 0.0 * values[0]

    class Other(pm.Bernoulli):
        rv_op = OtherRV()

    with pm.Model(), pytest.raises(ValueError, match="'z' is not a layer of a network"):
        pmn.BlockGibbs([Other("z", 0.5)])


def test_coins_have_no_hidden_units():
    with pm.Model():
        coins = pm.Bernoulli("coins", 0.5, shape=3)
        with pytest.raises(TypeError, match="v must be a variable of the visible units of a network"):
            pmn.HiddenUnits("h", coins)


def test_a_machine_whose_visible_units_are_replaced_by_data():
    """Its hidden units are those of a machine no more, but a field with random biases."""
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", np.ones((3, 2)), np.zeros(3), np.zeros(2))
        pmn.HiddenUnits("h", v)
    replaced = pm.do(model, {"v": np.array([1, 0, 1])})
    with replaced:
        assert check_conditionals(pmn.BlockGibbs(["h"]), random_seed=1).passed


def test_a_variable_without_units():
    with pm.Model(), pytest.raises(ValueError, match="'z' has the shape \\(0,\\): there is no unit in it to sample"):
        pmn.BlockGibbs([pm.Bernoulli("z", 0.3, shape=0)])


def test_a_likelihood_of_the_sum_is_refused():
    with pm.Model():
        z = pm.Bernoulli("z", 0.3, shape=3)
        pm.Normal("y", z.sum(), 1, observed=1.0)
        with pytest.raises(ValueError, match="'y' of the model may depend on several units at once"):
            pmn.BlockGibbs([z])
