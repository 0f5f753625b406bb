"""Langevin dynamics: with an accept step, without one, and with minibatches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pymc.blocking import PointType, StatsType
from pymc.exceptions import SamplingError
from pymc.model import Model, modelcontext
from pymc.step_methods.compound import BlockedStep, Competence, StepMethodState
from pymc.step_methods.state import dataclass_state
from pymc.util import RandomGenerator, get_random_generator, get_value_vars_from_user_vars
from pymc.vartypes import continuous_types
from pytensor.graph.basic import Variable
from pytensor.tensor.random.type import RandomType

from step_methods._adaptation import Adaptation, AdaptationState, first_step_size
from step_methods._progress import ProgressColumns
from step_methods._variables import ChosenVariables, Variables
from step_methods.checks import at_least, positive
from step_methods.reading.minibatches import check_full_data

__all__ = ["SGLD", "Langevin"]

# The default of an argument that must be given.
UNSAID: Any = object()


class _Position(NamedTuple):
    """A point of the unconstrained space, with the log-density there and its gradient."""

    q: np.ndarray
    logp: float
    gradient: np.ndarray

    @property
    def is_usable(self) -> bool:
        """Whether a step can start here."""
        return bool(np.isfinite(self.logp)) and bool(np.isfinite(self.gradient).all())


@dataclass_state
class GradientStepState(StepMethodState):
    """What every step here carries from draw to draw: the generators of minibatches, and what the last one gave."""

    minibatch_rngs: list[np.random.Generator]
    _last: _Position | None


class _GradientStep(ProgressColumns, ChosenVariables, BlockedStep):
    """A step that moves along the gradient of the model's log-density, in the unconstrained space.

    Subclasses give `_move` and `_start_chain`.
    """

    progress_columns: ClassVar[dict] = {
        "step_size": ("Step size (variance)", "0.2g"),
        "acceptance_rate": ("Acceptance", "0.2f"),
    }
    stats_dtypes_shapes: ClassVar[dict] = {
        "acceptance_rate": (np.float64, []),
        "step_size": (np.float64, []),
        "network_energy": (np.float64, []),
        "diverging": (bool, []),
    }

    def __init__(
        self,
        vars: Variables,
        *,
        steps_per_draw: int,
        model: Model,
        rng: RandomGenerator,
        initial_point: PointType | None,
        compile_kwargs: Mapping[str, Any] | None,
        blocked: bool,
    ):
        self.steps_per_draw = at_least(1, "steps_per_draw", steps_per_draw)
        self.vars = _continuous(self.choose(vars, model), model, type(self).__name__)
        self.blocked = blocked
        if initial_point is None:
            initial_point = model.initial_point()
        self._names = [str(var.name) for var in self.vars]
        sizes = [initial_point[name].size for name in self._names]
        self._n = int(sum(sizes))
        bounds = pairwise(np.cumsum([0, *sizes]).tolist())
        self._places = {name: slice(*bound) for name, bound in zip(self._names, bounds, strict=True)}
        self._logp_dlogp = model.logp_dlogp_function(
            self.vars, ravel_inputs=True, initial_point=initial_point, **(compile_kwargs or {})
        )
        self._logp_dlogp.trust_input = True
        self._conditions = bool(self._logp_dlogp._extra_vars)
        self._last: _Position | None = None
        self._start_is_checked = False
        self.tune = False
        self.rng = get_random_generator(rng)
        self._seed_minibatches()

    def setup_chain(self, rng: RandomGenerator, tune: int, draws: int) -> None:
        """Take the chain's generator, seed the minibatches from it, and forget what an earlier chain has learnt."""
        self.rng = get_random_generator(rng, copy=False)
        self._seed_minibatches()
        self._last = None
        self._start_is_checked = False
        self.tune = tune > 0
        self._start_chain(tune)

    def _start_chain(self, tune: int) -> None:
        raise NotImplementedError

    def _move(self, position: _Position) -> tuple[_Position, float, bool]:
        """Return the next position, the acceptance rate, and whether the proposal had no number for a density."""
        raise NotImplementedError

    def _current_step_size(self) -> float:
        raise NotImplementedError

    def _move_unadjusted(self, position: _Position, scale: np.ndarray) -> tuple[_Position, float, bool]:
        """Make a step without an accept step, unless it leads to where the next one could not start."""
        proposal = self._evaluate(_propose(position, scale, self.rng.standard_normal(self._n)))
        return (proposal, 1.0, False) if proposal.is_usable else (position, 0.0, True)

    @property
    def _rng_containers(self) -> list:
        function = self._logp_dlogp._pytensor_function
        return [
            container
            for given, container in zip(function.maker.expanded_inputs, function.input_storage, strict=True)
            if isinstance(given.variable.type, RandomType)
        ]

    @property
    def minibatch_rngs(self) -> list[np.random.Generator]:
        """The generators that choose the minibatches, in the compiled function; empty without minibatches."""
        return [container.storage[0] for container in self._rng_containers]

    @minibatch_rngs.setter
    def minibatch_rngs(self, rngs: Sequence[np.random.Generator]) -> None:
        for container, rng in zip(self._rng_containers, rngs, strict=True):
            container.storage[0] = rng

    def _seed_minibatches(self) -> None:
        if containers := self._rng_containers:
            self.minibatch_rngs = self.rng.spawn(len(containers))

    def step(self, point: PointType) -> tuple[PointType, StatsType]:
        """Draw the step's variables once."""
        position = self._locate(point)
        total_acceptance, step_size, diverging = 0.0, 0.0, False
        for _ in range(self.steps_per_draw):
            step_size = self._current_step_size()
            position, acceptance_rate, diverged = self._move(position)
            total_acceptance += acceptance_rate
            diverging |= diverged
        self._last = position
        new_point = point.copy()
        for name, place in self._places.items():
            new_point[name] = position.q[place].reshape(point[name].shape).astype(point[name].dtype)
        stats = {
            "acceptance_rate": total_acceptance / self.steps_per_draw,
            "step_size": step_size,
            "network_energy": -position.logp,
            "diverging": diverging,
        }
        return new_point, [stats]

    def _locate(self, point: PointType) -> _Position:
        """Return the position of a point, from the last draw where nothing can have changed since."""
        q = np.concatenate([point[name].ravel() for name in self._names])
        if self._conditions:
            self._logp_dlogp.set_extra_values(point)
        elif self._last is not None and np.array_equal(q, self._last.q):
            return self._last
        position = self._evaluate(q)
        if not self._start_is_checked:
            self._check_start(position)
            self._start_is_checked = True
        return position

    def _evaluate(self, q: np.ndarray) -> _Position:
        logp, gradient = self._logp_dlogp(q.astype(self._logp_dlogp.dtype, copy=False))
        return _Position(q, float(logp), np.asarray(gradient, np.float64))

    def _check_start(self, position: _Position) -> None:
        if position.is_usable:
            return
        bad = [name for name, place in self._places.items() if not np.isfinite(position.gradient[place]).all()]
        gradients = f", and the gradient is not finite for {', '.join(map(repr, bad))}" if bad else ""
        raise SamplingError(
            f"{type(self).__name__} cannot start: the log-density of the start value is {position.logp}{gradients}. "
            "Give other start values (initvals), or see model.debug()"
        )

    @classmethod
    def takes(cls, rv: Variable) -> bool:
        """Whether a free random variable is for this step method where none is named."""
        return rv.dtype.startswith("float")

    @staticmethod
    def competence(var: Variable, has_grad: bool = False) -> Competence:
        """INCOMPATIBLE: used where it is asked for."""
        return Competence.INCOMPATIBLE


