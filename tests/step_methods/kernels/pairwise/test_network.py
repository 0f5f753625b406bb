"""One chain of a pairwise network, in each of its three forms."""

import functools
import itertools
import pickle

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from step_methods.kernels.pairwise.dense import prepare_dense
from step_methods.kernels.pairwise.lattice import find_lattice, prepare_lattice
from step_methods.kernels.pairwise.network import (
    energy_pairwise,
    prepare_pairwise,
    sweep_pairwise,
    sweep_pairwise_forced,
)
from step_methods.kernels.pairwise.sparse import color_units, prepare_sparse
from step_methods.kernels.vectors.random import seed_stream

FLOATS = [np.float32, np.float64]
TOLERANCE = {np.float32: 3e-6, np.float64: 1e-13}
KINDS = ["lattice", "sparse", "dense"]
# Side, and whether it is periodic, of each axis.
LATTICES = [
    ((64, True), (64, True)),
    ((5, True), (6, True)),
    ((7, True), (4, False)),
    ((6, True), (3, True), (5, True)),
    ((3, False), (2, False), (4, True), (3, True)),
    ((130, True),),
    ((131, False),),
    ((5, False), (131, False)),
    ((140, False), (3, True)),
]


def lattice(axes, couplings, dtype=np.float64):
    """J of a lattice, bond by bond."""
    sides = [side for side, _ in axes]
    J = scipy.sparse.lil_array((np.prod(sides), np.prod(sides)), dtype=dtype)
    for site in itertools.product(*map(range, sides)):
        for axis, (side, is_periodic) in enumerate(axes):
            if site[axis] + 1 < side or is_periodic:
                other = list(site)
                other[axis] = (site[axis] + 1) % side
                i, j = (np.ravel_multi_index(x, sides) for x in (site, other))
                J[i, j] = J[j, i] = couplings[axis]
    return J.tocsr()


def random_network(n, density=1.0, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    J = np.triu(rng.normal(size=(n, n)) * (rng.random((n, n)) < density), 1)
    return scipy.sparse.csr_array((J + J.T).astype(dtype))


def prepare_as(kind, J):
    if kind == "lattice":
        return kind, prepare_lattice(*find_lattice(J))
    return kind, prepare_dense(J) if kind == "dense" else prepare_sparse(J, color_units(J))


@functools.cache
def networks(dtype):
    """(prepared network, J) in all forms and many sizes."""
    cases = []
    for axes in LATTICES:
        J = lattice(axes, np.random.default_rng(3).normal(size=len(axes)), dtype)
        cases.append((prepare_as("lattice", J), J))
        cases.append((prepare_as("sparse", J), J))
    for n in (1, 2, 20, 32, 33, 200):
        J = random_network(n, 1, dtype)
        cases.append((prepare_as("dense", J), J))
        J = random_network(n, min(1, 4 / n), dtype)
        cases.append((prepare_as("sparse", J), J))
    hub = scipy.sparse.lil_array((700, 700), dtype=dtype)
    hub[300, :] = hub[:, [300]] = 0.1
    hub[300, 300] = 0
    J = scipy.sparse.csr_array(hub)
    cases.append((prepare_as("sparse", J), J))
    return cases


def random_state(n, dtype, seed=1, unit_dtype=np.int64):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, n).astype(unit_dtype), rng.normal(size=n).astype(dtype)


def exact_distribution(J, bias, scale):
    """All states, in the order of `itertools.product`, and their probabilities."""
    states = np.array(list(itertools.product((0, 1), repeat=bias.size)), float)
    return states, special.softmax(states @ bias + scale / 2 * np.einsum("ki,ij,kj->k", states, J.toarray(), states))


# --- what a sweep does ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_energy(dtype):
    for network, J in networks(dtype):
        z, bias = random_state(J.shape[0], dtype)
        before = z.copy()
        wide, couplings = bias.astype(float), J.astype(float)
        expected = -wide @ z - 0.7 / 2 * z @ (couplings @ z)
        tolerance = TOLERANCE[dtype] * (1 + np.abs(wide).sum() + np.abs(couplings.data).sum()) / 10
        assert energy_pairwise(network, z, bias, 0.7) == pytest.approx(expected, abs=tolerance)
        np.testing.assert_array_equal(z, before)


