"""Sample the layers of restricted networks with Gaussian visible units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from step_methods.gibbs.block_sampler import BlockSampler
from step_methods.kernels.restricted import gaussian_rbm
from step_methods.kernels.restricted.gaussian_rbm import PreparedGaussianRBM, prepare, refill
from step_methods.network import sampler_of
from step_methods.reduced.gaussian_restricted import ReducedGaussianRestricted
from step_methods.reduced.reduced import NO_UNITS
from step_methods.reduced.restricted import ReducedMachine
from step_methods.sampler import Decisions, Numbers, Scan, Units

__all__ = ["GaussianRestrictedSampler"]


class GaussianRestrictedSampler(BlockSampler[ReducedGaussianRestricted]):
    """Sample the layers of one network with Gaussian visible units.

    Parameters
    ----------
    reduced : ReducedGaussianRestricted
    blocks : mapping
        From `step_methods.reading.blocks.parse_blocks`, by the names of value variables; none of them may be of this
        network.
    in_random_order : bool
        Whether layers are picked at random, so that `draw` and `force` are given their numbers.

    Raises
    ------
    ValueError
        If there are blocks of this network.
    """

    def __init__(
        self, reduced: ReducedGaussianRestricted, blocks: Mapping[str, Sequence[np.ndarray]], in_random_order: bool
    ):
        for name, layer in reduced.reader.free_layers.items():
            if name in blocks:
                raise ValueError(
                    f"blocks must not be of {layer.name!r}, a layer of an RBM with Gaussian units: its units are "
                    "independent given the other layer, and this step method always draws them together"
                )
        self.reduced = reduced
        self._in_random_order = in_random_order
        # By name, because a compiled function in the state of a step would be pickled as source and compiled anew.
        if not reduced.updates_visible:
            self._kernel = "draw_hidden"
        elif reduced.has_auxiliary:
            self._kernel = "draw_marginal"
        else:
            self._kernel = "draw_visible" if reduced.hidden and not reduced.updates_hidden else "draw_joint"
        self._prepared: list[PreparedGaussianRBM] = []
        self._scratch = NO_UNITS
        self._no_visible = np.empty(0)

    @property
    def n_blocks(self) -> int:
        """Number of blocks that are picked from in random order: layers, auxiliary units along with the visible one."""
        return 2 if self._kernel == "draw_joint" else 1

    def lay_out(self) -> None:
        W = self.reduced.parameters[0]
        self._prepared = []
        self._no_visible = np.empty(0, W.dtype)
        if self.reduced.has_auxiliary:
            self._scratch = np.zeros(W.shape[-1], np.int64)

    def prepare(self) -> None:
        logits = self.reduced.logits
        fresh = not self._prepared
        for i, (machine, own) in enumerate(zip(self.reduced.machines, self.reduced.of_machines, strict=True)):
            own_logits = 0.0 if logits is None else logits[machine.hidden]
            if fresh:
                self._prepared.append(prepare(*own, own_logits))
            else:
                refill(self._prepared[i], *own, own_logits)

    def draw(self, old: Units, new: Units, scan: Scan, stream: np.ndarray) -> tuple[float, int]:
        """See `Sampler.draw`."""
        v_old, v = old.get(self.reduced.visible, self._no_visible), new.get(self.reduced.visible, self._no_visible)
        h_old, h = old.get(self.reduced.hidden, NO_UNITS), new.get(self.reduced.hidden, self._scratch)
        # A single block is updated as often as it was picked.
        n_or_picks = scan if isinstance(scan, int) or self._kernel == "draw_joint" else scan.size
        kernel = getattr(gaussian_rbm, self._kernel if isinstance(n_or_picks, int) else "draw_layers")
        total_energy, total_changed = 0.0, 0
        parts = zip(self.reduced.machines, self._prepared, self.reduced.constant_energies, strict=True)
        for machine, rbm, constant in parts:
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
        v, h = old.get(self.reduced.visible, self._no_visible), new[self.reduced.hidden]
        if not (scan if isinstance(scan, int) else scan.size):
            return []
        all_probabilities: list[float] = []
        for machine, rbm in zip(self.reduced.machines, self._prepared, strict=True):
            hidden = h[machine.hidden]
            decisions = np.fromiter(islice(bits, hidden.size), np.uint8, hidden.size)
            probabilities = np.empty(hidden.size)
            gaussian_rbm.draw_hidden_forced(rbm, v[machine.visible], hidden, decisions, probabilities)
            all_probabilities += probabilities.tolist()
        return all_probabilities

    def force_numbers(self, old: Units, new: Units, scan: Scan, numbers: Iterator[float]) -> list[float]:
        """See `Sampler.force_numbers`: the decisions of a machine's hidden units come first."""
        v_old, v = old.get(self.reduced.visible, self._no_visible), new.get(self.reduced.visible, self._no_visible)
        h = new.get(self.reduced.hidden, self._scratch)
        if self.reduced.updates_visible:
            v[:] = v_old
        all_probabilities: list[float] = []
        for machine, rbm in zip(self.reduced.machines, self._prepared, strict=True):
            own_v, own_h = (v if self.reduced.updates_visible else v_old)[machine.visible], h[machine.hidden]
            n_visible, n_hidden = self._n_numbers(machine)
            bits = np.fromiter(islice(numbers, n_hidden), np.uint8, n_hidden)
            normals = np.fromiter(islice(numbers, n_visible), own_v.dtype, n_visible)
            probabilities = np.empty(n_hidden)
            if self._kernel == "draw_hidden":
                gaussian_rbm.draw_hidden_forced(rbm, own_v, own_h, bits, probabilities)
            elif self._kernel == "draw_visible":
                gaussian_rbm.draw_visible_forced(rbm, own_v, old[self.reduced.hidden][machine.hidden], normals)
            else:
                gaussian_rbm.sweep_forced(rbm, own_v, own_h, 1, bits, probabilities, normals)
            all_probabilities += [*probabilities.tolist(), *[np.nan] * n_visible]
        return all_probabilities

    def numbers(self) -> Numbers:
        """See `Sampler.numbers`."""
        n_all_visible = sum(int(m.v_free.sum()) for m in self.reduced.machines) if self.reduced.updates_visible else 0
        units, is_real, starts_block = [], [], []
        for machine in self.reduced.machines:
            n_visible, n_hidden = self._n_numbers(machine)
            visible, hidden = machine.visible.start + np.arange(n_visible), np.full(n_hidden, -1)
            if self.reduced.updates_hidden:
                hidden = n_all_visible + machine.hidden.start + np.arange(n_hidden)
            units += [hidden, visible]
            is_real += [np.zeros(n_hidden, bool), np.ones(n_visible, bool)]
            starts_block += [np.arange(n_hidden) == 0, (np.arange(n_visible) == 0) & (self._kernel != "draw_marginal")]
        return Numbers(np.concatenate(units), np.concatenate(is_real), np.concatenate(starts_block))

    def _n_numbers(self, machine: ReducedMachine) -> tuple[int, int]:
        """Return how many normal numbers and how many decisions a sweep of one machine takes."""
        n_visible = int(machine.v_free.sum()) if self.reduced.updates_visible else 0
        return n_visible, 0 if self._kernel == "draw_visible" else int(machine.h_free.sum())

    def decisions(self) -> Decisions:
        """Return which units a sweep decides on, and the stages that these decisions make up.

        Raises
        ------
        TypeError
            If the visible units are updated, too, whose values no decisions give.
        """
        self._check_decides()
        units = np.arange(self.reduced.n_units)
        return units, np.zeros_like(units) if self._in_random_order else units

    def _check_decides(self) -> None:
        if self._kernel != "draw_hidden":
            raise TypeError(
                f"the visible units of {self.reduced.name!r} are real numbers: only steps that update its hidden "
                "units alone make decisions that can be forced"
            )


@sampler_of.register(ReducedGaussianRestricted)
def _sampler(
    reduced: ReducedGaussianRestricted, blocks: Mapping[str, Sequence[np.ndarray]], in_random_order: bool
) -> GaussianRestrictedSampler:
    return GaussianRestrictedSampler(reduced, blocks, in_random_order)
