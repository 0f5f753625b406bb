"""Energy: torch modules as PyMC distributions, their gradients, supports and processes, and what is refused."""

import threading

import arviz as az
import cloudpickle
import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from pytensor import function
from pytensor.gradient import verify_grad
from pytensor.graph.replace import vectorize_graph

torch = pytest.importorskip("torch")

import pm_neural as pmn  # noqa: E402
from pm_neural.distributions.energy import TorchEnergy  # noqa: E402
from step_methods.reading.layers import is_binary_energy  # noqa: E402

QUIET = {"progressbar": False, "compute_convergence_checks": False}
ONE_CORE = {"cores": 1, **QUIET}


class Quadratic(torch.nn.Module):
    """A normal with given standard deviations."""

    def __init__(self, *scales):
        super().__init__()
        self.scales = torch.nn.Parameter(torch.tensor(scales, dtype=torch.float64))
        self.n_calls = 0

    def forward(self, x):
        self.n_calls += 1
        return 0.5 * ((x / self.scales) ** 2).sum(-1)


class Function(torch.nn.Module):
    """Any function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def perceptron(n=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Linear(n, 16), torch.nn.SiLU(), torch.nn.Linear(16, 1), torch.nn.Flatten(0))
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.7
    return module.to(dtype)


def logp_of(module, x):
    return -module(torch.as_tensor(x, dtype=torch.float64)[None]).item()


# --- value and gradient --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_log_density_is_minus_the_module(rng, dtype):
    module = perceptron(dtype=dtype)
    with pm.Model() as model:
        pmn.Energy("x", module, shape=2)
    x = rng.normal(size=2)
    got = model.compile_logp()({"x": x})
    assert got.dtype == np.float64
    expected = -module(torch.as_tensor(x, dtype=dtype)[None]).item()
    assert got == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 3, 2)])
def test_gradient_against_finite_differences(rng, shape):
    """Of the Op with up to two batch axes, in the default backend and in Python."""
    with pm.Model():
        op = TorchEnergy(pmn.Energy("x", perceptron(), shape=2).owner.op.module)
    x = rng.normal(size=shape)
    verify_grad(lambda x: op(x)[0], [x], rng=rng)
    verify_grad(lambda x: op(x)[0], [x], rng=rng, mode="FAST_COMPILE")


def test_value_and_gradient_take_one_evaluation():
    with pm.Model() as model:
        x = pmn.Energy("x", Quadratic(1.0, 3.0), shape=2)
    module = x.owner.op.module._module
    logp, logp_dlogp = model.compile_logp(), model.logp_dlogp_function(ravel_inputs=True)
    for compute, n_evaluations in ((logp, 1), (lambda point: logp_dlogp(point["x"]), 1)):
        before = module.n_calls
        compute({"x": np.array([1.0, 3.0])})
        assert module.n_calls == before + n_evaluations
    value, gradient = logp_dlogp(np.array([1.0, 3.0]))
    assert value == pytest.approx(-1.0)
    assert gradient == pytest.approx([-1.0, -1 / 3])


@pytest.mark.numba
def test_the_gradient_is_left_out_where_nothing_uses_it():
    with pm.Model() as model:
        pmn.Energy("x", perceptron(), shape=2)

    def nodes(compiled):
        ops = [node.op for node in compiled.maker.fgraph.toposort()]
        return [op.with_gradient for op in ops if isinstance(op, TorchEnergy)]

    assert nodes(model.compile_logp().f) == [False]
    assert nodes(model.logp_dlogp_function(ravel_inputs=True)._pytensor_function) == [True]


def test_second_derivatives_are_refused():
    with pm.Model() as model:
        pmn.Energy("x", perceptron(), shape=2)
    with pytest.raises(NotImplementedError, match="second derivatives of an Energy"):
        model.compile_d2logp()


def test_vectorized_graph(rng):
    with pm.Model():
        op = TorchEnergy(pmn.Energy("x", perceptron(), shape=2).owner.op.module)
    point, points = pt.dvector(), pt.dmatrix()
    vectorized = function([points], vectorize_graph(op(point)[0], {point: points}))
    x = rng.normal(size=(4, 2))
    assert vectorized(x) == pytest.approx(op.module.energy(x))


# --- supports and shapes -------------------------------------------------------------------------------------------


def test_unit_support_is_sampled_through_its_log_odds(rng):
    module = perceptron(6)
    flat = Function(lambda x: module(x.flatten(1)))
    with pm.Model() as model:
        pmn.Energy("x", flat, shape=(2, 3), support="unit")
    assert [var.name for var in model.value_vars] == ["x_logodds__"]
    y = rng.normal(size=(2, 3))
    x = 1 / (1 + np.exp(-y))
    got = model.compile_logp()({"x_logodds__": y})
    assert got == pytest.approx(logp_of(flat, x) + np.log(x * (1 - x)).sum())
    outside = pm.logp(model["x"], np.full((2, 3), 1.5)).eval()
    assert outside == -np.inf


def test_binary_support():
    with pm.Model() as model:
        z = pmn.Energy("z", perceptron(3), shape=3, support="binary")
    assert z.dtype == "int64"
    assert model.initial_point()["z"].dtype == np.int64
    logp = model.compile_logp()
    assert logp({"z": np.array([1, 0, 1])}) == pytest.approx(logp_of(perceptron(3), [1.0, 0.0, 1.0]))
    assert logp({"z": np.array([2, 0, 1])}) == -np.inf


@pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")
def test_binary_energies_are_told_from_others():
    with pm.Model() as model:
        z = pmn.Energy("z", perceptron(), shape=2, support="binary")
        x = pmn.Energy("x", perceptron(), shape=2)
        data = np.ma.masked_array([0, 1], mask=[True, False])
        pmn.Energy("clamped", perceptron(), support="binary", observed=data)
    assert is_binary_energy(z)
    assert is_binary_energy(model["clamped_unobserved"])
    assert not is_binary_energy(x)


def test_binary_energies_are_sampled_by_gibbs_through_the_energy():
    with pm.Model():
        z = pmn.Energy("z", perceptron(3), shape=3, support="binary")
        step = pmn.EnergyGibbs([z])
        with pytest.raises(TypeError, match="tau = 1"):
            pmn.EnergyGibbs([z], tau=2)
        idata = pm.sample(20, tune=0, chains=1, random_seed=1, **ONE_CORE)
    assert pmn.diagnostics.certify(step)
    assert set(idata["sample_stats"].data_vars) == {"network_energy", "spikes", "rate", "start_hash"}


def test_neural_sampling_refuses_real_units():
    with pm.Model():
        x = pmn.Energy("x", perceptron(), shape=2)
        v = pmn.GaussianRBM("v", np.ones((2, 1)), np.zeros(2), np.zeros(1), 1.0)
        with pytest.raises(ValueError, match="binary energies, got 'x'"):
            pmn.NeuralSampling([x])
        with pytest.raises(ValueError, match="those of 'v' are real"):
            pmn.NeuralSampling([v])


def test_leading_axes_are_a_batch(rng):
    module = perceptron()
    with pm.Model(coords={"point": range(3), "axis": range(2)}) as model:
        pmn.Energy("x", module, dims=("point", "axis"), event_ndim=1)
        pmn.Energy("y", Function(lambda x: x**2), shape=4, event_ndim=0)
    x, y = rng.normal(size=(3, 2)), rng.normal(size=4)
    assert model.named_vars_to_dims["x"] == ("point", "axis")
    x_logp, y_logp = model.compile_fn(model.logp(sum=False))({"x": x, "y": y})
    assert x_logp == pytest.approx([logp_of(module, row) for row in x])
    assert y_logp == pytest.approx(-(y**2))


def test_scalars_and_start_values():
    with pm.Model() as model:
        pmn.Energy("x", Function(lambda x: torch.log(x) ** 2), shape=(), initval=2.0)
        pmn.Energy("u", Function(lambda x: x**2), shape=(), support="unit", initval=0.25)
    start = model.initial_point()
    assert start["x"] == 2.0
    assert start["u_logodds__"] == pytest.approx(np.log(1 / 3))
    assert model.compile_logp()(start) == pytest.approx(-(np.log(2) ** 2) - 0.25**2 + np.log(0.25 * 0.75))


@pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")
def test_masked_data_clamp_coordinates():
    """x₁ | x₀ = 2 of a normal with correlation: mean and square within 4 MCSE, false-alarm rate 1e-4."""
    module = Function(lambda x: (x[:, 0] ** 2 + x[:, 1] ** 2 - 1.2 * x[:, 0] * x[:, 1]) / (2 * (1 - 0.6**2)))
    with pm.Model():
        pmn.Energy("x", module, observed=np.ma.masked_array([2.0, np.nan], mask=[False, True]))
        idata = pm.sample(2000, tune=500, chains=2, step=pmn.Langevin(), random_seed=1, **ONE_CORE)
    x = idata["posterior"]["x"].values
    assert (x[..., 0] == 2).all()
    within_4_mcse(np.stack([x[..., 1], x[..., 1] ** 2], axis=-1), [1.2, 1.2**2 + 1 - 0.6**2])


# --- sampling ------------------------------------------------------------------------------------------------------


def within_4_mcse(samples, expected):
    mcse = az.mcse(az.convert_to_dataset({"x": samples}))["x"].values
    deviation = np.abs(samples.mean(axis=(0, 1)) - expected) / mcse
    assert (deviation < 4).all(), deviation


@pytest.mark.parametrize(
    "options",
    [
        {"nuts_sampler": "pymc"},
        {"step": pmn.Langevin},
        {"step": pm.Metropolis, "draws": 6000},
        {"step": pm.DEMetropolisZ, "draws": 6000},
    ],
    ids=["NUTS", "Langevin", "Metropolis", "DEMetropolisZ"],
)
def test_step_methods_agree_with_the_density(options):
    """A normal with standard deviations 1 and 3: means and squares within 4 MCSE, false-alarm rate 3e-4 each."""
    with pm.Model():
        pmn.Energy("x", Quadratic(1.0, 3.0), shape=2)
        if "step" in options:
            options = {**options, "step": options["step"]()}
        idata = pm.sample(**{"draws": 2000, "tune": 1000, "chains": 2, "random_seed": 2, **ONE_CORE, **options})
    x = idata["posterior"]["x"].values / [1, 3]
    within_4_mcse(np.concatenate([x, x**2], axis=-1), [0, 0, 1, 1])


@pytest.mark.parametrize("step", [pm.BinaryGibbsMetropolis, pm.BinaryMetropolis])
def test_pymcs_binary_steps_sample_binary_energies(step):
    """The probability of each state of two coupled units within 4 MCSE; false-alarm rate 3e-4."""
    with pm.Model():
        z = pmn.Energy("z", Function(lambda z: 0.3 * z.sum(-1) - 1.5 * z[:, 0] * z[:, 1]), shape=2, support="binary")
        draws = pm.sample(4000, tune=100, chains=2, step=step([z]), random_seed=3, **ONE_CORE)["posterior"]["z"].values
    assert draws.dtype == np.int64
    weights = np.exp([0, -0.3, -0.3, 0.9])
    states = draws @ [2, 1]
    within_4_mcse((states[..., None] == np.arange(4)).astype(float), weights / weights.sum())


def two_chains(model, cores, **kwargs):
    with model:
        step = pmn.Langevin()
        idata = pm.sample(30, tune=30, chains=2, cores=cores, step=step, random_seed=4, **QUIET, **kwargs)
    return idata["posterior"]["x"].values


@pytest.fixture
def busy_torch():
    """Let torch's thread pool do something, which a forked process then lacks."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    weights = torch.ones(600, 600)
    assert (weights @ weights).sum() > 0
    assert torch.exp(torch.zeros(200_000)).sum() > 0
    yield
    torch.set_num_threads(n_threads)


