"""GaussianRBM against quadrature and enumeration: densities, normalizer, draws, shapes, data, bad input."""

import itertools

import arviz as az
import cloudpickle
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pymc.testing import BaseTestDistributionRandom, assert_support_point_is_expected
from scipy.special import expit, logsumexp
from scipy.stats import chisquare, kstest, norm

import pm_neural as pmn
from pm_neural.distributions.normalizers.restricted import EnumeratedHiddenLayer, QuadraticLogPartition
from step_methods.network import GaussianRestrictedNetwork
from step_methods.reading.graphs import evaluate

NAMES = ("W", "a", "b", "sigma")


def states(n):
    return np.array(list(itertools.product([0, 1], repeat=n)))


def free_energy(v, W, a, b, sigma):
    return ((v - a) ** 2 / (2 * sigma**2)).sum(axis=-1) - np.logaddexp(0, b + (v / sigma**2) @ W).sum(axis=-1)


def components(W, a, b, sigma):
    """Means and log weights (∫ exp(−E) dv) of the Gaussians that p(v) is a mixture of, one for each h."""
    h = states(len(b))
    means = a + h @ W.T
    gains = ((means**2 - a**2) / (2 * sigma**2)).sum(axis=1)
    return means, h @ b + gains + np.log(np.sqrt(2 * np.pi) * sigma).sum()


def logp_of(rv, value):
    """Evaluate without compiling, which is quicker for one value; other tests compile."""
    return evaluate([pm.logp(rv, value)])[0]


@pytest.fixture
def parameters(rng):
    return rng.normal(size=(2, 3)), rng.normal(size=2), rng.normal(size=3), rng.uniform(0.5, 1.5, 2)


class TestGaussianRBMRandom(BaseTestDistributionRandom):
    pymc_dist = pmn.GaussianRBM
    expected_rv_op_params = {
        "W": np.array([[1.0, -1.0], [0.5, 2.0], [0.0, -3.0]]),
        "a": np.array([0.1, 0.2, -0.3]),
        "b": np.array([-1.0, 1.0]),
        "sigma": np.array([0.5, 1.0, 2.0]),
    }
    pymc_dist_params = {**expected_rv_op_params, "normalize": None}
    sizes_to_check = [None, 1, (2, 3)]
    sizes_expected = [(3,), (1, 3), (2, 3, 3)]
    checks_to_run = ["check_pymc_params_match_rv_op", "check_rv_size"]


# ---------------------------------------------------------------------------------- densities


def test_unnormalized_logp_is_minus_the_free_energy(parameters, rng):
    v = 3 * rng.normal(size=(20, 2))
    rv = pmn.GaussianRBM.dist(*parameters, normalize=None, shape=v.shape)
    np.testing.assert_allclose(logp_of(rv, v), -free_energy(v, *parameters), rtol=1e-12)


def test_normalized_logp_is_the_mixture_of_gaussians(parameters, rng):
    v = 3 * rng.normal(size=(20, 2))
    rv = pmn.GaussianRBM.dist(*parameters, normalize="exact", shape=v.shape)
    means, log_weights = components(*parameters)
    each = norm.logpdf(v[:, None], means, parameters[3]).sum(axis=-1)
    expected = logsumexp(each + log_weights - logsumexp(log_weights), axis=1)
    np.testing.assert_allclose(logp_of(rv, v), expected, rtol=1e-12, atol=1e-12)


def test_the_normalizer_against_quadrature(parameters):
    """∫ p(v) dv = 1 to 1e-10 on a grid that reaches 10 standard deviations beyond all means."""
    means, _ = components(*parameters)
    sigma = parameters[3]
    low, high = means.min(axis=0) - 10 * sigma, means.max(axis=0) + 10 * sigma
    axes = [np.linspace(x, y, 400) for x, y in zip(low, high, strict=True)]
    v = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    logp = logp_of(pmn.GaussianRBM.dist(*parameters, normalize="exact", shape=v.shape), v)
    cell = np.prod([x[1] - x[0] for x in axes])
    assert abs(np.exp(logp).sum() * cell - 1) < 1e-10


