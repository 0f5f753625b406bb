"""A vectorized stream of random bits for kernels.

The generator is xoshiro256+ of Blackman and Vigna [1]_, run in 16 independent lanes side by side.
One step gives 16 words of 64 bits: 16 float64 or 32 float32 numbers. Its lowest three bits are weak
(a linear recurrence), so a float64 takes the upper 53 bits of a word, and the two float32 of a word
take bits 40-63 and 8-31.

One 64-bit generator serves both float types, is as fast as 32 lanes of the 32-bit xoshiro128+ (the
same number of bits a step), and its period of 2**256 makes overlapping lanes impossible in
practice: with n lanes that each draw L words, two of them overlap with probability below n**2 L /
2**256, 1e-44 for a million lanes that run for centuries.

References
----------
.. [1] D. Blackman and S. Vigna, "Scrambled linear pseudorandom number generators", ACM Trans. Math. Softw. 47
   (2021) 36; https://prng.di.unimi.it/xoshiro256plus.c
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.core import types
from numba.extending import overload

from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.simd import (
    load,
    pointer_to,
    reinterpret,
    rotate_left,
    store,
    store_first,
    to_float,
)

LANES = 16
VECTOR_BYTES = 8 * LANES
_STATE_ROWS = 4
_SCRATCH_ROWS = 2


def seed_stream(rng):
    """State of a new stream, seeded from a NumPy generator.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the seed; it advances.

    Returns
    -------
    numpy.ndarray
        Opaque and C-contiguous. Kernels change it in place; a copy is a snapshot from which a
        stream continues.
    """
    state = np.zeros((_STATE_ROWS + _SCRATCH_ROWS, LANES), dtype=np.uint64)
    state[:_STATE_ROWS] = rng.integers(0, 2**64, size=(_STATE_ROWS, LANES), dtype=np.uint64)
    return state


class Stream(NamedTuple):
    """The generator's state in registers, as kernels carry it through a loop."""

    memory: Any
    s0: Any
    s1: Any
    s2: Any
    s3: Any


@njit(forceinline=True)
def open_stream(state):
    """Take the generator's state into registers."""
    return reopen_stream(pointer_to(state, 0, np.uint64))


@njit(forceinline=True)
def reopen_stream(memory):
    """Take the generator's state into registers, from the address of the state array."""
    return Stream(
        memory,
        load(memory, 0, VECTOR_BYTES),
        load(memory, LANES, VECTOR_BYTES),
        load(memory, 2 * LANES, VECTOR_BYTES),
        load(memory, 3 * LANES, VECTOR_BYTES),
    )


@njit(forceinline=True)
def close_stream(stream):
    """Write the registers back into the state array."""
    store(stream.memory, 0, stream.s0)
    store(stream.memory, LANES, stream.s1)
    store(stream.memory, 2 * LANES, stream.s2)
    store(stream.memory, 3 * LANES, stream.s3)


@njit(forceinline=True)
def next_words(stream):
    """One step of xoshiro256+ in every lane: the words, and the stream that follows."""
    memory, s0, s1, s2, s3 = stream
    words = s0 + s3
    shifted = s1 << 17
    s2 = s2 ^ s0
    s3 = s3 ^ s1
    s1 = s1 ^ s2
    s0 = s0 ^ s3
    return words, Stream(memory, s0, s1, s2 ^ shifted, rotate_left(s3, 45))


def cells(words, like):
    """Random integers as floats of the type of `like`.

    Uniform on 0, ..., 2**24 - 1 (float32) or 2**53 - 1 (float64): the number of the cell, of equal
    width, of the unit interval in which a uniform number falls.
    """
    raise NotImplementedError


@overload(cells, jit_options={"forceinline": True})
def _cells(words, like):
    if like.dtype == types.float32:
        return lambda words, like: to_float(reinterpret(words, np.uint32) >> 8)
    return lambda words, like: to_float(words >> 11)


def n_cells(like):
    """Number of cells of the unit interval: 2**24 for float32, 2**53 for float64."""
    raise NotImplementedError


@overload(n_cells, jit_options={"forceinline": True})
def _n_cells(like):
    n = 2.0**24 if like.dtype == types.float32 else 2.0**53
    return lambda like: n


@njit
def fraction(memory):
    """A uniform number of (0, 1) with at least 53 significant bits, however small it is.

    Steps the first lane of a closed stream; for the rare cases in which a kernel needs one more
    number.
    """
    scale = 2.0**-53
    while scale > 0.0:
        s0, s1, s2, s3 = memory[0], memory[LANES], memory[2 * LANES], memory[3 * LANES]
        cell = (s0 + s3) >> np.uint64(11)
        s2 ^= s0
        s3 ^= s1
        memory[LANES] = s1 ^ s2
        memory[0] = s0 ^ s3
        memory[2 * LANES] = s2 ^ (s1 << np.uint64(17))
        memory[3 * LANES] = (s3 << np.uint64(45)) | (s3 >> np.uint64(19))
        if cell > 0:
            return scale * np.float64(cell)
        scale *= 2.0**-53
    return 0.0


@kernel
def fill_uniform(state, out):
    """Fill an array with uniform numbers of [0, 1).

    Parameters
    ----------
    state : numpy.ndarray
        From `seed_stream`; advanced in place.
    out : numpy.ndarray
        One-dimensional and contiguous, float32 (24 random bits) or float64 (53 random bits).
    """
    lanes = VECTOR_BYTES // out.itemsize
    whole = out.size - out.size % lanes
    stream = open_stream(state)
    for start in range(0, whole, lanes):
        words, stream = next_words(stream)
        store(out, start, cells(words, out) * (1.0 / n_cells(out)))
    if whole < out.size:
        words, stream = next_words(stream)
        uniform = cells(words, out) * (1.0 / n_cells(out))
        store_first(out, whole, uniform, out.size - whole)
    close_stream(stream)


@kernel
def fill_integers(state, high, out):
    """Fill an array with integers that are uniform on 0, ..., high - 1, exactly.

    As many upper bits of a word as `high` - 1 has are a number; those that are too large are left out.

    Parameters
    ----------
    state : numpy.ndarray
        From `seed_stream`; advanced in place.
    high : int
        At least 1.
    out : numpy.ndarray
        One-dimensional, int64.
    """
    n_bits = 0
    while (high - 1) >> n_bits:
        n_bits += 1
    shift = np.uint64(63 - n_bits)
    stream = open_stream(state)
    words = pointer_to(state, _STATE_ROWS * LANES, state)
    filled = 0
    while filled < out.size:
        word_vector, stream = next_words(stream)
        store(words, 0, word_vector)
        for lane in range(LANES):
            number = np.int64((words[lane] >> np.uint64(1)) >> shift)
            if number < high and filled < out.size:
                out[filled] = number
                filled += 1
    close_stream(stream)
