"""Ising fields and Boltzmann machines inside pm.sample: speed, exactness, large fields, time to the first draw.

One core, no progress bar, one thread, float64. The exact energy of a torus is the derivative of Kaufman's log Z. A
sweep updates all units once; a draw is one sweep unless said otherwise.
"""

from harness import print_table, time_in_turn  # isort: skip

import functools
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import arviz as az
import numpy as np
import pymc as pm
import pytensor
import scipy.sparse
import xarray as xr
from bench_pairwise import dense_network, ours, random_graph
from pymc.backends.ndarray import NDArray

import pm_neural as pmn
from pm_neural.distributions.normalizers.kaufman import kaufman_log_partition
from step_methods.gibbs.pairwise import PairwiseSampler
from step_methods.reading.evidence import Evidence

SIDE = 64
QUIET: dict[str, Any] = {"cores": 1, "random_seed": 1, "progressbar": False, "compute_convergence_checks": False}


def exact_energy(beta: float, side: int = SIDE) -> float:
    """Energy per site of the torus, without the factor beta."""
    return -kaufman_log_partition(side, side, beta)[1] / side**2


def deviation(idata: xr.DataTree, beta: float) -> str:
    """How far the mean energy lies from the exact one, in Monte Carlo standard errors."""
    energy = (idata["sample_stats"]["network_energy"] / (beta * SIDE**2)).to_dataset(name="energy")
    error = float(az.mcse(energy)["energy"])
    return f"{(float(energy['energy'].mean()) - exact_energy(beta)) / error:+.2f}"


def seconds(idata: xr.DataTree) -> float:
    """Time that pm.sample took for tuning and drawing, without compilation."""
    return idata["sample_stats"].attrs["sampling_time"]


# --- small fields --------------------------------------------------------------------------------------------------


def torus_rows(beta: float = 0.4) -> Iterator[dict]:
    """Site updates per second inside pm.sample (P3)."""
    torus = pmn.lattice((SIDE, SIDE), periodic=True)
    metropolis = 0.0
    with pm.Model():
        # The same law for bits: a bond of spins is four of bits, less a field.
        z = pmn.BoltzmannMachine("z", 4 * torus, -8 * beta, coupling=beta)
        tune, draws = 5, 25
        idata = pm.sample(draws, tune=tune, chains=1, step=pm.BinaryGibbsMetropolis([z]), **QUIET)
        metropolis = SIDE**2 * (tune + draws) / seconds(idata)
    yield {"method": "pm.BinaryGibbsMetropolis, in bits", "million updates/s": f"{metropolis / 1e6:.4f}"}
    with pm.Model():
        pmn.Ising("s", torus, coupling=beta)
        for sweeps in (1, 10, 100):
            tune, draws = 500, 5000
            idata = pm.sample(draws, tune=tune, chains=1, block_gibbs={"sweeps_per_draw": sweeps}, **QUIET)
            updates = SIDE**2 * sweeps * (tune + draws) / seconds(idata)
            yield {
                "method": f"BlockGibbs, {sweeps} sweeps a draw",
                "µs a draw": f"{1e6 * seconds(idata) / (tune + draws):.1f}",
                "million updates/s": f"{updates / 1e6:.4g}",
                "ratio": f"{updates / metropolis:,.0f}",
                "(energy − exact)/MCSE": deviation(idata, beta),
            }


