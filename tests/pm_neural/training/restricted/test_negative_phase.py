import itertools

import numpy as np
import pytest
import torch

from pm_neural.diagnostics import enumerate_states
from pm_neural.fitting.backend import NumPyBackend
from pm_neural.training.restricted.layers import BernoulliLayers
from pm_neural.training.restricted.negative_phase import make_negative_phase, swap_temperatures


@pytest.fixture
def backend(rng):
    return NumPyBackend(torch.float64, rng)


@pytest.fixture
def machine(random_rbm, backend):
    rbm = random_rbm(3, 2)
    return rbm, BernoulliLayers(backend, *(backend.view(p) for p in (rbm.W, rbm.a, rbm.b)))


def exact_visible(rbm):
    states = torch.as_tensor(enumerate_states(3), dtype=torch.float64)
    return torch.softmax(-rbm.free_energy(states), 0).detach().numpy()


@pytest.mark.parametrize("method", ["pcd", "pt"])
def test_chains_reach_the_model(machine, rng, method):
    """4000 chains, 8 state frequencies within 5 standard errors: false alarm 5e-6."""
    rbm, layers = machine
    n = 4000
    phase = make_negative_phase(layers, method=method, k=5, batch_size=1, n_chains=n, n_temperatures=None, rng=rng)
    v, h_mean = np.empty((n, 3)), np.empty((n, 2))
    data, data_mean = np.array([[1.0, 0.0, 1.0]]), np.empty((1, 2))
    assert phase.n_model(1) == n
    for _ in range(10):
        phase.fill(data, data_mean, v, h_mean)
    frequency = np.bincount((v @ [4, 2, 1]).astype(int), minlength=8) / n
    exact = exact_visible(rbm)
    assert (np.abs(frequency - exact) < 5 * np.sqrt(exact * (1 - exact) / n)).all()
    as_tensor = torch.as_tensor
    np.testing.assert_allclose(h_mean, rbm.hidden_probabilities(as_tensor(v)).detach(), atol=1e-12)
    np.testing.assert_allclose(data_mean, rbm.hidden_probabilities(as_tensor(data)).detach(), atol=1e-12)


@pytest.mark.parametrize("k", [1, 2])
def test_cd_makes_k_sweeps_from_the_data(machine, rng, k):
    """20,000 copies of one image; 8 frequencies within 5 standard errors: false alarm 5e-6."""
    rbm, layers = machine
    n = 20_000
    states = torch.as_tensor(enumerate_states(3), dtype=torch.float64)
    hidden = torch.as_tensor(enumerate_states(2), dtype=torch.float64)
    p_h = torch.exp(_log_bernoulli(hidden, rbm.hidden_probabilities(states)))  # (v, h)
    p_v = torch.exp(_log_bernoulli(states, rbm.visible_probabilities(hidden)))  # (h, v)
    exact = torch.linalg.matrix_power(p_h @ p_v, k)[5].detach().numpy()

    phase = make_negative_phase(layers, method="cd", k=k, batch_size=n, n_chains=None, n_temperatures=None, rng=rng)
    assert phase.n_model(7) == 7
    data = np.tile([1.0, 0.0, 1.0], (n, 1))
    v, h_mean, data_mean = np.empty((n, 3)), np.empty((n, 2)), np.empty((n, 2))
    phase.fill(data, data_mean, v, h_mean)
    frequency = np.bincount((v @ [4, 2, 1]).astype(int), minlength=8) / n
    assert (np.abs(frequency - exact) < 5 * np.sqrt(exact * (1 - exact) / n)).all()
    for states_, means in ((data, data_mean), (v, h_mean)):
        expected = rbm.hidden_probabilities(torch.as_tensor(states_)).detach()
        np.testing.assert_allclose(means, expected, atol=1e-12)


def _log_bernoulli(x, p):
    return (x * torch.log(p)[:, None] + (1 - x) * torch.log1p(-p)[:, None]).sum(-1)


def test_swaps_leave_the_product_of_tempered_distributions_invariant(random_rbm, backend):
    """Exact: every joint state of three replicas, every decision forced both ways.

    A decision with acceptance probability p is forced by a uniform number below or above p, and
    weighted with p and 1 - p.
    """
    rbm = random_rbm(1, 1, sd=1.5)
    units = torch.as_tensor(enumerate_states(2), dtype=torch.float64)
    energy = rbm.energy(units[:, :1], units[:, 1:]).detach().numpy()
    betas = np.array([1.0, 0.6, 0.0])
    tempered = np.exp(-betas[:, None] * energy)
    tempered /= tempered.sum(1, keepdims=True)

    joint = list(itertools.product(range(4), repeat=3))  # state of the replica at each temperature
    p = np.array([np.prod([tempered[r, state[r]] for r in range(3)]) for state in joint])
    after = np.zeros(len(joint))
    for state, weight in zip(joint, p, strict=True):
        for new, probability in _swap_outcomes(backend, betas, energy, state):
            after[joint.index(new)] += weight * probability
    np.testing.assert_allclose(after, p, atol=1e-15)


def _swap_outcomes(backend, betas, energy, state):
    """All outcomes of the two decisions, with the probabilities that the swap itself uses."""
    for first in _both_ways(backend, betas, energy, state, ()):
        yield from (
            (second[0], first[1] * second[1]) for second in _both_ways(backend, betas, energy, state, (first[2],))
        )


def _both_ways(backend, betas, energy, state, before):
    """Force the next decision after the uniform numbers `before`; bisect for its probability."""

    def run(u):
        rungs = np.arange(3)[:, None]
        uniforms = np.array([*before, u, 0.0][:2])
        swap_temperatures(backend, rungs, betas, energy[list(state)], uniforms)
        return rungs[:, 0]

    low, high = 0.0, 1.0
    accepted, rejected = run(low), run(np.nextafter(1.0, 0.0))
    if (accepted == rejected).all():
        yield tuple(state[row] for row in accepted), 1.0, 0.0
        return
    while high - low > 1e-16 * max(high, 1e-300) and low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if (run(middle) == accepted).all() else (low, middle)
    yield tuple(state[row] for row in accepted), high, low / 2
    yield tuple(state[row] for row in rejected), 1 - high, (1 + high) / 2
