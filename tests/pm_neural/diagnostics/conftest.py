"""Networks to test on, and their exact distributions by plain loops over all joint states."""

from itertools import product
from typing import NamedTuple

import numpy as np
import pytest

from pm_neural.datasets import load_digits


class Joint(NamedTuple):
    """All joint states of an RBM with their probabilities."""

    visible: np.ndarray
    hidden: np.ndarray
    probability: np.ndarray
    log_z: float

    def mean(self, values: np.ndarray) -> np.ndarray:
        return np.tensordot(self.probability, values, axes=1)


def enumerate_joint(params) -> Joint:
    """Enumerate (v, h) jointly: slow, and nothing in common with the code under test."""
    W, a, b = params
    n_visible, n_hidden = W.shape
    states = np.array(list(product((0.0, 1.0), repeat=n_visible + n_hidden)))
    v, h = states[:, :n_visible], states[:, n_visible:]
    minus_energy = v @ a + h @ b + np.einsum("si,ij,sj->s", v, W, h)
    log_z = np.logaddexp.reduce(minus_energy)
    return Joint(v, h, np.exp(minus_energy - log_z), log_z)


@pytest.fixture
def joint():
    return enumerate_joint


@pytest.fixture
def random_rbm(rng):
    """Draw parameters with normal weights and biases of a given scale."""

    def draw(n_visible, n_hidden, scale=1.0):
        return (
            rng.normal(0, scale, (n_visible, n_hidden)),
            rng.normal(0, scale, n_visible),
            rng.normal(0, scale, n_hidden),
        )

    return draw


@pytest.fixture(scope="session")
def digits_rbm():
    """Train 64×16 units on the digits, with 40 epochs of CD-1: weights up to 3."""
    rng = np.random.default_rng(0)
    X = load_digits().train.astype(np.float64)
    W, a, b = rng.normal(0, 0.01, (64, 16)), np.zeros(64), np.zeros(16)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for epoch in range(40):
        rate = 0.2 * (1 - epoch / 40)
        for v in np.array_split(rng.permutation(X), 72):
            h = sigmoid(b + v @ W)
            v_model = rng.random(v.shape) < sigmoid(a + (rng.random(h.shape) < h) @ W.T)
            h_model = sigmoid(b + v_model @ W)
            W += rate * (v.T @ h - v_model.T @ h_model) / len(v)
            a += rate * (v - v_model).mean(axis=0)
            b += rate * (h - h_model).mean(axis=0)
    return W, a, b
