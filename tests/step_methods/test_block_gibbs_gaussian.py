"""BlockGibbs on PyMC's MvNormal: exactness of the step that runs, clamping, random parameters, what is refused."""

import multiprocessing

import cloudpickle
import numpy as np
import pymc as pm
import pytensor
import pytest
from pymc.step_methods.compound import Competence
from pymc.step_methods.state import equal_dataclass_values
from pytensor.compile.mode import Mode

import pm_neural as pmn
import step_methods.block_gibbs
import step_methods.gibbs.gaussian
from step_methods.network import GaussianNetwork
from step_methods.reading.layers import network_node

pytestmark = pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")

# In Python: faster than to compile, for a few evaluations.
SLOW = {"mode": Mode(linker="py", optimizer=None)}
QUIET = {"progressbar": False, "compute_convergence_checks": False}
LECTURE = np.array([[1.0, 0.5], [0.5, 1.0]])


def covariance_of(rng, n, *batch):
    factor = rng.normal(size=(*batch, n, n))
    return factor @ np.swapaxes(factor, -1, -2) + 0.1 * np.eye(n)


# ---------------------------------------------------------------------------------- exactness
# Each of these declares "x" and returns mean and covariance of all that it has free, in the order of its value.


def plain(rng):
    mean, cov = rng.normal(size=4), covariance_of(rng, 4)
    pm.MvNormal("x", mean, cov=cov)
    return mean, cov


def by_tau(rng):
    mean, cov = rng.normal(size=3), covariance_of(rng, 3)
    pm.MvNormal("x", mean, tau=np.linalg.inv(cov))
    return mean, cov


def by_lower_chol(rng):
    cov = covariance_of(rng, 3)
    pm.MvNormal("x", 1.0, chol=np.linalg.cholesky(cov))
    return np.ones(3), cov


def by_upper_chol(rng):
    cov = covariance_of(rng, 3)
    pm.MvNormal("x", np.zeros(3), chol=np.linalg.cholesky(cov).T, lower=False)
    return np.zeros(3), cov


def single_number(rng):
    pm.MvNormal("x", [2.0], cov=[[0.25]])
    return np.array([2.0]), np.array([[0.25]])


def block_diagonal(covariances):
    n = covariances.shape[-1]
    blocks = covariances.reshape(-1, n, n)
    whole = np.zeros((len(blocks), n, len(blocks), n))
    for k, block in enumerate(blocks):
        whole[k, :, k] = block
    return whole.reshape(len(blocks) * n, -1)


def batch_with_one_covariance(rng):
    mean, cov = rng.normal(size=(5, 2)), covariance_of(rng, 2)
    pm.MvNormal("x", mean, cov=cov, shape=(5, 2))
    return mean.ravel(), block_diagonal(np.broadcast_to(cov, (5, 2, 2)))


def batch_of_covariances(rng):
    mean, cov = rng.normal(size=3), covariance_of(rng, 3, 2, 2)
    pm.MvNormal("x", mean, cov=cov)
    return np.tile(mean, 4), block_diagonal(cov)


def conditional(mean, cov, data, free):
    """Condition on the coordinates that are not free, by the formula for covariances."""
    known = ~free
    gain = cov[np.ix_(free, known)] @ np.linalg.inv(cov[np.ix_(known, known)])
    return mean[free] + gain @ (data - mean)[known], cov[np.ix_(free, free)] - gain @ cov[np.ix_(known, free)]


def clamped_coordinates(rng):
    mean, cov, data = rng.normal(size=5), covariance_of(rng, 5), rng.normal(size=5)
    free = np.array([True, False, True, True, False])
    pm.MvNormal("x", mean, cov=cov, observed=np.ma.masked_array(data, mask=free))
    return conditional(mean, cov, data, free)


def clamped_coordinates_of_a_batch(rng):
    """One row is free, one known, two are known in part."""
    mean, cov, data = rng.normal(size=(4, 3)), covariance_of(rng, 3), rng.normal(size=(4, 3))
    free = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 1], [0, 1, 0]], dtype=bool)
    pm.MvNormal("x", mean, cov=cov, observed=np.ma.masked_array(data, mask=free))
    whole = block_diagonal(np.broadcast_to(cov, (4, 3, 3)))
    return conditional(mean.ravel(), whole, data.ravel(), free.ravel())


def rows_masked_as_a_whole(rng):
    mean, cov = rng.normal(size=(4, 2)), covariance_of(rng, 2)
    mask = np.array([[0, 0], [1, 1], [0, 0], [1, 1]])
    pm.MvNormal("x", mean, cov=cov, observed=np.ma.masked_array(rng.normal(size=(4, 2)), mask=mask))
    return mean[[1, 3]].ravel(), block_diagonal(np.broadcast_to(cov, (2, 2, 2)))


