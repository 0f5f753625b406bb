"""BoltzmannMachine and Ising against brute force: densities, draws, axes, data, bad input."""

import itertools

import cloudpickle
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.sparse
from pymc.logprob.utils import ParameterValueError
from pymc.testing import BaseTestDistributionRandom, assert_support_point_is_expected
from scipy.special import expit, logsumexp
from scipy.stats import chisquare

from pm_neural.distributions.boltzmann import BoltzmannMachine, Ising
from pm_neural.distributions.lattice import lattice
from pm_neural.distributions.rbm import HiddenUnits
from step_methods.network import PairwiseNetwork, network_of
from step_methods.reading.layers import network_node

BOTH = pytest.mark.parametrize("distribution", [BoltzmannMachine, Ising])


def states(n, values):
    return np.array(list(itertools.product(values, repeat=n)))


def log_weights(states, J, b, coupling=1.0):
    """−E of each row."""
    return states @ b + 0.5 * coupling * np.einsum("ki,ij,kj->k", states, J, states)


def random_couplings(rng, n):
    J = np.triu(rng.normal(size=(n, n)), 1)
    return J + J.T


@pytest.fixture
def parameters(rng):
    return random_couplings(rng, 4), rng.normal(size=4)


class _Random(BaseTestDistributionRandom):
    pymc_dist_params = {
        "J": np.array([[0.0, 1.0, -2.0], [1.0, 0.0, 0.5], [-2.0, 0.5, 0.0]]),
        "coupling": 0.5,
        "normalize": None,
    }
    sizes_to_check = [None, 1, (2, 3)]
    sizes_expected = [(3,), (1, 3), (2, 3, 3)]
    checks_to_run = ["check_pymc_params_match_rv_op", "check_rv_size"]


class TestIsingRandom(_Random):
    pymc_dist = Ising
    pymc_dist_params = {**_Random.pymc_dist_params, "h": np.array([0.1, 0.2, -0.3])}
    expected_rv_op_params = {"coupling": 0.5, "h": np.array([0.1, 0.2, -0.3])}


class TestBoltzmannMachineRandom(_Random):
    pymc_dist = BoltzmannMachine
    pymc_dist_params = {**_Random.pymc_dist_params, "b": np.array([0.1, 0.2, -0.3])}
    expected_rv_op_params = {"coupling": 0.5, "b": np.array([0.1, 0.2, -0.3])}


# ---------------------------------------------------------------------------------- densities


@BOTH
def test_logp_with_and_without_normalizer(parameters, distribution):
    J, b = parameters
    table = states(4, distribution.values)
    expected = log_weights(table, J, b, 0.7)
    for normalize, log_z in ((None, 0.0), ("enumerate", logsumexp(expected))):
        rv = distribution.dist(J, b, coupling=0.7, normalize=normalize, size=16)
        np.testing.assert_allclose(pm.logp(rv, table).eval(), expected - log_z, atol=1e-10)


def test_the_two_conventions_are_one_model(parameters):
    J, h = parameters
    table = states(4, (0, 1))
    spins = Ising.dist(J, h, normalize="exact", size=16)
    bits = BoltzmannMachine.dist(4 * J, 2 * h - 2 * J.sum(axis=1), normalize="exact", size=16)
    np.testing.assert_allclose(pm.logp(spins, 2 * table - 1).eval(), pm.logp(bits, table).eval(), atol=1e-10)


@pytest.mark.parametrize(
    ("distribution", "bad"), [(BoltzmannMachine, -1), (BoltzmannMachine, 2), (Ising, 0), (Ising, 3)]
)
def test_logp_is_minus_infinity_off_the_support(parameters, distribution, bad):
    rv = distribution.dist(*parameters, normalize=None)
    assert pm.logp(rv, np.array([1, 1, bad, 1])).eval(mode="FAST_COMPILE") == -np.inf


