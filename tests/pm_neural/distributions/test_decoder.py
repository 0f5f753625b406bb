"""Decoder against quadrature and the autoencoder itself: densities, gradients, draws, masks, posteriors, bad input."""

import arviz as az
import cloudpickle
import numpy as np
import pymc as pm
import pytest
from pytensor.gradient import verify_grad
from scipy.integrate import trapezoid
from scipy.stats import bernoulli, norm

torch = pytest.importorskip("torch")

import pm_neural as pmn  # noqa: E402
from pm_neural.distributions.energy import TorchEnergy  # noqa: E402
from pm_neural.training import VAE  # noqa: E402

ONE_CORE = {"cores": 1, "progressbar": False, "compute_convergence_checks": False}
KINDS = ["bernoulli", "gaussian"]


@pytest.fixture
def make_vae(rng):
    def make(likelihood="bernoulli", n_latent=2, n_visible=6, **options):
        sigma = 0.6 if likelihood == "gaussian" else None
        options = {"n_hidden": [5], "dtype": torch.float64, "likelihood": likelihood, "sigma": sigma, **options}
        vae = VAE(n_visible, n_latent, **options)
        with torch.no_grad():
            for parameter in vae.parameters():
                parameter.copy_(torch.as_tensor(rng.normal(size=tuple(parameter.shape))))
        return vae

    return make


def pixel_log_likelihood(vae, x, z):
    """By scipy, from the decoded means."""
    mean = vae.decode(z).numpy()
    if vae.options["likelihood"] == "bernoulli":
        return bernoulli.logpmf(x, mean)
    return norm.logpdf(x, mean, vae.options["sigma"])


def images(vae, rng, shape=()):
    x = rng.normal(size=(*shape, vae.n_visible))
    return (x > 0).astype(int) if vae.options["likelihood"] == "bernoulli" else x


def compiled_logp(model):
    return model.compile_logp(vars=[model["x"]])


@pytest.mark.parametrize("likelihood", KINDS)
@pytest.mark.parametrize(("of_codes", "of_images"), [((), ()), ((3,), (3,)), ((), (3,)), ((3,), ()), ((2, 1), (3,))])
def test_logp_is_that_of_the_pixels(make_vae, rng, likelihood, of_codes, of_images):
    vae = make_vae(likelihood)
    z, x = rng.normal(size=(*of_codes, 2)), images(vae, rng, of_images)
    logp = pm.logp(pmn.Decoder.dist(vae, z), x).eval()
    np.testing.assert_allclose(logp, pixel_log_likelihood(vae, x, z).sum(-1), rtol=1e-10)


@pytest.mark.parametrize("likelihood", KINDS)
def test_gradient_is_that_of_finite_differences(make_vae, rng, likelihood):
    vae = make_vae(likelihood)
    x = images(vae, rng, (3,))
    verify_grad(lambda z: pm.logp(pmn.Decoder.dist(vae, z), x).sum(), [rng.normal(size=(3, 2))], rng=rng)


def test_binary_pixels_have_no_probability_off_0_and_1(make_vae):
    rv = pmn.Decoder.dist(make_vae(), np.zeros(2))
    assert rv.dtype == "int64"
    assert pm.logp(rv, np.array([0, 1, 1, 0, 1, 2])).eval() == -np.inf


@pytest.mark.parametrize("likelihood", KINDS)
def test_masked_pixels_take_no_part(make_vae, rng, likelihood):
    vae = make_vae(likelihood)
    x, mask, z = images(vae, rng, (3,)), rng.random((3, 6)) < 0.4, rng.normal(size=(3, 2))
    hidden = np.ma.masked_array(np.where(mask, np.nan, x), mask=mask)
    with pm.Model() as model:
        pmn.Decoder("x", vae, pm.Normal("z", shape=(3, 2)), observed=hidden)
    assert [v.name for v in model.free_RVs] == ["z"]
    expected = np.where(mask, 0, pixel_log_likelihood(vae, x, z)).sum()
    assert compiled_logp(model)({"z": z}) == pytest.approx(expected, rel=1e-10)
    np.testing.assert_array_equal(model.rvs_to_values[model["x"]].data, np.where(mask, 0, x))
    assert np.isfinite(model.compile_dlogp()({"z": z})).all()


