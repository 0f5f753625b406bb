"""Normal random numbers: sine and cosine of vectors, distribution, tails, independence."""

import numpy as np
import pytest
from numba import njit
from scipy import stats

from step_methods.kernels.vectors.normal import cos_sin, fill_normal
from step_methods.kernels.vectors.random import VECTOR_BYTES
from step_methods.kernels.vectors.simd import load, sqrt, store

FLOATS = [np.float32, np.float64]
BITS = {np.float32: 24, np.float64: 53}


@njit
def vector_cos_sin(quarters, cosine, sine):
    for start in range(0, quarters.size, VECTOR_BYTES // quarters.itemsize):
        c, s = cos_sin(load(quarters, start, VECTOR_BYTES))
        store(cosine, start, c)
        store(sine, start, s)


@njit
def vector_sqrt(x, out):
    for start in range(0, x.size, VECTOR_BYTES // x.itemsize):
        store(out, start, sqrt(load(x, start, VECTOR_BYTES)))


@pytest.mark.parametrize("dtype", FLOATS)
def test_cosine_and_sine(dtype, rng):
    """One unit in the last place of 1, which is 2**-23 or 2**-52."""
    near = np.concatenate([k + 0.5 * np.array([-1, 1]) * 2.0**-j for k in range(4) for j in range(1, 20)])
    quarters = np.concatenate([rng.uniform(0, 4, 64_000), np.arange(8) / 2, np.clip(near, 0, 4)])
    quarters = quarters[: quarters.size // 32 * 32].astype(dtype)
    cosine, sine = np.empty_like(quarters), np.empty_like(quarters)
    vector_cos_sin(quarters, cosine, sine)
    angle = quarters.astype(np.longdouble) * (2 * np.arctan(np.longdouble(1)))
    assert np.abs(cosine - np.cos(angle)).max() < np.finfo(dtype).eps
    assert np.abs(sine - np.sin(angle)).max() < np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", FLOATS)
def test_square_root_is_rounded_correctly(dtype, rng):
    x = np.exp(rng.uniform(-20, 20, 6400)).astype(dtype)
    out = np.empty_like(x)
    vector_sqrt(x, out)
    np.testing.assert_array_equal(out, np.sqrt(x))


@pytest.mark.parametrize("dtype", FLOATS)
def test_distribution(dtype, state):
    """Kolmogorov-Smirnov, p-value above 1e-4; |z| < 4.5 for six moments: false-alarm rate 1.4e-4 (seed fixed)."""
    x = np.empty(2**20, dtype)
    fill_normal(state, x)
    x = x.astype(float)
    assert stats.kstest(x, "norm").pvalue > 1e-4
    for k in range(1, 7):
        expected = stats.norm.moment(k)
        error = np.sqrt((stats.norm.moment(2 * k) - expected**2) / x.size)
        assert abs(np.mean(x**k) - expected) < 4.5 * error


@pytest.mark.parametrize("dtype", FLOATS)
def test_tails(dtype, state):
    """Numbers beyond 2, 3, 4, 4.5 and 5 standard deviations on each side: false-alarm rate 2e-3 (seed fixed)."""
    n, counts = 0, np.zeros((2, 5))
    limits = np.array([2, 3, 4, 4.5, 5])
    x = np.empty(2**20, dtype)
    for _ in range(20):
        fill_normal(state, x)
        n += x.size
        counts += [[np.count_nonzero(sign * x > limit) for limit in limits] for sign in (1, -1)]
    expected = n * stats.norm.sf(limits)
    assert expected[-1] > 5
    for count in counts:
        assert (stats.poisson.cdf(count, expected) > 1e-4).all()
        assert (stats.poisson.sf(count - 1, expected) > 1e-4).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_independence(dtype, state):
    """Of neighbors, of the two of a pair, and of their squares: |z| < 4.5, false-alarm rate 4e-5 (seed fixed)."""
    x = np.empty(2**19, dtype)
    fill_normal(state, x)
    x = x.astype(float)
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    for lag in (1, lanes, 2 * lanes):
        for y, variance in ((x, 1), (x**2 - 1, 2)):
            z = np.sum(y[lag:] * y[:-lag]) / variance / np.sqrt(x.size)
            assert abs(z) < 4.5


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_pair_is_as_long_as_its_uniform_number_says(dtype, rng, state_before):
    """x² + y² = −2 log u for the middle u of the cell that the random bits name."""
    bits = BITS[dtype]
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    for cell in (64, 1000, 2 ** (bits - 5), 2 ** (bits - 2) + 1, 3 * 2 ** (bits - 2)):
        word = cell << 11 if dtype == np.float64 else cell << 8 | cell << 40
        x = np.empty(2 * lanes, dtype)
        fill_normal(state_before(word, rng), x)
        expected = -2 * np.log((cell + 0.5) / 2.0**bits)
        lengths = x[:lanes].astype(float) ** 2 + x[lanes:].astype(float) ** 2
        np.testing.assert_allclose(lengths, expected, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_lowest_cell_is_refined(dtype, rng, state_before):
    """Given the lowest cell of the uniform number, of width w, the squared length is distributed as −2 log(w u).

    p-value of Kolmogorov-Smirnov above 1e-4, the false-alarm rate.
    """
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    places = np.empty((300, lanes))
    for place in places:
        x = np.empty(2 * lanes, dtype)
        fill_normal(state_before(0, rng), x)
        x = x.astype(float)
        place[:] = np.exp(-(x[:lanes] ** 2 + x[lanes:] ** 2) / 2) * 2.0 ** BITS[dtype]
    assert stats.kstest(places.ravel(), "uniform").pvalue > 1e-4


@pytest.mark.parametrize("dtype", FLOATS)
def test_extreme_random_bits_give_finite_numbers(dtype, rng, state_before):
    for word in (0, 1 << 11, 2**63, 2**64 - 1):
        x = np.empty(64, dtype)
        fill_normal(state_before(word, rng), x)
        assert np.isfinite(x).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [0, 1, 15, 31, 33, 63, 65])
def test_any_size_is_the_beginning_of_a_longer_one(dtype, size, state):
    long = np.empty(128, dtype)
    fill_normal(state.copy(), long)
    memory = np.full(size + 40, 9, dtype)
    fill_normal(state, memory[:size])
    np.testing.assert_array_equal(memory[:size], long[:size])
    np.testing.assert_array_equal(memory[size:], 9)


def test_the_stream_advances_and_nothing_is_allocated(state, n_allocations):
    x = np.empty(1000)
    fill_normal(state, x)
    before = x.copy()
    assert n_allocations(lambda: fill_normal(state, x)) == 2  # a handle for each argument
    assert (x != before).all()
