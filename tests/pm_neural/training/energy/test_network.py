"""Energy networks: energies, Langevin chains, training and likelihood, against what is known in closed form."""

import arviz as az
import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from pm_neural.datasets import load_ring
from pm_neural.diagnostics import log_likelihood
from pm_neural.fitting.backend import TorchBackend
from pm_neural.fitting.checkpoint import load_checkpoint
from pm_neural.training import EarlyStopping, EnergyNetwork
from pm_neural.training.energy.langevin import LangevinChains, StepSizeTuner
from pm_neural.training.energy.learner import EnergyLearner
from pm_neural.training.energy.replay import ReplayedLangevin


class Quadratic(nn.Module):
    """f(x) = k/2 Σ x², so that the density is Gaussian."""

    def __init__(self, k=3.0, dtype=torch.float64):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k, dtype=dtype))

    def forward(self, x):
        return self.k / 2 * x.square().flatten(1).sum(1)


class Double(nn.Module):
    """f(x) = (x² - 1)² k, summed over coordinates: two modes in each."""

    def __init__(self, k=4.0):
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k, dtype=torch.float64))

    def forward(self, x):
        return self.k * (x.square() - 1).square().flatten(1).sum(1)


class Well(nn.Module):
    """The base's density and a narrow Gaussian in equal parts, normalized, so that log Z = 0."""

    def __init__(self, center, sd):
        super().__init__()
        self.center = nn.Parameter(torch.tensor(center, dtype=torch.float64))
        self.sd = sd

    def forward(self, x):
        x = x.flatten(1)
        base = x.square().sum(1) / 2
        log_constant = x.shape[1] * np.log(2 * np.pi) / 2
        in_well = -((x - self.center) / self.sd).square().sum(1) / 2 - x.shape[1] * np.log(self.sd)
        return -torch.logaddexp(-base, in_well) + log_constant + np.log(2) - base


@pytest.fixture
def make_mlp(rng):
    """Make small multilayer perceptrons whose weights come from the test's generator."""

    def make(n_in=2, width=16, dtype=torch.float64):
        layers = [nn.Linear(n_in, width), nn.SiLU(), nn.Linear(width, 1), nn.Flatten(0)]
        module = nn.Sequential(*layers).to(dtype)
        with torch.no_grad():
            for p in module.parameters():
                p.copy_(torch.as_tensor(rng.normal(scale=0.5, size=tuple(p.shape))))
        return module

    return make


def variance_of(network: EnergyNetwork) -> torch.Tensor:
    """Of the Gaussian that a network with a Quadratic is."""
    return 1 / (1 / network.base_sd**2 + network.module.k.detach())


def backend_of(rng) -> TorchBackend:
    return TorchBackend(torch.float64, rng, "cpu")


# ---------------------------------------------------------------------------------------- energies


def test_energy_is_the_base_s_plus_the_module_s(make_mlp, rng):
    module = make_mlp(6)
    network = EnergyNetwork(nn.Sequential(nn.Flatten(1), module), (2, 3), base_mean=0.5, base_sd=[[1.0, 2, 3]] * 2)
    x = torch.as_tensor(rng.normal(size=(4, 2, 3)))
    quadratic = ((x - 0.5) ** 2 / (2 * torch.tensor([1.0, 2, 3]) ** 2)).sum((1, 2))
    torch.testing.assert_close(network(x), module(x.flatten(1)) + quadratic)
    points = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network.base_energy(points).sum(), points)
    torch.testing.assert_close(network.base_gradient(x), slope)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"module": abs}, TypeError, r"module must be a torch.nn.Module; got builtin_function"),
        ({"module": nn.Flatten(0)}, TypeError, "module must have parameters in float32 or float64; got no parameters"),
        ({"module": nn.Linear(2, 1)}, ValueError, r"output must have shape \(2,\); got \(2, 1\)"),
        ({"module": nn.Linear(3, 1)}, ValueError, r"module must map points of shape \(2,\) .* it raised: "),
        (
            {"module": nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1), nn.Flatten(0))},
            ValueError,
            "one alone and several",
        ),
        ({"module": Quadratic(np.nan)}, ValueError, "module must give finite energies around base_mean"),
        ({"shape": 0}, ValueError, "shape must be at least 1; got 0"),
        ({"shape": 2.0}, TypeError, "shape must be an integer"),
        ({"base_sd": 0.0}, ValueError, r"base_sd must be positive; got 0\.0"),
        ({"base_sd": [1.0, 2.0, 3.0]}, ValueError, r"base_sd must be a number or have shape \(2,\); got shape \(3,\)"),
        ({"base_mean": np.inf}, ValueError, "base_mean must hold finite numbers; got inf"),
    ],
)
def test_bad_networks_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        EnergyNetwork(**{"module": Quadratic(), "shape": 2, **arguments})


