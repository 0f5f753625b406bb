"""Sample the units of Gaussian networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from pymc.blocking import PointType
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigvalsh

from step_methods._blocks import numbers_of_blocks, places_of
from step_methods._restricted import Decisions, Numbers, Scan, Units
from step_methods.kernels.gaussian import (
    PreparedGaussian,
    energy_gaussian,
    prepare_gaussian,
    sweep_gaussian,
)
from step_methods.kernels.normal import fill_normal
from step_methods.network import NetworkReader

__all__ = ["GaussianSampler"]


@dataclass(frozen=True, eq=False, slots=True)
class _Layout:
    """Which coordinates of a vector are free, which of the free ones (numbered among these) form a block, how many."""

    free: np.ndarray
    blocks: list[np.ndarray]
    sizes: np.ndarray


@dataclass(frozen=True, eq=False, slots=True)
class _Law:
    """What follows from a covariance: the law of the free coordinates given the clamped ones, and of its blocks.

    Attributes
    ----------
    layout : _Layout
    covariance : ndarray, shape (n_units, n_units)
        Of all coordinates.
    precision : ndarray of float64, shape (n_free, n_free)
        Of the free coordinates given the clamped ones.
    gains : ndarray of float64, shape (n_free, n_clamped)
        By which the mean of the free coordinates follows the deviations of the clamped ones.
    clamped_precision : ndarray of float64, shape (n_clamped, n_clamped)
        Of the clamped coordinates, the free ones integrated out.
    blocks : tuple
        As the kernel wants them.
    """

    layout: _Layout
    covariance: np.ndarray
    precision: np.ndarray
    gains: np.ndarray
    clamped_precision: np.ndarray
    blocks: PreparedGaussian


@dataclass(slots=True)
class _Vector:
    """One Gaussian vector of a batch, reduced to its free coordinates.

    Attributes
    ----------
    layout : _Layout
        The same object for vectors that are laid out alike.
    clamped : ndarray of float64, shape (n_clamped,)
        Values of its clamped coordinates.
    places : slice
        Its free coordinates in the raveled value of the variable.
    own_number : ndarray of int64, shape (n_blocks,)
        What `layout` calls each block of the variable, −1 where none of its units is in this vector.
    law : _Law or None
        None until the covariance is read; the same object for vectors that are alike.
    mean : ndarray of float64, shape (n_free,)
        Of the free coordinates given the clamped ones.
    clamped_energy : float
        The part of the energy that no free coordinate enters.
    """

    layout: _Layout
    clamped: np.ndarray
    places: slice
    own_number: np.ndarray
    law: _Law | None = None
    mean: np.ndarray | None = None
    clamped_energy: float = 0.0

    def picks(self, scan: Scan) -> np.ndarray:
        """Return which blocks a scan updates, by the numbers of `layout`."""
        if isinstance(scan, int):
            return np.tile(np.arange(len(self.layout.blocks)), scan)
        own = self.own_number[scan]
        return own[own >= 0]

    def set_mean(self, mean: np.ndarray) -> None:
        """Compute what depends on the mean."""
        assert self.law is not None
        free = self.layout.free
        deviations = self.clamped - mean[~free]
        self.mean = mean[free] + self.law.gains @ deviations
        self.clamped_energy = float(deviations @ self.law.clamped_precision @ deviations) / 2


class GaussianSampler:
    """Sample the units of one Gaussian network, which is a batch of one or more vectors.

    Parameters
    ----------
    reader : NetworkReader
    blocks : mapping
        From `step_methods._blocks.parse_blocks`, by the names of value variables. Without an entry for this network
        the free coordinates of a vector are drawn one by one.

    Attributes
    ----------
    changes : bool
        Whether parameters have to be read at every step.
    inputs : list of str
        The value variables that they are read from.
    conditioned_on, updated : list of str
        Name of the value variable that a draw depends on, and that it draws.
    n_units : int
        Number of two-valued units: none.
    """

    n_units = 0

    def __init__(self, reader: NetworkReader, blocks: Mapping[str, Sequence[np.ndarray]]):
        self._reader = reader
        self._name = reader.visible.value_name or ""
        self._blocks = blocks.get(self._name)
        self._batch: tuple[int, ...] = ()
        self._vectors: list[_Vector] = []
        self.changes = reader.parameters.changes
        self.inputs = reader.parameters.inputs
        self.conditioned_on = self.updated = [self._name]

    @property
    def n_blocks(self) -> int:
        """Number of blocks that are picked from in random order."""
        return self._vectors[0].own_number.size

    def start(self) -> None:
        """Forget, at the start of a chain, what may have changed since the last one."""
        if not self._reader.constant:
            self._vectors = []

    def logits_at(self, point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return nothing: real units take no evidence."""
        return {}

    def disperse(self, point: PointType, by_default: set[str], rng: np.random.Generator) -> None:
        """Leave the start as it is: the law has one mode, which chains find."""

    def look(self, point: Mapping[str, np.ndarray]) -> tuple[bool, bool]:
        """Say that the units can change: real ones always do."""
        return False, False

    def read(self, point: Mapping[str, np.ndarray]) -> None:
        """Read the parameters and, where they were forgotten, the clamped units."""
        if self._vectors and not self.changes:
            return
        if not self._vectors:
            self._vectors = self._lay_out()
        mean, covariance = self._reader.parameters.read(point)
        n_units = self._vectors[0].layout.free.size
        if covariance.shape[-2:] != (n_units, n_units):
            raise ValueError(
                f"the covariance of {self._reader.name!r} must have the shape {(n_units, n_units)}, "
                f"got {covariance.shape[-2:]}"
            )
        means = np.broadcast_to(mean, (*self._batch, n_units)).reshape(-1, n_units)
        covariances = np.broadcast_to(covariance, (*self._batch, n_units, n_units))
        shared: _Law | None = None
        for index, vector, own_mean in zip(np.ndindex(self._batch), self._vectors, means, strict=True):
            own = covariances[index]
            if vector.law is None or not np.array_equal(own, vector.law.covariance):
                if shared is None or shared.layout is not vector.layout or not np.array_equal(own, shared.covariance):
                    shared = _law(own, vector.layout, self._reader.name)
                vector.law = shared
            shared = vector.law
            vector.set_mean(own_mean.astype(np.float64))

    def draw(self, old: Units, new: Units, scan: Scan, stream: np.ndarray) -> tuple[float, int]:
        """Fill in the new units; return the energy after the last update, and that no two-valued unit changed.

        Parameters
        ----------
        old, new : dict
        scan : int or ndarray of int64
            How many sweeps to make, or the numbers of the blocks to update.
        stream : ndarray
        """
        total_energy = 0.0
        for vector in self._vectors:
            picks = vector.picks(scan)
            noise = np.empty(vector.layout.sizes[picks].sum())
            fill_normal(stream, noise)
            deviations = self._sweep(vector, old[self._name], new[self._name], picks, noise)
            assert vector.law is not None
            total_energy += vector.clamped_energy + energy_gaussian(vector.law.precision, deviations)
        return total_energy, 0

    def force_numbers(self, old: Units, new: Units, scan: Scan, numbers: Iterator[float]) -> list[float]:
        """Fill in the new units by standard normal numbers that are given; return NaN for each of them."""
        n_numbers = 0
        for vector in self._vectors:
            picks = vector.picks(scan)
            size = int(vector.layout.sizes[picks].sum())
            noise = np.fromiter(islice(numbers, size), np.float64, size)
            self._sweep(vector, old[self._name], new[self._name], picks, noise)
            n_numbers += size
        return [np.nan] * n_numbers

    @staticmethod
    def _sweep(
        vector: _Vector, before: np.ndarray, after: np.ndarray, picks: np.ndarray, noise: np.ndarray
    ) -> np.ndarray:
        """Draw blocks of a vector one after the other; return its deviations from the mean."""
        assert vector.law is not None
        assert vector.mean is not None
        deviations = before[vector.places] - vector.mean
        sweep_gaussian(vector.law.blocks, deviations, picks, noise)
        after[vector.places] = vector.mean + deviations
        return deviations

    def numbers(self) -> Numbers:
        """Return what the random numbers of a sweep are about: coordinates, block after block."""
        blocks = [vector.places.start + block for vector in self._vectors for block in vector.layout.blocks]
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
        return TypeError(f"{self._reader.name!r} is real-valued: its draws cannot be forced by binary decisions")

    def _lay_out(self) -> list[_Vector]:
        values, free = self._reader.visible.read()
        self._batch = values.shape[:-1]
        rows = [array.reshape(-1, values.shape[-1]) for array in (values, free, self._number_blocks(free))]
        n_blocks = int(rows[-1].max()) + 1
        layouts: dict[tuple[bytes, bytes], _Layout] = {}
        vectors: list[_Vector] = []
        stop = 0
        for row_values, row_free, row_numbers in zip(*rows, strict=True):
            start, stop = stop, stop + int(row_free.sum())
            own_blocks, block_of = np.unique(row_numbers[row_free], return_inverse=True)
            key = row_free.tobytes(), block_of.tobytes()
            if key not in layouts:
                blocks = [np.flatnonzero(block_of == k) for k in range(own_blocks.size)]
                layouts[key] = _Layout(row_free, blocks, np.bincount(block_of, minlength=1))
            clamped = row_values[~row_free].astype(np.float64)
            vectors.append(_Vector(layouts[key], clamped, slice(start, stop), places_of(own_blocks, n_blocks)))
        return vectors

    def _number_blocks(self, free: np.ndarray) -> np.ndarray:
        """Return the number of each unit's block, of the shape of `free`; −1 for clamped units.

        By default the first free coordinates of all vectors are a block, and so on.
        """
        if self._blocks is None:
            return np.where(free, np.cumsum(free, axis=-1) - 1, -1)
        return numbers_of_blocks(self._blocks, free.size).reshape(free.shape)


