"""The network reader: what counts as fixed, how masked layers are read, and the extension point."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pymc.distributions.distribution import Discrete
from pymc.distributions.transforms import ordered
from pymc.logprob.abstract import _logprob
from pytensor.tensor.random.op import RandomVariable

import pm_neural as pmn
from pm_neural.diagnostics import certify as certify_step
from step_methods.network import RestrictedNetwork, hidden_layer_of, network_of
from step_methods.reading.evidence import MixedUnitsError
from step_methods.reading.graphs import random_inputs
from step_methods.reading.layers import is_layer, network_node
from step_methods.reading.readers import read_networks

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


@dataclass(frozen=True)
class ThirdPartyNetwork:
    """A network of a kind that no sampler knows."""

    couplings: object
    normalized: bool = False
    values: ClassVar = (0, 1)

    @property
    def parameters(self):
        return {"couplings": self.couplings}


class LookAlike(RestrictedNetwork):
    """A subclass that may mean something else."""


class UnknownRBMRV(DoubledRBMRV):
    network: ClassVar = None


_logprob.register(UnknownRBMRV)(doubled_logprob)
network_of.register(UnknownRBMRV)(lambda op, node: op.network(*op.dist_params(node)))


@pytest.mark.parametrize(
    "network", [ThirdPartyNetwork, lambda half: LookAlike(half, half[:, 0], half[0], normalized=False)]
)
@pytest.mark.parametrize("step", [pmn.BlockGibbs, pmn.NeuralSampling])
def test_a_network_that_no_sampler_knows(step, network, monkeypatch):
    class Unknown(DoubledRBM):
        rv_op = UnknownRBMRV()

    monkeypatch.setattr(UnknownRBMRV, "network", staticmethod(network))
    with pm.Model():
        x = Unknown("x", np.ones((3, 2)))
        with pytest.raises(TypeError, match=r"there is no sampler for a \w+, which step_methods\.network\.network_of"):
            step([x])


class TiltedRBMRV(DoubledRBMRV):
    """A subclass with a log-probability of its own."""


@_logprob.register(TiltedRBMRV)
def tilted_logprob(op, values, rng, size, half, **kwargs):
    return doubled_logprob(op, values, rng, size, half) + values[0].sum(axis=-1)


class TiltedRBM(DoubledRBM):
    rv_op = TiltedRBMRV()


def test_a_subclass_with_another_law_is_not_known(rng):
    with pm.Model():
        x = TiltedRBM("x", rng.normal(size=(3, 2)))
        assert not is_layer(x)
        with pytest.raises(ValueError, match="'x' is not a layer of a network that step methods of this package know"):
            pmn.BlockGibbs([x])


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


@pytest.mark.parametrize(
    "change",
    [
        lambda v: pt.set_subtensor(v[0], 1),
        lambda v: pt.inc_subtensor(v[0], 1),
        lambda v: pt.set_subtensor(v[np.array([0, 1])], v[np.array([1, 0])]),
        lambda v: pt.set_subtensor(pt.empty(4, dtype="int64")[np.array([True] * 4)], v),
        lambda v: v[::-1],
        lambda v: v[np.array([1, 0, 2, 3])],
        lambda v: 1 - v,
        lambda v: pt.concatenate([v[:2], v[2:]]),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_a_layer_that_was_changed_is_none(parameters, change, masked):
    data = np.ma.masked_array([1, 0, 0, 1], mask=[0, 1, 1, 0]) if masked else None
    with pm.Model():
        v = pmn.BernoulliRBM("v", *parameters, observed=data)
        assert network_node(pt.specify_shape(v, (4,)))
        assert network_node(pm.Deterministic("copy", v))
        assert network_node(change(v)) is None
        with pytest.raises(TypeError, match="v must be a variable of the visible units of a network"):
            pmn.HiddenUnits("h", change(v))


def joined(free, observed, mask, other_mask):
    array = pt.set_subtensor(pt.empty(4, dtype="int64")[mask], free)
    return pt.set_subtensor(array[other_mask], observed)


MASK = np.array([False, True, True, False])


@pytest.mark.parametrize("masks", [(MASK, MASK), (np.roll(MASK, 1), ~np.roll(MASK, 1)), (~MASK, MASK)])
def test_a_join_that_pymc_does_not_make_is_no_layer(parameters, masks):
    with pm.Model() as model:
        pmn.BernoulliRBM("v", *parameters, observed=np.ma.masked_array([1, 0, 0, 1], MASK))
        free, observed = model["v_unobserved"], model["v_observed"]
    assert network_node(joined(free, observed, MASK, ~MASK))
    assert network_node(joined(free, observed, *masks)) is None
    assert network_node(joined(observed, free, *masks)) is None
    assert network_node(joined(free, free, MASK, ~MASK)) is None


def test_hidden_units_of_what_an_intervention_changes_are_its_children(parameters, certify):
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", *parameters)
        pmn.HiddenUnits("h", v)
    with pm.do(model, {"v": np.array([0, 1, 1, 0])}) as model:
        w = pmn.BernoulliRBM("w", *parameters)
    with pm.do(model, {"v": pt.set_subtensor(w[0], 1)}) as intervened:
        (reader,) = read_networks(intervened, [intervened["w"]], intervened.initial_point())
        assert reader.hidden is None
        assert reader.terms["w"] == [intervened["h"]]
        with pytest.raises(MixedUnitsError, match="'h'"):
            pmn.BlockGibbs([intervened["w"]])
        certify(pmn.NeuralSampling([intervened["w"]], tau=1), intervened.initial_point())


def test_the_free_part_of_data_that_an_intervention_replaced(parameters):
    with pm.Model() as model:
        pmn.BernoulliRBM("v", *parameters, observed=np.ma.masked_array([1, 0, 0, 1], MASK))
    with (
        pm.do(model, {"v": np.zeros(4, int)}) as intervened,
        pytest.raises(ValueError, match="no variable that joins it with the observed part"),
    ):
        pmn.BlockGibbs([intervened["v_unobserved"]])


def test_whole_machines_of_a_batch_that_are_masked_keep_their_own_couplings(rng):
    W, a, b = rng.normal(size=(2, 2, 2)), rng.normal(size=2), rng.normal(size=(2, 2))
    data = np.ma.masked_array([[1, 0], [0, 0]], mask=[[0, 0], [1, 1]])
    with pm.Model():
        v = pmn.BernoulliRBM("v", W, a, b, observed=data)
        h = pmn.HiddenUnits("h", v)
        certificate = certify_step(pmn.BlockGibbs([v, h]), tolerance=1e-12)
    assert certificate.passed, str(certificate)
    on = 1 / (1 + np.exp(-(data.data[0] @ W[0] + b[0])))
    states = certificate.transition.states
    of_the_observed_machine = np.stack([states[:, certificate.transition.units.index(f"h[0, {j}]")] for j in (0, 1)])
    np.testing.assert_allclose(of_the_observed_machine @ certificate.probabilities, on, atol=1e-12)


@pytest.mark.parametrize("step", [pmn.BlockGibbs, pmn.NeuralSampling])
def test_a_transform_is_refused(step):
    parameters = np.ones((2, 2)), np.zeros(2), np.zeros(2), np.ones(2)
    with pm.Model():
        v = pmn.GaussianRBM("v", *parameters, transform=ordered)
        h = pmn.HiddenUnits("h", v)
        with pytest.raises(ValueError, match="'v' has the transform 'ordered'"):
            step([h])
    with pm.Model():
        x = pm.MvNormal("x", np.zeros(2), np.eye(2), transform=ordered)
        with pytest.raises(ValueError, match="'x' has the transform 'ordered'"):
            pmn.BlockGibbs([x])
    with pm.Model():
        pmn.GaussianRBM("v", *parameters, transform=ordered)
        with pytest.raises(ValueError, match=r"'v' has the transform 'ordered'.*such as pymc\.NUTS"):
            pm.sample(10, progressbar=False)
