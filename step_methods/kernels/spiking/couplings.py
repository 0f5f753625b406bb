"""What networks of spiking neurons are made of, and how the fields follow a neuron that switches.

Neurons have places, in the order in which they are updated. Kept in this order are their biases, their fields u = bias
+ scale J z and their clocks: what is left of the time that a neuron is on, 0 if it is off. Only a neuron that switches
changes the fields of others. Its couplings are

- a row over a contiguous range of places: all of a dense network, or the other layer of a restricted one; or
- a list of neighbors.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numba import njit
from numba.extending import overload

from step_methods.kernels.pairwise.sparse import color_units
from step_methods.kernels.vectors.random import LANES, VECTOR_BYTES
from step_methods.kernels.vectors.simd import load, n_lanes, pointer_to, store

# mypy: disable-error-code="no-untyped-def"

# Rows of scratch memory, of float64 for as many neurons as a vector can have: for picks and their noise, and for what
# is looked up for the neurons of a group.
SCRATCH_ROW = VECTOR_BYTES // 4
_SCRATCH_ROWS = 3
PICKS, NOISE, LOOKED_UP = 0, SCRATCH_ROW, 2 * SCRATCH_ROW

# Plain tuples, because numba takes 2 microseconds more to recognize named ones as arguments.
type PreparedNetwork = tuple[Any, ...]


class Network(NamedTuple):
    """Addresses of what a network consists of, as kernels see it.

    `place_of` a unit and `unit_at` a place are each other's inverse. `bias`, `fields` and `clocks` are padded, by
    neurons that never fire, to whole vectors and one more, so that a vector may be read from any place. In continuous
    time there are `rates` too, the `sums` of those of a vector, the `ends` of the periods that neurons are on, and a
    `queue` of these neurons.
    """

    n: Any
    n_padded: Any
    couplings: Any
    place_of: Any
    unit_at: Any
    bias: Any
    fields: Any
    clocks: Any
    scratch: Any
    rates: Any
    sums: Any
    ends: Any
    queue: Any


class Rows(NamedTuple):
    """Padded rows of couplings: `n_first` of `first_size` each to the places from `target` on, others to the first."""

    n_first: Any
    target: Any
    first_size: Any
    first: Any
    other_size: Any
    other: Any


class Neighbors(NamedTuple):
    """Lists of neighbors and the couplings to them, those of each place from `starts` on."""

    starts: Any
    places: Any
    values: Any


# --- preparation ------------------------------------------------------------------------------------------------------


def prepare_rows(J: scipy.sparse.csr_array, order: np.ndarray) -> PreparedNetwork:
    """Arrange a network whose couplings are rows over all units.

    Parameters
    ----------
    J : csr_array
        Symmetric couplings (n, n) with a zero diagonal, float32 or float64.
    order : ndarray of int, shape (n,)
        The units, in the order of their places.
    """
    rows = _padded(J.toarray()[np.ix_(order, order)])
    return _network((rows, np.zeros((0, rows.shape[1]), rows.dtype), 0), order)


def prepare_layers(W: np.ndarray) -> PreparedNetwork:
    """Arrange a restricted network, hidden units before visible ones.

    Parameters
    ----------
    W : ndarray
        Couplings (n_visible, n_hidden), float32 or float64.
    """
    n_visible, n_hidden = W.shape
    return _network((_padded(W.T), _padded(W), n_hidden), np.arange(n_hidden + n_visible))


def prepare_neighbors(J: scipy.sparse.csr_array, order: np.ndarray) -> PreparedNetwork:
    """Arrange a network whose couplings are lists of neighbors; parameters as in `prepare_rows`."""
    sorted_J = scipy.sparse.csr_array(J[order][:, order])
    sorted_J.sort_indices()
    return _network((sorted_J.indptr.astype(np.int64), sorted_J.indices.astype(np.int64), sorted_J.data), order)


def order_by_color(J: scipy.sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Order the units color by color; no two of a color interact. Return the order and the size of each color."""
    colors = color_units(J)
    return np.argsort(colors, kind="stable"), np.bincount(colors)