@pytest.mark.parametrize(
    "kind", ["dense", "integers", "csr_array", "coo_matrix", "bsr_array", "graph", "constant", "float32"]
)
def test_kinds_of_couplings(kind):
    J = np.array([[0, 2, 0], [2, 0, -1], [0, -1, 0]])
    given = {
        "dense": lambda: J.astype(float),
        "integers": lambda: J.tolist(),
        "csr_array": lambda: scipy.sparse.csr_array(J),
        "coo_matrix": lambda: scipy.sparse.coo_matrix(J),
        "bsr_array": lambda: scipy.sparse.bsr_array(J.astype(float)),
        "graph": lambda: pytest.importorskip("networkx").from_numpy_array(J),
        "constant": lambda: pt.constant(J),
        "float32": lambda: J.astype("float32"),
    }[kind]()
    rv = Ising.dist(given, normalize=None)
    matrix = network_of(rv.owner.op, rv.owner).couplings
    assert scipy.sparse.issparse(matrix)
    assert matrix.dtype == pytensor.config.floatX
    np.testing.assert_array_equal(matrix.toarray(), J)


def test_couplings_of_the_user_are_left_alone():
    J = scipy.sparse.csr_array(np.array([[0, 1.0], [1.0, 0]]))
    Ising.dist(J, normalize=None)
    J.data[:] = 3
    assert J.data.flags.writeable


def test_many_couplings_stay_sparse(rng):
    """A million couplings: no dense array of them would fit in memory."""
    n = 250_000
    with pm.Model() as model:
        s = Ising("s", lattice((500, 500), periodic=True), coupling=pm.Data("beta", 0.4), n_sweeps=1)
    assert s.owner.op.couplings.matrix.nnz == 4 * n
    value = rng.choice([-1, 1], size=(500, 500))
    bonds = (value * (np.roll(value, 1, 0) + np.roll(value, 1, 1))).sum()
    np.testing.assert_allclose(model.compile_logp()({"s": value}), 0.4 * bonds, rtol=1e-12)
    assert pm.draw(s, random_seed=1).shape == (500, 500)


def test_batches(rng):
    J, h, coupling = random_couplings(rng, 3), rng.normal(size=(2, 3)), np.array([[0.5], [1.0], [2.0]])
    rv = Ising.dist(J, h, coupling=coupling, normalize="exact")
    assert rv.type.shape == (3, 2, 3)
    value = rng.choice([-1, 1], size=(3, 2, 3))
    table = states(3, (-1, 1))
    expected = [
        [
            log_weights(value[i, j][None], J, h[j], coupling[i, 0])[0]
            - logsumexp(log_weights(table, J, h[j], coupling[i, 0]))
            for j in range(2)
        ]
        for i in range(3)
    ]
    np.testing.assert_allclose(pm.logp(rv, value).eval(), expected, atol=1e-10)
    network = network_of(rv.owner.op, rv.owner)
    assert network.coupling.type.shape == (3, 1)


@BOTH
def test_gradient_of_the_normalized_logp(parameters, rng, distribution):
    J, b = parameters
    data = rng.choice(distribution.values, size=(5, 4))
    with pm.Model() as model:
        coupling = pm.Normal("coupling")
        biases = pm.Normal("biases", shape=4)
        distribution("z", J, biases, coupling=coupling, normalize="exact", observed=data, event_ndim=1)
    gradient = model.compile_dlogp(jacobian=False)({"coupling": 0.4, "biases": b})
    logp = model.compile_logp(jacobian=False)

    def at(x):
        return logp({"coupling": x[0], "biases": x[1:]})

    center = np.concatenate([[0.4], b])
    numeric = [(at(center + 1e-5 * e) - at(center - 1e-5 * e)) / 2e-5 for e in np.eye(5)]
    np.testing.assert_allclose(gradient, numeric, atol=1e-7)
    table = log_weights(states(4, distribution.values), J, b, 0.4)
    prior = -0.5 * center @ center - 2.5 * np.log(2 * np.pi)
    expected = log_weights(data, J, b, 0.4).sum() - 5 * logsumexp(table) + prior
    np.testing.assert_allclose(at(center), expected, rtol=1e-11)


def test_shared_data_as_parameters(parameters):
    J, h = parameters
    with pm.Model() as model:
        Ising("s", J, pm.Data("h", h), coupling=pm.Data("beta", 0.5), normalize="exact")
    logp = model.compile_logp()
    point = {"s": np.array([1, -1, 1, 1])}
    table = states(4, (-1, 1))
    for beta in (0.5, 2.0):
        model.set_data("beta", beta)
        expected = log_weights(point["s"][None], J, h, beta)[0] - logsumexp(log_weights(table, J, h, beta))
        np.testing.assert_allclose(logp(point), expected, atol=1e-10)


