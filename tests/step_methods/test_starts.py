"""How chains start, what is said of starts that contradict evidence, and of chains that cannot move."""

import itertools
import logging

import cloudpickle
import numpy as np
import pymc as pm
import pytest
from pymc.stats.convergence import SamplerWarning
from pymc.step_methods.state import equal_dataclass_values
from scipy import stats
from scipy.sparse import csr_array

import pm_neural as pmn
from step_methods.reduced.freeze import look_at_units

pytestmark = [
    pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning"),
    pytest.mark.filterwarnings("ignore:.*number of samples"),
]

QUIET = {"progressbar": False, "compute_convergence_checks": False}
ONE_CORE = {"cores": 1, **QUIET}
FAST = {"compile_kwargs": {"mode": "FAST_COMPILE"}}

# --- coins ---------------------------------------------------------------------------------------------------------


def starts_of(step, point, n, names=None):
    """The states that n chains of a step start in, one row each."""
    names = names or [value.name for value in step.vars]
    rows = []
    for seed in range(n):
        step.setup_chain(np.random.default_rng(seed), 0, 1)
        start = step.begin(point)
        rows.append(np.concatenate([np.ravel(start[name]) for name in names]))
    return np.array(rows)


def fair(bits, alpha=1e-6):
    """Whether each column is a fair coin, and each pair of columns independent (Bonferroni, false alarms: alpha)."""
    n_rows, n_units = bits.shape
    signs = 2 * bits - 1
    sums = [signs.sum(0), *(signs[:, i] @ signs[:, j] for i, j in itertools.combinations(range(n_units), 2))]
    counts = (np.concatenate([np.atleast_1d(s) for s in sums]) + n_rows) // 2
    p_values = [stats.binomtest(int(k), n_rows).pvalue for k in counts]
    return min(p_values) > alpha / len(p_values)


def field(spins=False, evidence=False):
    with pm.Model() as model:
        if spins:
            z = pmn.Ising("z", pmn.lattice((2, 3)), [[3.0, -3, 3], [3, 3, 3]], coupling=2.0)
        else:
            z = pmn.BoltzmannMachine("z", pmn.lattice((2, 3)), 4.0, coupling=2.0)
        if evidence:  # excludes the high value of the first unit, and the low one of the last
            low = [[0, 0, 0], [0, 0, -np.inf]]
            high = [[-np.inf, 0, 0], [0, 0, 0]]
            pm.Potential("y", pm.math.switch(pm.math.eq(z, 1), high, low))
    return model


def rbm(hidden=True, **kwargs):
    rng = np.random.default_rng(1)
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", rng.normal(size=(4, 3)), np.full(4, 5.0), np.full(3, 5.0), **kwargs)
        if hidden:
            pmn.HiddenUnits("h", v)
    return model


@pytest.mark.parametrize("step_method", [pmn.BlockGibbs, pmn.NeuralSampling])
@pytest.mark.parametrize("spins", [False, True])
def test_fields_start_from_coins(step_method, spins):
    model = field(spins)
    with model:
        step = step_method(model.free_RVs)
    starts = starts_of(step, model.initial_point(), 400)
    assert set(np.unique(starts)) == ({-1, 1} if spins else {0, 1})
    assert fair((starts > 0).astype(int))


@pytest.mark.parametrize("step_method", [pmn.BlockGibbs, pmn.NeuralSampling])
@pytest.mark.parametrize("hidden", [False, True])
def test_layers_start_from_coins(step_method, hidden):
    model = rbm(hidden)
    with model:
        step = step_method(model.free_RVs)
    assert fair(starts_of(step, model.initial_point(), 400))


def test_clamped_units_stay_where_they_are():
    data = np.ma.masked_array([1, 0, 1, 0], mask=[True, True, False, True])
    model = rbm(observed=data)
    with model:
        step = pmn.BlockGibbs(model.free_RVs)
    starts = starts_of(step, model.initial_point(), 400)
    assert starts.shape == (400, 6)
    assert fair(starts)


@pytest.mark.parametrize("step_method", [pmn.BlockGibbs, pmn.NeuralSampling])
@pytest.mark.parametrize("spins", [False, True])
def test_coins_obey_evidence(step_method, spins):
    model = field(spins, evidence=True)
    with model:
        step = step_method(model.free_RVs)
    starts = starts_of(step, model.initial_point(), 400) > 0
    assert not starts[:, 0].any()
    assert starts[:, -1].all()
    assert fair(starts[:, 1:-1].astype(int))


