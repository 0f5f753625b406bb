"""The log partition function, exact or estimated, and the log likelihood that needs it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from pm_neural.diagnostics._parameters import AnyParametersLike, GaussianParameters, Parameters, as_any_parameters
from pm_neural.diagnostics.ais import annealed_importance_sampling
from pm_neural.diagnostics.enumeration import exact_gaussian_log_partition, exact_log_partition
from pm_neural.diagnostics.quadrature import log_partition_by_quadrature
from step_methods.checks import at_least

__all__ = ["LogLikelihood", "LogPartition", "log_likelihood", "log_partition"]

type RandomSeed = int | np.random.Generator | None

# Combined standard errors between the two directions of annealing, beyond which they contradict each other.
_LARGEST_GAP = 3.0
# Chains run in float32. Where all weights are alike, their rounding is all that the directions differ by.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class LogPartition:
    """The log of a partition function Z.

    Attributes
    ----------
    estimate : float
        log Z.
    standard_error : float
        Standard error of `estimate`, 0 if it is exact.
    effective_sample_size : float
        Number of equally weighted chains that would do as well: (Σ w)² / Σ w². Infinite if
        `estimate` is exact.
    method : {"exact", "quadrature", "ais", "reverse ais"}
    log_weights : ndarray, shape (n_chains,)
        The estimate of log Z from each chain; empty if `estimate` is exact.
    reverse : LogPartition or None
        The reverse estimate that goes with a forward one. In expectation, `estimate` is a lower
        bound of log Z and ``reverse.estimate`` is an upper bound.
    """

    estimate: float
    standard_error: float
    effective_sample_size: float
    method: str
    log_weights: np.ndarray = field(repr=False)
    reverse: LogPartition | None = None

    def __float__(self) -> float:
        return self.estimate

    def __str__(self) -> str:
        if not len(self.log_weights):
            return f"log Z = {self.estimate:.4f} ({self.method})"
        text = (
            f"log Z = {self.estimate:.4f} ± {self.standard_error:.4f} ({self.method}, "
            f"{len(self.log_weights)} chains, effective {self.effective_sample_size:.0f})"
        )
        return text if self.reverse is None else f"{text}\n{self.reverse}"


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """The log likelihood of data in nats.

    Attributes
    ----------
    mean : float
        Mean over the rows.
    standard_error : float
        Standard error of `mean`: the spread over the rows and the standard error of log Z, added
        in quadrature.
    per_row : ndarray, shape (n_rows,)
        log p(v) of each row.
    log_partition : LogPartition or None
        What was subtracted; None if `log_z` was given as a number.
    """

    mean: float
    standard_error: float
    per_row: np.ndarray = field(repr=False)
    log_partition: LogPartition | None = None

    @property
    def bracket(self) -> tuple[float, float] | None:
        """The mean with the reverse and with the forward estimate of log Z, if there are both.

        In expectation, they are a lower and an upper bound of the mean.
        """
        if self.log_partition is None or self.log_partition.reverse is None:
            return None
        gap = self.log_partition.reverse.estimate - self.log_partition.estimate
        return self.mean - gap, self.mean

    def __str__(self) -> str:
        text = f"log likelihood = {self.mean:.3f} ± {self.standard_error:.3f} nats per row ({len(self.per_row)} rows)"
        if self.bracket is not None:
            lower, upper = self.bracket
            text += f", {lower:.3f} with reverse and {upper:.3f} with forward AIS"
        return text


def log_partition(
    params: AnyParametersLike,
    method: Literal["exact", "quadrature", "ais"] = "exact",
    *,
    X: ArrayLike | None = None,
    n_chains: int = 500,
    n_steps: int = 3000,
    reverse: bool = True,
    random_seed: RandomSeed = None,
) -> LogPartition:
    """Compute or estimate log Z of an RBM, where Z = Σ_v,h exp(a·v + b·h + vᵀWh), or of a Gaussian RBM.

    ``method="exact"`` enumerates the smaller layer, of up to 24 units, in float64. Of a Gaussian RBM, where Z is an
    integral over v, it is the hidden layer, of up to 20 units. What rounding adds is some 1e-16 of the largest
    energy of a state.

    ``method="quadrature"`` integrates exp(−F(v)) over v, for Gaussian RBMs with one or two visible units and any
    number of hidden ones, by the trapezoidal rule, which for a sum of Gaussians is as exact.

    ``method="ais"`` is an **estimate** by annealed importance sampling [1]_ [2]_. Chains start
    from a base rate, independent units whose partition function is known, and visit the inverse
    temperatures β = 0, 1/n, 2/n, …, 1 (n is `n_steps`), with one block Gibbs sweep at each,

        log p*_β(v) = ((1 − β) a₀ + β a)·v + Σ_j softplus(β (b + vW)_j),

    where a₀ are the biases of the base rate. For a Gaussian RBM the base rate is N(m, s²), and

        log p*_β(v) = −(1 − β) Σ_i (v − m)²_i/2s²_i − β Σ_i (v − a)²_i/2σ²_i + Σ_j softplus(β (b + (v/σ²)W)_j).

    The mean of the importance weights is an unbiased
    estimate of Z, so that its log tends to fall short of log Z. Unless told otherwise, as many
    chains then go from the model back to the base rate, and their estimate of log Z tends to be
    too large: the truth lies between the two, up to their standard errors [3]_. A gap between the
    two says that more steps are needed; one of more than three combined standard errors is warned of.

    That the reverse estimate is an upper bound holds as far as the reverse chains start from the
    model. If the smaller layer has at most 20 units, they start from exact draws. Otherwise they
    only come close, by `n_steps` Gibbs sweeps from rows of `X` or, without `X`, from where the
    forward chains ended, resampled by their weights. Modes of the model that neither finds are
    missing from both estimates.

    Parameters
    ----------
    params : tuple (W, a, b) or (W, a, b, sigma), or object with ``parameters_as_numpy()``
        W (n_visible, n_hidden), the visible biases a (n_visible,) and the hidden biases
        b (n_hidden,); for a Gaussian RBM, sigma (n_visible,) as well.
    method : {"exact", "quadrature", "ais"}
        The other parameters are for "ais" only.
    X : array_like, shape (n_rows, n_visible), optional
        Data, usually the training set. The base rate then has its means, smoothed by adding one
        0 and one 1 to each unit; or, for a Gaussian RBM, its means and standard deviations, the latter no smaller
        than sigma. Without it, the base rate is uniform; or, for a Gaussian RBM, it has the means and standard
        deviations of v given hidden units that are fair coins, m = a + Σ_j W_j/2 and s² = σ² + Σ_j W_j²/4.
    n_chains : int
        Number of chains in each direction, at least 2.
    n_steps : int
        Number of temperature steps.
    reverse : bool
        Whether to run the reverse chains as well, which take about twice as long as the forward
        ones.
    random_seed : int, numpy.random.Generator or None
        Where randomness comes from.

    Returns
    -------
    LogPartition
        With `estimate`, `standard_error`, `effective_sample_size` and, for "ais", `reverse`. The
        standard error is that of the mean weight carried over to its log (delta method); it is too
        small when the effective sample size is.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If a value is out of range, shapes do not fit, or the smaller layer is too large for
        "exact".

    Warns
    -----
    UserWarning
        If the forward and the reverse estimate of "ais" differ by more than three of their combined standard errors:
        then neither is to be trusted.

    References
    ----------
    .. [1] Neal, R. M. (2001). Annealed importance sampling. Statistics and Computing, 11, 125-139.
       Equations 11 and 12.
    .. [2] Salakhutdinov, R. and Murray, I. (2008). On the quantitative analysis of deep belief
       networks. ICML. Section 4.1.
    .. [3] Burda, Y., Grosse, R. and Salakhutdinov, R. (2015). Accurate and conservative estimates
       of MRF log-likelihood using reverse annealing. AISTATS.

    Examples
    --------
    >>> import numpy as np
    >>> from pm_neural.diagnostics import log_partition
    >>> W, a, b = np.zeros((3, 2)), np.zeros(3), np.zeros(2)
    >>> print(log_partition((W, a, b)))  # 2⁵ equal states
    log Z = 3.4657 (exact)
    """
    params = as_any_parameters(params)
    if method in ("exact", "quadrature"):
        return LogPartition(_computed_log_partition(params, method), 0.0, np.inf, method, np.empty(0))
    if method != "ais":
        raise ValueError(f"method must be 'exact', 'quadrature' or 'ais', got {method!r}")

    at_least(2, "n_chains", n_chains)
    at_least(1, "n_steps", n_steps)
    rows = None if X is None else params.check_rows(X)
    run = annealed_importance_sampling(
        params,
        rows,
        n_chains=n_chains,
        n_steps=n_steps,
        reverse=reverse,
        rng=np.random.default_rng(random_seed),
    )
    return average_directions(run.forward, run.reverse)


def _computed_log_partition(params: Parameters | GaussianParameters, method: str) -> float:
    if isinstance(params, Parameters):
        if method == "quadrature":
            raise ValueError("method='quadrature' is for Gaussian RBMs, (W, a, b, sigma), got (W, a, b)")
        return exact_log_partition(params)
    return exact_gaussian_log_partition(params) if method == "exact" else log_partition_by_quadrature(params)


def average_directions(forward: np.ndarray, reverse: np.ndarray | None) -> LogPartition:
    """Make an estimate of each chain's log Z, up the temperatures and down again; warn if the two disagree."""
    backward = None if reverse is None else _average_weights(reverse, "reverse ais", sign=-1)
    result = _average_weights(forward, "ais", sign=1, reverse=backward)
    if backward is not None:
        gap = backward.estimate - result.estimate
        combined_error = float(np.hypot(backward.standard_error, result.standard_error))
        if abs(gap) > _LARGEST_GAP * combined_error + _ROUNDING * (1 + abs(result.estimate)):
            ratio = abs(gap) / combined_error if combined_error else np.inf
            warnings.warn(
                f"forward AIS gives log Z = {result.estimate:.6g} and reverse AIS {backward.estimate:.6g}, which are "
                f"{ratio:.3g} combined standard errors apart: at least one is wrong. Raise n_steps, or start from a "
                "base closer to the model (by X, or by base_mean and base_sd of an EnergyNetwork)",
                UserWarning,
                stacklevel=3,
            )
    return result


