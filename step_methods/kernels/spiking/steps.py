"""Spiking neurons in discrete time, updated one after the other.

The neurons are cut into groups as large as a vector. What the neurons of a group would do is found for all at once,
given the present fields. Most only count down, and change nothing for others. The first one that switches is found; all
up to it have done what they do, its couplings are added to the fields, and the neurons after it are decided anew with
the same random numbers. The result is that of one update after another.

A block of neurons that do not interact needs no kernel of its own: to update them at once is to update them in turn.
"""

import math

import numpy as np
from numba import njit

from step_methods.kernels.spiking.couplings import NOISE, PICKS, enter, leave, open_network, refresh, spread, width
from step_methods.kernels.spiking.refractory import limits, may_fire, note, refractory_period, sharpen
from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.random import LANES, VECTOR_BYTES, close_stream, next_words, open_stream
from step_methods.kernels.vectors.simd import (
    choose,
    clip,
    count_ones,
    fill,
    int_to_mask,
    load,
    lowest_bit,
    mask_to_int,
    pointer_to,
    store,
    to_float,
)
from step_methods.kernels.vectors.units import Forced

# mypy: disable-error-code="no-untyped-def"

_ALL = np.uint64(2**64 - 1)
_ALL_BUT_FIRST = np.uint64(2**64 - 2)


@njit(forceinline=True)
def _lanes_between(first, start, stop, lanes):
    """Which lanes, as bits, of the group from a place on are places from `start` to `stop`."""
    low, high = max(start - first, 0), min(stop - first, lanes)
    below_high = _ALL >> np.uint64(64 - high)
    return (below_high >> np.uint64(low)) << np.uint64(low)


@njit(forceinline=True)
def _update_group(source, index, network, refractory, scale, first, lanes, limit):
    """Update some neurons of the group from a place on, one after the other; return who fired, as bits."""
    clock = load(network.clocks, first, VECTOR_BYTES)
    field = load(network.fields, first, VECTOR_BYTES)
    able = may_fire(source, refractory, network, first) & lanes
    stays_on = mask_to_int(clock >= 2.0)
    is_on = mask_to_int(clock >= 1.0)
    fired = np.uint64(0)
    decided = field
    if ((mask_to_int(limit < field) & able) | ((is_on ^ stays_on) & lanes)) != 0:
        fired, decided = _update_in_turn(
            network, scale, first, lanes, able, is_on, stays_on, sharpen(source, refractory, network, first, limit)
        )
    note(source, refractory, index, network, first, decided, able)
    next_clock = choose(int_to_mask(fired, field), fill(field, refractory.tau), clip(clock - 1.0, 0.0, np.inf))
    store(network.clocks, first, choose(int_to_mask(lanes, field), next_clock, clock))
    return fired


@njit(forceinline=True)
def _update_in_turn(network, scale, first, lanes, able, is_on, stays_on, limit):
    """Update neurons of a group some of which fire or turn off; return who fired, and the fields on that it hung."""
    field = load(network.fields, first, VECTOR_BYTES)
    decided = field
    fired = np.uint64(0)
    left = lanes  # neurons that are not decided on yet
    while True:
        firing = mask_to_int(limit < field) & able & left
        decided = choose(int_to_mask(left, field), field, decided)
        switching = ((firing | stays_on) ^ is_on) & left
        if switching == 0:
            return fired | firing, decided
        lane = lowest_bit(switching)
        after = _ALL_BUT_FIRST << lane
        fired = fired | (firing & ~after)
        left = left & after
        turns_off = (is_on >> lane) & np.uint64(1)
        spread(network.couplings, network.fields, first + np.int64(lane), scale - 2 * scale * np.int64(turns_off))
        field = load(network.fields, first, VECTOR_BYTES)


@njit(forceinline=True)
def _list_of(counts, units, times):
    return pointer_to(counts, 0, counts), units.size, pointer_to(units, 0, units), pointer_to(times, 0, times)


