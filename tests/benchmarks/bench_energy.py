"""An energy network on a ring in the plane: expected log-likelihood under the true density, by quadrature.

The expectation has no sampling noise: both it and log Z are integrals over the plane. One thread, CPU time of the
process. Every row is a mean over seeds, each of which has training points of its own; settings were chosen on other
seeds.
"""

import harness  # noqa: F401 # isort: skip

import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from pm_neural.datasets import load_ring
from pm_neural.training import EnergyNetwork

type Row = dict[str, Any]

SEEDS = (1, 2, 3, 4, 5)
WIDTH = 64
TRAINING: dict[str, Any] = {"epochs": 200, "learning_rate": 1e-2}
METHODS: dict[str, dict[str, Any]] = {
    "adjusted": TRAINING,
    "adjusted, 400 epochs, rate 3e-3": {"epochs": 400, "learning_rate": 3e-3},
    "unadjusted, 400 epochs, rate 1e-3": {"epochs": 400, "learning_rate": 1e-3, "adjusted": False},
    "unadjusted, 400 epochs, rate 3e-3": {"epochs": 400, "learning_rate": 3e-3, "adjusted": False},
    "noise 0.005": {**TRAINING, "adjusted": False, "noise": 0.005},
}


def make_network(seed: int) -> EnergyNetwork:
    torch.manual_seed(seed)
    layers = [nn.Linear(2, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 1), nn.Flatten(0)]
    return EnergyNetwork(nn.Sequential(*layers), 2)


def score(seed: int, options: dict[str, Any]) -> Row:
    """Train on the points of one seed."""
    ring = load_ring(random_seed=seed)
    points, weights = ring.quadrature()
    network = make_network(seed)
    start = time.process_time()
    history = network.fit(ring.train, random_seed=seed, progressbar=False, **options)
    seconds = time.process_time() - start
    expected = float(weights @ network.log_likelihood(points).per_row)
    return {
        "expected": expected,
        "below_truth": float(weights @ ring.log_density(points)) - expected,
        "cpu_seconds": seconds,
        "acceptance_rate": history["acceptance_rate"].item(-1),
    }


def rows() -> Iterator[Row]:
    """Measure everything; one dict per method."""
    for method, options in METHODS.items():
        scores, failures = [], []
        for seed in SEEDS:
            try:
                scores.append(score(seed, options))
            except (ValueError, FloatingPointError) as error:  # a density too uneven to be integrated, or none
                failures.append(f"seed {seed}: {error}")
        means = {key: statistics.mean(s[key] for s in scores) for key in scores[0]} if scores else {}
        spread = {"sd_of_seeds": statistics.stdev(s["expected"] for s in scores)} if len(scores) > 1 else {}
        yield {"method": method, **means, **spread, "failures": failures}


def main() -> None:
    print(f"expected log-likelihood under the true density, nats; ring of 500 points, MLP 2-{WIDTH}-{WIDTH}-1")
    for row in rows():
        numbers = "  ".join(f"{name} {value:,.4g}" for name, value in row.items() if isinstance(value, float))
        print(f"  {row['method']:40} {numbers}", flush=True)
        for failure in row["failures"]:
            print(f"    {failure}", flush=True)


if __name__ == "__main__":
    main()
