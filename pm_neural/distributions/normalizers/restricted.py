"""Log Z of restricted Boltzmann machines, by enumeration of one of their layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytensor.tensor as pt
from numba import njit
from pytensor.graph.basic import Variable
from pytensor.tensor import TensorVariable
from pytensor.tensor.blockwise import Blockwise

from pm_neural.distributions.normalizers.log_partition import MAX_ENUMERATED_UNITS, LogPartitionOp
from pm_neural.distributions.normalizers.normalizer import Normalizer
from step_methods.kernels.restricted.enumeration import log_partition_gradient, quadratic_log_partition
from step_methods.network import GaussianRestrictedNetwork, RestrictedNetwork

__all__ = ["EnumeratedHiddenLayer", "EnumeratedLayer"]


class RBMLogPartition(LogPartitionOp):
    """Log Z of an RBM by enumerating its smaller layer, E[v hᵀ], E[v] and E[h], from W (v, h), a (v,) and b (h,)."""

    __props__ = ()
    gufunc_signature = "(v,h),(v),(h)->(),(v,h),(v),(h)"

    def log_partition(self, parameters: list[np.ndarray]) -> tuple[Any, ...]:
        """Compute log Z and its derivatives."""
        if min(parameters[0].shape) > MAX_ENUMERATED_UNITS:
            raise ValueError('normalize="exact": too many units in the smaller layer')
        return log_partition_gradient(*parameters)

    def numba_function(self, node):
        """Compute log Z and its derivatives by numba."""
        value_dtype, W_dtype, a_dtype, b_dtype = (np.dtype(output.dtype) for output in node.outputs)
        limit = MAX_ENUMERATED_UNITS

        @njit
        def log_partition(W, a, b):
            if min(W.shape) > limit:
                raise ValueError('normalize="exact": too many units in the smaller layer')
            log_z, pairs, visible, hidden = log_partition_gradient(
                W.astype(np.float64), a.astype(np.float64), b.astype(np.float64)
            )
            return (
                np.asarray(log_z).astype(value_dtype),
                pairs.astype(W_dtype),
                visible.astype(a_dtype),
                hidden.astype(b_dtype),
            )

        return log_partition


@dataclass(frozen=True)
class EnumeratedLayer(Normalizer):
    """The sum over all states of the smaller layer of an RBM."""

    needs = f"enumerates the smaller layer, at most {MAX_ENUMERATED_UNITS} units"

    def obstacle(self, network: RestrictedNetwork) -> str | None:
        """Compare the sizes of the layers, where they are known."""
        n_visible, n_hidden = network.couplings.type.shape[-2:]
        if None in (n_visible, n_hidden) or min(n_visible, n_hidden) <= MAX_ENUMERATED_UNITS:
            return None
        return f"{n_visible} visible and {n_hidden} hidden units"

    def log_partition(self, network: RestrictedNetwork) -> TensorVariable:
        """Return log Z, shape (...)."""
        return Blockwise(RBMLogPartition())(network.couplings, network.visible_biases, network.hidden_biases)[0]


class QuadraticLogPartition(LogPartitionOp):
    """Log of the sum of exp(c·h + ½ hᵀGh) over all h in {0, 1}ⁿ, E[h hᵀ] and E[h], from G (h, h), symmetric, c (h,)."""

    __props__ = ()
    gufunc_signature = "(h,h),(h)->(),(h,h),(h)"

    def log_partition(self, parameters: list[np.ndarray]) -> tuple[Any, ...]:
        """Compute the logarithm of the sum, E[h hᵀ] and E[h]."""
        if parameters[1].size > MAX_ENUMERATED_UNITS:
            raise ValueError('normalize="exact": too many hidden units')
        return quadratic_log_partition(*map(np.ascontiguousarray, parameters))

    def numba_function(self, node):
        """Compute the logarithm of the sum, E[h hᵀ] and E[h] by numba."""
        value_dtype, G_dtype, c_dtype = (np.dtype(output.dtype) for output in node.outputs)
        limit = MAX_ENUMERATED_UNITS

        @njit
        def log_partition(G, c):
            if c.size > limit:
                raise ValueError('normalize="exact": too many hidden units')
            log_sum, pairs, means = quadratic_log_partition(
                np.ascontiguousarray(G.astype(np.float64)), np.ascontiguousarray(c.astype(np.float64))
            )
            return np.asarray(log_sum).astype(value_dtype), pairs.astype(G_dtype), means.astype(c_dtype)

        return log_partition

    def pullback(self, inputs, outputs, cotangents) -> list[Variable]:
        """Multiply the cotangent of the logarithm with the gradient, which is half of E[h hᵀ] by G."""
        pairs, means = super().pullback(inputs, outputs, cotangents)
        return [pairs / 2, means]


@dataclass(frozen=True)
class EnumeratedHiddenLayer(Normalizer):
    """The sum over all states of the hidden layer of an RBM with Gaussian visible units.

    The integral over the visible units is done in closed form and leaves a sum over the hidden units with couplings
    Wᵀ diag(1 / σ²) W between them, which are enumerated.
    """

    needs = f"enumerates the hidden layer, at most {MAX_ENUMERATED_UNITS} units"

    def obstacle(self, network: GaussianRestrictedNetwork) -> str | None:
        """Look at the size of the hidden layer, where it is known."""
        n_hidden = network.couplings.type.shape[-1]
        return None if n_hidden is None or n_hidden <= MAX_ENUMERATED_UNITS else f"{n_hidden}"

    def log_partition(self, network: GaussianRestrictedNetwork) -> TensorVariable:
        """Return log Z, shape (...)."""
        W, a, b, sigma = network.couplings, network.visible_biases, network.hidden_biases, network.sigma
        over_variance = W.mT / pt.sqr(sigma)[..., None, :]
        log_sum = Blockwise(QuadraticLogPartition())(over_variance @ W, b + pt.matvec(over_variance, a))[0]
        return log_sum + (pt.log(sigma) + 0.5 * np.log(2 * np.pi)).sum(axis=-1)