def test_a_module_that_mixes_the_points_of_a_batch_is_refused():
    class Normalized(Quadratic):
        def forward(self, x):
            return super().forward(x - x.mean(0))

    with pytest.raises(ValueError, match="the same energy in every call and every batch"):
        EnergyNetwork(Normalized(), 2)


# ---------------------------------------------------------------------------------------- Langevin


def test_adjusted_chains_have_the_density(rng):
    """Moments of a Gaussian in two coordinates with unlike variances, beta 0.5, from a start elsewhere.

    4 standard errors from 20,000 independent chains, four moments: false alarms 3e-4.
    """
    network = EnergyNetwork(Quadratic(), 2, base_mean=[1.0, -1.0], base_sd=[1.0, 0.4])
    chains = LangevinChains(network, torch.zeros(20_000, 2, dtype=torch.float64), backend_of(rng))
    chains.beta = 0.5
    for _ in range(150):
        chains.adjusted_step(0.25)
    variance = 1 / (1 / network.base_sd**2 + 1.5)
    mean = variance * network.base_mean / network.base_sd**2
    standard_error = (variance / 20_000).sqrt()
    assert ((chains.x.mean(0) - mean).abs() < 4 * standard_error).all()
    assert ((chains.x.var(0) / variance - 1).abs() < 4 * (2 / 20_000) ** 0.5).all()


def test_the_acceptance_probability_is_the_ratio_of_densities(make_mlp, rng):
    """p(x) q(y | x) a(x, y) = p(y) q(x | y) a(y, x): detailed balance, for the proposals of one step."""
    network = EnergyNetwork(make_mlp(), 2)
    x = torch.as_tensor(rng.normal(size=(200, 2)))
    eta = 0.8

    class Recorded(TorchBackend):
        def uniform(self, n):
            return torch.zeros(n, dtype=torch.float64)  # accept, if it can be

    chains = LangevinChains(network, x, Recorded(torch.float64, rng, "cpu"))
    there = chains.adjusted_step(eta)
    y = chains.x
    assert (y != x).all()

    def log_flow(start, end):
        points = start.clone().requires_grad_()
        energy = network(points)
        (slope,) = torch.autograd.grad(energy.sum(), points)
        move = end - start + eta / 2 * slope
        return -energy.detach() - move.square().sum(1) / (2 * eta)

    ratio = (log_flow(y, x) - log_flow(x, y)).exp()
    torch.testing.assert_close(there, ratio.clamp(max=1))


def test_unadjusted_chains_have_the_variance_that_theory_says(rng):
    """A Gaussian of variance v becomes one of variance v / (1 - eta/4v), with noise √eta.

    4 standard errors from 20,000 chains, 2 coordinates: false alarms 1e-4.
    """
    network = EnergyNetwork(Quadratic(), 2)
    chains = LangevinChains(network, torch.zeros(20_000, 2, dtype=torch.float64), backend_of(rng))
    eta, v = 0.2, 0.25
    for _ in range(60):
        chains.step(eta, eta**0.5)
    assert ((chains.x.var(0) / (v / (1 - eta / (4 * v))) - 1).abs() < 4 * (2 / 20_000) ** 0.5).all()


def test_proposals_without_a_number_are_rejected(rng):
    class Walled(Quadratic):
        def forward(self, x):
            return torch.where(x.flatten(1).abs().amax(1) < 1, super().forward(x), torch.nan)

    network = EnergyNetwork(Walled(), 2, base_sd=0.5)
    chains = LangevinChains(network, torch.zeros(100, 2, dtype=torch.float64), backend_of(rng))
    for _ in range(20):
        chains.adjusted_step(1.0)
    assert (chains.x.abs() < 1).all()


