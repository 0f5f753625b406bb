"""Block Gibbs chains of an RBM whose parameters stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from pm_neural.training.restricted.layers import Layers
from step_methods.kernels.restricted.gaussian_chains import sweep_gaussian_chains
from step_methods.kernels.restricted.rbm import prepare, sweep_chains
from step_methods.kernels.vectors.random import seed_stream


class Chains(Protocol):
    """Many chains at once."""

    v: torch.Tensor
    """Present visible states, (n_chains, n_visible)."""
    h: torch.Tensor
    """The hidden states that they were drawn from, (n_chains, n_hidden)."""

    def sweep(self, n_sweeps: int) -> None:
        """Draw h given v, then v given h, `n_sweeps` times, in place."""


class BitChains:
    """Binary units on the CPU: they are bits and fields sums of rows of W, the kernel of `step_methods.BlockGibbs`.

    Several times as fast as matrix products, even for many chains; but it has to arrange the
    parameters first, so it is not for training.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], start: np.ndarray, rng: np.random.Generator) -> None:
        W, a, b = (p.detach().numpy() for p in parameters)
        self._rbm = prepare(W, a, b)
        self._stream = seed_stream(rng)
        self._v = np.array(start, dtype=np.int8, order="C")
        self._h = np.zeros((len(start), len(b)), dtype=np.int8)
        self.v, self.h = torch.from_numpy(self._v), torch.from_numpy(self._h)

    def sweep(self, n_sweeps: int) -> None:
        sweep_chains(self._rbm, self._v, self._h, n_sweeps, self._stream)


class GaussianChains:
    """Gaussian visible units on the CPU: kernels that choose what is fastest for their number."""

    def __init__(self, parameters: Sequence[torch.Tensor], start: np.ndarray, rng: np.random.Generator) -> None:
        W, a, b, sigma = (np.ascontiguousarray(p.detach().numpy()) for p in parameters)
        self._parameters = W, a, b, sigma
        self._stream = seed_stream(rng)
        self._v = np.array(start, dtype=W.dtype, order="C")
        self._h = np.zeros((len(start), len(b)), dtype=W.dtype)
        self.v, self.h = torch.from_numpy(self._v), torch.from_numpy(self._h)

    def sweep(self, n_sweeps: int) -> None:
        if n_sweeps:
            sweep_gaussian_chains(*self._parameters, self._v, self._h, n_sweeps, self._stream)


class LayerChains:
    """Matrix products and the backend's random numbers, on any device."""

    def __init__(self, layers: Layers, start: np.ndarray) -> None:
        backend = layers.backend
        self._layers = layers
        self._v = backend.floats(start)
        self._h = backend.empty(len(start), layers.n_hidden)
        self.v, self.h = backend.tensor(self._v), backend.tensor(self._h)

    def sweep(self, n_sweeps: int) -> None:
        for _ in range(n_sweeps):
            self._layers.sample_hidden(self._v, out=self._h)
            self._layers.sample_visible(self._h, out=self._v)
