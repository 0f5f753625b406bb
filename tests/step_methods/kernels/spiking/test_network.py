"""The kernels of spiking networks, as they run."""

import heapq
import pickle

import numpy as np
import pytest
import scipy.sparse
from numba import njit
from scipy import special, stats

from step_methods.kernels.pairwise.dense import prepare_dense, sweep_dense
from step_methods.kernels.spiking.couplings import prepare_neighbors, prepare_rows
from step_methods.kernels.spiking.events import run_events
from step_methods.kernels.spiking.network import (
    prepare_restricted,
    prepare_spiking,
    refill_restricted,
    run_continuous,
    run_spiking,
    spike_bound,
)
from step_methods.kernels.spiking.steps import run_steps
from step_methods.kernels.vectors.noise import thresholds
from step_methods.kernels.vectors.random import LANES, VECTOR_BYTES, close_stream, fraction, next_words, open_stream
from step_methods.kernels.vectors.simd import load, pointer_to, store

FLOATS = [np.float32, np.float64]
FORMS = ["rows", "neighbors", "layers"]
NO_UNITS, NO_STEPS, NO_TIMES = np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0)


def couplings_of(n, rng, n_hidden=0, scale=0.3):
    J = np.triu(rng.normal(0, scale, (n, n)), 1)
    if n_hidden:
        J[:n_hidden, :n_hidden] = J[n_hidden:, n_hidden:] = 0
    return (J + J.T).astype(np.float32).astype(np.float64)


def prepare(form, J, order="sequential", n_hidden=0):
    if form == "layers":
        return prepare_restricted(np.ascontiguousarray(J[n_hidden:, :n_hidden]), order)
    matrix = scipy.sparse.csr_array(J)
    is_random, bounds, _ = prepare_spiking(matrix, order)
    return is_random, bounds, {"rows": prepare_rows, "neighbors": prepare_neighbors}[form](matrix, np.arange(len(J)))


def problem(form, n, rng, order="sequential", dtype=np.float64):
    n_hidden = n // 3 if form == "layers" else 0
    J = couplings_of(n, rng, n_hidden).astype(dtype)
    return prepare(form, J, order, n_hidden), J, rng.normal(-1, 0.5, n).astype(dtype)


class Steps:
    """Discrete time: state, statistics and the last raster of a chain."""

    def __init__(self, network, bias, state, tau, g=None, zeta=None, scale=1.0):
        self.network, self.bias, self.tau, self.g, self.scale, self.state = network, bias, tau, g, scale, state
        self.zeta = np.zeros(bias.size, np.int64) if zeta is None else zeta.copy()
        self.counts = np.zeros(bias.size, np.int64)

    def run(self, n_steps, capacity=None):
        if capacity is None:
            capacity = spike_bound(self.zeta.size, n_steps / self.tau)
        self.units, self.times = np.full((2, capacity), -1, np.int32)
        self.n_spikes = run_spiking(
            self.network,
            self.zeta,
            self.bias,
            self.scale,
            self.tau,
            self.g,
            n_steps,
            self.state,
            self.counts,
            self.units,
            self.times,
        )
        return self


class Continuous:
    """Continuous time: state, statistics and the last raster of a chain."""

    def __init__(self, network, bias, state, residual=None, scale=1.0):
        self.network, self.bias, self.scale, self.state = network, bias, scale, state
        self.residual = np.zeros(bias.size) if residual is None else residual.copy()
        self.counts = np.zeros(bias.size, np.int64)

    def run(self, duration, capacity=None):
        if capacity is None:
            capacity = spike_bound(self.counts.size, duration)
        self.units, self.times = np.full(capacity, -1, np.int32), np.full(capacity, np.nan)
        self.n_spikes = run_continuous(
            self.network,
            self.residual,
            self.bias,
            self.scale,
            duration,
            self.state,
            self.counts,
            self.units,
            self.times,
        )
        return self


# --- random numbers, as the kernels use them --------------------------------------------------------------------------


