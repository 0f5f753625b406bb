"""The kernels of spiking networks against a plain numba kernel and NumPy: one chain, one thread.

CPU time, compilation apart, methods of a problem in turn for several rounds, medians. A neuron update is one neuron in
one step of discrete time; continuous time counts 20 of them for each refractory period and neuron. Couplings are dense,
N(0, 0.3 sqrt(40 / n)) but at most N(0, 0.3), and biases N(-1.5, 0.5): the fields have the spread of the 40-neuron
network of Buesing et al. (2011), whatever the size.

Simulators of spiking networks are no peers here, since they update all neurons at once, which is biased;
``bench_neural.py`` times NEST all the same.
"""

from harness import time_in_turn  # isort: skip

from collections.abc import Callable

import numpy as np
import scipy.sparse
from numba import njit

from step_methods.kernels.spiking.network import prepare_spiking, run_continuous, run_spiking
from step_methods.kernels.vectors.random import seed_stream

SIZES = (20, 1000)
TAU = 20
NOT_RECORDED = np.empty(0, np.int32), np.empty(0, np.int32)

type Run = Callable[[int], object]


def network(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    J = np.triu(rng.normal(0, 0.3 * min(1, np.sqrt(40 / n)), (n, n)), 1)
    return J + J.T, rng.normal(-1.5, 0.5, n)


# --- methods: each is a function that runs a number of steps ----------------------------------------------------------


def ours(J: np.ndarray, bias: np.ndarray, dtype: type, order: str = "sequential", g: np.ndarray | None = None) -> Run:
    prepared = prepare_spiking(scipy.sparse.csr_array(J.astype(dtype)), order)
    bias = bias.astype(dtype)
    zeta, counts = np.zeros((2, bias.size), np.int64)
    stream = seed_stream(np.random.default_rng(1))
    g = None if g is None else g.astype(dtype)
    return lambda n_steps: run_spiking(prepared, zeta, bias, 1.0, TAU, g, n_steps, stream, counts, *NOT_RECORDED)


def ours_continuous(J: np.ndarray, bias: np.ndarray, dtype: type) -> Run:
    prepared = prepare_spiking(scipy.sparse.csr_array(J.astype(dtype)), "sequential")
    bias = bias.astype(dtype)
    residual, counts = np.zeros(bias.size), np.zeros(bias.size, np.int64)
    stream = seed_stream(np.random.default_rng(1))
    no_times = np.empty(0)
    return lambda n_steps: run_continuous(
        prepared, residual, bias, 1.0, n_steps / TAU, stream, counts, NOT_RECORDED[0], no_times
    )


@njit(error_model="numpy")
def _plain_steps(J, fields, zeta, tau, n_steps, rng):
    for _ in range(n_steps):
        for k in range(zeta.size):
            if zeta[k] > 1:
                zeta[k] -= 1
            elif rng.random() * (1.0 + tau * np.exp(-fields[k])) < 1.0:
                if zeta[k] == 0:
                    fields += J[k]
                zeta[k] = tau
            elif zeta[k] == 1:
                zeta[k] = 0
                fields -= J[k]


def plain_numba(J: np.ndarray, bias: np.ndarray, dtype: type) -> Run:
    """Event-driven too: what one writes first."""
    J, fields, zeta = J.astype(dtype), bias.astype(dtype), np.zeros(bias.size, np.int64)
    rng = np.random.default_rng(1)
    return lambda n_steps: _plain_steps(J, fields, zeta, TAU, n_steps, rng)


def numpy_one_by_one(J: np.ndarray, bias: np.ndarray) -> Run:
    rng = np.random.default_rng(1)
    fields, zeta = bias.copy(), np.zeros(bias.size, np.int64)

    def run(n_steps: int) -> None:
        for _ in range(n_steps):
            limits = np.log(TAU) - np.log(1 / rng.random(bias.size) - 1)
            for k in range(bias.size):
                if zeta[k] > 1:
                    zeta[k] -= 1
                    continue
                fires = limits[k] < fields[k]
                if fires != (zeta[k] == 1):
                    np.add(fields, J[k] if fires else -J[k], out=fields)
                zeta[k] = TAU if fires else 0

    return run


def methods(n: int) -> list[tuple[str, Run]]:
    J, bias = network(n)
    linear = np.concatenate([[1.0], np.linspace(1, 0, TAU)])
    f32, f64 = np.float32, np.float64
    return [
        ("ours, float32", ours(J, bias, f32)),
        ("ours, float64", ours(J, bias, f64)),
        ("ours, random order, float32", ours(J, bias, f32, "random")),
        ("ours, random order, float64", ours(J, bias, f64, "random")),
        ("ours, relative period, float32", ours(J, bias, f32, g=linear)),
        ("ours, relative period, float64", ours(J, bias, f64, g=linear)),
        ("ours, continuous time, float32", ours_continuous(J, bias, f32)),
        ("ours, continuous time, float64", ours_continuous(J, bias, f64)),
        ("plain numba, float32", plain_numba(J, bias, f32)),
        ("plain numba, float64", plain_numba(J, bias, f64)),
        ("NumPy", numpy_one_by_one(J, bias)),
    ]


# --- measurement ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Print the table."""
    for n in SIZES:
        named = methods(n)
        rates = {name: n / seconds / 1e6 for (name, _), seconds in zip(named, time_in_turn(named, TAU), strict=True)}
        print(f"\n{n} neurons, dense, tau = {TAU}: million neuron updates a second")
        for name, rate in rates.items():
            print(f"  {name:<32}{rate:>8.2f}{rate / rates['plain numba, float64']:>8.2f} x plain numba, float64")


if __name__ == "__main__":
    main()