@pytest.mark.parametrize("step_method", [pmn.BlockGibbs, pmn.NeuralSampling])
def test_coins_of_layers_obey_evidence(step_method):
    model = rbm()
    with model:
        for name, hard in (("v", [0, 0, -np.inf, 0]), ("h", [-np.inf, 0, 0])):
            pm.Potential(f"of_{name}", pm.math.switch(pm.math.eq(model[name], 1), hard, 0.0))
        step = step_method(model.free_RVs)
    starts = starts_of(step, model.initial_point(), 400)
    assert not starts[:, [2, 4]].any()
    assert fair(np.delete(starts, [2, 4], axis=1))


def test_evidence_is_read_at_the_start_of_each_chain():
    with pm.Model() as model:
        needed = pm.Normal("needed", shape=3)
        z = pmn.BoltzmannMachine("z", np.zeros((3, 3)), 0.0)
        pm.Potential("y", pm.math.switch((needed > 0) & pm.math.eq(z, 0), -np.inf, 0.0))
        step = pmn.BlockGibbs([z])
    for pattern in itertools.product([-1.0, 1.0], repeat=3):
        point = {**model.initial_point(), "needed": np.array(pattern)}
        starts = starts_of(step, point, 40)
        certain = np.array(pattern) > 0
        assert starts[:, certain].all()
        assert not starts[:, ~certain].all(axis=0).any()


def test_networks_that_a_term_joins_start_in_turn():
    with pm.Model() as model:
        first = pmn.BoltzmannMachine("first", np.zeros((3, 3)), -9.0)
        second = pmn.BoltzmannMachine("second", np.zeros((3, 3)), 9.0)
        pm.Potential("below", pm.math.switch(first > second, -np.inf, 0.0))
        step = pmn.BlockGibbs([first, second])
    point = model.initial_point()
    assert not point["first"].any()
    assert point["second"].all()
    logp = model.compile_logp(vars=[model["below"]])
    seen = set()
    for seed in range(400):
        step.setup_chain(np.random.default_rng(seed), 0, 1)
        start = step.begin(point)
        assert logp(start) == 0
        seen.add((*start["first"], *start["second"]))
    # Where the first one is down the second is a coin: 27 states, the rarest of probability 1/64.
    assert len(seen) == 27  # one is missed with a probability of 0.015


@pytest.mark.parametrize("hidden", ["auxiliary", "sampled", "others'"])
def test_real_visible_units_start_from_their_law_given_coins(hidden):
    W, a, b, sigma = np.array([[3.0, -2.0], [0.0, 4.0]]), np.array([1.0, -1.0]), np.array([-9.0, 9.0]), [0.1, 0.2]
    with pm.Model() as model:
        v = pmn.GaussianRBM("v", W, a, b, sigma)
        layers = [v]
        if hidden != "auxiliary":
            h = pmn.HiddenUnits("h", v)
            layers += [h] * (hidden == "sampled")
        step = pmn.BlockGibbs(layers)
    point = model.initial_point()
    starts = starts_of(step, point, 400, ["v"])
    states = np.array(list(itertools.product([0, 1], repeat=2)))
    distances = np.abs((starts[:, None] - a - states @ W.T) / sigma).max(axis=2)
    nearest = distances.argmin(axis=1)
    assert stats.chisquare(np.bincount(nearest, minlength=4)).pvalue > 1e-6
    noise = (starts - a - states[nearest] @ W.T) / sigma
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-6  # false alarms: 1e-6 each


def test_bernoulli_units_start_from_coins_within_their_support():
    with pm.Model() as model:
        z = pm.Bernoulli("z", 0.9, shape=5)
        pm.Potential("two", pm.math.switch(z[:3].sum() < 2, -np.inf, 0.0))
        step = pmn.NeuralSampling([z], tau=3, **FAST)
    point = model.initial_point()
    starts = starts_of(step, point, 400)
    assert (starts[:, :3].sum(axis=1) >= 2).all()
    # A unit comes down unless another one was down before: the last two are coins, all of the possible states occur.
    assert fair(starts[:, 3:])
    assert len(np.unique(starts[:, :3], axis=0)) == 4


def test_counters_are_drawn_for_the_start_of_a_chain():
    with pm.Model() as model:
        z = pmn.BoltzmannMachine("z", np.zeros((400, 400)), 1000.0)
        step = pmn.NeuralSampling([z], tau=4, order="sequential")
    step.setup_chain(np.random.default_rng(1), 0, 1)
    start = step.begin(model.initial_point())["z"].astype(bool)
    step.setup_chain(np.random.default_rng(1), 0, 1)
    step.step(model.initial_point())
    (counters,) = step.neurons[0]
    # After one step: 4 if just fired, as all that were off have (p = 1), and of those that were on a quarter.
    assert (counters[~start] == 4).all()
    assert stats.chisquare(np.bincount(counters[start], minlength=5)[1:]).pvalue > 1e-6


