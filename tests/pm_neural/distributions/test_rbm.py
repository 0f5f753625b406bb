"""BernoulliRBM and HiddenUnits against brute force: densities, draws, shapes, data, bad input."""

import itertools

import arviz as az
import cloudpickle
import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from pymc.exceptions import ImputationWarning
from pymc.testing import BaseTestDistributionRandom, assert_support_point_is_expected
from scipy.special import expit, logsumexp
from scipy.stats import chisquare

import pm_neural as pmn


def states(n):
    return np.array(list(itertools.product([0, 1], repeat=n)))


def joint_log_weights(W, a, b):
    """−E(v, h) of all states, visible states in rows and hidden states in columns."""
    v, h = states(len(a)), states(len(b))
    return (v @ a)[:, None] + (h @ b)[None, :] + v @ W @ h.T


@pytest.fixture
def parameters(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)


class TestBernoulliRBMRandom(BaseTestDistributionRandom):
    pymc_dist = pmn.BernoulliRBM
    expected_rv_op_params = {
        "W": np.array([[1.0, -1.0], [0.5, 2.0], [0.0, -3.0]]),
        "a": np.array([0.1, 0.2, -0.3]),
        "b": np.array([-1.0, 1.0]),
    }
    pymc_dist_params = {**expected_rv_op_params, "normalize": None}
    sizes_to_check = [None, 1, (2, 3)]
    sizes_expected = [(3,), (1, 3), (2, 3, 3)]
    checks_to_run = ["check_pymc_params_match_rv_op", "check_rv_size"]


# ---------------------------------------------------------------------------------- densities


def test_unnormalized_logp_is_minus_the_free_energy(parameters):
    W, a, b = parameters
    v = states(4)
    rv = pmn.BernoulliRBM.dist(W, a, b, normalize=None, shape=(16, 4))
    expected = logsumexp(joint_log_weights(W, a, b), axis=1)
    np.testing.assert_allclose(pm.logp(rv, v).eval(), expected, rtol=1e-13)


@pytest.mark.parametrize("transposed", [False, True], ids=["fewer_hidden", "fewer_visible"])
def test_normalized_logp_sums_to_one(parameters, transposed):
    W, a, b = parameters
    if transposed:
        W, a, b = W.T, b, a
    v = states(len(a))
    rv = pmn.BernoulliRBM.dist(W, a, b, normalize="exact", shape=v.shape)
    logp = pm.logp(rv, v).eval()
    log_weights = joint_log_weights(W, a, b)
    np.testing.assert_allclose(logp, logsumexp(log_weights, axis=1) - logsumexp(log_weights), atol=1e-12)


def test_joint_with_hidden_units_is_the_boltzmann_law(parameters):
    W, a, b = parameters
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", W, a, b, normalize="exact")
        pmn.HiddenUnits("h", v)
    logp = model.compile_logp()
    log_weights = joint_log_weights(W, a, b)
    got = [[logp({"v": v, "h": h}) for h in states(3)] for v in states(4)]
    np.testing.assert_allclose(got, log_weights - logsumexp(log_weights), atol=1e-12)


@pytest.mark.parametrize("bad", [-1, 2, 257])
def test_logp_is_minus_infinity_off_the_support(parameters, bad):
    rv = pmn.BernoulliRBM.dist(*parameters, normalize=None)
    assert pm.logp(rv, np.array([0, 1, bad, 0])).eval() == -np.inf
    h = pmn.HiddenUnits.dist(rv)
    assert pm.logp(h, np.array([0, 1, bad])).eval() == -np.inf


def test_extreme_weights_do_not_overflow():
    W = np.full((3, 2), 1e4)
    rv = pmn.BernoulliRBM.dist(W, np.full(3, -1e4), np.full(2, -1e4), normalize="exact", shape=(2, 3))
    logp = pm.logp(rv, np.array([[1, 1, 1], [0, 0, 0]])).eval()
    np.testing.assert_allclose(logp, [0, -10_000], atol=1e-9)


