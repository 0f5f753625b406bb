"""Maximum likelihood for a restricted Boltzmann machine, as the training loop wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pm_neural.training._backend import Backend
from pm_neural.training._data import FREE_ENERGY_GAP, evenly_spaced, fingerprint
from pm_neural.training._gradient import LikelihoodGradient, clip_norm
from pm_neural.training._minibatch import Minibatches
from pm_neural.training._optimizer import Ascent
from pm_neural.training._schedule import SCHEDULES

if TYPE_CHECKING:
    from pm_neural.training._machine import RestrictedMachine

# What a look at the model costs at most, in images * visible units * hidden units, unless that is
# less than a few images: a small part of what about a hundred epochs cost.
_LOOK_COST, _LEAST_IMAGES = 3_200_000, 200


class RBMLearner:
    """One machine, its minibatches, gradient and optimizer.

    Parameters
    ----------
    machine : RestrictedMachine
    backend : Backend
    minibatches : Minibatches
    gradient : LikelihoodGradient
    ascent : Ascent
    max_gradient_norm : float or None
        Norm of all of the gradient beyond which it is made shorter.
    learning_rate_schedule : str
        A key of `SCHEDULES`.
    epochs : int
    rng : numpy.random.Generator
        The generator that `minibatches` draws from.
    train, validation : ndarray, (n, n_visible); validation may be None
    """

    monitored = "free_energy_gap"

    def __init__(
        self,
        machine: RestrictedMachine,
        *,
        backend: Backend,
        minibatches: Minibatches,
        gradient: LikelihoodGradient,
        ascent: Ascent,
        max_gradient_norm: float | None,
        learning_rate_schedule: str,
        epochs: int,
        rng: np.random.Generator,
        train: np.ndarray,
        validation: np.ndarray | None,
    ) -> None:
        self.kind = machine.kind
        self.displayed = machine.displayed
        self.parameters: Sequence[torch.Tensor] = tuple(machine.parameters())
        self.settings: Mapping[str, Any] = {
            "n_visible": machine.n_visible,
            "n_hidden": machine.n_hidden,
            "dtype": str(machine.W.dtype),
            "data": fingerprint(train, validation),
            "epochs": epochs,
            **minibatches.settings,
            **gradient.settings,
            **ascent.settings,
            "learning_rate_schedule": learning_rate_schedule,
            "max_gradient_norm": max_gradient_norm,
        }
        gap = {} if validation is None else FREE_ENERGY_GAP
        self.measurements: Mapping[str, Mapping[str, str]] = {**machine.measurements, **gap}
        self._machine = machine
        self._backend = backend
        self._minibatches = minibatches
        self._gradient = gradient
        self._ascent = ascent
        self._max_gradient_norm = max_gradient_norm
        self._schedule = SCHEDULES[learning_rate_schedule]
        self._n_updates = epochs * len(minibatches)
        self._rng = rng
        self._train = self._sample_of(train)
        self._validation = None if validation is None else self._sample_of(validation)

    def _sample_of(self, X: np.ndarray) -> torch.Tensor:
        """Evenly spaced images, so that a sorted data set is represented too."""
        n = min(len(X), max(_LEAST_IMAGES, _LOOK_COST // self._machine.W.numel()))
        return torch.as_tensor(evenly_spaced(X, n), dtype=self._machine.W.dtype, device=self._machine.W.device)

    def train_epoch(self, epoch: int) -> None:
        """Learn from all minibatches once."""
        first = epoch * len(self._minibatches)
        for update, batch in enumerate(self._minibatches, start=first):
            gradient = self._gradient(batch)
            if self._max_gradient_norm is not None:
                clip_norm(gradient, self._max_gradient_norm)
            self._ascent.step(gradient, self._schedule(update / self._n_updates))

    def measure(self) -> dict[str, float]:
        """Look at the machine.

        Raises
        ------
        FloatingPointError
            The parameters are no longer finite.
        """
        if not all(torch.isfinite(p).all() for p in self.parameters):
            raise FloatingPointError("training diverged: parameters are not finite; lower learning_rate")
        row = self._machine.measure(self._train)
        if self._validation is not None:
            free_energy = self._machine.free_energy
            row["free_energy_gap"] = free_energy(self._validation).mean() - free_energy(self._train).mean()
        return {name: float(value) for name, value in row.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimizer, chains and random numbers, by reference."""
        return {
            "parameters": dict(self._machine.state_dict()),
            "ascent": self._ascent.state_dict(),
            "gradient": self._gradient.state_dict(),
            "backend": self._backend.random_state(),
            "generator": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""
        tensors = {name: torch.as_tensor(value) for name, value in state["parameters"].items()}
        self._machine.load_state_dict(tensors)
        self._ascent.load_state_dict(state["ascent"])
        self._gradient.load_state_dict(state["gradient"])
        self._backend.set_random_state(state["backend"])
        self._rng.bit_generator.state = state["generator"]
