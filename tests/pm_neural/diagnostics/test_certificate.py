"""Step methods that are right pass, step methods that are wrong fail, and what cannot be certified is refused."""

from collections import Counter
from itertools import permutations, product

import numpy as np
import pymc as pm
import pytensor
import pytest
from pymc.logprob.abstract import _logprob
from pymc.step_methods.compound import BlockedStep, CompoundStep
from pytensor import tensor as pt
from pytensor.tensor.random.op import RandomVariable
from scipy import special
from scipy.sparse import csr_array

import pm_neural as pmn
from pm_neural.diagnostics import certificate as certificate_module
from pm_neural.diagnostics import (
    certify,
    detailed_balance_gap,
    exact_state_probabilities,
    stationary_distribution,
    total_variation_distance,
    transition_matrix,
)
from pm_neural.diagnostics._forced import ForcedGenerator, outcomes
from step_methods.network import PairwiseNetwork, network_of


def rbm_model(parameters, hidden=True, observed=None):
    with pm.Model() as model:
        v = pmn.BernoulliRBM("v", *parameters, observed=observed)
        if hidden:
            pmn.HiddenUnits("h", v)
    return model


@pytest.fixture
def parameters(random_rbm):
    return random_rbm(3, 2)


@pytest.fixture
def bernoulli_model(rng):
    """Three dependent bits: two of a vector and one whose probability depends on them."""
    with pm.Model() as model:
        z = pm.Bernoulli("z", p=rng.uniform(0.2, 0.8, size=2))
        y = pm.Bernoulli("y", logit_p=1.5 * z.sum() - 1)
        pm.Potential("joint", -0.7 * y * z[0])
    return model


class SingleSiteGibbs(BlockedStep):
    """Gibbs sampling of the units of one variable, one after another, by a field that the test gives."""

    name = "single_site"

    def __init__(self, vars, *, field, units=(0, 1, 2), low=0, model=None, rng=None, blocked=True):
        self.vars = [pm.modelcontext(model).rvs_to_values[var] for var in vars]
        self.field = field
        self.units = units
        self.low = low

    def step(self, point):
        raise NotImplementedError

    def forced_step(self, point, bits):
        (name,) = (value.name for value in self.vars)
        z = point[name].copy()
        probabilities = []
        for unit in self.units:
            q = special.expit(self.field(z, unit, point))
            up = len(probabilities) < len(bits) and bits[len(probabilities)]
            z[unit] = 1 if up else self.low
            probabilities.append(q)
        return {**point, name: z}, np.array(probabilities)


J = np.array([[0.0, 1.0, -0.5], [1.0, 0.0, 2.0], [-0.5, 2.0, 0.0]])
B = np.array([0.3, -1.0, 0.2])


@pytest.fixture
def network_model():
    """Three bits with couplings J and biases B, and a scale of the couplings."""
    with pm.Model() as model:
        scale = pm.HalfNormal("scale")
        z = pm.Bernoulli("z", p=np.full(3, 0.5))
        pm.Potential("energy", (B * z).sum() + 0.5 * scale * (z * (J @ z)).sum())
    return model


def right_field(z, unit, point):
    return B[unit] + np.exp(point["scale_log__"]) * (J @ z)[unit]


@pytest.fixture
def single_site(network_model):
    def make(field=right_field, **kwargs):
        with network_model:
            return SingleSiteGibbs([network_model["z"]], field=field, **kwargs)

    return make


# ------------------------------------------------------------------------------------ a step of one's own


def test_any_step_with_forced_decisions_is_certified(single_site):
    certificate = certify(single_site())
    assert certificate.passed
    assert bool(certificate)
    assert certificate.invariance_error < 1e-15
    assert certificate.irreducible
    assert certificate.aperiodic
    assert not certificate.reversible  # a fixed scan
    assert 0 < certificate.spectral_gap < 1


def test_matrix_by_hand(single_site, network_model):
    """One unit alone: T has the heat bath's probability, and nothing else changes."""
    model_point = network_model.initial_point()
    T = transition_matrix(single_site(units=(1,)))
    states = np.array(list(product([0, 1], repeat=3)))
    np.testing.assert_array_equal(T.states, states)
    assert T.units == ("z[0]", "z[1]", "z[2]")
    for i, old in enumerate(states):
        up = special.expit(right_field(old, 1, model_point))
        for j, new in enumerate(states):
            expected = (up if new[1] else 1 - up) if (old[[0, 2]] == new[[0, 2]]).all() else 0
            assert T.matrix[i, j] == pytest.approx(expected, abs=1e-15)
    np.testing.assert_array_equal(np.asarray(T), T.matrix)