def decision_order(network, n):
    """The order in which a sweep decides: force every unit but one decision to 0 and see which unit is 1."""
    order = []
    for i in range(n):
        z, bits = np.zeros(n, np.int64), np.zeros(n, np.uint8)
        bits[i] = 1
        sweep_pairwise_forced(network, z, np.zeros(n), 0.0, 1, bits, np.empty(n))
        order.append(int(np.flatnonzero(z)[0]))
    return order


@pytest.mark.parametrize("dtype", FLOATS)
def test_forced_sweeps_record_the_conditionals(dtype):
    """Each decision is recorded with sigmoid of the field that the decisions before it leave."""
    for network, J in networks(dtype):
        n = J.shape[0]
        if n > 400:
            continue
        order = decision_order(network, n)
        assert sorted(order) == list(range(n))
        z, bias = random_state(n, dtype)
        n_sweeps = 20 if n < 50 else 2
        bits = np.random.default_rng(2).integers(0, 2, n_sweeps * n).astype(np.uint8)
        probabilities = np.full(bits.size + 5, 7.0)
        expected_z, expected = z.copy(), []
        couplings = J.astype(float).tocsr()
        field = bias + 0.7 * (couplings @ z)
        for unit, bit in zip(order * n_sweeps, bits, strict=True):
            expected.append(special.expit(field[unit]))
            row = slice(couplings.indptr[unit], couplings.indptr[unit + 1])
            change = int(bit) - expected_z[unit]
            field[couplings.indices[row]] += 0.7 * couplings.data[row] * change
            expected_z[unit] = bit
        assert sweep_pairwise_forced(network, z, bias, 0.7, n_sweeps, bits, probabilities) == bits.size
        np.testing.assert_allclose(probabilities[: bits.size], expected, rtol=0, atol=TOLERANCE[dtype])
        np.testing.assert_array_equal(probabilities[bits.size :], 7)
        np.testing.assert_array_equal(z, expected_z)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", KINDS)
