import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pm_neural.diagnostics import (
    LogPartition,
    enumerate_states,
    log_likelihood,
    log_partition,
)


def estimate_with(standard_error, reverse=None):
    return LogPartition(3.0, standard_error, 40.0, "ais", np.full(50, 3.0), reverse)


# --------------------------------------------------------------------------------- log partition


def test_exact_result_has_no_error(random_rbm):
    exact = log_partition(random_rbm(4, 3))
    assert exact.standard_error == 0
    assert exact.effective_sample_size == np.inf
    assert exact.log_weights.size == 0
    assert exact.reverse is None
    assert float(exact) == exact.estimate
    assert str(exact) == f"log Z = {exact.estimate:.4f} (exact)"


def test_result_prints_both_directions(random_rbm):
    text = str(log_partition(random_rbm(4, 3), "ais", n_chains=10, n_steps=3, random_seed=0))
    forward, backward = text.splitlines()
    assert "(ais, 10 chains, effective" in forward
    assert "(reverse ais, 10 chains, effective" in backward


def test_unknown_method_is_refused(random_rbm):
    with pytest.raises(ValueError, match="method must be 'exact', 'quadrature' or 'ais', got 'bridge'"):
        log_partition(random_rbm(2, 2), "bridge")


# -------------------------------------------------------------------------------- log likelihood


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_probabilities_of_all_rows_are_exact(random_rbm, joint, shape):
    params = random_rbm(*shape)
    v = enumerate_states(shape[0])
    exact = joint(params)
    expected = [exact.probability[(exact.visible == row).all(axis=1)].sum() for row in v]
    result = log_likelihood(params, v)
    assert_allclose(np.exp(result.per_row), expected, rtol=1e-12)
    assert_allclose(result.mean, np.log(expected).mean())
    assert_allclose(result.standard_error, np.log(expected).std(ddof=1) / np.sqrt(len(v)))
    assert result.bracket is None


def test_log_likelihood_of_large_fields_does_not_overflow(random_rbm):
    params = random_rbm(6, 4, 1e4)
    result = log_likelihood(params, enumerate_states(6))
    assert_allclose(np.exp(result.per_row).sum(), 1)


def test_log_z_can_be_given_as_a_number(random_rbm):
    params = random_rbm(4, 3)
    known = log_partition(params)
    rows = enumerate_states(4)
    by_number = log_likelihood(params, rows, log_z=known.estimate)
    assert_allclose(by_number.per_row, log_likelihood(params, rows).per_row)
    assert by_number.log_partition is None
    assert log_likelihood(params, rows, log_z=known).log_partition is known


def test_errors_of_rows_and_of_log_z_are_added_in_quadrature(random_rbm):
    params, rows = random_rbm(4, 3), enumerate_states(4)
    of_rows = log_likelihood(params, rows, log_z=3.0).standard_error
    both = log_likelihood(params, rows, log_z=estimate_with(0.4)).standard_error
    assert_allclose(both, np.sqrt(of_rows**2 + 0.4**2))


def test_bracket_takes_log_z_from_both_directions(random_rbm):
    log_z = estimate_with(0.1, reverse=LogPartition(3.5, 0.1, 40.0, "reverse ais", np.empty(50)))
    result = log_likelihood(random_rbm(4, 3), enumerate_states(4), log_z=log_z)
    assert_allclose(result.bracket, (result.mean - 0.5, result.mean))
    assert f"{result.mean - 0.5:.3f} with reverse and {result.mean:.3f} with forward" in str(result)


def test_likelihood_estimates_log_z_itself(random_rbm):
    params, rows = random_rbm(5, 4), enumerate_states(5)
    exact = log_likelihood(params, rows)
    estimated = log_likelihood(params, rows, method="ais", random_seed=0)
    assert estimated.log_partition.method == "ais"
    assert abs(estimated.mean - exact.mean) < 5 * estimated.log_partition.standard_error
    again = log_likelihood(params, rows, method="ais", random_seed=0)
    assert estimated.mean == again.mean


def test_spread_over_a_single_row_is_unknown(random_rbm):
    result = log_likelihood(random_rbm(3, 2), [[0, 1, 1]])
    assert np.isnan(result.standard_error)
    assert result.mean == result.per_row[0]


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([0, 1, 1], ValueError, r"X must have the shape \(n_rows, 3\), .* got \(3,\)"),
        ([[0, 1]], ValueError, r"X must have the shape \(n_rows, 3\), .* got \(1, 2\)"),
        (np.empty((0, 3)), ValueError, r"X must have the shape \(n_rows, 3\), .* got \(0, 3\)"),
        ([[0, 1, 257]], ValueError, "X must hold zeros and ones only, got 257"),
        ([[0, 1, -1]], ValueError, "X must hold zeros and ones only, got -1"),
        ([[0, 1, np.nan]], ValueError, "X must hold zeros and ones only, got nan"),
        ([["0", "1", "1"]], TypeError, "X must hold zeros and ones, got dtype"),
        (np.ma.masked_array([[0, 1, 1]], mask=[[0, 0, 1]]), ValueError, "must not have masked"),
    ],
)
def test_bad_rows_are_refused(X, error, message):
    with pytest.raises(error, match=message):
        log_likelihood((np.zeros((3, 2)), np.zeros(3), np.zeros(2)), X)


@pytest.mark.parametrize("log_z", [np.nan, np.inf])
def test_log_z_that_is_not_finite_is_refused(random_rbm, log_z):
    with pytest.raises(ValueError, match="log_z must be finite"):
        log_likelihood(random_rbm(3, 2), [[0, 1, 1]], log_z=log_z)


def test_import_is_light():
    code = (
        "import sys, pm_neural.diagnostics; "
        "print(sorted({'torch', 'arviz', 'arviz_stats', 'sklearn'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
