"""The log partition function as a PyTensor operation, with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import Op
from pytensor.tensor import TensorVariable, as_tensor_variable, tensor
from pytensor.tensor.blockwise import Blockwise

from pm_neural.distributions._compiled_op import CompiledOp
from step_methods.kernels.enumeration import log_partition_gradient, quadratic_log_partition

__all__ = [
    "MAX_ENUMERATED_UNITS",
    "LogPartitionOp",
    "QuadraticLogPartition",
    "RBMLogPartition",
    "check_hidden_enumerable",
    "gaussian_rbm_log_partition",
    "rbm_log_partition",
]

MAX_ENUMERATED_UNITS = 20


class LogPartitionOp(CompiledOp, Op):
    """A log partition function of some parameters, together with its derivatives by each of them.

    The derivatives cost little beyond the value and are what NUTS needs at the same point, so one node returns both.
    """

    def log_partition(self, parameters: list[np.ndarray]) -> tuple[Any, ...]:
        """Compute the value and the derivatives, of parameters in float64."""
        raise NotImplementedError

    def make_node(self, *parameters) -> Apply:
        """Make a node."""
        inputs = [as_tensor_variable(x) for x in parameters]
        outputs = [tensor(dtype=inputs[0].dtype, shape=())]
        outputs += [tensor(dtype=x.dtype, shape=x.type.shape) for x in inputs]
        return Apply(self, inputs, outputs)

    def infer_shape(self, node, input_shapes):
        """Return the shapes of the outputs."""
        return [(), *input_shapes]

    def perform(self, node, inputs, output_storage) -> None:
        """Compute the outputs in backends other than numba."""
        results = self.log_partition([np.asarray(x, np.float64) for x in inputs])
        for storage, output, result in zip(output_storage, node.outputs, results, strict=True):
            storage[0] = np.asarray(result, output.dtype)

    def pullback(self, inputs, outputs, cotangents) -> list[Variable]:
        """Multiply the cotangent of log Z with the gradient."""
        if not all(isinstance(g.type, DisconnectedType) for g in cotangents[1:]):
            raise NotImplementedError("second derivatives of log Z are not implemented")
        return [cotangents[0] * gradient for gradient in outputs[1:]]

    def connection_pattern(self, node):
        """All outputs depend on all inputs."""
        return [[True] * len(node.outputs) for _ in node.inputs]


class RBMLogPartition(LogPartitionOp):
    """Log Z of an RBM by enumerating its smaller layer, E[v hᵀ], E[v] and E[h]."""

    __props__ = ()
    gufunc_signature = "(v,h),(v),(h)->(),(v,h),(v),(h)"

    def make_node(self, W, a, b) -> Apply:
        """Make a node from W (v, h), a (v,), b (h,)."""
        node = super().make_node(W, a, b)
        check_enumerable(node.inputs[0].type.shape[-2:])
        return node

    def log_partition(self, parameters: list[np.ndarray]) -> tuple[Any, ...]:
        """Compute log Z and its derivatives."""
        check_enumerable(parameters[0].shape)
        return log_partition_gradient(*parameters)


def check_enumerable(shape) -> None:
    """Raise if both layers of an RBM are known to be too large to enumerate.

    Raises
    ------
    ValueError
        If the smaller layer has more than 20 units.
    """
    if None not in shape and min(shape) > MAX_ENUMERATED_UNITS:
        raise ValueError(
            f'normalize="exact" enumerates the smaller layer, at most {MAX_ENUMERATED_UNITS} units; '
            f"got {shape[0]} visible and {shape[1]} hidden units"
        )


def rbm_log_partition(W, a, b) -> TensorVariable:
    """Log partition function of an RBM by enumeration, differentiable in its parameters.

    Parameters
    ----------
    W : tensor_like, shape (..., n_visible, n_hidden)
    a : tensor_like, shape (..., n_visible)
    b : tensor_like, shape (..., n_hidden)

    Returns
    -------
    TensorVariable, shape (...)

    Raises
    ------
    ValueError
        If the smaller layer has more than 20 units.
    """
    return Blockwise(RBMLogPartition())(W, a, b)[0]


class QuadraticLogPartition(LogPartitionOp):
    """Log of the sum of exp(c·h + ½ hᵀGh) over all h in {0, 1}ⁿ, E[h hᵀ] and E[h]."""

    __props__ = ()
    gufunc_signature = "(h,h),(h)->(),(h,h),(h)"

    def make_node(self, G, c) -> Apply:
        """Make a node from G (h, h), symmetric, and c (h,)."""
        node = super().make_node(G, c)
        check_hidden_enumerable(node.inputs[1].type.shape[-1])
        return node

    def log_partition(self, parameters: list[np.ndarray]) -> tuple[Any, ...]:
        """Compute the logarithm of the sum, E[h hᵀ] and E[h]."""
        check_hidden_enumerable(parameters[1].size)
        return quadratic_log_partition(*map(np.ascontiguousarray, parameters))

    def pullback(self, inputs, outputs, cotangents) -> list[Variable]:
        """Multiply the cotangent of the logarithm with the gradient, which is half of E[h hᵀ] by G."""
        pairs, means = super().pullback(inputs, outputs, cotangents)
        return [pairs / 2, means]


def check_hidden_enumerable(n_hidden: int | None) -> None:
    """Raise if the hidden layer of a machine with Gaussian visible units is known to be too large to enumerate.

    Raises
    ------
    ValueError
        If it has more than 20 units.
    """
    if n_hidden is not None and n_hidden > MAX_ENUMERATED_UNITS:
        raise ValueError(
            f'normalize="exact" enumerates the hidden layer, at most {MAX_ENUMERATED_UNITS} units; got {n_hidden}'
        )


def gaussian_rbm_log_partition(W, a, b, sigma) -> TensorVariable:
    """Log partition function of an RBM with Gaussian visible units, differentiable in its parameters.

    The integral over the visible units is done in closed form and leaves a sum over the hidden units with couplings
    Wᵀ diag(1 / σ²) W between them, which are enumerated.

    Parameters
    ----------
    W : tensor_like, shape (..., n_visible, n_hidden)
    a, sigma : tensor_like, shape (..., n_visible)
    b : tensor_like, shape (..., n_hidden)

    Returns
    -------
    TensorVariable, shape (...)

    Raises
    ------
    ValueError
        If there are more than 20 hidden units.
    """
    W, a, b, sigma = (as_tensor_variable(x) for x in (W, a, b, sigma))
    over_variance = W.mT / pt.sqr(sigma)[..., None, :]
    log_sum = Blockwise(QuadraticLogPartition())(over_variance @ W, b + pt.matvec(over_variance, a))[0]
    return log_sum + (pt.log(sigma) + 0.5 * np.log(2 * np.pi)).sum(axis=-1)
