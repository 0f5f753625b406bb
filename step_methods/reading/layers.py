"""Layers of networks among the variables of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pymc.logprob.abstract import _logprob
from pymc.model import Model
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.basic import BernoulliRV

from step_methods.network import (
    GaussianNetwork,
    IndependentNetwork,
    Network,
    hidden_layer_of,
    is_binary_energy_op,
    network_of,
)
from step_methods.reading.graphs import evaluate
from step_methods.reading.masks import joined_node, masked_rows, own_node, parts_of

__all__ = [
    "LayerReader",
    "check_units",
    "distribution_of",
    "free_variable",
    "is_binary_energy",
    "is_layer",
    "known_network",
    "network_node",
    "two_values",
    "visible_layer",
]


def known_network(node: Apply) -> Network | None:
    """Return the network that a node's variable is the visible layer of, None where its law is not known to be that."""
    return network_of(node.op, node) if _has_own_logp(node.op, network_of) else None


def visible_layer(node: Apply) -> Variable | None:
    """Return the visible layer of the hidden one that a node's variable is, None if it is none."""
    return hidden_layer_of(node.op, node) if _has_own_logp(node.op, hidden_layer_of) else None


def _has_own_logp(op: Op, extension_point: Any) -> bool:
    """Whether an ``Op`` has the log-probability of the one that is registered: a subclass may have another."""
    registered = next(kind for kind in type(op).__mro__ if kind in extension_point.registry)
    return _logprob.dispatch(type(op)) is _logprob.dispatch(registered)


def network_node(variable: Variable) -> tuple[Apply, Network] | None:
    """Find the node of a visible layer and its network, also where data masked a part of the layer.

    Parameters
    ----------
    variable : Variable
        A random variable, or the deterministic that PyMC returns for masked data.

    Returns
    -------
    (Apply, network) or None
        None if the variable is not the visible layer of a network.
    """
    parts = parts_of(variable)
    node = own_node(parts[0]) if parts else None
    if node is None:
        return None
    split = masked_rows(variable)
    whole = node if split is None else joined_node(*split)
    network = known_network(whole)
    return None if network is None else (node, network)


def is_layer(rv: Variable) -> bool:
    """Whether a random variable is the visible or the hidden layer of a network whose units are coupled."""
    node = own_node(rv)
    return node is not None and (
        not isinstance(known_network(node), GaussianNetwork | IndependentNetwork | None)
        or visible_layer(node) is not None
    )


def is_binary_energy(rv: Variable) -> bool:
    """Whether a random variable is made by an ``Op`` for which `is_binary_energy_op` holds, masked data or not."""
    node = own_node(rv)
    return node is not None and is_binary_energy_op(node.op)


def two_values(rv: Variable) -> tuple[int, int] | None:
    """Return the two values of a variable's units, the lower first; None if they have others, or are not known.

    They are known of layers of networks, of ``pm.Bernoulli`` and of binary energies, masked data or not.
    """
    node = own_node(rv)
    if node is None:
        return None
    if isinstance(node.op, BernoulliRV) or is_binary_energy_op(node.op) or visible_layer(node) is not None:
        return 0, 1
    network = known_network(node)
    if network is None or network.values is None or len(network.values) != 2:
        return None
    low, high = network.values
    return low, high


def distribution_of(rv: Variable) -> str:
    """Return the name of a random variable's distribution, for errors."""
    node = own_node(rv)
    return "none" if node is None else type(node.op).__name__


def free_variable(model: Model, variable: Variable) -> Variable:
    """Return the random variable of a layer's free units.

    Parameters
    ----------
    model : Model
    variable : Variable
        A free random variable or its value, or the deterministic that PyMC returns for masked data.

    Raises
    ------
    TypeError
        If it is not a variable.
    ValueError
        If all units are observed.
    """
    if not isinstance(variable, Variable):
        raise TypeError(f"vars must be variables of the model, got {variable!r}")
    rv = model.values_to_rvs.get(variable, variable)
    parts = parts_of(rv)
    free = [part for part in parts if part in model.free_RVs]
    if parts and not free and any(part in model.observed_RVs for part in parts):
        raise ValueError(
            f"{rv.name!r} is observed entirely: no unit of it is left to sample. Mask the unknown ones in its data"
        )
    return free[0] if free else rv


