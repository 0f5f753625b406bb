"""Fused passes over the fields of many chains."""

import numpy as np
import pytest
from numba.core.errors import NumbaError
from scipy import special

from step_methods.kernels.restricted.layers import (
    sample_units,
    sample_units_with_mean,
    sigmoid_units,
    softplus_sums,
)
from step_methods.kernels.vectors.random import seed_stream

FLOATS = [np.float32, np.float64]
UNITS = [np.float32, np.float64, np.int8, np.uint8]
ULPS = {np.float32: 2e-7, np.float64: 1e-15}  # relative error allowed


@pytest.mark.parametrize("dtype", FLOATS)
def test_sigmoid_is_accurate(dtype):
    field = np.linspace(-80, 80, 100_001).astype(dtype)
    mean = np.empty_like(field)
    sigmoid_units(field, mean)
    exact = 1 / (1 + np.exp(-field.astype(np.longdouble)))
    np.testing.assert_allclose(mean, exact, rtol=ULPS[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
def test_sigmoid_of_extreme_fields(dtype):
    field = np.array([-np.inf, -1e30, -1e3, 1e3, 1e30, np.inf], dtype)
    sigmoid_units(field, field)
    np.testing.assert_array_equal(field[3:], 1)
    assert np.all(field[:3] >= 0)
    assert np.all(field[:3] < 1e-37)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 16), (5, 33), (4, 700), (2, 0), (0, 3)])
def test_softplus_sums(dtype, shape):
    rng = np.random.default_rng(1)
    field = (5 * rng.normal(size=shape)).astype(dtype)
    sums = np.empty(shape[0])
    softplus_sums(field, sums)
    exact = np.logaddexp(0, field.astype(float)).sum(axis=1)
    np.testing.assert_allclose(sums, exact, rtol=ULPS[dtype], atol=ULPS[dtype] * shape[1])


@pytest.mark.parametrize("dtype", FLOATS)
def test_softplus_sums_do_not_overflow(dtype):
    field = np.array([[1e30, -1e30], [1e3, 1e3], [-np.inf, -1e3]], dtype)
    sums = np.empty(3)
    softplus_sums(field, sums)
    np.testing.assert_allclose(sums, [float(field[0, 0]), 2e3, 0])
    softplus_sums(np.zeros((1, 100_000), dtype), sums)
    np.testing.assert_allclose(sums[0], 100_000 * np.log(2), rtol=1e-6)


