"""The network reader: what counts as fixed, how masked layers are read, and the extension point."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pymc.distributions.distribution import Discrete
from pymc.logprob.abstract import _logprob
from pytensor.tensor.random.op import RandomVariable

import pm_neural as pmn
from pm_neural.diagnostics import certify as certify_step
from step_methods.network import (
    RestrictedNetwork,
    hidden_layer_of,
    is_layer,
    network_node,
    network_of,
    random_inputs,
    read_networks,
)

pytestmark = pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")


def test_constants_and_shared_data_are_fixed():
    with pm.Model():
        data = pm.Data("data", np.ones(3))
        assert not random_inputs([pt.as_tensor(1.0), 2 * data + 1, pytensor.shared(3.0)])


def test_draws_and_free_inputs_are_random():
    with pm.Model():
        x = pm.Normal("x")
    value = pt.scalar("value")
    assert random_inputs([2 * x]) == [x]
    assert random_inputs([2 * value]) == [value]


def test_masked_layers(parameters):
    data = np.ma.masked_array([1, 0, 0, 1], mask=[0, 1, 1, 0])
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", *parameters, observed=data)
        h = pmn.HiddenUnits("h", v)
    (reader,) = read_networks(model, model.free_RVs, model.initial_point())
    values, free = reader.visible.read()
    np.testing.assert_array_equal(values, [1, 0, 0, 1])
    np.testing.assert_array_equal(free, [False, True, True, False])
    assert reader.name == "v"
    assert list(reader.free_layers) == ["v_unobserved", "h"]
    assert reader.constant
    assert reader.hidden.free_rv is h
    assert network_node(v)[0] is model["v_unobserved"].owner.inputs[0].owner
    assert network_node(2 * v) is None
    assert [is_layer(rv) for rv in model.free_RVs] == [True, True]


def test_networks_come_in_the_order_of_the_variables(parameters):
    with pm.Model() as model:
        first = pmn.BernoulliRBM("first", *parameters)
        second = pmn.BernoulliRBM("second", *parameters)
    readers = read_networks(model, [second, first], model.initial_point())
    assert [reader.name for reader in readers] == ["second", "first"]


class DoubledRBMRV(RandomVariable):
    """A distribution of a third party: an RBM whose couplings are given by half."""

    name = "Doubled"
    signature = "(v,h)->(v)"
    dtype = "int64"

    def rng_fn(self, rng, half, size):
        return rng.integers(0, 2, half.shape[0])


class DoubledRBM(Discrete):
    rv_op = DoubledRBMRV()

    @classmethod
    def dist(cls, half, **kwargs):
        return super().dist([pt.as_tensor(half)], **kwargs)

    def support_point(rv, size, half):
        return pt.zeros(half.shape[:1], dtype="int64")


@_logprob.register(DoubledRBMRV)
def doubled_logprob(op, values, rng, size, half, **kwargs):
    return pt.softplus(2 * pt.dot(values[0].astype("float64"), half)).sum(axis=-1)


@network_of.register(DoubledRBMRV)
def doubled_network(op, node):
    (half,) = op.dist_params(node)
    return RestrictedNetwork(2 * half, pt.zeros(half.shape[:1]), pt.zeros(half.shape[1:]), normalized=False)


def test_a_third_party_distribution(rng, certify):
    with pm.Model() as model:
        x = DoubledRBM("x", rng.normal(size=(3, 2)))
        step = pmn.BlockGibbs([x])
    assert isinstance(pm.sampling.mcmc.assign_step_methods(model)[1], dict)
    certify(step, model.initial_point())
    with model:
        h = pmn.HiddenUnits("h", x)
    assert hidden_layer_of(h.owner.op, h.owner) is x


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("step", [pmn.BlockGibbs, pmn.NeuralSampling])
def test_hidden_units_of_data_are_independent(rng, step, shared):
    W, b, data = rng.normal(size=(3, 2)), rng.normal(size=2), np.array([1, 0, 1])
    with pm.Model() as model:
        parameters = (pm.Data("W", W), np.zeros(3), pm.Data("b", b)) if shared else (W, np.zeros(3), b)
        pmn.HiddenUnits("h", pmn.BernoulliRBM("v", *parameters))
    with pm.do(model, {"v": data}) as intervened:
        certificate = certify_step(step(intervened.free_RVs), tolerance=1e-12)
    assert certificate.invariant, str(certificate)
    on = 1 / (1 + np.exp(-(data @ W + b)))
    states = certificate.transition.states > 0
    probabilities = np.bincount(states @ [2, 1], certificate.probabilities)
    np.testing.assert_allclose(probabilities, np.outer([1 - on[0], on[0]], [1 - on[1], on[1]]).ravel(), atol=1e-12)
