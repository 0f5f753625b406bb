"""One chain of a network of spiking neurons whose states z are samples of a Boltzmann network (Buesing et al. [1]_).

A neuron is on, z = 1, for a refractory period after each of its spikes; what is left of that is its clock, and the
state of the chain. Units have energy -bias.z - scale/2 z.J.z, and so fields u = bias + scale J z, as in
`pairwise.network`; but fields follow every neuron that switches, and nothing is computed for the others.

==================== ===============================================================
`spiking_network`    what a network is made of, and its fields
`spiking_refractory` absolute and relative refractory periods
`spiking_steps`      discrete time
`spiking_events`     continuous time
==================== ===============================================================

References
----------
.. [1] L. Buesing, J. Bill, B. Nessler and W. Maass, "Neural dynamics as sampling: a model for stochastic computation in
   recurrent networks of spiking neurons", PLoS Comput. Biol. 7 (2011) e1002211.
"""

import math
from typing import Literal

import numpy as np
import scipy.sparse

from step_methods.kernels.spiking.couplings import (
    PreparedNetwork,
    order_by_color,
    prepare_layers,
    prepare_neighbors,
    prepare_rows,
)
from step_methods.kernels.spiking.events import run_events
from step_methods.kernels.spiking.steps import force_steps, run_steps
from step_methods.kernels.vectors.jit import kernel

type Order = Literal["sequential", "random", "blocks"]
# Whether neurons are picked at random, where in the order of updates each stage starts and the last one ends, and what
# the kernels take.
type PreparedSpiking = tuple[bool, np.ndarray, PreparedNetwork]

# Fields are computed anew after so many refractory periods, or in continuous time events for each neuron.
_FRESH_PERIODS = 16

# Measured, in nanoseconds, for a neuron that switches; only their ratio matters.
_NEIGHBOR, _ROW_BYTE = 0.6, 0.018
_LARGEST_ROWS = 2**28  # bytes


