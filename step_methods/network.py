"""What a network is: the point where distributions, networks and samplers of others are added.

A step method has to know which variables of a model are layers of one network, and which couplings and biases they
have. It asks functions that dispatch on the variable's ``Op``, as PyMC's own ``_logprob`` does:

- `network_of` says which network a random variable is the visible layer of;
- `hidden_layer_of` says which visible layer a random variable is the hidden layer of.

A distribution of a third party becomes known to every step method of this package with one registration::

    @network_of.register(MyRBMRV)
    def my_network(op, node):
        W, a, b = op.dist_params(node)
        return RestrictedNetwork(W, a, b, normalized=False)

A network of another kind takes two more, which dispatch on the network and on what is made of it:

- `reduced_of` says what is left to sample of a network whose place in a model has been read;
- `sampler_of` says how `BlockGibbs` samples that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Any, ClassVar, Protocol

import pytensor.tensor as pt
from pytensor import config
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.op import Op
from pytensor.scalar import Sigmoid
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.random.basic import BernoulliRV, MvNormalRV
from scipy.sparse import csr_array

__all__ = [
    "GaussianNetwork",
    "GaussianRestrictedNetwork",
    "IndependentNetwork",
    "Network",
    "PairwiseNetwork",
    "RestrictedNetwork",
    "hidden_layer_of",
    "is_binary_energy_op",
    "network_of",
    "reduced_of",
    "sampler_of",
]


class Network(Protocol):
    """A kind of network.

    Attributes
    ----------
    normalized : bool
        Whether the variable's log-probability includes log Z. Without it the parameters must not depend on
        other random variables.
    values : tuple of int or None
        The values that a unit may have, in ascending order; None for real units.
    has_hidden_layer : bool
        Whether units that are not in the variable belong to it, which are then auxiliary or have a variable of their
        own that `hidden_layer_of` knows.
    """

    @property
    def normalized(self) -> bool:
        """Whether the log-probability includes log Z."""

    @property
    def values(self) -> tuple[int, ...] | None:
        """The values that a unit may have."""

    @property
    def has_hidden_layer(self) -> bool:
        """Whether units that are not in the variable belong to it."""

    @property
    def parameters(self) -> dict[str, Variable]:
        """What is read of the network's values, by the names for errors."""


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
    has_hidden_layer: ClassVar[bool] = True

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
    has_hidden_layer: ClassVar[bool] = False

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
    has_hidden_layer: ClassVar[bool] = True

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
    has_hidden_layer: ClassVar[bool] = False

    @property
    def parameters(self) -> dict[str, Variable]:
        """What is read of the network's values, by the names for errors: mu, cov."""
        return {"mean": self.mean, "covariance": self.covariance}


@dataclass(frozen=True, eq=False)
class IndependentNetwork:
    """A network of 0/1 units without couplings, each with odds of its own: PyMC's ``Bernoulli``.

    Its energy is E(z) = −b·z, with b = log p/(1−p), which is infinite where p is 0 or 1.

    Attributes
    ----------
    probability : TensorVariable
        p, which broadcasts over the axes of the variable.
    """

    probability: Variable
    normalized: ClassVar[bool] = True
    values: ClassVar[tuple[int, int]] = (0, 1)
    has_hidden_layer: ClassVar[bool] = False

    @property
    def parameters(self) -> dict[str, Variable]:
        """What is read of the network's values, by the names for errors: the log-odds."""
        return {"log-odds": _log_odds(self.probability)}


def _log_odds(p: Variable) -> Variable:
    if p.owner is not None and isinstance(p.owner.op, Elemwise) and isinstance(p.owner.op.scalar_op, Sigmoid):
        # Far from 0 the probability rounds to 0 or 1, and the log-odds, with which it was declared, do not. PyTensor
        # sees that, too, unless it has computed the probability beforehand.
        (log_odds,) = p.owner.inputs
        if not isinstance(log_odds, Constant):
            return log_odds.astype(config.floatX)
    p = p.astype(config.floatX)
    return pt.log(p) - pt.log1p(-p)


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


@network_of.register(BernoulliRV)
def _bernoulli_network(op: BernoulliRV, node: Apply) -> IndependentNetwork:
    (p,) = op.dist_params(node)
    return IndependentNetwork(p)


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


@singledispatch
def reduced_of(network: Network, reader: Any, updated: Any, evidence: Any) -> Any:
    """Return what is left to sample of a network.

    Registered for a kind of network, and asked for exactly that: a subclass may mean something else.

    Parameters
    ----------
    network : Network
    reader : NetworkReader
        Its place in a model.
    updated : set of str
        Names of the value variables that a step method updates.
    evidence : mapping
        What other terms of the model say about the units of these variables, by name.

    Returns
    -------
    step_methods.reduced.reduced.Reduced
    """
    raise NotImplementedError


@singledispatch
def sampler_of(reduced: Any, blocks: Any, in_random_order: bool) -> Any:
    """Return how `BlockGibbs` samples what is left of a network.

    Parameters
    ----------
    reduced : step_methods.reduced.reduced.Reduced
    blocks : mapping
        Blocks that a user gave, by the names of value variables.
    in_random_order : bool
        Whether blocks are picked at random.

    Returns
    -------
    step_methods.sampler.Sampler
    """
    raise TypeError(f"there is no sampler for a {type(reduced).__name__}: register one with {__name__}.sampler_of")
