"""The Gaussian RBM: energies, gradient, sampling and training, against enumeration and autograd."""

import arviz as az
import numpy as np
import pytest
import torch
import xarray as xr

from pm_neural.datasets import load_ring
from pm_neural.diagnostics import enumerate_states, log_likelihood
from pm_neural.training import EarlyStopping, GaussianRBM
from pm_neural.training.restricted.chains import GaussianChains, LayerChains
from pm_neural.training.restricted.gradient import clip_norm
from pm_neural.training.restricted.negative_phase import make_negative_phase


@pytest.fixture
def machine(rng):
    return random_machine(rng)


def random_machine(rng, n_visible=3, n_hidden=4, **options) -> GaussianRBM:
    rbm = GaussianRBM(n_visible, n_hidden, **{"dtype": torch.float64, **options})
    with torch.no_grad():
        for parameter in rbm.parameters():
            parameter.copy_(torch.as_tensor(rng.normal(scale=0.7, size=tuple(parameter.shape))))
    return rbm


def hidden_states(rbm) -> torch.Tensor:
    return torch.as_tensor(enumerate_states(rbm.n_hidden), dtype=torch.float64)


class Moments:
    """Exact moments of the model: a mixture of Gaussians, one for each hidden state."""

    def __init__(self, rbm):
        self.W, self.a, self.b, self.sigma = rbm.parameters_as_numpy()
        self.h = enumerate_states(rbm.n_hidden).astype(float)
        self.centers = self.a + self.h @ self.W.T
        log_weight = self.h @ self.b + ((self.centers**2 - self.a**2) / self.sigma**2).sum(1) / 2
        self.p = np.exp(log_weight - np.logaddexp.reduce(log_weight))
        self.mean = self.p @ self.centers
        self.second = (self.centers.T * self.p) @ self.centers + np.diag(self.sigma**2)
        self.hidden = self.p @ self.h
        self.cross = (self.centers.T * self.p) @ self.h


# ---------------------------------------------------------------------------------------- energies


def test_free_energy_sums_over_all_hidden_states(machine, rng):
    v, h = torch.as_tensor(rng.normal(size=(5, 3))), hidden_states(machine)
    expected = -torch.logsumexp(-machine.energy(v[:, None], h), dim=1)
    torch.testing.assert_close(machine.free_energy(v), expected)
    torch.testing.assert_close(machine(v), expected)


def test_energy_is_the_formula(machine, rng):
    W, a, b, sigma = machine.parameters_as_numpy()
    v, h = rng.normal(size=3), np.array([1.0, 0.0, 1.0, 1.0])
    expected = ((v - a) ** 2 / (2 * sigma**2)).sum() - b @ h - (v / sigma**2) @ W @ h
    assert machine.energy(torch.as_tensor(v), torch.as_tensor(h)).item() == pytest.approx(expected)


def test_conditionals_are_those_of_the_energy(machine, rng):
    v = torch.as_tensor(rng.normal(size=(5, 3)))
    h = hidden_states(machine)
    joint = torch.softmax(-machine.energy(v[:, None], h), dim=1)
    torch.testing.assert_close(machine.hidden_probabilities(v), joint @ h)
    mean, sigma = machine.visible_means(h[6]), machine.sigma
    log_ratio = machine.energy(mean, h[6]) - machine.energy(v, h[6])
    torch.testing.assert_close(log_ratio, -(((v - mean) / sigma) ** 2).sum(1) / 2)
    error = machine.reconstruction_error(v)
    torch.testing.assert_close(error, ((v - machine.visible_means(joint @ h)) ** 2).sum(1))


def test_sigma_is_a_number_or_one_for_each_unit():
    torch.testing.assert_close(GaussianRBM(2, 1, sigma=0.3).sigma.detach(), torch.tensor([0.3, 0.3]))
    rbm = GaussianRBM(2, 1, sigma=[0.3, 2.0], learn_sigma=False)
    torch.testing.assert_close(rbm.sigma, torch.tensor([0.3, 2.0]))
    assert not rbm.log_sigma.requires_grad


