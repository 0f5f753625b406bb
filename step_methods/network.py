"""Read networks of units off a PyMC model.

A step method has to know which variables of a model are layers of one network, which couplings and biases
they have, which units are clamped, and what else in the model depends on them. It learns all of it from
the model's graph, through two functions that dispatch on the variable's ``Op``, as PyMC's own ``_logprob`` does:

- `network_of` says which network a random variable is the visible layer of;
- `hidden_layer_of` says which visible layer a random variable is the hidden layer of.

They are the extension point. A distribution of a third party becomes known to every step method of
this package with one registration::

    @network_of.register(MyRBMRV)
    def my_network(op, node):
        W, a, b = op.dist_params(node)
        return RestrictedNetwork(W, a, b, normalized=False)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.distribution import PartialObservedRV
from pymc.logprob.abstract import _logprob
from pymc.model import Model
from pymc.pytensorf import compile as compile_pymc
from pymc.util import get_untransformed_name, is_transformed_name
from pytensor import function
from pytensor.compile.mode import Mode
from pytensor.compile.ops import ViewOp
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Constant, Variable, equal_computations
from pytensor.graph.op import Op
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.basic import AllocEmpty
from pytensor.tensor.random.basic import MvNormalRV
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.shape import SpecifyShape
from pytensor.tensor.subtensor import AdvancedIncSubtensor
from scipy.sparse import csr_array

__all__ = [
    "GaussianNetwork",
    "GaussianRestrictedNetwork",
    "LayerReader",
    "NetworkReader",
    "PairwiseNetwork",
    "ParameterReader",
    "RestrictedNetwork",
    "check_copies",
    "check_units",
    "evaluate",
    "free_variable",
    "hidden_layer_of",
    "is_binary_energy",
    "is_binary_energy_op",
    "is_layer",
    "network_node",
    "network_of",
    "random_inputs",
    "read_networks",
]

# Evaluates constant graphs in milliseconds, where compiling them would take seconds.
_EVALUATE = Mode(linker="py", optimizer=None)


@dataclass(frozen=True)
class RestrictedNetwork:
    """A network of two layers of 0/1 units, no couplings within a layer.

    Its energy is E(v, h) = −a·v − b·h − vᵀWh.

    Attributes
    ----------
    couplings : TensorVariable, shape (..., n_visible, n_hidden)
        W.
    visible_biases : TensorVariable, shape (..., n_visible)
        a.
    hidden_biases : TensorVariable, shape (..., n_hidden)
        b.
    normalized : bool
        Whether the variable's log-probability includes log Z. Without it the parameters must not depend on
        other random variables.
    """

    couplings: Variable
    visible_biases: Variable
    hidden_biases: Variable
    normalized: bool
    values: ClassVar[tuple[int, int]] = (0, 1)

    @property
    def parameters(self) -> dict[str, Variable]:
        """What is read of the network's values, by the names for errors: W, a, b."""
        return {
            "couplings W": self.couplings,
            "visible biases a": self.visible_biases,
            "hidden biases b": self.hidden_biases,
        }


@dataclass(frozen=True, eq=False)
class PairwiseNetwork:
    """A network of two-valued units with couplings between any pairs of them.

    Its energy is E(z) = −b·z − ½ c zᵀJz, with units in {0, 1} or in {−1, +1}.

    Attributes
    ----------
    couplings : scipy.sparse.csr_array, shape (n_units, n_units)
        J, symmetric with zero diagonal: constant data.
    coupling : TensorVariable, shape (...)
        c, which multiplies J.
    biases : TensorVariable, shape (..., n_units)
        b, over the raveled axes of the field.
    values : tuple of int
        The lower and the upper value of a unit: (0, 1) or (-1, 1).
    ndim : int
        Number of axes of the field, which the units are raveled from.
    normalized : bool
        Whether the variable's log-probability includes log Z. Without it the parameters must not depend on
        other random variables.
    """

    couplings: csr_array
    coupling: Variable
    biases: Variable
    values: tuple[int, int]
    ndim: int
    normalized: bool

    @property
    def parameters(self) -> dict[str, Variable]:
        """What is read of the network's values, by the names for errors: c, b."""
        return {"coupling": self.coupling, "biases": self.biases}


