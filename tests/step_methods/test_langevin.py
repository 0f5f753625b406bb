"""Langevin and SGLD: the kernel forced, the law of long runs, tuning, state, and what is refused."""

import arviz as az
import cloudpickle
import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from pymc.exceptions import SamplingError
from pymc.step_methods import STEP_METHODS
from pymc.step_methods.compound import Competence
from pymc.step_methods.state import equal_dataclass_values
from scipy import stats

from step_methods import SGLD, Langevin

QUIET = {"progressbar": False, "compute_convergence_checks": False}
ONE_CORE = {"cores": 1, **QUIET}


class ForcedRandomness:
    """A generator whose next normal and uniform numbers are given."""

    def __init__(self, noise, uniform):
        self.noise, self.uniform = noise, uniform

    def standard_normal(self, size):
        assert np.shape(self.noise) == (size,)
        return self.noise

    def random(self):
        return self.uniform


@pytest.fixture
def curved():
    """Three coordinates on different scales, coupled, with a curved density; one is transformed."""
    with pm.Model() as model:
        x = pm.Normal("x", 0, [1.0, 0.3])
        s = pm.HalfNormal("s")
        pm.Potential("bend", -0.5 * (x[0] ** 2 - x[1]) ** 2 / s - pt.sin(x[0] * s))
    return model


def normal_model(n=1, sigma=1.0):
    with pm.Model() as model:
        pm.Normal("x", 0, sigma, shape=n)
    return model


def within_4_mcse(samples, expected):
    """Compare the means of (chain, draw, ...) with what they should be."""
    flat = samples.reshape(*samples.shape[:2], -1)
    mcse = az.mcse(az.convert_to_dataset({"x": flat}))["x"].values
    deviation = np.abs(flat.mean(axis=(0, 1)) - np.ravel(expected)) / mcse
    assert (deviation < 4).all(), deviation


# --- the kernel ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adjusted", [True, False])
def test_proposal_has_half_the_step_size_on_the_gradient(curved, rng, adjusted):
    step_size, noise = 0.07, rng.normal(size=3)
    step = Langevin(step_size=step_size, adjusted=adjusted, model=curved)
    step.rng = ForcedRandomness(noise, 0.0)
    start = {"x": np.array([0.3, -0.2]), "s_log__": np.array(0.4)}
    gradient = curved.compile_dlogp()(start)
    point, _ = step.step(start)
    expected = np.array([0.3, -0.2, 0.4]) + 0.5 * step_size * gradient + np.sqrt(step_size) * noise
    assert np.concatenate([point["x"], [point["s_log__"]]]) == pytest.approx(expected, rel=1e-12)


def test_detailed_balance_holds_for_pairs_of_points(curved, rng):
    """p(θ) q(θ'|θ) α(θ, θ') = p(θ') q(θ|θ') α(θ', θ) to 1e-12, with q written down anew and α from the step."""
    step = Langevin(step_size=0.3, model=curved)
    step._adaptation.variances = np.array([0.5, 0.1, 2.0])
    logp, dlogp = curved.compile_logp(), curved.compile_dlogp()
    spread = np.sqrt(0.3 * step._adaptation.variances)

    def as_point(q):
        return {"x": q[:2], "s_log__": np.array(q[2])}

    def drift(q):
        return q + 0.5 * spread**2 * dlogp(as_point(q))

    def log_flow(q, to):
        """Return log p(q) q(to|q) α(q, to)."""
        step.rng = ForcedRandomness((to - drift(q)) / spread, 0.0)
        point, [stat] = step.step(as_point(q))
        assert point["x"] == pytest.approx(to[:2], rel=1e-9, abs=1e-12)
        return (
            float(logp(as_point(q))) + stats.norm.logpdf(to, drift(q), spread).sum() + np.log(stat["acceptance_rate"])
        )

    rates = []
    for _ in range(50):
        q, to = rng.normal(scale=0.5, size=(2, 3))
        assert log_flow(q, to) == pytest.approx(log_flow(to, q), rel=1e-12, abs=1e-11)
        step.rng = ForcedRandomness((to - drift(q)) / spread, 0.0)
        rates.append(step.step(as_point(q))[1][0]["acceptance_rate"])
    assert 0 < min(rates) < 0.5  # the ratio was put to the test
    assert max(rates) == 1


