"""The joint states of two-valued variables of a PyMC model, and their exact law."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from step_methods.certifiable import counters_of

if TYPE_CHECKING:
    from pymc.model import Model
    from pytensor.graph.basic import Variable

__all__ = [
    "MAX_UNITS",
    "UnitStates",
    "complete_point",
    "log_weights",
    "single_precision_matters",
    "two_values",
    "unit_labels",
    "units_of",
]

MAX_UNITS = 12
MAX_STATES = 1 << MAX_UNITS
# Probabilities that differ by more than this are not computed alike in float64.
_DOUBLE_ROUNDING = 1e-13

type Point = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class UnitStates:
    """All joint states of the units of a few value variables, at fixed values of all others.

    The state of a spiking neuron is its refractory counter, 0..tau, and its unit has the low value where that is 0.

    Attributes
    ----------
    point : dict
        A point of the model.
    names : tuple of str
        Names of the variables, in order.
    values : tuple of tuple of int
        The low and the high value of each variable's units.
    states : ndarray of int64, shape (n_states, n_units)
        In the order of ``itertools.product``, low values first. Counters instead of values for spiking neurons.
    periods : dict
        The refractory periods of the variables whose units are spiking neurons, by name.
    """

    point: dict[str, np.ndarray]
    names: tuple[str, ...]
    values: tuple[tuple[int, int], ...]
    states: np.ndarray
    periods: dict[str, int]
    _index: dict[bytes, int]

    @classmethod
    def make(
        cls,
        point: dict[str, np.ndarray],
        values: Mapping[str, tuple[int, int]],
        periods: Mapping[str, int] | None = None,
    ) -> UnitStates:
        """List the states of the named variables, whose units have the given low and high values."""
        own_periods = {name: tau for name, tau in (periods or {}).items() if name in values}
        levels = {name: range(own_periods[name] + 1) if name in own_periods else pair for name, pair in values.items()}
        of_units = [levels[name] for name in values for _ in range(point[name].size)]
        n_states = math.prod(map(len, of_units))
        if not of_units or n_states > MAX_STATES:
            raise ValueError(
                f"vars must have between 1 and {MAX_UNITS} units and at most {MAX_STATES} states, got {len(of_units)} "
                f"units with {n_states} states" + (", refractory counters included" if own_periods else "")
            )
        states = np.array(list(product(*of_units)), np.int64)
        index = {state.tobytes(): i for i, state in enumerate(states)}
        return cls(point, tuple(values), tuple(values.values()), states, own_periods, index)

    @property
    def log_spread(self) -> np.ndarray:
        """Log of the part that each state has of the probability of its values, shape (n_states,).

        The counters of neurons that are on are independent, and uniform on 1..tau.
        """
        log_tau = [math.log(self.periods.get(name, 1)) for name in self.names for _ in range(self.point[name].size)]
        return -np.where(self.states > 0, log_tau, 0.0).sum(axis=1)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the units: ``v[0]``, ``z[1, 2]``, or ``k`` for a scalar."""
        return tuple(label for name in self.names for label in unit_labels(name, self.point[name].shape))

    def point_at(self, state: int) -> dict[str, np.ndarray]:
        """Return the point of the model whose units are in a state; with their counters, if they have some."""
        point = dict(self.point)
        start = 0
        for name, (low, high) in zip(self.names, self.values, strict=True):
            old = self.point[name]
            stop = start + old.size
            units = self.states[state, start:stop].reshape(old.shape)
            if name in self.periods:
                point[counters_of(name)] = units.copy()
                units = np.where(units > 0, high, low)
            point[name] = units.astype(old.dtype)
            start = stop
        return point

    def index_of(self, units: np.ndarray) -> int:
        """Return the number of a state.

        Raises
        ------
        ValueError
            If a unit has neither of its values.
        """
        state = self._index.get(units.astype(np.int64, copy=False).tobytes())
        if state is None:
            raise ValueError(
                f"the units {', '.join(self.labels)} must stay on the values {sorted(set(self.values))}, got {units}"
            )
        return state

    def index_of_point(self, point: Point) -> int:
        """Return the number of the state that the units have at a point of the model."""
        keys = [counters_of(name) if name in self.periods else name for name in self.names]
        return self.index_of(np.concatenate([np.ravel(point[key]) for key in keys]))