def test_step_size_is_tuned_to_the_target(rng):
    network = EnergyNetwork(Quadratic(100.0), 10)
    chains = LangevinChains(network, network.base_draws(200, backend_of(rng)), backend_of(rng))
    tuner = StepSizeTuner(network.first_step_size())
    rates = []
    for _ in range(200):
        rates.append(chains.adjusted_step(tuner.step_size).mean().item())
        tuner.update(rates[-1])
    assert abs(np.mean(rates[100:]) - 0.57) < 0.02


# ---------------------------------------------------------------------------------------- sampling


def test_sample_gives_a_datatree_of_the_right_density():
    """4 standard errors of 4000 nearly independent chains, 4 numbers: false alarms 3e-4."""
    network = EnergyNetwork(Quadratic(), (2, 2), base_sd=[[0.5, 1.0], [2.0, 4.0]])
    tree = network.sample(4000, 3, burn_in=200, random_seed=5)
    x = tree["posterior"]["x"]
    assert x.dims == ("chain", "draw", "x_dim_0", "x_dim_1")
    assert x.shape == (4000, 3, 2, 2)
    ratio = x.isel(draw=-1).var("chain").to_numpy() / variance_of(network).numpy()
    assert (np.abs(ratio - 1) < 4 * (2 / 4000) ** 0.5).all()
    stats = tree["sample_stats"]
    energy = network(torch.as_tensor(x.to_numpy().reshape(-1, 2, 2))).detach().numpy().reshape(4000, 3)
    np.testing.assert_allclose(stats["network_energy"], energy, rtol=1e-5)
    assert abs(float(stats["acceptance_rate"].mean()) - 0.57) < 0.05
    az.summary(tree["posterior"]["x"].isel(chain=slice(4)).to_dataset(), kind="stats")


def test_sample_is_reproducible_and_starts_where_told(make_mlp):
    network = EnergyNetwork(make_mlp(), 2)
    start = np.full((3, 2), 5.0)
    options = {"burn_in": 0, "step_size": 1e-8, "start": start}
    one, other = (network.sample(3, 4, random_seed=1, **options)["posterior"]["x"] for _ in range(2))
    xr.testing.assert_identical(one, other)
    np.testing.assert_allclose(one, np.broadcast_to(start[:, None], (3, 4, 2)), atol=1e-2)
    assert not one.equals(network.sample(3, 4, random_seed=2, **options)["posterior"]["x"])


def test_the_noise_of_draws_sets_their_temperature():
    """Half the noise, a fourth of the variance; 4 standard errors of 4000 chains: false alarms 6e-5."""
    network = EnergyNetwork(Quadratic(), 1)
    tree = network.sample(4000, 1, step_size=0.01, noise=0.05, adjusted=False, burn_in=300, random_seed=2)
    expected = variance_of(network).item() / 4 / (1 - 0.01 * 4 / 4)
    assert abs(tree["posterior"]["x"].to_numpy().var() / expected - 1) < 4 * (2 / 4000) ** 0.5


def test_chains_have_their_gradients_in_inference_mode(make_mlp):
    network = EnergyNetwork(make_mlp(), 2)
    with torch.inference_mode():
        inside = network.sample(2, 3, burn_in=5, random_seed=1)
        log_z = network.log_partition("ais", n_chains=10, n_steps=5, random_seed=1)
    xr.testing.assert_equal(inside["posterior"]["x"], network.sample(2, 3, burn_in=5, random_seed=1)["posterior"]["x"])
    assert log_z.estimate == network.log_partition("ais", n_chains=10, n_steps=5, random_seed=1).estimate


