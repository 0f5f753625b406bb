"""Sample the layers of restricted networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from step_methods.gibbs.block_sampler import BlockSampler
from step_methods.kernels.pairwise.network import (
    PreparedPairwise,
    order_of_decisions,
    prepare_blocks,
    refill_blocks,
    update_blocks,
    update_blocks_forced,
)
from step_methods.kernels.restricted import draws
from step_methods.kernels.restricted.rbm import PreparedRBM
from step_methods.network import sampler_of
from step_methods.reading.blocks import numbers_of_blocks, places_of
from step_methods.reduced.reduced import NO_UNITS
from step_methods.reduced.restricted import ReducedRestricted, put
from step_methods.sampler import Decisions, Numbers, Scan, Units

__all__ = ["RestrictedSampler"]


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


class RestrictedSampler(BlockSampler[ReducedRestricted]):
    """Sample the units of one restricted network by blocks; by default these are its two layers.

    Parameters
    ----------
    reduced : ReducedRestricted
    blocks : mapping
        From `step_methods.reading.blocks.parse_blocks`, by the names of value variables, in the order of a sweep; empty
        for the layers as they are.
    in_random_order : bool
        Whether blocks are picked at random, so that `draw` and `force` are given their numbers.
    """

    def __init__(self, reduced: ReducedRestricted, blocks: Mapping[str, Sequence[np.ndarray]], in_random_order: bool):
        self.reduced = reduced
        self._blocks = {name: blocks[name] for name in blocks if name in reduced.updated}
        self._in_random_order = in_random_order
        # By name, because a compiled function in the state of a step would be pickled as source and compiled anew.
        if reduced.has_auxiliary:
            self._kernel = "draw_marginal"
        elif reduced.updates_visible and (reduced.updates_hidden or reduced.hidden is None):
            self._kernel = "draw_joint"
        else:
            self._kernel = "draw_visible" if reduced.updates_visible else "draw_hidden"
        reduced.tables = not self._blocks
        self._rbms: list[PreparedRBM | None] = []
        self._blocks_of: list[_Blocks] = []
        self._scratch = NO_UNITS

    @property
    def n_blocks(self) -> int:
        """Number of blocks that are picked from in random order."""
        if self._blocks:
            return sum(len(blocks) for blocks in self._all_blocks().values())
        return 2 if self._kernel == "draw_joint" else 1

    def _all_blocks(self) -> dict[str, Sequence[np.ndarray]]:
        """Return the blocks of the user, and then the layers that he left as they are."""
        reduced = self.reduced
        layers = reduced.reader.free_layers
        whole = {name: [np.flatnonzero(layers[name].read()[1])] for name in reduced.updated if name not in self._blocks}
        return {**self._blocks, **whole}

    def lay_out(self) -> None:
        """Give each machine the blocks of its units."""
        reduced = self.reduced
        machines = reduced.machines
        W = reduced.parameters[0]
        self._rbms = [None] * len(machines)
        self._blocks_of = []
        if reduced.has_auxiliary:
            self._scratch = np.zeros(W.shape[-1], np.int64)
        if not self._blocks:
            return
        n_blocks = self.n_blocks
        v_numbers, h_numbers = (
            np.full((len(machines), mask.size), n_blocks) for mask in (machines[0].v_free, machines[0].h_free)
        )
        first = 0
        for name, blocks in self._all_blocks().items():
            numbers = v_numbers if name == reduced.visible else h_numbers
            of_unit = numbers_of_blocks(blocks, numbers.size).reshape(numbers.shape)
            numbers[of_unit >= 0] = of_unit[of_unit >= 0] + first
            first += len(blocks)
        self._blocks_of = [
            _Blocks.lay_out(v[machine.v_free], h[machine.h_free], n_blocks, reduced.has_auxiliary, W.dtype)
            for machine, v, h in zip(machines, v_numbers, h_numbers, strict=True)
        ]

    def prepare(self) -> None:
        for i, machine in enumerate(self.reduced.machines):
            if self._blocks:
                self._blocks_of[i].set_parameters(*machine.parameters)
            elif self.reduced.evidence:
                self._rbms[i] = put(self._rbms[i], *machine.parameters, tables=not self.reduced.changes)
            else:
                self._rbms[i] = machine.plain

    def _layers(self, old: Units, new: Units) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        visible, hidden = self.reduced.visible, self.reduced.hidden
        v_old, v = old.get(visible, NO_UNITS), new.get(visible, NO_UNITS)
        h_old, h = old.get(hidden, NO_UNITS), new.get(hidden, self._scratch)
        return v_old, v, h_old, h

    def draw(self, old: Units, new: Units, scan: Scan, stream: np.ndarray) -> tuple[float, int]:
        """See `Sampler.draw`."""
        reduced = self.reduced
        v_old, v, h_old, h = self._layers(old, new)
        kernel, n_or_picks = self._plan(scan)
        total_energy, total_changed = 0.0, 0
        for i, machine in enumerate(reduced.machines):
            visible, hidden = machine.visible, machine.hidden
            units = v_old[visible], v[visible], h_old[hidden], h[hidden]
            if kernel is None:
                n_changed = self._update_blocks(i, *units, n_or_picks, update_blocks, stream)
            else:
                new_energy, n_changed = getattr(draws, kernel)(self._rbms[i], *units, n_or_picks, stream)
            if reduced.evidence or kernel is None:
                new_energy = reduced.energy(
                    machine,
                    (v if reduced.updates_visible else v_old)[visible],
                    (h if reduced.updates_hidden else h_old)[hidden],
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
        index: int,
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
            blocks = self._blocks_of[index]
            update(blocks.network, both, blocks.biases, 1.0, blocks.picks(scan), *source)
        for is_updated, before, after, now in (
            (self.reduced.updates_visible, v_old, v, both[: v_old.size]),
            (self.reduced.updates_hidden, h_old, h, both[v_old.size :]),
        ):
            if is_updated:
                after[:] = now
                n_changed += int(np.count_nonzero(before != after))
        return n_changed

    def force(self, old: Units, new: Units, scan: Scan, bits: Iterator[int]) -> list[float]:
        """See `Sampler.force`."""
        v_old, v, h_old, h = self._layers(old, new)
        kernel, n_or_picks = self._plan(scan)
        all_probabilities: list[float] = []
        for i, machine in enumerate(self.reduced.machines):
            visible, hidden = machine.visible, machine.hidden
            units = v_old[visible], v[visible], h_old[hidden], h[hidden]
            n_decisions = self._n_decisions(i, kernel, n_or_picks)
            decisions = np.fromiter(islice(bits, n_decisions), np.uint8, n_decisions)
            probabilities = np.empty(n_decisions)
            if kernel is None:
                self._update_blocks(i, *units, n_or_picks, update_blocks_forced, decisions, probabilities)
            else:
                draws.FORCED[kernel](self._rbms[i], *units, n_or_picks, decisions, probabilities)
            all_probabilities += probabilities.tolist()
        return all_probabilities

    def numbers(self) -> Numbers:
        """See `Sampler.numbers`."""
        units, _ = self.decisions()
        is_auxiliary = units < 0
        starts_block = ~is_auxiliary
        if self.reduced.has_auxiliary:
            starts_block = is_auxiliary & ~np.append(False, is_auxiliary[:-1])
        return Numbers(units, np.zeros(units.size, bool), starts_block)

    def _n_decisions(self, index: int, kernel: str | None, scan: Any) -> int:
        if kernel is None:
            return self._blocks_of[index].n_decisions(scan) if self._blocks_of else 0
        machine = self.reduced.machines[index]
        n_visible, n_hidden = _length(machine.visible), _length(machine.hidden)
        if kernel == "draw_layers":
            return int(np.array([n_hidden, n_visible])[scan].sum())
        if kernel == "draw_visible":
            return n_visible
        return n_hidden if kernel == "draw_hidden" else int(scan) * (n_visible + n_hidden)

    def decisions(self) -> Decisions:
        """See `Sampler.decisions`."""
        reduced = self.reduced
        n_visible = sum(_length(machine.visible) for machine in reduced.machines) if reduced.updates_visible else 0
        units, blocks, machines = [], [], []
        for i, machine in enumerate(reduced.machines):
            v = np.arange(*machine.visible.indices(machine.visible.stop))
            if reduced.updates_hidden:
                h = n_visible + np.arange(*machine.hidden.indices(machine.hidden.stop))
            else:
                h = np.full(_length(machine.hidden), -1)
            if self._blocks:
                order, of_block = self._blocks_of[i].order(np.arange(self.n_blocks))
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
        if not reduced.has_auxiliary:
            return all_units, np.arange(all_units.size)
        # Auxiliary units are decided on along with the units that they are drawn for.
        _, stages = np.unique([np.concatenate(machines), all_blocks], axis=1, return_inverse=True)
        return all_units, stages


@sampler_of.register(ReducedRestricted)
def _sampler(
    reduced: ReducedRestricted, blocks: Mapping[str, Sequence[np.ndarray]], in_random_order: bool
) -> RestrictedSampler:
    return RestrictedSampler(reduced, blocks, in_random_order)


def _length(places: slice) -> int:
    return places.stop - places.start
