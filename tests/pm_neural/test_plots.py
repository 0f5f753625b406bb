"""The pictures: what is drawn where, and what is refused."""

import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pm_neural import plots
from pm_neural.diagnostics import SpikeRaster


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


def test_units_grid_takes_fields_of_rows_and_columns(rng):
    states = rng.integers(0, 2, size=(2, 3, 4, 5))  # chain, draw, row, column
    flat = plots.units_grid(states.reshape(2, 3, 20), (4, 5))
    assert_array_equal(drawn(plots.units_grid(states, (4, 5))), drawn(flat))


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


def raster():
    return SpikeRaster(np.array([0, 2, 1]), np.array([1, 4, 9]), n_neurons=3, duration=10)


def test_spike_raster_draws_a_mark_for_each_spike():
    (marks,) = plots.spike_raster(raster(), window=(0, 5)).get_lines()
    assert_array_equal(marks.get_xydata(), [[1, 0], [4, 2]])
    ax = plots.spike_raster(raster(), color="red")
    assert ax.get_lines()[0].get_color() == "red"
    assert ax.get_xlim() == (0, 10)
    with pytest.raises(ValueError, match="window must be"):
        plots.spike_raster(raster(), window=(5, 5))


def test_spike_raster_numbers_neurons_only():
    ax = plots.spike_raster(raster())
    ticks = ax.get_yticks()
    assert_array_equal(ticks, np.round(ticks))


def test_refractory_states_shades_rows_and_draws_potentials_upwards():
    states = np.array([[0, 1], [1, 1], [1, 0]])
    ax = plots.refractory_states(states, [[2.0, -1.0], [0.0, 0.0], [1.0, 1.0]], labels=["a", "b"], color="red")
    assert len(ax.collections) == 3  # a row each, and the lines at 0
    first, second = ax.get_lines()
    np.testing.assert_allclose(first.get_ydata(), [-0.4, 0, -0.2])
    np.testing.assert_allclose(second.get_ydata(), [1.2, 1, 0.8])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]


def test_refractory_states_shades_each_time_as_wide_as_the_others():
    ax = plots.refractory_states(np.array([[1], [0], [1], [1], [0]]))
    (shades,) = ax.collections
    extents = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in shades.get_paths()]
    assert extents == [(-0.5, 0.5), (1.5, 3.5)]
    assert ax.get_xlim() == (-0.5, 4.5)


@pytest.mark.parametrize(("n_neurons", "n_labels"), [(5, 5), (40, 40), (41, 21), (500, 39)])
def test_refractory_states_numbers_as_many_rows_as_can_be_read(n_neurons, n_labels):
    ax = plots.refractory_states(np.zeros((3, n_neurons)))
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert len(labels) == n_labels
    assert labels == [str(int(tick)) for tick in ax.get_yticks()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1],), r"states must have shape \(n_times, n_neurons\)"),
        (([[0, 2]],), "states must be 0 or 1 everywhere"),
        (([[0, 1]], [[1.0]]), r"potentials must have the shape \(1, 2\) of states, got \(1, 1\)"),
    ],
)
def test_refractory_states_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        plots.refractory_states(*arguments)


def test_refractory_states_wants_a_label_for_each_neuron():
    with pytest.raises(ValueError, match="labels must name 2 neurons, got 1"):
        plots.refractory_states([[0, 1]], labels=["a"])


def test_state_probabilities_sorts_by_the_first_law():
    ax = plots.state_probabilities({"exact": [0.1, 0.2, 0.4, 0.3], "other": [0.25] * 4}, n_largest=3, alpha=0.5)
    exact, other = ax.containers
    np.testing.assert_allclose([bar.get_height() for bar in exact], [0.4, 0.3, 0.2])
    np.testing.assert_allclose([bar.get_height() for bar in other], [0.25] * 3)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["10", "11", "01"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["exact", "other"]


@pytest.mark.parametrize("n_states", [2, 8, 32])
def test_the_legend_of_state_probabilities_covers_no_bars(n_states, rng):
    laws = {"uniform": np.full(n_states, 1 / n_states), "any other": rng.dirichlet(np.full(n_states, 20))}
    ax = plots.state_probabilities(laws)
    ax.figure.draw_without_rendering()
    legend = ax.get_legend().get_window_extent()
    assert not any(legend.overlaps(bar.get_window_extent()) for bars in ax.containers for bar in bars)


def test_weights_may_be_torch_parameters():
    torch = pytest.importorskip("torch")
    W = torch.nn.Parameter(torch.arange(6.0).reshape(6, 1))
    np.testing.assert_array_equal(plots.weights(W, (2, 3)).images[0].get_array(), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("laws", "options", "message"),
    [
        ({}, {}, "laws must hold at least one law"),
        ({"a": [0.5, 0.5]}, {"n_largest": 0}, "n_largest must be at least 1, got 0"),
        ({"a": [0.5, 0.3, 0.2]}, {}, r"laws must be of all 2\*\*n states"),
        ({"a": [0.5, 0.5], "b": [1.0]}, {}, r"laws must have the same states, got \(1,\) for 'b'"),
        ({"a": []}, {}, r"laws must be of all 2\*\*n states"),
        ({"a": [0.5, 0.5], "b": [np.nan, 1.0]}, {}, "laws must hold probabilities, .* those of 'b' are not"),
        ({"a": [1.5, -0.5]}, {}, "laws must hold probabilities, .* those of 'a' are not"),
    ],
)
def test_state_probabilities_refuses(laws, options, message):
    with pytest.raises(ValueError, match=message):
        plots.state_probabilities(laws, **options)
