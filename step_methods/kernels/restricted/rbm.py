"""One chain of a restricted Boltzmann machine: block Gibbs sweeps, energies.

A field is a bias plus the sum of the rows of a matrix that belong to the units that are 1. Rows are
summed in vectors of accumulators that never leave the registers, and from tables: the sums of every
subset of two or four neighboring rows are stored once, so that one addition does the work of up to
four and nothing depends on a branch. Between the layers, units are bits packed into words.

What is done with a vector of fields is chosen by the type of an argument of the one function that computes them
(`_update`): draw, take a forced decision, add up an energy. So the certificate of exactness runs the arithmetic of the
sampler itself.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.extending import overload, register_jitable

from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.random import LANES, VECTOR_BYTES, close_stream, open_stream
from step_methods.kernels.vectors.simd import (
    as_vector_of,
    choose,
    count_ones,
    fill,
    int_to_mask,
    join,
    lane_numbers,
    load,
    load_first,
    load_mask,
    load_packed,
    mask_to_int,
    n_lanes,
    pointer_to,
    prefetch,
    store,
    store_first,
    store_packed,
    total,
)
from step_methods.kernels.vectors.units import Forced, decide, softplus_total

_WORD = 64
_WORD_LANES = 8 * _WORD  # bytes of a vector with as many words as a word has bits
_CHUNK_BYTES = 2 * VECTOR_BYTES
_LARGEST_TABLES = 32 * 2**20
_FAR = 2**18  # a matrix of more bytes is not expected in the nearest caches
_AHEAD = 8  # rows between the one that is asked for and the one that is added


# Plain tuples, because numba takes 2 microseconds more to recognize named ones as arguments.
type PreparedLayer = tuple[np.ndarray, np.ndarray, int]
type PreparedRBM = tuple[PreparedLayer, PreparedLayer, np.ndarray]


class _Layer(NamedTuple):
    """Addresses of what one layer needs to compute its fields, given the bits of the other layer.

    The columns of the weights are cut into chunks of 256 bytes. In `sums`, a chunk holds one after
    the other a row of zeros and the 2**group - 1 sums of every group of rows. `bias` is padded to
    whole chunks with -inf, so that a unit that is not there stays 0. `far` says that the sums are
    too large for the nearest caches.
    """

    sums: Any
    bias: Any
    group: Any
    far: Any


def prepare(W: np.ndarray, a: np.ndarray, b: np.ndarray, *, tables: bool = True) -> PreparedRBM:
    """Arrange the parameters of an RBM for the kernels.

    Parameters
    ----------
    W, a, b : numpy.ndarray
        Weights (n_visible, n_hidden) and biases (n_visible,), (n_hidden,), of one float type,
        float32 or float64.
    tables : bool
        Whether to store the sums of neighboring rows, as many as 32 MiB hold (four: 7.5 times the
        memory of W). They make sweeps two to three times as fast, which pays if the parameters stay
        for some fifty sweeps.

    Returns
    -------
    tuple
        What the other functions here call `rbm`: opaque, and for one thread (it holds scratch
        memory). The parameters are copied; `refill` replaces them.
    """
    group = next(
        group
        for group in ((4, 2, 1) if tables else (1,))
        if group == 1 or 2 * W.nbytes * _n_sums(group) // group <= _LARGEST_TABLES
    )
    work = np.zeros(_work_size(*W.shape), np.uint64)
    rbm = (_empty_layer(W.T, group), _empty_layer(W, group), work)
    refill(rbm, W, a, b)
    return rbm


def _empty_layer(W: np.ndarray, group: int) -> PreparedLayer:
    n_units, n_inputs = W.shape
    chunk = _CHUNK_BYTES // W.itemsize
    size = chunk * -(-n_units // chunk)
    sums = np.empty(size * _n_rows(n_inputs, group), W.dtype)
    return sums, np.full(size, -np.inf, W.dtype), group


@register_jitable
def _n_sums(group):
    return (1 << group) - 1


@register_jitable
def _n_rows(n_inputs, group):
    """Number of rows of a chunk of sums."""
    return 1 + (n_inputs + group - 1) // group * _n_sums(group)


@njit(forceinline=True)
def _layer(prepared):
    sums, bias, group = prepared
    return _Layer(pointer_to(sums, 0, sums), pointer_to(bias, 0, bias), group, sums.nbytes > _FAR)


def refill(rbm: PreparedRBM, W: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Put other parameters, of the same shapes and type, into an RBM made by `prepare`."""
    (to_hidden, hidden_bias, group), (to_visible, visible_bias, _), _ = rbm
    hidden_bias[: b.size] = b
    visible_bias[: a.size] = a
    _fill_sums(to_hidden, np.ascontiguousarray(W), group)
    _fill_sums(to_visible, np.ascontiguousarray(W.T), group)


