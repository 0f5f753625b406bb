"""NeuralSampling inside PyMC: neuron updates a second, accuracy after so many sweeps, CPU per effective draw.

One thread, compilation left out.
"""

from __future__ import annotations

import harness  # noqa: F401 # isort: skip

import argparse
import importlib.util
import logging
import time
import warnings

import arviz as az
import numpy as np
import pymc as pm
import pytensor

import pm_neural as pmn
from pm_neural.diagnostics import enumerate_states

SETTINGS = {"tune": 0, "chains": 1, "cores": 1, "progressbar": False, "compute_convergence_checks": False}


def random_network(n: int, scale: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw couplings N(0, scale) and biases N(0, 0.5)."""
    rng = np.random.default_rng(seed)
    J = np.triu(rng.normal(0, scale, (n, n)), 1)
    return J + J.T, rng.normal(0, 0.5, n)


def nest_updates_per_second(J: np.ndarray, b: np.ndarray, tau: int, n_steps: int) -> float:
    """Million neuron updates a second of NEST: Poisson neurons with a dead time of tau, all updated at once.

    A rectangular potential is made of two jumps, one as the neuron spikes and its opposite tau later. Since neurons
    hear of each other one step late, the law that is sampled is biased.
    """
    import nest

    nest.ResetKernel()
    nest.set_verbosity("M_ERROR")
    nest.set(resolution=1.0, local_num_threads=1, rng_seed=1)
    leak_free = {"tau_m": 1e12, "C_m": 1e12, "I_e": 0.0, "with_reset": False}
    escape = {"c_1": 0.0, "c_3": 1.0, "dead_time": float(tau), "dead_time_random": False}
    neurons = nest.Create("pp_psc_delta", b.size, leak_free | escape)
    neurons.c_2 = list(1e3 / tau * np.exp(b))
    source, target = np.nonzero(J)
    ids = np.array(neurons.tolist())
    for sign, delay in ((1.0, 1.0), (-1.0, 1.0 + tau)):
        synapse = {"weight": sign * J[source, target], "delay": np.full(source.size, delay)}
        nest.Connect(ids[source], ids[target], "one_to_one", syn_spec={"synapse_model": "static_synapse"} | synapse)
    nest.Simulate(100.0)
    start = time.process_time()
    nest.Simulate(float(n_steps))
    return b.size * n_steps / (time.process_time() - start) / 1e6


def brian2_updates_per_second(J: np.ndarray, b: np.ndarray, tau: int, n_steps: int) -> float:
    """Million neuron updates a second of Brian2, compiled by Cython: a network like NEST's, and biased like it."""
    import brian2 as b2

    b2.prefs.codegen.target = "cython"
    b2.seed(1)
    b2.defaultclock.dt = 1 * b2.ms
    neurons = b2.NeuronGroup(
        b.size,
        "u : 1\nbias : 1 (constant)",
        threshold="rand() < 1 / (1 + exp(log_tau - bias - u))",
        refractory=tau * b2.ms,
        namespace={"log_tau": float(np.log(tau))},
    )
    neurons.bias = b
    on_pre = {"on": "u_post += weight", "off": "u_post -= weight"}
    synapses = b2.Synapses(neurons, neurons, "weight : 1 (constant)", on_pre=on_pre, delay={"off": tau * b2.ms})
    source, target = np.nonzero(J)
    synapses.connect(i=source, j=target)
    synapses.weight = J[source, target]
    network = b2.Network(neurons, synapses)
    network.run(100 * b2.ms)
    start = time.process_time()
    network.run(n_steps * b2.ms)
    return b.size * n_steps / (time.process_time() - start) / 1e6


SIMULATORS = {"NEST": ("nest", nest_updates_per_second), "Brian2": ("brian2", brian2_updates_per_second)}


def updates_per_second() -> None:
    """Print million neuron updates a second inside ``pm.sample``, with a hundred steps a draw; and of simulators."""
    print("million neuron updates a second in pm.sample, dense, tau = 20, steps_per_draw = 100")
    for n, scale, n_draws in ((20, 0.5, 50_000), (1000, 0.5 / 1000**0.5, 2000)):
        J, b = random_network(n, scale, 1)
        for dtype in ("float32", "float64"):
            for mode, options in {
                "absolute": {"tau": 20, "steps_per_draw": 100},
                "continuous": {"time": "continuous", "steps_per_draw": 5.0},
            }.items():
                with pytensor.config.change_flags(floatX=dtype), pm.Model():
                    z = pmn.BoltzmannMachine("z", J.astype(dtype), b.astype(dtype))
                    step = pmn.NeuralSampling([z], **options)
                    pm.sample(5, step=step, **SETTINGS)
                    start = time.process_time()
                    pm.sample(n_draws, step=step, **SETTINGS)
                    seconds = time.process_time() - start
                print(f"  {n:>5} neurons  {dtype}  {mode:<10} {n * 100 * n_draws / seconds / 1e6:8.1f}")
        for name, (package, run) in SIMULATORS.items():
            if importlib.util.find_spec(package) is None:
                print(f"  {n:>5} neurons  {name}: not installed")
            else:
                print(f"  {n:>5} neurons  float64  {name:<10} {run(J, b, 20, 1_000_000 // n):8.2f}")


def accuracy() -> None:
    """Print the KL divergence to the exact law of 5 of 20 units, and CPU time per effective draw."""
    print("20 units, weights N(0, 0.5): KL to the exact law of 5 units after so many sweeps; CPU per effective draw")
    states = enumerate_states(20)
    for seed in (1, 2, 3):
        J, b = random_network(20, 0.5, seed)
        log_weight = states @ b + np.einsum("si,si->s", states @ np.triu(J, 1), states)
        weight = np.exp(log_weight - log_weight.max())
        exact = np.bincount(states[:, :5] @ (1 << np.arange(5)), weight, minlength=32) / weight.sum()
        for name, method, options, sweeps in (
            ("BlockGibbs", pmn.BlockGibbs, {}, 1),
            ("NeuralSampling(tau=1)", pmn.NeuralSampling, {"tau": 1}, 1),
            ("NeuralSampling(tau=20)", pmn.NeuralSampling, {"tau": 20}, 1),
            ("BlockGibbs, 5 sweeps", pmn.BlockGibbs, {"sweeps_per_draw": 5}, 5),
            ("NeuralSampling, 20 steps", pmn.NeuralSampling, {"tau": 20, "steps_per_draw": 20}, 20),
        ):
            with pm.Model():
                z = pmn.BoltzmannMachine("z", J, b)
                step = method([z], **options)
                pm.sample(5, step=step, **SETTINGS)
                start = time.process_time()
                idata = pm.sample(100_000 // sweeps, step=step, random_seed=seed, **SETTINGS)
                seconds = time.process_time() - start
            draws = idata.posterior["z"].values
            codes = draws[0, :, :5] @ (1 << np.arange(5))
            kl = []
            for n_sweeps in (1000, 10_000, 100_000):
                counts = np.bincount(codes[: n_sweeps // sweeps], minlength=32) / (n_sweeps // sweeps)
                visited = counts > 0
                kl.append(float((counts[visited] * np.log(counts[visited] / exact[visited])).sum()))
            ess = float(az.ess(az.convert_to_dataset({"z": draws.astype(float)}))["z"].min())
            print(
                f"  network {seed}  {name:<24} KL {kl[0]:.1e} {kl[1]:.1e} {kl[2]:.1e}   "
                f"{1e5 / ess:6.1f} sweeps and {1e6 * seconds / ess:7.2f} us per effective draw (worst unit)"
            )


def main() -> None:
    """Run the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["updates", "accuracy"], help="updates, accuracy")
    parts = parser.parse_args().parts
    warnings.filterwarnings("ignore")
    logging.getLogger("pymc").setLevel(logging.ERROR)
    for name, part in (("updates", updates_per_second), ("accuracy", accuracy)):
        if name in parts:
            part()


if __name__ == "__main__":
    main()
