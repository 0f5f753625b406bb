"""Variables that PyMC has split because their data are masked: recognized exactly as `pymc.Model` makes them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.distribution import PartialObservedRV
from pytensor.compile.ops import ViewOp
from pytensor.graph.basic import Apply, Constant, Variable, equal_computations
from pytensor.tensor.basic import AllocEmpty
from pytensor.tensor.random.op import RNGConsumerOp
from pytensor.tensor.shape import SpecifyShape
from pytensor.tensor.subtensor import AdvancedIncSubtensor

__all__ = ["joined_node", "masked_rows", "own_node", "parts_of"]


def own_node(rv: Variable) -> Apply | None:
    """Return the node of a random variable, which a mask hides in one of its inputs."""
    node = rv.owner
    if node is not None and isinstance(node.op, PartialObservedRV):
        return node.inputs[0].owner
    return node


def parts_of(variable: Variable) -> list[Variable]:
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


def masked_rows(variable: Variable) -> _Masked | None:
    """Take apart what masked data split into two variables; None if a mask splits none."""
    masked = _masked(variable)
    return None if masked is None or masked.free.owner is masked.observed.owner else masked


def joined_node(free: Variable, observed: Variable, mask: np.ndarray) -> Apply:
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
