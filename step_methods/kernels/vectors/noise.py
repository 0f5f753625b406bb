"""Logistic random numbers, and logarithms of vectors.

A unit with field f becomes 1 with probability sigmoid(f): where f exceeds a logistic random number, which is the logit
of a uniform one. Such numbers can be drawn ahead of the fields, so that units which wait for one another's fields wait
for a comparison and no longer for an exponential function.
"""

import math

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
    choose,
    fill,
    load,
    load_mask,
    n_lanes,
    pointer_to,
    reinterpret,
    seldom,
    store,
    to_float,
)
from step_methods.kernels.vectors.units import Forced

# mypy: disable-error-code="no-untyped-def"

_SCRATCH = 4 * LANES  # the first scratch row of a stream's state
_CELL_SCRATCH = 5 * LANES


def log(x):
    """Natural logarithm of a vector of positive normal numbers, with an error of about one unit in the last place."""
    raise NotImplementedError


@overload(log, jit_options={"forceinline": True})
def _log(x):
    return _log_float32 if x.dtype == types.float32 else _log_float64


# x = 2**k m with m between sqrt(1/2) and sqrt(2); with f = m - 1 and s = f / (2 + f), log(m) = 2 atanh(s) =
# f - f**2 / 2 + s (f**2 / 2 + R(s**2)). The polynomials R are those of FreeBSD's logf and log.


def _log_float32(x):
    bits = reinterpret(x, np.uint32) + (0x3F800000 - 0x3F3504F3)
    k = to_float((bits >> 23) - 127)
    f = reinterpret((bits & 0x007FFFFF) + 0x3F3504F3, np.float32) - np.float32(1.0)
    s = f / (f + np.float32(2.0))
    z = s * s
    r = z * np.float32(0.24279078841) + np.float32(0.28498786688)
    r = r * z + np.float32(0.40000972152)
    r = (r * z + np.float32(0.66666662693)) * z
    half_square = f * f * np.float32(0.5)
    small = s * (half_square + r) + k * np.float32(9.0580006145e-06)
    return small - half_square + f + k * np.float32(0.69313812256)


def _log_float64(x):
    bits = reinterpret(x, np.uint64) + (0x3FF0000000000000 - 0x3FE6A09E00000000)
    k = to_float((bits >> 52) - 1023)
    f = reinterpret((bits & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E00000000, np.float64) - 1.0
    s = f / (f + 2.0)
    z = s * s
    r = z * 1.479819860511658591e-01 + 1.531383769920937332e-01
    r = r * z + 1.818357216161805012e-01
    r = r * z + 2.222219843214978396e-01
    r = r * z + 2.857142874366239149e-01
    r = r * z + 3.999999999940941908e-01
    r = (r * z + 6.666666666666735130e-01) * z
    half_square = f * f * 0.5
    small = s * (half_square + r) + k * 1.90821492927058770002e-10
    return small - half_square + f + k * 6.93147180369123816490e-01


def thresholds(source, index, like, count):
    """For a vector of units, the numbers that their fields must exceed for them to become 1.

    Logistic random numbers from a `Stream`; from a `Forced`, infinities with the sign that forces the decision.

    Parameters
    ----------
    source : NamedTuple
        What decides.
    index : int
        Number of the first unit, in the order in which the kernel decides.
    like : Vector
        Any vector of the type of the fields.
    count : int
        Number of lanes that are units.

    Returns
    -------
    thresholds : Vector
    source
        What decides on the next units.
    """
    raise NotImplementedError


@overload(thresholds, jit_options={"forceinline": True})
def _thresholds(source, index, like, count):
    if source.instance_class is Stream:
        return _draw_thresholds
    return _force_thresholds if source.instance_class is Forced else None


def _draw_thresholds(source, index, like, count):
    # The uniform number is the middle of its cell; n - cell is exact. In the lowest and the highest cell further bits
    # say where in it, so that no field is so large that the unit is certain.
    words, source = next_words(source)
    cell = cells(words, like)
    n = n_cells(like)
    result = log((cell + 0.5) / ((n - cell) - 0.5))
    if seldom((cell < 1.0) | (cell >= n - 1.0)):
        memory = source.memory
        close_stream(source)
        store(pointer_to(memory, _SCRATCH, like), 0, result)
        store(pointer_to(memory, _CELL_SCRATCH, like), 0, cell)
        _refine(memory, like, n)
        result = load(pointer_to(memory, _SCRATCH, like), 0, VECTOR_BYTES)
        source = reopen_stream(memory)
    return result, source


def _force_thresholds(source, index, like, count):
    ones = load_mask(source.bits, index, like, count)
    return choose(ones, fill(like, -np.inf), np.inf), source


@njit(error_model="numpy")
def _refine(memory, like, n):
    """Draw anew in the extreme cells; thresholds and cells are in the scratch rows."""
    values = pointer_to(memory, _SCRATCH, like)
    cell_of = pointer_to(memory, _CELL_SCRATCH, like)
    for lane in range(n_lanes(like)):
        if cell_of[lane] < 1.0:
            values[lane] = _logit(fraction(memory) / n)
        elif cell_of[lane] >= n - 1.0:
            values[lane] = -_logit(fraction(memory) / n)


@njit(error_model="numpy")
def _logit(p):
    return math.log(p) - math.log1p(-p)
