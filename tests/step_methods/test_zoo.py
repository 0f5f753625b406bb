"""A zoo of small models: a step method samples each of them right, or refuses it with an error of its own.

To add a model, write one line in `FAMILIES`, `JOINT`, `OPERATIONS` or `TERMS`, or a function under ``@right`` or
``@refused``. What a model is expected to be is written down, so that a change in either direction is seen.
"""

import re
import traceback
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pymc as pm
import pytensor
import pytensor.sparse
import pytensor.tensor as pt
import pytest
import scipy.sparse
from pymc.distributions.transforms import Interval, ordered
from pymc.pytensorf import collect_default_updates
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.mode import Mode
from pytensor.conditional.op import ifelse
from pytensor.graph.op import Op
from pytensor.scan.utils import until

import pm_neural as pmn
import step_methods
from pm_neural.diagnostics import check_conditionals
from step_methods.reading.graphs import evaluate

N = 4
J = np.array([[0.0, 0.8, -0.5, 0.3], [0.8, 0.0, 0.6, -0.4], [-0.5, 0.6, 0.0, 0.9], [0.3, -0.4, 0.9, 0.0]])
B = np.array([-0.3, 0.2, 0.5, -0.6])
W = np.array([[0.7, -0.4], [-0.9, 0.5], [0.3, 0.8]])
X = np.array([[0.3, -1.1, 0.8, 1.7], [-0.6, 0.4, 1.2, -0.2], [1.3, 0.9, -0.7, 0.5], [0.2, -1.4, 0.6, 1.1]])
REAL = np.array([0.3, -1.1, 0.8, 1.7])
POSITIVE = np.array([0.4, 1.3, 2.2, 0.9])
UNIT = np.array([0.2, 0.7, 0.4, 0.85])
COUNTS = np.array([1, 0, 2, 4])
SIMPLEX = np.array([[0.2, 0.3, 0.5], [0.6, 0.1, 0.3], [0.3, 0.3, 0.4], [0.1, 0.7, 0.2]])
COUNTED = np.array([[1, 2, 3], [0, 4, 2], [2, 2, 2], [5, 1, 0]])
NEIGHBORS = np.array([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])
GRID_J, GRID = 0.5 * pmn.lattice((2, 2)), X[:2, :2]


class Entry(NamedTuple):
    """A model, what is expected of it, what happens to it once the step is there, and what is left to slow tests."""

    declare: Callable[[], Any]
    expected: str
    then: Callable[[pm.Model], None] | None = None
    floatX: str = "float64"
    slow: str | None = None


# What `BlockGibbs` and what `NeuralSampling` make of a model; None where they are not asked.
EXPECTATIONS: dict[str, tuple[str | None, str | None]] = {
    "right": ("right", None),
    "refused": ("refused", "right"),
    "right by both": ("right", "right"),
    "refused by both": ("refused", "refused"),
    "right by spikes": (None, "right"),
    "refused when declared": ("refused when declared", None),
}
ENTRIES: list[tuple[str, Entry]] = []


def zoo(expected: str, **options: Any) -> Callable:
    """Put a model into the zoo: a function that declares it and returns the variables of the step."""

    def add(declare: Callable) -> Callable:
        ENTRIES.append((declare.__name__.replace("_", " "), Entry(declare, expected, **options)))
        return declare

    return add


def field(name="z", **options):
    return pmn.BoltzmannMachine(name, J, B, **options)


def spins(name="s", **options):
    return pmn.Ising(name, J, B, **options)


def on_field(term: Callable) -> Sequence:
    z = field()
    term(z)
    return [z]


# ---- Likelihoods: a unit in each parameter of each family --------------------------------------------------------

# Sets of parameters, into which units are put, and data. A last axis of a parameter is its own.
FAMILIES: dict[str, tuple[list[dict[str, Any]], np.ndarray]] = {
    "AsymmetricLaplace": ([{"kappa": 1.2, "mu": 0.3, "b": 0.8}, {"q": 0.4, "mu": 0.3, "b": 0.8}], REAL),
    "Bernoulli": ([{"p": 0.4}, {"logit_p": 0.6}], COUNTS > 0),
    "Beta": ([{"alpha": 1.3, "beta": 2.1}, {"mu": 0.4, "sigma": 0.2}, {"mu": 0.4, "nu": 3.1}], UNIT),
    "BetaBinomial": ([{"alpha": 1.3, "beta": 2.1, "n": 5}], COUNTS),
    "Binomial": ([{"n": 5, "p": 0.4}, {"n": 5, "logit_p": 0.6}], COUNTS),
    "Categorical": ([{"p": [0.3, 0.5, 0.2]}, {"logit_p": [0.3, -0.5, 0.2]}], np.array([0, 2, 1, 1])),
    "Cauchy": ([{"alpha": 0.3, "beta": 0.8}], REAL),
    "ChiSquared": ([{"nu": 2.3}], POSITIVE),
    "Dirichlet": ([{"a": [1.2, 2.1, 0.9]}], SIMPLEX),
    "DirichletMultinomial": ([{"n": COUNTED.sum(1), "a": [1.2, 2.1, 0.9]}], COUNTED),
    "DiscreteUniform": ([{"lower": -1, "upper": 6}], COUNTS),
    "DiscreteWeibull": ([{"q": 0.6, "beta": 1.2}], COUNTS),
    "ExGaussian": ([{"mu": 0.3, "sigma": 0.8, "nu": 0.7}], REAL),
    "Exponential": ([{"lam": 0.8}, {"scale": 1.2}], POSITIVE),
    "Gamma": ([{"alpha": 1.3, "beta": 2.1}, {"mu": 1.3, "sigma": 0.7}], POSITIVE),
    "Geometric": ([{"p": 0.4}], COUNTS + 1),
    "Gumbel": ([{"mu": 0.3, "beta": 0.8}], REAL),
    "HalfCauchy": ([{"beta": 0.8}], POSITIVE),
    "HalfNormal": ([{"sigma": 0.8}, {"tau": 1.2}], POSITIVE),
    "HalfStudentT": ([{"nu": 3.1, "sigma": 0.8}, {"nu": 3.1, "lam": 1.2}], POSITIVE),
    "HurdleGamma": ([{"psi": 0.6, "alpha": 1.3, "beta": 2.1}], POSITIVE * [1, 0, 1, 1]),
    "HurdleLogNormal": ([{"psi": 0.6, "mu": 0.3, "sigma": 0.8}], POSITIVE * [1, 0, 1, 1]),
    "HurdleNegativeBinomial": ([{"psi": 0.6, "mu": 1.3, "alpha": 2.1}], COUNTS),
    "HurdlePoisson": ([{"psi": 0.6, "mu": 1.3}], COUNTS),
    "HyperGeometric": ([{"N": 12, "k": 6, "n": 5}], COUNTS),
    "InverseGamma": ([{"alpha": 2.3, "beta": 2.1}, {"mu": 1.3, "sigma": 0.7}], POSITIVE),
    "Kumaraswamy": ([{"a": 1.3, "b": 2.1}], UNIT),
    "Laplace": ([{"mu": 0.3, "b": 0.8}], REAL),
    "LogNormal": ([{"mu": 0.3, "sigma": 0.8}, {"mu": 0.3, "tau": 1.2}], POSITIVE),
    "Logistic": ([{"mu": 0.3, "s": 0.8}], REAL),
    "LogitNormal": ([{"mu": 0.3, "sigma": 0.8}, {"mu": 0.3, "tau": 1.2}], UNIT),
    "Moyal": ([{"mu": 0.3, "sigma": 0.8}], REAL),
    "Multinomial": ([{"n": COUNTED.sum(1), "p": [0.3, 0.5, 0.2]}], COUNTED),
    "NegativeBinomial": ([{"mu": 1.3, "alpha": 2.1}, {"n": 2.1, "p": 0.4}], COUNTS),
    "Normal": ([{"mu": 0.3, "sigma": 0.8}, {"mu": 0.3, "tau": 1.2}], REAL),
    "NormalMixture": ([{"w": [0.5, 0.2, 0.3], "mu": [0.3, -0.9, 1.1], "sigma": [0.8, 1.1, 0.6]}], REAL),
    "OrderedLogistic": ([{"eta": 0.6, "cutpoints": [-0.7, 0.4]}], np.array([0, 2, 1, 1])),
    "OrderedMultinomial": ([{"eta": 0.6, "cutpoints": [-0.7, 0.4], "n": COUNTED.sum(1)}], COUNTED),
    "OrderedProbit": ([{"eta": 0.6, "cutpoints": [-0.7, 0.4], "sigma": 0.8}], np.array([0, 2, 1, 1])),
    "Pareto": ([{"alpha": 1.3, "m": 0.2}], POSITIVE),
    "Poisson": ([{"mu": 1.3}], COUNTS),
    "Rice": ([{"nu": 1.1, "sigma": 0.8}, {"b": 1.1, "sigma": 0.8}], POSITIVE),
    "SkewNormal": ([{"mu": 0.3, "sigma": 0.8, "alpha": 1.3}, {"mu": 0.3, "tau": 1.2, "alpha": 1.3}], REAL),
    "SkewStudentT": ([{"a": 2.3, "b": 1.4, "mu": 0.3, "sigma": 0.8}, {"a": 2.3, "b": 1.4, "lam": 1.2}], REAL),
    "StickBreakingWeights": ([{"alpha": 1.3, "K": 2}], SIMPLEX),
    "StudentT": ([{"nu": 3.1, "mu": 0.3, "sigma": 0.8}, {"nu": 3.1, "mu": 0.3, "lam": 1.2}], REAL),
    "Triangular": ([{"lower": -2.1, "c": 0.4, "upper": 2.3}], REAL),
    "TruncatedNormal": (
        [{"mu": 0.3, "sigma": 0.8, "lower": -2.1, "upper": 2.3}, {"mu": 0.3, "tau": 1.2, "lower": -2.1}],
        REAL,
    ),
    "Uniform": ([{"lower": -2.1, "upper": 2.3}], REAL),
    "VonMises": ([{"mu": 0.3, "kappa": 1.2}], REAL),
    "Wald": ([{"mu": 1.3, "lam": 0.8}, {"mu": 1.3, "phi": 0.8}, {"lam": 1.3, "phi": 0.8, "alpha": 0.1}], POSITIVE),
    "Weibull": ([{"alpha": 1.3, "beta": 0.8}], POSITIVE),
    "ZeroInflatedBinomial": ([{"psi": 0.6, "n": 5, "p": 0.4}], COUNTS),
    "ZeroInflatedNegativeBinomial": ([{"psi": 0.6, "mu": 1.3, "alpha": 2.1}], COUNTS),
    "ZeroInflatedPoisson": ([{"psi": 0.6, "mu": 1.3}], COUNTS),
}

# Parameters that PyMC wants constant, or that data alone can set.
CONSTANT = {"StickBreakingWeights K", "DirichletMultinomial n", "Multinomial n", "OrderedMultinomial n"}


