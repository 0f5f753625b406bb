"""Spiking networks: what training reaches, the fused simulator against Norse, and sampling without training.

One thread; seconds are CPU time of the process, on a CUDA device those of the clock; compilation apart.

    python tests/benchmarks/bench_spiking_networks.py [training3] [training5] [speed] [speed_cuda] [lif]

All tables by default, that of CUDA where there is a device.
"""

import harness  # noqa: F401 # isort: skip

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_array

from pm_neural.spiking import LIFSampler, SamplingNetwork, joint_distribution
from pm_neural.spiking._law import divergence, smoothed
from pm_neural.spiking._learner import batch_divergences
from pm_neural.spiking.simulators.norse import LIFRefracRecurrentCell
from step_methods.kernels.spiking.network import prepare_spiking, run_spiking
from step_methods.kernels.vectors.random import seed_stream

SEEDS = range(10)
ROUNDS = 3
FRESH_BATCHES = 8


# --- training -------------------------------------------------------------------------------------


def score(network: SamplingNetwork, target: np.ndarray) -> tuple[float, float]:
    """KL of the law of a whole batch, and mean KL of single trials, over batches of fresh noise."""
    stream = seed_stream(np.random.default_rng(99))
    state = network.settled_state(32, stream)
    rows = []
    with torch.no_grad():
        for _ in range(FRESH_BATCHES):
            law, state = network.run_law(1000, 32, stream, state)
            rows.append(batch_divergences(torch.as_tensor(target), law, 1000))
    whole, trial = np.mean(rows, axis=0)
    return whole, trial


def training_table(n_readout: int) -> None:
    print(f"\ntraining, {n_readout} readout neurons, T = 1000, batch 32, fit's defaults, teacher's law from 10^6 steps")
    print(" seed  KL of batch  (teacher)  KL of trial  (teacher)  ratio  seconds")
    SamplingNetwork(n_readout=n_readout, random_seed=0).fit(
        np.full(2**n_readout, 2.0**-n_readout), epochs=2, progressbar=False
    )
    rows = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        teacher, network = (SamplingNetwork(n_readout=n_readout, random_seed=rng) for _ in range(2))
        start = time.process_time()
        history = network.fit(teacher, random_seed=rng, progressbar=False)
        seconds = time.process_time() - start
        kl, kl_trial = score(network, network._target_of(teacher))
        floor, floor_trial = history.attrs["teacher_kl"], history.attrs["teacher_kl_trial"]
        rows.append((kl, kl_trial / floor_trial))
        print(
            f"{seed:5d}  {kl:11.5f}  {floor:9.5f}  {kl_trial:11.4f}  {floor_trial:9.4f}  "
            f"{kl_trial / floor_trial:5.2f}  {seconds:7.1f}",
            flush=True,
        )
    kls, ratios = zip(*rows, strict=True)
    print(f"KL of batch <= 5e-3 in {sum(kl <= 5e-3 for kl in kls)} of {len(kls)}, largest {max(kls):.5f};", end=" ")
    print(f"trial within 1.2 times the teacher's in {sum(ratio <= 1.2 for ratio in ratios)} of {len(ratios)}")


# --- speed ----------------------------------------------------------------------------------------


def seconds_of(work: Callable[[], object], rounds: int, device: str) -> float:
    times = []
    for _ in range(rounds):
        start = now(device)
        work()
        times.append(now(device) - start)
    return statistics.median(times)


def now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def forward_backward(network: SamplingNetwork, inputs: object) -> Callable[[], object]:
    def work() -> None:
        law = joint_distribution(network(inputs).refractory[..., :3])
        torch.autograd.grad(law[:, 0].sum(), list(network.parameters()))

    return work


def norses_own(network: SamplingNetwork, inputs: torch.Tensor) -> Callable[[], object]:
    """Norse's cell as it comes, whose gradient is wrong, with the refractory states of the notes."""

    def work() -> None:
        weights = [w.detach().clone().requires_grad_() for w in network.parameters()]
        cell = LIFRefracRecurrentCell(
            network.n_inputs,
            network.n_neurons,
            network.neuron_parameters,
            input_weights=weights[0],
            recurrent_weights=weights[1],
            autapses=True,
        )
        state, total = network.initial_state(inputs.shape[1]), 0.0
        for x in inputs:
            _, state = cell(x, state)
            total = total + state.rho[:, :3].sum()
        torch.autograd.grad(total, weights)

    return work