@dataclass(frozen=True)
class GaussianRestrictedNetwork:
    """A network of a layer of real units and one of 0/1 units, no couplings within a layer.

    Its energy is E(v, h) = Σ (v−a)²/2σ² − b·h − (v/σ²)ᵀWh.

    Attributes
    ----------
    couplings : TensorVariable, shape (..., n_visible, n_hidden)
        W.
    visible_biases : TensorVariable, shape (..., n_visible)
        a.
    hidden_biases : TensorVariable, shape (..., n_hidden)
        b.
    sigma : TensorVariable, shape (..., n_visible)
        σ, the standard deviation of a visible unit given the hidden ones.
    normalized : bool
        Whether the variable's log-probability includes log Z. Without it the parameters must not depend on
        other random variables.
    """

    couplings: Variable
    visible_biases: Variable
    hidden_biases: Variable
    sigma: Variable
    normalized: bool
    values: ClassVar[None] = None

    @property
    def parameters(self) -> dict[str, Variable]:
        """What is read of the network's values, by the names for errors: W, a, b, sigma."""
        return {
            "couplings W": self.couplings,
            "visible biases a": self.visible_biases,
            "hidden biases b": self.hidden_biases,
            "standard deviations sigma": self.sigma,
        }


@dataclass(frozen=True, eq=False)
class GaussianNetwork:
    """A network of real-valued units, which are jointly Gaussian: PyMC's ``MvNormal``.

    Its energy is E(x) = ½ (x − μ)ᵀ Σ⁻¹ (x − μ).

    Attributes
    ----------
    mean : TensorVariable, shape (..., n_units)
        μ.
    covariance : TensorVariable, shape (..., n_units, n_units)
        Σ.
    """

    mean: Variable
    covariance: Variable
    normalized: ClassVar[bool] = True
    values: ClassVar[None] = None

    @property
    def parameters(self) -> dict[str, Variable]:
        """What is read of the network's values, by the names for errors: mu, cov."""
        return {"mean": self.mean, "covariance": self.covariance}


type Network = RestrictedNetwork | GaussianRestrictedNetwork | PairwiseNetwork | GaussianNetwork

# A subclass may mean something else.
_SAMPLED = (RestrictedNetwork, GaussianRestrictedNetwork, PairwiseNetwork, GaussianNetwork)


@singledispatch
def network_of(op: Op, node: Apply) -> Network | None:
    """Return the network that a random variable is the visible layer of, None if it is of none.

    Parameters
    ----------
    op : Op
        The ``Op`` of the random variable, on which the function dispatches.
    node : Apply
        The node that the ``Op`` made.
    """
    return None


@network_of.register(MvNormalRV)
def _mv_normal_network(op: MvNormalRV, node: Apply) -> GaussianNetwork:
    # PyMC turns tau and chol into the covariance when the variable is declared.
    mean, covariance = op.dist_params(node)
    return GaussianNetwork(mean, covariance)


@singledispatch
def hidden_layer_of(op: Op, node: Apply) -> Variable | None:
    """Return the visible layer that a random variable is the hidden layer of, None if it is of none.

    The variable must be distributed as the hidden units of the visible layer's network given that layer.

    Parameters
    ----------
    op : Op
        The ``Op`` of the random variable, on which the function dispatches.
    node : Apply
        The node that the ``Op`` made.
    """
    return None


@singledispatch
def is_binary_energy_op(op: Op) -> bool:
    """Whether a random variable has units in {0, 1} with a log-density that tells nothing of their couplings.

    Such units are sampled one after the other through the compiled log-density.

    Parameters
    ----------
    op : Op
        The ``Op`` of the random variable, on which the function dispatches.
    """
    return False


def _network(node: Apply) -> Network | None:
    return network_of(node.op, node) if _has_own_logp(node.op, network_of) else None


def _visible_layer(node: Apply) -> Variable | None:
    return hidden_layer_of(node.op, node) if _has_own_logp(node.op, hidden_layer_of) else None


def _has_own_logp(op: Op, extension_point: Any) -> bool:
    """Whether an ``Op`` has the log-probability of the one that is registered: a subclass may have another."""
    registered = next(kind for kind in type(op).__mro__ if kind in extension_point.registry)
    return _logprob.dispatch(type(op)) is _logprob.dispatch(registered)