def with_unit(parameter: Any, z) -> Any:
    """Let a unit change a parameter, an integer by 1; weights keep their sum."""
    parameter = np.asarray(parameter)
    if parameter.dtype.kind == "i":
        return parameter + z
    if parameter.ndim:
        return parameter + 0.1 * z[:, None] * np.linspace(-1, 1, len(parameter))
    return parameter * (1 + 0.5 * z)


def family(name: str, parameters: dict[str, Any], own: Collection[str], observed: np.ndarray, z) -> None:
    own_values = {one: with_unit(value, z) if one in own else np.asarray(value) for one, value in parameters.items()}
    getattr(pm, name)("y", **own_values, observed=observed)


# All parameters at once; other sets of them, and one after the other, in the slow tests.
for _family, (_sets, _data) in FAMILIES.items():
    for _parameters in _sets:
        _own = [one for one in _parameters if f"{_family} {one}" not in CONSTANT]
        for _units in [_own, *([one] for one in _own if len(_own) > 1)]:
            _declare = partial(on_field, partial(family, _family, _parameters, _units, _data))
            _name = f"{_family}({', '.join(f'{one}=z' if one in _units else one for one in _parameters)})"
            _is_first = _units is _own and _parameters is _sets[0]
            ENTRIES.append((_name, Entry(_declare, "right", slow=None if _is_first else "blocks")))


# ---- Joint likelihoods, time series, mixtures ---------------------------------------------------------------------

L = np.linalg.cholesky(np.eye(N) + 0.2)


def random_walk(z, **options):
    pm.GaussianRandomWalk("y", **options, init_dist=pm.Normal.dist(0.0, 1.0), observed=REAL)


def walk(mu, size):
    def step(x, mu):
        y = pm.Normal.dist(mu + 0.5 * x, 1.0)
        return y, collect_default_updates([y])

    steps, _ = pytensor.scan(step, outputs_info=[pt.constant(0.0, dtype="float64")], non_sequences=[mu], n_steps=N)
    return steps


def two_normals(z):
    return [pm.Normal.dist(0.6 * z, 1.0), pm.Normal.dist(-1.0, 0.5, shape=N)]


