"""The fused simulator: a whole run as one operation of autograd, on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pm_neural.spiking._inputs import InputSpikes
from pm_neural.spiking.simulators.norse import LIFRefracParameters, LIFRefracState, LIFState
from step_methods.kernels.lif.gradient import Adjoint, Events, Neurons, Record, State, differentiate_lif, lanes, run_lif


def run_fused(
    inputs: InputSpikes,
    state: LIFRefracState,
    input_weights: Tensor,
    recurrent_weights: Tensor,
    p: LIFRefracParameters,
    dt: float,
) -> tuple[Tensor, Tensor, Tensor, LIFRefracState]:
    """Do what stepping `refractory_step` through the inputs does.

    Arguments and results are those of `run_cell`, but the last state carries no gradient.
    """
    n_neurons = len(recurrent_weights)
    end = State(*(_padded(x).copy() for x in (state.lif.z, state.lif.v, state.lif.i, state.rho)))
    refractory, spikes, voltages = _FusedRun.apply(
        input_weights, recurrent_weights, inputs, _neurons(p, dt, n_neurons), end
    )
    z, v, i, rho = (torch.from_numpy(x)[:, :n_neurons] for x in end)
    return refractory, spikes, voltages, LIFRefracState(LIFState(z, v, i), rho)


def _padded(x: Tensor) -> np.ndarray:
    """Add zeros to the last axis, as the kernels want it."""
    values = np.ascontiguousarray(x.detach().numpy())
    n = values.shape[-1]
    n_columns = n + -n % lanes(values.dtype)
    if n == n_columns:
        return values
    out = np.zeros((*values.shape[:-1], n_columns), dtype=values.dtype)
    out[..., :n] = values
    return out


def _neurons(p: LIFRefracParameters, dt: float, n_neurons: int) -> Neurons:
    leak = _padded(p.lif.v_leak.expand(n_neurons))
    scalars = (
        dt * p.lif.tau_mem_inv,
        dt * p.lif.tau_syn_inv,
        p.lif.v_th,
        p.lif.v_reset,
        p.rho_reset,
        p.lif.alpha,
    )
    return Neurons(leak, *(leak.dtype.type(scalar) for scalar in scalars))


class _FusedRun(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input_weights: Tensor,
        recurrent_weights: Tensor,
        inputs: InputSpikes,
        neurons: Neurons,
        state: State,
    ) -> tuple[Tensor, ...]:
        start = State(*(x.copy() for x in state))
        n_neurons = len(recurrent_weights)
        n_steps, n_chains, _ = inputs.shape
        n_columns = state.voltages.shape[1]
        dtype = state.voltages.dtype
        record = Record(*(np.empty((n_steps, n_chains, n_columns), dtype=dtype) for _ in Record._fields))
        n_rows = (n_steps + 1) * n_chains
        spikes = Events(np.empty(n_rows + 1, dtype=np.int64), np.empty(n_rows * n_neurons, dtype=np.int32))
        run_lif(
            Events(inputs.offsets, inputs.sources),
            _padded(input_weights.T),
            _padded(recurrent_weights.T),
            neurons,
            state,
            record,
            spikes,
        )
        ctx.save_for_backward(recurrent_weights)
        ctx.run = inputs, neurons, start, record, spikes
        ctx.set_materialize_grads(False)
        return tuple(torch.from_numpy(x)[..., :n_neurons] for x in record[:3])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, Tensor, None, None, None]:
        (recurrent_weights,) = ctx.saved_tensors
        inputs, neurons, start, record, spikes = ctx.run
        dtype = record.spikes.dtype
        n_neurons, n_columns = len(recurrent_weights), record.spikes.shape[2]
        none = np.empty((0, 0, 0), dtype=dtype)
        by_input = np.zeros((inputs.shape[2], n_columns), dtype=dtype)
        by_recurrent = np.zeros((n_neurons, n_columns), dtype=dtype)
        differentiate_lif(
            Events(inputs.offsets, inputs.sources),
            spikes,
            _padded(recurrent_weights),
            neurons,
            start,
            record,
            tuple(none if g is None else _padded(g) for g in gradients),
            Adjoint(*(np.zeros_like(start.voltages) for _ in Adjoint._fields)),
            np.empty(n_columns, dtype=dtype),
            by_input,
            by_recurrent,
        )
        to_input, to_recurrent = (torch.from_numpy(g[:, :n_neurons].T) for g in (by_input, by_recurrent))
        return to_input, to_recurrent, None, None, None
