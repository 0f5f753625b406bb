"""Sample the units of pairwise networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from pymc.blocking import PointType
from scipy.sparse import csr_array

from step_methods._blocks import check_independent, numbers_of_blocks, places_of
from step_methods._chain_start import disperse_units
from step_methods._freeze import certainty, look_at_units
from step_methods._restricted import Decisions, Numbers, Scan, Units
from step_methods.evidence import Evidence
from step_methods.kernels.pairwise import (
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
from step_methods.kernels.pairwise_sparse import color_units
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
    numbers : ndarray of int64, shape (n_free,)
        The block of each free unit, where blocks were given or the order is random; otherwise empty.
    own_number : ndarray of int64, shape (n_blocks,)
        What the kernels call each block, −1 where none of its units is in this field.
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
    network: Any
    numbers: np.ndarray
    own_number: np.ndarray
    from_clamped: np.ndarray
    clamped_pairs: float
    plain_biases: np.ndarray
    biases: np.ndarray
    coupling: float = 1.0
    constant_energy: float = 0.0

    def picks(self, blocks: np.ndarray) -> np.ndarray:
        """Return those of the blocks that have units in this field, by the numbers that the kernels take."""
        own = self.own_number[blocks]
        return own[own >= 0]


class PairwiseSampler:
    """Sample the units of one pairwise network, which is a batch of one or more fields.

    Spins are brought to bits, s = 2z − 1, so that one kernel serves both: J' = 4J and b' = 2h − 2c J·1.

    Parameters
    ----------
    reader : NetworkReader
    evidence : mapping
        What other terms say about the units of the variables that are updated, by name.
    blocks : mapping
        From `step_methods._blocks.parse_blocks`, by the names of value variables; none where they are to be found.
    in_random_order : bool
        Whether blocks are picked at random, so that `draw` and `force` are given their numbers.

    Attributes
    ----------
    changes : bool
        Whether parameters or evidence have to be read at every step.
    inputs : list of str
        The value variables that they are read from.
    conditioned_on, updated : list of str
        Name of the value variable that a draw depends on, and that it draws.

    Raises
    ------
    ValueError
        If units of a block interact.
    """

    # Logits must be beyond it, in addition, for a unit to be certain: spiking neurons fire less often than they are on.
    _log_tau = 0.0

    def __init__(
        self,
        reader: NetworkReader,
        evidence: Mapping[str, Evidence],
        blocks: Mapping[str, Sequence[np.ndarray]],
        in_random_order: bool,
    ):
        network = reader.network
        assert isinstance(network, PairwiseNetwork)
        self._reader = reader
        self._name = reader.visible.value_name or ""
        self._evidence = evidence.get(self._name)
        self._ndim = network.ndim
        self._batch: tuple[int, ...] = ()
        self._values = network.values
        self._low = network.values[0]
        self._are_spins = self._low == -1
        self._row_sums = np.asarray(network.couplings.sum(axis=1)).ravel()
        self._couplings = csr_array(4 * network.couplings if self._are_spins else network.couplings)
        self._fields: list[_Field] = []
        self._is_stale = True
        self.changes = reader.parameters.changes or not (self._evidence is None or self._evidence.fixed)
        self.inputs = [*reader.parameters.inputs, *(self._evidence.inputs if self._evidence else ())]
        self.conditioned_on = self.updated = [self._name]
        self._blocks = blocks.get(self._name)
        self._in_random_order = in_random_order
        if self._blocks is not None:
            _, free = reader.visible.read()
            check_independent(self._blocks, network.couplings, free.shape, reader.name)

    @property
    def n_units(self) -> int:
        """Number of units of the model that a draw updates."""
        return sum(field.biases.size for field in self._fields)

    @property
    def n_blocks(self) -> int:
        """Number of blocks that are picked from in random order."""
        return self._fields[0].own_number.size

    def start(self) -> None:
        """Forget, at the start of a chain, what may have changed since the last one."""
        if self._evidence is not None:
            self._evidence.start()
        if self._evidence is not None or not self._reader.constant:
            self._is_stale = True

    def logits_at(self, point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the evidence on the units at a point, by the name of their variable; empty if there is none."""
        return {} if self._evidence is None else {self._name: self._evidence.logits(point)}

    def disperse(self, point: PointType, by_default: set[str], rng: np.random.Generator) -> None:
        """Give the chain a start of its own, in place, if PyMC's default is what it starts from."""
        disperse_units(
            point,
            self._name,
            self._values,
            self.logits_at(point).get(self._name),
            by_default=self._name in by_default,
            rng=rng,
            terms=self._reader.terms[self._name],
        )

    def look(self, point: Mapping[str, np.ndarray]) -> tuple[bool, bool]:
        """See `step_methods._freeze.look_at_units`."""
        self.read(point)
        looks = []
        for field in self._fields:
            couplings = self._couplings if field.free.all() else self._couplings[field.free][:, field.free]
            bits = self._to_bits(point[self._name].ravel()[field.places]).astype(bool)
            all_units, none = np.ones(bits.size, bool), np.zeros(bits.size, bool)
            bound = certainty(self._couplings.dtype) + self._log_tau
            looks.append(look_at_units(couplings, field.coupling, field.biases, bits, all_units, none, bound))
        return all(certain for certain, _ in looks), any(free for _, free in looks)

    def read(self, point: Mapping[str, np.ndarray]) -> None:
        """Read parameters and evidence and, where they were forgotten, the clamped units."""
        if not (self._is_stale or self.changes):
            return
        if self._is_stale or self._reader.parameters.changes:
            self._read_parameters(point)
        logits = None if self._evidence is None else self._evidence.logits(point)
        for field in self._fields:
            field.biases[:] = field.plain_biases
            if logits is not None:
                field.biases += logits[field.places]

    def _read_parameters(self, point: Mapping[str, np.ndarray]) -> None:
        coupling, biases = self._reader.parameters.read(point)
        if self._is_stale:
            self._fields = self._lay_out()
            self._is_stale = False
        n_units = self._row_sums.size
        couplings = np.broadcast_to(coupling, self._batch).ravel()
        all_biases = np.broadcast_to(biases, (*self._batch, n_units)).reshape(-1, n_units)
        for field, c, b in zip(self._fields, couplings, all_biases, strict=True):
            self._set_parameters(field, float(c), b)

    def draw(self, old: Units, new: Units, scan: Scan, stream: np.ndarray) -> tuple[float, int]:
        """Fill in the new units; return the energy after the last update and how many units changed.

        Parameters
        ----------
        old, new : dict
        scan : int or ndarray of int64
            How many sweeps to make, or the numbers of the blocks to update.
        stream : ndarray
        """
        before, after = old[self._name], new[self._name]
        total_energy = 0.0
        for field in self._fields:
            bits = self._to_bits(before[field.places])
            if isinstance(scan, int):
                sweep_pairwise(field.network, bits, field.biases, field.coupling, scan, stream)
            else:
                update_blocks(field.network, bits, field.biases, field.coupling, field.picks(scan), stream)
            total_energy += field.constant_energy + energy_pairwise(
                field.network, bits, field.plain_biases, field.coupling
            )
            after[field.places] = self._from_bits(bits)
        return total_energy, int(np.count_nonzero(before != after))

    def force(self, old: Units, new: Units, scan: Scan, bits: Iterator[int]) -> list[float]:
        """Fill in the new units by decisions from `bits`; return the probability of a 1 for each of them."""
        before, after = old[self._name], new[self._name]
        all_probabilities: list[float] = []
        for field in self._fields:
            units = self._to_bits(before[field.places])
            if isinstance(scan, int):
                n_decisions = scan * units.size
            else:
                n_decisions = int(np.bincount(field.numbers, minlength=self.n_blocks)[scan].sum())
            decisions = np.fromiter(islice(bits, n_decisions), np.uint8, n_decisions)
            probabilities = np.empty(n_decisions)
            network = field.network, units, field.biases, field.coupling
            if isinstance(scan, int):
                sweep_pairwise_forced(*network, scan, decisions, probabilities)
            else:
                update_blocks_forced(*network, field.picks(scan), decisions, probabilities)
            after[field.places] = self._from_bits(units)
            all_probabilities += probabilities.tolist()
        return all_probabilities

    def force_numbers(self, old: Units, new: Units, scan: Scan, numbers: Iterator[float]) -> list[float]:
        """Fill in the new units by random numbers that are given, all of them decisions; see `force`."""
        return self.force(old, new, scan, map(int, numbers))

    def numbers(self) -> Numbers:
        """Return what the random numbers of a sweep are about: decisions, block after block."""
        units, _ = self.decisions()
        return Numbers(units, np.zeros(units.size, bool), np.ones(units.size, bool))

    def decisions(self) -> Decisions:
        """Return which units a sweep decides on, block after block, and the stages that these decisions make up."""
        orders = [order_of_decisions(field.network, field.biases) for field in self._fields]
        units = np.concatenate([order + f.places.start for f, order in zip(self._fields, orders, strict=True)])
        if not self._in_random_order:
            return units, np.arange(units.size)
        return units, np.concatenate([f.numbers[order] for f, order in zip(self._fields, orders, strict=True)])

    def _to_bits(self, units: np.ndarray) -> np.ndarray:
        return (units != self._low).astype(np.uint8)

    def _from_bits(self, bits: np.ndarray) -> np.ndarray:
        return np.where(bits, 1, self._low) if self._are_spins else bits

    def _lay_out(self) -> list[_Field]:
        values, free = self._reader.visible.read()
        self._batch = values.shape[: values.ndim - self._ndim]
        n_units = self._row_sums.size
        numbers = self._number_blocks(free)
        values, free = values.reshape(-1, n_units), free.reshape(-1, n_units)
        prepared: dict[bytes, Any] = {}
        fields = []
        stop = 0
        for field_values, field_free, field_numbers in zip(values, free, numbers.reshape(free.shape), strict=True):
            start, stop = stop, stop + int(field_free.sum())
            bits = np.where(field_free, 0, self._to_bits(field_values))
            from_clamped = self._couplings @ bits.astype(self._couplings.dtype)
            # Fields with the same free units in the same blocks share their couplings.
            key = field_free.tobytes() + field_numbers.tobytes()
            field_numbers = field_numbers[field_free]
            own_blocks, own_numbers = np.unique(field_numbers, return_inverse=True)
            if key not in prepared:
                all_free = field_free.all()
                couplings = self._couplings if all_free else csr_array(self._couplings[field_free][:, field_free])
                prepared[key] = self._prepare(couplings, own_numbers)
            fields.append(
                _Field(
                    bits=bits,
                    free=field_free,
                    places=slice(start, stop),
                    network=prepared[key],
                    numbers=field_numbers,
                    own_number=places_of(own_blocks, int(numbers.max()) + 1),
                    from_clamped=from_clamped[field_free],
                    clamped_pairs=float(bits @ from_clamped) / 2,
                    plain_biases=np.empty(stop - start, self._couplings.dtype),
                    biases=np.empty(stop - start, self._couplings.dtype),
                )
            )
        return fields

    def _number_blocks(self, free: np.ndarray) -> np.ndarray:
        """Return the number of each unit's block, of the shape of `free`; −1 for clamped units, or if there are none.

        Blocks that are to be found are the colors of the free units, the first of all fields of a batch together, and
        so on.
        """
        numbers = np.full(free.shape, -1)
        if self._blocks is not None:
            numbers = numbers_of_blocks(self._blocks, free.size).reshape(free.shape)
        elif self._in_random_order:
            n_units = self._row_sums.size
            for field_free, field_numbers in zip(free.reshape(-1, n_units), numbers.reshape(-1, n_units), strict=True):
                field_numbers[field_free] = color_units(csr_array(self._couplings[field_free][:, field_free]))
        return numbers

    def _prepare(self, couplings: csr_array, own_numbers: np.ndarray) -> Any:
        """Arrange the couplings between free units as the kernels of the sampler want them."""
        if self._blocks is None and not self._in_random_order:
            return prepare_pairwise(couplings)
        one_by_one = np.array_equal(own_numbers, np.arange(own_numbers.size))
        if one_by_one and not self._in_random_order:
            return prepare_in_order(couplings)
        return prepare_blocks(couplings, own_numbers)

    def _set_parameters(self, field: _Field, coupling: float, biases: np.ndarray) -> None:
        energy_of_zero = 0.0  # energy of the state in which all bits are 0
        if self._are_spins:
            energy_of_zero = float(biases.sum() - coupling / 2 * self._row_sums.sum())
            biases = 2 * biases - 2 * coupling * self._row_sums
        clamped = field.bits
        field.coupling = coupling
        field.plain_biases[:] = biases[field.free] + coupling * field.from_clamped
        field.constant_energy = energy_of_zero - float(biases @ clamped + coupling * field.clamped_pairs)