def test_batches_of_parameters_and_values(rng):
    W, a, b = rng.normal(size=(5, 1, 4, 3)), rng.normal(size=(2, 4)), rng.normal(size=3)
    rv = pmn.BernoulliRBM.dist(W, a, b, normalize="exact")
    assert rv.type.shape == (5, 2, 4)
    value = rng.integers(0, 2, size=(5, 2, 4))
    logp = pm.logp(rv, value).eval()
    assert logp.shape == (5, 2)
    single = pmn.BernoulliRBM.dist(W[3, 0], a[1], b, normalize="exact")
    np.testing.assert_allclose(logp[3, 1], pm.logp(single, value[3, 1]).eval(), rtol=1e-12)


def test_shared_data_as_parameters(parameters):
    W, a, b = parameters
    with pm.Model() as model:
        weights = pm.Data("W", W)
        pmn.BernoulliRBM("v", weights, pm.Data("a", a), b)
    logp = model.compile_logp()
    point = {"v": np.array([1, 0, 1, 1])}
    before = logp(point)
    with model:
        pm.set_data({"W": 2 * W})
    expected = point["v"] @ a + np.logaddexp(0, b + 2 * point["v"] @ W).sum()
    assert logp(point) != before
    np.testing.assert_allclose(logp(point), expected)


# ---------------------------------------------------------------------------------- normalizer


def test_random_parameters_without_normalizer_are_refused_when_a_logp_is_built(parameters):
    W, a, b = parameters
    with pm.Model() as model:
        scale = pm.HalfNormal("scale")
        v = pmn.BernoulliRBM("v", scale * W, a, b, observed=np.ones((2, 4), int))
    assert pm.draw(v, random_seed=1).shape == (2, 4)  # drawing needs no normalizer
    with pytest.raises(ValueError, match=r"depend on other random variables \(scale\)"):
        model.compile_logp()


def test_random_parameters_with_normalizer_get_the_right_posterior_density(parameters):
    W, a, b = parameters
    data = np.array([[1, 0, 1, 1], [0, 0, 1, 0]])
    with pm.Model() as model:
        scale = pm.HalfNormal("scale", default_transform=None)
        pmn.BernoulliRBM("v", scale * W, a, b, normalize="exact", observed=data)
    logp = model.compile_logp(vars=[model["v"]])
    for s in (0.3, 1.7):
        weights = joint_log_weights(s * W, a, b)
        table = logsumexp(weights, axis=1) - logsumexp(weights)
        expected = table[[int("".join(map(str, row)), 2) for row in data]].sum()
        np.testing.assert_allclose(logp({"scale": s}), expected, rtol=1e-12)


def test_gradient_of_the_normalized_logp(parameters, rng):
    with pm.Model() as model:
        W = pm.Normal("W", shape=(4, 3))
        a = pm.Normal("a", shape=4)
        b = pm.Normal("b", shape=3)
        pmn.BernoulliRBM("v", W, a, b, normalize="exact", observed=rng.integers(0, 2, (6, 4)))
    point = dict(zip(("W", "a", "b"), parameters, strict=True))
    names = [var.name for var in model.value_vars]
    gradient = model.compile_dlogp()(point)
    logp = model.compile_logp()

    flat = np.concatenate([point[name].ravel() for name in names])

    def at(x):
        parts = np.split(x, np.cumsum([point[name].size for name in names])[:-1])
        return logp({name: part.reshape(point[name].shape) for name, part in zip(names, parts, strict=True)})

    step = 1e-5
    numeric = [(at(flat + step * e) - at(flat - step * e)) / (2 * step) for e in np.eye(len(flat))]
    np.testing.assert_allclose(gradient, numeric, atol=1e-7)


def test_too_many_units_to_enumerate():
    with pytest.raises(ValueError, match="at most 20 units; got 21 visible and 22 hidden"):
        pmn.BernoulliRBM.dist(np.zeros((21, 22)), np.zeros(21), np.zeros(22), normalize="exact")
    W = pt.matrix("W")  # the size is known only when it runs
    rv = pmn.BernoulliRBM.dist(W, np.zeros(21), np.zeros(21), normalize="exact")
    logp = pytensor.function([W], pm.logp(rv, np.zeros(21, int)))
    with pytest.raises(ValueError, match="too many units"):
        logp(np.zeros((21, 21)))


