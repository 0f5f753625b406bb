"""What may stand on top of a Boltzmann machine or an Ising field, and what may not."""

from itertools import cycle

import numpy as np
import pymc as pm
import pytest

import pm_neural as pmn
from pm_neural.diagnostics import certify, exact_state_probabilities

SHAPE = (2, 2)
Y = np.array([[0.3, -1.0], [0.2, 1.5]])
COUNTS = np.array([[1, 0], [2, 4]])


def bernoulli(z):
    flip = pm.Beta("flip", 2, 20)
    pm.Bernoulli("y", pm.math.switch(z > 0, 1 - flip, flip), observed=COUNTS > 0)


def normal_of_a_deterministic(z):
    mu = pm.Deterministic("mu", pm.math.exp(0.3 * z) + z**2)
    pm.Normal("y", mu, pm.HalfNormal("sigma"), observed=Y)


def poisson(z):
    pm.Poisson("y", pm.math.exp(0.5 * z + 0.2), observed=COUNTS)


def student_t(z):
    pm.StudentT("y", nu=3, mu=z, sigma=0.7, observed=Y)


def mixture(z):
    weight = pm.math.switch(z > 0, 0.9, 0.2)
    pm.NormalMixture("y", pm.math.stack([weight, 1 - weight], axis=-1), mu=[-1, 1], sigma=1, observed=Y)


def shared_data(z):
    pm.Normal("y", pm.Data("gain", Y) * z, 1, observed=pm.Data("data", Y.T))


def replicates(z):
    pm.Normal("y", z[None], 2.0, observed=np.stack([Y, 2 * Y, Y.T]))


def groups(z):
    pm.Normal("y", z.ravel()[np.array([0, 0, 3, 1, 3])], 1, observed=np.arange(5.0))


def child_and_parent(z):
    pm.Normal("x", pm.Normal("m") * z, 1)


def linear_potential(z):
    pm.Potential("y", Y * z)


TERMS = [
    bernoulli,
    normal_of_a_deterministic,
    poisson,
    student_t,
    mixture,
    shared_data,
    replicates,
    groups,
    child_and_parent,
    linear_potential,
]
FIELDS = [pmn.BoltzmannMachine, pmn.Ising]


@pytest.mark.parametrize(("term", "field"), list(zip(TERMS, cycle(FIELDS), strict=False)))
def test_terms_of_single_units_are_evidence(term, field):
    with pm.Model() as model:
        z = field("z", 0.5 * pmn.lattice(SHAPE), Y)
        term(z)
        step = pmn.BlockGibbs([z])
    point = {n: np.full(x.shape, -0.4) for n, x in model.initial_point().items() if n != "z"}
    certificate = certify(step, point, tolerance=1e-6 if term in (bernoulli, mixture) else 1e-12)
    assert certificate.passed, str(certificate)
    with pm.Model():
        without = exact_state_probabilities([field("z", 0.5 * pmn.lattice(SHAPE), Y)])
    assert np.abs(certificate.probabilities - without.probabilities).max() > 1e-3  # it matters


@pytest.mark.parametrize("order", ["fixed", "random"])
def test_a_term_that_joins_two_fields(rng, order):
    with pm.Model():
        s = pmn.Ising("s", 0.5 * pmn.lattice(SHAPE), Y)
        z = pmn.BoltzmannMachine("z", 0.5 * pmn.lattice(SHAPE), -Y)
        pm.Normal("y", s * (1 + z), 1, observed=Y)
        certificate = certify(pmn.BlockGibbs([s, z], order=order), tolerance=1e-12)
    assert certificate.passed, str(certificate)


def sum_of_units(z):
    pm.Potential("y", 1.0 * z.sum())


def correlated_normal(z):
    pm.MvNormal("y", z.ravel(), np.eye(4) + 0.1, observed=np.zeros(4))


def product_of_neighbors(z):
    pm.Potential("y", 1.0 * z[1:] * z[:-1])


def regression(z):
    pm.Normal("y", pm.math.dot(Y, z.ravel()[:2]), 1, observed=np.zeros(2))


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("term", [sum_of_units, correlated_normal, product_of_neighbors, regression])
def test_terms_that_mix_units_are_refused(term, field):
    with pm.Model():
        z = field("z", 0.5 * pmn.lattice(SHAPE), Y)
        term(z)
        with pytest.raises(ValueError, match=r"the term 'y' of the model may depend on several units at once"):
            pmn.BlockGibbs([z])
