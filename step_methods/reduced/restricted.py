"""What is left to sample of restricted networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from step_methods.kernels.restricted.rbm import PreparedRBM, energy, free_energy, prepare, refill
from step_methods.network import RestrictedNetwork, reduced_of
from step_methods.reading.evidence import Evidence
from step_methods.reading.readers import NetworkReader
from step_methods.reduced.freeze import TwoLayers, certainty, look_at_units
from step_methods.reduced.reduced import NO_UNITS, ReducedNetwork

__all__ = ["ReducedMachine", "ReducedRestricted", "lay_out", "put"]


@dataclass(slots=True)
class ReducedMachine:
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
    parameters : tuple of ndarray
        Its couplings and biases with the evidence on its units in the biases.
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
    parameters: tuple[np.ndarray, ...] = ()
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


@reduced_of.register(RestrictedNetwork)
def _reduced(
    network: RestrictedNetwork, reader: NetworkReader, updated: set[str], evidence: Mapping[str, Evidence]
) -> ReducedRestricted:
    return ReducedRestricted(reader, updated, evidence)


class ReducedRestricted(ReducedNetwork):
    """A restricted network, reduced to the free units of each machine; see `ReducedNetwork` for the parameters.

    Attributes
    ----------
    machines : list of ReducedMachine
    visible, hidden : str or None
        Names of the layers' value variables; None where a layer has no free units, or is not in the model.
    updates_visible, updates_hidden : bool
    has_auxiliary : bool
        Whether the hidden units are not in the model.
    tables : bool
        Whether constant parameters are arranged with look-up tables, which draws are faster with.
    """

    def __init__(self, reader: NetworkReader, updated: set[str], evidence: Mapping[str, Evidence]):
        super().__init__(reader, updated, evidence)
        self.machines: list[ReducedMachine] = []
        self.visible = reader.visible.value_name
        self.hidden = reader.hidden.value_name if reader.hidden else None
        self.has_auxiliary = reader.hidden is None
        self.updates_visible = self.visible in updated
        self.updates_hidden = self.hidden in updated
        self.tables = True

    @property
    def n_units(self) -> int:
        """Number of units of the model that a draw updates."""
        return sum(
            int(machine.v_free.sum()) * self.updates_visible + int(machine.h_free.sum()) * self.updates_hidden
            for machine in self.machines
        )

    def energy(self, machine: ReducedMachine, v: np.ndarray, h: np.ndarray) -> float:
        """Return the energy of a machine's free units without evidence, which may be infinite for what it excludes."""
        return free_energy(machine.plain, v) if self.has_auxiliary else energy(machine.plain, v, h)

    def look(self, point: Mapping[str, np.ndarray], margin: float = 0.0) -> tuple[bool, bool]:
        """See `Reduced.look`."""
        v, h = (NO_UNITS if name is None else point[name].ravel().astype(bool) for name in (self.visible, self.hidden))
        looks = []
        for machine in self.machines:
            W, a, b = machine.parameters
            is_hidden = np.repeat([False, True], [a.size, b.size])
            auxiliary = is_hidden & self.has_auxiliary
            ones = np.zeros(is_hidden.size, bool)
            ones[~is_hidden] = v[machine.visible]
            if self.hidden is not None:
                ones[is_hidden] = h[machine.hidden]
            decided = np.where(is_hidden, self.updates_hidden, self.updates_visible) | auxiliary
            bound = certainty(W.dtype) + margin
            looks.append(look_at_units(TwoLayers(W), 1.0, np.concatenate([a, b]), ones, decided, auxiliary, bound))
        return all(certain for certain, _ in looks), any(free for _, free in looks)

    def lay_out(self) -> None:
        self.machines = lay_out(self.reader, *(x.shape for x in self.parameters))

    def reduce(self, logits: Mapping[str, np.ndarray], *, parameters_are_new: bool) -> None:
        """Give each machine its couplings, biases and evidence; those that are alike share them."""
        W, a, b = self.parameters
        visible_logits, hidden_logits = logits.get(self.visible or ""), logits.get(self.hidden or "")
        alike = all(machine.is_free for machine in self.machines) and all(
            np.prod(x.shape[:-n_core]) == 1 for x, n_core in ((W, 2), (a, 1), (b, 1))
        )
        batch = [i + 1 for i in self.machines[-1].index]
        W, a, b = (np.broadcast_to(x, (*batch, *x.shape[-n_core:])) for x, n_core in ((W, 2), (a, 1), (b, 1)))
        first = self.machines[0]
        for machine in self.machines:
            own_W, own_a, own_b = machine.reduce(W[machine.index], a[machine.index], b[machine.index])
            if alike and machine is not first:
                machine.plain = first.plain
            else:
                tables = self.tables and not self.changes and not logits
                machine.plain = put(machine.plain, own_W, own_a, own_b, tables=tables)
            if visible_logits is not None:
                own_a = (own_a + visible_logits[machine.visible]).astype(own_a.dtype)
            if hidden_logits is not None:
                own_b = (own_b + hidden_logits[machine.hidden]).astype(own_b.dtype)
            machine.parameters = own_W, own_a, own_b


def lay_out(
    reader: NetworkReader, W_shape: tuple[int, ...], a_shape: tuple[int, ...], b_shape: tuple[int, ...]
) -> list[ReducedMachine]:
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
        machines.append(ReducedMachine(i, v[i], v_free[i], h[i], h_free[i], slice(v_start, v_stop), hidden))
    return machines


def put(rbm: PreparedRBM | None, W: np.ndarray, a: np.ndarray, b: np.ndarray, *, tables: bool) -> PreparedRBM:
    """Arrange parameters for the kernels, in the memory of those before if there are any."""
    if rbm is None:
        return prepare(W, a, b, tables=tables)
    refill(rbm, W, a, b)
    return rbm
