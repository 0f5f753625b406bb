"""Sample the units of pairwise networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
from scipy.sparse import csr_array

from step_methods._restricted import Units
from step_methods.evidence import Evidence
from step_methods.kernels.pairwise import (
    PreparedPairwise,
    energy_pairwise,
    prepare_pairwise,
    sweep_pairwise,
    sweep_pairwise_forced,
)
from step_methods.network import NetworkReader, PairwiseNetwork

__all__ = ["PairwiseSampler"]


@dataclass(slots=True)
class _Field:
    """One field of a batch, reduced to its free units: the clamped ones act as biases.

    Attributes
    ----------
    bits : ndarray of int64, shape (n_units,)
        Its clamped units, zero where a unit is free.
    free : ndarray of bool, shape (n_units,)
    places : slice
        Its free units in the raveled value of the variable.
    network : tuple
        The couplings between its free units, as the kernels want them.
    from_clamped : ndarray, shape (n_free,)
        What the clamped units add to the field of each free one, for a coupling of 1.
    plain_biases, biases : ndarray, shape (n_free,)
        The biases of the free units, without and with the evidence on them.
    coupling : float
    constant_energy : float
        The part of the energy that no free unit enters.
    """

    bits: np.ndarray
    free: np.ndarray
    places: slice
    network: PreparedPairwise
    from_clamped: np.ndarray
    plain_biases: np.ndarray
    biases: np.ndarray
    coupling: float = 1.0
    constant_energy: float = 0.0


class PairwiseSampler:
    """Sample the units of one pairwise network, which is a batch of one or more fields.

    Spins are brought to bits, s = 2z − 1, so that one kernel serves both: J' = 4J and b' = 2h − 2c J·1.

    Parameters
    ----------
    reader : NetworkReader
    evidence : mapping
        What other terms say about the units of the variables that are updated, by name.

    Attributes
    ----------
    changes : bool
        Whether parameters or evidence have to be read at every step.
    conditioned_on, updated : list of str
        Name of the value variable that a draw depends on, and that it draws.
    """

    def __init__(self, reader: NetworkReader, evidence: Mapping[str, Evidence]):
        network = reader.network
        assert isinstance(network, PairwiseNetwork)
        self._reader = reader
        self._name = reader.visible.value_name or ""
        self._evidence = evidence.get(self._name)
        self._parameters: tuple[np.ndarray, ...] = ()
        self._ndim = network.ndim
        self._batch: tuple[int, ...] = ()
        self._low = network.values[0]
        self._are_spins = self._low == -1
        self._row_sums = np.asarray(network.couplings.sum(axis=1)).ravel()
        self._couplings = csr_array(4 * network.couplings if self._are_spins else network.couplings)
        self._fields: list[_Field] = []
        self.changes = reader.parameters.changes or not (self._evidence is None or self._evidence.fixed)
        self.conditioned_on = self.updated = [self._name]

    @property
    def n_units(self) -> int:
        """Number of units of the model that a draw updates."""
        return sum(field.biases.size for field in self._fields)

    def start(self) -> None:
        """Forget, at the start of a chain, what may have changed since the last one."""
        if self._evidence is not None or not self._reader.constant:
            self._fields = []

    def read(self, point: Mapping[str, np.ndarray]) -> None:
        """Read parameters and evidence and, where they were forgotten, the clamped units."""
        if self._fields and not self.changes:
            return
        if not self._fields or self._reader.parameters.changes:
            self._parameters = self._reader.parameters.read(point)
        if not self._fields:
            self._fields = self._lay_out()
        coupling, biases = self._parameters
        logits = None if self._evidence is None else self._evidence.logits(point)
        n_units = self._row_sums.size
        couplings = np.broadcast_to(coupling, self._batch).ravel()
        all_biases = np.broadcast_to(biases, (*self._batch, n_units)).reshape(-1, n_units)
        for field, c, b in zip(self._fields, couplings, all_biases, strict=True):
            self._set_parameters(field, float(c), b)
            field.biases[:] = field.plain_biases
            if logits is not None:
                field.biases += logits[field.places]

    def draw(self, old: Units, new: Units, n_sweeps: int, stream: np.ndarray) -> tuple[float, int]:
        """Fill in the new units; return the energy after the last sweep and how many units changed."""
        before, after = old[self._name], new[self._name]
        total_energy = 0.0
        for field in self._fields:
            bits = self._to_bits(before[field.places])
            sweep_pairwise(field.network, bits, field.biases, field.coupling, n_sweeps, stream)
            total_energy += field.constant_energy + energy_pairwise(
                field.network, bits, field.plain_biases, field.coupling
            )
            after[field.places] = self._from_bits(bits)
        return total_energy, int(np.count_nonzero(before != after))

    def force(self, old: Units, new: Units, n_sweeps: int, bits: Iterator[int]) -> list[float]:
        """Fill in the new units by decisions from `bits`; return the probability of a 1 for each of them."""
        before, after = old[self._name], new[self._name]
        all_probabilities: list[float] = []
        for field in self._fields:
            n_decisions = n_sweeps * field.biases.size
            decisions = np.fromiter(islice(bits, n_decisions), np.uint8, n_decisions)
            probabilities = np.empty(n_decisions)
            units = self._to_bits(before[field.places])
            sweep_pairwise_forced(
                field.network, units, field.biases, field.coupling, n_sweeps, decisions, probabilities
            )
            after[field.places] = self._from_bits(units)
            all_probabilities += probabilities.tolist()
        return all_probabilities

    def _to_bits(self, units: np.ndarray) -> np.ndarray:
        return (units != self._low).astype(np.uint8)

    def _from_bits(self, bits: np.ndarray) -> np.ndarray:
        return np.where(bits, 1, self._low) if self._are_spins else bits

    def _lay_out(self) -> list[_Field]:
        values, free = self._reader.visible.read()
        self._batch = values.shape[: values.ndim - self._ndim]
        n_units = self._row_sums.size
        values, free = values.reshape(-1, n_units), free.reshape(-1, n_units)
        whole: PreparedPairwise | None = None
        fields = []
        stop = 0
        for field_values, field_free in zip(values, free, strict=True):
            start, stop = stop, stop + int(field_free.sum())
            bits = np.where(field_free, 0, self._to_bits(field_values))
            to_free = self._couplings[field_free]
            if field_free.all():
                network = whole = whole or prepare_pairwise(self._couplings)
            else:
                network = prepare_pairwise(csr_array(to_free[:, field_free]))
            fields.append(
                _Field(
                    bits=bits,
                    free=field_free,
                    places=slice(start, stop),
                    network=network,
                    from_clamped=to_free @ bits.astype(self._couplings.dtype),
                    plain_biases=np.empty(stop - start, self._couplings.dtype),
                    biases=np.empty(stop - start, self._couplings.dtype),
                )
            )
        return fields

    def _set_parameters(self, field: _Field, coupling: float, biases: np.ndarray) -> None:
        energy_of_zero = 0.0  # energy of the state in which all bits are 0
        if self._are_spins:
            energy_of_zero = float(biases.sum() - coupling / 2 * self._row_sums.sum())
            biases = 2 * biases - 2 * coupling * self._row_sums
        clamped = field.bits
        field.coupling = coupling
        field.plain_biases[:] = biases[field.free] + coupling * field.from_clamped
        field.constant_energy = energy_of_zero - float(
            biases @ clamped + coupling / 2 * (clamped @ (self._couplings @ clamped))
        )
