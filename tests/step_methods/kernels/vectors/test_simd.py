"""Each intrinsic of vectors against NumPy, for all element types and the widths that kernels use."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from step_methods.kernels.vectors import simd
from step_methods.kernels.vectors.simd import (
    absolute,
    as_vector_of,
    choose,
    clip,
    count_ones,
    fill,
    int_to_mask,
    join,
    lane_numbers,
    load,
    load_first,
    load_mask,
    load_packed,
    lowest_bit,
    mask_to_int,
    n_lanes,
    pointer_to,
    prefetch,
    product,
    reinterpret,
    rotate_left,
    seldom,
    sqrt,
    store,
    store_first,
    store_packed,
    to_float,
    total,
    widen,
)

WIDTHS = [16, 32, 64, 128]
FLOATS = [np.float32, np.float64]
INTEGERS = [np.uint32, np.uint64]
of_widths = pytest.mark.parametrize("width", WIDTHS)
of_floats = pytest.mark.parametrize("dtype", FLOATS, ids=["f32", "f64"])
of_integers = pytest.mark.parametrize("dtype", INTEGERS, ids=["u32", "u64"])


def lanes_of(width, dtype):
    return width // np.dtype(dtype).itemsize


@of_widths
@of_floats
def test_arithmetic_and_functions_of_floats(rng, dtype, width):
    n = lanes_of(width, dtype)

    @njit
    def apply(x, y, out, wide, reductions):
        a, b = load(x, 0, width), load(y, 0, width)
        store(out[0], 0, a + b)
        store(out[1], 0, a - b)
        store(out[2], 0, a * b)
        store(out[3], 0, a / b)
        store(out[4], 0, a * 2.0 + 1.0)
        store(out[5], 0, 1.0 - a)
        store(out[6], 0, absolute(a))
        store(out[7], 0, sqrt(absolute(a)))
        store(out[8], 0, clip(a, -0.5, 0.25))
        store(out[9], 0, choose(a < b, a, 7.0))
        store(out[10], 0, fill(a, 3.5))
        store(wide, 0, widen(a))
        reductions[0], reductions[1] = total(a), product(b)
        return n_lanes(a)

    # One element too many on either side must stay as it is.
    x, y = (rng.normal(size=n).astype(dtype) for _ in range(2))
    out, wide, reductions = np.full((11, n + 1), 99, dtype), np.empty(n), np.empty(2)
    assert apply(x, y, out, wide, reductions) == n
    expected = [
        x + y,
        x - y,
        x * y,
        x / y,
        x * 2 + 1,
        1 - x,
        np.abs(x),
        np.sqrt(np.abs(x)),
        np.clip(x, -0.5, 0.25),
        np.where(x < y, x, 7),
        np.full(n, 3.5),
    ]
    np.testing.assert_allclose(out[:, :-1], np.array(expected, dtype), rtol=2 * np.finfo(dtype).eps, atol=0)
    assert (out[:, -1] == 99).all()
    np.testing.assert_array_equal(wide, x.astype(np.float64))
    np.testing.assert_allclose(reductions, [x.sum(dtype=float), y.prod(dtype=float)], rtol=1e-12)


@of_widths
@of_integers
def test_bits_of_integers(rng, dtype, width):
    n, bits = lanes_of(width, dtype), 8 * np.dtype(dtype).itemsize

    @njit
    def apply(x, y, out, floats):
        a, b = load(x, 0, width), load(y, 0, width)
        five = dtype(5)
        store(out[0], 0, a + b)
        store(out[1], 0, a - b)
        store(out[2], 0, a * b)
        store(out[3], 0, a & b)
        store(out[4], 0, a | b)
        store(out[5], 0, a ^ b)
        store(out[6], 0, a << five)
        store(out[7], 0, a >> five)
        store(out[8], 0, rotate_left(a, five))
        store(floats, 0, to_float(a >> dtype(2)))

    x, y = (rng.integers(0, 2**bits - 1, n, dtype=dtype, endpoint=True) for _ in range(2))
    out, floats = np.empty((9, n), dtype), np.empty(n, f"f{bits // 8}")
    apply(x, y, out, floats)
    expected = [x + y, x - y, x * y, x & y, x | y, x ^ y, x << 5, x >> 5, (x << 5) | (x >> (bits - 5))]
    np.testing.assert_array_equal(out, np.array(expected, dtype))
    np.testing.assert_array_equal(floats, (x >> 2).astype(floats.dtype))


@of_widths
@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=["f32", "f64", "u32", "u64"])
def test_comparisons_and_masks(rng, dtype, width):
    n = lanes_of(width, dtype)

    @njit
    def apply(x, y, numbers, out):
        a, b = load(x, 0, width), load(y, 0, width)
        masks = a < b, a >= b, a != b
        for k in range(3):
            numbers[k] = mask_to_int(masks[k])
            numbers[3 + k] = count_ones(masks[k])
        store(out[0], 0, as_vector_of(masks[0], x))
        store(out[1], 0, as_vector_of(int_to_mask(mask_to_int(masks[2]), a), x))
        numbers[6] = seldom(masks[0])
        numbers[7] = seldom(a < a)

    for _ in range(5):
        x, y = (rng.integers(0, 3, n).astype(dtype) for _ in range(2))
        numbers, out = np.zeros(8, np.uint64), np.empty((2, n), dtype)
        apply(x, y, numbers, out)
        masks = x < y, x >= y, x != y
        assert numbers[:3].tolist() == [sum(1 << i for i in np.flatnonzero(mask)) for mask in masks]
        assert numbers[3:6].tolist() == [mask.sum() for mask in masks]
        np.testing.assert_array_equal(out, [masks[0], masks[2]])
        assert numbers[6:].tolist() == [masks[0].any(), False]


def test_comparisons_with_nan_do_not_hold_but_it_is_not_zero():
    @njit
    def apply(x, numbers):
        a = load(x, 0, 16)
        numbers[0], numbers[1], numbers[2] = mask_to_int(a < a), mask_to_int(a >= a), mask_to_int(a != 0.0)
        numbers[3] = mask_to_int(load_mask(x, 0, a, 2))

    numbers = np.empty(4, np.uint64)
    apply(np.array([np.nan, 0.0]), numbers)
    assert numbers.tolist() == [0, 2, 0, 1]


@of_widths
@pytest.mark.parametrize("dtype", [*FLOATS, np.uint64], ids=["f32", "f64", "u64"])
def test_tails_of_all_lengths_touch_nothing_else(rng, dtype, width):
    n = lanes_of(width, dtype)

    @njit
    def apply(x, count, loaded, stored, numbers):
        a = load_first(x, 1, width, count, 9)
        store(loaded, 0, a)
        store_first(stored, 1, load(x, 1, width), count)
        numbers[0] = mask_to_int(load_mask(x, 1, a, count))

    x = rng.integers(0, 2, n + 2).astype(dtype)
    own = x[1 : n + 1]
    for count in range(n + 1):
        loaded, stored, numbers = np.empty(n, dtype), np.full(n + 2, 7, dtype), np.zeros(1, np.uint64)
        apply(x, count, loaded, stored, numbers)
        inside = np.arange(n) < count
        np.testing.assert_array_equal(loaded, np.where(inside, own, 9))
        np.testing.assert_array_equal(stored[1:-1], np.where(inside, own, 7))
        assert stored[0] == stored[-1] == 7
        assert numbers[0] == sum(1 << int(i) for i in np.flatnonzero(inside & (own != 0)))


# Words are packed by bytes at least.
@pytest.mark.parametrize(
    ("dtype", "width"), [(np.float32, 32), (np.float32, 64), (np.float32, 128), (np.float64, 64), (np.float64, 128)]
)
def test_packed_bits(rng, dtype, width):
    n = lanes_of(width, dtype)

    @njit
    def apply(x, words, out, numbers):
        a = load(x, 0, width)
        for start in range(0, 64, n_lanes(a)):
            mask = load_packed(words, start, a)
            store_packed(out, start, mask)
            numbers[start // n_lanes(a)] = mask_to_int(mask)

    words, out, numbers = rng.integers(0, 2**63, 1, dtype=np.uint64), np.zeros(1, np.uint64), np.zeros(64, np.uint64)
    apply(np.zeros(n, dtype), words, out, numbers)
    assert out[0] == words[0]
    parts = [(int(words[0]) >> start) & ((1 << n) - 1) for start in range(0, 64, n)]
    assert numbers[: len(parts)].tolist() == parts


@of_widths
def test_lanes_are_numbered_joined_and_read_as_other_types(rng, width):
    n = width // 8

    @njit
    def apply(x, numbered, joined, bits, back):
        a = load(x, 0, width)
        store(numbered, 0, lane_numbers(width))
        store(joined, 0, join(a, a * 2.0))
        as_bits = reinterpret(a, np.uint64)
        store(bits, 0, as_bits)
        store(back, 0, reinterpret(as_bits ^ np.uint64(1 << 63), np.float64))

    x = rng.normal(size=n)
    numbered, joined, bits, back = np.empty(n, np.uint64), np.empty(2 * n), np.empty(n, np.uint64), np.empty(n)
    apply(x, numbered, joined, bits, back)
    np.testing.assert_array_equal(numbered, np.arange(n))
    np.testing.assert_array_equal(joined, np.concatenate([x, 2 * x]))
    np.testing.assert_array_equal(bits, x.view(np.uint64))
    np.testing.assert_array_equal(back, -x)


def test_the_lowest_bit():
    lowest = njit(lambda bits: lowest_bit(bits))
    for k in (0, 1, 5, 31, 32, 63):
        assert lowest(np.uint64(((1 << 63) | (1 << k)) & (2**64 - 1))) == k


def test_pointers_stand_for_arrays():
    @njit
    def apply(x, out):
        source, target = pointer_to(x, 2, load(x, 0, 16)), pointer_to(out, 1, load(x, 0, 16))
        prefetch(source, 0)
        store(target, 0, load(source, 1, 16))

    x, out = np.arange(8.0), np.zeros(4)
    apply(x, out)
    assert out.tolist() == [0, 3, 4, 0]


def test_arrays_that_are_not_contiguous_are_refused():
    apply = njit(lambda x: total(load(x, 0, 16)))
    assert apply(np.ones(4)) == 2
    with pytest.raises(TypingError, match="kernels need C-contiguous arrays"):
        apply(np.ones(8)[::2])


def test_vectors_of_different_types_do_not_mix():
    @njit
    def apply(x, y):
        return total(load(x, 0, 16) + load(y, 0, 16))

    assert apply(np.ones(2), np.ones(2)) == 4
    with pytest.raises(TypingError):
        apply(np.ones(2), np.ones(4, np.float32))


def test_no_intrinsic_is_left_out():
    public = {name for name, value in vars(simd).items() if type(value).__name__ == "_Intrinsic"}
    assert len(public) > 25
    assert public <= set(globals())