def parameters_that_depend_on_others(rng):
    shift, factor = pm.Normal("shift"), pm.HalfNormal("factor")
    mean, cov = rng.normal(size=3), covariance_of(rng, 3)
    pm.MvNormal("x", mean + shift, cov=factor * cov)
    return mean + 0.7, np.exp(-0.4) * cov


VECTORS = [
    plain,
    by_tau,
    by_lower_chol,
    by_upper_chol,
    single_number,
    batch_with_one_covariance,
    batch_of_covariances,
    clamped_coordinates,
    clamped_coordinates_of_a_batch,
    rows_masked_as_a_whole,
    parameters_that_depend_on_others,
]
OTHERS = {"shift": np.array(0.7), "factor_log__": np.array(-0.4)}


def free_part(model):
    (rv,) = (rv for rv in model.free_RVs if rv.name.startswith("x"))
    return rv


def affine_map(step, point, name, n_normals, monkeypatch):
    """Return A, L and c of x → A x + L ε + c: what a step does to its variable, given its normal numbers ε."""

    def image(x, noise):
        rest = noise

        def fill(stream, out):
            nonlocal rest
            out[:], rest = rest[: out.size], rest[out.size :]

        monkeypatch.setattr(step_methods.gibbs.gaussian, "fill_normal", fill)
        new_point, _ = step.step({**point, name: x.reshape(point[name].shape)})
        assert rest.size == 0
        return new_point[name].ravel()

    n = point[name].size
    c = image(np.zeros(n), np.zeros(n_normals))
    A = [image(row, np.zeros(n_normals)) - c for row in np.eye(n)]
    L = [image(np.zeros(n), row) - c for row in np.eye(n_normals)]
    return np.array(A).T, np.array(L).T, c


def assert_invariant(A, L, c, mean, cov):
    """Check A Σ Aᵀ + L Lᵀ = Σ and A μ + c = μ to 1e-12 of the largest entry."""
    np.testing.assert_allclose(A @ cov @ A.T + L @ L.T, cov, atol=1e-12 * np.abs(cov).max())
    np.testing.assert_allclose(A @ mean + c, mean, atol=1e-12 * (1 + np.abs(mean).max()))


@pytest.mark.parametrize("sweeps", [1, 3])
@pytest.mark.parametrize("vector", VECTORS)
def test_a_step_leaves_the_gaussian_invariant(rng, vector, sweeps, monkeypatch):
    """The kernel that runs, made to show its affine map, against the law by the formula for covariances."""
    with pm.Model() as model:
        mean, cov = vector(rng)
        step = pmn.BlockGibbs([free_part(model)], sweeps_per_draw=sweeps, compile_kwargs=SLOW)
    point = {name: OTHERS.get(name, value) for name, value in model.initial_point().items()}
    name = step.vars[0].name
    A, L, c = affine_map(step, point, name, sweeps * mean.size, monkeypatch)
    assert_invariant(A, L, c, mean, cov)
    assert np.abs(np.linalg.eigvals(A)).max() < 1


PARTITIONS = [
    (plain, [[2, 0], [1, 3]]),
    (plain, [[3, 1, 0, 2]]),
    (by_tau, [np.array([True, False, True]), np.array([False, True, False])]),
    (batch_with_one_covariance, [[0, 3, 4], [1, 2, 5], [6, 7, 8, 9]]),
    (batch_of_covariances, [[0, 5, 7], [1, 2, 3, 4], [6, 8, 9, 10, 11]]),
    (clamped_coordinates, [[3, 0], [2]]),
    (clamped_coordinates_of_a_batch, [[(0, 0), (0, 2), (2, 2)], [(0, 1), (3, 1)], [(2, 0)]]),
    (rows_masked_as_a_whole, [[0, 1], [3], [2]]),
    (parameters_that_depend_on_others, [[1], [2, 0]]),
]


