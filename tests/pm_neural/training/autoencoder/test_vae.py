from itertools import pairwise

import arviz as az
import numpy as np
import pytest
import torch
import xarray as xr
from scipy.integrate import trapezoid
from scipy.stats import norm

from pm_neural.datasets import load_digits
from pm_neural.fitting.checkpoint import load_checkpoint
from pm_neural.training import VAE, EarlyStopping
from pm_neural.training.autoencoder.learner import VAELearner

EPOCHS = 6


@pytest.fixture
def random_vae(rng):
    """Make an autoencoder with parameters from N(0, 0.6²), whose encoder is close to N(0, 1.5²)."""

    def make(shape=6, n_latent=1, **options) -> VAE:
        vae = VAE(shape, n_latent, **{"n_hidden": [5], "dtype": torch.float64, **options})
        with torch.no_grad():
            for parameter in vae.parameters():
                parameter.copy_(torch.as_tensor(rng.normal(scale=0.6, size=tuple(parameter.shape))))
            vae.encoder[-1].weight.mul_(0.2)
            vae.encoder[-1].bias[n_latent:] = np.log(1.5)
        return vae

    return make


def quadrature(vae: VAE, x: np.ndarray) -> np.ndarray:
    """Integrate p(x | z) p(z) over a code of length 1, by the trapezoidal rule; independent of the estimators."""
    z = np.linspace(-9, 9, 4001)
    output = vae.decode(z[:, None]).numpy()
    if vae.options["likelihood"] == "bernoulli":
        likelihood = np.prod(np.where(x[:, None] == 1, output, 1 - output), axis=-1)
    else:
        likelihood = norm.pdf(x[:, None], output, vae.sigma).prod(-1)
    return np.log(trapezoid(likelihood * norm.pdf(z), z, axis=-1))


def fit(X, checkpoint=None, *, model=None, **options) -> tuple[VAE, xr.Dataset]:
    vae = VAE(**{"shape": X.shape[1], "n_latent": 2, "n_hidden": [8], **(model or {})})
    arguments = {"epochs": EPOCHS, "batch_size": 7, "progressbar": False, "random_seed": 3, **options}
    return vae, vae.fit(X, checkpoint=checkpoint, **arguments)


class Interrupted(Exception):
    pass


def assert_same(one: tuple[VAE, xr.Dataset], other: tuple[VAE, xr.Dataset]) -> None:
    for name, value in one[0].state_dict().items():
        np.testing.assert_array_equal(value, other[0].state_dict()[name])
    xr.testing.assert_identical(one[1].drop_vars("seconds").drop_attrs(), other[1].drop_vars("seconds").drop_attrs())


# The model


@pytest.mark.parametrize("shape", [(8, 8), (7, 5), (28, 28), (1, 3)])
def test_convolutions_map_every_image_to_a_code_and_back(random_vae, rng, shape):
    vae = random_vae(shape, 3, network="convolutional", n_hidden=[2, 3])
    images = rng.integers(2, size=(4, np.prod(shape)))
    code = vae.encode(images)
    assert code.mean.shape == code.sd.shape == (4, 3)
    assert vae.decode(rng.normal(size=(2, 4, 3))).shape == (2, 4, np.prod(shape))


@pytest.mark.parametrize("network", ["mlp", "convolutional"])
def test_a_new_one_says_nothing(network):
    vae = VAE((4, 4), 2, network=network)
    code = vae.encode(np.ones((3, 16)))
    np.testing.assert_array_equal(code.mean, np.zeros((3, 2)))
    np.testing.assert_array_equal(code.sd, np.ones((3, 2)))
    np.testing.assert_array_equal(vae.decode(np.ones((3, 2))), np.full((3, 16), 0.5))


@pytest.mark.parametrize("network", ["mlp", "convolutional"])
def test_a_code_is_decoded_alike_in_every_batch(random_vae, rng, network):
    vae = random_vae((4, 4), 2, network=network, n_hidden=[3])
    z = rng.normal(size=(2, 3, 2))
    together = vae.decode(z)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(vae.decode(z[index]), together[index], rtol=1e-12)


def test_draws_have_the_decoded_means(random_vae, rng):
    """4.5 standard errors on 6 + 6 pixels: one false alarm in 12,000."""
    z = np.repeat(rng.normal(size=(1, 2)), 20_000, axis=0)
    bernoulli = random_vae(n_latent=2)
    gaussian = random_vae(n_latent=2, likelihood="gaussian", sigma=0.7)
    for vae, sd in ((bernoulli, None), (gaussian, 0.7)):
        x, mean = vae.draw(z, random_seed=rng).numpy(), vae.decode(z[0]).numpy()
        sd = np.sqrt(mean * (1 - mean)) if sd is None else sd
        assert (np.abs(x.mean(0) - mean) < 4.5 * sd / np.sqrt(len(z))).all()
        np.testing.assert_allclose(x.std(0), np.broadcast_to(sd, 6), atol=0.02)


