"""One chain of an RBM."""

import numpy as np
import pytest
from scipy import special

from step_methods.kernels.restricted.rbm import (
    energy,
    free_energy,
    prepare,
    refill,
    sweep,
    sweep_chains,
    sweep_forced,
    update_hidden,
    update_visible,
)
from step_methods.kernels.vectors.random import seed_stream

FLOATS = [np.float32, np.float64]
SIZES = [(1, 1), (3, 2), (0, 3), (3, 0), (64, 100), (70, 130), (33, 257), (200, 40)]
TOLERANCE = {np.float32: 3e-5, np.float64: 1e-13}


def random_rbm(n_visible, n_hidden, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(n_visible, n_hidden)).astype(dtype)
    return W, rng.normal(size=n_visible).astype(dtype), rng.normal(size=n_hidden).astype(dtype)


def random_units(n_visible, n_hidden, seed=1, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, n_visible).astype(dtype), rng.integers(0, 2, n_hidden).astype(dtype)


def exact_joint(W, a, b):
    """All states (v, h) and their probabilities."""
    n = sum(W.shape)
    states = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    v, h = states[:, : len(a)], states[:, len(a) :]
    return states, special.softmax(v @ a + h @ b + np.einsum("ki,ij,kj->k", v, W, h))


@pytest.mark.parametrize("tables", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIZES)
def test_energies(size, dtype, tables):
    W, a, b = random_rbm(*size, dtype)
    v, h = random_units(*size)
    rbm = prepare(W, a, b, tables=tables)
    W, a, b = (x.astype(float) for x in (W, a, b))
    scale = 1 + np.abs(W).sum()
    tolerance = TOLERANCE[dtype] / 10 * scale
    assert energy(rbm, v, h) == pytest.approx(-a @ v - b @ h - v @ W @ h, abs=tolerance)
    exact = -a @ v - np.logaddexp(0, b + v @ W).sum()
    assert free_energy(rbm, v) == pytest.approx(exact, abs=tolerance)


@pytest.mark.parametrize("dtype", FLOATS)
def test_free_energy_does_not_overflow(dtype):
    W = np.full((4, 3), 1e4, dtype)
    rbm = prepare(W, np.zeros(4, dtype), np.zeros(3, dtype))
    assert free_energy(rbm, np.ones(4, np.uint8)) == pytest.approx(-12e4)
    refill(rbm, -W, np.zeros(4, dtype), np.zeros(3, dtype))
    assert free_energy(rbm, np.ones(4, np.uint8)) == pytest.approx(0, abs=1e-30)


@pytest.mark.parametrize("tables", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIZES)
def test_forced_sweeps_record_the_conditionals(size, dtype, tables):
    W, a, b = random_rbm(*size, dtype)
    v, h = random_units(*size)
    n_visible, n_hidden = size
    bits = np.random.default_rng(2).integers(0, 2, 2 * (n_visible + n_hidden)).astype(np.uint8)
    probabilities = np.full(bits.size + 5, 7.0)
    n_decisions = sweep_forced(prepare(W, a, b, tables=tables), v, h, 2, bits, probabilities)
    h1, v1, h2, v2 = np.split(bits, np.cumsum([n_hidden, n_visible, n_hidden]))
    v0, _ = random_units(*size)
    fields = [b + v0 @ W, a + W @ h1, b + v1 @ W, a + W @ h2]
    exact = special.expit(np.concatenate(fields).astype(float))
    assert n_decisions == bits.size
    np.testing.assert_allclose(probabilities[: bits.size], exact, rtol=TOLERANCE[dtype])
    np.testing.assert_array_equal(probabilities[bits.size :], 7)
    np.testing.assert_array_equal(h, h2)
    np.testing.assert_array_equal(v, v2)


@pytest.mark.parametrize("dtype", FLOATS)
def test_large_tables_are_left_out(dtype):
    W, a, b = random_rbm(2100, 1400, dtype)
    v, h = random_units(2100, 1400)
    bits = np.zeros(3500, np.uint8)
    with_tables, without = np.empty(3500), np.empty(3500)
    small, rbm = prepare(W, a, b, tables=False), prepare(W, a, b)
    sweep_forced(small, v.copy(), h.copy(), 1, bits, without)
    sweep_forced(rbm, v, h, 1, bits, with_tables)
    assert [layer[0].nbytes for layer in rbm[:2]] == [layer[0].nbytes for layer in small[:2]]
    np.testing.assert_allclose(with_tables, without, rtol=1e3 * np.finfo(dtype).eps)