def _average_weights(
    log_weights: np.ndarray, method: str, *, sign: int, reverse: LogPartition | None = None
) -> LogPartition:
    """Average exp(log Z) over the chains (`sign` 1), or exp(−log Z) (`sign` −1)."""
    n_chains = len(log_weights)
    largest = (sign * log_weights).max()
    weights = np.exp(sign * log_weights - largest)
    mean = weights.mean()
    return LogPartition(
        estimate=float(sign * (largest + np.log(mean))),
        standard_error=float(weights.std(ddof=1) / np.sqrt(n_chains) / mean),
        effective_sample_size=float(weights.sum() ** 2 / (weights**2).sum()),
        method=method,
        log_weights=log_weights,
        reverse=reverse,
    )


def log_likelihood(
    params: AnyParametersLike,
    X: ArrayLike,
    *,
    log_z: LogPartition | float | None = None,
    method: Literal["exact", "quadrature", "ais"] = "exact",
    random_seed: RandomSeed = None,
) -> LogLikelihood:
    """Compute the log likelihood of data under an RBM, binary or Gaussian: log p(v) = −F(v) − log Z.

    Parameters
    ----------
    params : tuple (W, a, b) or (W, a, b, sigma), or object with ``parameters_as_numpy()``
        W (n_visible, n_hidden), the visible biases a (n_visible,) and the hidden biases
        b (n_hidden,); for a Gaussian RBM, sigma (n_visible,) as well.
    X : array_like, shape (n_rows, n_visible)
        One visible state per row: zeros and ones, or real numbers for a Gaussian RBM.
    log_z : LogPartition or float, optional
        log Z, if it is known already.
    method : {"exact", "quadrature", "ais"}
        How `log_partition` finds log Z if it is not given: exactly, or as an **estimate** by AIS
        with its default settings and the base rate from `X`.
    random_seed : int, numpy.random.Generator or None
        Where the randomness of "ais" comes from.

    Returns
    -------
    LogLikelihood
        With `mean`, `standard_error`, the values `per_row`, and `bracket` if log Z has one.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If `X` does not hold zeros and ones, or finite numbers, in n_visible columns, `log_z` is not finite, or
        `log_partition` refuses.

    Examples
    --------
    >>> import numpy as np
    >>> from pm_neural.diagnostics import log_likelihood
    >>> W, a, b = np.zeros((3, 2)), np.zeros(3), np.zeros(2)
    >>> round(log_likelihood((W, a, b), [[0, 1, 1]]).mean, 6)  # −3 log 2
    -2.079442
    """
    params = as_any_parameters(params)
    rows = params.check_rows(X)
    if log_z is None:
        log_z = log_partition(params, method, X=rows if method == "ais" else None, random_seed=random_seed)
    return normalized(-params.free_energy(rows), log_z)


def normalized(log_density: np.ndarray, log_z: LogPartition | float) -> LogLikelihood:
    """Make the log likelihood of rows from the log-density of each, up to log Z."""
    known = log_z if isinstance(log_z, LogPartition) else None
    if not np.isfinite(float(log_z)):
        raise ValueError(f"log_z must be finite, got {log_z!r}")
    per_row = log_density - float(log_z)
    of_rows = per_row.std(ddof=1) / np.sqrt(len(per_row)) if len(per_row) > 1 else np.nan
    of_log_z = 0.0 if known is None else known.standard_error
    return LogLikelihood(
        mean=float(per_row.mean()),
        standard_error=float(np.hypot(of_rows, of_log_z)),
        per_row=per_row,
        log_partition=known,
    )
