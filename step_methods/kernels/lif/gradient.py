"""Leaky integrate-and-fire neurons with refractoriness: a whole run of many networks, and its gradient.

One step of `dt` of a neuron with membrane voltage v, synaptic current i and refractory counter ρ, of which a step
keeps those after it in v', i', ρ'::

    j  = i + Σ W_in x + Σ W_rec z              spikes x of the inputs now, z of the neurons in the step before
    u  = v + (dt/τ_mem) (v_leak − v + j)
    i' = (1 − dt/τ_syn) j
    s  = [u > v_th]
    ρ  = 0:  v' = v_reset if s else u,   z' = s,   ρ' = ρ_reset if s else 0
    ρ >= 1:  v' = v,                     z' = 0,   ρ' = ρ − 1

The gradient is that of back-propagation through time, in which both steps, [u > v_th] and [ρ >= 1], have the
derivative 1 / (α ``|x|`` + 1)² of the surrogate [1]_, and none goes through the reset.

Input spikes come as events: those of row ``step * n_chains + chain`` are ``sources[offsets[row]:offsets[row + 1]]``,
the numbers of the inputs that spike. Few do in any step, so that only their weights are touched. The neurons' own
spikes are kept in the same way.

All arrays over neurons have a multiple of `lanes` columns, so that they are processed side by side in registers;
the columns beyond the neurons hold zeros, and such neurons never fire.

References
----------
.. [1] F. Zenke and S. Ganguli, "SuperSpike: supervised learning in multilayer spiking neural networks", Neural
   Computation 30 (2018) 1514, section 3.3.2.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.random import fraction
from step_methods.kernels.vectors.simd import (
    absolute,
    as_vector_of,
    choose,
    count_ones,
    int_to_mask,
    load,
    mask_to_int,
    store,
)

# mypy: disable-error-code="no-untyped-def"

VECTOR_BYTES = 128
_ONE = np.uint64(1)


def lanes(dtype):
    """Of how many columns all arrays over neurons have a multiple."""
    return VECTOR_BYTES // dtype.itemsize


class Neurons(NamedTuple):
    """Constants of the neurons, all of one float type."""

    leak: Any
    """Resting voltages, one per column."""
    decay_membrane: Any
    """dt/τ_mem."""
    decay_synapse: Any
    """dt/τ_syn."""
    threshold: Any
    """Above the resting voltage 0 of the columns beyond the neurons."""
    reset: Any
    refractory_steps: Any
    """ρ_reset, a whole number."""
    sharpness: Any
    """α of the surrogate."""


class State(NamedTuple):
    """What is carried from step to step, each (n_chains, n_columns)."""

    spikes: Any
    voltages: Any
    currents: Any
    counters: Any


class Record(NamedTuple):
    """What a run leaves, each (n_steps, n_chains, n_columns)."""

    refractory: Any
    """[ρ' >= 1]."""
    spikes: Any
    """z'."""
    voltages: Any
    """v'."""
    potentials: Any
    """u."""
    counters: Any
    """ρ'."""


class Events(NamedTuple):
    """Spikes of some cells: those of a row are ``sources[offsets[row]:offsets[row + 1]]``."""

    offsets: Any
    """int64, (n_rows + 1,)."""
    sources: Any
    """int32, numbers of the cells that spike."""


@kernel
def place_poisson_spikes(state, log_silence, n_inputs, offsets, sources, cursor):
    """Draw which inputs spike in which row, each with the same probability, until `sources` is full or all is done.

    The silent cells between two spikes are geometrically distributed, so that only spikes cost random numbers.

    Parameters
    ----------
    state : numpy.ndarray
        From `random.seed_stream`; advanced in place.
    log_silence : float
        Logarithm of the probability that an input is silent.
    n_inputs : int
    offsets : numpy.ndarray of int64, (n_rows + 1,)
        Where the spikes of each row start, and where those of the last end.
    sources : numpy.ndarray of int32
        The inputs that spike.
    cursor : numpy.ndarray of int64, (3,)
        Row and input at which to go on, and the number of spikes so far; all are at an end once the row is n_rows.
    """
    memory = state.ravel()
    n_rows = len(offsets) - 1
    row, column, n_spikes = cursor[0], cursor[1], cursor[2]
    n_cells = n_rows * n_inputs
    while row < n_rows and n_spikes < len(sources):
        gap = math.floor(math.log(fraction(memory)) / log_silence)
        column += int(min(gap, n_cells))
        while column >= n_inputs and row < n_rows:
            column -= n_inputs
            row += 1
            offsets[row] = n_spikes
        if row < n_rows:
            sources[n_spikes] = column
            n_spikes += 1
            column += 1
    cursor[0], cursor[1], cursor[2] = row, column, n_spikes


@njit(error_model="numpy", forceinline=True)
def _list_spikes(spikes, start, n_columns, events, row):
    """Write the cells that are nonzero among ``spikes[start:start + n_columns]`` down as a row of `events`."""
    n_lanes = VECTOR_BYTES // spikes.itemsize
    count = events.offsets[row]
    for group in range(0, n_columns, n_lanes):
        fired = load(spikes, start + group, VECTOR_BYTES) != 0.0
        bits = mask_to_int(fired)
        while bits != np.uint64(0):
            rest = bits & (bits - _ONE)
            below = (bits ^ rest) - _ONE
            events.sources[count] = group + count_ones(int_to_mask(below, fired))
            count += 1
            bits = rest
    events.offsets[row + 1] = count


@kernel
def run_lif(inputs, input_weights, recurrent_weights, neurons, state, record, spikes):
    """Run all chains.

    Parameters
    ----------
    inputs : Events
        Spikes of the inputs, in rows ``step * n_chains + chain``.
    input_weights : numpy.ndarray, (n_inputs, n_columns)
        Row k holds the weights from input k.
    recurrent_weights : numpy.ndarray, (n_neurons, n_columns)
        Row k holds the weights from neuron k.
    neurons : Neurons
    state : State
        Where to start; changed in place to where the run ends.
    record : Record
        Filled.
    spikes : Events
        Filled with the neurons' spikes: first a row for each chain of those before the first step, then as `inputs`.
        Has room for all neurons to fire in all of these rows.
    """
    n_steps, n_chains, n_columns = record.spikes.shape
    n_lanes = VECTOR_BYTES // record.spikes.itemsize
    spikes.offsets[0] = 0
    for chain in range(n_chains):
        _list_spikes(state.spikes, chain * n_columns, n_columns, spikes, chain)
    for step in range(n_steps):
        for chain in range(n_chains):
            row = step * n_chains + chain
            for group in range(0, n_columns, n_lanes):
                here, there = chain * n_columns + group, row * n_columns + group
                j = load(state.currents, here, VECTOR_BYTES)
                for event in range(inputs.offsets[row], inputs.offsets[row + 1]):
                    j = j + load(input_weights, inputs.sources[event] * n_columns + group, VECTOR_BYTES)
                for event in range(spikes.offsets[row], spikes.offsets[row + 1]):
                    j = j + load(recurrent_weights, spikes.sources[event] * n_columns + group, VECTOR_BYTES)

                v = load(state.voltages, here, VECTOR_BYTES)
                rho = load(state.counters, here, VECTOR_BYTES)
                u = v + neurons.decay_membrane * ((load(neurons.leak, group, VECTOR_BYTES) - v) + j)
                held = rho >= 1.0
                crosses = as_vector_of(neurons.threshold < u, record.spikes)
                z = choose(held, 0.0 * u, crosses)
                v = choose(held, v, choose(crosses >= 1.0, 0.0 * v + neurons.reset, u))
                rho = choose(z >= 1.0, 0.0 * rho + neurons.refractory_steps, choose(held, rho - 1.0, 0.0 * rho))
                j = j - neurons.decay_synapse * j

                store(state.spikes, here, z)
                store(state.voltages, here, v)
                store(state.currents, here, j)
                store(state.counters, here, rho)
                store(record.refractory, there, as_vector_of(rho >= 1.0, record.spikes))
                store(record.spikes, there, z)
                store(record.voltages, there, v)
                store(record.potentials, there, u)
                store(record.counters, there, rho)
            _list_spikes(state.spikes, chain * n_columns, n_columns, spikes, row + n_chains)


class Adjoint(NamedTuple):
    """Derivatives of the loss by what a step leaves to the next, each (n_chains, n_columns)."""

    spikes: Any
    voltages: Any
    currents: Any
    counters: Any


@njit(error_model="numpy", forceinline=True)
def _surrogate(x, sharpness):
    y = sharpness * absolute(x) + 1.0
    return 1.0 / (y * y)


@njit(error_model="numpy", forceinline=True)
def _add_at(gradient, index, value):
    store(gradient, index, load(gradient, index, VECTOR_BYTES) + value)


@kernel
def differentiate_lif(
    inputs,
    spikes,
    recurrent_weights,
    neurons,
    start,
    record,
    gradients,
    adjoint,
    jumps,
    input_gradient,
    recurrent_gradient,
):
    """Propagate derivatives of a loss back through a run.

    Parameters
    ----------
    inputs, spikes : Events
        As `run_lif` takes and leaves them.
    recurrent_weights : numpy.ndarray, (n_neurons, n_columns)
        Row n holds the weights to neuron n: transposed to those of `run_lif`.
    neurons : Neurons
    start : State
        Where the run started.
    record : Record
        What it left.
    gradients : tuple of numpy.ndarray, (n_steps, n_chains, n_columns)
        Derivatives of the loss by the record's `refractory`, `spikes` and `voltages`; one that is zero may have no
        steps.
    adjoint : Adjoint
        Scratch, zero at the start.
    jumps : numpy.ndarray, (n_columns,)
        Scratch.
    input_gradient, recurrent_gradient : numpy.ndarray
        Zero at the start; filled, in the layout of the weights of `run_lif`.
    """
    n_steps, n_chains, n_columns = record.spikes.shape
    n_lanes = VECTOR_BYTES // record.spikes.itemsize
    n_neurons = len(recurrent_weights)
    by_refractory, by_spikes, by_voltages = gradients
    for step in range(n_steps - 1, -1, -1):
        for chain in range(n_chains):
            row = step * n_chains + chain
            for group in range(0, n_columns, n_lanes):
                here, there = chain * n_columns + group, row * n_columns + group
                before = there - n_chains * n_columns
                if step > 0:
                    v = load(record.voltages, before, VECTOR_BYTES)
                    rho = load(record.counters, before, VECTOR_BYTES)
                else:
                    v = load(start.voltages, here, VECTOR_BYTES)
                    rho = load(start.counters, here, VECTOR_BYTES)
                u = load(record.potentials, there, VECTOR_BYTES)
                zero = 0.0 * rho
                held = rho >= 1.0
                fires = neurons.threshold < u
                left = choose(held, rho - 1.0, zero)

                by_counter = load(adjoint.counters, here, VECTOR_BYTES)
                if len(by_refractory) > 0:
                    outer = load(by_refractory, there, VECTOR_BYTES)
                    counter = load(record.counters, there, VECTOR_BYTES)
                    by_counter = by_counter + outer * _surrogate(counter, neurons.sharpness)
                by_spike = load(adjoint.spikes, here, VECTOR_BYTES)
                if len(by_spikes) > 0:
                    by_spike = by_spike + load(by_spikes, there, VECTOR_BYTES)
                by_voltage = load(adjoint.voltages, here, VECTOR_BYTES)
                if len(by_voltages) > 0:
                    by_voltage = by_voltage + load(by_voltages, there, VECTOR_BYTES)

                by_spike = by_spike + by_counter * (neurons.refractory_steps - left)
                by_left = choose(left >= 1.0, by_counter, zero)
                clamped = choose(fires, zero + neurons.reset, u)
                by_held = by_voltage * (v - clamped) - choose(fires, by_spike, zero) - by_left
                by_potential = by_spike * _surrogate(u - neurons.threshold, neurons.sharpness)
                by_potential = choose(held, zero, by_potential + choose(fires, zero, by_voltage))
                jump = by_potential * neurons.decay_membrane
                jump = jump + load(adjoint.currents, here, VECTOR_BYTES) * (1.0 - neurons.decay_synapse)

                store(adjoint.counters, here, by_left + by_held * _surrogate(rho, neurons.sharpness))
                passed = by_potential * (1.0 - neurons.decay_membrane)
                store(adjoint.voltages, here, passed + choose(held, by_voltage, zero))
                store(adjoint.currents, here, jump)
                store(jumps, group, jump)
                for event in range(inputs.offsets[row], inputs.offsets[row + 1]):
                    _add_at(input_gradient, inputs.sources[event] * n_columns + group, jump)
                for event in range(spikes.offsets[row], spikes.offsets[row + 1]):
                    _add_at(recurrent_gradient, spikes.sources[event] * n_columns + group, jump)
            for group in range(0, n_columns, n_lanes):
                total = jumps[0] * load(recurrent_weights, group, VECTOR_BYTES)
                for n in range(1, n_neurons):
                    total = total + jumps[n] * load(recurrent_weights, n * n_columns + group, VECTOR_BYTES)
                store(adjoint.spikes, chain * n_columns + group, total)
