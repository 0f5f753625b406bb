"""BlockGibbs in random order and with blocks that the user gives: exact, and by the kernels that run."""

from collections import Counter

import cloudpickle
import numpy as np
import pymc as pm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pytensor.compile.mode import Mode
from scipy import special

import pm_neural as pmn
from pm_neural.diagnostics import certify, transition_matrix
from pm_neural.diagnostics._forced import outcomes
from step_methods.gibbs import pairwise
from step_methods.kernels.pairwise.sparse import refill_sparse
from step_methods.kernels.vectors.random import fill_uniform

pytestmark = pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")

QUIET = {"progressbar": False, "compute_convergence_checks": False}
CHECKERBOARD = np.indices((2, 3)).sum(axis=0) % 2 == 0


def symmetric(rng, n):
    J = np.triu(rng.normal(size=(n, n)), 1)
    return J + J.T


def dense(rng):
    pmn.BoltzmannMachine("z", symmetric(rng, 4), rng.normal(size=4))


def grid(rng):
    pmn.Ising("z", 0.4 * pmn.lattice((2, 3)), rng.normal(size=(2, 3)))


def odd_ring(rng):
    pmn.BoltzmannMachine("z", pmn.lattice((5,), periodic=True), rng.normal(size=5), coupling=0.8)


def batch(rng):
    pmn.Ising("z", symmetric(rng, 3), rng.normal(size=(2, 3)), coupling=np.array([0.5, -1.0]))


def clamped_grid(rng):
    observed = np.ma.masked_array([[1, -1, 1], [-1, 1, -1]], mask=[[0, 1, 1], [1, 0, 1]])
    pmn.Ising("z", pmn.lattice((2, 3)), rng.normal(size=(2, 3)), coupling=0.6, observed=observed)


def clamped_batch(rng):
    observed = np.ma.masked_array(np.ones((2, 3)), mask=[[1, 1, 0], [0, 1, 1]])
    pmn.Ising("z", symmetric(rng, 3), rng.normal(size=(2, 3)), observed=observed, event_ndim=1)


def evidence_and_random_coupling(rng):
    beta, sigma = pm.HalfNormal("beta"), pm.HalfNormal("sigma")
    z = pmn.Ising("z", pmn.lattice((2, 3)), coupling=beta, normalize="exact")
    pm.Normal("y", z, sigma, observed=rng.normal(size=(2, 3)))


def rbm(rng):
    v = pmn.BernoulliRBM("z", rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3))
    pmn.HiddenUnits("h", v)


def auxiliary(rng):
    pmn.BernoulliRBM("z", rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3))


def batch_of_auxiliary(rng):
    pmn.BernoulliRBM("z", rng.normal(size=(2, 2, 2)), rng.normal(size=(2, 2)), rng.normal(size=2))


def clamped_rbm(rng):
    observed = np.ma.masked_array([1, 0, 0, 1], mask=[0, 1, 1, 1])
    v = pmn.BernoulliRBM("z", rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3), observed=observed)
    pmn.HiddenUnits("h", v, observed=np.ma.masked_array([1, 0, 0], mask=[0, 1, 1]))


def rbm_with_evidence_and_random_weights(rng):
    scale = pm.HalfNormal("scale")
    v = pmn.BernoulliRBM("z", scale * rng.normal(size=(3, 2)), rng.normal(size=3), np.zeros(2), normalize="exact")
    h = pmn.HiddenUnits("h", v)
    pm.Poisson("counts", 0.5 + v, observed=[1, 0, 2])
    pm.Normal("y", h, scale, observed=[0.3, 0.9])


def joined(rng):
    first = pmn.BernoulliRBM("z", rng.normal(size=(2, 1)), np.zeros(2), np.zeros(1))
    second = pmn.Ising("s", symmetric(rng, 2), np.zeros(2))
    pm.Potential("bridge", 1.5 * first * second)


