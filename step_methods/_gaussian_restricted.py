"""Sample the layers of restricted networks with Gaussian visible units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from pymc.blocking import PointType

from step_methods._chain_start import disperse_units
from step_methods._restricted import NO_UNITS, Decisions, Machine, Numbers, Scan, Units, lay_out
from step_methods.evidence import Evidence
from step_methods.kernels import gaussian_rbm
from step_methods.kernels.gaussian_rbm import PreparedGaussianRBM, prepare, refill
from step_methods.network import NetworkReader

__all__ = ["GaussianRestrictedSampler"]

type _Parameters = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class GaussianRestrictedSampler:
    """Sample the units of one network with Gaussian visible units, which is a batch of one or more machines.

    Parameters
    ----------
    reader : NetworkReader
    updated : set of str
        Names of the value variables that the step method updates. On a layer that is not among them it
        conditions.
    evidence : mapping
        What other terms say about the hidden units, by the name of their value variable.
    blocks : mapping
        From `step_methods._blocks.parse_blocks`, by the names of value variables; none of them may be of this network.
    in_random_order : bool
        Whether layers are picked at random, so that `draw` and `force` are given their numbers.

    Attributes
    ----------
    changes : bool
        Whether parameters or evidence have to be read at every step.
    inputs : list of str
        The value variables that they are read from.
    conditioned_on, updated : list of str
        Names of the value variables that a draw depends on, and of those that it draws.

    Raises
    ------
    ValueError
        If there are blocks of this network.
    """

    def __init__(
        self,
        reader: NetworkReader,
        updated: set[str],
        evidence: Mapping[str, Evidence],
        blocks: Mapping[str, Sequence[np.ndarray]],
        in_random_order: bool,
    ):
        for name, layer in reader.free_layers.items():
            if name in blocks:
                raise ValueError(
                    f"blocks must not be of {layer.name!r}, a layer of an RBM with Gaussian units: its units are "
                    "independent given the other layer, and this step method always draws them together"
                )
        self._reader = reader
        self._visible = reader.visible.value_name
        self._hidden = reader.hidden.value_name if reader.hidden else None
        self._evidence = evidence.get(self._hidden or "")
        self._parameters: tuple[np.ndarray, ...] = ()
        self._in_random_order = in_random_order
        self.changes = reader.parameters.changes or not (self._evidence is None or self._evidence.fixed)
        self.inputs = [*reader.parameters.inputs, *(self._evidence.inputs if self._evidence else ())]
        self.conditioned_on = list(reader.free_layers)
        self.updated = [name for name in reader.free_layers if name in updated]
        self._updates_hidden = self._hidden in updated
        # By name, because a compiled function in the state of a step would be pickled as source and compiled anew.
        if self._visible not in updated:
            self._kernel = "draw_hidden"
        elif reader.hidden is None:
            self._kernel = "draw_marginal"
        else:
            self._kernel = "draw_visible" if self._hidden and not self._updates_hidden else "draw_joint"
        self._machines: list[Machine] = []
        self._is_stale = True
        self._prepared: list[PreparedGaussianRBM] = []
        self._constant_energies: list[float] = []
        self._scratch = NO_UNITS
        self._no_visible = np.empty(0)

    @property
    def n_blocks(self) -> int:
        """Number of blocks that are picked from in random order: layers, auxiliary units along with the visible one."""
        return 2 if self._kernel == "draw_joint" else 1

    @property
    def n_units(self) -> int:
        """Number of two-valued units of the model that a draw updates."""
        return sum(int(machine.h_free.sum()) for machine in self._machines) if self._updates_hidden else 0

    def start(self) -> None:
        """Forget, at the start of a chain, what may have changed since the last one."""
        if self._evidence is not None:
            self._evidence.start()
        if self._evidence is not None or not self._reader.constant:
            self._is_stale = True

    def logits_at(self, point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the evidence on the hidden units at a point, by the name of their variable; empty if there is none."""
        return {} if self._evidence is None else {self._hidden or "": self._evidence.logits(point)}

    def disperse(self, point: PointType, by_default: set[str], rng: np.random.Generator) -> None:
        """Give the chain a start of its own, in place, where PyMC's default is what it starts from.

        Coins are tossed for hidden units, auxiliary ones too, and the visible ones drawn given them.
        """
        self.read(point)
        if self._updates_hidden and self._hidden is not None:
            disperse_units(
                point,
                self._hidden,
                (0, 1),
                self.logits_at(point).get(self._hidden),
                by_default=self._hidden in by_default,
                rng=rng,
                terms=self._reader.terms[self._hidden],
            )
        if self._visible not in by_default:
            return
        start = point[self._visible].copy()
        for machine, (W, a, b, sigma), _ in self._reduced():
            if self._reader.hidden is None:
                h = rng.integers(0, 2, b.size)
            else:
                h = point[self._hidden].ravel()[machine.hidden] if self._hidden else NO_UNITS
            start.reshape(-1)[machine.visible] = a + W @ h + sigma * rng.standard_normal(a.size)
        point[self._visible] = start

    def look(self, point: Mapping[str, np.ndarray]) -> tuple[bool, bool]:
        """Say that the units can change: real ones always do, and hidden ones move with them."""
        return False, False

    def read(self, point: Mapping[str, np.ndarray]) -> None:
        """Read parameters and evidence and, where they were forgotten, the clamped units.

        Raises
        ------
        ValueError
            If a standard deviation is not positive.
        """
        if not (self._is_stale or self.changes):
            return
        if self._is_stale or self._reader.parameters.changes:
            self._parameters = self._reader.parameters.read(point)
            _check_positive(self._parameters[3], self._reader)
        if self._is_stale:
            self._lay_out()
            self._is_stale = False
        logits = self.logits_at(point).get(self._hidden or "")
        fresh = not self._prepared
        for i, (machine, own, constant) in enumerate(self._reduced()):
            own_logits = 0.0 if logits is None else logits[machine.hidden]
            if fresh:
                self._prepared.append(prepare(*own, own_logits))
                self._constant_energies.append(constant)
            else:
                refill(self._prepared[i], *own, own_logits)
                self._constant_energies[i] = constant

    def _reduced(self) -> Iterator[tuple[Machine, _Parameters, float]]:
        """Yield the machines with the parameters of their free units, and the energy that no free unit enters."""
        W, a, b, sigma = self._parameters
        batch = tuple(i + 1 for i in self._machines[-1].index)
        W = np.broadcast_to(W, (*batch, *W.shape[-2:]))
        a, b, sigma = (np.broadcast_to(x, (*batch, x.shape[-1])) for x in (a, b, sigma))
        for machine in self._machines:
            at = machine.index
            yield machine, *_reduce(machine, W[at], a[at], b[at], sigma[at])

    def _lay_out(self) -> None:
        W, a, b, sigma = self._parameters
        if sigma.shape[-1] != W.shape[-2]:
            raise ValueError(
                f"sigma of {self._reader.name!r} must have the shape {W.shape[-2:-1]} to fit W of shape {W.shape}, got "
                f"{sigma.shape[-1:]}"
            )
        self._machines = lay_out(self._reader, W.shape, a.shape, b.shape)
        self._prepared, self._constant_energies = [], []
        self._no_visible = np.empty(0, W.dtype)
        if self._reader.hidden is None:
            self._scratch = np.zeros(W.shape[-1], np.int64)

    def draw(self, old: Units, new: Units, scan: Scan, stream: np.ndarray) -> tuple[float, int]:
        """Fill in the new units; return the energy after the last update and how many two-valued units changed.

        Parameters
        ----------
        old, new : dict
        scan : int or ndarray of int64
            How many sweeps to make, or the numbers of the blocks to update.
        stream : ndarray
        """
        v_old, v = old.get(self._visible, self._no_visible), new.get(self._visible, self._no_visible)
        h_old, h = old.get(self._hidden, NO_UNITS), new.get(self._hidden, self._scratch)
        # A single block is updated as often as it was picked.
        n_or_picks = scan if isinstance(scan, int) or self._kernel == "draw_joint" else scan.size
        kernel = getattr(gaussian_rbm, self._kernel if isinstance(n_or_picks, int) else "draw_layers")
        total_energy, total_changed = 0.0, 0
        for machine, rbm, constant in zip(self._machines, self._prepared, self._constant_energies, strict=True):
            visible, hidden = machine.visible, machine.hidden
            energy, n_changed = kernel(rbm, v_old[visible], v[visible], h_old[hidden], h[hidden], n_or_picks, stream)
            total_energy += energy + constant
            total_changed += n_changed
        return total_energy, total_changed

    def force(self, old: Units, new: Units, scan: Scan, bits: Iterator[int]) -> list[float]:
        """Fill in the new units by decisions from `bits`; return the probability of a 1 for each of them.

        Raises
        ------
        TypeError
            If the visible units are updated, too, whose values no decisions give.
        """
        self._check_decides()
        v, h = old.get(self._visible, self._no_visible), new[self._hidden]
        if not (scan if isinstance(scan, int) else scan.size):
            return []
        all_probabilities: list[float] = []
        for machine, rbm in zip(self._machines, self._prepared, strict=True):
            hidden = h[machine.hidden]
            decisions = np.fromiter(islice(bits, hidden.size), np.uint8, hidden.size)
            probabilities = np.empty(hidden.size)
            gaussian_rbm.draw_hidden_forced(rbm, v[machine.visible], hidden, decisions, probabilities)
            all_probabilities += probabilities.tolist()
        return all_probabilities

    def force_numbers(self, old: Units, new: Units, scan: Scan, numbers: Iterator[float]) -> list[float]:
        """Fill in the new units by random numbers that are given, once each, the hidden ones of a machine first.

        Returns
        -------
        list of float
            The probability of a 1 for each decision, NaN for each standard normal number.
        """
        v_old, v = old.get(self._visible, self._no_visible), new.get(self._visible, self._no_visible)
        h = new.get(self._hidden, self._scratch)
        if self._visible in self.updated:
            v[:] = v_old
        all_probabilities: list[float] = []
        for machine, rbm in zip(self._machines, self._prepared, strict=True):
            own_v, own_h = (v if self._visible in self.updated else v_old)[machine.visible], h[machine.hidden]
            n_visible, n_hidden = self._n_numbers(machine)
            bits = np.fromiter(islice(numbers, n_hidden), np.uint8, n_hidden)
            normals = np.fromiter(islice(numbers, n_visible), own_v.dtype, n_visible)
            probabilities = np.empty(n_hidden)
            if self._kernel == "draw_hidden":
                gaussian_rbm.draw_hidden_forced(rbm, own_v, own_h, bits, probabilities)
            elif self._kernel == "draw_visible":
                gaussian_rbm.draw_visible_forced(rbm, own_v, old[self._hidden][machine.hidden], normals)
            else:
                gaussian_rbm.sweep_forced(rbm, own_v, own_h, 1, bits, probabilities, normals)
            all_probabilities += [*probabilities.tolist(), *[np.nan] * n_visible]
        return all_probabilities

    def numbers(self) -> Numbers:
        """Return what the random numbers of a sweep are about: machine after machine, the hidden units first."""
        n_all_visible = sum(int(m.v_free.sum()) for m in self._machines) if self._visible in self.updated else 0
        units, is_real, starts_block = [], [], []
        for machine in self._machines:
            n_visible, n_hidden = self._n_numbers(machine)
            visible, hidden = machine.visible.start + np.arange(n_visible), np.full(n_hidden, -1)
            if self._updates_hidden:
                hidden = n_all_visible + machine.hidden.start + np.arange(n_hidden)
            units += [hidden, visible]
            is_real += [np.zeros(n_hidden, bool), np.ones(n_visible, bool)]
            starts_block += [np.arange(n_hidden) == 0, (np.arange(n_visible) == 0) & (self._kernel != "draw_marginal")]
        return Numbers(np.concatenate(units), np.concatenate(is_real), np.concatenate(starts_block))

    def _n_numbers(self, machine: Machine) -> tuple[int, int]:
        """Return how many normal numbers and how many decisions a sweep of one machine takes."""
        n_visible = int(machine.v_free.sum()) if self._visible in self.updated else 0
        return n_visible, 0 if self._kernel == "draw_visible" else int(machine.h_free.sum())

    def decisions(self) -> Decisions:
        """Return which units a sweep decides on, and the stages that these decisions make up.

        Raises
        ------
        TypeError
            If the visible units are updated, too, whose values no decisions give.
        """
        self._check_decides()
        units = np.arange(self.n_units)
        return units, np.zeros_like(units) if self._in_random_order else units

    def _check_decides(self) -> None:
        if self._kernel != "draw_hidden":
            raise TypeError(
                f"the visible units of {self._reader.name!r} are real numbers: only steps that update its hidden "
                "units alone make decisions that can be forced"
            )