def test_training_has_its_gradients_in_inference_mode(make_mlp, rng):
    X = rng.normal(size=(20, 2))
    inside, outside = (EnergyNetwork(module, 2) for module in (make_mlp(), make_mlp()))
    outside.load_state_dict(inside.state_dict())
    options = {"epochs": 1, "n_steps": 2, "random_seed": 1, "progressbar": False}
    with torch.inference_mode():
        inside.fit(X, **options)
    outside.fit(X, **options)
    for got, expected in zip(inside.parameters(), outside.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_modules_made_in_inference_mode_are_refused(make_mlp):
    with torch.inference_mode():
        module = make_mlp()
    with pytest.raises(ValueError, match=r"module\..*weight was made in torch\.inference_mode"):
        EnergyNetwork(module, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda network: network.fit(np.zeros((4, 2)), epochs=1, progressbar=False),
        lambda network: network.sample(2, 2, burn_in=2),
        lambda network: network.log_partition(),
        lambda network: network.log_likelihood(np.zeros((4, 2)), log_z=0.0),
    ],
)
def test_dropout_that_is_switched_on_later_is_refused(make_mlp, call):
    """The 64 units of a layer are never all kept, and other ones in the two calls."""
    layers = nn.Sequential(nn.Linear(2, 64), nn.Dropout(), nn.Linear(64, 1), nn.Flatten(0))
    network = EnergyNetwork(layers.eval(), 2)
    network.train()
    with pytest.raises(ValueError, match=r"\(no dropout, no batch normalization\); got .* switch it off with eval"):
        call(network)


def test_a_module_without_anything_to_learn_is_refused(make_mlp):
    network = EnergyNetwork(make_mlp().requires_grad_(False), 2)
    with pytest.raises(ValueError, match="module must have parameters to be learnt; all are frozen"):
        network.fit(np.zeros((4, 2)), epochs=1, progressbar=False)


def test_a_module_that_needs_more_coordinates_is_refused():
    class Third(Quadratic):
        def forward(self, x):
            return super().forward(x[:, 2, None])

    with pytest.raises(ValueError, match=r"module must map points of shape \(2,\) .* it raised: index 2"):
        EnergyNetwork(Third(), 2)


def test_diagnostics_of_rbms_point_to_the_network_s_own_methods(make_mlp):
    network = EnergyNetwork(make_mlp(), 2)
    with pytest.raises(TypeError, match=r"use EnergyNetwork\.log_partition or EnergyNetwork\.log_likelihood"):
        log_likelihood(network, np.zeros((4, 2)))


def test_unadjusted_draws_have_no_acceptance_rate(make_mlp):
    tree = EnergyNetwork(make_mlp(), 2).sample(3, 4, step_size=0.01, adjusted=False, burn_in=5)
    assert set(tree["sample_stats"]) == {"network_energy"}
    assert tree["sample_stats"].attrs["step_size"] == 0.01


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"adjusted": False}, ValueError, "step_size must be given"),
        ({"burn_in": 0}, ValueError, "step_size must be given"),
        ({"step_size": -1.0}, ValueError, r"step_size must be in \(0, inf\); got -1\.0"),
        ({"noise": 0.1}, ValueError, "noise belongs to adjusted=False"),
        ({"noise": -0.1, "adjusted": False, "step_size": 0.1}, ValueError, r"noise must be in \[0, inf\)"),
        ({"n_chains": 0}, ValueError, "n_chains must be at least 1"),
        ({"start": np.zeros((3, 2))}, ValueError, r"start must have one row per chain, 4; got shape \(3, 2\)"),
        ({"start": np.zeros((4, 3))}, ValueError, r"start must have shape \(n, 2\)"),
        (
            {"step_size": 10.0, "adjusted": False},
            FloatingPointError,
            "chains diverged: lower step_size, 10, or set adjusted=True",
        ),
    ],
)
def test_bad_sampling_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        EnergyNetwork(Quadratic(), 2).sample(**{"n_draws": 2, **options})


# ---------------------------------------------------------------------------------------- likelihood


@pytest.mark.parametrize("shape", [1, 2, (1, 2)])
def test_quadrature_is_exact_for_a_gaussian(shape, rng):
    network = EnergyNetwork(Quadratic(40.0), shape, base_mean=0.3, base_sd=np.full(shape, 1.5))
    variance = variance_of(network).flatten().numpy()
    x = rng.normal(size=(5, *network.shape))
    mean = variance * 0.3 / 1.5**2
    flat = x.reshape(5, -1)
    expected = -((flat - mean) ** 2 / (2 * variance) + np.log(2 * np.pi * variance) / 2).sum(1)
    likelihood = network.log_likelihood(x)
    np.testing.assert_allclose(likelihood.per_row, expected, atol=1e-6)
    assert likelihood.mean == pytest.approx(expected.mean())