def test_samples_are_binary_with_codes_beside_them(random_vae):
    """The correlation of pixels and their decoded means: a false alarm at 6 standard errors."""
    vae = random_vae(n_latent=2)
    tree = vae.sample(2000, random_seed=1)
    z, x = tree["prior"]["z"], tree["prior_predictive"]["x"]
    assert z.dims == ("chain", "draw", "latent")
    assert x.dims == ("chain", "draw", "visible")
    assert x.dtype == np.int8
    assert len(az.summary(tree["prior"].to_dataset(), kind="stats")) == 2
    assert abs(z.to_numpy()).mean() == pytest.approx(np.sqrt(2 / np.pi), abs=6 * 0.6 / np.sqrt(4000))
    residual = x.to_numpy()[0] - vae.decode(z.to_numpy()[0]).numpy()
    assert (np.abs(residual.mean(0)) < 6 * 0.5 / np.sqrt(2000)).all()
    assert tree.equals(vae.sample(2000, random_seed=1))


# Likelihoods


@pytest.mark.parametrize("options", [{}, {"likelihood": "gaussian", "sigma": 0.5}])
def test_elbo_is_the_expectation_under_the_encoder(random_vae, rng, options):
    """Against Gauss-Hermite quadrature, at 5 standard errors of 4 rows: a false alarm in 400,000."""
    vae = random_vae(**options)
    x = rng.integers(2, size=(4, 6))
    mean, sd = (part.numpy() for part in vae.encode(x))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    z = mean + sd * nodes  # (4, 60)
    terms = vae.conditional_log_likelihood(
        torch.as_tensor(x[:, None], dtype=torch.float64), torch.as_tensor(z)[..., None]
    )
    log_ratio = norm.logpdf(z) - norm.logpdf(z, mean, sd)
    reconstruction = terms.sum(-1).detach().numpy()
    exact = ((reconstruction + log_ratio) * weights).sum(-1)
    spread = np.sqrt((reconstruction**2 * weights).sum(-1) - (reconstruction * weights).sum(-1) ** 2)
    n = 20_000
    error = np.abs(vae.elbo(x, n_samples=n, random_seed=rng).numpy() - exact)
    assert (error < 5 * spread / np.sqrt(n) + 1e-9).all()


@pytest.mark.parametrize("options", [{}, {"likelihood": "gaussian", "sigma": 0.5}])
def test_importance_weights_average_to_the_probability(random_vae, rng, options):
    """At 5 standard errors of 5 rows: a false alarm in 300,000."""
    vae = random_vae(**options)
    x = rng.integers(2, size=(5, 6))
    estimate = vae.log_likelihood(x, n_importance=20_000, random_seed=rng)
    assert (np.abs(estimate.per_row - quadrature(vae, x)) < 5 * estimate.per_row_error).all()
    assert (estimate.per_row_error < 0.2).all()
    assert estimate.mean == pytest.approx(estimate.per_row.mean())
    assert (estimate.effective_sample_size <= 20_000).all()


def test_importance_estimate_does_not_depend_on_how_it_is_cut_up(random_vae, rng, monkeypatch):
    vae = random_vae()
    x = rng.integers(2, size=(3, 6))
    monkeypatch.setattr("pm_neural.training.autoencoder.vae._OUTPUTS_AT_ONCE", 6 * 700)
    estimate = vae.log_likelihood(x, n_importance=20_001, random_seed=rng)
    assert (np.abs(estimate.per_row - quadrature(vae, x)) < 5 * estimate.per_row_error).all()


@pytest.mark.parametrize("options", [{}, {"likelihood": "gaussian", "sigma": 0.5}])
def test_annealing_brackets_the_probability(random_vae, rng, options):
    """Both directions at 5 standard errors of 5 rows: a false alarm in 150,000."""
    vae = random_vae(**options)
    x = rng.integers(2, size=(5, 6))
    forward = vae.annealed_log_likelihood(x, n_chains=400, n_steps=100, random_seed=rng)
    exact = quadrature(vae, x)
    for estimate in (forward, forward.reverse):
        assert (np.abs(estimate.per_row - exact) < 5 * estimate.per_row_error).all()
        assert (estimate.per_row_error < 0.1).all()


