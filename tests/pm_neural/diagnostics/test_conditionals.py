"""The check of a step's conditionals against the model: right steps pass, and planted errors are found."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
import scipy.sparse
from pymc.step_methods.compound import CompoundStep

import pm_neural as pmn
from pm_neural.diagnostics import check_conditionals
from step_methods.gibbs import gaussian as gibbs_gaussian
from step_methods.kernels.pairwise import network as pairwise
from step_methods.reading.evidence import Evidence
from step_methods.reduced.gaussian import ReducedVector
from step_methods.spiking import logp as spiking_logp

W, A, B = (np.random.default_rng(1).normal(size=shape) for shape in ((5, 3), 5, 3))
MASK = np.array([0, 1, 1, 0, 1], bool)


def couplings(n, seed=0):
    upper = np.triu(np.random.default_rng(seed).normal(size=(n, n)), 1)
    return upper + upper.T


def dense(**options):
    return pmn.BlockGibbs([pmn.BoltzmannMachine("z", couplings(6), B.sum() * np.ones(6))], **options)


def spins(**options):
    s = pmn.Ising("s", pmn.lattice((4, 4), periodic=True), coupling=pm.HalfNormal("c"), normalize="exact")
    pm.Normal("y", 2 * s, pm.HalfNormal("sigma"), observed=np.ones((4, 4)))
    return pmn.BlockGibbs([s], **options)


def auxiliary(**options):
    return pmn.BlockGibbs([pmn.BernoulliRBM("v", W, A, B)], **options)


def layers(**options):
    v = pmn.BernoulliRBM("v", W, A, B, observed=np.ma.masked_array(MASK.astype(int), MASK))
    h = pmn.HiddenUnits("h", v)
    pm.Bernoulli("y", pm.math.sigmoid(h - 0.5), observed=[0, 1, 1])
    return pmn.BlockGibbs([v, h], **options)


def certain(**options):
    z = pmn.BoltzmannMachine("z", couplings(6), np.zeros(6))
    pm.Poisson("y", z, observed=[0, 0, 0, 2, 0, 0])
    return pmn.BlockGibbs([z], **options)


def real(**options):
    return pmn.BlockGibbs([pmn.GaussianRBM("v", W, A, B, np.full(5, 0.7))], **options)


def real_layers(**options):
    v = pmn.GaussianRBM("v", np.stack([W, -W]), A, B, np.full(5, 0.7))
    h = pmn.HiddenUnits("h", v)
    pm.Normal("y", h, 1, observed=np.ones((2, 3)))
    return pmn.BlockGibbs([h, v], **options)


def gaussian(**options):
    data = np.ma.masked_array(np.zeros((2, 5)), [MASK, np.ones(5)])
    mean = pm.Normal("m", 0, 1, shape=5)
    return pmn.BlockGibbs([pm.MvNormal("x", mean, couplings(5) @ couplings(5) + np.eye(5), observed=data)], **options)


def two_fields(**options):
    s = pmn.Ising("s", 0.5 * pmn.lattice((2, 2)), np.ones((2, 2)))
    z = pmn.BoltzmannMachine("z", 0.5 * pmn.lattice((2, 2)), -np.ones((2, 2)))
    pm.Normal("y", s * (1 + z), 1, observed=np.ones((2, 2)))
    return pmn.BlockGibbs([s, z], **options)


def spiking(**options):
    s = pmn.Ising("s", 0.3 * pmn.lattice((3, 3)), np.ones((3, 3)))
    pm.Normal("y", s, 1, observed=np.zeros((3, 3)))
    return pmn.NeuralSampling([s], **options)


def spiking_through_logp(**options):
    z = pm.Bernoulli("z", 0.3, shape=4)
    pm.Normal("y", z.sum(), 1, observed=2.0)
    return pmn.NeuralSampling([z], **options)


def spiking_auxiliary(**options):
    return pmn.NeuralSampling([pmn.BernoulliRBM("v", W, A, B)], **options)


STEPS = [
    (dense, {}),
    (dense, {"order": "random"}),
    (spins, {}),
    (spins, {"order": "random", "sweeps_per_draw": 3}),
    (auxiliary, {}),
    (auxiliary, {"blocks": [[0, 3], [1, 2, 4]]}),
    (auxiliary, {"order": "random"}),
    (layers, {}),
    (layers, {"sweeps_per_draw": 2}),
    (certain, {}),
    (real, {}),
    (real_layers, {}),
    (real_layers, {"order": "random"}),
    (gaussian, {}),
    (gaussian, {"blocks": {"x": [[(0, 1), (0, 2)], [(0, 4), *((1, k) for k in range(5))]]}}),
    (two_fields, {"sweeps_per_draw": 2}),
    (spiking, {"tau": 1}),
    (spiking, {"tau": 5}),
    (spiking, {"tau": 5, "order": "random"}),
    (spiking, {"tau": 5, "order": "blocks"}),
    (spiking_through_logp, {"tau": 3}),
    (spiking_auxiliary, {"tau": 1}),
    (spiking_auxiliary, {"tau": 4}),
]


@pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")
@pytest.mark.parametrize(("make", "options"), STEPS)
def test_what_is_right_passes(make, options):
    with pm.Model():
        check = check_conditionals(make(**options), n_points=4, random_seed=1)
    assert check.passed, str(check)
    assert check.n_compared >= 4
    assert check.tolerance == 1e-10


def found(step, by_more_than=0.01, **options):
    check = check_conditionals(step, random_seed=1, **options)
    assert not check
    assert "FAILED" in str(check)
    assert check.largest_difference > by_more_than
    return check


def test_a_wrong_coloring_is_found(monkeypatch):
    """Two units that interact are updated at once: each alone has the right conditional."""
    ring = scipy.sparse.csr_array(scipy.sparse.diags_array([1.0, 1.0], offsets=[1, 256], shape=(1000, 1000)))
    J = 0.5 * (ring + ring.T)

    def step():
        with pm.Model():
            return pmn.BlockGibbs([pmn.BoltzmannMachine("z", J, np.zeros(1000))])

    assert check_conditionals(step(), n_points=2, random_seed=1)
    color_units = pairwise.color_units

    def wrong(matrix):
        colors = color_units(matrix)
        colors[500] = colors[501]
        return colors

    monkeypatch.setattr(pairwise, "color_units", wrong)
    check = found(step(), by_more_than=0.4)
    assert "z[500]" in check.block or "z[501]" in check.block


def test_evidence_that_is_left_out_is_found(monkeypatch):
    logits = Evidence.logits
    monkeypatch.setattr(Evidence, "logits", lambda self, point: 0.9 * logits(self, point))
    with pm.Model():
        z = pmn.BoltzmannMachine("z", np.zeros((4, 4)), np.full(4, -0.5))
        pm.Normal("y", z, 1, observed=[1.0, 3.0, 3.0, 1.0])
        check = found(pmn.BlockGibbs([z]))
    assert set(check.terms) == {"z", "y"}
    # The gain is y − 1/2, a tenth of which is missing.
    assert check.largest_difference == pytest.approx(0.25)


def test_small_errors_are_found_beside_terms_in_float32(monkeypatch):
    """PyTensor takes the logarithm of the small integer 1 in float32, which changes nothing; of 0.75 it does."""
    logits = Evidence.logits
    with pm.Model():
        z = pmn.BoltzmannMachine("z", np.zeros((3, 3)), B)
        pm.Normal("y", z, 1, observed=[1.0, 3.0, 3.0])
        monkeypatch.setattr(Evidence, "logits", lambda self, point: (1 + 1e-8) * logits(self, point))
        check = found(pmn.BlockGibbs([z]), by_more_than=1e-9)
        assert check.largest_difference < 1e-7
    monkeypatch.setattr(Evidence, "logits", logits)
    with pm.Model():
        z = pmn.BoltzmannMachine("z", np.zeros((3, 3)), B)
        pm.Bernoulli("y", p=pm.math.switch(z, 0.75, 0.125), observed=[1, 0, 1])
        assert check_conditionals(pmn.BlockGibbs([z]), random_seed=1)
        monkeypatch.setattr(Evidence, "logits", lambda self, point: 1.001 * logits(self, point))
        found(pmn.BlockGibbs([z]), by_more_than=1e-4)


@pytest.mark.parametrize("make", [auxiliary, layers, real, real_layers, spiking_auxiliary])
@pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")
def test_a_wrong_parameter_is_found(monkeypatch, make):
    with pm.Model():
        step = make(**({"tau": 2} if make is spiking_auxiliary else {}))
    reduced = step.samplers[0].reduced
    reader = reduced.reader.parameters
    read = type(reader).read
    monkeypatch.setattr(type(reader), "read", lambda self, point: (1.1 * read(self, point)[0], *read(self, point)[1:]))
    reduced.is_stale = True
    reduced.start = lambda: setattr(reduced, "is_stale", True)
    found(step)


@pytest.mark.parametrize("what", ["mean", "covariance"])
@pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning")
def test_a_wrong_gaussian_is_found(monkeypatch, what):
    if what == "mean":
        set_mean = ReducedVector.set_mean
        monkeypatch.setattr(ReducedVector, "set_mean", lambda self, mean: set_mean(self, mean + 0.1))
    else:
        prepare = gibbs_gaussian.prepare_gaussian
        monkeypatch.setattr(
            gibbs_gaussian, "prepare_gaussian", lambda precision, blocks: prepare(1.1 * precision, blocks)
        )
    with pm.Model():
        found(gaussian())


def test_a_wrong_rate_of_spikes_is_found(monkeypatch):
    firing_probability = spiking_logp.firing_probability
    monkeypatch.setattr(spiking_logp, "firing_probability", lambda u, tau, g: firing_probability(u, 1, g))
    with pm.Model():
        check = found(spiking_through_logp(tau=3))
    assert check.largest_difference == pytest.approx(np.log(3))


def test_a_counter_that_goes_astray_is_found(monkeypatch):
    with pm.Model():
        step = spiking_through_logp(tau=3)
    forced_stage = type(step).forced_stage

    def too_short(self, stage, point, bits):
        new_point, probabilities = forced_stage(self, stage, point, bits)
        new_point["z__refractory"] = np.minimum(new_point["z__refractory"], 2)
        return new_point, probabilities

    monkeypatch.setattr(type(step), "forced_stage", too_short)
    with pytest.raises(ValueError, match="brings a refractory counter of 'z' from"):
        check_conditionals(step, random_seed=1)


def test_what_the_step_excludes_and_the_model_does_not_is_found(monkeypatch):
    with pm.Model():
        z = pmn.BoltzmannMachine("z", np.zeros((2, 2)), np.zeros(2))
        pm.Potential("y", 1.0 * z)
        step = pmn.BlockGibbs([z])
        monkeypatch.setattr(Evidence, "logits", lambda self, point: np.array([1.0, -np.inf]))
        assert found(step).largest_difference == np.inf


class Slower(pmn.BlockGibbs):
    """Runs what is not forced."""

    def step(self, point):
        return super().step(point)


def test_what_cannot_be_forced_is_refused():
    with pm.Model():
        z = pmn.BoltzmannMachine("z", couplings(4), np.zeros(4))
        x = pm.Normal("x")
        with pytest.raises(TypeError, match="got a CompoundStep"):
            check_conditionals(CompoundStep([pmn.BlockGibbs([z])]))
        with pytest.raises(TypeError, match="got Metropolis"):
            check_conditionals(pm.Metropolis([x]))
        with pytest.raises(TypeError, match="Slower has a step of its own"):
            check_conditionals(Slower([z]))
        with pytest.raises(ValueError, match="in continuous time there are none"):
            check_conditionals(pmn.NeuralSampling([z], time="continuous"))
        with pytest.raises(ValueError, match="declare the hidden units with HiddenUnits"):
            check_conditionals(pmn.NeuralSampling([pmn.BernoulliRBM("v", W, A, B)], order="random"))
        with pytest.raises(ValueError, match="n_points must be at least 1"):
            check_conditionals(pmn.BlockGibbs([z]), n_points=0)
        with pytest.raises(ValueError, match="tolerance must be positive"):
            check_conditionals(pmn.BlockGibbs([z]), tolerance=0)
        with pytest.raises(ValueError, match="point must name value variables"):
            check_conditionals(pmn.BlockGibbs([z]), {"w": 1.0})


def test_units_that_have_one_value_are_looked_at_too(monkeypatch):
    with pm.Model():
        z = pmn.BoltzmannMachine("z", np.zeros((2, 2)), np.zeros(2))
        pm.Poisson("y", z, observed=[3, 1])
        check = check_conditionals(pmn.BlockGibbs([z]), random_seed=1)
        assert check.passed
        assert check.n_compared > 20
        monkeypatch.setattr(Evidence, "logits", lambda self, point: np.array([np.inf, 0.0]))
        assert found(pmn.BlockGibbs([z])).largest_difference == np.inf


def chain(coupling):
    return pmn.Ising("z", pmn.lattice((3, 3), periodic=True), coupling=coupling)


def rbm_with_hidden_units(coupling):
    v = pmn.BernoulliRBM("v", np.full((3, 2), 5 * coupling), np.full(3, -5.0 * coupling), np.full(2, -7.0 * coupling))
    return [v, pmn.HiddenUnits("h", v)]


def rbm_alone(coupling):
    return rbm_with_hidden_units(coupling)[0]


@pytest.mark.parametrize("floatX", ["float64", "float32"])
@pytest.mark.parametrize("coupling", [0.4, 3.0, 5.0, 20.0, 80.0])
@pytest.mark.parametrize("declare", [chain, rbm_with_hidden_units])
def test_strong_couplings_pass(declare, coupling, floatX):
    """Probabilities that are rounded to 1 say nothing more than that the other value is improbable."""
    with pytensor.config.change_flags(floatX=floatX):
        for method, options in ((pmn.BlockGibbs, {}), (pmn.NeuralSampling, {"tau": 2})):
            with pm.Model():
                step = method(declare(coupling), compile_kwargs={"mode": "FAST_COMPILE"}, **options)
                check = check_conditionals(step, n_points=10, random_seed=2)
            assert check.passed, str(check)


@pytest.mark.parametrize("wrong", [30.0, 100.0, -30.0, -100.0])
@pytest.mark.parametrize("unit", [0, 2])
@pytest.mark.parametrize("method", [pmn.BlockGibbs, pmn.NeuralSampling])
@pytest.mark.parametrize("declare", [chain, rbm_alone, rbm_with_hidden_units])
def test_evidence_that_all_but_decides_a_unit_for_no_reason_is_found(monkeypatch, declare, method, unit, wrong):
    with pm.Model():
        units = declare(0.1)
        visible = units[0] if isinstance(units, list) else units
        pm.Normal("y", 0.1 * visible, 1, observed=np.zeros(visible.type.shape))
        logits = Evidence.logits
        planted = np.zeros(int(np.prod(visible.type.shape)))
        planted[unit] = wrong
        monkeypatch.setattr(Evidence, "logits", lambda self, point: logits(self, point) + planted)
        if method is pmn.NeuralSampling and declare is rbm_alone:
            units = [units]
        step = method(
            units, compile_kwargs={"mode": "FAST_COMPILE"}, **({"tau": 1} if method is not pmn.BlockGibbs else {})
        )
        found(step, by_more_than=10)


def test_what_has_no_stages_is_not_compared():
    with pm.Model():
        one, other = (pmn.Ising(name, np.zeros((2, 2)), 0.0) for name in ("one", "other"))
        with pytest.raises(ValueError, match="a step of several networks has no stages"):
            check_conditionals(pmn.NeuralSampling([one, other], tau=1, order="random"))
    with pm.Model():
        batch = pmn.BernoulliRBM("v", np.zeros((2, 3, 2)), np.zeros(3), np.zeros(2))
        with pytest.raises(ValueError, match="not in a batch"):
            check_conditionals(pmn.NeuralSampling([batch], tau=1))


def test_values_of_other_variables_can_be_given():
    with pm.Model():
        z = pmn.BoltzmannMachine("z", np.zeros((2, 2)), np.zeros(2))
        pm.Normal("y", z, pt.switch(pt.gt(pm.Normal("x"), 5), np.nan, 1.0), observed=[1.0, 2.0])
        assert check_conditionals(pmn.BlockGibbs([z]), random_seed=1)
        with pytest.raises(ValueError, match="'y' of the model has no probability"):
            check_conditionals(pmn.BlockGibbs([z]), {"x": 6.0}, random_seed=1)


@pytest.mark.slow
def test_a_field_of_a_hundred_thousand_units():
    with pm.Model():
        s = pmn.Ising("s", pmn.lattice((316, 316), periodic=True), np.full((316, 316), 0.1), coupling=0.4)
        check = check_conditionals(pmn.BlockGibbs([s]), n_points=1, random_seed=1, tolerance=1e-8)
    assert check, str(check)
