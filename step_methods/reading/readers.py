"""Networks, and what a step method needs of them, in a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymc.distributions.distribution import PartialObservedRV
from pymc.model import Model
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.type import RandomType

from step_methods.network import Network, reduced_of
from step_methods.reading.layers import LayerReader, known_network, network_node, visible_layer
from step_methods.reading.masks import own_node, parts_of
from step_methods.reading.parameters import ParameterReader

__all__ = ["NetworkReader", "check_copies", "read_networks"]


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
        if type(network) not in reduced_of.registry:
            names = ", ".join(kind.__name__ for kind in reduced_of.registry if kind is not object)
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
        parts = [part for layer in layers for part in parts_of(layer)]
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
    own_nodes = {node for term in terms for node in (term.owner, own_node(term))}
    rv_of = {rng: rv for rv in rvs if (node := own_node(rv)) for rng in node.inputs if isinstance(rng.type, RandomType)}
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
    joined = [variable for variable in model.deterministics if len(parts_of(variable)) > 1]
    parts = {part for variable in joined for part in parts_of(variable)}
    yield from joined
    yield from (rv for rv in model.basic_RVs if rv not in parts)


def _layer(model: Model, rv: Variable) -> Variable:
    return next(variable for variable in _layers(model) if rv in parts_of(variable))


def _visible_variable(model: Model, rv: Variable) -> Variable:
    node = own_node(rv)
    visible = None if node is None else visible_layer(node)
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
    is_split = len({own_node(part) for part in parts_of(layer)}) > 1
    network = None if node is None else known_network(node)
    return rv if is_split and network is not None and not network.has_hidden_layer else layer


def _hidden_variables(model: Model, visible: Variable) -> list[Variable]:
    hidden = []
    for layer in _layers(model):
        rv = next(iter(parts_of(layer)), None)
        node = None if rv is None else own_node(rv)
        source = None if node is None else visible_layer(node)
        if source is not None and set(parts_of(source)) == set(parts_of(visible)):
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
