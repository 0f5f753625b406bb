"""One chain of a restricted Boltzmann machine with Gaussian visible units: block Gibbs sweeps, energies, draws.

Given the visible units the hidden ones have the fields b + (v / σ²) W, and given these the visible units are
a + W h + σ times normal numbers. The couplings are kept once, in columns of one vector of hidden units each: the
fields of such a vector stay in registers while the rows of its column are added, and a visible unit sums its row of
each column where the hidden units, which are bits packed into words, are 1.

The draws at the end take the same arguments, so that a step method chooses one of them when it is built.
"""

from typing import Any

import numpy as np
from numba import njit

from step_methods.kernels.restricted.draws import count_changes
from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.normal import fill_noise
from step_methods.kernels.vectors.random import VECTOR_BYTES, close_stream, open_stream
from step_methods.kernels.vectors.simd import (
    as_vector_of,
    choose,
    fill,
    load,
    load_mask,
    load_packed,
    store_first,
    store_packed,
    total,
)
from step_methods.kernels.vectors.units import Forced, decide, softplus_total

# mypy: disable-error-code="no-untyped-def"

__all__ = [
    "PreparedGaussianRBM",
    "draw_hidden",
    "draw_hidden_forced",
    "draw_joint",
    "draw_layers",
    "draw_marginal",
    "draw_visible",
    "prepare",
    "refill",
    "sweep_forced",
]