# Terms of a field z of four units: what `BlockGibbs` is expected to do, and the term.
TERMS: dict[str, tuple[str, Callable]] = {
    "MvNormal: mu": ("refused", lambda z: pm.MvNormal("y", 0.6 * z, np.eye(N) + 0.2, observed=REAL)),
    "MvNormal: rows of mu": ("refused", lambda z: pm.MvNormal("y", z[:, None] * X[0], np.eye(N) + 0.2, observed=X)),
    "MvNormal: cov": ("refused", lambda z: pm.MvNormal("y", REAL, pt.diag(1.0 + z), observed=X[1])),
    "MvNormal: chol": ("refused", lambda z: pm.MvNormal("y", REAL, chol=(1 + z) * L, observed=X[1])),
    "MvNormal: chol of one unit": ("refused", lambda z: pm.MvNormal("y", REAL, chol=(1 + z[1]) * L, observed=X[1])),
    "MvNormal: tau": ("refused", lambda z: pm.MvNormal("y", REAL, tau=pt.diag(1.0 + z), observed=X[1])),
    "MvStudentT: mu": ("refused", lambda z: pm.MvStudentT("y", 3.0, mu=z, scale=np.eye(N) + 0.2, observed=REAL)),
    "MvStudentT: nu": ("right", lambda z: pm.MvStudentT("y", 3.0 + z, mu=REAL, scale=np.eye(N) + 0.2, observed=X)),
    "MatrixNormal: mu": (
        "refused",
        lambda z: pm.MatrixNormal("y", mu=X * z, rowcov=np.eye(N), colcov=np.eye(N) + 0.2, observed=X.T),
    ),
    "KroneckerNormal: mu": (
        "refused",
        lambda z: pm.KroneckerNormal("y", mu=z, covs=[np.eye(2) + 0.2, np.eye(2)], sigma=0.5, observed=REAL),
    ),
    "CAR: mu": ("refused", lambda z: pm.CAR("y", 0.6 * z, NEIGHBORS, alpha=0.5, tau=1.2, observed=REAL)),
    "CAR: tau": ("right", lambda z: pm.CAR("y", X[1], NEIGHBORS, alpha=0.5, tau=1.2 + z[0], observed=REAL)),
    "ICAR: sigma": ("right", lambda z: pm.ICAR("y", NEIGHBORS, sigma=1.0 + z[2], observed=REAL)),
    "Wishart: nu": ("right", lambda z: pm.Wishart("y", nu=5 + z[0], V=np.eye(2), observed=np.eye(2) + 0.2)),
    "LKJCorr: eta": (
        "right",
        lambda z: pm.LKJCorr("y", n=2, eta=1.0 + z[0], observed=np.linalg.cholesky(np.eye(2) / 2 + 0.5)),
    ),
    "ZeroSumNormal: sigma": (
        "right",
        lambda z: pm.ZeroSumNormal("y", 1.0 + z[0], shape=N, observed=REAL - REAL.mean()),
    ),
    "AR: rho of one unit": (
        "right",
        lambda z: pm.AR("y", [0.3 + 0.4 * z[0]], 1.0, init_dist=pm.Normal.dist(0.0, 1.0, shape=1), observed=REAL),
    ),
    "AR: rho of all": (
        "refused",
        lambda z: pm.AR("y", 0.2 * z[:2], 1.0, init_dist=pm.Normal.dist(0.0, 1.0, shape=2), observed=REAL),
    ),
    "AR: rho of each row": (
        "right",
        lambda z: pm.AR("y", 0.3 * z[:, None], 1.0, init_dist=pm.Normal.dist(0.0, 1.0, shape=(N, 1)), observed=X),
    ),
    "AR: sigma": (
        "right",
        lambda z: pm.AR("y", [0.3], 1.0 + z[1], init_dist=pm.Normal.dist(0.0, 1.0, shape=1), observed=REAL),
    ),
    "GARCH11: omega": ("refused", lambda z: pm.GARCH11("y", 0.5 + z[0], 0.3, 0.2, 1.0, observed=REAL)),
    "GARCH11: alpha_1": ("refused", lambda z: pm.GARCH11("y", 0.5, 0.3 + 0.2 * z[0], 0.2, 1.0, observed=REAL)),
    "GARCH11: beta_1": ("refused", lambda z: pm.GARCH11("y", 0.5, 0.3, 0.2 + 0.2 * z[1], 1.0, observed=REAL)),
    "GARCH11: initial_vol": ("refused", lambda z: pm.GARCH11("y", 0.5, 0.3, 0.2, 1.0 + z[3], observed=REAL)),
    "GARCH11: omega of each row": ("refused", lambda z: pm.GARCH11("y", 0.5 + z, 0.3, 0.2, 1.0, observed=X)),
    "GaussianRandomWalk: mu": ("right", lambda z: random_walk(z, mu=0.6 * z[0])),
    "GaussianRandomWalk: mu of each step": ("refused", lambda z: random_walk(z, mu=0.6 * z[:3])),
    "GaussianRandomWalk: sigma": ("right", lambda z: random_walk(z, sigma=1.0 + z[1])),
    "RandomWalk: innovations": (
        "right",
        lambda z: pm.RandomWalk(
            "y",
            init_dist=pm.Normal.dist(0.0, 1.0),
            innovation_dist=pm.StudentT.dist(3.0, 0.6 * z[0], sigma=1.0),
            observed=REAL,
        ),
    ),
    "RandomWalk: start": (
        "right",
        lambda z: pm.RandomWalk(
            "y", init_dist=pm.Normal.dist(z[0], 1.0), innovation_dist=pm.Normal.dist(0.0, 1.0), observed=REAL
        ),
    ),
    "MvGaussianRandomWalk: mu": (
        "refused",
        lambda z: pm.MvGaussianRandomWalk(
            "y", 0.5 * z, chol=L, init_dist=pm.MvNormal.dist(np.zeros(N), np.eye(N)), observed=X
        ),
    ),
    "MvStudentTRandomWalk: mu": (
        "refused",
        lambda z: pm.MvStudentTRandomWalk(
            "y", nu=3.0, mu=0.5 * z, chol=L, init_dist=pm.MvNormal.dist(np.zeros(N), np.eye(N)), observed=X
        ),
    ),
    "EulerMaruyama: parameter": (
        "right",
        lambda z: pm.EulerMaruyama(
            "y",
            0.1,
            lambda x, a: (-a * x, 0.7),
            (1.0 + z[0],),
            init_dist=pm.Normal.dist(0.0, 1.0),
            observed=REAL,
        ),
    ),
    "Mixture: weights": (
        "right",
        lambda z: pm.Mixture(
            "y",
            pt.stack([0.3 + 0.4 * z, 0.7 - 0.4 * z], axis=-1),
            pm.Normal.dist([0.0, 1.3], 0.8),
            observed=REAL,
        ),
    ),
    "Mixture: weights of a scalar": (
        "right",
        lambda z: pm.Mixture(
            "y", pt.stack([0.2 + 0.6 * z[0], 0.8 - 0.6 * z[0]]), pm.Normal.dist([0.0, 1.3], 0.8), observed=REAL
        ),
    ),
    "Mixture: components": ("right", lambda z: pm.Mixture("y", [0.4, 0.6], two_normals(z), observed=REAL)),
    "Mixture: both": (
        "right",
        lambda z: pm.Mixture("y", pt.stack([0.3 + 0.4 * z, 0.7 - 0.4 * z], axis=-1), two_normals(z), observed=REAL),
    ),
    "Mixture: weights of another unit": (
        "refused",
        lambda z: pm.Mixture(
            "y", pt.stack([0.3 + 0.4 * z[::-1], 0.7 - 0.4 * z[::-1]], axis=-1), two_normals(z), observed=REAL
        ),
    ),
    "Mixture: of vectors": (
        "refused",
        lambda z: pm.Mixture(
            "y", [0.4, 0.6], [pm.MvNormal.dist(z, np.eye(N)), pm.MvNormal.dist(REAL, np.eye(N))], observed=X
        ),
    ),
    "Mixture: of a component out of bounds": (
        "refused by both",
        lambda z: pm.Mixture(
            "y", [0.5, 0.5], [pm.Gamma.dist(z - 0.5, 1.0), pm.Gamma.dist(1.0, 1.0, shape=N)], observed=POSITIVE
        ),
    ),
    "Censored: mu": (
        "right",
        lambda z: pm.Censored("y", pm.Normal.dist(0.6 * z, 1.0), lower=-1.0, upper=1.0, observed=REAL.clip(-1, 1)),
    ),
    "Censored: bounds": (
        "right",
        lambda z: pm.Censored("y", pm.Normal.dist(0.3, 1.0), lower=-1.1 - z, upper=1.7 + 0.0 * z, observed=REAL),
    ),
    "Censored: of counts": (
        "right",
        lambda z: pm.Censored("y", pm.Poisson.dist(0.5 + z), lower=None, upper=3, observed=COUNTS.clip(0, 3)),
    ),
    "Truncated: mu": ("right", lambda z: pm.Truncated("y", pm.Normal.dist(0.6 * z, 1.0), lower=-2.0, observed=REAL)),
    "Truncated: bounds": (
        "right",
        lambda z: pm.Truncated("y", pm.Normal.dist(0.3, 1.0), lower=-2.0 - z, upper=2.0 + z, observed=REAL),
    ),
    "Truncated: without a closed form": (
        "right",
        lambda z: pm.Truncated("y", pm.StudentT.dist(3.0, 0.6 * z, sigma=1.0), lower=-2.0, observed=REAL),
    ),
    "Simulator": (
        "refused by both",
        lambda z: pm.Simulator("y", lambda rng, z, size=None: z + rng.normal(size=N), z, observed=REAL),
    ),
    "CustomDist: logp": (
        "right",
        lambda z: pm.CustomDist("y", 0.6 * z, logp=lambda value, mu: -pt.abs(value - mu), observed=REAL),
    ),
    "CustomDist: joint logp": (
        "refused",
        lambda z: pm.CustomDist(
            "y", 0.6 * z, logp=lambda value, mu: -pt.abs(value - mu).sum(), signature="(n)->(n)", observed=REAL
        ),
    ),
    "CustomDist: dist": (
        "right",
        lambda z: pm.CustomDist(
            "y", 0.6 * z, dist=lambda mu, size: pm.math.exp(pm.Normal.dist(mu, 1.0, size=size)), observed=POSITIVE
        ),
    ),
    "CustomDist: dist with a scan": (
        "refused",
        lambda z: pm.CustomDist("y", 0.6 * z[0], dist=walk, observed=REAL),
    ),
    "Potential: linear": ("right", lambda z: pm.Potential("y", X[0] * z)),
    "Potential: whole numbers": ("right", lambda z: pm.Potential("y", pt.switch(pt.eq(z, [1, 0, 1, 1]), 70, -70))),
    "Potential: an unsigned number": ("right", lambda z: pm.Potential("y", (1 - z).astype("uint8"))),
    "Potential: true or false": ("right", lambda z: pm.Potential("y", pt.eq(z, [1, 0, 1, 1]))),
    "Potential: sum": ("refused", lambda z: pm.Potential("y", 0.7 * z.sum())),
    "Potential: square of the sum": ("refused", lambda z: pm.Potential("y", 0.2 * z.sum() ** 2)),
    "Potential: of neighbors": ("refused", lambda z: pm.Potential("y", 0.5 * z[1:] * z[:-1])),
    "Potential: sum of a part": ("right", lambda z: pm.Potential("y", 0.7 * (X[:, 0] * z[2]).sum())),
    "Potential: parity": ("refused", lambda z: pm.Potential("y", pt.switch(pt.eq(z.sum() % 2, 1), 0.3, -0.6))),
    "Potential: of a constant": ("right", lambda z: pm.Potential("y", pt.constant(0.3))),
    "Potential: of a choice of elements": ("refused", lambda z: pm.Potential("y", pt.constant(REAL)[z > 0])),
    "Potential: of elements that are not chosen": ("refused", lambda z: pm.Potential("y", pt.constant(REAL)[~(z > 0)])),
    "Potential: length by another variable": (
        "refused",
        lambda z: pm.Potential("y", pt.zeros(1 + pm.Poisson("k", 2.0)) + z[0]),
    ),
    "Potential: unit by the length of another": (
        "refused",
        lambda z: pm.Potential("y", pt.concatenate([pt.zeros(pm.Poisson("k", 2.0)), 0.6 * z])[2]),
    ),
    "Potential: chosen slice by another variable": (
        "refused",
        lambda z: pm.Potential("y", pt.constant(X)[z[0], pm.Poisson("k", 2.0) :]),
    ),
    "Potential: chosen from a length of another": (
        "refused",
        lambda z: pm.Potential("y", pt.arange(2.0 + pm.Poisson("k", 2.0))[z]),
    ),
    "Potential: length by another variable, no unit": (
        "refused",
        lambda z: pm.Potential("y", pt.zeros_like(z).sum() + pt.zeros(1 + pm.Poisson("k", 2.0))),
    ),
    "Potential: hard evidence": (
        "right",
        lambda z: pm.Potential("y", pt.switch(pt.eq(z, 0), [0, -np.inf, 0, 0.3], [-np.inf, 0, 0.4, 0])),
    ),
    "Potential: hard sum": ("refused", lambda z: pm.Potential("y", pt.switch(pt.le(z.sum(), 3), 0.0, -np.inf))),
    "Potential: quadratic form": ("refused", lambda z: pm.Potential("y", 0.2 * z @ pt.as_tensor(X) @ z)),
    "Potential: a log-probability": (
        "right",
        lambda z: pm.Potential("y", pm.logp(pm.Bernoulli.dist([0.3, 0.4, 0.5, 0.6]), z)),
    ),
    "Potential: of a draw": ("refused by both", lambda z: pm.Potential("y", z * pm.Normal.dist(0.0, 1.0))),
    "Potential: number of active units": ("refused", lambda z: pm.Potential("y", 0.3 * pt.nonzero(z)[0].shape[0])),
    "Potential: shape of a range": ("refused", lambda z: pm.Potential("y", 0.3 * pt.arange(z.sum()).shape[0])),
    "Potential: shape of an allocation": ("refused", lambda z: pm.Potential("y", 0.3 * pt.zeros(z.sum() + 1).shape[0])),
    "Potential: length by a unit": ("refused", lambda z: pm.Potential("y", pt.ones(1 + z[1]).sum())),
    "Potential: size of a choice": ("refused", lambda z: pm.Potential("y", 0.3 * pt.constant(X)[z > 0].shape[0])),
    "Deterministic between": (
        "right",
        lambda z: pm.Normal("y", pm.Deterministic("mu", pt.exp(0.3 * z)), 1.0, observed=REAL),
    ),
    "Deterministic that sums": (
        "refused",
        lambda z: pm.Normal("y", pm.Deterministic("mu", z.sum()), 1.0, observed=0.4),
    ),
    "Deterministic without a term": ("right", lambda z: pm.Deterministic("total", z.sum())),
    "Child: its mean": ("right", lambda z: pm.Normal("x", 0.6 * z, 1.0)),
    "Child: its mean, and data": ("right", lambda z: pm.Normal("y", pm.Normal("x", 0.6 * z, 1.0), 0.5, observed=REAL)),
    "Child: its scale": ("right", lambda z: pm.Normal("x", 0.0, 1.0 + z)),
    "Child: bounded by units": ("right", lambda z: pm.Uniform("x", -z, 1.0 + z)),
    "Child: bounded by units, and summed": (
        "refused",
        lambda z: pm.Normal("y", pm.Uniform("x", z, z + 2.0).sum(), 1.0, observed=0.5),
    ),
    "Child: truncated by units": ("right", lambda z: pm.TruncatedNormal("x", 0.0, 1.0, lower=-1.0 - z)),
    "Child: bounds of bounds": (
        "right",
        lambda z: pm.Poisson("y", pm.Uniform("r", 0.0, pm.Uniform("x", z, z + 2.0) + 3.0), observed=COUNTS),
    ),
    "Child: ordered": ("refused", lambda z: pm.Normal("x", 0.6 * z, 1.0, transform=ordered, initval=np.arange(4.0))),
    "Child: simplex": ("right", lambda z: pm.Dirichlet("x", pt.stack([1.0 + z, 2.0 - z, 1.5 + 0.0 * z], axis=-1))),
    "Child: discrete": ("right", lambda z: pm.Poisson("k", 1.0 + z)),
    "Child: Bernoulli": ("right", lambda z: pm.Bernoulli("k", pm.math.sigmoid(0.6 * z - 0.2))),
    "Child: Bernoulli, and data": (
        "right",
        lambda z: pm.Normal("y", pm.Bernoulli("k", pm.math.sigmoid(0.6 * z - 0.2)) + z, 1.0, observed=REAL),
    ),
    "Child: multivariate": ("refused", lambda z: pm.MvNormal("x", 0.6 * z, np.eye(N) + 0.2)),
    "Child: zero sum": ("right", lambda z: pm.ZeroSumNormal("x", 1.0 + z[0], shape=N)),
    "Child: correlation": ("right", lambda z: pm.LKJCorr("x", n=3, eta=1.0 + z[0])),
    "Child: covariance": (
        "right",
        lambda z: pm.LKJCholeskyCov("x", n=2, eta=1.0 + z[0], sd_dist=pm.Exponential.dist(1.0), compute_corr=False),
    ),
    "Child: Wishart": ("right", lambda z: pm.Wishart("x", nu=5 + z[0], V=np.eye(2), initval=np.eye(2))),
    "Child: random walk": (
        "right",
        lambda z: pm.GaussianRandomWalk("x", 0.6 * z[0], 1.0, init_dist=pm.Normal.dist(0.0, 1.0), steps=3),
    ),
    "Child: parent of data by choice": (
        "right",
        lambda z: pm.Normal("y", pm.Normal("mu", 0.0, 1.0, shape=2)[z], 1.0, observed=REAL),
    ),
    "Hierarchy: two levels": (
        "right",
        lambda z: pm.Normal("y", pm.Normal("x", pm.Normal("m", 0.6 * z, 1.0), 1.0), 0.5, observed=REAL),
    ),
    "Hierarchy: a mean of a group": (
        "right",
        lambda z: pm.Normal("y", pm.Normal("m", z, 1.0)[[0, 0, 1, 2, 3, 3]], 0.5, observed=np.resize(REAL, 6)),
    ),
    "Hierarchy: unknown scales": (
        "right",
        lambda z: pm.Normal(
            "y", pm.Normal("a", 0, 1) + pm.Normal("b", 0, 1) * z, pm.HalfNormal("sigma", 1), observed=REAL
        ),
    ),
    "Hierarchy: units of a Dirichlet": (
        "right",
        lambda z: pm.Categorical("y", pm.Dirichlet("p", np.ones((2, 3)))[z], observed=np.array([0, 2, 1, 1])),
    ),
    "Data: masked elements": (
        "right",
        lambda z: pm.Normal("y", 0.6 * z, 1.0, observed=np.ma.masked_array(REAL, [False, True, False, True])),
    ),
    "Data: masked in two dimensions": (
        "right",
        lambda z: pm.Normal("y", z[:, None] * X, 1.0, observed=np.ma.masked_array(X, X > 1.0)),
    ),
    "Data: NaN": (
        "right",
        lambda z: pm.Normal("y", 0.6 * z, 1.0, observed=np.ma.masked_invalid([0.3, np.nan, 0.8, 1.7])),
    ),
    "Data: masked counts": (
        "right",
        lambda z: pm.Poisson("y", 1.0 + z, observed=np.ma.masked_array(COUNTS, [False, True, False, True])),
    ),
    "Data: masked vector": (
        "refused",
        lambda z: pm.MvNormal("y", z, np.eye(N) + 0.2, observed=np.ma.masked_array(REAL, [False, True, False, True])),
    ),
    "Data: masked rows": (
        "refused",
        lambda z: pm.MvNormal(
            "y",
            z[:, None] * X,
            np.eye(N) + 0.2,
            observed=np.ma.masked_array(X, np.arange(4)[:, None] * [1, 1, 1, 1] > 2),
        ),
    ),
    "Data: shared": ("right", lambda z: pm.Normal("y", pm.Data("gain", REAL) * z, 1.0, observed=pm.Data("data", X[1]))),
    "Data: scaled by total_size": ("right", lambda z: pm.Normal("y", 0.6 * z, 1.0, observed=REAL, total_size=8)),
    "Data: scaled by total_size, summed": (
        "refused",
        lambda z: pm.Normal("y", 0.6 * z.sum(), 1.0, observed=REAL, total_size=8),
    ),
    "Data: minibatch": (
        "refused by both",
        lambda z: pm.Normal("y", 0.6 * z[0], 1.0, observed=pm.Minibatch(REAL, batch_size=2), total_size=4),
    ),
    "Two likelihoods": (
        "right",
        lambda z: (pm.Normal("y", z, 1.0, observed=REAL), pm.Poisson("c", 1.0 + 2 * z[::-1], observed=COUNTS)),
    ),
    "Replicates": ("right", lambda z: pm.Normal("y", z[None], 1.0, observed=X)),
    "Replicates, one more axis": ("right", lambda z: pm.Normal("y", z[None, :, None], 1.0, observed=np.stack([X, -X]))),
    "Out of bounds: scale": ("right", lambda z: pm.Normal("y", 0.0, z + np.array([0.0, 1.0, 0.5, 2.0]), observed=REAL)),
    "Out of bounds: probability": (
        "right",
        lambda z: pm.Bernoulli("y", 0.4 + 0.8 * z * (REAL > 0), observed=COUNTS > 0),
    ),
    "Out of bounds: count": ("right", lambda z: pm.Binomial("y", 2 + 2 * z, 0.4, observed=COUNTS)),
    "Out of support": ("right", lambda z: pm.Uniform("y", 0.5 - z, 2.0 + z, observed=POSITIVE)),
    "DiracDelta: c": ("right", lambda z: pm.DiracDelta("y", 2 + z[0], observed=2)),
    "Occupancy": ("right", lambda z: pm.Binomial("y", 5, z * 0.4, observed=[0, 2, 0, 1])),
}


