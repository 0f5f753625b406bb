"""Starts that every term of a model gives a probability."""

import numpy as np
import pymc as pm
import pytest

import pm_neural as pmn

pytestmark = [
    pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning"),
    pytest.mark.filterwarnings("ignore:.*number of samples"),
]

ONE_CORE = {"cores": 1, "progressbar": False, "compute_convergence_checks": False}


def occupancy(masked):
    """Sites where something was seen are occupied."""
    seen = np.array([0, 2, 0, 1])
    with pm.Model() as model:
        detection = pm.Beta("detection", 2, 2)
        mask = {"observed": np.ma.masked_array([1, 0, 0, 0], mask=[0, 1, 1, 1])} if masked else {}
        z = pmn.BoltzmannMachine("z", np.zeros((4, 4)), -9.0, **mask)
        pm.Binomial("seen", 3, z * detection, observed=seen)
    return model


@pytest.mark.parametrize("masked", [False, True])
def test_found_starts_are_possible_and_apart(masked):
    model = occupancy(masked)
    starts = pmn.find_start(model, chains=6, random_seed=1)
    name = "z_unobserved" if masked else "z"
    assert all(set(start) == {"detection", name} for start in starts)
    assert len({start[name].tobytes() for start in starts}) > 1
    fn_of = lambda start: pm.initial_point.make_initial_point_fn(model=model, overrides=start)  # noqa: E731
    logp = model.compile_logp()
    assert all(np.isfinite(logp(fn_of(start)(1))) for start in starts)
    again = pmn.find_start(model, chains=6, random_seed=1)
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(starts, again, strict=True))
    with model:
        idata = pm.sample(5, tune=5, chains=2, initvals=starts[:2], random_seed=1, **ONE_CORE)
    assert (idata["posterior"]["z"][..., [1, 3]] == 1).all()


def test_a_start_is_found_where_units_are_tied_and_others_have_to_follow():
    with pm.Model() as model:
        z = pm.Bernoulli("z", 0.5, shape=12)
        pm.Potential("one", pm.math.switch(pm.math.eq(z.sum(), 1), 0.0, -np.inf))
        n = pm.Poisson("n", 1)
        pm.Binomial("k", n, 0.5, observed=2)  # n = 1, the default, is too few
    for start in pmn.find_start(model, chains=3, random_seed=1):
        assert start["z"].sum() == 1
        assert start["n"] >= 2


def test_find_start_says_what_it_cannot_satisfy():
    with pm.Model() as model:
        z = pmn.Ising("z", np.zeros((3, 3)), 0.0)
        pm.Potential("fine", z.sum().astype("float64"))
        pm.Potential("never", pm.math.switch(z > 1, 0.0, -np.inf))
    with pytest.raises(ValueError, match=r"no start .* the terms 'never' of the model were not satisfied"):
        pmn.find_start(model, chains=1, random_seed=1)
    with pytest.raises(ValueError, match="chains must be at least 1, got 0"):
        pmn.find_start(model, chains=0)


def test_variables_that_depend_on_units_are_drawn_given_their_coins():
    with pm.Model() as model:
        z = pmn.BoltzmannMachine("z", np.zeros((3, 3)), 0.0)
        pm.Normal("x", 12.0 * z, 1, shape=3)
        pm.LogNormal("scale", pm.Flat("flat") + 5.0 * z[0], 0.1)
    for start in pmn.find_start(model, chains=8, random_seed=1):
        np.testing.assert_allclose(start["x"], 12 * start["z"], atol=5)
        assert abs(np.log(start["scale"]) - 5 * start["z"][0]) < 1
        assert start["flat"] == 0


def test_a_prior_without_draws_does_not_stop_the_search():
    with pm.Model() as model:
        a = pm.Flat("a")
        z = pm.Bernoulli("z", 0.5, shape=2)
        pm.Potential("never", pm.math.switch(a + z.sum() > 10, 0.0, -np.inf))
        with pytest.raises(ValueError, match="found no start"):
            pmn.find_start(model, chains=1, random_seed=1)
