"""Short chains against draws: modes that draws miss are found, and draws that miss none are left in peace."""

import itertools
import warnings

import numpy as np
import pymc as pm
import pytest
import xarray as xr

import pm_neural as pmn
from pm_neural.diagnostics import report
from pm_neural.diagnostics._short_chains import FALSE_ALARM_RATE, _p_extreme, compare

SAMPLE = {"cores": 1, "progressbar": False, "quiet": True, "compute_convergence_checks": False}


def dataset(units):
    return xr.Dataset({"v": (["chain", "draw", "unit"], units)})


def energies(values):
    return xr.Dataset({"energy": (["chain", "draw"], values)})


def held_against(draws, short):
    """Compare units, with their sum of squares, say, for an energy."""
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of constants
        recorded = (energies((x.astype(float) ** 2).sum(axis=-1)) for x in (draws, short))
        return compare(dataset(draws), dataset(short), *recorded, None)


@pytest.mark.parametrize(("n", "n_others"), [(3, 4), (2, 5), (5, 1)])
def test_probability_of_extremes_is_that_of_all_orders(n, n_others):
    # Which places of the sorted values the n take, each choice as probable as any other.
    choices = list(itertools.combinations(range(n + n_others), n))
    for k in range(n + 1):
        n_extreme = sum(set(range(k)) <= set(choice) for choice in choices)
        assert _p_extreme(k, n, n_others) == pytest.approx(n_extreme / len(choices), rel=1e-12)


def test_ends_outside_of_the_draws_are_found(rng):
    draws = (rng.random((4, 500, 30)) < 0.1).astype(int)
    short = np.where(np.arange(32)[:, None, None] < 5, 1 - draws[0, 0], draws[0, :50])
    short ^= rng.random(short.shape) < 0.1
    result = held_against(draws, short)
    assert result.outside == ["energy", "activity of v", "first component of v"]
    assert result.unreached == []
    assert result.table.loc["activity of v", ["below", "above"]].to_list() == [0, 5]
    (complaint,) = result.complaints
    assert "Of 32 short chains" in complaint
    assert "activity of v: 0 below 0, 5 above" in complaint


def test_draws_where_no_short_chain_ends_are_found(rng):
    draws = rng.random((4, 500, 30)) < 0.1
    draws[2:] ^= True
    short = rng.random((32, 50, 30)) < 0.1
    # Each chain stays where it is: the four are worth two or three draws, so that it takes moves to make them count.
    draws = np.concatenate([draws, draws[::-1]], axis=1).reshape(4, 2, 500, 30).swapaxes(1, 2).reshape(4, 1000, 30)
    result = held_against(draws.astype(int), short.astype(int))
    assert result.outside == []
    assert "activity of v" in result.unreached
    assert result.table.loc["activity of v", "unreached above"] == pytest.approx(0.5, abs=0.02)
    assert "None of 32 short chains" in result.complaints[0]


def test_draws_that_all_short_chains_left_are_said_once(rng):
    # Where chains end outside of the draws, that they do not end among them says nothing more.
    result = held_against((rng.random((4, 500, 30)) < 0.1).astype(int), (rng.random((32, 50, 30)) < 0.9).astype(int))
    assert "activity of v" in result.outside
    assert result.table.loc["activity of v", "p unreached"] < 1e-10
    assert result.unreached == []


def test_draws_that_never_move_where_short_chains_stay_elsewhere_are_said(rng):
    draws = np.zeros((4, 500, 20), int)
    short = np.zeros((32, 50, 20), int)
    short[:3] = 1
    result = held_against(draws, short)
    assert result.outside == result.unreached == []
    assert "activity of v" in result.stuck
    assert any("None of the draws differs from the others" in complaint for complaint in result.complaints)
    short[:3, 25::2] = 0  # chains that come and go tell of a rare state
    assert held_against(draws, short).stuck == []
    assert held_against(draws, np.zeros_like(short)).stuck == []


