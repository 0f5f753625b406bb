"""Checks of step methods: what each must hold to, ours and those of others.

As a test of a step method of your own::

    from pm_neural.testing import parametrize_with_checks

    @parametrize_with_checks([(MyStep, my_model, {"steps_per_draw": 2})])
    def test_step(step_class, model_factory, options, check):
        check(step_class, model_factory, **options)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import cloudpickle
import numpy as np
from pymc.model import Model
from pymc.sampling import sample

from pm_neural.diagnostics._units import MAX_UNITS

__all__ = ["CHECKS", "CheckSkipped", "check_step", "parametrize_with_checks"]

type StepClass = Callable[..., Any]
type ModelFactory = Callable[[], Model]

_N_DRAWS = 12
_SEED = 20240607


class CheckSkipped(Exception):
    """A check that does not apply to a step method: it says why."""


def check_step(step_class: StepClass, model_factory: ModelFactory, **options: Any) -> list[str]:
    """Run all checks of a step method on a model.

    Parameters
    ----------
    step_class : type
        Made as ``step_class(model=model, **options)``: it takes the variables that are for it. Others are sampled by
        PyMC's defaults where a check samples.
    model_factory : callable
        Returns a model, the same in each call. The smaller the better: the certificate is computed of at most 12 units.
    **options
        Of the step method.

    Returns
    -------
    list of str
        The checks that do not apply, and why.

    Raises
    ------
    AssertionError
        If a check fails; it says what should hold.
    """
    skipped = []
    for check in CHECKS:
        try:
            check(step_class, model_factory, **options)
        except CheckSkipped as reason:
            skipped.append(f"{check.__name__}: {reason}")
    return skipped


def parametrize_with_checks(cases: Iterable[tuple[StepClass, ModelFactory, Mapping[str, Any]]]) -> Any:
    """Make a test of step methods one test for each check, in the manner of scikit-learn's decorator of that name.

    The test takes the arguments `step_class`, `model_factory`, `options` and `check`, and calls
    ``check(step_class, model_factory, **options)``; a check that does not apply skips the test.

    Parameters
    ----------
    cases : iterable of (type, callable, dict)
        As `check_step` takes them.
    """
    import pytest

    def skipping(check: Callable[..., None]) -> Callable[..., None]:
        def run(step_class: StepClass, model_factory: ModelFactory, **options: Any) -> None:
            try:
                check(step_class, model_factory, **options)
            except CheckSkipped as reason:
                pytest.skip(str(reason))

        return run

    parameters = [
        pytest.param(step, factory, dict(options), skipping(check), id=f"{step.__name__}-{factory.__name__}-{name}")
        for step, factory, options in cases
        for check in CHECKS
        for name in [check.__name__.removeprefix("check_")]
    ]
    return pytest.mark.parametrize(("step_class", "model_factory", "options", "check"), parameters)


def check_support(step_class: StepClass, model_factory: ModelFactory, **options: Any) -> None:
    """Each draw is possible, has types and shapes as before, and changes the step's own variables alone."""
    model, step = _made(step_class, model_factory, options)
    logp = model.compile_logp(mode="FAST_COMPILE")
    own = {var.name for var in step.vars}
    before = point = model.initial_point()
    for new_point, stats in _draws(step, point, _N_DRAWS):
        assert set(new_point) == set(before), "a draw must have the variables of the point that it began at"
        for name, value in new_point.items():
            assert np.shape(value) == np.shape(point[name]), f"{name!r} must keep its shape, got {np.shape(value)}"
            assert np.asarray(value).dtype == np.asarray(point[name]).dtype, f"{name!r} must keep its type"
            is_other = name not in own
            assert not is_other or np.array_equal(value, point[name]), f"{name!r} is no variable of the step"
        assert np.isfinite(logp(new_point)), "a draw must be possible in the model"
        told = {name for one in stats for name in one}
        promised = {name for one in step.stats_dtypes for name in one}
        assert told == promised, f"the statistics must be those that are declared, {promised}, got {told}"
        before = new_point


def check_inputs_stay(step_class: StepClass, model_factory: ModelFactory, **options: Any) -> None:
    """A step leaves the point that it is given as it is: its arrays may be in the trace of the chain."""
    model, step = _made(step_class, model_factory, options)
    point = model.initial_point()
    for _ in range(3):
        copies = {name: np.array(value) for name, value in point.items()}
        new_point, _ = step.step(point)
        for name, value in copies.items():
            assert np.array_equal(point[name], value), f"the step changed {name!r} of the point that it was given"
        point = new_point


def check_seeds(step_class: StepClass, model_factory: ModelFactory, **options: Any) -> None:
    """The seed decides on the chain, and nothing else does."""
    chains = []
    for seed in (_SEED, _SEED, _SEED + 1):
        model, step = _made(step_class, model_factory, options, seed)
        np.random.default_rng().random()
        chains.append(_values(step, _draws(step, model.initial_point(), _N_DRAWS)))
    assert np.array_equal(chains[0], chains[1]), "chains of one seed must be the same"
    assert not np.array_equal(chains[0], chains[2]), "chains of different seeds must differ"


