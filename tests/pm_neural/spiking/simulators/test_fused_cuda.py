"""The fused simulator on CUDA devices.

Where there is none, its kernels run in Triton's interpreter, and are compiled for two generations of devices. Tests
marked gpu run what was compiled.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pm_neural.spiking import SamplingNetwork
from pm_neural.spiking.network import _fused_simulator

pytest.importorskip("triton", reason="Triton comes with torch on Linux only")

from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from pm_neural.spiking.simulators import fused_cuda

KERNELS = ("run_chains", "differentiate_chains")


@pytest.mark.parametrize(
    "selection",
    [
        "each_trace or gradients[1-",
        pytest.param("gradients[200- or go_on or time_and_keeps or autapses or overflow", marks=pytest.mark.slow),
    ],
    ids=["some", "more"],
)
def test_kernels_pass_the_tests_of_the_engine(selection):
    """Those of `test_network.py`, Norse's spikes and gradients above all, in a process whose kernels are interpreted.

    Triton has to be told so before it is imported. NumPy, of which the interpreter is made, warns of infinities.
    """
    options = ["-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-k", selection, "../test_network.py"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "passed" in result.stdout


class Compiled:
    """A kernel whose launches end with its compilation, and leave the machine code behind."""

    def __init__(self, kernel):
        self._kernel = kernel
        self.code = []

    def __getitem__(self, grid):
        return lambda *args, **options: self.code.append(self._kernel.warmup(*args, grid=grid, **options).asm)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("n_neurons", [1, 32, 130])
def test_launches_compile_for_devices(monkeypatch, tmp_path, capability, dtype, n_neurons):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    target = GPUTarget("cuda", capability, 32)
    device = SimpleNamespace(
        get_current_device=lambda: capability, get_current_stream=lambda device: 0, get_current_target=lambda: target
    )
    monkeypatch.setattr(driver, "_active", device)
    kernels = [Compiled(getattr(fused_cuda, name)) for name in KERNELS]
    for name, kernel in zip(KERNELS, kernels, strict=True):
        monkeypatch.setattr(fused_cuda, name, kernel)
    monkeypatch.setattr("pm_neural.spiking.network._fused_simulator", lambda device: fused_cuda.run_fused_cuda)
    monkeypatch.setattr("pm_neural.spiking.network._check_finite", lambda state: None)  # nothing was computed
    network = SamplingNetwork(n_neurons=n_neurons, n_inputs=8, n_readout=1, dtype=dtype, random_seed=1)
    for n_steps, n_chains in ((1, 1), (16, 3)):
        traces = network(network.draw_inputs(n_steps, n_chains, random_seed=1))
        traces.refractory.sum().backward()
    for kernel in kernels:
        assert len(kernel.code) == 2
        for code in kernel.code:
            assert len(code["cubin"]) > 0
            assert "bar.sync" in code["ptx"]  # what neurons send is written by some threads and read by others


def test_where_the_fused_engine_runs(monkeypatch):
    assert _fused_simulator(torch.device("cuda", 1)) is fused_cuda.run_fused_cuda
    with pytest.raises(ValueError, match=r"runs on the CPU and on CUDA; got device meta: use engine='norse' there"):
        _fused_simulator(torch.device("meta"))
    monkeypatch.delitem(sys.modules, "pm_neural.spiking.simulators.fused_cuda")
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ImportError, match=r"needs Triton on CUDA devices.*use engine='norse'"):
        _fused_simulator(torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("n_neurons", [3, 37, 130])
def test_devices_and_the_cpu_give_the_same_spikes_and_gradients(n_neurons):
    runs = []
    for device in ("cuda", "cpu"):
        network = SamplingNetwork(n_neurons, 40, input_rate=150.0, dtype=torch.float64, device=device, random_seed=1)
        inputs = network.draw_inputs(200, 3, random_seed=2)
        slope = torch.tensor(np.random.default_rng(3).normal(size=(200, 3, n_neurons)), device=device)
        traces = network(inputs)
        (slope * (traces.refractory + traces.voltages)).sum().backward()
        gradients = [p.grad for p in network.parameters()]
        runs.append([x.detach().cpu() for x in (*traces[:3], *traces.state.lif, traces.state.rho, *gradients)])
    for ours, theirs in zip(*runs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.gpu
def test_training_on_a_device():
    network = SamplingNetwork(n_neurons=8, n_inputs=64, n_readout=1, input_rate=120.0, device="cuda", random_seed=1)
    history = network.fit([0.3, 0.7], epochs=100, n_steps=500, n_chains=32, random_seed=1, progressbar=False)
    assert float(history["kl"][-1]) < 0.01 < float(history["kl"][0])
    samples = network.sample(8, 200, target=[0.3, 0.7], random_seed=2)
    assert samples["posterior"].z.shape == (8, 200, 1)
