"""BlockGibbs on Boltzmann machines and Ising fields: exactness, clamping, evidence, random parameters."""

import cloudpickle
import numpy as np
import pymc as pm
import pytest
import scipy.sparse

import pm_neural as pmn

pytestmark = pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")

QUIET = {"progressbar": False, "compute_convergence_checks": False}
RING = scipy.sparse.csr_array(np.roll(np.eye(5), 1, axis=1) + np.roll(np.eye(5), -1, axis=1))


def symmetric(rng, n):
    J = np.triu(rng.normal(size=(n, n)), 1)
    return J + J.T


def dense_bits(rng):
    return pmn.BoltzmannMachine("z", symmetric(rng, 6), rng.normal(size=6))


def sparse_spins(rng):
    return pmn.Ising("z", RING, rng.normal(size=5), coupling=-0.7)


def lattice_spins(rng):
    return pmn.Ising("z", 0.4 * pmn.lattice((2, 4)), rng.normal(size=(2, 4)))


def odd_torus_of_bits(rng):
    return pmn.BoltzmannMachine("z", pmn.lattice((3, 3), periodic=True), -1.0, coupling=0.8)


def batch_of_spins(rng):
    return pmn.Ising("z", symmetric(rng, 3), rng.normal(size=(2, 3)), coupling=np.array([0.5, -1.0]))


def batch_with_two_axes(rng):
    return pmn.Ising("z", symmetric(rng, 2), rng.normal(size=(2, 1, 2)), coupling=np.array([0.5, -1.0]))


def clamped_bits(rng):
    observed = np.ma.masked_array([1, 0, 0, 1, 1, 0], mask=[0, 1, 1, 0, 1, 1])
    return pmn.BoltzmannMachine("z", symmetric(rng, 6), rng.normal(size=6), observed=observed)


def clamped_spins(rng):
    observed = np.ma.masked_array([[1, -1, 1], [-1, 1, -1]], mask=[[0, 1, 1], [1, 0, 1]])
    return pmn.Ising("z", pmn.lattice((2, 3)), rng.normal(size=(2, 3)), coupling=0.6, observed=observed)


FIELDS = [
    dense_bits,
    sparse_spins,
    lattice_spins,
    odd_torus_of_bits,
    batch_of_spins,
    batch_with_two_axes,
    clamped_bits,
    clamped_spins,
]


@pytest.mark.parametrize("field", FIELDS)
def test_the_kernel_leaves_the_field_invariant(rng, field, certify):
    with pm.Model() as model:
        field(rng)
        step = pmn.BlockGibbs(model.free_RVs)
    certify(step, model.initial_point())


@pytest.mark.parametrize("field", FIELDS)
def test_the_kernel_conditions_on_evidence(rng, field, certify):
    with pm.Model() as model:
        z = field(rng)
        sigma = pm.HalfNormal("sigma")
        pm.Normal("y", 2.0 * z, sigma, observed=rng.normal(size=z.type.shape))
        pm.Potential("pull", 0.3 * z)
        step = pmn.BlockGibbs([rv for rv in model.free_RVs if rv.name.startswith("z")])
    certify(step, {**model.initial_point(), "sigma_log__": np.array(-0.3)})


def test_random_parameters_are_read_at_each_step(rng, certify):
    with pm.Model() as model:
        beta = pm.Normal("beta")
        h = pm.Normal("h", shape=(2, 3))
        z = pmn.Ising("z", pmn.lattice((2, 3)), h, coupling=beta, normalize="exact")
        step = pmn.BlockGibbs([z])
    for value in (0.7, -0.4):
        certify(step, {**model.initial_point(), "beta": np.array(value), "h": rng.normal(size=(2, 3))})


def test_a_field_and_an_rbm_in_one_step(rng, certify):
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", rng.normal(size=(3, 2)), rng.normal(size=3), rng.normal(size=2))
        s = pmn.Ising("s", symmetric(rng, 3), rng.normal(size=3))
        pm.Potential("bridge", 0.5 * v * s)
        step = pmn.BlockGibbs([v, s])
    certify(step, model.initial_point())


def test_a_bare_sample_picks_it(rng):
    with pm.Model() as model:
        sparse_spins(rng)
        idata = pm.sample(20, tune=0, chains=2, cores=1, random_seed=1, **QUIET)
    values = idata.posterior["z"].values
    assert values.dtype == np.int64
    assert set(np.unique(values)) == {-1, 1}
    assert model.free_RVs


def test_energy_is_minus_the_logp_of_the_draw(rng):
    for field in FIELDS:
        with pm.Model() as model:
            field(rng)
            step = pmn.BlockGibbs(model.free_RVs, sweeps_per_draw=2)
        logp = model.compile_logp()
        point, _ = step.step(model.initial_point())
        for _ in range(3):
            new, (stats,) = step.step(point)
            np.testing.assert_allclose(stats["network_energy"], -logp(new), atol=1e-10)
            changed = sum((new[name] != point[name]).sum() for name in point)
            assert stats["flip_rate"] == changed / sum(value.size for value in point.values())
            point = new


def test_draws_do_not_depend_on_the_processes(rng):
    with pm.Model():
        lattice_spins(rng)
        options = {"draws": 20, "tune": 5, "chains": 2, "random_seed": 11, **QUIET}
        alone, together = (pm.sample(cores=cores, **options).posterior["z"] for cores in (1, 2))
    np.testing.assert_array_equal(alone, together)


def test_a_step_survives_pickling(rng):
    with pm.Model() as model:
        clamped_spins(rng)
        step = pmn.BlockGibbs(model.free_RVs)
    copy = cloudpickle.loads(cloudpickle.dumps(step))
    for one in (step, copy):
        one.setup_chain(np.random.default_rng(3), 0, 1)
    point = model.initial_point()
    for name, value in step.step(point)[0].items():
        np.testing.assert_array_equal(value, copy.step(point)[0][name])


def test_a_start_value_off_the_support(rng):
    with pm.Model() as model:
        sparse_spins(rng)
        bad = {"z": np.array([1, -1, 0, 1, 1])}
        with pytest.raises(ValueError, match="start value of 'z' must be -1 or 1 everywhere, got 0"):
            pmn.BlockGibbs(model.free_RVs, initial_point=bad)


def test_random_coupling_without_a_normalizer_is_refused():
    with pm.Model():
        z = pmn.Ising("z", pmn.lattice((3, 3)), coupling=pm.HalfNormal("beta"))
        with pytest.raises(ValueError, match=r"depend on other random variables \(beta\)"):
            pmn.BlockGibbs([z])
