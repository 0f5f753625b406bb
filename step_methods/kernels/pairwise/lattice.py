"""Lattices with one coupling along each axis: checkerboard updates, with no index read for any unit.

The lattice is cut into rows along one axis, and each row into its units of even and of odd position, its two halves.
The units of a half do not interact. Stored one after another, they have their neighbors one after another as well:
those in the row itself in the other half, shifted by one, and those along another axis in the same half of another
row. So the fields of a half are sums of a few vectors of its neighbors.

A cell beyond an end of a half repeats the unit at the other end where the row is periodic, and stays 0 where it is
open. The halves of one color of the checkerboard are updated first, then those of the other. Where other axes are odd
and periodic there is no checkerboard, and the order is just some order of the halves, which is right as well; the axis
of the rows is never odd and periodic.
"""

import math
from collections.abc import Iterator

import numpy as np
import scipy.sparse
from numba import njit

from step_methods.kernels.pairwise.units import Energy, renew
from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.random import VECTOR_BYTES, close_stream, open_stream
from step_methods.kernels.vectors.simd import as_vector_of, count_ones, load, pointer_to, store
from step_methods.kernels.vectors.units import Forced

# mypy: disable-error-code="no-untyped-def"

type PreparedLattice = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]
type Axes = tuple[tuple[int, bool], ...]

_ALIGNMENT = 64
_MOST_AXES = 4
# Columns of the table of halves; the starts of the neighboring halves follow.
_START, _COUNT, _AROUND, _EDGE, _EDGE_SOURCE, _FIRST_UNIT, _NEIGHBORS = range(7)


# --- detection --------------------------------------------------------------------------------------------------------


def find_lattice(J: scipy.sparse.csr_array) -> tuple[Axes, np.ndarray] | None:
    """Recognize the couplings of a lattice whose sites are numbered in C order.

    Parameters
    ----------
    J : csr_array
        Symmetric couplings (n, n), zero diagonal, in canonical form.

    Returns
    -------
    axes : tuple of (int, bool)
        Side, and whether it is periodic, of each axis; axes of one site are left out. An axis of two sites is open.
    couplings : ndarray
        Of neighbors along each axis.
    None
        If it is no such lattice of up to 4 axes, or one whose axes are all odd and periodic.
    """
    n = J.shape[0]
    if n < 2:
        return None
    # The first site sees the next one along each axis, and the last one where the axis is periodic.
    offsets = J.indices[: J.indptr[1]].tolist()
    if not 0 < len(offsets) <= 2 * _MOST_AXES:
        return None
    values = dict(zip(offsets, J.data[: J.indptr[1]], strict=True))
    for axes in _possible_axes(1, n, set(offsets)):
        strides = _strides(axes)
        has_rows = any(side % 2 == 0 or not is_periodic for side, is_periodic in axes)
        if has_rows and J.nnz == _n_entries(axes):
            couplings = np.array([values[stride] for stride in strides], J.dtype)
            if _is_equal(J, _lattice_couplings(axes, couplings)):
                return axes, couplings
    return None


def _possible_axes(stride: int, n: int, offsets: set[int]) -> Iterator[Axes]:
    """Axes, from the first to the last, whose neighbors of the first site are at `offsets`."""
    if stride == n:
        yield ()
        return
    if stride not in offsets:
        return
    for following in sorted({offset for offset in offsets if offset > stride} | {n}):
        if following % stride == 0 and n % following == 0:
            side = following // stride
            is_periodic = side > 2 and following - stride in offsets
            for others in _possible_axes(following, n, offsets):
                yield (*others, (side, is_periodic))


def _strides(axes: Axes) -> list[int]:
    return [math.prod(side for side, _ in axes[i + 1 :]) for i in range(len(axes))]


