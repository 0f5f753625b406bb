"""All that stands between what a step draws and the value that the model has of it: right, or refused."""

import re

import numpy as np
import pymc as pm
import pytest
from pymc.distributions.transforms import Interval, circular, log, ordered, simplex

import pm_neural as pmn
from pm_neural.diagnostics import check_conditionals

J = np.array([[0.0, 0.8, -0.5], [0.8, 0.0, 0.6], [-0.5, 0.6, 0.0]])
B = np.array([-0.3, 0.2, 0.5])
W, A, SIGMA = np.array([[0.7, -0.4], [-0.9, 0.5], [0.3, 0.8]]), np.array([0.1, -0.2, 0.3]), np.array([0.5, 1.0, 1.5])
COVARIANCE = np.eye(3) + 0.3
Y = np.array([0.3, -1.1, 0.8])


def field(**options):
    return pmn.BoltzmannMachine("z", J, B, **options)


def spins(**options):
    return pmn.Ising("z", J, B, **options)


def rbm(**options):
    return pmn.BernoulliRBM("z", W, A, B[:2], **options)


def gaussian_rbm(**options):
    return pmn.GaussianRBM("z", W, A, B[:2], SIGMA, **options)


def hidden_of_a_gaussian_rbm(**options):
    return pmn.HiddenUnits("h", pmn.GaussianRBM("z", W, A, B[:2], SIGMA, **options))


def gaussian(**options):
    return pm.MvNormal("z", A, COVARIANCE, **options)


def likelihood(z, **options):
    pm.Normal("y", z, 1, observed=np.broadcast_to(Y, z.shape.eval()), **options)


def potential(z):
    pm.Potential("y", 0.5 * z)


def joint_potential(z):
    pm.Potential("y", 1.0 * z.sum() ** 2)


REAL = [gaussian_rbm, gaussian]
TWO_VALUED = [field, spins, rbm]
DISCRETE_TRANSFORM = "Transformations for discrete distributions"
HAS_TRANSFORM = "'z' has the transform"
MIXES = "may depend on several units at once"
REAL_EVIDENCE = "a Gaussian variable that this step method draws from its own distribution only"
TABLE = [
    # What is declared, its options, what depends on it, and what is expected.
    *[(declare, {}, None, "right") for declare in (*TWO_VALUED, *REAL, hidden_of_a_gaussian_rbm)],
    # Transforms of the value.
    *[(declare, {"transform": log}, None, DISCRETE_TRANSFORM) for declare in TWO_VALUED],
    *[
        (declare, {"transform": transform}, None, HAS_TRANSFORM)
        for declare in (*REAL, hidden_of_a_gaussian_rbm)
        for transform in (ordered, log, circular, simplex, Interval(-5.0, 5.0))
    ],
    (gaussian, {"default_transform": ordered}, None, HAS_TRANSFORM),
    *[(declare, {"default_transform": None}, None, "right") for declare in (*TWO_VALUED, *REAL)],
    # Types.
    *[
        (declare, {"dtype": dtype}, likelihood, "right")
        for declare in (field, spins)
        for dtype in ("int8", "int32", "int64", "float32", "float64")
    ],
    (field, {"dtype": "bool"}, likelihood, "right"),
    # Shapes.
    *[(declare, {"shape": (2, 3)}, None, "right") for declare in (rbm, *REAL)],
    (rbm, {"shape": (2, 3)}, likelihood, "right"),
    *[(declare, {"shape": (2, 3), "event_ndim": 1}, likelihood, "right") for declare in (field, spins)],
    (field, {"dims": "unit"}, likelihood, "right"),
    # Sizes of the data that stand for more: of the variable itself, and of what depends on it.
    *[(declare, {"total_size": 9}, None, "total_size can only be passed to observed") for declare in (field, gaussian)],
    *[(declare, {}, lambda z: likelihood(z, total_size=9), "right") for declare in TWO_VALUED],
    # Other terms.
    *[(declare, {}, term, "right") for declare in TWO_VALUED for term in (likelihood, potential)],
    *[(declare, {}, joint_potential, MIXES) for declare in TWO_VALUED],
    *[(declare, {}, term, REAL_EVIDENCE) for declare in REAL for term in (likelihood, potential, joint_potential)],
    # Start values.
    *[(declare, {"initval": [1, 0, 1]}, None, "right") for declare in (field, rbm, *REAL)],
    (field, {"initval": [2, 0, 1]}, None, "must be 0 or 1"),
]


@pytest.mark.parametrize(("declare", "options", "term", "expected"), TABLE)
def test_what_stands_between_a_draw_and_the_models_value(declare, options, term, expected):
    def checked():
        with pm.Model(coords={"unit": range(3)}):
            z = declare(**options)
            if term is not None:
                term(z)
            return check_conditionals(pmn.BlockGibbs([z]), n_points=3, random_seed=1)

    if expected == "right":
        check = checked()
        assert check, str(check)
    else:
        with pytest.raises(ValueError, match=re.escape(expected)):
            checked()