def _law(covariance: np.ndarray, layout: _Layout, name: str) -> _Law:
    """Compute what follows from a covariance; raise if it is not symmetric and positive definite."""
    tolerance = np.sqrt(np.finfo(covariance.dtype).eps) * np.abs(covariance).max()
    if (asymmetry := np.abs(covariance - covariance.T).max()) > tolerance:
        raise ValueError(f"the covariance of {name!r} must be symmetric, got two halves that differ by {asymmetry:.3g}")
    double = (covariance.astype(np.float64) + covariance.T) / 2
    free = layout.free
    clamped_to_free = np.ix_(~free, free)
    try:
        whole = _inverse(double)
        precision = whole[np.ix_(free, free)]
        return _Law(
            layout=layout,
            covariance=covariance.copy(),
            precision=precision,
            gains=-cho_solve(cho_factor(precision), whole[clamped_to_free].T),
            clamped_precision=_inverse(double[np.ix_(~free, ~free)]),
            blocks=prepare_gaussian(precision, layout.blocks),
        )
    except LinAlgError:
        raise ValueError(
            f"the covariance of {name!r} must be positive definite, got one with the eigenvalue "
            f"{eigvalsh(double)[0]:.3g}"
        ) from None


def _inverse(matrix: np.ndarray) -> np.ndarray:
    inverse = cho_solve(cho_factor(matrix, lower=True), np.eye(len(matrix)))
    return (inverse + inverse.T) / 2
