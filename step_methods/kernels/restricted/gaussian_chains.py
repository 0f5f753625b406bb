"""Many chains at once of a restricted Boltzmann machine with Gaussian visible units.

With few visible units the chains are the lanes of the vectors: a sweep of 32 chains (16 in float64) goes through the
hidden units one after another, and what each adds to the mean of the visible units is added as soon as it is drawn, so
that nothing but the visible units is written to memory. With many of them the two matrix products are left to BLAS.
"""

import numpy as np
from numba import njit

from step_methods.kernels.restricted.layers import sample_units
from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.normal import fill_noise, normal_pair
from step_methods.kernels.vectors.random import VECTOR_BYTES, close_stream, open_stream
from step_methods.kernels.vectors.simd import choose, fill, load, load_first, mask_to_int, store, store_first
from step_methods.kernels.vectors.units import Forced, decide

# mypy: disable-error-code="no-untyped-def"

__all__ = ["sample_gaussian_units", "sweep_fused", "sweep_fused_forced", "sweep_gaussian_chains"]

# With more visible units the matrix products of BLAS are the faster way.
_FEW_VISIBLE_UNITS = 16


def sweep_gaussian_chains(
    W: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    sigma: np.ndarray,
    v: np.ndarray,
    h: np.ndarray,
    n_sweeps: int,
    state: np.ndarray,
) -> None:
    """Block Gibbs sweeps of many chains, in place: each draws the hidden units given the visible ones, then these.

    Parameters
    ----------
    W : ndarray, shape (n_visible, n_hidden)
        Couplings. This and all other arrays are C-contiguous and of one float type, float32 or float64.
    a, sigma : ndarray, shape (n_visible,)
        Biases and standard deviations of the visible units.
    b : ndarray, shape (n_hidden,)
        Biases of the hidden units.
    v : ndarray, shape (n_chains, n_visible)
        The visible units.
    h : ndarray, shape (n_chains, n_hidden)
        Becomes the hidden units of the last sweep; what it holds before does not matter.
    n_sweeps : int
        At least 1.
    state : ndarray
        From `step_methods.kernels.vectors.random.seed_stream`; advanced in place.
    """
    if len(a) <= _FEW_VISIBLE_UNITS:
        sweep_fused(np.ascontiguousarray(W.T), a, b, sigma, v, h, n_sweeps, state)
        return
    to_hidden = W / (sigma**2)[:, None]
    for _ in range(n_sweeps):
        np.dot(v, to_hidden, out=h)
        np.add(h, b, out=h)
        sample_units(h, state, h)
        np.dot(h, W.T, out=v)
        sample_gaussian_units(v, a, sigma, state, v)


@njit
def _sweep(source, W, a, b, sigma, v, h, n_sweeps, noise, position):
    """Sweep blocks of chains; `W` is (n_hidden, n_visible). Normal numbers are taken from `noise` at `position` on."""
    n_chains, n_visible = v.shape
    n_hidden = b.size
    lanes = VECTOR_BYTES // v.itemsize
    fields = np.empty((n_visible, lanes), v.dtype)  # the visible units over their variances
    means = np.zeros((n_visible, lanes), v.dtype)
    like = load(means, 0, VECTOR_BYTES)
    precision = 1 / (sigma * sigma)
    index = 0
    for chain in range(0, n_chains, lanes):
        count = min(lanes, n_chains - chain)
        for i in range(n_visible):
            for lane in range(count):
                means[i, lane] = v[chain + lane, i]
        for sweep in range(n_sweeps):
            for i in range(n_visible):
                store(fields, i * lanes, load(means, i * lanes, VECTOR_BYTES) * precision[i])
                store(means, i * lanes, fill(like, a[i]))
            for j in range(n_hidden):
                field = fill(like, b[j])
                for i in range(n_visible):
                    field = field + load(fields, i * lanes, VECTOR_BYTES) * W[j, i]
                ones, source = decide(field, source, index, count)
                index += count
                for i in range(n_visible):
                    mean = load(means, i * lanes, VECTOR_BYTES)
                    store(means, i * lanes, choose(ones, mean + W[j, i], mean))
                if sweep == n_sweeps - 1:
                    bits = mask_to_int(ones)
                    for lane in range(count):
                        h[chain + lane, j] = (bits >> np.uint64(lane)) & np.uint64(1)
            if position + n_visible * lanes > noise.size:
                source = fill_noise(source, noise)
                position = 0
            for i in range(n_visible):
                mean = load(means, i * lanes, VECTOR_BYTES)
                store(means, i * lanes, mean + load(noise, position + i * lanes, VECTOR_BYTES) * sigma[i])
            position += n_visible * lanes
        for i in range(n_visible):
            for lane in range(count):
                v[chain + lane, i] = means[i, lane]
    return source


@kernel
def sweep_fused(W, a, b, sigma, v, h, n_sweeps, state):
    """Sweep as `sweep_gaussian_chains` does for few visible units; `W` is (n_hidden, n_visible).

    Memory for a block of chains is allocated once a call.
    """
    lanes = VECTOR_BYTES // v.itemsize
    noise = np.empty((v.shape[1] + 1) // 2 * 2 * lanes, v.dtype)
    source = _sweep(open_stream(state), W, a, b, sigma, v, h, n_sweeps, noise, noise.size)
    close_stream(source)


@kernel
def sweep_fused_forced(W, a, b, sigma, v, h, n_sweeps, bits, probabilities, normals):
    """`sweep_fused` with forced decisions (see the conventions in `step_methods.kernels`) and given normal numbers.

    Decisions are made block of chains by block, sweep by sweep, unit by unit, chain by chain, and `normals` are
    taken likewise, but for all lanes of a block, also those that no chain is in.
    """
    _sweep(Forced(bits, probabilities), W, a, b, sigma, v, h, n_sweeps, normals, 0)
    return n_sweeps * b.size * v.shape[0]


@kernel
def sample_gaussian_units(mean, bias, sigma, state, out):
    """Sample visible units of many chains, in one pass over memory: mean + bias + sigma * normal.

    Parameters
    ----------
    mean : numpy.ndarray
        (n_chains, n_units), C-contiguous, float32 or float64.
    bias, sigma : numpy.ndarray
        (n_units,), of the same type.
    state : numpy.ndarray
        From `step_methods.kernels.vectors.random.seed_stream`; advanced in place.
    out : numpy.ndarray
        Of the shape and type of `mean`, C-contiguous; it may be `mean` itself.
    """
    n_chains, n_units = mean.shape
    means, samples = mean.reshape(-1), out.reshape(-1)
    lanes = VECTOR_BYTES // mean.itemsize
    stream = open_stream(state)
    for chain in range(n_chains):
        row = chain * n_units
        for first in range(0, n_units, 2 * lanes):
            left = n_units - first
            some, others, stream = normal_pair(stream, load_first(bias, 0, VECTOR_BYTES, 0, 0.0))
            _shift_and_scale(some, means, row, bias, sigma, first, left, samples)
            if left > lanes:
                _shift_and_scale(others, means, row, bias, sigma, first + lanes, left - lanes, samples)
    close_stream(stream)


@njit(forceinline=True)
def _shift_and_scale(noise, means, row, bias, sigma, first, count, samples):
    mean = load_first(means, row + first, VECTOR_BYTES, count, 0.0)
    mean = mean + load_first(bias, first, VECTOR_BYTES, count, 0.0)
    mean = mean + noise * load_first(sigma, first, VECTOR_BYTES, count, 0.0)
    store_first(samples, row + first, mean, count)
