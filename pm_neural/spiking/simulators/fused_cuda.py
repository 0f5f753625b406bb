"""The fused simulator on CUDA devices: a whole run as one operation of autograd."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from pm_neural.spiking._inputs import InputSpikes
from pm_neural.spiking.simulators.lif_triton import differentiate_chains, run_chains
from pm_neural.spiking.simulators.norse import LIFRefracParameters, LIFRefracState, LIFState

_TILE = 4096  # weights that a program holds in registers at once


def run_fused_cuda(
    inputs: InputSpikes,
    state: LIFRefracState,
    input_weights: Tensor,
    recurrent_weights: Tensor,
    p: LIFRefracParameters,
    dt: float,
) -> tuple[Tensor, Tensor, Tensor, LIFRefracState]:
    """Do what `pm_neural.spiking.simulators.fused.run_fused` does, for tensors on a CUDA device."""
    lif = p.lif
    scalars = (dt * lif.tau_mem_inv, dt * lif.tau_syn_inv, lif.v_th, lif.v_reset, p.rho_reset)
    constants = torch.stack([*scalars, lif.v_leak.new_tensor(lif.alpha)])
    refractory, spikes, voltages, *end = _FusedRun.apply(
        _drive(inputs, input_weights), recurrent_weights, lif.v_leak, constants, state
    )
    z, v, i, rho = end
    return refractory, spikes, voltages, LIFRefracState(LIFState(z, v, i), rho)


def _drive(inputs: InputSpikes, input_weights: Tensor) -> Tensor:
    """Add up the weights of the inputs that spike, (n_steps, n_chains, n_neurons)."""
    offsets, sources = (torch.from_numpy(x).to(input_weights.device).long() for x in (inputs.offsets, inputs.sources))
    drive = functional.embedding_bag(
        sources, input_weights.T.contiguous(), offsets, mode="sum", include_last_offset=True
    )
    return drive.reshape(*inputs.shape[:2], len(input_weights))


def _launch(kernel: Any, *arrays: Tensor | None, shape: torch.Size) -> None:
    """Run a kernel on all chains; `shape` is (n_steps, n_chains, n_neurons)."""
    n_columns = triton.next_power_of_2(shape[2])
    n_rows = min(n_columns, max(1, _TILE // n_columns))
    # No contraction to fused multiply-adds, so that voltages are rounded as Norse's are.
    kernel[(shape[1],)](*arrays, *shape, n_columns, n_rows, enable_fp_fusion=False)


class _FusedRun(torch.autograd.Function):
    """Traces, and the state at the end, which carries no gradient."""

    @staticmethod
    def forward(
        ctx: Any, drive: Tensor, recurrent_weights: Tensor, leak: Tensor, constants: Tensor, state: LIFRefracState
    ) -> tuple[Tensor, ...]:
        n_steps, n_chains, n_neurons = shape = drive.shape
        refractory, potentials = (torch.empty_like(drive) for _ in range(2))
        spikes, voltages, counters = (drive.new_empty(n_steps + 1, n_chains, n_neurons) for _ in range(3))
        for trace, start in zip((spikes, voltages, counters), (state.lif.z, state.lif.v, state.rho), strict=True):
            trace[0] = start
        currents = state.lif.i.clone(memory_format=torch.contiguous_format)
        with torch.cuda.device_of(drive):
            _launch(
                run_chains,
                drive,
                recurrent_weights.T.contiguous(),
                leak,
                constants,
                currents,
                refractory,
                spikes,
                voltages,
                potentials,
                counters,
                shape=shape,
            )
        ctx.save_for_backward(recurrent_weights, constants, spikes, voltages, potentials, counters)
        ctx.set_materialize_grads(False)
        end = spikes[-1].clone(), voltages[-1].clone(), currents, counters[-1].clone()
        ctx.mark_non_differentiable(*end)
        return refractory, spikes[1:], voltages[1:], *end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        recurrent_weights, constants, spikes, voltages, potentials, counters = ctx.saved_tensors
        by_drive = torch.empty_like(potentials)
        with torch.cuda.device_of(by_drive):
            _launch(
                differentiate_chains,
                *(None if g is None else g.contiguous() for g in gradients[:3]),
                recurrent_weights.contiguous(),
                constants,
                voltages,
                potentials,
                counters,
                by_drive,
                shape=potentials.shape,
            )
        by_recurrent = by_drive.flatten(0, 1).T @ spikes[:-1].flatten(0, 1)
        return by_drive, by_recurrent, None, None, None
