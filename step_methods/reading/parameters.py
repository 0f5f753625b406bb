"""The parameters of a network in a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pymc.model import Model
from pymc.pytensorf import compile as compile_pymc
from pymc.util import get_untransformed_name, is_transformed_name
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from step_methods.network import IndependentNetwork, Network
from step_methods.reading.graphs import evaluate, random_inputs

__all__ = ["ParameterReader", "unnormalized_message"]


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
        by_name = network.parameters
        parameters, self._names = list(by_name.values()), list(by_name)
        self._may_be_infinite = isinstance(network, IndependentNetwork)
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
            If a value is not finite; log-odds may be infinite, but not NaN.
        """
        if self._function is None:
            values = evaluate(self._parameters)
        else:
            values = self._function(*[point[name] for name in self.inputs])
        for value, what in zip(values, self._names, strict=True):
            if np.isnan(value).any() if self._may_be_infinite else not np.isfinite(value).all():
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
