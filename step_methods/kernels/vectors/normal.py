"""Normal random numbers, a vector of pairs at a time.

A point whose squared length is twice an exponential random number and whose angle is uniform has two independent normal
coordinates (Box and Muller [1]_). The exponential number is the negative logarithm of a uniform one; where that is
small, further bits say where in its cell of the unit interval it is, so that the tails have neither gaps nor an end.

References
----------
.. [1] G. E. P. Box and M. E. Muller, "A note on the generation of random normal deviates", Ann. Math. Stat. 29 (1958)
   610.
"""

import numpy as np
from numba import njit
from numba.core import types
from numba.extending import overload

from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.noise import log
from step_methods.kernels.vectors.random import (
    LANES,
    VECTOR_BYTES,
    Stream,
    cells,
    close_stream,
    fraction,
    n_cells,
    next_words,
    open_stream,
    reopen_stream,
)
from step_methods.kernels.vectors.simd import (
    choose,
    load,
    n_lanes,
    pointer_to,
    reinterpret,
    seldom,
    sqrt,
    store,
    store_first,
)
from step_methods.kernels.vectors.units import Forced

# mypy: disable-error-code="no-untyped-def"

__all__ = ["cos_sin", "fill_noise", "fill_normal", "normal_pair"]

_SCRATCH = 4 * LANES  # the first scratch row of a stream's state
# In this many of the lowest cells the place in the cell is drawn, too: without it 64 cells of a float32 would hold all
# that is beyond 5 standard deviations.
_FINE_CELLS = 64.0


def cos_sin(quarters):
    """Cosine and sine of a vector of angles between 0 and 2π, with an error of one unit in the last place of 1.

    Parameters
    ----------
    quarters : Vector
        The angles, in units of π/2.
    """
    raise NotImplementedError


@overload(cos_sin, jit_options={"forceinline": True})
def _cos_sin(quarters):
    return _cos_sin_float32 if quarters.dtype == types.float32 else _cos_sin_float64


# An angle is a whole number n of quarter turns plus f with |f| <= 1/2; adding 1.5 * 2**(bits of the mantissa) rounds
# to n and leaves it in the lowest bits of the sum, from where it swaps cosine and sine and flips their signs. The
# polynomials interpolate (sin(πf/2)/f - π/2)/f**2 and (cos(πf/2) - 1)/f**2 at Chebyshev nodes; sine and cosine are then
# accurate to 1e-8 and 1e-19.


def _cos_sin_float32(quarters):
    shifted = quarters + np.float32(1.5 * 2**23)
    f = quarters - (shifted - np.float32(1.5 * 2**23))
    z = f * f
    s = z * np.float32(-0.00462196673222971203) + np.float32(0.0796870312241629716)
    s = s * z + np.float32(-0.645964019821869244)
    s = f * np.float32(1.57079632679489662) + f * z * s
    c = z * np.float32(0.000906739898403266509) + np.float32(-0.0208615283421999686)
    c = c * z + np.float32(0.253669410357108499)
    c = c * z + np.float32(-1.23370054937421936)
    c = c * z + np.float32(1.0)
    n = reinterpret(shifted, np.uint32)
    odd = (n & 1) != 0
    cosine = reinterpret(choose(odd, s, c), np.uint32) ^ (((n + 1) & 2) << 30)
    sine = reinterpret(choose(odd, c, s), np.uint32) ^ ((n & 2) << 30)
    return reinterpret(cosine, np.float32), reinterpret(sine, np.float32)