@pytest.mark.parametrize(
    ("sigma", "error", "message"),
    [
        (0.0, ValueError, r"sigma must be positive and finite; got 0\.0"),
        ([1.0, -1.0], ValueError, "sigma must be positive"),
        (np.nan, ValueError, "sigma must be positive and finite; got nan"),
        ([1.0, 1.0, 1.0], ValueError, r"sigma must be a number or have shape \(2,\); got shape \(3,\)"),
        ("wide", TypeError, "sigma must hold real numbers"),
    ],
)
def test_bad_sigma_is_refused(sigma, error, message):
    with pytest.raises(error, match=message):
        GaussianRBM(2, 3, sigma=sigma)


# ---------------------------------------------------------------------------------------- gradient


class GivenStates:
    """A negative phase that returns the states it was given."""

    def __init__(self, layers, states):
        self.settings = {}
        self._layers, self._states = layers, states

    def n_model(self, n_data):
        return len(self._states)

    def fill(self, data, data_mean, v, h_mean):
        self._layers.hidden_mean(data, out=data_mean)
        v[...] = self._states
        self._layers.hidden_mean(v, out=h_mean)


def gradient_of(rbm, layers, phase, data, **options):
    arguments = {"centered": False, "weight_decay": 0.0, "sparsity_target": None, "sparsity_cost": 0.1, **options}
    gradient = rbm._gradient(layers, phase, batch_size=len(data), visible_mean=data.mean(0), **arguments)
    gradient.start_from(data)
    return gradient


def free_energy_slopes(rbm, data, states):
    """Differentiate the difference of mean free energies by autograd."""
    value = rbm.free_energy(torch.as_tensor(states)).mean() - rbm.free_energy(torch.as_tensor(data)).mean()
    return [g.numpy() for g in torch.autograd.grad(value, (rbm.W, rbm.a, rbm.b, rbm.log_sigma))]


@pytest.mark.parametrize("centered", [False, True])
def test_direction_is_the_slope_of_the_free_energies_in_the_units_of_sigma(machine, rng, centered):
    """W and a move by the slope times sigma²; centered, as if W, a + Wλ and b + (μ/σ²)W were the parameters."""
    data, states = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
    layers = machine._layers(rng)
    ours = gradient_of(machine, layers, GivenStates(layers, states), data, centered=centered)(data)
    dW, da, db, dlog_sigma = free_energy_slopes(machine, data, states)
    variance = machine.parameters_as_numpy()[3] ** 2
    if centered:
        mu = data.mean(0)
        lambda_ = machine.hidden_probabilities(torch.as_tensor(data)).mean(0).detach().numpy()
        dW = dW - np.outer(da, lambda_) - np.outer(mu / variance, db)  # slope in the centered parameters
        dW, da = variance[:, None] * dW, variance * da
        da, db = da - dW @ lambda_, db - (mu / variance) @ dW
    else:
        dW, da = variance[:, None] * dW, variance * da
    for got, expected in zip(ours, (dW, da, db, dlog_sigma), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-11)


def test_penalties_and_fixed_sigma(rng):
    machine = random_machine(rng, learn_sigma=False)
    data, states = rng.normal(size=(7, 3)), rng.normal(size=(5, 3))
    layers = machine._layers(rng)
    phase = GivenStates(layers, states)
    plain = [g.copy() for g in gradient_of(machine, layers, phase, data)(data)]
    assert len(plain) == 3
    pulled = gradient_of(machine, layers, phase, data, weight_decay=0.3, sparsity_target=0.1, sparsity_cost=0.5)(data)
    np.testing.assert_allclose(pulled[0], plain[0] - 0.3 * machine.W.detach().numpy(), atol=1e-12)
    activity = machine.hidden_probabilities(torch.as_tensor(data)).mean(0).detach().numpy()
    np.testing.assert_allclose(pulled[2], plain[2] + 0.5 * (0.1 - activity), atol=1e-12)


