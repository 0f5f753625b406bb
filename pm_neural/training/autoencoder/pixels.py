"""How pixels are distributed given the output of a decoder."""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from pm_neural.fitting.checks import check_number, check_real

_LOG_2PI = math.log(2 * math.pi)


class Pixels(Protocol):
    """Pixels that are independent given one output of the decoder each."""

    def check(self, X: ArrayLike | Tensor, name: str, n_pixels: int) -> np.ndarray:
        """Return images as rows, (n, n_pixels), or say what is wrong with them."""

    def start(self, X: np.ndarray) -> np.ndarray:
        """Return the outputs that fit all images alike, and start from them."""

    def log_probability(self, x: Tensor, output: Tensor) -> Tensor:
        """Log p(x | output) of every pixel."""

    def mean(self, output: Tensor) -> Tensor:
        """Expected value of every pixel."""

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Draw every pixel."""


class BernoulliPixels(nn.Module):
    """Pixels of 0 or 1; outputs are their log-odds. Grey values in between count as probabilities of a 1."""

    def check(self, X: ArrayLike | Tensor, name: str, n_pixels: int) -> np.ndarray:
        values = check_real(X, name, n_pixels)
        wrong = (values < 0) | (values > 1)
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"{name} must hold 0 and 1, or grey values between them, for a Bernoulli likelihood; "
                f"got {values[row, column]} in row {row}, column {column}"
            )
        return values

    def start(self, X: np.ndarray) -> np.ndarray:
        ink = X.sum(0) + 0.5
        return np.log(ink) - np.log(len(X) + 1 - ink)

    def log_probability(self, x: Tensor, output: Tensor) -> Tensor:
        return x * output - functional.softplus(output)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        return torch.bernoulli(torch.sigmoid(output), generator=generator)


class GaussianPixels(nn.Module):
    """Pixels of any real value, with one standard deviation; outputs are their means.

    Parameters
    ----------
    sigma : float or "learnt"
    dtype, device : see `VAE`
    """

    log_sigma: Tensor

    def __init__(
        self, sigma: float | Literal["learnt"], *, dtype: torch.dtype, device: torch.device | str | None
    ) -> None:
        super().__init__()
        self._is_learnt = sigma == "learnt"
        if self._is_learnt:
            self.log_sigma = nn.Parameter(torch.zeros((), dtype=dtype, device=device))
        else:
            number = check_number(sigma, "sigma", minimum=0, exclusive=True)
            self.register_buffer("log_sigma", torch.tensor(math.log(number), dtype=dtype, device=device))

    def check(self, X: ArrayLike | Tensor, name: str, n_pixels: int) -> np.ndarray:
        return check_real(X, name, n_pixels)

    def start(self, X: np.ndarray) -> np.ndarray:
        mean = X.mean(0)
        if self._is_learnt:
            residual = float(np.sqrt(np.square(X - mean).mean()))
            if residual == 0:
                raise ValueError("X must not hold the same image only, for which sigma is learnt to be 0")
            self.log_sigma.fill_(math.log(residual))
        return mean

    def log_probability(self, x: Tensor, output: Tensor) -> Tensor:
        return -0.5 * ((x - output) * torch.exp(-self.log_sigma)) ** 2 - self.log_sigma - 0.5 * _LOG_2PI

    def mean(self, output: Tensor) -> Tensor:
        return output

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(output.shape, generator=generator, dtype=output.dtype, device=output.device)
        return output + torch.exp(self.log_sigma) * noise


def make_pixels(likelihood: str, sigma: Any, *, dtype: torch.dtype, device: torch.device | str | None) -> nn.Module:
    """Make the likelihood that the arguments of a `VAE` ask for."""
    if likelihood == "bernoulli":
        if sigma is not None:
            raise ValueError(f"sigma belongs to likelihood='gaussian'; got sigma={sigma!r} with 'bernoulli'")
        return BernoulliPixels()
    if likelihood != "gaussian":
        raise ValueError(f"likelihood must be 'bernoulli' or 'gaussian'; got {likelihood!r}")
    if sigma is None or (isinstance(sigma, str) and sigma != "learnt"):
        raise ValueError(f"sigma must be a number or 'learnt' for likelihood='gaussian'; got {sigma!r}")
    return GaussianPixels(sigma, dtype=dtype, device=device)