def test_other_variables_are_fixed_at_the_point(single_site):
    step = single_site()
    at_two = {"scale_log__": np.log(2.0)}
    z = np.array(list(product([0, 1], repeat=3)))
    expected = special.softmax(z @ B + np.einsum("ki,ij,kj->k", z, J, z))
    certificate = certify(step, at_two)
    assert certificate.passed
    np.testing.assert_allclose(certificate.probabilities, expected, rtol=1e-13)
    np.testing.assert_allclose(stationary_distribution(certificate.transition), expected, rtol=1e-12)
    assert not np.allclose(transition_matrix(step).matrix, certificate.transition.matrix)


WRONG = {
    "sign of the couplings": lambda z, unit, point: B[unit] - np.exp(point["scale_log__"]) * (J @ z)[unit],
    "no biases": lambda z, unit, point: np.exp(point["scale_log__"]) * (J @ z)[unit],
    "scale forgotten": lambda z, unit, point: B[unit] + (J @ z)[unit],
    "slightly off": lambda z, unit, point: right_field(z, unit, point) + 1e-9,
}


@pytest.mark.parametrize("field", WRONG.values(), ids=WRONG.keys())
def test_wrong_fields_fail(single_site, field):
    certificate = certify(single_site(field), {"scale_log__": np.log(2.0)})
    assert not certificate.passed
    assert not certificate
    assert certificate.invariance_error > 1e-11
    assert certificate.irreducible
    assert "FAILED" in str(certificate)


def test_tolerance_decides(single_site):
    step = single_site(WRONG["slightly off"])
    assert certify(step, tolerance=1e-8).passed
    with pytest.raises(ValueError, match="tolerance must be positive, got 0"):
        certify(step, tolerance=0)


def test_a_forgotten_unit_is_invariant_but_reducible(single_site):
    certificate = certify(single_site(units=(0, 2)))
    assert certificate.invariant
    assert not certificate.irreducible
    assert not certificate.passed
    assert certificate.spectral_gap == pytest.approx(0, abs=1e-13)
    lines = str(certificate).splitlines()
    assert lines[0] == "single_site: FAILED, 3 units, 8 states"
    assert [line.split()[0] for line in lines if line.endswith("<- FAILED")] == ["irreducible"]


def test_a_period_fails():
    """Flips all bits of a uniform distribution, for sure: reducible, and each class has the period 2."""

    class Flip(SingleSiteGibbs):
        def forced_step(self, point, bits):
            return {**point, "z": 1 - point["z"]}, np.array([])

    with pm.Model() as model:
        z = pm.Bernoulli("z", p=0.5, shape=1)
        certificate = certify(Flip([z], field=None, model=model))
    assert certificate.invariant
    assert certificate.irreducible
    assert not certificate.aperiodic
    assert not certificate.passed


def test_report_of_a_certificate(single_site):
    assert str(certify(single_site())).splitlines()[0] == "single_site: passed, 3 units, 8 states"
    text = str(certify(single_site()))
    for word in ("max |pT - p|", "irreducible", "aperiodic", "reversible", "spectral gap", "relaxation time"):
        assert word in text
    assert "FAILED" not in text


def test_impossible_states_stay_where_they_are():
    """A pair of bits that must not both be up; the step never gets there, and is not asked to start there."""

    class ExcludedPair(SingleSiteGibbs):
        def forced_step(self, point, bits):
            assert point["z"].sum() < 2
            return super().forced_step(point, bits)

    with pm.Model() as model:
        z = pm.Bernoulli("z", p=0.5, shape=2)
        pm.Potential("exclusion", pm.math.switch(z.sum() < 2, 0.0, -np.inf))
        step = ExcludedPair(
            [z], field=lambda z, unit, point: -np.inf if z[1 - unit] else 0.0, units=(0, 1), model=model
        )
        leaving = ExcludedPair([z], field=lambda z, unit, point: 0.0, units=(0, 1))
    certificate = certify(step)
    assert certificate.passed
    np.testing.assert_allclose(certificate.probabilities, np.array([1, 1, 1, 0]) / 3, rtol=1e-15)
    np.testing.assert_array_equal(certificate.transition.matrix[3], [0, 0, 0, 1])
    assert not certify(leaving).passed


