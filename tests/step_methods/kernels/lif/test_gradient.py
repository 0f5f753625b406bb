"""The run of the fused simulator; its gradient is tested against Norse, in tests/pm_neural/spiking."""

import numpy as np
import pytest

from step_methods.kernels.lif.gradient import (
    Events,
    Neurons,
    Record,
    State,
    lanes,
    place_poisson_spikes,
    run_lif,
)
from step_methods.kernels.vectors.random import seed_stream


def constants(dtype, n_columns, refractory_steps=5):
    return Neurons(np.zeros(n_columns, dtype), *(dtype(x) for x in (0.1, 0.2, 1.0, 0.0, refractory_steps, 100.0)))


def simulate(offsets, sources, weights, neurons, n_steps, n_chains=1):
    dtype, (_, n_columns) = weights.dtype, weights.shape
    state = State(*(np.zeros((n_chains, n_columns), dtype) for _ in State._fields))
    record = Record(*(np.empty((n_steps, n_chains, n_columns), dtype) for _ in Record._fields))
    rows = (n_steps + 1) * n_chains
    spikes = Events(np.empty(rows + 1, np.int64), np.empty(rows * n_columns, np.int32))
    recurrent = np.zeros((n_columns, n_columns), dtype)
    run_lif(Events(offsets, sources), weights, recurrent, neurons, state, record, spikes)
    return state, record, spikes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_subthreshold_voltage_is_the_impulse_response(dtype):
    """One spike of weight w at step 0: v(t) = w a Σ_k (1-a)^(t-k) (1-c)^k."""
    n_columns, n_steps = lanes(np.dtype(dtype)), 40
    weights = np.zeros((1, n_columns), dtype)
    weights[0, 0] = 0.5
    offsets = np.minimum(np.arange(n_steps + 1), 1)
    _, record, _ = simulate(offsets, np.zeros(1, np.int32), weights, constants(dtype, n_columns), n_steps)
    t = np.arange(n_steps)
    expected = [0.5 * 0.1 * sum(0.9 ** (s - k) * 0.8**k for k in range(s + 1)) for s in t]
    np.testing.assert_allclose(record.voltages[:, 0, 0], expected, rtol=1e-5 if dtype == np.float32 else 1e-12)
    assert not record.voltages[..., 1:].any()


def test_spikes_are_listed_as_they_are_recorded(rng):
    n_columns, n_steps, n_chains = 2 * lanes(np.dtype(np.float32)), 60, 3
    weights = rng.normal(0.5, 1.0, (9, n_columns)).astype(np.float32)
    offsets, sources = np.zeros(n_steps * n_chains + 1, np.int64), np.empty(2000, np.int32)
    place_poisson_spikes(seed_stream(rng), np.log(0.7), 9, offsets, sources, np.zeros(3, np.int64))
    neurons = constants(np.float32, n_columns, refractory_steps=2)
    state, record, spikes = simulate(offsets, sources, weights, neurons, n_steps, n_chains)
    flat = record.spikes.reshape(-1, n_columns)
    assert flat.sum() > 100
    for row, fired in enumerate(flat, start=n_chains):
        listed = spikes.sources[spikes.offsets[row] : spikes.offsets[row + 1]]
        np.testing.assert_array_equal(listed, np.flatnonzero(fired))
    np.testing.assert_array_equal(record.refractory, record.counters >= 1)
    np.testing.assert_array_equal(state.voltages, record.voltages[-1])
    np.testing.assert_array_equal(state.counters, record.counters[-1])
