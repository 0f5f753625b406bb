"""What is left to sample of Gaussian networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigvalsh

from step_methods.network import GaussianNetwork, reduced_of
from step_methods.reading.evidence import Evidence
from step_methods.reading.readers import NetworkReader
from step_methods.reduced.reduced import ReducedNetwork

__all__ = ["Law", "ReducedGaussian", "ReducedVector"]


@dataclass(frozen=True, eq=False, slots=True)
class Law:
    """What follows from a covariance: the law of the free coordinates given the clamped ones.

    Attributes
    ----------
    covariance : ndarray, shape (n_units, n_units)
        Of all coordinates.
    free : ndarray of bool, shape (n_units,)
        The coordinates that are free.
    precision : ndarray of float64, shape (n_free, n_free)
        Of the free coordinates given the clamped ones.
    gains : ndarray of float64, shape (n_free, n_clamped)
        By which the mean of the free coordinates follows the deviations of the clamped ones.
    clamped_precision : ndarray of float64, shape (n_clamped, n_clamped)
        Of the clamped coordinates, the free ones integrated out.
    """

    covariance: np.ndarray
    free: np.ndarray
    precision: np.ndarray
    gains: np.ndarray
    clamped_precision: np.ndarray


@dataclass(slots=True)
class ReducedVector:
    """One Gaussian vector of a batch, reduced to its free coordinates.

    Attributes
    ----------
    free : ndarray of bool, shape (n_units,)
    clamped : ndarray of float64, shape (n_clamped,)
        Values of its clamped coordinates.
    places : slice
        Its free coordinates in the raveled value of the variable.
    law : Law or None
        None until the covariance is read; the same object for vectors that are alike.
    mean : ndarray of float64, shape (n_free,)
        Of the free coordinates given the clamped ones.
    clamped_energy : float
        The part of the energy that no free coordinate enters.
    """

    free: np.ndarray
    clamped: np.ndarray
    places: slice
    law: Law | None = None
    mean: np.ndarray | None = None
    clamped_energy: float = 0.0

    def set_mean(self, mean: np.ndarray) -> None:
        """Compute what depends on the mean."""
        assert self.law is not None
        deviations = self.clamped - mean[~self.free]
        self.mean = mean[self.free] + self.law.gains @ deviations
        self.clamped_energy = float(deviations @ self.law.clamped_precision @ deviations) / 2


@reduced_of.register(GaussianNetwork)
def _reduced(
    network: GaussianNetwork, reader: NetworkReader, updated: set[str], evidence: Mapping[str, Evidence]
) -> ReducedGaussian:
    return ReducedGaussian(reader, updated, evidence)


class ReducedGaussian(ReducedNetwork):
    """A Gaussian network, reduced to the free coordinates of each vector; see `ReducedNetwork` for the parameters.

    Attributes
    ----------
    variable : str
        The name of the value variable.
    vectors : list of ReducedVector
    """

    n_units = 0

    def __init__(self, reader: NetworkReader, updated: set[str], evidence: Mapping[str, Evidence]):
        super().__init__(reader, updated, evidence)
        self.variable = reader.visible.value_name or ""
        self._batch: tuple[int, ...] = ()
        self.vectors: list[ReducedVector] = []

    def lay_out(self) -> None:
        values, free = self.reader.visible.read()
        self._batch = values.shape[:-1]
        n_units = values.shape[-1]
        if (got := self.parameters[1].shape[-2:]) != (n_units, n_units):
            raise ValueError(f"the covariance of {self.name!r} must have the shape {(n_units, n_units)}, got {got}")
        self.vectors = []
        stop = 0
        for row_values, row_free in zip(values.reshape(-1, n_units), free.reshape(-1, n_units), strict=True):
            start, stop = stop, stop + int(row_free.sum())
            self.vectors.append(ReducedVector(row_free, row_values[~row_free].astype(np.float64), slice(start, stop)))

    def reduce(self, logits: Mapping[str, np.ndarray], *, parameters_are_new: bool) -> None:
        mean, covariance = self.parameters
        n_units = self.vectors[0].free.size
        means = np.broadcast_to(mean, (*self._batch, n_units)).reshape(-1, n_units)
        covariances = np.broadcast_to(covariance, (*self._batch, n_units, n_units))
        shared: Law | None = None
        for index, vector, own_mean in zip(np.ndindex(self._batch), self.vectors, means, strict=True):
            own = covariances[index]
            if vector.law is None or not np.array_equal(own, vector.law.covariance):
                is_alike = (
                    shared is not None
                    and np.array_equal(shared.free, vector.free)
                    and np.array_equal(own, shared.covariance)
                )
                vector.law = shared if is_alike else _law(own, vector.free, self.name)
            shared = vector.law
            vector.set_mean(own_mean.astype(np.float64))


def _law(covariance: np.ndarray, free: np.ndarray, name: str) -> Law:
    """Compute what follows from a covariance; raise if it is not symmetric and positive definite."""
    tolerance = np.sqrt(np.finfo(covariance.dtype).eps) * np.abs(covariance).max()
    if (asymmetry := np.abs(covariance - covariance.T).max()) > tolerance:
        raise ValueError(f"the covariance of {name!r} must be symmetric, got two halves that differ by {asymmetry:.3g}")
    double = (covariance.astype(np.float64) + covariance.T) / 2
    clamped_to_free = np.ix_(~free, free)
    try:
        whole = _inverse(double)
        precision = whole[np.ix_(free, free)]
        return Law(
            covariance=covariance.copy(),
            free=free,
            precision=precision,
            gains=-cho_solve(cho_factor(precision), whole[clamped_to_free].T),
            clamped_precision=_inverse(double[np.ix_(~free, ~free)]),
        )
    except LinAlgError:
        raise ValueError(
            f"the covariance of {name!r} must be positive definite, got one with the eigenvalue "
            f"{eigvalsh(double)[0]:.3g}"
        ) from None


def _inverse(matrix: np.ndarray) -> np.ndarray:
    inverse = cho_solve(cho_factor(matrix, lower=True), np.eye(len(matrix)))
    return (inverse + inverse.T) / 2
