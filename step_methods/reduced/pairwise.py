"""What is left to sample of pairwise networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from step_methods.network import PairwiseNetwork, reduced_of
from step_methods.reading.evidence import Evidence
from step_methods.reading.readers import NetworkReader
from step_methods.reduced.freeze import certainty, look_at_units
from step_methods.reduced.reduced import ReducedNetwork

__all__ = ["ReducedField", "ReducedPairwise"]


@dataclass(slots=True)
class ReducedField:
    """One field of a batch, reduced to its free units: the clamped ones act as biases.

    Attributes
    ----------
    bits : ndarray of int64, shape (n_units,)
        Its clamped units, zero where a unit is free.
    free : ndarray of bool, shape (n_units,)
    places : slice
        Its free units in the raveled value of the variable.
    from_clamped : ndarray, shape (n_free,)
        What the clamped units add to the field of each free one, for a coupling of 1.
    clamped_pairs : float
        Minus the energy of the couplings between the clamped units, for a coupling of 1.
    plain_biases, biases : ndarray, shape (n_free,)
        The biases of the free units, without and with the evidence on them.
    coupling : float
    constant_energy : float
        The part of the energy that no free unit enters.
    """

    bits: np.ndarray
    free: np.ndarray
    places: slice
    from_clamped: np.ndarray
    clamped_pairs: float
    plain_biases: np.ndarray
    biases: np.ndarray
    coupling: float = 1.0
    constant_energy: float = 0.0


@reduced_of.register(PairwiseNetwork)
def _reduced(
    network: PairwiseNetwork, reader: NetworkReader, updated: set[str], evidence: Mapping[str, Evidence]
) -> ReducedPairwise:
    return ReducedPairwise(network.couplings, network.values, network.ndim, reader, updated, evidence)


class ReducedPairwise(ReducedNetwork):
    """A pairwise network, reduced to the free units of each field; see `ReducedNetwork` for the other parameters.

    Spins are brought to bits, s = 2z − 1, so that one kernel serves both: J' = 4J and b' = 2h − 2c J·1.

    Parameters
    ----------
    couplings : csr_array, shape (n_units, n_units)
        Between units of the values that they have.
    values : tuple of int
        The lower and the upper value of a unit.
    ndim : int
        Number of axes of one field.

    Attributes
    ----------
    variable : str
        The name of the field's value variable.
    couplings : csr_array, shape (n_units, n_units)
        Between bits.
    n_field_units : int
        Number of units of one field, clamped ones included.
    fields : list of ReducedField
    """

    def __init__(
        self,
        couplings: csr_array,
        values: tuple[int, int],
        ndim: int,
        reader: NetworkReader,
        updated: set[str],
        evidence: Mapping[str, Evidence],
    ):
        super().__init__(reader, updated, evidence)
        self.variable = reader.visible.value_name or ""
        self._ndim = ndim
        self._batch: tuple[int, ...] = ()
        self._low = values[0]
        self._are_spins = self._low == -1
        self._row_sums = np.asarray(couplings.sum(axis=1)).ravel()
        self.couplings = csr_array(4 * couplings if self._are_spins else couplings)
        self.n_field_units = self._row_sums.size
        self.fields: list[ReducedField] = []

    @property
    def n_units(self) -> int:
        """Number of units of the model that a draw updates."""
        return sum(field.biases.size for field in self.fields)

    def free_couplings(self, field: ReducedField) -> csr_array:
        """Return the couplings between the free units of a field."""
        return self.couplings if field.free.all() else csr_array(self.couplings[field.free][:, field.free])

    def to_bits(self, units: np.ndarray) -> np.ndarray:
        """Return units as zeros and ones, of uint8."""
        return (units != self._low).astype(np.uint8)

    def from_bits(self, bits: np.ndarray) -> np.ndarray:
        """Return the units that zeros and ones stand for."""
        return np.where(bits, 1, self._low) if self._are_spins else bits

    def look(self, point: Mapping[str, np.ndarray], margin: float = 0.0) -> tuple[bool, bool]:
        """See `Reduced.look`."""
        looks = []
        for field in self.fields:
            bits = self.to_bits(point[self.variable].ravel()[field.places]).astype(bool)
            all_units, none = np.ones(bits.size, bool), np.zeros(bits.size, bool)
            bound = certainty(self.couplings.dtype) + margin
            couplings = self.free_couplings(field)
            looks.append(look_at_units(couplings, field.coupling, field.biases, bits, all_units, none, bound))
        return all(certain for certain, _ in looks), any(free for _, free in looks)

    def lay_out(self) -> None:
        values, free = self.reader.visible.read()
        self._batch = values.shape[: values.ndim - self._ndim]
        dtype = self.couplings.dtype
        self.fields = []
        stop = 0
        for field_values, field_free in zip(
            *(array.reshape(-1, self.n_field_units) for array in (values, free)), strict=True
        ):
            start, stop = stop, stop + int(field_free.sum())
            bits = np.where(field_free, 0, self.to_bits(field_values))
            from_clamped = self.couplings @ bits.astype(dtype)
            self.fields.append(
                ReducedField(
                    bits=bits,
                    free=field_free,
                    places=slice(start, stop),
                    from_clamped=from_clamped[field_free],
                    clamped_pairs=float(bits @ from_clamped) / 2,
                    plain_biases=np.empty(stop - start, dtype),
                    biases=np.empty(stop - start, dtype),
                )
            )

    def reduce(self, logits: Mapping[str, np.ndarray], *, parameters_are_new: bool) -> None:
        if parameters_are_new:
            coupling, biases = self.parameters
            couplings = np.broadcast_to(coupling, self._batch).ravel()
            all_biases = np.broadcast_to(biases, (*self._batch, self.n_field_units)).reshape(-1, self.n_field_units)
            for field, c, b in zip(self.fields, couplings, all_biases, strict=True):
                self._set_parameters(field, float(c), b)
        own_logits = logits.get(self.variable)
        for field in self.fields:
            field.biases[:] = field.plain_biases
            if own_logits is not None:
                field.biases += own_logits[field.places]

    def _set_parameters(self, field: ReducedField, coupling: float, biases: np.ndarray) -> None:
        energy_of_zero = 0.0  # energy of the state in which all bits are 0
        if self._are_spins:
            energy_of_zero = float(biases.sum() - coupling / 2 * self._row_sums.sum())
            biases = 2 * biases - 2 * coupling * self._row_sums
        clamped = field.bits
        field.coupling = coupling
        field.plain_biases[:] = biases[field.free] + coupling * field.from_clamped
        field.constant_energy = energy_of_zero - float(biases @ clamped + coupling * field.clamped_pairs)
