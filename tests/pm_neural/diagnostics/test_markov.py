import itertools

import numpy as np
import pytest

from pm_neural.diagnostics import (
    detailed_balance_gap,
    is_aperiodic,
    is_irreducible,
    relaxation_time,
    spectral_gap,
    stationary_distribution,
    total_variation,
)

WEATHER = np.array([[0.9, 0.1], [0.3, 0.7]])
CYCLE = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
# Two islands of two states.
ISLANDS = np.array([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0.2, 0.8], [0, 0, 0.6, 0.4]])
# State 0 is left for good; of states 1 and 2 there is no way out.
TRANSIENT = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.0, 0.5, 0.5]])


@pytest.fixture
def chain(rng):
    """Draw a dense transition matrix of a number of states."""
    return lambda n: rng.dirichlet(np.ones(n), size=n)


def metropolis(p):
    """The Metropolis chain that proposes any other state with equal probability."""
    n = len(p)
    T = np.minimum(1, p[None, :] / p[:, None]) / (n - 1)
    np.fill_diagonal(T, 0)
    np.fill_diagonal(T, 1 - T.sum(axis=1))
    return T


def test_two_states_by_hand():
    np.testing.assert_allclose(stationary_distribution(WEATHER), [0.75, 0.25], rtol=1e-15)
    assert spectral_gap(WEATHER) == pytest.approx(0.4, abs=1e-14)
    assert relaxation_time(WEATHER) == pytest.approx(2.5, abs=1e-13)
    assert detailed_balance_gap(WEATHER, [0.75, 0.25]) < 1e-16
    assert detailed_balance_gap(WEATHER, [0.5, 0.5]) == pytest.approx(0.1)
    # The worst start is the rarer state, 0.75 away, and every step shrinks that by λ₂ = 0.6.
    np.testing.assert_allclose(
        total_variation(WEATHER, [0.75, 0.25], [3, 0, 1]), 0.75 * 0.6 ** np.array([3, 0, 1]), rtol=1e-13
    )


def test_cycle_is_irreducible_but_has_a_period():
    assert is_irreducible(CYCLE)
    assert not is_aperiodic(CYCLE)
    np.testing.assert_allclose(stationary_distribution(CYCLE), 1 / 3, rtol=1e-15)
    assert spectral_gap(CYCLE) == 0
    assert detailed_balance_gap(CYCLE, np.full(3, 1 / 3)) == pytest.approx(1 / 3)
    np.testing.assert_allclose(total_variation(CYCLE, np.full(3, 1 / 3), [0, 1, 100]), 2 / 3, rtol=1e-14)


def test_a_lazy_cycle_has_no_period():
    assert is_aperiodic((CYCLE + np.eye(3)) / 2)


def test_a_chord_breaks_the_period_of_a_cycle():
    """Paths of lengths 3 and 2 return: their greatest common divisor is 1."""
    T = CYCLE.copy()
    T[1] = [0.5, 0, 0.5]
    assert is_aperiodic(T)


def test_even_paths_only_are_a_period_of_two():
    line = np.array([[0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], [0, 0, 1, 0]])
    assert is_irreducible(line)
    assert not is_aperiodic(line)
    assert relaxation_time(line) > 1e12


def test_islands_are_reducible():
    assert not is_irreducible(ISLANDS)
    assert is_aperiodic(ISLANDS)
    assert spectral_gap(ISLANDS) == 0
    assert relaxation_time(ISLANDS) == np.inf
    with pytest.raises(ValueError, match="T has 2 closed sets of states"):
        stationary_distribution(ISLANDS)


def test_transient_states_have_probability_zero():
    assert not is_irreducible(TRANSIENT)
    assert is_aperiodic(TRANSIENT)
    np.testing.assert_allclose(stationary_distribution(TRANSIENT), [0, 1 / 3, 2 / 3], rtol=1e-15)


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_stationary_distribution_is_invariant(chain, n):
    T = chain(n)
    p = stationary_distribution(T)
    assert p.sum() == pytest.approx(1, abs=1e-14)
    np.testing.assert_allclose(p @ T, p, rtol=1e-13)


def test_small_probabilities_are_accurate():
    """A walk that climbs with odds of 1 : 1000 has p_k = 1000^−k; without cancellation to the last state."""
    n = 12
    T = np.zeros((n, n))
    for k in range(n):
        T[k, min(k + 1, n - 1)] += 1e-3 / (1 + 1e-3)
        T[k, max(k - 1, 0)] += 1 / (1 + 1e-3)
    expected = 1e-3 ** np.arange(n)
    np.testing.assert_allclose(stationary_distribution(T), expected / expected.sum(), rtol=1e-13)


def test_a_chain_that_hardly_ever_moves_is_solved():
    """1 − 1e-17 is 1 in floating point, so that only the small elements say how often it moves."""
    np.testing.assert_allclose(stationary_distribution([[1, 3e-17], [1e-17, 1]]), [0.25, 0.75], rtol=1e-14)


def test_metropolis_is_reversible(rng):
    p = rng.dirichlet(np.ones(6))
    T = metropolis(p)
    assert detailed_balance_gap(T, p) < 1e-16
    np.testing.assert_allclose(stationary_distribution(T), p, rtol=1e-12)


