"""Noisy leaky integrate-and-fire neurons that sample from a Boltzmann machine, approximately.

In steps of `dt`, of every neuron k with membrane voltage u, noise current x and synaptic current y::

    x_k ← e^(−dt/τ_noise) x_k + w_noise (number of excitatory less number of inhibitory Poisson spikes)
    y_k ← e^(−dt/τ_syn) y_k
    u_k ← u_k + (1 − e^(−dt/τ_mem)) (leak_k + x_k + y_k − u_k)   unless refractory
    u_k > 0:  neuron k fires; u_k is held at 0 for the refractory time, and y_i ← y_i + w_ik (1 − s_k), s_k ← 1

The trace s_k of the synapses from k decays as y does, and a spike lifts it to 1 whatever it was: post-synaptic
potentials are renewed, and do not add up.
"""

from typing import Any, NamedTuple

from step_methods.kernels.vectors.jit import kernel
from step_methods.kernels.vectors.random import fraction

# mypy: disable-error-code="no-untyped-def"


class NoisyNeurons(NamedTuple):
    """Constants of the neurons, in float64."""

    leak: Any
    """(n_neurons,) voltages at which they rest, relative to the threshold."""
    weights: Any
    """(n_neurons, n_neurons): row k holds the weights from neuron k."""
    keep_noise: Any
    """e^(−dt/τ_noise)."""
    keep_synapse: Any
    """e^(−dt/τ_syn)."""
    approach: Any
    """1 − e^(−dt/τ_mem)."""
    refractory_steps: Any
    """A whole number."""
    kicks: Any
    """Possible steps of the noise current."""
    cumulative: Any
    """The probability of each of them or an earlier one; the last is 1."""


class NoisyState(NamedTuple):
    """What is carried from step to step, each (n_neurons,)."""

    noise: Any
    synaptic: Any
    traces: Any
    voltages: Any
    counters: Any
    """Steps for which the neuron is still refractory, int64."""


@kernel
def run_noisy_lif(stream, neurons, state, steps_per_draw, draws):
    """Run one chain.

    Parameters
    ----------
    stream : numpy.ndarray
        From `random.seed_stream`; advanced in place.
    neurons : NoisyNeurons
    state : NoisyState
        Where to start; changed in place to where the run ends.
    steps_per_draw : int
    draws : numpy.ndarray of int8, (n_draws, n_neurons)
        Filled: 1 where a neuron is refractory.
    """
    memory = stream.ravel()
    n_neurons = len(neurons.leak)
    n_kicks = len(neurons.kicks)
    for draw in range(len(draws)):
        for _ in range(steps_per_draw):
            for k in range(n_neurons):
                uniform = fraction(memory)
                number = n_kicks // 2
                while number > 0 and uniform < neurons.cumulative[number - 1]:
                    number -= 1
                while uniform >= neurons.cumulative[number] and number < n_kicks - 1:
                    number += 1
                state.noise[k] = neurons.keep_noise * state.noise[k] + neurons.kicks[number]
                state.synaptic[k] *= neurons.keep_synapse
                state.traces[k] *= neurons.keep_synapse
            for k in range(n_neurons):
                if state.counters[k] > 0:
                    state.counters[k] -= 1
                if state.counters[k] == 0:
                    rest = neurons.leak[k] + state.noise[k] + state.synaptic[k]
                    state.voltages[k] += neurons.approach * (rest - state.voltages[k])
                    if state.voltages[k] > 0.0:
                        state.voltages[k] = 0.0
                        state.counters[k] = neurons.refractory_steps
                        gain = 1.0 - state.traces[k]
                        state.traces[k] = 1.0
                        for target in range(n_neurons):
                            state.synaptic[target] += gain * neurons.weights[k, target]
        for k in range(n_neurons):
            draws[draw, k] = 1 if state.counters[k] > 0 else 0
