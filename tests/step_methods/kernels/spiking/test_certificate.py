"""The exact transition matrices of the kernels of spiking networks, from their forced forms."""

import itertools
from functools import reduce

import numpy as np
import pytest
import scipy.sparse
from scipy import optimize, special

from step_methods.kernels.spiking.couplings import order_by_color, prepare_neighbors, prepare_rows
from step_methods.kernels.spiking.network import count_stages, force_spiking, prepare_restricted, prepare_spiking

FORMS = ["rows", "neighbors", "layers"]
ORDERS = ["sequential", "random", "blocks"]


def problem(form, n, rng, order, dtype=np.float64):
    """Return (network, J, bias, scale) of n neurons, not all of which interact."""
    J = np.triu(rng.normal(0, 1, (n, n)), 1)
    if form == "layers":
        n_hidden = n // 2
        J[:n_hidden, :n_hidden] = J[n_hidden:, n_hidden:] = 0
    else:
        J[0, -1] = 0
    J = (J + J.T).astype(np.float32).astype(np.float64)
    bias = rng.normal(-0.5, 1, n).astype(np.float32).astype(np.float64)
    if form == "layers":
        network = prepare_restricted(np.ascontiguousarray(J[n_hidden:, :n_hidden].astype(dtype)), order)
    else:
        couplings = scipy.sparse.csr_array(J.astype(dtype))
        is_random, bounds, _ = prepare_spiking(couplings, order)
        places = order_by_color(couplings)[0] if order == "blocks" else np.arange(n)
        network = is_random, bounds, {"rows": prepare_rows, "neighbors": prepare_neighbors}[form](couplings, places)
    return network, J, bias.astype(dtype), 0.75


def extended_states(n, tau):
    return np.array(list(itertools.product(range(tau + 1), repeat=n)))


def transition_matrix(network, bias, scale, tau, g=None, stage=None, probability=lambda p: p):
    """T[i, j] = P(j | i) on the states in `itertools.product` order, from all decisions that can be forced."""
    n = bias.size
    states = extended_states(n, tau)
    index = (tau + 1) ** np.arange(n)[::-1]
    probabilities = np.empty(n)
    T = np.zeros((len(states), len(states)))
    for i, start in enumerate(states):
        unexplored = [()]
        while unexplored:
            decisions = unexplored.pop()
            bits = np.zeros(n, np.uint8)
            bits[: len(decisions)] = decisions
            zeta = start.copy()
            n_decisions = force_spiking(network, zeta, bias, scale, tau, g, stage, bits, probabilities)
            if n_decisions > len(decisions):
                unexplored += [(*decisions, 0), (*decisions, 1)]
                continue
            p = probability(probabilities[:n_decisions])
            T[i, zeta @ index] += np.prod(np.where(bits[:n_decisions], p, 1 - p))
    return T


def boltzmann(J, bias, scale, tau):
    """p(z) with zeta uniform on 1, ..., tau given z = 1."""
    z = (extended_states(len(J), tau) > 0).astype(float)
    return special.softmax(z @ bias + scale / 2 * np.einsum("ki,ij,kj->k", z, J, z) - z.sum(axis=1) * np.log(tau))


def step_matrix(network, bias, scale, tau, **options):
    stages = [
        transition_matrix(network, bias, scale, tau, stage=stage, **options) for stage in range(count_stages(network))
    ]
    is_random = network[0]
    return np.mean(stages, axis=0) if is_random else reduce(np.matmul, stages)


