"""The log partition function as an operation of PyTensor, with its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply, Variable
from pytensor.tensor import as_tensor_variable, tensor

from pm_neural.distributions._compiled_op import CompiledOp

__all__ = ["MAX_ENUMERATED_UNITS", "LogPartitionOp"]

MAX_ENUMERATED_UNITS = 20


class LogPartitionOp(CompiledOp):
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
