"""Training of RBMs: test likelihood after ten CPU-seconds, and images per CPU-second.

One thread, CPU time of the process, compilation apart.
"""

import harness  # noqa: F401 # isort: skip

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.neural_network import BernoulliRBM

from pm_neural.datasets import load_digits
from pm_neural.diagnostics import log_likelihood, log_partition
from pm_neural.training import RBM

type Parameters = tuple[np.ndarray, np.ndarray, np.ndarray]
type Row = dict[str, Any]

SEEDS = (0, 1, 2)
N_HIDDEN = 100
# The best of a search on a validation part of the training set, within ten CPU-seconds.
SKLEARN_BEST = {"learning_rate": 0.01, "batch_size": 50, "n_iter": 2000}
SIZES = {"64x100": (64, 100, 20_000), "784x500": (784, 500, 5_000)}
BATCH_SIZE = 100
LEARNING_RATE = 0.05
EPOCHS = 4
ROUNDS = 5


# --- quality --------------------------------------------------------------------------------------


def train_ours(X: np.ndarray, seed: int) -> Parameters:
    rbm = RBM(X.shape[1], N_HIDDEN)
    rbm.fit(X, random_seed=seed, progressbar=False)
    return rbm.parameters_as_numpy()


def train_sklearn(X: np.ndarray, seed: int, **settings: float) -> Parameters:
    rbm = BernoulliRBM(n_components=N_HIDDEN, random_state=seed, **settings).fit(X)
    return rbm.components_.T, rbm.intercept_visible_, rbm.intercept_hidden_


def score(params: Parameters, X_train: np.ndarray, X_test: np.ndarray, seed: int) -> Row:
    """Mean test log-likelihood with log Z by forward and by reverse AIS."""
    log_z = log_partition(params, "ais", X=X_train, random_seed=seed)
    likelihood = log_likelihood(params, X_test, log_z=log_z)
    return {"forward": likelihood.mean, "reverse": likelihood.bracket[0]}


def quality_rows() -> Iterator[Row]:
    digits = load_digits()
    train = digits.train.astype(np.float32)
    methods: dict[str, Callable[[np.ndarray, int], Parameters]] = {
        "RBM.fit, defaults": train_ours,
        "scikit-learn, best": lambda X, seed: train_sklearn(X, seed, **SKLEARN_BEST),
        "scikit-learn, defaults": train_sklearn,
    }
    train_ours(train[:20], 0)  # compiles
    for method, fit in methods.items():
        scores = []
        for seed in SEEDS:
            start = time.process_time()
            params = fit(train, seed)
            seconds = time.process_time() - start
            scores.append({**score(params, train, digits.test, seed), "cpu_seconds": seconds})
        yield {
            "benchmark": "test log-likelihood, nats per image",
            "problem": "digits 64x100",
            "method": method,
            "seeds": len(SEEDS),
            **{key: statistics.mean(s[key] for s in scores) for key in scores[0]},
            "sd_of_seeds": statistics.stdev(s["forward"] for s in scores),
        }


# --- throughput: each method is a function of the number of epochs --------------------------------


