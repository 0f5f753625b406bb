from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chisquare

from pm_neural.diagnostics import enumerate_states, exact_marginals, log_partition
from pm_neural.diagnostics._parameters import as_parameters
from pm_neural.diagnostics.enumeration import exact_draws


@pytest.mark.parametrize("values", [(0, 1), (-1, 1)])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_states_come_in_product_order(n, values):
    states = enumerate_states(n, values)
    assert states.dtype == np.int64
    assert_array_equal(states, list(product(values, repeat=n)))


def test_states_of_twenty_units():
    states = enumerate_states(20)
    assert states.shape == (2**20, 20)
    assert_array_equal(states[-2], [1] * 19 + [0])


@pytest.mark.parametrize("n", [0, -1, 21, 64])
def test_states_refuse_a_number_of_units_out_of_range(n):
    with pytest.raises(ValueError, match=f"n must be between 1 and 20, got {n}"):
        enumerate_states(n)


@pytest.mark.parametrize("n", [2.0, "2", True, None])
def test_states_refuse_what_is_not_a_number_of_units(n):
    with pytest.raises(TypeError, match="n must be an integer"):
        enumerate_states(n)


@pytest.mark.parametrize("values", [(1, 0), (0, 0), (0, 1, 2)])
def test_states_refuse_values_that_are_not_an_increasing_pair(values):
    with pytest.raises(ValueError, match="values must be the lower and the upper value"):
        enumerate_states(2, values)


# --------------------------------------------------------------------------------- log partition


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 3), (1, 9), (9, 1), (6, 6), (10, 4)])
@pytest.mark.parametrize("scale", [0.1, 1, 10])
def test_log_partition_against_all_joint_states(random_rbm, joint, shape, scale):
    params = random_rbm(*shape, scale)
    assert_allclose(log_partition(params).estimate, joint(params).log_z, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("scale", [100, 1e3, 1e6])
def test_large_weights_do_not_overflow(random_rbm, joint, scale):
    params = random_rbm(7, 4, scale)
    assert_allclose(log_partition(params).estimate, joint(params).log_z, rtol=1e-13)


def test_units_of_very_different_size_do_not_overflow(random_rbm, rng):
    # Many units of moderate size, whose product would overflow, with a few of huge size.
    W, a, b = random_rbm(3, 600, 3)
    W[:, rng.choice(600, 5, replace=False)] *= 1e4
    v = enumerate_states(3)
    expected = np.logaddexp.reduce(v @ a + np.logaddexp(0, b + v @ W).sum(axis=1))
    assert_allclose(log_partition((W, a, b)).estimate, expected, rtol=1e-13)
    assert_allclose(log_partition((W.T, b, a)).estimate, expected, rtol=1e-13)


@pytest.mark.parametrize("n", [10, 12])
def test_independent_networks_add_up(random_rbm, joint, n):
    # Twice n units in the enumerated layer: the largest size that is allowed, and its blocks.
    one, other = random_rbm(n, n), random_rbm(n, n, 0.3)
    W = np.block([[one[0], np.zeros((n, n))], [np.zeros((n, n)), other[0]]])
    both = W, np.r_[one[1], other[1]], np.r_[one[2], other[2]]
    expected = log_partition(one).estimate + log_partition(other).estimate
    assert_allclose(log_partition(both).estimate, expected, rtol=1e-13)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.data())
def test_exchanging_layers_and_flipping_units_keep_the_partition_function(data):
    n_visible, n_hidden = data.draw(st.integers(1, 10)), data.draw(st.integers(1, 10))
    number = st.floats(-300, 300)

    def draw(n):
        return np.array(data.draw(st.lists(number, min_size=n, max_size=n)))

    W = draw(n_visible * n_hidden).reshape(n_visible, n_hidden)
    a, b = draw(n_visible), draw(n_hidden)
    log_z = log_partition((W, a, b)).estimate
    tolerance = {"rtol": 1e-12, "atol": 1e-12 * np.abs(W).sum()}
    assert_allclose(log_partition((W.T, b, a)).estimate, log_z, **tolerance)

    # v₀ = 1 − v₀' : E = −a₀ − W₀·h + a₀v₀' + v₀' W₀·h + …
    flipped = W.copy(), a.copy(), b + W[0]
    flipped[0][0] *= -1
    flipped[1][0] *= -1
    assert_allclose(log_partition(flipped).estimate + a[0], log_z, **tolerance)


def test_log_partition_refuses_a_layer_that_is_too_large():
    params = np.zeros((25, 26)), np.zeros(25), np.zeros(26)
    with pytest.raises(ValueError, match=r"smaller layer has 25 units, .* at most 24 .*'ais'"):
        log_partition(params)


# ------------------------------------------------------------------------------------- marginals


def assert_moments(marginals, joint):
    v, h = joint.visible, joint.hidden
    assert_allclose(marginals.visible, joint.mean(v), atol=1e-12)
    assert_allclose(marginals.hidden, joint.mean(h), atol=1e-12)
    assert_allclose(marginals.visible_pairs, joint.mean(v[:, :, None] * v[:, None]), atol=1e-12)
    assert_allclose(marginals.hidden_pairs, joint.mean(h[:, :, None] * h[:, None]), atol=1e-12)
    assert_allclose(marginals.visible_hidden_pairs, joint.mean(v[:, :, None] * h[:, None]), atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (5, 3), (4, 4), (2, 11)])
