"""Gradient ascent by minibatches, as the training loop wants it, whatever the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from pm_neural.fitting.backend import Array, Backend
from pm_neural.fitting.checkpoint import load_parameters
from pm_neural.fitting.data import fingerprint
from pm_neural.fitting.minibatch import Minibatches
from pm_neural.fitting.optimizer import Ascent
from pm_neural.fitting.options import FitOptions
from pm_neural.fitting.schedule import SCHEDULES


class Trainable(Protocol):
    """What training needs of a torch module."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True)
class Plan[AnyBackend: Backend]:
    """What is learnt from, and by what steps.

    Attributes
    ----------
    backend : Backend
    minibatches : Minibatches
    ascent : Ascent
        Of the parameters, in the order of the gradient.
    learning_rate_schedule : str
        A key of `SCHEDULES`.
    epochs : int
    rng : numpy.random.Generator
        The generator that `minibatches` draws from.
    train, validation : ndarray, (n, ...)
        The data, for looks at the model; validation may be None.
    """

    backend: AnyBackend
    minibatches: Minibatches
    ascent: Ascent
    learning_rate_schedule: str
    epochs: int
    rng: np.random.Generator
    train: np.ndarray
    validation: np.ndarray | None

    @classmethod
    def make(
        cls,
        options: FitOptions,
        ascent: Ascent,
        backend: AnyBackend,
        rows: Array,
        train: np.ndarray,
        validation: np.ndarray | None,
        rng: np.random.Generator,
    ) -> Self:
        """Make a plan of what a user chose; `rows` are the training data as the backend has them."""
        batch_size = min(options.batch_size, len(train))
        return cls(
            backend=backend,
            minibatches=Minibatches(backend, rows, batch_size=batch_size, rng=rng),
            ascent=ascent,
            learning_rate_schedule=options.learning_rate_schedule,
            epochs=int(options.epochs),
            rng=rng,
            train=train,
            validation=validation,
        )

    @property
    def data_settings(self) -> dict[str, Any]:
        """What is learnt from, as JSON values."""
        data = fingerprint(self.train, self.validation)
        return {"data": data, "epochs": self.epochs, **self.minibatches.settings}


class MinibatchLearner[Model: Trainable, AnyBackend: Backend](ABC):
    """A model and the plan of its training: a `Learner` but for its settings and what a look measures.

    Parameters
    ----------
    model : torch.nn.Module
    plan : Plan
    measurements, of_validation : mapping
        Attributes of what `measure` returns, and of what validation data add to it.
    """

    parameters: Sequence[Tensor]
    measurements: Mapping[str, Mapping[str, str]]

    def __init__(
        self,
        model: Model,
        plan: Plan[AnyBackend],
        *,
        measurements: Mapping[str, Mapping[str, str]],
        of_validation: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.parameters = tuple(model.parameters())
        self.measurements = {**measurements, **({} if plan.validation is None else of_validation)}
        self._model = model
        self._plan = plan
        self._schedule = SCHEDULES[plan.learning_rate_schedule]
        self._n_updates = plan.epochs * len(plan.minibatches)
        self._train = self._sample_of(plan.train)
        self._validation = None if plan.validation is None else self._sample_of(plan.validation)

    @abstractmethod
    def _sample_of(self, X: np.ndarray) -> Tensor:
        """Choose the rows that a look uses."""

    @abstractmethod
    def _direction(self, batch: Array, update: int) -> Sequence[Array]:
        """Return the ascent direction of the parameters; `update` counts from 0."""

    def train_epoch(self, epoch: int) -> None:
        """Learn from all minibatches once."""
        first = epoch * len(self._plan.minibatches)
        for update, batch in enumerate(self._plan.minibatches, start=first):
            self._plan.ascent.step(self._direction(batch, update), self._schedule(update / self._n_updates))

    def _check_parameters(self) -> None:
        if not all(torch.isfinite(p).all() for p in self.parameters):
            raise FloatingPointError("training diverged: parameters are not finite; lower learning_rate")

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimizer and random numbers, by reference."""
        return {
            "parameters": dict(self._model.state_dict()),
            "ascent": self._plan.ascent.state_dict(),
            "backend": self._plan.backend.random_state(),
            "generator": self._plan.rng.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""
        load_parameters(self._model, state["parameters"])
        self._plan.ascent.load_state_dict(state["ascent"])
        self._plan.backend.set_random_state(state["backend"])
        self._plan.rng.bit_generator.state = state["generator"]
