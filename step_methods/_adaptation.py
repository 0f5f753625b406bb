"""What a gradient step learns while it tunes: its step size and the scale of each coordinate."""

from __future__ import annotations

import numpy as np
from pymc.step_methods.state import DataClassState, WithSamplingState, dataclass_state
from pymc.step_methods.step_sizes import DualAverageAdaptation, StepSizeState

__all__ = ["Adaptation", "AdaptationState", "first_step_size"]

_FIRST_WINDOW = 50
_SHORTEST_WINDOW = 20
_BURN_IN, _SCALES_KNOWN = 0.1, 0.8  # as fractions of the tuning draws
# Dual averaging as in PyMC's NUTS (Hoffman and Gelman, 2014, section 3.2), but with a γ of 0.2 in place of 0.05: the
# acceptance rate of a single step scatters more than that of a trajectory, and a small γ would follow each of them.
_GAMMA, _KAPPA, _T0 = 0.2, 0.75, 10


def first_step_size(n: int) -> float:
    """Return a cautious step size for n coordinates of unit scale; the best one falls as n^(−1/3)."""
    return float(n) ** (-1 / 3)


@dataclass_state
class AdaptationState(DataClassState):
    """Step size, scales, and what has been seen of the current window."""

    variances: np.ndarray
    _step: StepSizeState
    _window_ends: list[int]
    _n_draws: int
    _n_seen: int
    _means: np.ndarray
    _squares: np.ndarray


class Adaptation(WithSamplingState):
    """Step size by dual averaging, scales from the draws and gradients in windows that double in length.

    The squared scale of a coordinate is the ratio of the standard deviations of its draws and of its gradients
    (Seyboldt, Carlson and Carpenter, arXiv:2603.18845). For a normal of variance σ² that is σ², even before the chain
    has seen all of it.

    The first tenth of the tuning draws sees the chain arrive, the last fifth tunes the step size to the last scales.

    Parameters
    ----------
    n : int
        Number of coordinates.
    step_size : float
        The step size to start from: the variance of the proposal's noise.
    target_accept : float

    Attributes
    ----------
    variances : ndarray, shape (n,)
        By which a step is scaled, 1 at the start.
    """

    _state_class = AdaptationState

    def __init__(self, n: int, step_size: float, target_accept: float):
        self._n = n
        self._first_step_size = step_size
        self._target_accept = target_accept
        self.start(0)

    def start(self, n_tune: int) -> None:
        """Forget everything before a chain with `n_tune` tuning draws."""
        self.variances = np.ones(self._n)
        self._window_ends = _window_ends(n_tune)
        self._n_draws = 0
        self._forget_window()
        self._restart_step_size(self._first_step_size)

    def _forget_window(self) -> None:
        self._n_seen = 0
        self._means = np.zeros((2, self._n))
        self._squares = np.zeros((2, self._n))

    def _restart_step_size(self, step_size: float) -> None:
        self._step = DualAverageAdaptation(np.sqrt(step_size), self._target_accept, _GAMMA, _KAPPA, _T0)

    def step_size(self, tuning: bool) -> float:
        """Return the step size, averaged over the tuning draws once these are over."""
        return float(self._step.current(tuning)) ** 2

    def update(self, q: np.ndarray, gradient: np.ndarray, acceptance_rate: float) -> None:
        """Learn from a tuning draw."""
        self._step.update(acceptance_rate, tune=True)
        self._n_draws += 1
        if len(self._window_ends) < 2 or self._n_draws <= self._window_ends[0]:
            return
        self._n_seen += 1
        seen = np.stack([q, gradient])
        deviations = seen - self._means
        self._means = self._means + deviations / self._n_seen
        self._squares = self._squares + deviations * (seen - self._means)
        if self._n_draws == self._window_ends[1]:
            self._learn_scales()
            self._window_ends = self._window_ends[1:]
            self._forget_window()
            self._restart_step_size(first_step_size(self._n))

    def _learn_scales(self) -> None:
        of_draws, of_gradients = self._squares
        with np.errstate(divide="ignore", invalid="ignore"):
            variances = np.sqrt(of_draws / of_gradients)
        # A coordinate that has not moved, or whose gradient has not changed, says nothing about its scale.
        known = np.isfinite(variances) & (variances > 0)
        self.variances = np.where(known, variances, self.variances)


def _window_ends(n_tune: int) -> list[int]:
    """Return where the windows start and end, in tuning draws; the last one takes what is left."""
    end = int(_SCALES_KNOWN * n_tune)
    ends = [int(_BURN_IN * n_tune)]
    length = _FIRST_WINDOW
    while ends[-1] + 3 * length <= end:
        ends.append(ends[-1] + length)
        length *= 2
    return [*ends, end] if end - ends[-1] >= _SHORTEST_WINDOW else []
