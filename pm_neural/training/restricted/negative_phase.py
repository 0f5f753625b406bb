"""Where the model's side of the likelihood gradient comes from: CD, PCD, parallel tempering.

A negative phase is asked once per update for hidden means of the data and for visible states and
hidden means under the model. It writes into the caller's arrays and keeps its chains, if it has
any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from pm_neural.fitting.backend import Array, Backend
from pm_neural.fitting.checks import check_integer
from pm_neural.training.restricted.layers import Layers

_N_TEMPERATURES = 10


class NegativePhase(Protocol):
    """One way to draw from the model while it is trained."""

    settings: Mapping[str, Any]
    """Its constants, as JSON values."""

    def n_model(self, n_data: int) -> int:
        """Count the model states that go with a minibatch of `n_data` images."""

    def fill(self, data: Array, data_mean: Array, v: Array, h_mean: Array) -> None:
        """Write p(h=1|data) into `data_mean`, model states into `v` and p(h=1|v) into `h_mean`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the chains, by reference."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""


class ContrastiveDivergence:
    """CD-k: k sweeps from the data themselves [1]_; quick, and biased for every finite k.

    References
    ----------
    .. [1] Hinton (2002). Training products of experts by minimizing contrastive divergence. Neural
       Computation 14, 1771-1800.
    """

    def __init__(self, layers: Layers, *, k: int, batch_size: int) -> None:
        self.settings: Mapping[str, Any] = {"method": "cd", "k": k}
        self._layers = layers
        self._k = k
        self._h = layers.backend.empty(batch_size, layers.n_hidden)

    def n_model(self, n_data: int) -> int:
        return n_data

    def fill(self, data: Array, data_mean: Array, v: Array, h_mean: Array) -> None:
        h = self._h[: len(data)]
        self._layers.sample_hidden_with_mean(data, out=h, mean=data_mean)
        for _ in range(self._k - 1):
            self._layers.sample_visible(h, out=v)
            self._layers.sample_hidden(v, out=h)
        self._layers.sample_visible(h, out=v)
        self._layers.hidden_mean(v, out=h_mean)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class PersistentContrastiveDivergence:
    """PCD-k: chains that are never restarted, k sweeps on at every update [1]_.

    References
    ----------
    .. [1] Tieleman (2008). Training restricted Boltzmann machines using approximations to the
       likelihood
       gradient. ICML.
    """

    def __init__(self, layers: Layers, *, k: int, n_chains: int, rng: np.random.Generator) -> None:
        self.settings: Mapping[str, Any] = {"method": "pcd", "k": k, "n_chains": n_chains}
        self._layers = layers
        self._k = k
        self._h = _fair_coins(layers.backend, rng, n_chains, layers.n_hidden)

    def n_model(self, n_data: int) -> int:
        return len(self._h)

    def fill(self, data: Array, data_mean: Array, v: Array, h_mean: Array) -> None:
        self._layers.hidden_mean(data, out=data_mean)
        for _ in range(self._k - 1):
            self._layers.sample_visible(self._h, out=v)
            self._layers.sample_hidden(v, out=self._h)
        self._layers.sample_visible(self._h, out=v)
        self._layers.sample_hidden_with_mean(v, out=self._h, mean=h_mean)

    def state_dict(self) -> dict[str, Any]:
        return {"h": self._layers.backend.tensor(self._h)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._h = self._layers.backend.array(state["h"])


class ParallelTempering:
    """PCD whose chains wander between temperatures [1]_.

    A ladder is `n_temperatures` replicas of (v, h), replica r at the inverse temperature beta_r,
    from 1 (the model) evenly down to 0 (independent units). After each sweep at its own temperature
    neighbours of a ladder swap temperatures with probability min(1, exp((beta_r - beta_s)(E_r -
    E_s))), E being the energy that is tempered, which leaves the product of the tempered
    distributions invariant; the replicas at beta = 1 are the model's states.

    References
    ----------
    .. [1] Desjardins, Courville, Bengio, Vincent, Delalleau (2010). Tempered Markov chain Monte
       Carlo for
       training of restricted Boltzmann machines. AISTATS.
    """

    def __init__(
        self,
        layers: Layers,
        *,
        k: int,
        n_chains: int,
        n_temperatures: int,
        rng: np.random.Generator,
    ) -> None:
        backend, n_rows = layers.backend, n_temperatures * n_chains
        self.settings: Mapping[str, Any] = {
            "method": "pt",
            "k": k,
            "n_chains": n_chains,
            "n_temperatures": n_temperatures,
        }
        self._layers = layers
        self._k = k
        self._betas = backend.array(np.linspace(1.0, 0.0, n_temperatures))
        self._rungs = backend.array(np.arange(n_rows).reshape(n_temperatures, n_chains))
        self._beta_of_row = backend.empty(n_rows, 1)
        self._h = _fair_coins(backend, rng, n_rows, layers.n_hidden)
        self._v = backend.empty(n_rows, layers.n_visible)
        self._field = backend.empty(n_rows, layers.n_hidden)

    def n_model(self, n_data: int) -> int:
        return self._rungs.shape[1]

    def fill(self, data: Array, data_mean: Array, v: Array, h_mean: Array) -> None:
        self._layers.hidden_mean(data, out=data_mean)
        for _ in range(self._k):
            self._sweep()
            self._swap()
        cold = self._rungs[0]
        v[...] = self._v[cold]
        h_mean[...] = self._field[cold]
        self._layers.backend.mean(h_mean, out=h_mean)

    def _sweep(self) -> None:
        layers = self._layers
        for rung, beta in zip(self._rungs, self._betas, strict=True):
            self._beta_of_row[rung] = beta
        layers.sample_tempered_visible(self._h, self._beta_of_row, out=self._v)
        layers.hidden_field(self._v, out=self._field)
        layers.backend.sample(self._field * self._beta_of_row, out=self._h)

    def _swap(self) -> None:
        energy = self._layers.tempered_energy(self._v, self._h, self._field)
        backend = self._layers.backend
        swap_temperatures(backend, self._rungs, self._betas, energy, backend.uniform(energy.shape[0]))

    def state_dict(self) -> dict[str, Any]:
        tensor = self._layers.backend.tensor
        return {"h": tensor(self._h), "rungs": tensor(self._rungs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._h = self._layers.backend.array(state["h"])
        self._rungs = self._layers.backend.array(state["rungs"])


def make_negative_phase(
    layers: Layers,
    *,
    method: str,
    k: int,
    batch_size: int,
    n_chains: int | None,
    n_temperatures: int | None,
    rng: np.random.Generator,
) -> NegativePhase:
    """Make the negative phase that the arguments of a `fit` ask for."""
    if method not in ("cd", "pcd", "pt"):
        raise ValueError(f"method must be 'cd', 'pcd' or 'pt'; got {method!r}")
    k = check_integer(k, "k", minimum=1)
    if n_temperatures is not None and method != "pt":
        raise ValueError(f"n_temperatures belongs to method='pt'; got method={method!r}")
    if method == "cd":
        if n_chains is not None:
            raise ValueError("n_chains belongs to methods 'pcd' and 'pt': 'cd' starts from the data")
        return ContrastiveDivergence(layers, k=k, batch_size=batch_size)
    n_chains = check_integer(batch_size if n_chains is None else n_chains, "n_chains", minimum=1)
    if method == "pcd":
        return PersistentContrastiveDivergence(layers, k=k, n_chains=n_chains, rng=rng)
    n_temperatures = check_integer(
        _N_TEMPERATURES if n_temperatures is None else n_temperatures, "n_temperatures", minimum=2
    )
    return ParallelTempering(layers, k=k, n_chains=n_chains, n_temperatures=n_temperatures, rng=rng)


def swap_temperatures(backend: Backend, rungs: Array, betas: Array, energy: Array, uniforms: Array) -> None:
    """Swap the temperatures of neighbours, pairs (0, 1), (2, 3), ..., then (1, 2), ...

    By the Metropolis rule of `ParallelTempering`.

    Parameters
    ----------
    backend : Backend
    rungs : integer array of the backend, (n_temperatures, n_chains)
        ``rungs[r, c]`` is the row of the replica of ladder c that has temperature r; changed in
        place.
    betas : array of the backend, (n_temperatures,)
        Inverse temperatures.
    energy : array of the backend, (n_rows,)
        The tempered energy of each replica, at beta = 1.
    uniforms : array of the backend, at least (n_temperatures - 1) * n_chains
        Numbers from [0, 1), one per decision.
    """
    n_chains = rungs.shape[1]
    used = 0
    for first in (0, 1):
        cold, hot = rungs[first:-1:2], rungs[first + 1 :: 2]
        n_pairs = len(hot)
        beta_gap = (betas[first:-1:2] - betas[first + 1 :: 2])[:, None]
        log_ratio = beta_gap * (energy[cold] - energy[hot])
        u = uniforms[used : used + n_pairs * n_chains].reshape(n_pairs, n_chains)
        used += n_pairs * n_chains
        accept = u < backend.exp(log_ratio.clip(None, 0))
        swapped = backend.where(accept, hot, cold), backend.where(accept, cold, hot)
        rungs[first:-1:2], rungs[first + 1 :: 2] = swapped


def _fair_coins(backend: Backend, rng: np.random.Generator, n: int, n_units: int) -> Array:
    return backend.floats(rng.integers(2, size=(n, n_units)))
