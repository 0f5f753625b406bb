"""What networks of spiking neurons are made of, and how the fields follow a neuron that switches.

Neurons have places, in the order in which they are updated. In vectors from there on are kept their biases, their
fields u = bias + scale J z and their clocks: what is left of the time that a neuron is on, 0 if it is off. Only a neuron
that switches changes the fields of others. Its couplings are

- a row over a contiguous range of places: all of a dense network, or the other layer of a restricted one; or
- a list of neighbors.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numba import njit
from numba.extending import overload

from step_methods.kernels.pairwise_sparse import color_units
from step_methods.kernels.random import LANES, VECTOR_BYTES
from step_methods.kernels.simd import load, store

# mypy: disable-error-code="no-untyped-def"

type Couplings = tuple[np.ndarray, np.ndarray, Any]
# Plain tuples, because numba takes 2 microseconds more to recognize named ones as arguments.
type PreparedNetwork = tuple[Any, ...]


class Network(NamedTuple):
    """A network as kernels see it.

    `place_of` a unit and `unit_at` a place are each other's inverse. `bias`, `fields` and `clocks` are padded, by
    neurons that never fire, to whole vectors and one more, so that a vector may be read from any place. In continuous
    time there are `rates` too, the `sums` of those of a vector, the `ends` of the periods that neurons are on, and a
    `queue` of these neurons.
    """

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


def _network(couplings: Couplings, order: np.ndarray) -> PreparedNetwork:
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
        np.zeros(2 * lanes),
        np.zeros(size, dtype),
        sums,
        np.zeros(n),
        np.zeros(n, np.int64),
    )


# --- fields -----------------------------------------------------------------------------------------------------------


def spread(couplings, fields, place, step):
    """Add `step` times the couplings of the neuron at a place to the fields of the others."""
    raise NotImplementedError


@overload(spread, jit_options={"forceinline": True})
def _spread(couplings, fields, place, step):
    return _add_row if couplings.types[0].ndim == 2 else _add_to_neighbors


def _add_row(couplings, fields, place, step):
    rows, second_rows, target = couplings
    n_rows = rows.shape[0]
    if place < n_rows:
        _add_scaled(fields, target, rows, place, step)
    else:
        _add_scaled(fields, 0, second_rows, place - n_rows, step)


@njit(forceinline=True)
def _add_scaled(fields, target, rows, row, step):
    size = rows.shape[1]
    for first in range(0, size, VECTOR_BYTES // rows.itemsize):
        field = load(fields, target + first, VECTOR_BYTES)
        store(fields, target + first, field + load(rows, row * size + first, VECTOR_BYTES) * step)


def _add_to_neighbors(couplings, fields, place, step):
    indptr, neighbors, values = couplings
    for k in range(indptr[place], indptr[place + 1]):
        fields[neighbors[k]] += values[k] * step


@njit
def refresh(network, scale):
    """Compute all fields anew."""
    network.fields[:] = network.bias
    for place in range(network.place_of.size):
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