class SpinPairRV(RandomVariable):
    name = "spin_pair"
    signature = "()->(n)"
    dtype = "int64"

    def _supp_shape_from_params(self, dist_params, param_shapes=None):
        return [2]


@_logprob.register(SpinPairRV)
def spin_pair_logprob(op, values, rng, size, coupling, **kwargs):
    (s,) = values
    return coupling * s[0] * s[1] + 0.5 * s[0]


@network_of.register(SpinPairRV)
def spin_pair_network(op, node):
    (coupling,) = op.dist_params(node)
    couplings = csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    return PairwiseNetwork(couplings, coupling, pt.constant([0.5, 0.0]), (-1, 1), 1, normalized=False)


class SpinPair(pm.Discrete):
    rv_op = SpinPairRV()

    @classmethod
    def dist(cls, coupling, **kwargs):
        return super().dist([pt.as_tensor(coupling)], **kwargs)

    def support_point(rv, size, coupling):
        return pt.ones(2, dtype="int64")


@pytest.fixture
def spin_model():
    """Two spins with the coupling 0.8 and a field of 0.5 on the first."""
    with pm.Model() as model:
        SpinPair("s", 0.8)
    return model


def test_spins(spin_model):
    def field(s, unit, point):
        return 2 * (0.8 * s[1 - unit] + (0.5 if unit == 0 else 0))

    with spin_model:
        certificate = certify(SingleSiteGibbs([spin_model["s"]], field=field, units=(0, 1), low=-1))
    assert certificate.passed
    np.testing.assert_array_equal(certificate.transition.states, [[-1, -1], [-1, 1], [1, -1], [1, 1]])
    np.testing.assert_allclose(certificate.probabilities, special.softmax([0.3, -1.3, -0.3, 1.3]), rtol=1e-14)


# ------------------------------------------------------------------------------------ BlockGibbs


@pytest.mark.parametrize("names", [["v", "h"], ["h", "v"], ["v"], ["h"]])
def test_block_gibbs_with_hidden_units(parameters, names):
    model = rbm_model(parameters)
    with model:
        certificate = certify(pmn.BlockGibbs([model[name] for name in names]))
    assert certificate.passed
    assert certificate.invariance_error < 1e-14
    # A layer alone is drawn from its conditional at once, whatever it was.
    assert certificate.spectral_gap == pytest.approx(1, abs=1e-9) if len(names) == 1 else certificate.spectral_gap < 1


def test_block_gibbs_sums_auxiliary_units_out(parameters, joint):
    with rbm_model(parameters, hidden=False):
        certificate = certify(pmn.BlockGibbs(pm.modelcontext(None)["v"]))
    assert certificate.passed
    assert certificate.reversible
    assert certificate.transition.states.shape == (8, 3)
    exact = joint(parameters)
    np.testing.assert_allclose(certificate.probabilities, exact.probability.reshape(8, -1).sum(axis=1), rtol=1e-12)


def test_block_gibbs_with_clamped_units(random_rbm):
    parameters = random_rbm(4, 3)
    observed = np.ma.masked_array([1, 0, 0, 0], mask=[0, 1, 0, 1])
    for hidden in (True, False):
        with pytest.warns(match="partially observed|imput"):
            model = rbm_model(parameters, hidden, observed)
        with model:
            certificate = certify(pmn.BlockGibbs([model[name] for name in (["v", "h"] if hidden else ["v"])]))
        assert certificate.passed
        assert certificate.transition.units[:2] == ("v_unobserved[0]", "v_unobserved[1]")
        assert len(certificate.transition.states) == (32 if hidden else 4)


def test_block_gibbs_with_random_parameters(random_rbm):
    W, a, b = random_rbm(3, 2)
    with pm.Model():
        beta = pm.HalfNormal("beta")
        v = pmn.BernoulliRBM("v", beta * W, a, b, normalize="exact")
        step = pmn.BlockGibbs([v])
    laws = [certify(step, {"beta_log__": np.log(beta)}) for beta in (0.1, 2.0)]
    assert all(laws)
    assert np.abs(laws[0].probabilities - laws[1].probabilities).max() > 0.01