@pytest.mark.parametrize(("method", "k", "n_chains"), [("pcd", 3, 50), ("pt", 2, 20), ("cd", 30, None)])
def test_gradient_is_the_exact_one_in_expectation(machine, rng, method, k, n_chains):
    """3000 estimates, error bars from 30 batches of 100; 22 entries within 6 of them.

    With 29 degrees of freedom |t| > 6 has probability 2e-6, so a false alarm 4e-5 per case.
    """
    with torch.no_grad():
        machine.W.mul_(0.5)
        machine.log_sigma.mul_(0.3)
    data = rng.normal(size=(7, 3))
    model = Moments(machine)
    W, a, b, sigma = machine.parameters_as_numpy()
    h_data = 1 / (1 + np.exp(-(b + (data / sigma**2) @ W)))
    cross = data.T @ h_data / len(data) - model.cross
    second = (data**2).mean(0) - np.diag(model.second)
    da = data.mean(0) - model.mean
    dlog_sigma = (second - 2 * a * da - 2 * (W * cross).sum(1)) / sigma**2
    exact = np.concatenate([cross.ravel(), da, h_data.mean(0) - model.hidden, dlog_sigma])

    layers = machine._layers(rng)
    phase = make_negative_phase(
        layers, method=method, k=k, batch_size=7, n_chains=n_chains, n_temperatures=None, rng=rng
    )
    gradient = gradient_of(machine, layers, phase, data)
    for _ in range(50):
        gradient(data)
    estimates = np.array([np.concatenate([g.ravel() for g in gradient(data)]) for _ in range(3000)])
    batches = estimates.reshape(30, 100, -1).mean(1)
    se = batches.std(0, ddof=1) / np.sqrt(30)
    np.testing.assert_array_less(np.abs(estimates.mean(0) - exact), 6 * se)


def test_long_gradients_are_cut(rng):
    gradient = tuple(rng.normal(size=shape) for shape in ((3, 4), 3, 4))
    before = [g.copy() for g in gradient]
    norm = np.sqrt(sum((g**2).sum() for g in before))
    clip_norm(gradient, 2 * norm)
    for got, was in zip(gradient, before, strict=True):
        np.testing.assert_array_equal(got, was)
    clip_norm(gradient, norm / 5)
    for got, was in zip(gradient, before, strict=True):
        np.testing.assert_allclose(got, was / 5)


# ---------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [GaussianChains, LayerChains])
def test_many_chains_have_the_exact_moments(rng, kind, dtype):
    """20,000 chains after 60 sweeps: 3 means, 9 second moments and 4 hidden means within 5 standard errors: 1e-5."""
    machine = random_machine(rng)
    with torch.no_grad():  # of overlapping Gaussians, between which chains move
        machine.W.mul_(0.5)
        machine.log_sigma.mul_(0.3)
    machine = machine.to(dtype)
    exact = Moments(machine)
    n = 20_000
    start = machine._start_state(n, rng)
    chains = machine._start_chains(start, rng) if kind is GaussianChains else LayerChains(machine._layers(rng), start)
    assert isinstance(chains, kind)
    chains.sweep(60)
    v, h = chains.v.double().numpy(), chains.h.double().numpy()
    products = (v[:, :, None] * v[:, None, :]).reshape(n, -1)
    for sample, expected in ((v, exact.mean), (products, exact.second.ravel()), (h, exact.hidden)):
        se = sample.std(0) / np.sqrt(n)
        np.testing.assert_array_less(np.abs(sample.mean(0) - expected), 5 * se)


def test_torch_noise_has_the_moments_it_should(rng):
    """100,000 numbers: mean and variance of 3 columns within 5 standard errors: 4e-6."""
    from pm_neural.fitting.backend import TorchBackend

    backend = TorchBackend(torch.float64, rng, "cpu")
    offset = torch.ones(100_000, 3, dtype=torch.float64)
    sd = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    backend.sample_normal(offset, mean=torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), sd=sd)
    z = (offset - torch.tensor([1.0, 2.0, 3.0])) / sd
    assert (z.mean(0).abs() < 5 / np.sqrt(100_000)).all()
    assert ((z.var(0) - 1).abs() < 5 * np.sqrt(2 / 100_000)).all()


def test_draws_are_a_datatree_of_the_parameters_type(machine):
    draws = machine.float().sample(3, 5, random_seed=1).posterior["v"]
    assert draws.dims == ("chain", "draw", "visible")
    assert draws.shape == (3, 5, 3)
    assert draws.dtype == np.float32
    np.testing.assert_array_equal(draws, machine.sample(3, 5, random_seed=1).posterior["v"])
    assert len(az.summary(machine.sample(2, 50, random_seed=1))) == 3
    v, h = machine.gibbs(np.zeros((2, 3)), 4, random_seed=1)
    assert v.shape == (2, 3)
    assert set(h.unique().tolist()) <= {0.0, 1.0}


