"""The random stream: published numbers, uniformity, snapshots."""

import copy
import pickle

import numpy as np
import pytest
from numba import njit
from scipy import stats

from step_methods.kernels.vectors.random import (
    LANES,
    close_stream,
    fill_integers,
    fill_uniform,
    fraction,
    next_words,
    open_stream,
    seed_stream,
)
from step_methods.kernels.vectors.simd import store

# From the authors' C code (https://prng.di.unimi.it/xoshiro256plus.c), started at 1, 2, 3, 4; the
# rand_xoshiro crate tests against the same numbers.
PUBLISHED = [
    5,
    211106232532999,
    211106635186183,
    9223759065350669058,
    9250833439874351877,
    13862484359527728515,
    2346507365006083650,
    1168864526675804870,
    34095955243042024,
    3466914240207415127,
]


@njit
def raw_words(state, out):
    stream = open_stream(state)
    for step in range(out.shape[0]):
        words, stream = next_words(stream)
        store(out[step], 0, words)
    close_stream(stream)


def xoshiro256plus(s, n):
    """The generator in Python integers."""
    mask = 2**64 - 1
    s = [int(x) for x in s]
    words = []
    for _ in range(n):
        words.append((s[0] + s[3]) & mask)
        t = (s[1] << 17) & mask
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = ((s[3] << 45) | (s[3] >> 19)) & mask
    return words


def words_of(state, n):
    out = np.zeros((n, LANES), np.uint64)
    raw_words(state, out)
    return out


def test_published_numbers_in_every_lane():
    state = seed_stream(np.random.default_rng(0))
    state[:4] = np.arange(1, 5, dtype=np.uint64)[:, None]
    words = words_of(state, len(PUBLISHED))
    np.testing.assert_array_equal(words, np.tile(np.array(PUBLISHED, np.uint64)[:, None], LANES))


def test_lanes_are_independent_generators():
    state = seed_stream(np.random.default_rng(1))
    expected = [xoshiro256plus(state[:4, lane], 50) for lane in range(LANES)]
    np.testing.assert_array_equal(words_of(state, 50), np.array(expected, np.uint64).T)


def test_scalar_step_is_the_same_generator():
    state = seed_stream(np.random.default_rng(2))
    expected = xoshiro256plus(state[:4, 0], 1)[0]
    others = state[:, 1:].copy()

    @njit
    def first(state):
        return fraction(open_stream(state).memory)

    assert first(state) == (expected >> 11) * 2.0**-53
    np.testing.assert_array_equal(state[:, 1:], others)


@pytest.mark.parametrize("n", [0, 1, 31, 32, 100])
def test_uniform_numbers_are_the_upper_bits(n):
    state = seed_stream(np.random.default_rng(3))
    words = words_of(state.copy(), 7).ravel()
    doubles, singles = np.empty(n), np.empty(n, np.float32)
    fill_uniform(state.copy(), doubles)
    fill_uniform(state.copy(), singles)
    np.testing.assert_array_equal(doubles, (words[:n] >> 11) * 2.0**-53)
    np.testing.assert_array_equal(singles, (words.view(np.uint32)[:n] >> 8) * 2.0**-24)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniformity(dtype):
    """Chi-square of 1024 bins, of pairs, and of neighbors among lanes; false-alarm rate 3e-5 (seed fixed)."""
    out = np.empty(2**20, dtype)
    fill_uniform(seed_stream(np.random.default_rng(4)), out)
    assert out.min() >= 0
    assert out.max() < 1

    def p_value(cells, n):
        return stats.chisquare(np.bincount(cells, minlength=n)).pvalue

    coarse = (out * 32).astype(int)
    p_values = [
        p_value((out * 1024).astype(int), 1024),
        p_value(coarse[:-1:2] * 32 + coarse[1::2], 1024),
        p_value(coarse[: -LANES * 2] * 32 + coarse[LANES * 2 :], 1024),
    ]
    assert min(p_values) > 1e-5


def test_seed_decides_everything():
    first, second = (seed_stream(np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    rng = np.random.default_rng(5)
    a, b = np.empty(100), np.empty(100)
    fill_uniform(seed_stream(rng), a)
    fill_uniform(seed_stream(rng), b)
    assert not np.any(a == b)


@pytest.mark.parametrize("duplicate", [np.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_of_the_state_is_a_snapshot(duplicate):
    state = seed_stream(np.random.default_rng(6))
    fill_uniform(state, np.empty(77))
    snapshot = duplicate(state)
    first, second = np.empty(1000, np.float32), np.empty(1000, np.float32)
    fill_uniform(state, first)
    fill_uniform(snapshot, second)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(state, snapshot)


@pytest.mark.parametrize("high", [1, 2, 3, 5, 16, 1000, 2**40 + 1])
def test_integers_are_uniform(state, high):
    """Each number below `high`, or each tenth of them, as often as the others: a false alarm in 1 of 10000 seeds."""
    numbers = np.full(100_000, -1)
    fill_integers(state, high, numbers)
    assert numbers.min() >= 0
    assert numbers.max() < high
    n_parts = min(high, 10)
    if n_parts > 1:
        counts = np.bincount((numbers.astype(object) * n_parts // high).astype(int), minlength=n_parts)
        sizes = np.diff([-(-high * k // n_parts) for k in range(n_parts + 1)]) / high
        assert stats.chisquare(counts, sizes * numbers.size).pvalue > 1e-4 / 6


def test_integers_are_the_upper_bits_of_the_words_that_fit(state):
    """Three bits for numbers below 5, and no word is used twice: 5, 6 and 7 are left out."""
    words = np.empty((8, LANES), np.uint64)
    raw_words(state.copy(), words)
    upper = (words.ravel() >> np.uint64(61)).astype(int)
    numbers = np.empty(40, np.int64)
    fill_integers(state, 5, numbers)
    np.testing.assert_array_equal(numbers, upper[upper < 5][:40])
