"""Spiking neurons for two-valued variables of any model, through its compiled log-probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from step_methods.reduced.logp import ReducedLogp
from step_methods.sampler import Units
from step_methods.spiking.networks import Recorder
from step_methods.spiking.refractory import (
    DecisionSource,
    Dynamics,
    GivenDecisions,
    RandomDecisions,
    firing_probability,
    renew,
)

__all__ = ["SpikingLogp"]


class SpikingLogp:
    """Sample two-valued variables of any model by spiking neurons, one for each unit.

    Parameters
    ----------
    reduced : ReducedLogp
    dynamics : Dynamics
    first_number : mapping
        The number of the first unit of a variable in a raster, by its name.

    Attributes
    ----------
    counters : ndarray
        Of all neurons; empty at the start of a chain.
    margin : float
        By how much a logit must be further beyond the bound of certainty, as a neuron fires less often than it is on.
    """

    auxiliary = False
    n_populations = 1

    def __init__(self, reduced: ReducedLogp, dynamics: Dynamics, first_number: Mapping[str, int]):
        self.reduced = reduced
        self.dynamics = dynamics
        self.margin = float(np.log(dynamics.tau))
        self._numbers = np.array([first_number[name] + unit for name, unit in reduced.units], np.int32)
        self.counters = np.empty(0)

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return self.reduced.n_units

    @property
    def n_stages(self) -> int:
        """Number of stages of a step: one a neuron."""
        return self.reduced.n_units

    @property
    def state(self) -> Any:
        """What is carried from draw to draw."""
        return self.counters

    @state.setter
    def state(self, state: Any) -> None:
        self.counters = state

    def start(self) -> None:
        """Forget, at the start of a chain, the state of the last one."""
        self.counters = np.empty(0)

    def read(self, point: Mapping[str, np.ndarray]) -> None:
        """Take the values of all variables that the logits depend on."""
        self.reduced.read(point)

    def spike(
        self, old: Units, new: Units, duration: float, stream: np.ndarray, source: DecisionSource, recorder: Recorder
    ) -> float:
        """Let the neurons spike for a time; fill in the new units and return minus the log-probability."""
        assert isinstance(source, RandomDecisions)
        if not self.counters.size:
            self.counters = self.dynamics.silent(self.n_neurons)
        ones = np.concatenate([old[name] == self.reduced.values[name][1] for name in self.reduced.updated])
        renew(self.counters, ones, self.dynamics, self.reduced.logits, source)
        if self.dynamics.continuous:
            self._run(duration, source, recorder)
        else:
            for time in range(int(duration)):
                self._step(time, source, recorder)
        for name in self.reduced.updated:
            new[name][:] = self.reduced.point[name].ravel()
        return self.reduced.energy()

    def force_stage(self, old: Units, new: Units, counters: Units, stage: int | None, source: GivenDecisions) -> None:
        """Fill in the new units, and change the counters of the units in place, by given decisions."""
        self.counters = np.concatenate([counters[name] for name in self.reduced.updated])
        if stage is None:
            self._step(0, source, Recorder(keeps_raster=False))
        else:
            self._update(stage, source)
        start = 0
        for name in self.reduced.updated:
            new[name][:] = self.reduced.point[name].ravel()
            counters[name][:] = self.counters[start : start + new[name].size]
            start += new[name].size

    def _step(self, time: int, source: DecisionSource, recorder: Recorder) -> None:
        n = self.n_neurons
        if self.dynamics.order == "random":
            turns = [source.pick(n) for _ in range(n)]
        elif self.dynamics.g is None:
            # Whoever is refractory has no other effect than that time goes by.
            refractory = self.counters >= 2
            turns = np.flatnonzero(~refractory).tolist()
            self.counters[refractory] -= 1
        else:
            turns = list(range(n))
        fired = [k for k in turns if self._update(k, source)]
        recorder.n_spikes += len(fired)
        if recorder.keeps_raster:
            recorder.add(self._numbers[fired], np.full(len(fired), time))

    def _update(self, k: int, source: DecisionSource) -> bool:
        """Update one neuron; return whether it fired."""
        counter = int(self.counters[k])
        tau, g = self.dynamics.tau, self.dynamics.g
        readiness = float(counter <= 1) if g is None else float(g[counter])
        fires = readiness > 0 and source.decide(readiness * firing_probability(self.reduced.logit(k), tau, g))
        new_counter = int(tau) if fires else max(counter - 1, 0)
        self.counters[k] = new_counter
        if (new_counter > 0) != (counter > 0):
            self.reduced.switch(k, new_counter > 0)
        return fires

    def _run(self, duration: float, source: RandomDecisions, recorder: Recorder) -> None:
        """Let time pass continuously, from one event to the next."""
        time = 0.0
        fired: list[int] = []
        times: list[float] = []
        residual = self.counters
        while True:
            on = residual > 0
            off = np.flatnonzero(~on)
            u = np.array([self.reduced.logit(k) for k in off.tolist()])
            with np.errstate(over="ignore"):
                rates = np.exp(u)
            total = rates.sum()
            certain = np.isinf(rates)
            wait = 0.0 if certain.any() else source.rng.exponential() / total if total > 0 else np.inf
            next_off = residual[on].min(initial=np.inf)
            left = duration - time
            if min(wait, next_off) > left:
                residual[on] -= left
                break
            time += min(wait, next_off)
            residual[on] -= min(wait, next_off)
            if wait < next_off:
                k = int(off[certain][0] if certain.any() else source.rng.choice(off, p=rates / total))
                residual[k] = 1.0
                self.reduced.switch(k, True)
                fired.append(k)
                times.append(time)
            else:
                ended = on & (residual <= 0)
                residual[ended] = 0.0
                for k in np.flatnonzero(ended).tolist():
                    self.reduced.switch(k, False)
        recorder.n_spikes += len(fired)
        if recorder.keeps_raster:
            recorder.add(self._numbers[fired], np.array(times))
