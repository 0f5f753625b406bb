"""Exact transition matrices of step methods, and the certificate that they sample the right distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from math import log2
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
from scipy.sparse import coo_array, csr_array
from scipy.special import softmax

from pm_neural.diagnostics._forced import ForcedGenerator, check_runs_what_is_forced, model_of, outcomes, owner_of
from pm_neural.diagnostics._units import (
    Point,
    UnitStates,
    complete_point,
    log_weights,
    single_precision_matters,
    units_of,
)
from pm_neural.diagnostics.markov import closed_classes, detailed_balance_gap, is_aperiodic, spectral_gap

if TYPE_CHECKING:
    from pymc.model import Model

__all__ = ["Certificate", "TransitionMatrix", "certify", "transition_matrix"]

# Runs of a step, over all states to start from. Twelve units that are all drawn in a step need as many.
MAX_RUNS = 1 << 24
# Kernels record no smaller probability than about 1e-308, also where an infinite field makes a unit certain.
_NEVER = 1e-290
# The average over all orders of n units takes time of order 8ⁿ.
MAX_UNITS_RANDOM_ORDER = 10
_ROWS_AT_A_TIME = 16


@dataclass(frozen=True, eq=False)
class TransitionMatrix:
    """Exact transition matrix of one step of a step method.

    The functions that take a transition matrix take this, too, and so does ``numpy.asarray``.

    Attributes
    ----------
    matrix : ndarray, shape (n_states, n_states)
        T[i, j], the probability of state j after a step from state i.
    states : ndarray of int64, shape (n_states, n_units)
        The states, in the order of ``itertools.product`` with the low value first: the last unit changes fastest. For
        spiking neurons (`NeuralSampling`) their refractory counters, 0 to tau, of which 0 is off.
    units : tuple of str
        Names of the units, the columns of `states`: those of the step's variables, in their order.
    """

    matrix: np.ndarray = field(repr=False)
    states: np.ndarray = field(repr=False)
    units: tuple[str, ...]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.matrix, dtype=dtype, copy=copy)


@dataclass(frozen=True, eq=False)
class Certificate:
    """What the exact transition matrix T of a step method says about it; `print` shows it.

    Attributes
    ----------
    step : str
        Name of the step method.
    invariance_error : float
        ``max |pT − p|``, where p is the exact distribution of the step's units given all else.
    tolerance : float
        The largest `invariance_error` that passes.
    irreducible : bool
        Whether every state is reached from every other. States less probable than the rounding error of
        ``floatX`` are left out: a unit that is on with a probability of 1 − 1e-20 is on in floating point.
    aperiodic : bool
    reversible : bool
        Whether detailed balance holds, up to `tolerance`. A step method need not be reversible to be right.
    detailed_balance_gap : float
        ``max |p_i T_ij − p_j T_ji|``.
    spectral_gap : float
        ``1 − |λ₂|``, the rate at which one step forgets where it started.
    transition : TransitionMatrix
        T on all states. A state that is impossible stays where it is.
    probabilities : ndarray, shape (n_states,)
        p; for spiking neurons on their counters, uniform on 1..tau for a neuron that is on.
    """

    step: str
    invariance_error: float
    tolerance: float
    irreducible: bool
    aperiodic: bool
    reversible: bool
    detailed_balance_gap: float
    spectral_gap: float
    transition: TransitionMatrix = field(repr=False)
    probabilities: np.ndarray = field(repr=False)

    @property
    def invariant(self) -> bool:
        """Whether the step leaves p as it is, up to `tolerance`."""
        return self.invariance_error <= self.tolerance

    @property
    def passed(self) -> bool:
        """Whether the step is invariant, irreducible and aperiodic: then it converges to p from any state."""
        return self.invariant and self.irreducible and self.aperiodic

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        n_states, n_units = self.transition.states.shape
        relaxation = f"{1 / self.spectral_gap:.4g} steps" if self.spectral_gap > 0 else "infinite"
        rows = (
            ("max |pT - p|", f"{self.invariance_error:.1e}", f"at most {self.tolerance:.0e}", self.invariant),
            ("irreducible", _yes(self.irreducible), "needed", self.irreducible),
            ("aperiodic", _yes(self.aperiodic), "needed", self.aperiodic),
            ("reversible", _yes(self.reversible), f"detailed balance gap {self.detailed_balance_gap:.1e}", True),
            ("spectral gap", f"{self.spectral_gap:.4g}", f"relaxation time {relaxation}", True),
        )
        lines = [f"{self.step}: {'passed' if self.passed else 'FAILED'}, {n_units} units, {n_states} states"]
        for what, value, remark, right in rows:
            lines.append(f"  {what:<14}{value:<10}{remark}{'' if right else '   <- FAILED'}")
        return "\n".join(lines)


def transition_matrix(step: Any, point: Point | None = None) -> TransitionMatrix:
    r"""Compute the exact transition matrix of a step method.

    It comes from the code that samples, not from a second implementation of the rule: every random decision of
    the step is forced both ways, and weighted with the probability that the step itself computed for it,

    .. math::

        T_{ij} = \sum_{d:\ i \to j} \prod_k q_k^{d_k} (1 - q_k)^{1 - d_k},

    over all sequences d of decisions that lead from state i to state j. Units that the step draws only on its way are
    summed out by that.

    Parameters
    ----------
    step : BlockedStep
        A step method of this package; ``pm.BinaryMetropolis`` or ``pm.BinaryGibbsMetropolis``; or any that has
        a method ``forced_step(point, bits)``, or ``forced_stage(stage, point, bits)`` with `n_stages` and
        `stages_in_random_order`, as `BlockGibbs` has. Its variables must have two values per unit and at most 12 units.
        It is not changed, and tuning is taken to be over.
    point : dict, optional
        Values of the model's other variables, by the names of ``model.initial_point()``, whose values hold for
        those that are not given.

    Returns
    -------
    TransitionMatrix

    Raises
    ------
    TypeError
        If `step` is not one step method whose decisions can be forced; if its ``step`` (or, of BinaryGibbsMetropolis,
        ``astep``) comes from a more derived class than what is forced, as that would not be looked at.
    ValueError
        If its variables do not have two values per unit, or too many units; if it makes too many decisions; if
        a binary step method of PyMC is to update spins; if `point` does not fit the model.

    Notes
    -----
    Auxiliary hidden neurons of `NeuralSampling` are drawn from p(h | v) at the beginning of the step, and summed out,
    as they are after another step has changed v; while they persist, the kernel is the one that runs with `HiddenUnits`
    in the model. In continuous time there is no matrix.

    A step that makes n decisions is run 2ⁿ times from each state, some 15 µs each. A step that can be forced stage by
    stage is: the matrices T_k of its n stages are computed one by one, and the matrix of a sweep is their product
    T_0 T_1 ... in a fixed order, and (mean T_k)ⁿ if a sweep is n independent uniform picks of stages. Of a step with
    ``sweeps_per_draw`` > 1 the matrix of one sweep is computed, and its power is returned. BinaryGibbsMetropolis is
    run one unit at a time, and the products of these matrices are averaged over all orders of its units (at most 10)
    where its order is random.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> with pm.Model():
    ...     v = pmn.BernoulliRBM("v", np.ones((2, 2)), np.zeros(2), np.zeros(2))
    ...     T = pmn.diagnostics.transition_matrix(pmn.BlockGibbs([v]))
    >>> T.matrix.shape, T.units
    ((4, 4), ('v[0]', 'v[1]'))
    """
    matrix_of, _, units = _read(step, point)
    return _result(matrix_of(np.ones(len(units.states), bool)), units)


def certify(step: Any, point: Point | None = None, *, tolerance: float | None = None) -> Certificate:
    """Prove on a small model that a step method samples the right distribution.

    The exact transition matrix T of the step (see `transition_matrix`) is held against the distribution p that the
    model's own log-probability gives its units: the step passes if pT = p, and if it can get from every
    state to every other and has no period.

    Parameters
    ----------
    step : BlockedStep
        See `transition_matrix`.
    point : dict, optional
        Values of the model's other variables; those of ``model.initial_point()`` by default.
    tolerance : float, optional
        The largest ``max |pT − p|`` that passes. By default 1e-12, and 1e-6 if float32 limits p: because ``floatX`` is
        float32, or by a number like ``p=0.75``, which PyTensor takes for float32 as it is exact in that, and takes its
        logarithm in float32, too (not of ``p=np.float64(0.75)``).

    Returns
    -------
    Certificate

    Raises
    ------
    TypeError
        See `transition_matrix`.
    ValueError
        See `transition_matrix`; if the log-probability is NaN somewhere; if `tolerance` is not positive.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> with pm.Model():
    ...     v = pmn.BernoulliRBM("v", np.ones((3, 2)), np.zeros(3), np.zeros(2))
    ...     certificate = pmn.diagnostics.certify(pmn.BlockGibbs([v]))
    >>> certificate.passed, certificate.reversible
    (True, True)
    """
    if tolerance is not None and not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    matrix_of, model, units = _read(step, point)
    log_weight = log_weights(model, units)
    if tolerance is None:
        tolerance = 1e-6 if single_precision_matters(model, units, log_weight) else 1e-12
    possible = np.isfinite(log_weight)
    p = softmax(log_weight)
    T = matrix_of(possible)
    # A chain that leaves the possible states has already failed; look at how it moves among all states then.
    leak = T[np.ix_(possible, ~possible)].sum()
    inside = possible if leak <= _NEVER else np.ones(len(p), bool)
    within, p_within = T[np.ix_(inside, inside)], p[inside]
    balance = detailed_balance_gap(within, p_within)
    return Certificate(
        step=getattr(step, "name", type(step).__name__),
        invariance_error=float(np.abs(p @ T - p).max()),
        tolerance=tolerance,
        irreducible=_is_irreducible(within, p_within),
        aperiodic=is_aperiodic(within),
        reversible=balance <= tolerance,
        detailed_balance_gap=balance,
        spectral_gap=spectral_gap(within),
        transition=_result(T, units),
        probabilities=p,
    )


def _result(matrix: np.ndarray, units: UnitStates) -> TransitionMatrix:
    return TransitionMatrix(matrix, units.states, units.labels)


def _is_irreducible(T: np.ndarray, p: np.ndarray) -> bool:
    """Whether the chain ends, from any state, in one set of states that has all but negligible ones."""
    negligible = p <= np.finfo(pytensor.config.floatX).eps
    ends = closed_classes(T)
    return len(ends) == 1 and bool(negligible[np.setdiff1d(np.arange(len(p)), ends[0])].all())


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


type _MatrixOf = Callable[[np.ndarray], np.ndarray]


def _read(step: Any, point: Point | None) -> tuple[_MatrixOf, Model, UnitStates]:
    """Return what computes the matrix (given which states to start from), the model and its states."""
    from pymc.step_methods import BinaryGibbsMetropolis, BinaryMetropolis
    from pymc.step_methods.compound import BlockedStep, CompoundStep

    if isinstance(step, CompoundStep):
        raise TypeError(
            "step must be a single step method, got a CompoundStep; its parts step.methods can be certified one by one"
        )
    if not isinstance(step, BlockedStep):
        raise TypeError(f"step must be a step method, got {type(step).__name__}")
    forced_matrix = next(
        (matrix for method, matrix in _FORCED_MATRIX.items() if callable(getattr(step, method, None))), None
    )
    if forced_matrix is None and not isinstance(step, BinaryMetropolis | BinaryGibbsMetropolis):
        raise TypeError(
            "step must have a method forced_step(point, bits), or be pm.BinaryMetropolis or "
            f"pm.BinaryGibbsMetropolis: the random decisions of {type(step).__name__} cannot be forced"
        )
    _check_that_it_runs(step)
    model: Model = model_of(step)
    units = units_of(model, step.vars, complete_point(model, point), getattr(step, "refractory_periods", None))
    step = copy(step)
    step.stop_tuning()
    if forced_matrix is not None:
        return partial(_sweeps_matrix, forced_matrix, step, units), model, units
    if set(units.values) != {(0, 1)}:
        raise ValueError(
            f"{type(step).__name__} proposes 1 − x, which is right for 0/1 units only: the spins of "
            f"{', '.join(name for name, pair in zip(units.names, units.values, strict=True) if pair != (0, 1))} would "
            "never move. Use BlockGibbs"
        )
    if isinstance(step, BinaryMetropolis):
        return partial(_array_step_matrix, step, units), model, units
    return partial(_gibbs_metropolis_matrix, step, units), model, units


def _check_that_it_runs(step: Any) -> None:
    """Refuse a step whose chains run code that certifying it would never look at."""
    from pymc.step_methods import BinaryGibbsMetropolis, BinaryMetropolis
    from pymc.step_methods.arraystep import ArrayStep

    forced = next((method for method in _FORCED_MATRIX if callable(getattr(step, method, None))), None)
    if forced is not None:
        check_runs_what_is_forced(step, "step", owner_of(step, forced), f"its {forced}")
        return
    check_runs_what_is_forced(step, "step", ArrayStep, "its astep")
    if not isinstance(step, BinaryMetropolis):  # by one unit at a time, which says nothing about another astep
        check_runs_what_is_forced(step, "astep", BinaryGibbsMetropolis, "BinaryGibbsMetropolis.astep")


def _decision_matrix(
    run: Callable[[int, np.ndarray], tuple[int, np.ndarray]], starts: np.ndarray, name: str
) -> csr_array:
    """Force the decisions of a step from each state; the states that are not to start from stay where they are."""
    n_states = len(starts)
    idle = np.flatnonzero(~starts)
    rows, columns, weights = idle.tolist(), idle.tolist(), [1.0] * len(idle)
    max_runs = MAX_RUNS // n_states
    for i in np.flatnonzero(starts).tolist():
        try:
            for j, probability in outcomes(partial(run, i), max_runs):
                rows.append(i)
                columns.append(j)
                weights.append(probability)
        except ValueError as error:
            error.add_note(f"while forcing the decisions of {name} from state {i}")
            raise
    # Several ways to one state are added up.
    return coo_array((weights, (rows, columns)), shape=(n_states, n_states)).tocsr()


def _sweeps_matrix(
    one_sweep: Callable[[Any, UnitStates, np.ndarray], np.ndarray], step: Any, units: UnitStates, starts: np.ndarray
) -> np.ndarray:
    """Raise the matrix of one sweep to the power of the sweeps of a draw."""
    n_sweeps = getattr(step, "n_sweeps", 1)
    if n_sweeps > 1:
        step = step.with_one_sweep()
    # As a chain would start it, with the shared data of now.
    step.setup_chain(np.random.default_rng(0), tune=0, draws=1)
    return np.linalg.matrix_power(one_sweep(step, units, starts), n_sweeps)


def _forced_matrix(
    force: Callable[[Point, np.ndarray], tuple[Point, np.ndarray]], units: UnitStates, starts: np.ndarray, name: str
) -> csr_array:
    points = _points(units)

    def run(start: int, bits: np.ndarray) -> tuple[int, np.ndarray]:
        new_point, probabilities = force(points[start], bits)
        return units.index_of_point(new_point), probabilities

    return _decision_matrix(run, starts, name)


def _step_matrix(step: Any, units: UnitStates, starts: np.ndarray) -> np.ndarray:
    return _forced_matrix(step.forced_step, units, starts, step.name).toarray()


def _staged_matrix(step: Any, units: UnitStates, starts: np.ndarray) -> np.ndarray:
    """Compose the matrix of a sweep from those of its stages."""
    n_stages = step.n_stages
    stages = [
        _forced_matrix(partial(step.forced_stage, stage), units, starts, f"{step.name}, stage {stage},")
        for stage in range(n_stages)
    ]
    if step.stages_in_random_order:
        stages = [sum(stages[1:], stages[0]) / n_stages] * n_stages
    T = stages[0].toarray()
    for stage in stages[1:]:
        T = T @ stage
    return T


# How to get the matrix of one sweep from a step method that has one of these methods; the first is the faster.
_FORCED_MATRIX = {"forced_stage": _staged_matrix, "forced_step": _step_matrix}


def _array_step_matrix(step: Any, units: UnitStates, starts: np.ndarray) -> np.ndarray:
    """Drive the ``astep`` of a step method of PyMC, its log-probability evaluated once per state."""
    from pymc.blocking import DictToArrayBijection, RaveledVars

    points = _points(units)
    raveled = [DictToArrayBijection.map({name: point[name] for name in units.names}) for point in points]
    (own_logp,) = step.fs
    table = [own_logp(point) for point in points]

    def logp(q: RaveledVars) -> np.ndarray:
        return table[units.index_of(q.data)]

    def run(start: int, bits: np.ndarray) -> tuple[int, np.ndarray]:
        step.rng = generator = ForcedGenerator(bits)
        q, _ = step.astep(RaveledVars(raveled[start].data.copy(), raveled[start].point_map_info), logp)
        return units.index_of(q.data), np.array(generator.probabilities)

    with np.errstate(over="ignore"):  # in its sampler statistics
        return _decision_matrix(run, starts, step.name).toarray()


def _points(units: UnitStates) -> list[dict[str, np.ndarray]]:
    return [units.point_at(i) for i in range(len(units.states))]


def _gibbs_metropolis_matrix(step: Any, units: UnitStates, starts: np.ndarray) -> np.ndarray:
    """Multiply the matrices of the single units, in the step's order or averaged over all orders."""
    n_units = int(log2(len(units.states)))
    order, random_order = list(step.order), step.shuffle_dims
    if random_order and n_units > MAX_UNITS_RANDOM_ORDER:
        raise ValueError(
            "BinaryGibbsMetropolis with order='random' can be certified for at most "
            f"{MAX_UNITS_RANDOM_ORDER} units, got {n_units}; give it a fixed order"
        )
    step.shuffle_dims = False
    kernels = []
    for unit in range(n_units):
        step.order = [unit]
        kernels.append(csr_array(_array_step_matrix(step, units, starts)))
    if random_order:
        return _average_over_orders(kernels)
    T = np.eye(len(starts))
    for unit in order:
        T = T @ kernels[unit]
    return T


def _average_over_orders(kernels: Sequence[csr_array]) -> np.ndarray:
    """Average the products of matrices over all orders of them.

    The average over the orders of a set follows from those of its subsets: A(S) is the mean over k in S, which comes
    last, of A(S without k) T_k. That is 2ⁿ sets instead of n! orders.
    """
    n_states = kernels[0].shape[0]
    n = len(kernels)
    by_size: list[list[int]] = [[] for _ in range(n + 1)]
    for subset in range(1 << n):
        by_size[subset.bit_count()].append(subset)
    T = np.empty((n_states, n_states))
    for first in range(0, n_states, _ROWS_AT_A_TIME):
        rows = slice(first, first + _ROWS_AT_A_TIME)
        average = {0: np.eye(n_states)[rows]}
        for size in range(1, n + 1):
            average = {
                subset: sum(average[subset ^ (1 << k)] @ kernels[k] for k in range(n) if subset >> k & 1) / size
                for subset in by_size[size]
            }
        T[rows] = average[(1 << n) - 1]
    return T
