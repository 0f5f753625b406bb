"""The loop over epochs that every model of this package is trained by.

What is the same for all of them is here: measurements, early stopping, checkpoints and resuming,
the progress bar. What one epoch does is the learner's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import torch
import xarray as xr

from pm_neural.fitting.checkpoint import load_checkpoint, save_checkpoint
from pm_neural.fitting.early_stopping import EarlyStopping, Stopper
from pm_neural.fitting.history import History
from pm_neural.fitting.options import FitOptions
from pm_neural.fitting.progress import training_progress

_SECONDS = {"seconds": {"long_name": "seconds of training per epoch", "units": "s"}}


class Learner(Protocol):
    """A model, its data and its rule of learning."""

    kind: str
    """What a checkpoint holds."""
    settings: Mapping[str, Any]
    """JSON values; training is resumed only with the same ones."""
    parameters: Sequence[torch.Tensor]
    """What is learnt."""
    measurements: Mapping[str, Mapping[str, str]]
    """Attributes of what `measure` returns."""
    monitored: str
    """The measurement that early stopping watches."""
    displayed: Mapping[str, str]
    """Measurements that the progress bar shows, where they are made, and what it calls them."""

    def train_epoch(self, epoch: int) -> None:
        """Learn from all data once; `epoch` counts from 0."""

    def measure(self) -> dict[str, float]:
        """Look at the model."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on, by reference."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""


def train(learner: Learner, options: FitOptions) -> xr.Dataset:
    """Train until the last epoch, or until early stopping ends it, and return the history."""
    epochs, measure_every, checkpoint = int(options.epochs), options.epochs_between_looks, options.checkpoint
    settings = {
        **learner.settings,
        "measure_every": measure_every,
        "early_stopping": None if options.early_stopping is None else repr(options.early_stopping),
    }
    run = _Run(learner, options.early_stopping, settings)
    if options.resume and checkpoint is not None and Path(checkpoint).exists():
        run.load_state_dict(load_checkpoint(checkpoint, kind=learner.kind))
    with training_progress(epochs, enabled=options.progressbar) as report:
        while run.epoch < epochs and not run.is_stopped:
            run.train_epoch()
            is_last = run.epoch == epochs
            if is_last or run.epoch % measure_every == 0:
                run.measure()
            report(run.epoch, {v: run.latest[k] for k, v in learner.displayed.items() if k in run.latest})
            if checkpoint is not None and (is_last or run.is_stopped or run.epoch % options.checkpoint_every == 0):
                save_checkpoint(checkpoint, kind=learner.kind, state=run.state_dict())
    attrs = {name: _as_attribute(value) for name, value in settings.items()}
    return run.history.to_dataset({**attrs, "training_seconds": run.seconds})


class _Run:
    """The state of the loop."""

    def __init__(
        self,
        learner: Learner,
        early_stopping: EarlyStopping | None,
        settings: Mapping[str, Any],
    ) -> None:
        self._learner = learner
        self._settings = settings
        self._stopper = None if early_stopping is None else Stopper(early_stopping)
        self._kept = _copies(learner.parameters)
        self._seconds_before = 0.0
        self._epoch_before = 0
        self.history = History({**learner.measurements, **_SECONDS})
        self.epoch = 0
        self.seconds = 0.0
        self.latest: dict[str, float] = {}

    @property
    def is_stopped(self) -> bool:
        return self._stopper is not None and self._stopper.should_stop

    def train_epoch(self) -> None:
        start = perf_counter()
        self._learner.train_epoch(self.epoch)
        self.seconds += perf_counter() - start
        self.epoch += 1

    def measure(self) -> None:
        row = self.latest = self._learner.measure()
        epochs, seconds = self.epoch - self._epoch_before, self.seconds - self._seconds_before
        self._epoch_before, self._seconds_before = self.epoch, self.seconds
        self.history.append(self.epoch, {**row, "seconds": seconds / epochs})
        if self._stopper is not None:
            if self._stopper.within_tolerance(row[self._learner.monitored]):
                self._kept = _copies(self._learner.parameters)
            elif self._stopper.should_stop:
                _overwrite(self._learner.parameters, self._kept)

    def state_dict(self) -> dict[str, Any]:
        return {
            "settings": dict(self._settings),
            "learner": self._learner.state_dict(),
            "history": self.history.state_dict(),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "looked_at": [self._epoch_before, self._seconds_before],
            "early_stopping": self._stopper and {**self._stopper.state_dict(), "kept": self._kept},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _check_same_settings(state["settings"], self._settings)
        self._learner.load_state_dict(state["learner"])
        self.history.load_state_dict(state["history"])
        self.epoch, self.seconds = state["epoch"], state["seconds"]
        self._epoch_before, self._seconds_before = state["looked_at"]
        if self._stopper is not None:
            self._stopper.load_state_dict(state["early_stopping"])
            self._kept = [torch.as_tensor(p) for p in state["early_stopping"]["kept"]]


def _as_attribute(value: Any) -> Any:
    """Turn what NetCDF cannot store as an attribute into text."""
    is_nested = isinstance(value, list) and any(isinstance(item, list) for item in value)
    return str(value) if value is None or isinstance(value, bool) or is_nested else value


def _check_same_settings(saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for name in given:
        if saved.get(name) != given[name]:
            raise ValueError(
                f"resume=True needs the arguments of the checkpoint: {name} is {given[name]!r}, "
                f"and was {saved.get(name)!r}"
            )


def _copies(parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [p.detach().clone() for p in parameters]


@torch.no_grad()
def _overwrite(parameters: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
