"""One chain of a Boltzmann network with pairwise couplings: block Gibbs sweeps, energies.

Units are bits z with energy -bias.z - scale/2 z.J.z, and so with fields u = bias + scale J z. The scale and the biases
are arguments of every call, since they may change at every step. J is prepared once, in the way that is fastest:

======================================= ==================== ===================================================
one coupling along each axis of a       `pairwise_lattice`   checkerboard; no index is read for any unit
lattice
few couplings                           `pairwise_sparse`    color by color; sums over lists of neighbors
many couplings                          `pairwise_dense`     unit after unit; fields follow every change
======================================= ==================== ===================================================

The order of the units in a sweep is fixed, and another one in each of the three. Where blocks of units are given, or
picked at random, the sparse form runs: its colors are then the blocks.
"""

from typing import Any

import numpy as np
import scipy.sparse

from step_methods.kernels.pairwise.dense import energy_dense, prepare_dense, sweep_dense, sweep_dense_forced
from step_methods.kernels.pairwise.lattice import (
    count_vectors,
    energy_lattice,
    find_lattice,
    prepare_lattice,
    sweep_lattice,
    sweep_lattice_forced,
)
from step_methods.kernels.pairwise.sparse import (
    color_units,
    energy_sparse,
    prepare_sparse,
    refill_sparse,
    sweep_sparse,
    sweep_sparse_forced,
    update_sparse,
    update_sparse_forced,
)
from step_methods.kernels.vectors.random import VECTOR_BYTES

# Which kernels to call, and what these take. No compiled function is in it, so that it can be pickled.
type PreparedPairwise = tuple[str, tuple[Any, ...]]

_SWEEP = {"lattice": sweep_lattice, "sparse": sweep_sparse, "dense": sweep_dense}
_SWEEP_FORCED = {"lattice": sweep_lattice_forced, "sparse": sweep_sparse_forced, "dense": sweep_dense_forced}
_ENERGY = {"lattice": energy_lattice, "sparse": energy_sparse, "dense": energy_dense}

# Measured, in nanoseconds; only their ratios matter.
_LATTICE_VECTOR = 19.0
_SPARSE_ENTRY, _SPARSE_VECTOR, _SPARSE_COLOR = 0.7, 13.0, 60.0
_DENSE_UNIT, _DENSE_GROUP = 7.0, 1.0
_LARGEST_DENSE = 2**28  # bytes