def test_lattice_times_a_coupling_means_the_same():
    grid = lattice((2, 3))
    with pm.Model() as model:
        beta = pm.HalfNormal("beta")
        for name, arguments in {
            "a": {"J": beta * grid},
            "b": {"J": grid, "coupling": beta},
            "c": {"J": 0.5 * grid, "coupling": 2 * beta},
            "d": {"J": 2 * (beta * grid), "coupling": 0.5},
        }.items():
            Ising(name, **arguments, normalize="exact", observed=[[1, 1, -1], [1, -1, -1]])
    logps = model.compile_fn(model.logp(vars=model.observed_RVs, sum=False))(model.initial_point())
    np.testing.assert_allclose(logps, logps[0])


def test_random_parameters_without_normalizer_are_refused_when_a_logp_is_built():
    with pm.Model() as model:
        beta = pm.HalfNormal("beta")
        s = Ising("s", lattice((2, 3)), coupling=beta)
    assert pm.draw(s, random_seed=1).shape == (2, 3)  # drawing needs no normalizer
    with pytest.raises(ValueError, match=r"depend on other random variables \(beta\)"):
        model.compile_logp()


@BOTH
def test_dist_wants_the_normalizer_said(parameters, distribution):
    with pytest.raises(TypeError, match="needs normalize=None or"):
        distribution.dist(*parameters)


def test_a_mixture_of_normalized_fields_sums_to_one(parameters):
    J, h = parameters
    components = [Ising.dist(J, h, normalize="exact"), Ising.dist(J, -h, coupling=2, normalize="exact")]
    mixture = pm.Mixture.dist(w=[0.3, 0.7], comp_dists=components)
    value = pt.lvector("value")
    logp = pytensor.function([value], pm.logp(mixture, value))
    np.testing.assert_allclose(sum(np.exp(logp(s)) for s in states(4, (-1, 1))), 1, rtol=1e-12)


# ---------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"], ids=["numba", "python"])
@BOTH
def test_exact_draws_follow_the_law(parameters, distribution, mode):
    """Chi-square test of all states; false-alarm rate 1e-4 each (seeds are fixed)."""
    J, b = (0.3 * x for x in parameters)  # no state so rare that the test fails by it
    rv = distribution.dist(J, b, coupling=0.6, normalize=None, size=4000)
    draws = pm.draw(rv, random_seed=3, mode=mode)
    table = log_weights(states(4, distribution.values), J, b, 0.6)
    counts = np.bincount((draws == 1) @ [8, 4, 2, 1], minlength=16)
    assert draws.dtype == np.int64
    assert set(np.unique(draws)) == set(distribution.values)
    assert chisquare(counts, 4000 * np.exp(table - logsumexp(table))).pvalue > 1e-4


@BOTH
def test_gibbs_draws_follow_the_law(rng, distribution):
    """Too many units to enumerate, but in pairs: means within 4.5 standard errors (false alarms 1e-4 in all)."""
    low = distribution.values[0]
    J = np.kron(np.eye(10), [[0, 1.5], [1.5, 0]])
    b = rng.normal(size=20)
    rv = distribution.dist(J, b, normalize=None, size=4000, n_sweeps=30)
    draws = pm.draw(rv, random_seed=5)
    ratio = [
        logsumexp([b[i] + other * (b[i ^ 1] + 1.5) for other in (low, 1)])
        - logsumexp([low * b[i] + other * (b[i ^ 1] + 1.5 * low) for other in (low, 1)])
        for i in range(20)
    ]
    p = expit(ratio)
    error = np.sqrt(p * (1 - p) / 4000)
    assert np.abs(((draws == 1).mean(axis=0) - p) / error).max() < 4.5