def test_there_is_one_torch_operation_and_one_pass(make_vae, rng):
    vae = make_vae()
    with pm.Model() as model:
        pmn.Decoder("x", vae, pm.Normal("z", shape=2), observed=images(vae, rng))
    function = model.logp_dlogp_function(ravel_inputs=True)
    nodes = [node.op for node in function._pytensor_function.maker.fgraph.toposort()]
    assert sum(isinstance(op, TorchEnergy) for op in nodes) == 1


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"])
@pytest.mark.parametrize("likelihood", KINDS)
def test_draws_have_the_decoded_means(make_vae, rng, likelihood, mode):
    """4.5 standard errors on 6 pixels: one false alarm in 25,000."""
    vae = make_vae(likelihood)
    z = rng.normal(size=(2, 2))
    draws = pm.draw(pmn.Decoder.dist(vae, z), draws=1500, random_seed=rng, mode=mode)
    mean = vae.decode(z).numpy()
    sd = np.sqrt(mean * (1 - mean)) if likelihood == "bernoulli" else 0.6
    assert draws.shape == (1500, 2, 6)
    assert draws.dtype == ("int64" if likelihood == "bernoulli" else "float64")
    assert (np.abs(draws.mean(0) - mean) < 4.5 * sd / np.sqrt(1500)).all()
    np.testing.assert_allclose(draws.std(0), np.broadcast_to(sd, mean.shape), atol=0.06)


def test_draws_do_not_repeat_and_depend_on_the_seed_alone(make_vae):
    rv = pmn.Decoder.dist(make_vae("gaussian"), np.zeros((3, 2)))
    first = pm.draw(rv, draws=2, random_seed=1)
    np.testing.assert_array_equal(first, pm.draw(rv, draws=2, random_seed=1))
    assert len(np.unique(first)) == first.size


@pytest.mark.parametrize("likelihood", KINDS)
def test_posterior_of_a_half_masked_image_is_that_of_quadrature(make_vae, rng, likelihood):
    """Mean, spread and a missing pixel, at 5 standard errors of about a thousand draws: a false alarm in 10^5."""
    vae = make_vae(likelihood, n_latent=1)
    x, mask = images(vae, rng), np.arange(6) >= 3
    with pm.Model():
        z = pm.Normal("z", shape=1)
        pmn.Decoder("x", vae, z, observed=np.ma.masked_array(x, mask=mask))
        idata = pm.sample(1500, tune=300, chains=2, random_seed=5, **ONE_CORE)
        pm.sample_posterior_predictive(idata, random_seed=6, progressbar=False, extend_inferencedata=True)
    grid = np.linspace(-7, 7, 2001)[:, None]
    density = norm.pdf(grid[:, 0]) * np.exp(pixel_log_likelihood(vae, x, grid)[:, ~mask].sum(-1))
    density /= trapezoid(density, grid[:, 0])
    mean = trapezoid(density * grid[:, 0], grid[:, 0])
    sd = np.sqrt(trapezoid(density * (grid[:, 0] - mean) ** 2, grid[:, 0]))
    draws = idata["posterior"]["z"]
    error = float(az.mcse(idata, var_names="z")["z"].max())
    assert error < 0.1 * sd
    assert abs(float(draws.mean()) - mean) < 5 * error
    assert float(draws.std()) == pytest.approx(sd, rel=0.15)
    missing = idata["posterior_predictive"]["x"].to_numpy().reshape(-1, 6)[:, -1]
    expected = trapezoid(density * vae.decode(grid).numpy()[:, -1], grid[:, 0])
    assert abs(missing.mean() - expected) < 5 * missing.std() / np.sqrt(400)


