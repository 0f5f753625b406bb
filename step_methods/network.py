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
from typing import Any, ClassVar

import numpy as np
from pymc.distributions.distribution import PartialObservedRV
from pymc.model import Model
from pymc.pytensorf import compile as compile_pymc
from pymc.util import get_untransformed_name, is_transformed_name
from pytensor import function
from pytensor.compile.mode import Mode
from pytensor.compile.ops import ViewOp
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import Op
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.basic import MvNormalRV
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.shape import SpecifyShape
from pytensor.tensor.subtensor import AdvancedIncSubtensor, IncSubtensor
from scipy.sparse import csr_array

__all__ = [
    "GaussianNetwork",
    "GaussianRestrictedNetwork",
    "LayerReader",
    "NetworkReader",
    "PairwiseNetwork",
    "ParameterReader",
    "RestrictedNetwork",
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

# What pymc.Model builds `v` from where data are masked, its two parts written into an empty array, and how many of
# the inputs of each operation may hold a part.
_JOINING_OPS = {ViewOp: 1, SpecifyShape: 1, AdvancedIncSubtensor: 2, IncSubtensor: 2}


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
            isinstance(variable.owner.op, RNGConsumerOp)
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
    for source in _parts(variable):
        if (node := _own_node(source)) is not None:
            network = network_of(node.op, node)
            if network is not None:
                return node, network
    return None


def is_layer(rv: Variable) -> bool:
    """Whether a random variable is the visible or the hidden layer of a network with two-valued units."""
    node = _own_node(rv)
    return node is not None and (
        not isinstance(network_of(node.op, node), GaussianNetwork | None) or hidden_layer_of(node.op, node) is not None
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
    parts = list(_parts(rv))
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


def _parts(variable: Variable) -> Iterator[Variable]:
    """Yield the random variables that a layer is joined from: itself if no data were masked."""
    node = variable.owner
    if node is None:
        return
    if n_inputs := _JOINING_OPS.get(type(node.op), 0):
        for part in node.inputs[:n_inputs]:
            yield from _parts(part)
    elif isinstance(node.op, RNGConsumerOp):
        yield variable


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
        'be wrong. Declare it with normalize="exact", or give it fixed parameters'
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


def _layers(model: Model) -> Iterator[Variable]:
    """Yield each random variable of a model once, masked ones as the deterministic that joins their parts."""
    joined = [variable for variable in model.deterministics if len(list(_parts(variable))) > 1]
    parts = {part for variable in joined for part in _parts(variable)}
    yield from joined
    yield from (rv for rv in model.basic_RVs if rv not in parts)


def _layer(model: Model, rv: Variable) -> Variable:
    return next(variable for variable in _layers(model) if rv in set(_parts(variable)))


def _visible_variable(model: Model, rv: Variable) -> Variable:
    node = _own_node(rv)
    visible = None if node is None else hidden_layer_of(node.op, node)
    if visible is not None:
        return visible
    layer = _layer(model, rv)
    # PyMC makes whole rows that are masked a variable of its own, with its own parameters. Rows do not interact, but
    # the hidden units of a restricted network are those of all of them.
    is_split = len({_own_node(part) for part in _parts(layer)}) > 1
    network = None if node is None else network_of(node.op, node)
    hides_units = isinstance(network, RestrictedNetwork | GaussianRestrictedNetwork)
    return rv if is_split and network is not None and not hides_units else layer


def _hidden_variables(model: Model, visible: Variable) -> list[Variable]:
    hidden = []
    for layer in _layers(model):
        rv = next(_parts(layer), None)
        node = None if rv is None else _own_node(rv)
        source = None if node is None else hidden_layer_of(node.op, node)
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
