"""Spiking neurons for two-valued variables of any model, through its compiled log-probability."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import pytensor.tensor as pt
from pymc.blocking import PointType
from pymc.logprob.utils import local_check_parameter_to_ninf_switch, local_remove_check_parameter
from pymc.model import Model
from pymc.pytensorf import compile as compile_pymc
from pytensor.conditional.op import IfElse
from pytensor.graph.basic import Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.replace import graph_replace, vectorize_graph
from pytensor.graph.rewriting.basic import in2out
from pytensor.graph.traversal import ancestors
from pytensor.tensor.blockwise import Blockwise

from step_methods._chain_start import check_agrees
from step_methods._freeze import certainty
from step_methods._refractory import Chance, Decisions, Dynamics, Forced, firing_probability, renew
from step_methods._restricted import Units
from step_methods._spiking import Recorder
from step_methods.evidence import check_full_data, check_no_draws, lengths_change_with
from step_methods.network import check_copies

__all__ = ["SpikingLogp"]


class _Gains:
    """What the log-probability gains when a unit of one variable goes from its low to its high value.

    There are two compiled functions for it: one evaluates the terms for one unit, at both values; the other for all
    units at once, at the present state and with each unit flipped, where the terms can be evaluated for a batch of
    states.

    Parameters
    ----------
    model : Model
    value : Variable
        The units.
    values : tuple of int
        Their low and their high value.
    terms : sequence of Variable
        Random variables and potentials, those that depend on the units.
    point : mapping
        A point of the model, for shapes.
    tau : float
    compile_kwargs : mapping, optional

    Attributes
    ----------
    all_at_once : bool
        Which of the two functions is used. With the first, a step needs an evaluation for every neuron that is not
        refractory, with the second one whenever a neuron has switched; the times of both are measured here.
    """

    def __init__(
        self,
        model: Model,
        value: Variable,
        values: tuple[int, int],
        terms: Sequence[Variable],
        point: Mapping[str, np.ndarray],
        tau: float,
        compile_kwargs: Mapping[str, Any] | None,
    ):
        self._name = str(value.name)
        self._low, self._high = values
        logps = model.logp(vars=list(terms), sum=False)
        check_no_draws(terms, logps)
        logp = pt.add(*(term.sum() for term in logps))
        self._inputs = [var for var in model.value_vars if var in set(ancestors([logp])) and var is not value]
        options = dict(compile_kwargs or {})
        self.input_names = [self._name, *(str(var.name) for var in self._inputs)]
        self._one = self._compile_one(logp, value, options)
        self._all = self._compile_all(logp, value, options, model.check_bounds)
        self.all_at_once = False
        if self._all is not None:
            n_units = point[self._name].size
            seconds_one, seconds_all = _seconds(lambda: self.of_one(point, 0)), _seconds(lambda: self.of_all(point))
            switches = 2 * n_units / (tau + 1)
            self.all_at_once = seconds_all * (1 + switches) < seconds_one * n_units

    def _compile_one(self, logp: Variable, value: Variable, options: dict[str, Any]) -> Callable:
        unit = pt.lscalar("unit")
        both = [
            graph_replace([logp], {value: pt.set_subtensor(value.ravel()[unit], level).reshape(value.shape)})[0]
            for level in (self._low, self._high)
        ]
        return _compiled([unit, value, *self._inputs], both, options)

    def _compile_all(
        self, logp: Variable, value: Variable, options: dict[str, Any], check_bounds: bool
    ) -> Callable | None:
        states = pt.tensor("states", dtype=value.dtype, shape=(None, *value.type.shape))
        of_states = _for_states(_without_checks(logp, check_bounds), value, states)
        return None if of_states is None else _compiled([states, *self._inputs], [of_states], options)

    def of_one(self, point: Mapping[str, np.ndarray], unit: int) -> float:
        """Return the gain of one unit; NaN if the model excludes both values."""
        low, high = self._one(np.array(unit), point[self._name], *(point[var.name] for var in self._inputs))
        return float(high) - float(low)

    def of_all(self, point: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the gains of all units, shape (n_units,)."""
        now = point[self._name]
        states = np.repeat(now[None], now.size + 1, axis=0)
        flat = states.reshape(now.size + 1, -1)
        units = np.arange(now.size)
        flat[units + 1, units] = self._low + self._high - now.ravel()
        assert self._all is not None
        (logp,) = self._all(states, *(point[var.name] for var in self._inputs))
        with np.errstate(invalid="ignore"):
            gains = logp[1:] - logp[0]
        return np.where(now.ravel() == self._low, gains, -gains)