@pytest.mark.parametrize("unit_dtype", [np.uint8, np.int8, np.int64, np.float64])
def test_units_of_every_type(unit_dtype):
    W, a, b = random_rbm(70, 130)
    rbm = prepare(W, a, b)
    expected = random_units(70, 130)
    units = random_units(70, 130, dtype=unit_dtype)
    changed = [sweep(rbm, *pair, 5, seed_stream(np.random.default_rng(3))) for pair in (expected, units)]
    assert changed[0] == changed[1]
    for one, other in zip(expected, units, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("tables", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
def test_long_run_against_exact_marginals(dtype, tables, state):
    """Means and pair correlations of 5 + 4 units; |z| < 4.5 for 45 of them, false-alarm rate 3e-4 (seed fixed)."""
    W, a, b = random_rbm(5, 4, dtype, seed=4)
    rbm = prepare(W, a, b, tables=tables)
    n_draws, n_batches = 100_000, 100
    v, h = random_units(5, 4)
    draws = np.empty((n_draws, 9))
    for draw in draws:
        sweep(rbm, v, h, 1, state)
        draw[:5], draw[5:] = v, h
    states, p = exact_joint(W, a, b)
    pairs = np.triu_indices(9)
    exact = np.einsum("k,ki,kj->ij", p, states, states)[pairs]
    products = draws[:, pairs[0]] * draws[:, pairs[1]]
    batches = products.reshape(n_batches, -1, exact.size).mean(axis=1)
    z = (batches.mean(axis=0) - exact) / (batches.std(axis=0, ddof=1) / np.sqrt(n_batches))
    assert np.abs(z).max() < 4.5


def test_sweeps_are_the_two_updates_in_turn(state):
    """Also: the number of changes, and that each update leaves the other layer alone."""
    rbm = prepare(*random_rbm(70, 130))
    v, h = random_units(70, 130)
    v1, h1 = v.copy(), h.copy()
    other = state.copy()
    changed = sweep(rbm, v, h, 3, state)
    expected = 0
    for _ in range(3):
        before = v1.copy(), h1.copy()
        counts = update_hidden(rbm, v1, h1, other)
        np.testing.assert_array_equal(v1, before[0])
        assert counts == np.count_nonzero(h1 != before[1])
        hidden = h1.copy()
        visible_count = update_visible(rbm, v1, h1, other)
        np.testing.assert_array_equal(h1, hidden)
        assert visible_count == np.count_nonzero(v1 != before[0])
        expected += counts + visible_count
    assert changed == expected
    np.testing.assert_array_equal(v, v1)
    np.testing.assert_array_equal(h, h1)
    np.testing.assert_array_equal(state, other)


def test_one_of_many_chains_is_a_chain(state):
    rbm = prepare(*random_rbm(70, 130))
    v, h = random_units(70, 130)
    many_v, many_h = v[None].copy(), h[None].copy()
    changed = sweep(rbm, v, h, 5, state.copy())
    assert sweep_chains(rbm, many_v, many_h, 5, state) == changed
    np.testing.assert_array_equal(many_v[0], v)
    np.testing.assert_array_equal(many_h[0], h)


@pytest.mark.parametrize("dtype", FLOATS)
def test_chains_do_not_mix(dtype, state):
    """With these weights a hidden unit copies its visible unit and keeps it, so every chain stays where it is."""
    rbm = prepare(200 * np.eye(130, dtype=dtype), np.full(130, -100, dtype), np.full(130, -100, dtype))
    v = np.random.default_rng(5).integers(0, 2, (7, 130)).astype(np.uint8)
    before, h = v.copy(), np.zeros_like(v)
    assert sweep_chains(rbm, v, h, 3, state) == before.sum()
    np.testing.assert_array_equal(v, before)
    np.testing.assert_array_equal(h, before)


@pytest.mark.parametrize("dtype", FLOATS)
def test_many_chains_against_exact_means(dtype, state):
    """Means of 9 units over 20,000 chains after 60 sweeps; |z| < 4.5, false-alarm rate 6e-5 (seed fixed)."""
    W, a, b = random_rbm(5, 4, dtype, seed=4)
    v, h = np.zeros((20_000, 5), np.uint8), np.zeros((20_000, 4), np.uint8)
    sweep_chains(prepare(W, a, b), v, h, 60, state)
    states, p = exact_joint(W, a, b)
    exact = p @ states
    z = (np.hstack([v, h]).mean(axis=0) - exact) / np.sqrt(exact * (1 - exact) / len(v))
    assert np.abs(z).max() < 4.5


def test_no_sweeps_change_nothing(state):
    rbm = prepare(*random_rbm(5, 4))
    v, h = random_units(5, 4)
    before = state.copy()
    assert sweep(rbm, v, h, 0, state) == 0
    np.testing.assert_array_equal(v, random_units(5, 4)[0])
    np.testing.assert_array_equal(h, random_units(5, 4)[1])
    np.testing.assert_array_equal(state, before)


@pytest.mark.parametrize("tables", [True, False])
@pytest.mark.parametrize("dtype", FLOATS)
def test_refill_is_like_preparing_anew(dtype, tables):
    old, new = random_rbm(33, 70, dtype, seed=5), random_rbm(33, 70, dtype, seed=6)
    rbm = prepare(*old, tables=tables)
    refill(rbm, *new)
    fresh = prepare(*new, tables=tables)
    for refilled, expected in zip(rbm[:2], fresh[:2], strict=True):
        np.testing.assert_array_equal(refilled[0], expected[0])
        np.testing.assert_array_equal(refilled[1], expected[1])


def test_parameters_may_be_strided_and_are_copied():
    W, a, b = random_rbm(20, 10)
    v, h = random_units(20, 10)
    expected = energy(prepare(W, a, b), v, h)
    wide = np.zeros((40, 30))
    wide[::2, ::3] = W
    for other in (np.asfortranarray(W), wide[::2, ::3]):
        rbm = prepare(other, a, b)
        other[...] = 0
        assert energy(rbm, v, h) == expected


def test_no_allocation_in_a_sweep(state, n_allocations):
    rbm = prepare(*random_rbm(64, 100))
    v, h = random_units(64, 100)
    sweep(rbm, v, h, 1, state)
    once, often = (n_allocations(lambda n=n: sweep(rbm, v, h, n, state)) for n in (1, 1000))
    assert once == often == 8  # a handle for each array among the arguments


def test_certain_units(state):
    """Infinite biases clamp a unit, and pass through the other layer's fields as finite numbers."""
    W, a, b = random_rbm(40, 30)
    a[:10], a[10:20], b[:3] = np.inf, -np.inf, np.inf
    v, h = random_units(40, 30)
    rbm = prepare(W, a, b)
    for _ in range(50):
        sweep(rbm, v, h, 1, state)
        np.testing.assert_array_equal(v[:20], np.repeat([1, 0], 10))
        np.testing.assert_array_equal(h[:3], 1)
