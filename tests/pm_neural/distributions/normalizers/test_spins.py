"""Log Z of fields and its derivatives, against the sum over all states."""

import itertools

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.integrate import quad
from scipy.sparse import csr_array
from scipy.special import ellipk, logsumexp

from pm_neural.distributions._couplings import as_couplings
from pm_neural.distributions.boltzmann import _EXACT, _NORMALIZERS
from pm_neural.distributions.lattice import lattice
from pm_neural.distributions.normalizers.elimination import (
    elimination_log_partition,
    frontier_width,
    orders,
    plan_elimination,
)
from pm_neural.distributions.normalizers.kaufman import kaufman_log_partition
from pm_neural.distributions.normalizers.normalizer import choose_normalizer
from pm_neural.distributions.normalizers.spins import Enumeration, Field, Kaufman, TransferMatrix

CRITICAL = np.log(1 + np.sqrt(2)) / 2


def brute_force(J, coupling, fields, values=(-1, 1)):
    """Log Z, its derivative in the coupling and its derivatives in the fields."""
    states = np.array(list(itertools.product(values, repeat=len(fields))))
    pairs = 0.5 * np.einsum("ki,ij,kj->k", states, J, states)
    log_weights = states @ fields + coupling * pairs
    log_z = logsumexp(log_weights)
    p = np.exp(log_weights - log_z)
    return log_z, p @ pairs, p @ states


def random_couplings(rng, n):
    J = np.triu(rng.normal(size=(n, n)), 1)
    return J + J.T


# ---------------------------------------------------------------------------------- one spin after another