# --- once a chain, and for the chain's own generator ----------------------------------------------------------------


@pytest.mark.parametrize("step_method", [pmn.BlockGibbs, pmn.NeuralSampling])
def test_only_the_first_draw_of_a_chain_starts_it(step_method):
    model = field()
    with model:
        step = step_method(model.free_RVs, rng=1)
    point = model.initial_point()
    assert step.start_hash is None
    state = step.sampling_state
    first, (stat,) = step.step(point)
    hash_ = step.start_hash
    assert stat["start_hash"] == hash_
    # The default again: now it is where the other steps or the last draw have left it.
    step.begin = None
    for _ in range(3):
        _, (stat,) = step.step(point)
        assert stat["start_hash"] == hash_
    later = cloudpickle.loads(cloudpickle.dumps(step.sampling_state))
    with model:
        other = step_method(model.free_RVs, rng=2)
        other.sampling_state = later
    assert equal_dataclass_values(other.sampling_state, later)
    other.begin = None
    expected, (stat,) = step.step(point)
    assert stat["start_hash"] == hash_
    np.testing.assert_array_equal(other.step(point)[0]["z"], expected["z"])
    # A state from before the first draw starts the chain that it would have started.
    del other.begin
    other.sampling_state = state
    again, (stat,) = other.step(point)
    assert stat["start_hash"] == hash_
    np.testing.assert_array_equal(again["z"], first["z"])
    other.setup_chain(np.random.default_rng(3), 0, 1)
    assert other.start_hash is None


def test_chains_start_apart_and_tell_it_by_a_hash():
    with rbm() as model:
        alone = pm.sample(5, tune=0, chains=4, random_seed=1, **ONE_CORE)
        together = pm.sample(5, tune=0, chains=4, random_seed=1, cores=2, **QUIET)
        same = pm.sample(5, tune=0, chains=2, initvals={"v": [1, 0, 0, 1], "h": [0, 1, 1]}, **ONE_CORE)
    assert model.initial_point()["v"].tolist() == [1, 1, 1, 1]
    hashes = alone["sample_stats"]["start_hash"]
    assert hashes.dtype == np.int64
    assert (hashes == hashes[:, :1]).all()
    assert len(np.unique(hashes)) == 4
    for name in ("v", "h"):
        np.testing.assert_array_equal(alone["posterior"][name], together["posterior"][name])
    np.testing.assert_array_equal(hashes, together["sample_stats"]["start_hash"])
    assert len(np.unique(same["sample_stats"]["start_hash"])) == 1


# --- what a user gives is kept ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_method", [pmn.BlockGibbs, pmn.NeuralSampling])
def test_a_start_that_was_given_is_kept(step_method):
    model = field()
    with model:
        step = step_method(model.free_RVs)
    default = model.initial_point()["z"]
    given = default.copy()
    given[1, 1] = 1 - given[1, 1]
    starts = starts_of(step, {"z": given}, 5)
    np.testing.assert_array_equal(starts, np.tile(given.ravel(), (5, 1)))


def test_a_start_that_was_declared_is_kept():
    with pm.Model() as model:
        z = pmn.BoltzmannMachine("z", np.zeros((3, 3)), 0.0, initval=[1, 1, 0])
        step = pmn.BlockGibbs([z])
    np.testing.assert_array_equal(starts_of(step, model.initial_point(), 3), [[1, 1, 0]] * 3)


def test_a_start_of_one_variable_leaves_the_other_to_coins():
    model = rbm()
    with model:
        step = pmn.BlockGibbs(model.free_RVs)
    point = {**model.initial_point(), "h": np.array([0, 1, 0])}
    starts = starts_of(step, point, 400)
    np.testing.assert_array_equal(starts[:, 4:], np.tile([0, 1, 0], (400, 1)))
    assert fair(starts[:, :4])