def test_the_accept_step_compares_with_the_acceptance_rate(curved, rng):
    step = Langevin(step_size=1.0, model=curved)
    start = curved.initial_point()
    noise = 3 * rng.normal(size=3)
    step.rng = ForcedRandomness(noise, 0.0)
    proposal, [stat] = step.step(start)
    rate = stat["acceptance_rate"]
    assert 0 < rate < 1
    step.rng = ForcedRandomness(noise, np.nextafter(rate, 0))
    assert np.array_equal(step.step(start)[0]["x"], proposal["x"])
    step.rng = ForcedRandomness(noise, rate)
    rejected, [stat] = step.step(start)
    assert np.array_equal(rejected["x"], start["x"])
    assert stat["network_energy"] == pytest.approx(-float(curved.compile_logp()(start)))


# --- long runs -----------------------------------------------------------------------------------------------------


def test_adjusted_is_exact_on_a_normal():
    """Means and squares of four coordinates with scales from 0.01 to 10; false-alarm rate 5e-4."""
    scales = np.array([0.01, 0.3, 1.0, 10.0])
    with normal_model(4, scales):
        idata = pm.sample(8000, tune=1000, chains=2, step=Langevin(), random_seed=1, **ONE_CORE)
    x = idata["posterior"]["x"].values / scales
    within_4_mcse(x, np.zeros(4))
    within_4_mcse(x**2, np.ones(4))


def test_adjusted_is_exact_on_a_banana():
    """X ~ N(0, 1), y | x ~ N(x², 1/2): four moments in closed form; false-alarm rate 3e-4."""
    with pm.Model():
        x = pm.Normal("x")
        pm.Normal("y", x**2, np.sqrt(0.5))
        idata = pm.sample(10_000, tune=1000, chains=2, step=Langevin(), random_seed=2, **ONE_CORE)
    x, y = (idata["posterior"][name].values for name in "xy")
    within_4_mcse(np.stack([x, x**2, y, (y - x**2) ** 2, x * y], axis=-1), [0, 1, 1, 0.5, 0])


@pytest.mark.parametrize("step_size", [0.5, 2.0])
def test_bias_of_the_unadjusted_step_is_that_of_theory(step_size):
    """A normal of variance σ² gets the variance σ² / (1 − η / 4σ²): 40 coordinates, false-alarm rate 3e-3 each."""
    sigma = np.repeat([0.9, 2.0], 20)
    with normal_model(40, sigma):
        step = Langevin(step_size=step_size, adjusted=False)
        idata = pm.sample(5000, tune=200, chains=1, step=step, random_seed=3, **ONE_CORE)
    x = idata["posterior"]["x"].values
    within_4_mcse(x**2, sigma**2 / (1 - step_size / (4 * sigma**2)))
    assert (idata["sample_stats"]["acceptance_rate"] == 1).all()


def test_posterior_with_transforms_agrees_with_conjugacy_and_nuts():
    """A Beta posterior through its log-odds in closed form, a scale against NUTS; false-alarm rate 3e-4."""
    with pm.Model():
        p = pm.Uniform("p")
        pm.Binomial("heads", 10, p, observed=7)
        s = pm.HalfNormal("s")
        pm.Normal("y", 0, s, observed=[0.5, -1.5, 2.0])
        ours = pm.sample(5000, tune=500, chains=2, step=Langevin(), random_seed=4, **ONE_CORE)["posterior"]
        nuts = pm.sample(1500, tune=500, chains=2, nuts_sampler="pymc", random_seed=5, **ONE_CORE)["posterior"]
    p = ours["p"].values
    within_4_mcse(np.stack([p, p**2], axis=-1), [8 / 12, 8 * 9 / (12 * 13)])
    errors = [az.mcse(posterior)["s"].item() for posterior in (ours, nuts)]
    assert abs(ours["s"].values.mean() - nuts["s"].values.mean()) < 4 * np.hypot(*errors)