@pytest.mark.parametrize("sweeps_per_draw", [1, 4])
@pytest.mark.parametrize("name", ["bits", "spins", "lattice"])
def test_block_gibbs_of_pairwise_networks(rng, name, sweeps_per_draw):
    couplings = np.triu(rng.normal(size=(5, 5)), 1)
    couplings += couplings.T
    with pm.Model():
        if name == "bits":
            z = pmn.BoltzmannMachine("z", couplings, rng.normal(size=5))
        elif name == "spins":
            z = pmn.Ising("z", couplings, h=rng.normal(size=5))
        else:
            z = pmn.Ising("z", pmn.lattice((2, 3)), coupling=0.6)
            pm.Normal("y", z, observed=rng.normal(size=(2, 3)))
        certificate = certify(pmn.BlockGibbs([z], sweeps_per_draw=sweeps_per_draw))
    assert certificate.passed
    assert certificate.tolerance == 1e-12
    np.testing.assert_array_equal(np.unique(certificate.transition.states), [0, 1] if name == "bits" else [-1, 1])


def test_shared_data_are_read_anew(random_rbm):
    W, a, b = random_rbm(3, 2)
    with pm.Model():
        v = pmn.BernoulliRBM("v", pm.Data("W", W), a, b)
        step = pmn.BlockGibbs([v])
        before = certify(step)
        pm.set_data({"W": -W})
        after = certify(step)
    assert before.passed
    assert after.passed
    assert np.abs(before.probabilities - after.probabilities).max() > 0.01


def test_several_sweeps_are_a_power(parameters):
    with rbm_model(parameters, hidden=False) as model:
        one, three = (transition_matrix(pmn.BlockGibbs([model["v"]], sweeps_per_draw=k)) for k in (1, 3))
        step = pmn.BlockGibbs([model["v"]], sweeps_per_draw=3)
        assert certify(step).passed
        assert step.sweeps_per_draw == 3
    np.testing.assert_allclose(three.matrix, np.linalg.matrix_power(one.matrix, 3), rtol=1e-13)


def test_sweeps_forced_all_at_once_agree(random_rbm):
    """The loop over sweeps in the kernel, too: two sweeps of one visible and one hidden unit, all 2⁴ decisions."""
    parameters = random_rbm(1, 1)
    with rbm_model(parameters, hidden=False) as model:
        T = transition_matrix(pmn.BlockGibbs([model["v"]], sweeps_per_draw=2)).matrix
        step = pmn.BlockGibbs([model["v"]], sweeps_per_draw=2)
    by_hand = np.zeros((2, 2))
    for start in (0, 1):
        for bits in product([0, 1], repeat=4):
            point, q = step.forced_step({"v": np.array([start])}, np.array(bits, np.uint8))
            assert len(q) == 4
            by_hand[start, point["v"][0]] += np.prod(np.where(bits, q, 1 - q))
    np.testing.assert_allclose(T, by_hand, atol=1e-15)


class TestBlockGibbsMutants:
    """Step methods that differ from BlockGibbs in one mistake."""

    @staticmethod
    def certificate(parameters, mistake):
        class Mutant(pmn.BlockGibbs):
            def forced_stage(self, stage, point, bits):
                new_point, probabilities = super().forced_stage(stage, point, bits)
                return mistake(point, new_point, probabilities)

        with rbm_model(parameters) as model:
            return certify(Mutant([model["v"], model["h"]]))

    def test_a_unit_that_keeps_its_value(self, parameters):
        def skip(point, new_point, probabilities):
            v = new_point["v"].copy()
            v[1] = point["v"][1]
            return {**new_point, "v": v}, probabilities

        assert not self.certificate(parameters, skip).passed

    def test_wrong_sign(self, parameters):
        certificate = self.certificate(parameters, lambda old, new, q: (new, 1 - q))
        assert not certificate.invariant

    def test_exchanged_units(self, parameters):
        certificate = self.certificate(parameters, lambda old, new, q: ({**new, "v": new["v"][::-1].copy()}, q))
        assert not certificate.invariant

    def test_no_mistake(self, parameters):
        assert self.certificate(parameters, lambda old, new, q: (new, q)).passed


