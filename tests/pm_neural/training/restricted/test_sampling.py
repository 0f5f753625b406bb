import arviz as az
import numpy as np
import pytest
import torch

from pm_neural.diagnostics import enumerate_states
from pm_neural.training import RBM, GaussianRBM
from pm_neural.training.restricted.chains import BitChains, LayerChains


def state_frequencies(v: np.ndarray) -> np.ndarray:
    """Frequencies of all states, in the order of `enumerate_states`."""
    numbers = v.reshape(-1, v.shape[-1]) @ (1 << np.arange(v.shape[-1])[::-1])
    return np.bincount(numbers, minlength=1 << v.shape[-1]) / len(numbers)


def exact_probabilities(rbm: RBM) -> np.ndarray:
    states = torch.as_tensor(enumerate_states(rbm.n_visible), dtype=rbm.W.dtype)
    return torch.softmax(-rbm.free_energy(states), dim=0).detach().numpy()


def assert_same_distribution(frequencies: np.ndarray, exact: np.ndarray, n: int) -> None:
    se = np.sqrt(exact * (1 - exact) / n)
    np.testing.assert_array_less(np.abs(frequencies - exact), 5 * se)


def test_draws_are_an_int8_datatree_that_arviz_reads(random_rbm):
    idata = random_rbm(4, 3).sample(n_chains=4, n_draws=200, random_seed=1)
    v = idata.posterior["v"]
    assert v.dims == ("chain", "draw", "visible")
    assert v.shape == (4, 200, 4)
    assert v.dtype == np.int8
    assert set(np.unique(v)) == {0, 1}
    summary = az.summary(idata)
    assert (summary["r_hat"].astype(float) < 1.1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_last_states_of_many_chains_have_the_exact_distribution(random_rbm, dtype):
    """20,000 independent chains, all 16 states within 5 standard errors: false alarm 1e-5."""
    rbm = random_rbm(4, 3, sd=0.7, dtype=dtype)
    n = 20_000
    v = rbm.sample(n_chains=n, n_draws=1, burn_in=60, random_seed=2).posterior["v"].to_numpy()
    assert_same_distribution(state_frequencies(v), exact_probabilities(rbm), n)


def test_gibbs_keeps_the_joint_distribution(random_rbm, rng):
    """From 20,000 exact draws, 3 sweeps; 16 states within 5 standard errors: false alarm 1e-5."""
    rbm = random_rbm(4, 3)
    exact = exact_probabilities(rbm)
    n = 20_000
    start = enumerate_states(4)[rng.choice(16, size=n, p=exact)]
    v, h = rbm.gibbs(start, n_sweeps=3, random_seed=3)
    assert v.shape == (n, 4)
    assert h.shape == (n, 3)
    assert_same_distribution(state_frequencies(v.numpy().astype(int)), exact, n)
    expected_h = (
        exact @ rbm.hidden_probabilities(torch.as_tensor(enumerate_states(4), dtype=torch.float64)).detach().numpy()
    )
    assert_same_distribution(h.numpy().mean(0), expected_h, n)


@pytest.mark.parametrize("kind", [BitChains, LayerChains])
def test_both_kinds_of_chains_draw_h_first_and_then_v_from_it(kind, random_rbm, rng):
    """One sweep from one state, 20,000 times; 64 frequencies within 5 standard errors: false alarm 4e-5."""
    rbm = random_rbm(4, 2)
    n = 20_000
    start = np.tile([1, 0, 1, 1], (n, 1))
    many = BitChains((rbm.W, rbm.a, rbm.b), start, rng) if kind is BitChains else LayerChains(rbm._layers(rng), start)
    many.sweep(0)
    assert (many.v == torch.tensor([1, 0, 1, 1])).all()
    many.sweep(1)
    v, h = many.v.double(), many.h.double()
    hidden = torch.as_tensor(enumerate_states(2), dtype=torch.float64)
    visible = torch.as_tensor(enumerate_states(4), dtype=torch.float64)
    p_h = bernoulli(hidden, rbm.hidden_probabilities(torch.tensor([1.0, 0, 1, 1]).double()))
    p_v = torch.stack([bernoulli(visible, rbm.visible_probabilities(state)) for state in hidden])
    exact = (p_h[:, None] * p_v).detach().numpy().ravel()
    frequency = state_frequencies(torch.cat([h, v], dim=1).numpy().astype(int))
    assert_same_distribution(frequency, exact, n)


def bernoulli(states: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    return torch.where(states == 1, p, 1 - p).prod(-1)


def test_start_is_used_and_sweeps_per_draw_thin(random_rbm):
    stuck = RBM(2, 1)
    with torch.no_grad():
        stuck.W.fill_(60.0)
        stuck.a.fill_(-30.0)
        stuck.b.fill_(-60.0)
    start = [[0, 0], [1, 1]]
    v = stuck.sample(2, 3, burn_in=5, start=start, random_seed=0).posterior["v"].to_numpy()
    np.testing.assert_array_equal(v, np.repeat(start, 3, axis=0).reshape(2, 3, 2))

    rbm = random_rbm(4, 3)
    every = rbm.sample(3, 6, burn_in=0, random_seed=5).posterior["v"]
    third = rbm.sample(3, 2, burn_in=0, sweeps_per_draw=3, random_seed=5).posterior["v"]
    np.testing.assert_array_equal(every[:, 2::3], third)
    later = rbm.sample(3, 4, burn_in=2, random_seed=5).posterior["v"]
    np.testing.assert_array_equal(every[:, 2:], later)


def test_same_seed_same_draws(random_rbm):
    rbm = random_rbm(4, 3)
    first, again, other = (rbm.sample(3, 20, random_seed=s).posterior["v"] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    generator = np.random.default_rng(1)
    np.testing.assert_array_equal(first, rbm.sample(3, 20, random_seed=generator).posterior["v"])


def test_sampling_leaves_the_parameters_alone(random_rbm):
    rbm = random_rbm(4, 3)
    before = rbm.parameters_as_numpy()
    rbm.sample(3, 20, random_seed=1)
    for was, now in zip(before, rbm.parameters_as_numpy(), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_chains": 0}, ValueError, "n_chains must be at least 1; got 0"),
        ({"n_draws": 0}, ValueError, "n_draws must be at least 1"),
        ({"sweeps_per_draw": 0}, ValueError, "sweeps_per_draw must be at least 1"),
        ({"burn_in": -1}, ValueError, "burn_in must be at least 0"),
        ({"burn_in": 1.5}, TypeError, "burn_in must be an integer"),
        ({"start": [[0, 1, 0]]}, ValueError, r"start must have shape \(n, 4\)"),
        ({"start": [[0, 1, 0, 2]] * 4}, ValueError, "start must hold only 0 and 1; got 2"),
        ({"start": [[0, 1, 0, 1]]}, ValueError, r"one row per chain, 4; got shape \(1, 4\)"),
    ],
)
def test_bad_arguments_are_refused(random_rbm, arguments, error, message):
    with pytest.raises(error, match=message):
        random_rbm(4, 3).sample(**arguments)


def test_gibbs_refuses_bad_arguments(random_rbm):
    rbm = random_rbm(4, 3)
    with pytest.raises(ValueError, match=r"v must hold only 0 and 1; got 0\.5 in row 0, column 1"):
        rbm.gibbs([[0, 0.5, 0, 0]])
    with pytest.raises(ValueError, match="n_sweeps must be at least 1"):
        rbm.gibbs([[0, 1, 0, 0]], n_sweeps=0)


@pytest.mark.parametrize("kind", [RBM, GaussianRBM])
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("W", (3, 5), r"a must have shape \(3,\) to fit W of shape \(3, 5\); got \(5,\)"),
        ("a", (4,), r"a must have shape \(5,\) to fit W of shape \(5, 3\); got \(4,\)"),
        ("b", (1, 3), r"b must have shape \(3,\) to fit W of shape \(5, 3\); got \(1, 3\)"),
    ],
)
def test_parameters_of_another_shape_are_refused(kind, name, shape, message):
    machine = kind(5, 3)
    setattr(machine, name, torch.nn.Parameter(torch.zeros(shape)))
    states = np.zeros((2, machine.n_visible))
    with pytest.raises(ValueError, match=message):
        machine.sample(2, 2)
    with pytest.raises(ValueError, match=message):
        machine.gibbs(states)
    with pytest.raises(ValueError, match=message):
        machine.fit(states, epochs=1, progressbar=False)
