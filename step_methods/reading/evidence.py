"""What the other terms of a model say about the units of a network.

A likelihood, a child or a potential that depends on a unit adds to the unit's logit what it gains when the unit goes
from its lower to its upper value. For all units at once that is the difference of two evaluations of the term, with all
units high and with all units low, provided that each element of the term depends on one unit at most. Whether it does
is decided on the graph: from the variable to the term, each element of each array is labelled with the unit that it
depends on, and an operation that would mix units is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pytensor.tensor as pt
from pymc.logprob.utils import CheckParameterValue, local_remove_check_parameter
from pymc.model import Model
from pymc.pytensorf import compile as compile_pymc
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.ops import ViewOp
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.replace import graph_replace
from pytensor.graph.rewriting.basic import in2out
from pytensor.graph.traversal import ancestors
from pytensor.scalar import Add, Cast, Identity
from pytensor.tensor.basic import Alloc, Join, MakeVector, ScalarFromTensor
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.math import All, Sum
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.rewriting.shape import ShapeFeature
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.tensor.subtensor import (
    AdvancedIncSubtensor,
    AdvancedSubtensor,
    IncSubtensor,
    Subtensor,
)

from step_methods.reading.graphs import evaluate, random_inputs
from step_methods.reading.minibatches import check_full_data
from step_methods.reading.readers import NetworkReader

__all__ = ["Evidence", "MixedUnitsError", "check_no_draws", "lengths_change_with", "read_evidence"]

# Operations that only move elements about, and which of their inputs the elements come from; the others are shapes and
# indices.
_MOVING = {
    Alloc: slice(0, 1),
    AdvancedIncSubtensor: slice(0, 2),
    AdvancedSubtensor: slice(0, 1),
    DimShuffle: slice(0, 1),
    IncSubtensor: slice(0, 2),
    Join: slice(0, None),
    MakeVector: slice(0, None),
    Reshape: slice(0, 1),
    ScalarFromTensor: slice(0, 1),
    SpecifyShape: slice(0, 1),
    Subtensor: slice(0, 1),
    ViewOp: slice(0, 1),
}

_NO_UNIT = -1


class MixedUnitsError(ValueError):
    """A term of a model joins several units, so that they are not independent given it."""


class Evidence:
    """The logits that other terms of a model give to the units of one variable.

    Parameters
    ----------
    model : Model
    value : Variable
        The value variable of the units.
    values : tuple of int
        The lower and the upper value of a unit.
    terms : sequence of Variable
        The random variables and potentials whose terms depend on it.
    point : mapping
        A point of the model, for shapes.
    compile_kwargs : mapping, optional

    Raises
    ------
    ValueError
        If a term sees a minibatch, or is drawn anew with each evaluation.
    MixedUnitsError
        A ValueError: if an element of a term depends on more than one unit, or if that cannot be told.

    Notes
    -----
    PyMC gives a term no probability where one of its parameters is out of bounds. Such a value of a unit is excluded,
    unless the model was made with ``check_bounds=False``.

    Attributes
    ----------
    fixed : bool
        Whether the logits depend on nothing that changes during a chain.
    inputs : list of str
        Names of the value variables that they depend on.
    """

    def __init__(
        self,
        model: Model,
        value: Variable,
        values: tuple[int, int],
        terms: Sequence[Variable],
        point: Mapping[str, np.ndarray],
        compile_kwargs: Mapping[str, Any] | None = None,
    ):
        check_full_data(terms)
        self._terms = [str(term.name) for term in terms]
        self._n_units = point[value.name].size
        logps = model.logp(vars=list(terms), sum=False)
        check_no_draws(terms, logps)
        bounds = [
            _Bound(name, condition, outermost)
            for name, logp in zip(self._terms, logps, strict=True)
            for condition, outermost in (_bounds(logp) if model.check_bounds else [])
            if value in set(ancestors([condition]))
        ]
        self._bounds = [(bound.name, bound.outermost) for bound in bounds]
        arrays = [*(_without_checks(logp) for logp in logps), *(bound.condition for bound in bounds)]
        names = [*self._terms, *(bound.name for bound in bounds)]
        labelled = value, dict(point), model, list(zip(names, arrays, strict=True))
        self._find_units(*labelled)
        may_change = any(isinstance(variable, SharedVariable) for variable in ancestors(arrays))
        self._labelled = labelled if may_change else None
        shape = point[value.name].shape
        low, high = (
            graph_replace(arrays, {value: pt.constant(np.full(shape, unit, value.dtype))}, strict=False)
            for unit in values
        )
        inputs = [var for var in model.value_vars if var in set(ancestors([*low, *high]))]
        self.inputs = [var.name for var in inputs]
        self.fixed = not inputs
        n_terms = len(logps)
        outputs, self._conditions = [*low[:n_terms], *high[:n_terms]], [*low[n_terms:], *high[n_terms:]]
        if bounds:
            outputs.append(pt.all(pt.stack([pt.all(condition) for condition in self._conditions])))
        self._symbolic_inputs, self._compile_kwargs = inputs, dict(compile_kwargs or {})
        self._function = self._compiled(outputs)

    def _compiled(self, outputs: Sequence[Variable]) -> Callable:
        return compile_pymc(self._symbolic_inputs, list(outputs), on_unused_input="ignore", **self._compile_kwargs)

    @cached_property
    def _function_of_conditions(self) -> Callable:
        """What tells the conditions apart; most models never need it."""
        return self._compiled(self._conditions)

    def start(self) -> None:
        """Find anew, at the start of a chain, which units the terms depend on: shared data may be their indices."""
        if self._labelled is not None:
            self._find_units(*self._labelled)

    def _find_units(
        self,
        value: Variable,
        point: Mapping[str, np.ndarray],
        model: Model,
        arrays: Sequence[tuple[str, Variable]],
    ) -> None:
        units_of = _UnitsOf(value, point, model)
        spreads = [_Spread(units_of.units(array, name), self._n_units) for name, array in arrays]
        self._spreads, self._bound_spreads = spreads[: len(self._terms)], spreads[len(self._terms) :]

    def logits(self, point: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the sum over the terms of log p(unit high) − log p(unit low), shape (n_units,).

        Raises
        ------
        ValueError
            If a term is not a number, or if both values of a unit are excluded.
        """
        values = [point[name] for name in self.inputs]
        outputs = self._function(*values)
        n_terms = len(self._terms)
        in_bounds = not self._bounds or bool(outputs[-1])
        logits = np.zeros(self._n_units)
        with np.errstate(invalid="ignore"):
            gains = [
                # In float64: PyTensor makes whole numbers of the smallest type that holds them, which would overflow.
                spread.own(np.asarray(high, np.float64) - np.asarray(low, np.float64))
                for spread, low, high in zip(self._spreads, outputs, outputs[n_terms:], strict=False)
            ]
            if not in_bounds:
                no_low, no_high = self._out_of_bounds(values)
                for spread, gain in zip(self._spreads, gains, strict=True):
                    gain[(no_low | no_high)[spread.units]] = 0
                logits[no_low] += np.inf
                logits[no_high] -= np.inf
            for spread, gain in zip(self._spreads, gains, strict=True):
                logits += spread.sum_over_units(gain)
        if np.isnan(logits).any():
            self._refuse(logits, gains)
        return logits

    def _out_of_bounds(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return for each unit whether a parameter is out of bounds at its lower, and at its upper value."""
        conditions = self._function_of_conditions(*values)
        n_bounds = len(self._bounds)
        return [self._excluded(conditions[:n_bounds]), self._excluded(conditions[n_bounds:])]

    def _excluded(self, conditions: Sequence[np.ndarray]) -> np.ndarray:
        excluded = np.zeros(self._n_units, bool)
        for (name, outermost), spread, condition in zip(self._bounds, self._bound_spreads, conditions, strict=True):
            violating = spread.units[~spread.own(np.asarray(condition, bool))]
            if violating.size and not outermost:
                raise ValueError(
                    f"the term {name!r} of the model has a component with a parameter that is out of bounds for one "
                    f"of the values of the unit {violating[0]}"
                )
            excluded[violating] = True
        return excluded

    def _refuse(self, logits: np.ndarray, gains: Sequence[np.ndarray]) -> NoReturn:
        for name, gain in zip(self._terms, gains, strict=True):
            if np.isnan(gain).any():
                raise ValueError(
                    f"the term {name!r} of the model has no probability for either value of a unit, or none "
                    "that is a number"
                )
        raise ValueError(
            f"the terms {', '.join(map(repr, self._terms))} of the model leave no value to the unit "
            f"{np.flatnonzero(np.isnan(logits))[0]}"
        )


def check_no_draws(terms: Sequence[Variable], logps: Sequence[Variable]) -> None:
    """Raise if the log-probability of a term is itself random, as that of ``pm.Simulator``.

    Parameters
    ----------
    terms : sequence of Variable
        Random variables and potentials, for their names.
    logps : sequence of Variable
        Their log-probabilities.

    Raises
    ------
    ValueError
    """
    for term, logp in zip(terms, logps, strict=True):
        shapes = [
            part for part in ancestors([logp]) if part.owner is not None and isinstance(part.owner.op, Shape | Shape_i)
        ]
        if any(isinstance(part.type, RandomType) for part in ancestors([logp], blockers=shapes)):
            raise ValueError(
                f"the log-probability of the term {term.name!r} of the model is drawn anew with each evaluation, as "
                "that of pm.Simulator or of a variable made by .dist() that is not in the model: step methods of this "
                "package need one that is a function of the model's variables. Use pymc.sample_smc for simulators"
            )


def lengths_change_with(variables: Sequence[Variable], inputs: Collection[Variable]) -> bool:
    """Whether the shape of a variable, or of one that it is made of, depends on the values of inputs.

    Where PyTensor does not know a shape beforehand, it is taken to depend on all that the variable does.
    """
    shapes = ShapeFeature()
    graph = FunctionGraph(outputs=list(variables), clone=False, features=[shapes])
    pending = []
    for output in (output for node in graph.apply_nodes for output in node.outputs):
        for length in shapes.shape_tuple(output) or ():
            node = length.owner
            is_unknown = node is not None and isinstance(node.op, Shape_i) and node.inputs[0] is output
            pending.append(output if is_unknown else length)
    seen: set[Variable] = set()
    while pending:
        part = pending.pop()
        if part in inputs:
            return True
        if part.owner is None or part in seen:
            continue
        seen.add(part)
        if not (isinstance(part.owner.op, Shape | Shape_i) and part.owner.inputs[0] in graph.variables):
            pending += part.owner.inputs
    return False


def read_evidence(
    model: Model,
    reader: NetworkReader,
    value_vars: Mapping[str, Variable],
    point: Mapping[str, np.ndarray],
    compile_kwargs: Mapping[str, Any] | None,
) -> dict[str, Evidence]:
    """Read what other terms of a model say about the units of a network, by the names of value variables.

    Parameters
    ----------
    model : Model
    reader : NetworkReader
    value_vars : mapping
        The value variables of its units, by name.
    point : mapping
        A point of the model, for shapes.
    compile_kwargs : mapping, optional

    Raises
    ------
    ValueError
        If a term depends on units that do not have two values: of those the logits tell nothing. See also `Evidence`.
    MixedUnitsError
        See `Evidence`.
    """
    evidence = {}
    for name, terms in reader.terms.items():
        if not terms:
            continue
        values = reader.free_layers[name].values
        if values is None or len(values) != 2:
            names = ", ".join(repr(str(term.name)) for term in terms)
            kind = "a Gaussian variable" if values is None else f"a variable with {len(values)} values"
            other = "pymc.NUTS" if values is None else "another step method"
            rest = ". Its hidden units may stay with this step method" if reader.network.has_hidden_layer else ""
            raise ValueError(
                f"the term {names} of the model depends on {name!r}, {kind} that this step method draws from its own "
                f"distribution only: sample it with {other} instead{rest}"
            )
        low, high = values
        evidence[name] = Evidence(model, value_vars[name], (low, high), terms, point, compile_kwargs)
    return evidence


class _Spread:
    """How the elements of an array are spread over the units, most often one to each.

    Parameters
    ----------
    labels : ndarray of int
        The unit of each element, −1 where it depends on none.
    n_units : int

    Attributes
    ----------
    units : ndarray of int
        The units of the elements that depend on one.
    """

    def __init__(self, labels: np.ndarray, n_units: int):
        depends = labels != _NO_UNIT
        self.units = labels[depends]
        self._n_units = n_units
        self._depends = None if depends.all() else depends
        self._one_each = np.array_equal(self.units, np.arange(n_units))

    def own(self, array: np.ndarray) -> np.ndarray:
        """Return the elements that depend on a unit, one after another."""
        return array.ravel() if self._depends is None else array[self._depends]

    def sum_over_units(self, own: np.ndarray) -> np.ndarray:
        """Add up, for each unit, the elements that depend on it."""
        return own if self._one_each else np.bincount(self.units, own, self._n_units)


def _without_checks(logp: Variable) -> Variable:
    """Take PyMC's checks of parameters out: one unit's impossible value must not condemn the others'."""
    graph = FunctionGraph(outputs=[logp], clone=False)
    in2out(local_remove_check_parameter).rewrite(graph)
    return graph.outputs[0]


class _Bound(NamedTuple):
    """A condition on the parameters of a term, and whether the whole term is excluded where it does not hold."""

    name: str
    condition: Variable
    outermost: bool


# Operations that keep all elements of their first input, or all that is −inf in it.
_KEEPING_ALL = (Alloc, CheckParameterValue, DimShuffle, Reshape, ScalarFromTensor, SpecifyShape, Sum, ViewOp)
# Those that put elements of inputs beside others, and those that leave elements out.
_JOINING, _CHOOSING = (Join, MakeVector), (AdvancedSubtensor, Subtensor)


def _bounds(logp: Variable) -> Iterator[tuple[Variable, bool]]:
    """Yield the conditions of PyMC's checks of parameters, and whether they exclude the whole term."""
    outermost = _excluding(logp)
    for variable in ancestors([logp]):
        node = variable.owner
        if node is not None and isinstance(node.op, CheckParameterValue) and node.op.can_be_replaced_by_ninf:
            for check in node.inputs[1:]:
                yield from ((condition, node in outermost) for condition in _conditions(check))


def _excluding(logp: Variable) -> set[Apply]:
    """Return the nodes whose output excludes all of a term where it is −inf everywhere.

    Going down from the term, an input may be −inf anywhere in it, until an operation leaves elements out: what is below
    must be −inf everywhere.
    """
    found: set[tuple[Apply, bool]] = set()
    pending = [(logp, False)]
    while pending:
        variable, everywhere = pending.pop()
        node = variable.owner
        if node is None or (node, everywhere) in found:
            continue
        adds = isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, Add | Cast | Identity)
        if adds or (isinstance(node.op, _JOINING) and not everywhere):
            below = [(part, everywhere) for part in node.inputs]
        elif isinstance(node.op, _KEEPING_ALL):
            below = [(node.inputs[0], everywhere)]
        elif isinstance(node.op, _CHOOSING):
            below = [(node.inputs[0], True)]
        else:
            continue
        found.add((node, everywhere))
        pending += below
    return {node for node, _ in found}


