import functools

import numpy as np
import pytest
import torch

from pm_neural.fitting.backend import NumPyBackend
from pm_neural.fitting.checkpoint import load_checkpoint, save_checkpoint
from pm_neural.fitting.optimizer import MomentumSGD, make_ascent
from pm_neural.training import RBM


@pytest.fixture
def backend(rng):
    return NumPyBackend(torch.float64, rng)


def make(backend, rbm, optimizer="sgd", learning_rate=None, momentum=0.0):
    return make_ascent(
        backend,
        (rbm.W, rbm.a, rbm.b),
        optimizer=optimizer,
        learning_rate=learning_rate,
        default_learning_rate=0.2,
        momentum=momentum,
    )


def climb(ascent, rbm, n_steps=5):
    """Follow a gradient that depends on the parameters, with a falling learning rate."""
    for step in range(n_steps):
        gradient = [np.cos(p) + 0.1 * step for p in rbm.parameters_as_numpy()]
        ascent.step(gradient, 1 - step / n_steps)
    return rbm.parameters_as_numpy()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_in_place_is_torch_sgd(random_rbm, backend, momentum):
    ours, theirs = random_rbm(4, 3), random_rbm(4, 3)
    theirs.load_state_dict(ours.state_dict())
    torch_sgd = functools.partial(torch.optim.SGD, lr=0.3, momentum=momentum)
    mine = climb(make(backend, ours, learning_rate=0.3, momentum=momentum), ours)
    for x, y in zip(mine, climb(make(backend, theirs, torch_sgd), theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)


def test_torch_optimizers_ascend(random_rbm, backend):
    rbm, reference = random_rbm(4, 3), random_rbm(4, 3)
    reference.load_state_dict(rbm.state_dict())
    climb(make(backend, rbm, torch.optim.Adam, learning_rate=0.01), rbm)
    adam = torch.optim.Adam(reference.parameters(), lr=0.01)
    for step in range(5):
        for p in reference.parameters():
            p.grad = -(torch.cos(p.detach()) + 0.1 * step)
        adam.param_groups[0]["lr"] = 0.01 * (1 - step / 5)
        adam.step()
    for x, y in zip(rbm.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(x, y)


def test_a_users_optimizer_keeps_its_learning_rate_and_no_gradients(random_rbm, backend):
    rbm = random_rbm(4, 3)
    optimizer = torch.optim.Adam(rbm.parameters(), lr=0.05)
    climb(make(backend, rbm, optimizer), rbm)
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert all(p.grad is None for p in rbm.parameters())


def test_learning_rate_overrides_the_optimizers_own(random_rbm, backend):
    rbm = random_rbm(4, 3)
    ascent = make(backend, rbm, torch.optim.Adam, learning_rate=0.07)
    assert ascent.settings["learning_rate"] == 0.07
    assert make(backend, rbm, torch.optim.Adam).settings["learning_rate"] == 0.001
    assert make(backend, rbm).settings["learning_rate"] == 0.2


@pytest.mark.parametrize("optimizer", ["sgd", torch.optim.Adam, torch.optim.RMSprop], ids=["sgd", "adam", "rmsprop"])
def test_a_saved_optimizer_goes_on_where_it_was(random_rbm, backend, optimizer, tmp_path):
    momentum = 0.9 if optimizer == "sgd" else 0.0
    rbm, copy = random_rbm(4, 3), random_rbm(4, 3)
    ascent = make(backend, rbm, optimizer, learning_rate=0.01, momentum=momentum)
    climb(ascent, rbm)
    copy.load_state_dict(rbm.state_dict())
    other = make(backend, copy, optimizer, learning_rate=0.01, momentum=momentum)
    save_checkpoint(tmp_path / "ascent", kind="test", state=ascent.state_dict())
    other.load_state_dict(load_checkpoint(tmp_path / "ascent", kind="test"))
    for x, y in zip(climb(ascent, rbm), climb(other, copy), strict=True):
        np.testing.assert_array_equal(x, y)


def test_sgd_without_momentum_carries_nothing(random_rbm, backend):
    rbm = random_rbm(4, 3)
    ascent = make(backend, rbm)
    assert isinstance(ascent, MomentumSGD)
    assert ascent.state_dict() == {"velocity": []}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"optimizer": "adam"},
            ValueError,
            "optimizer must be 'sgd', a torch optimizer.*got 'adam'",
        ),
        ({"optimizer": 3}, ValueError, "optimizer must be 'sgd', a torch optimizer.*got 3"),
        ({"optimizer": lambda p: 3}, TypeError, "it made a int"),
        ({"optimizer": torch.optim.LBFGS}, TypeError, "LBFGS evaluates a loss"),
        ({"optimizer": torch.optim.Adam, "momentum": 0.9}, ValueError, "momentum belongs to"),
        ({"momentum": 1.0}, ValueError, r"momentum must be in \[0, 1\); got 1.0"),
        ({"learning_rate": 0.0}, ValueError, r"learning_rate must be in \(0, inf\); got 0.0"),
        ({"learning_rate": "fast"}, TypeError, "learning_rate must be a number; got 'fast'"),
    ],
)
def test_bad_optimizers_are_refused(random_rbm, backend, arguments, error, message):
    with pytest.raises(error, match=message):
        make(backend, random_rbm(4, 3), **arguments)


def test_an_optimizer_of_other_parameters_is_refused(random_rbm, backend):
    other = torch.optim.Adam(RBM(4, 3).parameters())
    with pytest.raises(ValueError, match="must hold the parameters of this module"):
        make(backend, random_rbm(4, 3), other)
