"""Spike rasters: packed by the step, recorded by PyMC, read back."""

import numpy as np
import pymc as pm
import pytest

import pm_neural as pmn
from pm_neural.diagnostics import SpikeRaster, spike_raster
from step_methods.raster import pack_spikes, unpack_spikes

QUIET = {"progressbar": False, "compute_convergence_checks": False, "cores": 1, "chains": 2}

pytestmark = pytest.mark.filterwarnings("ignore:.*number of samples")


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("n_spikes", [0, 7])
def test_packing_round_trip(rng, continuous, n_spikes):
    if continuous:
        units, times, duration = rng.permutation(10)[:n_spikes], np.sort(rng.random(n_spikes) * 2.5), 2.5
    else:
        places = np.sort(rng.choice(10 * 13, n_spikes, replace=False))
        times, units, duration = places // 10, places % 10, 13
    how = 10, duration, continuous, 1 if continuous else 5, not continuous
    packed = pack_spikes(units, times, *how)
    got = unpack_spikes(packed)
    np.testing.assert_array_equal(got.units, units)
    np.testing.assert_allclose(got.times, times, rtol=1e-6)
    assert (got.n_neurons, got.duration, continuous, got.tau, got.once) == how
    assert packed.shape == pack_spikes(units[:0], times[:0], *how).shape


@pytest.fixture
def network(rng):
    with pm.Model() as model:
        pmn.BernoulliRBM("v", rng.normal(size=(3, 2)), np.zeros(3), np.zeros(2))
        pm.Bernoulli("coin", 0.5)
    return model


@pytest.mark.parametrize("options", [{"tau": 4, "steps_per_draw": 6}, {"time": "continuous", "steps_per_draw": 1.5}])
def test_recorded_spikes_of_a_chain(network, options):
    with network:
        step = pmn.NeuralSampling([network["v"]], record_spikes=True, **options)
        idata = pm.sample(20, tune=5, step=step, random_seed=1, **QUIET)
    for chain in (0, 1):
        raster = spike_raster(idata, chain)
        assert raster.n_neurons == 5
        assert raster.duration == 20 * options["steps_per_draw"]
        assert raster.neurons.size == idata.sample_stats["spikes"][chain].sum()
        assert (np.diff(raster.times) >= 0).all()
    with pytest.raises(ValueError, match="chain must be one of the 2 chains of idata, counted from 0, got 2"):
        spike_raster(idata, 2)
    assert spike_raster(idata.isel(draw=slice(5, 15))).duration == 10 * options["steps_per_draw"]
    with pytest.raises(ValueError, match="draws that follow each other"):
        spike_raster(idata.isel(draw=slice(None, None, 3)))


def test_several_steps_that_record(network):
    with network:
        steps = [pmn.NeuralSampling([network[name]], tau=2, record_spikes=True) for name in ("v", "coin")]
        idata = pm.sample(20, tune=0, step=steps, random_seed=1, **QUIET)
    assert [spike_raster(idata, sampler=k).n_neurons for k in (0, 1)] == [5, 1]
    with pytest.raises(ValueError, match="sampler must be one of 2"):
        spike_raster(idata, sampler=2)


def test_nothing_recorded(network):
    with network:
        idata = pm.sample(5, tune=0, step=pmn.NeuralSampling([network["v"]]), random_seed=1, **QUIET)
    with pytest.raises(ValueError, match="idata must hold recorded spikes"):
        spike_raster(idata)


def test_states_follow_from_spikes():
    raster = SpikeRaster(np.array([0, 1, 0]), np.array([1, 2, 5]), n_neurons=2, duration=7)
    np.testing.assert_array_equal(raster.states(2), [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0], [1, 0], [1, 0]])


def test_states_know_the_refractory_period():
    raster = SpikeRaster(np.array([0]), np.array([1]), n_neurons=1, duration=5, tau=2)
    np.testing.assert_array_equal(raster.states(), [[0], [1], [1], [0], [0]])
    with pytest.raises(ValueError, match="tau must be 2, with which the spikes were recorded, got 3"):
        raster.states(3)
    with pytest.raises(ValueError, match="tau must be given"):
        SpikeRaster(np.array([0]), np.array([1]), n_neurons=1, duration=5).states()


@pytest.mark.parametrize("order", ["sequential", "random"])
def test_states_of_a_raster_are_those_of_the_draws(network, order):
    with network:
        step = pmn.NeuralSampling([network["v"]], tau=4, record_spikes=True, order=order)
        idata = pm.sample(200, tune=0, step=step, random_seed=1, **QUIET)
    raster = spike_raster(idata)
    if order == "random":
        with pytest.raises(ValueError, match="the raster must be of neurons that are updated once in a step"):
            raster.states()
    else:
        v = idata.posterior["v"].values[0]
        np.testing.assert_array_equal(raster.states()[10:, : v.shape[1]], v[10:])


def test_continuous_time_has_no_states_after_steps(network):
    with network:
        step = pmn.NeuralSampling([network["v"]], record_spikes=True, time="continuous", steps_per_draw=0.1)
        idata = pm.sample(30, tune=0, step=step, random_seed=1, **QUIET)
    raster = spike_raster(idata)
    assert raster.continuous
    assert raster.duration == pytest.approx(3, rel=1e-15)  # 3.00000004 if 0.1 were kept in float32
    with pytest.raises(ValueError, match="the raster must be of discrete time"):
        raster.states(1)