def test_chains_that_disagree_are_worth_few_draws(rng):
    # Each of two chains sees a mode of its own, and some short chains a third: two draws do not exclude it.
    draws = np.repeat([[[0] * 20], [[1] * 20]], 500, axis=1) ^ (rng.random((2, 500, 20)) < 0.02)
    short = np.repeat(np.arange(32) < 4, 20).reshape(32, 1, 20) * np.ones((1, 10, 1), int)
    short[:4, :, :10] = 0
    assert held_against(draws, short).outside == []


def test_few_ends_outside_of_few_draws_are_chance(rng):
    draws = rng.integers(0, 2, (4, 5, 30))
    short = rng.integers(0, 2, (32, 50, 30))
    short[0] = 1
    result = held_against(draws, short)
    assert result.table.loc["activity of v", "above"] >= 1
    assert result.outside == []


def test_components_of_many_units_do_not_know_the_ends(rng):
    # With the ends among the draws that directions are found by, 32 chains of 3000 units are far outside.
    result = held_against(rng.integers(0, 2, (4, 200, 3000)), rng.integers(0, 2, (32, 2, 3000)))
    assert result.outside == result.unreached == []


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_promised(rng):
    # One look at draws with an autocorrelation time of 5, and at chains of the same law. If alarms came at the promised
    # rate of 1 %, 400 comparisons would give more than 11 with a probability below 0.1 %.
    def chains(n_chains, n_draws):
        x = rng.normal(size=(n_chains, n_draws, 12))
        for t in range(1, n_draws):
            x[:, t] = 2 / 3 * x[:, t - 1] + np.sqrt(5) / 3 * x[:, t]
        return (x > 0.8).astype(int)

    looks = (held_against(chains(4, 250), chains(32, 60)) for _ in range(400))
    assert sum(bool(look.complaints) for look in looks) <= 11
    assert FALSE_ALARM_RATE == 0.01


def two_modes(n_units=12, tilt=0.0):
    """Give a machine whose units are nearly all up or nearly all down, both as probable without tilt."""
    J = 1.2 * (np.ones((n_units, n_units)) - np.eye(n_units))
    with pm.Model() as model:
        pmn.BoltzmannMachine("z", J, tilt - J.sum(axis=0) / 2)
    return model


def test_a_mode_that_no_chain_visited_is_found():
    model = two_modes()
    with model:
        idata = pm.sample(400, tune=10, chains=4, initvals={"z": np.ones(12, int)}, random_seed=1, **SAMPLE)
    assert idata["posterior"]["z"].mean() > 0.9  # half of the mass is elsewhere
    alone = report(idata)
    assert alone.overview.loc["z", "max r_hat"] < 1.05
    assert alone.short_chains is None
    result = report(idata, model=model, random_seed=1)
    assert "activity of z" in result.short_chains.outside
    assert result.short_chains.n_chains == result.short_chains.n_starts == 32
    assert result.short_chains.n_draws == 200  # of the second look
    assert any("The draws miss a part of the distribution" in " ".join(text.split()) for text in result.complaints)
    assert "held against the ends of 32 short chains of 200 draws from 32 starts" in str(result)


@pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")
def test_draws_of_a_machine_that_mixes_give_no_complaint(rng):
    W, a, b = rng.normal(0, 0.5, (8, 4)), rng.normal(0, 0.5, 8), rng.normal(0, 0.5, 4)
    seen = np.ma.masked_array(rng.integers(0, 2, 8), mask=np.arange(8) < 6)
    with pm.Model() as model:
        pmn.BernoulliRBM("v", W, a, b, observed=seen)
        idata = pm.sample(400, tune=10, chains=4, random_seed=1, **SAMPLE)
    result = report(idata, model=model, random_seed=2, chains=16)
    assert result.complaints == []
    assert (result.short_chains.n_chains, result.short_chains.n_draws) == (16, 50)
    again = report(idata, model=model, random_seed=2, chains=16)
    assert again.short_chains.table.equals(result.short_chains.table)
    assert list(result.short_chains.table.index) == [
        "energy",
        "activity of v_unobserved",
        "first component of v_unobserved",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["machine", "evidence", "field"])