def test_annealing_has_its_gradients_in_inference_mode(random_vae):
    vae = random_vae()
    with torch.inference_mode():
        inside = vae.annealed_log_likelihood(np.eye(6), n_chains=2, n_steps=3, random_seed=1)
    assert inside.mean == vae.annealed_log_likelihood(np.eye(6), n_chains=2, n_steps=3, random_seed=1).mean


def test_an_autoencoder_is_made_and_trained_in_inference_mode_as_elsewhere(stripes):
    def trained():
        vae = VAE(stripes.shape[1], n_latent=1, n_hidden=[4])
        vae.fit(stripes[:20], epochs=1, random_seed=1, progressbar=False)
        return vae.decode(np.ones((1, 1)))

    with torch.inference_mode():
        inside = trained()
    torch.testing.assert_close(inside.clone(), trained(), rtol=0, atol=0)


def test_annealing_corrects_an_encoder_that_knows_nothing(random_vae, rng):
    """At 5 standard errors: a false alarm in 10^6. Importance sampling fails here, and says so."""
    vae = random_vae(40)
    x = np.ones((1, 40))
    with torch.no_grad():
        vae.encoder[-1].weight.zero_()
        vae.encoder[-1].bias.copy_(torch.tensor([3.0, -0.5]))
    annealed = vae.annealed_log_likelihood(x, n_chains=200, n_steps=200, random_seed=rng)
    assert abs(annealed.per_row[0] - quadrature(vae, x)[0]) < 5 * annealed.per_row_error[0]
    assert annealed.effective_sample_size[0] > vae.log_likelihood(x, n_importance=200).effective_sample_size[0]


def test_estimates_say_what_they_are(random_vae):
    estimate = random_vae().annealed_log_likelihood(np.eye(6), n_chains=4, n_steps=5, random_seed=1)
    assert str(estimate).startswith(f"log likelihood = {estimate.mean:.3f} ± ")
    assert "(ais, 6 rows" in str(estimate)
    assert "(reverse ais, 6 rows" in str(estimate)


# Training


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ({}, {}),
        ({"shape": (4, 4), "network": "convolutional", "n_hidden": [3]}, {}),
        ({"likelihood": "gaussian", "sigma": "learnt"}, {"beta": 0.5, "warm_up": 3}),
        ({"dtype": torch.float64}, {"optimizer": torch.optim.RMSprop, "learning_rate": None}),
        ({}, {"optimizer": "sgd", "learning_rate": 0.01}),
    ],
    ids=["mlp", "convolutional", "gaussian", "rmsprop", "sgd"],
)
def test_resumed_training_is_bit_identical(stripes, tmp_path, monkeypatch, model, options):
    def train_epoch(self, epoch, original=VAELearner.train_epoch):
        original(self, epoch)
        if epoch == 4:
            raise Interrupted

    path = tmp_path / "vae.safetensors"
    common = {"model": model, "validation_data": stripes[:9], "checkpoint_every": 3, **options}
    whole = fit(stripes, **common)
    with monkeypatch.context() as patch:
        patch.setattr(VAELearner, "train_epoch", train_epoch)
        with pytest.raises(Interrupted):
            fit(stripes, path, **common)
    assert load_checkpoint(path, kind="VAE")["epoch"] == 3
    resumed = fit(stripes, path, resume=True, **{**common, "random_seed": 99})
    assert_same(resumed, whole)
    again = VAE.from_checkpoint(path)
    assert again.options == whole[0].options
    np.testing.assert_array_equal(again.decode(np.ones(2)), whole[0].decode(np.ones(2)))


def test_a_checkpoint_of_another_model_is_refused(stripes, tmp_path):
    path = tmp_path / "vae.safetensors"
    fit(stripes, path)
    with pytest.raises(ValueError, match="n_latent is 3, and was 2"):
        fit(stripes, path, resume=True, model={"n_latent": 3})
    with pytest.raises(ValueError, match=r"beta is 2\.0, and was 1\.0"):
        fit(stripes, path, resume=True, beta=2)


def test_a_checkpoint_keeps_a_dtype_that_was_changed(stripes, tmp_path):
    path = tmp_path / "vae.safetensors"
    vae = VAE(np.int64(16), 2, n_hidden=[8]).double()
    vae.fit(stripes, epochs=1, progressbar=False, random_seed=1, checkpoint=path)
    loaded = VAE.from_checkpoint(path)
    for name, value in vae.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)


def test_a_checkpoint_holds_a_sigma_that_numpy_computed(stripes, tmp_path):
    path = tmp_path / "vae.safetensors"
    model = {"likelihood": "gaussian", "sigma": stripes.astype(np.float32).std()}
    vae, _ = fit(stripes, path, epochs=1, model=model)
    assert VAE.from_checkpoint(path).sigma == vae.sigma


