"""Kernels of RBMs with Gaussian visible units: the arithmetic, and that it leaves the exact law invariant."""

from itertools import product

import numpy as np
import pytest
from scipy.special import expit, logsumexp
from scipy.stats import norm

from step_methods.kernels.restricted import gaussian_rbm
from step_methods.kernels.restricted.enumeration import gaussian_log_partition, quadratic_log_partition
from step_methods.kernels.restricted.gaussian_chains import (
    _FEW_VISIBLE_UNITS,
    sample_gaussian_units,
    sweep_fused_forced,
    sweep_gaussian_chains,
)
from step_methods.kernels.vectors.normal import fill_normal
from step_methods.kernels.vectors.random import VECTOR_BYTES

FLOATS = [np.float32, np.float64]
SIZES = [(1, 1), (2, 3), (3, 16), (2, 100), (7, 33), (40, 5)]
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def machine(rng, n_visible, n_hidden, dtype=np.float64):
    W = rng.normal(0, 1 / np.sqrt(n_visible), (n_visible, n_hidden))
    a, b, sigma = rng.normal(size=n_visible), rng.normal(size=n_hidden), rng.uniform(0.5, 2, n_visible)
    return tuple(x.astype(dtype) for x in (W, a, b, sigma))


def states(n):
    return np.array(list(product([0, 1], repeat=n)))


def hidden_probabilities(parameters, v):
    W, _, b, sigma = parameters
    return expit(b + (v / sigma**2) @ W)


def log_weights_of_hidden(parameters):
    """Log of ∫ exp(−E(v, h)) dv for all h, from the completed square."""
    W, a, b, sigma = parameters
    means = a + states(len(b)) @ W.T
    gains = ((means**2 - a**2) / (2 * sigma**2)).sum(axis=1)
    return states(len(b)) @ b + gains + np.log(np.sqrt(2 * np.pi) * sigma).sum()


def forced_probabilities(parameters, v):
    """P(h_j = 1 | v), as the kernel computes them."""
    _, _, b, _ = parameters
    rbm = gaussian_rbm.prepare(*parameters)
    h, probabilities = np.zeros(len(b), np.int64), np.empty(len(b))
    assert gaussian_rbm.draw_hidden_forced(rbm, v, h, np.zeros(len(b), np.uint8), probabilities) == len(b)
    return probabilities


# ---------------------------------------------------------------------------------- one chain


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", SIZES)
def test_a_forced_sweep_is_the_textbooks(rng, size, dtype):
    """Probabilities are sigmoid(b + (v/σ²)W), and given h the map from noise to v is a + Wh + σ·noise."""
    parameters = machine(rng, *size, dtype)
    n_visible, n_hidden = size
    v, h = rng.normal(size=n_visible).astype(dtype), np.empty(n_hidden, np.int64)
    x = v.astype(float)
    bits = rng.integers(0, 2, (3, n_hidden)).astype(np.uint8)
    noise = rng.normal(size=(3, n_visible)).astype(dtype)
    probabilities = np.empty((3, n_hidden))
    rbm = gaussian_rbm.prepare(*parameters)
    n_decisions = gaussian_rbm.sweep_forced(rbm, v, h, 3, bits.ravel(), probabilities.ravel(), noise.ravel())
    assert n_decisions == 3 * n_hidden
    exact = [p.astype(float) for p in parameters]
    for k in range(3):
        np.testing.assert_allclose(probabilities[k], hidden_probabilities(exact, x), atol=TOLERANCE[dtype])
        x = exact[1] + exact[0] @ bits[k] + exact[3] * noise[k]
    np.testing.assert_allclose(v, x, atol=TOLERANCE[dtype])
    np.testing.assert_array_equal(h, bits[2])


def test_given_the_hidden_units_the_map_is_exact(rng):
    """To the last bit, with couplings that floats hold exactly."""
    W = rng.integers(-8, 9, (3, 70)) / 4
    a, b, sigma = np.array([0.5, -1.25, 3.0]), np.zeros(70), np.array([0.5, 1.0, 2.0])
    noise = rng.integers(-16, 17, 3) / 8
    v, bits = np.zeros(3), rng.integers(0, 2, 70).astype(np.uint8)
    gaussian_rbm.sweep_forced(
        gaussian_rbm.prepare(W, a, b, sigma), v, np.empty(70, np.int64), 1, bits, np.empty(70), noise
    )
    np.testing.assert_array_equal(v, a + W @ bits + sigma * noise)


