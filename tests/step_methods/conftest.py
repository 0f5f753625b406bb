"""A small RBM, and the transition matrix of a step method through the kernel that it runs."""

import itertools

import numpy as np
import pytest

from step_methods.kernels import chain
from step_methods.kernels import rbm as kernels

FORCED = {
    chain.draw_joint: lambda *arguments: kernels.sweep_forced(*arguments[:3], 1, *arguments[3:]),
    chain.draw_marginal: lambda *arguments: kernels.sweep_forced(*arguments[:3], 1, *arguments[3:]),
    chain.draw_visible: kernels.update_visible_forced,
    chain.draw_hidden: kernels.update_hidden_forced,
}


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
        (sampler,) = step._samplers
        (machine,) = sampler._machines
        forced = FORCED[sampler._kernel]
        names = [value.name for value in step.vars]
        states = all_states(sum(point[name].size for name in names))
        index = {tuple(state): i for i, state in enumerate(states)}
        T = np.zeros((len(states), len(states)))
        for i, state in enumerate(states):
            units = {name: point[name].copy() for name in step._read}
            units.update(
                zip(
                    names,
                    np.split(state, np.cumsum([point[n].size for n in names])[:-1]),
                    strict=True,
                )
            )
            v_start = units.get(sampler._visible, np.empty(0, np.int64))
            h_start = units.get(sampler._hidden, sampler._scratch)
            n_decisions = forced(machine.rbm, v_start.copy(), h_start.copy(), np.zeros(64, np.uint8), np.zeros(64))
            for bits in all_states(n_decisions).astype(np.uint8):
                v, h, probabilities = v_start.copy(), h_start.copy(), np.zeros(n_decisions)
                forced(machine.rbm, v, h, bits, probabilities)
                new = {sampler._visible: v, sampler._hidden: h}
                j = index[tuple(np.concatenate([new[name] for name in names]))]
                T[i, j] += np.prod(np.where(bits, probabilities, 1 - probabilities))
        return T

    return matrix