def test_quadrature_widens_its_grid():
    """A module that undoes most of the base: the density is ten times as wide."""
    network = EnergyNetwork(Quadratic(-0.99), 2)
    assert network.log_partition().estimate == pytest.approx(np.log(2 * np.pi * 100), abs=1e-6)


@pytest.mark.parametrize(("center", "sd"), [(1.0137, 0.004), (1.0, 0.002), (1.0137, 1e-4)])
def test_quadrature_sees_a_narrow_well(center, sd):
    """Half of the mass is in it. Of the last the first grids, of steps of 0.0017 and 0.0009, may show nothing."""
    assert abs(EnergyNetwork(Well(center, sd), 1).log_partition().estimate) < 1e-4


@pytest.mark.parametrize("sd", [0.02, 0.004])
def test_quadrature_in_the_plane_sees_a_narrow_well_or_refuses(sd):
    network = EnergyNetwork(Well((0.0137, 0.42), sd), 2)
    if sd == 0.02:
        assert abs(network.log_partition().estimate) < 1e-4
    else:
        with pytest.raises(ValueError, match="too coarse for this density; use method='ais'"):
            network.log_partition()


@pytest.mark.parametrize(
    ("module", "shape", "options", "message"),
    [
        (Quadratic(), 3, {}, "one or two coordinates, got 3; use method='ais'"),
        (Quadratic(-1.5), 2, {}, "may have no normalizer"),
        (Quadratic(1e9), 2, {}, "too coarse for this density"),
        (Quadratic(), 2, {"method": "exact"}, "method must be 'quadrature' or 'ais'; got 'exact'"),
        (Quadratic(), 2, {"method": "ais", "n_chains": 1}, "n_chains must be at least 2"),
    ],
)
def test_log_partition_refuses(module, shape, options, message):
    with pytest.raises(ValueError, match=message):
        EnergyNetwork(module, shape).log_partition(**options)


def test_ais_agrees_with_quadrature():
    """Two modes in each of two coordinates; 4 standard errors, both directions: false alarms 1e-4."""
    network = EnergyNetwork(Double(), 2, base_mean=0.3)
    exact = network.log_partition().estimate
    ais = network.log_partition("ais", n_chains=1000, n_steps=60, random_seed=3)
    assert abs(ais.estimate - exact) < 4 * ais.standard_error
    assert abs(ais.reverse.estimate - exact) < 4 * ais.reverse.standard_error
    assert 0 < ais.standard_error < 0.03
    assert ais.method == "ais"
    assert ais.reverse.method == "reverse ais"


def test_ais_weights_are_unbiased_with_few_temperatures():
    """The mean weight is Z even if a few steps are far too few; 4 standard errors: false alarms 1e-4."""
    network = EnergyNetwork(Quadratic(1.0), 3)
    exact = 1.5 * np.log(2 * np.pi * 0.5)
    ais = network.log_partition("ais", n_chains=4000, n_steps=3, random_seed=3)
    assert ais.effective_sample_size < 3800
    assert abs(ais.estimate - exact) < 4 * ais.standard_error


# ---------------------------------------------------------------------------------------- training


def test_direction_is_the_slope_of_the_objective(make_mlp, rng):
    network = EnergyNetwork(make_mlp(), 2)
    data, states = torch.as_tensor(rng.normal(size=(7, 2))), torch.as_tensor(rng.normal(size=(5, 2)))
    learner = EnergyLearner.__new__(EnergyLearner)
    learner._model, learner.parameters = network, network.learnt_parameters()
    learner._energy_regularization = 0.1
    learner._negatives = type("Given", (), {"draw": lambda self: states})()
    f = network.module
    objective = f(states).mean() - f(data).mean() - 0.1 * ((f(data) ** 2).mean() + (f(states) ** 2).mean())
    expected = torch.autograd.grad(objective, network.learnt_parameters())
    torch.testing.assert_close(learner._gradient(data), expected)