def dense_rows() -> Iterator[dict]:
    """Effective draws per second, of the slowest unit, of full Boltzmann machines (P4), weak and strong couplings."""
    J, h = dense_network(20)
    # The stronger the couplings, the longer the peers must run until their ESS can be told.
    for strength, n_peer in ((1.0, 10_000), (2.0, 50_000), (3.0, 100_000)):
        methods: list[tuple[str, str, type, int, dict]] = [
            ("pm.BinaryGibbsMetropolis", "float64", pm.BinaryGibbsMetropolis, n_peer, {}),
            ("pm.BinaryMetropolis", "float64", pm.BinaryMetropolis, n_peer, {}),
        ]
        methods += [
            (f"BlockGibbs, {sweeps} sweeps a draw", floatX, pmn.BlockGibbs, 10_000, {"sweeps_per_draw": sweeps})
            for floatX in ("float64", "float32")
            for sweeps in (1, 10, 30, 100, 300, 1000)
        ]
        reference = None
        for name, floatX, step_method, draws, options in methods:
            with pytensor.config.change_flags(floatX=floatX), pm.Model():
                bias = (2 * h - 2 * strength * J.sum(axis=1)).astype(floatX)
                z = pmn.BoltzmannMachine("z", (4 * J).astype(floatX), bias, coupling=strength)
                idata = pm.sample(draws, tune=200, chains=1, step=step_method([z], **options), **QUIET)
            per_draw = seconds(idata) / (draws + 200)
            slowest = float(az.ess(idata["posterior"].to_dataset(), method="mean")["z"].min())
            rate = slowest / (draws * per_draw)
            reference = reference or rate
            yield {
                "couplings": f"N(0, {strength:.0f}/√20)",
                "method": name,
                "floats": floatX,
                "µs a draw": f"{1e6 * per_draw:.1f}",
                "ESS a draw": f"{slowest / draws:.4f}",
                "ESS/s": f"{rate:,.0f}",
                "ratio": f"{rate / reference:,.1f}",
            }


def energy_rows() -> Iterator[dict]:
    """Four chains of 400,000 sweeps at each temperature, in order at the start where the torus is ordered."""
    torus = pmn.lattice((SIDE, SIDE), periodic=True)
    with pm.Model():
        beta = pm.Data("beta", 1.0)
        pmn.Ising("s", torus, coupling=beta)
        for value in (0.3, 0.44, 0.6):
            pm.set_data({"beta": value})
            start = {"s": np.ones(torus.shape, int)} if value >= 0.44 else None
            options = {"chains": 4, "initvals": start, "block_gibbs": {"sweeps_per_draw": 400}}
            idata = pm.sample(1000, tune=100, **options, **QUIET)
            energy = (idata["sample_stats"]["network_energy"] / (value * SIDE**2)).to_dataset(name="energy")
            yield {
                "beta": value,
                "energy a site": f"{float(energy['energy'].mean()):.6f}",
                "MCSE": f"{float(az.mcse(energy)['energy']):.1e}",
                "exact": f"{exact_energy(value):.6f}",
                "(energy − exact)/MCSE": deviation(idata, value),
                "R-hat": f"{float(az.rhat(energy)['energy']):.4f}",
                "seconds": f"{seconds(idata):.1f}",
            }


# --- large fields --------------------------------------------------------------------------------------------------

N_LARGE = 100_000
CLOCKS = {
    "NUTS": (pm.NUTS, "step"),
    "evidence": (Evidence, "logits"),
    "sweep, energy": (PairwiseSampler, "draw"),
    "BlockGibbs": (pmn.BlockGibbs, "step"),
    "recording": (NDArray, "record"),
}


def start_clocks() -> Counter:
    """Measure from now on how long the parts of a draw take in total."""
    spent: Counter = Counter()

    def clocked(name, method):
        @functools.wraps(method)
        def run(*args, **kwargs):
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - start

        return run

    for name, (owner, method) in CLOCKS.items():
        setattr(owner, method, clocked(name, getattr(owner, method)))
    return spent


