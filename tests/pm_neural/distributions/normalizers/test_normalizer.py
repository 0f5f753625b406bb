"""Normalizers of others: chosen, refused, and part of a model like our own."""

from dataclasses import dataclass

import cloudpickle
import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest

import pm_neural as pmn
from pm_neural.distributions.normalizers import Normalizer


@dataclass(frozen=True)
class Uncoupled(Normalizer):
    needs = "needs units without couplings"

    def obstacle(self, network):
        return f"{network.couplings.matrix.nnz // 2} couplings" if network.couplings.matrix.nnz else None

    def log_partition(self, network):
        low, high = network.values
        return pt.logaddexp(low * network.biases, high * network.biases).sum(axis=-1)


@dataclass(frozen=True)
class NoCouplingsToHidden(Normalizer):
    """Of an RBM at W = 0, which the values of a random W do not say."""

    needs = "needs W = 0"

    def obstacle(self, network):
        return None

    def log_partition(self, network):
        biases = network.visible_biases, network.hidden_biases
        return sum(pt.softplus(b).sum(axis=-1) for b in biases)


@pytest.mark.parametrize("distribution", [pmn.BoltzmannMachine, pmn.Ising])
def test_an_object_normalizes_as_enumeration_does(rng, distribution):
    biases, data = rng.normal(size=6), rng.integers(0, 2, 6)
    data = 2 * data - 1 if distribution is pmn.Ising else data
    logps = []
    for normalize in (Uncoupled(), "enumerate"):
        with pm.Model() as model:
            scale = pm.HalfNormal("scale")
            distribution("z", np.zeros((6, 6)), scale * biases, normalize=normalize, observed=data)
        logp, gradient = model.compile_logp(), model.compile_dlogp()
        logps.append([logp(point) for point in ({"scale_log__": np.array(x)} for x in (-1.0, 0.0, 1.0))])
        logps[-1].append(gradient({"scale_log__": np.array(0.5)})[0])
    np.testing.assert_allclose(*logps, rtol=1e-12)


def test_an_object_says_why_it_does_not_apply():
    with pytest.raises(ValueError, match=r"normalize=Uncoupled needs units without couplings; got 1 couplings"):
        pmn.BoltzmannMachine.dist([[0, 1], [1, 0]], 0.0, normalize=Uncoupled())


def test_objects_of_machines():
    W, a, b = np.zeros((3, 2)), np.array([0.3, -1.0, 0.0]), np.array([2.0, -0.5])
    logps = [
        pm.logp(pmn.BernoulliRBM.dist(W, a, b, normalize=normalize), [1, 0, 1]).eval()
        for normalize in (NoCouplingsToHidden(), "exact")
    ]
    np.testing.assert_allclose(*logps, rtol=1e-12)


def test_a_model_with_an_object_is_pickled_and_sampled():
    with pm.Model() as model:
        b = pm.Normal("b")
        pmn.BoltzmannMachine("z", np.zeros((4, 4)), b, normalize=Uncoupled())
    again = cloudpickle.loads(cloudpickle.dumps(model))
    op = again["z"].owner.op
    assert op.normalize == Uncoupled()
    assert op == model["z"].owner.op
    with again:
        idata = pm.sample(20, tune=20, chains=1, cores=1, progressbar=False, compute_convergence_checks=False)
    assert set(np.unique(idata["posterior"]["z"])) <= {0, 1}


@pytest.mark.parametrize("normalize", ["onsager", True, 3, Uncoupled])
def test_what_is_no_normalizer_is_refused(normalize):
    with pytest.raises(ValueError, match=r'normalize must be None or "exact", or a Normalizer, got'):
        pmn.BernoulliRBM.dist(np.zeros((2, 2)), np.zeros(2), np.zeros(2), normalize=normalize)


def test_dist_wants_a_normalizer_said():
    with pytest.raises(TypeError, match=r"Ising.dist\(\) needs normalize=None or"):
        pmn.Ising.dist(np.zeros((2, 2)))