def test_training_finds_the_variance(rng):
    """A Gaussian is learnt: k of the module ends where the data's variance wants it.

    Its standard error from 4000 points of 2 coordinates is 1.6 % of the precision, 4: tolerance 7 %, false alarms 1e-4.
    """
    X = rng.normal(scale=0.5, size=(4000, 2))
    network = EnergyNetwork(Quadratic(0.5), 2)
    options = {"epochs": 60, "batch_size": 500, "adjusted": True, "step_size": 0.1, "n_steps": 5}
    history = network.fit(X, learning_rate=0.1, random_seed=1, progressbar=False, **options)
    assert variance_of(network).mean().item() == pytest.approx(X.var(), rel=0.07)
    assert abs(history["data_energy"][-1] - history["chain_energy"][-1]) < 0.2
    assert 0.5 < history["acceptance_rate"][-1] < 1


def test_the_noise_sets_the_temperature_of_what_is_learnt(rng):
    """Chains with half the noise of their step size sample the energy times four: a fourth of it is learnt."""
    X = rng.normal(scale=0.5, size=(2000, 1))
    precisions = []
    for noise in (0.05**0.5, 0.05**0.5 / 2):
        network = EnergyNetwork(Quadratic(2.0), 1, base_sd=2.0)
        chains = {
            "step_size": 0.05,
            "noise": noise,
            "buffer_size": 500,
            "reinitialized_fraction": 0.0,
            "adjusted": False,
        }
        network.fit(X, epochs=80, batch_size=500, learning_rate=0.05, random_seed=1, progressbar=False, **chains)
        precisions.append(1 / variance_of(network).item())
    one, half = precisions
    assert one == pytest.approx(1 / X.var(), rel=0.15)
    assert half == pytest.approx(one / 4, rel=0.15)


def test_regularization_keeps_energies_small(make_mlp, rng):
    X = rng.normal(scale=0.2, size=(200, 2))
    sizes = []
    for penalty in (0.0, 1.0):
        network = EnergyNetwork(make_mlp(), 2)
        options = {"epochs": 20, "batch_size": 50, "learning_rate": 0.01, "random_seed": 1, "progressbar": False}
        network.fit(X, energy_regularization=penalty, **options)
        sizes.append(network.learnt_energy(torch.as_tensor(X)).abs().mean().item())
    assert sizes[1] < 0.3 * sizes[0]


def test_fresh_starts_come_from_the_base(rng):
    network = EnergyNetwork(Quadratic(0.0), 1, base_mean=3.0)
    options = {"n_chains": 400, "n_steps": 1, "step_size": 1e-12, "noise": None, "adjusted": False}
    states = {}
    for fraction in (0.0, 0.25, 1.0):
        phase = ReplayedLangevin(
            network, backend_of(rng), buffer_size=400, reinitialized_fraction=fraction, rng=rng, **options
        )
        phase.buffer.fill_(-100.0)
        states[fraction] = phase.draw()
        torch.testing.assert_close(phase.buffer.sort(0).values, states[fraction].sort(0).values)
    assert (states[0.0] < -99).all()
    assert (states[1.0] > -5).all()
    # binomial: 100 ± 8.7, 4 standard errors
    assert abs(int((states[0.25] > -5).sum()) - 100) < 35


def test_a_long_gradient_is_cut(make_mlp, rng):
    """Plain ascent with rate 1 and one update: no parameter can move by more than the norm."""
    network = EnergyNetwork(make_mlp(), 2)
    before = [p.detach().clone() for p in network.learnt_parameters()]
    options = {"optimizer": "sgd", "learning_rate": 1.0, "epochs": 1, "batch_size": 30, "progressbar": False}
    network.fit(rng.normal(size=(30, 2)) + 9, max_gradient_norm=0.1, random_seed=1, **options)
    moved = sum(((p - q) ** 2).sum() for p, q in zip(network.learnt_parameters(), before, strict=True)) ** 0.5
    assert moved.item() == pytest.approx(0.1)


