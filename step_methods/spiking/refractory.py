"""How spiking neurons remember that they have fired: refractory counters, their stationary law, their start."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

__all__ = [
    "DecisionSource",
    "Dynamics",
    "GivenDecisions",
    "RandomDecisions",
    "firing_probability",
    "refractory_function",
    "renew",
]

type Order = Literal["sequential", "random", "blocks"]
type RefractoryFunction = str | ArrayLike | Callable[[np.ndarray], ArrayLike]


@dataclass(frozen=True, eq=False)
class Dynamics:
    """What all neurons of a step have in common.

    Attributes
    ----------
    tau : float
        The refractory period, in steps where time is discrete; of no effect in continuous time, whose unit it is.
    continuous : bool
    order : str
        In which neurons take turns within a step.
    g : ndarray, shape (tau + 1,), or None
        The refractory function: readiness to fire, by the counter. None for the absolute refractory period.
    """

    tau: float
    continuous: bool
    order: Order
    g: np.ndarray | None

    @property
    def periods_per_step(self) -> float:
        """The unit of time, in refractory periods."""
        return 1.0 if self.continuous else 1.0 / self.tau

    def silent(self, n: int) -> np.ndarray:
        """Return the counters of n neurons that are off."""
        return np.zeros(n, np.float64 if self.continuous else np.int64)


def _smooth_rise(x: np.ndarray) -> np.ndarray:
    """Return a function that rises from 0 to 1 between x = 0 and 1 with flat ends, and is constant outside."""
    x = np.clip(x, 0.0, 1.0)
    return x - np.sin(2.0 * np.pi * x) / (2.0 * np.pi)


# By the fraction s of the refractory period that is left: 1 for s = 0, and 0 right after a spike, where s = 1.
_NAMED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda s: 1.0 - s,
    "smooth": lambda s: _smooth_rise(1.0 - s),
    "early": lambda s: _smooth_rise(4.0 * (1.0 - s)),
    "late": lambda s: _smooth_rise(1.0 - 2.0 * s),
}


def refractory_function(g: RefractoryFunction, tau: int) -> np.ndarray:
    """Tabulate a refractory function at the counters 0, 1, ..., tau.

    A neuron whose counter is c fires with probability f(u) g[c]: g says how ready it is again while its refractory
    period runs out.

    Parameters
    ----------
    g : str, callable or array_like
        A callable takes the fractions s = (c − 1) / (tau − 1) of the period that are left, from 0 to 1, and returns g.
        An array has tau + 1 values, g at the counters 0 to tau. The names stand for functions that grow from 0 right
        after a spike to 1; all but the first are those of Table 1 of [1]_:

        - ``"linear"``: in a straight line over the whole period, 1 − s;
        - ``"smooth"``: over the whole period, with flat ends, 1 − s + sin(2πs) / (2π);
        - ``"early"``: in the first quarter of the period, 4(1 − s) + sin(8πs) / (2π), and 1 from then on;
        - ``"late"``: in the second half of the period, 1 − 2s + sin(4πs) / (2π), and 0 before.
    tau : int
        At least 2.

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If a name is unknown; if the values are too few or many, not in [0, 1], or not 1 at the counters 0 and 1.

    Notes
    -----
    Table 1 has the functions by c / tau, which leaves g below 1 at the counter 1. They are taken at s because g must be
    1 there: otherwise no firing probability gives a strong input its odds.

    References
    ----------
    .. [1] L. Buesing, J. Bill, B. Nessler, W. Maass, PLoS Comput. Biol. 7 (2011) e1002211.
    """
    left = np.maximum(np.arange(tau + 1) - 1, 0) / (tau - 1)
    if isinstance(g, str):
        if g not in _NAMED:
            raise ValueError(f"g must be one of {sorted(_NAMED)}, a function or an array, got {g!r}")
        values = np.clip(_NAMED[g](left), 0.0, 1.0)  # rounding
    elif callable(g):
        values = np.asarray(g(left), np.float64)
    else:
        try:
            values = np.array(g, np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"g must be the name of a function, a function or an array, got {g!r}") from None
    if values.shape != (tau + 1,):
        raise ValueError(f"g must have tau + 1 = {tau + 1} values, for the counters 0 to tau, got shape {values.shape}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"g must be between 0 and 1 everywhere, got {values.tolist()}")
    if values[0] != 1 or values[1] != 1:
        raise ValueError(
            "g must be 1 for the counters 0 and 1, where the refractory period is over (otherwise no firing "
            f"probability gives a strong input its odds), got {values[0]:g} and {values[1]:g}"
        )
    return values


def firing_probability(u: float, tau: float, g: np.ndarray | None) -> float:
    """Return f(u): the probability to fire of a neuron that is fully ready, with the logit u.

    It makes exp(u) the stationary odds of being on for a neuron whose u does not change. For the absolute refractory
    period this is sigmoid(u − log tau).

    References
    ----------
    L. Buesing, J. Bill, B. Nessler, W. Maass, PLoS Comput. Biol. 7 (2011) e1002211, eq. 11.
    """
    if g is None or not math.isfinite(u):
        return _sigmoid(u - math.log(tau))
    # On the scale of log-odds of f the condition is smooth, and close to linear at both ends.
    low, high = -abs(u) - 40.0 - math.log(tau), abs(u) + 40.0
    return _sigmoid(brentq(lambda x: _log_odds(x, g) - u, low, high, xtol=1e-13))


def _log_odds(x: float, g: np.ndarray) -> float:
    """Log of the stationary odds of a neuron that fires with the probability f = sigmoid(x) where it is ready.

    The law of the counter c falls from tau on by the factors 1 − g[c] f; all that leave 1 come to 0, and leave it with
    probability f.
    """
    log_f = -np.logaddexp(0.0, -x)
    with np.errstate(divide="ignore"):  # where g is 1
        log_stay = log_f + np.logaddexp(np.log1p(-g[1:]), -x)
    return float(log_f + np.logaddexp.reduce(-np.cumsum(log_stay)))


def _sigmoid(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x)) if x > -745.0 else 0.0


class DecisionSource:
    """Where random decisions come from."""

    def decide(self, probability: float) -> bool:
        """Return True with a probability."""
        raise NotImplementedError

    def pick(self, n: int) -> int:
        """Return a number below n, all with the same probability."""
        raise NotImplementedError


class RandomDecisions(DecisionSource):
    """Decisions drawn at random."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def decide(self, probability: float) -> bool:
        """Return True with a probability."""
        return self.rng.random() < probability

    def pick(self, n: int) -> int:
        """Return a number below n, all with the same probability."""
        return int(self.rng.integers(n))