def prepare_pairwise(J: scipy.sparse.csr_array) -> PreparedPairwise:
    """Arrange the couplings of a network for the kernels.

    Parameters
    ----------
    J : csr_array
        Symmetric couplings (n, n) with a zero diagonal, float32 or float64.

    Returns
    -------
    tuple
        What the other functions here call `network`: opaque, and for one thread (it holds scratch memory). The
        couplings are copied.
    """
    J = J.copy()
    J.sum_duplicates()
    J.eliminate_zeros()
    n = J.shape[0]
    lanes = VECTOR_BYTES // J.dtype.itemsize
    colors = color_units(J)
    counts = np.bincount(colors)
    n_vectors = int((-(-counts // lanes)).sum())
    costs = {"sparse": J.nnz * _SPARSE_ENTRY + n_vectors * _SPARSE_VECTOR + counts.size * _SPARSE_COLOR}
    if n * n * J.dtype.itemsize <= _LARGEST_DENSE:
        costs["dense"] = n * (_DENSE_UNIT + -(-n // lanes) * _DENSE_GROUP)
    lattice = find_lattice(J)
    if lattice is not None:
        costs["lattice"] = count_vectors(lattice[0], lanes) * _LATTICE_VECTOR

    kind = min(costs, key=lambda kind: costs[kind])
    if kind == "lattice" and lattice is not None:
        return kind, prepare_lattice(*lattice)
    return kind, prepare_dense(J) if kind == "dense" else prepare_sparse(J, colors)


def prepare_in_order(J: scipy.sparse.csr_array) -> PreparedPairwise:
    """Arrange the couplings so that a sweep goes through the units one by one in the order of their indices.

    Parameters
    ----------
    J : csr_array
        As in `prepare_pairwise`.
    """
    n = J.shape[0]
    if n * n * J.dtype.itemsize <= _LARGEST_DENSE:
        return "dense", prepare_dense(J)
    return prepare_blocks(J, np.arange(n))


def prepare_blocks(J: scipy.sparse.csr_array, blocks: np.ndarray) -> PreparedPairwise:
    """Arrange the couplings so that a sweep goes from block to block.

    Parameters
    ----------
    J : csr_array
        As in `prepare_pairwise`.
    blocks : ndarray of int, shape (n,)
        The block of each unit, 0, 1, 2, ..., none left out. Units of one block must not interact.
    """
    return "sparse", prepare_sparse(J, blocks)


def refill_blocks(network: PreparedPairwise, J: scipy.sparse.csr_array) -> None:
    """Put other couplings, stored at the same places, into a network made by `prepare_blocks`."""
    refill_sparse(network[1], J)


def sweep_pairwise(
    network: PreparedPairwise, z: np.ndarray, bias: np.ndarray, scale: float, n_sweeps: int, state: np.ndarray
) -> int:
    """Gibbs sweeps, in place: each draws every unit once from its distribution given the others.

    Parameters
    ----------
    network : tuple
        From `prepare_pairwise`.
    z : ndarray
        State of the chain, (n,), contiguous, zeros and ones of any type.
    bias : ndarray
        (n,), contiguous, of the float type of the couplings; may be infinite, which clamps a unit.
    scale : float
        By which all couplings are multiplied.
    n_sweeps : int
    state : ndarray
        From `step_methods.kernels.vectors.random.seed_stream`; advanced in place.

    Returns
    -------
    int
        How many times a unit changed its value.
    """
    kind, arrays = network
    return _SWEEP[kind](arrays, z, bias, float(scale), n_sweeps, state)


def sweep_pairwise_forced(
    network: PreparedPairwise,
    z: np.ndarray,
    bias: np.ndarray,
    scale: float,
    n_sweeps: int,
    bits: np.ndarray,
    probabilities: np.ndarray,
) -> int:
    """`sweep_pairwise` with forced decisions: see the conventions in `step_methods.kernels`."""
    kind, arrays = network
    return _SWEEP_FORCED[kind](arrays, z, bias, float(scale), n_sweeps, bits, probabilities)


def update_blocks(
    network: PreparedPairwise, z: np.ndarray, bias: np.ndarray, scale: float, picks: np.ndarray, state: np.ndarray
) -> int:
    """Draw the units of some blocks, one block after the other, in place.

    Parameters
    ----------
    network : tuple
        From `prepare_blocks`.
    z, bias, scale, state
        As in `sweep_pairwise`.
    picks : ndarray of int64
        Numbers of the blocks, in the order in which they are updated.

    Returns
    -------
    int
        How many times a unit changed its value.
    """
    return update_sparse(network[1], z, bias, float(scale), picks, state)


def update_blocks_forced(
    network: PreparedPairwise,
    z: np.ndarray,
    bias: np.ndarray,
    scale: float,
    picks: np.ndarray,
    bits: np.ndarray,
    probabilities: np.ndarray,
) -> int:
    """`update_blocks` with forced decisions: see the conventions in `step_methods.kernels`."""
    return update_sparse_forced(network[1], z, bias, float(scale), picks, bits, probabilities)


def order_of_decisions(network: PreparedPairwise, bias: np.ndarray) -> np.ndarray:
    """Return the units in the order in which a sweep decides on them, found by forcing numbers into their bits."""
    n = bias.size
    numbers = np.arange(n)
    decided_as = np.zeros(n, np.int64)
    free = np.zeros_like(bias)  # a unit that an infinite bias holds at zero takes no bit
    for digit in range(n.bit_length()):
        z = np.zeros(n, np.uint8)
        sweep_pairwise_forced(network, z, free, 1.0, 1, (numbers >> digit & 1).astype(np.uint8), np.empty(n))
        decided_as |= z.astype(np.int64) << digit
    return np.argsort(decided_as)


def energy_pairwise(network: PreparedPairwise, z: np.ndarray, bias: np.ndarray, scale: float) -> float:
    """Energy -bias.z - scale/2 z.J.z of a state; arguments as in `sweep_pairwise`."""
    kind, arrays = network
    return _ENERGY[kind](arrays, z, bias, float(scale))