def test_frozen_parameters_stay(make_mlp, rng):
    network = EnergyNetwork(make_mlp(), 2)
    first = network.module[0].weight.requires_grad_(False)
    before = first.clone()
    network.fit(rng.normal(size=(30, 2)), epochs=2, progressbar=False, random_seed=1)
    torch.testing.assert_close(first, before, rtol=0, atol=0)


def fit_ring(make_mlp, path=None, **options) -> tuple[EnergyNetwork, xr.Dataset]:
    ring = load_ring(60)
    network = EnergyNetwork(make_mlp(dtype=torch.float32), 2)
    arguments = {
        "epochs": 6,
        "batch_size": 25,
        "n_steps": 3,
        "buffer_size": 40,
        "adjusted": False,
        "random_seed": 3,
        "measure_every": 2,
    }
    arguments |= {"progressbar": False, "checkpoint": path, "validation_data": ring.test[:20], **options}
    return network, network.fit(ring.train, **arguments)


@pytest.fixture
def fit(make_mlp):
    """Train networks that all start from the same weights."""
    module = make_mlp(dtype=torch.float32)
    state = {name: value.clone() for name, value in module.state_dict().items()}

    def same(dtype):
        module = make_mlp(dtype=dtype)
        module.load_state_dict(state)
        return module

    return lambda *args, **options: fit_ring(same, *args, **options)


def assert_same(one, other):
    for p, q in zip(one[0].parameters(), other[0].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)
    xr.testing.assert_identical(one[1].drop_vars("seconds").drop_attrs(), other[1].drop_vars("seconds").drop_attrs())


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(
    "options", [{}, {"adjusted": True}, {"optimizer": "sgd"}, {"early_stopping": EarlyStopping(1e3), "noise": 0.01}]
)
def test_resumed_training_is_bit_identical(fit, tmp_path, monkeypatch, options):
    path = tmp_path / "network.safetensors"
    whole = fit(**options)
    original = EnergyLearner.train_epoch

    def train_epoch(self, epoch):
        original(self, epoch)
        if epoch == 4:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(EnergyLearner, "train_epoch", train_epoch)
        with pytest.raises(Interrupted):
            fit(path, checkpoint_every=3, **options)
    assert load_checkpoint(path, kind="EnergyNetwork")["epoch"] == 3
    assert_same(fit(path, resume=True, checkpoint_every=3, **{**options, "random_seed": 99}), whole)


def test_training_is_reproducible(fit):
    assert_same(fit(), fit())
    with pytest.raises(AssertionError):
        assert_same(fit(), fit(random_seed=4))


def test_history_tells_what_was_measured(fit):
    network, history = fit(max_gradient_norm=5.0)
    assert set(history) == {"data_energy", "chain_energy", "acceptance_rate", "free_energy_gap", "seconds"}
    np.testing.assert_array_equal(history["epoch"], [2, 4, 6])
    assert history.attrs["step_size"] == 0.01
    assert history.attrs["noise"] == pytest.approx(0.1)
    assert history.attrs["max_gradient_norm"] == 5.0
    ring = load_ring(60)
    gap = [network(torch.as_tensor(X, dtype=torch.float32)).mean().item() for X in (ring.test[:20], ring.train)]
    assert history["free_energy_gap"].item(-1) == pytest.approx(gap[0] - gap[1], abs=1e-5)


def test_history_can_be_saved(fit, tmp_path):
    _, history = fit()
    history.to_netcdf(tmp_path / "history.nc")
    xr.testing.assert_equal(xr.load_dataset(tmp_path / "history.nc"), history)


def test_early_stopping_brings_back_the_parameters_it_kept(fit):
    rule = EarlyStopping(tolerance=0.0, patience=2)
    network, history = fit(epochs=400, measure_every=1, early_stopping=rule, learning_rate=0.05)
    stop = history.sizes["epoch"]
    assert stop < 400
    gap = history["free_energy_gap"]
    assert gap[-1] > gap.min()
    ring = load_ring(60)
    energies = [network(torch.as_tensor(X, dtype=torch.float32)).mean().item() for X in (ring.test[:20], ring.train)]
    assert energies[0] - energies[1] == pytest.approx(gap.min().item(), abs=1e-5)


