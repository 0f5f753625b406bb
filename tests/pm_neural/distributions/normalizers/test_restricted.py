"""Log Z and its gradient as a PyTensor operation."""

import itertools

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.special import logsumexp

from pm_neural.distributions.normalizers.restricted import EnumeratedLayer
from step_methods.network import RestrictedNetwork


def rbm_log_partition(*parameters):
    network = RestrictedNetwork(*map(pt.as_tensor, parameters), normalized=True)
    return EnumeratedLayer().log_partition(network)


def brute_force(W, a, b):
    v, h = (np.array(list(itertools.product([0, 1], repeat=n))) for n in W.shape)
    return logsumexp((v @ a)[:, None] + (h @ b)[None, :] + v @ W @ h.T)


@pytest.fixture(params=[(5, 3), (3, 5)], ids=["fewer_hidden", "fewer_visible"])
def parameters(request, rng):
    shape = request.param
    return rng.normal(size=shape), rng.normal(size=shape[0]), rng.normal(size=shape[1])


@pytest.mark.parametrize("mode", ["NUMBA", "FAST_COMPILE"], ids=["numba", "python"])
def test_value_and_gradient(parameters, mode):
    inputs = [pt.matrix("W"), pt.vector("a"), pt.vector("b")]
    log_z = rbm_log_partition(*inputs)
    value, *gradient = pytensor.function(inputs, [log_z, *pt.grad(log_z, inputs)], mode=mode)(*parameters)
    np.testing.assert_allclose(value, brute_force(*parameters), rtol=1e-13)
    for i, (got, parameter) in enumerate(zip(gradient, parameters, strict=True)):
        for index in np.ndindex(parameter.shape):
            shifted = [[x.copy() for x in parameters] for _ in range(2)]
            shifted[0][i][index] += 1e-5
            shifted[1][i][index] -= 1e-5
            numeric = (brute_force(*shifted[0]) - brute_force(*shifted[1])) / 2e-5
            np.testing.assert_allclose(got[index], numeric, atol=1e-8)


def test_batches_and_float32(parameters):
    W, a, b = (x.astype(np.float32) for x in parameters)
    log_z = rbm_log_partition(np.stack([W, 2 * W]), a, b)
    assert log_z.dtype == "float32"
    np.testing.assert_allclose(log_z.eval(), [brute_force(W, a, b), brute_force(2 * W, a, b)], rtol=1e-6)


def test_second_derivatives_are_refused():
    W = pt.matrix("W")
    gradient = pt.grad(rbm_log_partition(W, np.zeros(2), np.zeros(2)), W)
    with pytest.raises(NotImplementedError, match="second derivatives of log Z"):
        pt.grad(gradient.sum(), W)
