"""Energies that a torch module computes, as operations of PyTensor."""

from __future__ import annotations

import logging
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

import numpy as np
import pytensor.tensor as pt
from numba import njit, objmode, types
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.replace import _vectorize_node
from pytensor.graph.rewriting.basic import node_rewriter
from pytensor.tensor import as_tensor_variable, tensor
from pytensor.tensor.rewriting.basic import register_specialize

from pm_neural.distributions._compiled_op import CompiledOp, numba_type

if TYPE_CHECKING:
    from pm_neural.distributions.torch_modules.frozen_module import FrozenModule

__all__ = ["TorchEnergy"]

_log = logging.getLogger("pm_neural")


class TorchEnergy(CompiledOp):
    """Energies of points, and their gradient unless nothing needs it, by a torch module in one pass.

    Maps (*batch, *event_shape) to the energies (*batch) and a gradient of the shape of the points.
    """

    __props__ = ("module", "with_gradient")

    def __init__(self, module: FrozenModule, with_gradient: bool = True):
        super().__init__()
        self.module = module
        self.with_gradient = with_gradient

    def make_node(self, points) -> Apply:
        """Make a node from points, floats of shape (*batch, *event_shape)."""
        points = as_tensor_variable(points)
        batch = points.type.shape[: points.ndim - len(self.module.event_shape)]
        outputs = [tensor(dtype=points.dtype, shape=batch)]
        if self.with_gradient:
            outputs.append(points.type())
        return Apply(self, [points], outputs)

    def infer_shape(self, node, input_shapes):
        """Return the shapes of the outputs."""
        (shape,) = input_shapes
        return [shape[: len(shape) - len(self.module.event_shape)], shape][: len(node.outputs)]

    def perform(self, node, inputs, output_storage) -> None:
        """Compute the outputs in backends other than numba."""
        if self.with_gradient:
            output_storage[0][0], output_storage[1][0] = self.module.energy_and_gradient(inputs[0])
        else:
            output_storage[0][0] = self.module.energy(inputs[0])

    def numba_function(self, node):
        """Call the module from compiled code; PyTensor's own way of doing so warns, as it means a slow operation."""
        compute = _without_errors_in_threads(self)
        output_types = [numba_type(output) for output in node.outputs]
        result_type = types.Tuple(output_types) if self.with_gradient else output_types[0]

        @njit
        def energy(points):
            with objmode(result=result_type):
                result = compute(points)
            return result

        return energy

    def compiled_in(self):
        """The compiled form refers to the module, which only this process has."""
        return None

    def pullback(self, inputs, outputs, cotangents) -> list[Variable]:
        """Multiply the cotangent of the energy with the gradient."""
        if not all(isinstance(cotangent.type, DisconnectedType) for cotangent in cotangents[1:]):
            raise NotImplementedError("second derivatives of an Energy are not implemented")
        gradient = outputs[1] if self.with_gradient else TorchEnergy(self.module)(*inputs)[1]
        return [pt.shape_padright(cotangents[0], len(self.module.event_shape)) * gradient]


@_vectorize_node.register(TorchEnergy)
def _vectorize_torch_energy(op, node, points):
    return op.make_node(points)


@register_specialize
@node_rewriter([TorchEnergy])
def local_energy_without_gradient(fgraph, node):
    """Leave the gradient out where nothing uses it: the graph is complete when this runs."""
    if not node.op.with_gradient or fgraph.clients[node.outputs[1]]:
        return None
    energy = TorchEnergy(node.op.module, with_gradient=False)(*node.inputs)
    return {node.outputs[0]: energy}


def _without_errors_in_threads(op):
    """Let no Python error out into threads of other runtimes, such as nutpie's, which it would crash.

    There the first error is logged and the energy is NaN, which samplers reject and count as a divergence. Elsewhere
    errors come out as they are.
    """
    compute = op.module.energy_and_gradient if op.with_gradient else op.module.energy
    logged = False

    def compute_or_nan(points):
        nonlocal logged
        try:
            return compute(points)
        except Exception:
            if current_thread() is main_thread():
                raise
            if not logged:
                _log.exception("the module of an Energy raised an error; its energy is taken as NaN")
                logged = True
            energies = np.full(points.shape[: points.ndim - len(op.module.event_shape)], np.nan, points.dtype)
            return (energies, np.full_like(points, np.nan)) if op.with_gradient else energies

    return compute_or_nan