@njit(forceinline=True)
def _record(spikes, n_spikes, network, first, fired, step):
    """Count and list those who fired; return how many spikes there are now."""
    counts, capacity, units, times = spikes
    while fired:
        unit = network.unit_at[first + np.int64(lowest_bit(fired))]
        counts[unit] += 1
        if n_spikes < capacity:
            units[n_spikes] = unit
            times[n_spikes] = step
        n_spikes += 1
        fired &= fired - np.uint64(1)
    return n_spikes


@njit(forceinline=True)
def _update_range(source, index, network, refractory, scale, start, stop, spikes, n_spikes, step):
    """Update the neurons from place `start` to `stop`; return the numbers of spikes and decisions made until now."""
    n_lanes = width(network)
    for first in range(start // n_lanes * n_lanes, stop, n_lanes):
        lanes = _lanes_between(first, start, stop, n_lanes)
        field = load(network.fields, first, VECTOR_BYTES)
        able = may_fire(source, refractory, network, first) & lanes
        limit, source = limits(source, index, network, field, able)
        fired = _update_group(source, index, network, refractory, scale, first, lanes, limit)
        n_spikes = _record(spikes, n_spikes, network, first, fired, step)
        index += np.int64(count_ones(int_to_mask(able, field)))
    return n_spikes, index, source


@njit(forceinline=True)
def _update_picks(source, network, refractory, scale, spikes, n_spikes, step):
    """Update as many neurons as there are, each picked at random from all of them."""
    n = network.n
    like = load(network.fields, 0, VECTOR_BYTES)
    n_lanes = width(network)
    picks = pointer_to(network.scratch, PICKS, np.float64)
    noise = pointer_to(network.scratch, NOISE, like)
    for done in range(0, n, LANES):
        words, source = next_words(source)
        store(picks, 0, to_float(words >> 11) * (n * 2.0**-53))
        limit, source = limits(source, 0, network, like, np.uint64(0))
        store(noise, 0, limit)
        for i in range(min(LANES, n - done)):
            place = min(np.int64(picks[i]), n - 1)
            first = place // n_lanes * n_lanes
            lanes = np.uint64(1) << np.uint64(place - first)
            fired = _update_group(source, 0, network, refractory, scale, first, lanes, fill(like, noise[i]))
            n_spikes = _record(spikes, n_spikes, network, first, fired, step)
    return n_spikes, source


@njit
def _run(source, network, refractory, scale, n_steps, is_random, fresh_steps, spikes):
    n = network.n
    n_spikes = 0
    for step in range(n_steps):
        if step % fresh_steps == 0:
            refresh(network, scale)
        if is_random:
            n_spikes, source = _update_picks(source, network, refractory, scale, spikes, n_spikes, step)
        else:
            n_spikes, _, source = _update_range(source, 0, network, refractory, scale, 0, n, spikes, n_spikes, step)
    return n_spikes, source


@kernel
def run_steps(prepared, clocks, bias, scale, tau, g, n_steps, is_random, fresh_steps, state, counts, units, times):
    """Update all neurons `n_steps` times; see `step_methods.kernels.spiking.network.run_spiking`.

    Fields are computed anew after every `fresh_steps` steps, before the rounding of their changes adds up.
    """
    network = open_network(prepared)
    refractory = refractory_period(tau, g)
    enter(network, clocks, bias, math.log(tau))
    n_spikes, stream = _run(
        open_stream(state), network, refractory, scale, n_steps, is_random, fresh_steps, _list_of(counts, units, times)
    )
    close_stream(stream)
    leave(network, clocks)
    return n_spikes


@kernel
def force_steps(prepared, clocks, bias, scale, tau, g, start, stop, counts, bits, probabilities):
    """`run_steps`, once for the neurons from place `start` to `stop`, in turn, with forced decisions."""
    network = open_network(prepared)
    refractory = refractory_period(tau, g)
    enter(network, clocks, bias, math.log(tau))
    refresh(network, scale)
    source = Forced(bits, probabilities)
    spikes = _list_of(counts, clocks[:0], clocks[:0])
    _, n_decisions, _ = _update_range(source, 0, network, refractory, scale, start, stop, spikes, 0, 0)
    leave(network, clocks)
    return n_decisions
