"""Annealed importance sampling for the partition function of an RBM, binary or Gaussian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from pm_neural.diagnostics._activations import softplus
from pm_neural.diagnostics._parameters import GaussianParameters, Parameters
from pm_neural.diagnostics.enumeration import (
    MAX_UNITS_MARGINALS,
    exact_draws,
    exact_gaussian_draws,
    log_normal_volume,
)
from step_methods.kernels.restricted.layers import sample_units
from step_methods.kernels.vectors.jit import cached_njit
from step_methods.kernels.vectors.random import seed_stream

__all__ = ["AISRun", "annealed_importance_sampling"]

# Number of multiplications below which a second BLAS thread costs more than it saves.
_SMALL_PRODUCT = 5_000_000
# A product of this many factors between 1 and 2 stays below the largest float64.
_UNITS_PER_LOGARITHM = 512


class AISRun(NamedTuple):
    """One estimate of log Z per chain, up the temperatures and down again.

    `forward` averages (as exp) to an unbiased estimate of Z; the negative of `reverse` averages to
    one of 1/Z, if the reverse chains started from the model.
    """

    forward: np.ndarray
    reverse: np.ndarray | None


def annealed_importance_sampling(
    params: Parameters | GaussianParameters,
    X: np.ndarray | None,
    *,
    n_chains: int,
    n_steps: int,
    reverse: bool,
    rng: np.random.Generator,
) -> AISRun:
    """Run the chains that `log_partition` describes."""
    chains = _make_chains(params, X, n_chains, rng)
    betas = np.linspace(0, 1, n_steps + 1)
    chains.start_from_base()
    forward = chains.anneal(betas)
    if not reverse:
        return AISRun(chains.log_partition_base + forward, None)

    if chains.can_be_enumerated:
        chains.start_from_model(rng)
    else:
        if X is None:
            chains.visible[:] = _resample(chains.visible, forward, rng)
        else:
            chains.visible[:] = rng.choice(X, n_chains)
        chains.equilibrate(n_steps)
    backward = chains.anneal(betas[::-1])
    return AISRun(chains.log_partition_base + forward, chains.log_partition_base - backward)


def _make_chains(
    params: Parameters | GaussianParameters, X: np.ndarray | None, n_chains: int, rng: np.random.Generator
) -> _Chains:
    if isinstance(params, Parameters):
        base_bias = np.zeros_like(params.a) if X is None else _smoothed_log_odds(X)
        return _BinaryChains(params, base_bias, n_chains, rng)
    if X is None:
        return _GaussianChains(params, *_moments_under_fair_hidden_units(params), n_chains, rng)
    return _GaussianChains(params, X.mean(axis=0), np.maximum(X.std(axis=0), params.sigma), n_chains, rng)


def _moments_under_fair_hidden_units(params: GaussianParameters) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of a + Wh + σ N(0, I), where the units of h are fair coins.

    They span all the Gaussians that the model is a mixture of. Around N(a, σ²), one of them, annealing misses others.
    """
    W, a, _, sigma = params
    return a + W.sum(axis=1) / 2, np.sqrt(sigma**2 + (W**2).sum(axis=1) / 4)


def _smoothed_log_odds(X: np.ndarray) -> np.ndarray:
    """Log odds of each column, after one 0 and one 1 more."""
    ones = X.sum(axis=0)
    return np.log((ones + 1) / (len(X) - ones + 1))