def sample_large_field(problem: str, draws: int = 300, tune: int = 300) -> dict:
    """Sample a field of 100,000 sites that is observed with noise, and the mean and scale of the observations."""
    J: Any = pmn.lattice((400, 250))
    if problem == "graph":
        rng = np.random.default_rng(0)
        i, j = rng.integers(0, N_LARGE, (2, 2 * N_LARGE))
        half = scipy.sparse.coo_array((np.ones((i != j).sum()), (i[i != j], j[i != j])), shape=(N_LARGE, N_LARGE))
        J = scipy.sparse.csr_array(half + half.T)
    truth = pm.draw(pmn.Ising.dist(J, coupling=0.3, normalize=None, n_sweeps=50), random_seed=1)
    observed = np.random.default_rng(1).normal(0.7 * truth, 0.8)
    before = peak_memory()
    with pm.Model():
        mu, sigma = pm.HalfNormal("mu", 2), pm.HalfNormal("sigma", 2)
        s = pmn.Ising("s", J, coupling=0.3)
        pm.Normal("y", mu * s, sigma, observed=observed)
        spent = start_clocks()
        start = time.perf_counter()
        # The first draw loads compiled code.
        idata = pm.sample(
            draws, tune=tune, chains=1, callback=lambda trace, draw: len(trace) == 1 and spent.clear(), **QUIET
        )
        elapsed = time.perf_counter() - start
    n = draws + tune
    spent["BlockGibbs"] -= spent["evidence"] + spent["sweep, energy"]
    posterior = idata["posterior"]
    wrong = float((np.sign(posterior["s"].mean(("chain", "draw"))) != truth).mean())
    return {
        "field": {"graph": "random graph, degree 4", "lattice": "lattice 400x250"}[problem],
        "ms a draw": f"{1e3 * seconds(idata) / n:.1f}",
        **{f"{name} (ms)": f"{1e3 * spent[name] / n:.2f}" for name in CLOCKS},
        "start (s)": f"{elapsed - seconds(idata):.1f}",
        "memory (MB)": f"{peak_memory() - before:.0f}",
        "of which draws": f"{8 * N_LARGE * n / 2**20:.0f}",
        "mu, sigma": f"{float(posterior['mu'].mean()):.3f}, {float(posterior['sigma'].mean()):.3f}",
        "wrong": f"{wrong:.1%}",
    }