def random_inputs(variables: Sequence[Variable]) -> list[Variable]:
    """Find what makes variables random: draws, or free inputs that stand for draws.

    Constants and shared data are fixed; a random variable, and in a log-probability the value that took
    its place, are not.

    Parameters
    ----------
    variables : sequence of Variable

    Returns
    -------
    list of Variable
        Empty if the variables are fixed.
    """
    return [
        variable
        for variable in ancestors(variables)
        if not isinstance(variable.type, RandomType)
        and (
            any(isinstance(source.type, RandomType) for source in variable.owner.inputs)
            if variable.owner
            else not isinstance(variable, Constant | SharedVariable)
        )
    ]


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
    parts = _parts(variable)
    node = _own_node(parts[0]) if parts else None
    if node is None:
        return None
    split = _masked_rows(variable)
    whole = node if split is None else _joined_node(*split)
    network = _network(whole)
    return None if network is None else (node, network)


def is_layer(rv: Variable) -> bool:
    """Whether a random variable is the visible or the hidden layer of a network with two-valued units."""
    node = _own_node(rv)
    return node is not None and (
        not isinstance(_network(node), GaussianNetwork | None) or _visible_layer(node) is not None
    )


def is_binary_energy(rv: Variable) -> bool:
    """Whether a random variable is made by an ``Op`` for which `is_binary_energy_op` holds, masked data or not."""
    node = _own_node(rv)
    return node is not None and is_binary_energy_op(node.op)


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
    parts = _parts(rv)
    free = [part for part in parts if part in model.free_RVs]
    if parts and not free and any(part in model.observed_RVs for part in parts):
        raise ValueError(
            f"{rv.name!r} is observed entirely: no unit of it is left to sample. Mask the unknown ones in its data"
        )
    return free[0] if free else rv


def _own_node(rv: Variable) -> Apply | None:
    """Return the node of a random variable, which a mask hides in one of its inputs."""
    node = rv.owner
    if node is not None and isinstance(node.op, PartialObservedRV):
        return node.inputs[0].owner
    return node


def _parts(variable: Variable) -> list[Variable]:
    """Return the random variables that a layer is joined from: itself if no data were masked, none if it is no layer.

    What is computed from random variables in any other way than by `pymc.Model` for masked data has no parts.
    """
    variable = _without_views(variable)
    if variable.owner is not None and isinstance(variable.owner.op, RNGConsumerOp):
        return [variable]
    masked = _masked(variable)
    return [] if masked is None else [masked.free, masked.observed]


# Operations that return their first input as it is.
_SAME_VALUE = (ViewOp, SpecifyShape)


def _without_views(variable: Variable) -> Variable:
    while variable.owner is not None and type(variable.owner.op) in _SAME_VALUE:
        variable = variable.owner.inputs[0]
    return variable


class _Masked(NamedTuple):
    """The free and the observed part of a variable whose data are masked, and where it is free."""

    free: Variable
    observed: Variable
    mask: np.ndarray


def _masked(variable: Variable) -> _Masked | None:
    """Take apart what `pymc.Model` joins where data are masked; None if a variable was made in another way.

    The model writes the free part, and then the observed one, into an empty array, each where its own mask is true.
    """
    outer = _written(_without_views(variable))
    inner = None if outer is None else _written(outer.array)
    if outer is None or inner is None or inner.array.owner is None:
        return None
    if not isinstance(inner.array.owner.op, AllocEmpty) or not np.array_equal(outer.mask, ~inner.mask):
        return None
    free, observed = inner.part, outer.part
    if free.owner is observed.owner:
        mask = free.owner.inputs[-1]
        is_split = (
            isinstance(free.owner.op, PartialObservedRV)
            and [observed, free] == free.owner.outputs
            and isinstance(mask, Constant)
            and np.array_equal(mask.data, inner.mask)
        )
    else:
        # Where a mask takes whole variables of a batch each part is a variable with the parameters that are its own.
        name = str(free.name).removesuffix("_unobserved")
        names = f"{name}_unobserved", f"{name}_observed"
        is_split = free.owner.op == observed.owner.op and (free.name, observed.name) == names
    return _Masked(free, observed, inner.mask) if is_split else None


def _masked_rows(variable: Variable) -> _Masked | None:
    """Take apart what masked data split into two variables; None if a mask splits none."""
    masked = _masked(variable)
    return None if masked is None or masked.free.owner is masked.observed.owner else masked