@pytest.mark.parametrize("order", ["fixed", "random"])
@pytest.mark.parametrize(("vector", "blocks"), PARTITIONS)
def test_any_blocks_in_any_order_leave_the_gaussian_invariant(rng, vector, blocks, order, monkeypatch):
    """In random order for given picks, of which some blocks get several and some none."""
    with pm.Model() as model:
        mean, cov = vector(rng)
        step = pmn.BlockGibbs([free_part(model)], blocks=blocks, order=order, sweeps_per_draw=2, compile_kwargs=SLOW)
    sizes = [np.sum(block) if np.asarray(block).dtype == bool else len(block) for block in blocks]
    point = {name: OTHERS.get(name, value) for name, value in model.initial_point().items()}
    picks = np.tile(np.arange(len(blocks)), 2)
    if order == "random":
        picks = np.sort(rng.integers(len(blocks), size=picks.size))
        monkeypatch.setattr(step_methods.block_gibbs, "fill_integers", lambda stream, n, out: np.copyto(out, picks))
    A, L, c = affine_map(step, point, step.vars[0].name, sum(sizes[k] for k in picks), monkeypatch)
    assert_invariant(A, L, c, mean, cov)


def test_coordinates_are_picked_alike_in_all_rows(rng):
    """The k-th coordinates of all rows of a batch are the k-th block, which is picked by chance."""
    with pm.Model() as model:
        x = pm.MvNormal("x", np.zeros(3), cov=np.eye(3), shape=(4, 3))
        step = pmn.BlockGibbs([x], order="random", rng=1)
    point = model.initial_point()
    counts = np.zeros(4, int)
    for _ in range(2000):
        new, _ = step.step(point)
        moved = new["x"] != point["x"]
        assert (moved == moved[0]).all()
        counts[moved[0].sum()] += 1
    # Three picks out of three, of which 1, 2 or 3 differ; 4 standard deviations of a count are at most 90.
    np.testing.assert_allclose(counts, [0, 2000 / 9, 2000 * 6 / 9, 2000 * 2 / 9], atol=90)


def test_one_block_of_all_gives_independent_draws(monkeypatch):
    with pm.Model() as model:
        x = pm.MvNormal("x", np.zeros(2), cov=LECTURE, initval=np.array([3.0, -3.0]))
        step = pmn.BlockGibbs(x, blocks={"x": [[0, 1]]})
    A, L, _ = affine_map(step, model.initial_point(), "x", 2, monkeypatch)
    np.testing.assert_array_equal(A, 0.0)
    np.testing.assert_allclose(L @ L.T, LECTURE, atol=1e-14)


@pytest.mark.parametrize("vector", VECTORS)
def test_energy_is_minus_the_logp_without_its_constant(rng, vector):
    with pm.Model() as model:
        vector(rng)
        rv = free_part(model)
        step = pmn.BlockGibbs([rv], rng=1, compile_kwargs=SLOW)
        whole = [rv] if vector is rows_masked_as_a_whole else [v for v in model.basic_RVs if v.name.startswith("x")]
        logp = model.compile_logp(vars=whole, **SLOW)
    point = {name: OTHERS.get(name, value) for name, value in model.initial_point().items()}
    sums = []
    for _ in range(4):
        point, (stats,) = step.step(point)
        sums.append(stats["network_energy"] + logp(point))
    np.testing.assert_allclose(sums, sums[0], atol=1e-8)


def test_the_energy_of_the_example(monkeypatch):
    monkeypatch.setattr(step_methods.gibbs.gaussian, "fill_normal", lambda stream, out: out.fill(0.0))
    with pm.Model() as model:
        x = pm.MvNormal("x", np.zeros(2), cov=LECTURE, initval=np.array([3.0, -3.0]))
        step = pmn.BlockGibbs([x])
    point = model.initial_point()
    np.testing.assert_array_equal(point["x"], [3.0, -3.0])
    new, (stats,) = step.step(point)
    # Without noise each coordinate goes to its conditional mean, half the other.
    np.testing.assert_allclose(new["x"], [-1.5, -0.75], atol=1e-15)
    energy = new["x"] @ np.linalg.inv(LECTURE) @ new["x"] / 2
    assert stats["network_energy"] == pytest.approx(energy, abs=1e-14)
    assert stats["flip_rate"] == 0.0
    np.testing.assert_array_equal(point["x"], [3.0, -3.0])


def test_float32(rng, monkeypatch):
    with pytensor.config.change_flags(floatX="float32"), pm.Model() as model:
        mean, cov = rng.normal(size=3), covariance_of(rng, 3)
        x = pm.MvNormal("x", mean, tau=np.linalg.inv(cov))
        step = pmn.BlockGibbs([x])
        new, _ = step.step(model.initial_point())
        assert new["x"].dtype == np.float32
        A, L, c = affine_map(step, model.initial_point(), "x", 3, monkeypatch)
    np.testing.assert_allclose(A @ cov @ A.T + L @ L.T, cov, atol=1e-4 * np.abs(cov).max())
    np.testing.assert_allclose(A @ mean + c, mean, atol=1e-4)