def _resample(rows: np.ndarray, log_weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    weights = np.exp(log_weights - log_weights.max())
    return rng.choice(rows, len(rows), p=weights / weights.sum())


class _Chains(ABC):
    """Chains of block Gibbs sampling at any inverse temperature; one row of `visible` is a chain.

    At β = 0 the units are independent, at β = 1 the model is reached.
    """

    log_partition_base: float
    """log Z at β = 0."""
    can_be_enumerated: bool
    """Whether the model is small enough for exact draws."""

    def __init__(self, W: np.ndarray, b: np.ndarray, n_chains: int, rng: np.random.Generator):
        n_visible, n_hidden = W.shape
        self._W_transposed = np.ascontiguousarray(W.T.astype(np.float32))
        self._hidden_bias = b.astype(np.float32)
        self._random_state = seed_stream(rng)
        self._hidden = np.empty((n_chains, n_hidden), dtype=np.float32)
        self.visible = np.empty((n_chains, n_visible), dtype=np.float32)

    @abstractmethod
    def start_from_base(self) -> None:
        """Draw the visible units at β = 0."""

    @abstractmethod
    def start_from_model(self, rng: np.random.Generator) -> None:
        """Draw the visible units at β = 1, by enumeration."""

    @abstractmethod
    def _change_temperature(self, beta: float, next_beta: float, log_weights: np.ndarray) -> None:
        """Weight the chains for the step from β to β', then sweep at β'."""

    def equilibrate(self, n_sweeps: int) -> None:
        """Sweep at the model's own temperature."""
        self.anneal(np.ones(n_sweeps + 1))

    def anneal(self, betas: np.ndarray) -> np.ndarray:
        """Visit the inverse temperatures one after another; return the log weight of each chain.

        At every change from β to β', a chain at v gains log p*_β'(v) − log p*_β(v), then makes one
        sweep at β', which leaves p_β' invariant. The sweep is reversible, so visiting the same
        temperatures downwards gives the reverse chain.
        """
        log_weights = np.zeros(len(self.visible))
        n_threads = 1 if len(self.visible) * self._W_transposed.size < _SMALL_PRODUCT else None
        with threadpool_limits(n_threads, user_api="blas"):
            for beta, next_beta in pairwise(betas):
                self._change_temperature(beta, next_beta, log_weights)
        return log_weights

    def _weigh_and_sample_hidden(self, W: np.ndarray, beta: float, next_beta: float, log_weights: np.ndarray) -> None:
        """Weight the chains for the change of Σ_j softplus(β (b + vW)_j), then draw h at β'."""
        np.matmul(self.visible, W, out=self._hidden)
        _reweight_and_scale(self._hidden, self._hidden_bias, beta, next_beta, log_weights)
        sample_units(self._hidden, self._random_state, self._hidden)


class _BinaryChains(_Chains):
    """Chains of a binary RBM.

    At inverse temperature β the visible units have
    log p*(v) = ((1 − β) a₀ + β a)·v + Σ_j softplus(β (b + vW)_j): at β = 0 independent with the
    base's biases a₀, at β = 1 the model.
    """

    def __init__(self, params: Parameters, base_bias: np.ndarray, n_chains: int, rng: np.random.Generator):
        super().__init__(params.W, params.b, n_chains, rng)
        self._params = params
        self._W = params.W.astype(np.float32)
        self._base_bias = base_bias
        self._bias_change = (params.a - base_bias).astype(np.float32)
        self.log_partition_base = softplus(base_bias).sum() + len(params.b) * np.log(2)
        self.can_be_enumerated = min(params.W.shape) <= MAX_UNITS_MARGINALS

    def start_from_base(self) -> None:
        self.visible[:] = self._base_bias
        sample_units(self.visible, self._random_state, self.visible)

    def start_from_model(self, rng: np.random.Generator) -> None:
        self.visible[:] = exact_draws(self._params, len(self.visible), rng)

    def _change_temperature(self, beta: float, next_beta: float, log_weights: np.ndarray) -> None:
        log_weights += (next_beta - beta) * (self.visible @ self._bias_change)
        self._weigh_and_sample_hidden(self._W, beta, next_beta, log_weights)

        np.matmul(self._hidden, self._W_transposed, out=self.visible)
        bias = (1 - next_beta) * self._base_bias + next_beta * self._params.a
        self.visible *= np.float32(next_beta)
        self.visible += bias.astype(np.float32)
        sample_units(self.visible, self._random_state, self.visible)


class _GaussianChains(_Chains):
    """Chains of a Gaussian RBM.

    At inverse temperature β the visible units have
    log p*(v) = −(1 − β) Σ_i (v − m)²_i/2s²_i − β Σ_i (v − a)²_i/2σ²_i + Σ_j softplus(β (b + (v/σ²)W)_j): at β = 0
    they are the base's independent Gaussians N(m, s²), at β = 1 the model. Given h they are Gaussian at any β.
    """

    def __init__(
        self,
        params: GaussianParameters,
        base_mean: np.ndarray,
        base_sd: np.ndarray,
        n_chains: int,
        rng: np.random.Generator,
    ):
        super().__init__(params.W, params.b, n_chains, rng)
        self._params = params
        self._rng = rng
        self._noise = np.empty_like(self.visible)
        self._scaled_W = (params.W / params.sigma[:, None] ** 2).astype(np.float32)
        self._base_mean, self._base_sd = base_mean, base_sd
        self.log_partition_base = log_normal_volume(base_sd) + len(params.b) * np.log(2)
        self.can_be_enumerated = len(params.b) <= MAX_UNITS_MARGINALS

    def start_from_base(self) -> None:
        self.visible[:] = 0
        self._sample_visible(0.0)

    def start_from_model(self, rng: np.random.Generator) -> None:
        self.visible[:] = exact_gaussian_draws(self._params, len(self.visible), rng)

    def _change_temperature(self, beta: float, next_beta: float, log_weights: np.ndarray) -> None:
        _, a, _, sigma = self._params
        v = self.visible.astype(np.float64)
        from_base, from_model = (
            (((v - mean) / sd) ** 2).sum(axis=1) / 2 for mean, sd in ((self._base_mean, self._base_sd), (a, sigma))
        )
        log_weights += (next_beta - beta) * (from_base - from_model)
        self._weigh_and_sample_hidden(self._scaled_W, beta, next_beta, log_weights)
        np.matmul(self._hidden, self._W_transposed, out=self.visible)
        self._sample_visible(next_beta)

    def _sample_visible(self, beta: float) -> None:
        """Draw v at β, given h, for which `visible` holds Wh."""
        _, a, _, sigma = self._params
        base_precision, model_precision = (1 - beta) / self._base_sd**2, beta / sigma**2
        variance = 1 / (base_precision + model_precision)
        bias = variance * (base_precision * self._base_mean + model_precision * a)
        self._rng.standard_normal(out=self._noise, dtype=np.float32)
        self._noise *= np.sqrt(variance).astype(np.float32)
        self.visible *= (variance * model_precision).astype(np.float32)
        self.visible += bias.astype(np.float32)
        self.visible += self._noise


@cached_njit(fastmath={"contract", "reassoc"})
def _reweight_and_scale(
    field: np.ndarray, bias: np.ndarray, beta: float, next_beta: float, log_weights: np.ndarray
) -> None:
    """Add Σ_j softplus(β' x_j) − softplus(β x_j) to each log weight, and leave β' x in `field`.

    x is `field` + `bias`. With softplus(βx) = β max(x, 0) + log(1 + e^(−β|x|)), one logarithm
    serves many units.
    """
    n_chains, n_units = field.shape
    for chain in range(n_chains):
        for start in range(0, n_units, _UNITS_PER_LOGARITHM):
            part = field[chain, start : start + _UNITS_PER_LOGARITHM]
            positive = 0.0
            before = 1.0
            after = 1.0
            for unit in range(part.size):
                x = np.float64(part[unit]) + np.float64(bias[start + unit])
                positive += max(x, 0.0)
                before *= 1 + _exp_minus(beta * abs(x))
                after *= 1 + _exp_minus(next_beta * abs(x))
                part[unit] = next_beta * x
            log_weights[chain] += (next_beta - beta) * positive + np.log(after / before)


@cached_njit()
def _exp_minus(x: float) -> float:
    """Return e^(−x) for x >= 0 with an absolute error below 3e-14.

    (e^(−x/256))^256 by a polynomial and eight squarings: without a table or a branch, so that the
    compiler can do several units at a time.
    """
    y = -min(x, 64.0) / 256
    power = 1 + y * (1 + y * (1 / 2 + y * (1 / 6 + y * (1 / 24 + y * (1 / 120 + y * (1 / 720 + y / 5040))))))
    for _ in range(8):
        power *= power
    return power