def test_conditions_on_what_other_steps_sample():
    """A normal whose mean is drawn by PyMC's step for a bit: the bit's probability in closed form, 1e-4."""
    with pm.Model():
        bit = pm.Bernoulli("bit", 0.5)
        x = pm.Normal("x", bit, 1)
        pm.Normal("y", x, 1, observed=1.0)
        step = [pm.BinaryGibbsMetropolis([bit]), Langevin([x], steps_per_draw=2)]
        idata = pm.sample(5000, tune=500, chains=2, step=step, random_seed=6, **ONE_CORE)["posterior"]
    likelihoods = stats.norm.pdf(1.0, [0, 1], np.sqrt(2))
    one = likelihoods[1] / likelihoods.sum()
    within_4_mcse(np.stack([idata["bit"], idata["x"]], axis=-1), [one, (one + 1.0) / 2])


@pytest.mark.numba
def test_sgld_approaches_the_posterior_as_its_steps_shrink():
    """Conjugate normal mean from minibatches: means and squares with constant steps, where they are known; then less.

    The chain is autoregressive: with a step ε the noise has the variance ε + ε² / 4 Var(gradient). False-alarm rate
    3e-4.
    """
    data = np.random.default_rng(1).normal(2.0, 1.0, size=200)
    posterior_mean, posterior_variance = data.sum() / 201, 1 / 201
    gradient_variance = 200**2 * data.var() / 20
    deviations = []
    with pm.Model():
        mu = pm.Normal("mu")
        pm.Normal("y", mu, 1, observed=pm.Minibatch(data, batch_size=20), total_size=200)
        for step_size in (1e-3, 2e-4):
            step = SGLD([mu], step_size, steps_per_draw=10, delay=1e9)
            idata = pm.sample(2500, tune=100, chains=1, step=step, random_seed=7, **ONE_CORE)
            draws = idata["posterior"]["mu"].values
            within_4_mcse(draws, posterior_mean)
            contraction = 1 - step_size / (2 * posterior_variance)
            variance = (step_size + step_size**2 / 4 * gradient_variance) / (1 - contraction**2)
            within_4_mcse((draws - posterior_mean) ** 2, variance)
            deviations.append(abs(draws.var() / posterior_variance - 1))
        step = SGLD([mu], 1e-3, steps_per_draw=10, delay=500, decay=1)
        late = pm.sample(3000, tune=500, chains=1, step=step, random_seed=7, **ONE_CORE)["posterior"]["mu"].values
    deviations.append(abs(late.var() / posterior_variance - 1))
    assert deviations[0] > 0.4
    assert max(deviations[1:]) < 0.2


# --- tuning and state ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tune", [200, 1000])
def test_tunes_to_the_target_and_stops(tune):
    with normal_model(5, np.array([0.01, 0.1, 1, 10, 100])):
        step = Langevin()
        idata = pm.sample(1500, tune=tune, chains=1, step=step, random_seed=8, discard_tuned_samples=False, **ONE_CORE)
    after = idata["sample_stats"]
    assert abs(after["acceptance_rate"].mean() - 0.574) < 0.1
    assert len(np.unique(after["step_size"])) == 1
    assert len(np.unique(idata["warmup_sample_stats"]["step_size"])) > 0.9 * tune
    assert np.sqrt(step._adaptation.variances) == pytest.approx([0.01, 0.1, 1, 10, 100], rel=1e-6)


def test_without_adaptation_the_step_size_stays():
    with normal_model():
        step = Langevin(step_size=0.8, adapt=False)
        idata = pm.sample(20, tune=20, chains=1, step=step, random_seed=1, discard_tuned_samples=False, **ONE_CORE)
    for group in ("warmup_sample_stats", "sample_stats"):
        assert idata[group]["step_size"].values == pytest.approx(0.8)