def test_data_may_be_exchanged(make_vae, rng):
    vae = make_vae()
    x = images(vae, rng, (2,))
    with pm.Model() as model:
        image = pm.Data("image", x[0])
        pmn.Decoder("x", vae, pm.Normal("z", shape=2), observed=image)
        logp = compiled_logp(model)
        before = logp({"z": np.zeros(2)})
        pm.set_data({"image": x[1]})
    for row, value in zip(x, (before, logp({"z": np.zeros(2)})), strict=True):
        assert value == pytest.approx(pixel_log_likelihood(vae, row, np.zeros(2)).sum())


def test_the_model_keeps_the_weights_of_its_day(make_vae, rng):
    vae = make_vae()
    x, z = images(vae, rng), rng.normal(size=2)
    rv = pmn.Decoder.dist(vae, z)
    expected = pixel_log_likelihood(vae, x, z).sum()
    with torch.no_grad():
        vae.pixel_bias.add_(1.0)
    assert pm.logp(rv, x).eval() == pytest.approx(expected)


@pytest.mark.parametrize("likelihood", KINDS)
def test_models_pickle(make_vae, rng, likelihood):
    vae = make_vae(likelihood)
    with pm.Model() as model:
        pmn.Decoder("x", vae, pm.Normal("z", shape=2), observed=images(vae, rng))
    again = cloudpickle.loads(cloudpickle.dumps(model))
    assert again.point_logps() == model.point_logps()


def test_single_precision_and_convolutions_are_close(make_vae, rng):
    vae = make_vae(n_visible=(4, 4), network="convolutional", n_hidden=[2], dtype=torch.float32)
    x, z = rng.integers(2, size=16), rng.normal(size=2)
    logp = pm.logp(pmn.Decoder.dist(vae, z), x).eval()
    assert logp == pytest.approx(pixel_log_likelihood(vae, x, z).sum(), rel=1e-5)


@pytest.mark.parametrize(
    ("observed", "error", "message"),
    [
        (np.full(6, 0.5), ValueError, "observed of 'x' must be 0 or 1 everywhere, got 0.5"),
        (np.ones(5), ValueError, "observed of 'x' must have 6 columns"),
        (np.ma.masked_all(6), ValueError, "observed of 'x' is masked everywhere"),
        (np.array([0, 1, 1, 0, 1, np.nan]), ValueError, "observed of 'x' must be 0 or 1 everywhere, got nan"),
    ],
)
def test_bad_data_are_refused(make_vae, observed, error, message):
    with pm.Model(), pytest.raises(error, match=message):
        pmn.Decoder("x", make_vae(), pm.Normal("z", shape=2), observed=observed)


def test_bad_real_data_are_refused(make_vae):
    with pm.Model(), pytest.raises(ValueError, match="observed of 'x' must be finite"):
        pmn.Decoder("x", make_vae("gaussian"), pm.Normal("z", shape=2), observed=np.full(6, np.inf))


def test_bad_arguments_are_refused(make_vae):
    vae = make_vae()
    with pytest.raises(TypeError, match=r"vae must be a pm_neural\.training\.VAE, got Linear"):
        pmn.Decoder.dist(torch.nn.Linear(2, 6), np.zeros(2))
    with pytest.raises(ValueError, match=r"latent must have the shape \(\.\.\., 2\), one code of the VAE per image"):
        pmn.Decoder.dist(vae, np.zeros(3))
    with pytest.raises(ValueError, match="latent must have the shape"):
        pmn.Decoder.dist(vae, 0.0)
    with pytest.raises(ValueError, match=r"the last axis of the shape .* of Decoder must have length 6"):
        pmn.Decoder.dist(vae, np.zeros(2), shape=5)
    with torch.no_grad():
        vae.pixel_bias[0] = np.nan
    with pytest.raises(ValueError, match="must give a finite energy"):
        pmn.Decoder.dist(vae, np.zeros(2))