def _cos_sin_float64(quarters):
    shifted = quarters + 1.5 * 2.0**52
    f = quarters - (shifted - 1.5 * 2.0**52)
    z = f * f
    s = z * -6.6351523872308367e-10 + 5.69199136492612377e-8
    s = s * z + -3.59884292592520688e-6
    s = s * z + 0.000160441184760306177
    s = s * z + -0.00468175413531756108
    s = s * z + 0.0796926262461670275
    s = s * z + -0.645964097506246254
    s = f * 1.57079632679489662 + f * z * s
    c = z * -6.32939634496742351e-9 + 4.71067840550522711e-7
    c = c * z + -0.0000252020390280291761
    c = c * z + 0.000919260274546844619
    c = c * z + -0.0208634807633407725
    c = c * z + 0.253669507901047823
    c = c * z + -1.23370055013616983
    c = c * z + 1.0
    n = reinterpret(shifted, np.uint64)
    odd = (n & 1) != 0
    cosine = reinterpret(choose(odd, s, c), np.uint64) ^ (((n + 1) & 2) << 62)
    sine = reinterpret(choose(odd, c, s), np.uint64) ^ ((n & 2) << 62)
    return reinterpret(cosine, np.float64), reinterpret(sine, np.float64)


@njit(forceinline=True)
def normal_pair(stream, like):
    """Draw two vectors of standard normal numbers, of the type of `like`; the stream that follows comes third."""
    words, stream = next_words(stream)
    cell = cells(words, like)
    n = n_cells(like)
    uniform = (cell + 0.5) * (1.0 / n)
    if seldom(cell < _FINE_CELLS):
        memory = stream.memory
        close_stream(stream)
        store(pointer_to(memory, _SCRATCH, like), 0, cell)
        _refine(memory, like, n)
        uniform = load(pointer_to(memory, _SCRATCH, like), 0, VECTOR_BYTES)
        stream = reopen_stream(memory)
    words, stream = next_words(stream)
    cosine, sine = cos_sin(cells(words, like) * (4.0 / n))
    radius = sqrt(log(uniform) * -2.0)
    return radius * cosine, radius * sine, stream


@njit(error_model="numpy")
def _refine(memory, like, n):
    """Turn cells, in the scratch row, into uniform numbers."""
    values = pointer_to(memory, _SCRATCH, like)
    for lane in range(n_lanes(like)):
        cell = values[lane]
        values[lane] = (cell + (fraction(memory) if cell < _FINE_CELLS else 0.5)) / n


def fill_noise(source, noise):
    """Fill an array with normal numbers, as kernels want them: whole pairs of vectors, from a source in registers.

    Parameters
    ----------
    source : NamedTuple
        A `random.Stream` draws them; a `units.Forced` leaves those that are there.
    noise : ndarray
        One-dimensional; its size is a multiple of 256 bytes.

    Returns
    -------
    source
        What the next ones come from.
    """
    raise NotImplementedError


@overload(fill_noise, jit_options={"forceinline": True})
def _fill_noise(source, noise):
    if source.instance_class is Stream:
        return _draw_noise
    return _leave_noise if source.instance_class is Forced else None


def _draw_noise(source, noise):
    lanes = VECTOR_BYTES // noise.itemsize
    for start in range(0, noise.size, 2 * lanes):
        first, second, source = normal_pair(source, load(noise, start, VECTOR_BYTES))
        store(noise, start, first)
        store(noise, start + lanes, second)
    return source


def _leave_noise(source, noise):
    return source


@kernel
def fill_normal(state, out):
    """Fill an array with standard normal numbers.

    Parameters
    ----------
    state : numpy.ndarray
        From `step_methods.kernels.vectors.random.seed_stream`; advanced in place.
    out : numpy.ndarray
        One-dimensional and contiguous, float32 or float64.
    """
    lanes = VECTOR_BYTES // out.itemsize
    whole = out.size - out.size % (2 * lanes)
    stream = open_stream(state)
    for start in range(0, whole, 2 * lanes):
        first, second, stream = normal_pair(stream, load(out, start, VECTOR_BYTES))
        store(out, start, first)
        store(out, start + lanes, second)
    if whole < out.size:
        first, second, stream = normal_pair(stream, load(pointer_to(state, 0, out), 0, VECTOR_BYTES))
        store_first(out, whole, first, min(lanes, out.size - whole))
        store_first(out, whole + lanes, second, max(0, out.size - whole - lanes))
    close_stream(stream)
