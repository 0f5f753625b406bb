"""log Z of Gaussian RBMs: enumeration, quadrature and annealing against each other and against plain loops."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import kstest, norm

from pm_neural.diagnostics import exact_marginals, log_likelihood, log_partition
from pm_neural.diagnostics._parameters import as_any_parameters
from pm_neural.diagnostics.ais import _GaussianChains


@pytest.fixture
def random_machine(rng):
    def draw(n_visible, n_hidden, scale=0.7):
        W, a, b = (rng.normal(0, scale, shape) for shape in ((n_visible, n_hidden), n_visible, n_hidden))
        return W, a, b, np.exp(rng.normal(0, 0.3, n_visible))

    return draw


def mixture(params):
    """Log weights and centers of the Gaussians that p(v) is made of, by a loop over the hidden states."""
    W, a, b, sigma = params
    log_weights, centers = [], []
    for state in product((0.0, 1.0), repeat=len(b)):
        center = a + W @ state
        # integral over v of exp(−E(v, h))
        exponent = b @ state + sum((center**2 - a**2) / (2 * sigma**2))
        log_weights.append(exponent + sum(np.log(np.sqrt(2 * np.pi) * sigma)))
        centers.append(center)
    return np.array(log_weights), np.array(centers)


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (7, 3), (3, 9)])
def test_enumeration_is_the_sum_over_the_hidden_states(random_machine, shape):
    params = random_machine(*shape)
    exact = log_partition(params)
    np.testing.assert_allclose(exact.estimate, np.logaddexp.reduce(mixture(params)[0]), rtol=1e-13)
    assert exact.standard_error == 0
    assert str(exact) == f"log Z = {exact.estimate:.4f} (exact)"


@pytest.mark.parametrize("shape", [(1, 3), (1, 12), (2, 1), (2, 6)])
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
def test_quadrature_is_as_exact_as_enumeration(random_machine, shape, scale):
    params = random_machine(*shape, scale)
    quadrature = log_partition(params, "quadrature")
    assert abs(quadrature.estimate - log_partition(params).estimate) < 1e-12 * max(1, abs(quadrature.estimate))
    assert str(quadrature) == f"log Z = {quadrature.estimate:.4f} (quadrature)"


def test_log_likelihood_is_that_of_the_mixture(random_machine, rng):
    params = random_machine(3, 4)
    log_weights, centers = mixture(params)
    X = rng.normal(size=(5, 3))
    components = norm.logpdf(X[:, None], centers, params[3]).sum(-1) + log_weights - np.logaddexp.reduce(log_weights)
    result = log_likelihood(params, X)
    np.testing.assert_allclose(result.per_row, np.logaddexp.reduce(components, axis=1), rtol=1e-12)
    assert result.log_partition.method == "exact"


@pytest.mark.parametrize("base", ["uncoupled", "data"])
@pytest.mark.parametrize("n_steps", [1, 8])
def test_annealing_weights_are_unbiased_in_both_directions(random_machine, rng, n_steps, base):
    """Mean of 20,000 weights against Z and of inverse ones against 1/Z, 4.5 standard errors: 7e-6 each, 6e-5 in all."""
    params = random_machine(3, 4, 0.4)
    X = rng.normal(size=(60, 3)) if base == "data" else None
    run = log_partition(params, "ais", X=X, n_chains=20_000, n_steps=n_steps, random_seed=rng)
    log_z = log_partition(params).estimate
    for log_ratios in (run.log_weights - log_z, log_z - run.reverse.log_weights):
        ratios = np.exp(log_ratios)
        assert abs(ratios.mean() - 1) < 4.5 * ratios.std() / np.sqrt(len(ratios))
        assert ratios.std() < 8  # or the test above would see nothing


def test_annealing_of_a_larger_machine_brackets_a_known_value(random_machine):
    """Two machines of 12 hidden units side by side are too large for exact draws, with a known log Z.

    Within 5 standard errors in both directions and from both kinds of start: 4e-6.
    """
    one, other = random_machine(4, 12, 0.25), random_machine(3, 12, 0.25)
    W = np.zeros((7, 24))
    W[:4, :12], W[4:, 12:] = one[0], other[0]
    both = (W, *(np.concatenate(pair) for pair in zip(one[1:], other[1:], strict=True)))
    exact = log_partition(one).estimate + log_partition(other).estimate
    rng = np.random.default_rng(1)
    X = rng.normal(both[1] + W.sum(1) / 2, 1.0, size=(200, 7))
    for data in (None, X):
        run = log_partition(both, "ais", X=data, n_chains=400, n_steps=400, random_seed=1)
        for direction in (run, run.reverse):
            assert abs(direction.estimate - exact) < 5 * direction.standard_error
            assert direction.standard_error < 0.1


@pytest.mark.parametrize("seed", [26, 33])
def test_annealing_without_data_finds_centers_far_from_a(seed):
    """6×12, σ = 0.5, W of scale 1: from N(a, σ²) these machines come out 6 and 13 nats too small.

    Within 4.5 standard errors in both directions: false alarms 3e-5 in all.
    """
    rng = np.random.default_rng(seed)
    W, b, a = rng.normal(size=(6, 12)), rng.normal(size=12), rng.normal(size=6)
    params = W, -W.sum(1) / 2 if seed % 2 else a, b, np.full(6, 0.5)
    exact = log_partition(params).estimate
    run = log_partition(params, "ais", n_chains=300, n_steps=3000, random_seed=1)
    for direction in (run, run.reverse):
        assert abs(direction.estimate - exact) < 4.5 * direction.standard_error
        assert direction.standard_error < 0.3
    # The very same chains around a, where data are far from what the machine makes:
    with pytest.warns(UserWarning, match="at least one is wrong. Raise n_steps, or start from a base closer"):
        log_partition(params, "ais", X=np.tile(params[1], (2, 1)), n_chains=300, n_steps=1000, random_seed=1)


def test_sweeps_leave_the_annealed_distribution_invariant(random_machine, rng):
    """20,000 chains that start in p_β, drawn by inverting its distribution function, after 3 sweeps at β: 1e-4."""
    params = as_any_parameters(random_machine(1, 3))
    W, a, b, sigma = params
    beta, mean, sd = 0.6, 0.4, 1.3
    grid = np.linspace(-12, 12, 20_001)
    log_p = -(1 - beta) * (grid - mean) ** 2 / (2 * sd**2) - beta * (grid - a) ** 2 / (2 * sigma**2)
    log_p += np.logaddexp(0, beta * (b + grid[:, None] / sigma**2 * W)).sum(1)
    cdf = np.cumsum(np.exp(log_p - log_p.max()))
    cdf /= cdf[-1]
    chains = _GaussianChains(params, np.array([mean]), np.array([sd]), 20_000, rng)
    chains.visible[:, 0] = np.interp(rng.random(20_000), cdf, grid)
    assert (chains.anneal(np.full(4, beta)) == 0).all()
    assert kstest(chains.visible[:, 0], lambda x: np.interp(x, grid, cdf)).pvalue > 1e-4


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({3: [1.0, 1.0, 1.0]}, ValueError, r"sigma must have the shape \(2,\) of a, got \(3,\)"),
        ({3: [1.0, 0.0]}, ValueError, r"sigma must be positive, got 0\.0"),
        ({3: [1.0, np.nan]}, ValueError, "sigma must be finite"),
        ({0: np.zeros((3, 4))}, ValueError, "a and b must have the shapes"),
    ],
)
def test_bad_parameters_are_refused(random_machine, change, error, message):
    params = list(random_machine(2, 4))
    for index, value in change.items():
        params[index] = np.asarray(value)
    with pytest.raises(error, match=message):
        log_partition(tuple(params))


def test_what_a_method_is_not_for_is_refused(random_machine):
    with pytest.raises(ValueError, match="at most 2 visible units, got 3"):
        log_partition(random_machine(3, 4), "quadrature")
    with pytest.raises(ValueError, match="the hidden layer has 21 units, but at most 20"):
        log_partition(random_machine(2, 21))
    with pytest.raises(ValueError, match="quadrature' is for Gaussian RBMs"):
        log_partition(random_machine(2, 2)[:3], "quadrature")
    with pytest.raises(ValueError, match="at most 10000000 are supported; use method='ais'"):
        log_partition((np.full((2, 4), 1e3), np.zeros(2), np.zeros(4), np.full(2, 0.1)), "quadrature")
    with pytest.raises(TypeError, match="must be those of a binary RBM"):
        exact_marginals(random_machine(2, 2))
    with pytest.raises(ValueError, match="X must be finite"):
        log_likelihood(random_machine(2, 2), [[0.0, np.inf]])