def test_several_processes_by_fork(busy_torch):
    with pm.Model() as model:
        pmn.Energy("x", perceptron(300), shape=300)
    assert np.array_equal(two_chains(model, 1), two_chains(model, 2, mp_ctx="fork"))


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_several_fresh_processes(busy_torch, start_method):
    with pm.Model() as model:
        pmn.Energy("x", perceptron(), shape=2)
    assert np.array_equal(two_chains(model, 1), two_chains(model, 2, mp_ctx=start_method))


# --- the module is frozen ------------------------------------------------------------------------------------------


def test_the_model_keeps_the_weights_and_leaves_the_module_alone():
    module = Quadratic(1.0, 3.0)
    with pm.Model() as model:
        pmn.Energy("x", module, shape=2)
    logp = model.compile_logp()
    assert module.n_calls == 0
    assert module.training
    assert module.scales.requires_grad
    module.scales.data[:] = 100.0
    assert logp({"x": np.array([1.0, 3.0])}) == pytest.approx(-1.0)


def test_dropout_and_batch_norm_are_evaluated_not_trained():
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout(0.5), perceptron(dtype=torch.float32))
    with pm.Model() as model:
        pmn.Energy("x", module, shape=2)
    logp = model.compile_logp()
    x = {"x": np.array([1.0, -2.0])}
    assert len({float(logp(x)) for _ in range(10)}) == 1
    assert module.training


