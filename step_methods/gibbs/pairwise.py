"""Sample the units of pairwise networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from step_methods.gibbs.block_sampler import BlockSampler
from step_methods.kernels.pairwise.network import (
    energy_pairwise,
    order_of_decisions,
    prepare_blocks,
    prepare_in_order,
    prepare_pairwise,
    sweep_pairwise,
    sweep_pairwise_forced,
    update_blocks,
    update_blocks_forced,
)
from step_methods.kernels.pairwise.sparse import color_units
from step_methods.network import sampler_of
from step_methods.reading.blocks import check_independent, numbers_of_blocks, places_of
from step_methods.reduced.pairwise import ReducedField, ReducedPairwise
from step_methods.sampler import Decisions, Numbers, Scan, Units

__all__ = ["PairwiseSampler"]


@dataclass(frozen=True, eq=False, slots=True)
class _Layout:
    """How the free units of one field are updated.

    Attributes
    ----------
    network : tuple
        The couplings between its free units, as the kernels want them; the same object for fields that are alike.
    numbers : ndarray of int64, shape (n_free,)
        The block of each free unit, where blocks were given or the order is random; otherwise −1.
    own_number : ndarray of int64, shape (n_blocks,)
        What the kernels call each block, −1 where none of its units is in this field.
    """

    network: Any
    numbers: np.ndarray
    own_number: np.ndarray

    def picks(self, blocks: np.ndarray) -> np.ndarray:
        """Return those of the blocks that have units in this field, by the numbers that the kernels take."""
        own = self.own_number[blocks]
        return own[own >= 0]


class PairwiseSampler(BlockSampler[ReducedPairwise]):
    """Sample the units of one pairwise network by blocks.

    Parameters
    ----------
    reduced : ReducedPairwise
    blocks : mapping
        From `step_methods.reading.blocks.parse_blocks`, by the names of value variables; none where they are to be
        found.
    in_random_order : bool
        Whether blocks are picked at random, so that `draw` and `force` are given their numbers.

    Raises
    ------
    ValueError
        If units of a block interact.
    """

    def __init__(self, reduced: ReducedPairwise, blocks: Mapping[str, Sequence[np.ndarray]], in_random_order: bool):
        self.reduced = reduced
        self._blocks = blocks.get(reduced.variable)
        self._in_random_order = in_random_order
        self._parts: list[tuple[ReducedField, _Layout]] = []
        if self._blocks is not None:
            _, free = reduced.reader.visible.read()
            check_independent(self._blocks, reduced.couplings, free.shape, reduced.name)

    @property
    def n_blocks(self) -> int:
        """Number of blocks that are picked from in random order."""
        return self._parts[0][1].own_number.size

    def lay_out(self) -> None:
        fields = self.reduced.fields
        numbers = self._number_blocks([field.free for field in fields])
        n_blocks = int(numbers.max()) + 1
        prepared: dict[bytes, Any] = {}
        self._parts = []
        for field, field_numbers in zip(fields, numbers, strict=True):
            # Fields with the same free units in the same blocks share their couplings.
            key = field.free.tobytes() + field_numbers.tobytes()
            field_numbers = field_numbers[field.free]
            own_blocks, own_numbers = np.unique(field_numbers, return_inverse=True)
            if key not in prepared:
                prepared[key] = self._arrange(self.reduced.free_couplings(field), own_numbers)
            layout = _Layout(prepared[key], field_numbers, places_of(own_blocks, n_blocks))
            self._parts.append((field, layout))

    def _number_blocks(self, free: Sequence[np.ndarray]) -> np.ndarray:
        """Return the number of each unit's block, (n_fields, n_units); −1 for clamped units, or if there are none.

        Blocks that are to be found are the colors of the free units, the first of all fields of a batch together, and
        so on.
        """
        shape = len(free), self.reduced.n_field_units
        if self._blocks is not None:
            return numbers_of_blocks(self._blocks, shape[0] * shape[1]).reshape(shape)
        numbers = np.full(shape, -1)
        if self._in_random_order:
            for field, field_numbers in zip(self.reduced.fields, numbers, strict=True):
                field_numbers[field.free] = color_units(self.reduced.free_couplings(field))
        return numbers

    def _arrange(self, couplings: csr_array, own_numbers: np.ndarray) -> Any:
        """Arrange the couplings between free units as the kernels want them."""
        if self._blocks is None and not self._in_random_order:
            return prepare_pairwise(couplings)
        one_by_one = np.array_equal(own_numbers, np.arange(own_numbers.size))
        if one_by_one and not self._in_random_order:
            return prepare_in_order(couplings)
        return prepare_blocks(couplings, own_numbers)

    def prepare(self) -> None:
        """Nothing is to be done: the kernels take coupling and biases as they are."""

    def draw(self, old: Units, new: Units, scan: Scan, stream: np.ndarray) -> tuple[float, int]:
        """See `Sampler.draw`."""
        reduced = self.reduced
        before, after = old[reduced.variable], new[reduced.variable]
        total_energy = 0.0
        for field, layout in self._parts:
            bits = reduced.to_bits(before[field.places])
            if isinstance(scan, int):
                sweep_pairwise(layout.network, bits, field.biases, field.coupling, scan, stream)
            else:
                update_blocks(layout.network, bits, field.biases, field.coupling, layout.picks(scan), stream)
            total_energy += field.constant_energy + energy_pairwise(
                layout.network, bits, field.plain_biases, field.coupling
            )
            after[field.places] = reduced.from_bits(bits)
        return total_energy, int(np.count_nonzero(before != after))

    def force(self, old: Units, new: Units, scan: Scan, bits: Iterator[int]) -> list[float]:
        """See `Sampler.force`."""
        reduced = self.reduced
        before, after = old[reduced.variable], new[reduced.variable]
        all_probabilities: list[float] = []
        for field, layout in self._parts:
            units = reduced.to_bits(before[field.places])
            if isinstance(scan, int):
                n_decisions = scan * units.size
            else:
                n_decisions = int(np.bincount(layout.numbers, minlength=self.n_blocks)[scan].sum())
            decisions = np.fromiter(islice(bits, n_decisions), np.uint8, n_decisions)
            probabilities = np.empty(n_decisions)
            network = layout.network, units, field.biases, field.coupling
            if isinstance(scan, int):
                sweep_pairwise_forced(*network, scan, decisions, probabilities)
            else:
                update_blocks_forced(*network, layout.picks(scan), decisions, probabilities)
            after[field.places] = reduced.from_bits(units)
            all_probabilities += probabilities.tolist()
        return all_probabilities

    def numbers(self) -> Numbers:
        """See `Sampler.numbers`."""
        units, _ = self.decisions()
        return Numbers(units, np.zeros(units.size, bool), np.ones(units.size, bool))

    def decisions(self) -> Decisions:
        """See `Sampler.decisions`."""
        orders = [order_of_decisions(layout.network, field.biases) for field, layout in self._parts]
        units = np.concatenate([order + f.places.start for f, order in zip(self.reduced.fields, orders, strict=True)])
        if not self._in_random_order:
            return units, np.arange(units.size)
        stages = [layout.numbers[order] for (_, layout), order in zip(self._parts, orders, strict=True)]
        return units, np.concatenate(stages)


@sampler_of.register(ReducedPairwise)
def _sampler(
    reduced: ReducedPairwise, blocks: Mapping[str, Sequence[np.ndarray]], in_random_order: bool
) -> PairwiseSampler:
    return PairwiseSampler(reduced, blocks, in_random_order)
