"""Stochastic gradient ascent on the evidence lower bound, as the training loop wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pm_neural.fitting.backend import TorchBackend
from pm_neural.fitting.data import evenly_spaced
from pm_neural.fitting.learner import MinibatchLearner, Plan, Trainable

_ROWS_OF_A_LOOK = 1000
_SEED_OF_LOOKS = 0  # the same noise at every look, so that looks differ by the model alone


class _Autoencoder(Trainable, Protocol):
    """What is trained: `pm_neural.training.VAE`."""

    options: dict[str, Any]
    n_latent: int

    def rows(self, X: np.ndarray) -> Tensor: ...

    def elbo_terms(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]: ...


class VAELearner(MinibatchLearner[_Autoencoder, TorchBackend]):
    """One autoencoder and the plan of its training.

    Parameters
    ----------
    vae : VAE
    plan : Plan
        Its backend draws the codes.
    beta : float
        Weight of the Kullback-Leibler divergence.
    warm_up : int
        Epochs over which the weight rises from 0.
    """

    kind = "VAE"
    monitored = "validation_loss"
    displayed: Mapping[str, str] = {"elbo": "ELBO", "kl": "KL", "validation_elbo": "validation"}

    def __init__(self, vae: _Autoencoder, plan: Plan[TorchBackend], *, beta: float, warm_up: int) -> None:
        super().__init__(vae, plan, measurements=_MEASUREMENTS, of_validation=_VALIDATION_MEASUREMENTS)
        self.settings: Mapping[str, Any] = {
            **vae.options,
            **plan.data_settings,
            **plan.ascent.settings,
            "learning_rate_schedule": plan.learning_rate_schedule,
            "beta": beta,
            "warm_up": warm_up,
        }
        self._beta = beta
        self._n_warm_up_updates = warm_up * len(plan.minibatches)

    def _sample_of(self, X: np.ndarray) -> Tensor:
        return self._model.rows(evenly_spaced(X, _ROWS_OF_A_LOOK))

    @torch.enable_grad()
    def _direction(self, batch: Tensor, update: int) -> Sequence[Tensor]:
        beta = self._beta * min(1.0, (update + 1) / max(1, self._n_warm_up_updates))
        noise = self._plan.backend.normal(len(batch), self._model.n_latent)
        reconstruction, kl = self._model.elbo_terms(batch, noise)
        return torch.autograd.grad((reconstruction - beta * kl).mean(), self.parameters)

    def measure(self) -> dict[str, float]:
        """Look at the model.

        Raises
        ------
        FloatingPointError
            The parameters are no longer finite.
        """
        self._check_parameters()
        reconstruction, kl = self._look(self._train)
        row = {"elbo": reconstruction - kl, "reconstruction": reconstruction, "kl": kl}
        if self._validation is not None:
            reconstruction, kl = self._look(self._validation)
            row |= {
                "validation_elbo": reconstruction - kl,
                "validation_kl": kl,
                "validation_loss": self._beta * kl - reconstruction,
            }
        return row

    @torch.no_grad()
    def _look(self, rows: Tensor) -> tuple[float, float]:
        look = TorchBackend(rows.dtype, np.random.default_rng(_SEED_OF_LOOKS), rows.device)
        reconstruction, kl = self._model.elbo_terms(rows, look.normal(len(rows), self._model.n_latent))
        return float(reconstruction.mean()), float(kl.mean())


_MEASUREMENTS = {
    "elbo": {"long_name": "evidence lower bound of training images", "units": "nats per image"},
    "reconstruction": {"long_name": "expected log p(x | z) of training images", "units": "nats per image"},
    "kl": {
        "long_name": "divergence of the encoder's Gaussian from the prior, training images",
        "units": "nats per image",
    },
}
_VALIDATION_MEASUREMENTS = {
    "validation_elbo": {"long_name": "evidence lower bound of validation images", "units": "nats per image"},
    "validation_kl": {
        "long_name": "divergence of the encoder's Gaussian from the prior, validation images",
        "units": "nats per image",
    },
}
