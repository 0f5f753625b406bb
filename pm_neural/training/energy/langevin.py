"""Many chains of Langevin dynamics in the energy of a network."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pm_neural.fitting.backend import TorchBackend
from pm_neural.fitting.checks import check_number
from pm_neural.training.energy.base import EnergyWithBase

_TARGET_ACCEPTANCE = 0.57  # optimal for MALA in many dimensions (Roberts and Rosenthal, 1998)
_TUNING_GAIN = 0.2


class _Points(NamedTuple):
    """Points, and the module's energy there with its gradient."""

    x: Tensor
    learnt: Tensor
    slope: Tensor


class LangevinChains:
    r"""Chains in the energy :math:`E_0(x) + \beta f(x)`: the base's, and beta times the module's.

    Changing `beta` costs no evaluation of the module, and a step costs one.

    Parameters
    ----------
    network : EnergyWithBase
        Its parameters must stay as they are.
    start : Tensor, (n_chains, *shape)
    backend : TorchBackend
        Draws the random numbers.
    """

    def __init__(self, network: EnergyWithBase, start: Tensor, backend: TorchBackend) -> None:
        self._network = network
        self._backend = backend
        self._points = self._evaluate(start)
        self.beta = 1.0

    @property
    def x(self) -> Tensor:
        """Present states, (n_chains, *shape)."""
        return self._points.x

    @property
    def learnt_energy(self) -> Tensor:
        """The module's energy of the present states, (n_chains,)."""
        return self._points.learnt

    def advance(self, step_size: float, noise: float | None, *, adjusted: bool) -> Tensor:
        """Make an adjusted step, or one with `noise`, √step_size if None; return the probabilities of acceptance."""
        if adjusted:
            return self.adjusted_step(step_size)
        self.step(step_size, math.sqrt(step_size) if noise is None else noise)
        return torch.ones(len(self.x))

    def step(self, step_size: float, noise: float) -> None:
        """Move each chain by -step_size/2 times its gradient, plus `noise` times N(0, 1) in every coordinate."""
        x = self._points.x - step_size / 2 * self._gradient(self._points)
        self._backend.add_noise(x, noise)
        self._points = self._evaluate(x)

    def adjusted_step(self, step_size: float) -> Tensor:
        """Make a step with noise √step_size that each chain accepts by the Metropolis-Hastings rule (MALA).

        Returns
        -------
        Tensor, (n_chains,)
            Probabilities with which they were accepted.
        """
        here = self._points
        mean = here.x - step_size / 2 * self._gradient(here)
        proposal = mean.clone()
        self._backend.add_noise(proposal, math.sqrt(step_size))
        there = self._evaluate(proposal)
        mean_back = proposal - step_size / 2 * self._gradient(there)
        log_ratio = self._energy(here) - self._energy(there)
        log_ratio += (_squared_distance(proposal, mean) - _squared_distance(here.x, mean_back)) / (2 * step_size)
        probability = log_ratio.clamp(max=0).exp().nan_to_num(nan=0.0)  # no number: no proposal to go to
        accepted = self._backend.uniform(len(probability)) < probability
        each = accepted.reshape(-1, *[1] * (proposal.ndim - 1))
        self._points = _Points(
            torch.where(each, there.x, here.x),
            torch.where(accepted, there.learnt, here.learnt),
            torch.where(each, there.slope, here.slope),
        )
        return probability

    def _evaluate(self, x: Tensor) -> _Points:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            learnt = self._network.learnt_energy(x)
            (slope,) = torch.autograd.grad(learnt.sum(), x)
        return _Points(x.detach(), learnt.detach(), slope)

    def _energy(self, points: _Points) -> Tensor:
        return self._network.base_energy(points.x) + self.beta * points.learnt

    def _gradient(self, points: _Points) -> Tensor:
        return self._network.base_gradient(points.x) + self.beta * points.slope


def check_noise(noise: float | None, adjusted: bool) -> None:
    """Refuse a noise that is negative or cannot be chosen."""
    if noise is None:
        return
    if adjusted:
        raise ValueError("noise belongs to adjusted=False: with an accept step it is the root of step_size")
    check_number(noise, "noise", minimum=0)


class StepSizeTuner:
    """Moves a step size towards the acceptance rate that is best for MALA.

    Parameters
    ----------
    step_size : float
        To begin with.
    """

    def __init__(self, step_size: float) -> None:
        self.step_size = step_size

    def update(self, acceptance_rate: float) -> None:
        """Learn from the acceptance rate of one step of all chains."""
        self.step_size *= math.exp(_TUNING_GAIN * (acceptance_rate - _TARGET_ACCEPTANCE))


def _squared_distance(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().flatten(1).sum(1)