@pytest.mark.parametrize("size", SIZES)
def test_energies(rng, state, size):
    W, a, b, sigma = parameters = machine(rng, *size)
    logits = rng.normal(size=size[1])
    rbm = gaussian_rbm.prepare(*parameters, logits)  # evidence must not show in the energies
    v_old, v = rng.normal(size=(2, size[0]))
    h_old, h = rng.integers(0, 2, (2, size[1]))

    def energy(v, h):
        return ((v - a) ** 2 / (2 * sigma**2)).sum() - b @ h - (v / sigma**2) @ W @ h

    for draw, given_v, given_h in (
        (gaussian_rbm.draw_joint, v, h),
        (gaussian_rbm.draw_visible, v, h_old),
        (gaussian_rbm.draw_hidden, v_old, h),
    ):
        got, n_changed = draw(rbm, v_old, v, h_old, h, 2, state)
        np.testing.assert_allclose(got, energy(given_v, given_h), atol=1e-11)
        assert n_changed == (0 if draw is gaussian_rbm.draw_visible else np.count_nonzero(h != h_old))
    got, _ = gaussian_rbm.draw_marginal(rbm, v_old, v, h_old, h, 2, state)
    free = ((v - a) ** 2 / (2 * sigma**2)).sum() - np.logaddexp(0, b + (v / sigma**2) @ W).sum()
    np.testing.assert_allclose(got, free, atol=1e-11)


