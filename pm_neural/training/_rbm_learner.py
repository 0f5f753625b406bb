"""Maximum likelihood for an RBM, as the training loop wants it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pm_neural.training._backend import Backend
from pm_neural.training._gradient import LikelihoodGradient
from pm_neural.training._minibatch import Minibatches
from pm_neural.training._optimizer import Ascent
from pm_neural.training._schedule import SCHEDULES

if TYPE_CHECKING:
    from pm_neural.training.rbm import RBM

# What a look at the model costs at most, in images * visible units * hidden units, unless that is
# less than a few images: a small part of what about a hundred epochs cost.
_LOOK_COST, _LEAST_IMAGES = 3_200_000, 200
_PSEUDO_LIKELIHOOD_COST, _LEAST_PSEUDO_LIKELIHOOD_IMAGES = 300_000, 16


class RBMLearner:
    """One RBM, its minibatches, gradient and optimizer.

    Parameters
    ----------
    rbm : RBM
    backend : Backend
    minibatches : Minibatches
    gradient : LikelihoodGradient
    ascent : Ascent
    learning_rate_schedule : str
        A key of `SCHEDULES`.
    epochs : int
    rng : numpy.random.Generator
        The generator that `minibatches` draws from.
    train, validation : ndarray, (n, n_visible); validation may be None
    """

    kind = "RBM"
    monitored = "free_energy_gap"
    displayed: Mapping[str, str] = {"pseudo_log_likelihood": "PLL", "free_energy_gap": "gap"}

    def __init__(
        self,
        rbm: RBM,
        *,
        backend: Backend,
        minibatches: Minibatches,
        gradient: LikelihoodGradient,
        ascent: Ascent,
        learning_rate_schedule: str,
        epochs: int,
        rng: np.random.Generator,
        train: np.ndarray,
        validation: np.ndarray | None,
    ) -> None:
        self.parameters: Sequence[torch.Tensor] = tuple(rbm.parameters())
        self.settings: Mapping[str, Any] = {
            "n_visible": rbm.n_visible,
            "n_hidden": rbm.n_hidden,
            "dtype": str(rbm.W.dtype),
            "data": _fingerprint(train, validation),
            "epochs": epochs,
            **minibatches.settings,
            **gradient.settings,
            **ascent.settings,
            "learning_rate_schedule": learning_rate_schedule,
        }
        self.measurements: Mapping[str, Mapping[str, str]] = (
            _MEASUREMENTS if validation is not None else _TRAIN_MEASUREMENTS
        )
        self._rbm = rbm
        self._backend = backend
        self._minibatches = minibatches
        self._gradient = gradient
        self._ascent = ascent
        self._schedule = SCHEDULES[learning_rate_schedule]
        self._n_updates = epochs * len(minibatches)
        self._rng = rng
        self._train = self._sample_of(train)
        self._validation = None if validation is None else self._sample_of(validation)
        n_pseudo = max(_LEAST_PSEUDO_LIKELIHOOD_IMAGES, _PSEUDO_LIKELIHOOD_COST // rbm.W.numel())
        self._pseudo_likelihood_images = self._train[:n_pseudo]

    def _sample_of(self, X: np.ndarray) -> torch.Tensor:
        """Evenly spaced images, so that a sorted data set is represented too."""
        n = min(len(X), max(_LEAST_IMAGES, _LOOK_COST // self._rbm.W.numel()))
        rows = np.linspace(0, len(X) - 1, n).round().astype(int)
        return torch.as_tensor(X[rows], dtype=self._rbm.W.dtype, device=self._rbm.W.device)

    def train_epoch(self, epoch: int) -> None:
        """Learn from all minibatches once."""
        first = epoch * len(self._minibatches)
        for update, batch in enumerate(self._minibatches, start=first):
            gradient = self._gradient(batch)
            self._ascent.step(gradient, self._schedule(update / self._n_updates))

    def measure(self) -> dict[str, float]:
        """Look at the RBM.

        Raises
        ------
        FloatingPointError
            The parameters are no longer finite.
        """
        if not all(torch.isfinite(p).all() for p in self.parameters):
            raise FloatingPointError("training diverged: parameters are not finite; lower learning_rate")
        rbm, train = self._rbm, self._train
        pseudo_log_likelihood = rbm.pseudo_log_likelihood(self._pseudo_likelihood_images)
        row = {
            "pseudo_log_likelihood": pseudo_log_likelihood.mean(),
            "reconstruction_error": rbm.reconstruction_error(train).mean(),
            "weight_norm": rbm.W.norm(),
        }
        if self._validation is not None:
            row["free_energy_gap"] = rbm.free_energy(self._validation).mean() - rbm.free_energy(train).mean()
        return {name: float(value) for name, value in row.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimizer, chains and random numbers, by reference."""
        return {
            "parameters": dict(self._rbm.state_dict()),
            "ascent": self._ascent.state_dict(),
            "gradient": self._gradient.state_dict(),
            "backend": self._backend.random_state(),
            "generator": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""
        tensors = {name: torch.as_tensor(value) for name, value in state["parameters"].items()}
        self._rbm.load_state_dict(tensors)
        self._ascent.load_state_dict(state["ascent"])
        self._gradient.load_state_dict(state["gradient"])
        self._backend.set_random_state(state["backend"])
        self._rng.bit_generator.state = state["generator"]


_TRAIN_MEASUREMENTS = {
    "reconstruction_error": {
        "long_name": "squared error of the mean-field reconstruction, summed over visible units",
        "units": "1 per image",
    },
    "pseudo_log_likelihood": {
        "long_name": "sum over visible units of log p(unit | all others)",
        "units": "nats per image",
    },
    "weight_norm": {"long_name": "Frobenius norm of W", "units": "1"},
}
_MEASUREMENTS = {
    **_TRAIN_MEASUREMENTS,
    "free_energy_gap": {
        "long_name": "mean free energy of the validation data less that of the training data",
        "units": "nats per image",
    },
}


def _fingerprint(*arrays: np.ndarray | None) -> str:
    digest = hashlib.sha256()
    for X in arrays:
        if X is not None:
            digest.update(repr(X.shape).encode())
            digest.update(np.packbits(X.astype(bool)).tobytes())
    return digest.hexdigest()[:16]