def _joined_node(free: Variable, observed: Variable, mask: np.ndarray) -> Apply:
    """Return the node that was there before a mask took some of the variables of its batch."""
    op = free.owner.op
    parameters = []
    for own, others in zip(op.dist_params(free.owner), op.dist_params(observed.owner), strict=True):
        if equal_computations([own], [others]):
            parameters.append(own)
            continue
        event_shape = [own.shape[k] if n is None else n for k, n in enumerate(own.type.shape)][1:]
        rows = pt.empty((*mask.shape, *event_shape), own.dtype)
        for part, where in ((own, mask), (others, ~mask)):
            rows = pt.set_subtensor(rows[where], part)
        parameters.append(rows)
    rng = free.owner.inputs[0]
    return op.make_node(rng, None, *parameters)


class _Written(NamedTuple):
    """A random variable that was written into an array, where a mask is true."""

    array: Variable
    part: Variable
    mask: np.ndarray


def _written(variable: Variable) -> _Written | None:
    node = variable.owner
    if node is None or type(node.op) is not AdvancedIncSubtensor:
        return None
    if not node.op.set_instead_of_inc or node.op.idx_list != (0,) or len(node.inputs) != 3:
        return None
    array, part, mask = node.inputs
    part = _without_views(part)
    if part.owner is None or not isinstance(part.owner.op, RNGConsumerOp):
        return None
    if not isinstance(mask, Constant) or mask.data.dtype != bool:
        return None
    return _Written(array, part, mask.data)


def evaluate(variables: Sequence[Variable]) -> list[np.ndarray]:
    """Return the values of variables that depend on constants and shared data only, without compiling them."""
    return function([], list(variables), mode=_EVALUATE, on_unused_input="ignore")()


class ParameterReader:
    """Read the parameters of a network: once, once a chain, or at every step.

    Parameters
    ----------
    model : Model
    network : RestrictedNetwork, GaussianRestrictedNetwork, PairwiseNetwork or GaussianNetwork
    name : str
        The name of the variable, for errors.
    compile_kwargs : dict, optional
        Passed on where parameters depend on other variables and must be compiled.

    Raises
    ------
    ValueError
        If a parameter depends on a random variable and the network is not normalized.

    Attributes
    ----------
    constant : bool
        Whether the parameters never change, neither with other variables nor with shared data.
    inputs : list of str
        Names of the value variables that they depend on.
    """

    def __init__(
        self,
        model: Model,
        network: Network,
        name: str,
        compile_kwargs: Mapping[str, Any] | None,
    ):
        self.name = name
        parameters = list(network.parameters.values())
        self._names = list(network.parameters)
        if random := random_inputs(parameters):
            if not network.normalized:
                raise ValueError(unnormalized_message(name, random))
            values = model.replace_rvs_by_values(parameters)
            inputs = [var for var in random_inputs(values) if var in set(model.value_vars)]
            self.inputs = [var.name for var in inputs]
            self._function: Callable | None = compile_pymc(inputs, values, **(compile_kwargs or {}))
            self._function.trust_input = True
        else:
            self.inputs = []
            self._function = None
        self._parameters = parameters
        self.constant = not any(
            isinstance(variable, SharedVariable) or variable in model.basic_RVs for variable in ancestors(parameters)
        )

    @property
    def changes(self) -> bool:
        """Whether the parameters depend on other random variables, and so change between steps."""
        return self._function is not None

    def read(self, point: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """Return the values of the network's parameters at a point of the model, in the network's order.

        Raises
        ------
        ValueError
            If a value is not finite.
        """
        if self._function is None:
            values = evaluate(self._parameters)
        else:
            values = self._function(*[point[name] for name in self.inputs])
        for value, what in zip(values, self._names, strict=True):
            if not np.isfinite(value).all():
                raise ValueError(f"the {what} of {self.name!r} must be finite, got NaN or infinity")
        return tuple(values)


def unnormalized_message(name: str, random: Sequence[Variable]) -> str:
    """Say why random parameters need a normalizer."""
    names = sorted({_user_name(variable.name) for variable in random if variable.name})
    return (
        f"the parameters of {name!r} depend on other random variables ({', '.join(names)}), and its "
        "log-probability leaves out the normalizer log Z, which then changes with them: their posterior would "
        f'be wrong. Declare {name!r} with normalize="exact"; or give it fixed parameters (numbers, or pm.Data that '
        "pm.set_data changes between runs), or hold the random ones at values with pm.do(model, {...}). To draw from "
        "it alone, as pm.draw and pm.sample_prior_predictive do, it may stay as it is"
    )


def _user_name(name: str) -> str:
    return get_untransformed_name(name) if is_transformed_name(name) else name


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
        The two values that a unit can have; None for real units.

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
        values: tuple[int, int] | None = (0, 1),
    ):
        self.values = values
        self.name = str(variable.name)
        self._dtype = np.dtype(np.int64 if values else variable.dtype)
        free: list[Variable] = []
        observed: list[Variable] = []
        for rv in _parts(variable):
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


