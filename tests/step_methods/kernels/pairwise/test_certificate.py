"""The exact transition matrices of the kernels of pairwise networks, from their forced forms."""

import itertools

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special

from step_methods.kernels.pairwise.dense import prepare_dense
from step_methods.kernels.pairwise.lattice import prepare_lattice
from step_methods.kernels.pairwise.network import sweep_pairwise_forced
from step_methods.kernels.pairwise.sparse import color_units, prepare_sparse

# Side, and whether it is periodic, of each axis: with odd periodic axes and rows along the first axis as well.
LATTICES = [
    ((6, True),),
    ((5, False),),
    ((2, False), (3, False)),
    ((3, True), (2, False)),
    ((2, False), (3, True)),
    ((4, True),),
]
COUPLINGS = st.floats(-4, 4, width=32)


@st.composite
def lattices(draw):
    axes = draw(st.sampled_from(LATTICES))
    couplings = draw(arrays(np.float64, len(axes), elements=COUPLINGS))
    sides = [side for side, _ in axes]
    J = np.zeros((np.prod(sides), np.prod(sides)))
    for site in itertools.product(*map(range, sides)):
        for axis, (side, is_periodic) in enumerate(axes):
            if site[axis] + 1 < side or is_periodic:
                other = list(site)
                other[axis] = (site[axis] + 1) % side
                i, j = (np.ravel_multi_index(x, sides) for x in (site, other))
                J[i, j] = J[j, i] = couplings[axis]
    return J, lambda dtype: ("lattice", prepare_lattice(axes, couplings.astype(dtype)))


@st.composite
def matrices(draw):
    n = draw(st.integers(1, 6))
    J = np.triu(draw(arrays(np.float64, (n, n), elements=st.just(0.0) | COUPLINGS)), 1)
    return J + J.T


@st.composite
def sparse_networks(draw):
    J = draw(matrices())

    def prepare(dtype):
        couplings = scipy.sparse.csr_array(J.astype(dtype))
        return "sparse", prepare_sparse(couplings, color_units(couplings))

    return J, prepare


@st.composite
def dense_networks(draw):
    J = draw(matrices())
    return J, lambda dtype: ("dense", prepare_dense(scipy.sparse.csr_array(J.astype(dtype))))


@st.composite
def problems(draw, kind):
    """(J, prepare, bias, scale) of up to 6 units."""
    J, prepare = draw({"lattice": lattices, "sparse": sparse_networks, "dense": dense_networks}[kind]())
    bias = draw(arrays(np.float64, len(J), elements=st.floats(-4, 4, width=32)))
    return J, prepare, bias, draw(st.sampled_from([1.0, -0.5, 0.25]))


def transition_matrix(network, bias, scale, n_sweeps=1, probability=lambda p: p):
    """T[i, j] = P(j | i) on the states in `itertools.product` order, from all decisions that can be forced."""
    n = bias.size
    states = np.array(list(itertools.product((0, 1), repeat=n)), np.uint8)
    index = 2 ** np.arange(n)[::-1]
    decisions = np.array(list(itertools.product((0, 1), repeat=n * n_sweeps)), np.uint8)
    p = np.empty(n * n_sweeps)
    T = np.zeros((len(states), len(states)))
    for i, start in enumerate(states):
        for bits in decisions:
            z = start.copy()
            assert sweep_pairwise_forced(network, z, bias, scale, n_sweeps, bits, p) == p.size
            T[i, z @ index] += np.prod(np.where(bits, probability(p), 1 - probability(p)))
    return states, T


def boltzmann(states, J, bias, scale):
    states = states.astype(float)
    return special.softmax(states @ bias + scale / 2 * np.einsum("ki,ij,kj->k", states, J, states))


@pytest.mark.parametrize("kind", ["lattice", "sparse", "dense"])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_distribution_is_invariant(kind, data):
    J, prepare, bias, scale = data.draw(problems(kind))
    states, T = transition_matrix(prepare(np.float64), bias, scale)
    p = boltzmann(states, J, bias, scale)
    np.testing.assert_allclose(T.sum(axis=1), 1, rtol=1e-13)
    np.testing.assert_allclose(p @ T, p, rtol=0, atol=1e-12)
    assert T.min() > 0  # irreducible and aperiodic


@pytest.mark.parametrize("kind", ["lattice", "sparse", "dense"])
@settings(max_examples=5, deadline=None, derandomize=True)
@given(data=st.data())
def test_sweeps_of_one_call_are_a_power(kind, data):
    _, prepare, bias, scale = data.draw(problems(kind).filter(lambda problem: len(problem[0]) <= 4))
    network = prepare(np.float64)
    _, once = transition_matrix(network, bias, scale)
    _, twice = transition_matrix(network, bias, scale, n_sweeps=2)
    np.testing.assert_allclose(once @ once, twice, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["lattice", "sparse", "dense"])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(data=st.data())
def test_float32_is_close(kind, data):
    """What float32 and 24 random bits add: at most 1e-6 in p T.

    A random number of 24 bits rounds a probability to a multiple of 2**-24, up or to the nearest; that is done here
    with all of them, up.
    """
    J, prepare, bias, scale = data.draw(problems(kind))
    for probability in (lambda p: p, lambda p: np.ceil(p * 2.0**24) / 2.0**24):
        network = prepare(np.float32)
        states, T = transition_matrix(network, bias.astype(np.float32), scale, probability=probability)
        p = boltzmann(states, J, bias, scale)
        np.testing.assert_allclose(p @ T, p, rtol=0, atol=1e-6)
