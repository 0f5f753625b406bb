"""Sample networks by spiking neurons: from the units of a model to the kernels and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial, singledispatch
from typing import Any

import numpy as np
from scipy.special import expit

from step_methods.kernels.pairwise.network import PreparedPairwise, energy_pairwise, prepare_pairwise
from step_methods.kernels.spiking.network import (
    PreparedSpiking,
    count_stages,
    force_spiking,
    pair_energy,
    prepare_restricted,
    prepare_spiking,
    refill_restricted,
    run_continuous,
    run_spiking,
    spike_bound,
)
from step_methods.reduced.pairwise import ReducedField, ReducedPairwise
from step_methods.reduced.reduced import NO_UNITS, ReducedNetwork
from step_methods.reduced.restricted import ReducedMachine, ReducedRestricted
from step_methods.sampler import Units
from step_methods.spiking.refractory import DecisionSource, Dynamics, GivenDecisions, renew

__all__ = ["Recorder", "SpikingNetwork", "SpikingPairwise", "SpikingRestricted", "spiking_sampler_of"]


@dataclass(slots=True)
class Recorder:
    """What happened between two draws.

    Attributes
    ----------
    keeps_raster : bool
    n_spikes : int
    events : list of (ndarray, ndarray)
        Numbers of neurons, and the times at which they fired; only if the raster is kept.
    start : float
        The time at which the present run begins.
    """

    keeps_raster: bool
    n_spikes: int = 0
    events: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    start: float = 0

    def add(self, units: np.ndarray, times: np.ndarray) -> None:
        """Keep the spikes of one run, their times counted from its beginning."""
        self.events.append((units, times + self.start))


@dataclass(slots=True)
class Population:
    """Neurons that one call of a kernel updates.

    Attributes
    ----------
    network : tuple
        Their couplings, as the kernels want them.
    bias : ndarray
        What is constant in their logits.
    numbers : ndarray of int32
        Their numbers in a raster.
    scale : float
        Multiplies the couplings.
    """

    network: PreparedSpiking
    bias: np.ndarray
    numbers: np.ndarray
    scale: float = 1.0

    def run(
        self, counters: np.ndarray, dynamics: Dynamics, duration: float, stream: np.ndarray, recorder: Recorder
    ) -> None:
        """Let the neurons spike for a time, in steps or, if it is continuous, in refractory periods."""
        n = counters.size
        counts = np.zeros(n, np.int64)
        capacity = self._most_spikes(n, dynamics, duration) if recorder.keeps_raster else 0
        units = np.empty(capacity, np.int32)
        times = np.empty(capacity, np.float64 if dynamics.continuous else np.int32)
        arguments = self.network, counters, self.bias, self.scale
        if dynamics.continuous:
            n_spikes = run_continuous(*arguments, float(duration), stream, counts, units, times)
        else:
            n_spikes = run_spiking(
                *arguments, int(dynamics.tau), dynamics.g, int(duration), stream, counts, units, times
            )
        recorder.n_spikes += n_spikes
        if recorder.keeps_raster:
            recorder.add(self.numbers[units[:n_spikes]], times[:n_spikes])

    @staticmethod
    def _most_spikes(n: int, dynamics: Dynamics, duration: float) -> int:
        if dynamics.order == "random" or dynamics.g is not None:
            return n * int(duration)
        return spike_bound(n, duration * dynamics.periods_per_step)

    def force(self, counters: np.ndarray, dynamics: Dynamics, stage: int | None, source: GivenDecisions) -> None:
        """Make one step by given decisions, or one stage of it alone."""
        if stage is None and dynamics.order == "random":
            for _ in range(counters.size):
                self.force(counters, dynamics, source.pick(counters.size), source)
            return
        probabilities = np.empty(counters.size)
        n_decisions = force_spiking(
            self.network,
            counters,
            self.bias,
            self.scale,
            int(dynamics.tau),
            dynamics.g,
            stage,
            source.ahead(counters.size),
            probabilities,
        )
        source.note(probabilities[:n_decisions].tolist())


class SpikingNetwork[AnyReduced: ReducedNetwork](ABC):
    """What the samplers of both kinds of networks have in common: populations of neurons and their refractory counters.

    Parameters
    ----------
    reduced : ReducedNetwork
    dynamics : Dynamics
    first_number : mapping
        The number of the first unit of a variable in a raster, by its name.

    Attributes
    ----------
    counters : list of ndarray
        One array for each population; empty at the start of a chain.
    margin : float
        By how much a logit must be further beyond the bound of certainty, as a neuron fires less often than it is on.
    """

    reduced: AnyReduced
    auxiliary = False

    def __init__(self, reduced: AnyReduced, dynamics: Dynamics, first_number: Mapping[str, int]):
        self.reduced = reduced
        self.dynamics = dynamics
        self.margin = float(np.log(dynamics.tau))
        self._first_number = first_number
        self.populations: list[Population] = []
        self.counters: list[np.ndarray] = []
        self._is_populated = False

    @property
    def n_neurons(self) -> int:
        """Number of neurons, auxiliary ones included."""
        return sum(population.bias.size for population in self.populations)

    @property
    def n_populations(self) -> int:
        """Number of populations, each of which has steps of its own."""
        return len(self.populations)

    @property
    def n_stages(self) -> int:
        """Number of stages of a step: neurons, or blocks of them."""
        return sum(count_stages(population.network) for population in self.populations)

    @property
    def state(self) -> Any:
        """What is carried from draw to draw."""
        return self.counters

    @state.setter
    def state(self, state: Any) -> None:
        self.counters = state

    def start(self) -> None:
        """Forget, at the start of a chain, what may have changed since the last one."""
        self.reduced.start()
        self.counters = []
        self._is_populated = False

    def read(self, point: Mapping[str, np.ndarray]) -> None:
        """Read what has to be read at every step, and at the start of a chain all the rest."""
        if not self.reduced.read(point) and self._is_populated:
            return
        if not self._is_populated:
            self._populate()
            self._is_populated = True
        self._refill()

    @abstractmethod
    def _populate(self) -> None:
        """Make the populations."""

    @abstractmethod
    def _refill(self) -> None:
        """Give the populations the couplings and biases that were read."""

    @abstractmethod
    def spike(
        self, old: Units, new: Units, duration: float, stream: np.ndarray, source: DecisionSource, recorder: Recorder
    ) -> float:
        """Let the neurons spike for a time; fill in the new units and return their energy."""

    @abstractmethod
    def force_stage(self, old: Units, new: Units, counters: Units, stage: int | None, source: GivenDecisions) -> None:
        """Fill in the new units, and change the counters of the units in place, by given decisions."""

    def _locate(self, stage: int | None) -> Iterator[tuple[int, int | None]]:
        """Yield the populations that a stage (or, if None, a step) updates, and the number of the stage in each."""
        if stage is None:
            yield from ((i, None) for i in range(len(self.populations)))
            return
        for i, population in enumerate(self.populations):
            n_stages = count_stages(population.network)
            if stage < n_stages:
                yield i, stage
                return
            stage -= n_stages

    def _silent(self) -> list[np.ndarray]:
        return [self.dynamics.silent(population.bias.size) for population in self.populations]


class SpikingPairwise(SpikingNetwork[ReducedPairwise]):
    """Sample the units of one pairwise network by spiking neurons.

    Parameters
    ----------
    reduced : ReducedPairwise
    dynamics : Dynamics
    first_number : mapping
        The number of the first unit of a variable in a raster, by its name.
    """

    def __init__(self, reduced: ReducedPairwise, dynamics: Dynamics, first_number: Mapping[str, int]):
        super().__init__(reduced, dynamics, first_number)
        self._for_energy: list[PreparedPairwise] = []

    def _populate(self) -> None:
        prepared: dict[bytes, tuple[PreparedPairwise, PreparedSpiking]] = {}
        self._for_energy, self.populations = [], []
        first = self._first_number[self.reduced.variable]
        for one in self.reduced.fields:
            # Fields with the same free units share their couplings.
            if (key := one.free.tobytes()) not in prepared:
                couplings = self.reduced.free_couplings(one)
                prepared[key] = prepare_pairwise(couplings), prepare_spiking(couplings, self.dynamics.order)
            for_energy, network = prepared[key]
            numbers = np.arange(first + one.places.start, first + one.places.stop, dtype=np.int32)
            self._for_energy.append(for_energy)
            self.populations.append(Population(network, one.biases, numbers))

    def _refill(self) -> None:
        for one, population in zip(self.reduced.fields, self.populations, strict=True):
            population.scale = one.coupling

    def spike(
        self, old: Units, new: Units, duration: float, stream: np.ndarray, source: DecisionSource, recorder: Recorder
    ) -> float:
        """Let the neurons spike for a time; fill in the new units and return their energy."""
        reduced = self.reduced
        before, after = old[reduced.variable], new[reduced.variable]
        self.counters = self.counters or self._silent()
        energy = 0.0
        for i, (one, population, counters) in enumerate(
            zip(reduced.fields, self.populations, self.counters, strict=True)
        ):
            ones = reduced.to_bits(before[one.places]).astype(bool)
            renew(counters, ones, self.dynamics, partial(self._logits, one, ones), source)
            population.run(counters, self.dynamics, duration, stream, recorder)
            bits = (counters > 0).view(np.uint8)
            energy += one.constant_energy + self._energy(i, bits)
            after[one.places] = reduced.from_bits(bits)
        return energy

    def force_stage(self, old: Units, new: Units, counters: Units, stage: int | None, source: GivenDecisions) -> None:
        """Fill in the new units, and change the counters of the units in place, by given decisions."""
        name = self.reduced.variable
        new[name][:] = old[name]
        for i, own_stage in self._locate(stage):
            places = self.reduced.fields[i].places
            self.populations[i].force(counters[name][places], self.dynamics, own_stage, source)
            new[name][places] = self.reduced.from_bits(counters[name][places] > 0)

    def _energy(self, index: int, bits: np.ndarray) -> float:
        one = self.reduced.fields[index]
        of_pairs = pair_energy(self.populations[index].network)
        if np.isnan(of_pairs):  # where evidence makes a unit certain
            return energy_pairwise(self._for_energy[index], bits, one.plain_biases, one.coupling)
        return of_pairs - float(one.plain_biases @ bits)

    def _logits(self, one: ReducedField, ones: np.ndarray) -> np.ndarray:
        return one.biases + one.coupling * (self.reduced.free_couplings(one) @ ones)


class SpikingRestricted(SpikingNetwork[ReducedRestricted]):
    """Sample the layers of one restricted network by spiking neurons.

    The neurons of a machine are its free hidden units, then its free visible ones; those of the layers that are
    updated. Hidden units that the model does not have are neurons, too, and the visible units are sampled from p(v)
    as long as those are a draw from p(h | v) whenever another step has changed what they depend on.

    Parameters
    ----------
    reduced : ReducedRestricted
    dynamics : Dynamics
    first_number : mapping
        The number of the first unit of a variable in a raster, by its name.
    first_auxiliary : int
        The same of auxiliary units.
    """

    def __init__(
        self, reduced: ReducedRestricted, dynamics: Dynamics, first_number: Mapping[str, int], first_auxiliary: int
    ):
        super().__init__(reduced, dynamics, first_number)
        self._first_auxiliary = first_auxiliary
        self.auxiliary = reduced.has_auxiliary
        self._spikes_visible = reduced.updates_visible
        self._spikes_hidden = reduced.updates_hidden or self.auxiliary
        # The parameters that auxiliary units were drawn with, where these change.
        self._drawn_with: list[tuple[np.ndarray, np.ndarray]] = []

    @property
    def state(self) -> Any:
        """What is carried from draw to draw."""
        return self.counters, self._drawn_with

    @state.setter
    def state(self, state: Any) -> None:
        self.counters, self._drawn_with = state

    def start(self) -> None:
        """Forget, at the start of a chain, what may have changed since the last one."""
        super().start()
        self._drawn_with = []

    def _populate(self) -> None:
        self.populations = [self._population(machine, i) for i, machine in enumerate(self.reduced.machines)]

    def _population(self, machine: ReducedMachine, index: int) -> Population:
        W = machine.parameters[0]
        # A layer that is given is no part of the population: what it adds to the fields is constant.
        own_W = W[: W.shape[0] * self._spikes_visible, : W.shape[1] * self._spikes_hidden]
        n_visible, n_hidden = own_W.shape
        numbers = []
        if self._spikes_hidden:
            first = (
                self._first_auxiliary + index * n_hidden
                if self.auxiliary
                else self._first_number[self.reduced.hidden or ""] + machine.hidden.start
            )
            numbers.append(np.arange(first, first + n_hidden))
        if self._spikes_visible:
            first = self._first_number[self.reduced.visible or ""] + machine.visible.start
            numbers.append(np.arange(first, first + n_visible))
        return Population(
            network=prepare_restricted(np.ascontiguousarray(own_W), self.dynamics.order),
            bias=np.empty(n_hidden + n_visible, W.dtype),
            numbers=np.concatenate(numbers).astype(np.int32),
        )

    def _refill(self) -> None:
        for machine, population in zip(self.reduced.machines, self.populations, strict=True):
            W, a, b = machine.parameters
            if self._spikes_visible and self._spikes_hidden and self.reduced.reader.parameters.changes:
                refill_restricted(population.network, np.ascontiguousarray(W))
            n_hidden = b.size if self._spikes_hidden else 0
            if self._spikes_hidden:
                population.bias[:n_hidden] = b
            if self._spikes_visible:
                population.bias[n_hidden:] = a

    def spike(
        self, old: Units, new: Units, duration: float, stream: np.ndarray, source: DecisionSource, recorder: Recorder
    ) -> float:
        """Let the neurons spike for a time; fill in the new units and return their energy."""
        self.counters = self.counters or self._silent()
        energy = 0.0
        for i, (machine, population, counters) in enumerate(
            zip(self.reduced.machines, self.populations, self.counters, strict=True)
        ):
            self._condition(machine, population, old)
            hidden, visible = self._split(machine, counters)
            ones = np.empty(counters.size, bool)
            hidden_ones, visible_ones = self._split(machine, ones)
            if self._spikes_visible:
                visible_ones[:] = old[self.reduced.visible][machine.visible]
            if self.reduced.updates_hidden:
                hidden_ones[:] = old[self.reduced.hidden][machine.hidden]
            elif self.auxiliary:
                if self._must_be_renewed(i, machine, visible, visible_ones):
                    hidden[:] = 0
                    hidden_ones[:] = self._draw_auxiliary(machine, visible_ones, source)
                else:
                    hidden_ones[:] = hidden > 0
            renew(
                counters,
                ones,
                self.dynamics,
                partial(self._logits, machine, population, ones),
                source,
            )
            population.run(counters, self.dynamics, duration, stream, recorder)
            self._put_units(machine, counters, new)
            v = (new if self._spikes_visible else old).get(self.reduced.visible)
            h = (new if self.reduced.updates_hidden else old).get(self.reduced.hidden)
            energy += machine.clamped_energy + self.reduced.energy(
                machine,
                NO_UNITS if v is None else v[machine.visible],
                NO_UNITS if h is None else h[machine.hidden],
            )
        if self.auxiliary and self.reduced.reader.parameters.changes:
            self._drawn_with = [(m.parameters[0].copy(), m.parameters[2].copy()) for m in self.reduced.machines]
        return energy

    def force_stage(self, old: Units, new: Units, counters: Units, stage: int | None, source: GivenDecisions) -> None:
        """Fill in the new units, and change the counters of the units in place, by given decisions.

        Auxiliary units are drawn anew, as after another step.
        """
        for name in self.reduced.updated:
            new[name][:] = old[name]
        for i, own_stage in self._locate(stage):
            machine, population = self.reduced.machines[i], self.populations[i]
            self._condition(machine, population, old)
            own = self.dynamics.silent(population.bias.size)
            hidden, visible = self._split(machine, own)
            if self._spikes_visible:
                visible[:] = counters[self.reduced.visible][machine.visible]
            if self.reduced.updates_hidden:
                hidden[:] = counters[self.reduced.hidden][machine.hidden]
            elif self.auxiliary:
                ones = own > 0
                self._split(machine, ones)[0][:] = self._draw_auxiliary(machine, visible > 0, source)
                renew(own, ones, self.dynamics, partial(self._logits, machine, population, ones), source)
            population.force(own, self.dynamics, own_stage, source)
            self._put_units(machine, own, new)
            if self._spikes_visible:
                counters[self.reduced.visible][machine.visible] = visible
            if self.reduced.updates_hidden:
                counters[self.reduced.hidden][machine.hidden] = hidden

    def _split(self, machine: ReducedMachine, neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cut an array over the neurons of a machine into the hidden and the visible ones."""
        n_hidden = machine.parameters[2].size if self._spikes_hidden else 0
        return neurons[:n_hidden], neurons[n_hidden:]

    def _condition(self, machine: ReducedMachine, population: Population, old: Units) -> None:
        """Put what a layer that is given adds to the fields into the biases."""
        W, a, b = machine.parameters
        if not self._spikes_hidden and W.shape[1]:
            population.bias[:] = a + W @ old[self.reduced.hidden][machine.hidden]
        elif not self._spikes_visible and W.shape[0]:
            population.bias[:] = b + old[self.reduced.visible][machine.visible] @ W

    def _must_be_renewed(self, i: int, machine: ReducedMachine, visible: np.ndarray, visible_ones: np.ndarray) -> bool:
        """Whether the auxiliary units of a machine are no draw from p(h | v) any longer."""
        if ((visible > 0) != visible_ones).any():
            return True
        if not self.reduced.reader.parameters.changes:
            return False
        W, _, b = machine.parameters
        return not self._drawn_with or not all(map(np.array_equal, self._drawn_with[i], (W, b)))

    def _draw_auxiliary(self, machine: ReducedMachine, visible_ones: np.ndarray, source: DecisionSource) -> list[bool]:
        W, _, b = machine.parameters
        return [source.decide(float(p)) for p in expit(b + visible_ones @ W)]

    def _put_units(self, machine: ReducedMachine, counters: np.ndarray, new: Units) -> None:
        hidden, visible = self._split(machine, counters)
        if self._spikes_visible:
            new[self.reduced.visible][machine.visible] = visible > 0
        if self.reduced.updates_hidden:
            new[self.reduced.hidden][machine.hidden] = hidden > 0

    def _logits(self, machine: ReducedMachine, population: Population, ones: np.ndarray) -> np.ndarray:
        u = population.bias.astype(np.float64)
        if self._spikes_visible and self._spikes_hidden:
            W = machine.parameters[0]
            hidden_u, visible_u = self._split(machine, u)
            hidden_ones, visible_ones = self._split(machine, ones)
            hidden_u += visible_ones @ W
            visible_u += W @ hidden_ones
        return u


@singledispatch
def spiking_sampler_of(
    reduced: ReducedNetwork, dynamics: Dynamics, first_number: Mapping[str, int], first_auxiliary: int
) -> SpikingNetwork | None:
    """Return how spiking neurons sample what is left of a network, None if they do not."""
    return None


@spiking_sampler_of.register(ReducedPairwise)
def _spiking_pairwise(
    reduced: ReducedPairwise, dynamics: Dynamics, first_number: Mapping[str, int], first_auxiliary: int
) -> SpikingPairwise:
    return SpikingPairwise(reduced, dynamics, first_number)


@spiking_sampler_of.register(ReducedRestricted)
def _spiking_restricted(
    reduced: ReducedRestricted, dynamics: Dynamics, first_number: Mapping[str, int], first_auxiliary: int
) -> SpikingRestricted:
    return SpikingRestricted(reduced, dynamics, first_number, first_auxiliary)
