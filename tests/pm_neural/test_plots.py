"""The pictures: what is drawn where, and what is refused."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pm_neural import plots


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def drawn(ax):
    """Return the array behind the only image of the axes, NaN in the gaps."""
    (image,) = ax.get_images()
    return np.ma.filled(image.get_array().astype(float), np.nan)


def test_weights_draws_column_j_as_image_j(rng):
    W = rng.normal(size=(6, 3))
    pixels = drawn(plots.weights(W, (2, 3), n_columns=2))
    assert pixels.shape == (5, 7)  # two rows and two columns of images, one pixel apart
    assert_array_equal(pixels[:2, :3], W[:, 0].reshape(2, 3))
    assert_array_equal(pixels[:2, 4:], W[:, 1].reshape(2, 3))
    assert_array_equal(pixels[3:, :3], W[:, 2].reshape(2, 3))
    assert np.isnan(pixels[3:, 4:]).all()  # no fourth unit
    assert np.isnan(pixels[2]).all()
    assert np.isnan(pixels[:, 3]).all()


def test_weights_scale_is_symmetric_and_shared():
    (image,) = plots.weights(np.array([[0.5, -2.0], [0.1, 1.0]]), (1, 2)).get_images()
    assert image.get_clim() == (-2.0, 2.0)


def test_zero_weights_are_drawn():
    (image,) = plots.weights(np.zeros((4, 2)), (2, 2)).get_images()
    assert image.get_clim() == (-1.0, 1.0)


def test_units_grid_lays_chains_and_draws_out_in_order(rng):
    states = rng.integers(0, 2, size=(2, 3, 4))  # chain, draw, unit
    pixels = drawn(plots.units_grid(states, (2, 2), n_columns=3))
    for chain in range(2):
        for draw in range(3):
            tile = pixels[3 * chain : 3 * chain + 2, 3 * draw : 3 * draw + 2]
            assert_array_equal(tile, states[chain, draw].reshape(2, 2))


def test_units_grid_takes_one_image():
    assert_array_equal(drawn(plots.units_grid([1, 0], (1, 2))), [[1.0, 0.0]])


def test_draws_into_the_given_axes_and_passes_style_on():
    _, (left, right) = plt.subplots(1, 2)
    assert plots.units_grid(np.zeros((2, 4)), (2, 2), ax=right, cmap="viridis", vmax=3) is right
    (image,) = right.get_images()
    assert image.get_cmap().name == "viridis"
    assert image.get_clim() == (0.0, 3.0)
    assert not left.get_images()
    assert len(plt.get_fignums()) == 1


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.weights(np.zeros(4), (2, 2)), r"W must have shape .* got \(4,\)"),
        (lambda: plots.weights(np.zeros((4, 1)), (2, 3)), "W has 4 units .* needs 6"),
        (lambda: plots.weights(np.zeros((4, 0)), (2, 2)), "W holds no image"),
        (lambda: plots.weights(np.full((4, 1), np.nan), (2, 2)), "W must be finite"),
        (lambda: plots.units_grid(np.zeros((3, 5)), (2, 2)), "units has 5 units .* needs 4"),
        (lambda: plots.units_grid(np.zeros((0, 4)), (2, 2)), "units holds no image"),
        (lambda: plots.units_grid([np.inf, 0], (1, 2)), "units must be finite"),
        (lambda: plots.units_grid(np.zeros(4), (4,)), "image_shape must be two positive numbers"),
        (lambda: plots.units_grid(np.zeros(4), (-2, -2)), "image_shape must be two positive"),
        (lambda: plots.units_grid(np.zeros(4), (2, 2), n_columns=0), "n_columns .* got 0"),
    ],
)
def test_bad_input_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_import_does_not_load_pyplot():
    code = "import sys, pm_neural.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