def test_long_run_against_exact_marginals(kind, dtype, state):
    """Means and pair correlations of 8 units; |z| < 4.5 for 36 of them, false-alarm rate 2.4e-4 (seed fixed)."""
    rng = np.random.default_rng(8)
    J = lattice(((2, False), (4, True)), (1.5, -1.0), dtype) if kind == "lattice" else random_network(8, 0.7, dtype, 5)
    bias = rng.normal(size=8).astype(dtype)
    network = prepare_as(kind, J)
    n_draws, n_batches = 100_000, 100
    z = np.zeros(8, np.int64)
    draws = np.empty((n_draws, 8))
    for draw in draws:
        sweep_pairwise(network, z, bias, 0.8, 1, state)
        draw[:] = z
    states, p = exact_distribution(J, bias, 0.8)
    pairs = np.triu_indices(8)
    exact = np.einsum("k,ki,kj->ij", p, states, states)[pairs]
    batches = (draws[:, pairs[0]] * draws[:, pairs[1]]).reshape(n_batches, -1, exact.size).mean(axis=1)
    score = (batches.mean(axis=0) - exact) / (batches.std(axis=0, ddof=1) / np.sqrt(n_batches))
    assert np.abs(score).max() < 4.5


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", KINDS)
def test_many_independent_units_of_a_long_call(kind, dtype, state):
    """Units in pairs (a lattice of 2 by 4096): frequencies of the 4 states of a pair after 30 sweeps in one call.

    The chi-squared statistic with 3 degrees of freedom is below 21.1, false-alarm rate 1e-4 (seed fixed).
    """
    n_pairs = 4096 if kind != "dense" else 512
    one = scipy.sparse.diags_array([np.ones(n_pairs), np.ones(n_pairs)], offsets=[n_pairs, -n_pairs], dtype=dtype)
    J = scipy.sparse.csr_array(one, shape=(2 * n_pairs, 2 * n_pairs))
    if kind == "lattice":  # a coupling too small to matter makes it one
        J = lattice(((2, False), (n_pairs, False)), (1.0, 1e-12), dtype)
    network = prepare_as(kind, J)
    counts = np.zeros(4)
    z = np.zeros(2 * n_pairs, np.int64)
    bias = np.repeat(np.array([-0.3, -0.9], dtype), n_pairs)
    for _ in range(4096 // n_pairs):
        sweep_pairwise(network, z, bias, 1.4, 30, state)
        counts += np.bincount(2 * z[:n_pairs] + z[n_pairs:], minlength=4)
    exact = special.softmax([0, -0.9, -0.3, -0.3 - 0.9 + 1.4]) * 4096
    assert np.sum((counts - exact) ** 2 / exact) < 21.1


@pytest.mark.parametrize("dtype", FLOATS)
def test_changes_are_counted(dtype, state):
    for network, J in networks(dtype):
        z, bias = random_state(J.shape[0], dtype)
        for _ in range(3):
            before = z.copy()
            changed = sweep_pairwise(network, z, bias, 0.3, 1, state)
            assert changed == np.count_nonzero(z != before)


@pytest.mark.parametrize("dtype", FLOATS)
def test_sweeps_in_one_call_are_those_of_many_calls(dtype):
    """Same draws; in float32 a field of a dense network may round differently, which these seeds do not meet."""
    for network, J in networks(dtype):
        z, bias = random_state(J.shape[0], dtype)
        other = z.copy()
        state = seed_stream(np.random.default_rng(6))
        other_state = state.copy()
        changed = sweep_pairwise(network, z, bias, 0.1, 3, state)
        assert changed == sum(sweep_pairwise(network, other, bias, 0.1, 1, other_state) for _ in range(3))
        np.testing.assert_array_equal(z, other)
        np.testing.assert_array_equal(state, other_state)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_draws(kind):
    """Also: what calls before left in the scratch memory has no influence, and a pickled network is as good."""
    J = lattice(((7, True), (4, False)), (1.0, -0.5))
    network = prepare_as(kind, J)
    z, bias = random_state(28, np.float64)
    runs = []
    for used in (network, network, pickle.loads(pickle.dumps(network)), prepare_as(kind, J)):
        units = z.copy()
        sweep_pairwise(used, units, bias, 0.5, 10, seed_stream(np.random.default_rng(3)))
        runs.append(units)
        sweep_pairwise(used, units, -bias, 3.0, 5, seed_stream(np.random.default_rng(4)))
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])


