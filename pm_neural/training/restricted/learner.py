"""Maximum likelihood for a restricted Boltzmann machine, as the training loop wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import nn

from pm_neural.fitting.backend import Array, Backend
from pm_neural.fitting.data import FREE_ENERGY_GAP, evenly_spaced
from pm_neural.fitting.learner import MinibatchLearner, Plan, Trainable
from pm_neural.training.restricted.gradient import LikelihoodGradient, clip_norm

# What a look at the model costs at most, in images * visible units * hidden units, unless that is
# less than a few images: a small part of what about a hundred epochs cost.
_LOOK_COST, _LEAST_IMAGES = 3_200_000, 200


class _Machine(Trainable, Protocol):
    """What is trained: see `RestrictedMachine`."""

    kind: ClassVar[str]
    measurements: ClassVar[Mapping[str, Mapping[str, str]]]
    displayed: ClassVar[Mapping[str, str]]
    W: nn.Parameter

    @property
    def n_visible(self) -> int: ...

    @property
    def n_hidden(self) -> int: ...

    def free_energy(self, v: torch.Tensor) -> torch.Tensor: ...

    def measure(self, v: torch.Tensor) -> dict[str, torch.Tensor]: ...


class RBMLearner(MinibatchLearner[_Machine, Backend]):
    """One machine, its gradient and the plan of its training.

    Parameters
    ----------
    machine : RestrictedMachine
    plan : Plan
    gradient : LikelihoodGradient
    max_gradient_norm : float or None
        Norm of all of the gradient beyond which it is made shorter.
    """

    monitored = "free_energy_gap"

    def __init__(
        self,
        machine: _Machine,
        plan: Plan[Backend],
        *,
        gradient: LikelihoodGradient,
        max_gradient_norm: float | None,
    ) -> None:
        super().__init__(machine, plan, measurements=machine.measurements, of_validation=FREE_ENERGY_GAP)
        self.kind = machine.kind
        self.displayed = machine.displayed
        self.settings: Mapping[str, Any] = {
            "n_visible": machine.n_visible,
            "n_hidden": machine.n_hidden,
            "dtype": str(machine.W.dtype),
            **plan.data_settings,
            **gradient.settings,
            **plan.ascent.settings,
            "learning_rate_schedule": plan.learning_rate_schedule,
            "max_gradient_norm": max_gradient_norm,
        }
        self._gradient = gradient
        self._max_gradient_norm = max_gradient_norm

    def _sample_of(self, X: np.ndarray) -> torch.Tensor:
        W = self._model.W
        rows = evenly_spaced(X, max(_LEAST_IMAGES, _LOOK_COST // W.numel()))
        return torch.as_tensor(rows, dtype=W.dtype, device=W.device)

    def _direction(self, batch: Array, update: int) -> Sequence[Array]:
        return clip_norm(self._gradient(batch), self._max_gradient_norm)

    def measure(self) -> dict[str, float]:
        """Look at the machine.

        Raises
        ------
        FloatingPointError
            The parameters are no longer finite.
        """
        self._check_parameters()
        row = self._model.measure(self._train)
        if self._validation is not None:
            free_energy = self._model.free_energy
            row["free_energy_gap"] = free_energy(self._validation).mean() - free_energy(self._train).mean()
        return {name: float(value) for name, value in row.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimizer, chains and random numbers, by reference."""
        return {**super().state_dict(), "gradient": self._gradient.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""
        super().load_state_dict(state)
        self._gradient.load_state_dict(state["gradient"])
