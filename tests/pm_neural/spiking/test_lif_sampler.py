import numpy as np
import pymc as pm
import pytest
from scipy.sparse import csr_array
from scipy.special import expit

import pm_neural as pmn
from pm_neural.spiking import LIFSampler
from pm_neural.spiking._machine import Machine
from pm_neural.spiking.lif_sampler import calibrate
from step_methods.kernels.lif.sampling import NoisyNeurons, NoisyState, run_noisy_lif
from step_methods.kernels.vectors.random import seed_stream


def random_machine(rng, n, sd):
    upper = np.triu(rng.normal(0, sd, (n, n)), 1)
    return upper + upper.T, rng.normal(0, sd, n)


def test_law_of_a_machine_is_exact(rng):
    J, b = random_machine(rng, 4, 0.8)
    with pm.Model():
        z = pmn.BoltzmannMachine("z", J, b, coupling=0.5)
        s = pmn.Ising("s", J, b)
        laws = [pmn.diagnostics.exact_state_probabilities(v) for v in (z, s)]
    np.testing.assert_allclose(Machine.read((0.5 * J, b), "network").law(), laws[0].probabilities, atol=1e-12)
    np.testing.assert_array_equal(Machine.read((csr_array(J), b), "network").J, J)
    for variable, law in zip((z, s), laws, strict=True):
        np.testing.assert_allclose(Machine.read(variable, "network").law(), law.probabilities, atol=1e-6)


def test_activation_is_nearly_logistic():
    calibration = calibrate()
    straight = np.abs(calibration.log_odds) < 2
    fitted = np.polyfit(calibration.potentials[straight], calibration.log_odds[straight], 1)
    assert fitted[0] == pytest.approx(calibration.slope, rel=0.05)
    assert np.abs(np.polyval(fitted, calibration.potentials) - calibration.log_odds)[straight].max() < 0.15
    assert 0.7 < calibration.effectiveness < 1
    grid = np.linspace(-8, 8, 50)
    assert (np.diff(calibration.potential_of(grid)) > 0).all(), "beyond what was measured, too"
    inside = np.abs(calibration.log_odds) < 3
    potentials = calibration.potential_of(calibration.log_odds[inside])
    np.testing.assert_allclose(potentials, calibration.potentials[inside], atol=0.05)


def test_biases_alone_give_the_right_rates():
    """Without couplings, marginals within 0.02: calibration to 0.05 in log-odds, and chance of about 0.004."""
    b = np.array([-3.0, -1.5, 0.0, 1.0, 2.5])
    sampler = LIFSampler.from_network((np.zeros((5, 5)), b))
    z = sampler.sample(4, 20_000, random_seed=1)["posterior"].z
    np.testing.assert_allclose(z.mean(("chain", "draw")), expit(b), atol=0.02)


def test_couplings_are_found_among_the_samples():
    """Log-odds ratios of pairs within 0.25 of couplings of ±1; that of chance is about 0.03."""
    for coupling in (-1.0, 1.0):
        J = np.array([[0.0, coupling], [coupling, 0.0]])
        z = LIFSampler.from_network((J, np.zeros(2))).sample(8, 20_000, random_seed=2)["posterior"].z.to_numpy()
        counts = np.bincount((z @ [2, 1]).ravel(), minlength=4)
        assert np.log(counts) @ [1, -1, -1, 1] == pytest.approx(coupling, abs=0.25)


def test_divergence_from_the_exact_law_is_small_and_reported(rng):
    sampler = LIFSampler.from_network(random_machine(rng, 3, 0.3))
    tree = sampler.sample(2, 50_000, random_seed=3)
    attrs = tree["posterior"].attrs
    law = pmn.diagnostics.state_probabilities(tree, "z", values=(0, 1))
    assert attrs["kl"] == pytest.approx(pmn.diagnostics.kl_divergence(sampler.machine.law(), law).estimate)
    assert 0 < attrs["kl"] < 4e-3
    assert 0 < attrs["kl_noise"] < 2e-3
    assert "approximate" in attrs["exact"]
    assert tree["posterior"].z.shape == (2, 50_000, 3)


def test_refractory_time_scales_everything(rng):
    machine = random_machine(rng, 3, 0.3)
    fast, slow = (
        LIFSampler.from_network(machine, refractory_time=t).sample(1, 100 * t, random_seed=4) for t in (1, 20)
    )
    np.testing.assert_array_equal(fast["posterior"].z, slow["posterior"].z)


def test_large_machines_are_not_compared(rng):
    tree = LIFSampler.from_network(random_machine(rng, 13, 0.1)).sample(1, 100, random_seed=5)
    assert "kl" not in tree["posterior"].attrs


def test_spikes_renew_post_synaptic_potentials():
    """One neuron fires again and again; the other sees w exp(−t/τ) since the last spike, from no matter what."""
    keep = np.exp(-1 / 50)
    neurons = NoisyNeurons(
        leak=np.array([1.0, -9.0]),
        weights=np.array([[0.0, 0.5], [0.0, 0.0]]),
        keep_noise=0.0,
        keep_synapse=keep,
        approach=1.0,
        refractory_steps=20,
        kicks=np.zeros(1),
        cumulative=np.ones(1),
    )
    state = NoisyState(*(np.zeros(2) for _ in range(4)), np.zeros(2, dtype=np.int64))
    stream = seed_stream(np.random.default_rng(1))
    seen = []
    for _ in range(100):
        draws = np.empty((1, 2), dtype=np.int8)
        run_noisy_lif(stream, neurons, state, 1, draws)
        seen.append(state.synaptic[1])
        assert draws.tolist() == [[1, 0]]
    np.testing.assert_allclose(seen, 0.5 * keep ** (np.arange(100) % 20))


@pytest.mark.parametrize(
    ("network", "options", "error", "message"),
    [
        (np.zeros((2, 2)), {}, TypeError, r"network must be a pair \(J, b\)"),
        ((np.ones((2, 2)), np.zeros(2)), {}, ValueError, "network must hold a symmetric J with zero diagonal"),
        ((np.zeros((2, 2)), np.array([0, np.inf])), {}, ValueError, "network must hold finite numbers"),
        ((np.zeros((1, 1)), np.zeros(1)), {"refractory_time": 0}, ValueError, "refractory_time must be in"),
    ],
)
def test_bad_networks(network, options, error, message):
    with pytest.raises(error, match=message):
        LIFSampler.from_network(network, **options)


@pytest.mark.parametrize(
    ("arguments", "message"), [((0, 100), "n_chains"), ((1, 10), "duration"), ((1, np.nan), "dur")]
)
def test_bad_sample_arguments(arguments, message):
    sampler = LIFSampler.from_network((np.zeros((1, 1)), np.zeros(1)))
    with pytest.raises(ValueError, match=message):
        sampler.sample(*arguments)