def _without_checks(logp: Variable, check_bounds: bool) -> Variable:
    """Make it −inf where a parameter is out of bounds, if bounds are checked.

    PyMC's own checks, which turn into the same when a function is compiled, would condemn all states of a batch for
    one of them.
    """
    graph = FunctionGraph(outputs=[logp], clone=False)
    in2out(local_check_parameter_to_ninf_switch if check_bounds else local_remove_check_parameter).rewrite(graph)
    return graph.outputs[0]


def _for_states(logp: Variable, value: Variable, states: Variable) -> Variable | None:
    """Return a log-probability for a batch of states, None where that cannot be.

    Where an operation is repeated for each state, PyTensor gives all results the shape of the first, and broadcasts
    those of length one: they must not depend on the state, as the lengths of ``x[z > 0]`` do.
    """
    try:
        of_states = vectorize_graph([logp], {value: states})[0]
    except (NotImplementedError, TypeError, ValueError):  # an operation that cannot be repeated, such as a sparse one
        return None
    nodes = FunctionGraph(outputs=[of_states], clone=False).apply_nodes
    lazy = any(isinstance(node.op, Blockwise) and isinstance(node.op.core_op, IfElse) for node in nodes)
    return None if lazy or lengths_change_with([of_states], [states]) else of_states


def _compiled(inputs: Sequence[Variable], outputs: Sequence[Variable], options: Mapping[str, Any]) -> Callable:
    function = compile_pymc(list(inputs), list(outputs), on_unused_input="ignore", **options)
    function.trust_input = True
    return function


def _seconds(call: Callable[[], Any]) -> float:
    """Return the time of a call, the shortest of a few."""
    times = []
    for _ in range(4):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return min(times)


