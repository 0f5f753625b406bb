"""Maximum likelihood for an energy network, as the training loop wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pm_neural.training._backend import TorchBackend
from pm_neural.training._data import FREE_ENERGY_GAP, evenly_spaced, fingerprint
from pm_neural.training._gradient import clip_norm
from pm_neural.training._minibatch import Minibatches
from pm_neural.training._optimizer import Ascent
from pm_neural.training._replay import ReplayedLangevin
from pm_neural.training._schedule import SCHEDULES

if TYPE_CHECKING:
    from pm_neural.training.energy_network import EnergyNetwork

KIND = "EnergyNetwork"
_MOST_ROWS_OF_A_LOOK = 500
_MEASUREMENTS = {
    "data_energy": {"long_name": "mean energy of training data", "units": "nats per row"},
    "chain_energy": {"long_name": "mean energy of chains in the replay buffer", "units": "nats per row"},
    "acceptance_rate": {"long_name": "acceptance rate of the last Langevin steps", "units": "1"},
}
_DISPLAYED = {"data_energy": "data", "chain_energy": "chains", "free_energy_gap": "gap"}


class EnergyLearner:
    """One network, its minibatches, chains and optimizer.

    Parameters
    ----------
    network : EnergyNetwork
    backend : TorchBackend
    minibatches : Minibatches
    negatives : ReplayedLangevin
    ascent : Ascent
        Of the parameters that are learnt.
    energy_regularization : float
    max_gradient_norm : float or None
        Norm of all of the gradient beyond which it is made shorter.
    learning_rate_schedule : str
        A key of `SCHEDULES`.
    epochs : int
    rng : numpy.random.Generator
    train, validation : array, (n, *shape)
        Validation data may be None.
    """

    kind = KIND
    monitored = "free_energy_gap"

    def __init__(
        self,
        network: EnergyNetwork,
        *,
        backend: TorchBackend,
        minibatches: Minibatches,
        negatives: ReplayedLangevin,
        ascent: Ascent,
        energy_regularization: float,
        max_gradient_norm: float | None,
        learning_rate_schedule: str,
        epochs: int,
        rng: np.random.Generator,
        train: np.ndarray,
        validation: np.ndarray | None,
    ) -> None:
        self.displayed: Mapping[str, str] = _DISPLAYED
        self.parameters: Sequence[Tensor] = network.learnt_parameters()
        self.settings: Mapping[str, Any] = {
            "network": network.description(),
            "data": fingerprint(train, validation),
            "epochs": epochs,
            **minibatches.settings,
            **negatives.settings,
            **ascent.settings,
            "energy_regularization": energy_regularization,
            "learning_rate_schedule": learning_rate_schedule,
            "max_gradient_norm": max_gradient_norm,
        }
        gap = {} if validation is None else FREE_ENERGY_GAP
        self.measurements: Mapping[str, Mapping[str, str]] = {**_MEASUREMENTS, **gap}
        self._network = network
        self._backend = backend
        self._minibatches = minibatches
        self._negatives = negatives
        self._ascent = ascent
        self._energy_regularization = energy_regularization
        self._max_gradient_norm = max_gradient_norm
        self._schedule = SCHEDULES[learning_rate_schedule]
        self._n_updates = epochs * len(minibatches)
        self._rng = rng
        self._train = self._sample_of(train)
        self._validation = None if validation is None else self._sample_of(validation)

    def _sample_of(self, X: np.ndarray) -> Tensor:
        return self._backend.array(evenly_spaced(X, min(len(X), _MOST_ROWS_OF_A_LOOK)).astype(float))

    def train_epoch(self, epoch: int) -> None:
        """Learn from all minibatches once."""
        first = epoch * len(self._minibatches)
        for update, batch in enumerate(self._minibatches, start=first):
            gradient = self._gradient(batch)
            if self._max_gradient_norm is not None:
                clip_norm(gradient, self._max_gradient_norm)
            self._ascent.step(gradient, self._schedule(update / self._n_updates))

    def _gradient(self, data: Tensor) -> tuple[Tensor, ...]:
        """Ascent direction of the log-likelihood less the penalty; the base has no parameters to learn."""
        states = self._negatives.draw()
        with torch.enable_grad():
            energies = self._network.learnt_energy(torch.cat([data, states]))
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
        if not all(torch.isfinite(p).all() for p in self.parameters):
            raise FloatingPointError("training diverged: parameters are not finite; lower learning_rate")
        energy = self._network.energy
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
        return {
            "parameters": dict(self._network.state_dict()),
            "ascent": self._ascent.state_dict(),
            "buffer": self._negatives.buffer,
            "backend": self._backend.random_state(),
            "generator": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""
        self._network.load_state_dict({name: torch.as_tensor(value) for name, value in state["parameters"].items()})
        self._ascent.load_state_dict(state["ascent"])
        self._negatives.buffer.copy_(torch.as_tensor(state["buffer"]))
        self._backend.set_random_state(state["backend"])
        self._rng.bit_generator.state = state["generator"]
