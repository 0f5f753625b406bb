"""Stochastic gradient ascent on the evidence lower bound, as the training loop wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pm_neural.training._backend import TorchBackend
from pm_neural.training._data import evenly_spaced, fingerprint
from pm_neural.training._minibatch import Minibatches
from pm_neural.training._optimizer import Ascent
from pm_neural.training._schedule import SCHEDULES

if TYPE_CHECKING:
    from pm_neural.training.vae import VAE

_ROWS_OF_A_LOOK = 1000
_SEED_OF_LOOKS = 0  # the same noise at every look, so that looks differ by the model alone


class VAELearner:
    """One autoencoder, its minibatches and optimizer.

    Parameters
    ----------
    vae : VAE
    backend : TorchBackend
        Draws the codes.
    minibatches : Minibatches
    ascent : Ascent
        Of the parameters, in the module's order.
    learning_rate_schedule : str
        A key of `SCHEDULES`.
    epochs : int
    beta : float
        Weight of the Kullback-Leibler divergence.
    warm_up : int
        Epochs over which the weight rises from 0.
    rng : numpy.random.Generator
        The generator that `minibatches` draws from.
    train, validation : ndarray, (n, n_visible); validation may be None
    """

    kind = "VAE"
    monitored = "validation_loss"
    displayed: Mapping[str, str] = {"elbo": "ELBO", "kl": "KL", "validation_elbo": "validation"}

    def __init__(
        self,
        vae: VAE,
        *,
        backend: TorchBackend,
        minibatches: Minibatches,
        ascent: Ascent,
        learning_rate_schedule: str,
        epochs: int,
        beta: float,
        warm_up: int,
        rng: np.random.Generator,
        train: np.ndarray,
        validation: np.ndarray | None,
    ) -> None:
        self.parameters: Sequence[Tensor] = tuple(vae.parameters())
        self.settings: Mapping[str, Any] = {
            **vae.options,
            "data": fingerprint(train, validation),
            "epochs": epochs,
            **minibatches.settings,
            **ascent.settings,
            "learning_rate_schedule": learning_rate_schedule,
            "beta": beta,
            "warm_up": warm_up,
        }
        of_validation = {} if validation is None else _VALIDATION_MEASUREMENTS
        self.measurements: Mapping[str, Mapping[str, str]] = {**_MEASUREMENTS, **of_validation}
        self._vae = vae
        self._backend = backend
        self._minibatches = minibatches
        self._ascent = ascent
        self._beta = beta
        self._n_warm_up_updates = warm_up * len(minibatches)
        self._schedule = SCHEDULES[learning_rate_schedule]
        self._n_updates = epochs * len(minibatches)
        self._rng = rng
        self._train = self._sample_of(train)
        self._validation = None if validation is None else self._sample_of(validation)

    def _sample_of(self, X: np.ndarray) -> Tensor:
        return self._vae.rows(evenly_spaced(X, min(len(X), _ROWS_OF_A_LOOK)))

    def train_epoch(self, epoch: int) -> None:
        """Learn from all minibatches once."""
        first = epoch * len(self._minibatches)
        for update, batch in enumerate(self._minibatches, start=first):
            beta = self._beta * min(1.0, (update + 1) / max(1, self._n_warm_up_updates))
            reconstruction, kl = self._vae.elbo_terms(batch, self._backend.normal(len(batch), self._vae.n_latent))
            objective = (reconstruction - beta * kl).mean()
            gradient = torch.autograd.grad(objective, self.parameters)
            with torch.no_grad():
                self._ascent.step(gradient, self._schedule(update / self._n_updates))

    def measure(self) -> dict[str, float]:
        """Look at the model.

        Raises
        ------
        FloatingPointError
            The parameters are no longer finite.
        """
        if not all(torch.isfinite(p).all() for p in self.parameters):
            raise FloatingPointError("training diverged: parameters are not finite; lower learning_rate")
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
        reconstruction, kl = self._vae.elbo_terms(rows, look.normal(len(rows), self._vae.n_latent))
        return float(reconstruction.mean()), float(kl.mean())

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimizer and random numbers, by reference."""
        return {
            "parameters": dict(self._vae.state_dict()),
            "ascent": self._ascent.state_dict(),
            "backend": self._backend.random_state(),
            "generator": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""
        self._vae.load_state_dict({name: torch.as_tensor(value) for name, value in state["parameters"].items()})
        self._ascent.load_state_dict(state["ascent"])
        self._backend.set_random_state(state["backend"])
        self._rng.bit_generator.state = state["generator"]


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
