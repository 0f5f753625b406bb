"""The contract of step methods: ours hold to it, and each check finds what breaks it."""

import numpy as np
import pymc as pm
import pytest

import pm_neural as pmn
from pm_neural import testing
from pm_neural.testing import CHECKS, check_step, parametrize_with_checks

IN_PYTHON = {"compile_kwargs": {"mode": "FAST_COMPILE"}}


def ring():
    with pm.Model() as model:
        z = pmn.Ising("z", pmn.lattice(4, periodic=True), [0.3, -0.2, 0.0, 0.5], coupling=0.4)
        pm.Normal("y", 0.5 * z, 1, observed=[0.2, -1.0, 0.4, 2.0])
    return model


def machine():
    W = np.random.default_rng(3).normal(size=(3, 2))
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", W, np.array([0.5, 0.0, -0.5]), np.array([0.2, -0.3]))
        pmn.HiddenUnits("h", v)
    return model


def auxiliary():
    W = np.random.default_rng(4).normal(size=(4, 2))
    with pm.Model() as model:
        observed = np.ma.masked_array([0, 1, 0, 0], mask=[True, False, True, True])
        pmn.BernoulliRBM("v", W, np.zeros(4), np.zeros(2), observed=observed)
    return model


def real_machine():
    W = np.random.default_rng(5).normal(size=(2, 3))
    with pm.Model() as model:
        v = pmn.GaussianRBM("v", W, np.zeros(2), np.zeros(3), 0.7)
        pmn.HiddenUnits("h", v)
    return model


def coins():
    with pm.Model() as model:
        z = pm.Bernoulli("z", [0.3, 0.5, 0.6])
        pm.Normal("y", z.sum(), 1, observed=2.0)
    return model


def torch_energy():
    torch = pytest.importorskip("torch")

    class Pairs(torch.nn.Module):
        def forward(self, x):
            return -(x[..., 0] * x[..., 1]) + 0.5 * x[..., 2]

    with pm.Model() as model:
        pmn.Energy("z", Pairs(), shape=3, support="binary")
    return model


def normal():
    with pm.Model() as model:
        x = pm.Normal("x", 0, [1.0, 2.0])
        pm.HalfNormal("sigma", observed=0.5)
        pm.Normal("y", x.sum(), 1, observed=0.3)
    return model


@pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")
@parametrize_with_checks(
    [
        (pmn.BlockGibbs, ring, IN_PYTHON),
        (pmn.BlockGibbs, machine, {"sweeps_per_draw": 2}),
        (pmn.BlockGibbs, auxiliary, {"order": "random"}),
        (pmn.BlockGibbs, real_machine, {}),
        (pmn.NeuralSampling, ring, {"tau": 2, **IN_PYTHON}),
        (pmn.NeuralSampling, machine, {"tau": 2, "order": "blocks"}),
        (pmn.NeuralSampling, coins, {"tau": 3, "steps_per_draw": 2, **IN_PYTHON}),
        (pmn.EnergyGibbs, torch_energy, IN_PYTHON),
        (pmn.Langevin, normal, IN_PYTHON),
        (pmn.SGLD, normal, {"step_size": 0.01, **IN_PYTHON}),
    ]
)
def test_step_methods_hold_to_the_contract(step_class, model_factory, options, check):
    check(step_class, model_factory, **options)


# ---------------------------------------------------------------------------------- each check finds something


class Leaves(pmn.BlockGibbs):
    def step(self, point):
        new_point, stats = super().step(point)
        return {**new_point, "z": new_point["z"] + 1}, stats


class InPlace(pmn.BlockGibbs):
    def step(self, point):
        new_point, stats = super().step(point)
        point["z"][:] = new_point["z"]
        return new_point, stats


class Unseeded(pmn.BlockGibbs):
    def _start(self, rng):
        super()._start(np.random.default_rng())


class Remembers(pmn.BlockGibbs):
    count = 0

    def step(self, point):
        self.count += 1
        if self.count % 4 == 0:
            return {**point, "z": -point["z"]}, super().step(point)[1]
        return super().step(point)


class ForgetsItsStream(pmn.BlockGibbs):
    def __setattr__(self, name, value):
        super().__setattr__(name, self.stream if name == "stream" and hasattr(self, "stream") else value)

    def _start(self, rng):
        self.__dict__.pop("stream", None)
        super()._start(rng)


class DrawsAnother(pmn.BlockGibbs):
    def forced_stage(self, stage, point, bits):
        new_point, probabilities = super().forced_stage(stage, point, bits)
        return new_point, 0.9 * probabilities

    def step(self, point):
        return super().step(point)


@pytest.mark.parametrize(
    ("step_class", "check", "message"),
    [
        (Leaves, testing.check_support, "must be possible"),
        (InPlace, testing.check_inputs_stay, "changed 'z' of the point"),
        (Unseeded, testing.check_seeds, "chains of one seed"),
        (Unseeded, testing.check_pickling, "must make the same chain"),
        (Remembers, testing.check_chains_start_anew, "left behind"),
        (ForgetsItsStream, testing.check_sampling_state, "go on with its chain"),
        (Unseeded, testing.check_cores, "number of cores"),
        (DrawsAnother, testing.check_certificate, "FAILED"),
    ],
)
def test_each_check_finds_what_breaks_it(step_class, check, message):
    with pytest.raises(AssertionError, match=message):
        check(step_class, ring, **IN_PYTHON)


def test_all_checks_run_and_those_that_do_not_apply_say_why():
    assert check_step(pmn.BlockGibbs, ring, **IN_PYTHON) == []
    skipped = check_step(pmn.Langevin, normal, **IN_PYTHON)
    assert [reason.split(":")[0] for reason in skipped] == ["check_conditionals_of_model", "check_certificate"]
    assert len(CHECKS) == 9