def test_dist_wants_the_normalizer_said(parameters):
    with pytest.raises(TypeError, match="needs normalize=None or"):
        pmn.BernoulliRBM.dist(*parameters)


def test_a_mixture_of_normalized_machines_sums_to_one(parameters):
    W, a, b = parameters
    components = [
        pmn.BernoulliRBM.dist(W, a, b, normalize="exact"),
        pmn.BernoulliRBM.dist(-W, -a, b, normalize="exact"),
    ]
    mixture = pm.Mixture.dist(w=[0.3, 0.7], comp_dists=components)
    value = pt.lvector("value")
    logp = pytensor.function([value], pm.logp(mixture, value))
    np.testing.assert_allclose(sum(np.exp(logp(v)) for v in states(4)), 1, rtol=1e-12)


# ---------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"], ids=["numba", "python"])
@pytest.mark.parametrize(
    ("n_visible", "n_hidden"), [(4, 2), (2, 4), (3, 13)], ids=["hidden", "visible", "visible_long"]
)
def test_exact_draws_follow_the_law(rng, n_visible, n_hidden, mode):
    """Chi-square test of all visible states; false-alarm rate 1e-4 each (seeds are fixed)."""
    W, a, b = (
        rng.normal(size=(n_visible, n_hidden)),
        rng.normal(size=n_visible),
        rng.normal(size=n_hidden),
    )
    rv = pmn.BernoulliRBM.dist(W, a, b, normalize=None, size=4000)
    draws = pm.draw(rv, random_seed=3, mode=mode)
    log_weights = states(n_visible) @ a + np.logaddexp(0, b + states(n_visible) @ W).sum(axis=1)
    expected = np.exp(log_weights - logsumexp(log_weights))
    counts = np.bincount(draws @ (1 << np.arange(n_visible)[::-1]), minlength=2**n_visible)
    assert chisquare(counts, 4000 * expected).pvalue > 1e-4


def test_gibbs_draws_follow_the_law(rng):
    """Both layers beyond enumeration; unit means within 4.5 standard errors (false alarms 1e-4 in all).

    The 13 hidden units of each group act on one visible unit only, so the exact marginal is a product.
    """
    W = np.kron(np.eye(13), np.ones((1, 1))) * rng.normal(size=(13, 1))
    a, b = rng.normal(size=13), rng.normal(size=13)
    rv = pmn.BernoulliRBM.dist(W, a, b, normalize=None, size=4000, n_sweeps=60)
    draws = pm.draw(rv, random_seed=5)
    w = np.diag(W)
    p = expit(a + np.logaddexp(0, b + w) - np.logaddexp(0, b))
    error = np.sqrt(p * (1 - p) / 4000)
    assert np.abs((draws.mean(axis=0) - p) / error).max() < 4.5


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"], ids=["numba", "python"])
def test_hidden_draws_follow_the_conditional(parameters, mode):
    """Unit means within 4.5 standard errors (false-alarm rate 1e-4 in all)."""
    W, a, b = parameters
    value = np.array([1, 0, 1, 1])
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", W, a, b, shape=(4000, 4))
        pmn.HiddenUnits("h", v)
    draws = pm.draw(pm.do(model, {"v": np.tile(value, (4000, 1))})["h"], random_seed=7, mode=mode)
    p = expit(b + value @ W)
    error = np.sqrt(p * (1 - p) / 4000)
    assert np.abs((draws.mean(axis=0) - p) / error).max() < 4.5