@pytest.mark.parametrize("scale", [0.3, 2, 100])
def test_marginals_against_all_joint_states(random_rbm, joint, shape, scale):
    params = random_rbm(*shape, scale)
    marginals, exact = exact_marginals(params), joint(params)
    assert_moments(marginals, exact)
    assert_allclose(marginals.log_partition, exact.log_z, rtol=1e-12)


def test_marginals_of_several_blocks_of_states(random_rbm):
    # Two independent networks of 7 units: their marginals are those of each alone.
    one, other = random_rbm(7, 7), random_rbm(7, 7)
    W = np.block([[one[0], np.zeros((7, 7))], [np.zeros((7, 7)), other[0]]])
    both = exact_marginals((W, np.r_[one[1], other[1]], np.r_[one[2], other[2]]))
    first, second = exact_marginals(one), exact_marginals(other)
    assert_allclose(both.visible, np.r_[first.visible, second.visible], atol=1e-12)
    assert_allclose(both.hidden_pairs[:7, :7], first.hidden_pairs, atol=1e-12)
    assert_allclose(both.visible_pairs[:7, 7:], np.outer(first.visible, second.visible), atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_clamped_marginals_are_the_exact_conditionals(random_rbm, joint, shape):
    params = random_rbm(*shape)
    observed = np.ma.masked_all(shape[0], dtype=np.int64)
    observed[0], observed[2] = 1, 0
    everything = joint(params)
    agrees = (everything.visible[:, 0] == 1) & (everything.visible[:, 2] == 0)
    mass = everything.probability[agrees].sum()
    conditional = everything._replace(
        visible=everything.visible[agrees],
        hidden=everything.hidden[agrees],
        probability=everything.probability[agrees] / mass,
    )
    marginals = exact_marginals(params, observed)
    assert_moments(marginals, conditional)
    assert_allclose(marginals.log_partition, everything.log_z + np.log(mass), rtol=1e-12)


def test_clamping_makes_a_large_layer_small(random_rbm):
    W, a, b = random_rbm(30, 25)
    observed = np.ma.masked_array(np.ones(30), mask=np.arange(30) >= 25)
    marginals = exact_marginals((W, a, b), observed)
    assert_array_equal(marginals.visible[:25], 1)
    free = exact_marginals((W[25:], a[25:], b + W[:25].sum(axis=0)))
    assert_allclose(marginals.visible[25:], free.visible)


def test_marginals_refuse_a_layer_that_is_too_large():
    with pytest.raises(ValueError, match="smaller layer has 21 units, but at most 20"):
        exact_marginals((np.zeros((21, 22)), np.zeros(21), np.zeros(22)))


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        (np.ma.masked_array([1, 0, 1], mask=False), "at least one unit masked"),
        ([1, 0, 1], "at least one unit masked"),
        (np.ma.masked_array([1, 0], mask=[0, 1]), r"shape \(3,\), got \(2,\)"),
        (np.ma.masked_array([0.5, 0, 1], mask=[0, 1, 1]), "zeros and ones only, got 0.5"),
        (np.ma.masked_array([np.nan, 0, 1], mask=[0, 1, 1]), "zeros and ones only, got nan"),
    ],
)
def test_bad_clamps_are_refused(observed, message):
    with pytest.raises(ValueError, match=f"observed must .*{message}"):
        exact_marginals((np.zeros((3, 2)), np.zeros(3), np.zeros(2)), observed)


@pytest.mark.parametrize("shape", [(4, 3), (3, 4)])
def test_exact_draws_come_from_the_model(random_rbm, joint, rng, shape):
    """Chi-square of 20,000 draws against all visible states: false-alarm rate 1e-4."""
    params = random_rbm(*shape)
    draws = exact_draws(as_parameters(params), 20_000, rng)
    states = enumerate_states(shape[0])
    exact = joint(params)
    expected = [exact.probability[(exact.visible == v).all(axis=1)].sum() for v in states]
    counts = [(draws == v).all(axis=1).sum() for v in states]
    assert sum(counts) == 20_000
    assert chisquare(counts, 20_000 * np.array(expected)).pvalue > 1e-4


# ------------------------------------------------------------------------------------ parameters


class Learner:
    def parameters_as_numpy(self):
        return np.zeros((3, 2), dtype=np.float32), np.zeros(3), np.zeros(2)


def test_an_object_with_parameters_will_do():
    assert log_partition(Learner()).estimate == pytest.approx(5 * np.log(2))


W, A, B = np.zeros((3, 2)), np.zeros(3), np.zeros(2)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ((W, A), TypeError, r"params must be a tuple \(W, a, b\)"),
        (W, TypeError, "params must be a tuple"),
        (None, TypeError, "params must be a tuple .* got NoneType"),
        ((W.astype(str), A, B), TypeError, "W must hold real numbers"),
        ((W, A, B + 1j), TypeError, "b must hold real numbers, got dtype complex"),
        ((W, A > 0, B), TypeError, "a must hold real numbers, got dtype bool"),
        ((A, A, B), ValueError, r"W must have 2 dimension\(s\), got shape \(3,\)"),
        ((W, A[:, None], B), ValueError, r"a must have 1 dimension\(s\), got shape \(3, 1\)"),
        ((W, B, A), ValueError, r"a and b must have the shapes \(3,\) and \(2,\)"),
        ((W[:0], A[:0], B), ValueError, "at least one row and one column"),
        ((W + np.nan, A, B), ValueError, "W must be finite"),
        ((W, A, B - np.inf), ValueError, "b must be finite"),
    ],
)
def test_bad_parameters_are_refused(params, error, message):
    with pytest.raises(error, match=message):
        log_partition(params)