@kernel
def _fill_sums(sums, W, group):
    n_rows, n_columns = W.shape
    lanes = VECTOR_BYTES // W.itemsize
    chunk = 2 * lanes
    start = 0
    for column in range(0, n_columns, chunk):
        sums[start : start + chunk] = 0.0
        for first in range(0, n_rows, group):
            for subset in range(1, 1 << group):
                others = subset & (subset - 1)
                member = first + _lowest_bit(subset)
                for j in range(0, chunk, lanes):
                    left = n_columns - column - j if member < n_rows else 0
                    row = load_first(W, member * n_columns + column + j, VECTOR_BYTES, left, 0.0)
                    if others:
                        row = load(sums, start + others * chunk + j, VECTOR_BYTES) + row
                    store(sums, start + subset * chunk + j, row)
            start += chunk * _n_sums(group)
        start += chunk


@njit
def _lowest_bit(number):
    position = 0
    while not number >> position & 1:
        position += 1
    return position


# --- units as bits --------------------------------------------------------------------------------------------------


class _Bits(NamedTuple):
    """Packed units of several chains: address, number of units, and number of words from one chain to the next."""

    words: Any
    size: Any
    stride: Any


@register_jitable
def _n_words(n_units):
    return (n_units + _WORD - 1) // _WORD


@register_jitable
def _work_size(n_visible, n_hidden):
    """Words of scratch memory for one chain: its bits, and a row for each of the bits of a layer."""
    visible_words, hidden_words = _n_words(n_visible), _n_words(n_hidden)
    return visible_words + hidden_words + _WORD * max(visible_words, hidden_words) + 2 * _AHEAD


@njit(forceinline=True)
def _memory(work, n_visible, n_hidden):
    """Scratch memory: the bits of both layers, in either order, and a list of rows."""
    visible_words, hidden_words = _n_words(n_visible), _n_words(n_hidden)
    stride = _work_size(n_visible, n_hidden)
    visible = _Bits(pointer_to(work, 0, work), n_visible, stride)
    hidden = _Bits(pointer_to(work, visible_words, work), n_hidden, stride)
    return visible, hidden, pointer_to(work, visible_words + hidden_words, work)


@njit(forceinline=True)
def _of_chain(words, bits, chain):
    return pointer_to(words, chain * bits.stride, words)


@njit
def _pack(units, bits):
    word_lanes = lane_numbers(_WORD_LANES)
    for chain in range(units.shape[0]):
        words = _of_chain(bits.words, bits, chain)
        values = pointer_to(units, chain * bits.size, units)
        for word in range(_n_words(bits.size)):
            start = word * _WORD
            words[word] = mask_to_int(load_mask(values, start, word_lanes, bits.size - start))


@njit
def _unpack(bits, units):
    word_lanes = lane_numbers(_WORD_LANES)
    for chain in range(units.shape[0]):
        words = _of_chain(bits.words, bits, chain)
        values = pointer_to(units, chain * bits.size, units)
        for word in range(_n_words(bits.size)):
            start = word * _WORD
            ones = as_vector_of(int_to_mask(words[word], word_lanes), units)
            store_first(values, start, ones, bits.size - start)


# --- fields ---------------------------------------------------------------------------------------------------------


@njit(forceinline=True)
def _list_rows(words, n_bits, group, row_size, rows):
    """Where in a chunk of sums the row is that each group of bits calls for."""
    lanes = lane_numbers(VECTOR_BYTES)
    n_sums = _n_sums(group)
    shifts = lanes * group
    base = lanes * n_sums
    written = 0
    for word in range(_n_words(n_bits)):
        for first_bit in range(0, _WORD, LANES * group):
            subset = (fill(lanes, words[word] >> np.uint64(first_bit)) >> shifts) & n_sums
            store(rows, written, choose(subset != 0, base + subset, 0) * row_size)
            base = base + LANES * n_sums
            written += LANES