def test_draws_are_reproducible_and_int64(parameters):
    rv = pmn.BernoulliRBM.dist(*parameters, normalize=None)
    first, second = (pm.draw(rv, 5, random_seed=11) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.int64


# ---------------------------------------------------------------------------------- in a model


def test_dims_prior_and_posterior_predictive_and_log_likelihood(parameters, rng):
    W, a, b = parameters
    data = rng.integers(0, 2, size=(5, 4))
    coords = {"image": range(5), "pixel": list("wxyz"), "feature": range(3)}
    with pm.Model(coords=coords) as model:
        scale = pm.HalfNormal("scale")
        v = pmn.BernoulliRBM("v", scale * W, a, b, normalize="exact", dims=("image", "pixel"), observed=data)
        pmn.HiddenUnits("h", v, dims=("image", "feature"))
        prior = pm.sample_prior_predictive(3, random_seed=1)
        assert prior.prior_predictive["v"].dims == ("chain", "draw", "image", "pixel")
        assert prior.prior["h"].dims == ("chain", "draw", "image", "feature")
        trace = prior.prior.to_dataset()
        predictive = pm.sample_posterior_predictive(trace[["scale"]], random_seed=2, progressbar=False)
        assert set(np.unique(predictive.posterior_predictive["v"])) <= {0, 1}
        log_likelihood = pm.compute_log_likelihood(
            prior_as_posterior(trace),
            var_names=["v"],
            extend_inferencedata=False,
            progressbar=False,
        )
    assert model.named_vars_to_dims["v"] == ("image", "pixel")
    s = float(trace["scale"][0, 0])
    weights = joint_log_weights(s * W, a, b)
    expected = (logsumexp(weights, axis=1) - logsumexp(weights))[data @ [8, 4, 2, 1]]
    np.testing.assert_allclose(log_likelihood["v"][0, 0], expected, rtol=1e-10)


def prior_as_posterior(dataset):
    return az.from_dict({"posterior": {name: dataset[name].values for name in dataset.data_vars}})


def test_labels(parameters):
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", *parameters)
        pmn.HiddenUnits("h", v)
    assert v.str_repr().startswith("v ~ BernoulliRBM(")
    assert "h ~ HiddenUnits(v," in model.str_repr()
    assert r"\operatorname{BernoulliRBM}" in v._repr_latex_()
    graph = pm.model_to_mermaid(model)
    assert "v ~ BernoulliRBM" in graph
    assert "h ~ HiddenUnits" in graph


def test_support_point(parameters):
    W, a, b = parameters
    with pm.Model() as model:
        pmn.BernoulliRBM("x", W, a, b, shape=(2, 4))
    assert_support_point_is_expected(model, np.tile(a + W.sum(axis=1) / 2 > 0, (2, 1)))


def test_a_model_survives_pickling(parameters):
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", *parameters, normalize="exact")
        pmn.HiddenUnits("h", v)
    copy = cloudpickle.loads(cloudpickle.dumps(model))
    point = model.initial_point()
    assert copy.compile_logp()(point) == model.compile_logp()(point)


# ---------------------------------------------------------------------------------- data


@pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")
@pytest.mark.parametrize("under_the_mask", [0, 1, np.nan])
def test_masked_units_are_free(parameters, under_the_mask):
    W, a, b = parameters
    data = np.ma.masked_array([1.0, under_the_mask, 0.0, under_the_mask], mask=[0, 1, 0, 1])
    with pm.Model() as model:
        pmn.BernoulliRBM("v", W, a, b, observed=data)
    assert model.initial_point()["v_unobserved"].shape == (2,)
    logp = model.compile_logp()
    point = np.array([1, 0])
    v = np.array([1, 1, 0, 0])
    np.testing.assert_allclose(logp({"v_unobserved": point}), v @ a + np.logaddexp(0, b + v @ W).sum())


def test_masking_warns_as_pymc_does(parameters):
    data = np.ma.masked_array([1, 0, 0, 0], mask=[0, 1, 0, 1])
    with pm.Model(), pytest.warns(ImputationWarning):
        pmn.BernoulliRBM("v", *parameters, observed=data)


@pytest.mark.parametrize("bad", [0.5, 257, -1, np.nan, np.inf])
@pytest.mark.parametrize("argument", ["observed", "initval"])
def test_bad_values_are_refused_before_they_are_cast(parameters, bad, argument):
    with (
        pm.Model(),
        pytest.raises(ValueError, match=rf"{argument} of 'v' must be 0 or 1 everywhere"),
    ):
        pmn.BernoulliRBM("v", *parameters, **{argument: np.array([0, 1, bad, 0])})
    with pm.Model():
        v = pmn.BernoulliRBM("v", *parameters)
        with pytest.raises(ValueError, match=rf"{argument} of 'h' must be 0 or 1 everywhere"):
            pmn.HiddenUnits("h", v, **{argument: np.array([0, bad, 0])})


def test_a_list_of_data_is_checked_too(parameters):
    with pm.Model(), pytest.raises(ValueError, match=r"got 0\.5"):
        pmn.BernoulliRBM("v", *parameters, observed=[0, 0.5, 1, 1])


def test_bad_values_in_shared_data_are_refused(parameters):
    with pm.Model(), pytest.raises(ValueError, match=r"observed of 'v' must be 0 or 1"):
        pmn.BernoulliRBM("v", *parameters, observed=pm.Data("data", [0, 0.5, 1, 1]))


@pytest.mark.parametrize("bad", [0.5, 257])
def test_bad_values_under_the_mask_are_refused(parameters, bad):
    """A picture that was never binarized is noticed even where its visible part happens to be 0 and 1."""
    data = np.ma.masked_array([1, bad, 0, 1], mask=[0, 1, 0, 0])
    with pm.Model(), pytest.raises(ValueError, match="masked in observed of 'v' must be 0 or 1"):
        pmn.BernoulliRBM("v", *parameters, observed=data)


def test_bad_values_beside_the_mask_are_refused(parameters):
    data = np.ma.masked_array([1, 0, 7, 1], mask=[0, 1, 0, 0])
    with (
        pm.Model(),
        pytest.raises(ValueError, match="observed of 'v' must be 0 or 1 everywhere, got 7"),
    ):
        pmn.BernoulliRBM("v", *parameters, observed=data)


@pytest.mark.parametrize(
    "labelled", [lambda data: pd.Series(data, dtype="Int64"), lambda data: pd.DataFrame([data]), xr.DataArray]
)
def test_labelled_data(parameters, labelled):
    data = np.array([1, 0, 0, 1])
    with pm.Model() as model:
        pmn.BernoulliRBM("v", *parameters, observed=labelled(data))
    with pm.Model() as plain:
        pmn.BernoulliRBM("v", *parameters, observed=data)
    np.testing.assert_array_equal(model.compile_logp()({}), plain.compile_logp()({}))


@pytest.mark.parametrize("data", [pd.Series([1.0, np.nan, 0.0, 1.0]), pd.DataFrame([[1, None, 0, 1]], dtype="Int64")])
@pytest.mark.parametrize("distribution", [pmn.BernoulliRBM, pmn.GaussianRBM])
def test_missing_values_that_are_not_masked_are_refused(parameters, distribution, data):
    more = (np.ones(4),) if distribution is pmn.GaussianRBM else ()
    with pm.Model(), pytest.raises((TypeError, ValueError), match=r"missing values? use a masked array") as refused:
        distribution("v", *parameters, *more, observed=data)
    assert refused.value.args[0].startswith("observed of 'v' must be")
    with pm.Model() as model, pytest.warns(ImputationWarning):
        distribution("v", *parameters, *more, observed=np.ma.masked_invalid(data.astype(float)))
    assert model.initial_point()["v_unobserved"].shape == (1,)


def test_everything_masked_is_refused(parameters):
    data = np.ma.masked_array([1, 0, 0, 1], mask=True)
    with pm.Model(), pytest.raises(ValueError, match="masked everywhere"):
        pmn.BernoulliRBM("v", *parameters, observed=data)


def test_data_of_another_type_are_refused(parameters):
    with pm.Model(), pytest.raises(TypeError, match="must be numbers 0 and 1"):
        pmn.BernoulliRBM("v", *parameters, observed=np.array(["0", "1", "1", "0"]))


# ---------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"a": np.zeros(5)}, ValueError, "a must have n_visible = 4 entries"),
        ({"b": np.zeros(4)}, ValueError, "b must have n_hidden = 3 entries"),
        ({"W": np.zeros(4)}, ValueError, "W must have at least 2 dimensions, got 1"),
        ({"a": 0.0}, ValueError, "a must have at least 1 dimension, got 0"),
        ({"W": np.full((4, 3), np.nan)}, ValueError, "W must be finite"),
        ({"b": np.full(3, np.inf)}, ValueError, "b must be finite"),
        ({"W": np.full((4, 3), "x")}, TypeError, "W must be real numbers"),
        ({"W": np.full((4, 3), 1j)}, TypeError, "W must be real numbers"),
        ({"normalize": "enumerate"}, ValueError, 'normalize must be None or "exact"'),
        ({"n_sweeps": 0}, ValueError, "n_sweeps must be at least 1, got 0"),
        ({"n_sweeps": 2.5}, TypeError, "n_sweeps must be an integer"),
    ],
)
def test_bad_parameters(parameters, change, error, message):
    arguments = dict(zip(("W", "a", "b"), parameters, strict=True)) | change
    with pm.Model(), pytest.raises(error, match=message):
        pmn.BernoulliRBM("v", **arguments)


