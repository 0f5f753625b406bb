r"""Refractory periods: when a neuron may fire, given the steps that it is still on.

With an absolute period of tau steps, a neuron that is off or in its last step fires with probability f = sigmoid(u −
log tau), any other with probability 0 (Buesing et al. [1]_). With a relative one it fires with probability f(u) g(ζ),
where ζ is the number of steps that it is still on. For constant u the odds of being on are then, by the balance of
flows between the states,

.. math:: e^{F(f)} = f \sum_{\eta=1}^{\tau} \prod_{\gamma=1}^{\eta} \frac{1}{1 - g(\gamma) f},

and f(u) is the inverse of F, so that they are exp(u). It is never computed while sampling: a neuron fires where a
uniform number U < f(u) g(ζ), that is where F(U / g(ζ)) < u. The left side does not depend on the fields. With g(0) =
g(1) = 1 it is never below logit(U) + log tau, which is thus all that has to be known of most neurons.

References
----------
.. [1] L. Buesing, J. Bill, B. Nessler and W. Maass, "Neural dynamics as sampling: a model for stochastic computation in
   recurrent networks of spiking neurons", PLoS Comput. Biol. 7 (2011) e1002211.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.core import types
from numba.extending import overload

from step_methods.kernels.spiking.couplings import LOOKED_UP, width
from step_methods.kernels.vectors.noise import log, thresholds
from step_methods.kernels.vectors.random import VECTOR_BYTES, Stream
from step_methods.kernels.vectors.simd import choose, fill, load, mask_to_int, n_lanes, pointer_to, store, widen
from step_methods.kernels.vectors.units import Forced, exp, sigmoid

# mypy: disable-error-code="no-untyped-def"

_ALL = np.uint64(2**64 - 1)
_BISECTIONS = 80


class Absolute(NamedTuple):
    """No neuron fires in the first tau − 1 of the tau steps that it is on."""

    tau: Any


class Relative(NamedTuple):
    """`g` (tau + 1,) scales the probability to fire, by the number of steps that a neuron is still on."""

    tau: Any
    g: Any


def refractory_period(tau, g):
    """An `Absolute` period if `g` is None, a `Relative` one otherwise."""
    raise NotImplementedError


@overload(refractory_period, jit_options={"forceinline": True})
def _refractory_period(tau, g):
    if isinstance(g, types.NoneType):
        return lambda tau, g: Absolute(tau)
    return lambda tau, g: Relative(tau, pointer_to(g, 0, g))


# --- who may fire -----------------------------------------------------------------------------------------------------


def may_fire(source, refractory, network, first):
    """Lanes, as bits, whose neurons may fire; of a relative period, and unless decisions are forced, simply all."""
    raise NotImplementedError


@overload(may_fire, jit_options={"forceinline": True})
def _may_fire(source, refractory, network, first):
    if refractory.instance_class is Absolute:
        return lambda source, refractory, network, first: mask_to_int(load(network.clocks, first, VECTOR_BYTES) < 2.0)
    if source.instance_class is Stream:
        return lambda source, refractory, network, first: _ALL
    return _may_fire_relative


def _may_fire_relative(source, refractory, network, first):
    lanes = np.uint64(0)
    for lane in range(width(network)):
        if refractory.g[np.int64(network.clocks[first + lane])] > 0:
            lanes |= np.uint64(1) << np.uint64(lane)
    return lanes


# --- what a field must exceed -----------------------------------------------------------------------------------------


def limits(source, index, network, like, lanes):
    """For a vector of neurons, what a field u − log tau must exceed, at least, for the neuron to fire.

    Exactly that for an absolute period; `sharpen` makes it so for a relative one.

    Parameters
    ----------
    source : NamedTuple
        What decides: a `Stream`, or a `Forced`.
    index : int
        Number of the first of these decisions, in the order in which the kernel makes them.
    network : Network
    like : Vector
        Any vector of the type of the fields.
    lanes : int
        The neurons that may fire, as bits.

    Returns
    -------
    limits : Vector
    source
        What decides on the next neurons.
    """
    raise NotImplementedError


@overload(limits, jit_options={"forceinline": True})
def _limits(source, index, network, like, lanes):
    if source.instance_class is Stream:
        return lambda source, index, network, like, lanes: thresholds(source, index, like, n_lanes(like))
    return _force_limits if source.instance_class is Forced else None


def _force_limits(source, index, network, like, lanes):
    scratch = pointer_to(network.scratch, LOOKED_UP, like)
    for lane in range(n_lanes(like)):
        scratch[lane] = np.inf
        if (lanes >> np.uint64(lane)) & np.uint64(1):
            scratch[lane] = -np.inf if source.bits[index] else np.inf
            index += 1
    return load(scratch, 0, VECTOR_BYTES), source


def sharpen(source, refractory, network, first, limit):
    """Turn the limits of the neurons from a place on into exact ones."""
    raise NotImplementedError


@overload(sharpen, jit_options={"forceinline": True})
def _sharpen(source, refractory, network, first, limit):
    if refractory.instance_class is Absolute or source.instance_class is Forced:
        return lambda source, refractory, network, first, limit: limit
    return _sharpen_relative


def _sharpen_relative(source, refractory, network, first, limit):
    return _excitability(limit, _scaling(refractory, network, first, limit), refractory)


@njit(forceinline=True)
def _scaling(refractory, network, first, like):
    """g(ζ) of the neurons from a place on."""
    scratch = pointer_to(network.scratch, LOOKED_UP, like)
    for lane in range(n_lanes(like)):
        scratch[lane] = refractory.g[np.int64(network.clocks[first + lane])]
    return load(scratch, 0, VECTOR_BYTES)


@njit(forceinline=True)
def _excitability(logit, scaling, refractory):
    """F(U / g) − log tau, given logit(U) and g, vectors; infinite where U >= g."""
    odds = exp(logit * -1.0)
    uniform = 1.0 / (odds + 1.0)
    f = uniform / scaling
    # 1 − U and 1 − f without cancellation, since U may be close to 1.
    rest = (odds * uniform + (scaling - 1.0)) / scaling
    silent = fill(logit, 1.0)  # the probability not to fire from the first step up to one
    total = silent
    for left in range(refractory.tau, 1, -1):
        g = refractory.g[left]
        silent = silent * (rest * g + (1.0 - g))
        total = total + silent
    # g(1) = 1
    result = log(f) + log(total / (silent * rest)) - math.log(refractory.tau)
    return choose(fill(rest, 0.0) < rest, result, np.inf)


# --- certificate ------------------------------------------------------------------------------------------------------


def note(source, refractory, index, network, first, decided, lanes):
    """Note the probabilities to fire of neurons that were forced, given the fields that they were decided with."""
    raise NotImplementedError


@overload(note, jit_options={"forceinline": True})
def _note(source, refractory, index, network, first, decided, lanes):
    if source.instance_class is Stream:
        return lambda source, refractory, index, network, first, decided, lanes: None
    return _note_forced if source.instance_class is Forced else None


def _note_forced(source, refractory, index, network, first, decided, lanes):
    scratch = pointer_to(network.scratch, LOOKED_UP, np.float64)
    store(scratch, 0, widen(_firing_probability(refractory, network, first, decided)))
    for lane in range(n_lanes(decided)):
        if (lanes >> np.uint64(lane)) & np.uint64(1):
            source.probabilities[index] = scratch[lane]
            index += 1


def _firing_probability(refractory, network, first, field):
    raise NotImplementedError


@overload(_firing_probability)
def _firing_probability_of(refractory, network, first, field):
    if refractory.instance_class is Absolute:
        return lambda refractory, network, first, field: sigmoid(field)
    return _invert_excitability


def _invert_excitability(refractory, network, first, field):
    low, high = fill(field, -700.0), fill(field, 700.0)
    one = fill(field, 1.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) * 0.5
        below = _excitability(middle, one, refractory) < field
        low, high = choose(below, middle, low), choose(below, high, middle)
    return sigmoid(low) * _scaling(refractory, network, first, field)