def test_certificate_is_of_the_step_that_runs(parameters):
    """Frequencies of one-step moves of the real step against the matrix.

    256 comparisons within 5 standard errors: a false alarm in 1 of 7000 seeds.
    """
    model = rbm_model(parameters)
    with model:
        step = pmn.BlockGibbs([model["v"], model["h"]], rng=np.random.default_rng(3))
    T = transition_matrix(step)
    n = 2000
    for i in range(0, 32, 4):
        start = {"v": T.states[i, :3].copy(), "h": T.states[i, 3:].copy()}
        ends = Counter()
        for _ in range(n):
            point, _ = step.step(start)
            ends[tuple(np.concatenate([point["v"], point["h"]]).tolist())] += 1
        for j, state in enumerate(T.states):
            q = T.matrix[i, j]
            assert abs(ends[tuple(state.tolist())] - n * q) <= 5 * np.sqrt(n * q * (1 - q)) + 3


# ------------------------------------------------------------------------------------ PyMC's step methods


def test_binary_metropolis(bernoulli_model):
    with bernoulli_model:
        certificate = certify(pm.BinaryMetropolis([bernoulli_model["z"], bernoulli_model["y"]]))
    assert certificate.passed
    assert certificate.reversible
    # By hand: each unit is proposed to flip with probability 1/2.
    p = certificate.probabilities
    T = np.minimum(1, p[None, :] / p[:, None]) / 8
    np.fill_diagonal(T, 0)
    np.fill_diagonal(T, 1 - T.sum(axis=1))
    np.testing.assert_allclose(certificate.transition.matrix, T, atol=1e-14)
    assert certificate.transition.units == ("z[0]", "z[1]", "y")


def unit_kernels(p, transit_p, n=3):
    """Metropolis moves of single units that are proposed with probability transit_p."""
    kernels = []
    for k in range(n):
        flipped = np.arange(2**n) ^ (1 << (n - 1 - k))
        accept = transit_p * np.minimum(1, p[flipped] / p)
        T = np.diag(1 - accept)
        T[np.arange(2**n), flipped] = accept
        kernels.append(T)
    return kernels


def test_binary_gibbs_metropolis_in_a_fixed_order(bernoulli_model):
    order = [2, 0, 1]
    with bernoulli_model:
        step = pm.BinaryGibbsMetropolis([bernoulli_model["z"], bernoulli_model["y"]], order=order, transit_p=0.6)
    certificate = certify(step)
    assert certificate.passed
    assert not certificate.reversible
    T = unit_kernels(certificate.probabilities, 0.6)
    np.testing.assert_allclose(certificate.transition.matrix, T[2] @ T[0] @ T[1], atol=1e-14)
    assert step.order == order


def test_binary_gibbs_metropolis_in_random_order(bernoulli_model):
    with bernoulli_model:
        step = pm.BinaryGibbsMetropolis([bernoulli_model["z"], bernoulli_model["y"]])
    rng, order = step.rng, list(step.order)
    certificate = certify(step)
    assert certificate.passed
    assert certificate.reversible
    T = unit_kernels(certificate.probabilities, 0.8)
    mean = np.mean([T[i] @ T[j] @ T[k] for i, j, k in permutations(range(3))], axis=0)
    np.testing.assert_allclose(certificate.transition.matrix, mean, atol=1e-14)
    assert step.rng is rng
    assert step.order == order
    assert step.shuffle_dims


def test_random_order_forced_through_the_whole_step(bernoulli_model):
    """All decisions of the real step in each order, without taking it apart."""
    with bernoulli_model:
        variables = [bernoulli_model["z"], bernoulli_model["y"]]
        T = transition_matrix(pm.BinaryGibbsMetropolis(variables)).matrix
        average = np.zeros((8, 8))
        for order in permutations(range(3)):
            step = pm.BinaryGibbsMetropolis(variables, order=list(order))
            for i, (z0, z1, y) in enumerate(product([0, 1], repeat=3)):
                start = {"z": np.array([z0, z1]), "y": np.array(y)}

                def run(bits, step=step, start=start):
                    step.rng = generator = ForcedGenerator(bits)
                    new, _ = step.step(start)
                    return int(4 * new["z"][0] + 2 * new["z"][1] + new["y"]), np.array(generator.probabilities)

                for j, probability in outcomes(run, 100):
                    average[i, j] += probability / 6
    np.testing.assert_allclose(T, average, atol=1e-14)


