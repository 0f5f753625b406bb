"""Log Z and its gradient by enumeration, against sums over all joint states."""

import itertools

import numpy as np
import pytest

from step_methods.kernels.restricted.enumeration import log_partition_gradient


def brute_force(W, a, b):
    v, h = (np.array(list(itertools.product([0, 1], repeat=n))).reshape(2**n, n) for n in W.shape)
    log_weights = (v @ a)[:, None] + (h @ b)[None, :] + v @ W @ h.T
    largest = log_weights.max()
    weights = np.exp(log_weights - largest)
    p = weights / weights.sum()
    return largest + np.log(weights.sum()), v.T @ p @ h, v.T @ p.sum(axis=1), h.T @ p.sum(axis=0)


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (1, 1), (10, 9), (9, 10), (4, 0)])
@pytest.mark.parametrize("scale", [0.1, 3.0, 200.0])
def test_against_brute_force(rng, shape, scale):
    W = scale * rng.normal(size=shape)
    a, b = scale * rng.normal(size=shape[0]), scale * rng.normal(size=shape[1])
    for got, expected in zip(log_partition_gradient(W, a, b), brute_force(W, a, b), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_a_long_layer_does_not_overflow():
    """The logarithms of 512 factors are taken at once: 2000 units need several products."""
    a = np.zeros(2000)
    log_z, _, visible, _ = log_partition_gradient(np.zeros((2000, 2)), a, np.zeros(2))
    np.testing.assert_allclose(log_z, 2002 * np.log(2), rtol=1e-13)
    np.testing.assert_allclose(visible, 0.5, rtol=1e-12)
