import itertools

import numpy as np
import pytest
import torch

from pm_neural.diagnostics._parameters import as_any_parameters
from pm_neural.training import RBM


def all_states(n: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def test_energy_is_the_formula_written_out(random_rbm, rng):
    rbm = random_rbm(4, 3)
    v, h = rng.integers(2, size=4).astype(float), rng.integers(2, size=3).astype(float)
    W, a, b = rbm.parameters_as_numpy()
    expected = -a @ v - b @ h - v @ W @ h
    energy = rbm.energy(torch.as_tensor(v), torch.as_tensor(h))
    np.testing.assert_allclose(energy.item(), expected, rtol=1e-12)


def test_free_energy_sums_over_all_hidden_states(random_rbm):
    rbm = random_rbm(4, 3)
    v, h = all_states(4), all_states(3)
    joint = rbm.energy(v[:, None, :].expand(-1, 8, -1), h.expand(16, -1, -1))
    torch.testing.assert_close(rbm.free_energy(v), -torch.logsumexp(-joint, dim=1))
    torch.testing.assert_close(rbm(v), rbm.free_energy(v))


def test_conditionals_are_ratios_of_the_joint(random_rbm):
    rbm = random_rbm(4, 3)
    v, h = all_states(4), all_states(3)
    joint = torch.exp(-rbm.energy(v[:, None, :].expand(-1, 8, -1), h.expand(16, -1, -1)))
    p_h = (joint @ h) / joint.sum(1, keepdim=True)
    p_v = (joint.T @ v) / joint.sum(0)[:, None]
    torch.testing.assert_close(rbm.hidden_probabilities(v), p_h)
    torch.testing.assert_close(rbm.visible_probabilities(h), p_v)


def test_pseudo_log_likelihood_is_the_sum_over_all_units(random_rbm):
    rbm = random_rbm(4, 3)
    v = all_states(4)
    log_p = torch.log_softmax(-rbm.free_energy(v), dim=0)
    expected = torch.zeros(16, dtype=torch.float64)
    for row in range(16):
        for unit in range(4):
            flipped = row ^ (1 << (3 - unit))
            expected[row] += log_p[row] - torch.logaddexp(log_p[row], log_p[flipped])
    torch.testing.assert_close(rbm.pseudo_log_likelihood(v), expected)


def test_pseudo_log_likelihood_of_independent_units_is_the_likelihood(random_rbm):
    """The scale is that of a log-likelihood: nats per image, not per unit."""
    rbm = random_rbm(5, 3)
    with torch.no_grad():
        rbm.W.zero_()
    v = all_states(5)
    torch.testing.assert_close(rbm.pseudo_log_likelihood(v), torch.log_softmax(-rbm.free_energy(v), dim=0))


def test_reconstruction_error_of_a_perfect_autoencoder_is_zero():
    rbm = RBM(2, 2)
    with torch.no_grad():
        rbm.W.copy_(torch.eye(2) * 200)
        rbm.a.fill_(-100)
        rbm.b.fill_(-100)
    v = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    torch.testing.assert_close(rbm.reconstruction_error(v), torch.zeros(2))
    with torch.no_grad():
        rbm.a.fill_(100)
    torch.testing.assert_close(rbm.reconstruction_error(v), torch.tensor([1.0, 0.0]))


def test_energies_are_differentiable(random_rbm):
    rbm = random_rbm(3, 2)
    v = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    rbm.free_energy(v).sum().backward()
    torch.testing.assert_close(rbm.a.grad, -v[0])
    torch.testing.assert_close(rbm.b.grad, -rbm.hidden_probabilities(v)[0])


def test_a_new_rbm_is_uniform_and_describes_itself():
    rbm = RBM(3, 2)
    assert rbm.n_visible == 3
    assert rbm.n_hidden == 2
    assert repr(rbm) == "RBM(n_visible=3, n_hidden=2)"
    assert not any(parameter.any() for parameter in rbm.parameters())


def test_parameters_as_numpy_are_copies(random_rbm):
    rbm = random_rbm(3, 2)
    W, a, b = rbm.parameters_as_numpy()
    assert W.shape == (3, 2)
    assert a.shape == (3,)
    assert b.shape == (2,)
    W[:] = 7
    assert not (rbm.W == 7).any()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 2), ValueError, "n_visible must be at least 1; got 0"),
        ((3, -1), ValueError, "n_hidden must be at least 1; got -1"),
        ((3.5, 2), TypeError, "n_visible must be an integer; got 3.5"),
        ((True, 2), TypeError, "n_visible must be an integer; got True"),
    ],
)
def test_bad_sizes_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        RBM(*arguments)


def test_half_precision_is_refused():
    with pytest.raises(TypeError, match=r"float32 or torch\.float64; got torch\.float16"):
        RBM(3, 2, dtype=torch.float16)
    with pytest.raises(TypeError, match=r"W must be float32 or float64; got torch\.bfloat16"):
        RBM(3, 2).to(torch.bfloat16).sample(1, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["W", "a", "b"])
def test_parameters_that_are_not_finite_are_refused(name, value):
    rbm = RBM(3, 2)
    with torch.no_grad():
        getattr(rbm, name).view(-1)[1] = value
    for use in (
        lambda: rbm.sample(1, 1),
        lambda: rbm.gibbs([[0, 1, 0]]),
        lambda: rbm.pseudo_log_likelihood([[0, 1, 0]]),
        lambda: rbm.fit([[0, 1, 0]], progressbar=False),
    ):
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            use()


def test_diagnostics_take_the_parameters_of_the_module(random_rbm):
    rbm = random_rbm()
    for got, expected in zip(as_any_parameters((rbm.W, rbm.a, rbm.b)), rbm.parameters_as_numpy(), strict=True):
        np.testing.assert_array_equal(got, expected)