# ---------------------------------------------------------------------------------- inside PyMC


def test_nuts_takes_it_by_default():
    with pm.Model() as model:
        x = pm.MvNormal("x", np.zeros(2), cov=LECTURE)
        z = pmn.Ising("z", pmn.lattice((2, 2)))
        assert pmn.BlockGibbs.competence(x) == Competence.INCOMPATIBLE
        _, assigned = pm.sampling.mcmc.assign_step_methods(model)
        names = {method.__name__: {var.name for var in variables} for method, variables in assigned.items()}
    assert names == {"NUTS": {"x"}, "BlockGibbs": {z.name}}
    assert isinstance(network_node(x)[1], GaussianNetwork)


def test_a_field_and_a_gaussian_in_one_step(rng):
    """The gaussian's mean follows another variable; only the field's units count in the flip rate."""
    with pm.Model() as model:
        z = pmn.Ising("z", pmn.lattice((2, 3)), 0.3)
        x = pm.MvNormal("x", pm.Normal("shift") * np.ones(2), cov=LECTURE)
        step = pmn.BlockGibbs([z, x], sweeps_per_draw=30, rng=1, compile_kwargs=SLOW)
        with pytest.raises(ValueError, match=r"vars must have two values per unit.*'x'"):
            pmn.diagnostics.transition_matrix(step)
    point, _ = step.step(model.initial_point())
    field_energy = model.compile_logp(vars=[z], **SLOW)
    for shift in (100.0, -100.0):
        new, (stats,) = step.step({**point, "shift": np.array(shift)})
        assert (np.abs(new["x"] - shift) < 6).all()
        assert stats["flip_rate"] == (new["z"] != point["z"]).mean()
        d = new["x"] - shift
        np.testing.assert_allclose(
            stats["network_energy"], d @ np.linalg.inv(LECTURE) @ d / 2 - field_energy(new), atol=1e-9
        )
        point = new
    with pytest.raises(TypeError, match="'x' is real-valued: its draws cannot be forced"):
        step.forced_step(point, np.zeros(0, np.uint8))


def test_shared_data_are_read_again_for_each_chain():
    with pm.Model():
        mean, variance = pm.Data("mean", np.full(2, 100.0)), pm.Data("variance", 1e-6)
        x = pm.MvNormal("x", mean, cov=variance * np.eye(2))
        step = pmn.BlockGibbs([x])
        options = {"tune": 0, "chains": 1, "cores": 1, "random_seed": 1, "step": step, **QUIET}
        assert np.abs(pm.sample(5, **options).posterior["x"].values - 100).max() < 0.01
        pm.set_data({"mean": np.full(2, -7.0), "variance": 1e-12})
        assert np.abs(pm.sample(5, **options).posterior["x"].values + 7).max() < 1e-4
        pm.set_data({"variance": -1.0})
        with pytest.raises(ValueError, match="the covariance of 'x' must be positive definite"):
            pm.sample(5, **options)


def test_a_fixed_covariance_is_inverted_once(rng, monkeypatch):
    with pm.Model() as model:
        x = pm.MvNormal("x", pm.Normal("shift") * np.ones(3), cov=covariance_of(rng, 3), shape=(4, 3))
        prepare, calls = step_methods.gibbs.gaussian.prepare_gaussian, []
        monkeypatch.setattr(step_methods.gibbs.gaussian, "prepare_gaussian", lambda *a: calls.append(a) or prepare(*a))
        step = pmn.BlockGibbs([x], compile_kwargs=SLOW)
    for shift in (0.0, 1.0, 2.0):
        step.step({**model.initial_point(), "shift": np.array(shift)})
    assert len(calls) == 1


