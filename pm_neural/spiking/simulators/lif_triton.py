"""The run of `step_methods.kernels.lif.gradient`, and its gradient, as Triton kernels for CUDA devices.

The dynamics and formulas are those of that module. Each program has one chain, whose neurons are processed side by
side, and goes through all its steps: nothing returns to Python in between. What neurons send to each other goes
through global memory, behind a barrier.

All arrays are contiguous and of one float type; numbers that are not whole come in an array, since Triton would
round them to single precision as arguments.
"""

# mypy: disable-error-code="no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def _surrogate(x, sharpness):
    y = sharpness * tl.abs(x) + 1.0
    return 1.0 / (y * y)


@triton.jit
def _weighted_sum(activities, weights, n_neurons, n, exists, n_columns: tl.constexpr, n_rows: tl.constexpr):
    """Multiply the row vector at `activities` by the matrix at `weights`, a tile of `n_rows` rows at a time."""
    total = tl.zeros((n_columns,), weights.dtype.element_ty)
    for first in range(0, n_neurons, n_rows):
        k = first + tl.arange(0, n_rows)
        activity = tl.load(activities + k, k < n_neurons, 0.0)
        tile = (k < n_neurons)[:, None] & exists[None, :]
        total += tl.sum(activity[:, None] * tl.load(weights + k[:, None] * n_neurons + n[None, :], tile, 0.0), 0)
    return total


@triton.jit(do_not_specialize=["n_steps", "n_chains"])
def run_chains(
    drive,
    weights,
    leak,
    constants,
    currents,
    refractory,
    spikes,
    voltages,
    potentials,
    counters,
    n_steps,
    n_chains,
    n_neurons,
    n_columns: tl.constexpr,
    n_rows: tl.constexpr,
):
    """Run all chains, on a grid of as many programs.

    Parameters
    ----------
    drive : (n_steps, n_chains, n_neurons)
        Currents that the spikes of the inputs bring.
    weights : (n_neurons, n_neurons)
        Row k holds the weights from neuron k.
    leak : (n_neurons,)
    constants : (6,)
        dt/τ_mem, dt/τ_syn, threshold, reset, ρ_reset, α.
    currents : (n_chains, n_neurons)
        Where to start; changed in place to where the run ends.
    refractory, potentials : (n_steps, n_chains, n_neurons)
        Filled with [ρ' >= 1] and u.
    spikes, voltages, counters : (n_steps + 1, n_chains, n_neurons)
        Row 0 holds where to start; the others are filled with z', v' and ρ'.
    n_steps, n_chains, n_neurons : int
    n_columns : int
        Power of two, at least n_neurons.
    n_rows : int
        Power of two: rows of `weights` that are read at once.
    """
    decay_membrane, decay_synapse = tl.load(constants), tl.load(constants + 1)
    threshold, reset, refractory_steps = tl.load(constants + 2), tl.load(constants + 3), tl.load(constants + 4)
    chain = tl.program_id(0).to(tl.int64) * n_neurons
    n = tl.arange(0, n_columns)
    exists = n < n_neurons
    resting = tl.load(leak + n, exists, 0.0)
    v = tl.load(voltages + chain + n, exists, 0.0)
    rho = tl.load(counters + chain + n, exists, 0.0)
    i = tl.load(currents + chain + n, exists, 0.0)
    here = chain
    for _ in range(n_steps):
        tl.debug_barrier()
        there = here + n_chains * n_neurons
        j = i + tl.load(drive + here + n, exists, 0.0)
        j += _weighted_sum(spikes + here, weights, n_neurons, n, exists, n_columns, n_rows)
        u = v + decay_membrane * ((resting - v) + j)
        held = rho >= 1.0
        fires = u > threshold
        spiked = fires & (rho < 1.0)
        v = tl.where(held, v, tl.where(fires, reset, u))
        rho = tl.where(spiked, refractory_steps, tl.where(held, rho - 1.0, 0.0))
        i = j - decay_synapse * j
        tl.store(refractory + here + n, (rho >= 1.0).to(rho.dtype), exists)
        tl.store(spikes + there + n, spiked.to(rho.dtype), exists)
        tl.store(voltages + there + n, v, exists)
        tl.store(potentials + here + n, u, exists)
        tl.store(counters + there + n, rho, exists)
        here = there
    tl.store(currents + chain + n, i, exists)