def check_units(units: np.ndarray, values: tuple[int, int] | None, what: str) -> None:
    """Raise if a unit has neither of its two values or, without such values, if it is not a finite number.

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
        raise ValueError(f"{what} must be {values[0]} or {values[1]} everywhere, got {wrong.flat[0]}")


@dataclass(frozen=True)
class NetworkReader:
    """What a step method needs of one network in a model.

    Attributes
    ----------
    name : str
        Name of the visible layer.
    network : RestrictedNetwork, GaussianRestrictedNetwork, PairwiseNetwork or GaussianNetwork
    parameters : ParameterReader
    visible : LayerReader
    hidden : LayerReader or None
        None where the model has no `HiddenUnits` of the visible layer: they are then auxiliary.
    terms : dict
        The other terms of the model, random variables and potentials, that depend on a layer's free units, by the name
        of their value variable; for the variables that are going to be updated.
    """

    name: str
    network: Network
    parameters: ParameterReader
    visible: LayerReader
    hidden: LayerReader | None
    terms: dict[str, list[Variable]]

    @property
    def constant(self) -> bool:
        """Whether nothing about the network changes but its state."""
        layers = [layer for layer in (self.visible, self.hidden) if layer is not None]
        return self.parameters.constant and all(layer.constant for layer in layers)

    @property
    def free_layers(self) -> dict[str, LayerReader]:
        """The layers with free units, by the name of their value variable."""
        layers = [layer for layer in (self.visible, self.hidden) if layer is not None]
        return {layer.value_name: layer for layer in layers if layer.value_name is not None}


def read_networks(
    model: Model,
    rvs: Sequence[Variable],
    initial_point: Mapping[str, np.ndarray],
    compile_kwargs: Mapping[str, Any] | None = None,
) -> list[NetworkReader]:
    """Read the networks that free random variables of a model are layers of.

    Parameters
    ----------
    model : Model
    rvs : sequence of Variable
        Free random variables of the model that a step method is going to update.
    initial_point : mapping
        A point of the model, for the shapes of the free variables.
    compile_kwargs : dict, optional
        For parameters that depend on other variables.

    Returns
    -------
    list of NetworkReader
        One for each network, in the order of `rvs`.

    Raises
    ------
    ValueError
        If a variable is not a layer of a network; if parameters are random and the network is not normalized.
    """
    check_copies(model, rvs)
    readers: dict[Apply, NetworkReader] = {}
    for rv in rvs:
        visible = _visible_variable(model, rv)
        found = network_node(visible)
        if found is None:
            raise ValueError(
                f"{rv.name!r} is not a layer of a network that step methods of this package know: expected "
                "a distribution that is registered with step_methods.network.network_of, such as BernoulliRBM, "
                "or its HiddenUnits"
            )
        node, network = found
        if type(network) not in _SAMPLED:
            names = ", ".join(kind.__name__ for kind in _SAMPLED)
            raise TypeError(
                f"there is no sampler for a {type(network).__name__}, which step_methods.network.network_of returns "
                f"for {visible.name!r}: what is registered with it must return one of {names}. Return one of these, or "
                f"sample {visible.name!r} with a step method of PyMC"
            )
        if node in readers:
            continue
        hidden = _hidden_variables(model, visible)
        if len(hidden) > 1:
            names = " and ".join(repr(layer.name) for layer in hidden)
            raise ValueError(
                f"the model has more than one layer of hidden units of {visible.name!r}: {names}; given both, its "
                "units are no longer independent. Declare one of them"
            )
        layers = [visible, *hidden]
        parts = [part for layer in layers for part in _parts(layer)]
        name = str(visible.name)
        readers[node] = NetworkReader(
            name=name,
            network=network,
            parameters=ParameterReader(model, network, name, compile_kwargs),
            visible=LayerReader(model, visible, initial_point, network.values),
            hidden=LayerReader(model, hidden[0], initial_point) if hidden else None,
            terms={model.rvs_to_values[rv].name: _other_terms(model, rv, parts) for rv in rvs if rv in parts},
        )
    return list(readers.values())


def check_copies(model: Model, rvs: Sequence[Variable]) -> None:
    """Raise if a term of a model draws random variables of the model anew, instead of taking their values.

    PyTensor's ``scan`` does so with a variable that its function finds around it: the term does not depend on it then.

    Raises
    ------
    ValueError
    """
    terms = {*model.basic_RVs, *model.potentials}
    own_nodes = {node for term in terms for node in (term.owner, _own_node(term))}
    rv_of = {
        rng: rv for rv in rvs if (node := _own_node(rv)) for rng in node.inputs if isinstance(rng.type, RandomType)
    }
    for term in terms:
        for variable in ancestors([term], blockers=terms - {term}):
            node = variable.owner
            if node is None or node in own_nodes:
                continue
            if copied := [rv_of[source] for source in node.inputs if source in rv_of]:
                raise ValueError(
                    f"the term {term.name!r} of the model draws a copy of {copied[0].name!r} instead of taking its "
                    f"value (in {node.op}): give it to pytensor.scan as one of its `sequences` or `non_sequences`"
                )


def _layers(model: Model) -> Iterator[Variable]:
    """Yield each random variable of a model once, masked ones as the deterministic that joins their parts."""
    joined = [variable for variable in model.deterministics if len(_parts(variable)) > 1]
    parts = {part for variable in joined for part in _parts(variable)}
    yield from joined
    yield from (rv for rv in model.basic_RVs if rv not in parts)


def _layer(model: Model, rv: Variable) -> Variable:
    return next(variable for variable in _layers(model) if rv in _parts(variable))


def _visible_variable(model: Model, rv: Variable) -> Variable:
    node = _own_node(rv)
    visible = None if node is None else _visible_layer(node)
    if visible is not None:
        return visible
    layer = _layer(model, rv)
    if layer is rv and isinstance(rv.owner.op, PartialObservedRV):
        raise ValueError(
            f"{rv.name!r} is the free part of a variable whose data are masked, and the model has no variable that "
            "joins it with the observed part, as after an intervention of pymc.do: declare the model without it"
        )
    # PyMC makes whole rows that are masked a variable of its own, with its own parameters. Rows do not interact, but
    # the hidden units of a restricted network are those of all of them.
    is_split = len({_own_node(part) for part in _parts(layer)}) > 1
    network = None if node is None else _network(node)
    hides_units = isinstance(network, RestrictedNetwork | GaussianRestrictedNetwork)
    return rv if is_split and network is not None and not hides_units else layer


def _hidden_variables(model: Model, visible: Variable) -> list[Variable]:
    hidden = []
    for layer in _layers(model):
        rv = next(iter(_parts(layer)), None)
        node = None if rv is None else _own_node(rv)
        source = None if node is None else _visible_layer(node)
        if source is not None and set(_parts(source)) == set(_parts(visible)):
            hidden.append(layer)
    return hidden


def _other_terms(model: Model, rv: Variable, network: Sequence[Variable]) -> list[Variable]:
    """Return the terms of a model outside of a network that depend on one of its variables."""
    own_nodes = {part.owner for part in network}
    terms = [(term, term.owner.inputs) for term in model.basic_RVs if term.owner not in own_nodes]
    terms += [(potential, [potential]) for potential in model.potentials]
    moving = _moving_with(model, rv)
    return [term for term, inputs in terms if _depends_on(model, inputs, moving)]


def _moving_with(model: Model, rv: Variable) -> set[Variable]:
    """Return a variable and those that its value moves while their own transformed values stay, by their bounds."""
    moving = {rv}
    for other in model.free_RVs:
        transform = model.rvs_to_transforms[other]
        if transform is not None:
            bounded = transform.backward(model.rvs_to_values[other], *other.owner.inputs)
            if _depends_on(model, [bounded], moving):
                moving.add(other)
    return moving


def _depends_on(model: Model, variables: Sequence[Variable], rvs: set[Variable]) -> bool:
    return not rvs.isdisjoint(ancestors(variables, blockers=model.basic_RVs))