@dataclass_state
class LangevinState(GradientStepState):
    """What the step carries from draw to draw."""

    tune: bool
    _adaptation: AdaptationState


class Langevin(_GradientStep):
    r"""Langevin dynamics with steps of variance `step_size`: exact with the accept step (MALA), else BIASED.

    For a log-density log p with gradient, in the unconstrained space that PyMC's transforms lead to, propose

    .. math::

        \theta' = \theta + \tfrac{\eta}{2} D \nabla \log p(\theta) + \sqrt{\eta D}\, \xi, \qquad \xi \sim N(0, I),

    and accept with probability :math:`\min(1, p(\theta') q(\theta | \theta') / p(\theta) q(\theta' | \theta))`, q the
    density of the proposal: the Metropolis-adjusted Langevin algorithm (Roberts and Tweedie [1]_). The step size η and
    the diagonal scale D are learnt while PyMC tunes; afterwards they stand still, and the chain is exact.

    Without the accept step (``adjusted=False``) the chain has a stationary distribution of its own, which differs from
    the posterior by a bias of order η: a normal with variance σ² gets the variance σ² / (1 − η / 4σ²). Then η is the
    `step_size` given and D = 1.

    It is used where it is asked for, ``pm.sample(step=pmn.Langevin())``, for continuous variables of any model.

    Parameters
    ----------
    vars : list of Variable or str, optional
        Continuous variables, or their names; all of the model by default.
    step_size : float, optional
        η, the variance of the proposal's noise. With ``adjusted=True`` where the tuning starts, n^(−1/3) by default
        for n coordinates; with ``adjusted=False`` it is the step size, and has no default.
    adjusted : bool
        Whether to make the accept step. Without it the draws are biased.
    adapt : bool
        Whether to learn step size and scale while PyMC tunes. With False, and always without the accept step, η is
        `step_size` and D = 1 throughout.
    target_accept : float
        Acceptance rate to tune to. 0.574 is optimal in many dimensions (Roberts and Rosenthal [2]_).
    steps_per_draw : int
        Steps between two draws.
    model : Model, optional
        The model of the context by default.
    rng : int, Generator or None
        Seed; ``pm.sample`` sets each chain's own.
    initial_point : dict, optional
        A point of the model, to read shapes from.
    compile_kwargs : dict, optional
        For the log-density and its gradient, which are compiled into one function.
    blocked : bool
        With False each variable gets a step of its own, which conditions on the others.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a variable is not continuous or not in the model; if `step_size` is not positive, or missing with
        ``adjusted=False``; if `target_accept` is not between 0 and 1; with ``adjusted=True``, if a term of the model
        sees a minibatch.
    pymc.exceptions.SamplingError
        If log-density or gradient are not finite at the start of a chain.

    See Also
    --------
    SGLD : for minibatches, with a decreasing step size.

    Notes
    -----
    Sampler statistics: ``acceptance_rate`` (the probability of acceptance, averaged over the draw's steps),
    ``step_size`` (η), ``network_energy`` (−log p of the draw, in the unconstrained space), ``diverging`` (whether a
    proposal had a log-density or gradient that is not a number, or infinite; such a proposal is rejected).

    References
    ----------
    .. [1] G. O. Roberts and R. L. Tweedie, "Exponential convergence of Langevin distributions and their discrete
       approximations", Bernoulli 2 (1996) 341, section 1.4.
    .. [2] G. O. Roberts and J. S. Rosenthal, "Optimal scaling of discrete approximations to Langevin diffusions",
       Journal of the Royal Statistical Society B 60 (1998) 255.

    Examples
    --------
    >>> import pymc as pm, pm_neural as pmn
    >>> with pm.Model():
    ...     x = pm.Normal("x", shape=3)
    ...     s = pm.HalfNormal("s")
    ...     idata = pm.sample(100, tune=100, chains=2, cores=1, step=pmn.Langevin(), progressbar=False)
    """

    name = "langevin"
    default_tune_steps = 1000
    _state_class = LangevinState

    def __init__(
        self,
        vars: Variables = None,
        step_size: float | None = None,
        *,
        adjusted: bool = True,
        adapt: bool = True,
        target_accept: float = 0.574,
        steps_per_draw: int = 1,
        model: Model | None = None,
        rng: RandomGenerator = None,
        initial_point: PointType | None = None,
        compile_kwargs: Mapping[str, Any] | None = None,
        blocked: bool = True,
    ):
        model = modelcontext(model)
        if step_size is not None:
            step_size = positive("step_size", step_size)
        elif not adjusted:
            raise ValueError("adjusted=False needs a step_size: the bias depends on it, and nothing tunes it")
        if not 0 < target_accept < 1:
            raise ValueError(f"target_accept must be between 0 and 1, got {target_accept}")
        if adjusted:
            check_full_data([*model.basic_RVs, *model.potentials])
        self.adjusted = adjusted
        self.adapt = adapt and adjusted
        super().__init__(
            vars,
            steps_per_draw=steps_per_draw,
            model=model,
            rng=rng,
            initial_point=initial_point,
            compile_kwargs=compile_kwargs,
            blocked=blocked,
        )
        self._adaptation = Adaptation(self._n, step_size or first_step_size(self._n), target_accept)

    def _start_chain(self, tune: int) -> None:
        self._adaptation.start(tune * self.steps_per_draw)

    def _current_step_size(self) -> float:
        return self._adaptation.step_size(tuning=self.tune and self.adapt)

    def _move(self, position: _Position) -> tuple[_Position, float, bool]:
        scale = np.sqrt(self._current_step_size() * self._adaptation.variances)
        if not self.adjusted:
            return self._move_unadjusted(position, scale)
        noise = self.rng.standard_normal(self._n)
        proposal = self._evaluate(_propose(position, scale, noise))
        acceptance_rate = _acceptance_rate(position, proposal, scale, noise)
        moved = proposal if self.rng.random() < acceptance_rate else position
        if self.tune and self.adapt:
            self._adaptation.update(moved.q, moved.gradient, acceptance_rate)
        return moved, acceptance_rate, not proposal.is_usable and proposal.logp != -np.inf