def test_a_checkpoint_gives_its_parameters_to_a_network_of_its_kind(fit, make_mlp, tmp_path):
    path = tmp_path / "network.safetensors"
    network, _ = fit(path)
    other = EnergyNetwork.from_checkpoint(path, make_mlp(dtype=torch.float32))
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)
    with pytest.raises(ValueError, match="is that of another network"):
        EnergyNetwork.from_checkpoint(path, make_mlp(width=5))
    wider = EnergyNetwork(make_mlp(dtype=torch.float32), 2, base_sd=2.0)
    with (
        pytest.warns(DeprecationWarning, match="use EnergyNetwork.from_checkpoint"),
        pytest.raises(ValueError, match="is that of another network"),
    ):
        wider.load_checkpoint(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="cut short"):
        EnergyNetwork.from_checkpoint(path, make_mlp())


@pytest.mark.parametrize(
    ("change", "message"),
    [({"step_size": 0.02}, "step_size is 0.02, and was 0.01"), ({"noise": 0.5}, "noise is 0.5, and was 0.1")],
)
def test_resuming_with_other_arguments_is_refused(fit, tmp_path, change, message):
    path = tmp_path / "network.safetensors"
    fit(path)
    with pytest.raises(ValueError, match=message):
        fit(path, resume=True, **change)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_steps": 0}, ValueError, "n_steps must be at least 1; got 0"),
        ({"step_size": 0.0}, ValueError, r"step_size must be in \(0, inf\); got 0\.0"),
        ({"noise": -1.0}, ValueError, r"noise must be in \[0, inf\); got -1\.0"),
        ({"noise": 0.1, "adjusted": True}, ValueError, "noise belongs to adjusted=False"),
        ({"buffer_size": 10}, ValueError, "buffer_size must be at least n_chains, 25; got 10"),
        ({"reinitialized_fraction": 1.5}, ValueError, r"reinitialized_fraction must be in \[0, 1\]; got 1\.5"),
        ({"energy_regularization": -1}, ValueError, "energy_regularization must be in"),
        ({"max_gradient_norm": 0}, ValueError, "max_gradient_norm must be in"),
        ({"learning_rate_schedule": "step"}, ValueError, "learning_rate_schedule must be one of"),
        ({"validation_data": np.zeros((3, 3))}, ValueError, r"validation_data must have shape \(n, 2\)"),
        ({"validation_data": None, "early_stopping": EarlyStopping()}, ValueError, "early_stopping watches"),
        ({"resume": True}, ValueError, "resume=True needs the path of a checkpoint"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"step_size": 1000.0}, FloatingPointError, "chains are not finite; lower step_size"),
    ],
)
def test_bad_training_is_refused(fit, options, error, message):
    with pytest.raises(error, match=message):
        fit(**options)


def test_data_of_the_wrong_shape_are_refused(make_mlp):
    network = EnergyNetwork(nn.Sequential(nn.Flatten(1), make_mlp(6)), (2, 3))
    with pytest.raises(ValueError, match=r"X must have shape \(n, 2, 3\) with n >= 1; got shape \(5, 6\)"):
        network.fit(np.zeros((5, 6)))
    X = np.zeros((5, 2, 3))
    X[3, 1, 2] = np.nan
    with pytest.raises(ValueError, match=r"X must hold finite numbers; got nan in row 3, place \(1, 2\)"):
        network.log_likelihood(X)


@pytest.mark.slow
def test_the_ring_is_learnt():
    """Expected log-likelihood under the true density, by quadrature: less than 0.05 nats below the truth."""
    ring = load_ring()
    points, weights = ring.quadrature()
    generator = torch.Generator().manual_seed(1)
    layers = [nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1), nn.Flatten(0)]
    for layer in layers[::2]:
        nn.init.kaiming_uniform_(layer.weight, generator=generator)
        nn.init.zeros_(layer.bias)
    network = EnergyNetwork(nn.Sequential(*layers), 2)
    network.fit(ring.train, epochs=400, adjusted=True, learning_rate=3e-3, random_seed=1, progressbar=False)
    log_p = network.log_likelihood(points).per_row
    assert weights @ (ring.log_density(points) - log_p) < 0.05