@njit
def draw_limits(state, out, picks):
    """Thresholds of vectors, each after words that pick neurons if there are picks to be made."""
    stream = open_stream(state)
    lanes = VECTOR_BYTES // out.itemsize
    for start in range(0, out.shape[0]):
        if picks.size:
            words, stream = next_words(stream)
            store(picks, start * LANES, words)
        limits, stream = thresholds(stream, 0, load(out, start * lanes, VECTOR_BYTES), lanes)
        store(out, start * lanes, limits)
    close_stream(stream)


@njit
def draw_fraction(state):
    return fraction(pointer_to(state, 0, np.uint64))


def firing_log_odds(f, g):
    """F(f) from the definition: log of f times the sum over eta of the products of 1 / (1 - g f)."""
    return np.log(f * np.sum(np.cumprod(1 / (1 - g[1:] * f))))


def step_by_step(J, bias, tau, g, zeta, n_steps, state, order, dtype):
    """Update one neuron after the other, without any of the kernel's ideas; return clocks and raster."""
    n = bias.size
    J, bias = J.astype(float), bias.astype(float)
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    size = LANES if order == "random" else lanes
    n_vectors = -(-n // size)
    zeta = zeta.copy()
    spikes = []
    for step in range(n_steps):
        noise = np.zeros((n_vectors, lanes), dtype)
        words = np.zeros((n_vectors if order == "random" else 0, LANES), np.uint64)
        draw_limits(state, noise, words)
        noise = noise[:, :size].ravel()[:n]
        units = ((words.ravel()[:n] >> np.uint64(11)) * (n * 2.0**-53)).astype(int) if words.size else np.arange(n)
        for unit, limit in zip(units, noise, strict=True):
            u = bias[unit] + J[unit] @ (zeta > 0)
            if g is None:
                fires = zeta[unit] < 2 and limit + np.log(tau) < u
            else:
                f = special.expit(float(limit)) / g[zeta[unit]] if g[zeta[unit]] > 0 else 1.0
                fires = f < 1 and firing_log_odds(f, g) < u
            zeta[unit] = tau if fires else max(zeta[unit] - 1, 0)
            if fires:
                spikes.append((unit, step))
    return zeta, spikes


def event_by_event(J, bias, residual, duration, state):
    """Gillespie's method with a heap; return residual times and raster."""
    ends = [(time, unit) for unit, time in enumerate(residual) if time > 0]
    heapq.heapify(ends)
    is_on = residual > 0
    time, spikes = 0.0, []
    while True:
        rates = np.where(is_on, 0, np.exp(bias + J @ is_on))
        firing = time - np.log(draw_fraction(state)) / rates.sum()
        ending = ends[0][0] if ends else np.inf
        if min(firing, ending) >= duration:
            break
        if firing < ending:
            time = firing
            unit = int(np.searchsorted(np.cumsum(rates), draw_fraction(state) * rates.sum(), side="right"))
            heapq.heappush(ends, (time + 1, unit))
            spikes.append((unit, time))
            is_on[unit] = True
        else:
            time, unit = heapq.heappop(ends)
            is_on[unit] = False
    residual = np.zeros(bias.size)
    for end, unit in ends:
        residual[unit] = end - duration
    return residual, spikes


# --- against the plain algorithms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("n", [1, 20, 75])
def test_period_of_one_step_is_gibbs_sampling(n, dtype, rng, state):
    """The very draws, and the very use of random numbers, of the sequential Gibbs sweeps of a dense network."""
    J = couplings_of(n, rng).astype(dtype)
    bias = rng.normal(0, 1, n).astype(dtype)
    z, own_state = np.zeros(n, np.int64), state.copy()
    dense = prepare_dense(scipy.sparse.csr_array(J))
    chain = Steps(prepare("rows", J), bias, state, 1, scale=0.5)
    for n_sweeps in (1, 5, 300):
        sweep_dense(dense, z, bias, 0.5, n_sweeps, own_state)
        chain.run(n_sweeps)
        np.testing.assert_array_equal(chain.zeta, z)
        np.testing.assert_array_equal(state[:4], own_state[:4])


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("order", ["sequential", "random"])
@pytest.mark.parametrize("form", FORMS)
def test_neurons_are_updated_one_after_the_other(form, order, dtype, relative, rng, state):
    """In groups of neurons, many of which switch, but as one by one with the same random numbers."""
    tau, n = 3, 50
    network, J, bias = problem(form, n, rng, order, dtype)
    g = np.array([1, 1, 0.6, 0.25], dtype) if relative else None
    zeta = rng.integers(0, tau + 1, n)
    chain = Steps(network, bias, state.copy(), tau, g, zeta).run(40)
    expected, spikes = step_by_step(J, bias, tau, g, zeta, 40, state.copy(), order, dtype)
    np.testing.assert_array_equal(chain.zeta, expected)
    np.testing.assert_array_equal(np.c_[chain.units, chain.times][: chain.n_spikes], spikes)


@pytest.mark.parametrize("form", FORMS)
def test_events_of_continuous_time(form, rng, state):
    n = 50
    network, J, bias = problem(form, n, rng)
    residual = rng.choice([0, 1], n) * rng.random(n)
    chain = Continuous(network, bias, state.copy(), residual).run(5.5)
    expected, spikes = event_by_event(J, bias, residual, 5.5, state.copy())
    np.testing.assert_allclose(chain.residual, expected, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(chain.units[: chain.n_spikes], [unit for unit, _ in spikes])
    np.testing.assert_allclose(chain.times[: chain.n_spikes], [time for _, time in spikes], rtol=0, atol=1e-11)
    assert chain.n_spikes > 50


# --- spikes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["sequential", "random"])
def test_spikes_are_counted_and_listed(order, rng, state):
    network, _, bias = problem("rows", 40, rng, order)
    chain = Steps(network, bias + 2, state, 7).run(500)
    assert chain.n_spikes == chain.counts.sum() <= chain.units.size
    np.testing.assert_array_equal(np.bincount(chain.units[: chain.n_spikes], minlength=40), chain.counts)
    assert (np.diff(chain.times[: chain.n_spikes]) >= 0).all()
    assert (chain.units[chain.n_spikes :] == -1).all()
    if order == "sequential":
        last = np.full(40, -(10**6))
        np.maximum.at(last, chain.units[: chain.n_spikes], chain.times[: chain.n_spikes])
        np.testing.assert_array_equal(chain.zeta, np.maximum(7 - (499 - last), 0))


def test_a_raster_that_is_full_keeps_the_first_spikes(rng, state):
    network, _, bias = problem("rows", 40, rng)
    whole, part, none = (Steps(network, bias, state.copy(), 7).run(200, capacity) for capacity in (None, 10, 0))
    assert whole.n_spikes == part.n_spikes == none.n_spikes > 10
    np.testing.assert_array_equal(part.units, whole.units[:10])
    np.testing.assert_array_equal(part.times, whole.times[:10])
    for chain in (part, none):
        np.testing.assert_array_equal(chain.zeta, whole.zeta)
        np.testing.assert_array_equal(chain.counts, whole.counts)
    events, some = (Continuous(network, bias, state.copy()).run(20.0, capacity) for capacity in (None, 10))
    assert events.n_spikes == some.n_spikes > 10
    np.testing.assert_array_equal(some.times, events.times[:10])


@pytest.mark.parametrize("n_steps", [1, 6, 7, 8, 70])
def test_no_neuron_spikes_more_often_than_the_bound(n_steps, state):
    zeta = np.array([0, 1, 2, 7])
    network = prepare_spiking(scipy.sparse.csr_array((4, 4)), "sequential")
    chain = Steps(network, np.full(4, np.inf), state, 7, zeta=zeta).run(n_steps)
    assert chain.n_spikes <= spike_bound(4, n_steps / 7)
    np.testing.assert_array_equal(chain.counts, [len(range(start, n_steps, 7)) for start in (0, 0, 1, 6)])


def test_counters_live_between_calls(rng, state):
    network, _, bias = problem("rows", 40, rng)
    at_once = Steps(network, bias, state.copy(), 7).run(60)
    in_parts = Steps(network, bias, state.copy(), 7)
    for n_steps in (1, 2, 57):
        in_parts.run(n_steps)
    np.testing.assert_array_equal(in_parts.zeta, at_once.zeta)
    np.testing.assert_array_equal(in_parts.counts, at_once.counts)


# --- networks ---------------------------------------------------------------------------------------------------------


def test_forms_of_a_network_agree(rng, state):
    n, n_hidden = 70, 23
    J = couplings_of(n, rng, n_hidden)
    bias = rng.normal(-1, 0.5, n)
    steps = [Steps(prepare(form, J, "blocks", n_hidden), bias, state.copy(), 5).run(300) for form in FORMS]
    events = [Continuous(prepare(form, J, "blocks", n_hidden), bias, state.copy()).run(20.0) for form in FORMS]
    for i in (1, 2):
        np.testing.assert_array_equal(steps[0].zeta, steps[i].zeta)
        np.testing.assert_array_equal(steps[0].counts, steps[i].counts)
        np.testing.assert_allclose(events[0].residual, events[i].residual, rtol=0, atol=1e-10)


def test_form_is_the_faster_one(rng):
    ring = scipy.sparse.diags_array([1.0, 1.0], offsets=[1, -1], shape=(50, 50)).tocsr()
    assert prepare_spiking(ring, "sequential")[2][0][0].ndim == 1
    assert prepare_spiking(scipy.sparse.csr_array(couplings_of(50, rng)), "sequential")[2][0][0].ndim == 2


def test_other_parameters(rng, state):
    W, other = rng.normal(0, 1, (2, 20, 9))
    bias = rng.normal(0, 1, 29)
    network = prepare_restricted(W, "sequential")
    refill_restricted(network, other)
    W[:] = np.nan
    chain = Steps(network, bias, state.copy(), 5).run(50)
    fresh = Steps(prepare_restricted(other, "sequential"), bias, state.copy(), 5).run(50)
    np.testing.assert_array_equal(chain.zeta, fresh.zeta)
    scaled = Steps(prepare_restricted(other * 2, "sequential"), bias, state.copy(), 5, scale=0.5).run(50)
    np.testing.assert_array_equal(scaled.counts, fresh.counts)


def test_networks_are_pickled(rng, state):
    network, _, bias = problem("layers", 30, rng)
    copy = pickle.loads(pickle.dumps(network))
    chains = [Steps(x, bias, state.copy(), 5).run(50) for x in (network, copy)]
    np.testing.assert_array_equal(chains[0].zeta, chains[1].zeta)


@pytest.mark.parametrize(
    "network", [prepare_restricted(np.zeros((30, 0)), "blocks"), prepare_restricted(np.zeros((0, 30)), "sequential")]
)
def test_a_layer_may_be_empty(network, rng, state):
    bias = rng.normal(0, 1, 30)
    alone = prepare_spiking(scipy.sparse.csr_array((30, 30)), "sequential")
    chains = [Steps(x, bias, state.copy(), 5).run(50) for x in (network, alone)]
    np.testing.assert_array_equal(chains[0].zeta, chains[1].zeta)
    events = [Continuous(x, bias, state.copy()).run(5.0) for x in (network, alone)]
    np.testing.assert_array_equal(events[0].residual, events[1].residual)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("form", FORMS)
def test_infinite_biases_make_neurons_certain(form, dtype, rng, state):
    network, _, bias = problem(form, 40, rng, dtype=dtype)
    bias[3], bias[8] = np.inf, -np.inf
    zeta = np.zeros(40, np.int64)
    zeta[8] = 2
    chain = Steps(network, bias, state, 5, zeta=zeta)
    assert (chain.run(1).zeta[[3, 8]] == [5, 1]).all()
    for _ in range(20):
        assert (chain.run(3).zeta[[3, 8]] >= [1, 0]).all()
        assert chain.zeta[8] == 0
    events = Continuous(network, bias, state)
    for _ in range(20):
        events.run(0.3)
        assert events.residual[3] > 0
        assert events.residual[8] == 0
    assert events.counts[8] == 0
    assert events.counts[3] in (6, 7)


def test_large_rates_do_not_overflow(state):
    network = prepare_spiking(scipy.sparse.csr_array((4, 4)), "sequential")
    chain = Continuous(network, np.array([1000.0, -1000, 0, np.inf]), state).run(100.0)
    np.testing.assert_array_equal(chain.counts[[0, 1, 3]], [100, 0, 100])
    assert 20 < chain.counts[2] < 80


def test_no_allocation_in_a_run(rng, state, n_allocations):
    network, _, bias = problem("layers", 40, rng)
    steps, events = Steps(network, bias, state, 5), Continuous(network, bias, state)
    relative = Steps(network, bias, state, 5, np.array([1, 1, 0.5, 0.25, 0.125, 0]))
    n_arrays = sum(isinstance(x, np.ndarray) for x in (*network[2][0], *network[2][1:]))
    for chain, n_arguments in ((steps, 6), (events, 6), (relative, 7)):
        chain.run(1)
        once, often = (n_allocations(lambda chain=chain, n=n: chain.run(n)) for n in (1, 1000))
        assert once == often == n_arrays + n_arguments  # a handle for each array among the arguments


# --- many steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_rounding_of_the_fields(form, rng, state):
    """After 10**6 steps without computing them anew, fields in float64 are off by less than 1e-9."""
    network, J, bias = problem(form, 30, rng)
    zeta, counts = np.zeros((2, 30), np.int64)
    never = 2**62
    run_steps(network[2], zeta, bias, 1.0, 20, None, 10**6, False, never, state, counts, NO_UNITS, NO_STEPS)
    fields = network[2][4][:30]
    np.testing.assert_allclose(fields, bias - np.log(20) + J @ (zeta > 0), rtol=0, atol=1e-9)
    residual = np.zeros(30)
    run_events(network[2], residual, bias, 1.0, 10**6 / 20, never, state, counts, NO_UNITS, NO_TIMES)
    np.testing.assert_allclose(fields, bias + J @ (residual > 0), rtol=0, atol=1e-9)


def exact_moments(J, bias):
    """Means and pair products of a small Boltzmann network."""
    states = (np.arange(2**bias.size)[:, None] >> np.arange(bias.size) & 1).astype(float)
    p = special.softmax(states @ bias + 0.5 * np.einsum("ki,ij,kj->k", states, J, states))
    return states.T @ (p[:, None] * states)


def mean_and_error(draws):
    """Mean of autocorrelated draws, and its standard error from the means of 50 batches."""
    batches = draws.reshape(50, -1, *draws.shape[1:]).mean(axis=1)
    return batches.mean(axis=0), batches.std(axis=0, ddof=1) / np.sqrt(50)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mode", ["sequential", "random", "blocks", "continuous"])
def test_long_run(mode, dtype, rng, state):
    """Means and pair products within 4 standard errors: 21 numbers, false-alarm rate 2e-3 (seed fixed).

    What is left of the periods of neurons that are on is uniform: p-value above 1e-4 for draws that are far apart.
    """
    n, tau, n_draws = 6, 20, 20_000
    J = couplings_of(n, rng, scale=0.8)
    J[0, 1:3] = J[1:3, 0] = 0
    bias = rng.normal(-0.5, 0.5, n)
    network = prepare_spiking(scipy.sparse.csr_array(J.astype(dtype)), "sequential" if mode == "continuous" else mode)
    z = np.zeros((n_draws, n))
    times_left = np.zeros((n_draws, n))
    if mode == "continuous":
        chain = Continuous(network, bias.astype(dtype), state)
        chain.run(10.0)
    else:
        chain = Steps(network, bias.astype(dtype), state, tau).run(200)
    for draw in range(n_draws):
        times_left[draw] = chain.run(0.5).residual if mode == "continuous" else chain.run(10).zeta
        z[draw] = times_left[draw] > 0
    mean, error = mean_and_error(np.einsum("ki,kj->kij", z, z))
    assert (np.abs(mean - exact_moments(J, bias)) < 4 * error).all()
    apart = times_left[::10][z[::10] > 0]
    if mode == "continuous":
        assert stats.kstest(apart, "uniform").pvalue > 1e-4
    else:
        assert stats.chisquare(np.bincount(apart.astype(int), minlength=tau + 1)[1:]).pvalue > 1e-4