def test_joint_with_hidden_units_is_the_boltzmann_law(parameters, rng):
    W, a, b, sigma = parameters
    with pm.Model() as model:
        v = pmn.GaussianRBM("v", *parameters, normalize="exact")
        pmn.HiddenUnits("h", v)
    logp = model.compile_logp()
    log_z = logsumexp(components(*parameters)[1])
    for x in rng.normal(size=(4, 2)):
        for h in states(3):
            energy = ((x - a) ** 2 / (2 * sigma**2)).sum() - b @ h - (x / sigma**2) @ W @ h
            np.testing.assert_allclose(logp({"v": x, "h": h}), -energy - log_z, atol=1e-12)


def test_one_sigma_for_all_units(parameters, rng):
    W, a, b, _ = parameters
    v = rng.normal(size=2)
    one, each = (pmn.GaussianRBM.dist(W, a, b, sigma, normalize="exact") for sigma in (0.7, np.full(2, 0.7)))
    assert logp_of(one, v) == logp_of(each, v)


def test_gradient_of_the_logp_in_the_visible_units(parameters, rng):
    W, a, b, sigma = parameters
    with pm.Model() as model:
        pmn.GaussianRBM("v", *parameters)
    gradient = model.compile_dlogp()
    for v in rng.normal(size=(5, 2)):
        expected = (a + W @ expit(b + (v / sigma**2) @ W) - v) / sigma**2
        np.testing.assert_allclose(gradient({"v": v}), expected, rtol=1e-12)


def test_batches_of_parameters_and_values(rng):
    W, a, b, sigma = rng.normal(size=(5, 1, 2, 3)), rng.normal(size=(4, 2)), rng.normal(size=3), np.array([0.5, 2])
    rv = pmn.GaussianRBM.dist(W, a, b, sigma, normalize="exact")
    assert rv.type.shape == (5, 4, 2)
    value = rng.normal(size=(5, 4, 2))
    logp = logp_of(rv, value)
    assert logp.shape == (5, 4)
    single = pmn.GaussianRBM.dist(W[3, 0], a[1], b, sigma, normalize="exact")
    np.testing.assert_allclose(logp[3, 1], logp_of(single, value[3, 1]), rtol=1e-12)


def test_shared_data_as_parameters(parameters):
    W, a, b, sigma = parameters
    with pm.Model() as model:
        pmn.GaussianRBM("v", pm.Data("W", W), a, b, pm.Data("sigma", sigma))
    logp = model.compile_logp()
    v = np.array([0.3, -1.2])
    with model:
        pm.set_data({"W": 2 * W, "sigma": 3 * sigma})
    np.testing.assert_allclose(logp({"v": v}), -free_energy(v, 2 * W, a, b, 3 * sigma))


# ---------------------------------------------------------------------------------- normalizer


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"], ids=["numba", "python"])
def test_gradient_of_the_normalizer_in_all_parameters(parameters, mode):
    """Central differences of the enumeration in float64, to 1e-8."""
    inputs = [pt.dmatrix("W"), pt.dvector("a"), pt.dvector("b"), pt.dvector("sigma")]
    log_z = EnumeratedHiddenLayer().log_partition(GaussianRestrictedNetwork(*inputs, normalized=True))
    function = pytensor.function(inputs, [log_z, *pytensor.grad(log_z, inputs)], mode=mode)
    value, *gradient = function(*parameters)

    def exact(flat):
        parts = np.split(flat, np.cumsum([x.size for x in parameters])[:-1])
        shaped = [part.reshape(x.shape) for part, x in zip(parts, parameters, strict=True)]
        return logsumexp(components(*shaped)[1])

    flat = np.concatenate([x.ravel() for x in parameters])
    np.testing.assert_allclose(value, exact(flat), atol=1e-12)
    step = 1e-5
    numeric = [(exact(flat + step * e) - exact(flat - step * e)) / (2 * step) for e in np.eye(len(flat))]
    np.testing.assert_allclose(np.concatenate([g.ravel() for g in gradient]), numeric, atol=1e-8)


def test_random_parameters_without_normalizer_are_refused_when_a_logp_is_built(parameters):
    W, a, b, sigma = parameters
    with pm.Model() as model:
        scale = pm.HalfNormal("scale")
        v = pmn.GaussianRBM("v", W, a, b, scale * sigma, observed=np.ones((2, 2)))
    assert pm.draw(v, random_seed=1).shape == (2, 2)  # drawing needs no normalizer
    with pytest.raises(ValueError, match=r"depend on other random variables \(scale\)"):
        model.compile_logp()