def check_chains_start_anew(step_class: StepClass, model_factory: ModelFactory, **options: Any) -> None:
    """A step that has made a chain makes the next one as a new step would."""
    chains = []
    for n_before in (0, 5):
        model, step = _made(step_class, model_factory, options)
        for _ in _draws(step, model.initial_point(), n_before):
            pass
        step.setup_chain(np.random.default_rng(_SEED), tune=0, draws=_N_DRAWS)
        chains.append(_values(step, _draws(step, model.initial_point(), _N_DRAWS)))
    assert np.array_equal(chains[0], chains[1]), "what one chain left behind must not change the next"


def check_pickling(step_class: StepClass, model_factory: ModelFactory, **options: Any) -> None:
    """A copy by pickle, such as a process of another core gets, makes the chain that the step itself makes."""
    model, step = _made(step_class, model_factory, options)
    copy = cloudpickle.loads(cloudpickle.dumps(step))
    chains = []
    for one in (step, copy):
        one.setup_chain(np.random.default_rng(_SEED), tune=0, draws=_N_DRAWS)
        chains.append(_values(one, _draws(one, model.initial_point(), _N_DRAWS)))
    assert np.array_equal(chains[0], chains[1]), "a copy by pickle must make the same chain"


def check_sampling_state(step_class: StepClass, model_factory: ModelFactory, **options: Any) -> None:
    """A chain goes on from `sampling_state` in another step as if nothing had happened."""
    model, step = _made(step_class, model_factory, options)
    *_, (point, _) = _draws(step, model.initial_point(), 5)
    state = cloudpickle.loads(cloudpickle.dumps(step.sampling_state))
    expected = _values(step, _draws(step, point, _N_DRAWS))
    _, other = _made(step_class, model_factory, options, _SEED + 1)
    other.sampling_state = state
    assert np.array_equal(_values(other, _draws(other, point, _N_DRAWS)), expected), (
        "a step with the sampling_state of another must go on with its chain"
    )


def check_cores(step_class: StepClass, model_factory: ModelFactory, **options: Any) -> None:
    """Two chains are the same, one after the other and in two processes."""
    draws = []
    for cores in (1, 2):
        model = model_factory()
        with model:
            step = step_class(model=model, **options)
            idata = sample(
                draws=_N_DRAWS,
                tune=3,
                chains=2,
                cores=cores,
                step=step,
                random_seed=_SEED,
                progressbar=False,
                quiet=True,
                compute_convergence_checks=False,
            )
        names = [model.values_to_rvs[var].name for var in step.vars]
        draws.append(np.concatenate([idata["posterior"][name].values.reshape(2, _N_DRAWS, -1) for name in names], -1))
    assert np.array_equal(draws[0], draws[1]), "the number of cores must not change the draws"
    assert not np.array_equal(draws[0][0], draws[0][1]), "two chains must not be the same"


def check_conditionals_of_model(step_class: StepClass, model_factory: ModelFactory, **options: Any) -> None:
    """Blocks are drawn with the odds that the model gives their outcomes: see `diagnostics.check_conditionals`."""
    from pm_neural.diagnostics import check_conditionals

    _, step = _made(step_class, model_factory, options)
    if not callable(getattr(step, "forced_stage", None)):
        raise CheckSkipped(f"the stages of {step_class.__name__} cannot be forced")
    result = check_conditionals(step, n_points=5, random_seed=_SEED)
    assert result.passed, str(result)


def check_certificate(step_class: StepClass, model_factory: ModelFactory, **options: Any) -> None:
    """The exact transition matrix leaves the posterior as it is: see `diagnostics.certify`."""
    from pm_neural.diagnostics import certify

    model, step = _made(step_class, model_factory, options)
    if not any(callable(getattr(step, name, None)) for name in ("forced_stage", "forced_step")):
        raise CheckSkipped(f"the decisions of {step_class.__name__} cannot be forced")
    point = model.initial_point()
    n_units = sum(point[var.name].size for var in step.vars)
    if n_units > MAX_UNITS:
        raise CheckSkipped(f"a certificate is computed of at most {MAX_UNITS} units, got {n_units}")
    if any(point[var.name].dtype.kind == "f" for var in step.vars):
        raise CheckSkipped("real units have no transition matrix")
    result = certify(step)
    assert result.passed, str(result)


CHECKS: tuple[Callable[..., None], ...] = (
    check_support,
    check_inputs_stay,
    check_seeds,
    check_chains_start_anew,
    check_pickling,
    check_sampling_state,
    check_cores,
    check_conditionals_of_model,
    check_certificate,
)


def _made(
    step_class: StepClass, model_factory: ModelFactory, options: Mapping[str, Any], seed: int = _SEED
) -> tuple[Model, Any]:
    model = model_factory()
    step = step_class(model=model, **options)
    step.setup_chain(np.random.default_rng(seed), tune=0, draws=_N_DRAWS)
    return model, step


def _draws(step: Any, point: Mapping[str, np.ndarray], n: int) -> Iterator[tuple[dict[str, np.ndarray], list[dict]]]:
    for _ in range(n):
        point, stats = step.step(dict(point))
        yield dict(point), stats


def _values(step: Any, draws: Iterator[tuple[dict[str, np.ndarray], list[dict]]]) -> np.ndarray:
    """Return the step's own variables, raveled, shape (n_draws, n)."""
    names = [var.name for var in step.vars]
    return np.array([np.concatenate([np.ravel(point[name]) for name in names]) for point, _ in draws])