@dataclass_state
class SGLDState(GradientStepState):
    """What the step carries from draw to draw: its generators, and the number of steps made."""

    n_steps: int


class SGLD(_GradientStep):
    r"""Stochastic gradient Langevin dynamics: APPROXIMATE sampling with minibatches and a decreasing step size.

    For likelihoods that see a minibatch of their data (``pm.Minibatch`` with ``total_size``), step t makes

    .. math::

        \theta_{t+1} = \theta_t + \tfrac{\epsilon_t}{2} \nabla \widehat{\log p}(\theta_t)
        + \sqrt{\epsilon_t}\, \xi_t, \qquad \epsilon_t = \epsilon_0 (1 + t / b)^{-\gamma},

    where the estimate of the log-density, in the unconstrained space, is unbiased, and ξ standard normal (Welling and
    Teh [1]_, eq. 4; there a = ε₀ b^γ). There is no accept step: the draws have a bias which vanishes as the steps
    shrink, and at any finite time is of the order of the step size and of the variance of the gradient's estimate.

    A model without minibatches is taken too: the gradient is then exact, and what remains is the bias of the steps.

    Parameters
    ----------
    vars : list of Variable or str, optional
        Continuous variables, or their names; all of the model by default.
    step_size : float
        ε₀, the variance of the first step's noise. A good one is some hundredths of the smallest posterior variance.
    decay : float
        γ, more than 0.5 and at most 1: the sum of the steps then diverges and that of their squares does not.
    delay : float
        b, the number of steps after which the step size starts to fall.
    steps_per_draw : int
        Steps between two draws, each with a minibatch of its own. Steps are short, so let there be many.
    model : Model, optional
        The model of the context by default.
    rng : int, Generator or None
        Seed; ``pm.sample`` sets each chain's own, from which the minibatches are seeded too.
    initial_point : dict, optional
        A point of the model, to read shapes from.
    compile_kwargs : dict, optional
        For the log-density and its gradient, which are compiled into one function.
    blocked : bool
        With False each variable gets a step of its own, which conditions on the others.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a variable is not continuous or not in the model; if `step_size` or `delay` is not positive; if `decay` is
        out of range.
    pymc.exceptions.SamplingError
        If log-density or gradient are not finite at the start of a chain.

    See Also
    --------
    Langevin : exact, but needs all of the data at every step.

    Notes
    -----
    Steps are counted from the start of the chain, tuning draws included; these are its burn-in. Expectations are best
    estimated with the draws weighted by their step size (Welling and Teh [1]_, eq. 11), which is recorded.

    Sampler statistics: ``step_size`` (ε of the draw's last step), ``network_energy`` (−log p of the draw as its
    minibatch estimates it), ``diverging`` (whether a step led to where log-density or gradient are not finite; it is
    not made), ``acceptance_rate`` (the fraction of steps that were made).

    References
    ----------
    .. [1] M. Welling and Y. W. Teh, "Bayesian learning via stochastic gradient Langevin dynamics", ICML (2011) 681.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> data = np.random.default_rng(1).normal(2.0, 1.0, size=1000)
    >>> with pm.Model():
    ...     mu = pm.Normal("mu", 0, 10)
    ...     y = pm.Normal("y", mu, 1, observed=pm.Minibatch(data, batch_size=50), total_size=1000)
    ...     step = pmn.SGLD(step_size=1e-4, steps_per_draw=10)
    ...     idata = pm.sample(100, tune=100, chains=2, cores=1, step=step, progressbar=False)
    """

    name = "sgld"
    default_tune_steps = 1000
    _state_class = SGLDState

    def __init__(
        self,
        vars: Variables = None,
        step_size: float = UNSAID,
        *,
        decay: float = 0.55,
        delay: float = 1000,
        steps_per_draw: int = 1,
        model: Model | None = None,
        rng: RandomGenerator = None,
        initial_point: PointType | None = None,
        compile_kwargs: Mapping[str, Any] | None = None,
        blocked: bool = True,
    ):
        if step_size is UNSAID:
            raise TypeError("SGLD needs a step_size: nothing tunes it")
        self.step_size = positive("step_size", step_size)
        self.delay = positive("delay", delay)
        self.decay = positive("decay", decay)
        if not 0.5 < self.decay <= 1:
            raise ValueError(
                f"decay must be more than 0.5 and at most 1, got {decay}; for a constant step size use "
                "Langevin(adjusted=False)"
            )
        super().__init__(
            vars,
            steps_per_draw=steps_per_draw,
            model=modelcontext(model),
            rng=rng,
            initial_point=initial_point,
            compile_kwargs=compile_kwargs,
            blocked=blocked,
        )
        self.n_steps = 0

    def _start_chain(self, tune: int) -> None:
        self.n_steps = 0

    def _current_step_size(self) -> float:
        return self.step_size * (1 + self.n_steps / self.delay) ** -self.decay

    def _move(self, position: _Position) -> tuple[_Position, float, bool]:
        scale = np.full(self._n, np.sqrt(self._current_step_size()))
        self.n_steps += 1
        return self._move_unadjusted(position, scale)


def _propose(position: _Position, scale: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Follow the gradient for half the squared scale, and add noise of that scale."""
    return position.q + 0.5 * scale**2 * position.gradient + scale * noise


def _acceptance_rate(position: _Position, proposal: _Position, scale: np.ndarray, noise: np.ndarray) -> float:
    """Return the probability of acceptance of MALA; 0 where the way back has no probability or no number.

    The noise that would lead back from the proposal is −(noise + scale (g + g') / 2), g and g' the two gradients.
    """
    if not proposal.is_usable:
        return 0.0
    with np.errstate(over="ignore"):
        back = noise + 0.5 * scale * (position.gradient + proposal.gradient)
        log_ratio = proposal.logp - position.logp + 0.5 * float(noise @ noise - back @ back)
    return 0.0 if np.isnan(log_ratio) else float(np.exp(min(0.0, log_ratio)))


def _continuous(vars: Sequence[Variable], model: Model, step_name: str) -> list[Variable]:
    values = get_value_vars_from_user_vars(vars, model)
    for value in values:
        if value.dtype not in continuous_types:
            name = model.values_to_rvs[value].name
            raise ValueError(f"{step_name} samples continuous variables, and {name!r} has the dtype {value.dtype}")
    return values