def test_too_many_units_to_enumerate():
    with pytest.raises(ValueError, match="enumerates the hidden layer, at most 20 units; got 21"):
        pmn.GaussianRBM.dist(np.zeros((2, 21)), np.zeros(2), np.zeros(21), 1.0, normalize="exact")
    G, c = pt.matrix("G"), pt.vector("c")  # the size is known only when it runs
    function = pytensor.function([G, c], QuadraticLogPartition()(G, c)[0])
    with pytest.raises(ValueError, match="too many hidden units"):
        function(np.zeros((21, 21)), np.zeros(21))


def test_dist_wants_the_normalizer_said(parameters):
    with pytest.raises(TypeError, match=r"GaussianRBM\.dist\(\) needs normalize=None or"):
        pmn.GaussianRBM.dist(*parameters)


def test_a_mixture_of_normalized_machines(parameters, rng):
    W, a, b, sigma = parameters
    parts = [
        pmn.GaussianRBM.dist(W, a, b, sigma, normalize="exact"),
        pmn.GaussianRBM.dist(-W, -a, b, 2 * sigma, normalize="exact"),
    ]
    mixture = pm.Mixture.dist(w=[0.3, 0.7], comp_dists=parts)
    v = rng.normal(size=2)
    expected = logsumexp(
        [
            np.log(0.3) - free_energy(v, W, a, b, sigma) - logsumexp(components(W, a, b, sigma)[1]),
            np.log(0.7) - free_energy(v, -W, -a, b, 2 * sigma) - logsumexp(components(-W, -a, b, 2 * sigma)[1]),
        ]
    )
    np.testing.assert_allclose(logp_of(mixture, v), expected, rtol=1e-6)


# ---------------------------------------------------------------------------------- draws


def assert_law(draws, parameters):
    """Kolmogorov-Smirnov test of two projections against the mixture; false-alarm rate 1e-4 each (seeds are fixed)."""
    means, log_weights = components(*parameters)
    p = np.exp(log_weights - logsumexp(log_weights))
    sigma = parameters[3]
    for direction in (np.array([1.0, 0.3]), np.array([-0.5, 1.0])):
        width = np.sqrt((direction**2) @ (sigma**2))

        def cdf(x, direction=direction, width=width):
            return norm.cdf((np.asarray(x)[..., None] - means @ direction) / width) @ p

        assert kstest(draws @ direction, cdf).pvalue > 1e-4


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"], ids=["numba", "python"])
def test_exact_draws_follow_the_law(parameters, mode):
    rv = pmn.GaussianRBM.dist(*parameters, normalize=None, size=4000)
    draws = pm.draw(rv, random_seed=3, mode=mode)
    assert draws.dtype == np.float64
    assert_law(draws, parameters)


def test_gibbs_draws_follow_the_law(parameters):
    """A hidden layer beyond enumeration, ten of whose units have no couplings and change nothing."""
    W, a, b, sigma = parameters
    wide = np.pad(W, ((0, 0), (0, 10))), a, np.pad(b, (0, 10)), sigma
    rv = pmn.GaussianRBM.dist(*wide, normalize=None, size=4000, n_sweeps=60)
    assert_law(pm.draw(rv, random_seed=5), parameters)


def test_exact_draws_do_not_depend_on_mixing():
    """Two components 20 standard deviations apart, which block Gibbs sampling would not leave: frequencies 1:3."""
    W, a = np.array([[20.0]]), np.array([0.0])
    b = np.array([np.log(3) - 200])
    draws = pm.draw(pmn.GaussianRBM.dist(W, a, b, 1.0, normalize=None, size=4000), random_seed=6)
    counts = [np.count_nonzero(draws < 10), np.count_nonzero(draws >= 10)]
    assert chisquare(counts, [1000, 3000]).pvalue > 1e-4


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"], ids=["numba", "python"])
def test_hidden_draws_follow_the_conditional(parameters, mode):
    """Unit means within 4.5 standard errors (false-alarm rate 1e-4 in all)."""
    W, a, b, sigma = parameters
    value = np.array([0.4, -1.3])
    with pm.Model() as model:
        v = pmn.GaussianRBM("v", W, a, b, sigma, shape=(4000, 2))
        pmn.HiddenUnits("h", v)
    draws = pm.draw(pm.do(model, {"v": np.tile(value, (4000, 1))})["h"], random_seed=7, mode=mode)
    p = expit(b + (value / sigma**2) @ W)
    assert draws.dtype == np.int64
    assert np.abs((draws.mean(axis=0) - p) / np.sqrt(p * (1 - p) / 4000)).max() < 4.5