def test_draws_are_reproducible():
    rv = Ising.dist(lattice((3, 5)), normalize=None)
    first, second = (pm.draw(rv, 5, random_seed=11) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (5, 3, 5)


# ---------------------------------------------------------------------------------- axes of a field


def test_all_dims_are_axes_of_one_field(rng):
    J = random_couplings(rng, 6)
    with pm.Model(coords={"row": "ab", "col": range(3), "rest": [0]}) as model:
        s = Ising("s", J, np.arange(3.0), dims=("row", "col"))
    assert s.owner.op.ndim_supp == 2
    assert model.named_vars_to_dims["s"] == ("row", "col")
    value = rng.choice([-1, 1], size=(2, 3))
    expected = log_weights(value.reshape(1, 6), J, np.tile(np.arange(3.0), 2))
    np.testing.assert_allclose(model.compile_logp()({"s": value}), expected)
    node, network = network_node(s)
    assert isinstance(network, PairwiseNetwork)
    assert (network.values, network.ndim, network.normalized) == ((-1, 1), 2, False)
    np.testing.assert_array_equal(network.biases.eval(mode="FAST_COMPILE"), np.tile(np.arange(3.0), 2))
    assert node is s.owner


@pytest.mark.parametrize(
    ("J", "arguments", "batch", "field"),
    [
        (lattice((2, 3)), {}, (), (2, 3)),
        (lattice((2, 3)), {"shape": (5, 2, 3)}, (5,), (2, 3)),
        (lattice((2, 3)), {"size": 5}, (5,), (2, 3)),
        (lattice((2, 3)), {"event_ndim": 2}, (), (2, 3)),
        (lattice(6), {"shape": (5, 6)}, (5,), (6,)),
        (np.zeros((6, 6)), {}, (), (6,)),
        (np.zeros((6, 6)), {"shape": 6}, (), (6,)),
        (np.zeros((6, 6)), {"shape": (2, 3)}, (), (2, 3)),
        (np.zeros((6, 6)), {"shape": (1, 6)}, (), (1, 6)),
        (np.zeros((6, 6)), {"shape": (5, 6), "event_ndim": 1}, (5,), (6,)),
        (np.zeros((6, 6)), {"shape": (5, 2, 3), "event_ndim": 2}, (5,), (2, 3)),
        (np.zeros((6, 6)), {"size": (5, 4)}, (5, 4), (6,)),
        (np.zeros((6, 6)), {"h": np.zeros((5, 6))}, (5,), (6,)),
        (np.zeros((6, 6)), {"h": np.zeros((5, 1, 3)), "shape": (5, 2, 3), "event_ndim": 2}, (5,), (2, 3)),
    ],
)
def test_axes(J, arguments, batch, field):
    rv = Ising.dist(J, normalize=None, **arguments)
    assert rv.owner.op.event_shape == field
    assert rv.type.shape == (*batch, *field)


@pytest.mark.parametrize(
    ("J", "arguments", "message"),
    [
        (lattice((2, 3)), {"shape": (3, 2)}, r"must have the lengths \(2, 3\) of the lattice, got \(3, 2\)"),
        (lattice((2, 3)), {"shape": 6}, "of the lattice, got"),
        (lattice((2, 3)), {"event_ndim": 1}, "event_ndim must be 2, the axes of the lattice"),
        (np.zeros((6, 6)), {"shape": (5, 6)}, "must hold n = 6 units.*if leading axes are a batch.*say event_ndim"),
        (np.zeros((6, 6)), {"shape": (2, 2)}, "must hold n = 6 units"),
        (np.zeros((6, 6)), {"shape": ()}, "must hold n = 6 units"),
        (np.zeros((6, 6)), {"shape": 6, "event_ndim": 2}, "must hold n = 6 units"),
        (np.zeros((6, 6)), {"shape": (pt.iscalar(), 6), "event_ndim": 2}, r"\(unknown, 6\)"),
        (np.zeros((6, 6)), {"event_ndim": 2}, "needs the lengths of the axes too"),
        (np.zeros((6, 6)), {"event_ndim": 0}, "event_ndim must be at least 1"),
        (np.zeros((6, 6)), {"h": np.zeros(5)}, r"h must be a number or have one entry.*\(6,\), got the shape \(5,\)"),
        (np.zeros((6, 6)), {"h": pytensor.shared(np.zeros(5))}, "h must be a number or have one entry"),
        (lattice((2, 3)), {"h": np.zeros(6)}, "h must be a number or have one entry for each unit"),
    ],
)
def test_axes_that_do_not_fit(J, arguments, message):
    with pytest.raises(ValueError, match=message):
        Ising.dist(J, normalize=None, **arguments)


def test_event_ndim_of_another_type():
    with pytest.raises(TypeError, match="event_ndim must be an integer"):
        Ising.dist(np.zeros((6, 6)), event_ndim=1.0, normalize=None)


def test_predictive_draws_and_log_likelihood(rng):
    data = rng.choice([-1, 1], size=(5, 2, 3))
    grid = lattice((2, 3))
    with pm.Model(coords={"image": range(5), "row": range(2), "col": range(3)}) as model:
        beta = pm.HalfNormal("beta")
        Ising("s", grid, coupling=beta, normalize="exact", dims=("image", "row", "col"), observed=data)
        prior = pm.sample_prior_predictive(3, random_seed=1)
        assert prior.prior_predictive["s"].dims == ("chain", "draw", "image", "row", "col")
        posterior = prior.prior.to_dataset()
        predictive = pm.sample_posterior_predictive(posterior, random_seed=2, progressbar=False)
        assert predictive.posterior_predictive["s"].shape == (1, 3, 5, 2, 3)
        assert set(np.unique(predictive.posterior_predictive["s"])) == {-1, 1}
    logp = model.compile_fn(model.logp(vars=model.observed_RVs, jacobian=False, sum=False)[0])
    beta_value = float(posterior["beta"][0, 0])
    J = grid.couplings.toarray()
    expected = log_weights(data.reshape(5, 6), J, np.zeros(6), beta_value)
    expected -= logsumexp(log_weights(states(6, (-1, 1)), J, np.zeros(6), beta_value))
    np.testing.assert_allclose(logp({"beta_log__": np.log(beta_value)}), expected, atol=1e-10)


def test_labels_pickling_and_support_point(rng):
    J = random_couplings(rng, 6)
    b = rng.normal(size=(2, 3))
    with pm.Model(coords={"row": range(2), "col": range(3)}) as model:
        beta = pm.Data("beta", 0.5)
        z = BoltzmannMachine("z", J, b, coupling=beta, normalize="exact", dims=("row", "col"))
    assert z.str_repr().startswith("z ~ BoltzmannMachine(")
    assert r"\operatorname{BoltzmannMachine}" in z._repr_latex_()
    assert "z ~ BoltzmannMachine" in pm.model_to_mermaid(model)
    copy = cloudpickle.loads(cloudpickle.dumps(model))
    point = model.initial_point()
    assert copy.compile_logp()(point) == model.compile_logp()(point)
    assert set(np.unique(point["z"])) <= {0, 1}
    with pm.Model() as model:
        Ising("x", J, 40 * b.ravel(), shape=(2, 6), event_ndim=1)
    assert_support_point_is_expected(model, np.tile(np.where(b.ravel() > 0, 1, -1), (2, 1)))


def test_the_start_without_a_field_is_disorder():
    """No long-range order, neither along a lattice's axes nor its diagonals: each within 4 standard deviations."""
    side = 64
    with pm.Model() as model:
        Ising("s", lattice((side, side), periodic=True), coupling=2.0)
        BoltzmannMachine("z", lattice((side, side), periodic=True), -4 * 1.1, coupling=2.2)
    start = model.initial_point()
    np.testing.assert_array_equal(start["s"], 2 * start["z"] - 1)
    np.testing.assert_array_equal(start["s"], model.initial_point(random_seed=5)["s"])
    spectrum = np.abs(np.fft.fft2(start["s"])) ** 2 / side**2  # of noise: exponential, mean 1
    assert spectrum[0, 0] < 16
    assert spectrum.max() < np.log(side**2) + 7
    for step in ((0, 1), (1, 0), (1, 1), (1, -1), (0, side // 2)):
        assert abs((start["s"] * np.roll(start["s"], step, axis=(0, 1))).sum()) < 4 * side


def test_the_start_of_units_with_fields(rng):
    """A fraction sigmoid(2h) of the spins is up: random fields follow the start of what they depend on."""
    with pm.Model() as model:
        h = pm.Normal("h", 0.5)
        Ising("s", lattice((100, 100)), h)
    fraction = (model.initial_point()["s"] > 0).mean()
    assert abs(fraction - 1 / (1 + np.exp(-1))) < 4 * 0.0045
    with pm.Model() as model:
        Ising("s", lattice((2, 5)), rng.choice([-30.0, 30.0], size=(3, 2, 5)))
        Ising("pair", lattice((2, 5)), np.zeros((3, 1, 1)))
    start = model.initial_point()
    assert start["s"].shape == start["pair"].shape == (3, 2, 5)
    np.testing.assert_array_equal(start["pair"][0], start["pair"][2])


# ---------------------------------------------------------------------------------- a coupling that Kaufman lacks


def test_a_coupling_that_may_be_negative_on_odd_sides():
    """Refused if it surely may; otherwise PyMC's way with a parameter off its range."""
    odd = lattice((5, 6), periodic=True)
    with pm.Model() as model:
        beta = pm.Uniform("beta", -1, 1)
        Ising("s", odd, coupling=beta, normalize="kaufman", observed=np.ones((5, 6)))
    logp = model.compile_logp()
    assert logp({"beta_interval__": np.array(-1.0)}) == -np.inf
    assert np.isfinite(logp({"beta_interval__": np.array(1.0)}))
    with pytest.raises(ParameterValueError, match="coupling >= 0 where a side is odd"):
        pm.logp(Ising.dist(odd, coupling=pt.scalar("c"), normalize="kaufman"), np.ones((5, 6))).eval({"c": -0.1})
    with model:
        idata = pm.sample(200, tune=200, chains=1, cores=1, random_seed=1, progressbar=False, initvals={"beta": 0.1})
    assert (idata["posterior"]["beta"] > 0).all()
    with pm.Model(), pytest.raises(ValueError, match=r"may be negative on the sides \(5, 6\); pm.HalfNormal is never"):
        Ising("s", pm.Normal("beta") * odd, normalize="kaufman")


# ---------------------------------------------------------------------------------- data


@pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")
@pytest.mark.parametrize("under_the_mask", [1, np.nan])
def test_masked_units_are_free(rng, under_the_mask):
    J = random_couplings(rng, 6)
    data = np.ma.masked_array([[1.0, under_the_mask, -1.0], [under_the_mask, 1.0, 1.0]], mask=[[0, 1, 0], [1, 0, 0]])
    with pm.Model() as model:
        s = Ising("s", J, 0.3, observed=data)
    assert model.initial_point()["s_unobserved"].shape == (2,)
    value = np.array([[1, -1, -1, 1, 1, 1]])
    logp = model.compile_logp()({"s_unobserved": np.array([-1, 1])})
    np.testing.assert_allclose(logp, log_weights(value, J, np.full(6, 0.3))[0])
    assert isinstance(network_node(s)[1], PairwiseNetwork)


@pytest.mark.parametrize("argument", ["observed", "initval"])
@pytest.mark.parametrize(
    ("distribution", "bad"), [(BoltzmannMachine, 0.5), (BoltzmannMachine, -1), (Ising, 0), (Ising, np.nan)]
)
def test_bad_values_are_refused_before_they_are_cast(distribution, bad, argument):
    low = distribution.values[0]
    message = rf"{argument} of 'z' must be {low} or 1 everywhere, got {bad}"
    with pm.Model() as model, pytest.raises(ValueError, match=message):
        distribution("z", lattice((2, 2)), 0.0, **{argument: np.array([[1, 1], [bad, 1]])})
    assert not model.named_vars


@BOTH
def test_bad_shared_data_and_masks(distribution):
    grid = lattice(3)
    with pm.Model():
        with pytest.raises(ValueError, match="observed of 'z' must be"):
            distribution("z", grid, 0.0, observed=pm.Data("data", [1, 7, 1]))
        with pytest.raises(ValueError, match="masked in observed of 'z' must be"):
            distribution("z", grid, 0.0, observed=np.ma.masked_array([1, 7, 1], mask=[0, 1, 0]))
        with pytest.raises(ValueError, match="masked everywhere"):
            distribution("z", grid, 0.0, observed=np.ma.masked_array([1, 1, 1], mask=True))
        with pytest.raises(TypeError, match="observed of 'z' must be numbers"):
            distribution("z", grid, 0.0, observed=["1", "1", "1"])


def test_data_of_another_shape():
    with pm.Model(coords={"row": range(2), "col": range(3)}):
        with pytest.raises(ValueError, match=r"last axes of the lengths \(2, 3\).*got the shape \(3, 2\)"):
            Ising("s", lattice((2, 3)), dims=("row", "col"), observed=np.ones((3, 2)))
        with pytest.raises(ValueError, match=r"of the lattice, got \(3, 2\)"):
            Ising("s", lattice((2, 3)), observed=np.ones((3, 2)))
        with pytest.raises(ValueError, match=r"initval of 's' must have last axes"):
            Ising("s", lattice((2, 3)), initval=np.ones(6))


# ---------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("J", "error", "message"),
    [
        ([[0, 1], [2, 0]], ValueError, "J must be symmetric, got entries that differ"),
        ([[1, 1], [1, 0]], ValueError, r"J must have a zero diagonal, got 1\.0"),
        ([[0, np.nan], [np.nan, 0]], ValueError, "J must be finite"),
        (scipy.sparse.csr_array([[0, np.inf], [np.inf, 0]]), ValueError, "J must be finite"),
        (np.zeros((2, 3)), ValueError, r"J must be a square matrix, got the shape \(2, 3\)"),
        (np.zeros(3), ValueError, "J must be a square matrix"),
        (np.zeros((0, 0)), ValueError, "J must be a square matrix"),
        (np.array([["a", "b"], ["c", "d"]]), TypeError, "J must be real numbers"),
        (np.array([[0, 1j], [1j, 0]]), TypeError, "J must be real numbers"),
        (scipy.sparse.csr_array([[0, 1j], [1j, 0]]), TypeError, "J must be real numbers"),
        (pt.matrix("J"), TypeError, "J must be constant data.*coupling="),
        (pytensor.shared(np.zeros((2, 2))), TypeError, "J must be constant data"),
    ],
)
def test_bad_couplings(J, error, message):
    with pm.Model(), pytest.raises(error, match=message):
        Ising("s", J)


def test_couplings_symmetric_up_to_rounding_are_accepted(rng):
    X = rng.normal(size=(50, 8)).astype("float32")
    J = X.T @ X
    np.fill_diagonal(J, 0)
    J[0, 1] = np.nextafter(J[0, 1], np.float32(np.inf))
    matrix = Ising.dist(J, normalize=None).owner.op.couplings.matrix
    assert (matrix - matrix.T).nnz == 0


def test_a_directed_graph_is_not_symmetric():
    networkx = pytest.importorskip("networkx")
    with pm.Model(), pytest.raises(ValueError, match="J must be symmetric"):
        Ising("s", networkx.DiGraph([(0, 1)]))


@pytest.mark.parametrize("weight", [None, "2", [1.0, 2.0]])
def test_a_weight_that_is_no_number(weight):
    networkx = pytest.importorskip("networkx")
    graph = networkx.Graph([("a", "b"), ("b", "c", {"weight": weight})])
    with pm.Model(), pytest.raises(TypeError, match=r"got weight=.* for the edge between 'b' and 'c'"):
        Ising("s", graph)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"coupling": np.nan}, ValueError, "coupling must be finite"),
        ({"coupling": "x"}, TypeError, "coupling must be real numbers"),
        ({"h": [np.inf, 0, 0]}, ValueError, "h must be finite"),
        ({"h": [True, False, True]}, TypeError, "h must be real numbers"),
        ({"J": np.nan * lattice(3)}, ValueError, "the factor of the lattice must be finite"),
        ({"normalize": "none"}, ValueError, "normalize must be None"),
        ({"n_sweeps": 0}, ValueError, "n_sweeps must be at least 1, got 0"),
        ({"n_sweeps": 2.5}, TypeError, "n_sweeps must be an integer"),
    ],
)
def test_bad_parameters(arguments, error, message):
    with pm.Model(), pytest.raises(error, match=message):
        Ising("s", **{"J": lattice(3), **arguments})


def test_hidden_units_of_a_field_are_refused():
    with pm.Model():
        s = Ising("s", lattice(3))
        with pytest.raises(TypeError, match="visible units of a network"):
            HiddenUnits("h", s)
