"""Random decisions forced both ways: the exact law of a step from the code that makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["ForcedGenerator", "check_runs_what_is_forced", "model_of", "outcomes", "owner_of"]


def outcomes[State](
    run: Callable[[np.ndarray], tuple[State, np.ndarray]], max_runs: int
) -> Iterator[tuple[State, float]]:
    """Yield what a step leads to, each with its probability; a state may come several times.

    The tree of decisions is walked depth first. A run that is given the first decisions takes 0 for all
    others, and tells the probabilities of all decisions on its way; so it shows one leaf, and where branches with
    positive probability leave its way. There are as many runs as leaves.

    Parameters
    ----------
    run : callable
        ``run(bits)`` makes the step from one and the same state, its random decisions taken from `bits` (uint8) in
        order, zeros where they run out. It returns the new state and the probability with which each decision would
        have come out as 1, as many as it made.
    max_runs : int

    Raises
    ------
    ValueError
        If a probability is not one, if a step makes fewer decisions than it was given, or if there are more
        than `max_runs` leaves.
    """
    branches: list[tuple[list[int], float]] = [([], 1.0)]
    for _ in range(max_runs):
        if not branches:
            return
        bits, weight = branches.pop()
        state, probabilities = run(np.array(bits, np.uint8))
        made = probabilities.tolist()
        if len(made) < len(bits):
            raise ValueError(
                f"a step must make the same decisions again, got {len(made)} decisions where the same start and the "
                f"same first decisions led to {len(bits)} before"
            )
        for k in range(len(bits), len(made)):
            one = made[k]
            if not 0 <= one <= 1:
                raise ValueError(f"the probability of decision {k} must be between 0 and 1, got {one}")
            if one > 0:
                branches.append(([*bits, *[0] * (k - len(bits)), 1], weight * one))
            weight *= 1 - one
            if weight == 0:
                break
        else:
            yield state, weight
    if branches:
        raise ValueError(f"one step has more than {max_runs} outcomes of its random decisions")


def model_of(step: Any) -> Any:
    """Return the model that a step samples; those of PyMC keep it among the arguments that they were made with."""
    return step.model if hasattr(step, "model") else step.__getnewargs_ex__()[1]["model"]


def owner_of(step: Any, method: str) -> type | None:
    """Return the class that a method of a step comes from; None if it is the step's own."""
    if method in vars(step):
        return None
    return next(kind for kind in type(step).__mro__ if method in vars(kind))


def check_runs_what_is_forced(step: Any, method: str, forced: type | None, what: str) -> None:
    """Refuse a step whose chains run code that forcing its decisions would never look at.

    Parameters
    ----------
    step : BlockedStep
    method : str
        What a chain runs.
    forced : type or None
        The class that what is forced comes from.
    what : str
        The name of that, for the error.

    Raises
    ------
    TypeError
        If the method comes from a more derived class.
    """
    owner = owner_of(step, method)
    if owner is None or (forced is not None and owner is not forced and issubclass(owner, forced)):
        where = "the instance" if owner is None else owner.__name__
        raise TypeError(
            f"step must run what is looked at, {what}, but {where} has a {method} of its own, which would not be: "
            "define beside it what makes the same step with given decisions, such as forced_step(point, bits)"
        )


class ForcedGenerator:
    """Stand in for a ``numpy.random.Generator`` whose uniform numbers are decided when they are compared.

    A step method of PyMC draws u and asks whether u < t, or log u < t. The number that it is given here answers from
    `bits`, and notes with what probability the answer would have been yes. So the step's own code says
    what is proposed, and what is accepted when.

    Parameters
    ----------
    bits : ndarray of uint8
        The answers in order, zeros where they run out.

    Attributes
    ----------
    probabilities : list of float
    """

    def __init__(self, bits: np.ndarray):
        self._bits = bits
        self.probabilities: list[float] = []

    def random(self, size: Any = None) -> Any:
        """Return one undecided uniform number, or an array of them."""
        if size is None:
            return _Uniform(self)
        numbers = np.empty(size, object)
        for i in np.ndindex(numbers.shape):
            numbers[i] = _Uniform(self)
        return numbers

    def uniform(self) -> Any:
        """Return one undecided uniform number."""
        return _Uniform(self)

    def decide(self, probability: float) -> bool:
        """Answer a question that has the answer yes with this probability."""
        k = len(self.probabilities)
        self.probabilities.append(probability)
        return bool(k < len(self._bits) and self._bits[k])

    def __getattr__(self, name: str) -> Any:
        raise TypeError(
            f"the step draws random numbers by rng.{name}(), but only decisions made by comparing uniform numbers can "
            "be forced"
        )


class _Uniform:
    """A number that is uniform on [0, 1) until it is compared, which it can be once."""

    def __init__(self, generator: ForcedGenerator):
        self._generator: ForcedGenerator | None = generator

    def log(self) -> _LogUniform:
        """Return log u; ``numpy.log`` of an object calls this."""
        return _LogUniform(self)

    def __lt__(self, threshold: float) -> bool:
        if self._generator is None:
            raise TypeError("the step compares a random number twice, so that its decisions cannot be forced")
        generator, self._generator = self._generator, None
        return generator.decide(min(max(float(threshold), 0.0), 1.0))


class _LogUniform:
    def __init__(self, uniform: _Uniform):
        self._uniform = uniform

    def __lt__(self, threshold: float) -> bool:
        return self._uniform < np.exp(min(float(threshold), 0.0))
