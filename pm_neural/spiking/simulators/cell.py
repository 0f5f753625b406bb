"""The reference simulator: Norse's cell, stepped in Python."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pm_neural.spiking.simulators.norse import LIFRefracParameters, LIFRefracRecurrentCell, LIFRefracState, LIFState
from pm_neural.spiking.simulators.surrogate import surrogate_step


def refractory_step(
    inputs: Tensor,
    state: LIFRefracState,
    input_weights: Tensor,
    recurrent_weights: Tensor,
    p: LIFRefracParameters,
    dt: float,
) -> tuple[Tensor, LIFRefracState]:
    """Take the step of `norse.torch.lif_refrac_step`, with a surrogate derivative that honors its sharpness.

    Made to be the ``activation`` of a Norse cell.

    Parameters
    ----------
    inputs : Tensor, (n_chains, n_inputs)
        Spikes.
    state : LIFRefracState
        Of tensors (n_chains, n_neurons).
    input_weights, recurrent_weights : Tensor, (n_neurons, n_inputs) and (n_neurons, n_neurons)
    p : LIFRefracParameters
    dt : float
        Seconds.
    """
    lif = p.lif
    j = state.lif.i + functional.linear(inputs, input_weights) + functional.linear(state.lif.z, recurrent_weights)
    u = state.lif.v + dt * lif.tau_mem_inv * ((lif.v_leak - state.lif.v) + j)
    current = j - dt * lif.tau_syn_inv * j
    fires = surrogate_step(u - lif.v_th, lif.alpha)
    clamped = (1 - fires.detach()) * u + fires.detach() * lif.v_reset
    held = surrogate_step(state.rho, lif.alpha)
    v = (1 - held) * clamped + held * state.lif.v
    z = (1 - held) * fires
    rho = (1 - z) * functional.relu(state.rho - held) + z * p.rho_reset
    return z, LIFRefracState(LIFState(z, v, current), rho)


def run_cell(
    cell: LIFRefracRecurrentCell, inputs: Tensor, state: LIFRefracState
) -> tuple[Tensor, Tensor, Tensor, LIFRefracState]:
    """Step a cell through the inputs.

    Returns
    -------
    refractory, spikes, voltages : Tensor, (n_steps, n_chains, n_neurons)
    state : LIFRefracState
        The last one.
    """
    refractory, spikes, voltages = [], [], []
    for x in inputs:
        z, state = cell(x, state)
        refractory.append(surrogate_step(state.rho, cell.p.lif.alpha))
        spikes.append(z)
        voltages.append(state.lif.v)
    return torch.stack(refractory), torch.stack(spikes), torch.stack(voltages), state
