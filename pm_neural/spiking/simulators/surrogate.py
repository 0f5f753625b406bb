"""The step function whose derivative is replaced in back-propagation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _SurrogateStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sharpness: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.sharpness = sharpness
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradients[0] / (ctx.sharpness * x.abs() + 1).square(), None


def surrogate_step(x: Tensor, sharpness: float) -> Tensor:
    """Return 1 where x > 0, else 0, with the derivative 1 / (sharpness ``|x|`` + 1)² [1]_.

    Norse has the same under the name "super", but its release 1.1.0 leaves the sharpness out of the derivative, which
    then decays so slowly that gradients over some hundred steps overflow.

    References
    ----------
    .. [1] F. Zenke and S. Ganguli, "SuperSpike: supervised learning in multilayer spiking neural networks", Neural
       Computation 30 (2018) 1514, section 3.3.2.
    """
    return _SurrogateStep.apply(x, sharpness)