ENTRIES += [(name, Entry(partial(on_field, term), expected)) for name, (expected, term) in TERMS.items()]


# ---- Operations between the units and the mean of a normal ---------------------------------------------------------


class Opaque(Op):
    """An operation of somebody's own: it may mix units, and here it does."""

    itypes = [pt.dvector]
    otypes = [pt.dvector]

    def perform(self, node, inputs, output_storage):
        output_storage[0][0] = np.cumsum(inputs[0])


class Lying(Opaque):
    """An operation whose inner graph is not what it does."""

    @property
    def fgraph(self):
        x = pt.dvector("x")
        return pytensor.graph.FunctionGraph([x], [x + 1.0], clone=False)


class ElementwiseByName(Opaque):
    """An operation that says so and is none."""

    scalar_op = pytensor.scalar.add


def floats(z):
    return z.astype("float64")


def scan(step, z, **options):
    return pytensor.scan(step, sequences=[floats(z)], return_updates=False, **options)


def from_graph(inner, z, **options):
    x = pt.dvector("x")
    return OpFromGraph([x], [inner(x)], **options)(floats(z))


MU = np.array([-0.4, 0.9])
CUBE = np.sin(np.arange(2 * 3 * N)).reshape(2, 3, N)
TABLE = np.array([[-0.4, 0.9], [0.3, -1.2]])