def test_bad_start_states_are_refused(machine):
    with pytest.raises(ValueError, match=r"v must have shape \(n, 3\)"):
        machine.gibbs([[0.0, 1.0]])
    with pytest.raises(ValueError, match="start must hold finite numbers; got inf in row 0, column 2"):
        machine.sample(1, 1, start=[[0.0, 1.0, np.inf]])


# ---------------------------------------------------------------------------------------- training


@pytest.fixture
def clusters(rng):
    """Three clusters in the plane, of standard deviation 0.1."""
    centers = np.array([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])
    return centers[rng.integers(3, size=150)] + 0.1 * rng.normal(size=(150, 2))


def fit(X, checkpoint=None, learn_sigma=True, **options) -> tuple[GaussianRBM, xr.Dataset]:
    rbm = GaussianRBM(2, 6, sigma=0.3, learn_sigma=learn_sigma)
    arguments = {"epochs": 12, "progressbar": False, "random_seed": 3, **options}
    return rbm, rbm.fit(X, checkpoint=checkpoint, **arguments)


def assert_same(one, other) -> None:
    for x, y in zip(one[0].parameters_as_numpy(), other[0].parameters_as_numpy(), strict=True):
        np.testing.assert_array_equal(x, y)
    xr.testing.assert_identical(one[1].drop_vars("seconds").drop_attrs(), other[1].drop_vars("seconds").drop_attrs())


def test_training_finds_a_ring_and_its_width():
    """The expected log-likelihood comes within 0.06 nats of the truth, 0.02 over what five seeds reach; W = 0: 1.2."""
    ring = load_ring()
    rbm = GaussianRBM(2, 100, sigma=0.2)
    history = rbm.fit(ring.train, epochs=500, random_seed=1, progressbar=False)
    points, weights = ring.quadrature()
    difference = log_likelihood(rbm, points, method="quadrature").per_row - ring.log_density(points)
    assert weights @ difference > -0.06
    np.testing.assert_allclose(rbm.sigma.detach(), 0.1, atol=0.03)
    assert list(history.data_vars) == ["reconstruction_error", "weight_norm", "sigma", "seconds"]
    assert history.attrs["sigma_learning_rate"] == pytest.approx(0.003)
    assert history["sigma"][-1].item() == pytest.approx(rbm.sigma.mean().item(), rel=1e-6)


def test_fixed_sigma_stays(clusters):
    rbm, _ = fit(clusters, learn_sigma=False)
    torch.testing.assert_close(rbm.sigma, torch.full((2,), 0.3))
    with pytest.raises(ValueError, match="sigma_learning_rate: sigma is not learnt"):
        rbm.fit(clusters, sigma_learning_rate=0.1, progressbar=False)


def test_training_does_not_depend_on_the_unit_of_measurement(clusters):
    """Data and sigma 8 times as large: W, a and sigma come out 8 times as large, and b the same."""
    W, a, b, sigma = fit(clusters)[0].parameters_as_numpy()
    large = GaussianRBM(2, 6, sigma=0.3 * 8)
    large.fit(8 * clusters, epochs=12, random_seed=3, progressbar=False)
    for got, expected in zip(large.parameters_as_numpy(), (8 * W, 8 * a, b, 8 * sigma), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-4)


def test_training_in_float64_sees_the_data_in_float64(clusters):
    """In float32 all of these data are 1, and sigma shrinks to nothing."""
    rbm = GaussianRBM(2, 6, sigma=0.3e-8, dtype=torch.float64)
    rbm.fit(1 + 1e-8 * clusters, epochs=5, random_seed=3, progressbar=False)
    assert ((rbm.sigma > 0.1e-8) & (rbm.sigma < 1e-8)).all()