def apart(rng):
    pmn.BernoulliRBM("z", rng.normal(size=(2, 1)), np.zeros(2), np.zeros(1))
    pmn.Ising("s", symmetric(rng, 3), rng.normal(size=3))


# Model, which variables the step updates, and their blocks.
CASES = {
    "dense": (dense, "z", [[2], [0], [3], [1]]),
    "dense in order": (dense, "z", [[0], [1], [2], [3]]),
    "grid": (grid, "z", [CHECKERBOARD, ~CHECKERBOARD]),
    "grid in parts": (grid, "z", [[(0, 2), (1, 1)], [(0, 0)], [1, 5], [(1, 0)]]),
    "odd ring": (odd_ring, "z", [[0, 2], [1, 3], [4]]),
    "batch": (batch, "z", [[5], [0, 4], [1], [2, 3]]),
    "clamped grid": (clamped_grid, "z", [[(0, 1), (1, 0)], [(0, 2)], [5]]),
    "clamped batch": (clamped_batch, "z", [[4], [0, 5], [1]]),
    "evidence": (evidence_and_random_coupling, "z", [~CHECKERBOARD, [0, 2], [4]]),
    "rbm": (rbm, "zh", {"z": [[0, 3], [1, 2]], "h": [[2], [0, 1]]}),
    "rbm, hidden layer whole": (rbm, "hz", {"z": [[3], [0, 1, 2]]}),
    "visible given hidden": (rbm, "z", [[0, 3], [1, 2]]),
    "hidden given visible": (rbm, "h", [[0, 2], [1]]),
    "auxiliary": (auxiliary, "z", [[0, 3], [1, 2]]),
    "batch of auxiliary": (batch_of_auxiliary, "z", [[0], [1, 2], [3]]),
    "clamped rbm": (clamped_rbm, "zh", {"z": [[1], [2, 3]], "h": [[2], [1]]}),
    "rbm with evidence": (rbm_with_evidence_and_random_weights, "zh", {"h": [[1], [0]], "z": [[0, 2], [1]]}),
    "joined": (joined, "zs", {"z": [[1], [0]]}),
    "apart": (apart, "zs", {"s": [[2], [1], [0]]}),
}


def make_step(rng, case, with_blocks=True, **options):
    build, names, blocks = CASES[case]
    with pm.Model() as model:
        build(rng)
        if with_blocks:
            options["blocks"] = blocks
        return model, pmn.BlockGibbs([model[name] for name in names], **options)


def other_point(model):
    return {name: np.array(-0.4) for name in model.initial_point() if name.endswith("_log__")}


@pytest.mark.parametrize("order", ["fixed", "random"])
@pytest.mark.parametrize("case", CASES)
def test_blocks_leave_the_posterior_invariant(rng, case, order):
    model, step = make_step(rng, case, order=order)
    certificate = certify(step, other_point(model), tolerance=1e-12)
    assert certificate.passed, str(certificate)
    assert certificate.reversible or order == "fixed"


@pytest.mark.parametrize("case", CASES)
def test_a_random_order_of_its_own_blocks_leaves_the_posterior_invariant(rng, case):
    model, step = make_step(rng, case, with_blocks=False, order="random")
    certificate = certify(step, other_point(model), tolerance=1e-12)
    assert certificate.passed, str(certificate)
    assert certificate.reversible


@st.composite
def networks(draw):
    """A field of up to five units, and blocks of units that do not interact, in any order."""
    n = draw(st.integers(1, 5))
    J = np.triu(draw(arrays(np.float64, (n, n), elements=st.just(0.0) | st.floats(-3, 3, width=32))), 1)
    J += J.T
    blocks: list[list[int]] = []
    for unit in draw(st.permutations(range(n))):
        fitting = [block for block in blocks if not J[unit, block].any()]
        if fitting and draw(st.booleans()):
            draw(st.sampled_from(fitting)).append(unit)
        else:
            blocks.append([unit])
    return J, draw(arrays(np.float64, n, elements=st.floats(-3, 3, width=32))), blocks


