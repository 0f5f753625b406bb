"""Whether a step method draws from the conditionals of its model: a check for models of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor

from pm_neural.diagnostics._forced import check_runs_what_is_forced, model_of, owner_of
from pm_neural.diagnostics._units import Point, complete_point, two_values, unit_labels
from step_methods.certifiable import counters_of

if TYPE_CHECKING:
    from pymc.model import Model

__all__ = ["ConditionalsCheck", "check_conditionals"]

# Kernels record no smaller probability than about 1e-308, also where an infinite field makes a unit certain.
_NEVER = 1e-290
# Of a point at most so many pieces of a sweep, or stages of a step, are compared.
_MAX_PIECES = 64
_MAX_ATTEMPTS = 30
# How many times machine epsilon a probability may be off by.
_ULPS = 8
# Terms that differ by more than this part of their size are not computed alike in float64.
_DOUBLE_ROUNDING = 1e-12
# Decisions that come out one way but for a probability below this are looked at one by one: random ones leave them out.
_EXTREME = 1e-5
# At most so many of them in a sweep.
_MAX_EXTREMES = 16


@dataclass(frozen=True, eq=False)
class ConditionalsCheck:
    """How the probabilities that a step decides by differ from those of its model; `print` shows it.

    Attributes
    ----------
    step : str
        Name of the step method.
    largest_difference : float
        Of log p(x) − log p(x′) by the step and by the model, over all pairs of outcomes that were compared; infinite
        where one of them excludes what the other does not.
    tolerance : float
        The largest difference that passes, but for the rounding of probabilities close to 1.
    passed : bool
    block : tuple of str
        The units that the largest difference is about, such as ``z[0, 3]``; auxiliary hidden units have no names.
    terms : dict of str to float
        log p(x) − log p(x′) of each term of the model that changes between these two outcomes; what the step holds
        against it is ``by_step``.
    by_step : float
        The same by the step, in total.
    n_compared : int
        Number of pairs of outcomes that were compared.
    """

    step: str
    largest_difference: float
    tolerance: float
    passed: bool
    block: tuple[str, ...] = field(repr=False)
    terms: dict[str, float] = field(repr=False)
    by_step: float = field(repr=False)
    n_compared: int

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        lines = [
            f"{self.step}: {'passed' if self.passed else 'FAILED'}, {self.n_compared} pairs of outcomes",
            f"  largest difference of log p  {self.largest_difference:.1e}   at most {self.tolerance:.0e}",
        ]
        if not self.passed:
            of_terms = ", ".join(f"{name} {value:.6g}" for name, value in self.terms.items())
            lines += [
                f"  block    {shorten(' '.join(self.block), 90, placeholder=' …')}",
                f"  the step {self.by_step:.6g}",
                f"  the model {math.fsum(self.terms.values()):.6g}: {of_terms}",
            ]
        return "\n".join(lines)


def check_conditionals(
    step: Any,
    point: Point | None = None,
    *,
    n_points: int = 20,
    tolerance: float | None = None,
    random_seed: Any = None,
) -> ConditionalsCheck:
    r"""Check on a model of any size that a step method draws its units from their conditionals.

    `certify` proves that a step is right, on models of a few units. This looks at random points of a model of any size:
    what is drawn together there, a block x given the rest, has two random outcomes x and x′, and

    .. math::

        \log q(x) - \log q(x') = \log p(x) - \log p(x')

    must hold between the probabilities q that the step itself computed, its random decisions forced, and the model's
    own log-probability, summed element by element so that it is exact for many units, too. Where a block is drawn after
    auxiliary hidden units a, the probability q(a | x) that the step draws these with at x, and at x′, is added on the
    right. Units that are updated one after the other, or together because they do not interact, are compared along the
    way that a sweep takes, each with the odds of its new and its old value; so two coupled units that are updated at
    once do not go unnoticed. Real units are compared by the densities of the normal numbers that they are made from.

    For a spiking neuron with a refractory period tau, one update of it must leave the law of its counter alone. The
    counter is uniform on 1..tau where the unit is on, so that the odds of firing are those of the unit over tau.

    Parameters
    ----------
    step : BlockedStep
        `BlockGibbs`, `NeuralSampling` in discrete time or `EnergyGibbs`; or any that has `n_stages`,
        `stages_in_random_order` and ``forced_stage(stage, point, bits)``, as these have, each stage of which draws
        units that are independent of each other given all else. It is not changed.
    point : dict, optional
        Values of the model's other variables, by the names of ``model.initial_point()``. Real variables that are not
        given are scattered at random about the values there.
    n_points : int
        Number of random points.
    tolerance : float, optional
        By default 1e-10, and 1e-4 where ``floatX`` is float32.
    random_seed : int, Generator or None

    Returns
    -------
    ConditionalsCheck

    Raises
    ------
    TypeError
        If `step` is not one step method whose random numbers can be forced, or another method runs than can be forced.
    ValueError
        If `n_points` or `tolerance` is not positive, if `point` does not fit the model, or if there was no pair of
        outcomes to compare; in continuous time, or of a relative refractory period, which is approximate; if auxiliary
        neurons are in random order, or of several machines: declare `HiddenUnits` then.

    Notes
    -----
    A probability q close to 1 is rounded to a multiple of 1e-16, which makes log(1 − q) inexact. Such outcomes are
    mostly avoided, and where they are not the bound is larger by the rounding of q. It is larger, too, by the rounding
    of terms that PyTensor computes in float32, as it does with a number like ``p=0.75`` that is exact in that.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> with pm.Model():
    ...     z = pmn.Ising("z", pmn.lattice((30, 30), periodic=True), coupling=0.4)
    ...     check = pmn.diagnostics.check_conditionals(pmn.BlockGibbs([z]), n_points=2, random_seed=1)
    >>> check.passed
    True
    """
    if n_points < 1:
        raise ValueError(f"n_points must be at least 1, got {n_points}")
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    step, model = _forcible(step)
    rng = np.random.default_rng(random_seed)
    # As a chain would start it, with the shared data of now.
    step.setup_chain(np.random.default_rng(0), tune=0, draws=1)
    terms = _Terms(model)
    if tolerance is None:
        tolerance = 1e-4 if pytensor.config.floatX == "float32" else 1e-10
    worst = _Worst(step.name, tolerance)
    compare = _compare_networks if callable(getattr(step, "force_network", None)) else _compare_stages
    for _ in range(n_points):
        compare(step, terms, terms.random_point(step, point, rng), rng, worst)
    return worst.result()


def _forcible(step: Any) -> tuple[Any, Model]:
    from pymc.step_methods.compound import BlockedStep, CompoundStep

    if isinstance(step, CompoundStep):
        raise TypeError(
            "step must be a single step method, got a CompoundStep; its parts step.methods can be checked one by one"
        )
    if not isinstance(step, BlockedStep) or not callable(getattr(step, "forced_stage", None)):
        raise TypeError(
            "step must be a step method with a method forced_stage(stage, point, bits), such as BlockGibbs or "
            f"NeuralSampling, got {type(step).__name__}"
        )
    check_runs_what_is_forced(step, "step", owner_of(step, "forced_stage"), "its forced_stage")
    model: Model = model_of(step)
    step = copy(step)
    step.stop_tuning()
    return step, model


@dataclass(frozen=True)
class _Pair:
    """Two outcomes of a block by the step and by the model."""

    by_step: _Gain
    terms: dict[str, float]
    rounding_of_terms: Callable[[], float]
    block: Callable[[], tuple[str, ...]]


@dataclass(frozen=True)
class _Gain:
    """log p(x) − log p(x′) of two outcomes by the step, as it computed it, and what that may be if not for rounding.

    A probability close to 1 is rounded to a multiple of 1e-16: of the other outcome it says no more than that it is
    improbable.
    """

    value: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def plus(self, probabilities: np.ndarray, bits: np.ndarray, sign: int = 1) -> _Gain:
        """Add the log of the probabilities of decisions, or subtract it."""
        logs, low, high = _log_probabilities(probabilities, bits)
        low, high = (low, high) if sign > 0 else (-high, -low)
        return _Gain(
            _sum([self.value, *(sign * logs)]), _sum([self.low, *low], -math.inf), _sum([self.high, *high], math.inf)
        )

    def plus_exactly(self, number: float, rounding: float = 0.0) -> _Gain:
        """Add a number that is known up to some rounding."""
        return _Gain(self.value + number, self.low + number - rounding, self.high + number + rounding)

    def distance(self, by_model: float) -> float:
        """Return how far what the model says is from what the step may say."""
        if math.isnan(by_model):
            return math.inf
        below = self.low - by_model if by_model < self.low else 0.0
        above = by_model - self.high if by_model > self.high else 0.0
        return max(below, above)

    def difference(self, by_model: float) -> float:
        """Return by how much the two differ; infinite where one excludes what the other does not."""
        if math.isfinite(self.value) and math.isfinite(by_model):
            return abs(self.value - by_model)
        return math.inf if self.distance(by_model) else 0.0

    def nearest(self, by_model: float) -> float:
        """Return what the step computed or, if that is no number, what it may say that is nearest to the model."""
        return self.value if math.isfinite(self.value) else float(np.clip(by_model, self.low, self.high))


def _sum(numbers: Iterable[float], of_opposite_infinities: float = math.nan) -> float:
    """Sum numbers exactly; what to return for −inf and inf at once is given."""
    numbers = list(numbers)
    infinite = {number for number in numbers if not math.isfinite(number)}
    if not infinite:
        return math.fsum(numbers)
    return infinite.pop() if len(infinite) == 1 else of_opposite_infinities


class _Worst:
    """The pair of outcomes that the step and the model differ on most.

    Parameters
    ----------
    step : str
    tolerance : float
    """

    def __init__(self, step: str, tolerance: float):
        self._step, self._tolerance = step, tolerance
        self._excess = -math.inf
        self._pair: _Pair | None = None
        self._difference = 0.0
        self._n_compared = 0

    def add(self, pair: _Pair) -> None:
        """Take a pair of outcomes into account."""
        self._n_compared += 1
        by_model = _sum(pair.terms.values())
        excess = pair.by_step.distance(by_model)
        difference = pair.by_step.difference(by_model)
        if excess > self._tolerance:
            excess -= pair.rounding_of_terms()
        if (excess, difference) > (self._excess, self._difference):
            self._excess, self._difference, self._pair = excess, difference, pair

    def result(self) -> ConditionalsCheck:
        """Return what was found.

        Raises
        ------
        ValueError
            If there was no pair of outcomes.
        """
        if self._pair is None:
            raise ValueError(
                f"{self._step} has no two outcomes to compare at any of the points: each unit has one possible value"
            )
        return ConditionalsCheck(
            step=self._step,
            largest_difference=self._difference,
            tolerance=self._tolerance,
            passed=bool(self._excess <= self._tolerance),
            block=self._pair.block(),
            terms={name: value for name, value in self._pair.terms.items() if value},
            by_step=self._pair.by_step.nearest(_sum(self._pair.terms.values())),
            n_compared=self._n_compared,
        )


class _Terms:
    """The terms of a model's log-probability, element by element."""

    def __init__(self, model: Model):
        from pytensor.compile.mode import Mode
        from pytensor.graph.traversal import ancestors

        self.model = model
        self.names = [str(term.name) for term in (*model.basic_RVs, *model.potentials)]
        self._logps = model.logp(sum=False)
        self._in_single_precision = [
            any(getattr(variable.type, "dtype", None) == "float32" for variable in ancestors([logp]))
            for logp in self._logps
        ]
        # In milliseconds, with the rewrites that keep extreme values from overflowing. Some results are read-only, and
        # operations that are fused into one lose precision in Python.
        self._mode = Mode(linker="py", optimizer="fast_run").excluding("inplace", "fusion")
        self._function = model.compile_fn(
            self._logps, inputs=model.value_vars, mode=self._mode, on_unused_input="ignore"
        )
        self._inputs = [var.name for var in model.value_vars]
        self._latest: dict[bytes, list[np.ndarray]] = {}
        self._center: dict[str, np.ndarray] | None = None

    def at(self, point: Point) -> list[np.ndarray]:
        """Return the terms at a point."""
        key = b"".join(np.asarray(point[name]).tobytes() for name in self._inputs)
        if key not in self._latest:
            while len(self._latest) > 3:
                self._latest.pop(next(iter(self._latest)))
            with np.errstate(all="ignore"):
                self._latest[key] = self._function({name: point[name] for name in self._inputs})
        return self._latest[key]

    def is_possible(self, point: Point) -> bool:
        """Whether no term excludes a point."""
        return all(np.isfinite(term).all() for term in self.at(point))

    def differences(self, point: Point, other: Point) -> dict[str, float]:
        """Return what each term says for a point and against another one."""
        pairs = zip(self.names, self.at(point), self.at(other), strict=True)
        return {name: _sum_of_differences(np.asarray(term), np.asarray(before)) for name, term, before in pairs}

    def rounding(self, point: Point, other: Point) -> float:
        """Return by how much terms may be off that would be others if nothing were computed in float32."""
        if not any(self._in_single_precision):
            return 0.0
        precise, precise_before = self._in_double(point), self._in_double(other)
        total = 0.0
        for is_single, *terms in zip(
            self._in_single_precision, self.at(point), self.at(other), precise, precise_before, strict=True
        ):
            if not is_single:
                continue
            term, before, own, own_before = (np.asarray(array, np.float64) for array in terms)
            sizes = np.abs(term).sum() + np.abs(before).sum()
            if term.shape == before.shape:
                with np.errstate(invalid="ignore"):
                    off = np.abs((term - before) - (own - own_before))
                    each = np.abs(term) + np.abs(before)
                    sizes = each[np.isfinite(each) & (off > _DOUBLE_ROUNDING * each)].sum()
            total += _ULPS * float(np.finfo(np.float32).eps) * float(sizes)
        return total

    def _in_double(self, point: Point) -> list[np.ndarray]:
        with np.errstate(all="ignore"):
            return self._precise_function({name: point[name] for name in self._inputs})

    @cached_property
    def _precise_function(self) -> Callable[[Point], list[np.ndarray]]:
        """The terms with float64 in place of float32, and of the small integers whose functions are float32."""
        from pytensor.graph.basic import Constant
        from pytensor.graph.replace import clone_replace
        from pytensor.graph.traversal import ancestors
        from pytensor.tensor import constant
        from pytensor.tensor.elemwise import DimShuffle, Elemwise

        # Other integers are indices and shapes.
        operands = {
            source
            for variable in ancestors(self._logps)
            if variable.owner is not None and isinstance(variable.owner.op, Elemwise | DimShuffle)
            for source in variable.owner.inputs
            if getattr(source.type, "dtype", None) in ("int8", "int16", "uint8")
        }
        doubles = {
            variable: constant(variable.data.astype(np.float64), dtype="float64")
            for variable in ancestors(self._logps)
            if isinstance(variable, Constant)
            and (getattr(variable.type, "dtype", None) == "float32" or variable in operands)
        }
        logps = clone_replace(self._logps, doubles, rebuild_strict=False)
        return self.model.compile_fn(logps, inputs=self.model.value_vars, mode=self._mode, on_unused_input="ignore")

    def pair(self, by_step: _Gain, point: Point, other: Point, block: Callable[[], tuple[str, ...]]) -> _Pair:
        """Hold what a step says for a point and against another one beside what the terms say."""
        return _Pair(by_step, self.differences(point, other), partial(self.rounding, point, other), block)

    def random_point(self, step: Any, given: Point | None, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return a point of the model, its real variables scattered unless they are given."""
        if self._center is None:
            self._center = complete_point(self.model, given)
        center = dict(self._center)
        of_step = {value.name for value in step.vars}
        scattered = [
            name
            for name, value in center.items()
            if value.dtype.kind == "f" and name not in (given or {}) and name not in of_step
        ]
        point = center
        for scale in (1.0, 0.3, 0.1, 0.01):
            point = dict(center)
            for name in scattered:
                noise = rng.normal(0, scale, center[name].shape)
                point[name] = np.asarray(center[name] + noise, center[name].dtype)
            if not scattered or self.is_possible(point):
                return point
        return center


def _sum_of_differences(array: np.ndarray, other: np.ndarray) -> float:
    """Sum what an array gains over another one; elements that both exclude say nothing."""
    if array.shape != other.shape:  # units may decide how many elements a term has
        return float(np.sum(array, dtype=np.float64) - np.sum(other, dtype=np.float64))
    with np.errstate(invalid="ignore"):
        gains = np.where(array == other, 0.0, array.astype(np.float64) - other.astype(np.float64))
    return math.fsum(gains.ravel()) if np.isfinite(gains).all() else float(gains.sum())


def _log_probabilities(probabilities: np.ndarray, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the log of the probabilities of decisions (−inf for what never happens), and what it is between."""
    info = np.finfo(pytensor.config.floatX)
    epsilon = _ULPS * float(info.eps)
    # Kernels record no smaller probability than about 1e-308, also where an infinite field makes a unit certain.
    least = max(_NEVER, 4 * float(info.tiny))
    p, ones = np.asarray(probabilities, np.float64), np.asarray(bits) > 0
    with np.errstate(divide="ignore"):
        of_one = np.where(p > _NEVER, np.log(p), -np.inf)
        log = np.where(ones, of_one, np.log1p(-p))
        low = np.where(ones, np.where(p > least, of_one - epsilon, -np.inf), np.log(np.maximum(1 - p - epsilon, 0)))
        high = np.where(ones, np.where(p > least, of_one + epsilon, math.log(least)), np.log(1 - p + epsilon))
    return log, low, high


# --- BlockGibbs: one sweep of each network, all of its random numbers forced ----------------------------------------


class _Sweep:
    """One sweep of one network of a step, from a point of the model.

    Parameters
    ----------
    step : BlockGibbs
    network : int
    point : dict
    """

    def __init__(self, step: Any, network: int, point: Point):
        self.names, self.numbers = step.numbers_of_network(network, point)
        self._force = partial(step.force_network, network)
        self.start = dict(point)
        ends = np.cumsum([0, *(np.size(point[name]) for name in self.names)]).tolist()
        self._places = {name: slice(*own) for name, own in zip(self.names, pairwise(ends), strict=True)}
        real = set(self.numbers.units[self.numbers.is_real].tolist())
        self._values = {
            name: two_values(_rv_of(step, name)) for name in self.names if self._places[name].start not in real
        }

    def run(self, numbers: np.ndarray, start: Point | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Make the sweep; return the units after it, and the probabilities of its decisions."""
        new_point, probabilities = self._force(dict(self.start if start is None else start), numbers)
        return self.units(new_point), probabilities

    def units(self, point: Point) -> np.ndarray:
        """Return the units of the network, one after another."""
        return np.concatenate([np.asarray(point[name], np.float64).ravel() for name in self.names])

    def point(self, units: np.ndarray) -> dict[str, np.ndarray]:
        """Return the point whose network has these units."""
        point = dict(self.start)
        for name in self.names:
            old = np.asarray(point[name])
            point[name] = units[self._places[name]].reshape(old.shape).astype(old.dtype)
        return point

    def ones(self, units: np.ndarray) -> np.ndarray:
        """Return for each unit whether it has its high value."""
        return np.concatenate([units[self._places[name]] == self._values[name][1] for name in self.names])

    def flipped(self, units: np.ndarray, unit: int) -> np.ndarray:
        """Return the units with the other value of one of them."""
        name = next(name for name in self.names if unit < self._places[name].stop)
        other = units.copy()
        other[unit] = sum(self._values[name]) - units[unit]
        return other

    def labels(self, units: np.ndarray) -> tuple[str, ...]:
        """Name units."""
        labels = [label for name in self.names for label in unit_labels(name, np.shape(self.start[name]))]
        return tuple(labels[unit] for unit in dict.fromkeys(units.tolist()) if unit >= 0)


def _rv_of(step: Any, name: str) -> Any:
    model = model_of(step)
    return next(model.values_to_rvs[value] for value in step.vars if value.name == name)


def _random_numbers(sweep: _Sweep, rng: np.random.Generator, precisely: bool) -> np.ndarray:
    """Draw normal numbers, and fair coins but where the step excludes a side of them.

    `precisely` leaves those out whose probability is too close to 1 to be told from it.
    """
    is_real = sweep.numbers.is_real
    numbers = np.where(is_real, rng.normal(size=is_real.size), rng.integers(0, 2, is_real.size))
    limit = 1e-5 if precisely else 0.0
    for _ in range(_MAX_ATTEMPTS):
        _, q = sweep.run(numbers)
        wrong = ~is_real & (((numbers == 0) & (q >= 1 - limit)) | ((numbers == 1) & (q <= _NEVER)))
        if not wrong.any():
            break
        numbers[wrong] = 1 - numbers[wrong]
    return numbers


def _compare_networks(
    step: Any, terms: _Terms, point: dict[str, np.ndarray], rng: np.random.Generator, worst: _Worst
) -> None:
    """Hold a sweep of each network against the model, from a random state of its units, and then a whole step."""
    for network in range(step.n_networks):
        sweep = _Sweep(step, network, point)
        point = sweep.point(sweep.run(_random_numbers(sweep, rng, False))[0])
        if not terms.is_possible(point):
            continue
        sweep = _Sweep(step, network, point)
        numbers = _random_numbers(sweep, rng, rng.random() < 0.8)
        if sweep.numbers.is_real.any() or (sweep.numbers.units < 0).any():
            _compare_blocks(sweep, numbers, terms, rng, worst)
        else:
            _compare_pieces(sweep, numbers, terms, rng, worst)
    if step.order == "fixed" and terms.is_possible(point):
        _compare_whole_step(step, terms, point, rng, worst)


def _compare_pieces(sweep: _Sweep, numbers: np.ndarray, terms: _Terms, rng: np.random.Generator, worst: _Worst) -> None:
    """Compare the way that a sweep of two-valued units takes with the odds of its decisions, piece by piece."""
    after, q = sweep.run(numbers)
    order = sweep.numbers.units
    before = sweep.units(sweep.start)
    old, new = sweep.ones(before)[order], sweep.ones(after)[order]
    if not np.array_equal(new, numbers > 0):
        raise ValueError("a step must take the decisions that it is given: its units after them are others")
    n_pieces = min(order.size, _MAX_PIECES)
    cuts = np.linspace(0, order.size, n_pieces + 1).astype(int)
    now = before
    for first, stop in pairwise(cuts):
        then, now = now, now.copy()
        now[order[first:stop]] = after[order[first:stop]]
        changed = first + np.flatnonzero(old[first:stop] != new[first:stop])
        if not changed.size:
            continue
        by_step = _Gain().plus(q[changed], new[changed]).plus(q[changed], old[changed], -1)
        block = partial(sweep.labels, order[changed])
        worst.add(terms.pair(by_step, sweep.point(now), sweep.point(then), block))
    _compare_extremes(sweep, before, after, q, terms, rng, worst)


def _compare_extremes(
    sweep: _Sweep,
    before: np.ndarray,
    after: np.ndarray,
    q: np.ndarray,
    terms: _Terms,
    rng: np.random.Generator,
    worst: _Worst,
) -> None:
    """Look whether the model, too, all but excludes what the step hardly ever does, when it decides on a unit."""
    order = sweep.numbers.units
    extreme = np.flatnonzero((q < _EXTREME) | (q > 1 - _EXTREME))
    for k in rng.permutation(extreme)[:_MAX_EXTREMES].tolist():
        now = before.copy()
        now[order[:k]] = after[order[:k]]
        bits = np.array([sweep.ones(now)[order[k]]])
        by_step = _Gain().plus(q[k : k + 1], bits).plus(q[k : k + 1], ~bits, -1)
        block = partial(sweep.labels, order[k : k + 1])
        worst.add(terms.pair(by_step, sweep.point(now), sweep.point(sweep.flipped(now, int(order[k]))), block))


def _compare_blocks(sweep: _Sweep, numbers: np.ndarray, terms: _Terms, rng: np.random.Generator, worst: _Worst) -> None:
    """Compare two outcomes of each block that is real, or drawn after auxiliary units."""
    order, is_real, starts = sweep.numbers
    after, _ = sweep.run(numbers)
    firsts = np.flatnonzero(starts)
    now = sweep.units(sweep.start)
    blocks = list(zip(firsts, [*firsts[1:], order.size], strict=True))
    compared = set(range(len(blocks)))
    if len(blocks) > _MAX_PIECES:
        compared = set(rng.choice(len(blocks), _MAX_PIECES, replace=False).tolist())
    for k, (first, stop) in enumerate(blocks):
        before, now = now, now.copy()
        own = np.arange(first, stop)
        auxiliary, own = own[order[own] < 0], own[order[own] >= 0]
        now[order[own]] = after[order[own]]
        if k not in compared or not own.size:
            continue
        others = numbers.copy()
        others[own] = np.where(is_real[own], rng.normal(size=own.size), rng.integers(0, 2, own.size))
        _, others_q = sweep.run(others)
        alternatives = [others]
        if not is_real[own[0]]:
            certain = np.exp(_log_probabilities(others_q[own], others[own])[0]) < _EXTREME
            others[own[certain]] = 1 - others[own[certain]]
            # What is left out by that, one by one: the other value of units that the step is all but certain of.
            for unit in rng.permutation(own[certain | (others_q[own] < _EXTREME)])[:_MAX_EXTREMES]:
                improbable = numbers.copy()
                improbable[unit] = 1 - numbers[unit]
                alternatives.append(improbable)
        for one in alternatives:
            _compare_outcomes(sweep, numbers, one, before, now, own, auxiliary, terms, worst)


def _compare_outcomes(
    sweep: _Sweep,
    numbers: np.ndarray,
    others: np.ndarray,
    before: np.ndarray,
    now: np.ndarray,
    own: np.ndarray,
    auxiliary: np.ndarray,
    terms: _Terms,
    worst: _Worst,
) -> None:
    """Compare two outcomes of one block, whose units before it are given."""
    order, is_real, _ = sweep.numbers
    _, q = sweep.run(numbers)
    other_after, others_q = sweep.run(others)
    other = before.copy()
    other[order[own]] = other_after[order[own]]
    if np.array_equal(now, other):
        return
    by_step = _Gain()
    for sign, state, own_numbers, own_q in ((1, now, numbers, q), (-1, other, others, others_q)):
        if is_real[own[0]]:
            squares = math.fsum(own_numbers[own] ** 2)
            rounding = _ULPS * float(np.finfo(pytensor.config.floatX).eps) * squares
            by_step = by_step.plus_exactly(-sign * squares / 2, rounding)
        else:
            by_step = by_step.plus(own_q[own], own_numbers[own], sign)
        if auxiliary.size:
            # The same auxiliary units, drawn where the block already has this outcome.
            start = sweep.units(sweep.start)
            start[order[own]] = state[order[own]]
            _, auxiliary_q = sweep.run(numbers, sweep.point(start))
            by_step = by_step.plus(auxiliary_q[auxiliary], numbers[auxiliary], -sign)
    worst.add(terms.pair(by_step, sweep.point(now), sweep.point(other), partial(sweep.labels, order[own])))


def _compare_whole_step(
    step: Any, terms: _Terms, point: dict[str, np.ndarray], rng: np.random.Generator, worst: _Worst
) -> None:
    """Compare the way that a whole step takes, in all networks and sweeps of it, with the odds of its decisions."""
    all_numbers = [step.numbers_of_network(network, point)[1] for network in range(step.n_networks)]
    if any(numbers.is_real.any() or (numbers.units < 0).any() for numbers in all_numbers):
        return
    names, order = step.decisions_of_a_step()
    if order.size == sum(numbers.units.size for numbers in all_numbers) and step.n_networks == 1:
        return  # the sweep that was compared already
    bits = rng.integers(0, 2, order.size).astype(np.uint8)
    values = {name: two_values(_rv_of(step, name)) for name in names}
    for _ in range(_MAX_ATTEMPTS):
        new_point, q = step.forced_step(dict(point), bits)
        wrong = ((bits == 0) & (q >= 1 - 1e-5)) | ((bits == 1) & (q <= _NEVER))
        if not wrong.any():
            break
        bits[wrong] = 1 - bits[wrong]
    ones = np.concatenate([np.ravel(point[name]) == values[name][1] for name in names])
    by_step = _Gain()
    for unit, bit, probability in zip(order.tolist(), bits.tolist(), q.tolist(), strict=True):
        if ones[unit] != bit:
            own_q = np.array([probability])
            by_step = by_step.plus(own_q, np.array([bit])).plus(own_q, np.array([1 - bit]), -1)
            ones[unit] = bool(bit)
    labels = [label for name in names for label in unit_labels(name, np.shape(point[name]))]
    worst.add(terms.pair(by_step, new_point, point, lambda: tuple(labels)))


# --- other steps: stage by stage ------------------------------------------------------------------------------------


def _compare_stages(
    step: Any, terms: _Terms, point: dict[str, np.ndarray], rng: np.random.Generator, worst: _Worst
) -> None:
    """Compare two outcomes of stages of a step, from a random state of its units and their counters."""
    dynamics = getattr(step, "dynamics", None)
    if dynamics is not None and (dynamics.continuous or dynamics.g is not None):
        raise ValueError(
            "NeuralSampling makes decisions that can be compared in discrete time and with refractory='absolute' only: "
            "in continuous time there are none, and a relative refractory period is approximate"
        )
    values = {value.name: two_values(terms.model.values_to_rvs[value]) for value in step.vars}
    periods: dict[str, int] = getattr(step, "refractory_periods", {})
    if getattr(step, "n_auxiliary", 0):
        _compare_auxiliary(step, terms, point, values, periods, rng, worst)
        return
    if dynamics is not None and dynamics.order == "random" and not step.stages_in_random_order:
        raise ValueError(
            "in random order a step of several networks has no stages that could be compared: give each variable a "
            "step of its own, as blocked=False does"
        )
    n_stages = step.n_stages
    stages = np.arange(n_stages) if n_stages <= _MAX_PIECES else rng.choice(n_stages, _MAX_PIECES, replace=False)
    # A random pick of a neuron makes one decision about it, the last one, if its counter is at most 1.
    point = _with_coins(step, terms, point, values, periods, rng)
    for stage in stages.tolist():
        new_point = _compare_stage(partial(step.forced_stage, stage), step, terms, point, values, periods, rng, worst)
        if terms.is_possible(new_point):
            point = _renewed(new_point, values, periods, step, rng)


def _with_coins(
    step: Any,
    terms: _Terms,
    point: dict[str, np.ndarray],
    values: dict[str, tuple[int, int]],
    periods: dict[str, int],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Toss a coin for each unit, as far as the model allows."""
    tossed = dict(point)
    for name, (low, high) in values.items():
        old = np.asarray(point[name])
        tossed[name] = np.where(rng.random(old.shape) < 0.5, high, low).astype(old.dtype)
    if not terms.is_possible(tossed):
        tossed = dict(point)
        for name, unit in _some_units(values, point, rng):
            flipped = tossed[name].copy()
            flipped.flat[unit] = sum(values[name]) - flipped.flat[unit]
            candidate = tossed | {name: flipped}
            if rng.random() < 0.5 and (terms.is_possible(candidate) or not terms.is_possible(tossed)):
                tossed = candidate
    return _renewed(tossed, values, periods, step, rng)


def _some_units(
    values: dict[str, tuple[int, int]], point: Point, rng: np.random.Generator
) -> Iterator[tuple[str, int]]:
    units = [(name, unit) for name in values for unit in range(np.size(point[name]))]
    for k in rng.permutation(len(units))[: 4 * _MAX_PIECES]:
        yield units[k]


def _renewed(
    point: dict[str, np.ndarray],
    values: dict[str, tuple[int, int]],
    periods: dict[str, int],
    step: Any,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Draw the counters of units that are on, half of them 1 so that many neurons decide; all in random order."""
    point = dict(point)
    for name, tau in periods.items():
        units = np.asarray(point[name])
        counters = rng.integers(1, tau + 1, units.shape)
        decides = rng.random(units.shape) < (1.0 if step.stages_in_random_order or step.n_stages == 1 else 0.5)
        point[counters_of(name)] = np.where(units == values[name][1], np.where(decides, 1, counters), 0)
    return point


def _compare_stage(
    force: Callable[[dict[str, np.ndarray], np.ndarray], tuple[dict[str, np.ndarray], np.ndarray]],
    step: Any,
    terms: _Terms,
    point: dict[str, np.ndarray],
    values: dict[str, tuple[int, int]],
    periods: dict[str, int],
    rng: np.random.Generator,
    worst: _Worst,
) -> dict[str, np.ndarray]:
    """Compare two outcomes of one stage; return the point after one of them."""
    _, q = force(dict(point), np.empty(0, np.uint8))
    if not q.size:
        return point
    outcomes = []
    first_bits = np.empty(0, np.uint8)
    for outcome in range(2):
        bits = rng.integers(0, 2, 4 * q.size + 8).astype(np.uint8)
        if outcome:
            # In random order the decisions before the last one pick the neuron.
            flips = (rng.random(first_bits.size) < 0.5) & (not step.stages_in_random_order)
            flips[-1] |= not flips.any()
            bits = np.where(flips, 1 - first_bits, first_bits).astype(np.uint8)
        for _ in range(_MAX_ATTEMPTS):
            _, q = force(dict(point), bits)
            bits = bits[: q.size]
            wrong = ((bits == 0) & (q >= 1)) | ((bits == 1) & (q <= _NEVER))
            if outcome or not wrong.any():
                break  # the second outcome may be one that hardly ever happens
            bits[wrong] = 1 - bits[wrong]
        first_bits = bits
        new_point, q = force(dict(point), bits)
        _check_counters(step, point, new_point, periods)
        outcomes.append((new_point, bits, q))
    (new_point, bits, q), (other_point, other_bits, other_q) = outcomes
    changed = {name: np.flatnonzero(np.ravel(new_point[name]) != np.ravel(other_point[name])) for name in values}
    if any(units.size for units in changed.values()):
        by_step = _Gain().plus(q, bits).plus(other_q, other_bits, -1)
        for name, tau in periods.items():
            on, other_on = (int(np.sum(np.asarray(p[name]) == values[name][1])) for p in (new_point, other_point))
            by_step = by_step.plus_exactly((on - other_on) * math.log(tau))
        worst.add(terms.pair(by_step, new_point, other_point, partial(_labels_of, changed, point)))
    return new_point


def _labels_of(changed: dict[str, np.ndarray], point: Point) -> tuple[str, ...]:
    labels = {name: list(unit_labels(name, np.shape(point[name]))) for name in changed}
    return tuple(labels[name][unit] for name, units in changed.items() for unit in units.tolist())


def _check_counters(step: Any, point: Point, new_point: Point, periods: dict[str, int]) -> None:
    """Raise if a counter goes where no update of a neuron leads."""
    for name, tau in periods.items():
        old, new = (np.asarray(p[counters_of(name)]) for p in (point, new_point))
        right = (new == old) | np.where(old >= 2, new == old - 1, (new == 0) | (new == tau))
        if not right.all():
            raise ValueError(
                f"{step.name} brings a refractory counter of {name!r} from {old[~right].flat[0]} to "
                f"{new[~right].flat[0]}, where tau is {tau}"
            )


def _compare_auxiliary(
    step: Any,
    terms: _Terms,
    point: dict[str, np.ndarray],
    values: dict[str, tuple[int, int]],
    periods: dict[str, int],
    rng: np.random.Generator,
    worst: _Worst,
) -> None:
    """Compare two outcomes of a step whose auxiliary neurons are drawn first, of one machine.

    The step draws h from p(h | v), with counters; it updates all h, given v, and then all v given the new h.
    """
    n_hidden, tau = step.n_auxiliary, max(periods.values())
    n_visible = sum(np.size(point[name]) for name in values)
    if len(values) > 1 or step.dynamics.order == "random" or step.n_populations > 1:
        raise ValueError(
            "auxiliary neurons can be compared in the visible layer of one machine, not in a batch and not in random "
            "order: declare the hidden units with HiddenUnits"
        )
    point = _with_coins(step, terms, point, values, periods, rng)
    name = next(iter(values))
    point[counters_of(name)] = np.minimum(point[counters_of(name)], 1)
    hidden, drawn = rng.integers(0, 2, (2, n_hidden)).astype(np.uint8)

    def run(start: Point, drawn: np.ndarray, visible: np.ndarray) -> tuple[Point, np.ndarray]:
        # A neuron that is on decides if its counter is 1, which takes one more decision for each.
        ones = np.ones(int(drawn.sum()) if tau > 1 else 0, np.uint8)
        bits = np.concatenate([drawn, ones, hidden, visible]).astype(np.uint8)
        return step.forced_step(dict(start), bits)

    outcomes = [(visible, *run(point, drawn, visible)) for visible in rng.integers(0, 2, (2, n_visible), np.uint8)]
    by_step = _Gain()
    for sign, (visible, new_point, q) in zip((1, -1), outcomes, strict=True):
        by_step = by_step.plus(q[-n_visible:], visible, sign).plus_exactly(sign * int(visible.sum()) * math.log(tau))
        again = dict(new_point) | {counters_of(name): np.minimum(new_point[counters_of(name)], 1)}
        _, q = run(again, hidden, visible)
        by_step = by_step.plus(q[:n_hidden], hidden, -sign)
        # And the auxiliary neurons themselves: the odds of firing are those of being drawn, over tau.
        updated = q[-n_visible - n_hidden : -n_visible]
        one, zero = np.ones(1), np.zeros(1)
        for drawn_q, updated_q in zip(q[:n_hidden, None], updated[:, None], strict=True):
            odds = _Gain().plus(drawn_q, one).plus(drawn_q, zero, -1).plus(updated_q, one, -1).plus(updated_q, zero)
            worst.add(
                _Pair(odds.plus_exactly(-math.log(tau)), {}, float, lambda: (f"auxiliary hidden units of {name}",))
            )
    (_, new_point, _), (_, other_point, _) = outcomes
    changed = {name: np.flatnonzero(np.ravel(new_point[name]) != np.ravel(other_point[name]))}
    if changed[name].size:
        worst.add(terms.pair(by_step, new_point, other_point, partial(_labels_of, changed, point)))
