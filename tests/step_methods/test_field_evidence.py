"""What may stand on top of a Boltzmann machine or an Ising field, and what may not."""

from itertools import cycle

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.scalar import identity
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.subtensor import Subtensor

import pm_neural as pmn
from pm_neural.diagnostics import certify, exact_state_probabilities
from step_methods.reading.evidence import MixedUnitsError

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


def categorical(z):
    high = pm.math.switch(z > 0, 0.7, 0.2)
    pm.Categorical("y", pm.math.stack([high, 0.1 + 0 * z, 0.9 - high], axis=-1), observed=np.array([[0, 2], [1, 0]]))


def chosen_means(z):
    mu = pm.Normal("mu") * np.array([1.0, 3.0])
    pm.Normal("y", mu[z.clip(0, 1)], 1, observed=Y)


def chosen_rows_and_columns(z):
    mu = pm.Normal("mu") * np.arange(24.0).reshape(3, 2, 4)
    pm.Normal("y", mu[:, z.clip(0, 1).ravel(), np.array([0, 3, 1, 1])], 1, observed=np.arange(12.0).reshape(3, 4))


def chosen_by_one_unit(z):
    mu = pm.Normal("mu") * np.array([1.0, 3.0])
    pm.Normal("y", mu[z.clip(0, 1)[1, 0]], 1, observed=[0.3, 0.9])


def hard_evidence(z):
    low, _ = z.owner.op.values
    pm.Potential("y", pm.math.switch(pm.math.eq(z, low), [[0, 0], [-np.inf, 0]], [[-np.inf, 0], [0, -np.inf]]))


def child_with_a_bound(z):
    x = pm.Uniform("x", lower=z, upper=z + 2.0)
    pm.Poisson("y", pm.Uniform("rate", upper=x + 3.0), observed=COUNTS)


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
    categorical,
    chosen_means,
    chosen_rows_and_columns,
    chosen_by_one_unit,
    hard_evidence,
    child_with_a_bound,
]
FIELDS = [pmn.BoltzmannMachine, pmn.Ising]


@pytest.mark.parametrize(("term", "field"), list(zip(TERMS, cycle(FIELDS), strict=False)))
def test_terms_of_single_units_are_evidence(term, field):
    with pm.Model() as model:
        z = field("z", 0.5 * pmn.lattice(SHAPE), Y)
        term(z)
        step = pmn.BlockGibbs([z])
    point = {n: np.full(x.shape, -0.4) for n, x in model.initial_point().items() if n != "z"}
    certificate = certify(step, point, tolerance=1e-6 if term in (bernoulli, mixture, categorical) else 1e-12)
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


def chosen_by_two_units(z):
    pm.Normal("y", pm.Normal("mu", shape=(2, 2))[z[0].clip(0, 1), z[1].clip(0, 1)], 1, observed=np.zeros(2))


def chosen_from_units(z):
    pm.Normal("y", z.ravel()[z.clip(0, 1)], 1, observed=Y)


def chosen_by_another_variable(z):
    pm.Normal("y", z.ravel()[pm.Categorical("k", np.full(4, 0.25))], 1, observed=0.0)


def sum_of_children_with_bounds(z):
    pm.Normal("y", pm.Uniform("x", lower=z, upper=z + 2.0).sum(), 1, observed=0.5)


def mapped_by_a_scan(z):
    doubled = pytensor.scan(lambda unit: 2 * unit + 1, sequences=[z.ravel() + 0.0], return_updates=False)
    pm.Normal("y", doubled, 1, observed=[1.0, 3.0, 3.0, 1.0])


def recurrence(z):
    start = pt.constant(np.zeros(4))
    states = pytensor.scan(
        lambda state, units: 0.5 * state[::-1] + units,
        outputs_info=[start],
        non_sequences=[z.ravel()],
        n_steps=3,
        return_updates=False,
    )
    pm.Normal("y", states[-1], 1, observed=np.ones(4))