def test_bad_shared_parameters(parameters):
    W, a, b = parameters
    with pm.Model(), pytest.raises(ValueError, match="W must be finite"):
        pmn.BernoulliRBM("v", pm.Data("W", W * np.inf), a, b)


def test_data_with_the_wrong_number_of_columns(parameters):
    with pm.Model() as model:
        with pytest.raises(ValueError, match="columns"):
            pmn.BernoulliRBM("v", *parameters, observed=np.zeros((2, 5), int))
        assert not model.named_vars


@pytest.mark.parametrize("wrong", [{"shape": (2, 5)}, {"dims": ("image", "feature")}])
def test_a_shape_that_does_not_fit(parameters, wrong):
    with (
        pm.Model(coords={"image": range(2), "feature": range(3)}),
        pytest.raises(ValueError, match="of BernoulliRBM must have length 4"),
    ):
        pmn.BernoulliRBM("v", *parameters, **wrong)


@pytest.mark.parametrize("v", [np.zeros(4), pt.zeros(4), None], ids=["array", "tensor", "none"])
def test_hidden_units_of_something_else(v):
    with pm.Model(), pytest.raises(TypeError, match="visible units of a network"):
        pmn.HiddenUnits("h", v)


def test_hidden_units_of_a_function_of_the_visible_units(parameters):
    with pm.Model():
        v = pmn.BernoulliRBM("v", *parameters)
        with pytest.raises(TypeError, match="visible units of a network"):
            pmn.HiddenUnits("h", 1 - v)


