"""Langevin in pm.sample against NUTS and Metropolis, and what an Energy costs over plain torch.

Targets: a normal of 10 coordinates with scales from 0.1 to 10; a banana, x ~ N(0, 1), y | x ~ N(x², 1/2); eight
schools, non-centered; an MLP energy 2-128-128-1 in a normal envelope. One chain, one core, one thread, no progress bar,
float64; the effective sample size is that of the worst coordinate; the time is that of tuning and draws, compiled.
"""

import harness  # noqa: F401 # isort: skip

import logging
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import arviz as az
import numpy as np
import pymc as pm
import torch

import pm_neural as pmn

ROUNDS = 3
TUNE = 500
N_CALLS = 1000


class Envelope(torch.nn.Module):
    """A perceptron in a normal envelope, so that the energy has a normalizer."""

    def __init__(self, dtype: torch.dtype = torch.float64):
        super().__init__()
        self.perceptron = perceptron(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * self.perceptron(x) + 0.5 * (x**2).sum(-1)


def perceptron(dtype: torch.dtype) -> torch.nn.Module:
    sizes = (2, 128, 128, 1)
    layers: list[torch.nn.Module] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for n_in, n_out in pairwise(sizes):
            layers += [torch.nn.Linear(n_in, n_out), torch.nn.SiLU()]
    return torch.nn.Sequential(*layers[:-1], torch.nn.Flatten(0)).to(dtype)


def normal() -> None:
    pm.Normal("x", 0, np.geomspace(0.1, 10, 10))


def banana() -> None:
    x = pm.Normal("x")
    pm.Normal("y", x**2, np.sqrt(0.5))


def eight_schools() -> None:
    effects = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
    errors = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    mean, spread = pm.Normal("mean", 0, 5), pm.HalfCauchy("spread", 5)
    school = pm.Normal("school", shape=8)
    pm.Normal("effect", mean + spread * school, errors, observed=effects)


def energy() -> None:
    pmn.Energy("x", Envelope(), shape=2)


TARGETS: dict[str, Callable[[], None]] = {
    "normal, 10": normal,
    "banana": banana,
    "eight schools": eight_schools,
    "MLP energy": energy,
}
METHODS: dict[str, tuple[Callable, int]] = {
    "pm.NUTS": (lambda: pm.NUTS(), 2000),
    "pm.Metropolis": (lambda: pm.Metropolis(), 10_000),
    "Langevin": (lambda: pmn.Langevin(), 10_000),
    "Langevin, 10 steps a draw": (lambda: pmn.Langevin(steps_per_draw=10), 2000),
    "Langevin, unadjusted, step 0.02 (biased)": (lambda: pmn.Langevin(step_size=0.02, adjusted=False), 10_000),
}


def ess_per_second(make_step: Callable, draws: int, seed: int) -> tuple[float, float]:
    """Return the least effective sample size a second, and microseconds a draw, of a run in the current model."""
    step = make_step()
    step.step(pm.modelcontext(None).initial_point())  # compiles
    idata = pm.sample(
        draws,
        tune=TUNE,
        chains=1,
        cores=1,
        step=step,
        random_seed=seed,
        progressbar=False,
        compute_convergence_checks=False,
    )
    seconds = idata["sample_stats"].attrs["sampling_time"]
    ess = az.ess(idata)
    least = min(float(ess[name].min()) for name in ess.data_vars)
    return least / seconds, 1e6 * seconds / (draws + TUNE)


def sampling_rows(target: Callable[[], None]) -> Iterator[dict]:
    with pm.Model():
        target()
        runs = {
            name: [ess_per_second(make_step, draws, seed) for seed in range(ROUNDS)]
            for name, (make_step, draws) in METHODS.items()
        }
    for name, results in runs.items():
        ess, micros = (statistics.median(values) for values in zip(*results, strict=True))
        yield {"method": name, "µs a draw": f"{micros:.0f}", "worst ESS/s": f"{ess:,.0f}"}


def microseconds(compute: Callable[[np.ndarray], object], x: np.ndarray) -> float:
    compute(x)
    start = time.perf_counter()
    for _ in range(N_CALLS):
        compute(x)
    return 1e6 * (time.perf_counter() - start) / N_CALLS


def overhead_rows(dtype: torch.dtype) -> Iterator[dict]:
    """Value and gradient of the MLP: plain torch from a NumPy array and back, the same on a tensor, and the Op."""
    module = perceptron(dtype)
    with pm.Model() as model:
        pmn.Energy("x", module, shape=2)
    compiled = model.logp_dlogp_function(ravel_inputs=True)
    compiled.trust_input = True

    def plain(x: np.ndarray) -> tuple[float, np.ndarray]:
        points = torch.from_numpy(x).to(dtype)[None].requires_grad_()
        value = module(points)
        (gradient,) = torch.autograd.grad(value.sum(), points)
        return value.item(), gradient.numpy()

    leaf = torch.tensor([[0.3, 0.2]], dtype=dtype, requires_grad=True)

    def on_a_tensor(x: np.ndarray) -> None:
        torch.autograd.grad(module(leaf).sum(), leaf)

    def backward(x: np.ndarray) -> None:
        module.zero_grad()
        module(leaf).sum().backward()

    x = np.array([0.3, 0.2])
    candidates = {
        "plain torch, arrays in and out": plain,
        "plain torch, on a tensor": on_a_tensor,
        "plain torch, backward() through the weights too": backward,
        "Energy in PyMC": compiled._pytensor_function,
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(7):
        for name, compute in candidates.items():
            times[name].append(microseconds(compute, x))
    ours = times["Energy in PyMC"]
    for name, values in times.items():
        ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, values, strict=True))
        yield {"method": name, "µs a call": f"{statistics.median(values):.1f}", "Energy costs": f"{ratio:.2f} times"}


def print_table(title: str, rows: Iterator[dict]) -> None:
    print(f"\n### {title}\n", flush=True)
    for i, row in enumerate(rows):
        if i == 0:
            print("| " + " | ".join(row) + " |")
            print("|---" * len(row) + "|")
        print("| " + " | ".join(row.values()) + " |", flush=True)


def main() -> None:
    logging.getLogger("pymc").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    for dtype in (torch.float64, torch.float32):
        print_table(f"Value and gradient of an MLP 2-128-128-1, {dtype}", overhead_rows(dtype))
    for name, target in TARGETS.items():
        print_table(f"Sampling: {name}", sampling_rows(target))


if __name__ == "__main__":
    main()