@pytest.mark.parametrize("method", [pm.BinaryMetropolis, pm.BinaryGibbsMetropolis])
def test_pymc_steps_on_an_rbm(parameters, method):
    with rbm_model(parameters) as model:
        certificate = certify(method([model["v"], model["h"]]))
    assert certificate.passed
    assert certificate.reversible


@pytest.mark.parametrize("method", [pm.BinaryMetropolis, pm.BinaryGibbsMetropolis])
def test_real_chains_of_pymc_agree(bernoulli_model, method):
    """Long runs against the certified distribution, and lag-one moves against the matrix.

    The total variation distance is at most its expectation plus 5 standard errors, 64 frequencies of moves are within 5
    binomial standard errors: a false alarm in fewer than 1 of 10000 seeds.
    """
    with bernoulli_model:
        variables = [bernoulli_model["z"], bernoulli_model["y"]]
        T = transition_matrix(method(variables))
        exact = exact_state_probabilities(variables)
        idata = pm.sample(
            5000,
            tune=100,
            chains=2,
            cores=1,
            step=method(variables),
            random_seed=5,
            progressbar=False,
            compute_convergence_checks=False,
        )
    distance = total_variation_distance(pmn.diagnostics.state_probabilities(idata, ["z", "y"]), exact)
    assert distance.estimate < distance.noise + 5 * distance.standard_error
    assert distance.estimate < 0.05
    posterior = idata["posterior"]
    numbers = (4 * posterior["z"][..., 0] + 2 * posterior["z"][..., 1] + posterior["y"]).to_numpy()
    moves = np.zeros((8, 8))
    np.add.at(moves, (numbers[:, :-1].ravel(), numbers[:, 1:].ravel()), 1)
    visits = moves.sum(axis=1, keepdims=True)
    assert (np.abs(moves - visits * T.matrix) <= 5 * np.sqrt(visits * T.matrix * (1 - T.matrix)) + 3).all()


def test_block_gibbs_has_the_larger_gap(random_rbm):
    parameters = random_rbm(3, 2)
    with rbm_model(parameters) as model:
        gaps = [
            certify(method([model["v"], model["h"]])).spectral_gap
            for method in (pmn.BlockGibbs, pm.BinaryGibbsMetropolis, pm.BinaryMetropolis)
        ]
    assert gaps[0] > gaps[2]
    assert gaps[1] > gaps[2]


def test_detailed_balance_of_an_extreme_model():
    """Ratios of probabilities of e^±60 neither overflow nor spoil the certificate."""
    with pm.Model():
        z = pm.Bernoulli("z", logit_p=np.array([60.0, -60.0, 0.5]))
        certificate = certify(pm.BinaryGibbsMetropolis([z]))
    assert certificate.invariant
    assert certificate.irreducible
    assert detailed_balance_gap(certificate.transition, certificate.probabilities) < 1e-15


def test_units_that_are_certain_in_floating_point_pass():
    with pm.Model():
        z = pmn.BoltzmannMachine("z", [[0, 1.0], [1.0, 0]], [50.0, 0.0])
        certificate = certify(pmn.BlockGibbs([z]))
    assert certificate.passed, str(certificate)
    assert 0 < certificate.probabilities.min() < 1e-20


def test_modes_with_no_way_between_them_fail():
    with pm.Model():
        z = pmn.BoltzmannMachine("z", [[0, 200.0], [200.0, 0]], [-100.0, -100.0])
        certificate = certify(pmn.BlockGibbs([z]))
    assert certificate.invariant
    assert not certificate.irreducible


def test_a_proposal_that_is_always_made_has_a_period():
    """On a uniform distribution with transit_p = 1 every step flips every unit, for sure."""
    with pm.Model():
        z = pm.Bernoulli("z", p=np.full(2, 0.5))
        certificate = certify(pm.BinaryGibbsMetropolis([z], transit_p=1))
    assert certificate.invariant
    assert not certificate.irreducible
    assert not certificate.aperiodic


# ------------------------------------------------------------------------------------ what is refused


def test_float32_has_a_wider_tolerance(parameters):
    with pytensor.config.change_flags(floatX="float32"), rbm_model(parameters) as model:
        certificate = certify(pmn.BlockGibbs([model["v"], model["h"]]))
    assert certificate.tolerance == 1e-6
    assert 1e-12 < certificate.invariance_error < 1e-6
    assert certificate.passed