def _padded(rows: np.ndarray) -> np.ndarray:
    n_rows, n = rows.shape
    lanes = VECTOR_BYTES // rows.itemsize
    padded = np.zeros((n_rows, -(-n // lanes) * lanes), rows.dtype)
    padded[:, :n] = rows
    return padded


def _network(couplings: tuple[Any, ...], order: np.ndarray) -> PreparedNetwork:
    dtype = couplings[0].dtype if couplings[0].ndim == 2 else couplings[2].dtype
    n = order.size
    lanes = VECTOR_BYTES // dtype.itemsize
    size = (-(-n // lanes) + 1) * lanes
    place_of = np.empty(n, np.int64)
    place_of[order] = np.arange(n)
    bias = np.full(size, -np.inf, dtype)
    sums = np.zeros(-(-size // (lanes * LANES)) * LANES)
    return (
        couplings,
        place_of,
        order.astype(np.int64),
        bias,
        bias.copy(),
        np.zeros(size, dtype),
        np.zeros(_SCRATCH_ROWS * SCRATCH_ROW),
        np.zeros(size, dtype),
        sums,
        np.zeros(n),
        np.zeros(n, np.int64),
    )


# --- what kernels see -------------------------------------------------------------------------------------------------


@njit(forceinline=True)
def open_network(prepared):
    """Take the addresses of a network. Unlike arrays they own no references, which a loop would count."""
    couplings, place_of, unit_at, bias, fields, clocks, scratch, rates, sums, ends, queue = prepared
    return Network(
        place_of.size,
        fields.size,
        _open_couplings(couplings),
        pointer_to(place_of, 0, place_of),
        pointer_to(unit_at, 0, unit_at),
        pointer_to(bias, 0, bias),
        pointer_to(fields, 0, fields),
        pointer_to(clocks, 0, clocks),
        pointer_to(scratch, 0, scratch),
        pointer_to(rates, 0, rates),
        pointer_to(sums, 0, sums),
        pointer_to(ends, 0, ends),
        pointer_to(queue, 0, queue),
    )


def _open_couplings(couplings):
    raise NotImplementedError


@overload(_open_couplings, jit_options={"forceinline": True})
def _open_couplings_of(couplings):
    return _open_rows if couplings.types[0].ndim == 2 else _open_neighbors


def _open_rows(couplings):
    first, other, target = couplings
    return Rows(
        first.shape[0],
        target,
        first.shape[1],
        pointer_to(first, 0, first),
        other.shape[1],
        pointer_to(other, 0, other),
    )


def _open_neighbors(couplings):
    starts, places, values = couplings
    return Neighbors(pointer_to(starts, 0, starts), pointer_to(places, 0, places), pointer_to(values, 0, values))


@njit(forceinline=True)
def width(network):
    """Number of neurons in a vector."""
    return n_lanes(load(network.fields, 0, VECTOR_BYTES))


# --- fields -----------------------------------------------------------------------------------------------------------


def spread(couplings, fields, place, step):
    """Add `step` times the couplings of the neuron at a place to the fields of the others."""
    raise NotImplementedError


@overload(spread, jit_options={"forceinline": True})
def _spread(couplings, fields, place, step):
    return _add_row if couplings.instance_class is Rows else _add_to_neighbors


def _add_row(couplings, fields, place, step):
    if place < couplings.n_first:
        size = couplings.first_size
        _add_scaled(fields, couplings.target, couplings.first, place * size, size, step)
    else:
        size = couplings.other_size
        _add_scaled(fields, 0, couplings.other, (place - couplings.n_first) * size, size, step)


@njit(forceinline=True)
def _add_scaled(fields, target, rows, start, size, step):
    for first in range(0, size, n_lanes(load(fields, 0, VECTOR_BYTES))):
        field = load(fields, target + first, VECTOR_BYTES)
        store(fields, target + first, field + load(rows, start + first, VECTOR_BYTES) * step)


def _add_to_neighbors(couplings, fields, place, step):
    for k in range(couplings.starts[place], couplings.starts[place + 1]):
        fields[couplings.places[k]] += couplings.values[k] * step


@njit
def refresh(network, scale):
    """Compute all fields anew."""
    for place in range(network.n_padded):
        network.fields[place] = network.bias[place]
    for place in range(network.n):
        if network.clocks[place] > 0:
            spread(network.couplings, network.fields, place, scale)


@njit
def enter(network, clocks, bias, shift):
    """Take over the clocks and the biases, less a shift, of the units."""
    for unit in range(clocks.size):
        network.clocks[network.place_of[unit]] = clocks[unit]
        network.bias[network.place_of[unit]] = bias[unit] - shift


@njit
def leave(network, clocks):
    """Give back the clocks of the units."""
    for unit in range(clocks.size):
        clocks[unit] = network.clocks[network.place_of[unit]]
