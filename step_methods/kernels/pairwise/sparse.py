"""Sparse networks: units of one color, which do not interact, are updated together.

Units are numbered anew, color by color, each color padded to whole vectors. Fields are sums over the lists of
neighbors; the time of a sweep is linear in the number of couplings.
"""

import numpy as np
import scipy.sparse
from numba import njit

from step_methods.kernels.pairwise.units import Energy, renew
from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.random import VECTOR_BYTES, close_stream, open_stream
from step_methods.kernels.vectors.simd import as_vector_of, count_ones, load, pointer_to, store
from step_methods.kernels.vectors.units import Forced

# mypy: disable-error-code="no-untyped-def"

type PreparedSparse = tuple[
    np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray
]

# Vectors of fields that are computed before their units are decided on.
_CHUNK_VECTORS = 16


# --- coloring ---------------------------------------------------------------------------------------------------------


def color_units(J: scipy.sparse.csr_array) -> np.ndarray:
    """Color the units so that no two that interact have the same color.

    First fit in breadth-first order, from a unit of each component that has most neighbors. That takes two colors
    where two are enough, and at most one more than the most neighbors of a unit.

    Parameters
    ----------
    J : csr_array
        Symmetric couplings (n, n), zero diagonal. Stored zeros count as couplings.

    Returns
    -------
    ndarray of int32, shape (n,)
        Colors 0, 1, 2, ...
    """
    degrees = np.diff(J.indptr)
    starts = np.argsort(-degrees, kind="stable")
    return _color(J.indptr, J.indices, starts, int(degrees.max(initial=0)) + 1)


@kernel
def _color(indptr, indices, starts, most_colors):
    n = starts.size
    colors = np.full(n, -1, np.int32)
    taken_by = np.full(most_colors, -1, np.int64)  # the last unit that saw a color among its neighbors
    is_queued = np.zeros(n, np.bool_)
    queue = np.empty(n, np.int64)
    head = tail = 0
    for start in starts:
        if is_queued[start]:
            continue
        is_queued[start] = True
        queue[tail] = start
        tail += 1
        while head < tail:
            unit = queue[head]
            head += 1
            for k in range(indptr[unit], indptr[unit + 1]):
                neighbor = indices[k]
                if colors[neighbor] >= 0:
                    taken_by[colors[neighbor]] = unit
                elif not is_queued[neighbor]:
                    is_queued[neighbor] = True
                    queue[tail] = neighbor
                    tail += 1
            color = 0
            while taken_by[color] == unit:
                color += 1
            colors[unit] = color
    return colors


# --- preparation ------------------------------------------------------------------------------------------------------