def test_frozen_parameters_are_refused(stripes):
    vae = VAE(16, 2, n_hidden=[8])
    vae.decoder.requires_grad_(False)
    with pytest.raises(ValueError, match=r"decoder\.0\.weight must require a gradient to be learnt; it is frozen"):
        vae.fit(stripes, epochs=1, progressbar=False)


def test_training_depends_on_its_seed_alone(stripes):
    torch.manual_seed(1)
    one = fit(stripes)
    state = torch.random.get_rng_state()
    assert_same(fit(stripes), one)
    np.testing.assert_array_equal(torch.random.get_rng_state(), state)
    other, _ = fit(stripes, random_seed=4)
    assert not torch.equal(other.pixel_bias, one[0].pixel_bias)


def test_training_goes_on_from_parameters_that_are_there(stripes):
    vae, history = fit(stripes, epochs=40)
    again = vae.fit(stripes, epochs=1, learning_rate=1e-6, progressbar=False)
    assert float(again["elbo"][0]) == pytest.approx(float(history["elbo"][-1]), abs=0.1)


def test_history_holds_the_bound_and_its_parts(stripes):
    vae, history = fit(stripes, validation_data=stripes[::2], measure_every=2)
    assert list(history["epoch"]) == [2, 4, 6]
    assert set(history) == {"elbo", "reconstruction", "kl", "validation_elbo", "validation_kl", "seconds"}
    np.testing.assert_allclose(history["elbo"], history["reconstruction"] - history["kl"], rtol=1e-12)
    mean, sd = vae.encode(stripes)
    kl = (0.5 * (mean**2 + sd**2 - 1) - sd.log()).sum(-1).mean()
    assert float(history["kl"][-1]) == pytest.approx(kl.item(), rel=1e-5)
    assert history["elbo"].attrs["units"] == "nats per image"


def test_learns_all_bars_and_stripes(stripes):
    """No distribution gives thirty images more than −log 30 nats on average, and coins give −11.1: a fixed seed."""
    vae, history = fit(stripes, epochs=400, batch_size=10, learning_rate=1e-2, model={"n_hidden": [32], "n_latent": 3})
    assert (history["elbo"].diff("epoch") > -2).all()
    likelihood = vae.log_likelihood(stripes, random_seed=1)
    assert -9.5 < likelihood.mean < -np.log(30)
    assert vae.elbo(stripes, n_samples=100, random_seed=1).mean() < likelihood.mean


def test_a_larger_weight_of_the_divergence_shrinks_it(stripes):
    divergences = [float(fit(stripes, epochs=60, beta=beta)[1]["kl"][-1]) for beta in (0.1, 1.0, 20.0)]
    assert all(more > less for more, less in pairwise(divergences))
    assert divergences[-1] < 0.05


def test_warm_up_starts_without_the_divergence(stripes):
    cold, warm = (fit(stripes, epochs=30, warm_up=warm_up)[1] for warm_up in (0, 30))
    assert float(warm["kl"][10]) > float(cold["kl"][10])


def test_unit_variance_collapses_on_grey_digits_and_a_learnt_one_does_not():
    """No direction of the digits has a variance of 1 or more, so the linear theory has no code at sigma = 1."""
    grey = load_digits(binarize=None).train[:400] / 16
    assert np.linalg.eigvalsh(np.cov(grey.T))[-1] < 1
    options = {"epochs": 40, "batch_size": 40}
    unit, learnt = (
        fit(grey, model={"likelihood": "gaussian", "sigma": sigma, "n_hidden": [64]}, **options)[1]["kl"][-1]
        for sigma in (1.0, "learnt")
    )
    assert float(unit) < 0.02
    assert float(learnt) > 1


def test_learnt_sigma_is_that_of_the_noise(rng):
    noise = rng.normal(loc=[1.0, 2.0, 3.0], scale=0.3, size=(2000, 3))
    vae, _ = fit(noise, epochs=5, batch_size=50, model={"likelihood": "gaussian", "sigma": "learnt"})
    assert vae.sigma == pytest.approx(0.3, rel=0.1)


def test_early_stopping_goes_back_to_the_best_look(stripes):
    half = {"validation_data": stripes[::2], "epochs": 300, "learning_rate": 0.02}
    vae, history = fit(stripes[1::2], early_stopping=EarlyStopping(tolerance=0, patience=5), **half)
    best = int(np.argmax(history["validation_elbo"].to_numpy()))
    assert len(history["epoch"]) < 100
    assert best == len(history["epoch"]) - 6
    after = vae.elbo(stripes[::2], n_samples=500, random_seed=1).mean()
    assert float(history["validation_elbo"][best]) == pytest.approx(float(after), abs=1.0)