def test_step_size_of_sgld_decays_from_the_start_of_each_chain():
    with normal_model():
        step = SGLD(step_size=0.1, delay=5, decay=0.7, steps_per_draw=2)
        stat = pm.sample(10, tune=0, chains=2, step=step, random_seed=1, **ONE_CORE)["sample_stats"]["step_size"]
    t = 2 * np.arange(10) + 1
    assert stat.values == pytest.approx(np.tile(0.1 * (1 + t / 5) ** -0.7, (2, 1)))


def minibatch_model():
    with pm.Model() as model:
        mu = pm.Normal("mu")
        pm.Normal("y", mu, 1, observed=pm.Minibatch(np.linspace(-1, 3, 100), batch_size=10), total_size=100)
    return model


CASES = {
    "MALA": (normal_model, lambda: Langevin()),
    "unadjusted": (minibatch_model, lambda: Langevin(step_size=1e-3, adjusted=False)),
    "SGLD": (minibatch_model, lambda: SGLD(step_size=1e-3, steps_per_draw=3)),
}


@pytest.fixture(params=CASES, ids=list(CASES))
def case(request):
    make_model, make_step = CASES[request.param]
    return make_model(), make_step


def draws_with(model, step, cores=1, **kwargs):
    with model:
        idata = pm.sample(30, tune=60, chains=2, cores=cores, step=step, random_seed=9, **QUIET, **kwargs)
    return idata["posterior"][model.free_RVs[0].name].values


def test_same_draws_for_a_seed_whatever_the_process(case):
    model, make_step = case
    with model:
        step = make_step()
    expected = draws_with(model, step)
    assert not np.array_equal(expected[0], expected[1])
    assert np.array_equal(draws_with(model, step), expected)
    assert np.array_equal(draws_with(model, step, cores=2, mp_ctx="fork"), expected)
    unpickled_model, unpickled = cloudpickle.loads(cloudpickle.dumps((model, step)))
    assert np.array_equal(draws_with(unpickled_model, unpickled), expected)


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_same_draws_in_fresh_processes(case, start_method):
    model, make_step = case
    with model:
        step = make_step()
    assert np.array_equal(draws_with(model, step, cores=2, mp_ctx=start_method), draws_with(model, step))


@pytest.mark.parametrize("n_before", [30, 120], ids=["tuning", "drawing"])
def test_sampling_state_is_complete(case, n_before):
    model, make_step = case
    with model:
        step = make_step()
    # Functions of one model share the generators of its minibatches, and these two steps take turns.
    with cloudpickle.loads(cloudpickle.dumps(model)):
        other = make_step()
    step.setup_chain(np.random.default_rng(1), 100, 100)
    other.setup_chain(np.random.default_rng(2), 100, 100)
    point = model.initial_point()
    for i in range(n_before):
        if i == 100:
            step.stop_tuning()
        point, _ = step.step(point)
    other.sampling_state = state = step.sampling_state
    other.tune = step.tune
    assert equal_dataclass_values(other.sampling_state, state)
    name = model.value_vars[0].name
    ours = theirs = point
    for _ in range(30):
        ours, our_stats = step.step(ours)
        theirs, their_stats = other.step(theirs)
        assert np.array_equal(ours[name], theirs[name])
        assert our_stats == their_stats


# --- numbers that are none -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"adjusted": False, "step_size": 0.5}], ids=["adjusted", "unadjusted"])
def test_proposals_without_a_density_are_rejected_and_counted(options):
    with pm.Model():
        x = pm.Normal("x")
        pm.Potential("hole", pt.log(1 - x))  # NaN above 1
        idata = pm.sample(500, tune=100, chains=1, step=Langevin(**options), random_seed=1, **ONE_CORE)
    assert (idata["posterior"]["x"] < 1).all()
    assert idata["sample_stats"]["diverging"].sum() > 5
    assert np.isfinite(idata["sample_stats"]["network_energy"]).all()


