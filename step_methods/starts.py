"""Find states that chains can start in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np
from pymc.blocking import PointType
from pymc.initial_point import make_initial_point_fn
from pymc.model import Model, modelcontext
from pymc.pytensorf import compile as compile_pymc
from pymc.util import RandomGenerator, get_random_generator
from pytensor import shared
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from step_methods.block_gibbs import BlockGibbs
from step_methods.checks import at_least
from step_methods.reading.layers import is_layer, two_values

__all__ = ["find_start", "starts_with_children"]

_ATTEMPTS = 100
_SWEEPS = 20


def find_start(
    model: Model | None = None, *, chains: int = 4, random_seed: RandomGenerator = None
) -> list[dict[str, np.ndarray]]:
    """Find a start for each chain that every term of a model gives a probability.

    Two-valued units start from coins, restricted to what the evidence on each of them allows; variables whose prior
    depends on units are drawn from it, given the coins; others start from PyMC's default. Where a term is still
    violated, units that it depends on are flipped as long as that violates no more, and then all is tried again with
    the other variables drawn from their prior.

    You need it where a hard constraint excludes PyMC's default start and another step method goes first, or where units
    are tied so firmly that single flips do not lead to a possible state. Otherwise chains of `BlockGibbs` and
    `NeuralSampling` start from such states by themselves.

    Parameters
    ----------
    model : Model, optional
        The model of the context by default.
    chains : int
        How many starts to find.
    random_seed : int or Generator, optional

    Returns
    -------
    list of dict
        For ``pm.sample(chains=4, initvals=pmn.find_start(model, chains=4))``: the values of all free variables by
        their names. The free units of masked data have a name of their own, as in ``z_unobserved``.

    Raises
    ------
    TypeError
        If `chains` is not an integer.
    ValueError
        If `chains` is less than 1, or if no start is found; the error names the terms that were not satisfied.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> with pm.Model() as model:
    ...     z = pmn.BoltzmannMachine("z", np.zeros((6, 6)), 0.0)
    ...     pm.Potential("three", pm.math.switch(pm.math.eq(z.sum(), 3), 0.0, -np.inf))
    >>> [int(start["z"].sum()) for start in pmn.find_start(model, chains=2, random_seed=1)]
    [3, 3]
    """
    model = modelcontext(model)
    chains = at_least(1, "chains", chains)
    search = _Search(model)
    return [search.run(rng) for rng in get_random_generator(random_seed).spawn(chains)]


def starts_with_children(model: Model, chains: int, rng: np.random.Generator) -> list[dict[str, np.ndarray]] | None:
    """Find starts where other variables depend on units, None where none do or no start is found.

    A step that tosses coins for units, and then draws them given such variables at PyMC's default, has the start of the
    default. See `find_start`.
    """
    search = _Search(model)
    if not search.has_children:
        return None
    try:
        return [search.run(own) for own in rng.spawn(chains)]
    except ValueError:
        return None


class _Search:
    """What a search for starts needs of a model, compiled once."""

    def __init__(self, model: Model):
        self._default = model.initial_point()
        self._values = {
            model.rvs_to_values[rv].name: values for rv in model.free_RVs if (values := two_values(rv)) is not None
        }
        others = [rv for rv in model.free_RVs if model.rvs_to_values[rv].name not in self._values]
        self._from_prior = make_initial_point_fn(model=model, overrides=dict.fromkeys(others, "prior"))
        units = [rv for rv in model.free_RVs if model.rvs_to_values[rv].name in self._values]
        self._coins = {
            model.rvs_to_values[rv].name: shared(self._default[model.rvs_to_values[rv].name]) for rv in units
        }
        children = [rv for rv in others if not set(units).isdisjoint(ancestors([rv]))]
        self._children = [str(model.rvs_to_values[rv].name) for rv in children]
        overrides = {rv: self._coins[model.rvs_to_values[rv].name] for rv in units} | dict.fromkeys(children, "prior")
        self._given_coins = make_initial_point_fn(model=model, overrides=overrides) if children else None
        terms = [*model.basic_RVs, *model.potentials]
        self._terms = [str(term.name) for term in terms]
        logps = model.logp(vars=terms, sum=False)
        self._inputs = [str(var.name) for var in model.value_vars]
        self._logps = _compiled(model.value_vars, logps)
        self._units_of = [{str(var.name) for var in ancestors([logp])} & set(self._values) for logp in logps]
        self._names = [str(rv.name) for rv in model.free_RVs]
        self._untransformed = _compiled(model.value_vars, model.replace_rvs_by_values(model.free_RVs))
        self._step = _block_gibbs(model)

    @property
    def has_children(self) -> bool:
        """Whether variables other than units have a prior that depends on units."""
        return bool(self._children)

    def run(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return a start as initial values.

        Raises
        ------
        ValueError
        """
        fewest: list[str] = self._terms
        for attempt in range(_ATTEMPTS):
            point = self._default if attempt == 0 else self._drawn(self._from_prior, rng)
            point = self._toss(dict(point), rng)
            if self._given_coins is not None:
                for name, coins in self._coins.items():
                    coins.set_value(point[name])
                drawn = self._drawn(self._given_coins, rng)
                point.update({name: drawn[name] for name in self._children})
            violated = self._repair(point, rng)
            if not violated:
                values = self._untransformed(*(point[name] for name in self._inputs))
                return dict(zip(self._names, values, strict=True))
            fewest = min(fewest, violated, key=len)
        raise ValueError(
            f"found no start with a finite log-probability: the terms {', '.join(map(repr, fewest))} of the model were "
            f"not satisfied at once in {_ATTEMPTS} attempts. If they can be, pass such a state as initvals"
        )

    def _drawn(self, draw: Callable[[int], PointType], rng: np.random.Generator) -> PointType:
        """Return a point that is drawn, or the default where a prior has no draws."""
        try:
            return draw(int(rng.integers(2**30)))
        except NotImplementedError:
            return self._default

    def _toss(self, point: PointType, rng: np.random.Generator) -> PointType:
        """Toss a coin for each unit; for those of networks that leave the step a choice, as evidence allows."""
        start, by_step = point, set()
        if self._step is not None:
            self._step.setup_chain(rng, 0, 0)
            with suppress(ValueError):  # where the other variables leave no value to a unit
                start = self._step.begin(point)
                by_step = {var.name for var in self._step.vars}
        for name, (low, high) in self._values.items():
            if name not in by_step:
                start[name] = np.where(rng.integers(0, 2, start[name].shape), high, low).astype(start[name].dtype)
        return start

    def _repair(self, point: PointType, rng: np.random.Generator) -> list[str]:
        """Flip units, in place, until no term is violated; return those that are in the end."""
        violations = self._violations(point)
        for _ in range(_SWEEPS):
            # Flips mend no term without units.
            if not violations.any() or any(not self._units_of[k] for k in np.flatnonzero(violations)):
                break
            names = set().union(*(self._units_of[k] for k in np.flatnonzero(violations)))
            units = [(name, k) for name in self._values if name in names for k in range(point[name].size)]
            for i in rng.permutation(len(units)):
                name, k = units[i]
                before = point[name]
                point[name] = before.copy()
                point[name].reshape(-1)[k] = sum(self._values[name]) - before.reshape(-1)[k]
                flipped = self._violations(point)
                if flipped.sum() > violations.sum() or (flipped.sum() == violations.sum() and rng.integers(2)):
                    point[name] = before
                    continue
                violations = flipped
                if not violations.any():
                    break
        return [self._terms[k] for k in np.flatnonzero(violations)]

    def _violations(self, point: Mapping[str, np.ndarray]) -> np.ndarray:
        """Count the elements of each term that have no finite log-probability."""
        logps = self._logps(*(point[name] for name in self._inputs))
        return np.array([np.count_nonzero(~np.isfinite(logp)) for logp in logps])


def _block_gibbs(model: Model) -> BlockGibbs | None:
    """Return a step that knows the evidence on the layers of a model's networks, None if there is no such step."""
    layers = [rv for rv in model.free_RVs if is_layer(rv)]
    if not layers:
        return None
    try:
        return BlockGibbs(layers, model=model, compile_kwargs={"mode": "FAST_COMPILE"})
    except ValueError:  # terms that join units, or leave none of their values at the default start
        return None


def _compiled(inputs: Sequence[Variable], outputs: Sequence[Variable]) -> Callable:
    function = compile_pymc(list(inputs), list(outputs), mode="FAST_COMPILE", on_unused_input="ignore")
    function.trust_input = True
    return function
