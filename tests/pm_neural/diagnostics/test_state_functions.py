import warnings

import numpy as np
import pytest
import xarray as xr
from arviz_stats import rhat
from scipy.signal import lfilter

from pm_neural.diagnostics._state_functions import leading_directions, r_hat_functions, state_functions


def dataset(**variables):
    return xr.Dataset(
        {name: (["chain", "draw", *(f"{name}_{i}" for i in range(x.ndim - 2))], x) for name, x in variables.items()}
    )


def r_hats(**variables):
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of constants
        return r_hat_functions(dataset(**variables), xr.Dataset())


def test_first_component_sees_many_small_differences(rng):
    # Chains differ in each unit by a fifth of its standard deviation, up and down in equal numbers of units.
    shift = np.outer([1, 1, -1, -1], np.repeat([0.05, -0.05], 200))
    v = (rng.random((4, 400, 400)) < 0.5 + shift[:, None]).astype(int)
    r_hat = r_hats(v=v)
    assert r_hat["activity of v"] < 1.05
    assert r_hat["first component of v"] > 1.5


def test_components_of_many_slow_units_are_not_chosen_to_differ(rng):
    # 1000 independent units with an autocorrelation time of 19 draws: by chance, some direction tells the chains apart.
    x = lfilter([1], [1, -0.9], rng.normal(size=(4, 500, 1000)), axis=1)[:, 100:]
    assert r_hats(x=x)["first component of x"] < 1.15
    functions = state_functions(dataset(x=x), xr.Dataset(), leading_directions(dataset(x=x)))
    assert float(rhat(functions.isel(draw=slice(200, None)))["first component of x"]) > 1.3


@pytest.mark.parametrize("n_units", [3, 100, 101, 300])
def test_leading_direction_is_that_of_the_pooled_covariance(n_units, rng):
    samples = [rng.normal(size=(2, 50, n_units)) * np.linspace(1, 3, n_units), rng.normal(2, 1, (3, 7, n_units))]
    directions = leading_directions(*(dataset(x=x) for x in samples))
    samples = [x.reshape(-1, n_units) for x in samples]
    center = sum(x.mean(axis=0) for x in samples) / 2
    covariance = sum((x - center).T @ (x - center) / len(x) for x in samples) / 2
    expected = np.linalg.eigh(covariance)[1][:, -1]
    assert abs(directions["x"] @ expected) == pytest.approx(1, abs=1e-6)


def test_functions_are_those_of_the_units(rng):
    v, x = rng.integers(0, 2, (2, 5, 3, 4)).astype(np.int8), rng.normal(size=(2, 5, 2))
    direction = rng.normal(size=12)
    functions = state_functions(dataset(v=v, x=x), dataset(energy=x[..., 0]), {"v": direction})
    assert list(functions) == ["energy", "activity of v", "first component of v"]
    np.testing.assert_array_equal(functions["energy"], x[..., 0])
    np.testing.assert_array_equal(functions["activity of v"], v.sum(axis=(2, 3)))
    np.testing.assert_allclose(functions["first component of v"], v.reshape(2, 5, 12) @ direction)


def test_no_direction_where_nothing_varies_or_is_finite(rng):
    x = rng.normal(size=(2, 5, 3))
    x[0, 0, 0] = np.nan
    assert leading_directions(dataset(v=np.ones((2, 5, 3)), k=rng.normal(size=(2, 5)), x=x)) == {}
