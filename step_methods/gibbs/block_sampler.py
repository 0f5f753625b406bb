"""What the samplers of `BlockGibbs` have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from step_methods.reduced.reduced import ReducedNetwork
from step_methods.sampler import Decisions, Numbers, Scan, Units

__all__ = ["BlockSampler"]


class BlockSampler[AnyReduced: ReducedNetwork](ABC):
    """A `step_methods.sampler.Sampler` that arranges for its kernels what has been read of a network."""

    reduced: AnyReduced
    margin: ClassVar[float] = 0.0

    @property
    @abstractmethod
    def n_blocks(self) -> int:
        """Number of blocks that are picked from in random order."""

    @abstractmethod
    def lay_out(self) -> None:
        """Find the blocks of each part of the network, after its clamped units were read."""

    @abstractmethod
    def prepare(self) -> None:
        """Arrange the parameters for the kernels."""

    def start(self) -> None:
        """See `Sampler.start`."""
        self.reduced.start()

    def read(self, point: Mapping[str, np.ndarray]) -> None:
        """See `Sampler.read`."""
        was_stale = self.reduced.is_stale
        if self.reduced.read(point):
            if was_stale:
                self.lay_out()
            self.prepare()

    @abstractmethod
    def draw(self, old: Units, new: Units, scan: Scan, stream: np.ndarray) -> tuple[float, int]:
        """See `Sampler.draw`."""

    @abstractmethod
    def force(self, old: Units, new: Units, scan: Scan, bits: Iterator[int]) -> list[float]:
        """See `Sampler.force`."""

    def force_numbers(self, old: Units, new: Units, scan: Scan, numbers: Iterator[float]) -> list[float]:
        """See `Sampler.force_numbers`: all of them are decisions."""
        return self.force(old, new, scan, map(int, numbers))

    @abstractmethod
    def numbers(self) -> Numbers:
        """See `Sampler.numbers`."""

    @abstractmethod
    def decisions(self) -> Decisions:
        """See `Sampler.decisions`."""