def test_equality_and_pickling():
    module = perceptron()
    with pm.Model() as model:
        op = TorchEnergy(pmn.Energy("x", module, shape=2).owner.op.module)
        other = TorchEnergy(pmn.Energy("y", module, shape=2).owner.op.module)
    assert op == TorchEnergy(op.module)
    assert hash(op) == hash(TorchEnergy(op.module))
    assert op != other
    assert op != TorchEnergy(op.module, with_gradient=False)
    same_model, same_op = cloudpickle.loads(cloudpickle.dumps((model, op)))
    assert same_op == op
    assert hash(same_op) == hash(op)
    point = {"x": np.ones(2), "y": np.zeros(2)}
    assert same_model.compile_logp()(point) == model.compile_logp()(point)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [lambda x: pm.draw(x), lambda x: pm.sample_prior_predictive(2)], ids=["draw", "prior"])
def test_draws_are_refused(draw):
    with pm.Model():
        x = pmn.Energy("x", perceptron(), shape=2)
        with pytest.raises(ValueError, match="an Energy has no draws of its own"):
            draw(x)


def split_dtypes():
    return torch.nn.Sequential(torch.nn.Linear(2, 2).double(), torch.nn.Linear(2, 1), torch.nn.Flatten(0))


class Uncopyable(Quadratic):
    """A module that cannot be copied."""

    def __deepcopy__(self, memo):
        raise RuntimeError("no copies")


