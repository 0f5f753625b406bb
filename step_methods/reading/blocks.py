"""Blocks of units that a user gives: which units of a variable are updated together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_array

__all__ = ["Blocks", "blocks_by_name", "check_independent", "numbers_of_blocks", "parse_blocks", "places_of"]

# A block is flat indices, index tuples or a mask; they partition the free units of one variable.
type Blocks = Sequence[Any] | np.ndarray

_FORMS = "flat indices, index tuples or a boolean mask"


def blocks_by_name(blocks: Blocks | Mapping[str, Blocks] | None, names: Sequence[str]) -> dict[str, Blocks]:
    """Sort the blocks that a step method was given by the variable that they partition.

    Parameters
    ----------
    blocks : sequence of blocks, dict of them by the name of a variable, or None
    names : sequence of str
        The variables that the step updates, by the names that the user gave them.

    Returns
    -------
    dict
        In the order of `blocks`; empty if there are none.

    Raises
    ------
    TypeError
        If `blocks` is neither a sequence nor a dict, or no dict where the step has several variables.
    ValueError
        If a dict names something else than a variable of the step.
    """
    if blocks is None:
        return {}
    if isinstance(blocks, Mapping):
        if wrong := [name for name in blocks if name not in names]:
            raise ValueError(f"blocks must name variables that the step updates, {list(names)}, got {wrong[0]!r}")
        return dict(blocks)
    if isinstance(blocks, str) or not isinstance(blocks, Sequence | np.ndarray):
        raise TypeError(f"blocks must be a sequence of blocks, or a dict of them by variable, got {blocks!r}")
    if len(names) > 1:
        raise TypeError(
            f"blocks must be a dict from the name of a variable to its blocks, since the step updates {list(names)}, "
            f"got {type(blocks).__name__}"
        )
    return {names[0]: blocks}


def parse_blocks(blocks: Blocks, free: np.ndarray, name: str) -> list[np.ndarray]:
    """Read blocks that partition the free units of one variable.

    Parameters
    ----------
    blocks : sequence
        Each block is a sequence of flat (row-major) indices into the variable, a sequence of index tuples, one index
        per axis, or a boolean mask of the variable's shape.
    free : ndarray of bool
        Of the shape that the user gave the variable; false where data clamp a unit.
    name : str
        Of the variable, for errors.

    Returns
    -------
    list of ndarray of int64
        Flat indices of the units of each block, in the order given.

    Raises
    ------
    TypeError
        If something else than these is given.
    ValueError
        If a block is empty or does not fit the shape; if an index is out of range, repeated, missing or of a clamped
        unit.
    """
    if isinstance(blocks, str) or not isinstance(blocks, Sequence | np.ndarray):
        raise TypeError(f"blocks of {name!r} must be a sequence of blocks, got {blocks!r}")
    parsed = [_parse_block(block, free.shape, f"block {k} of {name!r}") for k, block in enumerate(blocks)]
    all_units = np.concatenate([np.empty(0, np.int64), *parsed])
    clamped = all_units[~free.ravel()[all_units]]
    if clamped.size:
        raise ValueError(
            f"blocks must hold free units only, got {_label(name, clamped[0], free.shape)}, which is observed"
        )
    counts = np.bincount(all_units, minlength=free.size)
    if (counts > 1).any():
        raise ValueError(
            f"blocks must hold every unit once, got {_label(name, int(counts.argmax()), free.shape)} "
            f"{counts.max()} times"
        )
    missing = free.ravel() & (counts == 0)
    if missing.any():
        raise ValueError(
            f"blocks must hold every free unit, got none with {_label(name, int(missing.argmax()), free.shape)}"
            + (f" ({missing.sum()} units are missing)" if missing.sum() > 1 else "")
        )
    return parsed


def _parse_block(block: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    try:
        units = np.asarray(block)
    except ValueError:
        raise ValueError(f"{what} must be {_FORMS}, got index tuples of different lengths") from None
    if units.dtype == bool:
        if units.shape != shape:
            raise ValueError(f"{what} must be a mask of the shape {shape} of the variable, got {units.shape}")
        units = np.flatnonzero(units)
    if units.size == 0:
        raise ValueError(f"{what} must hold at least one unit, got none")
    if not np.issubdtype(units.dtype, np.integer):
        raise TypeError(f"{what} must be {_FORMS}, got {block!r}")
    sides: tuple[int, ...] = shape
    if units.ndim == 1:
        units, sides = units[:, None], (int(np.prod(shape)),)
    if units.ndim != 2 or units.shape[1] != len(sides):
        raise ValueError(
            f"{what} must hold flat indices, or tuples of {len(shape)} indices, got the shape {units.shape}"
        )
    outside = ((units < 0) | (units >= sides)).any(axis=1)
    if outside.any():
        wrong = units[outside.argmax()].tolist()
        raise ValueError(
            f"{what} must hold indices into the shape {shape}, got {wrong[0] if len(wrong) == 1 else tuple(wrong)}"
        )
    return np.ravel_multi_index(tuple(units.T), sides).astype(np.int64)


def numbers_of_blocks(blocks: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Return the number of the block that each of `size` units is in, −1 for units that are in none."""
    numbers = np.full(size, -1)
    for k, block in enumerate(blocks):
        numbers[block] = k
    return numbers


def places_of(numbers: np.ndarray, size: int) -> np.ndarray:
    """Return where each of 0, 1, ..., size - 1 stands in `numbers`, −1 for those that do not."""
    places = np.full(size, -1)
    held = np.flatnonzero(numbers >= 0)
    places[numbers[held]] = held
    return places


def check_independent(blocks: Sequence[np.ndarray], couplings: csr_array, shape: tuple[int, ...], name: str) -> None:
    """Raise if two units of a block interact.

    Parameters
    ----------
    blocks : sequence of ndarray
        From `parse_blocks`.
    couplings : csr_array, shape (n_units, n_units)
        Of one field; the variable is a batch of them.
    shape : tuple of int
        Of the variable.
    name : str

    Raises
    ------
    ValueError
    """
    n_units = couplings.shape[0]
    numbers = numbers_of_blocks(blocks, int(np.prod(shape))).reshape(-1, n_units)
    pairs = couplings.tocoo()
    for batch, of_unit in enumerate(numbers):
        first, second = of_unit[pairs.row], of_unit[pairs.col]
        together = (first == second) & (first >= 0) & (pairs.data != 0)
        if together.any():
            k = int(together.argmax())
            one, other = (_label(name, batch * n_units + units[k], shape) for units in (pairs.row, pairs.col))
            raise ValueError(
                f"units of a block must not interact, got {one} and {other} in block {first[k]} of {name!r}, which are "
                "coupled: they are not independent given the others, and cannot be drawn together"
            )


def _label(name: str, unit: int, shape: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(str(int(i)) for i in np.unravel_index(unit, shape))}]"
