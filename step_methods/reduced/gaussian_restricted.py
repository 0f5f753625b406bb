"""What is left to sample of restricted networks with Gaussian visible units."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pymc.blocking import PointType

from step_methods.network import GaussianRestrictedNetwork, reduced_of
from step_methods.reading.evidence import Evidence
from step_methods.reading.readers import NetworkReader
from step_methods.reduced.reduced import NO_UNITS, ReducedNetwork
from step_methods.reduced.restricted import ReducedMachine, lay_out

__all__ = ["ReducedGaussianRestricted"]

type _Parameters = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@reduced_of.register(GaussianRestrictedNetwork)
def _reduced(
    network: GaussianRestrictedNetwork, reader: NetworkReader, updated: set[str], evidence: Mapping[str, Evidence]
) -> ReducedGaussianRestricted:
    return ReducedGaussianRestricted(reader, updated, evidence)


class ReducedGaussianRestricted(ReducedNetwork):
    """A restricted network with Gaussian visible units, reduced to the free units of each machine.

    Attributes
    ----------
    machines : list of ReducedMachine
    visible, hidden : str or None
        Names of the layers' value variables; None where a layer has no free units, or is not in the model.
    updates_visible, updates_hidden : bool
    has_auxiliary : bool
        Whether the hidden units are not in the model.
    of_machines : list of tuple
        W, a, b and sigma of the free units of each machine.
    logits : ndarray or None
        The evidence on the hidden units.
    constant_energies : list of float
        The part of each machine's energy that no free unit enters.
    """

    def __init__(self, reader: NetworkReader, updated: set[str], evidence: Mapping[str, Evidence]):
        super().__init__(reader, updated, evidence)
        self.machines: list[ReducedMachine] = []
        self.visible = reader.visible.value_name
        self.hidden = reader.hidden.value_name if reader.hidden else None
        self.has_auxiliary = reader.hidden is None
        self.updates_visible = self.visible in updated
        self.updates_hidden = self.hidden in updated
        self.of_machines: list[_Parameters] = []
        self.logits: np.ndarray | None = None
        self.constant_energies: list[float] = []

    @property
    def n_units(self) -> int:
        """Number of two-valued units of the model that a draw updates."""
        return sum(int(machine.h_free.sum()) for machine in self.machines) if self.updates_hidden else 0

    def disperse(self, point: PointType, by_default: set[str], rng: np.random.Generator) -> None:
        """Give the chain a start of its own, in place, where PyMC's default is what it starts from.

        Coins are tossed for hidden units, auxiliary ones too, and the visible ones drawn given them.
        """
        super().disperse(point, by_default, rng)
        if self.visible not in by_default:
            return
        start = point[self.visible].copy()
        for machine, (W, a, b, sigma) in zip(self.machines, self.of_machines, strict=True):
            if self.has_auxiliary:
                h = rng.integers(0, 2, b.size)
            else:
                h = point[self.hidden].ravel()[machine.hidden] if self.hidden else NO_UNITS
            start.reshape(-1)[machine.visible] = a + W @ h + sigma * rng.standard_normal(a.size)
        point[self.visible] = start

    def check_parameters(self) -> None:
        sigma = self.parameters[3]
        if not (sigma > 0).all():
            raise ValueError(
                f"the standard deviations sigma of {self.name!r} must be positive, got {sigma[~(sigma > 0)].flat[0]}"
            )

    def lay_out(self) -> None:
        W, a, b, sigma = self.parameters
        if sigma.shape[-1] != W.shape[-2]:
            raise ValueError(
                f"sigma of {self.name!r} must have the shape {W.shape[-2:-1]} to fit W of shape {W.shape}, got "
                f"{sigma.shape[-1:]}"
            )
        self.machines = lay_out(self.reader, W.shape, a.shape, b.shape)

    def reduce(self, logits: Mapping[str, np.ndarray], *, parameters_are_new: bool) -> None:
        self.logits = logits.get(self.hidden or "")
        if not parameters_are_new:
            return
        W, a, b, sigma = self.parameters
        batch = tuple(i + 1 for i in self.machines[-1].index)
        W = np.broadcast_to(W, (*batch, *W.shape[-2:]))
        a, b, sigma = (np.broadcast_to(x, (*batch, x.shape[-1])) for x in (a, b, sigma))
        self.of_machines, self.constant_energies = [], []
        for machine in self.machines:
            at = machine.index
            own, energy = _reduced_machine(machine, W[at], a[at], b[at], sigma[at])
            self.of_machines.append(own)
            self.constant_energies.append(energy)


def _reduced_machine(
    machine: ReducedMachine, W: np.ndarray, a: np.ndarray, b: np.ndarray, sigma: np.ndarray
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
