"""What a step method asks of the samplers of networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from step_methods.reduced.reduced import Reduced

__all__ = ["Decisions", "Numbers", "Sampler", "Scan", "Units"]

# The raveled values of variables, by name; a layer without a variable has no units.
type Units = dict[str | None, np.ndarray]

# How many sweeps to make in a fixed order, or the numbers of the blocks to update.
type Scan = int | np.ndarray

# The random decisions of one sweep, in the order in which they are made: the unit that each is about, in the
# concatenated values of the variables that are updated (−1 for auxiliary units), and the stage that it belongs to.
type Decisions = tuple[np.ndarray, np.ndarray]


class Numbers(NamedTuple):
    """What the random numbers of one sweep are about, in the order in which they are used.

    Attributes
    ----------
    units : ndarray of int
        The unit that each number is about, as in `Decisions`.
    is_real : ndarray of bool
        Whether it is a standard normal number, for a real unit, instead of a decision.
    starts_block : ndarray of bool
        Whether it is the first one of a block: of units that are independent given the others and, where the block
        begins with auxiliary ones, given those.
    """

    units: np.ndarray
    is_real: np.ndarray
    starts_block: np.ndarray


class Sampler(Protocol):
    """Samples what is left of one network.

    `draw` is what a chain runs. The other methods are for certificates: samplers whose random numbers are not
    decisions between two values raise a TypeError where those are asked for.

    Attributes
    ----------
    reduced : Reduced
    margin : float
        0 where the sampler draws units with the probabilities that their logits say.
    """

    @property
    def reduced(self) -> Reduced:
        """What it samples."""

    @property
    def margin(self) -> float:
        """By how much a logit must be further beyond the bound at which a unit is taken to be certain."""

    @property
    def n_blocks(self) -> int:
        """Number of blocks that are picked from in random order."""

    def start(self) -> None:
        """Forget, at the start of a chain, what may have changed since the last one."""

    def read(self, point: Mapping[str, np.ndarray]) -> None:
        """Read what has changed of the network since it was last read."""

    def draw(self, old: Units, new: Units, scan: Scan, stream: np.ndarray) -> tuple[float, int]:
        """Fill in the new units; return the energy after the last update and how many discrete units changed.

        Parameters
        ----------
        old, new : dict
        scan : int or ndarray of int64
            How many sweeps to make, or the numbers of the blocks to update.
        stream : ndarray
            From `step_methods.kernels.vectors.random.seed_stream`; the source of all random numbers.
        """

    def force(self, old: Units, new: Units, scan: Scan, bits: Iterator[int]) -> list[float]:
        """Fill in the new units by decisions from `bits`; return the probability of a 1 for each of them."""

    def force_numbers(self, old: Units, new: Units, scan: Scan, numbers: Iterator[float]) -> list[float]:
        """Fill in the new units by random numbers that are given.

        Returns
        -------
        list of float
            The probability of a 1 for each decision, NaN for each standard normal number.
        """

    def numbers(self) -> Numbers:
        """Return what the random numbers of a sweep are about."""

    def decisions(self) -> Decisions:
        """Return which units a sweep decides on, block after block, and the stages that these decisions make up."""
