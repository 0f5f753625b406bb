"""The empirical law of binary traces over their joint states, and its distance from a target."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MAX_NEURONS = 20


class _JointDistribution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        n_steps, n_chains, n = z.shape
        bits = 2 ** torch.arange(n - 1, -1, -1, device=z.device)
        states = ((z != 0) * bits).sum(-1)
        # Counts in floats would stop to grow where 1 is lost to rounding.
        first_states = 2**n * torch.arange(n_chains, device=z.device)
        counts = torch.bincount((states + first_states).flatten(), minlength=n_chains * 2**n).reshape(n_chains, 2**n)
        ctx.save_for_backward(states, bits)
        return (counts.to(torch.promote_types(z.dtype, torch.float32)) / n_steps).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        states, bits = ctx.saved_tensors
        n_steps = len(states)
        columns = []
        for bit in bits:
            on = gradients[0].gather(1, (states | bit).T)
            off = gradients[0].gather(1, (states & ~bit).T)
            columns.append(((on - off) / n_steps).T)
        return torch.stack(columns, dim=-1)


def joint_distribution(z: Tensor) -> Tensor:
    r"""Compute how often each joint state of binary traces occurs, in a form that can be differentiated.

    For each chain, the mean over the steps t of

    .. math:: \prod_k z_k(t)^{s_k} (1 - z_k(t))^{1 - s_k}

    for all states s. The product is a polynomial in z, whose derivative at binary z is what goes back: only the state
    at hand and those that differ from it in one neuron have a part in it, so that neither value nor derivative needs
    all 2**n states at each step.

    Parameters
    ----------
    z : Tensor of 0 and 1, (n_steps, n_chains, n)
        At most 20 traces.

    Returns
    -------
    Tensor, (n_chains, 2**n)
        Probabilities of the states in the order of ``itertools.product``: 00…0 first, and the last trace changes
        fastest.

    Raises
    ------
    TypeError
        `z` is not of a floating-point dtype.
    ValueError
        It has other values, another number of dimensions or too many traces.

    Examples
    --------
    >>> import torch
    >>> z = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    >>> joint_distribution(z[:, None, :])
    tensor([[0.2500, 0.5000, 0.0000, 0.2500]])
    """
    if not z.is_floating_point():
        raise TypeError(f"z must be of a floating-point dtype; got {z.dtype}")
    if z.ndim != 3 or not len(z) or not 1 <= z.shape[2] <= MAX_NEURONS:
        raise ValueError(f"z must have shape (n_steps, n_chains, n) with 1 <= n <= {MAX_NEURONS}; got {tuple(z.shape)}")
    values = z.detach()
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        raise ValueError(f"z must hold only 0 and 1; got {values[wrong][0].item()}")
    return _JointDistribution.apply(z)


def smoothed(law: Tensor, n_steps: int) -> Tensor:
    """Add half a visit to each state of laws that were counted over `n_steps`, (..., n_states).

    So a state that was never visited has a positive probability, and the divergence from a target is finite, with a
    gradient that pulls the network there.
    """
    return (n_steps * law + 0.5) / (n_steps + 0.5 * law.shape[-1])


def divergence(target: Tensor, law: Tensor) -> Tensor:
    """KL(target ‖ law) in nats, over the last dim; `law` must be positive."""
    return (torch.xlogy(target, target) - target * law.log()).sum(-1)