def test_leaving_the_support_is_a_plain_rejection():
    with pm.Model():
        pm.Uniform("x", default_transform=None)
        idata = pm.sample(300, tune=100, chains=1, step=Langevin(), random_seed=1, initvals={"x": 0.5}, **ONE_CORE)
    assert ((idata["posterior"]["x"] >= 0) & (idata["posterior"]["x"] <= 1)).all()
    assert not idata["sample_stats"]["diverging"].any()


def test_a_start_without_a_gradient_is_refused():
    with pm.Model() as model:
        x = pm.Normal("x")
        pm.Normal("fine")
        pm.Potential("cusp", -pt.sqrt(pt.abs(x)))
        step = Langevin()
    with pytest.raises(SamplingError, match="the gradient is not finite for 'x'\\."):
        step.step(model.initial_point())


# --- the interface -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_method", [Langevin, SGLD])
def test_registered_and_only_used_on_request(step_method):
    assert step_method in STEP_METHODS
    model = normal_model()
    assert step_method.competence(model["x"], True) == Competence.INCOMPATIBLE


@pytest.mark.parametrize("step", [lambda: Langevin(), lambda: SGLD(step_size=0.1)], ids=["Langevin", "SGLD"])
def test_with_a_progress_bar(step, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with normal_model():
        pm.sample(5, tune=5, chains=1, cores=1, step=step(), random_seed=1, compute_convergence_checks=False)
    printed = capsys.readouterr().out
    assert "Step size" in printed
    assert "Acceptance" in printed


def test_unblocked_gives_each_variable_its_own_step():
    with pm.Model():
        pm.Normal("x")
        pm.Normal("y", shape=2)
        step = Langevin(blocked=False)
        assert [[var.name for var in method.vars] for method in step.methods] == [["x"], ["y"]]
        pm.sample(5, tune=5, chains=1, step=step, random_seed=1, **ONE_CORE)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Langevin(adjusted=False), ValueError, "adjusted=False needs a step_size"),
        (lambda: Langevin(step_size=0.0), ValueError, "step_size must be positive and finite, got 0.0"),
        (lambda: Langevin(step_size="big"), TypeError, "step_size must be a number, got 'big'"),
        (lambda: Langevin(target_accept=1.0), ValueError, "target_accept must be between 0 and 1, got 1.0"),
        (lambda: Langevin(steps_per_draw=0), ValueError, "steps_per_draw must be at least 1, got 0"),
        (lambda: Langevin(steps_per_draw=1.5), TypeError, "steps_per_draw must be an integer, got 1.5"),
        (lambda: SGLD(), TypeError, "SGLD needs a step_size"),
        (lambda: SGLD(step_size=np.nan), ValueError, "step_size must be positive and finite, got nan"),
        (lambda: SGLD(step_size=1, decay=0.5), ValueError, "decay must be more than 0.5 and at most 1, got 0.5"),
        (lambda: SGLD(step_size=1, delay=-1), ValueError, "delay must be positive and finite, got -1"),
    ],
)
def test_bad_options_are_refused(make, error, message):
    with normal_model(), pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("make", [Langevin, lambda vars: SGLD(vars, 0.1)], ids=["Langevin", "SGLD"])
def test_discrete_variables_are_refused(make):
    with pm.Model():
        k = pm.Poisson("k", 3)
        with pytest.raises(ValueError, match="samples continuous variables, and 'k' has the dtype int64"):
            make([k])
        with pytest.raises(ValueError, match="the model has no variable for"):
            make(None)


def test_the_accept_step_refuses_minibatches():
    with minibatch_model(), pytest.raises(ValueError, match="the term 'y' of the model sees a minibatch"):
        Langevin()


def test_in_float32():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pytensor.config.floatX", "float32")
        with pm.Model():
            pm.Normal("x", shape=2)
            idata = pm.sample(200, tune=200, chains=1, step=Langevin(), random_seed=1, **ONE_CORE)
    assert idata["posterior"]["x"].dtype == np.float32
    assert 0.6 < idata["posterior"]["x"].std() < 1.4
