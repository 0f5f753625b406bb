"""One update of the parameters: plain SGD in place, or any torch optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import torch

from pm_neural.fitting.backend import Array, Backend
from pm_neural.fitting.checks import check_number

_OWN_RATE_FACTOR = 0.1
_WANTED = "'sgd', a torch optimizer, or a callable that makes one from parameters"

type OptimizerFactory = Callable[[Iterable[Any]], torch.optim.Optimizer]


class Ascent(Protocol):
    """A rule that moves the parameters up a gradient."""

    settings: Mapping[str, Any]
    """Its constants, as JSON values."""

    def step(self, gradient: Sequence[Array], learning_rate_factor: float) -> None:
        """Move the parameters; the gradient arrays may be overwritten."""

    def state_dict(self) -> dict[str, Any]:
        """Return what is carried from step to step, by reference."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""


class MomentumSGD:
    """What `torch.optim.SGD` does with ``maximize=True``, in place and without its cost per call.

    Parameters
    ----------
    backend : Backend
    parameters : sequence of Parameter
    learning_rate : float
    momentum : float
        In [0, 1).
    own_rates : mapping of str to (Parameter, float)
        Further parameters with learning rates of their own, by the names of these rates.
    """

    def __init__(
        self,
        backend: Backend,
        parameters: Sequence[torch.nn.Parameter],
        *,
        learning_rate: float,
        momentum: float,
        own_rates: Mapping[str, tuple[torch.nn.Parameter, float]] = MappingProxyType({}),
    ) -> None:
        self.settings: Mapping[str, Any] = {
            "optimizer": "sgd",
            "learning_rate": learning_rate,
            "momentum": momentum,
            **{name: rate for name, (_, rate) in own_rates.items()},
        }
        self._backend = backend
        self._learning_rates = [learning_rate] * len(parameters) + [rate for _, rate in own_rates.values()]
        parameters = [*parameters, *(parameter for parameter, _ in own_rates.values())]
        self._parameters = [backend.view(p) for p in parameters]
        self._momentum = momentum
        self._velocity = [backend.view(torch.zeros_like(p)) for p in parameters] if momentum else []

    def step(self, gradient: Sequence[Array], learning_rate_factor: float) -> None:
        for velocity, g in zip(self._velocity, gradient, strict=False):
            velocity *= self._momentum
            velocity += g
            g[...] = velocity
        for parameter, g, learning_rate in zip(self._parameters, gradient, self._learning_rates, strict=True):
            g *= learning_rate * learning_rate_factor
            parameter += g

    def state_dict(self) -> dict[str, Any]:
        return {"velocity": [self._backend.tensor(v) for v in self._velocity]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for velocity, saved in zip(self._velocity, state["velocity"], strict=True):
            velocity[...] = self._backend.array(saved)


class TorchAscent:
    """Any torch optimizer, fed with the gradient of the negative log-likelihood.

    Parameters
    ----------
    backend : Backend
    parameters : sequence of Parameter
    optimizer : torch.optim.Optimizer or callable
        An optimizer of these parameters, or what makes one of them, such as ``torch.optim.Adam`` or
        a `functools.partial` of it.
    learning_rate : float or None
        None keeps the optimizer's own.
    own_rates : mapping of str to (Parameter, float or None)
        Further parameters, and learning rates of their own for an optimizer that is made here.
    """

    def __init__(
        self,
        backend: Backend,
        parameters: Sequence[torch.nn.Parameter],
        *,
        optimizer: torch.optim.Optimizer | OptimizerFactory,
        learning_rate: float | None,
        own_rates: Mapping[str, tuple[torch.nn.Parameter, float | None]] = MappingProxyType({}),
    ) -> None:
        self._backend = backend
        self._parameters = [*parameters, *(parameter for parameter, _ in own_rates.values())]
        given_rates = {id(parameter): rate for parameter, rate in own_rates.values() if rate is not None}
        if not isinstance(optimizer, torch.optim.Optimizer):
            others = [p for p in self._parameters if id(p) not in given_rates]
            own_groups = [{"params": [p]} for p in self._parameters if id(p) in given_rates]
            optimizer = optimizer([{"params": others}, *own_groups] if own_groups else others)
        elif given_rates:
            name = next(name for name, (_, rate) in own_rates.items() if rate is not None)
            raise ValueError(f"{name} belongs to an optimizer that fit makes: yours has parameter groups for that")
        self._optimizer = _checked(optimizer, self._parameters)
        groups = self._optimizer.param_groups
        for group in groups:
            rate = given_rates.get(id(group["params"][0]), learning_rate)
            if rate is not None:
                group["lr"] = rate
        self._learning_rates = [group["lr"] for group in groups]
        constants = [{k: v for k, v in group.items() if k != "params"} for group in groups]
        self.settings: Mapping[str, Any] = {
            "optimizer": type(self._optimizer).__name__,
            "learning_rate": float(self._learning_rates[0]),
            "optimizer_options": repr(constants),
        }

    def step(self, gradient: Sequence[Array], learning_rate_factor: float) -> None:
        self._scale_learning_rates(learning_rate_factor)
        for parameter, g in zip(self._parameters, gradient, strict=True):
            g *= -1.0
            parameter.grad = self._backend.tensor(g)
        self._optimizer.step()
        # The gradient arrays are the caller's, and the optimizer may be the user's: leave neither
        # changed.
        self._optimizer.zero_grad(set_to_none=True)
        self._scale_learning_rates(1.0)

    def _scale_learning_rates(self, factor: float) -> None:
        for group, learning_rate in zip(self._optimizer.param_groups, self._learning_rates, strict=True):
            group["lr"] = learning_rate * factor

    def state_dict(self) -> dict[str, Any]:
        state = self._optimizer.state_dict()["state"]
        return {"state": {str(index): values for index, values in state.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        as_torch = {
            int(index): {k: v if v is None else torch.as_tensor(v) for k, v in values.items()}
            for index, values in state["state"].items()
        }
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": as_torch, "param_groups": groups})


def make_ascent(
    backend: Backend,
    parameters: Sequence[torch.nn.Parameter],
    *,
    optimizer: str | torch.optim.Optimizer | OptimizerFactory,
    learning_rate: float | None,
    default_learning_rate: float,
    momentum: float,
    own_rates: Mapping[str, tuple[torch.nn.Parameter, float | None]] = MappingProxyType({}),
) -> Ascent:
    """Make the update rule that the arguments of a `fit` ask for.

    Further parameters can have learning rates of their own, by default a tenth of the other for "sgd".
    """
    momentum = check_number(momentum, "momentum", minimum=0, below=1)
    if learning_rate is not None:
        learning_rate = check_number(learning_rate, "learning_rate", minimum=0, exclusive=True)
    own_rates = {
        name: (parameter, None if rate is None else check_number(rate, name, minimum=0, exclusive=True))
        for name, (parameter, rate) in own_rates.items()
    }
    if isinstance(optimizer, str) and optimizer == "sgd":
        learning_rate = default_learning_rate if learning_rate is None else learning_rate
        rates = {
            name: (parameter, learning_rate * _OWN_RATE_FACTOR if rate is None else rate)
            for name, (parameter, rate) in own_rates.items()
        }
        return MomentumSGD(backend, parameters, learning_rate=learning_rate, momentum=momentum, own_rates=rates)
    if not callable(optimizer) and not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer must be {_WANTED}; got {optimizer!r}")
    if momentum:
        raise ValueError("momentum belongs to optimizer='sgd': give it to the torch optimizer")
    return TorchAscent(backend, parameters, optimizer=optimizer, learning_rate=learning_rate, own_rates=own_rates)


def _checked(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be {_WANTED}; it made a {type(optimizer).__name__}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError("optimizer must take one gradient per step; LBFGS evaluates a loss as well")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if held != {id(p) for p in parameters}:
        raise ValueError("optimizer must hold the parameters of this module, all of them and no others")
    return optimizer