@pytest.mark.parametrize("out_dtype", UNITS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_frequencies(dtype, out_dtype, state):
    """No z score of 777 units above 5; false-alarm rate 5e-4 (seed fixed)."""
    n = 20_000
    field = np.random.default_rng(2).uniform(-4, 4, 777).astype(dtype)
    fields = np.tile(field, (n, 1))
    out = np.empty(fields.shape, out_dtype)
    sample_units(fields, state, out)
    assert set(np.unique(out)) == {0, 1}
    p = special.expit(field.astype(float))
    z = (out.mean(axis=0, dtype=float) - p) / np.sqrt(p * (1 - p) / n)
    assert np.abs(z).max() < 5


@pytest.mark.parametrize("shape", [(1, 1), (1, 15), (3, 11), (2, 32), (7, 100)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_in_place_and_every_type_give_the_same_samples(dtype, shape, state):
    field = np.random.default_rng(3).normal(size=shape).astype(dtype)
    samples = []
    for out in [np.full(shape, 7, out_dtype) for out_dtype in UNITS] + [field.copy()]:
        source = field if out.dtype != dtype or np.all(out == 7) else out
        sample_units(source, state.copy(), out)
        samples.append(out.astype(int))
    for other in samples[1:]:
        np.testing.assert_array_equal(other, samples[0])


@pytest.mark.parametrize("shape", [(1, 1), (3, 11), (7, 100)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_samples_with_mean(dtype, shape, state):
    field = np.random.default_rng(4).normal(size=shape).astype(dtype)
    expected, mean = np.empty(shape, dtype), np.empty(shape, dtype)
    sample_units(field, state.copy(), expected)
    sigmoid_units(field, mean)
    out = np.empty(shape, np.uint8)
    sample_units_with_mean(field, state.copy(), out, field)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(field, mean)


def test_nothing_is_written_beyond_the_end(state):
    memory = np.full((2, 40), 9, np.float32)
    sample_units(np.zeros((1, 33), np.float32), state, memory[:1, :33])
    np.testing.assert_array_equal(memory[0, 33:], 9)
    np.testing.assert_array_equal(memory[1], 9)


@pytest.mark.parametrize("dtype", FLOATS)
def test_certain_units(dtype, state):
    """Fields of 1e3 or infinity decide the unit, also where the random number falls into an extreme cell."""
    field = np.tile(np.array([[-np.inf, -1e3, 1e3, np.inf]], dtype), (16, 16))
    out = np.empty_like(field)
    for word in (None, 0, 2**64 - 1):
        for _ in range(20):
            if word is not None:
                state[3] = np.uint64(word) - state[0]
            sample_units(field, state, out)
            np.testing.assert_array_equal(out, field > 0)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("field", [-8.0, -1.0, -0.01, 0.0, 0.3, 2.0, 6.0])
def test_decision_boundary(dtype, field, state_before):
    """The random number at which a decision turns is the probability, but for 5 cells of 2**-24 or 2**-53.

    This bounds what the type and the number of random bits add to a probability: 3e-7 in float32,
    6e-16 in float64.
    """
    bits, lanes = (24, 32) if dtype == np.float32 else (53, 16)
    field = dtype(field)
    exact = 1 / (1 + np.exp(-field.astype(np.longdouble)))
    boundary = int(exact * 2**bits)
    rng = np.random.default_rng(5)
    fields = np.full((1, lanes), field, dtype)
    out = np.empty((1, lanes), np.uint8)
    for cell, expected in ((boundary - 5, 1), (boundary + 5, 0)):
        word = cell << 11 if bits == 53 else (cell << 40) | (cell << 8)
        sample_units(fields, state_before(word, rng), out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("dtype", "p"), [(np.float32, 1e-9), (np.float32, 2e-8), (np.float64, 2e-17)])
@pytest.mark.parametrize("sign", [1, -1])
def test_small_probabilities_happen(dtype, p, sign, state_before):
    """In the extreme cell, of width w, a unit with probability p (or 1 - p) is 1 (or 0) at rate p / w.

    |z| < 4.5; false-alarm rate 7e-6 for each case (seed fixed).
    """
    lanes, width = (32, 2.0**-24) if dtype == np.float32 else (16, 2.0**-53)
    field = np.full((1, lanes), sign * np.log(p), dtype)
    rare, hits, n = int(sign > 0), 0, 2000
    out = np.empty((1, lanes), np.uint8)
    rng = np.random.default_rng(6)
    for _ in range(n):
        sample_units(field, state_before(0 if sign > 0 else 2**64 - 1, rng), out)
        hits += np.count_nonzero(out == rare)
    rate = special.expit(np.float64(field[0, 0]) * sign) / width
    z = (hits - n * lanes * rate) / np.sqrt(n * lanes * rate * (1 - rate))
    assert abs(z) < 4.5


def test_stream_advances_and_nothing_is_allocated(state, n_allocations):
    field = np.zeros((10, 100), np.float32)
    out = np.empty_like(field)
    sample_units(field, state, out)
    first, before = out.copy(), state.copy()
    assert n_allocations(lambda: sample_units(field, state, out)) == 3  # a handle for each argument
    assert np.all(before[:4] != state[:4])
    assert np.any(first != out)


def test_strided_arrays_are_refused(state):
    field = np.zeros((10, 100), np.float32)
    with pytest.raises((NumbaError, NotImplementedError)):
        sample_units(field[:, ::2], state, np.empty((10, 50), np.float32))
    with pytest.raises((NumbaError, NotImplementedError)):
        sample_units(field.T, state, np.empty((100, 10), np.float32))


def test_same_seed_same_samples():
    field = np.random.default_rng(7).normal(size=(9, 50))
    outs = [np.empty(field.shape, np.uint8) for _ in range(2)]
    for out in outs:
        sample_units(field, seed_stream(np.random.default_rng(8)), out)
    np.testing.assert_array_equal(*outs)
