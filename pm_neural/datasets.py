"""Small data sets for the case studies; all of them load offline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ImageData", "load_digits"]

_N_DIGITS = 1797
_N_TEST = 359
_MAX_INTENSITY = 16


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
        """
        n_train = len(self.train)
        if not 1 <= n_validation < n_train:
            raise ValueError(
                f"n_validation must be between 1 and {n_train - 1} (there are {n_train} training "
                f"images), got {n_validation!r}"
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
    _check_threshold(binarize)
    from sklearn.datasets import load_digits as load_sklearn_digits  # a slow import

    images, labels = load_sklearn_digits(return_X_y=True)
    pixels = images if binarize is None else (images >= binarize).astype(np.int64)
    labels = labels.astype(np.int64)
    # RandomState's stream is frozen by NumPy, so this split never changes.
    order = np.random.RandomState(0).permutation(_N_DIGITS)
    test, train = order[:_N_TEST], order[_N_TEST:]
    return ImageData(
        train=pixels[train],
        test=pixels[test],
        train_labels=labels[train],
        test_labels=labels[test],
        image_shape=(8, 8),
    )


def _check_threshold(binarize: float | None) -> None:
    if binarize is None:
        return
    if isinstance(binarize, bool) or not isinstance(binarize, int | float | np.number):
        raise TypeError(f"binarize must be a number or None, got {binarize!r}")
    if not 0 < binarize <= _MAX_INTENSITY:
        raise ValueError(
            f"binarize must be in (0, {_MAX_INTENSITY}], the range of the pixel intensities, got {binarize!r}"
        )