@pytest.mark.parametrize(("number", "tolerance"), [(float, 1e-6), (np.float64, 1e-12)])
def test_numbers_that_pytensor_takes_for_float32(number, tolerance):
    with pm.Model():
        z = pm.Bernoulli("z", p=0.3, shape=3)
        pm.Bernoulli("y", p=pm.math.switch(z > 0, number(0.75), number(0.125)), observed=[1, 0, 1])
        certificate = certify(pm.BinaryGibbsMetropolis([z]))
    assert certificate.passed
    assert certificate.tolerance == tolerance


def test_steps_that_cannot_be_certified_are_refused(bernoulli_model):
    with bernoulli_model:
        z, y = bernoulli_model["z"], bernoulli_model["y"]
        with pytest.raises(TypeError, match="step must be a step method, got str"):
            certify("BlockGibbs")
        with pytest.raises(TypeError, match=r"got a CompoundStep; its parts step\.methods can be certified"):
            certify(CompoundStep([pm.BinaryMetropolis([z]), pm.BinaryMetropolis([y])]))
        with pytest.raises(TypeError, match="the random decisions of Metropolis cannot be forced"):
            certify(pm.Metropolis([z], blocked=True))


def overridden(kind, *methods):
    """Derive a step method that goes to the all-zero state in methods of its own."""

    def step(self, point):
        return {name: np.zeros_like(value) for name, value in point.items()}, [{}]

    def astep(self, apoint, *args):
        return apoint._replace(data=np.zeros_like(apoint.data)), [{}]

    own = {"step": step, "astep": astep}
    return type("Wrong", (kind,), {method: own[method] for method in methods})


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (pmn.BlockGibbs, "step"),
        (pmn.NeuralSampling, "step"),
        (pm.BinaryMetropolis, "step"),
        (pm.BinaryGibbsMetropolis, "step"),
        (pm.BinaryGibbsMetropolis, "astep"),
    ],
)
def test_a_step_that_runs_other_code_than_is_certified_is_refused(parameters, kind, method):
    with rbm_model(parameters, hidden=False) as model:
        options = {"tau": 2} if kind is pmn.NeuralSampling else {}
        step = overridden(kind, method)([model["v"]], **options)
        right = kind([model["v"]], **options)
        for function in (certify, transition_matrix):
            with pytest.raises(TypeError, match=f"step must run what is looked at, .*Wrong has a {method} of its own"):
                function(step)
        assert certify(right)
        setattr(right, method, getattr(step, method))
        with pytest.raises(TypeError, match=f"the instance has a {method} of its own"):
            certify(right)


def test_an_astep_that_is_run_itself_is_looked_at():
    with pm.Model():
        z = pm.Bernoulli("z", 0.3, shape=2)
        assert not certify(overridden(pm.BinaryMetropolis, "astep")([z]))


def test_spins_are_refused_for_steps_that_propose_one_minus_x(spin_model):
    with spin_model:
        for method in (pm.BinaryMetropolis, pm.BinaryGibbsMetropolis):
            with pytest.raises(ValueError, match="proposes 1 − x, which is right for 0/1 units only: the spins of s"):
                certify(method([spin_model["s"]]))


def test_variables_with_other_values_are_refused():
    with pm.Model():
        k = pm.Poisson("k", 1)
        with pytest.raises(
            ValueError, match=r"vars must have two values per unit.*got 'k' with the distribution Poisson"
        ):
            certify(pm.BinaryMetropolis([k]))


def test_too_many_units_are_refused():
    with pm.Model():
        z = pm.Bernoulli("z", p=0.5, shape=13)
        with pytest.raises(ValueError, match=r"vars must have between 1 and 12 units.*got 13 units"):
            certify(pm.BinaryMetropolis([z]))
        y = pm.Bernoulli("y", p=0.5, shape=11)
        with pytest.raises(ValueError, match="at most 10 units, got 11; give it a fixed order"):
            certify(pm.BinaryGibbsMetropolis([y]))


