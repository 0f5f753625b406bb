"""Lets the tests of the fused engine run on the kernels for CUDA devices where there is no such device."""

import os

import pytest


@pytest.fixture(autouse=True)
def kernels_for_cuda(monkeypatch):
    """With TRITON_INTERPRET=1 the fused engine is that of CUDA devices, run by Triton's interpreter on the CPU."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        return
    from pm_neural.spiking import network
    from pm_neural.spiking.simulators.fused_cuda import run_fused_cuda

    monkeypatch.setattr(network, "_fused_simulator", lambda device: run_fused_cuda)
