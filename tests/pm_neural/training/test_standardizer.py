import numpy as np
import pytest

from pm_neural.training import Standardizer


@pytest.fixture
def X(rng):
    return rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) + rng.normal(size=4)


def test_scaling_gives_mean_0_and_standard_deviation_1(X):
    Z = Standardizer.scaling(X)(X)
    np.testing.assert_allclose(Z.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(Z.std(0), 1)
    np.testing.assert_allclose(np.corrcoef(Z.T), np.corrcoef(X.T))


def test_whitening_gives_the_identity_as_covariance_and_changes_little(X):
    """ZCA is the whitening that correlates each column most with what it was: its matrix is symmetric positive."""
    whiten = Standardizer.whitening(X)
    Z = whiten(X)
    np.testing.assert_allclose(Z.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(Z.T, ddof=0), np.eye(4), atol=1e-10)
    np.testing.assert_allclose(whiten.matrix, whiten.matrix.T)
    assert np.linalg.eigvalsh(whiten.matrix).min() > 0


@pytest.mark.parametrize("make", [Standardizer.scaling, Standardizer.whitening])
def test_inverse_and_log_det(X, make):
    standardize = make(X)
    np.testing.assert_allclose(standardize.inverse(standardize(X)), X)
    np.testing.assert_allclose(standardize.matrix @ standardize.inverse_matrix, np.eye(4), atol=1e-10)
    assert standardize.log_det == pytest.approx(np.log(abs(np.linalg.det(standardize.matrix))))


def test_floor_keeps_empty_directions_small(X):
    flat = np.column_stack([X, X.sum(1)])
    with pytest.raises(ValueError, match="covariance is singular: give a floor"):
        Standardizer.whitening(flat)
    whiten = Standardizer.whitening(flat, floor=0.01)
    variances, axes = np.linalg.eigh(np.cov(flat.T, ddof=0))
    expected = variances / (variances + 0.01 * variances.mean())
    np.testing.assert_allclose((whiten(flat) @ axes).var(0), expected, atol=1e-10)
    np.testing.assert_allclose(whiten.inverse(whiten(flat)), flat)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Standardizer.scaling([1.0, 2.0]), ValueError, r"at least two rows; got shape \(2,\)"),
        (lambda: Standardizer.scaling([[1.0, 2.0]]), ValueError, r"at least two rows; got shape \(1, 2\)"),
        (lambda: Standardizer.scaling([[1.0, 2.0], [3.0, 2.0]]), ValueError, "column 1 is constant"),
        (lambda: Standardizer.scaling([[1.0, np.nan], [3.0, 2.0]]), ValueError, "X must hold finite numbers; got nan"),
        (lambda: Standardizer.scaling([["a"], ["b"]]), TypeError, "X must be an array of numbers; got dtype"),
        (lambda: Standardizer.whitening(np.eye(3), floor=-1), ValueError, r"floor must be in \[0, inf\); got -1"),
        (lambda: Standardizer.scaling(np.eye(2))(np.eye(3)), ValueError, r"X must have shape \(n, 2\)"),
        (lambda: Standardizer.scaling(np.eye(2)).inverse(np.eye(3)), ValueError, r"Z must have shape \(n, 2\)"),
    ],
)
def test_bad_data_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