class SpikingLogp:
    """Sample two-valued variables of any model by spiking neurons, one for each unit.

    The logit of a neuron is u_k = log p(z_k = 1, rest) − log p(z_k = 0, rest), from those terms of the model that
    depend on its variable. Its neurons all may interact with each other.

    Parameters
    ----------
    model : Model
    units : mapping
        The value variables and the low and the high value of their units.
    point : mapping
        A point of the model, for shapes.
    dynamics : Dynamics
    first_number : mapping
        The number of the first unit of a variable in a raster, by its name.
    compile_kwargs : mapping, optional

    Raises
    ------
    ValueError
        If a term sees a minibatch, or is drawn anew with each evaluation.

    Attributes
    ----------
    terms : set of Variable
        The random variables and potentials that depend on the units.
    counters : ndarray
        Of all neurons; empty at the start of a chain.
    """

    changes = True
    auxiliary = False
    n_populations = 1

    def __init__(
        self,
        model: Model,
        units: Mapping[Variable, tuple[int, int]],
        point: Mapping[str, np.ndarray],
        dynamics: Dynamics,
        first_number: Mapping[str, int],
        compile_kwargs: Mapping[str, Any] | None,
    ):
        self.dynamics = dynamics
        self.updated = [str(value.name) for value in units]
        self._values = {str(value.name): values for value, values in units.items()}
        check_copies(model, [model.values_to_rvs[value] for value in units])
        terms = _dependent_terms(model, list(units))
        self.terms = {term for own_terms in terms.values() for term in own_terms}
        check_full_data(list(self.terms))
        self._gains = {
            str(value.name): _Gains(model, value, values, terms[value], point, dynamics.tau, compile_kwargs)
            for value, values in units.items()
        }
        elements = model.logp(vars=list(self.terms), sum=False)
        logp = pt.add(*(term.sum() for term in elements))
        inputs = [var for var in model.value_vars if var in set(ancestors([logp]))]
        self._elements = inputs, elements
        self._logp = _compiled(inputs, [logp], dict(compile_kwargs or {}))
        self._logp_inputs = [str(var.name) for var in inputs]
        self.conditioned_on = list(
            dict.fromkeys([*self._logp_inputs, *(name for gains in self._gains.values() for name in gains.input_names)])
        )
        self._neurons = [(name, unit) for name in self.updated for unit in range(point[name].size)]
        self._numbers = np.array([first_number[name] + unit for name, unit in self._neurons], np.int32)
        self.counters = np.empty(0)
        self._point: dict[str, np.ndarray] = {}
        self._known: dict[str, np.ndarray] = {}

    @property
    def all_at_once(self) -> dict[str, bool]:
        """Whether the logits of a variable's neurons are computed all at once."""
        return {name: gains.all_at_once for name, gains in self._gains.items()}

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return len(self._neurons)

    @property
    def n_stages(self) -> int:
        """Number of stages of a step: one a neuron."""
        return len(self._neurons)

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

    def logits_at(self, point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return nothing: evidence is not told apart from the rest."""
        return {}

    def disperse(self, point: PointType, by_default: set[str], rng: np.random.Generator) -> None:
        """Give the chain a start of its own, in place, where PyMC's default is what it starts from.

        Unit after unit, in random order, a coin is tossed where the log-probability of both values is finite, the
        others being as they are. So a state that the model gives a probability leads to another one.

        Raises
        ------
        ValueError
            If a start that a user gave has a unit at a value that the model excludes.
        """
        self.read(point)
        for k in rng.permutation(self.n_neurons).tolist():
            name, unit = self._neurons[k]
            is_on = bool(self._point[name].reshape(-1)[unit] == self._values[name][1])
            u = self._gains[name].of_one(self._point, unit)
            if name in by_default and not np.isnan(u):
                goes_on = bool(rng.integers(2)) if np.isfinite(u) else u > 0
                if goes_on != is_on:
                    self._switch(k, goes_on)
            elif np.isinf(u) and (u > 0) != is_on:
                logits = np.zeros(self._point[name].size)
                logits[unit] = u
                check_agrees(self._point[name], name, self._values[name], logits, list(self.terms))
        point.update({name: self._point[name].copy() for name in by_default.intersection(self.updated)})

    def look(self, point: Mapping[str, np.ndarray]) -> tuple[bool, bool]:
        """Return whether every unit is certain to keep its value, and whether the others are what makes some so."""
        self.read(point)
        bound = certainty(np.dtype(np.float64)) + np.log(self.dynamics.tau)
        for k, (name, unit) in enumerate(self._neurons):
            u = self._logit(k)
            if not (u > bound if self._point[name].reshape(-1)[unit] == self._values[name][1] else u < -bound):
                return False, False
        return True, bool((self._own_losses() < bound).any())

    def _own_losses(self) -> np.ndarray:
        """Return what the log-probability loses if a unit changes, by the elements of terms that change with no other.

        An element that several units change, one at a time, ties them together. What is lost in the others, such as a
        likelihood of one observation for each unit, speaks for the unit's value whatever the others are.
        """
        function = compile_pymc(*self._elements, mode="FAST_COMPILE", on_unused_input="ignore")
        at_point = self._evaluate(function)
        n_changing = np.zeros(at_point.size, np.int64)
        for k in range(self.n_neurons):
            n_changing += self._evaluate(function, k) != at_point
        losses = np.empty(self.n_neurons)
        for k in range(self.n_neurons):
            changed = self._evaluate(function, k)
            own = (changed != at_point) & (n_changing == 1)
            losses[k] = (at_point - changed)[own].sum()
        return losses

    def _evaluate(self, function: Callable, flipped: int | None = None) -> np.ndarray:
        point = self._point
        if flipped is not None:
            name, unit = self._neurons[flipped]
            value = point[name].copy()
            value.reshape(-1)[unit] = sum(self._values[name]) - value.reshape(-1)[unit]
            point = {**point, name: value}
        terms = function(*(point[name] for name in self._logp_inputs))
        return np.concatenate([np.ravel(term) for term in terms])

    def read(self, point: Mapping[str, np.ndarray]) -> None:
        """Take the values of all variables that the logits depend on."""
        self._point = {name: np.asarray(point[name]) for name in self.conditioned_on}
        self._point.update({name: self._point[name].copy() for name in self.updated})
        self._known = {}

    def spike(
        self, old: Units, new: Units, duration: float, stream: np.ndarray, source: Decisions, recorder: Recorder
    ) -> float:
        """Let the neurons spike for a time; fill in the new units and return minus the log-probability."""
        assert isinstance(source, Chance)
        if not self.counters.size:
            self.counters = self.dynamics.silent(self.n_neurons)
        ones = np.concatenate([old[name] == self._values[name][1] for name in self.updated])
        renew(self.counters, ones, self.dynamics, self._logits, source)
        if self.dynamics.continuous:
            self._run(duration, source, recorder)
        else:
            for time in range(int(duration)):
                self._step(time, source, recorder)
        for name in self.updated:
            new[name][:] = self._point[name].ravel()
        (logp,) = self._logp(*(self._point[name] for name in self._logp_inputs))
        return -float(logp)

    def force_stage(self, old: Units, new: Units, counters: Units, stage: int | None, source: Forced) -> None:
        """Fill in the new units, and change the counters of the units in place, by given decisions."""
        self.counters = np.concatenate([counters[name] for name in self.updated])
        if stage is None:
            self._step(0, source, Recorder(keeps_raster=False))
        else:
            self._update(stage, source)
        start = 0
        for name in self.updated:
            new[name][:] = self._point[name].ravel()
            counters[name][:] = self.counters[start : start + new[name].size]
            start += new[name].size

    def _step(self, time: int, source: Decisions, recorder: Recorder) -> None:
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

    def _update(self, k: int, source: Decisions) -> bool:
        """Update one neuron; return whether it fired."""
        counter = int(self.counters[k])
        tau, g = self.dynamics.tau, self.dynamics.g
        readiness = float(counter <= 1) if g is None else float(g[counter])
        fires = readiness > 0 and source.decide(readiness * firing_probability(self._logit(k), tau, g))
        new_counter = int(tau) if fires else max(counter - 1, 0)
        self.counters[k] = new_counter
        if (new_counter > 0) != (counter > 0):
            self._switch(k, new_counter > 0)
        return fires

    def _run(self, duration: float, source: Chance, recorder: Recorder) -> None:
        """Let time pass continuously, from one event to the next."""
        time = 0.0
        fired: list[int] = []
        times: list[float] = []
        residual = self.counters
        while True:
            on = residual > 0
            off = np.flatnonzero(~on)
            u = np.array([self._logit(k) for k in off.tolist()])
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
                self._switch(k, True)
                fired.append(k)
                times.append(time)
            else:
                ended = on & (residual <= 0)
                residual[ended] = 0.0
                for k in np.flatnonzero(ended).tolist():
                    self._switch(k, False)
        recorder.n_spikes += len(fired)
        if recorder.keeps_raster:
            recorder.add(self._numbers[fired], np.array(times))

    def _switch(self, k: int, on: bool) -> None:
        name, unit = self._neurons[k]
        self._point[name].reshape(-1)[unit] = self._values[name][on]
        self._known = {}

    def _logit(self, k: int) -> float:
        name, unit = self._neurons[k]
        gains = self._gains[name]
        if gains.all_at_once:
            if name not in self._known:
                self._known[name] = gains.of_all(self._point)
            u = float(self._known[name][unit])
        else:
            u = gains.of_one(self._point, unit)
        if np.isnan(u):
            raise ValueError(
                f"the model gives neither value of unit {unit} of {name!r} a probability, or one that is not a number, "
                "given the other units. pmn.find_start(model) looks for a start that it gives one"
            )
        return u

    def _logits(self) -> np.ndarray:
        return np.array([self._logit(k) for k in range(self.n_neurons)])


def _dependent_terms(model: Model, values: Sequence[Variable]) -> dict[Variable, list[Variable]]:
    """Return the random variables and potentials whose log-probabilities depend on each of some value variables."""
    terms = [*model.basic_RVs, *model.potentials]
    above = [set(ancestors([logp])) for logp in model.logp(vars=terms, sum=False)]
    return {value: [term for term, nodes in zip(terms, above, strict=True) if value in nodes] for value in values}
