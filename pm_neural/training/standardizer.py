"""Data brought to one scale, or whitened, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from pm_neural.fitting.checks import check_number, check_real


@dataclass(frozen=True, eq=False)
class Standardizer:
    """An invertible affine map z = M(x - mean), with which Gaussian models are easier to train.

    Make one by `scaling` or `whitening`, apply it as a function, and go back by `inverse`.

    Attributes
    ----------
    mean : ndarray, (n_columns,)
    matrix : ndarray, (n_columns, n_columns)
        M, which is symmetric.
    inverse_matrix : ndarray, (n_columns, n_columns)

    Examples
    --------
    >>> import numpy as np
    >>> from pm_neural.training import Standardizer
    >>> X = np.random.default_rng(1).normal(5.0, 2.0, size=(1000, 3))
    >>> standardize = Standardizer.scaling(X)
    >>> Z = standardize(X)
    >>> bool(np.allclose(Z.std(axis=0), 1) and np.allclose(standardize.inverse(Z), X))
    True
    """

    mean: np.ndarray
    matrix: np.ndarray
    inverse_matrix: np.ndarray

    @classmethod
    def scaling(cls, X: ArrayLike) -> Self:
        """Give every column the mean 0 and the standard deviation 1.

        Parameters
        ----------
        X : array, (n_rows, n_columns)

        Raises
        ------
        ValueError, TypeError
            `X` is not a matrix of finite numbers, or a column is constant.
        """
        X = _as_matrix(X)
        sd = X.std(axis=0)
        if not sd.all():
            raise ValueError(f"X must vary in every column; column {int(np.argmin(sd))} is constant")
        return cls(X.mean(axis=0), np.diag(1 / sd), np.diag(sd))

    @classmethod
    def whitening(cls, X: ArrayLike, *, floor: float = 0.0) -> Self:
        """Give the columns the mean 0 and the identity as covariance, changing them as little as possible (ZCA [1]_).

        Parameters
        ----------
        X : array, (n_rows, n_columns)
        floor : float
            Added to the variance along every principal axis, as a fraction of their mean: directions that hold
            nothing but noise are then not amplified to the size of the others.

        Raises
        ------
        ValueError, TypeError
            `X` is not a matrix of finite numbers, `floor` is negative, or it is 0 and the covariance singular.

        References
        ----------
        .. [1] Bell, Sejnowski (1997). The "independent components" of natural scenes are edge filters. Vision
           Research 37, 3327-3338.
        """
        X = _as_matrix(X)
        floor = check_number(floor, "floor", minimum=0)
        mean = X.mean(axis=0)
        variances, axes = np.linalg.eigh((X - mean).T @ (X - mean) / len(X))
        variances += floor * variances.mean()
        if not variances[0] > len(variances) * np.finfo(float).eps * variances[-1]:
            raise ValueError(
                f"X must vary in all {len(variances)} directions to be whitened; its covariance is singular: give a "
                "floor, such as 1e-3"
            )
        scale = np.sqrt(variances)
        return cls(mean, (axes / scale) @ axes.T, (axes * scale) @ axes.T)

    def __call__(self, X: ArrayLike) -> np.ndarray:
        """Standardize the rows of `X`."""
        return (check_real(X, "X", len(self.mean)) - self.mean) @ self.matrix

    def inverse(self, Z: ArrayLike) -> np.ndarray:
        """Undo it for the rows of `Z`."""
        return check_real(Z, "Z", len(self.mean)) @ self.inverse_matrix + self.mean

    @property
    def log_det(self) -> float:
        """Log ``|det M|``: added to a log-density of z, it makes that of x."""
        return float(np.linalg.slogdet(self.matrix)[1])


def _as_matrix(X: ArrayLike) -> np.ndarray:
    shape = np.shape(X)
    if len(shape) != 2 or shape[0] < 2:
        raise ValueError(f"X must be a matrix with at least two rows; got shape {shape}")
    return check_real(X, "X", shape[1]).astype(float)