class LayerReader:
    """Read one layer of a network: which of its units are free, and the values of the clamped ones.

    Parameters
    ----------
    model : Model
    variable : Variable
        The layer as the model's graph has it: a random variable, or the deterministic that joins the free
        and the observed part of a masked one.
    initial_point : mapping
        For the shapes of free variables.
    values : tuple of int, optional
        The values that a unit can have; None for real units.

    Attributes
    ----------
    name : str
        Of the variable, as the user gave it.
    free_rv : Variable or None
        The random variable of the free units.
    value_name : str or None
        Name of its value in a point. None where all units are observed.
    constant : bool
        Whether the clamped values never change: no shared data among them.
    """

    def __init__(
        self,
        model: Model,
        variable: Variable,
        initial_point: Mapping[str, np.ndarray],
        values: tuple[int, ...] | None = (0, 1),
    ):
        self.values = values
        self.name = str(variable.name)
        self._dtype = np.dtype(np.int64 if values else variable.dtype)
        free: list[Variable] = []
        observed: list[Variable] = []
        for rv in parts_of(variable):
            (observed if rv in model.observed_RVs else free).append(rv)
        self.free_rv = free[0] if free else None
        if free and (transform := model.rvs_to_transforms[free[0]]) is not None:
            raise ValueError(
                f"{free[0].name!r} has the transform {transform.name!r}, and step methods of this package know its law "
                f"without one only: leave the transform out, or sample it with a step method of PyMC, such as pymc.NUTS"
            )
        self.value_name: str | None = model.rvs_to_values[free[0]].name if free else None
        self._observed_values = {rv: model.rvs_to_values[rv] for rv in observed}
        self._variable = variable
        self._free_shape = initial_point[self.value_name].shape if self.value_name else ()
        self.constant = not any(isinstance(var, SharedVariable) for var in ancestors(self._observed_values.values()))

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the layer with its clamped values, and the mask of its free units.

        Returns
        -------
        values : ndarray, shape (*batch, n_units)
            Of int64, or of the type of the variable where units are real. Zero where a unit is free.
        free : ndarray of bool, same shape
            The free units in row-major order are the units of the free variable in its own.
        """
        if not self._observed_values:
            return np.zeros(self._free_shape, self._dtype), np.ones(self._free_shape, bool)
        clamped = dict(self._observed_values)
        marks: dict[Variable, Any] = {rv: value.zeros_like() for rv, value in clamped.items()}
        if self.free_rv is not None:
            clamped[self.free_rv] = np.zeros(self._free_shape, self._dtype)
            marks[self.free_rv] = np.ones(self._free_shape, self._dtype)
        values, free = evaluate([self._with(clamped), self._with(marks)])
        free = free.astype(bool)
        values = np.asarray(values)
        check_units(values[~free], self.values, f"the data of {self.name!r}")
        return values.astype(self._dtype), free

    def _with(self, parts: Mapping[Variable, Any]) -> Variable:
        if self._variable in parts:
            return parts[self._variable]
        typed = {rv: rv.type.filter_variable(part) for rv, part in parts.items()}
        return graph_replace([self._variable], typed)[0]


def check_units(units: np.ndarray, values: tuple[int, ...] | None, what: str) -> None:
    """Raise if a unit has none of its values or, where it may have any, if it is not a finite number.

    Raises
    ------
    ValueError
    """
    if values is None:
        if not np.isfinite(units).all():
            raise ValueError(f"{what} must be finite everywhere, got {units[~np.isfinite(units)].flat[0]}")
        return
    wrong = units[~np.isin(units, values)]
    if wrong.size:
        *others, last = map(str, values)
        raise ValueError(f"{what} must be {', '.join(others)} or {last} everywhere, got {wrong.flat[0]}")