@pytest.mark.parametrize("unit_dtype", [np.uint8, np.int8, np.int64, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_units_of_every_type(kind, unit_dtype):
    J = lattice(((6, True), (5, False)), (1.0, -0.5))
    network = prepare_as(kind, J)
    expected, bias = random_state(30, np.float64)
    z = expected.astype(unit_dtype)
    sweep_pairwise(network, expected, bias, 1.0, 5, seed_stream(np.random.default_rng(3)))
    sweep_pairwise(network, z, bias, 1.0, 5, seed_stream(np.random.default_rng(3)))
    np.testing.assert_array_equal(z, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_scale_multiplies_the_couplings(kind):
    couplings = np.array([0.5, -0.25])
    axes = ((6, True), (7, False))
    draws = []
    for factor in (1, 8):
        network = prepare_as(kind, lattice(axes, couplings * factor))
        z, bias = random_state(42, np.float64)
        sweep_pairwise(network, z, bias, 4 / factor, 20, seed_stream(np.random.default_rng(3)))
        draws.append(z)
    np.testing.assert_array_equal(*draws)


def test_fields_of_a_long_dense_run_do_not_drift(state):
    """In single precision the fields are those of the units after millions of changes as well."""
    network = prepare_as("dense", random_network(40, dtype=np.float32))
    z, bias = random_state(40, np.float32)
    assert sweep_pairwise(network, z, bias, 0.3, 200_000, state) > 1_000_000
    rows, fields = network[1][0], network[1][2]
    np.testing.assert_allclose(fields[:40], bias + 0.3 * (z @ rows[:, :40]), rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_certain_units(kind, state):
    """Infinite biases clamp a unit, whatever it was."""
    J = lattice(((6, True), (11, False)), (1.0, -0.5))
    network = prepare_as(kind, J)
    z, bias = random_state(66, np.float64)
    bias[:20], bias[40:50] = np.inf, -np.inf
    for _ in range(20):
        sweep_pairwise(network, z, bias, 1.0, 1, state)
        assert z[:20].all()
        assert not z[40:50].any()


@pytest.mark.parametrize("kind", KINDS)
def test_no_sweeps_change_nothing(kind, state):
    network = prepare_as(kind, lattice(((6, True), (11, False)), (1.0, -0.5)))
    z, bias = random_state(66, np.float64)
    before, state_before = z.copy(), state.copy()
    assert sweep_pairwise(network, z, bias, 1.0, 0, state) == 0
    np.testing.assert_array_equal(z, before)
    np.testing.assert_array_equal(state, state_before)


@pytest.mark.parametrize("kind", KINDS)
def test_no_allocation_in_a_sweep(kind, state, n_allocations):
    network = prepare_as(kind, lattice(((6, True), (40, False)), (1.0, -0.5)))
    z, bias = random_state(240, np.float64)
    sweep_pairwise(network, z, bias, 1.0, 1, state)
    once, often = (n_allocations(lambda n=n: sweep_pairwise(network, z, bias, 1.0, n, state)) for n in (1, 1000))
    n_arrays = sum(isinstance(x, np.ndarray) for x in network[1]) + 3
    assert once == often == n_arrays  # a handle for each array among the arguments


# --- which form -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", LATTICES)
def test_lattices_are_recognized(axes):
    couplings = np.random.default_rng(0).normal(size=len(axes))
    found = find_lattice(lattice(axes, couplings))
    assert found is not None
    assert found[0] == axes
    np.testing.assert_array_equal(found[1], couplings)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(2, 5), st.booleans()), min_size=1, max_size=4), st.data())
def test_what_is_recognized_is_that_lattice(axes, data):
    """Prepared from what was found, the network has the energies of J, with a bond changed or not."""
    J = lattice(axes, [1.0] * len(axes))
    changed = J.copy()
    entry = data.draw(st.integers(0, J.nnz - 1))
    row = int(np.searchsorted(J.indptr, entry, side="right")) - 1
    column = int(J.indices[entry])
    changed[row, column] = changed[column, row] = 2.0
    z = np.random.default_rng(0).integers(0, 2, J.shape[0])
    for couplings in (J, changed):
        network = prepare_pairwise(couplings)
        expected = -0.5 * z @ (couplings @ z)
        assert energy_pairwise(network, z, np.zeros(z.size), 1.0) == pytest.approx(expected)
    found = find_lattice(J)
    if found:
        np.testing.assert_array_equal(lattice(*found).toarray(), J.toarray())
    else:
        assert all(side % 2 and is_periodic for side, is_periodic in axes)


@pytest.mark.parametrize(
    ("J", "kind"),
    [
        (lattice(((20, True), (30, False)), (1, 2)), "lattice"),
        (lattice(((45, True), (45, True)), (1, 1)), "sparse"),
        (lattice(((3, True), (3, True)), (1, 1)), "dense"),
        (random_network(20), "dense"),
        (random_network(300), "dense"),
        (random_network(2000, 0.002), "sparse"),
        (scipy.sparse.csr_array((0, 0)), "sparse"),
        (scipy.sparse.csr_array((1, 1)), "dense"),
        (scipy.sparse.csr_array((500, 500)), "sparse"),
    ],
)
def test_the_form_follows_the_structure(J, kind, state):
    network = prepare_pairwise(J)
    assert network[0] == kind
    z, bias = random_state(J.shape[0], np.float64)
    sweep_pairwise(network, z, bias, 1.0, 2, state)
    assert np.isin(z, (0, 1)).all()
    expected = -bias @ z - 0.5 * z @ (J @ z)
    assert energy_pairwise(network, z, bias, 1.0) == pytest.approx(expected, abs=1e-9)


def test_one_unit(state):
    """The mean of 40,000 draws of a single unit is within 4.5 standard errors, false-alarm rate 7e-6 (seed fixed)."""
    network = prepare_pairwise(scipy.sparse.csr_array((1, 1)))
    z, total, n = np.zeros(1, np.int64), 0, 40_000
    for _ in range(n):
        sweep_pairwise(network, z, np.array([0.5]), 1.0, 1, state)
        total += z[0]
    p = special.expit(0.5)
    assert abs(total / n - p) < 4.5 * np.sqrt(p * (1 - p) / n)


def test_couplings_are_copied():
    for J in (lattice(((8, True), (8, True)), (1.0, 1.0)), random_network(20), random_network(500, 0.01)):
        network = prepare_pairwise(J)
        z, bias = random_state(J.shape[0], np.float64)
        expected = energy_pairwise(network, z, bias, 1.0)
        J.data[:] = np.nan
        assert energy_pairwise(network, z, bias, 1.0) == expected


def test_untidy_couplings(state):
    """Entries that are split in two, out of order, or zero are as good as their sums."""
    tidy = lattice(((8, True), (8, True)), (1.0, -2.0))
    rows, columns = tidy.nonzero()
    rows, columns = (np.concatenate([one, one, other]) for one, other in ((rows, [0, 9]), (columns, [9, 0])))
    values = np.concatenate([tidy.data / 4, tidy.data * 0.75, [0.0, 0.0]])
    order = np.lexsort((state[0, 0] ^ columns.astype(np.uint64), rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=64))])
    untidy = scipy.sparse.csr_array((values[order], columns[order], indptr), shape=(64, 64))
    assert untidy.nnz == 2 * tidy.nnz + 2
    z, bias = random_state(64, np.float64)
    for J in (untidy, untidy.tocsc().tocsr()):
        network = prepare_pairwise(J)
        assert network[0] == prepare_pairwise(tidy)[0]
        assert energy_pairwise(network, z, bias, 1.0) == pytest.approx(-bias @ z - 0.5 * z @ (tidy @ z))