@pytest.mark.parametrize("spins", [False, True])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(network=networks(), order=st.sampled_from(["fixed", "random"]))
def test_any_blocks_of_any_network(spins, network, order):
    J, biases, blocks = network
    with pm.Model():
        z = (pmn.Ising if spins else pmn.BoltzmannMachine)("z", J, biases)
        certificate = certify(pmn.BlockGibbs([z], blocks=blocks, order=order), tolerance=1e-12)
    assert certificate.passed, str(certificate)


# ------------------------------------------------------------------------------------ stages and steps


@pytest.mark.parametrize(
    ("case", "order"),
    [
        ("dense", "fixed"),
        ("dense in order", "fixed"),
        ("clamped batch", "fixed"),
        ("rbm with evidence", "fixed"),
        ("batch of auxiliary", "fixed"),
        ("joined", "fixed"),
        ("clamped grid", "random"),
        ("joined", "random"),
    ],
)
def test_stages_compose_to_the_step(rng, case, order):
    """All decisions of a whole step, the picks among them, lead where the product of the stages says."""
    model, step = make_step(rng, case, order=order)
    certificate = certify(step, other_point(model))
    point = {**model.initial_point(), **other_point(model)}
    low = {var.name: step.values[var.name][0] for var in step.vars}
    states = certificate.transition.states
    index = {tuple(state): i for i, state in enumerate(states.tolist())}
    for i in (0, len(states) // 3) if order == "fixed" else (1,):
        start, first = dict(point), 0
        for name in low:
            size = point[name].size
            start[name] = states[i, first : first + size].reshape(point[name].shape)
            first += size

        def run(bits, start=start):
            new, probabilities = step.forced_step(start, bits)
            return index[tuple(np.concatenate([new[name].ravel() for name in low]).tolist())], probabilities

        row = np.zeros(len(states))
        for j, probability in outcomes(run, 100_000):
            row[j] += probability
        np.testing.assert_allclose(row, certificate.transition.matrix[i], rtol=0, atol=1e-14)


@pytest.mark.parametrize("case", ["dense", "evidence", "rbm", "batch of auxiliary", "joined", "apart"])
@pytest.mark.parametrize("with_blocks", [False, True])
def test_random_steps_go_where_the_matrix_says(rng, case, with_blocks):
    """Frequencies of the moves of the real step, two sweeps at a time.

    At most 64 frequencies from one state, each within 5 standard errors and 3 counts: a false alarm in fewer than 1 of
    2000 seeds for all cases together.
    """
    model, step = make_step(rng, case, with_blocks, order="random", sweeps_per_draw=2)
    other = other_point(model)
    T = transition_matrix(step, other)
    step.setup_chain(np.random.default_rng(8), 0, 1)
    start = {**model.initial_point(), **other}
    names = [var.name for var in step.vars]
    i = [tuple(x) for x in T.states.tolist()].index(tuple(np.concatenate([start[n].ravel() for n in names]).tolist()))
    n = 3000
    ends = Counter()
    step.step(start)  # which starts from coins where `start` is the default
    for _ in range(n):
        new, (stats,) = step.step(start)
        assert stats["flip_rate"] == sum((new[name] != start[name]).sum() for name in names) / step._n_units
        ends[tuple(np.concatenate([new[name].ravel() for name in names]).tolist())] += 1
    for state, q in zip(T.states.tolist(), T.matrix[i], strict=True):
        assert abs(ends[tuple(state)] - n * q) <= 5 * np.sqrt(n * q * (1 - q)) + 3


@pytest.mark.parametrize("order", ["fixed", "random"])
@pytest.mark.parametrize("case", ["grid in parts", "clamped batch", "rbm", "auxiliary", "clamped rbm", "apart"])
def test_energy_is_minus_the_logp_of_the_draw(rng, case, order):
    model, step = make_step(rng, case, order=order, sweeps_per_draw=2)
    # Not compiled to machine code, which would take seconds for each model.
    logp = model.compile_fn(model.logp(), mode=Mode(linker="py", optimizer="fast_run"))
    point = model.initial_point()
    for _ in range(4):
        point, (stats,) = step.step(point)
        np.testing.assert_allclose(stats["network_energy"], -logp(point), atol=1e-10)


def test_mistakes_in_blocks_are_found(rng, monkeypatch):
    """Blocks that interact, or that mix up their units' biases, fail the certificate."""
    monkeypatch.setattr(pairwise, "check_independent", lambda *_: None)
    J = symmetric(rng, 3)
    with pm.Model():
        z = pmn.BoltzmannMachine("z", J, rng.normal(size=3))
        for order in ("fixed", "random"):
            step = pmn.BlockGibbs([z], blocks=[[0, 1], [2]], order=order)
            assert not certify(step).invariant
        step = pmn.BlockGibbs([z], blocks=[[1], [0], [2]])
        assert certify(step).invariant
        refill_sparse(step.samplers[0]._parts[0][1].network[1], step.samplers[0].reduced.couplings[::-1])
        assert not certify(step).invariant


def test_stages_see_whether_fields_follow_changes(rng, monkeypatch):
    """A step whose later networks do not hear of what the earlier ones did, although each of them alone is right."""
    _, step = make_step(rng, "joined", with_blocks=False)
    assert certify(step).passed
    sampler = step.samplers[1]
    read = sampler.read
    stale = []

    def read_once(point):
        if not stale:
            stale.append(True)
            read(point)

    monkeypatch.setattr(sampler, "read", read_once)
    assert not certify(step).invariant


def test_parameters_are_read_once_for_all_runs_from_a_point(rng, monkeypatch):
    model, step = make_step(rng, "evidence", with_blocks=False)
    reads = []
    sampler = step.samplers[0]
    read = sampler.read
    monkeypatch.setattr(sampler, "read", lambda point: (reads.append(1), read(point)))
    transition_matrix(step)
    assert len(reads) == 1
    point = step.begin(model.initial_point())
    step.next_look = 0  # a look at units that did not move reads, too
    reads.clear()
    for _ in range(3):
        step.step(point)
    assert len(reads) == 3


def test_forced_stages_do_not_remember_what_a_step_read(rng):
    """Evidence that is kept for the runs from one point is read anew after a step at another."""
    model, step = make_step(rng, "evidence", with_blocks=False)
    point = model.initial_point()
    _, expected = step.forced_step(point, np.zeros(6, np.uint8))
    step.step({**point, "sigma_log__": np.array(-2.0), "beta_log__": np.array(1.0)})
    np.testing.assert_array_equal(step.forced_step(point, np.zeros(6, np.uint8))[1], expected)


# ------------------------------------------------------------------------------------ order of the random numbers


def test_units_one_by_one_in_index_order_take_one_number_each(rng):
    """The same draws as a plain loop over the units that compares each field with the logit of the next number."""
    shape, beta = (2, 4), 0.7
    h = rng.normal(size=shape)
    with pm.Model() as model:
        pmn.Ising("s", pmn.lattice(shape), h, coupling=beta)
        step = pmn.BlockGibbs(model.free_RVs, blocks=[[k] for k in range(8)], sweeps_per_draw=3, rng=1)
    J = np.zeros((8, 8))
    for i, j in ((0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7), (0, 4), (1, 5), (2, 6), (3, 7)):
        J[i, j] = J[j, i] = beta
    stream, uniform = step.stream.copy(), np.empty(16)
    point = model.initial_point()
    s = point["s"].ravel()
    for _ in range(20):
        point, _ = step.step(point)
        for _ in range(3):
            fill_uniform(stream, uniform)
            for k in range(8):
                s[k] = 1 if 2 * (h.ravel()[k] + J[k] @ s) > special.logit(uniform[k] + 2.0**-54) else -1
        np.testing.assert_array_equal(point["s"].ravel(), s)


def test_blocks_are_updated_in_the_order_given(rng):
    """Where a block is drawn first from the others, a step does not depend on what it was."""
    with pm.Model():
        z = pmn.Ising("z", pmn.lattice((2, 3)), rng.normal(size=(2, 3)))
        for first in (CHECKERBOARD, ~CHECKERBOARD):
            T = transition_matrix(pmn.BlockGibbs([z], blocks=[first, ~first]))
            flipped = np.where(first.ravel(), -T.states, T.states)
            index = {tuple(state): i for i, state in enumerate(T.states.tolist())}
            others = [index[tuple(state)] for state in flipped.tolist()]
            np.testing.assert_allclose(T.matrix[others], T.matrix, rtol=1e-12)


# ------------------------------------------------------------------------------------ inside PyMC


def test_options_go_through_sample(rng):
    with pm.Model():
        grid(rng)
        options = {"draws": 10, "tune": 0, "chains": 2, "cores": 1, "random_seed": 3, **QUIET}
        draws = [
            pm.sample(block_gibbs=block_gibbs, **options).posterior["z"].values
            for block_gibbs in ({}, {"order": "random"}, {"blocks": [CHECKERBOARD, ~CHECKERBOARD]})
        ]
        again = pm.sample(block_gibbs={"order": "random"}, **{**options, "cores": 2}).posterior["z"].values
        with pytest.raises(ValueError, match="must not interact"):
            pm.sample(block_gibbs={"blocks": [[0, 1], [2, 3, 4, 5]]}, **options)
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    np.testing.assert_array_equal(draws[1], again)


@pytest.mark.parametrize("case", ["clamped grid", "clamped rbm", "joined"])
def test_a_step_survives_pickling_and_a_round_trip_of_its_state(rng, case):
    model, step = make_step(rng, case, order="random")
    copy = cloudpickle.loads(cloudpickle.dumps(step))
    assert copy.order == "random"
    step.setup_chain(np.random.default_rng(3), 0, 1)
    point, _ = step.step(model.initial_point())
    copy.sampling_state = cloudpickle.loads(cloudpickle.dumps(step.sampling_state))
    for _ in range(3):
        new = step.step(point)[0]
        for name, value in copy.step(point)[0].items():
            np.testing.assert_array_equal(value, new[name])
        point = new


# ------------------------------------------------------------------------------------ bad input


def test_an_unknown_order(rng):
    with pm.Model() as model:
        grid(rng)
        for order in ("shuffled", True, None):
            with pytest.raises(ValueError, match="order must be 'fixed' or 'random', got"):
                pmn.BlockGibbs(model.free_RVs, order=order)


@pytest.mark.parametrize(
    ("case", "blocks", "error", "message"),
    [
        (
            "grid",
            [[0, 1], [2, 3, 4, 5]],
            ValueError,
            r"got z\[0, 0\] and z\[0, 1\] in block 0 of 'z', which are coupled",
        ),
        ("grid", [[0, 2, 4]], ValueError, r"every free unit, got none with z\[0, 1\]"),
        ("clamped grid", [[0, 1], [2, 3], [5]], ValueError, r"got z\[0, 0\], which is observed"),
        ("clamped grid", {"z_unobserved": [[0]]}, ValueError, r"variables that the step updates, \['z'\]"),
        ("rbm", [[0, 1, 2, 3]], TypeError, r"blocks must be a dict .* since the step updates \['z', 'h'\]"),
        ("rbm", {"h": [[0, 1, 2, 3]]}, ValueError, r"block 0 of 'h' must hold indices into the shape \(3,\), got 3"),
        ("visible given hidden", {"h": [[0, 1, 2]]}, ValueError, r"variables that the step updates, \['z'\], got 'h'"),
    ],
)
def test_wrong_blocks(rng, case, blocks, error, message):
    build, names, _ = CASES[case]
    with pm.Model() as model:
        build(rng)
        with pytest.raises(error, match=message):
            pmn.BlockGibbs([model[name] for name in names], blocks=blocks)
