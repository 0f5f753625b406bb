"""Logarithms of vectors, and logistic random numbers."""

import numpy as np
import pytest
from numba import njit
from scipy import special, stats

from step_methods.kernels.vectors import noise
from step_methods.kernels.vectors.random import VECTOR_BYTES, close_stream, open_stream
from step_methods.kernels.vectors.simd import load, store

FLOATS = [np.float32, np.float64]
BITS = {np.float32: 24, np.float64: 53}


@njit
def vector_log(x, out):
    for start in range(0, x.size, VECTOR_BYTES // x.itemsize):
        store(out, start, noise.log(load(x, start, VECTOR_BYTES)))


@njit
def draw_thresholds(state, out):
    stream = open_stream(state)
    lanes = VECTOR_BYTES // out.itemsize
    for start in range(0, out.size, lanes):
        limits, stream = noise.thresholds(stream, 0, load(out, start, VECTOR_BYTES), lanes)
        store(out, start, limits)
    close_stream(stream)


@pytest.mark.parametrize("dtype", FLOATS)
def test_log(dtype, rng):
    largest = 80 if dtype == np.float32 else 700
    x = np.exp(np.concatenate([rng.uniform(-largest, largest, 3200), rng.normal(0, 1e-3, 3200)])).astype(dtype)
    out = np.empty_like(x)
    vector_log(x, out)
    exact = np.log(x.astype(np.longdouble))
    np.testing.assert_array_less(np.abs(out - exact), 1.5 * np.spacing(np.abs(exact).astype(dtype)) + 1e-300)


@pytest.mark.parametrize("dtype", FLOATS)
def test_logistic_distribution(dtype, state):
    """Kolmogorov-Smirnov, p-value above 1e-4, which is the false-alarm rate (seed fixed)."""
    out = np.empty(2**18, dtype)
    draw_thresholds(state, out)
    assert stats.kstest(out, "logistic").pvalue > 1e-4
    # Lanes and steps are independent: |z| < 4.5 for their correlations, false-alarm rate 1.4e-5.
    p = special.expit(out.astype(float)) - 0.5
    lanes = VECTOR_BYTES // out.itemsize
    for lag in (1, lanes):
        assert abs(np.sum(p[lag:] * p[:-lag]) * 12 / np.sqrt(p.size)) < 4.5


@pytest.mark.parametrize("dtype", FLOATS)
def test_thresholds_are_logits_of_the_random_numbers(dtype, rng, state_before):
    """A threshold is the logit of the middle of the cell that the random bits name.

    Where a float has no more digits for the half cell, it is off by up to half a cell, 2 * 2**-bits of the logit.
    """
    bits = BITS[dtype]
    for cell in (1, 3, 2 ** (bits - 5), 2 ** (bits - 1) - 1, 2 ** (bits - 1), 2**bits - 2):
        word = cell << 11 if dtype == np.float64 else cell << 8 | cell << 40
        out = np.empty(VECTOR_BYTES // np.dtype(dtype).itemsize, dtype)
        draw_thresholds(state_before(word, rng), out)
        middle = np.longdouble(cell) + np.longdouble(0.5)
        exact = np.log(middle / (np.longdouble(2) ** bits - middle))
        np.testing.assert_allclose(out.astype(float), float(exact), rtol=4 * np.finfo(dtype).eps, atol=2.1 * 2.0**-bits)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_extreme_cells_are_refined(dtype, sign, rng, state_before):
    """In the lowest and highest cell the place in the cell is uniform; p-value above 1e-4, the false-alarm rate."""
    bits = BITS[dtype]
    word = 0 if sign < 0 else 2**64 - 1
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    places = np.empty((400, lanes))
    for place in places:
        out = np.empty(lanes, dtype)
        draw_thresholds(state_before(word, rng), out)
        place[:] = special.expit(-sign * out.astype(float)) * 2.0**bits
    assert places.min() > 0
    assert stats.kstest(places.ravel(), "uniform").pvalue > 1e-4