# --- colors -----------------------------------------------------------------------------------------------------------


def is_proper(J, colors):
    rows, columns = J.nonzero()
    return bool((colors[rows] != colors[columns]).all())


def tree(n, n_children):
    """Unit i hangs from unit (i - 1) // n_children; with n children it is a star."""
    J = scipy.sparse.lil_array((n, n))
    for i in range(1, n):
        parent = (i - 1) // n_children
        J[i, parent] = J[parent, i] = 1
    return J.tocsr()


@pytest.mark.parametrize("J", [tree(200, 3), tree(50, 50), lattice([(2, False)] * 6, [1] * 6)])
def test_bipartite_graphs_take_two_colors(J):
    colors = color_units(J)
    assert is_proper(J, colors)
    assert colors.max() == 1


@pytest.mark.parametrize("sides", [(3,), (5,), (7, 5), (5, 4), (3, 3, 3)])
def test_odd_periodic_lattices_take_few_colors(sides):
    J = lattice([(side, True) for side in sides], [1] * len(sides))
    colors = color_units(J)
    assert is_proper(J, colors)
    assert 2 <= colors.max() <= 2 * len(sides)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 40), st.floats(0, 1), st.integers(0, 2**32))
def test_colors_are_proper(n, density, seed):
    J = random_network(n, density, seed=seed)
    colors = color_units(J)
    assert is_proper(J, colors)
    degrees = np.diff(J.indptr)
    assert colors.max(initial=0) <= degrees.max(initial=0)
    assert set(colors) == set(range(colors.max(initial=-1) + 1))


def test_a_complete_graph_takes_all_colors():
    assert sorted(color_units(random_network(30))) == list(range(30))