def _n_entries(axes: Axes) -> int:
    n = math.prod(side for side, _ in axes)
    return sum(2 * (n if is_periodic else n - n // side) for side, is_periodic in axes)


def _lattice_couplings(axes: Axes, couplings: np.ndarray) -> scipy.sparse.csr_array:
    shape = tuple(side for side, _ in axes)
    n = math.prod(shape)
    sites = np.arange(n, dtype=np.int32 if n < 2**31 else np.int64).reshape(shape)
    rows, columns, values = [], [], []
    for axis, (side, is_periodic) in enumerate(axes):
        following = np.roll(sites, -1, axis)
        if not is_periodic:
            bonded = np.delete(sites, side - 1, axis), np.delete(following, side - 1, axis)
        else:
            bonded = sites, following
        one, other = (x.ravel() for x in bonded)
        rows += [one, other]
        columns += [other, one]
        values.append(np.full(2 * one.size, couplings[axis]))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return scipy.sparse.coo_array(entries, shape=(n, n)).tocsr()


def _is_equal(one: scipy.sparse.csr_array, other: scipy.sparse.csr_array) -> bool:
    other.sort_indices()
    return all(
        np.array_equal(x, y)
        for x, y in ((one.indptr, other.indptr), (one.indices, other.indices), (one.data, other.data))
    )


# --- preparation ------------------------------------------------------------------------------------------------------


def count_vectors(axes: Axes, lanes: int) -> int:
    """Number of vectors of so many lanes that a sweep takes."""
    return _row_vectors(axes, _row_axis(axes, lanes), lanes)


def _row_vectors(axes: Axes, row_axis: int, lanes: int) -> int:
    n = math.prod(side for side, _ in axes)
    side, _ = axes[row_axis]
    return n // side * sum(-(-half // lanes) for half in (side // 2, side - side // 2))


def _row_axis(axes: Axes, lanes: int) -> int:
    """The last of the axes along which rows fill vectors best; the seam of an odd periodic one joins equal halves."""
    possible = [axis for axis, (side, is_periodic) in enumerate(axes) if not (is_periodic and side % 2)]
    return min(reversed(possible), key=lambda axis: _row_vectors(axes, axis, lanes))


def prepare_lattice(axes: Axes, couplings: np.ndarray) -> PreparedLattice:
    """Lay out a lattice for the kernels.

    Parameters
    ----------
    axes : tuple of (int, bool)
        Side of each axis, at least 2, and whether it is periodic. At least one is even or open.
    couplings : ndarray
        Of neighbors along each axis, float32 or float64.
    """
    itemsize = couplings.dtype.itemsize
    lanes = VECTOR_BYTES // itemsize
    row_axis = _row_axis(axes, lanes)
    unit_strides = _strides(axes)
    side, is_periodic = axes[row_axis]
    others = [i for i in range(len(axes)) if i != row_axis]
    shape = [axes[i][0] for i in others]
    n_rows = math.prod(shape)

    counts = (side - side // 2, side // 2)
    # Room for whole vectors and a cell beyond either end.
    step = _ALIGNMENT // itemsize
    width = -(-(-(-counts[0] // lanes) * lanes + 2) // step) * step
    # First comes a half of zeros, the neighbor beyond an open side. Its first cell is the edge of all open rows.
    zeros = 0
    place = width * (1 + np.arange(2 * n_rows).reshape(*shape, 2))  # start of each half

    halves = np.zeros((*shape, 2, _NEIGHBORS + 2 * len(others)), np.int64)
    halves[..., _START] = place
    halves[..., _COUNT] = counts
    halves[..., _AROUND] = place[..., ::-1] - np.array([1, 0])
    if is_periodic:
        halves[..., _EDGE] = place + np.array([counts[0], -1])
        halves[..., _EDGE_SOURCE] = place + np.array([0, counts[1] - 1])
    rows = np.indices(shape)
    first_unit = sum((rows[i] * unit_strides[axis] for i, axis in enumerate(others)), np.zeros(shape, np.int64))
    halves[..., _FIRST_UNIT] = first_unit[..., None] + np.array([0, unit_strides[row_axis]])
    for i, axis in enumerate(others):
        for j, shift in enumerate((1, -1)):
            neighbors = np.roll(place, -shift, axis=i)
            if not axes[axis][1]:
                end = [slice(None)] * len(shape)
                end[i] = slice(-1, None) if shift == 1 else slice(0, 1)
                neighbors[tuple(end)] = zeros
            halves[..., _NEIGHBORS + 2 * i + j] = neighbors

    color = (rows.sum(axis=0)[..., None] + np.arange(2)) % 2
    order = np.argsort(color.ravel(), kind="stable")
    table = halves.reshape(2 * n_rows, -1)[order]
    units = np.zeros(width * (1 + 2 * n_rows), couplings.dtype)
    bias = np.full_like(units, -np.inf)
    weights = couplings[[row_axis, *others]]
    return table, units, bias, weights, np.empty_like(weights), unit_strides[row_axis]


# --- sampling ---------------------------------------------------------------------------------------------------------


@njit(forceinline=True)
def _split_row(row, step, even, odd, n_even, n_odd):
    for i in range(n_odd):
        even[i] = row[2 * step * i]
        odd[i] = row[2 * step * i + step]
    if n_even > n_odd:
        even[n_odd] = row[2 * step * n_odd]


@njit(forceinline=True)
def _join_row(row, step, even, odd, n_even, n_odd):
    for i in range(n_odd):
        row[2 * step * i] = even[i]
        row[2 * step * i + step] = odd[i]
    if n_even > n_odd:
        row[2 * step * n_odd] = even[n_odd]


@njit(forceinline=True)
def _for_rows(move, values, halves, cells, step):
    """Move numbers between an array over the sites and the cells of the halves, row by row."""
    n_rows = halves.shape[0] // 2
    for row in range(n_rows):
        even, odd = row, row + n_rows
        if halves[odd, _FIRST_UNIT] < halves[even, _FIRST_UNIT]:
            even, odd = odd, even
        move(
            pointer_to(values, halves[even, _FIRST_UNIT], values),
            step,
            pointer_to(cells, halves[even, _START], cells),
            pointer_to(cells, halves[odd, _START], cells),
            halves[even, _COUNT],
            halves[odd, _COUNT],
        )


@njit(forceinline=True)
def _move(move, values, halves, cells, stride):
    if stride == 1:  # loops with a constant step are vectorized
        _for_rows(move, values, halves, cells, 1)
    else:
        _for_rows(move, values, halves, cells, stride)


@njit
def _enter(lattice, z, bias, scale):
    halves, units, own_bias, couplings, weights, stride = lattice
    for axis in range(weights.size):
        weights[axis] = couplings[axis] * scale
    _move(_split_row, z, halves, units, stride)
    _move(_split_row, bias, halves, own_bias, stride)
    for half in range(halves.shape[0]):
        units[halves[half, _EDGE]] = units[halves[half, _EDGE_SOURCE]]


@njit
def _leave(lattice, z):
    halves, units, _, _, _, stride = lattice
    _move(_join_row, z, halves, units, stride)


@njit
def _update_all(source, index, lattice):
    """Update every half once; returns how many units changed, and the source of the decisions that follow."""
    halves, units, bias, _, weights, _ = lattice
    lanes = VECTOR_BYTES // units.itemsize
    n_changed = 0
    for half in range(halves.shape[0]):
        start, count, around = halves[half, _START], halves[half, _COUNT], halves[half, _AROUND]
        # The cell beyond the end may lie in the last vector of this half, which does not need it, and is no unit.
        units[halves[half, _EDGE]] = 0.0
        for first in range(0, count, lanes):
            pair = load(units, around + first, VECTOR_BYTES) + load(units, around + first + 1, VECTOR_BYTES)
            field = load(bias, start + first, VECTOR_BYTES) + pair * weights[0]
            for axis in range(1, weights.size):
                one, other = halves[half, _NEIGHBORS + 2 * axis - 2], halves[half, _NEIGHBORS + 2 * axis - 1]
                pair = load(units, one + first, VECTOR_BYTES) + load(units, other + first, VECTOR_BYTES)
                field = field + pair * weights[axis]
            old = load(units, start + first, VECTOR_BYTES) != 0.0
            ones, source = renew(field, old, source, index + first, count - first)
            n_changed += count_ones(ones ^ old)
            store(units, start + first, as_vector_of(ones, units))
        index += count
        units[halves[half, _EDGE]] = units[halves[half, _EDGE_SOURCE]]
    return n_changed, source


@njit
def _sweep(source, lattice, z, bias, scale, n_sweeps):
    _enter(lattice, z, bias, scale)
    n_changed = 0
    for sweep in range(n_sweeps):
        changed, source = _update_all(source, sweep * z.size, lattice)
        n_changed += changed
    _leave(lattice, z)
    return n_changed, source


@kernel
def sweep_lattice(lattice, z, bias, scale, n_sweeps, state):
    """Update one color of the checkerboard, then the other; see `pairwise.network.sweep_pairwise`."""
    n_changed, stream = _sweep(open_stream(state), lattice, z, bias, scale, n_sweeps)
    close_stream(stream)
    return n_changed


@kernel
def sweep_lattice_forced(lattice, z, bias, scale, n_sweeps, bits, probabilities):
    """`sweep_lattice` with forced decisions: see the conventions in `step_methods.kernels`."""
    _sweep(Forced(bits, probabilities), lattice, z, bias, scale, n_sweeps)
    return n_sweeps * z.size


@kernel
def energy_lattice(lattice, z, bias, scale):
    """Energy of a state; arguments as in `sweep_lattice`."""
    _enter(lattice, z, bias, scale * 0.5)
    _, source = _update_all(Energy(0.0), 0, lattice)
    return source.energy