@pytest.mark.parametrize("tau", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("form", FORMS)
def test_distribution_is_invariant(form, order, tau, rng):
    n = 4 if tau < 4 or order == "blocks" else 3
    network, J, bias, scale = problem(form, n, rng, order)
    T = step_matrix(network, bias, scale, tau)
    p = boltzmann(J, bias, scale, tau)
    np.testing.assert_allclose(T.sum(axis=1), 1, rtol=1e-13)
    np.testing.assert_allclose(p @ T, p, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", ["sequential", "blocks"])
@pytest.mark.parametrize("form", FORMS)
def test_a_step_is_made_of_its_stages(form, order, rng):
    network, _, bias, scale = problem(form, 4, rng, order)
    whole = transition_matrix(network, bias, scale, 2)
    np.testing.assert_allclose(step_matrix(network, bias, scale, 2), whole, rtol=0, atol=1e-14)


def test_chain_is_irreversible_and_irreducible(rng):
    network, J, bias, scale = problem("rows", 3, rng, "sequential")
    T, p = step_matrix(network, bias, scale, 3), boltzmann(J, bias, scale, 3)
    flow = p[:, None] * T
    assert np.abs(flow - flow.T).max() > 1e-3
    assert np.linalg.matrix_power(T, 12).min() > 0


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("form", FORMS)
def test_float32_is_close(form, order, rng):
    """What float32 and 24 random bits add: at most 1e-6 in p T.

    A random number of 24 bits rounds a probability to a multiple of 2**-24, up or to the nearest; that is done here
    with all of them, up.
    """
    network, J, bias, scale = problem(form, 3, rng, order, np.float32)
    p = boltzmann(J, bias, scale, 3)
    for probability in (lambda p: p, lambda p: np.ceil(p * 2.0**24) / 2.0**24):
        T = step_matrix(network, bias, scale, 3, probability=probability)
        np.testing.assert_allclose(p @ T, p, rtol=0, atol=1e-6)


# --- relative refractory periods --------------------------------------------------------------------------------------

SCALINGS = {
    "absolute": [1, 1, 0, 0, 0],
    "linear": [1, 1, 2 / 3, 1 / 3, 0],
    "smooth": [1, 1, 0.8, 0.1, 0],
    "early": [1, 1, 1, 1, 0],
    "late": [1, 1, 0.2, 0, 0],
    "none": [1, 1, 1, 1, 1],
    "later": [1, 1, 0, 0.5, 0.25],
}


def log_odds(f, g):
    """Log of the odds of being on of one neuron that fires with probability f g, from its stationary law."""
    law = np.cumprod(np.r_[1.0, 1 - f * g[:1:-1]])  # of zeta = tau, ..., 1, up to a factor
    return np.log(f * law.sum() / (law[-1] * (1 - f)))


@pytest.mark.parametrize("name", SCALINGS)
def test_firing_probability_inverts_the_stationary_odds(name):
    g = np.array(SCALINGS[name])
    network = prepare_spiking(scipy.sparse.csr_array((1, 1)), "sequential")
    p = np.empty(1)
    for u in (-30.0, -3.0, 0.0, 1.0, 4.0, 12.0):
        f = special.expit(
            optimize.brentq(lambda x, u=u: log_odds(special.expit(x), g) - u, -50, 30, xtol=1e-14, rtol=1e-14)
        )
        for zeta in range(5):
            clock = np.array([zeta])
            n_decisions = force_spiking(network, clock, np.array([u]), 1.0, 4, g, 0, np.ones(1, np.uint8), p)
            assert n_decisions == (g[zeta] > 0)
            if n_decisions:
                np.testing.assert_allclose(p[0], f * g[zeta], rtol=1e-12)
            assert clock[0] == (4 if n_decisions else zeta - 1)


@pytest.mark.parametrize("name", SCALINGS)
def test_neurons_that_do_not_interact_are_exact(name, rng):
    g = np.array(SCALINGS[name])
    tau = g.size - 1
    bias = rng.normal(0, 1.5, 2)
    network = prepare_spiking(scipy.sparse.csr_array((2, 2)), "sequential")
    T = transition_matrix(network, bias, 1.0, tau, g)
    p = np.linalg.matrix_power(T, 2**10)[0]
    p /= p.sum()
    np.testing.assert_allclose(p @ T, p, rtol=0, atol=1e-14)
    z = extended_states(2, tau) > 0
    on = np.array([[p[z[:, 0] & z[:, 1]].sum(), p[z[:, 0]].sum()], [p[z[:, 1]].sum(), 1]])
    expected = special.expit(bias)
    np.testing.assert_allclose(on, [[expected.prod(), expected[0]], [expected[1], 1]], rtol=0, atol=1e-12)


def test_relative_period_that_is_absolute(rng):
    network, _, bias, scale = problem("rows", 3, rng, "sequential")
    g = np.array([1.0, 1, 0, 0])
    T = transition_matrix(network, bias, scale, 3, g)
    np.testing.assert_allclose(T, transition_matrix(network, bias, scale, 3), rtol=0, atol=1e-14)


def test_relative_period_is_biased(rng):
    """It is approximate where neurons interact: close to the Boltzmann distribution, but not equal."""
    network, J, bias, scale = problem("rows", 3, rng, "sequential")
    T = transition_matrix(network, bias, scale, 4, np.array(SCALINGS["linear"]))
    stationary = np.linalg.matrix_power(T, 2**14)[0]
    states = extended_states(3, 4) > 0
    index = states @ (4, 2, 1)
    exact, biased = (np.bincount(index, law) for law in (boltzmann(J, bias, scale, 4), stationary))
    assert 1e-4 < np.abs(exact - biased).sum() / 2 < 0.05
