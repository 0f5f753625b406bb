"""How a chain of units starts, each from a state of its own, and whether it moves from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, ClassVar, Protocol

import numpy as np
import pytensor.tensor as pt
from pymc.blocking import PointType
from pymc.distributions.distribution import PartialObservedRV, support_point
from pymc.model import Model
from pymc.stats.convergence import SamplerWarning, WarningType
from pytensor import config
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace

from step_methods.network import NetworkReader, evaluate, random_inputs

__all__ = ["DefaultStarts", "OwnStarts", "check_agrees", "disperse_units"]


class _Sampler(Protocol):
    """What samplers of networks and of other units tell of themselves."""

    updated: list[str]

    def logits_at(self, point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the evidence on the units at a point, by the names of the variables that it is about."""

    def disperse(self, point: PointType, by_default: set[str], rng: np.random.Generator) -> None:
        """Give the chain a start of its own, in place, where PyMC's default is what it starts from."""

    def look(self, point: Mapping[str, np.ndarray]) -> tuple[bool, bool]:
        """Return whether all units are certain to stay, and whether some of them could be elsewhere all the same."""


class OwnStarts:
    """Start each chain of a step method from a state of its own, and say where it cannot move from its state.

    The step's first draw of a chain begins from coins where the point has PyMC's default start.

    Attributes
    ----------
    start_hash : int or None
        Tells the state that the chain started in; None before its first draw.
    n_draws : int
        Draws of the chain so far.
    next_look : int
        The draw after which the step looks whether units can change; 0 once it has said that they cannot.
    """

    start_stats: ClassVar[dict[str, tuple[Any, Any]]] = {
        "start_hash": (np.int64, []),
        "warning": (SamplerWarning, None),
    }

    name: str
    vars: Sequence[Variable]
    rng: np.random.Generator
    _samplers: Sequence[_Sampler]
    _defaults: DefaultStarts
    _values: Mapping[str, tuple[int, int]]
    _joined: bool

    def _check_values(self, point: Mapping[str, np.ndarray]) -> None:
        raise NotImplementedError

    def _forget_start(self) -> None:
        self.start_hash: int | None = None
        self.n_draws = 0
        self.next_look = 1

    def begin(self, point: PointType) -> PointType:
        """Return the state that the chain starts in."""
        self._check_values(point)
        by_default = {str(var.name) for var in self.vars if self._defaults.holds(str(var.name), point)}
        start = point.copy()
        for sampler in self._samplers:
            sampler.disperse(start, by_default, self.rng)
        self.start_hash = _hash_of(start, [str(var.name) for var in self.vars])
        return start

    def _check_start(self, model: Model, point: Mapping[str, np.ndarray], readers: Sequence[NetworkReader]) -> None:
        """Raise if a start contradicts evidence that this step does not bring it in line with in time.

        Where it starts from coins it does, unless a step that follows a gradient goes first.

        Raises
        ------
        ValueError
        """
        own = set(self.vars)
        others_first = any(
            value not in own and value.dtype.startswith("float")
            for value in model.value_vars[: min(model.value_vars.index(value) for value in own)]
        )
        layers = {name: (reader, layer) for reader in readers for name, layer in reader.free_layers.items()}
        for sampler in self._samplers:
            for name, logits in sampler.logits_at(point).items():
                reader, layer = layers[name]
                if layer.values and (others_first or not self._defaults.holds(name, point)):
                    check_agrees(point[name], name, layer.values, logits, reader.terms[name])

    def _look(self, before: PointType, after: PointType) -> SamplerWarning | None:
        """Return a warning if no unit can change any more."""
        # It costs as much as a few draws to look, so that it is done ever more rarely.
        self.next_look += 1 + self.n_draws // 2
        if not all(np.array_equal(before[var.name], after[var.name]) for var in self.vars) or not self._is_frozen(
            after
        ):
            return None
        self.next_look = 0
        names = ", ".join(repr(str(var.name)) for var in self.vars)
        return SamplerWarning(
            WarningType.CONVERGENCE,
            f"{type(self).__name__} cannot move: given the others, each unit of {names} has only one value that is "
            "possible, or that can be told from certain, although other states are possible, too. The chain will stay "
            "where it is, and neither ESS nor R-hat will show it. Soften what ties the units together (a large finite "
            "penalty in place of -inf, weaker couplings), or use a step method that moves several of them at once",
            "warn",
            step=self.n_draws,
        )

    def _is_frozen(self, point: PointType) -> bool:
        looks = [sampler.look(point) for sampler in self._samplers]
        if not all(certain for certain, _ in looks):
            return False
        return any(free for _, free in looks) or (self._joined and self._hold_each_other(point))

    def _hold_each_other(self, point: PointType) -> bool:
        """Whether what evidence excludes depends on other units of the step."""
        for sampler in self._samplers:
            others = {
                name: sum(values) - point[name] for name, values in self._values.items() if name not in sampler.updated
            }
            logits = sampler.logits_at(point)
            try:
                if any(
                    (np.isinf(logits[name]) & (of_others != logits[name])).any()
                    for name, of_others in sampler.logits_at({**point, **others}).items()
                ):
                    return True
            except ValueError:  # no value is left to a unit
                return True
        return False