def prepare_spiking(J: scipy.sparse.csr_array, order: Order) -> PreparedSpiking:
    """Arrange the couplings of a network for the kernels.

    Parameters
    ----------
    J : csr_array
        Symmetric couplings (n, n) with a zero diagonal, float32 or float64.
    order : {"sequential", "random", "blocks"}
        In which neurons are updated. A step of discrete time is made of stages: one neuron after the other in the order
        of its index; as many neurons as there are, each picked at random; one block of neurons that do not interact
        after the other, all neurons of a block at once. For continuous time it does not matter.

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
    places, sizes = np.arange(n), np.ones(n, np.int64)
    if order == "blocks":
        places, sizes = order_by_color(J)
    n_bytes = n * n * J.dtype.itemsize
    rows_are_faster = n_bytes * _ROW_BYTE <= J.nnz * _NEIGHBOR and n_bytes <= _LARGEST_ROWS
    prepare = prepare_rows if rows_are_faster else prepare_neighbors
    return order == "random", _bounds(sizes), prepare(J, places)


def prepare_restricted(W: np.ndarray, order: Order) -> PreparedSpiking:
    """Arrange the couplings of a restricted network; its units are the hidden ones, then the visible ones.

    Parameters
    ----------
    W : ndarray
        Couplings (n_visible, n_hidden), float32 or float64.
    order : {"sequential", "random", "blocks"}
        As in `prepare_spiking`; the blocks are the two layers.
    """
    n_visible, n_hidden = W.shape
    sizes = [n_hidden, n_visible] if order == "blocks" else [1] * (n_hidden + n_visible)
    return order == "random", _bounds(np.array(sizes)), prepare_layers(W)


def refill_restricted(network: PreparedSpiking, W: np.ndarray) -> None:
    """Put other couplings, of the same shape and type, into a network made by `prepare_restricted`."""
    to_visible, to_hidden, n_hidden = network[2][0]
    to_visible[:, : W.shape[0]] = W.T
    to_hidden[:, :n_hidden] = W


def count_stages(network: PreparedSpiking) -> int:
    """Number of stages that a step is made of."""
    return network[1].size - 1


def spike_bound(n_neurons: int, n_periods: float) -> int:
    """The most spikes that so many neurons can fire in so many refractory periods, unless these are relative."""
    return n_neurons * (math.ceil(n_periods) + 1)


def run_spiking(
    network: PreparedSpiking,
    zeta: np.ndarray,
    bias: np.ndarray,
    scale: float,
    tau: int,
    g: np.ndarray | None,
    n_steps: int,
    stream: np.ndarray,
    counts: np.ndarray,
    raster_units: np.ndarray,
    raster_times: np.ndarray,
) -> int:
    """Run a network in discrete time.

    Parameters
    ----------
    network : tuple
        From `prepare_spiking` or `prepare_restricted`.
    zeta : ndarray of int, shape (n,)
        Steps that each neuron is still on; z = [zeta >= 1]. Changed in place.
    bias : ndarray, shape (n,)
        Of the float type of the couplings; may be infinite, the neuron then always or never fires when it may.
    scale : float
        By which all couplings are multiplied.
    tau : int
        Refractory period in steps.
    g : ndarray or None
        With None the period is absolute, and the Boltzmann distribution invariant, with zeta uniform on 1, ..., tau
        given z = 1. Otherwise the period is relative (`step_methods.kernels.spiking.refractory`), and g (tau + 1,), of
        the float type of the couplings, says by what the probability to fire is multiplied for each value of
        zeta; 0 <= g <= 1, and g(0) = g(1) = 1.
    n_steps : int
        Steps; in each all neurons are updated, one after the other.
    stream : ndarray
        From `step_methods.kernels.vectors.random.seed_stream`; advanced in place.
    counts : ndarray of int64, shape (n,)
        To these the numbers of spikes are added. A spike sets zeta to tau, whether the neuron was off or not.
    raster_units, raster_times : ndarray of int32, shape (capacity,)
        Become neuron and step of each spike, as many as there is room for.

    Returns
    -------
    int
        Number of spikes.
    """
    is_random, _, prepared = network
    return run_steps(
        prepared,
        zeta,
        bias,
        float(scale),
        tau,
        g,
        n_steps,
        is_random,
        _FRESH_PERIODS * tau,
        stream,
        counts,
        raster_units,
        raster_times,
    )


def force_spiking(
    network: PreparedSpiking,
    zeta: np.ndarray,
    bias: np.ndarray,
    scale: float,
    tau: int,
    g: np.ndarray | None,
    stage: int | None,
    bits: np.ndarray,
    probabilities: np.ndarray,
) -> int:
    """One stage of a step, or all in turn (None), with forced decisions: see the conventions in `step_methods.kernels`.

    Only neurons that may fire take a decision. Other parameters are as in `run_spiking`.
    """
    _, bounds, prepared = network
    start, stop = (bounds[0], bounds[-1]) if stage is None else (bounds[stage], bounds[stage + 1])
    counts = np.zeros(zeta.size, np.int64)
    return force_steps(prepared, zeta, bias, float(scale), tau, g, start, stop, counts, bits, probabilities)


def run_continuous(
    network: PreparedSpiking,
    residual: np.ndarray,
    bias: np.ndarray,
    scale: float,
    duration: float,
    stream: np.ndarray,
    counts: np.ndarray,
    raster_units: np.ndarray,
    raster_times: np.ndarray,
) -> int:
    """Run a network in continuous time, whose unit is the refractory period.

    A neuron that is off fires at the rate exp(u), and is then on for a time of 1. The Boltzmann distribution is
    invariant, with a residual time uniform on (0, 1] given z = 1. The state at the end is the one at a given time;
    states at events have another distribution.

    Parameters
    ----------
    network, bias, scale, stream, counts, raster_units
        As in `run_spiking`.
    residual : ndarray of float64, shape (n,)
        Time that each neuron is still on, in (0, 1], or 0 if it is off. Changed in place.
    duration : float
        For how long.
    raster_times : ndarray of float64, shape (capacity,)
        Become the times of the spikes, from the start of the run.

    Returns
    -------
    int
        Number of spikes.
    """
    return run_events(
        network[2],
        residual,
        bias,
        float(scale),
        float(duration),
        _FRESH_PERIODS * residual.size,
        stream,
        counts,
        raster_units,
        raster_times,
    )


def pair_energy(network: PreparedSpiking) -> float:
    """Energy -scale/2 z.J.z of the state in which the last run has ended, from its fields.

    NaN if a neuron that is on has an infinite bias.
    """
    _, place_of, _, bias, fields, clocks, *_ = network[2]
    return _pair_energy(place_of.size, bias, fields, clocks)


@kernel
def _pair_energy(n, bias, fields, clocks):
    energy = 0.0
    for place in range(n):
        if clocks[place] > 0:
            energy -= 0.5 * (fields[place] - bias[place])
    return energy


def _bounds(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