@njit(forceinline=True)
def _add_rows(field, sums, first, second, third, fourth):
    return field + (
        (load(sums, first, VECTOR_BYTES) + load(sums, second, VECTOR_BYTES))
        + (load(sums, third, VECTOR_BYTES) + load(sums, fourth, VECTOR_BYTES))
    )


@njit(forceinline=True)
def _update(source, index, layer, inputs, outputs, rows, n_chains):
    """Decide on all units of a layer, given the bits of the other.

    The chains are taken in turn for each chunk of units, so that its sums stay in the cache.

    Returns the number of units that change, and the source of the decisions that follow (see
    `units.decide`).
    """
    lanes = n_lanes(load(layer.bias, 0, VECTOR_BYTES))
    chunk = 2 * lanes
    for chain in range(n_chains):
        words = _of_chain(inputs.words, inputs, chain)
        _list_rows(words, inputs.size, layer.group, chunk, _of_chain(rows, inputs, chain))
    n_groups = (inputs.size + layer.group - 1) // layer.group
    chunk_size = chunk * _n_rows(inputs.size, layer.group)
    sums = layer.sums
    n_changed = 0
    for first in range(0, outputs.size, chunk):
        count = outputs.size - first
        for chain in range(n_chains):
            picked = _of_chain(rows, inputs, chain)
            left = load(layer.bias, first, VECTOR_BYTES)
            right = load(layer.bias, first + lanes, VECTOR_BYTES)
            for g in range(0, n_groups, 4):
                if layer.far:
                    for ahead in range(g + _AHEAD, g + _AHEAD + 4):
                        for line in range(0, chunk, lanes // 2):
                            prefetch(sums, np.int64(picked[ahead]) + line)
                i, j = np.int64(picked[g]), np.int64(picked[g + 1])
                k, m = np.int64(picked[g + 2]), np.int64(picked[g + 3])
                left = _add_rows(left, sums, i, j, k, m)
                right = _add_rows(right, sums, i + lanes, j + lanes, k + lanes, m + lanes)
            left_ones, source = decide(left, source, index + first, count)
            right_ones, source = decide(right, source, index + first + lanes, count - lanes)
            ones = join(left_ones, right_ones)
            words = _of_chain(outputs.words, outputs, chain)
            n_changed += count_ones(ones ^ load_packed(words, first, ones))
            store_packed(words, first, ones)
        sums = pointer_to(sums, chunk_size, left)
    return n_changed, source


# --- sampling -------------------------------------------------------------------------------------------------------


@njit(forceinline=True)
def _chain(units):
    """One chain as the only one of many."""
    return units.reshape((1, units.size))


@njit
def _sweep(source, rbm, work, v, h, n_sweeps):
    visible, hidden, rows = _memory(work, v.shape[1], h.shape[1])
    _pack(v, visible)
    _pack(h, hidden)
    layer, next_layer = _layer(rbm[0]), _layer(rbm[1])
    inputs, outputs = visible, hidden
    n_changed = 0
    index = 0
    for _ in range(2 * n_sweeps):
        changed, source = _update(source, index, layer, inputs, outputs, rows, v.shape[0])
        n_changed += changed
        index += outputs.size
        layer, next_layer = next_layer, layer
        inputs, outputs = outputs, inputs
    _unpack(visible, v)
    _unpack(hidden, h)
    return n_changed, source


@njit
def _update_layer(source, layer, work, given, units):
    """Draw the `units` of one layer of a chain given those of the other."""
    inputs, outputs, rows = _memory(work, given.size, units.size)
    _pack(_chain(given), inputs)
    _pack(_chain(units), outputs)
    n_changed, source = _update(source, 0, _layer(layer), inputs, outputs, rows, 1)
    _unpack(outputs, _chain(units))
    return n_changed, source


@kernel
def sweep(rbm, v, h, n_sweeps, state):
    """Block Gibbs sweeps, in place: each draws the hidden units given the visible ones, then these given those.

    Parameters
    ----------
    rbm : tuple
        From `prepare`.
    v, h : numpy.ndarray
        State of the chain, (n_visible,) and (n_hidden,), contiguous, zeros and ones of any type.
    n_sweeps : int
    state : numpy.ndarray
        From `step_methods.kernels.vectors.random.seed_stream`; advanced in place.

    Returns
    -------
    int
        How many times a unit changed its value.
    """
    n_changed, stream = _sweep(open_stream(state), rbm, rbm[2], _chain(v), _chain(h), n_sweeps)
    close_stream(stream)
    return n_changed


@kernel
def sweep_chains(rbm, v, h, n_sweeps, state):
    """Block Gibbs sweeps of many chains at once; units are bits, and no matrix is multiplied.

    Arguments as in `sweep`, but v is (n_chains, n_visible) and h (n_chains, n_hidden). Memory is
    allocated once a call.
    """
    work = np.zeros(v.shape[0] * _work_size(v.shape[1], h.shape[1]), np.uint64)
    n_changed, stream = _sweep(open_stream(state), rbm, work, v, h, n_sweeps)
    close_stream(stream)
    return n_changed


@kernel
def update_hidden(rbm, v, h, state):
    """Draw the hidden units given the visible ones, in place; returns how many changed. Arguments as in `sweep`."""
    n_changed, stream = _update_layer(open_stream(state), rbm[0], rbm[2], v, h)
    close_stream(stream)
    return n_changed


@kernel
def update_visible(rbm, v, h, state):
    """Draw the visible units given the hidden ones, in place; returns how many changed. Arguments as in `sweep`."""
    n_changed, stream = _update_layer(open_stream(state), rbm[1], rbm[2], h, v)
    close_stream(stream)
    return n_changed


# --- the certificate ------------------------------------------------------------------------------------------------


@kernel
def sweep_forced(rbm, v, h, n_sweeps, bits, probabilities):
    """`sweep` with forced decisions: see the conventions in `step_methods.kernels`."""
    _sweep(Forced(bits, probabilities), rbm, rbm[2], _chain(v), _chain(h), n_sweeps)
    return n_sweeps * (h.size + v.size)


@kernel
def update_hidden_forced(rbm, v, h, bits, probabilities):
    """`update_hidden` with forced decisions: see the conventions in `step_methods.kernels`."""
    _update_layer(Forced(bits, probabilities), rbm[0], rbm[2], v, h)
    return h.size


@kernel
def update_visible_forced(rbm, v, h, bits, probabilities):
    """`update_visible` with forced decisions: see the conventions in `step_methods.kernels`."""
    _update_layer(Forced(bits, probabilities), rbm[1], rbm[2], h, v)
    return v.size


# --- energies -------------------------------------------------------------------------------------------------------


class _Energy(NamedTuple):
    """Leaves the units as they are and subtracts the fields of those that are 1."""

    words: Any
    energy: Any


class _FreeEnergy(NamedTuple):
    """Subtracts log(1 + exp(field)) for every unit."""

    energy: Any


@overload(decide, jit_options={"forceinline": True})
def _decide_energy(field, source, index, count):
    if source.instance_class is _Energy:
        return _add_energy
    return _add_free_energy if source.instance_class is _FreeEnergy else None


def _add_energy(field, source, index, count):
    ones = load_packed(source.words, index, field)
    return ones, _Energy(source.words, source.energy - total(choose(ones, field, 0.0)))


def _add_free_energy(field, source, index, count):
    return field >= 0.0, _FreeEnergy(source.energy - softplus_total(field))


@njit
def _bias_energy(bias, bits):
    lanes = VECTOR_BYTES // bias.itemsize
    source = _Energy(bits.words, 0.0)
    for first in range(0, bias.size, lanes):
        _, source = decide(load(bias, first, VECTOR_BYTES), source, first, lanes)
    return source.energy


@kernel
def energy(rbm, v, h):
    """Energy -a.v - b.h - v.W.h of a state; arguments as in `sweep`."""
    visible, hidden, rows = _memory(rbm[2], v.size, h.size)
    _pack(_chain(v), visible)
    _pack(_chain(h), hidden)
    source = _Energy(hidden.words, _bias_energy(rbm[1][1], visible))
    _, source = _update(source, 0, _layer(rbm[0]), visible, hidden, rows, 1)
    return source.energy


@kernel
def free_energy(rbm, v):
    """Free energy -a.v - sum of softplus(b + v.W), the energy with the hidden units summed out."""
    visible, hidden, rows = _memory(rbm[2], v.size, rbm[0][1].size)
    _pack(_chain(v), visible)
    source = _FreeEnergy(_bias_energy(rbm[1][1], visible))
    _, source = _update(source, 0, _layer(rbm[0]), visible, hidden, rows, 1)
    return source.energy