def test_draws_are_reproducible(parameters):
    rv = pmn.GaussianRBM.dist(*parameters, normalize=None)
    first, second = (pm.draw(rv, 5, random_seed=11) for _ in range(2))
    np.testing.assert_array_equal(first, second)


# ---------------------------------------------------------------------------------- in a model


def test_dims_prior_and_posterior_predictive_and_log_likelihood(parameters, rng):
    W, a, b, sigma = parameters
    data = rng.normal(size=(5, 2))
    coords = {"point": range(5), "axis": ["x", "y"], "feature": range(3)}
    with pm.Model(coords=coords) as model:
        scale = pm.HalfNormal("scale")
        v = pmn.GaussianRBM("v", W, a, b, scale * sigma, normalize="exact", dims=("point", "axis"), observed=data)
        pmn.HiddenUnits("h", v, dims=("point", "feature"))
        prior = pm.sample_prior_predictive(3, random_seed=1)
        assert prior.prior_predictive["v"].dims == ("chain", "draw", "point", "axis")
        assert prior.prior["h"].dims == ("chain", "draw", "point", "feature")
        trace = prior.prior.to_dataset()
        predictive = pm.sample_posterior_predictive(trace[["scale"]], random_seed=2, progressbar=False)
        assert predictive.posterior_predictive["v"].dtype == float
        log_likelihood = pm.compute_log_likelihood(
            az.from_dict({"posterior": {name: trace[name].values for name in trace.data_vars}}),
            var_names=["v"],
            extend_inferencedata=False,
            progressbar=False,
        )
    assert model.named_vars_to_dims["v"] == ("point", "axis")
    own = W, a, b, float(trace["scale"][0, 0]) * sigma
    expected = -free_energy(data, *own) - logsumexp(components(*own)[1])
    np.testing.assert_allclose(log_likelihood["v"][0, 0], expected, rtol=1e-10)


def test_labels(parameters):
    with pm.Model() as model:
        v = pmn.GaussianRBM("v", *parameters)
        pmn.HiddenUnits("h", v)
    assert v.str_repr().startswith("v ~ GaussianRBM(")
    assert "h ~ HiddenUnits(v," in model.str_repr()
    assert r"\operatorname{GaussianRBM}" in v._repr_latex_()


def test_support_point(parameters):
    W, a, b, sigma = parameters
    with pm.Model() as model:
        pmn.GaussianRBM("x", W, a, b, sigma, shape=(3, 2))
    assert_support_point_is_expected(model, np.tile(a + W.sum(axis=1) / 2, (3, 1)))


def test_a_model_survives_pickling(parameters):
    with pm.Model() as model:
        v = pmn.GaussianRBM("v", *parameters, normalize="exact")
        pmn.HiddenUnits("h", v)
    copy = cloudpickle.loads(cloudpickle.dumps(model))
    point = model.initial_point()
    assert copy.compile_logp()(point) == model.compile_logp()(point)


# ---------------------------------------------------------------------------------- data


@pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")
@pytest.mark.parametrize("under_the_mask", [0.7, 1e9, np.nan, np.inf])
def test_masked_units_are_free(parameters, under_the_mask):
    data = np.ma.masked_array([[0.3, under_the_mask], [-1.0, 2.0]], mask=[[0, 1], [0, 0]])
    with pm.Model() as model:
        pmn.GaussianRBM("v", *parameters, observed=data)
    assert model.initial_point()["v_unobserved"].shape == (1,)
    v = np.array([[0.3, 1.7], [-1.0, 2.0]])
    expected = -free_energy(v, *parameters).sum()
    np.testing.assert_allclose(model.compile_logp()({"v_unobserved": np.array([1.7])}), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("argument", ["observed", "initval"])
def test_values_that_are_not_finite_are_refused(parameters, bad, argument):
    with pm.Model(), pytest.raises(ValueError, match=f"{argument} of 'v' must be finite everywhere, got {bad}"):
        pmn.GaussianRBM("v", *parameters, **{argument: np.array([0, bad])})


def test_values_beside_the_mask_must_be_finite(parameters):
    with pm.Model(), pytest.raises(ValueError, match="observed of 'v' must be finite"):
        pmn.GaussianRBM("v", *parameters, observed=np.ma.masked_array([0, np.nan], mask=[1, 0]))


def test_shared_data_must_be_finite(parameters):
    with pm.Model(), pytest.raises(ValueError, match="observed of 'v' must be finite"):
        pmn.GaussianRBM("v", *parameters, observed=pm.Data("data", [0, np.inf]))


def test_everything_masked_is_refused(parameters):
    with pm.Model(), pytest.raises(ValueError, match="masked everywhere"):
        pmn.GaussianRBM("v", *parameters, observed=np.ma.masked_array([1.0, 2.0], mask=True))


def test_data_of_another_type_are_refused(parameters):
    with pm.Model(), pytest.raises(TypeError, match="observed of 'v' must be real numbers"):
        pmn.GaussianRBM("v", *parameters, observed=np.array(["0", "1"]))


def test_data_with_the_wrong_number_of_columns(parameters):
    with pm.Model() as model:
        with pytest.raises(ValueError, match="columns"):
            pmn.GaussianRBM("v", *parameters, observed=np.zeros((2, 5)))
        assert not model.named_vars


# ---------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"a": np.zeros(5)}, ValueError, "a must have n_visible = 2 entries"),
        ({"b": np.zeros(4)}, ValueError, "b must have n_hidden = 3 entries"),
        ({"sigma": np.ones(3)}, ValueError, "sigma must have n_visible = 2 entries"),
        ({"sigma": 0.0}, ValueError, r"sigma must be positive, got 0\.0"),
        ({"sigma": np.array([1.0, -2.0])}, ValueError, r"sigma must be positive, got -2\.0"),
        ({"sigma": np.nan}, ValueError, "sigma must be finite"),
        ({"W": np.zeros(4)}, ValueError, "W must have at least 2 dimensions, got 1"),
        ({"a": 0.0}, ValueError, "a must have at least 1 dimension, got 0"),
        ({"W": np.full((2, 3), np.nan)}, ValueError, "W must be finite"),
        ({"b": np.full(3, "x")}, TypeError, "b must be real numbers"),
        ({"normalize": "enumerate"}, ValueError, 'normalize must be None or "exact"'),
        ({"n_sweeps": 0}, ValueError, "n_sweeps must be at least 1, got 0"),
        ({"shape": (4, 3)}, ValueError, "of GaussianRBM must have length 2"),
    ],
)
def test_bad_parameters(parameters, change, error, message):
    arguments = dict(zip(NAMES, parameters, strict=True)) | change
    with pm.Model(), pytest.raises(error, match=message):
        pmn.GaussianRBM("v", **arguments)


def test_bad_shared_sigma(parameters):
    W, a, b, sigma = parameters
    with pm.Model(), pytest.raises(ValueError, match="sigma must be positive"):
        pmn.GaussianRBM("v", W, a, b, pm.Data("sigma", -sigma))


def test_a_sigma_that_becomes_negative(parameters):
    W, a, b, _ = parameters
    with pm.Model() as model:
        sigma = pm.Normal("sigma", shape=2)
        pmn.GaussianRBM("v", W, a, b, sigma, normalize="exact", observed=np.zeros(2))
    logp = model.compile_logp(vars=[model["v"]])
    assert np.isfinite(logp({"sigma": np.array([0.5, 1.0])}))
    assert logp({"sigma": np.array([0.5, -1.0])}) == -np.inf


def test_a_trained_machine_stands_for_its_parameters():
    training = pytest.importorskip("pm_neural.training")
    machine = training.GaussianRBM(3, 2, sigma=0.5)
    with pm.Model() as model:
        pmn.GaussianRBM("v", machine)
    given = [variable.eval() for variable in model["v"].owner.inputs[2:]]
    for own, expected in zip(given, machine.parameters_as_numpy(), strict=True):
        np.testing.assert_allclose(own, expected)
    with pytest.raises(TypeError, match="takes a machine with 4 parameters, got a RBM with 3"):
        pmn.GaussianRBM.dist(training.RBM(3, 2), normalize=None)
