"""Start values under the name of a variable whose data are masked."""

import subprocess
import sys

import numpy as np
import pymc as pm
import pytest
from pymc.initial_point import make_initial_point_fn

import pm_neural as pmn
from step_methods._masked_starts import refuse_names_of_masked_variables

pytestmark = pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")

MASK = np.array([True, False, True])
DATA = np.ma.masked_array([0, 1, 0], mask=MASK)
QUICK = {"tune": 0, "cores": 1, "progressbar": False, "compute_convergence_checks": False}


def boltzmann():
    pmn.BoltzmannMachine("z", np.zeros((3, 3)), 0.0, observed=DATA)


def rbm():
    pmn.BernoulliRBM("z", np.zeros((3, 2)), np.zeros(3), np.zeros(2), observed=DATA)


def gaussian_rbm():
    observed = np.ma.masked_array([0.0, 1.0, 0.0], mask=MASK)
    pmn.GaussianRBM("z", np.zeros((3, 2)), np.zeros(3), np.zeros(2), 1.0, observed=observed)


def hidden_units():
    v = pmn.BernoulliRBM("v", np.zeros((2, 3)), np.zeros(2), np.zeros(3))
    pmn.HiddenUnits("z", v, observed=DATA)


def rows_of_a_batch():
    observed = np.ma.masked_array(np.zeros((2, 3), int), mask=[[True] * 3, [False] * 3])
    pmn.BoltzmannMachine("z", np.zeros((3, 3)), 0.0, event_ndim=1, observed=observed)


@pytest.mark.parametrize("declare", [boltzmann, rbm, gaussian_rbm, hidden_units, rows_of_a_batch])
def test_a_start_under_the_name_of_a_masked_variable_is_refused(declare):
    with pm.Model() as model:
        declare()
    start = np.ones(model["z"].type.shape, int)
    with pytest.raises(ValueError, match=r"'z', whose data are masked.*'z_unobserved'.*got a start value for 'z'"):
        make_initial_point_fn(model=model, overrides={"z": start})
    free = np.ones(model.initial_point()["z_unobserved"].shape)
    point = make_initial_point_fn(model=model, overrides={"z_unobserved": free})(0)
    np.testing.assert_array_equal(point["z_unobserved"], free)


def test_sampling_refuses_it_for_one_chain_and_for_each():
    with pm.Model():
        boltzmann()
        for initvals in ({"z": [0, 1, 0]}, [{"z_unobserved": [1, 1]}, {"z": [0, 1, 0]}]):
            with pytest.raises(ValueError, match="'z_unobserved'"):
                pm.sample(2, chains=2, initvals=initvals, **QUICK)


def test_other_start_values_stay_a_matter_of_pymc():
    with pm.Model() as model:
        boltzmann()
        x = pm.Normal("x", observed=np.ma.masked_array([0.0, 1.0], mask=[True, False]))
        sigma = pm.HalfNormal("sigma")
        pm.Deterministic("twice", 2 * sigma)
    point = make_initial_point_fn(model=model, overrides={"x": [1.0, 1.0], sigma: 2.0, "twice": 3.0})(0)
    assert point["sigma_log__"] == np.log(2.0)
    assert x in model.deterministics
    point = make_initial_point_fn(model=model, overrides={"sigma_log__": 0.5})(0)
    assert abs(point["sigma_log__"] - 0.5) < 1e-6


def test_the_check_is_made_once():
    read_names = pm.initial_point.convert_str_to_rv_dict
    refuse_names_of_masked_variables()
    assert pm.initial_point.convert_str_to_rv_dict is read_names
    assert not hasattr(read_names.__wrapped__, "__wrapped__")


def test_pymc_still_reads_start_values_through_the_function_that_is_wrapped():
    """The name is PyMC's own and may change with it."""
    code = (
        "import pymc.initial_point as ip\n"
        "assert 'convert_str_to_rv_dict' in ip.make_initial_point_fn.__code__.co_names\n"
        "before = ip.convert_str_to_rv_dict\n"
        "import step_methods\n"
        "assert ip.convert_str_to_rv_dict.__wrapped__ is before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_start_value_in_the_declaration_of_a_masked_variable_is_refused():
    with pm.Model():
        for declare in (
            lambda: pmn.BoltzmannMachine("z", np.zeros((3, 3)), 0.0, observed=DATA, initval=[1, 1, 1]),
            lambda: pmn.GaussianRBM(
                "x",
                np.zeros((3, 2)),
                np.zeros(3),
                np.zeros(2),
                1.0,
                observed=np.ma.masked_array(np.zeros(3), MASK),
                initval=np.ones(3),
            ),
        ):
            with pytest.raises(ValueError, match=r"would be ignored by PyMC.*_unobserved"):
                declare()
        pmn.BoltzmannMachine("w", np.zeros((3, 3)), 0.0, initval=[1, 1, 1])
