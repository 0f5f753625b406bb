"""Sample the units of Gaussian networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from step_methods.gibbs.block_sampler import BlockSampler
from step_methods.kernels.pairwise.gaussian import PreparedGaussian, energy_gaussian, prepare_gaussian, sweep_gaussian
from step_methods.kernels.vectors.normal import fill_normal
from step_methods.network import sampler_of
from step_methods.reading.blocks import numbers_of_blocks, places_of
from step_methods.reduced.gaussian import Law, ReducedGaussian, ReducedVector
from step_methods.sampler import Decisions, Numbers, Scan, Units

__all__ = ["GaussianSampler"]


@dataclass(eq=False, slots=True)
class _Layout:
    """How the free coordinates of one vector are updated.

    Attributes
    ----------
    blocks : list of ndarray
        The coordinates that form a block, numbered among the free ones; the same object for vectors that are alike.
    sizes : ndarray of int64
        How many coordinates each block has.
    own_number : ndarray of int64, shape (n_blocks,)
        What `blocks` calls each block of the variable, −1 where none of its units is in this vector.
    law : Law or None
        Which the blocks were prepared for.
    prepared : tuple or None
        The blocks as the kernel wants them.
    """

    blocks: list[np.ndarray]
    sizes: np.ndarray
    own_number: np.ndarray
    law: Law | None = None
    prepared: PreparedGaussian | None = None

    def picks(self, scan: Scan) -> np.ndarray:
        """Return which blocks a scan updates, by the numbers of `blocks`."""
        if isinstance(scan, int):
            return np.tile(np.arange(len(self.blocks)), scan)
        own = self.own_number[scan]
        return own[own >= 0]


class GaussianSampler(BlockSampler[ReducedGaussian]):
    """Sample the units of one Gaussian network, block by block.

    Parameters
    ----------
    reduced : ReducedGaussian
    blocks : mapping
        From `step_methods.reading.blocks.parse_blocks`, by the names of value variables. Without an entry for this
        network the free coordinates of a vector are drawn one by one.
    """

    def __init__(self, reduced: ReducedGaussian, blocks: Mapping[str, Sequence[np.ndarray]]):
        self.reduced = reduced
        self._blocks = blocks.get(reduced.variable)
        self._layouts: list[_Layout] = []

    @property
    def n_blocks(self) -> int:
        """Number of blocks that are picked from in random order."""
        return self._layouts[0].own_number.size

    def _parts(self) -> Iterator[tuple[ReducedVector, _Layout]]:
        return zip(self.reduced.vectors, self._layouts, strict=True)

    def lay_out(self) -> None:
        vectors = self.reduced.vectors
        numbers = self._number_blocks(np.stack([vector.free for vector in vectors]))
        n_blocks = int(numbers.max()) + 1
        alike: dict[tuple[bytes, bytes], tuple[list[np.ndarray], np.ndarray]] = {}
        self._layouts = []
        for vector, own_numbers in zip(vectors, numbers, strict=True):
            own_blocks, block_of = np.unique(own_numbers[vector.free], return_inverse=True)
            key = vector.free.tobytes(), block_of.tobytes()
            if key not in alike:
                blocks = [np.flatnonzero(block_of == k) for k in range(own_blocks.size)]
                alike[key] = blocks, np.bincount(block_of, minlength=1)
            self._layouts.append(_Layout(*alike[key], places_of(own_blocks, n_blocks)))

    def _number_blocks(self, free: np.ndarray) -> np.ndarray:
        """Return the number of each unit's block, of the shape of `free`; −1 for clamped units.

        By default the first free coordinates of all vectors are a block, and so on.
        """
        if self._blocks is None:
            return np.where(free, np.cumsum(free, axis=-1) - 1, -1)
        return numbers_of_blocks(self._blocks, free.size).reshape(free.shape)

    def prepare(self) -> None:
        """Prepare the blocks of each new law; vectors that are alike, one after another, share them."""
        last: _Layout | None = None
        for vector, layout in self._parts():
            law = vector.law
            assert law is not None
            if layout.law is not law:
                is_alike = last is not None and last.law is law and last.blocks is layout.blocks
                layout.prepared = last.prepared if last and is_alike else prepare_gaussian(law.precision, layout.blocks)
                layout.law = law
            last = layout

    def draw(self, old: Units, new: Units, scan: Scan, stream: np.ndarray) -> tuple[float, int]:
        """See `Sampler.draw`."""
        variable = self.reduced.variable
        total_energy = 0.0
        for vector, layout in self._parts():
            picks = layout.picks(scan)
            noise = np.empty(layout.sizes[picks].sum())
            fill_normal(stream, noise)
            deviations = self._sweep(vector, layout, old[variable], new[variable], picks, noise)
            assert vector.law is not None
            total_energy += vector.clamped_energy + energy_gaussian(vector.law.precision, deviations)
        return total_energy, 0

    def force_numbers(self, old: Units, new: Units, scan: Scan, numbers: Iterator[float]) -> list[float]:
        """See `Sampler.force_numbers`: all of them are standard normal."""
        variable = self.reduced.variable
        n_numbers = 0
        for vector, layout in self._parts():
            picks = layout.picks(scan)
            size = int(layout.sizes[picks].sum())
            noise = np.fromiter(islice(numbers, size), np.float64, size)
            self._sweep(vector, layout, old[variable], new[variable], picks, noise)
            n_numbers += size
        return [np.nan] * n_numbers

    @staticmethod
    def _sweep(
        vector: ReducedVector,
        layout: _Layout,
        before: np.ndarray,
        after: np.ndarray,
        picks: np.ndarray,
        noise: np.ndarray,
    ) -> np.ndarray:
        """Draw blocks of a vector one after the other; return its deviations from the mean."""
        assert vector.mean is not None
        deviations = before[vector.places] - vector.mean
        sweep_gaussian(layout.prepared, deviations, picks, noise)
        after[vector.places] = vector.mean + deviations
        return deviations

    def numbers(self) -> Numbers:
        """See `Sampler.numbers`."""
        blocks = [vector.places.start + block for vector, layout in self._parts() for block in layout.blocks]
        units = np.concatenate(blocks)
        starts_block = np.concatenate([np.arange(block.size) == 0 for block in blocks])
        return Numbers(units, np.ones(units.size, bool), starts_block)

    def force(self, old: Units, new: Units, scan: Scan, bits: Iterator[int]) -> list[float]:
        """Refuse: a real unit does not make binary decisions."""
        raise self._cannot_be_forced()

    def decisions(self) -> Decisions:
        """Refuse: a real unit does not make binary decisions."""
        raise self._cannot_be_forced()

    def _cannot_be_forced(self) -> TypeError:
        return TypeError(f"{self.reduced.name!r} is real-valued: its draws cannot be forced by binary decisions")


@sampler_of.register(ReducedGaussian)
def _sampler(
    reduced: ReducedGaussian, blocks: Mapping[str, Sequence[np.ndarray]], in_random_order: bool
) -> GaussianSampler:
    return GaussianSampler(reduced, blocks)