def peak_memory() -> float:
    """Largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def large_rows() -> Iterator[dict]:
    """Each field in a process of its own, so that its memory is seen."""
    for problem in ("lattice", "graph"):
        yield in_a_process(f"sample_large_field({problem!r})")


def coupling_rows() -> Iterator[dict]:
    """A sweep of the kernel on random graphs of degree 4."""
    sizes = (10**4, 10**5, 10**6)
    times = [time_in_turn([("", ours(*random_graph(n // 2, n), np.float64))])[0] for n in sizes]
    for n, spent in zip(sizes, times, strict=True):
        assert spent is not None
        yield {"couplings": f"{n:,}", "µs a sweep": f"{1e6 * spent:.0f}", "ns a coupling": f"{1e9 * spent / n:.2f}"}


# --- denoising -----------------------------------------------------------------------------------------------------


def denoising_model() -> tuple[pm.Model, np.ndarray, np.ndarray]:
    """Return the model of the case study plot_ising_denoising, its data, and the picture that they are made of."""
    from sklearn.datasets import load_sample_image

    photograph = load_sample_image("china.jpg").mean(axis=2)[:426, :636]
    coarse = photograph.reshape(71, 6, 106, 6).mean(axis=(1, 3))
    picture = (coarse > np.median(coarse))[1:65, 6:70].astype(int)
    noisy = np.where(np.random.default_rng(1).random(picture.shape) < 0.15, 1 - picture, picture)
    with pm.Model() as model:
        flip, beta = pm.Beta("flip", 2, 8), pm.HalfNormal("beta", 1)
        s = pmn.Ising("s", pmn.lattice(picture.shape, periodic=True), coupling=beta, normalize="exact")
        pm.Bernoulli("y", p=pm.math.switch(s > 0, 1 - flip, flip), observed=noisy)
    return model, noisy, picture


def denoising_rows() -> Iterator[dict]:
    """A bare pm.sample() but for the number of sweeps; two chains of each of four seeds."""
    model, noisy, picture = denoising_model()
    for sweeps in (1, 10):
        for seed in range(1, 5):
            options = QUIET | {"random_seed": seed, "block_gibbs": {"sweeps_per_draw": sweeps}}
            with model:
                idata = pm.sample(1000, tune=500, chains=2, **options)
            posterior = idata["posterior"]
            parameters = posterior.to_dataset()[["flip", "beta"]]
            ess, rhat = az.ess(parameters), az.rhat(parameters)
            wrong = [
                f"{((posterior['s'].sel(chain=chain).mean('draw') > 0) != picture).to_numpy().mean():.1%}"
                for chain in (0, 1)
            ]
            yield {
                "sweeps": sweeps,
                "seed": seed,
                "wrong before": f"{(noisy != picture).mean():.1%}",
                "after, by chain": ", ".join(wrong),
                **{
                    name: f"{float(parameters[name].mean()):.4f} ± {float(parameters[name].std()):.4f}"
                    for name in ("flip", "beta")
                },
                "ESS": f"{float(ess['flip']):.0f}, {float(ess['beta']):.0f}",
                "R-hat": f"{float(rhat['flip']):.3f}, {float(rhat['beta']):.3f}",
                "s": f"{seconds(idata):.1f}",
            }


def first_draw() -> dict:
    """Seconds of the stages from an empty model to the first draw of a bare pm.sample()."""
    start = time.perf_counter()
    model = denoising_model()[0]
    declared = time.perf_counter()
    with model:
        model.initial_point()
        points = time.perf_counter()
        pmn.BlockGibbs([model["s"]])
        field = time.perf_counter()
        pm.sample(1, tune=0, chains=1, **QUIET)
    end = time.perf_counter()
    return {
        "declare": declared - start,
        "start values": points - declared,
        "BlockGibbs": field - points,
        "rest of pm.sample": end - field,
        "all": end - start,
    }


def first_draw_rows(repetitions: int = 3) -> Iterator[dict]:
    """In fresh processes, with nothing compiled on disk and then with what the first one left there; imports apart."""
    with tempfile.TemporaryDirectory() as cache:
        env = {"NUMBA_CACHE_DIR": f"{cache}/numba", "PYTENSOR_FLAGS": f"base_compiledir={cache}/pytensor"}
        runs = [in_a_process("first_draw()", env) for _ in range(1 + repetitions)]
    for name, group in (("nothing", runs[:1]), ("compiled code", runs[1:])):
        medians = {stage: statistics.median(run[stage] for run in group) for stage in runs[0]}
        yield {"on disk": name} | {f"{stage} (s)": f"{value:.2f}" for stage, value in medians.items()}


def in_a_process(call: str, env: dict[str, str] | None = None) -> dict:
    """Evaluate a function of this file in a fresh process."""
    code = (
        "import json, logging, bench_fields; logging.getLogger('pymc').setLevel(logging.ERROR); "
        f"print(json.dumps(bench_fields.{call}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env=os.environ | (env or {}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(result.stdout.strip().splitlines()[-1])


TABLES = {
    "torus": (f"P3, torus {SIDE}x{SIDE}, beta 0.4, in pm.sample", torus_rows),
    "dense": ("P4, full Boltzmann machine of 20 units, in pm.sample", dense_rows),
    "energy": (f"Energy of the torus {SIDE}x{SIDE}", energy_rows),
    "large": (f"A field of {N_LARGE:,} sites with Normal observations and two hyperparameters", large_rows),
    "couplings": ("Cost of a sweep against the number of couplings", coupling_rows),
    "denoising": ("Denoising a picture of 64x64 pixels", denoising_rows),
    "first": ("Time to the first draw of the denoising model", first_draw_rows),
}


def main(names: list[str]) -> None:
    """Print the tables named, all if none is."""
    logging.getLogger("pymc").setLevel(logging.ERROR)
    for name in names or TABLES:
        title, rows = TABLES[name]
        print_table(title, list(rows()))


if __name__ == "__main__":
    main(sys.argv[1:])