def model_of_both():
    with pm.Model() as model:
        pmn.Ising("z", pmn.lattice((2, 2)))
        pm.MvNormal("x", np.zeros(3), cov=np.eye(3) + 0.5)
    return model


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_draws_do_not_depend_on_the_processes(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    with model_of_both() as model:
        options = {
            "draws": 20,
            "tune": 5,
            "chains": 2,
            "random_seed": 11,
            "step": pmn.BlockGibbs(model.free_RVs),
            **QUIET,
        }
        alone = pm.sample(cores=1, **options)
        together = pm.sample(cores=2, mp_ctx=method, **options)
    for group in ("posterior", "sample_stats"):
        for name in alone[group].data_vars:
            np.testing.assert_array_equal(alone[group][name], together[group][name])


def test_state_round_trip_and_pickling():
    with model_of_both() as model:
        step, other = (pmn.BlockGibbs(model.free_RVs, sweeps_per_draw=2, rng=seed) for seed in (1, 2))
    point = step.step(model.initial_point())[0]
    copy = cloudpickle.loads(cloudpickle.dumps(step))
    state = cloudpickle.loads(cloudpickle.dumps(step.sampling_state))
    for one in (other, copy):
        one.sampling_state = state
        assert equal_dataclass_values(one.sampling_state, state)
    expected = step.step(point)[0]["x"]
    for one in (other, copy):
        np.testing.assert_array_equal(one.step(point)[0]["x"], expected)


# ---------------------------------------------------------------------------------- bad input


def child(x):
    pm.Normal("y", x, 1)


def likelihood(x):
    pm.Normal("y", x, 1, observed=np.zeros(2))


def potential(x):
    pm.Potential("y", -(x[0] ** 2))


def field_on_top(x):
    pmn.Ising("y", LECTURE - np.eye(2), x, normalize="exact")


@pytest.mark.parametrize("term", [child, likelihood, potential, field_on_top])
def test_evidence_is_refused(term):
    with pm.Model():
        x = pm.MvNormal("x", np.zeros(2), cov=LECTURE)
        term(x)
        with pytest.raises(
            ValueError, match=r"the term 'y' of the model depends on 'x', a Gaussian .* pymc\.NUTS instead$"
        ):
            pmn.BlockGibbs([x])


@pytest.mark.parametrize(
    ("cov", "message"),
    [
        ([[1.0, 2.0], [2.0, 1.0]], "must be positive definite, got one with the eigenvalue -1"),
        ([[1.0, 1.0], [1.0, 1.0]], "must be positive definite, got one with the eigenvalue"),
        ([[1.0, 0.5], [0.4, 1.0]], "must be symmetric, got two halves that differ by 0.1"),
        ([[1.0, np.nan], [np.nan, 1.0]], "must be finite"),
    ],
)
def test_a_covariance_that_is_none(cov, message):
    with pm.Model():
        x = pm.MvNormal("x", np.zeros(2), cov=np.array(cov))
        with pytest.raises(ValueError, match=f"the covariance of 'x' {message}"):
            pmn.BlockGibbs([x])


def test_a_random_covariance_that_turns_out_to_be_none():
    with pm.Model() as model:
        rho = pm.Normal("rho")
        x = pm.MvNormal("x", np.zeros(2), cov=pm.math.stack([[1.0, rho], [rho, 1.0]]))
        step = pmn.BlockGibbs([x], compile_kwargs=SLOW)
        with pytest.raises(ValueError, match="the covariance of 'x' must be positive definite"):
            step.step({**model.initial_point(), "rho": np.array(1.5)})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_start_value_that_is_no_number(bad):
    with pm.Model() as model:
        x = pm.MvNormal("x", np.zeros(2), cov=LECTURE)
        message = "the start value of 'x' must be finite everywhere, got"
        with pytest.raises(ValueError, match=message):
            pmn.BlockGibbs([x], initial_point={"x": np.array([0.0, bad])})
        with pytest.raises(ValueError, match=message):
            pmn.BlockGibbs([x]).step({**model.initial_point(), "x": np.array([bad, 0.0])})


def test_a_vector_without_free_coordinates():
    with pm.Model():
        x = pm.MvNormal("x", np.zeros(2), cov=LECTURE, observed=[1.0, 2.0])
        with pytest.raises(ValueError, match="'x' is observed entirely"):
            pmn.BlockGibbs([x])


def test_a_covariance_that_changes_its_shape():
    with pm.Model() as model:
        cov = pm.Data("cov", np.eye(2))
        x = pm.MvNormal("x", 0.0, cov=cov)
        step = pmn.BlockGibbs([x])
        pm.set_data({"cov": np.eye(3)})
        with pytest.raises(ValueError, match=r"the covariance of 'x' must have the shape \(2, 2\), got \(3, 3\)"):
            step.setup_chain(np.random.default_rng(1), 0, 1)
    assert model.free_RVs == [x]


def test_rows_of_a_batch_of_fields_that_are_masked_as_a_whole(rng, certify):
    """PyMC gives such rows a variable and parameters of their own."""
    mask = np.array([[1, 1], [0, 0], [1, 1]])
    with pm.Model() as model:
        pmn.Ising(
            "z",
            LECTURE - np.eye(2),
            rng.normal(size=(3, 2)),
            event_ndim=1,
            observed=np.ma.masked_array(2 * mask - 1, mask=mask),
        )
        step = pmn.BlockGibbs(model.free_RVs)
    certify(step, model.initial_point())