@pytest.mark.parametrize(
    "grid",
    [
        lattice((3, 4)),
        lattice((3, 4), periodic=True),
        lattice((4, 3), (True, False)),
        lattice((2, 2, 3), periodic=True),
        lattice(9, periodic=True),
        lattice((1, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("coupling", [-0.7, 0.4, 30.0])
def test_elimination_in_any_order(grid, coupling, rng):
    fields = rng.normal(size=grid.n_sites)
    couplings = grid.couplings
    for sites in [*orders(couplings, grid.shape), rng.permutation(grid.n_sites)]:
        plan = plan_elimination(couplings, sites)
        assert plan.widths.max() == frontier_width(couplings, sites)
        result = elimination_log_partition(*plan, coupling, fields)
        for got, expected in zip(result, brute_force(couplings.toarray(), coupling, fields), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-10)


def test_elimination_of_a_dense_network(rng):
    J, fields = random_couplings(rng, 11), rng.normal(size=11)
    plan = plan_elimination(csr_array(J), np.arange(11))
    result = elimination_log_partition(*plan, 0.8, fields)
    for got, expected in zip(result, brute_force(J, 0.8, fields), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-10)


def test_elimination_of_a_long_ring():
    """Against the two eigenvalues of the transfer matrix, across the segments that are computed again."""
    K, n = 0.3, 1000
    plan = plan_elimination(lattice(n, periodic=True).couplings, np.arange(n))
    log_z, slope, means = elimination_log_partition(*plan, K, np.zeros(n))
    np.testing.assert_allclose(log_z, n * np.log(2 * np.cosh(K)) + np.log1p(np.tanh(K) ** n), rtol=1e-12)
    np.testing.assert_allclose(slope, n * np.tanh(K), rtol=1e-12)
    np.testing.assert_allclose(means, 0, atol=1e-10)


def test_widths_of_lattices():
    for grid, width in [
        (lattice((12, 40)), 12),
        (lattice((40, 12)), 12),
        (lattice((12, 40), (True, False)), 12),
        (lattice((6, 40), periodic=True), 12),
        (lattice(100), 1),
    ]:
        assert min(frontier_width(grid.couplings, sites) for sites in orders(grid.couplings, grid.shape)) == width


# ---------------------------------------------------------------------------------- Kaufman


@pytest.mark.parametrize("shape", [(3, 3), (3, 4), (4, 3), (4, 4), (5, 3)])
def test_kaufman_against_all_states(shape):
    J = lattice(shape, periodic=True).couplings.toarray()
    for K in (0, 1e-9, 1e-3, 0.2, 0.44, CRITICAL, 0.5, 2, 30, 50):
        log_z, slope, _ = brute_force(J, K, np.zeros(len(J)))
        np.testing.assert_allclose(kaufman_log_partition(*shape, K), (log_z, slope), rtol=1e-13, atol=1e-10)


@pytest.mark.parametrize("K", [0.3, CRITICAL, 0.6])
def test_kaufman_against_elimination(K):
    plan = plan_elimination(lattice((5, 6), periodic=True).couplings, np.arange(30))
    expected = elimination_log_partition(*plan, K, np.zeros(30))[:2]
    np.testing.assert_allclose(kaufman_log_partition(5, 6, K), expected, rtol=1e-12)
    np.testing.assert_allclose(kaufman_log_partition(6, 5, K), expected, rtol=1e-12)


@pytest.mark.parametrize("K", [0.3, 0.6])
def test_kaufman_approaches_onsager(K):
    """Off the critical point a finite torus differs from the infinite one by exp(−side) at most."""
    n = 200
    log_z, slope = kaufman_log_partition(n, n, K)
    k = 2 * np.sinh(2 * K) / np.cosh(2 * K) ** 2
    free = quad(lambda t: np.log((1 + np.sqrt(1 - k**2 * np.sin(t) ** 2)) / 2), 0, np.pi, epsabs=1e-13)[0]
    per_site = np.log(2 * np.cosh(2 * K)) + free / (2 * np.pi)
    energy = (1 + 2 / np.pi * (2 * np.tanh(2 * K) ** 2 - 1) * ellipk(k**2)) / np.tanh(2 * K)
    if K > CRITICAL:  # two ordered states
        per_site += np.log(2) / n**2
    np.testing.assert_allclose(log_z / n**2, per_site, rtol=1e-10)
    np.testing.assert_allclose(slope / n**2, energy, rtol=1e-10)


# ---------------------------------------------------------------------------------- as PyTensor operations


def compiled(normalizer, J, shape, values, coupling, biases, mode=None):
    """Log Z and its gradient at one point, of a model whose parameters are not constants."""
    couplings = as_couplings(J)
    inputs = [pt.scalar("c"), pt.tensor("b", shape=shape)]
    log_z = normalizer.log_partition(Field(couplings, shape, values, *inputs))
    return pytensor.function(inputs, [log_z, *pt.grad(log_z, inputs)], mode=mode)(coupling, biases)


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"], ids=["numba", "python"])
@pytest.mark.parametrize("values", [(-1, 1), (0, 1)], ids=["spins", "bits"])
def test_value_and_gradient_by_elimination(rng, values, mode):
    grid = lattice((3, 4), (True, False))
    J = csr_array(grid.couplings * rng.normal())
    biases = rng.normal(size=(3, 4))
    log_z, slope, means = compiled(TransferMatrix(), J, (3, 4), values, 0.6, biases, mode)
    expected = brute_force(J.toarray(), 0.6, biases.ravel(), values)
    np.testing.assert_allclose(log_z, expected[0], atol=1e-10)
    np.testing.assert_allclose(slope, expected[1], atol=1e-10)
    np.testing.assert_allclose(means.ravel(), expected[2], atol=1e-10)


@pytest.mark.parametrize("coupling", [-0.6, 0.6])
@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"], ids=["numba", "python"])
def test_value_and_gradient_on_the_torus(coupling, mode):
    J = 2 * lattice((4, 4), periodic=True).couplings
    result = compiled(Kaufman(), J, (4, 4), (-1, 1), coupling / 2, np.zeros((4, 4)), mode)
    expected = brute_force(J.toarray(), coupling / 2, np.zeros(16))
    for got, value in zip(result, expected, strict=True):
        np.testing.assert_allclose(got.ravel(), value, atol=1e-10)


def test_bits_without_a_field_on_the_torus():
    """The biases that make up for the couplings follow the coupling."""
    J = lattice((3, 4), periodic=True).couplings
    c = pt.scalar("c")
    biases = -2 * c * np.ones((3, 4))
    log_z = Kaufman().log_partition(Field(as_couplings(J), (3, 4), (0, 1), c, biases))
    value, slope = pytensor.function([c], [log_z, pt.grad(log_z, c)])(1.3)

    def at(coupling):
        return brute_force(J.toarray(), coupling, np.full(12, -2 * coupling), (0, 1))

    log_z_, pair_slope, means = at(1.3)
    np.testing.assert_allclose(value, log_z_, atol=1e-10)
    np.testing.assert_allclose(slope, pair_slope - 2 * means.sum(), atol=1e-10)


def test_kaufman_looks_at_values_that_are_known_late():
    with pytest.raises(ValueError, match="without a field"):
        compiled(Kaufman(), lattice((4, 4), periodic=True).couplings, (4, 4), (-1, 1), 0.5, np.full((4, 4), 1e-3))
    J = lattice((4, 3), periodic=True).couplings
    assert compiled(Kaufman(), J, (4, 3), (-1, 1), -0.5, np.zeros((4, 3)))[0] == np.inf
    assert np.isfinite(compiled(Kaufman(), -J, (4, 3), (-1, 1), -0.5, np.zeros((4, 3)))[0])


def test_batches_and_float32(rng):
    J, fields = random_couplings(rng, 5).astype("float32"), rng.normal(size=(3, 1, 5)).astype("float32")
    coupling = np.array([0.5, 1.5], dtype="float32")
    with pytensor.config.change_flags(floatX="float32"):
        field = Field(as_couplings(J), (5,), (0, 1), pt.constant(coupling), pt.constant(fields))
        log_z = Enumeration().log_partition(field)
        assert log_z.dtype == "float32"
        result = log_z.eval()
    expected = [[brute_force(J, c, field[0], (0, 1))[0] for c in coupling] for field in fields]
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_second_derivatives_are_refused():
    c = pt.scalar("c")
    log_z = Enumeration().log_partition(Field(as_couplings([[0, 1], [1, 0]]), (2,), (-1, 1), c, pt.zeros(2)))
    with pytest.raises(NotImplementedError, match="second derivatives of log Z"):
        pt.grad(pt.grad(log_z, c), c)


# ---------------------------------------------------------------------------------- choice


def chosen(grid, normalize="exact", values=(-1, 1), coupling=0.5, field=0.0):
    shape = grid.shape
    biases = field * pt.ones(shape) if isinstance(field, pt.TensorVariable) else pt.constant(np.full(shape, field))
    coupling = pt.as_tensor(coupling)
    field = Field(as_couplings(grid.couplings), shape, values, coupling, biases)
    return choose_normalizer("Ising", normalize, field, _NORMALIZERS, _EXACT)


def test_the_method_that_applies_is_chosen():
    c, h = pt.scalar("c"), pt.scalar("h")
    assert chosen(lattice((4, 5), periodic=True)) == Enumeration()
    assert chosen(lattice((30, 30), periodic=True), coupling=c) == Kaufman(sure=True)
    assert chosen(lattice((30, 31), periodic=True)) == Kaufman(sure=True)
    assert chosen(lattice((30, 30), periodic=True), values=(0, 1), field=-1.0) == Kaufman(sure=True)
    assert chosen(lattice((6, 30), periodic=True), field=h) == TransferMatrix()
    assert chosen(lattice((5, 7), periodic=True), coupling=c) == TransferMatrix()
    assert chosen(lattice((5, 7), periodic=True), coupling=-0.5) == TransferMatrix()
    assert chosen(lattice((12, 30)), values=(0, 1), coupling=c, field=h) == TransferMatrix()
    assert chosen(lattice((31, 31), periodic=True), "kaufman", coupling=c) == Kaufman()
    for prior in (pm.HalfNormal.dist(), pm.TruncatedNormal.dist(lower=0), pm.Uniform.dist(), pm.Beta.dist(1, 1)):
        assert chosen(lattice((31, 31), periodic=True), "kaufman", coupling=prior) == Kaufman()
    assert chosen(lattice((30, 30), periodic=True), coupling=pm.Normal.dist()) == Kaufman(sure=True)
    assert chosen(lattice((3, 3)), None) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": lattice((13, 30))}, r'no method applies to this field: "enumerate" needs at most 20 units, got 390'),
        ({"grid": lattice((7, 30), periodic=True), "field": 0.1}, "reach across 14 sites.*got a field"),
        ({"grid": lattice((30, 30), periodic=True), "field": pt.scalar()}, "not known to vanish"),
        ({"grid": lattice((30, 31), periodic=True), "coupling": pt.scalar()}, "a coupling of unknown sign"),
        ({"grid": lattice((30, 30), periodic=True), "values": (0, 1)}, "got a field"),
        ({"grid": lattice(21), "normalize": "enumerate"}, "needs at most 20 units; got 21 units"),
        ({"grid": lattice((13, 13)), "normalize": "transfer"}, "at most 12 sites wide.*across 13 sites"),
        ({"grid": lattice((7, 7), periodic=True), "normalize": "transfer"}, "or 6 if it is periodic both ways"),
        ({"grid": lattice((4, 4)), "normalize": "kaufman"}, "periodic along both axes.*24 bonds"),
        ({"grid": lattice((2, 4), periodic=True), "normalize": "kaufman"}, "sides of at least 3"),
        ({"grid": lattice((4, 4, 4), periodic=True), "normalize": "kaufman"}, "a square lattice"),
        ({"grid": lattice((4, 4), periodic=True), "normalize": "kaufman", "field": 0.1}, "got a field"),
        (
            {"grid": lattice((4, 4), periodic=True), "normalize": "kaufman", "field": pt.scalar("h")},
            "not known to vanish",
        ),
        ({"grid": lattice((4, 3), periodic=True), "normalize": "kaufman", "coupling": -1.0}, "a negative coupling"),
        (
            {"grid": lattice((4, 3), periodic=True), "normalize": "kaufman", "coupling": 1 - 2 * pm.Normal.dist()},
            "a random coupling that may be negative on the sides",
        ),
        ({"grid": lattice(3), "normalize": "onsager"}, 'normalize must be None, "enumerate", "transfer", "kaufman" or'),
        ({"grid": lattice(3), "normalize": True}, "normalize must be None"),
    ],
)
def test_what_does_not_apply_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        chosen(**arguments)


def test_couplings_that_differ_are_no_torus(rng):
    J = lattice((5, 5), periodic=True).couplings
    J.data[:] = 1 + np.arange(J.nnz)
    J = J + J.T
    field = Field(as_couplings(J), (5, 5), (-1, 1), pt.constant(1.0), pt.constant(np.zeros((5, 5))))
    with pytest.raises(ValueError, match="one coupling for all bonds"):
        choose_normalizer("Ising", "kaufman", field, _NORMALIZERS, _EXACT)
