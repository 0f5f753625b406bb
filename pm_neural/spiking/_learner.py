"""What one epoch of training a spiking network does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pm_neural.fitting.backend import Backend
from pm_neural.fitting.checkpoint import load_parameters
from pm_neural.fitting.learner import Trainable
from pm_neural.fitting.optimizer import Ascent
from pm_neural.fitting.schedule import SCHEDULES
from pm_neural.spiking._law import divergence, smoothed
from pm_neural.spiking.simulators.norse import LIFRefracState, LIFState
from step_methods.kernels.vectors.random import seed_stream


class _Network(Trainable, Protocol):
    """What is trained: `pm_neural.spiking.SamplingNetwork`."""

    leak: Tensor

    def options(self) -> dict[str, Any]: ...

    def settled_state(self, n_chains: int, stream: np.ndarray) -> Any: ...

    def run_law(self, n_steps: int, n_chains: int, stream: np.ndarray, state: Any) -> tuple[Tensor, Any]: ...


class SpikingLearner:
    """A network, its chains, its target and its optimizer.

    The chains go on from epoch to epoch, so that only the first one has to forget where they started.

    Parameters
    ----------
    network : SamplingNetwork
    target : ndarray, (2**n_readout,)
    backend : Backend
    ascent : Ascent
    learning_rate_schedule : str
        A key of `SCHEDULES`.
    epochs, n_steps, n_chains : int
    rng : numpy.random.Generator
    settings : mapping
        More to be kept in the history.
    """

    kind = "SamplingNetwork"
    monitored = "kl"
    displayed: Mapping[str, str] = {"kl": "KL", "kl_noise": "noise"}
    measurements: Mapping[str, Mapping[str, str]] = {
        "loss": {"long_name": "KL(target ‖ law of the batch) in the last epoch", "units": "nats"},
        "kl": {"long_name": "KL(target ‖ law of the batch) on fresh noise", "units": "nats"},
        "kl_noise": {"long_name": "kl that a perfect sampler whose trials scatter as much would have", "units": "nats"},
        "kl_trial": {"long_name": "mean over the batch of KL(target ‖ law of one trial), fresh noise", "units": "nats"},
    }

    def __init__(
        self,
        network: _Network,
        *,
        target: np.ndarray,
        backend: Backend,
        ascent: Ascent,
        learning_rate_schedule: str,
        epochs: int,
        n_steps: int,
        n_chains: int,
        rng: np.random.Generator,
        settings: Mapping[str, Any],
    ) -> None:
        self.parameters: Sequence[Tensor] = tuple(network.parameters())
        self.settings: Mapping[str, Any] = {
            **network.options(),
            "target": hashlib.sha256(target.tobytes()).hexdigest()[:16],
            "epochs": epochs,
            "n_steps": n_steps,
            "n_chains": n_chains,
            **ascent.settings,
            "learning_rate_schedule": learning_rate_schedule,
            **settings,
        }
        self._network = network
        self._target = torch.as_tensor(target, dtype=network.leak.dtype, device=network.leak.device)
        self._backend = backend
        self._ascent = ascent
        self._schedule = SCHEDULES[learning_rate_schedule]
        self._epochs = epochs
        self._shape = n_steps, n_chains
        self._stream = seed_stream(rng)
        self._loss = float("nan")
        self._state = network.settled_state(n_chains, self._stream)

    def train_epoch(self, epoch: int) -> None:
        """Run the chains on, and descend the divergence of their law from the target.

        Raises
        ------
        FloatingPointError
            Something is no longer finite; what, and in which epoch.
        """
        with _explained(f"in epoch {epoch + 1}"):
            with torch.enable_grad():
                law, self._state = self._network.run_law(*self._shape, self._stream, self._state)
                loss = divergence(self._target, smoothed(law.mean(0), self._shape[0] * self._shape[1]))
                gradient = torch.autograd.grad(loss, self.parameters)
            self._loss = float(loss.detach())
            _check_finite("gradient", gradient)
            with torch.no_grad():
                arrays = [self._backend.view(-g) for g in gradient]
                self._ascent.step(arrays, self._schedule(epoch / self._epochs))
            _check_finite("weights", self.parameters)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Look at the network under noise that it was not trained on.

        Raises
        ------
        FloatingPointError
            Currents or voltages are no longer finite.
        """
        n_steps, n_chains = self._shape
        with _explained("after the last epoch"):
            law, self._state = self._network.run_law(n_steps, n_chains, self._stream, self._state)
        kl, kl_trial = batch_divergences(self._target, law, n_steps)
        return {"loss": self._loss, "kl": kl, "kl_noise": scatter_divergence(self._target, law), "kl_trial": kl_trial}

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, optimizer, chains and random numbers, by reference."""
        lif, rho = self._state
        return {
            "network": self._network.options(),
            "parameters": dict(self._network.state_dict()),
            "ascent": self._ascent.state_dict(),
            "chains": {"z": lif.z, "v": lif.v, "i": lif.i, "rho": rho},
            "stream": self._stream,
            "loss": self._loss,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""
        load_parameters(self._network, state["parameters"])
        self._ascent.load_state_dict(state["ascent"])
        device = self._network.leak.device
        z, v, i, rho = (torch.as_tensor(state["chains"][name], device=device) for name in ("z", "v", "i", "rho"))
        self._state = LIFRefracState(LIFState(z, v, i), rho)
        self._stream[...] = state["stream"]
        self._loss = state["loss"]


def batch_divergences(target: Tensor, law: Tensor, n_steps: int) -> tuple[float, float]:
    """Return KL(target ‖ law of the whole batch), and the mean of KL(target ‖ law of one trial).

    Parameters
    ----------
    target : Tensor, (n_states,)
    law : Tensor, (n_chains, n_states)
        Counted over `n_steps`; half a visit is added to each state.
    n_steps : int
    """
    law = law.double()
    whole = divergence(target.double(), smoothed(law.mean(0), n_steps * len(law)))
    return float(whole), float(divergence(target.double(), smoothed(law, n_steps)).mean())


def scatter_divergence(target: Tensor, law: Tensor) -> float:
    """Return the mean of KL(target ‖ law of the batch) that the scatter of its trials alone would make.

    To second order in the scatter, half the sum over the states of the variance of the mean over the target.
    """
    possible = target > 0
    variance = law.double().var(dim=0) / len(law)
    return float((variance[possible] / target.double()[possible]).sum() / 2)


@contextmanager
def _explained(when: str) -> Iterator[None]:
    """Say when something was no longer finite, and what to do."""
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(f"training diverged {when}: {error}; lower learning_rate") from error


def _check_finite(what: str, tensors: Sequence[Tensor]) -> None:
    for name, tensor in zip(("input", "recurrent"), tensors, strict=True):
        if not torch.isfinite(tensor).all():
            raise FloatingPointError(f"the {what} of the {name} synapses: NaN or infinity")