@pytest.mark.parametrize("size", [(1, 1), (3, 70)])
def test_layers_in_any_order(rng, state, size):
    """Two sweeps are the picks 0, 1, 0, 1, and single picks the draws of single layers, to the last bit."""
    rbm = gaussian_rbm.prepare(*machine(rng, *size))
    v_old, h_old = rng.normal(size=size[0]), rng.integers(0, 2, size[1])

    def run(*draws):
        stream, v, h = state.copy(), v_old, h_old
        for draw, how_often in draws:
            before = v, h
            v, h = np.empty_like(v), np.empty_like(h)
            energy, n_changed = draw(rbm, before[0], v, before[1], h, how_often, stream)
            v = before[0] if draw is gaussian_rbm.draw_hidden else v
            h = before[1] if draw is gaussian_rbm.draw_visible else h
            assert n_changed == np.count_nonzero(h != before[1])
        return energy, v.tolist(), h.tolist(), stream.ravel()[: 4 * VECTOR_BYTES // 8].tolist()

    def layers(*picks):
        return run((gaussian_rbm.draw_layers, np.array(picks, np.int64)))

    joint, visible, hidden = gaussian_rbm.draw_joint, gaussian_rbm.draw_visible, gaussian_rbm.draw_hidden
    assert layers(0, 1, 0, 1) == run((joint, 2))
    assert layers(0) == run((hidden, 1))
    assert layers(1) == run((visible, 1)) == run((visible, 3))
    assert layers(1, 0) == run((visible, 1), (hidden, 1))
    assert layers() == run((visible, 0)) == run((hidden, 0)) == run((joint, 0))
    assert layers()[1:3] == (v_old.tolist(), h_old.tolist())


def test_no_units_of_a_layer(rng, state):
    empty, one = np.empty(0), np.ones(3)
    rbm = gaussian_rbm.prepare(np.empty((0, 3)), empty, one, empty)
    h = np.empty(3, np.int64)
    energy, _ = gaussian_rbm.draw_hidden(rbm, empty, empty, h, h, 1, state)
    assert energy == -h.sum()
    rbm = gaussian_rbm.prepare(np.empty((3, 0)), one, empty, one)
    v, no_units = np.empty(3), np.empty(0, np.int64)
    energy, _ = gaussian_rbm.draw_joint(rbm, one, v, no_units, no_units, 1, state)
    np.testing.assert_allclose(energy, ((v - 1) ** 2).sum() / 2)


def test_other_parameters_in_the_same_memory(rng):
    first, second = machine(rng, 3, 20), machine(rng, 3, 20)
    rbm = gaussian_rbm.prepare(*first)
    gaussian_rbm.refill(rbm, *second)
    for got, expected in zip(rbm[:3], gaussian_rbm.prepare(*second)[:3], strict=True):
        np.testing.assert_array_equal(got, expected)


# ---------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("n_hidden", [1, 3, 6])
def test_the_sweep_leaves_the_visible_density_invariant(rng, n_hidden):
    """∫ p(v) T(v'|v) dv = p(v') to 1e-10, with p(h|v) from the kernel and v' given h Gaussian.

    p is a mixture of Gaussians, so the trapezoidal rule over 12 standard deviations beyond their means is exact.
    """
    W, a, b, sigma = parameters = machine(rng, 1, n_hidden)
    h = states(n_hidden)
    means = a + h @ W.T
    grid = np.linspace(means.min() - 12 * sigma[0], means.max() + 12 * sigma[0], 1201)
    log_p = np.logaddexp(0, b + np.outer(grid / sigma**2, W)).sum(axis=1) - (grid - a) ** 2 / (2 * sigma**2)
    p = np.exp(log_p - gaussian_log_partition(*parameters))
    on = np.array([forced_probabilities(parameters, grid[i : i + 1]) for i in range(len(grid))])
    p_hidden = np.prod(np.where(h[None], on[:, None], 1 - on[:, None]), axis=2)
    step = grid[1] - grid[0]
    assert abs(p.sum() * step - 1) < 1e-12
    after = (p @ p_hidden * step) @ norm.pdf(grid, means, sigma)
    np.testing.assert_allclose(after, p, atol=1e-10)


def test_the_hidden_layers_chain_leaves_its_law_invariant(rng):
    """The certificate of h → v → h, v integrated out by Gauss-Hermite quadrature: pT = p to 1e-10.

    The normal numbers that the kernel is given are the nodes; all decisions are forced.
    """
    parameters = machine(rng, 2, 4)
    h = states(4)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    pairs = np.array(list(product(nodes, nodes)))
    pair_weights = np.outer(weights, weights).ravel() / (2 * np.pi)
    rbm = gaussian_rbm.prepare(*parameters)
    T = np.zeros((16, 16))
    scratch, probabilities = np.empty(4, np.int64), np.empty(8)
    for i, bits in enumerate(h.astype(np.uint8)):
        both = np.tile(bits, 2)
        for pair, weight in zip(pairs, pair_weights, strict=True):
            v = np.zeros(2)
            gaussian_rbm.sweep_forced(rbm, v, scratch, 2, both, probabilities, np.concatenate([pair, pair]))
            T[i] += weight * np.prod(np.where(h, probabilities[4:], 1 - probabilities[4:]), axis=1)
    log_p = log_weights_of_hidden(parameters)
    p = np.exp(log_p - logsumexp(log_p))
    np.testing.assert_allclose(T.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(p @ T, p, atol=1e-10)
    flow = p[:, None] * T
    np.testing.assert_allclose(flow, flow.T, atol=1e-10)  # of a reversible chain


def exact_moments(parameters):
    W, a, b, sigma = parameters
    log_p = log_weights_of_hidden(parameters)
    p = np.exp(log_p - logsumexp(log_p))
    h = states(len(b))
    means = a + h @ W.T
    covariance = (p * (means - p @ means).T) @ (means - p @ means) + np.diag(sigma**2)
    return p @ means, covariance, p @ h


@pytest.mark.parametrize("dtype", FLOATS)
def test_long_run_of_one_chain(rng, state, dtype):
    """Means and covariances of batches of sweeps within 4.5 standard errors; false-alarm rate 1e-4 (seed fixed)."""
    parameters = machine(rng, 2, 5)
    rbm = gaussian_rbm.prepare(*(x.astype(dtype) for x in parameters))
    v, h = np.zeros(2, dtype), np.zeros(5, np.int64)
    draws = np.empty((4000, 7))
    for draw in draws:
        gaussian_rbm.draw_joint(rbm, v, v, h, h, 10, state)
        draw[:2], draw[2:] = v, h
    assert_moments(draws, exact_moments(parameters))


def assert_moments(draws, exact):
    """Compare nearly independent draws of (v, h) with exact moments."""
    mean, covariance, hidden = exact
    products = (draws[:, :2] - mean)[:, :, None] * (draws[:, :2] - mean)[:, None, :]
    for x, expected in (
        (draws[:, :2], mean),
        (products.reshape(-1, 4)[:, [0, 1, 3]], covariance.ravel()[[0, 1, 3]]),
        (draws[:, 2:], hidden),
    ):
        error = x.std(axis=0) / np.sqrt(len(x))
        assert (np.abs(x.mean(axis=0) - expected) < 4.5 * error).all()


# ---------------------------------------------------------------------------------- many chains


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [(1, 1), (2, 100), (3, 17)])
@pytest.mark.parametrize("n_chains", [1, 16, 37])
def test_forced_sweeps_of_many_chains(rng, size, n_chains, dtype):
    """Block of chains by block, the same sweeps as the textbook's."""
    W, a, b, sigma = parameters = machine(rng, *size, dtype)
    n_visible, n_hidden = size
    n_sweeps, lanes = 2, VECTOR_BYTES // np.dtype(dtype).itemsize
    n_blocks = -(-n_chains // lanes)
    v = rng.normal(size=(n_chains, n_visible)).astype(dtype)
    x, h = v.astype(float), np.empty((n_chains, n_hidden), dtype)
    bits = rng.integers(0, 2, n_sweeps * n_hidden * n_chains).astype(np.uint8)
    noise = rng.normal(size=(n_blocks, n_sweeps, n_visible, lanes)).astype(dtype)
    probabilities = np.empty(bits.size)
    sweep_fused_forced(W.T.copy(), a, b, sigma, v, h, n_sweeps, bits, probabilities, noise.ravel())
    exact = [p.astype(float) for p in parameters]
    place = 0
    for block in range(n_blocks):
        chains = slice(block * lanes, min((block + 1) * lanes, n_chains))
        count = chains.stop - chains.start
        for sweep in range(n_sweeps):
            here = slice(place, place + n_hidden * count)
            place = here.stop
            ones = bits[here].reshape(n_hidden, count).T
            expected = hidden_probabilities(exact, x[chains])
            np.testing.assert_allclose(probabilities[here].reshape(n_hidden, count).T, expected, atol=TOLERANCE[dtype])
            x[chains] = exact[1] + ones @ exact[0].T + exact[3] * noise[block, sweep, :, :count].T
        np.testing.assert_array_equal(h[chains], ones)
    np.testing.assert_allclose(v, x, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("padding", [0, _FEW_VISIBLE_UNITS], ids=["fused", "matrix_product"])
def test_long_run_of_many_chains(rng, state, dtype, padding):
    """4001 chains after 60 sweeps: moments within 4.5 standard errors; false-alarm rate 1e-4 (seed fixed).

    Visible units without couplings make the machine so large that matrix products are taken.
    """
    W, a, b, sigma = parameters = machine(rng, 2, 5)
    wide = (
        np.pad(W, ((0, padding), (0, 0))),
        np.pad(a, (0, padding)),
        b,
        np.pad(sigma, (0, padding), constant_values=1),
    )
    v = rng.normal(size=(4001, 2 + padding)).astype(dtype)
    h = np.full((4001, 5), 7, dtype)
    sweep_gaussian_chains(*(x.astype(dtype) for x in wide), v, h, 60, state)
    assert set(np.unique(h)) == {0, 1}
    assert_moments(np.column_stack([v[:, :2], h]).astype(float), exact_moments(parameters))
    error = np.sqrt(2 / v.shape[0])
    assert (np.abs(v[:, 2:].var(axis=0) - 1) < 4.5 * error).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n_units", [1, 17, 64, 100])
def test_sampling_visible_units(rng, state, dtype, n_units):
    mean, bias = rng.normal(size=(5, n_units)).astype(dtype), rng.normal(size=n_units).astype(dtype)
    sigma = rng.uniform(0.5, 2, n_units).astype(dtype)
    pair = 2 * VECTOR_BYTES // np.dtype(dtype).itemsize
    noise = np.empty((5, -(-n_units // pair) * pair), dtype)
    fill_normal(state.copy(), noise.reshape(-1))
    expected = mean + bias + sigma * noise[:, :n_units]
    sample_gaussian_units(mean, bias, sigma, state, mean)
    np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------------------- log Z


@pytest.mark.parametrize("n", [1, 3, 8, 11])
def test_sums_over_quadratic_weights(rng, n):
    G, c = rng.normal(size=(n, n)), rng.normal(size=n)
    G = G + G.T
    h = states(n)
    log_weights = h @ c + np.einsum("si,ij,sj->s", h, G, h) / 2
    p = np.exp(log_weights - logsumexp(log_weights))
    log_z, pairs, means = quadratic_log_partition(G, c)
    np.testing.assert_allclose(log_z, logsumexp(log_weights), rtol=1e-13)
    np.testing.assert_allclose(pairs, (p * h.T) @ h, atol=1e-13)
    np.testing.assert_allclose(means, p @ h, atol=1e-13)


def test_large_weights_do_not_overflow():
    log_z, _, means = quadratic_log_partition(np.full((12, 12), 1e3), np.full(12, -5e3))
    np.testing.assert_allclose(log_z, 12 * -5e3 + 144 * 500)
    np.testing.assert_allclose(means, 1)
    np.testing.assert_allclose(quadratic_log_partition(np.full((12, 12), -1e3), np.full(12, -5e3))[0], 0)


def test_log_partition_against_quadrature_in_two_dimensions(rng):
    """The trapezoidal rule for exp(−F(v)), exact for Gaussians of width σ on a fine grid: 1e-10."""
    W, a, b, sigma = parameters = machine(rng, 2, 9)
    low = a + np.minimum(W, 0).sum(axis=1) - 10 * sigma
    high = a + np.maximum(W, 0).sum(axis=1) + 10 * sigma
    axes = [np.linspace(x, y, 500) for x, y in zip(low, high, strict=True)]
    v = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    log_p = np.logaddexp(0, b + (v / sigma**2) @ W).sum(axis=-1) - ((v - a) ** 2 / (2 * sigma**2)).sum(axis=-1)
    cell = np.prod([x[1] - x[0] for x in axes])
    np.testing.assert_allclose(gaussian_log_partition(*parameters), logsumexp(log_p) + np.log(cell), atol=1e-10)
    np.testing.assert_allclose(
        gaussian_log_partition(*parameters), logsumexp(log_weights_of_hidden(parameters)), atol=1e-10
    )