# A plain tuple, because numba takes longer to recognize named ones as arguments: the couplings (n_columns, n_visible,
# lanes), the biases of the hidden units with and without evidence (2, n_columns * lanes), a, σ and 1 / σ²
# (3, n_visible), scratch memory for normal numbers and for the bits of the hidden units.
type PreparedGaussianRBM = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def prepare(W: np.ndarray, a: np.ndarray, b: np.ndarray, sigma: np.ndarray, logits: Any = 0.0) -> PreparedGaussianRBM:
    """Arrange the parameters of a Gaussian RBM for the kernels.

    Parameters
    ----------
    W : ndarray, shape (n_visible, n_hidden)
        Couplings. This and the others are of one float type, float32 or float64.
    a, sigma : ndarray, shape (n_visible,)
        Biases and standard deviations of the visible units.
    b : ndarray, shape (n_hidden,)
        Biases of the hidden units.
    logits : ndarray, shape (n_hidden,), or 0
        What else is known of the hidden units; it counts for draws, not for energies.

    Returns
    -------
    tuple
        What the other functions here call `rbm`: opaque, and for one thread (it holds scratch memory). The parameters
        are copied; `refill` replaces them.
    """
    n_visible, n_hidden = W.shape
    lanes = VECTOR_BYTES // W.itemsize
    n_columns = max(1, -(-n_hidden // lanes))
    pair = 2 * lanes
    rbm = (
        np.zeros((n_columns, n_visible, lanes), W.dtype),
        np.full((2, n_columns * lanes), -np.inf, W.dtype),  # so that a unit that is not there stays 0
        np.empty((3, n_visible), W.dtype),
        np.empty(pair * -(-n_visible // pair), W.dtype),
        np.zeros(-(-n_hidden // 64) + 1, np.uint64),
    )
    refill(rbm, W, a, b, sigma, logits)
    return rbm


def refill(
    rbm: PreparedGaussianRBM, W: np.ndarray, a: np.ndarray, b: np.ndarray, sigma: np.ndarray, logits: Any = 0.0
) -> None:
    """Put other parameters, of the same shapes and type, into a machine made by `prepare`."""
    couplings, biases, visible, _, _ = rbm
    n_columns, n_visible, lanes = couplings.shape
    n_hidden = b.size
    rows = np.zeros((n_visible, n_columns * lanes), W.dtype)
    rows[:, :n_hidden] = W
    couplings[:] = rows.reshape(n_visible, n_columns, lanes).transpose(1, 0, 2)
    biases[0, :n_hidden] = b + logits
    biases[1, :n_hidden] = b
    visible[0], visible[1], visible[2] = a, sigma, 1 / sigma**2


# --- the two halves of a sweep --------------------------------------------------------------------------------------


@njit(forceinline=True)
def _field(rbm, biases, column, v):
    """Fields of one vector of hidden units."""
    couplings, _, visible, _, _ = rbm
    precision = visible[2]
    n_visible, lanes = couplings.shape[1:]
    start = column * n_visible * lanes
    even = load(biases, column * lanes, VECTOR_BYTES)
    odd = fill(even, 0.0)
    for i in range(0, n_visible - 1, 2):
        even = even + load(couplings, start + i * lanes, VECTOR_BYTES) * (v[i] * precision[i])
        odd = odd + load(couplings, start + (i + 1) * lanes, VECTOR_BYTES) * (v[i + 1] * precision[i + 1])
    if n_visible % 2:
        last = n_visible - 1
        even = even + load(couplings, start + last * lanes, VECTOR_BYTES) * (v[last] * precision[last])
    return even + odd


@njit(forceinline=True)
def _pull(rbm, i):
    """Add up the couplings of visible unit `i` to the hidden units that are 1: (W h)_i."""
    couplings, biases, _, _, bits = rbm
    n_columns, n_visible, lanes = couplings.shape
    result = fill(load(biases, 0, VECTOR_BYTES), 0.0)
    for column in range(n_columns):
        row = load(couplings, (column * n_visible + i) * lanes, VECTOR_BYTES)
        result = result + choose(load_packed(bits, column * lanes, result), row, 0.0)
    return total(result)


@njit
def _update_hidden(source, index, rbm, v, n_hidden):
    couplings, biases, _, _, bits = rbm
    lanes = couplings.shape[2]
    for column in range(couplings.shape[0]):
        first = column * lanes
        ones, source = decide(_field(rbm, biases[0], column, v), source, index + first, n_hidden - first)
        store_packed(bits, first, ones)
    return source


@njit
def _update_visible(source, rbm, v, noise, position):
    _, _, visible, _, _ = rbm
    if position + v.size > noise.size:
        source = fill_noise(source, noise)
        position = 0
    for i in range(v.size):
        v[i] = visible[0, i] + _pull(rbm, i) + visible[1, i] * noise[position + i]
    return source, position + v.size


@njit
def _sweep(source, rbm, v, h, n_sweeps, noise, position):
    for sweep in range(n_sweeps):
        source = _update_hidden(source, sweep * h.size, rbm, v, h.size)
        source, position = _update_visible(source, rbm, v, noise, position)
    _unpack(rbm, h)
    return source


@njit
def _pack(rbm, h):
    couplings, biases, _, _, bits = rbm
    lanes = couplings.shape[2]
    like = load(biases, 0, VECTOR_BYTES)
    for first in range(0, h.size, lanes):
        store_packed(bits, first, load_mask(h, first, like, h.size - first))


@njit
def _unpack(rbm, h):
    couplings, biases, _, _, bits = rbm
    lanes = couplings.shape[2]
    like = load(biases, 0, VECTOR_BYTES)
    for first in range(0, h.size, lanes):
        store_first(h, first, as_vector_of(load_packed(bits, first, like), h), h.size - first)


# --- energies -------------------------------------------------------------------------------------------------------


@njit
def _energy(rbm, v):
    """Energy E(v, h) of hidden units that are packed, without evidence."""
    couplings, biases, visible, _, bits = rbm
    lanes = couplings.shape[2]
    result = 0.0
    for column in range(couplings.shape[0]):
        bias = load(biases[1], column * lanes, VECTOR_BYTES)
        result -= total(choose(load_packed(bits, column * lanes, bias), bias, 0.0))
    for i in range(v.size):
        deviation = np.float64(v[i]) - visible[0, i]
        result += (deviation * deviation / 2 - v[i] * _pull(rbm, i)) * visible[2, i]
    return result


@njit
def _free_energy(rbm, v):
    """Free energy F(v)."""
    couplings, biases, visible, _, _ = rbm
    result = 0.0
    for i in range(v.size):
        deviation = np.float64(v[i]) - visible[0, i]
        result += deviation * deviation / 2 * visible[2, i]
    for column in range(couplings.shape[0]):
        result -= softplus_total(_field(rbm, biases[1], column, v))
    return result


# --- draws ----------------------------------------------------------------------------------------------------------


@kernel
def draw_joint(rbm, v_old, v, h_old, h, n_sweeps, stream):
    """Draw both layers: each sweep draws the hidden units given the visible ones, then these given those.

    Parameters
    ----------
    rbm : tuple
        From `prepare`.
    v_old : ndarray of float, shape (n_visible,)
        The current visible units.
    v : ndarray of float, same shape
        Becomes the draw.
    h_old, h : ndarray of int, shape (n_hidden,)
        Likewise for the hidden units.
    n_sweeps : int
        Sweeps from the current state to the draw.
    stream : ndarray
        From `step_methods.kernels.vectors.random.seed_stream`; advanced in place.

    Returns
    -------
    energy : float
        E(v, h) of the draw.
    n_changed : int
        Number of hidden units in which the draw differs from the current state.
    """
    v[:] = v_old
    noise = rbm[3]
    close_stream(_sweep(open_stream(stream), rbm, v, h, n_sweeps, noise, noise.size))
    return _energy(rbm, v), count_changes(h_old, h)


@kernel
def draw_marginal(rbm, v_old, v, h_old, h, n_sweeps, stream):
    """Draw the visible layer, the hidden one summed out: `h` is scratch, and the energy is the free energy F(v)."""
    v[:] = v_old
    noise = rbm[3]
    close_stream(_sweep(open_stream(stream), rbm, v, h, n_sweeps, noise, noise.size))
    return _free_energy(rbm, v), 0


@kernel
def draw_visible(rbm, v_old, v, h_old, h, n_sweeps, stream):
    """Draw the visible layer given the hidden one: exact at once, so that one sweep does as much as several."""
    v[:] = v_old
    _pack(rbm, h_old)
    if n_sweeps > 0:
        noise = rbm[3]
        source, _ = _update_visible(open_stream(stream), rbm, v, noise, noise.size)
        close_stream(source)
    return _energy(rbm, v), 0


@kernel
def draw_hidden(rbm, v_old, v, h_old, h, n_sweeps, stream):
    """Draw the hidden layer given the visible one: exact at once, so that one sweep does as much as several."""
    _pack(rbm, h_old)
    if n_sweeps > 0:
        close_stream(_update_hidden(open_stream(stream), 0, rbm, v_old, h.size))
    _unpack(rbm, h)
    return _energy(rbm, v_old), count_changes(h_old, h)


@kernel
def draw_layers(rbm, v_old, v, h_old, h, picks, stream):
    """Draw whole layers in a given order: where `picks` holds a 0 the hidden one, where it holds a 1 the visible one.

    The other arguments and what is returned are those of `draw_joint`.
    """
    v[:] = v_old
    _pack(rbm, h_old)
    noise = rbm[3]
    position = noise.size
    source = open_stream(stream)
    for pick in picks:
        if pick == 0:
            source = _update_hidden(source, 0, rbm, v, h.size)
        else:
            source, position = _update_visible(source, rbm, v, noise, position)
    close_stream(source)
    _unpack(rbm, h)
    return _energy(rbm, v), count_changes(h_old, h)


# --- the certificate ------------------------------------------------------------------------------------------------


@kernel
def sweep_forced(rbm, v, h, n_sweeps, bits, probabilities, normals):
    """Sweep, in place, with forced decisions (see the conventions in `step_methods.kernels`).

    The normal numbers are given, too: `normals`, shape (n_sweeps * n_visible,), in the order in which they are used.
    """
    _sweep(Forced(bits, probabilities), rbm, v, h, n_sweeps, normals, 0)
    return n_sweeps * h.size


@kernel
def draw_hidden_forced(rbm, v, h, bits, probabilities):
    """Draw the hidden layer given the visible one, with forced decisions."""
    _update_hidden(Forced(bits, probabilities), 0, rbm, v, h.size)
    _unpack(rbm, h)
    return h.size


@kernel
def draw_visible_forced(rbm, v, h, normals):
    """Draw the visible layer given the hidden one, in place, with normal numbers that are given, shape (n_visible,)."""
    _pack(rbm, h)
    _update_visible(Forced(np.empty(0, np.uint8), np.empty(0)), rbm, v, normals, 0)
    return v.size
