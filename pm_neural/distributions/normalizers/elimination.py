"""Sums over all states of spins on a graph, one spin after another.

The spins are taken in a fixed order. Those already taken that still have neighbors to come are the frontier; a table
holds the summed weight of what lies behind for each state of the frontier, at most a few thousand numbers on a narrow
lattice. Each step appends a spin to the frontier and sums out those whose neighbors are all taken: the transfer matrix
of a lattice, built site by site, and on a dense network no more than the sum over all states.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from step_methods.kernels.vectors.jit import cached_njit

__all__ = ["Elimination", "elimination_log_partition", "frontier_width", "orders", "plan_elimination"]


class Elimination(NamedTuple):
    """In which order spins are summed out, as flat arrays for the compiled loop.

    Attributes
    ----------
    sites : ndarray, shape (n,)
        The spins in the order in which they are taken.
    widths : ndarray, shape (n + 1,)
        The number of spins in the frontier before each step, and after the last.
    neighbor_starts : ndarray, shape (n + 1,)
        Where the neighbors of each step begin.
    neighbor_bits : ndarray
        Positions in the frontier of the neighbors of the new spin.
    neighbor_couplings : ndarray
        Their couplings.
    removed_starts : ndarray, shape (n + 1,)
        Where the removed bits of each step begin.
    removed_bits : ndarray
        Positions of the spins that are summed out, the highest first; the new spin has the highest position.
    """

    sites: np.ndarray
    widths: np.ndarray
    neighbor_starts: np.ndarray
    neighbor_bits: np.ndarray
    neighbor_couplings: np.ndarray
    removed_starts: np.ndarray
    removed_bits: np.ndarray


def orders(couplings: csr_array, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Orders of the spins worth trying: along each axis of the field, and one that keeps neighbors close."""
    from scipy.sparse.csgraph import reverse_cuthill_mckee  # slow to import, and seldom needed

    sites = np.arange(couplings.shape[0]).reshape(shape)
    along_axes = [np.moveaxis(sites, axis, 0).ravel() for axis in range(len(shape))]
    return [*along_axes, np.asarray(reverse_cuthill_mckee(couplings, symmetric_mode=True), dtype=np.int64)]


def frontier_width(couplings: csr_array, sites: np.ndarray) -> int:
    """Return the largest number of spins in the frontier between two steps."""
    last = _last_steps(couplings, sites)
    n = len(sites)
    change = np.ones(n + 1, np.int64)
    np.subtract.at(change, last, 1)
    return int(np.cumsum(change[:n]).max())


def _steps(sites: np.ndarray) -> np.ndarray:
    steps = np.empty(len(sites), np.int64)
    steps[sites] = np.arange(len(sites))
    return steps


def _last_steps(couplings: csr_array, sites: np.ndarray) -> np.ndarray:
    """Return for each step the one in which its spin is summed out."""
    steps = _steps(sites)
    last = np.arange(len(sites))
    rows = np.repeat(np.arange(len(sites)), np.diff(couplings.indptr))
    np.maximum.at(last, steps[rows], steps[couplings.indices])
    return last


def plan_elimination(couplings: csr_array, sites: np.ndarray) -> Elimination:
    """Work out what each step does.

    Parameters
    ----------
    couplings : csr_array, shape (n, n)
    sites : ndarray, shape (n,)
        The order.
    """
    steps, last = _steps(sites), _last_steps(couplings, sites)
    frontier: list[int] = []  # steps at which the spins of the frontier were taken
    widths = [0]
    neighbor_starts, removed_starts = [0], [0]
    neighbor_bits: list[int] = []
    neighbor_couplings: list[float] = []
    removed_bits: list[int] = []
    for step, site in enumerate(sites):
        bits = {taken: bit for bit, taken in enumerate(frontier)}
        row = slice(couplings.indptr[site], couplings.indptr[site + 1])
        for other, value in zip(steps[couplings.indices[row]], couplings.data[row], strict=True):
            if other < step:
                neighbor_bits.append(bits[other])
                neighbor_couplings.append(value)
        frontier.append(step)
        removed = [bit for bit, taken in enumerate(frontier) if last[taken] == step]
        removed_bits.extend(reversed(removed))
        frontier = [taken for taken in frontier if last[taken] != step]
        widths.append(len(frontier))
        neighbor_starts.append(len(neighbor_bits))
        removed_starts.append(len(removed_bits))
    integers = (np.array(x, np.int64) for x in (widths, neighbor_starts, neighbor_bits, removed_starts, removed_bits))
    widths_, neighbor_starts_, neighbor_bits_, removed_starts_, removed_bits_ = integers
    return Elimination(
        np.ascontiguousarray(sites, np.int64),
        widths_,
        neighbor_starts_,
        neighbor_bits_,
        np.array(neighbor_couplings, np.float64),
        removed_starts_,
        removed_bits_,
    )


@cached_njit()
def _log_add(x, y):
    if x < y:
        x, y = y, x
    return x + np.log1p(np.exp(y - x))


@cached_njit()
def _pair_fields(width, bits, couplings):
    """Sum of the couplings of a new spin with the spins of a frontier, for each of its states."""
    by_bit = np.zeros(width)
    for k in range(bits.size):
        by_bit[bits[k]] = couplings[k]
    fields = np.empty(1 << width)
    fields[0] = -by_bit.sum()
    for bit in range(width):
        size = 1 << bit
        for state in range(size):
            fields[state | size] = fields[state] + 2 * by_bit[bit]
    return fields


