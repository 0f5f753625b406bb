"""A small RBM, and the transition matrix of a step method through the kernel that it runs."""

import itertools

import numpy as np
import pytest


def all_states(n_units):
    return np.array(list(itertools.product([0, 1], repeat=n_units)), np.int64).reshape(-1, n_units)


@pytest.fixture
def parameters(rng):
    return rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)


@pytest.fixture
def exact_law():
    """Return the states of a model's free units and their probabilities, from its own logp."""

    def law(model, names, point):
        shapes = [point[name].shape for name in names]
        sizes = [point[name].size for name in names]
        logp = model.compile_logp()
        states = all_states(sum(sizes))
        log_weights = []
        for state in states:
            parts = np.split(state, np.cumsum(sizes)[:-1])
            values = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
            log_weights.append(logp({**point, **values}))
        weights = np.exp(np.array(log_weights) - max(log_weights))
        return states, weights / weights.sum()

    return law


@pytest.fixture
def transition_matrix():
    """Return T[i, j] = P(j | i) of one step on the step's units, at given values of the others.

    Every decision of the kernel is forced both ways and weighted with the probability that the kernel computed for
    it; units that the step only passes through are summed out.
    """

    def matrix(step, point):
        names = [value.name for value in step.vars]
        shapes = [point[name].shape for name in names]
        ends = np.cumsum([point[name].size for name in names])
        states = all_states(ends[-1])
        index = {tuple(state): i for i, state in enumerate(states)}
        _, probabilities = step.forced_step(point, np.zeros(0, np.uint8))
        decisions = all_states(len(probabilities)).astype(np.uint8)
        T = np.zeros((len(states), len(states)))
        for i, state in enumerate(states):
            parts = np.split(state, ends[:-1])
            units = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
            for bits in decisions:
                new, probabilities = step.forced_step({**point, **units}, bits)
                j = index[tuple(np.concatenate([new[name].ravel() for name in names]))]
                T[i, j] += np.prod(np.where(bits, probabilities, 1 - probabilities))
        return T

    return matrix
