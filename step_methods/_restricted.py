"""Sample the layers of restricted networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from step_methods.evidence import Evidence
from step_methods.kernels import chain
from step_methods.kernels.rbm import PreparedRBM, energy, free_energy, prepare, refill
from step_methods.network import NetworkReader

__all__ = ["RestrictedSampler", "Units"]

# The raveled values of variables, by name; a layer without a variable has no units.
type Units = dict[str | None, np.ndarray]

NO_UNITS = np.empty(0, np.int64)


@dataclass(slots=True)
class Machine:
    """One RBM of a batch, reduced to its free units: the clamped ones act as biases.

    Attributes
    ----------
    index : tuple of int
        Its place in the batch.
    v, h : ndarray of int64, shapes (n_visible,) and (n_hidden,)
        Its clamped units, zero where a unit is free.
    v_free, h_free : ndarray of bool, same shapes
    visible, hidden : slice
        Its free units in the raveled values of the two layers' variables.
    plain : tuple or None
        Its couplings and biases, as the kernels want them; None until they are read.
    rbm : tuple or None
        The same with the evidence on its units in the biases; the same object if there is none.
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

    Attributes
    ----------
    changes : bool
        Whether parameters or evidence have to be read at every step.
    conditioned_on, updated : list of str
        Names of the value variables that a draw depends on, and of those that it draws.
    """

    def __init__(self, reader: NetworkReader, updated: set[str], evidence: Mapping[str, Evidence]):
        self._reader = reader
        self._evidence = {name: evidence[name] for name in reader.free_layers if name in evidence}
        self._parameters: tuple[np.ndarray, ...] = ()
        self.changes = reader.parameters.changes or not all(e.fixed for e in self._evidence.values())
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
        self._scratch = NO_UNITS

    @property
    def n_units(self) -> int:
        """Number of units of the model that a draw updates."""
        return sum(
            int(machine.v_free.sum()) * self._updates_visible + int(machine.h_free.sum()) * self._updates_hidden
            for machine in self._machines
        )

    def start(self) -> None:
        """Forget, at the start of a chain, what may have changed since the last one."""
        if self._evidence or not self._reader.constant:
            self._machines = []

    def read(self, point: Mapping[str, np.ndarray]) -> None:
        """Read parameters and evidence and, where they were forgotten, the clamped units."""
        if self._machines and not self.changes:
            return
        if not self._machines or self._reader.parameters.changes:
            self._parameters = self._reader.parameters.read(point)
        if not self._machines:
            self._machines = _lay_out(self._reader, *(x.shape for x in self._parameters))
            if self._reader.hidden is None:
                self._scratch = np.zeros(self._parameters[0].shape[-1], np.int64)
        logits = {name: evidence.logits(point) for name, evidence in self._evidence.items()}
        _set_parameters(
            self._machines,
            *self._parameters,
            visible_logits=logits.get(self._visible or ""),
            hidden_logits=logits.get(self._hidden or ""),
            tables=not self.changes,
        )

    def _layers(self, old: Units, new: Units) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        v_old, v = old.get(self._visible, NO_UNITS), new.get(self._visible, NO_UNITS)
        h_old, h = old.get(self._hidden, NO_UNITS), new.get(self._hidden, self._scratch)
        return v_old, v, h_old, h

    def draw(self, old: Units, new: Units, n_sweeps: int, stream: np.ndarray) -> tuple[float, int]:
        """Fill in the new units; return the energy after the last sweep and how many units changed."""
        v_old, v, h_old, h = self._layers(old, new)
        kernel = getattr(chain, self._kernel)
        total_energy, total_changed = 0.0, 0
        for machine in self._machines:
            visible, hidden = machine.visible, machine.hidden
            new_energy, n_changed = kernel(
                machine.rbm, v_old[visible], v[visible], h_old[hidden], h[hidden], n_sweeps, stream
            )
            if self._evidence:
                new_energy = self._plain_energy(
                    machine,
                    (v if self._updates_visible else v_old)[visible],
                    (h if self._updates_hidden else h_old)[hidden],
                )
            total_energy += new_energy + machine.clamped_energy
            total_changed += n_changed
        return total_energy, total_changed

    def _plain_energy(self, machine: Machine, v: np.ndarray, h: np.ndarray) -> float:
        """Return the energy without evidence, which may be infinite for units that it excludes."""
        return free_energy(machine.plain, v) if self._reader.hidden is None else energy(machine.plain, v, h)

    def force(self, old: Units, new: Units, n_sweeps: int, bits: Iterator[int]) -> list[float]:
        """Fill in the new units by decisions from `bits`; return the probability of a 1 for each of them."""
        v_old, v, h_old, h = self._layers(old, new)
        all_probabilities: list[float] = []
        for machine in self._machines:
            visible, hidden = machine.visible, machine.hidden
            n_visible, n_hidden = _length(visible), _length(hidden)
            kernel, n_decisions = chain.forced(self._kernel, n_visible, n_hidden, n_sweeps)
            decisions = np.fromiter(islice(bits, n_decisions), np.uint8, n_decisions)
            probabilities = np.empty(n_decisions)
            kernel(
                machine.rbm, v_old[visible], v[visible], h_old[hidden], h[hidden], n_sweeps, decisions, probabilities
            )
            all_probabilities += probabilities.tolist()
        return all_probabilities


def _length(places: slice) -> int:
    return places.stop - places.start


def _lay_out(
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
            machine.plain = _put(machine.plain, own_W, own_a, own_b, tables=tables and no_evidence)
        if no_evidence:
            machine.rbm = machine.plain
            continue
        if visible_logits is not None:
            own_a = (own_a + visible_logits[machine.visible]).astype(own_a.dtype)
        if hidden_logits is not None:
            own_b = (own_b + hidden_logits[machine.hidden]).astype(own_b.dtype)
        machine.rbm = _put(machine.rbm, own_W, own_a, own_b, tables=tables)


def _put(rbm: PreparedRBM | None, W: np.ndarray, a: np.ndarray, b: np.ndarray, *, tables: bool) -> PreparedRBM:
    """Arrange parameters for the kernels, in the memory of those before if there are any."""
    if rbm is None:
        return prepare(W, a, b, tables=tables)
    refill(rbm, W, a, b)
    return rbm