def test_the_default_follows_the_starts_of_other_variables():
    with pm.Model() as model:
        b = pm.Normal("b")
        z = pmn.BoltzmannMachine("z", np.zeros((6, 6)), b, normalize="exact")
        step = pmn.BlockGibbs([z])
    start = {"b": 5.0}
    point = model.initial_point()
    # What PyMC makes of a start of b alone, and what it is by the time that another step has moved b.
    fn = pm.initial_point.make_initial_point_fn(model=model, overrides=start)
    moved = fn(1)
    assert not np.array_equal(moved["z"], point["z"])
    for given in (moved, {**point, "b": np.array(0.1)}):
        assert len(np.unique(starts_of(step, given, 20), axis=0)) > 5


# --- starts that contradict evidence --------------------------------------------------------------------------------


def occupancy(first="detection"):
    """Sites where something was seen are occupied."""
    seen = np.array([0, 2, 0, 1])
    with pm.Model() as model:
        if first == "detection":
            detection = pm.Beta("detection", 2, 2)
        z = pmn.BoltzmannMachine("z", np.zeros((4, 4)), -9.0)
        if first == "z":
            detection = pm.Beta("detection", 2, 2)
        pm.Binomial("seen", 3, z * detection, observed=seen)
    return model


CONTRADICTION = (
    r"start value of 'z' contradicts the terms 'seen' .*: z\[1\] must be 1; z\[3\] must be 1\. pmn.find_start"
)


def test_a_start_that_nuts_would_stumble_on_is_refused_before():
    with occupancy(), pytest.raises(ValueError, match=CONTRADICTION):
        pm.sample(5, tune=5, chains=1, **ONE_CORE)


def test_a_start_that_this_step_mends_first_is_not_refused():
    with occupancy("z"):
        idata = pm.sample(5, tune=5, chains=2, random_seed=1, **ONE_CORE)
    assert (idata["posterior"]["z"][..., [1, 3]] == 1).all()


def test_a_given_start_that_contradicts_evidence_is_refused():
    given = {"z": [1, 0, 1, 0]}
    with occupancy("z"):
        with pytest.raises(ValueError, match=CONTRADICTION):
            pm.sample(5, tune=5, chains=1, initvals=given, **ONE_CORE)
        # Of the second chain it is only known when that one starts.
        with pytest.raises(ValueError, match=CONTRADICTION):
            pm.sample(5, tune=5, chains=2, initvals=[None, given], **ONE_CORE)


def test_a_given_start_that_contradicts_evidence_is_refused_through_the_logp():
    with pm.Model() as model:
        z = pm.Bernoulli("z", 0.5, shape=3)
        pm.Potential("y", pm.math.switch(pm.math.eq(z, 0), [-np.inf, 0, 0], 0.0).sum())
        step = pmn.NeuralSampling([z], **FAST)
    with pytest.raises(ValueError, match=r"start value of 'z' contradicts .* z\[0\] must be 1"):
        step.begin({"z": np.array([0, 1, 0])})
    assert (starts_of(step, {"z": np.array([1, 1, 0])}, 3) == [1, 1, 0]).all()
    assert (starts_of(step, model.initial_point(), 20)[:, 0] == 1).all()


# --- chains that cannot move ----------------------------------------------------------------------------------------


def tied(step_method=pmn.NeuralSampling, **options):
    with pm.Model() as model:
        z = pmn.BoltzmannMachine("z", np.zeros((4, 4)), 0.0, initval=[1, 1, 0, 0])
        pm.Potential("two", pm.math.switch(pm.math.eq(z.sum(), 2), 0.0, -np.inf))
        step = step_method([z], **FAST, **options)
    return model, step


def warnings_of(step, point, n=10):
    said = []
    for _ in range(n):
        point, (stat,) = step.step(point)
        if stat["warning"] is not None:
            assert isinstance(stat["warning"], SamplerWarning)
            said.append(stat["warning"].message)
    return said


@pytest.mark.parametrize("cores", [1, 2])
def test_a_chain_that_cannot_move_says_so_once(cores, caplog):
    model, step = tied(tau=5)
    with model, caplog.at_level(logging.WARNING):
        idata = pm.sample(30, tune=10, chains=2, step=step, cores=cores, random_seed=1, **QUIET)
    assert (idata["posterior"]["z"] == [1, 1, 0, 0]).all()
    said = [record.message for record in caplog.records if "cannot move" in record.message]
    assert len(said) == 2  # one a chain
    assert "NeuralSampling cannot move: given the others, each unit of 'z'" in said[0]
    assert "warning" not in idata["sample_stats"]


def test_it_is_said_again_for_the_next_chain_but_not_after_a_round_trip():
    model, step = tied(tau=5)
    point = model.initial_point()
    assert len(warnings_of(step, point)) == 1
    step.sampling_state = step.sampling_state
    assert not warnings_of(step, point)
    step.setup_chain(np.random.default_rng(1), 0, 10)
    assert len(warnings_of(step, point)) == 1