def unit_labels(name: str, shape: tuple[int, ...]) -> Iterator[str]:
    """Name the units of a variable as ArviZ does for one without coordinates."""
    for place in product(*(range(n) for n in shape)):
        yield f"{name}[{', '.join(map(str, place))}]" if place else name


def complete_point(model: Model, point: Point | None) -> dict[str, np.ndarray]:
    """Return the initial point of a model, with the values of `point` where it has some.

    Raises
    ------
    ValueError
        If a value has an unknown name or not the shape of its variable.
    """
    initial = model.initial_point()
    for name, value in (point or {}).items():
        if name not in initial:
            raise ValueError(f"point must name value variables of the model, {sorted(initial)}, got {name!r}")
        if np.shape(value) != initial[name].shape:
            raise ValueError(
                f"point[{name!r}] must have the shape {initial[name].shape} of its variable, got {np.shape(value)}"
            )
        initial[name] = np.asarray(value, initial[name].dtype)
    return initial


def units_of(
    model: Model,
    value_vars: Sequence[Variable],
    point: dict[str, np.ndarray],
    periods: Mapping[str, int] | None = None,
) -> UnitStates:
    """List the states of variables of a model, at a complete point of it, given the refractory periods of some.

    Raises
    ------
    ValueError
        If a variable is not known to have two values, or there are too many units.
    """
    return UnitStates.make(point, {var.name: two_values(model.values_to_rvs[var]) for var in value_vars}, periods)


def two_values(rv: Variable) -> tuple[int, int]:
    from step_methods.reading import layers

    values = layers.two_values(rv)
    if values is None:
        raise ValueError(
            "vars must have two values per unit: pm.Bernoulli, a layer of a network such as BernoulliRBM, or a binary "
            f"Energy, got {rv.name!r} with the distribution {layers.distribution_of(rv)}"
        )
    return values


def single_precision_matters(model: Model, units: UnitStates, log_weight: np.ndarray) -> bool:
    """Whether the law of the units would be another one if nothing were rounded to float32.

    PyTensor takes a Python number for float32 where it is exact in that, and goes on in float32 with its logarithm.
    """
    from pytensor import config
    from pytensor.graph.basic import Constant
    from pytensor.graph.replace import clone_replace
    from pytensor.graph.traversal import ancestors
    from pytensor.tensor import add, constant

    if config.floatX == "float32":
        return True
    terms = model.logp(sum=False)
    small = [
        variable
        for variable in ancestors(terms)
        if isinstance(variable, Constant) and getattr(variable.type, "dtype", None) == "float32"
    ]
    doubles = {variable: constant(variable.data.astype(np.float64), dtype="float64") for variable in small}
    in_double = clone_replace(terms, doubles, rebuild_strict=False)
    precise = _evaluate(model, units, add(*(term.sum(dtype="float64") for term in in_double)))
    return float(np.abs(softmax(precise) - softmax(log_weight)).max()) > _DOUBLE_ROUNDING


def log_weights(model: Model, units: UnitStates) -> np.ndarray:
    """Evaluate the model's own log-probability at all states, shape (n_states,); −inf for impossible ones.

    Raises
    ------
    ValueError
        If it is NaN or +inf at a state, or −inf at all of them.
    """
    log_weight = _evaluate(model, units, model.logp())
    wrong = np.isnan(log_weight) | (log_weight == np.inf)
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(
            f"the log-probability of the model must be finite or −inf, got {log_weight[i]} with "
            f"({', '.join(units.labels)}) = {tuple(units.states[i].tolist())}"
        )
    if not np.isfinite(log_weight).any():
        raise ValueError(
            "the log-probability of the model is −inf at every state of the units; give a point at which the other "
            "variables are possible"
        )
    return log_weight


def _evaluate(model: Model, units: UnitStates, logp: Variable) -> np.ndarray:
    from pytensor.compile.mode import Mode

    # Compiled in milliseconds, with the rewrites that keep extreme values from overflowing.
    mode = Mode(linker="py", optimizer="fast_run")
    function = model.compile_fn(logp, inputs=model.value_vars, mode=mode, on_unused_input="ignore")
    names = [var.name for var in model.value_vars]
    points = (units.point_at(i) for i in range(len(units.states)))
    logps = np.array([function({name: point[name] for name in names}) for point in points], np.float64)
    return logps + units.log_spread