def prepare_sparse(J: scipy.sparse.csr_array, colors: np.ndarray) -> PreparedSparse:
    """Arrange a network for the kernels.

    Parameters
    ----------
    J : csr_array
        Symmetric couplings (n, n) with a zero diagonal, float32 or float64.
    colors : ndarray
        From `color_units`, or any others that no two units that interact share: 0, 1, 2, ..., none left out.
    """
    lanes = VECTOR_BYTES // J.dtype.itemsize
    counts = np.bincount(colors)
    starts = np.concatenate([[0], np.cumsum(-(-counts // lanes) * lanes)])
    order = np.lexsort((-np.diff(J.indptr), colors))
    place_of = np.empty(J.shape[0], np.int32 if starts[-1] < 2**31 else np.int64)
    place_of[order] = np.arange(order.size) + np.repeat(starts[:-1] - np.cumsum(counts) + counts, counts)

    degrees = np.zeros(starts[-1], np.int64)
    degrees[place_of] = np.diff(J.indptr)
    indptr = np.concatenate([[0], np.cumsum(degrees)])
    sorted_rows = J[order]
    neighbors = place_of[sorted_rows.indices]
    units = np.zeros(starts[-1], J.dtype)
    bias = np.full_like(units, -np.inf)
    fields = np.full(_CHUNK_VECTORS * lanes, -np.inf, J.dtype)
    return np.stack([starts[:-1], counts]), place_of, indptr, neighbors, sorted_rows.data, units, bias, fields


def refill_sparse(network: PreparedSparse, J: scipy.sparse.csr_array) -> None:
    """Put other couplings, stored at the same places, into a network made by `prepare_sparse`."""
    network[4][:] = J[np.argsort(network[1])].data


# --- sampling ---------------------------------------------------------------------------------------------------------


@njit
def _enter(network, z, bias):
    place_of, units, own_bias = network[1], network[5], network[6]
    for unit in range(z.size):
        units[place_of[unit]] = z[unit]
        own_bias[place_of[unit]] = bias[unit]


@njit
def _leave(network, z):
    place_of, units = network[1], network[5]
    for unit in range(z.size):
        z[unit] = units[place_of[unit]]


@njit
def _compute_fields(network, scale, start, stop):
    """Fields of the units in places from `start` to `stop`, padded by -inf to a whole vector."""
    _, _, indptr, neighbors, couplings, units, bias, fields = network
    # Pointers, since indexing an array looks for negative indices first.
    cells = pointer_to(units, 0, units)
    neighbor = pointer_to(neighbors, indptr[start], neighbors)
    coupling = pointer_to(couplings, indptr[start], couplings)
    entry = 0
    for place in range(start, stop):
        last = indptr[place + 1] - indptr[start]
        field = couplings.dtype.type(0)
        while entry < last:
            field += coupling[entry] * cells[neighbor[entry]]
            entry += 1
        fields[place - start] = bias[place] + scale * field
    count = stop - start
    lanes = VECTOR_BYTES // fields.itemsize
    fields[count : (count + lanes - 1) // lanes * lanes] = -np.inf


@njit(forceinline=True)
def _update_color(source, index, network, scale, color):
    """Update the units of one color; returns how many changed, and the source of the decisions that follow."""
    colors, units, fields = network[0], network[5], network[7]
    lanes = VECTOR_BYTES // fields.itemsize
    n_changed = 0
    color_start, color_stop = colors[0, color], colors[0, color] + colors[1, color]
    for start in range(color_start, color_stop, fields.size):
        count = min(fields.size, color_stop - start)
        _compute_fields(network, scale, start, start + count)
        for first in range(0, count, lanes):
            old = load(units, start + first, VECTOR_BYTES) != 0.0
            field = load(fields, first, VECTOR_BYTES)
            ones, source = renew(field, old, source, index + first, count - first)
            n_changed += count_ones(ones ^ old)
            store(units, start + first, as_vector_of(ones, units))
        index += count
    return n_changed, source


@njit
def _update_all(source, index, network, scale):
    """Update every color once; returns how many units changed, and the source of the decisions that follow."""
    colors = network[0]
    n_changed = 0
    for color in range(colors.shape[1]):
        changed, source = _update_color(source, index, network, scale, color)
        n_changed += changed
        index += colors[1, color]
    return n_changed, source


@njit
def _sweep(source, network, z, bias, scale, n_sweeps):
    _enter(network, z, bias)
    n_changed = 0
    for sweep in range(n_sweeps):
        changed, source = _update_all(source, sweep * z.size, network, scale)
        n_changed += changed
    _leave(network, z)
    return n_changed, source


@njit
def _update_picked(source, network, z, bias, scale, picks):
    _enter(network, z, bias)
    n_changed = 0
    index = 0
    for color in picks:
        changed, source = _update_color(source, index, network, scale, color)
        n_changed += changed
        index += network[0][1, color]
    _leave(network, z)
    return index, n_changed, source


@kernel
def sweep_sparse(network, z, bias, scale, n_sweeps, state):
    """Update one color after the other, `n_sweeps` times; see `pairwise.network.sweep_pairwise`."""
    n_changed, stream = _sweep(open_stream(state), network, z, bias, scale, n_sweeps)
    close_stream(stream)
    return n_changed


@kernel
def sweep_sparse_forced(network, z, bias, scale, n_sweeps, bits, probabilities):
    """`sweep_sparse` with forced decisions: see the conventions in `step_methods.kernels`."""
    _sweep(Forced(bits, probabilities), network, z, bias, scale, n_sweeps)
    return n_sweeps * z.size


@kernel
def update_sparse(network, z, bias, scale, picks, state):
    """Update the colors in `picks`, one after the other; see `step_methods.kernels.pairwise.network.update_blocks`."""
    _, n_changed, stream = _update_picked(open_stream(state), network, z, bias, scale, picks)
    close_stream(stream)
    return n_changed


@kernel
def update_sparse_forced(network, z, bias, scale, picks, bits, probabilities):
    """`update_sparse` with forced decisions: see the conventions in `step_methods.kernels`."""
    n_decisions, _, _ = _update_picked(Forced(bits, probabilities), network, z, bias, scale, picks)
    return n_decisions


@kernel
def energy_sparse(network, z, bias, scale):
    """Energy of a state; arguments as in `sweep_sparse`."""
    _enter(network, z, bias)
    _, source = _update_all(Energy(0.0), 0, network, scale * 0.5)
    return source.energy