def leaky_integrator(z):
    start = pt.constant(np.zeros(()))
    x = pytensor.scan(
        lambda unit, before: 0.7 * before + unit, sequences=[z.ravel()], outputs_info=[start], return_updates=False
    )
    pm.Normal("y", x, 1, observed=np.ones(4))


def garch(z):
    pm.GARCH11("y", z.ravel()[0] + 2.0, 0.3, 0.3, initial_vol=z.ravel()[1] + 2.0, observed=np.ones(4))


def number_of_units(z):
    on = pt.nonzero(pt.gt(z.ravel(), 0))[0]
    pm.Normal("y", pt.arange(4.0)[on].shape[0], 1, observed=2.0)


MIXING = [
    mapped_by_a_scan,
    recurrence,
    leaky_integrator,
    garch,
    number_of_units,
    sum_of_children_with_bounds,
    sum_of_units,
    correlated_normal,
    product_of_neighbors,
    regression,
    chosen_by_two_units,
    chosen_from_units,
    chosen_by_another_variable,
]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("term", MIXING)
def test_terms_that_mix_units_are_refused(term, field):
    with pm.Model():
        z = field("z", 0.5 * pmn.lattice(SHAPE), Y)
        term(z)
        with pytest.raises(ValueError, match=r"the term 'y' of the model may depend on several units at once"):
            pmn.BlockGibbs([z])


def test_a_term_that_draws_a_copy_of_the_units_is_refused():
    with pm.Model() as model:
        z = pmn.BoltzmannMachine("z", 0.5 * pmn.lattice(SHAPE), Y)
        # A variable that the loop only finds around it is drawn anew within.
        x = pytensor.scan(lambda gain: gain * z.sum(), sequences=[pt.constant(np.ones(2))], return_updates=False)
        pm.Normal("y", x, 1, observed=np.ones(2))
    for step in (pmn.BlockGibbs, pmn.NeuralSampling):
        with model, pytest.raises(ValueError, match=r"'y' of the model draws a copy of 'z'.*`non_sequences`"):
            step([z])


class UnknownOp(Op):
    """An operation that no step method knows, however much it looks like one that they do."""

    __props__ = ()

    def __init__(self, attributes):
        for name, value in attributes.items():
            setattr(self, name, value)

    def make_node(self, *inputs):
        return Apply(self, list(inputs), [inputs[-1].type()])

    def perform(self, node, inputs, outputs):
        outputs[0][0] = inputs[-1][::-1].copy()


class RenamedSubtensor(Subtensor):
    """A subclass may do what it likes."""

    def perform(self, node, inputs, outputs):
        outputs[0][0] = np.roll(inputs[0], 1)


def identity_graph():
    x = pt.dmatrix("x")
    return FunctionGraph([x], [x + 0.0], clone=False)


LOOKS = {
    "fgraph": identity_graph,
    "scalar_op": lambda: identity,
    "core_op": lambda: Elemwise(identity),
    "axis": lambda: (0,),
    "idx_list": lambda: (0,),
    "set_instead_of_inc": lambda: True,
    "view_map": lambda: {0: [0]},
    "inline": lambda: True,
}


@given(
    looks=st.sets(st.sampled_from(sorted(LOOKS))),
    around=st.lists(st.sampled_from([lambda x: 2.0 * x, lambda x: x[::-1], pt.exp, lambda x: x.T.T]), max_size=3),
    n_others=st.integers(0, 2),
)
@settings(max_examples=40, deadline=None)
def test_an_operation_that_is_not_known_is_refused(looks, around, n_others):
    op = UnknownOp({name: LOOKS[name]() for name in looks})
    with pm.Model():
        z = pmn.BoltzmannMachine("z", 0.5 * pmn.lattice(SHAPE), Y)
        mu = op(*[pt.constant(Y)] * n_others, z.astype("float64"))
        for operation in around:
            mu = operation(mu)
        pm.Normal("y", mu, 1, observed=Y)
        with pytest.raises(MixedUnitsError, match="may depend on several units at once \\(through UnknownOp"):
            pmn.BlockGibbs([z])