def _check_positive(sigma: np.ndarray, reader: NetworkReader) -> None:
    if not (sigma > 0).all():
        raise ValueError(
            f"the standard deviations sigma of {reader.name!r} must be positive, got {sigma[~(sigma > 0)].flat[0]}"
        )


def _reduce(
    machine: Machine, W: np.ndarray, a: np.ndarray, b: np.ndarray, sigma: np.ndarray
) -> tuple[_Parameters, float]:
    """Return the parameters of a machine's free units, whose biases take in the clamped ones, and the rest's energy.

    Clamped hidden units shift the mean of a free visible one by d = W h. The square of v − a − d then has a part that
    is not in the energy, (2ad + d²) / 2σ², and is constant.
    """
    if machine.is_free:
        return (W, a, b, sigma), 0.0
    v, free = machine.v, machine.v_free
    precision = 1 / sigma**2
    shift = W @ machine.h
    deviations = np.where(free, -shift * (2 * a + shift), (v - a) ** 2 - 2 * v * shift)
    energy = deviations @ precision / 2 - b @ machine.h
    parameters = (
        W[np.ix_(free, machine.h_free)],
        (a + shift)[free].astype(a.dtype),
        (b + (v * precision) @ W)[machine.h_free].astype(b.dtype),
        sigma[free],
    )
    return parameters, float(energy)
