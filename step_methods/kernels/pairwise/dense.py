"""Dense networks: unit after unit, with fields that follow every change.

The units are cut into groups as large as a vector. The fields of the group whose turn it is are in registers; a unit
that changes adds its row of couplings to them without a branch. What it adds to the other groups is put off until its
group is done, and then done for all changed units of the group at once. So nothing but a comparison and an addition
stands between a unit and the next.
"""

import numpy as np
import scipy.sparse
from numba import njit
from numba.extending import overload

from step_methods.kernels.pairwise.units import Energy, renew
from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.noise import thresholds
from step_methods.kernels.vectors.random import VECTOR_BYTES, Stream, close_stream, open_stream
from step_methods.kernels.vectors.simd import (
    as_vector_of,
    choose,
    int_to_mask,
    load,
    load_mask,
    mask_to_int,
    store,
    store_first,
    widen,
)
from step_methods.kernels.vectors.units import Forced, sigmoid

# mypy: disable-error-code="no-untyped-def"

type PreparedDense = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# Fields are computed anew after so many sweeps, before the rounding of their changes adds up.
_FRESH_SWEEPS = 16


def prepare_dense(J: scipy.sparse.csr_array) -> PreparedDense:
    """Arrange the couplings of a network of n units in rows that are padded to whole vectors.

    Parameters
    ----------
    J : csr_array
        Symmetric couplings (n, n) with a zero diagonal, float32 or float64.
    """
    n = J.shape[0]
    lanes = VECTOR_BYTES // J.dtype.itemsize
    size = -(-n // lanes) * lanes
    rows = np.zeros((n, size), J.dtype)
    rows[:, :n] = J.toarray()
    bias = np.full(size, -np.inf, J.dtype)
    fields = np.empty(size, J.dtype)
    ones = np.zeros(size // lanes, np.uint64)
    return rows, bias, fields, ones, np.empty(n, np.int64), np.empty(n, J.dtype)


def note(source, index, field, count):
    """Note the probabilities of units that were forced, given the fields that they were decided with."""
    raise NotImplementedError


@overload(note, jit_options={"forceinline": True})
def _note(source, index, field, count):
    if source.instance_class is Stream:
        return lambda source, index, field, count: None
    return _note_forced if source.instance_class is Forced else None


def _note_forced(source, index, field, count):
    store_first(source.probabilities, index, widen(sigmoid(field)), count)


@njit
def _refresh(dense, scale):
    """Compute all fields: bias plus `scale` times the rows of the units that are 1."""
    rows, bias, fields, ones, listed, _ = dense
    n, size = rows.shape
    lanes = VECTOR_BYTES // rows.itemsize
    n_listed = np.int64(0)
    for unit in range(n):
        listed[n_listed] = unit
        n_listed += np.int64(ones[unit // lanes] >> np.uint64(unit % lanes)) & 1
    for first in range(0, size, lanes):
        field = load(bias, first, VECTOR_BYTES)
        for i in range(n_listed):
            field = field + load(rows, listed[i] * size + first, VECTOR_BYTES) * scale
        store(fields, first, field)


@njit(forceinline=True)
def _update_group(source, index, dense, scale, first, count):
    """Decide on the units of one group, one after the other.

    Returns how many changed, with these in the list of `dense`, and the source of the decisions that follow.
    """
    rows, _, fields, ones, listed, steps = dense
    size = rows.shape[1]
    field = load(fields, first, VECTOR_BYTES)
    limits, source = thresholds(source, index, field, count)
    group = first * rows.itemsize // VECTOR_BYTES
    old = ones[group]
    new = old
    decided = field
    n_changed = np.int64(0)
    for lane in range(count):
        bit = np.uint64(lane)
        decided = choose(int_to_mask(np.uint64(1) << bit, field), field, decided)
        flip = ((mask_to_int(limits < field) ^ old) >> bit) & np.uint64(1)
        # The sign of a change depends on the old value alone, which is known long before.
        step = scale - 2 * scale * np.int64((old >> bit) & np.uint64(1))
        changed = field + load(rows, (first + lane) * size + first, VECTOR_BYTES) * step
        field = choose(int_to_mask(np.uint64(0) - flip, field), changed, field)
        new ^= flip << bit
        listed[n_changed] = first + lane
        steps[n_changed] = step
        n_changed += np.int64(flip)
    ones[group] = new
    store(fields, first, field)
    note(source, index, decided, count)
    return n_changed, source


@njit(forceinline=True)
def _tell_others(dense, first, n_changed):
    """Add the changes of one group to the fields of all others."""
    rows, _, fields, _, listed, steps = dense
    size = rows.shape[1]
    for other in range(0, size, VECTOR_BYTES // rows.itemsize):
        if other != first:
            field = load(fields, other, VECTOR_BYTES)
            for i in range(n_changed):
                field = field + load(rows, listed[i] * size + other, VECTOR_BYTES) * steps[i]
            store(fields, other, field)


@njit
def _enter(dense, z, bias):
    own_bias, ones = dense[1], dense[3]
    own_bias[: bias.size] = bias
    lanes = VECTOR_BYTES // own_bias.itemsize
    like = load(own_bias, 0, VECTOR_BYTES)
    for group in range(ones.size):
        ones[group] = mask_to_int(load_mask(z, group * lanes, like, z.size - group * lanes))


@njit
def _leave(dense, z):
    own_bias, ones = dense[1], dense[3]
    lanes = VECTOR_BYTES // own_bias.itemsize
    like = load(own_bias, 0, VECTOR_BYTES)
    for group in range(ones.size):
        units = as_vector_of(int_to_mask(ones[group], like), z)
        store_first(z, group * lanes, units, z.size - group * lanes)


@njit
def _sweep(source, dense, z, bias, scale, n_sweeps):
    _enter(dense, z, bias)
    rows = dense[0]
    lanes = VECTOR_BYTES // rows.itemsize
    n_changed = 0
    index = 0
    for sweep in range(n_sweeps):
        if sweep % _FRESH_SWEEPS == 0:
            _refresh(dense, scale)
        for first in range(0, z.size, lanes):
            count = min(lanes, z.size - first)
            changed, source = _update_group(source, index, dense, scale, first, count)
            _tell_others(dense, first, changed)
            n_changed += changed
            index += count
    _leave(dense, z)
    return n_changed, source


@kernel
def sweep_dense(dense, z, bias, scale, n_sweeps, state):
    """Update all units one after the other, `n_sweeps` times; see `pairwise.network.sweep_pairwise`."""
    n_changed, stream = _sweep(open_stream(state), dense, z, bias, scale, n_sweeps)
    close_stream(stream)
    return n_changed


@kernel
def sweep_dense_forced(dense, z, bias, scale, n_sweeps, bits, probabilities):
    """`sweep_dense` with forced decisions: see the conventions in `step_methods.kernels`."""
    _sweep(Forced(bits, probabilities), dense, z, bias, scale, n_sweeps)
    return n_sweeps * z.size


@kernel
def energy_dense(dense, z, bias, scale):
    """Energy of a state; arguments as in `sweep_dense`."""
    _enter(dense, z, bias)
    _refresh(dense, scale * 0.5)
    fields, ones = dense[2], dense[3]
    lanes = VECTOR_BYTES // fields.itemsize
    source = Energy(0.0)
    for first in range(0, z.size, lanes):
        field = load(fields, first, VECTOR_BYTES)
        _, source = renew(field, int_to_mask(ones[first // lanes], field), source, first, lanes)
    return source.energy