class GivenDecisions(DecisionSource):
    """Decisions that are given, zeros where they run out, and their probabilities noted: see `step_methods.kernels`."""

    def __init__(self, bits: np.ndarray):
        self._bits = bits
        self.probabilities: list[float] = []

    def decide(self, probability: float) -> bool:
        """Return the next decision, and note with what probability it would have been True."""
        (bit,) = self.ahead(1)
        self.note([probability])
        return bool(bit)

    def pick(self, n: int) -> int:
        """Return a number below n, by decisions whether it is 0, whether it is 1, and so on."""
        return next((k for k in range(n - 1) if self.decide(1.0 / (n - k))), n - 1)

    def ahead(self, n: int) -> np.ndarray:
        """Return the next n decisions, for a kernel that makes no more."""
        start = len(self.probabilities)
        bits = np.zeros(n, np.uint8)
        given = self._bits[start : start + n]
        bits[: given.size] = given
        return bits

    def note(self, probabilities: Sequence[float]) -> None:
        """Note the probabilities of the next decisions, which have been made."""
        self.probabilities += probabilities


def renew(
    counters: np.ndarray, ones: np.ndarray, dynamics: Dynamics, fields: Callable[[], np.ndarray], source: DecisionSource
) -> None:
    """Bring counters in line with units that may have been changed, in place.

    A unit that was changed gets a counter from its stationary law: uniform on 1..tau (on the interval (0, 1] in
    continuous time) if it is on, which is exact, and 0 if it is off. All others keep theirs.

    Parameters
    ----------
    counters : ndarray
    ones : ndarray of bool
        The units that are on.
    dynamics : Dynamics
    fields : callable
        Returns the logits u of all units; called for a relative refractory period only, under which the law depends on
        them.
    source : DecisionSource
    """
    changed = (counters > 0) != ones
    if not changed.any():
        return
    counters[changed] = 0
    started = np.flatnonzero(changed & ones)
    if not started.size:
        return
    if dynamics.g is not None:
        u = fields()
        for k in started:
            counters[k] = _relative_start(float(u[k]), dynamics.g, source)
    elif dynamics.continuous:
        assert isinstance(source, RandomDecisions)
        counters[started] = 1.0 - source.rng.random(started.size)
    elif isinstance(source, RandomDecisions):
        counters[started] = source.rng.integers(1, int(dynamics.tau) + 1, started.size)
    else:
        for k in started:
            counters[k] = 1 + source.pick(int(dynamics.tau))


def _relative_start(u: float, g: np.ndarray, source: DecisionSource) -> int:
    """Draw the counter of a neuron that is on, from tau downwards."""
    tau = g.size - 1
    stay = 1.0 - g * firing_probability(u, tau, g)
    weights = np.cumprod(np.append(1.0, stay[:1:-1]))[::-1]  # of the counters 1..tau
    for counter in range(tau, 1, -1):
        if source.decide(float(weights[counter - 1] / weights[:counter].sum())):
            return counter
    return 1