@pytest.mark.parametrize(
    ("module", "options", "error", "message"),
    [
        (lambda x: x.sum(-1), {}, TypeError, "module must be a torch.nn.Module, got function"),
        (Function(lambda x: x.sum()), {}, ValueError, r"output must have the shape \(1,\), got \(\)"),
        (Function(lambda x: x.sum(-1).squeeze()), {}, ValueError, r"output must have the shape \(1,\), got \(\)"),
        (Function(lambda x: x), {}, ValueError, r"must map \(batch, \*shape\) to \(batch,\)"),
        (Function(lambda x: None), {}, TypeError, "must return a tensor, got NoneType"),
        (Function(lambda x: torch.log(x.sum(-1) - 1)), {}, ValueError, "finite energy at the start value, got nan"),
        (Function(lambda x: x.abs().sqrt().sum(-1)), {}, ValueError, "the gradient of module .* must be finite"),
        (Function(lambda x: x.detach().sum(-1)), {}, ValueError, "has no gradient with regard to its input"),
        (Function(lambda x: x.sum(-1) - x.mean()), {}, ValueError, "the same energy in every call and every batch"),
        (split_dtypes(), {}, ValueError, r"must have one dtype, got \['torch.float32', 'torch.float64'\]"),
        (torch.nn.Linear(2, 1, dtype=torch.complex64), {}, TypeError, "must be real floating-point numbers"),
        (torch.nn.Linear(2, 1).to("meta").register_module("a", torch.nn.Linear(1, 1)), {}, TypeError, "got NoneType"),
        (Uncopyable(1.0), {}, ValueError, "module could not be copied, .*: no copies"),
        (Quadratic(1.0), {"shape": None}, ValueError, "an Energy needs a shape"),
        (Quadratic(1.0), {"shape": pt.lscalar()}, ValueError, "known lengths, got a symbolic shape"),
        (Quadratic(1.0), {"support": "positive"}, ValueError, "support must be one of 'real', 'unit', 'binary'"),
        (Quadratic(1.0), {"event_ndim": 2}, ValueError, "event_ndim must be between 0 and the 1 axes"),
        (Quadratic(1.0), {"event_ndim": 1.0}, TypeError, "event_ndim must be an integer"),
        (Quadratic(1.0), {"support": "unit", "initval": [0.5, 1.5]}, ValueError, "initval of 'x' must be between"),
        (Quadratic(1.0), {"support": "binary", "initval": [0, 2]}, ValueError, "initval of 'x' must be 0 or 1"),
        (Quadratic(1.0), {"support": "binary", "observed": [0, 0.5]}, ValueError, "observed of 'x' must be 0 or 1"),
    ],
)
def test_bad_arguments_are_refused(module, options, error, message):
    with pm.Model(), pytest.raises(error, match=message):
        pmn.Energy("x", module, **{"shape": 2, **options})


