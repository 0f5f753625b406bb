"""What is left to sample of two-valued variables of any model, whose logits the compiled log-probability gives."""

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

from step_methods.reading.evidence import check_no_draws, lengths_change_with
from step_methods.reading.minibatches import check_full_data
from step_methods.reading.readers import check_copies
from step_methods.reduced.freeze import certainty
from step_methods.reduced.reduced import Reduced
from step_methods.reduced.starts import check_agrees

__all__ = ["ReducedLogp"]


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
    except (
        AttributeError,
        NotImplementedError,
        TypeError,
        ValueError,
    ):  # what cannot be repeated, such as a sparse one
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


class ReducedLogp(Reduced):
    """Two-valued variables of any model, unit by unit.

    The logit of a unit is u_k = log p(z_k = 1, rest) − log p(z_k = 0, rest), from those terms of the model that
    depend on its variable. All units may interact with each other. The state that logits are given of is kept here.

    Parameters
    ----------
    model : Model
    units : mapping
        The value variables and the low and the high value of their units.
    point : mapping
        A point of the model, for shapes.
    tau : float
        The refractory period of the neurons that stand for the units, which says how often they switch.
    compile_kwargs : mapping, optional

    Raises
    ------
    ValueError
        If a term sees a minibatch, or is drawn anew with each evaluation.

    Attributes
    ----------
    values : dict of str to (int, int)
        The low and the high value of a variable's units.
    terms : set of Variable
        The random variables and potentials that depend on the units.
    units : list of (str, int)
        The variable of each unit, and its place in the raveled value.
    point : dict
        The state.
    """

    changes = True

    def __init__(
        self,
        model: Model,
        units: Mapping[Variable, tuple[int, int]],
        point: Mapping[str, np.ndarray],
        tau: float,
        compile_kwargs: Mapping[str, Any] | None,
    ):
        self.updated = [str(value.name) for value in units]
        self.values = {str(value.name): values for value, values in units.items()}
        check_copies(model, [model.values_to_rvs[value] for value in units])
        terms = _dependent_terms(model, list(units))
        self.terms = {term for own_terms in terms.values() for term in own_terms}
        check_full_data(list(self.terms))
        self.gains = {
            str(value.name): _Gains(model, value, values, terms[value], point, tau, compile_kwargs)
            for value, values in units.items()
        }
        elements = model.logp(vars=list(self.terms), sum=False)
        logp = pt.add(*(term.sum() for term in elements))
        inputs = [var for var in model.value_vars if var in set(ancestors([logp]))]
        self._elements = inputs, elements
        self._logp = _compiled(inputs, [logp], dict(compile_kwargs or {}))
        self._logp_inputs = [str(var.name) for var in inputs]
        self.conditioned_on = list(
            dict.fromkeys([*self._logp_inputs, *(name for gains in self.gains.values() for name in gains.input_names)])
        )
        self.inputs = self.conditioned_on
        self.units = [(name, unit) for name in self.updated for unit in range(point[name].size)]
        self.point: dict[str, np.ndarray] = {}
        self._known: dict[str, np.ndarray] = {}

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.units)

    def start(self) -> None:
        """See `Reduced.start`: nothing is remembered."""

    def check_start(self, point: Mapping[str, np.ndarray], names: set[str]) -> None:
        """See `Reduced.check_start`: evidence is not told apart from the rest."""

    def read(self, point: Mapping[str, np.ndarray]) -> bool:
        """Take the values of all variables that the logits depend on."""
        self.point = {name: np.asarray(point[name]) for name in self.conditioned_on}
        self.point.update({name: self.point[name].copy() for name in self.updated})
        self._known = {}
        return True

    def energy(self) -> float:
        """Return minus the log-probability of the state, of the terms that depend on the units."""
        (logp,) = self._logp(*(self.point[name] for name in self._logp_inputs))
        return -float(logp)

    def switch(self, k: int, on: bool) -> None:
        """Give a unit its high value, or its low one."""
        name, unit = self.units[k]
        self.point[name].reshape(-1)[unit] = self.values[name][on]
        self._known = {}

    def logit(self, k: int) -> float:
        """Return the logit of a unit.

        Raises
        ------
        ValueError
            If the model gives neither value a probability.
        """
        name, unit = self.units[k]
        gains = self.gains[name]
        if gains.all_at_once:
            if name not in self._known:
                self._known[name] = gains.of_all(self.point)
            u = float(self._known[name][unit])
        else:
            u = gains.of_one(self.point, unit)
        if np.isnan(u):
            raise ValueError(
                f"the model gives neither value of unit {unit} of {name!r} a probability, or one that is not a number, "
                "given the other units. pmn.find_start(model) looks for a start that it gives one"
            )
        return u

    def logits(self) -> np.ndarray:
        """Return the logits of all units."""
        return np.array([self.logit(k) for k in range(self.n_units)])

    def disperse(self, point: PointType, by_default: set[str], rng: np.random.Generator) -> None:
        """Give the chain a start of its own, in place: see `Reduced.disperse`.

        Unit after unit, in random order, a coin is tossed where the log-probability of both values is finite, the
        others being as they are. So a state that the model gives a probability leads to another one.
        """
        for k in rng.permutation(self.n_units).tolist():
            name, unit = self.units[k]
            is_on = bool(self.point[name].reshape(-1)[unit] == self.values[name][1])
            u = self.gains[name].of_one(self.point, unit)
            if name in by_default and not np.isnan(u):
                goes_on = bool(rng.integers(2)) if np.isfinite(u) else u > 0
                if goes_on != is_on:
                    self.switch(k, goes_on)
            elif np.isinf(u) and (u > 0) != is_on:
                logits = np.zeros(self.point[name].size)
                logits[unit] = u
                check_agrees(self.point[name], name, self.values[name], logits, list(self.terms))
        point.update({name: self.point[name].copy() for name in by_default.intersection(self.updated)})

    def look(self, point: Mapping[str, np.ndarray], margin: float = 0.0) -> tuple[bool, bool]:
        """Return whether every unit is certain to keep its value, and whether the others are what makes some so."""
        bound = certainty(np.dtype(np.float64)) + margin
        for k, (name, unit) in enumerate(self.units):
            u = self.logit(k)
            if not (u > bound if self.point[name].reshape(-1)[unit] == self.values[name][1] else u < -bound):
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
        for k in range(self.n_units):
            n_changing += self._evaluate(function, k) != at_point
        losses = np.empty(self.n_units)
        for k in range(self.n_units):
            changed = self._evaluate(function, k)
            own = (changed != at_point) & (n_changing == 1)
            losses[k] = (at_point - changed)[own].sum()
        return losses

    def _evaluate(self, function: Callable, flipped: int | None = None) -> np.ndarray:
        point = self.point
        if flipped is not None:
            name, unit = self.units[flipped]
            value = point[name].copy()
            value.reshape(-1)[unit] = sum(self.values[name]) - value.reshape(-1)[unit]
            point = {**point, name: value}
        terms = function(*(point[name] for name in self._logp_inputs))
        return np.concatenate([np.ravel(term).astype(np.float64) for term in terms])


def _dependent_terms(model: Model, values: Sequence[Variable]) -> dict[Variable, list[Variable]]:
    """Return the random variables and potentials whose log-probabilities depend on each of some value variables."""
    terms = [*model.basic_RVs, *model.potentials]
    above = [set(ancestors([logp])) for logp in model.logp(vars=terms, sum=False)]
    return {value: [term for term, nodes in zip(terms, above, strict=True) if value in nodes] for value in values}