def test_too_many_decisions_are_refused(single_site, monkeypatch):
    monkeypatch.setattr(certificate_module, "MAX_RUNS", 8 * 7)
    with pytest.raises(ValueError, match="one step has more than 7 outcomes of its random decisions"):
        transition_matrix(single_site())
    monkeypatch.setattr(certificate_module, "MAX_RUNS", 8 * 8)
    transition_matrix(single_site())


def test_wrong_points_are_refused(single_site):
    with pytest.raises(ValueError, match=r"point must name value variables of the model, .* got 'scale'"):
        certify(single_site(), {"scale": 1.0})
    with pytest.raises(ValueError, match=r"point\['scale_log__'\] must have the shape \(\)"):
        transition_matrix(single_site(), {"scale_log__": np.zeros(2)})


def test_a_log_probability_that_is_not_a_number_is_refused():
    with pm.Model():
        z = pm.Bernoulli("z", p=0.5, shape=2)
        pm.Potential("nan", pm.math.switch(z.sum() > 1, np.nan, 0.0))
        with pytest.raises(ValueError, match=r"must be finite or −inf, got nan with \(z\[0\], z\[1\]\) = \(1, 1\)"):
            certify(pm.BinaryMetropolis([z]))


def test_a_point_where_nothing_is_possible_is_refused():
    with pm.Model():
        z = pm.Bernoulli("z", p=0.5)
        pm.Potential("never", -np.inf * (1.0 + 0 * z))
        with pytest.raises(ValueError, match="is −inf at every state of the units"):
            certify(pm.BinaryMetropolis([z]))


def test_a_step_that_leaves_the_values_is_refused(single_site):
    class Leaves(SingleSiteGibbs):
        def forced_step(self, point, bits):
            return {**point, "z": point["z"] + 2}, np.array([])

    step = single_site()
    step.__class__ = Leaves
    with pytest.raises(ValueError, match=r"the units z\[0\], z\[1\], z\[2\] must stay on the values \[\(0, 1\)\]"):
        transition_matrix(step)


# ------------------------------------------------------------------------------------ the tree of decisions


def test_tree_takes_as_many_runs_as_leaves():
    """A second decision only after a first 0; the branch that has probability 0 is not walked."""
    runs = []

    def run(bits):
        runs.append(bits.tolist())
        bits = [*bits.tolist(), 0, 0, 0]
        if bits[0]:
            return "one", np.array([0.25])
        return f"zero-{bits[1]}{bits[2]}", np.array([0.25, 0.5, 0.0])

    law = dict(outcomes(run, 10))
    assert law == {"one": 0.25, "zero-00": 0.375, "zero-10": 0.375}
    assert sorted(runs) == [[], [0, 1], [1]]


def test_a_certain_one_is_walked_to():
    law = dict(outcomes(lambda bits: (tuple(bits.tolist()), np.array([1.0, 0.5])), 10))
    assert law == {(1,): 0.5, (1, 1): 0.5}


def test_a_step_without_decisions_has_one_outcome():
    assert list(outcomes(lambda bits: ("there", np.array([])), 1)) == [("there", 1.0)]


@pytest.mark.parametrize("wrong", [np.nan, 1.5, -0.1])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(ValueError, match=f"probability of decision 1 must be between 0 and 1, got {wrong}"):
        list(outcomes(lambda bits: (0, np.array([0.5, wrong])), 10))


def test_a_step_that_forgets_its_decisions_is_refused():
    calls = []

    def run(bits):
        calls.append(bits)
        return 0, np.full(3 if len(calls) == 1 else 0, 0.5)

    with pytest.raises(ValueError, match="must make the same decisions again, got 0 decisions"):
        list(outcomes(run, 10))


def test_forced_generator_answers_and_keeps_the_probabilities():
    generator = ForcedGenerator(np.array([1, 0, 1], np.uint8))
    assert generator.random() < 0.3
    assert not (np.log(generator.uniform()) < np.log(0.2))
    np.testing.assert_array_equal(generator.random((2,)) < 0.6, [True, False])
    assert np.log(generator.random()) < 3 or True
    np.testing.assert_allclose(generator.probabilities, [0.3, 0.2, 0.6, 0.6, 1.0])
    number = generator.random()
    assert not number < 0.5
    with pytest.raises(TypeError, match="compares a random number twice"):
        number < 0.7  # noqa: B015
    with pytest.raises(TypeError, match=r"draws random numbers by rng\.normal\(\)"):
        generator.normal()