def test_sigma_has_a_learning_rate_of_its_own(clusters):
    slow = fit(clusters, sigma_learning_rate=1e-9)[0]
    np.testing.assert_allclose(slow.sigma.detach(), 0.3, rtol=1e-5)
    adam = fit(clusters, optimizer=torch.optim.Adam, sigma_learning_rate=1e-9)[0]
    np.testing.assert_allclose(adam.sigma.detach(), 0.3, rtol=1e-5)
    assert adam.W.abs().max() > 0.01
    moving = fit(clusters, optimizer=torch.optim.Adam, learning_rate=0.01)[0]
    assert (moving.sigma.detach() - 0.3).abs().min() > 1e-3
    rbm = GaussianRBM(2, 6)
    with pytest.raises(ValueError, match="sigma_learning_rate belongs to an optimizer that fit makes"):
        rbm.fit(clusters, optimizer=torch.optim.Adam(rbm.parameters()), sigma_learning_rate=0.1, progressbar=False)


SETTINGS = {
    "cd": {},
    "pcd": {"method": "pcd", "n_chains": 20},
    "pt": {"method": "pt", "k": 2, "n_chains": 4},
    "momentum": {"momentum": 0.9, "learning_rate": 0.002, "max_gradient_norm": 1.0},
    "adam": {"optimizer": torch.optim.Adam, "sigma_learning_rate": 1e-4},
    "fixed": {"learn_sigma": False, "centered": False},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_resumed_training_is_bit_identical(clusters, tmp_path, monkeypatch, name):
    from pm_neural.training.restricted.learner import RBMLearner

    options = {"batch_size": 40, "validation_data": clusters[:9], **SETTINGS[name]}
    path = tmp_path / "rbm.safetensors"
    whole = fit(clusters, **options)
    original = RBMLearner.train_epoch

    def interrupted(self, epoch):
        original(self, epoch)
        if epoch == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RBMLearner, "train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(clusters, path, checkpoint_every=3, **options)
    resumed = fit(clusters, path, resume=True, checkpoint_every=3, **options)
    assert_same(resumed, whole)
    loaded = GaussianRBM.from_checkpoint(path)
    assert loaded.log_sigma.requires_grad == options.get("learn_sigma", True)
    for x, y in zip(loaded.parameters_as_numpy(), whole[0].parameters_as_numpy(), strict=True):
        np.testing.assert_array_equal(x, y)


def test_checkpoints_belong_to_their_data_and_settings(clusters, tmp_path):
    path = tmp_path / "rbm.safetensors"
    fit(clusters, path)
    with pytest.raises(ValueError, match=r"sigma_learning_rate is 0\.5"):
        fit(clusters, path, resume=True, sigma_learning_rate=0.5)
    with pytest.raises(ValueError, match="data is"):
        fit(clusters + 0.01, path, resume=True)


def test_early_stopping_and_the_gap(clusters):
    _, history = fit(
        clusters,
        epochs=200,
        batch_size=10,
        sigma_learning_rate=1e-3,
        validation_data=clusters[:30] + 0.2,
        early_stopping=EarlyStopping(0.1, 2),
        measure_every=2,
    )
    assert int(history["epoch"][-1]) < 200
    assert float(history["free_energy_gap"][-1]) > float(history["free_energy_gap"].min()) + 0.1


def test_divergence_is_told(clusters):
    with pytest.raises(FloatingPointError, match="training diverged"), np.errstate(all="ignore"):
        fit(clusters, learning_rate=1e4, sigma_learning_rate=1e3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"X": [[0.0, np.nan]]}, ValueError, "X must hold finite numbers; got nan in row 0, column 1"),
        ({"X": [[0.0]]}, ValueError, r"X must have shape \(n, 2\)"),
        ({"X": [["a", "b"]]}, TypeError, "X must be an array of numbers; got dtype"),
        ({"sigma_learning_rate": 0}, ValueError, r"sigma_learning_rate must be in \(0, inf\); got 0"),
        ({"max_gradient_norm": 0}, ValueError, r"max_gradient_norm must be in \(0, inf\); got 0"),
        ({"max_gradient_norm": "1"}, TypeError, "max_gradient_norm must be a number; got '1'"),
        ({"validation_data": np.zeros((2, 3))}, ValueError, r"validation_data must have shape \(n, 2\)"),
        ({"method": "nuts"}, ValueError, "method must be 'cd', 'pcd' or 'pt'; got 'nuts'"),
    ],
)
def test_bad_arguments_are_refused(clusters, arguments, error, message):
    with pytest.raises(error, match=message):
        GaussianRBM(2, 3).fit(**{"X": clusters, "progressbar": False, **arguments})