def test_total_variation_falls_at_the_rate_of_the_spectral_gap(chain):
    T = chain(5)
    p = stationary_distribution(T)
    distance = total_variation(T, p, [4, 8])
    eigenvalues = np.sort(np.abs(np.linalg.eigvals(T)))
    assert spectral_gap(T) == pytest.approx(1 - eigenvalues[-2], abs=1e-13)
    assert distance[1] <= 20 * eigenvalues[-2] ** 8


def test_total_variation_from_a_start(chain):
    T = chain(4)
    p = stationary_distribution(T)
    for start, law in ((2, np.eye(4)[2]), (np.full(4, 0.25), np.full(4, 0.25))):
        by_hand = [np.abs(law @ np.linalg.matrix_power(T, t) - p).sum() / 2 for t in (0, 5)]
        np.testing.assert_allclose(total_variation(T, p, [0, 5], start=start), by_hand, atol=1e-15)
    worst = max(total_variation(T, p, 3, start=i) for i in range(4))
    assert float(total_variation(T, p, 3)) == pytest.approx(float(worst), abs=1e-15)


@pytest.mark.parametrize("lazy", [0.0, 0.9])
def test_large_chains_are_solved_by_iteration(lazy):
    """The walk on a hypercube that redraws one of n = 10 bits has the gap 1/n."""
    n = 10
    T = np.zeros((2**n, 2**n))
    for i, k in itertools.product(range(2**n), range(n)):
        T[i, i] += 0.5 / n
        T[i, i ^ (1 << k)] += 0.5 / n
    T = lazy * np.eye(2**n) + (1 - lazy) * T
    assert spectral_gap(T) == pytest.approx((1 - lazy) / n, rel=1e-9)


def test_a_chain_that_forgets_at_once_has_the_gap_one():
    for n in (3, 600):
        T = np.tile(np.arange(1, n + 1) / (n * (n + 1) / 2), (n, 1))
        assert spectral_gap(T) == pytest.approx(1, abs=1e-9)
    assert spectral_gap([[1.0]]) == 1


@pytest.mark.parametrize("n", [3, 20, 300])
def test_relaxation_time_without_a_gap_is_infinite(rng, n):
    """Two islands, also with states on the way to them, and two sides that take turns."""
    one, other = (rng.dirichlet(np.ones(n), size=n) for _ in range(2))
    none = np.zeros((n, n))
    islands, turns = np.block([[one, none], [none, other]]), np.block([[none, one], [other, none]])
    leaving = np.block([[islands, np.zeros((2 * n, 1))], [rng.dirichlet(np.ones(2 * n + 1))]])
    for T in (np.eye(2), islands, turns, leaving):
        assert spectral_gap(T) == 0
        assert relaxation_time(T) == np.inf


def test_states_on_the_way_leave_a_gap():
    assert spectral_gap([[0.5, 0.5, 0], [0.5, 0.5, 0], [0.1, 0.2, 0.7]]) == pytest.approx(0.3, abs=1e-14)


@pytest.mark.parametrize(
    ("T", "error", "message"),
    [
        ([["a"]], TypeError, "T must hold real numbers"),
        ([0.5, 0.5], ValueError, r"T must be a square matrix .* got shape \(2,\)"),
        (np.empty((0, 0)), ValueError, "T must be a square matrix"),
        ([[0.5, 0.5]], ValueError, r"got shape \(1, 2\)"),
        ([[1.5, -0.5], [0, 1]], ValueError, "T must hold probabilities"),
        ([[np.nan, 1], [0, 1]], ValueError, "T must hold probabilities"),
        (WEATHER.T, ValueError, "but row 0 sums to 1.2"),
    ],
)
def test_what_is_no_transition_matrix_is_refused(T, error, message):
    for function in (is_irreducible, is_aperiodic, stationary_distribution, spectral_gap, relaxation_time):
        with pytest.raises(error, match=message):
            function(T)


@pytest.mark.parametrize(
    ("p", "error", "message"),
    [
        (["a", "b"], TypeError, "p must hold real numbers"),
        ([1.0], ValueError, r"p must have the shape \(2,\)"),
        ([0.5, 0.6], ValueError, "p must be probabilities that sum to 1, got the sum 1.1"),
        ([1.5, -0.5], ValueError, "p must be probabilities"),
        ([np.nan, 1], ValueError, "p must be probabilities"),
    ],
)
def test_what_is_no_distribution_is_refused(p, error, message):
    with pytest.raises(error, match=message):
        detailed_balance_gap(WEATHER, p)
    with pytest.raises(error, match=message):
        total_variation(WEATHER, p, 1)


def test_wrong_steps_and_starts_are_refused():
    p = [0.75, 0.25]
    with pytest.raises(TypeError, match="steps must be integers, got dtype float64"):
        total_variation(WEATHER, p, 1.5)
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        total_variation(WEATHER, p, [1, -1])
    with pytest.raises(ValueError, match="start must be a state between 0 and 1, got 2"):
        total_variation(WEATHER, p, 1, start=2)
    with pytest.raises(ValueError, match=r"start must have the shape \(2,\)"):
        total_variation(WEATHER, p, 1, start=[1.0])