def test_divergence_is_an_error(stripes):
    with pytest.raises(FloatingPointError, match="training diverged"):
        fit(stripes, optimizer="sgd", learning_rate=1e6)


# Bad input


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shape": 0}, ValueError, "an entry of shape must be at least 1; got 0"),
        ({"shape": (4, 4, 1)}, ValueError, r"shape must have \(1, 2\) entries"),
        ({"shape": "ab"}, TypeError, "shape must be a sequence of integers"),
        ({"n_latent": 0}, ValueError, "n_latent must be at least 1"),
        ({"network": "transformer"}, ValueError, "network must be 'mlp' or 'convolutional'; got 'transformer'"),
        ({"network": "convolutional"}, ValueError, "shape must be .height, width. for network='convolutional'; got 16"),
        ({"n_hidden": []}, ValueError, "n_hidden must have at least 1 entries"),
        ({"n_hidden": [4, 2.5]}, TypeError, "an entry of n_hidden must be an integer; got 2.5"),
        ({"n_hidden": 8}, TypeError, "n_hidden must be a sequence of integers; got 8"),
        ({"likelihood": "poisson"}, ValueError, "likelihood must be 'bernoulli' or 'gaussian'; got 'poisson'"),
        ({"sigma": 1.0}, ValueError, "sigma belongs to likelihood='gaussian'"),
        ({"likelihood": "gaussian"}, ValueError, "sigma must be a number or 'learnt'"),
        ({"likelihood": "gaussian", "sigma": 0.0}, ValueError, "sigma must be in"),
        ({"likelihood": "gaussian", "sigma": "learned"}, ValueError, "sigma must be a number or 'learnt'"),
        ({"dtype": torch.float16}, TypeError, "dtype must be torch.float32 or torch.float64"),
    ],
)
def test_bad_models_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        VAE(**{"shape": 16, "n_latent": 2, **options})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"X": np.full((3, 16), 1.5)}, ValueError, "X must hold 0 and 1, or grey values between them"),
        ({"X": np.full((3, 16), np.nan)}, ValueError, "X must hold finite numbers"),
        ({"X": np.ones((3, 15))}, ValueError, r"X must have shape \(n, 16\)"),
        ({"validation_data": np.ones((3, 15))}, ValueError, r"validation_data must have shape \(n, 16\)"),
        ({"beta": -1}, ValueError, "beta must be in"),
        ({"warm_up": -1}, ValueError, "warm_up must be at least 0"),
        ({"warm_up": 2.5}, TypeError, "warm_up must be an integer"),
        ({"epochs": 0}, ValueError, "epochs must be at least 1"),
        ({"early_stopping": EarlyStopping()}, ValueError, "early_stopping watches validation_data"),
        ({"resume": True}, ValueError, "resume=True needs the path of a checkpoint"),
        ({"learning_rate": 0}, ValueError, "learning_rate must be in"),
        ({"learning_rate_schedule": "step"}, ValueError, "learning_rate_schedule must be one of"),
    ],
)
def test_bad_training_is_refused(stripes, options, error, message):
    vae = VAE(16, 2)
    with pytest.raises(error, match=message):
        vae.fit(**{"X": stripes, "progressbar": False, **options})
    assert not any(p.any() for p in vae.parameters())


def test_bad_questions_are_refused(random_vae):
    vae = random_vae(n_latent=2)
    with pytest.raises(ValueError, match=r"z must have shape \(..., 2\); got \(3,\)"):
        vae.decode(np.ones(3))
    with pytest.raises(ValueError, match=r"grey values have no probability under a Bernoulli likelihood; got 0\.5"):
        vae.log_likelihood(np.full((1, 6), 0.5))
    with pytest.raises(ValueError, match="n_importance must be at least 2"):
        vae.log_likelihood(np.ones((1, 6)), n_importance=1)
    with pytest.raises(ValueError, match="n_chains must be at least 2"):
        vae.annealed_log_likelihood(np.ones((1, 6)), n_chains=1)
    with torch.no_grad():
        vae.pixel_bias[0] = torch.nan
    with pytest.raises(ValueError, match="pixel_bias must be finite"):
        vae.elbo(np.ones((1, 6)))


def test_identical_images_have_no_sigma(stripes):
    vae = VAE(16, 2, likelihood="gaussian", sigma="learnt")
    with pytest.raises(ValueError, match="X must not hold the same image only"):
        vae.fit(np.repeat(stripes[:1], 5, axis=0), progressbar=False)
