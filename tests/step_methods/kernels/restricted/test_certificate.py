"""The exact transition matrices of the kernels that run, from their forced forms (see `step_methods.kernels`)."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special

from step_methods.kernels.restricted.rbm import (
    prepare,
    sweep_forced,
    update_hidden_forced,
    update_visible_forced,
)


def decision_tree(forced):
    """All outcomes of a kernel with forced decisions, and their probabilities.

    ``forced(bits, probabilities)`` runs the kernel from one and the same state and returns (its new
    state, the number of decisions).
    """
    bits, probabilities = np.zeros(64, np.uint8), np.zeros(64)
    while True:
        state, n = forced(bits, probabilities)
        p = probabilities[:n]
        yield state, np.prod(np.where(bits[:n], p, 1 - p))
        ones = np.flatnonzero(bits[:n] == 0)
        if ones.size == 0:
            return
        bits[ones[-1]] = 1
        bits[ones[-1] + 1 :] = 0


def transition_matrix(kernel, rbm, n_visible, n_hidden):
    """T[i, j] = P(j | i) on the states (v, h) in `itertools.product` order."""
    states = list(itertools.product((0, 1), repeat=n_visible + n_hidden))
    index = {state: i for i, state in enumerate(states)}
    T = np.zeros((len(states), len(states)))
    for i, start in enumerate(states):

        def forced(bits, probabilities, start=start):
            units = np.array(start, np.uint8)
            v, h = units[:n_visible], units[n_visible:]
            n = kernel(rbm, v, h, bits, probabilities)
            return tuple(units.tolist()), n

        for state, p in decision_tree(forced):
            T[i, index[state]] += p
    return T


def joint(W, a, b):
    """p(v, h) on the same states."""
    states = np.array(list(itertools.product((0, 1), repeat=sum(W.shape))), float)
    v, h = states[:, : W.shape[0]], states[:, W.shape[0] :]
    return special.softmax(v @ a + h @ b + np.einsum("ki,ij,kj->k", v, W, h))


def one_sweep(rbm, v, h, bits, probabilities):
    return sweep_forced(rbm, v, h, 1, bits, probabilities)


KERNELS = [one_sweep, update_hidden_forced, update_visible_forced]


@st.composite
def rbms(draw):
    n_visible = draw(st.integers(1, 5))
    n_hidden = draw(st.integers(1, 6 - n_visible))
    values = st.floats(-5, 5, width=32)
    return tuple(
        draw(arrays(np.float64, shape, elements=values)) for shape in ((n_visible, n_hidden), n_visible, n_hidden)
    )


@pytest.mark.parametrize("tables", [True, False])
@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(parameters=rbms())
def test_joint_is_invariant(kernel, tables, parameters):
    rbm = prepare(*parameters, tables=tables)
    T = transition_matrix(kernel, rbm, *parameters[0].shape)
    p = joint(*parameters)
    np.testing.assert_allclose(T.sum(axis=1), 1, rtol=1e-13)
    np.testing.assert_allclose(p @ T, p, rtol=0, atol=1e-12)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(parameters=rbms())
def test_marginal_is_invariant_and_reversible(parameters):
    """The visible units alone, the hidden ones summed out."""
    W, a, b = parameters
    n_visible, n_hidden = W.shape
    T = transition_matrix(one_sweep, prepare(W, a, b), n_visible, n_hidden)
    T = T.reshape(2**n_visible, 2**n_hidden, 2**n_visible, 2**n_hidden)
    # Where a sweep goes does not depend on the hidden units from which it starts.
    np.testing.assert_array_equal(T, np.broadcast_to(T[:, :1], T.shape))
    T = T[:, 0].sum(axis=-1)
    p = joint(W, a, b).reshape(2**n_visible, -1).sum(axis=1)
    np.testing.assert_allclose(p @ T, p, rtol=0, atol=1e-12)
    np.testing.assert_allclose(p[:, None] * T, (p[:, None] * T).T, rtol=0, atol=1e-12)
    assert T.min() > 0  # irreducible and aperiodic


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(parameters=rbms())
def test_float32_is_close(kernel, parameters):
    """What float32 and 24 random bits add: at most 1e-6 in p T.

    A random number of 24 bits rounds a probability up to the next multiple of 2**-24; that is done
    here with all of them.
    """

    def rounded_up(*arguments):
        probabilities = arguments[-1]
        n = kernel(*arguments)
        probabilities[:n] = np.ceil(probabilities[:n] * 2.0**24) / 2.0**24
        return n

    W, a, b = (x.astype(np.float32) for x in parameters)
    p = joint(*parameters)
    for k in (kernel, rounded_up):
        T = transition_matrix(k, prepare(W, a, b), *W.shape)
        np.testing.assert_allclose(p @ T, p, rtol=0, atol=1e-6)