def speed_table(device: str) -> None:
    where = "one thread" if device == "cpu" else torch.cuda.get_device_name()
    print(f"\nforward and backward, seconds, {where}; 256 inputs at 30 Hz, float32 unless said")
    print("    T  batch  neurons    fused    Norse   ratio")
    base = {"n_steps": 1000, "n_chains": 32, "n_neurons": 32, "dtype": torch.float32}
    changes = (
        {},
        {"dtype": torch.float64},
        {"n_steps": 250},
        {"n_steps": 4000},
        {"n_chains": 8},
        {"n_chains": 128},
        {"n_neurons": 8},
        {"n_neurons": 128},
    )
    for change in changes:
        setting = base | change
        sizes = {name: setting[name] for name in ("n_neurons", "dtype")}
        network = SamplingNetwork(**sizes, device=device, random_seed=0)
        inputs = network.draw_inputs(setting["n_steps"], setting["n_chains"], random_seed=0)
        dense = inputs.to_dense(dtype=setting["dtype"], device=device)
        fused = forward_backward(network, inputs)
        fused()  # compiles
        fast = seconds_of(fused, 3 * ROUNDS, device)
        network.engine = "norse"
        slow = seconds_of(forward_backward(network, dense), 1 if change else ROUNDS, device)
        note = "float64" if change.get("dtype") else ""
        row = f"{setting['n_steps']:5d}  {setting['n_chains']:5d}  {setting['n_neurons']:7d}"
        print(f"{row}  {fast:7.4f}  {slow:7.3f}  {slow / fast:6.1f}  {note}", flush=True)
        if not change:
            own = seconds_of(norses_own(network, dense), ROUNDS, device)
            print(f"{'Norse 1.1.0 as it comes':>22}  {fast:7.4f}  {own:7.3f}  {own / fast:6.1f}", flush=True)


# --- LIF sampling -----------------------------------------------------------------------------------


def sample_exactly(J, b, tau, n_draws, steps_per_draw, rng):
    """Draws of the kernel of `NeuralSampling`: neuron after neuron, with an absolute refractory period of tau steps."""
    network = prepare_spiking(csr_array(J), "sequential")
    stream = seed_stream(rng)
    counters, n_spikes = np.zeros(len(b), np.int64), np.zeros(len(b), np.int64)
    no_raster = np.empty(0, np.int32)
    draws = np.empty((n_draws, len(b)), np.int64)
    for draw in draws:
        run_spiking(network, counters, b, 1.0, tau, None, steps_per_draw, stream, n_spikes, no_raster, no_raster)
        draw[:] = counters >= 1
    return draws


def kl_of(draws: np.ndarray, law: np.ndarray) -> float:
    n = draws.shape[1]
    counts = np.bincount(draws @ (1 << np.arange(n)[::-1]), minlength=2**n)
    estimate = smoothed(torch.as_tensor(counts / len(draws)), len(draws))
    return float(divergence(torch.as_tensor(law), estimate))


def lif_table() -> None:
    print("\nKL(exact ‖ samples), tau = 10 ms, read every ms; median over 10 networks")
    print("  n   sd  duration/ms  LIF sampler  exact sampler  twice that + 1e-3")
    for n in (3, 5):
        for sd in (0.3, 0.6, 1.2):
            rows = {10_000: [], 100_000: []}
            for seed in SEEDS:
                rng = np.random.default_rng(seed)
                J = np.triu(rng.normal(0, sd, (n, n)), 1)
                sampler = LIFSampler.from_network((J + J.T, rng.normal(0, sd, n)))
                law = sampler.machine.law()
                ours = sampler.sample(1, 100_000, random_seed=seed)["posterior"].z[0].to_numpy()
                exact = sample_exactly(*sampler.machine, 100, 100_200, 10, rng)[200:]
                for duration, results in rows.items():
                    results.append([kl_of(draws[:duration], law) for draws in (ours, exact)])
            for duration, results in rows.items():
                lif, reference = np.median(results, axis=0)
                print(
                    f"{n:3d}  {sd:3.1f}  {duration:11d}  {lif:11.5f}  {reference:13.5f}  {2 * reference + 1e-3:17.5f}",
                    flush=True,
                )


TABLES: dict[str, Callable[[], None]] = {
    "training3": lambda: training_table(3),
    "training5": lambda: training_table(5),
    "speed": lambda: speed_table("cpu"),
    "speed_cuda": lambda: speed_table("cuda"),
    "lif": lif_table,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    here = [name for name in TABLES if name != "speed_cuda" or torch.cuda.is_available()]
    for name in sys.argv[1:] or here:
        TABLES[name]()
