"""The log partition function as a PyTensor operation, with its gradient."""

from __future__ import annotations

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
    "QuadraticLogPartition",
    "RBMLogPartition",
    "check_hidden_enumerable",
    "gaussian_rbm_log_partition",
    "rbm_log_partition",
]

MAX_ENUMERATED_UNITS = 20


class RBMLogPartition(CompiledOp, Op):
    """Log Z of an RBM by enumerating its smaller layer, together with its gradient.

    The gradient costs little beyond the value and is what NUTS needs at the same point, so one node returns both:
    log Z, E[v hᵀ], E[v], E[h].
    """

    __props__ = ()
    gufunc_signature = "(v,h),(v),(h)->(),(v,h),(v),(h)"

    def make_node(self, W, a, b) -> Apply:
        """Make a node from W (v, h), a (v,), b (h,)."""
        W, a, b = (as_tensor_variable(x) for x in (W, a, b))
        check_enumerable(W.type.shape[-2:])
        outputs = [tensor(dtype=W.dtype, shape=())]
        outputs += [tensor(dtype=x.dtype, shape=x.type.shape) for x in (W, a, b)]
        return Apply(self, [W, a, b], outputs)

    def infer_shape(self, node, input_shapes):
        """Return the shapes of the outputs."""
        return [(), *input_shapes]

    def perform(self, node, inputs, output_storage) -> None:
        """Compute the outputs in backends other than numba."""
        check_enumerable(inputs[0].shape)
        results = log_partition_gradient(*(np.asarray(x, np.float64) for x in inputs))
        for storage, output, result in zip(output_storage, node.outputs, results, strict=True):
            storage[0] = np.asarray(result, output.dtype)

    def pullback(self, inputs, outputs, cotangents) -> list[Variable]:
        """Multiply the cotangent of log Z with the gradient."""
        if not all(isinstance(g.type, DisconnectedType) for g in cotangents[1:]):
            raise NotImplementedError("second derivatives of log Z are not implemented")
        return [cotangents[0] * gradient for gradient in outputs[1:]]

    def connection_pattern(self, node):
        """All outputs depend on all inputs."""
        return [[True] * 4 for _ in range(3)]


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


class QuadraticLogPartition(CompiledOp, Op):
    """Log of the sum of exp(c·h + ½ hᵀGh) over all h in {0, 1}ⁿ, together with its gradient.

    One node returns the sum's logarithm, E[h hᵀ] and E[h].
    """

    __props__ = ()
    gufunc_signature = "(h,h),(h)->(),(h,h),(h)"

    def make_node(self, G, c) -> Apply:
        """Make a node from G (h, h), symmetric, and c (h,)."""
        G, c = (as_tensor_variable(x) for x in (G, c))
        check_hidden_enumerable(c.type.shape[-1])
        outputs = [tensor(dtype=G.dtype, shape=())]
        outputs += [tensor(dtype=x.dtype, shape=x.type.shape) for x in (G, c)]
        return Apply(self, [G, c], outputs)

    def infer_shape(self, node, input_shapes):
        """Return the shapes of the outputs."""
        return [(), *input_shapes]

    def perform(self, node, inputs, output_storage) -> None:
        """Compute the outputs in backends other than numba."""
        check_hidden_enumerable(inputs[1].size)
        results = quadratic_log_partition(*(np.ascontiguousarray(x, np.float64) for x in inputs))
        for storage, output, result in zip(output_storage, node.outputs, results, strict=True):
            storage[0] = np.asarray(result, output.dtype)

    def pullback(self, inputs, outputs, cotangents) -> list[Variable]:
        """Multiply the cotangent of the logarithm with the gradient."""
        if not all(isinstance(g.type, DisconnectedType) for g in cotangents[1:]):
            raise NotImplementedError("second derivatives of log Z are not implemented")
        _, pairs, means = outputs
        return [cotangents[0] * pairs / 2, cotangents[0] * means]

    def connection_pattern(self, node):
        """All outputs depend on all inputs."""
        return [[True] * 3 for _ in range(2)]


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