@cached_njit()
def _forward(table, field, coupling, pair_fields, removed):
    """Append a spin to the frontier, sum out the removed ones; log weights in and out, and their largest taken out."""
    size = table.size
    result = np.empty(2 * size)
    for state in range(size):
        u = field + coupling * pair_fields[state]
        result[state] = table[state] - u
        result[state + size] = table[state] + u
    size *= 2
    for bit in removed:
        size //= 2
        low = (1 << bit) - 1
        for state in range(size):
            off = ((state & ~low) << 1) | (state & low)
            result[state] = _log_add(result[off], result[off | (low + 1)])
    largest = result[:size].max()
    return result[:size] - largest, largest


@cached_njit()
def _backward(behind, ahead, field, coupling, pair_fields, removed):
    """Undo a step with what lies ahead of the new frontier: the same of the old one, and the means of the new spin.

    Returns
    -------
    before : ndarray
        Log weights of what lies ahead of the old frontier, the new spin included.
    spin_mean : float
        E[s] of the new spin.
    pair_mean : float
        E[s Σ_j J_j s_j] over its neighbors in the old frontier.
    """
    size = behind.size
    before, means = np.empty(size), np.empty(size)
    for state in range(size):
        u = field + coupling * pair_fields[state]
        down, up = state, state | size
        for bit in removed:
            low = (1 << bit) - 1
            down = ((down >> (bit + 1)) << bit) | (down & low)
            up = ((up >> (bit + 1)) << bit) | (up & low)
        log_down, log_up = ahead[down] - u, ahead[up] + u
        ratio = np.exp(-abs(log_up - log_down))
        before[state] = max(log_up, log_down) + np.log1p(ratio)
        means[state] = (1 - ratio) / (1 + ratio) * (1.0 if log_up > log_down else -1.0)
    before -= before.max()
    weights = behind + before
    largest = weights.max()
    total = spin_mean = pair_mean = 0.0
    for state in range(size):
        weight = np.exp(weights[state] - largest)
        total += weight
        spin_mean += weight * means[state]
        pair_mean += weight * means[state] * pair_fields[state]
    return before, spin_mean / total, pair_mean / total


@cached_njit()
def elimination_log_partition(
    sites, widths, neighbor_starts, neighbor_bits, neighbor_couplings, removed_starts, removed_bits, coupling, fields
):
    r"""Log partition function of spins and its derivatives.

    :math:`Z = \sum_s \exp(h \cdot s + \tfrac{c}{2} s^T J s)` by summing out the spins in the planned order, forward;
    the derivatives, which are means, from the sums over what lies ahead of each frontier, backward. Tables are kept
    for the first of every :math:`\sqrt{n}` steps only, and computed again in between.

    Parameters
    ----------
    sites, widths, neighbor_starts, neighbor_bits, neighbor_couplings, removed_starts, removed_bits : ndarray
        An `Elimination`.
    coupling : float
        c.
    fields : ndarray of float64, shape (n,)
        h.

    Returns
    -------
    log_z : float
    coupling_derivative : float
        ∂log Z/∂c = E[½ sᵀJs].
    spin_means : ndarray, shape (n,)
        ∂log Z/∂h = E[s].
    """
    n = sites.size
    stride = int(np.ceil(np.sqrt(n)))
    n_segments = (n + stride - 1) // stride

    first_tables = [np.zeros(1)]
    table = np.zeros(1)
    log_z = 0.0
    for step in range(n):
        if step and step % stride == 0:
            first_tables.append(table)
        neighbors = slice(neighbor_starts[step], neighbor_starts[step + 1])
        removed = removed_bits[removed_starts[step] : removed_starts[step + 1]]
        pair_fields = _pair_fields(widths[step], neighbor_bits[neighbors], neighbor_couplings[neighbors])
        table, largest = _forward(table, fields[sites[step]], coupling, pair_fields, removed)
        log_z += largest

    spin_means = np.zeros(n)
    coupling_derivative = 0.0
    ahead = np.zeros(1)
    for segment in range(n_segments - 1, -1, -1):
        begin, end = segment * stride, min((segment + 1) * stride, n)
        tables = [first_tables[segment]]
        for step in range(begin, end - 1):
            neighbors = slice(neighbor_starts[step], neighbor_starts[step + 1])
            removed = removed_bits[removed_starts[step] : removed_starts[step + 1]]
            pair_fields = _pair_fields(widths[step], neighbor_bits[neighbors], neighbor_couplings[neighbors])
            tables.append(_forward(tables[-1], fields[sites[step]], coupling, pair_fields, removed)[0])
        for step in range(end - 1, begin - 1, -1):
            neighbors = slice(neighbor_starts[step], neighbor_starts[step + 1])
            removed = removed_bits[removed_starts[step] : removed_starts[step + 1]]
            pair_fields = _pair_fields(widths[step], neighbor_bits[neighbors], neighbor_couplings[neighbors])
            ahead, spin_means[sites[step]], pair_mean = _backward(
                tables[step - begin], ahead, fields[sites[step]], coupling, pair_fields, removed
            )
            coupling_derivative += pair_mean
    return log_z, coupling_derivative, spin_means
