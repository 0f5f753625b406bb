"""Spiking neurons in continuous time, event by event.

A neuron that is off fires at the rate exp(u), in units of the refractory period; one that is on turns off after exactly
1. All periods are equally long, so neurons turn off in the order in which they fired: a queue holds them. The next
firing comes after an exponential time, of the sum of all rates, unless a neuron turns off before; then a new time is
drawn, since exponential times have no memory. Rates are computed where fields have changed, and summed by vectors.
"""

import math

import numpy as np
from numba import njit
from numba.extending import overload

from step_methods.kernels.spiking.couplings import Neighbors, enter, open_network, refresh, spread, width
from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.random import LANES, VECTOR_BYTES, fraction
from step_methods.kernels.vectors.simd import choose, clip, load, pointer_to, store, total
from step_methods.kernels.vectors.units import exp

# mypy: disable-error-code="no-untyped-def"

# Odds beyond exp(80) are not told apart: a neuron with a larger field fires at once, one with a smaller field than -80
# never. Rates can so be added up.
_LARGEST_FIELD = 80.0


# --- rates ------------------------------------------------------------------------------------------------------------


@njit(forceinline=True)
def _renew_group(network, first):
    """Compute the rates of the group from a place on, and their sum."""
    field = load(network.fields, first, VECTOR_BYTES)
    rate = exp(clip(field, -_LARGEST_FIELD, _LARGEST_FIELD))
    is_off = load(network.clocks, first, VECTOR_BYTES) < 0.5
    rate = choose(is_off, choose(field >= -_LARGEST_FIELD, rate, 0.0), 0.0)
    store(network.rates, first, rate)
    network.sums[first // width(network)] = total(rate)


@njit(forceinline=True)
def _renew_range(network, start, stop):
    n_lanes = width(network)
    for first in range(start // n_lanes * n_lanes, stop, n_lanes):
        _renew_group(network, first)


def _renew_others(network, place):
    """Compute the rates of all neurons whose fields change when the one at a place switches."""
    raise NotImplementedError


@overload(_renew_others, jit_options={"forceinline": True})
def _renew_others_of(network, place):
    couplings = network.types[network.fields.index("couplings")]
    return _renew_neighbors if couplings.instance_class is Neighbors else _renew_targets


def _renew_targets(network, place):
    n_first, target = network.couplings.n_first, network.couplings.target
    if place < n_first:
        _renew_range(network, target, network.n)
    else:
        _renew_range(network, 0, n_first)


def _renew_neighbors(network, place):
    starts, places = network.couplings.starts, network.couplings.places
    n_lanes = width(network)
    done = -1
    for k in range(starts[place], starts[place + 1]):
        first = places[k] // n_lanes * n_lanes
        if first != done:
            _renew_group(network, first)
            done = first


@njit(forceinline=True)
def _total_rate(network):
    result = 0.0
    for group in range(0, network.n_padded // width(network), LANES):
        result += total(load(network.sums, group, VECTOR_BYTES))
    return result


@njit
def _pick(network, target):
    """Place of the neuron in whose part of the sum of all rates a number falls."""
    n_lanes = width(network)
    group = 0
    for candidate in range(network.n_padded // width(network)):
        if network.sums[candidate] > 0.0:
            group = candidate
            if target < network.sums[candidate]:
                break
            target -= network.sums[candidate]
    place = 0
    for candidate in range(group * n_lanes, (group + 1) * n_lanes):
        if network.rates[candidate] > 0:
            place = candidate
            if target < network.rates[candidate]:
                break
            target -= network.rates[candidate]
    return place


# --- the queue of neurons that are on ---------------------------------------------------------------------------------


@njit
def _line_up(queue, ends, n_on):
    """Sort the first places of the queue by the times at which their neurons turn off (Shell's method)."""
    gap = 1
    while 3 * gap < n_on:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, n_on):
            place = queue[i]
            j = i
            while j >= gap and ends[queue[j - gap]] > ends[place]:
                queue[j] = queue[j - gap]
                j -= gap
            queue[j] = place
        gap //= 3


@njit
def _enter(network, residual, bias):
    """Take over the state of the units; return how many are on."""
    enter(network, residual, bias, 0.0)
    n_on = 0
    for place in range(residual.size):
        time_left = residual[network.unit_at[place]]
        network.ends[place] = time_left
        network.clocks[place] = time_left > 0.0
        if time_left > 0.0:
            network.queue[n_on] = place
            n_on += 1
    _line_up(network.queue, network.ends, n_on)
    return n_on


@njit
def _leave(network, residual, duration):
    for place in range(residual.size):
        is_on = network.clocks[place] > 0
        residual[network.unit_at[place]] = max(network.ends[place] - duration, 0.0) if is_on else 0.0


# --- events -----------------------------------------------------------------------------------------------------------


@njit
def _run(network, n_on, scale, duration, fresh_events, memory, counts, units, times):
    n = network.n
    queue, ends = network.queue, network.ends
    head = 0
    time = 0.0
    n_spikes = 0
    n_events = 0
    while True:
        if n_events % fresh_events == 0:
            refresh(network, scale)
            _renew_range(network, 0, n)
        rate = _total_rate(network)
        next_on = time - math.log(fraction(memory)) / rate
        next_off = ends[queue[head]] if n_on > 0 else np.inf
        if min(next_on, next_off) >= duration:
            break
        if next_on < next_off:
            time = next_on
            place = _pick(network, fraction(memory) * rate)
            tail = head + n_on
            queue[tail if tail < n else tail - n] = place
            n_on += 1
            ends[place] = time + 1.0
            unit = network.unit_at[place]
            counts[unit] += 1
            if n_spikes < units.size:
                units[n_spikes] = unit
                times[n_spikes] = time
            n_spikes += 1
            network.clocks[place] = 1
            spread(network.couplings, network.fields, place, scale)
        else:
            time = next_off
            place = queue[head]
            head = head + 1 if head + 1 < n else 0
            n_on -= 1
            network.clocks[place] = 0
            spread(network.couplings, network.fields, place, -scale)
        _renew_others(network, place)
        _renew_range(network, place, place + 1)
        n_events += 1
    return n_spikes


@kernel
def run_events(prepared, residual, bias, scale, duration, fresh_events, state, counts, units, times):
    """Run a network for a while; see `step_methods.kernels.spiking.network.run_continuous`.

    Fields are computed anew after every `fresh_events` events, before the rounding of their changes adds up.
    """
    network = open_network(prepared)
    n_on = _enter(network, residual, bias)
    memory = pointer_to(state, 0, np.uint64)
    n_spikes = _run(network, n_on, scale, duration, fresh_events, memory, counts, units, times)
    _leave(network, residual, duration)
    return n_spikes
