import arviz as az
import numpy as np
import pymc as pm
import pytest

import pm_neural as pmn
from pm_neural.diagnostics import (
    exact_state_probabilities,
    kl_divergence,
    state_probabilities,
    total_variation_distance,
)

P = np.array([0.4, 0.3, 0.2, 0.1])


def tree(**posterior):
    return az.from_dict({"posterior": posterior})


def bits_of(numbers, n_units):
    return (numbers[..., None] >> np.arange(n_units)[::-1]) & 1


@pytest.fixture
def draws(rng):
    """Draw chains of states with the probabilities P, each state repeated as often as wished."""

    def draw(n_chains, n_draws, repeats=1):
        numbers = rng.choice(4, p=P, size=(n_chains, n_draws // repeats))
        return tree(z=bits_of(np.repeat(numbers, repeats, axis=1), 2))

    return draw


# ------------------------------------------------------------------------------------ frequencies


def test_states_are_counted_in_the_order_of_the_units(rng):
    z = rng.integers(0, 2, size=(2, 30, 2))
    y = rng.integers(0, 2, size=(2, 30))
    result = state_probabilities(tree(z=z, y=y), ["z", "y"])
    assert result.units == ("z[0]", "z[1]", "y")
    for state, p in zip(result.states, result.probabilities, strict=True):
        hits = (z == state[:2]).all(axis=-1) & (y == state[2])
        assert p == hits.mean()
    np.testing.assert_array_equal(np.asarray(result), result.probabilities)
    assert state_probabilities(tree(z=z, y=y), "y").probabilities[1] == y.mean()


@pytest.mark.filterwarnings("ignore:the errors of the probabilities")
def test_fields_are_raveled(rng):
    z = rng.integers(0, 2, size=(1, 20, 2, 2))
    result = state_probabilities(tree(z=z), "z")
    assert result.units == ("z[0, 0]", "z[0, 1]", "z[1, 0]", "z[1, 1]")
    assert result.probabilities[0b0110] == (z == [[0, 1], [1, 0]]).all(axis=(-2, -1)).mean()


def test_spins_are_recognized(rng):
    s = 2 * rng.integers(0, 2, size=(1, 50, 2)) - 1
    result = state_probabilities(tree(s=s, y=np.ones((1, 50), int)), ["s", "y"], values=(-1, 1))
    assert result.states[0].tolist() == [-1, -1, -1]
    result = state_probabilities(tree(s=s), "s")
    np.testing.assert_array_equal(result.states, [[-1, -1], [-1, 1], [1, -1], [1, 1]])
    assert result.probabilities[1] == ((s[..., 0] == -1) & (s[..., 1] == 1)).mean()


@pytest.mark.filterwarnings("ignore:the errors of the probabilities")
def test_spins_and_bits_together(rng):
    s = 2 * rng.integers(0, 2, size=(1, 50)) - 1
    y = rng.integers(0, 2, size=(1, 50))
    result = state_probabilities(tree(s=s, y=y), ["s", "y"])
    np.testing.assert_array_equal(result.states, [[-1, 0], [-1, 1], [1, 0], [1, 1]])


@pytest.mark.parametrize("repeats", [1, 10])
def test_standard_errors_are_those_of_correlated_draws(draws, repeats):
    """Repeating each draw divides the effective sample size. 400 batches estimate it to 4 %; false alarms 1e-5."""
    result = state_probabilities(draws(4, 40_000, repeats), "z")
    n = 160_000 / repeats
    assert result.effective_sample_size == pytest.approx(n, rel=0.2)
    np.testing.assert_allclose(result.standard_errors, np.sqrt(P * (1 - P) / n), rtol=0.25)
    assert (np.abs(result.probabilities - P) < 5 * result.standard_errors).all()


def two_state_chains(rng, n_chains, n_draws, flip):
    """Chains of one unit that flips with some probability: its autocorrelation falls by 1 − 2 flip a draw."""
    start = rng.integers(0, 2, (n_chains, 1))
    flips = rng.random((n_chains, n_draws)) < flip
    return (start + np.cumsum(flips, axis=1)) % 2


@pytest.mark.parametrize("flip", [0.5, 0.02])
def test_errors_cover_the_truth(rng, flip):
    """1.7 standard errors of a normal law hold 91.1 % of 1000 runs, ± 0.9 %.

    Student's law of the batches, and their finite length, take up to 3 % from it, and the other bound is 4 standard
    deviations away: false alarms 1e-4.
    """
    covered = []
    for _ in range(1000):
        result = state_probabilities(tree(z=two_state_chains(rng, 4, 5000, flip)), "z")
        covered.append(abs(result.probabilities[1] - 0.5) < 1.7 * result.standard_errors[1])
    assert 0.885 - 0.03 < np.mean(covered) < 0.947


def test_chains_of_few_autocorrelation_times_are_said_to_be_short(rng):
    with pytest.warns(UserWarning, match="the chains have 500 draws each, and should have some"):
        state_probabilities(tree(z=two_state_chains(rng, 4, 500, 0.005)), "z")


def test_chains_that_disagree_have_large_errors(rng):
    z = np.zeros((2, 400), int)
    z[1] = 1
    with pytest.warns(UserWarning, match="the errors of the probabilities may be too small"):
        result = state_probabilities(tree(z=z), "z")
    assert result.effective_sample_size < 50
    assert result.standard_errors[0] > 0.07


def test_chains_in_one_state_know_no_errors():
    result = state_probabilities(tree(z=np.zeros((2, 100), int)), "z")
    np.testing.assert_array_equal(result.probabilities, [1, 0])
    assert np.isnan(result.effective_sample_size)
    distance = total_variation_distance(result, [0.5, 0.5])
    assert distance.estimate == 0.5
    assert np.isnan(distance.noise)


# ------------------------------------------------------------------------------------ exact probabilities


def test_exact_probabilities_of_a_model(random_rbm, joint):
    parameters = random_rbm(3, 2)
    exact = joint(parameters).probability
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", *parameters)
        alone = exact_state_probabilities(v)
        h = pmn.HiddenUnits("h", v)
        both = exact_state_probabilities([v, h])
    np.testing.assert_allclose(alone.probabilities, exact.reshape(8, 4).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(both.probabilities, exact, rtol=1e-12)
    assert both.exact
    assert both.effective_sample_size == np.inf
    assert both.units == ("v[0]", "v[1]", "v[2]", "h[0]", "h[1]")
    np.testing.assert_array_equal(both.standard_errors, 0)
    given = exact_state_probabilities([h], {"v": np.array([1, 0, 1])}, model=model)
    expected = exact.reshape(8, 4)[0b101]
    np.testing.assert_allclose(given.probabilities, expected / expected.sum(), rtol=1e-12)


def test_exact_probabilities_need_two_valued_variables_of_the_model():
    with pm.Model() as model:
        x = pm.Normal("x")
        with pytest.raises(ValueError, match=r"vars must have two values per unit.*got 'x'"):
            exact_state_probabilities([x])
    with pm.Model():
        z = pm.Bernoulli("z", 0.5)
    with pytest.raises(ValueError, match=r"not random variables in the model: \['z'\]"):
        exact_state_probabilities([z], model=model)
    with pytest.raises(TypeError, match="vars must be variables of the model, got 'z'"):
        exact_state_probabilities(["z"], model=model)


# ------------------------------------------------------------------------------------ divergences


def test_divergences_of_exact_distributions_by_hand():
    q = np.array([0.25, 0.25, 0.25, 0.25])
    distance, divergence = total_variation_distance(P, q), kl_divergence(P, q)
    assert distance.estimate == pytest.approx(0.2)
    assert divergence.estimate == pytest.approx(np.sum(P * np.log(P / q)))
    for result in (distance, divergence):
        assert result.standard_error == result.noise == 0
        assert "(exact)" in str(result)
    assert float(distance) == distance.estimate
    assert kl_divergence([1, 0], [0.5, 0.5]).estimate == pytest.approx(np.log(2))
    assert kl_divergence([0.5, 0.5], [1, 0]).estimate == np.inf
    assert total_variation_distance([1, 0], [0, 1]).estimate == 1


def test_both_directions_between_samples_and_exact_values(draws):
    samples = state_probabilities(draws(2, 5000), "z")
    p = samples.probabilities
    assert kl_divergence(samples, P).estimate == pytest.approx(np.sum(p * np.log(p / P)), rel=1e-10)
    assert kl_divergence(P, samples).estimate == pytest.approx(np.sum(P * np.log(P / p)), rel=1e-10)
    tv = total_variation_distance(samples, P)
    assert tv == total_variation_distance(P, samples)
    assert tv.estimate == pytest.approx(np.abs(p - P).sum() / 2)


@pytest.mark.parametrize("repeats", [1, 8])
@pytest.mark.parametrize("exact", [P, np.array([0.1, 0.2, 0.3, 0.4])], ids=["same", "other"])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("divergence", [total_variation_distance, kl_divergence])
def test_noise_and_standard_error_are_what_repetition_shows(draws, divergence, swap, exact, repeats):
    """200 repetitions give the mean to 7 % of a standard deviation and the latter to 5 %.

    The errors come from 80 batches. The bounds are 4 standard errors and more: false alarms 1e-4 in all.
    """
    results = []
    for _ in range(200):
        samples = state_probabilities(draws(2, 1600, repeats), "z")
        results.append(divergence(exact, samples) if swap else divergence(samples, exact))
    estimates, errors, noises = np.array([(r.estimate, r.standard_error, r.noise) for r in results]).T
    spread = estimates.std()
    truth = float(divergence(exact, P) if swap else divergence(P, exact))
    if exact is P:
        assert estimates.mean() == pytest.approx(noises.mean(), rel=0.2)
        assert 1.1 * spread < errors.mean() < 2 * spread  # too large, and said to be
    else:
        assert abs(estimates.mean() - truth) < noises.mean() + 0.3 * spread
        assert errors.mean() == pytest.approx(spread, rel=0.25)


def test_rare_states_do_not_inflate_the_noise(rng):
    """With 1000 states of probability 1/1000 and 100 draws the frequencies are nearly all wrong: the noise says so."""
    p = np.full(1024, 1 / 1024)
    numbers = rng.integers(0, 1024, size=(1, 100))
    distance = total_variation_distance(state_probabilities(tree(z=bits_of(numbers, 10)), "z"), p)
    assert distance.noise == pytest.approx(np.exp(-100 / 1024), rel=0.01)
    assert distance.estimate == pytest.approx(distance.noise, abs=0.02)


def test_a_wrong_sampler_shows(draws):
    wrong = np.array([0.35, 0.35, 0.2, 0.1])
    samples = state_probabilities(draws(4, 20_000), "z")
    for divergence in (total_variation_distance, kl_divergence):
        result = divergence(samples, wrong)
        assert result.estimate > result.noise + 5 * result.standard_error
        assert "noise alone" in str(result)


def test_batches_that_are_all_alike_have_no_noise():
    result = state_probabilities(tree(z=np.tile([0, 1], (2, 128))), "z")
    assert result.effective_sample_size == np.inf
    assert not result.exact
    for divergence in (total_variation_distance, kl_divergence):
        measured = divergence(result, [0.5, 0.5])
        assert measured.estimate == measured.noise == measured.standard_error == 0


def test_impossible_states_that_are_never_visited_do_not_matter(rng):
    numbers = rng.integers(0, 2, size=(2, 500))
    short = state_probabilities(tree(z=numbers), "z")
    long = state_probabilities(tree(z=bits_of(numbers, 2)), "z")
    for swap in (False, True):
        for divergence in (total_variation_distance, kl_divergence):
            pairs = ((short, [0.4, 0.6]), (long, [0.4, 0.6, 0, 0]))
            one, other = (divergence(*(pair[::-1] if swap else pair)) for pair in pairs)
            assert other.estimate == pytest.approx(one.estimate, rel=1e-12)
            assert other.standard_error == pytest.approx(one.standard_error, rel=1e-12)
            assert other.noise == pytest.approx(one.noise, rel=1e-12)


def test_impossible_states_make_the_divergence_infinite(draws):
    result = kl_divergence(state_probabilities(draws(2, 200), "z"), [0.5, 0.5, 0, 0])
    assert result.estimate == np.inf
    assert np.isnan(result.standard_error)


# ------------------------------------------------------------------------------------ bad input


def test_bad_samples_are_refused(draws):
    idata = draws(2, 100)
    with pytest.raises(TypeError, match=r"idata must be an xarray\.DataTree, got dict"):
        state_probabilities({"z": 1}, "z")
    with pytest.raises(ValueError, match=r"var_names must name variables .*\['z'\], got 'w'"):
        state_probabilities(idata, "w")
    with pytest.raises(ValueError, match="idata must have at least 16 draws in each chain, got 15"):
        state_probabilities(draws(2, 15), "z")
    with pytest.raises(ValueError, match="the draws of 'k' must be 0 or 1, got 2"):
        state_probabilities(tree(k=np.arange(20).reshape(1, 20) % 3), "k")
    with pytest.raises(ValueError, match=r"the draws of 'k' must be -1 or 1, got 0\.5"):
        state_probabilities(tree(k=np.tile([-1, 0.5], (1, 10))), "k")
    with pytest.raises(ValueError, match="the draws of 'z' must be -1 or 1, got 0"):
        state_probabilities(idata, "z", values=(-1, 1))
    with pytest.raises(ValueError, match="values must be the lower and the upper value"):
        state_probabilities(idata, "z", values=(1, 0))
    with pytest.raises(ValueError, match=r"all draws of 'k' are 1; say values=\(0, 1\) or values=\(-1, 1\)"):
        state_probabilities(tree(k=np.ones((1, 20), int)), "k")
    with pytest.raises(ValueError, match="between 1 and 12 units together, got 13"):
        state_probabilities(tree(k=np.zeros((1, 20, 13), int)), "k")
    with pytest.raises(ValueError, match="between 1 and 12 units together, got 0"):
        state_probabilities(idata, [])


@pytest.mark.parametrize("divergence", [total_variation_distance, kl_divergence])
def test_distributions_that_do_not_fit_are_refused(draws, divergence):
    samples = state_probabilities(draws(2, 100), "z")
    with pytest.raises(TypeError, match="p and q must not both be from samples"):
        divergence(samples, samples)
    with pytest.raises(ValueError, match=r"q must have the shape \(4,\)"):
        divergence(samples, [0.5, 0.5])
    with pytest.raises(ValueError, match="p must be probabilities that sum to 1"):
        divergence([0.5, 0.6, 0, 0], samples)
    with pm.Model():
        spins_like = exact_state_probabilities(pm.Bernoulli("y", 0.5))
    with pytest.raises(ValueError, match=r"p and q must have the same states, got those of z\[0\], z\[1\] and of y"):
        divergence(samples, spins_like)
