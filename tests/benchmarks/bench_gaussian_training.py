"""Density of a ring in the plane: expected log-likelihood under the true density, by quadrature.

The expectation has no sampling noise: both it and log Z are integrals over the plane. One thread, CPU time of the
process, compilation apart. Every row is a mean over seeds, each of which has training points of its own; settings were
chosen on other seeds.
"""

import harness  # noqa: F401 # isort: skip

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

from pm_neural.datasets import RingData, load_ring
from pm_neural.diagnostics import log_likelihood
from pm_neural.training import GaussianRBM

type LogDensity = Callable[[np.ndarray], np.ndarray]
type Row = dict[str, Any]

SEEDS = (1, 2, 3, 4, 5)
N_HIDDEN = 100


def fit_rbm(
    ring: RingData, seed: int, *, sigma: float = 0.2, learn_sigma: bool = True, **options: Any
) -> tuple[LogDensity, GaussianRBM]:
    rbm = GaussianRBM(2, N_HIDDEN, sigma=sigma, learn_sigma=learn_sigma)
    rbm.fit(ring.train, random_seed=seed, progressbar=False, **options)
    return lambda points: log_likelihood(rbm, points, method="quadrature").per_row, rbm


def fit_as_in_a_lecture(ring: RingData, seed: int) -> tuple[LogDensity, GaussianRBM]:
    """300 steps of CD-1 on all points at once, sigma fixed, the gradient cut to the norm 1, written with torch."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    rbm = GaussianRBM(2, N_HIDDEN, sigma=0.1, learn_sigma=False)
    with torch.no_grad():
        rbm.W.normal_(0, 0.01, generator=generator)
        rbm.b.normal_(0, 0.1, generator=generator)
    data = torch.as_tensor(ring.train, dtype=torch.float32)
    optimizer = torch.optim.SGD([rbm.W, rbm.a, rbm.b], lr=1e-3)
    for _ in range(300):
        with torch.no_grad():
            h = torch.bernoulli(rbm.hidden_probabilities(data), generator=generator)
            v = rbm.visible_means(h) + rbm.sigma * torch.randn(data.shape, generator=generator)
        optimizer.zero_grad()
        (rbm.free_energy(data) - rbm.free_energy(v)).mean().backward()
        torch.nn.utils.clip_grad_norm_([rbm.W, rbm.a, rbm.b], 1)
        optimizer.step()
    return lambda points: log_likelihood(rbm, points, method="quadrature").per_row, rbm


def fit_mixture(ring: RingData, seed: int) -> tuple[LogDensity, None]:
    mixture = GaussianMixture(10, random_state=seed, n_init=3).fit(ring.train)
    return mixture.score_samples, None


def fit_kernels(ring: RingData, seed: int) -> tuple[LogDensity, None]:
    """Gaussian kernels, their width chosen by five-fold cross-validation."""
    search = GridSearchCV(KernelDensity(), {"bandwidth": np.geomspace(0.03, 0.3, 15)}, cv=5)
    return search.fit(np.random.default_rng(seed).permutation(ring.train)).best_estimator_.score_samples, None


METHODS: dict[str, Callable[[RingData, int], tuple[LogDensity, GaussianRBM | None]]] = {
    "true density": lambda ring, seed: (ring.log_density, None),
    "GaussianRBM.fit, defaults": fit_rbm,
    "GaussianRBM.fit, CD-10": lambda ring, seed: fit_rbm(ring, seed, k=10, sigma_learning_rate=1e-3),
    "CD-10, sigma fixed at the noise": lambda ring, seed: fit_rbm(ring, seed, sigma=0.1, learn_sigma=False, k=10),
    "CD-10, sigma fixed at twice the noise": lambda ring, seed: fit_rbm(ring, seed, learn_sigma=False, k=10),
    "CD-10, sigma as fast as the weights": lambda ring, seed: fit_rbm(ring, seed, k=10, sigma_learning_rate=0.03),
    "PCD-1": lambda ring, seed: fit_rbm(ring, seed, method="pcd"),
    "PCD-10": lambda ring, seed: fit_rbm(ring, seed, method="pcd", k=10),
    "PCD-10, sigma fixed at the noise": lambda ring, seed: fit_rbm(
        ring, seed, sigma=0.1, learn_sigma=False, method="pcd", k=10
    ),
    "PCD-10, sigma as fast as the weights": lambda ring, seed: fit_rbm(
        ring, seed, method="pcd", k=10, sigma_learning_rate=0.03
    ),
    "parallel tempering, 2 sweeps": lambda ring, seed: fit_rbm(ring, seed, method="pt", k=2),
    "as in a lecture: CD-1, sigma fixed": fit_as_in_a_lecture,
    "Gaussian mixture, 10 components": fit_mixture,
    "kernel density": fit_kernels,
}


def sweeps_around(rbm: GaussianRBM) -> float:
    """Sweeps after which the angle's correlation has fallen to 1/e, from 500 chains in equilibrium."""
    draws = rbm.sample(500, 200, sweeps_per_draw=5, burn_in=500, random_seed=0)["posterior"]["v"].to_numpy()
    direction = draws[..., 0] + 1j * draws[..., 1]
    direction /= np.abs(direction)
    correlation = np.array([(direction[:, lag:] * direction[:, : 200 - lag].conj()).mean().real for lag in range(100)])
    return float(5 * np.argmax(correlation < np.exp(-1))) if (correlation < np.exp(-1)).any() else np.inf


def rows() -> Iterator[Row]:
    """Measure everything; one dict per method."""
    fit_rbm(load_ring(), 0, epochs=1)  # compiles
    for method, fit in METHODS.items():
        scores: list[dict[str, float]] = []
        for seed in SEEDS:
            ring = load_ring(random_seed=seed)
            points, weights = ring.quadrature()
            start = time.process_time()
            log_density, rbm = fit(ring, seed)
            seconds = time.process_time() - start
            expected = float(weights @ log_density(points))
            score = {
                "expected": expected,
                "below_truth": float(weights @ ring.log_density(points)) - expected,
                "cpu_seconds": seconds,
            }
            if rbm is not None:
                score |= {"sigma": rbm.sigma.mean().item(), "sweeps_around": sweeps_around(rbm)}
            scores.append(score)
        yield {
            "method": method,
            **{key: statistics.mean(score[key] for score in scores) for key in scores[0]},
            "sd_of_seeds": statistics.stdev(score["expected"] for score in scores),
        }


def main() -> None:
    print("expected log-likelihood under the true density, nats; ring of 500 points, GaussianRBM 2x100")
    for row in rows():
        numbers = "  ".join(f"{name} {value:,.4g}" for name, value in row.items() if isinstance(value, float))
        print(f"  {row['method']:40} {numbers}", flush=True)


if __name__ == "__main__":
    main()