def _conditions(check: Variable) -> Iterator[Variable]:
    """Yield the arrays all of whose elements must be true; PyMC reduces them to one scalar."""
    node = check.owner
    if node is not None and isinstance(node.op, All | MakeVector | ScalarFromTensor):
        for part in node.inputs:
            yield from _conditions(part)
    else:
        yield check


class _UnitsOf:
    """Label the elements of arrays with the unit that they depend on.

    Parameters
    ----------
    value : Variable
        The units.
    point : mapping
        A point of the model, for shapes.
    model : Model
    """

    def __init__(self, value: Variable, point: Mapping[str, np.ndarray], model: Model):
        self._at_point = {var: pt.constant(np.asarray(point[var.name], var.dtype)) for var in model.value_vars}
        shape = point[value.name].shape
        self._labels: dict[Variable, np.ndarray | None] = {value: np.arange(np.prod(shape, dtype=int)).reshape(shape)}

    def units(self, term: Variable, name: str) -> np.ndarray:
        """Return the unit of each element of a term, −1 where it depends on none.

        Raises
        ------
        ValueError
            If an element depends on more than one unit, or if that cannot be told.
        """
        try:
            return self._filled(term, self._label(term))
        except _Mixed as mixed:
            raise MixedUnitsError(
                f"the term {name!r} of the model may depend on several units at once (through {mixed}): this step "
                "method takes terms in which each element depends on one unit, through element-wise operations, "
                "constant indices and sums over other axes. Use NeuralSampling (tau=1 is Gibbs sampling), which "
                "samples such variables through the compiled log-probability, or for 0/1 units "
                "pymc.BinaryGibbsMetropolis"
            ) from None

    def _label(self, variable: Variable) -> np.ndarray | None:
        if variable not in self._labels:
            node = variable.owner
            self._labels[variable] = None if node is None else self._label_output(node, variable)
        return self._labels[variable]

    def _label_output(self, node: Apply, output: Variable) -> np.ndarray | None:
        if isinstance(node.op, Shape | Shape_i):
            # What can be labelled has a shape that no unit changes, unlike ``x[z > 0]``.
            if None in node.inputs[0].type.shape:
                self._label(node.inputs[0])
            return None
        labels = [self._label(variable) for variable in node.inputs]
        if all(label is None for label in labels):
            return None
        if isinstance(node.op, Elemwise):
            return self._merge(node, labels)
        if isinstance(node.op, CAReduce):
            return _reduce(node, labels[0])
        if type(node.op) in _MOVING:
            return self._move(node, labels)
        if isinstance(node.op, OpFromGraph):
            return self._label(node.op.fgraph.bind(node.inputs)[node.outputs.index(output)])
        raise _Mixed(node)

    def _merge(self, node: Apply, labels: Sequence[np.ndarray | None]) -> np.ndarray:
        """Label the result of an element-wise operation, whose inputs broadcast."""
        arrays = [self._filled(variable, label) for variable, label in zip(node.inputs, labels, strict=True)]
        merged = arrays[0]
        for array in arrays[1:]:
            merged = _merged(node, merged, array)
        return merged

    def _move(self, node: Apply, labels: Sequence[np.ndarray | None]) -> np.ndarray:
        """Let the operation itself move the labels to where it moves the elements."""
        if not getattr(node.op, "set_instead_of_inc", True):
            raise _Mixed(node)
        elements = range(len(node.inputs))[_MOVING[type(node.op)]]
        if isinstance(node.op, Subtensor | AdvancedSubtensor) and labels[0] is None:
            return self._choose(node, labels)
        inputs: list[Any] = []
        for i, (variable, label) in enumerate(zip(node.inputs, labels, strict=True)):
            if i in elements:
                inputs.append(pt.constant(self._filled(variable, label)))
            elif label is None and not random_inputs([fixed := self._with_shapes(variable)]):
                inputs.append(fixed)
            else:
                raise _Mixed(node)
        return evaluate([node.op.make_node(*inputs).outputs[0]])[0].astype(int)

    def _choose(self, node: Apply, labels: Sequence[np.ndarray | None]) -> np.ndarray:
        """Label what units choose from an array that does not depend on them, such as ``mu[z]``.

        Along the axis that an index chooses from, the array is replaced by the labels, and the index by its own.
        """
        array, *indices = node.inputs
        shape = self._shape(array)
        for k, index in enumerate(indices):
            if k not in node.op.idx_list and random_inputs([self._with_shapes(index)]):  # a bound of a slice
                raise _Mixed(node)
            self._shape(index)
        at_point = [pt.constant(self._value(index)) for index in indices]
        merged = None
        for k, label in enumerate(labels[1:]):
            if label is None:
                continue
            if indices[k].type.dtype == "bool":  # the units say how many are chosen
                raise _Mixed(node)
            axis = node.op.idx_list.index(k)
            n_labels = int(label.max(initial=0)) + 2
            names = np.arange(n_labels).reshape(-1, *[1] * (len(shape) - axis - 1)) + _NO_UNIT
            table = np.broadcast_to(names, (*shape[:axis], n_labels, *shape[axis + 1 :]))
            own = [*at_point[:k], pt.constant(label - _NO_UNIT), *at_point[k + 1 :]]
            chosen = evaluate([node.op.make_node(pt.constant(table), *own).outputs[0]])[0]
            merged = chosen if merged is None else _merged(node, merged, chosen)
        assert merged is not None
        return merged

    def _with_shapes(self, variable: Variable) -> Variable:
        """Return a variable with the shapes that it depends on, which do not change, put in as numbers."""
        shapes = [
            part
            for part in ancestors([variable])
            if part.owner is not None and isinstance(part.owner.op, Shape | Shape_i)
        ]
        at_point = {part: pt.constant(self._value(part), dtype=part.dtype) for part in shapes}
        return graph_replace([variable], at_point, strict=False)[0] if shapes else variable

    def _filled(self, variable: Variable, label: np.ndarray | None) -> np.ndarray:
        return np.full(self._shape(variable), _NO_UNIT) if label is None else label

    def _shape(self, variable: Variable) -> tuple[int, ...]:
        if None in variable.type.shape and lengths_change_with([variable], self._at_point):
            raise _Mixed(variable.owner)
        return self._value(variable).shape

    def _value(self, variable: Variable) -> np.ndarray:
        at_point = graph_replace([variable], self._at_point, strict=False)
        return np.asarray(evaluate(at_point)[0])


def _merged(node: Apply, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    if ((labels != others) & (labels != _NO_UNIT) & (others != _NO_UNIT)).any():
        raise _Mixed(node)
    return np.maximum(labels, others)


def _reduce(node: Apply, labels: np.ndarray | None) -> np.ndarray:
    """Label a sum or another reduction over axes that do not carry different units."""
    assert labels is not None
    if not labels.ndim:
        return labels  # PyTensor reduces a number over an axis that it does not have, as in `pm.CAR`
    axes = node.op.axis
    highest = labels.max(axis=axes, initial=_NO_UNIT)
    lowest = np.where(labels == _NO_UNIT, labels.max(initial=0) + 1, labels).min(
        axis=axes, initial=labels.max(initial=0) + 1
    )
    if ((highest != lowest) & (highest != _NO_UNIT)).any():
        raise _Mixed(node)
    return np.asarray(highest)


class _Mixed(Exception):
    """An operation whose result may depend on several units."""

    def __init__(self, node: Apply):
        super().__init__(str(node.op))
