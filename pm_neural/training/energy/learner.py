"""Maximum likelihood for an energy network, as the training loop wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pm_neural.fitting.backend import TorchBackend
from pm_neural.fitting.data import FREE_ENERGY_GAP, evenly_spaced
from pm_neural.fitting.learner import MinibatchLearner, Plan
from pm_neural.training.energy.base import EnergyWithBase
from pm_neural.training.energy.replay import ReplayedLangevin
from pm_neural.training.restricted.gradient import clip_norm

_MOST_ROWS_OF_A_LOOK = 500
_MEASUREMENTS = {
    "data_energy": {"long_name": "mean energy of training data", "units": "nats per row"},
    "chain_energy": {"long_name": "mean energy of chains in the replay buffer", "units": "nats per row"},
    "acceptance_rate": {"long_name": "acceptance rate of the last Langevin steps", "units": "1"},
}
_DISPLAYED = {"data_energy": "data", "chain_energy": "chains", "free_energy_gap": "gap"}


class EnergyLearner(MinibatchLearner[EnergyWithBase, TorchBackend]):
    """One network, its chains and the plan of its training.

    Parameters
    ----------
    network : EnergyWithBase
    plan : Plan
    negatives : ReplayedLangevin
    energy_regularization : float
    max_gradient_norm : float or None
        Norm of all of the gradient beyond which it is made shorter.
    """

    kind = "EnergyNetwork"
    monitored = "free_energy_gap"
    displayed: Mapping[str, str] = _DISPLAYED

    def __init__(
        self,
        network: EnergyWithBase,
        plan: Plan[TorchBackend],
        *,
        negatives: ReplayedLangevin,
        energy_regularization: float,
        max_gradient_norm: float | None,
    ) -> None:
        super().__init__(network, plan, measurements=_MEASUREMENTS, of_validation=FREE_ENERGY_GAP)
        self.parameters = network.learnt_parameters()
        self.settings: Mapping[str, Any] = {
            "network": network.description(),
            **plan.data_settings,
            **negatives.settings,
            **plan.ascent.settings,
            "energy_regularization": energy_regularization,
            "learning_rate_schedule": plan.learning_rate_schedule,
            "max_gradient_norm": max_gradient_norm,
        }
        self._negatives = negatives
        self._energy_regularization = energy_regularization
        self._max_gradient_norm = max_gradient_norm

    def _sample_of(self, X: np.ndarray) -> Tensor:
        return self._plan.backend.floats(evenly_spaced(X, _MOST_ROWS_OF_A_LOOK))

    def _direction(self, batch: Tensor, update: int) -> Sequence[Tensor]:
        return clip_norm(self._gradient(batch), self._max_gradient_norm)

    def _gradient(self, data: Tensor) -> tuple[Tensor, ...]:
        """Ascent direction of the log-likelihood less the penalty; the base has no parameters to learn."""
        states = self._negatives.draw()
        with torch.enable_grad():
            energies = self._model.learnt_energy(torch.cat([data, states]))
            of_data, of_states = energies[: len(data)], energies[len(data) :]
            objective = of_states.mean() - of_data.mean()
            if self._energy_regularization:
                penalty = of_data.square().mean() + of_states.square().mean()
                objective = objective - self._energy_regularization * penalty
            return torch.autograd.grad(objective, list(self.parameters), allow_unused=True, materialize_grads=True)

    def measure(self) -> dict[str, float]:
        """Look at the network.

        Raises
        ------
        FloatingPointError
            The chains or the parameters are no longer finite.
        """
        if not torch.isfinite(self._negatives.buffer).all():
            raise FloatingPointError("training diverged: chains are not finite; lower step_size, or set adjusted=True")
        self._check_parameters()
        energy = self._model.energy
        data_energy = energy(self._train).mean().item()
        row = {
            "data_energy": data_energy,
            "chain_energy": energy(self._negatives.buffer[:_MOST_ROWS_OF_A_LOOK]).mean().item(),
            "acceptance_rate": self._negatives.acceptance_rate,
        }
        if self._validation is not None:
            row["free_energy_gap"] = energy(self._validation).mean().item() - data_energy
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimizer, chains and random numbers, by reference."""
        return {**super().state_dict(), "buffer": self._negatives.buffer}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""
        super().load_state_dict(state)
        self._negatives.buffer.copy_(torch.as_tensor(state["buffer"]))
