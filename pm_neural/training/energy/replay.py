"""The negative phase of an energy network: short Langevin chains that go on from a buffer of earlier ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from pm_neural.fitting.backend import TorchBackend
from pm_neural.fitting.checks import check_integer, check_number
from pm_neural.training.energy.base import EnergyWithBase
from pm_neural.training.energy.langevin import LangevinChains, check_noise


class ReplayedLangevin:
    """States of the model: some chains of a replay buffer, moved on by Langevin steps, and put back.

    Parameters
    ----------
    network : EnergyWithBase
    backend : TorchBackend
    n_chains : int
        Chains that are moved for one update of the parameters.
    n_steps : int
    step_size : float
    noise : float or None
        Of each step; None for √step_size.
    adjusted : bool
    buffer_size : int
        Not below `n_chains`.
    reinitialized_fraction : float
        Probability, in [0, 1], that a chain is started anew, from the base, before it is moved.
    rng : numpy.random.Generator
        Chooses the chains.

    Attributes
    ----------
    buffer : Tensor, (buffer_size, *shape)
    acceptance_rate : float
        Of the chains moved last; 1 without an accept step.
    """

    def __init__(
        self,
        network: EnergyWithBase,
        backend: TorchBackend,
        *,
        n_chains: int,
        n_steps: int,
        step_size: float,
        noise: float | None,
        adjusted: bool,
        buffer_size: int,
        reinitialized_fraction: float,
        rng: np.random.Generator,
    ) -> None:
        self._n_chains = check_integer(n_chains, "n_chains", minimum=1)
        self._n_steps = check_integer(n_steps, "n_steps", minimum=1)
        self._step_size = check_number(step_size, "step_size", minimum=0, exclusive=True)
        check_noise(noise, adjusted)
        self._noise = math.sqrt(self._step_size) if noise is None else float(noise)
        self._adjusted = bool(adjusted)
        buffer_size = check_integer(buffer_size, "buffer_size", minimum=1)
        if buffer_size < self._n_chains:
            raise ValueError(f"buffer_size must be at least n_chains, {self._n_chains}; got {buffer_size}")
        if check_number(reinitialized_fraction, "reinitialized_fraction", minimum=0) > 1:
            raise ValueError(f"reinitialized_fraction must be in [0, 1]; got {reinitialized_fraction}")
        self._reinitialized_fraction = float(reinitialized_fraction)
        self._network = network
        self._backend = backend
        self._rng = rng
        self.buffer = network.base_draws(buffer_size, backend)
        self.acceptance_rate = 1.0
        self.settings: Mapping[str, Any] = {
            "n_chains": self._n_chains,
            "n_steps": self._n_steps,
            "step_size": self._step_size,
            "noise": self._noise,
            "adjusted": self._adjusted,
            "buffer_size": buffer_size,
            "reinitialized_fraction": self._reinitialized_fraction,
        }

    def draw(self) -> Tensor:
        """Move some chains on, and return where they are then, (n_chains, *shape)."""
        rows = self._backend.array(self._rng.choice(len(self.buffer), self._n_chains, replace=False))
        start = self.buffer[rows]
        is_new = self._rng.random(self._n_chains) < self._reinitialized_fraction
        start[self._backend.array(is_new)] = self._network.base_draws(int(is_new.sum()), self._backend)
        chains = LangevinChains(self._network, start, self._backend)
        for _ in range(self._n_steps):
            acceptance = chains.advance(self._step_size, self._noise, adjusted=self._adjusted)
        self.acceptance_rate = float(acceptance.mean())
        self.buffer[rows] = chains.x
        return chains.x