@triton.jit(do_not_specialize=["n_steps", "n_chains"])
def differentiate_chains(
    by_refractory,
    by_spikes,
    by_voltages,
    weights,
    constants,
    voltages,
    potentials,
    counters,
    by_drive,
    n_steps,
    n_chains,
    n_neurons,
    n_columns: tl.constexpr,
    n_rows: tl.constexpr,
):
    """Propagate derivatives of a loss back through all chains, on a grid of as many programs.

    Parameters
    ----------
    by_refractory, by_spikes, by_voltages : (n_steps, n_chains, n_neurons), or None
        Derivatives of the loss by the run's traces; None for zeros.
    weights : (n_neurons, n_neurons)
        Row n holds the weights to neuron n: transposed to those of `run_chains`.
    constants, voltages, potentials, counters
        As `run_chains` takes and leaves them.
    by_drive : (n_steps, n_chains, n_neurons)
        Filled with the derivatives by the drive.
    n_steps, n_chains, n_neurons : int
    n_columns, n_rows : int
        As for `run_chains`.
    """
    decay_membrane, decay_synapse = tl.load(constants), tl.load(constants + 1)
    threshold, reset, refractory_steps = tl.load(constants + 2), tl.load(constants + 3), tl.load(constants + 4)
    sharpness = tl.load(constants + 5)
    chain = tl.program_id(0).to(tl.int64) * n_neurons
    n = tl.arange(0, n_columns)
    exists = n < n_neurons
    zero = tl.zeros((n_columns,), by_drive.dtype.element_ty)
    from_spike, from_voltage, from_current, from_counter = zero, zero, zero, zero
    width = n_chains * n_neurons
    here = chain + tl.cast(n_steps - 1, tl.int64) * width
    for _ in range(n_steps):
        there = here + width
        v = tl.load(voltages + here + n, exists, 0.0)
        rho = tl.load(counters + here + n, exists, 0.0)
        u = tl.load(potentials + here + n, exists, 0.0)
        held = rho >= 1.0
        fires = u > threshold
        left = tl.where(held, rho - 1.0, 0.0)

        by_counter = from_counter
        if by_refractory is not None:
            counter = tl.load(counters + there + n, exists, 0.0)
            by_counter += tl.load(by_refractory + here + n, exists, 0.0) * _surrogate(counter, sharpness)
        by_spike = from_spike
        if by_spikes is not None:
            by_spike += tl.load(by_spikes + here + n, exists, 0.0)
        by_voltage = from_voltage
        if by_voltages is not None:
            by_voltage += tl.load(by_voltages + here + n, exists, 0.0)

        by_spike += by_counter * (refractory_steps - left)
        by_left = tl.where(left >= 1.0, by_counter, 0.0)
        by_held = by_voltage * (v - tl.where(fires, reset, u)) - tl.where(fires, by_spike, 0.0) - by_left
        by_potential = by_spike * _surrogate(u - threshold, sharpness) + tl.where(fires, 0.0, by_voltage)
        by_potential = tl.where(held, 0.0, by_potential)
        jump = by_potential * decay_membrane + from_current * (1.0 - decay_synapse)

        tl.store(by_drive + here + n, jump, exists)
        tl.debug_barrier()
        from_spike = _weighted_sum(by_drive + here, weights, n_neurons, n, exists, n_columns, n_rows)
        from_voltage = by_potential * (1.0 - decay_membrane) + tl.where(held, by_voltage, 0.0)
        from_current = jump
        from_counter = by_left + by_held * _surrogate(rho, sharpness)
        here -= width