class DefaultStarts:
    """Tell the start values that PyMC chooses from those that a user gives.

    PyMC starts a variable in one deterministic state if it is given none, and says nowhere which of them it did.

    Parameters
    ----------
    model : Model
    values : sequence of Variable
        Value variables.
    point : mapping
        A point that a chain may start from, whose other variables the defaults may depend on.
    """

    def __init__(self, model: Model, values: Sequence[Variable], point: Mapping[str, np.ndarray]):
        self._graphs: dict[str, tuple[Variable, dict[str, Variable]]] = {}
        # The graphs are small and many, and PyTensor would note down the code that makes each of their nodes.
        with config.change_flags(traceback__limit=0):
            for value in values:
                # What is declared with the variable is a user's as well, the name of a strategy included.
                rv = model.values_to_rvs[value]
                if model.rvs_to_initial_values.get(rv) is None and (graph := _default_start(model, rv)) is not None:
                    self._graphs[str(value.name)] = graph
            self._at_first = self._at(list(self._graphs), point)

    def holds(self, name: str, point: Mapping[str, np.ndarray]) -> bool:
        """Whether the value of a variable at the start of a chain is the default."""
        if name not in self._graphs:
            return False
        # The others may have been given values of their own for this chain, or have been moved by the steps before.
        return np.array_equal(point[name], self._at_first[name]) or np.array_equal(
            point[name], self._at([name], point)[name]
        )

    def _at(self, names: Sequence[str], point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        starts = [self._graphs[name][0] for name in names]
        inputs = {var: other for name in names for other, var in self._graphs[name][1].items()}
        if inputs:
            values = {var: var.type.filter_variable(np.asarray(point[other])) for var, other in inputs.items()}
            starts = graph_replace(starts, values, strict=False)
        return dict(zip(names, evaluate(starts), strict=True))


def _default_start(model: Model, rv: Variable) -> tuple[Variable, dict[str, Variable]] | None:
    """Return PyMC's start value of a variable and the value variables that it depends on; None if it is random."""
    try:
        start = support_point(rv)
    except NotImplementedError:  # then PyMC draws from the prior
        return None
    if isinstance(rv.owner.op, PartialObservedRV):
        # Of the whole variable, which is not in the model, the start needs the shape alone.
        whole, mask = rv.owner.inputs
        stand_in = whole.type.filter_variable(pt.zeros_like(mask, dtype=whole.dtype))
        (start,) = graph_replace([start], {whole: stand_in}, strict=False)
    if not random_inputs([start]):
        return start, {}
    (start,) = model.replace_rvs_by_values([start])
    random = random_inputs([start])
    inputs = {str(var.name): var for var in model.value_vars if var in set(random)}
    return (start, inputs) if len(inputs) == len(random) else None


def _toss(
    rng: np.random.Generator, value: np.ndarray, values: tuple[int, int], logits: np.ndarray | None
) -> np.ndarray:
    """Toss a fair coin for each unit that evidence leaves a choice.

    Parameters
    ----------
    rng : Generator
    value : ndarray
        For shape and type.
    values : tuple of int
        The lower and the upper value of a unit.
    logits : ndarray, shape (n_units,), or None
        From `step_methods.evidence.Evidence`: infinite for units that have no choice.
    """
    ones = rng.integers(0, 2, value.size, dtype=np.int8).astype(bool)
    if logits is not None:
        certain = np.isinf(logits)
        ones[certain] = logits[certain] > 0
    return np.where(ones, values[1], values[0]).astype(value.dtype).reshape(value.shape)


def disperse_units(
    point: PointType,
    name: str,
    values: tuple[int, int],
    logits: np.ndarray | None,
    *,
    by_default: bool,
    rng: np.random.Generator,
    terms: Sequence[Variable],
) -> None:
    """Give a variable a start of its own where it has the default, in place; check one that a user gave.

    Raises
    ------
    ValueError
        If it was given, and contradicts evidence.
    """
    if by_default:
        point[name] = _toss(rng, point[name], values, logits)
    elif logits is not None:
        check_agrees(point[name], name, values, logits, terms)


def check_agrees(
    value: np.ndarray, name: str, values: tuple[int, int], logits: np.ndarray, terms: Sequence[Variable]
) -> None:
    """Raise if a unit starts at a value that evidence excludes.

    Raises
    ------
    ValueError
    """
    certain = np.where(logits > 0, values[1], values[0])
    wrong = np.flatnonzero(np.isinf(logits) & (value.ravel() != certain))
    if not wrong.size:
        return
    labels = [
        f"{name}[{', '.join(str(int(i)) for i in np.unravel_index(k, value.shape))}] must be {certain[k]}"
        if value.ndim
        else f"{name} must be {certain[k]}"
        for k in wrong[:5]
    ]
    more = f" (and {wrong.size - 5} more)" if wrong.size > 5 else ""
    names = ", ".join(repr(str(term.name)) for term in terms)
    raise ValueError(
        f"the start value of {name!r} contradicts the terms {names} of the model, which exclude the other value of a "
        f"unit: {'; '.join(labels)}{more}. pmn.find_start(model) finds starts that agree with all terms: "
        "pm.sample(chains=4, initvals=pmn.find_start(model, chains=4))"
    )


def _hash_of(point: Mapping[str, np.ndarray], names: Sequence[str]) -> int:
    """Return a hash of the values of some variables, of 64 bits."""
    digest = blake2b(digest_size=8)
    for name in names:
        digest.update(np.ascontiguousarray(point[name]).tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)