# ---------------------------------------------------------------------------------- trained machines


class Trained:
    """What has parameters of its own, as a machine that was trained in torch."""

    def __init__(self, *parameters):
        self._parameters = parameters

    def parameters_as_numpy(self):
        return self._parameters


def test_a_trained_machine_stands_for_its_parameters(parameters):
    with pm.Model() as model:
        pmn.BernoulliRBM("v", Trained(*parameters))
        pmn.BernoulliRBM("w", *parameters)
    for own, given in zip(model["v"].owner.inputs[2:], model["w"].owner.inputs[2:], strict=True):
        np.testing.assert_array_equal(own.data, given.data)
    dist = pmn.BernoulliRBM.dist(Trained(*parameters), normalize="exact")
    np.testing.assert_array_equal(dist.owner.inputs[2].data, parameters[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda W, a, b: (Trained(W, a, b), a, b), "takes a trained machine alone"),
        (lambda W, a, b: (Trained(W, a, b, a), None, None), "takes a machine with 3 parameters, got a Trained with 4"),
        (lambda W, a, b: (W, a, None), "needs all of its parameters"),
    ],
)
def test_a_machine_and_parameters_beside_it_are_refused(parameters, arguments, message):
    with pytest.raises(TypeError, match=message):
        pmn.BernoulliRBM.dist(*arguments(*parameters), normalize=None)
