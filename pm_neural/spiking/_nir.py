"""Spiking networks in the neuromorphic intermediate representation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nir
import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from pm_neural.spiking.simulators.norse import LIFRefracParameters


def build_graph(
    input_weights: Tensor,
    recurrent_weights: Tensor,
    p: LIFRefracParameters,
    *,
    dt: float,
    input_rate: float,
    n_readout: int,
) -> nir.NIRGraph:
    """Make the graph of a recurrent layer: input → neurons ⟲ → output.

    A spike is 1 for one step. It adds dt/τ_syn times the weight of the node's input to the current there, so that
    weight is τ_syn/dt, for the jumps by the synaptic weights that Norse has.
    """
    n_neurons, n_inputs = input_weights.shape
    tau_syn, tau_mem = 1 / float(p.lif.tau_syn_inv), 1 / float(p.lif.tau_mem_inv)
    every = np.ones(n_neurons)
    neurons = nir.CubaLIF(
        tau_syn=tau_syn * every,
        tau_mem=tau_mem * every,
        r=every,
        v_leak=_as_array(p.lif.v_leak),
        v_threshold=float(p.lif.v_th) * every,
        v_reset=float(p.lif.v_reset) * every,
        w_in=tau_syn / dt * every,
    )
    return nir.NIRGraph(
        nodes={
            "input": nir.Input({"input": np.array([n_inputs])}),
            "input_weights": nir.Linear(_as_array(input_weights)),
            "neurons": neurons,
            "recurrent_weights": nir.Linear(_as_array(recurrent_weights)),
            "output": nir.Output({"output": np.array([n_neurons])}),
        },
        edges=[
            ("input", "input_weights"),
            ("input_weights", "neurons"),
            ("neurons", "recurrent_weights"),
            ("recurrent_weights", "neurons"),
            ("neurons", "output"),
        ],
        metadata={
            "dt": dt,
            "refractory_time": dt * float(p.rho_reset),
            "input_rate": input_rate,
            "n_readout": n_readout,
        },
    )


def _as_array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy().astype(np.float64)
