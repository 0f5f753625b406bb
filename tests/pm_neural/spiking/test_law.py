import itertools

import numpy as np
import pytest
import torch

from pm_neural.spiking import joint_distribution
from pm_neural.spiking._law import divergence, smoothed


def random_traces(rng, n_steps, n_chains, n, dtype=torch.float64):
    return torch.tensor(rng.random((n_steps, n_chains, n)) < 0.3, dtype=dtype)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_law_is_what_counting_gives(rng, n):
    z = random_traces(rng, 50, 4, n)
    law = joint_distribution(z).numpy()
    states = list(itertools.product((0, 1), repeat=n))
    for chain in range(4):
        counts = [sum(tuple(row) == state for row in z[:, chain].int().tolist()) for state in states]
        np.testing.assert_allclose(law[chain], np.array(counts) / 50, atol=1e-15)


def test_derivative_is_that_of_the_polynomial(rng):
    """Against the tensor of all products, which the notes form for three neurons."""
    z = random_traces(rng, 30, 2, 3).requires_grad_()
    slope = torch.tensor(rng.normal(size=(2, 8)))
    (joint_distribution(z) * slope).sum().backward()
    ours, z.grad = z.grad, None
    pairs = [torch.stack([1 - z[..., k], z[..., k]]) for k in range(3)]
    products = torch.einsum("atb,dtb,gtb->badg", *pairs) / 30
    (products.flatten(1) * slope).sum().backward()
    torch.testing.assert_close(ours, z.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_law_keeps_dtype_and_sums_to_one(rng, dtype):
    law = joint_distribution(random_traces(rng, 64, 3, 5, dtype))
    assert law.dtype == dtype
    torch.testing.assert_close(law.sum(-1), torch.ones(3, dtype=dtype))


def test_long_traces_are_counted_to_the_end():
    n_steps = 2**18  # beyond the largest number of float16
    z = torch.zeros(n_steps, 1, 1, dtype=torch.float16)
    z[: n_steps // 4] = 1
    assert joint_distribution(z).tolist() == [[0.75, 0.25]]


def test_twenty_traces_take_no_tensor_of_all_states_per_step(rng):
    assert joint_distribution(random_traces(rng, 500, 1, 20, torch.float32)).shape == (1, 2**20)


@pytest.mark.parametrize(
    ("z", "error", "message"),
    [
        (torch.zeros(3, 2, 1, dtype=torch.int64), TypeError, "floating-point dtype; got torch.int64"),
        (torch.zeros(3, 2), ValueError, r"shape \(n_steps, n_chains, n\).*got \(3, 2\)"),
        (torch.zeros(0, 2, 1), ValueError, r"got \(0, 2, 1\)"),
        (torch.zeros(3, 2, 21), ValueError, r"n <= 20; got \(3, 2, 21\)"),
        (torch.full((3, 2, 1), 0.5), ValueError, "only 0 and 1; got 0.5"),
        (torch.full((3, 2, 1), torch.nan), ValueError, "only 0 and 1; got nan"),
    ],
)
def test_bad_traces(z, error, message):
    with pytest.raises(error, match=message):
        joint_distribution(z)


def test_divergence_of_smoothed_laws_is_finite_where_states_are_missing():
    target = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    law = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    value = divergence(target, smoothed(law, 98))
    assert float(value) == pytest.approx(0.5 * np.log(0.5 / 0.985) + 0.5 * np.log(0.5 / 0.005))
    assert float(divergence(target, target.clamp(min=1e-300))) == 0