def fit_ours(X: np.ndarray, n_hidden: int, **options: Any) -> Callable[[int], object]:
    rbm = RBM(X.shape[1], n_hidden)
    common = {"batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE, "progressbar": False}
    return lambda epochs: rbm.fit(X, epochs=epochs, random_seed=0, **common, **options)


def fit_sklearn(X: np.ndarray, n_hidden: int) -> Callable[[int], object]:
    return lambda epochs: BernoulliRBM(
        n_hidden, learning_rate=LEARNING_RATE, batch_size=BATCH_SIZE, n_iter=epochs, random_state=0
    ).fit(X)


def loop_numpy(X: np.ndarray, n_hidden: int, *, persistent: bool) -> Callable[[int], object]:
    """Contrastive divergence as one writes it with NumPy, in float32 and in place."""
    rng = np.random.default_rng(0)
    W = rng.normal(0, 0.01, (X.shape[1], n_hidden)).astype(np.float32)
    a, b = np.zeros(X.shape[1], np.float32), np.zeros(n_hidden, np.float32)
    chains = (rng.random((BATCH_SIZE, n_hidden)) < 0.5).astype(np.float32)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        np.negative(x, out=x)
        np.exp(x, out=x)
        x += 1
        return np.reciprocal(x, out=x)

    def bernoulli(p: np.ndarray) -> np.ndarray:
        return (rng.random(p.shape, dtype=np.float32) < p).astype(np.float32)

    def run(epochs: int) -> None:
        nonlocal W, a, b, chains
        rate = np.float32(LEARNING_RATE / BATCH_SIZE)
        for _ in range(epochs):
            shuffled = X[rng.permutation(len(X))]
            for start in range(0, len(X), BATCH_SIZE):
                v_data = shuffled[start : start + BATCH_SIZE]
                h_data = sigmoid(v_data @ W + b)
                v = bernoulli(sigmoid((chains if persistent else bernoulli(h_data)) @ W.T + a))
                h = sigmoid(v @ W + b)
                W += rate * (v_data.T @ h_data - v.T @ h)
                a += rate * (v_data.sum(0) - v.sum(0))
                b += rate * (h_data.sum(0) - h.sum(0))
                if persistent:
                    chains = bernoulli(h)

    return run


def loop_torch(X: np.ndarray, n_hidden: int) -> Callable[[int], object]:
    """Persistent contrastive divergence as one writes it with torch, without autograd."""
    generator = torch.Generator().manual_seed(0)
    data = torch.as_tensor(X)
    W = 0.01 * torch.randn(X.shape[1], n_hidden, generator=generator)
    a, b = torch.zeros(X.shape[1]), torch.zeros(n_hidden)
    chains = (torch.rand(BATCH_SIZE, n_hidden, generator=generator) < 0.5).float()

    def bernoulli(p: torch.Tensor) -> torch.Tensor:
        return (torch.rand(p.shape, generator=generator) < p).float()

    @torch.no_grad()
    def run(epochs: int) -> None:
        nonlocal chains
        for _ in range(epochs):
            shuffled = data[torch.randperm(len(data), generator=generator)]
            for v_data in shuffled.split(BATCH_SIZE):
                h_data = torch.sigmoid(torch.addmm(b, v_data, W))
                v = bernoulli(torch.sigmoid(torch.addmm(a, chains, W.T)))
                h = torch.sigmoid(torch.addmm(b, v, W))
                chains = bernoulli(h)
                rate = LEARNING_RATE / BATCH_SIZE
                W.addmm_(v_data.T, h_data, alpha=rate).addmm_(v.T, h, alpha=-rate)
                a.add_(v_data.sum(0) - v.sum(0), alpha=rate)
                b.add_(h_data.sum(0) - h.sum(0), alpha=rate)

    return run


def throughput_rows() -> Iterator[Row]:
    torch.set_num_threads(1)
    plain = {"centered": False, "weight_decay": 0.0}
    for problem, (n_visible, n_hidden, n_images) in SIZES.items():
        X = (np.random.default_rng(0).random((n_images, n_visible)) < 0.3).astype(np.float32)
        methods = {
            "RBM.fit, PCD-1": fit_ours(X, n_hidden, **plain),
            "RBM.fit, CD-1": fit_ours(X, n_hidden, method="cd", **plain),
            "RBM.fit, PCD-1, centered, weight decay": fit_ours(X, n_hidden),
            "NumPy loop, PCD-1": loop_numpy(X, n_hidden, persistent=True),
            "NumPy loop, CD-1": loop_numpy(X, n_hidden, persistent=False),
            "torch loop, PCD-1": loop_torch(X, n_hidden),
            "scikit-learn, PCD-1": fit_sklearn(X, n_hidden),
        }
        rates: dict[str, list[float]] = {method: [] for method in methods}
        for round_ in range(ROUNDS + 1):
            for method, run in methods.items():
                start = time.process_time()
                run(EPOCHS)
                if round_:  # the first compiles and warms up
                    rates[method].append(EPOCHS * n_images / (time.process_time() - start))
        medians = {method: statistics.median(values) for method, values in rates.items()}
        best_peer = max(v for method, v in medians.items() if not method.startswith("RBM.fit"))
        for method, images_per_second in medians.items():
            yield {
                "benchmark": f"images per CPU-second, batch {BATCH_SIZE}",
                "problem": problem,
                "method": method,
                "images_per_cpu_second": images_per_second,
                "over_best_peer": images_per_second / best_peer,
            }


def rows() -> Iterator[Row]:
    """Measure everything; one dict per method and problem."""
    yield from throughput_rows()
    yield from quality_rows()


def main() -> None:
    heading = None
    for row in rows():
        if row["benchmark"] != heading:
            heading = row["benchmark"]
            print(f"\n{heading}")
        numbers = "  ".join(f"{name} {value:,.2f}" for name, value in row.items() if isinstance(value, float))
        print(f"  {row['problem']:14} {row['method']:40} {numbers}", flush=True)


if __name__ == "__main__":
    main()