# What `BlockGibbs` is expected to do with data that are normal around a function of the units.
OPERATIONS: dict[str, tuple[str, Callable]] = {
    "take": ("right", lambda z: pt.take(z, [0, 3, 3])),
    "take: negative": ("right", lambda z: pt.take(z, [-1, 0, -4])),
    "take: from a table": ("right", lambda z: pt.take(pt.constant(MU), z)),
    "take_along_axis": ("right", lambda z: pt.take_along_axis(z, pt.constant([2, 0, 1]), axis=0)),
    "index: constant": ("right", lambda z: z[np.array([0, 0, 2, 3, 1])]),
    "index: one": ("right", lambda z: z[2]),
    "index: negative": ("right", lambda z: z[-1]),
    "index: slices": ("right", lambda z: z[3:0:-2]),
    "index: new axes": ("right", lambda z: z[None, :, None]),
    "index: boolean": ("right", lambda z: z[np.array([True, False, True, True])]),
    "index: boolean of units": ("refused", lambda z: pt.constant(X[0])[z > 0].sum()),
    "index: boolean of units, into units": ("refused", lambda z: z[z > 0].sum()),
    "index: matrix": ("right", lambda z: z[np.array([[0, 1], [3, 2]])]),
    "index: extended": ("right", lambda z: z.reshape((2, 2))[np.array([0, 1, 1]), np.array([1, 0, 1])]),
    "index: extended with a slice": ("right", lambda z: z.reshape((2, 2))[:, np.array([1, 0, 1])]),
    "index: outer": ("right", lambda z: z.reshape((2, 2))[np.ix_([1, 0], [1, 1])]),
    "mu[z]": ("right", lambda z: pt.constant(MU)[z]),
    "mu[z, z2]": ("refused", lambda z: pt.constant(TABLE)[z, z[::-1]]),
    "mu[z, z]": ("right", lambda z: pt.constant(TABLE)[z, z]),
    "mu[i, z]": ("right", lambda z: pt.constant(X)[np.arange(N), z]),
    "mu[z, i]": ("right", lambda z: pt.constant(X)[z, np.arange(N)]),
    "mu[:, z]": ("right", lambda z: pt.constant(X)[:, z]),
    "mu[z[0]]": ("right", lambda z: pt.constant(X)[z[0]]),
    "mu[z[0]:]": ("refused", lambda z: pt.constant(X[0])[z[0] :].sum()),
    "mu[z, :n]": ("right", lambda z: pt.constant(X)[z, : z.shape[0] - 1]),
    "mu[z, pairs]": ("right", lambda z: pt.constant(X)[z[:, None], np.array([0, 2])]),
    "mu[..., z]": ("right", lambda z: pt.constant(X)[..., z]),
    "mu[None, z]": ("right", lambda z: pt.constant(X)[None, z]),
    "mu[z, :, i]": ("right", lambda z: pt.constant(CUBE)[z, :, np.arange(N)]),
    "mu[z, :, z2]": ("refused", lambda z: pt.constant(CUBE)[z, :, z[::-1]]),
    "mu[z][:, z]": ("refused", lambda z: pt.constant(X)[z][:, z]),
    "mu[z] of rows": ("right", lambda z: pt.constant(CUBE)[z]),
    "mu[nu[z]]": ("right", lambda z: pt.constant(X[0])[pt.constant([3, 1])[z]]),
    "mu[z.sum()]": ("refused", lambda z: pt.constant(np.arange(5.0))[z.sum()]),
    "mu[1 - z]": ("right", lambda z: pt.constant(MU)[1 - z]),
    "z[z]": ("refused", lambda z: z[z]),
    "roll": ("right", lambda z: pt.roll(z, 1)),
    "roll in two axes": ("right", lambda z: pt.roll(z.reshape((2, 2)), 1, axis=1)),
    "tril": ("right", lambda z: pt.tril(z[:, None] * pt.constant(X))),
    "triu": ("right", lambda z: pt.triu(z[:, None] * pt.constant(X))),
    "repeat": ("right", lambda z: pt.repeat(z, 3)),
    "repeat: unequal": ("refused", lambda z: pt.repeat(z, np.array([1, 0, 2, 3]))),
    "tile": ("right", lambda z: pt.tile(z, 3)),
    "flip": ("right", lambda z: pt.flip(z)),
    "pad": ("right", lambda z: pt.pad(z, 1)),
    "einsum: diagonal": ("refused", lambda z: pt.einsum("i,ij->ij", floats(z), X)),
    "einsum: product": ("refused", lambda z: pt.einsum("i,ij->j", floats(z), X)),
    "matmul": ("refused", lambda z: pt.constant(X) @ z),
    "matmul: by a diagonal": ("right", lambda z: pt.constant(np.diag(REAL)) @ z),
    "dot": ("refused", lambda z: pt.dot(floats(z), X)),
    "dot: outer": ("right", lambda z: pt.dot(floats(z)[:, None], X[:1])),
    "outer": ("right", lambda z: pt.outer(floats(z), pt.constant(REAL))),
    "outer with itself": ("refused", lambda z: pt.outer(z, z)),
    "tensordot": ("refused", lambda z: pt.tensordot(floats(z), X, axes=[[0], [1]])),
    "sparse dot": ("refused", lambda z: pytensor.sparse.dot(scipy.sparse.csr_matrix(X), floats(z)[:, None])),
    "sparse structured dot": (
        "refused",
        lambda z: pytensor.sparse.structured_dot(
            pytensor.sparse.as_sparse_variable(scipy.sparse.csc_matrix(X)), floats(z)[:, None]
        ),
    ),
    "kron": ("right", lambda z: pt.linalg.kron(floats(z)[:, None], np.ones((2, 2)))),
    "cumsum": ("refused", lambda z: pt.cumsum(z)),
    "cumprod": ("refused", lambda z: pt.cumprod(1 + 0.3 * z)),
    "cumsum along another axis": ("refused", lambda z: pt.cumsum(z[:, None] * pt.constant(X), axis=1)),
    "diff": ("refused", lambda z: pt.diff(z)),
    "diff along another axis": ("right", lambda z: pt.diff(z[:, None] * pt.constant(X), axis=1)),
    "conv1d": ("refused", lambda z: pt.signal.convolve1d(floats(z), pt.constant([0.5, 1.0, -0.3]), mode="same")),
    "convolution by hand": ("refused", lambda z: 0.5 * z[:-1] + z[1:]),
    "scan: mapped": ("refused", lambda z: scan(lambda s: 2 * s + 1, z)),
    "scan: mapped with a constant": (
        "refused",
        lambda z: scan(lambda s, a: a * s, z, non_sequences=[pt.constant(0.7)]),
    ),
    "scan: recurrence": (
        "refused",
        lambda z: scan(lambda s, x: 0.5 * x + s, z, outputs_info=[pt.constant(0.0, dtype="float64")]),
    ),
    "scan: leaky integrator": (
        "refused",
        lambda z: scan(lambda s, x: 0.7 * x + s, z, outputs_info=[pt.zeros(())])[1:],
    ),
    "scan: mixing recurrence": (
        "refused",
        lambda z: pytensor.scan(
            lambda x, s, A: A @ x + s,
            outputs_info=[pt.zeros(N)],
            non_sequences=[floats(z), pt.constant(0.3 * X)],
            n_steps=3,
            return_updates=False,
        )[-1],
    ),
    "scan: of a field in time": (
        "refused",
        lambda z: pytensor.scan(
            lambda x, s: 0.5 * x + s,
            outputs_info=[pt.zeros(N)],
            non_sequences=[floats(z)],
            n_steps=3,
            return_updates=False,
        )[-1],
    ),
    "scan: number of steps by a unit": (
        "refused",
        lambda z: pytensor.scan(
            lambda x: 0.5 * x + 1,
            outputs_info=[pt.constant(0.2, dtype="float64")],
            n_steps=2 + z[0],
            return_updates=False,
        )[-1],
    ),
    "scan: until": (
        "refused",
        lambda z: scan(lambda s, x: (x + s + 0.5, until(x > 1)), z, outputs_info=[pt.constant(0.0, dtype="float64")])[
            -1
        ],
    ),
    "ifelse: condition": ("refused", lambda z: ifelse(z[0] > 0, pt.constant(0.4), pt.constant(-0.9))),
    "ifelse: branches": ("refused", lambda z: ifelse(pt.constant(True), floats(z), floats(1 - z))),
    "choose": ("refused", lambda z: pt.choose(z, pt.constant(X[:2]))),
    "diagonal": ("refused", lambda z: pt.diagonal(z[:, None] * pt.constant(X))),
    "diag of a vector": ("right", lambda z: pt.diag(z)),
    "trace": ("refused", lambda z: pt.trace(z[:, None] * pt.constant(X))),
    "switch": ("right", lambda z: pt.switch(z > 0, 0.4, -0.9)),
    "switch: of units": ("refused", lambda z: pt.switch(z > 0, z[::-1], 0.3)),
    "where": ("right", lambda z: pt.where(pt.eq(z, 1), pt.constant(REAL), 0.2)),
    "where: constant condition": ("right", lambda z: pt.where(REAL > 0, z, 0.2)),
    "where: constant condition, other units": ("refused", lambda z: pt.where(REAL > 0, z, z[::-1])),
    "sort": ("refused", lambda z: pt.sort(z)),
    "argsort": ("refused", lambda z: pt.argsort(z + 0.3 * np.arange(N))),
    "argmax": ("refused", lambda z: pt.argmax(z + 0.3 * np.arange(N))),
    "clip": ("right", lambda z: pt.clip(z, 0.2, 0.7)),
    "clip by units": ("refused", lambda z: pt.clip(REAL, -z[::-1], z)),
    "set_subtensor into units": ("right", lambda z: pt.set_subtensor(z[1], 0)),
    "set_subtensor of units": ("right", lambda z: pt.set_subtensor(pt.zeros(6)[1:5], z)),
    "set_subtensor of units over units": ("right", lambda z: pt.set_subtensor(z[:2], z[2:])),
    "set_subtensor at units": ("refused", lambda z: pt.set_subtensor(pt.zeros((N, 2))[np.arange(N), z], 1.0)),
    "set_subtensor at indices": ("right", lambda z: pt.set_subtensor(pt.zeros(6)[np.array([5, 0, 2, 3])], z)),
    "set_subtensor by a mask": (
        "right",
        lambda z: pt.set_subtensor(pt.zeros(6)[np.array([True, False, True, True, False, True])], z),
    ),
    "inc_subtensor into units": ("refused", lambda z: pt.inc_subtensor(z[1], 2)),
    "inc_subtensor of units": ("refused", lambda z: pt.inc_subtensor(pt.ones(6)[1:5], z)),
    "inc_subtensor of units at one place": (
        "refused",
        lambda z: pt.inc_subtensor(pt.ones(2)[np.array([0, 1, 1, 0])], z),
    ),
    "concatenate": ("right", lambda z: pt.concatenate([z, REAL, z[::-1]])),
    "stack": ("right", lambda z: pt.stack([z, 1 - z, 2 * z])),
    "stack of scalars": ("right", lambda z: pt.stack([z[0], z[3], 1.5])),
    "split": ("refused", lambda z: pt.split(z, [1, 3], n_splits=2)[1]),
    "reshape": ("right", lambda z: z.reshape((2, 2))),
    "reshape by its own shape": ("right", lambda z: z.reshape((-1, z.shape[0] // 2))),
    "ravel": ("right", lambda z: (z[:, None] * pt.constant(X)).ravel()),
    "flatten": ("right", lambda z: (z[:, None] * pt.constant(X)).flatten()),
    "squeeze": ("right", lambda z: pt.squeeze(z[:, None], 1)),
    "transpose": ("right", lambda z: (z[:, None] * pt.constant(X)).T),
    "swapaxes": ("right", lambda z: z.reshape((2, 2)).swapaxes(0, 1)),
    "moveaxis": ("right", lambda z: pt.moveaxis(z.reshape((2, 2, 1)), 0, 2)),
    "expand_dims": ("right", lambda z: pt.expand_dims(z, (0, 2))),
    "broadcast_to": ("right", lambda z: pt.broadcast_to(z, (3, N))),
    "alloc": ("right", lambda z: pt.alloc(z, 2, N)),
    "full of a unit": ("right", lambda z: pt.full((3,), z[1])),
    "sum": ("refused", lambda z: z.sum()),
    "sum along another axis": ("right", lambda z: (z[:, None] * pt.constant(X)).sum(axis=1)),
    "sum of a unit": ("right", lambda z: z[1:2].sum()),
    "mean": ("refused", lambda z: z.mean()),
    "mean along another axis": ("right", lambda z: (z[:, None] * pt.constant(X)).mean(axis=1)),
    "max": ("refused", lambda z: z.max()),
    "max along another axis": ("right", lambda z: (z[:, None] * pt.constant(X)).max(axis=1)),
    "min": ("refused", lambda z: pt.min(z * REAL)),
    "prod": ("refused", lambda z: pt.prod(1 + z)),
    "prod along another axis": ("right", lambda z: pt.prod(1 + z[:, None] * pt.constant(X), axis=1)),
    "var along another axis": ("right", lambda z: pt.var(z[:, None] * pt.constant(X), axis=1)),
    "norm": ("refused", lambda z: pt.linalg.norm(floats(z) + 0.3)),
    "logsumexp": ("refused", lambda z: pt.logsumexp(floats(z))),
    "logsumexp along another axis": ("right", lambda z: pt.logsumexp(z[:, None] * pt.constant(X), axis=1)),
    "softmax": ("refused", lambda z: pt.special.softmax(floats(z))),
    "softmax along another axis": ("right", lambda z: pt.special.softmax(z[:, None] * pt.constant(X), axis=1)),
    "all": ("refused", lambda z: pt.all(z > 0)),
    "any": ("refused", lambda z: pt.any(z > 0)),
    "all along another axis": ("right", lambda z: pt.all(z[:, None] > pt.constant(UNIT), axis=1)),
    "one-hot": ("refused", lambda z: pt.extra_ops.to_one_hot(z, 2)),
    "one-hot by comparison": ("right", lambda z: pt.eq(z[:, None], np.arange(2))),
    "searchsorted": ("refused", lambda z: pt.searchsorted(pt.constant([0.2, 0.8, 1.5]), floats(z))),
    "bincount": ("refused", lambda z: pt.bincount(z, minlength=2)),
    "unique": ("refused", lambda z: pt.unique(z).sum()),
    "nonzero": ("refused", lambda z: pt.nonzero(z)[0].sum()),
    "lengths by a unit": ("refused", lambda z: pt.arange(1.0, 2 + z[1]).sum()),
    "shape of units": ("right", lambda z: z * (z[:, None] * pt.constant(X)).ravel().shape[0]),
    "shape of a choice": ("right", lambda z: z * pt.constant(X)[z].shape[1]),
    "shape": ("right", lambda z: z / z.shape[0]),
    "zeros_like": ("right", lambda z: pt.zeros_like(z) + 0.3),
    "arange by a unit": ("refused", lambda z: pt.arange(2 + z[0]).sum()),
    "cast to float32": ("right", lambda z: z.astype("float32") * np.float32(0.7)),
    "cast to int8": ("right", lambda z: z.astype("int8") * np.int8(2)),
    "cast to bool": ("right", lambda z: z.astype("bool")),
    "cast to uint8 that wraps": ("right", lambda z: (z.astype("uint8") - np.uint8(1)) / 255),
    "logical operators": ("right", lambda z: ~z.astype("bool") & (REAL > 0)),
    "bits": ("right", lambda z: (z ^ 1) | 4),
    "modulo and integer division": ("right", lambda z: (3 * z + 1) % 2 + (3 * z) // 2),
    "powers": ("right", lambda z: pt.constant(POSITIVE) ** z + z**2),
    "rounding": ("right", lambda z: pt.round(0.7 * z) + pt.floor(1.6 * z) + pt.ceil(0.2 * z)),
    "special functions": ("right", lambda z: pt.gammaln(1.5 + z) + pt.erf(0.5 * z) + pt.sigmoid(z)),
    "maximum with a constant": ("right", lambda z: pt.maximum(z, REAL)),
    "maximum of units": ("refused", lambda z: pt.maximum(z, z[::-1])),
    "polynomial of a unit": ("right", lambda z: pt.sum(pt.stack([0.3 * z**k for k in range(3)]), axis=0)),
    "OpFromGraph": ("right", lambda z: from_graph(lambda x: 2 * x + 1, z)),
    "OpFromGraph: inlined": ("right", lambda z: from_graph(lambda x: 2 * x + 1, z, inline=True)),
    "OpFromGraph: that mixes": ("refused", lambda z: from_graph(pt.cumsum, z)),
    "OpFromGraph: that sums": ("refused", lambda z: from_graph(lambda x: x - x.mean(), z)),
    "OpFromGraph: in another": ("right", lambda z: from_graph(lambda x: from_graph(pt.exp, x) * 0.4, z)),
    "vectorize": ("right", lambda z: pt.vectorize(lambda x: 2 * x + 1)(z)),
    "vectorize: with a core": (
        "refused",
        lambda z: pt.vectorize(lambda x: x.sum(), signature="(n)->()")(z.reshape((2, 2))),
    ),
    "gradient": ("right", lambda z: _gradient(floats(z))),
    "Op: unknown": ("refused", lambda z: Opaque()(floats(z))),
    "Op: with an fgraph that lies": ("refused", lambda z: Lying()(floats(z))),
    "Op: with a scalar_op that lies": ("refused", lambda z: ElementwiseByName()(floats(z))),
    "specify_shape": ("right", lambda z: pt.specify_shape(z, (N,))),
    "assertion": ("refused", lambda z: pytensor.raise_op.assert_op(floats(z), pt.all(z >= 0))),
    "checkpoint of nothing": (
        "right",
        lambda z: pytensor.compile.ops.view_op(z) + pytensor.tensor.basic.tensor_copy(z),
    ),
    "interpolation": (
        "refused",
        lambda z: pytensor.tensor.interpolate.interp(0.3 + z, [0.0, 1.0, 2.0], [0.3, -0.2, 1.4]),
    ),
    "linear solve": ("refused", lambda z: pt.linalg.solve(np.eye(N) + 0.2, floats(z))),
    "inverse": ("refused", lambda z: pt.linalg.inv(pt.diag(1.0 + z))),
    "determinant": ("refused", lambda z: pt.linalg.det(pt.diag(1.0 + z) + 0.1)),
}


def _gradient(x):
    return pytensor.grad((x**3).sum(), x)


def around(operation: Callable, z) -> None:
    mu = operation(z)
    shape = np.shape(evaluate([pt.as_tensor(operation(pt.constant(np.array([1, 0, 1, 0]))))])[0])
    pm.Normal("y", mu, 1.0, observed=np.resize(REAL, shape))


ENTRIES += [
    (name, Entry(partial(on_field, partial(around, operation)), expected, slow="spikes"))
    for name, (expected, operation) in OPERATIONS.items()
]


# ---- Networks and whole models --------------------------------------------------------------------------------------


@zoo("right by both")
def a_field_alone():
    return [field()]


@zoo("right by both")
def spins_alone():
    return [spins()]


@zoo("right by both")
def a_lattice():
    return [pmn.Ising("s", 0.5 * pmn.lattice((3, 4), periodic=True), 0.1)]


@zoo("right by both")
def a_sparse_field():
    return [pmn.BoltzmannMachine("z", scipy.sparse.csr_array(np.triu(J, 2) + np.triu(J, 2).T), B)]


@zoo("right by both")
def spins_with_a_likelihood():
    s = spins()
    pm.Normal("y", pt.exp(0.3 * s), 1.0, observed=REAL)
    return [s]


@zoo("right")
def spins_through_a_switch():
    s = spins()
    flip = pm.Beta("flip", 2, 20)
    pm.Bernoulli("y", pm.math.switch(s > 0, 1 - flip, flip), observed=COUNTS > 0)
    return [s]


@zoo("right")
def spins_as_indices():
    s = spins()
    pm.Normal("y", pt.constant(MU)[(s + 1) // 2], 1.0, observed=REAL)
    return [s]


@zoo("right")
def spins_as_negative_indices():
    s = spins()
    pm.Normal("y", pt.constant(X[0])[s], 1.0, observed=REAL)
    return [s]


@zoo("refused")
def spins_that_multiply():
    s = spins()
    pm.Potential("y", 0.3 * s[0] * s[2] * s[3])
    return [s]


@zoo("right by both")
def a_batch_of_fields():
    z = pmn.BoltzmannMachine("z", J, X, event_ndim=1)
    pm.Normal("y", z, 1.0, observed=X.T)
    return [z]


@zoo("right")
def a_batch_of_grids():
    z = pmn.Ising("z", GRID_J, np.stack([GRID, -GRID, 2 * GRID]))
    pm.Normal("y", z, 1.0, observed=np.stack([GRID, GRID, -GRID]))
    return [z]


@zoo("refused")
def a_sum_over_a_batch():
    z = pmn.BoltzmannMachine("z", J, X, event_ndim=1)
    pm.Normal("y", z.sum(axis=0), 1.0, observed=REAL)
    return [z]


@zoo("right")
def a_batch_with_a_batch_of_children():
    z = pmn.BoltzmannMachine("z", J, X[:2], event_ndim=1)
    pm.Normal("y", pm.Normal("x", z, 1.0), 1.0, observed=X[:2])
    return [z]


@zoo("right by both")
def a_masked_field():
    return [field(observed=np.ma.masked_array([0, 1, 1, 0], [True, False, True, True]))]


@zoo("right")
def a_masked_field_with_a_likelihood():
    z = field(observed=np.ma.masked_array([0, 1, 1, 0], [True, False, True, True]))
    pm.Normal("y", 0.6 * z, 1.0, observed=REAL)
    return [z]


@zoo("right")
def masked_spins_with_a_likelihood():
    s = spins(observed=np.ma.masked_array([-1, 1, 1, -1], [True, False, True, True]))
    pm.Normal("y", 0.6 * s, 1.0, observed=REAL)
    return [s]


@zoo("refused")
def a_masked_field_with_a_sum():
    z = field(observed=np.ma.masked_array([0, 1, 1, 0], [True, False, True, True]))
    pm.Potential("y", 0.3 * z.sum() ** 2)
    return [z]


@zoo("right")
def a_masked_grid_with_a_likelihood():
    z = pmn.Ising("z", GRID_J, GRID, observed=np.ma.masked_array([[-1, 1], [1, -1]], [[True, False], [True, True]]))
    pm.Normal("y", 0.6 * z, 1.0, observed=GRID)
    return [z]


@zoo("right")
def masked_rows_of_a_batch():
    mask = np.array([[True] * N, [False] * N, [True] * N])
    z = pmn.BoltzmannMachine("z", J, X[:3], event_ndim=1, observed=np.ma.masked_array(np.ones((3, N), int), mask))
    pm.Normal("y", 0.6 * z, 1.0, observed=X[:3])
    return [z]


@zoo("right")
def masked_elements_of_a_batch():
    mask = np.eye(3, N, dtype=bool)
    z = pmn.BoltzmannMachine("z", J, X[:3], event_ndim=1, observed=np.ma.masked_array(np.ones((3, N), int), mask))
    pm.Normal("y", 0.6 * z, 1.0, observed=X[:3])
    return [z]


@zoo("right")
def a_masked_field_and_masked_data():
    z = field(observed=np.ma.masked_array([0, 1, 1, 0], [True, False, True, True]))
    pm.Normal("y", 0.6 * z, 1.0, observed=np.ma.masked_array(REAL, [True, True, False, False]))
    return [z]


@zoo("right")
def free_and_clamped_units_apart():
    z = field(observed=np.ma.masked_array([0, 1, 1, 0], [True, False, True, True]))
    pm.Normal("y", 0.6 * z[[0, 1]], 1.0, observed=REAL[:2])
    pm.Normal("x", z[2], 1.0)
    return [z]


def rbm(name="v", **options):
    return pmn.BernoulliRBM(name, W, B[:3], B[:2], **options)


@zoo("right by both")
def an_rbm_with_auxiliary_hidden_units():
    return [rbm()]


@zoo("right by both")
def an_rbm_with_hidden_units():
    v = rbm()
    return [v, pmn.HiddenUnits("h", v)]


@zoo("right by both")
def hidden_units_alone():
    return [pmn.HiddenUnits("h", rbm())]


@zoo("right by both")
def visible_units_given_hidden_ones():
    v = rbm()
    pmn.HiddenUnits("h", v)
    return [v]


@zoo("right by both")
def evidence_on_visible_units():
    v = rbm()
    pm.Normal("y", 0.6 * v, 1.0, observed=REAL[:3])
    return [v]


@zoo("right by both")
def evidence_on_hidden_units():
    v = rbm()
    h = pmn.HiddenUnits("h", v)
    pm.Normal("y", 0.6 * h, 1.0, observed=REAL[:2])
    return [v, h]


@zoo("right by both")
def evidence_on_each_layer():
    v = rbm()
    h = pmn.HiddenUnits("h", v)
    pm.Normal("x", 0.6 * v, 1.0)
    pm.Poisson("y", 1.0 + h, observed=COUNTS[:2])
    return [v, h]


@zoo("refused")
def a_term_on_both_layers():
    v = rbm()
    h = pmn.HiddenUnits("h", v)
    pm.Normal("y", v[:2] + h, 1.0, observed=REAL[:2])
    return [v, h]


@zoo("refused")
def a_sum_of_visible_units():
    v = rbm()
    pm.Normal("y", v.sum(), 1.0, observed=0.7)
    return [v]


@zoo("refused")
def a_sum_of_hidden_units():
    v = rbm()
    h = pmn.HiddenUnits("h", v)
    pm.Normal("y", h.sum(), 1.0, observed=0.7)
    return [v, h]


@zoo("right by both")
def an_rbm_with_masked_data():
    return [rbm(observed=np.ma.masked_array([0, 1, 1], [True, False, True]))]


@zoo("right by both")
def an_rbm_with_masked_data_and_hidden_units():
    v = rbm(observed=np.ma.masked_array([0, 1, 1], [True, False, True]))
    h = pmn.HiddenUnits("h", v)
    pm.Normal("y", 0.6 * h, 1.0, observed=REAL[:2])
    return [v, h]


@zoo("right by both")
def hidden_units_of_data():
    return [pmn.HiddenUnits("h", rbm(observed=[0, 1, 1]))]


@zoo("right by both")
def masked_hidden_units():
    v = rbm()
    return [v, pmn.HiddenUnits("h", v, observed=np.ma.masked_array([1, 0], [False, True]))]


@zoo("right")
def a_batch_of_rbms():
    v = pmn.BernoulliRBM("v", W, X[:2, :3], B[:2])
    pm.Normal("y", v, 1.0, observed=X[2:, :3])
    return [v, pmn.HiddenUnits("h", v)]


@zoo("right")
def masked_rows_of_a_batch_of_rbms():
    mask = np.array([[True] * 3, [False] * 3])
    v = pmn.BernoulliRBM("v", W, X[:2, :3], B[:2], observed=np.ma.masked_array(np.ones((2, 3), int), mask))
    return [v, pmn.HiddenUnits("h", v)]


@zoo("right by both")
def an_rbm_with_random_parameters():
    beta = pm.HalfNormal("beta", 1.0)
    v = pmn.BernoulliRBM("v", beta * W, B[:3], B[:2], normalize="exact")
    return [v, pmn.HiddenUnits("h", v)]


@zoo("refused by both")
def an_rbm_with_random_parameters_without_a_normalizer():
    beta = pm.HalfNormal("beta", 1.0)
    return [pmn.BernoulliRBM("v", beta * W, B[:3], B[:2])]


@zoo("right")
def a_changed_visible_layer_as_a_child():
    v = rbm()
    changed = pt.set_subtensor(v[0], 1)
    pm.Normal("y", changed, 1.0, observed=REAL[:3])
    return [v]


@zoo("right by both")
def a_random_coupling():
    beta = pm.HalfNormal("beta", 1.0)
    s = pmn.Ising("s", pmn.lattice((2, 3)), 0.2, coupling=beta, normalize="exact")
    pm.Normal("y", 0.6 * s, 1.0, observed=X[:2, :3])
    return [s]


@zoo("refused by both")
def a_random_coupling_without_a_normalizer():
    beta = pm.HalfNormal("beta", 1.0)
    return [pmn.Ising("s", pmn.lattice((2, 3)), 0.2, coupling=beta)]


@zoo("right by both")
def random_biases():
    b = pm.Normal("b", 0.0, 1.0, shape=N)
    return [field_with(b)]


def field_with(b, **options):
    return pmn.BoltzmannMachine("z", J, b, normalize="enumerate", **options)


@zoo("right")
def biases_by_a_regression():
    slope = pm.Normal("slope", 0.0, 1.0, shape=2)
    z = field_with(pm.math.dot(X[:, :2], slope))
    pm.Normal("y", 0.6 * z, pm.HalfNormal("sigma", 1.0), observed=REAL)
    return [z]


@zoo("right")
def biases_that_are_another_field():
    z = field("z1")
    return [pmn.BoltzmannMachine("z", J, 0.4 * z[::-1], normalize="enumerate")]


@zoo("refused")
def a_field_that_is_the_bias_of_another():
    z = field("z1")
    pmn.BoltzmannMachine("z", J, 0.4 * z, normalize="enumerate")
    return [z]


@zoo("refused")
def a_field_and_the_one_of_which_it_is_the_bias():
    z = field("z1")
    return [z, pmn.BoltzmannMachine("z", J, 0.4 * z, normalize="enumerate")]


@zoo("right")
def a_uniform_coupling_of_data():
    s = pmn.Ising("s", pmn.lattice((2, 3)), 0.2, coupling=pm.Data("beta", 0.4))
    return [s]


@zoo("right by both")
def two_fields_apart():
    z, s = field(), spins()
    pm.Normal("y", 0.6 * z, 1.0, observed=REAL)
    pm.Normal("x", 0.6 * s, 1.0, observed=X[1])
    return [z, s]


@zoo("right by both")
def two_fields_joined_by_a_term():
    z, s = field(), spins()
    pm.Normal("y", s * (1 + z), 1.0, observed=REAL)
    return [z, s]


@zoo("right")
def two_fields_joined_by_other_units():
    z, s = field(), spins()
    pm.Normal("y", s + 0.5 * z[::-1], 1.0, observed=REAL)
    return [z, s]


@zoo("right")
def one_of_two_fields_joined_by_a_term():
    z, s = field(), spins()
    pm.Normal("y", s * (1 + z), 1.0, observed=REAL)
    return [z]


@zoo("right")
def fields_joined_by_an_index():
    z, z2 = field(), field("z2")
    pm.Normal("y", pt.constant(TABLE)[z, z2], 1.0, observed=REAL)
    return [z, z2]


@zoo("refused")
def two_fields_joined_by_a_sum():
    z, s = field(), spins()
    pm.Normal("y", s.sum() + z.sum(), 1.0, observed=0.3)
    return [z, s]


@zoo("right")
def fields_concatenated():
    z, s = field(), spins()
    pm.Normal("y", pt.concatenate([z, s]), 1.0, observed=np.resize(REAL, 8))
    return [z, s]


@zoo("right")
def fields_joined_by_a_child():
    z, s = field(), spins()
    pm.Normal("y", pm.Normal("x", z + s, 1.0), 1.0, observed=REAL)
    return [z, s]


@zoo("right")
def a_field_and_an_rbm_joined():
    z, v = field(), rbm()
    h = pmn.HiddenUnits("h", v)
    pm.Normal("y", z[:3] + v, 1.0, observed=REAL[:3])
    return [z, v, h]


@zoo("right")
def a_field_beside_other_discrete_variables():
    z = field()
    k = pm.Poisson("k", 1.5, shape=N)
    pm.Normal("y", z * k, 1.0, observed=REAL)
    return [z]


@zoo("refused")
def units_chosen_by_another_variable():
    z = field()
    pm.Normal("y", z[pm.Categorical("k", np.full(N, 0.25))], 1.0, observed=0.3)
    return [z]


@zoo("right by both")
def a_Gaussian_RBMs_hidden_units():
    v = pmn.GaussianRBM("v", W, B[:3], B[:2], UNIT[:3] + 0.5)
    return [pmn.HiddenUnits("h", v)]


@zoo("right")
def a_Gaussian_RBM():
    v = pmn.GaussianRBM("v", W, B[:3], B[:2], UNIT[:3] + 0.5)
    return [v, pmn.HiddenUnits("h", v)]


@zoo("right")
def a_Gaussian_RBM_with_auxiliary_hidden_units():
    return [pmn.GaussianRBM("v", W, B[:3], B[:2], UNIT[:3] + 0.5)]


@zoo("right")
def a_Gaussian_RBM_with_masked_data():
    data = np.ma.masked_array(REAL[:3], [True, False, True])
    v = pmn.GaussianRBM("v", W, B[:3], B[:2], UNIT[:3] + 0.5, observed=data)
    return [v, pmn.HiddenUnits("h", v)]


@zoo("refused by both")
def a_Gaussian_RBM_with_a_likelihood():
    v = pmn.GaussianRBM("v", W, B[:3], B[:2], UNIT[:3] + 0.5)
    pm.Normal("y", v, 1.0, observed=REAL[:3])
    return [v, pmn.HiddenUnits("h", v)]


@zoo("right")
def the_hidden_units_of_a_Gaussian_RBM_with_a_likelihood():
    v = pmn.GaussianRBM("v", W, B[:3], B[:2], UNIT[:3] + 0.5)
    h = pmn.HiddenUnits("h", v)
    pm.Normal("y", v, 1.0, observed=REAL[:3])
    pm.Poisson("c", 1.0 + h, observed=COUNTS[:2])
    return [h]


@zoo("refused by both")
def a_Gaussian_RBM_with_a_transform():
    v = pmn.GaussianRBM("v", W, B[:3], B[:2], UNIT[:3] + 0.5, transform=ordered, initval=np.arange(3.0))
    return [v, pmn.HiddenUnits("h", v)]


@zoo("refused by both")
def the_hidden_units_of_a_Gaussian_RBM_with_a_transform():
    v = pmn.GaussianRBM("v", W, B[:3], B[:2], UNIT[:3] + 0.5, transform=ordered, initval=np.arange(3.0))
    return [pmn.HiddenUnits("h", v)]


def vector(**options):
    return pm.MvNormal("x", REAL, np.eye(N) + 0.2, **options)


@zoo("right")
def a_Gaussian_vector():
    return [vector()]


@zoo("right")
def a_Gaussian_vector_by_its_precision():
    return [pm.MvNormal("x", REAL, tau=np.eye(N) + 0.2)]


@zoo("right")
def a_masked_Gaussian_vector():
    return [vector(observed=np.ma.masked_array(X[1], [True, False, True, True]))]


@zoo("right")
def masked_rows_of_Gaussian_vectors():
    mask = np.arange(3)[:, None] * np.ones(N, int) == 1
    return [vector(observed=np.ma.masked_array(X[:3], mask))]


@zoo("right")
def masked_elements_of_Gaussian_vectors():
    return [vector(observed=np.ma.masked_array(X[:3], np.eye(3, N, dtype=bool)))]


@zoo("right")
def a_Gaussian_vector_with_random_parameters():
    mu, sigma = pm.Normal("mu", 0.0, 1.0), pm.HalfNormal("sigma", 1.0)
    return [pm.MvNormal("x", mu * np.ones(N), sigma * (np.eye(N) + 0.2))]


@zoo("right")
def a_Gaussian_vector_around_units():
    z = field()
    return [pm.MvNormal("x", 0.6 * z, np.eye(N) + 0.2)]


@zoo("refused by both")
def a_Gaussian_vector_with_a_likelihood():
    x = vector()
    pm.Normal("y", x, 1.0, observed=REAL)
    return [x]


@zoo("refused by both")
def an_ordered_Gaussian_vector():
    return [vector(transform=ordered, initval=np.arange(4.0))]


@zoo("refused by both")
def a_Gaussian_vector_in_an_interval():
    return [vector(transform=Interval(-3, 3))]


@zoo("right", then=lambda model: model.set_data("gain", [2.0, -1.0, 0.5, 0.0]))
def data_that_are_changed():
    z = field()
    pm.Normal("y", pm.Data("gain", REAL) * z, 1.0, observed=REAL)
    return [z]


def _other_groups(model):
    with model:
        pm.set_data({"unit": [1, 2, 3, 3, 0], "data": [0.4, -0.3, 1.2, 0.9, -1.1]})


@zoo("right", then=_other_groups)
def data_that_are_changed_indices():
    z = field()
    pm.Normal("y", z[pm.Data("unit", [0, 0, 1])], 1.0, observed=pm.Data("data", REAL[:3]))
    return [z]


@zoo("right", then=lambda model: model.set_data("b", -2 * B))
def data_that_are_changed_biases():
    return [pmn.BoltzmannMachine("z", J, pm.Data("b", B))]


@zoo("right", then=lambda model: model.set_data("beta", -0.7))
def data_that_are_a_changed_coupling():
    return [pmn.Ising("s", J, B, coupling=pm.Data("beta", 0.4))]


@zoo("right")
def data_that_are_indices_into_a_table():
    z = field()
    pm.Normal("y", pt.constant(X)[pm.Data("row", [0, 2, 1, 1]), z], 1.0, observed=REAL)
    return [z]


def _field_with_a_child():
    z = field()
    x = pm.Normal("x", 0.6 * z, 1.0)
    pm.Normal("y", x + z[::-1], 1.0)
    return z, x


@zoo("right")
def an_observed_child():
    _field_with_a_child()
    model = pm.observe(pm.modelcontext(None), {"x": REAL, "y": X[1]})
    return model, [model["z"]]


@zoo("refused")
def a_free_child_of_two_units():
    z = field()
    pm.Normal("y", pm.Normal("x", 0.6 * z, 1.0) + 0.5 * z[::-1] * z, 1.0)
    model = pm.observe(pm.modelcontext(None), {"y": X[1]})
    return model, [model["z"]]


@zoo("right")
def a_child_cut_off_by_do():
    _field_with_a_child()
    model = pm.do(pm.modelcontext(None), {"x": REAL})
    return model, [model["z"]]


@zoo("right")
def a_field_beside_one_fixed_by_do():
    z, s = field(), spins()
    pm.Normal("y", z * s[::-1], 1.0, observed=REAL)
    model = pm.do(pm.modelcontext(None), {"s": np.array([1, -1, -1, 1])})
    return model, [model["z"]]


@zoo("right")
def an_rbm_whose_hidden_units_are_observed():
    v = rbm()
    pmn.HiddenUnits("h", v)
    model = pm.observe(pm.modelcontext(None), {"h": np.array([1, 0])})
    return model, [model["v"]]


@zoo("right")
def an_rbm_whose_visible_units_are_fixed_by_do():
    v = rbm()
    pmn.HiddenUnits("h", v)
    model = pm.do(pm.modelcontext(None), {"v": np.array([1, 0, 1])})
    return model, [model["h"]]


@zoo("right")
def names_of_dimensions():
    model = pm.modelcontext(None)
    model.add_coords({"site": list("abcd"), "group": ["x", "y"]})
    z = field(dims="site")
    group = np.array([0, 1, 1, 0])
    mu = pm.Normal("mu", 0.0, 1.0, dims="group")
    pm.Normal("y", mu[group] * z, 1.0, observed=REAL, dims="site")
    return [z]


@zoo("right", floatX="float32")
def float32():
    z = field()
    pm.Normal("y", 0.6 * z, 1.0, observed=REAL)
    return [z]


@zoo("right", floatX="float32")
def float32_spins_with_a_child():
    s = spins()
    pm.Normal("x", 0.6 * s, 1.0)
    return [s]


@zoo("right", floatX="float32")
def float32_rbm():
    v = rbm()
    return [v, pmn.HiddenUnits("h", v)]


@zoo("refused", floatX="float32")
def float32_sum():
    z = field()
    pm.Normal("y", 0.6 * z.sum(), 1.0, observed=0.7)
    return [z]


@zoo("right")
def a_model_without_checks_of_bounds():
    with pm.Model(check_bounds=False) as model:
        z = field()
        pm.Bernoulli("y", 0.2 + 0.6 * z, observed=COUNTS > 0)
    return model, [z]


@zoo("right")
def a_submodel():
    with pm.Model(name="inner"):
        z = field()
        pm.Normal("y", 0.6 * z, 1.0, observed=REAL)
    return [z]


@zoo("refused")
def a_field_whose_data_are_biased_by_units():
    z = field()
    pmn.BoltzmannMachine("y", J, 0.4 * z, normalize="enumerate", observed=[0, 1, 1, 0])
    return [z]


@zoo("refused")
def a_unit_that_is_the_coupling_of_another_field():
    z = field()
    pmn.Ising("s", J, B, coupling=0.4 * z[0], normalize="enumerate")
    return [z]


@zoo("refused")
def units_that_are_the_biases_of_an_rbm():
    z = field()
    pmn.BernoulliRBM("v", W, 0.4 * z[:3], B[:2], normalize="exact")
    return [z]


@zoo("refused by both")
def two_layers_of_hidden_units_of_one_rbm():
    v = rbm()
    return [v, pmn.HiddenUnits("h", v), pmn.HiddenUnits("h2", v)]


@zoo("refused by both")
def a_mixture_of_fields():
    fields = [pmn.BoltzmannMachine.dist(J, b, normalize="enumerate") for b in (B, -B)]
    return [pm.Mixture("z", [0.4, 0.6], fields)]


@zoo("refused by both")
def variables_that_are_not_two_valued():
    return [pm.Poisson("k", 1.5, shape=N)]


@zoo("refused by both")
def real_variables_of_no_network():
    return [pm.Normal("x", 0.0, 1.0, shape=N)]


@zoo("right")
def a_field_of_one_unit():
    z = pmn.BoltzmannMachine("z", [[0.0]], [0.3])
    pm.Normal("y", 0.6 * z, 1.0, observed=REAL)
    return [z]


@zoo("right")
def a_masked_field_as_indices():
    z = field(observed=np.ma.masked_array([0, 1, 1, 0], [True, False, True, True]))
    pm.Normal("y", pm.Normal("mu", 0.0, 1.0, shape=2)[z], 1.0, observed=REAL)
    return [z]


@zoo("right")
def fields_that_must_agree():
    z, z2 = field(), field("z2")
    pm.Potential("y", pt.switch(pt.eq(z, z2), 0.3, -1.2))
    return [z, z2]


def on_a_changed_layer(change: Callable) -> Sequence:
    v = rbm()
    return [v, pmn.HiddenUnits("h", change(v))]


ENTRIES += [
    (f"Hidden units: {name}", Entry(partial(on_a_changed_layer, change), "refused when declared"))
    for name, change in {
        "of a layer with a unit set": lambda v: pt.set_subtensor(v[0], 1),
        "of a layer with units set": lambda v: pt.set_subtensor(v[np.array([0, 2])], 1),
        "of a layer that is turned round": lambda v: v[::-1],
        "of a layer that is increased": lambda v: pt.inc_subtensor(v[0], 1),
        "of a layer of another order": lambda v: pt.set_subtensor(v[np.array([2, 0, 1])], v),
        "of a part of a layer": lambda v: v[:2],
        "of a function of a layer": lambda v: 1 - v,
    }.items()
]


@zoo("refused")
def coins():
    z = pm.Bernoulli("z", 0.4, shape=N)
    pm.Normal("y", z.sum(), 1.0, observed=0.7)
    return [z]


@zoo("right by spikes")
def coins_in_a_regression():
    z = pm.Bernoulli("z", 0.4, shape=N)
    slope = pm.Normal("slope", 0.0, 1.0, shape=N)
    pm.Normal("y", pt.dot(X, z * slope), pm.HalfNormal("sigma", 1.0), observed=REAL)
    return [z]


@zoo("right by spikes")
def a_chain_of_coins():
    first = pm.Bernoulli("first", 0.4)
    second = pm.Bernoulli("second", 0.2 + 0.5 * first)
    pm.Normal("y", first + second, 1.0, observed=0.7)
    return [first, second]


@zoo("right by spikes")
def masked_coins():
    z = pm.Bernoulli("z", 0.4, observed=np.ma.masked_array([0, 1, 1, 0], [True, False, True, True]))
    pm.Normal("y", z.sum(), 1.0, observed=0.7)
    return [z]


@zoo("right by spikes")
def coins_beside_a_field():
    z, k = field(), pm.Bernoulli("k", 0.4, shape=N)
    pm.Normal("y", z * k, 1.0, observed=REAL)
    return [z, k]


# ---- The tests ------------------------------------------------------------------------------------------------------

pytestmark = [
    pytest.mark.filterwarnings("ignore::pymc.exceptions.ImputationWarning"),
    # What PyMC itself still does.
    pytest.mark.filterwarnings("ignore:pytensor.tensor.linalg.trace is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:RandomVariable Ops will stop hiding:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Calling a RandomVariable without an explicit rng:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning"),
    pytest.mark.filterwarnings("ignore:Scan return signature will change:DeprecationWarning"),
]

NAMES = [name for name, _ in ENTRIES]
STEPS = {"blocks": pmn.BlockGibbs, "spikes": partial(pmn.NeuralSampling, tau=2)}
IN_PYTHON = Mode(linker="py", optimizer="fast_compile")
PACKAGES = tuple(Path(str(package.__file__)).parent for package in (step_methods, pmn))
N_POINTS = 3


def was_raised_here(error: Exception) -> bool:
    """Whether this package raised an error on purpose, not an operation on arrays that do not fit."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return str(last.line).startswith("raise") and any(package in Path(last.filename).parents for package in PACKAGES)


def outcome(step_method: Callable, entry: Entry, mode: Mode | str) -> str:
    """Return what becomes of a model: "right", "refused", or what the step does wrong."""
    with pytensor.config.change_flags(floatX=entry.floatX, mode=mode):
        try:
            with pm.Model() as model:
                variables = entry.declare()
        except (TypeError, ValueError) as error:
            if not was_raised_here(error):
                raise
            return "refused when declared"
        if isinstance(variables, tuple):
            model, variables = variables
        start = model.initial_point()
        try:
            with model:
                step = step_method(variables, initial_point=start, compile_kwargs={"mode": mode})
        except ValueError as error:
            if not was_raised_here(error):
                raise
            return "refused"
        if entry.then is not None:
            entry.then(model)
        check = check_conditionals(step, n_points=N_POINTS, random_seed=1)
        return "right" if check.passed else str(check)


def cases(names: Collection[str], with_slow: bool = True) -> list:
    return [
        pytest.param(entry, step, expected, id=f"{name} by {step}", marks=[pytest.mark.slow] if is_slow else [])
        for name, entry in ENTRIES
        for step, expected in zip(STEPS, EXPECTATIONS[entry.expected], strict=True)
        # What BlockGibbs refuses takes the compiled log-probability twice as long to build.
        for is_slow in [step in (entry.slow, "spikes" if entry.expected == "refused" else None)]
        if expected is not None and name in names and (with_slow or not is_slow)
    ]


@pytest.mark.parametrize(("entry", "step", "expected"), cases(NAMES))
def test_a_model_is_sampled_right_or_refused(entry, step, expected):
    assert outcome(STEPS[step], entry, IN_PYTHON) == expected


# What the default backend compiles otherwise: loops, batches of operations, choices, masks, float32.
WITH_NUMBA = {
    "Normal(mu=z, sigma=z)",
    "Mixture: weights",
    "GARCH11: omega of each row",
    "MvNormal: mu",
    "Data: masked elements",
    "mu[z]",
    "scan: leaky integrator",
    "index: boolean of units",
    "an rbm with masked data and hidden units",
    "two fields joined by a term",
    "a random coupling",
    "float32",
}


@pytest.mark.parametrize(("entry", "step", "expected"), cases(WITH_NUMBA, with_slow=False))
def test_a_model_compiled_by_numba(entry, step, expected):
    assert outcome(STEPS[step], entry, "NUMBA") == expected


@pytest.mark.slow
@pytest.mark.parametrize(("entry", "step", "expected"), cases(set(NAMES) - WITH_NUMBA, with_slow=False))
def test_any_model_compiled_by_numba(entry, step, expected):
    assert outcome(STEPS[step], entry, "NUMBA") == expected


def test_the_zoo_is_large_and_no_model_is_in_it_twice():
    assert len(NAMES) >= 100
    assert len(set(NAMES)) == len(NAMES)
    assert set(NAMES) >= WITH_NUMBA
    definitions = [own for _, entry in ENTRIES if (own := definition(entry)) is not None]
    assert len(set(definitions)) == len(definitions)


def definition(entry: Entry) -> str | None:
    """Return what a model is declared by, None where it is a family and its parameters."""
    function: Any = entry.declare
    while isinstance(function, partial):
        function = None if function.func is family else function.args[0]
    code = getattr(function, "__code__", None)
    return code and repr([code.co_code, code.co_consts, code.co_names, entry.floatX])


# Families without a parameter that a unit could be in, other names of families, and what needs a further package.
NO_PLACE_FOR_A_UNIT = {
    "Continuous",
    "DensityDist",
    "Discrete",
    "Distribution",
    "Flat",
    "HalfFlat",
    "Interpolated",
    "Lognormal",
    "PolyaGamma",
    "SymbolicRandomVariable",
    "WishartBartlett",
}


def test_every_family_of_pymc_has_a_unit_in_it():
    source = Path(__file__).read_text(encoding="utf-8")
    named = {name for name in pm.distributions.__all__ if re.search(rf"\bpm\.{name}(\.dist)?\(", source)}
    assert set(pm.distributions.__all__) - NO_PLACE_FOR_A_UNIT == (set(FAMILIES) | named) - NO_PLACE_FOR_A_UNIT
