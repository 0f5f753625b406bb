"""Binary units: one random decision for a whole vector of them.

A unit with field f becomes 1 with probability sigmoid(f) = 1 / q, where q = 1 + exp(-f). A random
decision compares a uniform number u by u q < 1, which spares the division; a forced one is taken
from an array, and 1 / q recorded. Both get q from the same function.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.core import types
from numba.extending import overload

from step_methods.kernels.vectors.random import (
    LANES,
    VECTOR_BYTES,
    Stream,
    cells,
    close_stream,
    fraction,
    n_cells,
    next_words,
    reopen_stream,
)
from step_methods.kernels.vectors.simd import (
    absolute,
    clip,
    int_to_mask,
    load_first,
    load_mask,
    mask_to_int,
    n_lanes,
    pointer_to,
    product,
    reinterpret,
    seldom,
    store,
    store_first,
    total,
    widen,
)

_LOG2_E = 1.4426950408889634
_FACTORS = 16
_FIELD_SCRATCH = 4 * LANES
_CELL_SCRATCH = 5 * LANES


def exp(x):
    """Exponential function of a vector, with a relative error of a few units in the last place.

    Arguments are clipped to the range in which the result is a normal number.
    """
    raise NotImplementedError


@overload(exp, jit_options={"forceinline": True})
def _exp(x):
    return _exp_float32 if x.dtype == types.float32 else _exp_float64


# exp(x) = 2**n exp(r) with n = round(x / log 2) and |r| <= log(2) / 2. Adding 1.5 * 2**(bits of the mantissa) rounds
# and leaves n in the lowest bits of the sum, from where it is shifted into an exponent. log 2 is split in two, the
# first part with so few bits that n times it is exact. The polynomials interpolate (exp(r) - 1 - r) / r**2 at
# Chebyshev nodes; exp(r) is then accurate to 1.0e-8 and 1.7e-17.


def _exp_float32(x):
    x = clip(x, np.float32(-87.0), np.float32(88.0))
    shifted = x * np.float32(_LOG2_E) + np.float32(1.5 * 2**23)
    n = shifted - np.float32(1.5 * 2**23)
    r = x - n * np.float32(0.693359375)
    r = r - n * np.float32(-2.12194440054690583e-4)
    p = r * np.float32(0.0013926213466332443) + np.float32(0.0083632029715758549)
    p = p * r + np.float32(0.041666554437685939)
    p = p * r + np.float32(0.16666576845993976)
    p = p * r + np.float32(0.5)
    p = p * (r * r) + r + np.float32(1.0)
    return p * reinterpret((reinterpret(shifted, np.uint32) << 23) + 0x3F800000, np.float32)


def _exp_float64(x):
    x = clip(x, -708.0, 709.0)
    shifted = x * _LOG2_E + 1.5 * 2.0**52
    n = shifted - 1.5 * 2.0**52
    r = x - n * 0.693147180369123816490
    r = r - n * 1.90821492927058770002e-10
    p = r * 2.5100424157005067e-8 + 2.7620138719973996e-7
    p = p * r + 2.7557268378684193e-6
    p = p * r + 2.4801521190217728e-5
    p = p * r + 1.9841269863105969e-4
    p = p * r + 1.3888888917281793e-3
    p = p * r + 8.3333333333300513e-3
    p = p * r + 4.1666666666623992e-2
    p = p * r + 0.16666666666666667
    p = p * r + 0.5
    p = p * (r * r) + r + 1.0
    return p * reinterpret((reinterpret(shifted, np.uint64) << 52) + 0x3FF0000000000000, np.float64)


@njit(forceinline=True)
def inverse_probability(field):
    """1 / sigmoid(field) of a vector of fields."""
    return exp(field * -1.0) + 1.0


@njit(forceinline=True)
def sigmoid(field):
    """Probability that a unit is 1, for a vector of fields."""
    return 1.0 / inverse_probability(field)


@njit(error_model="numpy")
def softplus_sum(fields, start, count):
    """Sum of log(1 + exp(f)) over ``fields[start:start + count]``.

    log(1 + exp(f)) = max(f, 0) + log(1 + exp(-|f|)), and the logarithms of up to 256 or 512 factors, none above 2, are
    taken as one of their product.
    """
    lanes = VECTOR_BYTES // fields.itemsize
    result = 0.0
    for first in range(0, count, _FACTORS * lanes):
        vector = load_first(fields, start + first, VECTOR_BYTES, count - first, -np.inf)
        linear, factors = _softplus_parts(vector)
        for block in range(first + lanes, min(first + _FACTORS * lanes, count), lanes):
            vector = load_first(fields, start + block, VECTOR_BYTES, count - block, -np.inf)
            linear_part, factor = _softplus_parts(vector)
            linear, factors = linear + linear_part, factors * factor
        result += total(linear) + math.log(product(factors))
    return result


@njit(forceinline=True)
def _softplus_parts(field):
    return clip(field, 0.0, np.inf), exp(absolute(field) * -1.0) + 1.0


@njit(forceinline=True)
def softplus_total(field):
    """Sum of log(1 + exp(f)) over a vector of fields."""
    linear, factors = _softplus_parts(field)
    return total(linear) + math.log(product(factors))


def decide(field, source, index, count):
    """New values of a vector of units.

    What is done is chosen by the type of `source`, when a kernel is compiled: one body of a kernel
    is a sampler where it is given a `Stream`, and its own certificate where it is given a `Forced`.

    Parameters
    ----------
    field : Vector
        The fields.
    source : NamedTuple
        What decides.
    index : int
        Number of the first unit, in the order in which the kernel decides.
    count : int
        Number of lanes that are units (from the first on); the others are padding.

    Returns
    -------
    ones : mask
        The units that become 1.
    source
        What decides on the next units.
    """
    raise NotImplementedError


class Forced(NamedTuple):
    """Decisions taken from `bits`; P(bit = 1) is written to `probabilities` (float64)."""

    bits: Any
    probabilities: Any


@overload(decide, jit_options={"forceinline": True})
def _decide(field, source, index, count):
    if source.instance_class is Stream:
        return _draw
    return _force if source.instance_class is Forced else None


def _draw(field, source, index, count):
    # A uniform number has 24 or 53 bits. Where it falls into the lowest or the highest cell, in
    # which a probability near 0 or 1 would be lost, further bits say where in the cell.
    words, source = next_words(source)
    cell = cells(words, field)
    n = n_cells(field)
    ones = cell * inverse_probability(field) < n
    if seldom((cell < 1.0) | (cell >= n - 1.0)):
        memory = source.memory
        close_stream(source)
        store(pointer_to(memory, _FIELD_SCRATCH, field), 0, field)
        store(pointer_to(memory, _CELL_SCRATCH, field), 0, cell)
        ones = int_to_mask(_refine(memory, field, n, mask_to_int(ones)), ones)
        source = reopen_stream(memory)
    return ones, source


def _force(field, source, index, count):
    ones = load_mask(source.bits, index, field, count)
    store_first(source.probabilities, index, widen(sigmoid(field)), count)
    return ones, source


@njit(error_model="numpy")
def _refine(memory, like, n, ones):
    """Decide anew for the lanes in an extreme cell; fields and cells are in the scratch rows."""
    fields = pointer_to(memory, _FIELD_SCRATCH, like)
    cell_of = pointer_to(memory, _CELL_SCRATCH, like)
    for lane in range(n_lanes(like)):
        bit = np.uint64(1) << np.uint64(lane)
        if cell_of[lane] < 1.0:
            is_one = fraction(memory) / n < _sigmoid(fields[lane])
        elif cell_of[lane] >= n - 1.0:
            is_one = fraction(memory) / n >= _sigmoid(-fields[lane])
        else:
            continue
        ones = ones | bit if is_one else ones & ~bit
    return ones


@njit(error_model="numpy")
def _sigmoid(field):
    field = np.float64(field)
    return math.exp(field) / (1.0 + math.exp(field)) if field < 0.0 else 1.0 / (1.0 + math.exp(-field))
