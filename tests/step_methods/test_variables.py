"""Which variables a step method takes: those that are given, by themselves or by name, or those that are for it."""

import numpy as np
import pymc as pm
import pytest

import pm_neural as pmn

pytestmark = pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")


@pytest.fixture
def model():
    data = np.ma.masked_array([1, 0], mask=[0, 1])
    with pm.Model() as model:
        pm.Normal("x", 0, 1)
        pm.Bernoulli("p", 0.5, shape=2)
        pmn.BoltzmannMachine("z", np.zeros((2, 2)), np.zeros(2))
        pmn.HiddenUnits("h", pmn.BernoulliRBM("v", np.ones((2, 2)), np.zeros(2), np.zeros(2), observed=data))
        pmn.GaussianRBM("g", np.ones((2, 2)), np.zeros(2), np.zeros(2), np.ones(2))
        pm.MvNormal("m", np.zeros(2), np.eye(2))
    return model


def names(step):
    return {value.name for value in step.vars}


def test_without_variables_a_step_takes_what_is_for_it(model):
    with model:
        assert names(pmn.BlockGibbs()) == {"z", "h", "v_unobserved", "g"}
        assert names(pmn.NeuralSampling(tau=2)) == {"p", "z", "h", "v_unobserved"}
        assert names(pmn.Langevin()) == {"x", "g", "m"}
        with pytest.raises(ValueError, match="the model has no variable for EnergyGibbs: its free variables are 'x'"):
            pmn.EnergyGibbs()
    assert names(pmn.BlockGibbs(model=model)) == {"z", "h", "v_unobserved", "g"}


def test_variables_may_be_named(model):
    with model:
        assert names(pmn.BlockGibbs("z")) == {"z"}
        assert names(pmn.BlockGibbs(["v", model["z"]])) == {"v_unobserved", "z"}
        assert names(pmn.BlockGibbs(vars=["v_unobserved"])) == {"v_unobserved"}
        assert names(pmn.NeuralSampling(["p"], tau=1)) == {"p"}
        assert names(pmn.Langevin("x")) == {"x"}
        steps = pmn.BlockGibbs(["z", "h"], blocked=False).methods
        assert [names(step) for step in steps] == [{"z"}, {"h"}]
        with pytest.raises(ValueError, match=r"vars must name variables of the model, \[.*'z'\], got 'w'"):
            pmn.BlockGibbs(["w"])


def test_a_step_without_variables_can_be_copied_and_certified():
    with pm.Model():
        pmn.BoltzmannMachine("z", [[0, 1.0], [1.0, 0]], np.zeros(2))
        pm.Normal("x")
        assert pmn.diagnostics.certify(pmn.BlockGibbs(sweeps_per_draw=2))


def test_without_a_normalizer_all_ways_out_are_named():
    with pm.Model():
        c = pm.HalfNormal("c")
        s = pmn.Ising("s", pmn.lattice((2, 2)), coupling=c)
        assert pm.draw(s, random_seed=1).shape == (2, 2)
        with pytest.raises(ValueError, match=r'normalize="exact".*pm\.Data.*pm\.do.*pm\.draw'):
            pmn.BlockGibbs([s])