def test_draws_of_models_that_mix_are_left_in_peace(kind, rng):
    # Ten reports of each; if one report in a hundred complained, more than one of ten would with probability 0.4 %.
    with pm.Model() as model:
        if kind == "machine":
            pmn.BernoulliRBM("v", rng.normal(0, 0.5, (20, 8)), rng.normal(0, 0.5, 20), rng.normal(0, 0.5, 8))
        elif kind == "evidence":
            J = np.triu(rng.normal(0, 0.5, (8, 8)), 1)
            z = pmn.BoltzmannMachine("z", J + J.T, rng.normal(0, 1, 8))
            pm.Normal("y", z.astype("float64"), 1.0, observed=rng.normal(0.5, 1, 8))
        else:
            pmn.Ising("s", pmn.lattice((6, 6), periodic=True), coupling=0.2)
    n_alarms = 0
    for seed in range(10):
        with model:
            idata = pm.sample(1000, tune=100, chains=4, random_seed=seed, **SAMPLE)
        n_alarms += bool(report(idata, model=model, random_seed=seed).complaints)
    assert n_alarms <= 1


def test_short_chains_that_all_begin_alike_say_so():
    model = two_modes()
    up = {"z": np.ones(12, int)}
    with model:
        idata = pm.sample(400, tune=10, chains=4, random_seed=1, initvals=up, **SAMPLE)
    result = report(idata, model=model, random_seed=1, initvals=up, draws=30)
    assert result.short_chains.n_starts == 1
    assert result.short_chains.outside == []
    assert "The 32 short chains all began in the same state" in result.complaints[-1]


def test_options_reach_the_short_chains():
    model = two_modes()
    with model:
        idata = pm.sample(100, tune=10, chains=4, random_seed=1, **SAMPLE)
    with pytest.raises(ValueError, match="sweeps_per_draw"):
        report(idata, model=model, block_gibbs={"sweeps_per_draw": 0})


def test_bad_input_is_refused():
    model = two_modes()
    with model:
        idata = pm.sample(20, tune=10, chains=2, random_seed=1, **SAMPLE)
    with pytest.raises(ValueError, match=r"block_gibbs, draws, random_seed are for the short chains of a model"):
        report(idata, draws=10, random_seed=1, block_gibbs={})
    with pytest.raises(TypeError, match=r"model must be a pymc\.Model, got str"):
        report(idata, model="z")
    with pytest.raises(ValueError, match="chains must be at least 2, got 1"):
        report(idata, model=model, chains=1)
    with pytest.raises(TypeError, match=r"draws must be an integer, got 1\.5"):
        report(idata, model=model, draws=1.5)
    with pytest.raises(ValueError, match=r"model must be the one that idata was drawn from: 'z' has shape \(12,\)"):
        report(idata, model=two_modes(5), draws=1)
    with pm.Model() as other:
        pm.Normal("x")
    with pytest.raises(ValueError, match=r"it has \['x'\], not \['z'\]"):
        report(idata, model=other)


def test_modes_that_a_child_at_its_default_hides_are_found():
    """Units drawn given a child at PyMC's default lose their coins, so that all chains start alike."""
    with pm.Model() as model:
        z = pmn.BoltzmannMachine("z", np.zeros((2, 2)), 0.0)
        pm.Normal("x", 12.0 * z, 1, shape=2)
        idata = pm.sample(100, tune=100, chains=4, random_seed=2, **SAMPLE)
    assert idata["posterior"]["z"].mean(("chain", "draw")).values.max() == 1  # exact: 0.5 for both
    assert "Of 32 short chains" in " ".join(report(idata, model=model, random_seed=1).complaints)
