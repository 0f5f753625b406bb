"""Estimates of log p(x) of a model with a continuous latent code, one number per row of data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

__all__ = ["LatentLogLikelihood", "anneal", "average_weights", "log_normal"]

_LEAPFROG_STEPS = 5
_WANTED_ACCEPTANCE = 0.8
_FIRST_STEP_SIZE = 0.3
_TUNING_RATE = 0.1

type LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LatentLogLikelihood:
    """An estimate of the log-likelihood of data in nats, from weighted codes.

    The mean of the weights is an unbiased estimate of p(x), so that its log falls short of log p(x), on average by
    about half of its variance.

    Attributes
    ----------
    mean : float
        Mean over the rows.
    standard_error : float
        Standard error of `mean` as an estimate of the mean over the population that the rows come from: their spread,
        which contains the Monte Carlo error. NaN for one row.
    per_row : ndarray, shape (n_rows,)
        The estimate of log p(x) of each row.
    per_row_error : ndarray, shape (n_rows,)
        Its Monte Carlo standard error: that of the mean weight carried over to its log (delta method). It is too small
        where the effective sample size is.
    effective_sample_size : ndarray, shape (n_rows,)
        Number of equally weighted codes that would do as well: (Σ w)² / Σ w².
    method : {"importance", "ais", "reverse ais"}
    reverse : LatentLogLikelihood or None
        The reverse estimate that goes with a forward one. In expectation, `mean` is a lower bound, and ``reverse.mean``
        an upper bound as far as the reverse chains start from the posterior.
    """

    mean: float
    standard_error: float
    per_row: np.ndarray = field(repr=False)
    per_row_error: np.ndarray = field(repr=False)
    effective_sample_size: np.ndarray = field(repr=False)
    method: str
    reverse: LatentLogLikelihood | None = None

    def __str__(self) -> str:
        text = (
            f"log likelihood = {self.mean:.3f} ± {self.standard_error:.3f} nats per row ({self.method}, "
            f"{len(self.per_row)} rows, effective {np.median(self.effective_sample_size):.0f} codes in the median)"
        )
        return text if self.reverse is None else f"{text}\n{self.reverse}"


def log_normal(z: Tensor) -> Tensor:
    """Log-density of N(0, I) at codes (..., n_latent)."""
    return (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum(-1)


def average_weights(
    log_weights: Tensor, method: str, *, sign: int = 1, reverse: LatentLogLikelihood | None = None
) -> LatentLogLikelihood:
    """Average exp(log p) over the codes (`sign` 1), or exp(−log p) (`sign` −1); `log_weights` are (n_codes, n_rows)."""
    values = sign * log_weights.double().cpu().numpy()
    largest = values.max(0)
    weights = np.exp(values - largest)
    mean = weights.mean(0)
    per_row = sign * (largest + np.log(mean))
    n_codes, n_rows = weights.shape
    return LatentLogLikelihood(
        mean=float(per_row.mean()),
        standard_error=float(per_row.std(ddof=1) / np.sqrt(n_rows)) if n_rows > 1 else np.nan,
        per_row=per_row,
        per_row_error=weights.std(0, ddof=1) / np.sqrt(n_codes) / mean,
        effective_sample_size=weights.sum(0) ** 2 / (weights**2).sum(0),
        method=method,
        reverse=reverse,
    )


def anneal(
    log_joint: LogDensity,
    *,
    mean: Tensor,
    sd: Tensor,
    n_chains: int,
    n_steps: int,
    generator: torch.Generator,
) -> LatentLogLikelihood:
    """Estimate log p(x) by annealed importance sampling, from a Gaussian to the posterior and back.

    Parameters
    ----------
    log_joint : callable
        Maps codes (n_chains, n_rows, n_latent) to log p(x, z), (n_chains, n_rows).
    mean, sd : Tensor, (n_rows, n_latent)
        The Gaussian that the chains start from, near the posterior.
    n_chains, n_steps : int
        Chains of each row, and temperature steps.
    generator : torch.Generator
    """
    chains = _Chains(log_joint, mean=mean, sd=sd, n_chains=n_chains, generator=generator)
    betas = np.linspace(0, 1, n_steps + 1)
    chains.start_from_base()
    chains.tune(betas)
    chains.start_from_base()
    forward = chains.anneal(betas)
    chains.resample(forward)
    chains.anneal(np.ones(n_steps + 1))
    backward = average_weights(-chains.anneal(betas[::-1]), "reverse ais", sign=-1)
    return average_weights(forward, "ais", reverse=backward)


class _Chains:
    """Hamiltonian chains at any inverse temperature β, all rows at once, in the coordinates u = (z − mean) / sd.

    Their density is log p_β(u) = (1 − β) log N(u; 0, 1) + β log p(x, z(u)) + β Σ log sd: at β = 0 the Gaussian, at
    β = 1 the joint density, whose integral is p(x).
    """

    def __init__(
        self, log_joint: LogDensity, *, mean: Tensor, sd: Tensor, n_chains: int, generator: torch.Generator
    ) -> None:
        self._log_joint = log_joint
        self._mean, self._sd = mean, sd
        self._shape = n_chains, *mean.shape
        self._generator = generator
        self._step_size = torch.full_like(mean[:, :1], _FIRST_STEP_SIZE)
        self.start_from_base()

    def start_from_base(self) -> None:
        self._u = self._normal()

    def tune(self, betas: np.ndarray) -> None:
        """Visit the inverse temperatures; find a step size for each row that is kept from then on."""
        for beta in betas[1:]:
            accepted = self._move(beta)
            excess = accepted.mean(0)[:, None] - _WANTED_ACCEPTANCE
            self._step_size *= torch.exp(_TUNING_RATE * excess)

    def anneal(self, betas: np.ndarray) -> Tensor:
        """Visit the inverse temperatures one after another; return the log weights, (n_chains, n_rows).

        A change from β to β' gains log p_β'(u) − log p_β(u); a Hamiltonian move then leaves p_β' invariant. The move
        is reversible, so visiting the same temperatures downwards gives the reverse chain.
        """
        log_weights = torch.zeros(self._shape[:2], dtype=torch.float64, device=self._u.device)
        for beta, next_beta in pairwise(betas):
            if next_beta != beta:
                log_weights += (next_beta - beta) * self._slope(self._u)
            self._move(next_beta)
        return log_weights

    def resample(self, log_weights: Tensor) -> None:
        """Draw the chains of each row anew, with the probabilities that their weights say."""
        n_chains = self._shape[0]
        chosen = torch.multinomial(
            torch.softmax(log_weights, 0).T, n_chains, replacement=True, generator=self._generator
        )
        self._u = torch.take_along_dim(self._u, chosen.T[:, :, None], dim=0)

    @torch.no_grad()
    def _slope(self, u: Tensor) -> Tensor:
        """Derivative of log p_β(u) with regard to β: log p(x, z(u)) + Σ log sd − log N(u; 0, 1)."""
        return self._log_target(u) - log_normal(u)

    def _log_target(self, u: Tensor) -> Tensor:
        return self._log_joint(self._mean + self._sd * u) + self._sd.log().sum(-1)

    def _density_and_gradient(self, u: Tensor, beta: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            density = (1 - beta) * log_normal(u) + beta * self._log_target(u)
            (gradient,) = torch.autograd.grad(density.sum(), u)
        return density.detach(), gradient

    def _move(self, beta: float) -> Tensor:
        """Make one Hamiltonian Monte Carlo transition at β; return the probabilities that it was accepted with."""
        momentum = self._normal()
        u = self._u
        before, gradient = self._density_and_gradient(u, beta)
        before = before + log_normal(momentum)
        momentum = momentum + 0.5 * self._step_size * gradient
        for step in range(_LEAPFROG_STEPS):
            u = u + self._step_size * momentum
            after, gradient = self._density_and_gradient(u, beta)
            momentum = momentum + (0.5 if step == _LEAPFROG_STEPS - 1 else 1.0) * self._step_size * gradient
        accept = torch.exp((after + log_normal(momentum) - before).clamp(max=0)).nan_to_num(0.0)
        uniform = torch.rand(accept.shape, generator=self._generator, dtype=accept.dtype, device=accept.device)
        self._u = torch.where((uniform < accept)[..., None], u, self._u)
        return accept

    def _normal(self) -> Tensor:
        return torch.randn(self._shape, generator=self._generator, dtype=self._mean.dtype, device=self._mean.device)
