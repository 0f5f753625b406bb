"""The Gaussian kernel: an affine map of state and noise, which must leave the Gaussian invariant."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from step_methods.kernels.pairwise.gaussian import energy_gaussian, prepare_gaussian, sweep_gaussian


@st.composite
def covariances_with_blocks(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 7))
    factor = rng.normal(size=(n, n))
    covariance = factor @ factor.T + 0.1 * np.eye(n)
    block_of = rng.integers(0, draw(st.integers(1, n)), n)
    blocks = [rng.permutation(np.flatnonzero(block_of == k)) for k in np.unique(block_of)]
    return covariance, blocks, rng.permutation(len(blocks))


def affine_map(gaussian, n, picks, n_normals):
    """Return A and L of d → A d + L ε, the kernel's own, from what it does to the vectors of a basis."""

    def image(deviations, noise):
        deviations, noise = deviations.copy(), noise.copy()
        sweep_gaussian(gaussian, deviations, picks, noise)
        return deviations

    A = [image(row, np.zeros(n_normals)) for row in np.eye(n)]
    L = [image(np.zeros(n), row) for row in np.eye(n_normals)]
    return np.array(A).T, np.array(L).reshape(-1, n).T


@settings(max_examples=60, deadline=None)
@given(covariances_with_blocks())
def test_every_block_and_every_sweep_leave_the_gaussian_invariant(problem):
    """A Σ Aᵀ + L Lᵀ = Σ, for each block alone (so for every random scan) and for whole sweeps in any order."""
    covariance, blocks, order = problem
    n = len(covariance)
    gaussian = prepare_gaussian(np.linalg.inv(covariance), blocks)
    for picks in [*np.arange(len(blocks))[:, None], order, np.tile(order, 2)]:
        n_normals = sum(len(blocks[k]) for k in picks)
        A, L = affine_map(gaussian, n, picks, n_normals)
        np.testing.assert_allclose(A @ covariance @ A.T + L @ L.T, covariance, atol=1e-12 * np.abs(covariance).max())


@settings(max_examples=30, deadline=None)
@given(covariances_with_blocks())
def test_a_block_is_drawn_from_its_conditional(problem):
    """Mean Σ_BR Σ_RR⁻¹ d_R and covariance Σ_BB − Σ_BR Σ_RR⁻¹ Σ_RB: the covariance form of the same law."""
    covariance, blocks, _ = problem
    n = len(covariance)
    gaussian = prepare_gaussian(np.linalg.inv(covariance), blocks)
    for k, block in enumerate(blocks):
        A, L = affine_map(gaussian, n, np.array([k]), len(block))
        rest = np.setdiff1d(np.arange(n), block)
        gain = np.linalg.solve(covariance[np.ix_(rest, rest)], covariance[np.ix_(rest, block)]).T
        expected = np.eye(n)
        expected[block] = 0.0
        expected[np.ix_(block, rest)] = gain
        np.testing.assert_allclose(A, expected, atol=1e-10)
        np.testing.assert_array_equal(L[rest], 0.0)
        conditional = covariance[np.ix_(block, block)] - gain @ covariance[np.ix_(rest, block)]
        np.testing.assert_allclose(L[block] @ L[block].T, conditional, atol=1e-10)


def test_one_block_of_all_coordinates_forgets_the_state(rng):
    factor = rng.normal(size=(4, 4))
    gaussian = prepare_gaussian(factor @ factor.T, [np.arange(4)])
    A, _ = affine_map(gaussian, 4, np.array([0]), 4)
    np.testing.assert_array_equal(A, 0.0)


def test_energy(rng):
    factor, deviations = rng.normal(size=(5, 5)), rng.normal(size=5)
    precision = factor @ factor.T
    np.testing.assert_allclose(energy_gaussian(precision, deviations), deviations @ precision @ deviations / 2)


def test_nothing_is_allocated(n_allocations):
    gaussian = prepare_gaussian(np.eye(3), [np.array([0, 2]), np.array([1])])
    deviations, noise, picks = np.zeros(3), np.zeros(4), np.array([0, 1])

    def run():
        sweep_gaussian(gaussian, deviations, picks, noise)

    run()
    assert n_allocations(run) == 7  # a handle for each array that is passed
