from typing import ClassVar

import numpy as np
import pytest
import torch

from pm_neural.diagnostics import exact_marginals
from pm_neural.fitting.backend import NumPyBackend
from pm_neural.training import RBM
from pm_neural.training.restricted.gradient import BernoulliGradient
from pm_neural.training.restricted.layers import BernoulliLayers
from pm_neural.training.restricted.negative_phase import make_negative_phase


class GivenStates:
    """A negative phase that returns the states it was given."""

    settings: ClassVar = {}

    def __init__(self, layers, states):
        self._layers = layers
        self._states = states

    def n_model(self, n_data):
        return len(self._states)

    def fill(self, data, data_mean, v, h_mean):
        self._layers.hidden_mean(data, out=data_mean)
        v[...] = self._states
        self._layers.hidden_mean(v, out=h_mean)


@pytest.fixture
def machine(random_rbm, rng):
    rbm = random_rbm(4, 3)
    backend = NumPyBackend(torch.float64, rng)
    return rbm, BernoulliLayers(backend, *(backend.view(p) for p in (rbm.W, rbm.a, rbm.b)))


@pytest.fixture
def images(rng):
    return rng.integers(2, size=(7, 4)).astype(float)


def gradient_of(layers, phase, images, **options):
    arguments = {
        "batch_size": len(images),
        "visible_mean": images.mean(0),
        "centered": False,
        "weight_decay": 0.0,
        "sparsity_target": None,
        "sparsity_cost": 0.1,
    }
    gradient = BernoulliGradient(layers, phase, **{**arguments, **options})
    gradient.start_from(images)
    return gradient


def free_energy_ascent(rbm, images, states, weight_decay):
    """Differentiate the difference of mean free energies by autograd."""
    data, model = torch.as_tensor(images), torch.as_tensor(states)
    value = rbm.free_energy(model).mean() - rbm.free_energy(data).mean()
    value = value - weight_decay / 2 * rbm.W.square().sum()
    return torch.autograd.grad(value, (rbm.W, rbm.a, rbm.b))


def test_plain_gradient_is_that_of_the_free_energies(machine, images, rng):
    rbm, layers = machine
    states = rng.integers(2, size=(5, 4)).astype(float)
    gradient = gradient_of(layers, GivenStates(layers, states), images, weight_decay=0.3)
    for ours, expected in zip(gradient(images), free_energy_ascent(rbm, images, states, 0.3), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_centered_gradient_is_the_plain_one_in_centered_parameters(machine, images, rng):
    """Melchior et al. (2016): ascend in (W, a + W lambda, b + W' mu) and go back to (W, a, b)."""
    rbm, layers = machine
    states = rng.integers(2, size=(5, 4)).astype(float)
    gradient = gradient_of(layers, GivenStates(layers, states), images, centered=True, weight_decay=0.3)
    mu = torch.as_tensor(images.mean(0))
    lambda_ = rbm.hidden_probabilities(torch.as_tensor(images)).mean(0).detach()

    W = rbm.W.detach().requires_grad_()
    a_centered = (rbm.a + rbm.W @ lambda_).detach().requires_grad_()
    b_centered = (rbm.b + mu @ rbm.W).detach().requires_grad_()

    def free_energy(v):
        field = b_centered - mu @ W + v @ W
        return -v @ (a_centered - W @ lambda_) - torch.nn.functional.softplus(field).sum(-1)

    value = free_energy(torch.as_tensor(states)).mean() - free_energy(torch.as_tensor(images)).mean()
    value = value - 0.15 * W.square().sum()
    dW, da_centered, db_centered = torch.autograd.grad(value, (W, a_centered, b_centered))
    expected = dW, da_centered - dW @ lambda_, db_centered - mu @ dW
    for ours, theirs in zip(gradient(images), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_smaller_batches_are_averaged_over_their_own_images(machine, images, rng):
    rbm, layers = machine
    states = rng.integers(2, size=(5, 4)).astype(float)
    gradient = gradient_of(layers, GivenStates(layers, states), images)
    for batch in (images, images[:2], images[:3]):
        for ours, expected in zip(gradient(batch), free_energy_ascent(rbm, batch, states, 0.0), strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_sparsity_pulls_the_hidden_biases(machine, images, rng):
    _, layers = machine
    phase = GivenStates(layers, rng.integers(2, size=(5, 4)).astype(float))
    plain = [g.copy() for g in gradient_of(layers, phase, images)(images)]
    pulled = gradient_of(layers, phase, images, sparsity_target=0.1, sparsity_cost=0.5)(images)
    activity = np.empty((7, 3))
    layers.hidden_mean(images, out=activity)
    np.testing.assert_allclose(pulled[0], plain[0], atol=1e-12)
    np.testing.assert_allclose(pulled[1], plain[1], atol=1e-12)
    np.testing.assert_allclose(pulled[2] - plain[2], 0.5 * (0.1 - activity.mean(0)), atol=1e-12)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize(("method", "k", "n_chains"), [("pcd", 5, 50), ("pt", 2, 20), ("cd", 30, None)])
def test_gradient_is_the_exact_one_in_expectation(machine, images, rng, method, k, n_chains, centered):
    """4000 estimates, error bars from 40 batches of 100; 19 entries within 6 of them.

    With 39 degrees of freedom |t| > 6 has probability 5e-7, so a false alarm 1e-5 per case.
    """
    rbm, layers = machine
    with torch.no_grad():
        rbm.W.mul_(0.5)
    W, a, b = rbm.parameters_as_numpy()
    model = exact_marginals((W, a, b))
    h_data = 1 / (1 + np.exp(-(b + images @ W)))
    dW = images.T @ h_data / len(images) - model.visible_hidden_pairs
    da = images.mean(0) - model.visible
    db = h_data.mean(0) - model.hidden
    if centered:
        mu, lambda_ = images.mean(0), h_data.mean(0)
        dW = dW - np.outer(mu, db) - np.outer(da, lambda_)
        da, db = da - dW @ lambda_, db - mu @ dW

    phase = make_negative_phase(
        layers, method=method, k=k, batch_size=7, n_chains=n_chains, n_temperatures=None, rng=rng
    )
    gradient = gradient_of(layers, phase, images, centered=centered)
    for _ in range(50):
        gradient(images)
    estimates = np.array([np.concatenate([g.ravel() for g in gradient(images)]) for _ in range(4000)])
    exact = np.concatenate([dW.ravel(), da, db])
    batches = estimates.reshape(40, 100, -1).mean(1)
    se = batches.std(0, ddof=1) / np.sqrt(40)
    np.testing.assert_array_less(np.abs(estimates.mean(0) - exact), 6 * se)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weight_decay": -1e-3}, ValueError, r"weight_decay must be in \[0, inf\); got -0.001"),
        (
            {"weight_decay": float("nan")},
            ValueError,
            r"weight_decay must be in \[0, inf\); got nan",
        ),
        ({"weight_decay": "much"}, TypeError, "weight_decay must be a number; got 'much'"),
        ({"sparsity_target": 0.0}, ValueError, r"sparsity_target must be in \(0, 1\); got 0.0"),
        ({"sparsity_target": 1}, ValueError, r"sparsity_target must be in \(0, 1\); got 1"),
        ({"sparsity_cost": -1}, ValueError, r"sparsity_cost must be in \[0, inf\); got -1"),
    ],
)
def test_bad_penalties_are_refused(stripes, arguments, error, message):
    with pytest.raises(error, match=message):
        RBM(16, 4).fit(stripes, progressbar=False, **arguments)