def test_parameters_on_several_devices_are_refused():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1, device="meta"))
    with pm.Model(), pytest.raises(ValueError, match=r"must be on one device, got \['cpu', 'meta'\]"):
        pmn.Energy("x", module, shape=2)


def test_dist_wants_to_be_told_that_it_is_not_normalized():
    with pytest.raises(TypeError, match="needs normalize=None said explicitly"):
        pmn.Energy.dist(perceptron(), shape=2)
    assert pmn.Energy.dist(perceptron(), shape=2, normalize=None).type.shape == (2,)


class FailsLater(torch.nn.Module):
    """A module that raises an error where x > 1."""

    def forward(self, x):
        if (x > 1).any():
            raise ArithmeticError("too large")
        return (x**2).sum(-1)


def failing_logp():
    with pm.Model() as model:
        pmn.Energy("x", FailsLater(), shape=2)
    return model.compile_logp()


def test_errors_of_the_module_come_out():
    with pytest.raises(ArithmeticError, match="too large"):
        failing_logp()({"x": np.array([2.0, 0.0])})


@pytest.mark.numba
def test_in_threads_an_error_is_logged_and_the_energy_is_nan(caplog):
    """Threads of nutpie run without the interpreter's lock: an error that left the module there would crash."""
    logp, got = failing_logp(), []
    thread = threading.Thread(target=lambda: got.extend(logp({"x": np.array([2.0, 0.0])}) for _ in range(2)))
    thread.start()
    thread.join()
    assert np.isnan(got).all()
    assert [record.exc_info[0] for record in caplog.records if record.name == "pm_neural"] == [ArithmeticError]


def test_in_nutpie_an_error_makes_divergences(caplog):
    pytest.importorskip("nutpie")
    with pm.Model():
        pmn.Energy("x", FailsLater(), shape=2)
        idata = pm.sample(50, tune=50, chains=1, nuts_sampler="nutpie", random_seed=5, **ONE_CORE)
    assert (idata["posterior"]["x"] <= 1).all()
    assert idata["sample_stats"]["diverging"].any()
    assert sum(record.name == "pm_neural" for record in caplog.records) <= 2


@pytest.mark.parametrize("made_inside", [True, False])
def test_models_are_declared_and_evaluated_in_inference_mode(made_inside):
    outside = Quadratic(1.0, 2.0)
    with torch.inference_mode():
        module = Quadratic(1.0, 2.0) if made_inside else outside
        with pm.Model() as model:
            pmn.Energy("x", module, shape=2)
        gradient = model.compile_dlogp()
        np.testing.assert_allclose(gradient({"x": np.array([3.0, 4.0])}), [-3.0, -1.0])
    np.testing.assert_allclose(gradient({"x": np.array([3.0, 4.0])}), [-3.0, -1.0])
