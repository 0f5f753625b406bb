"""Annealed importance sampling against exact enumeration."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chisquare

from pm_neural.datasets import load_digits
from pm_neural.diagnostics import enumerate_states, log_partition
from pm_neural.diagnostics._parameters import as_parameters
from pm_neural.diagnostics.ais import (
    _BinaryChains,
    _exp_minus,
    _resample,
    _reweight_and_scale,
)
from pm_neural.diagnostics.partition import average_directions


def data_for(n_visible, rng):
    return (rng.random((50, n_visible)) < rng.uniform(0.1, 0.9, n_visible)).astype(float)


@pytest.mark.parametrize("base", ["uniform", "data"])
@pytest.mark.parametrize("shape", [(4, 3), (3, 6)])
@pytest.mark.parametrize("n_steps", [1, 2, 8])
def test_weights_are_unbiased_in_both_directions(random_rbm, joint, rng, shape, n_steps, base):
    """Mean of 40,000 weights against Z and of inverse ones against 1/Z: within 4.5 standard errors.

    False-alarm rate: 7e-6 for each of 24 comparisons, 2e-4 in all.
    """
    params = random_rbm(*shape, 0.8)
    estimate = log_partition(
        params,
        "ais",
        X=data_for(shape[0], rng) if base == "data" else None,
        n_chains=40_000,
        n_steps=n_steps,
        random_seed=rng,
    )
    log_z = joint(params).log_z
    for log_ratios in (
        estimate.log_weights - log_z,
        log_z - estimate.reverse.log_weights,
    ):
        ratios = np.exp(log_ratios)
        assert abs(ratios.mean() - 1) < 4.5 * ratios.std() / np.sqrt(len(ratios))
        assert ratios.std() < 8  # or the test above would see nothing


def test_standard_error_covers_the_truth(random_rbm, joint, rng):
    """200 standardized errors in each direction have mean 0 and variance 1.

    Their mean is within 4.5 / √200 and their variance between 0.6 and 1.5, which a normal sample
    leaves with a probability below 1e-5.
    """
    params = random_rbm(5, 4, 0.7)
    log_z = joint(params).log_z
    estimates = [log_partition(params, "ais", n_chains=400, n_steps=10, random_seed=rng) for _ in range(200)]
    for runs in (estimates, [estimate.reverse for estimate in estimates]):
        z = np.array([(run.estimate - log_z) / run.standard_error for run in runs])
        assert abs(z.mean()) < 4.5 / np.sqrt(200)
        assert 0.6 < z.var() < 1.5


def test_effective_sample_size_and_standard_error_of_one_step(random_rbm, joint, rng):
    """With one step, weights are p*/p₀ of independent draws: their variance is known exactly.

    Both within 5 %, where the standard deviation of 100,000 draws is below 1 %: below 1e-6.
    """
    W, a, b = random_rbm(4, 3, 0.5)
    v = enumerate_states(4)
    log_p = v @ a + np.logaddexp(0, b + v @ W).sum(axis=1)
    p = np.exp(log_p - np.logaddexp.reduce(log_p))
    squared_variation = (p**2).sum() * 16 - 1  # of p / p₀ under the uniform base
    n = 100_000
    estimate = log_partition((W, a, b), "ais", n_chains=n, n_steps=1, random_seed=rng)
    assert_allclose(estimate.effective_sample_size, n / (1 + squared_variation), rtol=0.05)
    assert_allclose(estimate.standard_error, np.sqrt(squared_variation / n), rtol=0.05)


def test_long_annealing_agrees_with_enumeration_on_a_trained_network(digits_rbm):
    """Both directions within 0.02 of exact log Z, 4 of their standard errors: 1e-4."""
    exact = log_partition(digits_rbm).estimate
    estimate = log_partition(digits_rbm, "ais", X=load_digits().train, random_seed=1)
    assert abs(estimate.estimate - exact) < 0.02
    assert abs(estimate.reverse.estimate - exact) < 0.02
    for direction in (estimate, estimate.reverse):
        assert direction.standard_error < 0.006
        assert direction.effective_sample_size > 450
        assert abs(direction.estimate - exact) < 4 * direction.standard_error


def test_short_annealing_brackets_the_truth(digits_rbm):
    """With 5 steps from a uniform base, forward runs are 4 nats short and reverse ones 4 over.

    The standard error of each mean of 20 runs is 0.45 nats, so that 2 nats off have a false-alarm
    rate of 1e-4.
    """
    exact = log_partition(digits_rbm).estimate
    with pytest.warns(UserWarning, match="at least one is wrong. Raise n_steps"):
        runs = [log_partition(digits_rbm, "ais", n_chains=50, n_steps=5, random_seed=seed) for seed in range(20)]
    assert np.mean([run.estimate for run in runs]) < exact - 2
    assert np.mean([run.reverse.estimate for run in runs]) > exact + 2


def test_reverse_chains_of_a_large_network_bracket_a_known_value(random_rbm):
    """Two halves of 12×12 units make a network too large for exact draws, with a known log Z.

    Within 4.5 standard errors in both directions and from both kinds of start: 3e-5.
    """
    one, other = random_rbm(12, 12, 0.5), random_rbm(12, 12, 0.5)
    W = np.block([[one[0], np.zeros((12, 12))], [np.zeros((12, 12)), other[0]]])
    params = W, np.r_[one[1], other[1]], np.r_[one[2], other[2]]
    exact = log_partition(params).estimate
    for X in (None, np.eye(24)):
        estimate = log_partition(params, "ais", X=X, n_steps=500, random_seed=2)
        for direction in (estimate, estimate.reverse):
            assert abs(direction.estimate - exact) < 4.5 * direction.standard_error
            assert direction.standard_error < 0.05


def annealed_distribution(params, base_bias, beta):
    W, a, b = params
    v = enumerate_states(len(a))
    log_p = v @ ((1 - beta) * base_bias + beta * a)
    log_p += np.logaddexp(0, beta * (b + v @ W)).sum(axis=1)
    return v, np.exp(log_p - np.logaddexp.reduce(log_p))


def test_sweep_leaves_the_annealed_distribution_invariant(random_rbm, rng):
    """Chi-square of 50,000 chains that start in p_β, after 3 sweeps at β: false-alarm rate 1e-4."""
    params = as_parameters(random_rbm(3, 4))
    base_bias, beta, n_chains = rng.normal(size=3), 0.6, 50_000
    v, p = annealed_distribution(params, base_bias, beta)
    chains = _BinaryChains(params, base_bias, n_chains, rng)
    chains.visible[:] = rng.choice(v, n_chains, p=p)
    log_weights = chains.anneal(np.full(4, beta))
    assert_array_equal(log_weights, 0)
    counts = np.bincount((chains.visible @ [4, 2, 1]).astype(int), minlength=8)
    assert chisquare(counts, n_chains * p).pvalue > 1e-4


def test_chains_reach_the_model_itself(random_rbm, rng):
    """Chi-square of 50,000 chains after 50 sweeps from the base rate: false-alarm rate 1e-4."""
    params = as_parameters(random_rbm(3, 4))
    _, p = annealed_distribution(params, np.zeros(3), 1)
    chains = _BinaryChains(params, np.zeros(3), 50_000, rng)
    chains.start_from_base()
    chains.equilibrate(50)
    counts = np.bincount((chains.visible @ [4, 2, 1]).astype(int), minlength=8)
    assert chisquare(counts, 50_000 * p).pvalue > 1e-4


def test_weights_that_are_all_alike_are_no_contradiction():
    """Of independent units the estimates differ by rounding alone: nothing to warn of, and warnings are errors here."""
    params = np.zeros((40, 30)), np.zeros(40), np.full(30, 0.3)
    estimate = log_partition(params, "ais", n_chains=10, n_steps=300, random_seed=1)
    assert_allclose(estimate.estimate, 40 * np.log(2) + 30 * np.logaddexp(0, 0.3), rtol=1e-6)
    alike = np.full(10, estimate.estimate)
    assert average_directions(alike, alike * (1 + 1e-7)).standard_error == 0
    with pytest.warns(UserWarning, match="combined standard errors apart"):
        average_directions(alike, alike * (1 + 1e-4))


def test_resampling_follows_the_weights(rng):
    """Chi-square of 60,000 rows drawn with weights 1 : 2 : 3: false-alarm rate 1e-4."""
    rows = np.repeat([[0.0], [1.0], [2.0]], 20_000, axis=0)
    log_weights = np.log(rows[:, 0] + 1) - 1000
    counts = np.bincount(_resample(rows, log_weights, rng)[:, 0].astype(int))
    assert chisquare(counts, [10_000, 20_000, 30_000]).pvalue > 1e-4


@pytest.mark.parametrize("n_units", [1, 7, 100, 512, 513, 1500])
@pytest.mark.parametrize(("beta", "next_beta"), [(0, 0.3), (0.5, 0.501), (0.501, 0.5), (0, 1)])
def test_weights_are_accurate_to_the_precision_of_the_fields(rng, n_units, beta, next_beta):
    scale = 10.0 ** rng.uniform(-3, 3, n_units)
    field = (rng.normal(size=(5, n_units)) * scale).astype(np.float32)
    bias = rng.normal(size=n_units).astype(np.float32)
    x = field.astype(np.float64) + bias
    softplus = np.logaddexp(0, next_beta * x) - np.logaddexp(0, beta * x)

    log_weights = np.zeros(5)
    _reweight_and_scale(field, bias, beta, next_beta, log_weights)
    assert_allclose(log_weights, softplus.sum(axis=1), rtol=1e-12, atol=1e-12)
    assert_allclose(field, next_beta * x, rtol=1e-6)


def test_exponential_is_as_accurate_as_it_says():
    x = np.concatenate([np.linspace(0, 100, 2001), [1e3, 1e300]])
    assert_allclose([_exp_minus(value) for value in x], np.exp(-x), rtol=0, atol=3e-14)


def test_annealing_never_overflows(random_rbm):
    params = random_rbm(6, 5, 1e4)
    with pytest.warns(UserWarning, match="at least one is wrong"):
        estimate = log_partition(params, "ais", n_chains=20, n_steps=50, random_seed=0)
    assert np.isfinite(estimate.estimate)
    assert np.isfinite(estimate.reverse.estimate)


def test_data_with_constant_columns_give_a_finite_base_rate(random_rbm):
    X = np.tile([0, 1, 1, 0, 1], (30, 1))
    estimate = log_partition(random_rbm(5, 4), "ais", X=X, n_chains=20, n_steps=5, random_seed=0)
    assert np.isfinite(estimate.log_weights).all()


def test_seeds_fix_the_estimate(random_rbm):
    params = random_rbm(25, 22)
    settings = {"n_chains": 10, "n_steps": 20}
    first, same, other = (
        log_partition(params, "ais", random_seed=seed, **settings) for seed in (3, np.random.default_rng(3), 4)
    )
    assert_array_equal(first.log_weights, same.log_weights)
    assert_array_equal(first.reverse.log_weights, same.reverse.log_weights)
    assert not np.array_equal(first.log_weights, other.log_weights)


def test_reverse_chains_may_be_left_out(random_rbm):
    settings = {"n_chains": 10, "n_steps": 20, "random_seed": 1}
    params = random_rbm(5, 4)
    alone = log_partition(params, "ais", reverse=False, **settings)
    both = log_partition(params, "ais", **settings)
    assert alone.reverse is None
    assert alone.estimate == both.estimate


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_chains": 1}, ValueError, "n_chains must be at least 2, got 1"),
        ({"n_chains": 10.0}, TypeError, "n_chains must be an integer, got 10.0"),
        ({"n_steps": 0}, ValueError, "n_steps must be at least 1, got 0"),
        ({"n_steps": True}, TypeError, "n_steps must be an integer, got True"),
        ({"X": np.zeros((4, 2))}, ValueError, r"X must have the shape \(n_rows, 3\)"),
        ({"X": np.full((4, 3), 0.5)}, ValueError, "X must hold zeros and ones only, got 0.5"),
    ],
)
def test_bad_settings_are_refused(arguments, error, message):
    params = np.zeros((3, 2)), np.zeros(3), np.zeros(2)
    with pytest.raises(error, match=message):
        log_partition(params, "ais", **arguments)
