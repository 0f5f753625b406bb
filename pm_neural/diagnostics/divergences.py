"""How far samples are from an exact distribution over joint states, and how much of it is chance."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, isqrt
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy.special import gammaln, rel_entr, softmax, xlog1py, xlogy

from pm_neural.diagnostics._units import MAX_UNITS, complete_point, log_weights, unit_labels, units_of
from pm_neural.diagnostics.enumeration import enumerate_states
from pm_neural.diagnostics.markov import as_distribution
from pm_neural.diagnostics.report import read_names, read_posterior

if TYPE_CHECKING:
    from pymc.model import Model
    from pytensor.graph.basic import Variable

__all__ = [
    "Divergence",
    "StateProbabilities",
    "exact_state_probabilities",
    "kl_divergence",
    "state_probabilities",
    "total_variation_distance",
]

_MIN_DRAWS = 16
# Batches of one chain: more do not help the error, and each keeps a row of all states.
_MAX_BATCHES = 100
# A batch is as many autocorrelation times long, as far as so many batches are left of all chains.
_TIMES_A_BATCH = 10
_MIN_BATCHES = 20


@dataclass(frozen=True, eq=False)
class StateProbabilities:
    """Probabilities of all joint states of some units, exact or from samples.

    ``numpy.asarray`` gives the probabilities.

    Attributes
    ----------
    probabilities : ndarray, shape (n_states,)
    standard_errors : ndarray, shape (n_states,)
        Monte Carlo standard errors, from the means of batches of consecutive draws; zero if exact, and for states
        that were never visited.
    states : ndarray of int64, shape (n_states, n_units)
        In the order of ``itertools.product`` with the low value first.
    units : tuple of str
        Names of the units, the columns of `states`.
    effective_sample_size : float
        Number of independent draws that would do as well, all states taken together. Infinite if exact; NaN
        if all draws are in one state, which says nothing about errors.
    batches : ndarray, shape (n_batches, n_states)
        Probabilities within each batch of draws; empty if exact.
    """

    probabilities: np.ndarray = field(repr=False)
    standard_errors: np.ndarray = field(repr=False)
    states: np.ndarray = field(repr=False)
    units: tuple[str, ...]
    effective_sample_size: float
    batches: np.ndarray = field(repr=False)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.probabilities, dtype=dtype, copy=copy)  # type: ignore[call-overload]

    @property
    def exact(self) -> bool:
        """Whether these are no estimates."""
        return len(self.batches) == 0


@dataclass(frozen=True)
class Divergence:
    """A divergence between two distributions.

    Attributes
    ----------
    estimate : float
        Of the frequencies among the samples, as they are. Frequencies scatter, which adds about `noise`.
    standard_error : float
        Monte Carlo standard error of `estimate`, to first order in the scatter of the samples; zero if both
        distributions are exact. It is too large, by about half, where the distributions are the same.
    noise : float
        What `estimate` would be on average if the sampler were right. An estimate that is not larger than this by
        several standard errors is no evidence against the sampler.
    """

    estimate: float
    standard_error: float
    noise: float

    def __float__(self) -> float:
        return self.estimate

    def __str__(self) -> str:
        if self.standard_error == self.noise == 0:
            return f"{self.estimate:.4g} (exact)"
        return f"{self.estimate:.4g} ± {self.standard_error:.2g} (noise alone: {self.noise:.2g})"


def exact_state_probabilities(
    vars: Sequence[Variable] | Variable, point: Mapping[str, np.ndarray] | None = None, *, model: Model | None = None
) -> StateProbabilities:
    """Compute the exact distribution of two-valued variables given all others, from the model's log-probability.

    Parameters
    ----------
    vars : Variable or sequence of Variable
        Free variables of the model with two values per unit, at most 12 units together.
    point : dict, optional
        Values of the model's other variables, by the names of ``model.initial_point()``, whose values hold for
        those that are not given.
    model : Model, optional
        The model of the context by default.

    Returns
    -------
    StateProbabilities

    Raises
    ------
    ValueError
        If a variable is not in the model or its units do not have two values, there are too many units, or the
        log-probability is NaN somewhere or −inf everywhere.
    """
    from pymc.model import modelcontext
    from pymc.util import get_value_vars_from_user_vars

    from step_methods.reading.layers import free_variable

    model = modelcontext(model)
    vars = vars if isinstance(vars, Sequence) else [vars]
    value_vars = get_value_vars_from_user_vars([free_variable(model, var) for var in vars], model)
    units = units_of(model, value_vars, complete_point(model, point))
    p = softmax(log_weights(model, units))
    return StateProbabilities(p, np.zeros_like(p), units.states, units.labels, np.inf, np.empty((0, len(p))))


def state_probabilities(
    idata: xr.DataTree, var_names: str | Sequence[str], *, values: tuple[int, int] | None = None
) -> StateProbabilities:
    """Count how often each joint state was drawn.

    Parameters
    ----------
    idata : xarray.DataTree
        With a group ``posterior`` of dims chain and draw, as from ``pm.sample``.
    var_names : str or sequence of str
        Two-valued variables, at most 12 units together. Of a partly observed ``v`` take ``v_unobserved``, its
        free units.
    values : tuple of two int, optional
        The low and the high value of all units: ``(0, 1)`` or ``(-1, 1)``. By default what the draws of each variable
        show.

    Returns
    -------
    StateProbabilities

    Raises
    ------
    TypeError
        If `idata` is not a DataTree.
    ValueError
        If a variable is not in it, has other values or too many units, or there are fewer than 16 draws in a chain;
        if `values` is not given and a variable is always 1.

    Notes
    -----
    The errors are those of batch means [1]_: each chain is cut into about √n_draws batches, or fewer so that a batch is
    as long as ten autocorrelation times, and the means of the batches of all chains scatter around the overall mean. So
    both correlated draws and chains that disagree enlarge the errors. A warning says so where the chains are too short
    for that, and the errors too small.

    References
    ----------
    .. [1] J. Flegal and G. Jones, "Batch means and spectral variance estimators in Markov chain Monte Carlo", Annals
       of Statistics 38 (2010) 1034.
    """
    posterior = read_posterior(idata)
    bits: list[np.ndarray] = []
    pairs: list[tuple[int, int]] = []
    labels: list[str] = []
    for name in read_names(var_names, posterior):
        draws = posterior[name].to_numpy()
        low, high = _two_values(name, draws, values)
        bits.append((draws == high).reshape(*draws.shape[:2], -1))
        pairs += [(low, high)] * bits[-1].shape[-1]
        labels += unit_labels(name, draws.shape[2:])
    if not 1 <= len(labels) <= MAX_UNITS:
        raise ValueError(f"var_names must have between 1 and {MAX_UNITS} units together, got {len(labels)}")

    n_units = len(labels)
    numbers = np.concatenate(bits, axis=-1) @ (1 << np.arange(n_units)[::-1])
    low, high = np.array(pairs).T
    states = np.where(enumerate_states(n_units) == 1, high, low)
    return _from_numbers(numbers, states, tuple(labels))


def kl_divergence(p: StateProbabilities | ArrayLike, q: StateProbabilities | ArrayLike) -> Divergence:
    """Compute the Kullback-Leibler divergence Σ p log(p/q), in nats.

    Parameters
    ----------
    p, q : StateProbabilities or array_like of shape (n_states,)
        At most one of them from samples. Of the two directions, KL(samples, exact) stays finite where states were
        never visited.

    Returns
    -------
    Divergence
        Infinite if some state has a positive p and a zero q.

    Raises
    ------
    TypeError
        If both are from samples.
    ValueError
        If the states differ, or the numbers are not probabilities.

    Notes
    -----
    The noise is (K − 1) / 2N for K possible states and an effective sample size of N [1]_. With many rare states that
    is too much: it holds once each state is visited often.

    References
    ----------
    .. [1] L. Paninski, "Estimation of entropy and mutual information", Neural Computation 15 (2003) 1191.
    """
    left, right, samples = _pair(p, q)
    estimate = float(rel_entr(left, right).sum())
    if samples is None or not np.isfinite(estimate):
        return Divergence(estimate, 0.0 if samples is None else np.nan, 0.0 if samples is None else np.nan)
    if samples is p:
        slope, exact = np.log(np.divide(left, right, out=np.ones_like(left), where=left > 0)), right
    else:
        slope, exact = -np.divide(left, right, out=np.zeros_like(left), where=left > 0), left
    noise = (np.count_nonzero(exact) - 1) / (2 * samples.effective_sample_size)
    return Divergence(estimate, _standard_error(samples, slope), noise)


def total_variation_distance(p: StateProbabilities | ArrayLike, q: StateProbabilities | ArrayLike) -> Divergence:
    """Compute the total variation distance ``½ Σ |p − q|``, the largest difference in the probability of any event.

    Parameters
    ----------
    p, q : StateProbabilities or array_like of shape (n_states,)
        At most one of them from samples.

    Returns
    -------
    Divergence

    Raises
    ------
    TypeError
        If both are from samples.
    ValueError
        If the states differ, or the numbers are not probabilities.

    Notes
    -----
    The noise takes the number of visits of a state as binomial, N the effective sample size, and is half the sum
    of the mean deviations by De Moivre's formula [1]_. It holds for rare states, too.

    References
    ----------
    .. [1] P. Diaconis and S. Zabell, "Closed form summation for classical distributions: variations on a theme of De
       Moivre", Statistical Science 6 (1991) 284.
    """
    left, right, samples = _pair(p, q)
    estimate = float(np.abs(left - right).sum() / 2)
    if samples is None:
        return Divergence(estimate, 0.0, 0.0)
    exact = right if samples is p else left
    noise = _mean_deviations(exact, samples.effective_sample_size).sum() / 2
    slope = np.sign(samples.probabilities - exact) / 2
    return Divergence(estimate, _standard_error(samples, slope), float(noise))


def _mean_deviations(p: np.ndarray, n: float) -> np.ndarray:
    """Return E|X/n − p| for X of the binomial distribution of n draws: 2 (m + 1) C(n, m + 1) pᵐ⁺¹ (1 − p)ⁿ⁻ᵐ / n."""
    if np.isinf(n):
        return np.zeros_like(p)
    m = np.floor(n * p)
    log_binomial = gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m)
    return 2 / n * np.exp(log_binomial + xlogy(m + 1, p) + xlog1py(n - m, -p))


def _two_values(name: str, draws: np.ndarray, values: tuple[int, int] | None) -> tuple[int, int]:
    seen = np.unique(draws)
    if values is not None:
        low, high = values
        if not low < high:
            raise ValueError(f"values must be the lower and the upper value of a unit, got {values!r}")
    elif seen.tolist() == [1]:
        raise ValueError(f"all draws of {name!r} are 1; say values=(0, 1) or values=(-1, 1)")
    else:
        low, high = (-1, 1) if -1 in seen else (0, 1)
    wrong = seen[(seen != low) & (seen != high)]
    if wrong.size:
        raise ValueError(f"the draws of {name!r} must be {low} or {high}, got {wrong[0]}")
    return low, high


def _from_numbers(numbers: np.ndarray, states: np.ndarray, units: tuple[str, ...]) -> StateProbabilities:
    """Estimate from the number of the state in each draw, shape (n_chains, n_draws)."""
    n_draws = numbers.shape[1]
    if n_draws < _MIN_DRAWS:
        raise ValueError(f"idata must have at least {_MIN_DRAWS} draws in each chain, got {n_draws}")
    n_states = len(states)
    p = np.bincount(numbers.ravel(), minlength=n_states) / numbers.size

    independent = (p * (1 - p)).sum()
    length = n_draws // min(isqrt(n_draws), _MAX_BATCHES)
    longest = max(length, n_draws // max(2, ceil(_MIN_BATCHES / len(numbers))))
    while True:
        batches = _batch_means(numbers, length, n_states)
        total = batches.var(axis=0, ddof=1).sum()
        # Batch means of independent draws have the variance p (1 − p) / length.
        needed = ceil(_TIMES_A_BATCH * length * total / independent) if independent > 0 else length
        if needed <= length:
            break
        if length == longest:
            if needed > 2 * length:  # more than the scatter of so few batches makes of it
                warnings.warn(
                    f"the errors of the probabilities may be too small: the chains have {n_draws} draws each, and "
                    f"should have some {ceil(needed * _MIN_BATCHES / len(numbers))} for an autocorrelation time of "
                    f"about {needed // _TIMES_A_BATCH}",
                    UserWarning,
                    stacklevel=4,
                )
            break
        length = min(needed, longest)

    variance = batches.var(axis=0, ddof=1) / len(batches)
    total = variance.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = float(np.divide(independent, total)) if independent > 0 else np.nan
    return StateProbabilities(p, np.sqrt(variance), states, units, effective, batches)


def _batch_means(numbers: np.ndarray, length: int, n_states: int) -> np.ndarray:
    """Return the probabilities within each batch; draws that fill none are left out, at the start of the chain."""
    n_draws = numbers.shape[1]
    in_batches = numbers[:, n_draws % length :].reshape(-1, length)
    row_starts = np.arange(len(in_batches))[:, None] * n_states
    counts = np.bincount((row_starts + in_batches).ravel(), minlength=len(in_batches) * n_states)
    return counts.reshape(-1, n_states) / length


def _pair(
    p: StateProbabilities | ArrayLike, q: StateProbabilities | ArrayLike
) -> tuple[np.ndarray, np.ndarray, StateProbabilities | None]:
    """Return both distributions, and the one of them that is from samples."""
    if isinstance(p, StateProbabilities) and isinstance(q, StateProbabilities):
        if not p.exact and not q.exact:
            raise TypeError("p and q must not both be from samples: one of them must be exact")
        if not np.array_equal(p.states, q.states):
            raise ValueError(
                f"p and q must have the same states, got those of {', '.join(p.units)} and of {', '.join(q.units)}"
            )
    n_states = np.size(p.probabilities if isinstance(p, StateProbabilities) else p)
    left, right = as_distribution(np.asarray(p), n_states, "p"), as_distribution(np.asarray(q), n_states, "q")
    samples = [x for x in (p, q) if isinstance(x, StateProbabilities) and not x.exact]
    return left, right, samples[0] if samples else None


def _standard_error(samples: StateProbabilities, slope: np.ndarray) -> float:
    """Propagate the scatter of the batch means to first order."""
    n = len(samples.batches)
    scatter = samples.batches - samples.batches.mean(axis=0)
    return float(np.sqrt(np.square(scatter @ slope).sum() / (n * (n - 1))))
