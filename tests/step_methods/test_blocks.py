"""Blocks as users write them: what is read, and what is refused."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from step_methods.reading.blocks import blocks_by_name, check_independent, numbers_of_blocks, parse_blocks, places_of

ALL_FREE = np.ones((2, 3), bool)
HALF_FREE = np.array([[1, 0, 1], [1, 1, 0]], bool)


def as_lists(blocks):
    return [block.tolist() for block in blocks]


@pytest.mark.parametrize(
    "blocks",
    [
        [[0, 4], [5], [1, 2, 3]],
        (np.array([0, 4]), range(5, 6), (1, 2, 3)),
        [[(0, 0), (1, 1)], [[1, 2]], np.array([[0, 1], [0, 2], [1, 0]])],
        [np.eye(2, 3, dtype=bool), [5], [[False, True, True], [True, False, False]]],
    ],
    ids=["flat", "sequences", "tuples", "masks"],
)
def test_forms_of_a_block(blocks):
    assert as_lists(parse_blocks(blocks, ALL_FREE, "z")) == [[0, 4], [5], [1, 2, 3]]


def test_an_array_of_flat_indices_has_a_block_in_each_row():
    assert as_lists(parse_blocks(np.arange(6).reshape(3, 2), ALL_FREE, "z")) == [[0, 1], [2, 3], [4, 5]]


def test_clamped_units_are_left_out():
    assert as_lists(parse_blocks([[4, 0], [2, 3]], HALF_FREE, "z")) == [[4, 0], [2, 3]]


@pytest.mark.parametrize(
    ("blocks", "error", "message"),
    [
        ("012345", TypeError, "blocks of 'z' must be a sequence of blocks, got '012345'"),
        (7, TypeError, "blocks of 'z' must be a sequence of blocks, got 7"),
        ([[0, 1, 2], [3, 4, 6]], ValueError, r"block 1 of 'z' must hold indices into the shape \(2, 3\), got 6"),
        ([[-1]], ValueError, r"block 0 of 'z' must hold indices into the shape \(2, 3\), got -1"),
        ([[(0, 3)]], ValueError, r"block 0 of 'z' must hold indices into the shape \(2, 3\), got \(0, 3\)"),
        ([[(0, 1, 0)]], ValueError, r"must hold flat indices, or tuples of 2 indices, got the shape \(1, 3\)"),
        ([[(0, 1), (0,)]], ValueError, "block 0 of 'z' must be flat indices, .* got index tuples of different lengths"),
        ([0, 1, 2], ValueError, r"block 0 of 'z' must hold flat indices, or tuples of 2 indices, got the shape \(\)"),
        ([[0.0, 1.0]], TypeError, "block 0 of 'z' must be flat indices, index tuples or a boolean mask, got"),
        ([["a"]], TypeError, "block 0 of 'z' must be flat indices, index tuples or a boolean mask"),
        ([[0, 1, 2, 3, 4, 5], []], ValueError, "block 1 of 'z' must hold at least one unit, got none"),
        ([np.zeros((2, 3), bool)], ValueError, "block 0 of 'z' must hold at least one unit, got none"),
        ([np.ones((3, 2), bool)], ValueError, r"must be a mask of the shape \(2, 3\) of the variable, got \(3, 2\)"),
        ([[0, 1, 2], [3, 4, 5, 1]], ValueError, r"must hold every unit once, got z\[0, 1\] 2 times"),
        ([[0, 0, 1, 2], [3, 4, 5]], ValueError, r"must hold every unit once, got z\[0, 0\] 2 times"),
        ([[0, 1, 2], [3, 4]], ValueError, r"must hold every free unit, got none with z\[1, 2\]$"),
        ([[0, 1]], ValueError, r"got none with z\[0, 2\] \(4 units are missing\)"),
        ([], ValueError, r"got none with z\[0, 0\] \(6 units are missing\)"),
    ],
)
def test_blocks_that_are_refused(blocks, error, message):
    with pytest.raises(error, match=message):
        parse_blocks(blocks, ALL_FREE, "z")


def test_clamped_units_are_refused():
    with pytest.raises(ValueError, match=r"blocks must hold free units only, got z\[0, 1\], which is observed"):
        parse_blocks([[0, 1], [2, 3, 4]], HALF_FREE, "z")


def test_blocks_are_sorted_by_variable():
    assert blocks_by_name(None, ["v", "h"]) == {}
    assert blocks_by_name([[0]], ["v"]) == {"v": [[0]]}
    assert list(blocks_by_name({"h": [[0]], "v": [[1]]}, ["v", "h"])) == ["h", "v"]
    with pytest.raises(TypeError, match=r"blocks must be a dict .* since the step updates \['v', 'h'\], got list"):
        blocks_by_name([[0]], ["v", "h"])
    with pytest.raises(ValueError, match=r"blocks must name variables that the step updates, \['v'\], got 'h'"):
        blocks_by_name({"h": [[0]]}, ["v"])
    with pytest.raises(TypeError, match="blocks must be a sequence of blocks, or a dict of them by variable, got 3"):
        blocks_by_name(3, ["v"])


def test_units_that_interact_are_named():
    """A chain 0-1-2 in each field of a batch of two; a stored zero is no coupling."""
    couplings = csr_array((np.array([1.0, 1.0, 0.0, 0.0, -2.0, -2.0]), ([0, 1, 0, 2, 1, 2], [1, 0, 2, 0, 2, 1])))
    check_independent(parse_blocks([[0, 2, 3, 5], [1, 4]], np.ones((2, 3), bool), "z"), couplings, (2, 3), "z")
    with pytest.raises(ValueError, match=r"must not interact, got z\[1, 1\] and z\[1, 2\] in block 1 of 'z'"):
        check_independent(parse_blocks([[0, 2, 3], [1, 4, 5]], ALL_FREE, "z"), couplings, (2, 3), "z")


def test_numbers_and_places():
    np.testing.assert_array_equal(numbers_of_blocks([np.array([3, 0]), np.array([2])], 5), [0, -1, 1, 0, -1])
    np.testing.assert_array_equal(places_of(np.array([-1, 3, 0]), 4), [2, -1, -1, 1])