def test_a_subclass_of_a_known_operation_is_not_known():
    with pm.Model():
        z = pmn.BoltzmannMachine("z", 0.5 * pmn.lattice(SHAPE), Y)
        backwards = slice(None, None, 0)
        pm.Normal("y", RenamedSubtensor([backwards])(z.ravel(), pt.constant(-1)), 1, observed=Y.ravel())
        with pytest.raises(MixedUnitsError):
            pmn.BlockGibbs([z])


def test_a_graph_within_an_operation_is_read():
    x = pt.dmatrix("x")
    doubled, mirrored = (OpFromGraph([x], [y], inline=inline) for y, inline in ((2 * x, True), (x[::-1], False)))
    summed = OpFromGraph([x], [x.sum(axis=0)])
    with pm.Model():
        z = pmn.BoltzmannMachine("z", 0.5 * pmn.lattice(SHAPE), Y)
        pm.Normal("y", mirrored(doubled(z.astype("float64"))), 1, observed=Y)
        certificate = certify(pmn.BlockGibbs([z]))
        assert certificate.passed, str(certificate)
        pm.Normal("sum", summed(z.astype("float64")), 1, observed=Y[0])
        with pytest.raises(MixedUnitsError, match="'sum'"):
            pmn.BlockGibbs([z])


def exponent_out_of_bounds(z):
    pm.Gamma("y", alpha=z[0] - np.array([0.5, -0.5]), beta=1, observed=[0.5, 2.0])


def probability_out_of_bounds(z):
    pm.Bernoulli("y", p=0.7 + pm.math.switch(z > 0, 0.6 * (Y > 0), 0.0), observed=np.ones(SHAPE, int))


def scale_out_of_bounds(z):
    pm.Normal("y", 0, sigma=z + (Y > 0.25) * 1.5, observed=Y)


@pytest.mark.parametrize("step", [pmn.BlockGibbs, pmn.NeuralSampling])
@pytest.mark.parametrize("term", [exponent_out_of_bounds, probability_out_of_bounds, scale_out_of_bounds])
def test_a_value_with_a_parameter_out_of_bounds_is_excluded(term, step):
    with pm.Model():
        z = pmn.Ising("z", 0.5 * pmn.lattice(SHAPE), Y)
        term(z)
        certificate = certify(step([z]) if step is pmn.BlockGibbs else step([z], tau=1), tolerance=1e-6)
    assert certificate.passed, str(certificate)
    assert (certificate.probabilities == 0).any()


def test_without_checks_of_bounds_there_are_none():
    with pm.Model(check_bounds=False):
        z = pmn.Ising("z", 0.5 * pmn.lattice(SHAPE), Y)
        probability_out_of_bounds(z)
        certificate = certify(pmn.BlockGibbs([z]), tolerance=1e-6)
    assert certificate.passed, str(certificate)
    assert (certificate.probabilities > 0).all()


def test_a_component_of_a_mixture_out_of_bounds_is_an_error():
    with pm.Model():
        z = pmn.BoltzmannMachine("z", 0.5 * pmn.lattice(SHAPE), Y)
        components = [pm.Gamma.dist(z - 0.5, 1), pm.Gamma.dist(1, 1, shape=SHAPE)]
        pm.Mixture("y", [0.5, 0.5], components, observed=Y**2)
        with pytest.raises(ValueError, match="'y' of the model has a component with a parameter that is out of bounds"):
            pmn.BlockGibbs([z])


def test_terms_that_leave_no_value_are_an_error():
    with pm.Model() as model:
        z = pmn.BoltzmannMachine("z", 0.5 * pmn.lattice(SHAPE), Y)
        pm.Potential("never", pm.math.switch(z > 0, -np.inf, 0.0))
        pm.Potential("always", pm.math.switch(z > 0, 0.0, -np.inf))
        with pytest.raises(ValueError, match="'never', 'always' of the model leave no value to the unit 0"):
            pmn.BlockGibbs([z]).step(model.initial_point())