@pytest.mark.parametrize("step_method", [pmn.BlockGibbs, pmn.NeuralSampling])
def test_couplings_that_nothing_overcomes_freeze_a_chain(step_method):
    checkerboard = 2 * (np.indices((4, 4)).sum(axis=0) % 2) - 1
    for coupling, start, frozen in ((100.0, 1, True), (1.0, 1, False), (-100.0, checkerboard, True)):
        with pm.Model():
            z = pmn.Ising("z", pmn.lattice((4, 4)), coupling=coupling)
            step = step_method([z])
        assert bool(warnings_of(step, {"z": np.full((4, 4), start)})) == frozen


@pytest.mark.parametrize("step_method", [pmn.BlockGibbs, pmn.NeuralSampling])
@pytest.mark.parametrize("hidden", [False, True])
def test_layers_that_hold_each_other_freeze_a_chain(step_method, hidden):
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", np.full((3, 2), 200.0), np.full(3, -200.0), np.full(2, -300.0), initval=[1, 1, 1])
        layers = [v, *([pmn.HiddenUnits("h", v, initval=[1, 1])] if hidden else [])]
        step = step_method(layers)
    assert len(warnings_of(step, model.initial_point())) == 1


def test_networks_that_hold_each_other_freeze_a_chain():
    with pm.Model() as model:
        first = pmn.BoltzmannMachine("first", np.zeros((2, 2)), 0.0)
        second = pmn.BoltzmannMachine("second", np.zeros((2, 2)), 0.0)
        pm.Potential("equal", pm.math.switch(pm.math.eq(first, second), 0.0, -np.inf))
        step = pmn.BlockGibbs([first, second])
    point = {name: np.array([1, 0]) for name in model.initial_point()}
    assert len(warnings_of(step, point)) == 1


@pytest.mark.parametrize("through_logp", [False, True])
@pytest.mark.parametrize("step_method", [pmn.BlockGibbs, pmn.NeuralSampling])
def test_units_that_are_certain_by_themselves_are_not_frozen(step_method, through_logp):
    if through_logp and step_method is pmn.BlockGibbs:
        pytest.skip("it takes no such variables")
    with pm.Model() as model:
        if through_logp:
            z = pm.Bernoulli("z", [1.0, 0.5, 0.5])
        else:
            z = pmn.BoltzmannMachine("z", 0.1 * (np.ones((3, 3)) - np.eye(3)), [300.0, 0.0, 0.0])
        pm.Potential("hard", pm.math.switch(pm.math.eq(z[1], 0), -np.inf, 0.0))
        pm.Normal("sharp", z[2], 0.001, observed=0.0)
        step = step_method([z], **FAST)
    # Units that are on at the start are so for 20 draws at the most.
    assert not warnings_of(step, model.initial_point(), 60)


def test_who_is_certain_makes_others_certain():
    couplings = csr_array(100.0 * (np.diag([1.0, 1.0], 1) + np.diag([1.0, 1.0], -1)))

    def look(biases, ones):
        biases, ones = np.array(biases), np.array(ones, bool)
        return look_at_units(couplings, 1.0, biases, ones, np.ones(3, bool), np.zeros(3, bool), 36.7)

    assert look([-50.0, -100.0, -50.0], [1, 1, 1]) == (True, True)  # all on or all off
    assert look([np.inf, -50.0, -50.0], [1, 1, 1]) == (True, False)  # on, since the first one is
    assert look([0.0, -100.0, -50.0], [1, 1, 1]) == (True, True)
    assert look([0.0, -50.0, -50.0], [0, 0, 0]) == (False, False)


def test_the_other_layer_gets_a_start_too_where_it_has_a_step_of_its_own():
    """Else the coins of the first layer would be drawn anew given the default of the second."""
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", np.zeros((4, 6)), np.zeros(4), np.zeros(6))
        pmn.HiddenUnits("h", v)
        step = pmn.BlockGibbs([v])
    point = model.initial_point()
    starts = []
    for seed in range(20):
        step.setup_chain(np.random.default_rng(seed), 0, 1)
        starts.append(step.begin(point)["h"])
    assert len({start.tobytes() for start in starts}) > 10
    given = point | {"h": 1 - point["h"]}
    step.setup_chain(np.random.default_rng(1), 0, 1)
    np.testing.assert_array_equal(step.begin(given)["h"], given["h"])
