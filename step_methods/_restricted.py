"""Sample the layers of restricted networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from pymc.blocking import PointType
from scipy.sparse import csr_array

from step_methods._blocks import numbers_of_blocks, places_of
from step_methods._chain_start import disperse_units
from step_methods._freeze import TwoLayers, certainty, look_at_units
from step_methods.evidence import Evidence
from step_methods.kernels import chain
from step_methods.kernels.pairwise import (
    PreparedPairwise,
    order_of_decisions,
    prepare_blocks,
    refill_blocks,
    update_blocks,
    update_blocks_forced,
)
from step_methods.kernels.rbm import PreparedRBM, energy, free_energy, prepare, refill
from step_methods.network import NetworkReader

__all__ = ["NO_UNITS", "Decisions", "Machine", "Numbers", "RestrictedSampler", "Scan", "Units", "lay_out"]

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


NO_UNITS = np.empty(0, np.int64)


@dataclass(slots=True)
class _Blocks:
    """The free units of a machine, visible then hidden, as a network whose colors are the blocks of a user.

    Attributes
    ----------
    numbers : ndarray of int64, shape (n_visible + n_hidden,)
        The block of each unit; one more than the last for units that are not updated, or auxiliary.
    own_number : ndarray of int64, shape (n_blocks + 1,)
        What the kernels call each block, −1 where none of its units is in this machine.
    with_auxiliary : bool
        Whether the hidden units are auxiliary, and drawn anew before each block.
    pattern : csr_array of int64
        At the place of each coupling, where it stands in the raveled W.
    network : tuple
    biases : ndarray
    """

    numbers: np.ndarray
    own_number: np.ndarray
    with_auxiliary: bool
    pattern: csr_array
    network: PreparedPairwise
    biases: np.ndarray

    @classmethod
    def lay_out(
        cls, v_numbers: np.ndarray, h_numbers: np.ndarray, n_blocks: int, with_auxiliary: bool, dtype: np.dtype
    ) -> _Blocks:
        n_visible, n_hidden = v_numbers.size, h_numbers.size
        numbers = np.concatenate([v_numbers, h_numbers])
        own_blocks, own_numbers = np.unique(numbers, return_inverse=True)
        row, column = np.divmod(np.arange(n_visible * n_hidden), max(n_hidden, 1))
        column += n_visible
        pattern = csr_array(
            (
                np.tile(np.arange(row.size), 2),
                (np.concatenate([row, column]), np.concatenate([column, row])),
            ),
            shape=(numbers.size, numbers.size),
        )
        network = prepare_blocks(pattern.astype(dtype), own_numbers)
        return cls(
            numbers,
            places_of(own_blocks, n_blocks + 1),
            with_auxiliary,
            pattern,
            network,
            np.empty(numbers.size, dtype),
        )

    def set_parameters(self, W: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        pattern = self.pattern
        couplings = csr_array((W.ravel()[pattern.data], pattern.indices, pattern.indptr), shape=pattern.shape)
        refill_blocks(self.network, couplings)
        self.biases[: a.size] = a
        self.biases[a.size :] = b

    def picks(self, blocks: np.ndarray) -> np.ndarray:
        """Return those of the blocks that have units here, by the numbers that the kernels take."""
        own = self.own_number[blocks]
        own = own[own >= 0]
        if self.with_auxiliary:
            return np.stack([np.full_like(own, self.own_number[-1]), own], axis=1).ravel()
        return own

    def n_decisions(self, blocks: np.ndarray) -> int:
        """Return how many decisions an update of blocks takes."""
        sizes = np.bincount(self.numbers, minlength=self.own_number.size)
        taken = sizes[blocks]
        return int(taken.sum() + self.with_auxiliary * np.count_nonzero(taken) * sizes[-1])

    def order(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the units that are decided on where blocks are updated, and the block on whose account."""
        order = order_of_decisions(self.network, self.biases)
        members = {k: order[self.numbers[order] == k] for k in range(self.own_number.size)}
        auxiliary = members[self.own_number.size - 1] if self.with_auxiliary else NO_UNITS
        here = [k for k in blocks.tolist() if members[k].size]
        units = [np.concatenate([auxiliary, members[k]]) for k in here]
        return np.concatenate([NO_UNITS, *units]), np.repeat(here, [len(u) for u in units])


