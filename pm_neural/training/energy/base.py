"""An energy that is a Gaussian's plus that of a torch module."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from pm_neural.fitting.backend import TorchBackend

__all__ = ["EnergyWithBase"]


class EnergyWithBase(nn.Module):
    """What chains and estimates need of an energy network.

    Attributes
    ----------
    module : torch.nn.Module
        Maps points (batch, ...) to its part of their energies, (batch,).
    shape : tuple of int
        Of a point.
    base_mean, base_sd : Tensor, of that shape
        Mean and standard deviations of the base.
    """

    module: nn.Module
    shape: tuple[int, ...]
    base_mean: Tensor
    base_sd: Tensor

    @property
    def broadcast_axes(self) -> tuple[int, ...]:
        return (1,) * len(self.shape)

    def energy(self, x: Tensor) -> Tensor:
        """E(x): minus the log-density of x, up to log Z.

        Parameters
        ----------
        x : Tensor, (batch, ...)

        Returns
        -------
        Tensor, (batch,)
        """
        return self.learnt_energy(x) + self.base_energy(x)

    def learnt_energy(self, x: Tensor) -> Tensor:
        """f(x), the module's part of the energy, (batch,)."""
        return self.module(x)

    def base_energy(self, x: Tensor) -> Tensor:
        """Return the base's part of the energy, (batch,)."""
        return ((x - self.base_mean) / self.base_sd).square().flatten(1).sum(1) / 2

    def base_gradient(self, x: Tensor) -> Tensor:
        """Return the gradient of `base_energy`, (batch, ...)."""
        return (x - self.base_mean) / self.base_sd.square()

    def base_draws(self, n: int, backend: TorchBackend) -> Tensor:
        """Draw points from the base, (n, ...)."""
        x = self.base_mean.repeat(n, *self.broadcast_axes)
        backend.add_noise(x, self.base_sd)
        return x

    def log_base_volume(self) -> float:
        """Return the log of the integral of exp(-`base_energy`)."""
        return self.base_sd.numel() / 2 * math.log(2 * math.pi) + self.base_sd.double().log().sum().item()

    def first_step_size(self) -> float:
        """Return a Langevin step size that suits the base, to start tuning from."""
        return float(self.base_sd.min()) ** 2 * self.base_sd.numel() ** (-1 / 3)

    def learnt_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters that `fit` changes."""
        return tuple(p for p in self.parameters() if p.requires_grad)

    def description(self) -> list[Any]:
        """Return what must agree for a checkpoint to fit: names, shapes and dtypes, and the base, as JSON values."""
        tensors = [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in self.module.state_dict().items()]
        base = [self.base_mean.flatten().tolist(), self.base_sd.flatten().tolist()]
        return [list(self.shape), *base, *tensors]