def test_shared_indices_are_read_anew_for_each_chain():
    def exact():
        return exact_state_probabilities([z]).probabilities

    with pm.Model():
        z = pmn.BoltzmannMachine("z", 0.5 * pmn.lattice(SHAPE), Y)
        unit = pm.Data("unit", [0, 0, 1])
        pm.Normal("y", z.ravel()[unit], 1, observed=pm.Data("data", [2.0, 1.0, 3.0]))
        step = pmn.BlockGibbs([z])
        before = exact()
        for units in ([3, 2, 3], [1, 2, 3, 3, 0]):
            pm.set_data({"unit": units, "data": np.full(len(units), 2.0)})
            step.setup_chain(np.random.default_rng(1), 0, 1)
            certificate = certify(step, tolerance=1e-12)
            assert certificate.passed, str(certificate)
            assert np.abs(certificate.probabilities - before).max() > 1e-3


@pytest.mark.parametrize("step_method", [pmn.BlockGibbs, pmn.NeuralSampling])
def test_whole_numbers_do_not_overflow(step_method):
    """PyTensor makes int8 of 70 and −70, and their difference is −116 in that."""
    with pm.Model() as model:
        z = pmn.BoltzmannMachine("z", np.zeros((4, 4)), np.zeros(4))
        pm.Potential("y", pt.switch(pt.eq(z, [1, 0, 1, 1]), 70, -70))
        step = step_method([z], compile_kwargs={"mode": "FAST_COMPILE"})
    (logits,) = step.samplers[0].reduced.logits_at(model.initial_point()).values()
    np.testing.assert_array_equal(logits, [140, -140, 140, 140])


KEPT = 1.0 * np.arange(4)


def stacked_and_chosen(z):
    parts = [pm.logp(pm.Normal.dist(0, 1.0 * z), KEPT), pm.logp(pm.Normal.dist(z, 2.0), KEPT)]
    pm.Potential("y", pt.stack(parts)[[1, 1, 1, 1], np.arange(4)])


def joined_and_cut(z):
    pm.Potential("y", pt.concatenate([pm.logp(pm.Normal.dist(0, 1.0 * z), KEPT), KEPT * z])[4:])


def written_over(z):
    pm.Potential("y", pt.set_subtensor(pm.logp(pm.Normal.dist(0, 1.0 * z), KEPT)[:], KEPT * z))


@pytest.mark.parametrize("declare", [stacked_and_chosen, joined_and_cut, written_over])
def test_bounds_of_what_is_left_out_exclude_nothing(declare):
    """Sigma = 0 is out of bounds, in a part of the term that is not in its log-probability."""
    with pm.Model() as model:
        z = pmn.BoltzmannMachine("z", np.zeros((4, 4)), np.zeros(4))
        declare(z)
        assert np.isfinite(model.compile_logp()({"z": np.zeros(4, int)}))
        with pytest.raises(ValueError, match="component with a parameter that is out of bounds"):
            pmn.BlockGibbs([z], compile_kwargs={"mode": "FAST_COMPILE"})


def chosen_of_all(z):
    pm.Potential("y", pm.logp(pm.Normal.dist(0, 1.0 * z), KEPT)[[0, 2, 1, 3]])


def joined_with_another(z):
    pm.Potential("y", pt.concatenate([pm.logp(pm.Normal.dist(0, 1.0 * z), KEPT), KEPT * z]))


@pytest.mark.parametrize("declare", [chosen_of_all, joined_with_another])
def test_bounds_of_what_is_kept_exclude_a_value(declare):
    with pm.Model() as model:
        z = pmn.BoltzmannMachine("z", np.zeros((4, 4)), np.zeros(4))
        declare(z)
        step = pmn.BlockGibbs([z], compile_kwargs={"mode": "FAST_COMPILE"})
    (logits,) = step.samplers[0].reduced.logits_at(model.initial_point()).values()
    assert (logits == np.inf).all()