@dataclass(slots=True)
class Machine:
    """One RBM of a batch, reduced to its free units: the clamped ones act as biases.

    Attributes
    ----------
    index : tuple of int
        Its place in the batch.
    v, h : ndarray, shapes (n_visible,) and (n_hidden,)
        Its clamped units, zero where a unit is free; of int64 where they are two-valued.
    v_free, h_free : ndarray of bool, same shapes
    visible, hidden : slice
        Its free units in the raveled values of the two layers' variables.
    plain : tuple or None
        Its couplings and biases, as the kernels want them; None until they are read.
    rbm : tuple or None
        The same with the evidence on its units in the biases; the same object if there is none.
    parameters : tuple of ndarray
        The couplings and biases of `rbm`, as plain arrays.
    blocks : _Blocks or None
        How its units are updated where a user gave blocks.
    clamped_energy : float
        The part of the energy that no free unit enters.
    """

    index: tuple[int, ...]
    v: np.ndarray
    v_free: np.ndarray
    h: np.ndarray
    h_free: np.ndarray
    visible: slice
    hidden: slice
    plain: PreparedRBM | None = None
    rbm: PreparedRBM | None = None
    parameters: tuple[np.ndarray, ...] = ()
    blocks: _Blocks | None = None
    clamped_energy: float = 0.0

    @property
    def is_free(self) -> bool:
        """Whether none of its units is clamped."""
        return bool(self.v_free.all() and self.h_free.all())

    def reduce(self, W: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the couplings and biases of the free units, and keep the energy of the clamped ones.

        E(v, h) splits into the energy of the free units, whose biases take in the fields of the clamped ones, and
        the energy of the clamped units among themselves.
        """
        if self.is_free:
            return W, a, b
        v_clamped, h_clamped = ~self.v_free, ~self.h_free
        to_hidden = self.v @ W
        to_visible = W @ self.h
        energy = a[v_clamped] @ self.v[v_clamped] + b[h_clamped] @ self.h[h_clamped] + to_hidden @ self.h
        self.clamped_energy = -float(energy)
        return (
            W[np.ix_(self.v_free, self.h_free)],
            (a + to_visible)[self.v_free].astype(a.dtype),
            (b + to_hidden)[self.h_free].astype(b.dtype),
        )


class RestrictedSampler:
    """Sample the units of one network, which is a batch of one or more machines.

    Parameters
    ----------
    reader : NetworkReader
    updated : set of str
        Names of the value variables that the step method updates. On a layer that is not among them it
        conditions.
    evidence : mapping
        What other terms say about the units of the variables that are updated, by name.
    blocks : mapping
        From `step_methods._blocks.parse_blocks`, by the names of value variables, in the order of a sweep; empty for
        the layers as they are.
    in_random_order : bool
        Whether blocks are picked at random, so that `draw` and `force` are given their numbers.

    Attributes
    ----------
    changes : bool
        Whether parameters or evidence have to be read at every step.
    inputs : list of str
        The value variables that they are read from.
    conditioned_on, updated : list of str
        Names of the value variables that a draw depends on, and of those that it draws.
    """

    # Logits must be beyond it, in addition, for a unit to be certain: spiking neurons fire less often than they are on.
    _log_tau = 0.0

    def __init__(
        self,
        reader: NetworkReader,
        updated: set[str],
        evidence: Mapping[str, Evidence],
        blocks: Mapping[str, Sequence[np.ndarray]],
        in_random_order: bool,
    ):
        self._reader = reader
        self._evidence = {name: evidence[name] for name in reader.free_layers if name in evidence}
        self._parameters: tuple[np.ndarray, ...] = ()
        self.changes = reader.parameters.changes or not all(e.fixed for e in self._evidence.values())
        self.inputs = [*reader.parameters.inputs, *(name for e in self._evidence.values() for name in e.inputs)]
        self.conditioned_on = list(reader.free_layers)
        self.updated = [name for name in reader.free_layers if name in updated]
        self._visible = reader.visible.value_name
        self._hidden = reader.hidden.value_name if reader.hidden else None
        self._updates_visible = self._visible in updated
        self._updates_hidden = self._hidden in updated
        # By name, because a compiled function in the state of a step would be pickled as source and compiled anew.
        if reader.hidden is None:
            self._kernel = "draw_marginal"
        elif self._updates_visible and (self._updates_hidden or self._hidden is None):
            self._kernel = "draw_joint"
        else:
            self._kernel = "draw_visible" if self._updates_visible else "draw_hidden"
        self._machines: list[Machine] = []
        self._is_stale = True
        self._scratch = NO_UNITS
        self._in_random_order = in_random_order
        self._blocks = {name: blocks[name] for name in blocks if name in self.updated}

    @property
    def n_blocks(self) -> int:
        """Number of blocks that are picked from in random order."""
        if self._blocks:
            return sum(len(blocks) for blocks in self._all_blocks().values())
        return 2 if self._kernel == "draw_joint" else 1

    def _all_blocks(self) -> dict[str, Sequence[np.ndarray]]:
        """Return the blocks of the user, and then the layers that he left as they are."""
        layers = self._reader.free_layers
        whole = {name: [np.flatnonzero(layers[name].read()[1])] for name in self.updated if name not in self._blocks}
        return {**self._blocks, **whole}

    @property
    def n_units(self) -> int:
        """Number of units of the model that a draw updates."""
        return sum(
            int(machine.v_free.sum()) * self._updates_visible + int(machine.h_free.sum()) * self._updates_hidden
            for machine in self._machines
        )

    def start(self) -> None:
        """Forget, at the start of a chain, what may have changed since the last one."""
        for evidence in self._evidence.values():
            evidence.start()
        if self._evidence or not self._reader.constant:
            self._is_stale = True

    def logits_at(self, point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the evidence on the units at a point, by the names of the variables that it is about."""
        return {name: evidence.logits(point) for name, evidence in self._evidence.items()}

    def disperse(self, point: PointType, by_default: set[str], rng: np.random.Generator) -> None:
        """Give the chain a start of its own, in place, where PyMC's default is what it starts from."""
        logits = self.logits_at(point)
        for name in self.updated:
            disperse_units(
                point,
                name,
                (0, 1),
                logits.get(name),
                by_default=name in by_default,
                rng=rng,
                terms=self._reader.terms[name],
            )

    def look(self, point: Mapping[str, np.ndarray]) -> tuple[bool, bool]:
        """See `step_methods._freeze.look_at_units`."""
        self.read(point)
        v, h = (
            NO_UNITS if name is None else point[name].ravel().astype(bool) for name in (self._visible, self._hidden)
        )
        looks = []
        for machine in self._machines:
            W, a, b = machine.parameters
            is_hidden = np.repeat([False, True], [a.size, b.size])
            auxiliary = is_hidden & (self._reader.hidden is None)
            ones = np.zeros(is_hidden.size, bool)
            ones[~is_hidden] = v[machine.visible]
            if self._hidden is not None:
                ones[is_hidden] = h[machine.hidden]
            decided = np.where(is_hidden, self._updates_hidden, self._updates_visible) | auxiliary
            biases = np.concatenate([a, b])
            bound = certainty(W.dtype) + self._log_tau
            looks.append(look_at_units(TwoLayers(W), 1.0, biases, ones, decided, auxiliary, bound))
        return all(certain for certain, _ in looks), any(free for _, free in looks)

    def read(self, point: Mapping[str, np.ndarray]) -> None:
        """Read parameters and evidence and, where they were forgotten, the clamped units."""
        if not (self._is_stale or self.changes):
            return
        if self._is_stale or self._reader.parameters.changes:
            self._parameters = self._reader.parameters.read(point)
        if self._is_stale:
            self._is_stale = False
            self._machines = lay_out(self._reader, *(x.shape for x in self._parameters))
            if self._reader.hidden is None:
                self._scratch = np.zeros(self._parameters[0].shape[-1], np.int64)
            if self._blocks:
                self._lay_out_blocks(self._parameters[0].dtype)
        logits = self.logits_at(point)
        _set_parameters(
            self._machines,
            *self._parameters,
            visible_logits=logits.get(self._visible or ""),
            hidden_logits=logits.get(self._hidden or ""),
            tables=not self.changes,
        )

    def _lay_out_blocks(self, dtype: np.dtype) -> None:
        """Give each machine the blocks of its units."""
        n_blocks = self.n_blocks
        v_numbers, h_numbers = (
            np.full((len(self._machines), mask.size), n_blocks)
            for mask in (self._machines[0].v_free, self._machines[0].h_free)
        )
        first = 0
        for name, blocks in self._all_blocks().items():
            numbers = v_numbers if name == self._visible else h_numbers
            of_unit = numbers_of_blocks(blocks, numbers.size).reshape(numbers.shape)
            numbers[of_unit >= 0] = of_unit[of_unit >= 0] + first
            first += len(blocks)
        for machine, v, h in zip(self._machines, v_numbers, h_numbers, strict=True):
            machine.blocks = _Blocks.lay_out(
                v[machine.v_free], h[machine.h_free], n_blocks, self._reader.hidden is None, dtype
            )

    def _layers(self, old: Units, new: Units) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        v_old, v = old.get(self._visible, NO_UNITS), new.get(self._visible, NO_UNITS)
        h_old, h = old.get(self._hidden, NO_UNITS), new.get(self._hidden, self._scratch)
        return v_old, v, h_old, h

    def draw(self, old: Units, new: Units, scan: Scan, stream: np.ndarray) -> tuple[float, int]:
        """Fill in the new units; return the energy after the last update and how many units changed.

        Parameters
        ----------
        old, new : dict
        scan : int or ndarray of int64
            How many sweeps to make, or the numbers of the blocks to update.
        stream : ndarray
        """
        v_old, v, h_old, h = self._layers(old, new)
        kernel, n_or_picks = self._plan(scan)
        total_energy, total_changed = 0.0, 0
        for machine in self._machines:
            visible, hidden = machine.visible, machine.hidden
            units = v_old[visible], v[visible], h_old[hidden], h[hidden]
            if kernel is None:
                n_changed = self._update_blocks(machine, *units, n_or_picks, update_blocks, stream)
            else:
                new_energy, n_changed = getattr(chain, kernel)(machine.rbm, *units, n_or_picks, stream)
            if self._evidence or kernel is None:
                new_energy = self._plain_energy(
                    machine,
                    (v if self._updates_visible else v_old)[visible],
                    (h if self._updates_hidden else h_old)[hidden],
                )
            total_energy += new_energy + machine.clamped_energy
            total_changed += n_changed
        return total_energy, total_changed

    def _plan(self, scan: Scan) -> tuple[str | None, Any]:
        """Return which kernel draws, and its sweeps or picks; None where units are updated by the blocks of a user."""
        if isinstance(scan, int):
            return (None, np.tile(np.arange(self.n_blocks), scan)) if self._blocks else (self._kernel, scan)
        if self._blocks or not scan.size:
            return None, scan
        # A single block is updated as often as it was picked.
        return ("draw_layers", scan) if self._kernel == "draw_joint" else (self._kernel, scan.size)

    def _update_blocks(
        self,
        machine: Machine,
        v_old: np.ndarray,
        v: np.ndarray,
        h_old: np.ndarray,
        h: np.ndarray,
        scan: np.ndarray,
        update: Callable[..., int],
        *source: np.ndarray,
    ) -> int:
        """Update blocks of one machine, by random or forced decisions; return how many units changed."""
        n_changed = 0
        both = np.concatenate([v_old, h_old if h_old.size else h]).astype(np.uint8)
        if scan.size:
            blocks = machine.blocks
            assert blocks is not None
            update(blocks.network, both, blocks.biases, 1.0, blocks.picks(scan), *source)
        for is_updated, before, after, now in (
            (self._updates_visible, v_old, v, both[: v_old.size]),
            (self._updates_hidden, h_old, h, both[v_old.size :]),
        ):
            if is_updated:
                after[:] = now
                n_changed += int(np.count_nonzero(before != after))
        return n_changed

    def _plain_energy(self, machine: Machine, v: np.ndarray, h: np.ndarray) -> float:
        """Return the energy without evidence, which may be infinite for units that it excludes."""
        return free_energy(machine.plain, v) if self._reader.hidden is None else energy(machine.plain, v, h)

    def force(self, old: Units, new: Units, scan: Scan, bits: Iterator[int]) -> list[float]:
        """Fill in the new units by decisions from `bits`; return the probability of a 1 for each of them."""
        v_old, v, h_old, h = self._layers(old, new)
        kernel, n_or_picks = self._plan(scan)
        all_probabilities: list[float] = []
        for machine in self._machines:
            visible, hidden = machine.visible, machine.hidden
            units = v_old[visible], v[visible], h_old[hidden], h[hidden]
            n_decisions = self._n_decisions(machine, kernel, n_or_picks)
            decisions = np.fromiter(islice(bits, n_decisions), np.uint8, n_decisions)
            probabilities = np.empty(n_decisions)
            if kernel is None:
                self._update_blocks(machine, *units, n_or_picks, update_blocks_forced, decisions, probabilities)
            else:
                chain.FORCED[kernel](machine.rbm, *units, n_or_picks, decisions, probabilities)
            all_probabilities += probabilities.tolist()
        return all_probabilities

    def force_numbers(self, old: Units, new: Units, scan: Scan, numbers: Iterator[float]) -> list[float]:
        """Fill in the new units by random numbers that are given, all of them decisions; see `force`."""
        return self.force(old, new, scan, map(int, numbers))

    def numbers(self) -> Numbers:
        """Return what the random numbers of a sweep are about: decisions, block after block."""
        units, _ = self.decisions()
        is_auxiliary = units < 0
        starts_block = ~is_auxiliary
        if self._reader.hidden is None:
            starts_block = is_auxiliary & ~np.append(False, is_auxiliary[:-1])
        return Numbers(units, np.zeros(units.size, bool), starts_block)

    def _n_decisions(self, machine: Machine, kernel: str | None, scan: Any) -> int:
        n_visible, n_hidden = _length(machine.visible), _length(machine.hidden)
        if kernel is None:
            return machine.blocks.n_decisions(scan) if machine.blocks else 0
        if kernel == "draw_layers":
            return int(np.array([n_hidden, n_visible])[scan].sum())
        if kernel == "draw_visible":
            return n_visible
        return n_hidden if kernel == "draw_hidden" else int(scan) * (n_visible + n_hidden)

    def decisions(self) -> Decisions:
        """Return which units a sweep decides on, block after block, and the stages that these decisions make up."""
        n_visible = sum(_length(machine.visible) for machine in self._machines) if self._updates_visible else 0
        units, blocks, machines = [], [], []
        for i, machine in enumerate(self._machines):
            v = np.arange(*machine.visible.indices(machine.visible.stop))
            if self._updates_hidden:
                h = n_visible + np.arange(*machine.hidden.indices(machine.hidden.stop))
            else:
                h = np.full(_length(machine.hidden), -1)
            if machine.blocks is not None:
                order, of_block = machine.blocks.order(np.arange(self.n_blocks))
                units.append(np.concatenate([v, h])[order])
            else:
                layers = {"draw_visible": [v], "draw_hidden": [h]}.get(self._kernel, [h, v])
                units.append(np.concatenate(layers))
                of_block = np.repeat(np.arange(len(layers)), [len(layer) for layer in layers])
                if self._kernel == "draw_marginal":
                    of_block[:] = 0
            blocks.append(of_block)
            machines.append(np.full(of_block.size, i))
        all_units, all_blocks = np.concatenate(units), np.concatenate(blocks)
        if self._in_random_order:
            return all_units, all_blocks
        if self._reader.hidden is not None:
            return all_units, np.arange(all_units.size)
        # Auxiliary units are decided on along with the units that they are drawn for.
        _, stages = np.unique([np.concatenate(machines), all_blocks], axis=1, return_inverse=True)
        return all_units, stages


def _length(places: slice) -> int:
    return places.stop - places.start


def lay_out(
    reader: NetworkReader, W_shape: tuple[int, ...], a_shape: tuple[int, ...], b_shape: tuple[int, ...]
) -> list[Machine]:
    """Cut the layers of a network into machines, still without parameters."""
    *_, n_visible, n_hidden = W_shape
    v, v_free = reader.visible.read()
    batch = v.shape[:-1]
    if reader.hidden is None:
        h, h_free = np.zeros((*batch, n_hidden), np.int64), np.ones((*batch, n_hidden), bool)
    else:
        h, h_free = reader.hidden.read()
    for what, got, expected in (
        ("the visible units", v.shape, (*batch, n_visible)),
        ("the hidden units", h.shape, (*batch, n_hidden)),
        ("a", a_shape[-1:], (n_visible,)),
        ("b", b_shape[-1:], (n_hidden,)),
    ):
        if got != expected:
            raise ValueError(
                f"{what} of {reader.name!r} must have the shape {expected} to fit W of shape {W_shape}, got {got}"
            )
    machines = []
    v_stop = h_stop = 0
    for i in np.ndindex(batch):
        v_start, v_stop = v_stop, v_stop + int(v_free[i].sum())
        h_start, h_stop = h_stop, h_stop + int(h_free[i].sum())
        # Auxiliary hidden units have no values: all machines use the same scratch.
        hidden = slice(0, n_hidden) if reader.hidden is None else slice(h_start, h_stop)
        machines.append(Machine(i, v[i], v_free[i], h[i], h_free[i], slice(v_start, v_stop), hidden))
    return machines


def _set_parameters(
    machines: Sequence[Machine],
    W: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    *,
    visible_logits: np.ndarray | None,
    hidden_logits: np.ndarray | None,
    tables: bool,
) -> None:
    """Give each machine of a batch its couplings, biases and evidence; those that are alike share them."""
    no_evidence = visible_logits is None and hidden_logits is None
    alike = all(machine.is_free for machine in machines) and all(
        np.prod(x.shape[:-n_core]) == 1 for x, n_core in ((W, 2), (a, 1), (b, 1))
    )
    batch = [i + 1 for i in machines[-1].index]
    W, a, b = (np.broadcast_to(x, (*batch, *x.shape[-n_core:])) for x, n_core in ((W, 2), (a, 1), (b, 1)))
    first = machines[0]
    for machine in machines:
        own_W, own_a, own_b = machine.reduce(W[machine.index], a[machine.index], b[machine.index])
        if alike and machine is not first:
            machine.plain = first.plain
        else:
            tables_for_energy = tables and no_evidence and machine.blocks is None
            machine.plain = _put(machine.plain, own_W, own_a, own_b, tables=tables_for_energy)
        if no_evidence and machine.blocks is None:
            machine.rbm = machine.plain
            machine.parameters = own_W, own_a, own_b
            continue
        if visible_logits is not None:
            own_a = (own_a + visible_logits[machine.visible]).astype(own_a.dtype)
        if hidden_logits is not None:
            own_b = (own_b + hidden_logits[machine.hidden]).astype(own_b.dtype)
        machine.parameters = own_W, own_a, own_b
        if machine.blocks is None:
            machine.rbm = _put(machine.rbm, own_W, own_a, own_b, tables=tables)
        else:
            machine.blocks.set_parameters(own_W, own_a, own_b)


def _put(rbm: PreparedRBM | None, W: np.ndarray, a: np.ndarray, b: np.ndarray, *, tables: bool) -> PreparedRBM:
    """Arrange parameters for the kernels, in the memory of those before if there are any."""
    if rbm is None:
        return prepare(W, a, b, tables=tables)
    refill(rbm, W, a, b)
    return rbm
