"""Block Gibbs sampling of networks of binary units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, ClassVar

import numpy as np
from pymc.blocking import PointType, StatsType
from pymc.model import Model, modelcontext
from pymc.step_methods.compound import BlockedStep, Competence, StepMethodState
from pymc.step_methods.state import dataclass_state
from pymc.util import RandomGenerator, get_random_generator, get_value_vars_from_user_vars
from pytensor.graph.basic import Variable
from rich.progress import TextColumn
from rich.table import Column

from step_methods._pairwise import PairwiseSampler
from step_methods._restricted import RestrictedSampler, Units
from step_methods.evidence import Evidence
from step_methods.kernels.random import seed_stream
from step_methods.network import NetworkReader, PairwiseNetwork, check_units, free_variable, is_layer, read_networks

__all__ = ["BlockGibbs"]


type _Sampler = RestrictedSampler | PairwiseSampler


@dataclass_state
class BlockGibbsState(StepMethodState):
    """What the step carries from draw to draw: its stream of random numbers."""

    stream: np.ndarray


class BlockGibbs(BlockedStep):
    r"""Block Gibbs sampling of restricted Boltzmann machines, Boltzmann machines and Ising fields.

    Units that do not interact are independent given the others, so they are drawn together from their exact
    conditional. In a restricted machine these are its two layers: a sweep draws h given v, then v given h (Smolensky
    [1]_; Hinton [2]_, section 2). In a field of units that are coupled in pairs they are the colors of its graph, two
    on most lattices; a dense network is swept unit by unit. Each sweep leaves the posterior invariant, which
    ``pmn.diagnostics.certify`` proves on small models through the kernel that runs.

    Other terms of the model that depend on a unit, such as a likelihood or a child, are evidence: they enter the unit's
    logit as log p(unit = 1) − log p(unit = 0). Each element of a term may depend on one unit, through element-wise
    operations, constant indices, broadcasting and sums over other axes; other terms are refused, never ignored.

    It is chosen by a bare ``pm.sample()`` for `BernoulliRBM`, `HiddenUnits`, `BoltzmannMachine` and `Ising`; options
    then go through ``pm.sample(block_gibbs={"sweeps_per_draw": 10})``.

    Parameters
    ----------
    vars : list of Variable
        Layers or fields of one or more networks, clamped units (masked data) allowed. With the visible units alone,
        hidden units are auxiliary: drawn within the step, and forgotten, if the model has no `HiddenUnits` of
        them. If it has, the step conditions on their current values. With `HiddenUnits` alone it conditions on
        the current visible units.
    sweeps_per_draw : int
        Sweeps between two draws, all inside one compiled call. A draw costs PyMC about 7 µs (on one core,
        without progress bar), a sweep of a small machine 1 µs: several sweeps a draw give less correlated draws
        for about the same time and memory. With ``cores=1`` no draw has to travel between processes, which
        costs more than 100 µs each.
    model : Model, optional
        The model of the context by default.
    rng : int, Generator or None
        Seed; ``pm.sample`` sets each chain's own.
    initial_point : dict, optional
        A point of the model, to read shapes from.
    compile_kwargs : dict, optional
        For parameters that depend on other variables; they are compiled and read at each step. Constant parameters
        are read once, shared data (``pm.Data``) at the start of each chain.
    blocked : bool
        With False each variable gets a step of its own, which conditions on the others.

    Raises
    ------
    TypeError
        If `sweeps_per_draw` is not an integer.
    ValueError
        If a variable is not a layer of a network or not in the model; if it has no free units; if an element of
        another term of the model depends on several units, if the term excludes both values of a unit, sees a
        minibatch or joins the two layers of one network; if parameters are random and the network is not normalized;
        if the start value is not one of the units' two values.

    Notes
    -----
    Sampler statistics:

    - ``energy``: of the draw, E(v, h) where the model has hidden units and the free energy F(v) where they are
      auxiliary, summed over all networks of the step, without evidence;
    - ``flip_rate``: the fraction of the step's units that changed their value since the last draw.

    References
    ----------
    .. [1] P. Smolensky, "Information processing in dynamical systems: foundations of harmony theory", in
       Parallel Distributed Processing 1 (1986) 194.
    .. [2] G. Hinton, "Training products of experts by minimizing contrastive divergence", Neural Computation 14 (2002)
       1771.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> with pm.Model():
    ...     v = pmn.BernoulliRBM("v", np.ones((6, 4)), np.full(6, -2.0), np.full(4, -2.0))
    ...     step = pmn.BlockGibbs([v], sweeps_per_draw=5)
    ...     idata = pm.sample(100, tune=0, chains=2, cores=1, step=step, progressbar=False)
    """

    name = "block_gibbs"
    default_tune_steps = 100
    stats_dtypes_shapes: ClassVar[dict] = {"energy": (np.float64, []), "flip_rate": (np.float64, [])}
    _state_class = BlockGibbsState

    def __init__(
        self,
        vars: Sequence[Variable] | Variable,
        *,
        sweeps_per_draw: int = 1,
        model: Model | None = None,
        rng: RandomGenerator = None,
        initial_point: PointType | None = None,
        compile_kwargs: dict[str, Any] | None = None,
        blocked: bool = True,
    ):
        model = modelcontext(model)
        self.sweeps_per_draw = _at_least_one("sweeps_per_draw", sweeps_per_draw)
        vars = vars if isinstance(vars, Sequence) else [vars]
        free = [free_variable(model, var) for var in vars]
        self.vars = get_value_vars_from_user_vars(list(dict.fromkeys(free)), model)
        self.blocked = blocked
        if initial_point is None:
            initial_point = model.initial_point()

        rvs = [model.values_to_rvs[value] for value in self.vars]
        updated = {value.name: value for value in self.vars}
        readers = read_networks(model, rvs, initial_point, compile_kwargs)
        self._layers = {name: layer for reader in readers for name, layer in reader.free_layers.items()}
        self._check_values(initial_point)
        evidence = {
            name: Evidence(model, updated[name], self._layers[name].values, terms, initial_point, compile_kwargs)
            for reader in readers
            for name, terms in reader.terms.items()
            if terms
        }
        self._samplers: list[_Sampler] = [
            PairwiseSampler(reader, evidence)
            if isinstance(reader.network, PairwiseNetwork)
            else RestrictedSampler(reader, set(updated), evidence)
            for reader in readers
        ]
        # Networks that a term joins are updated in turn within every sweep, otherwise one after the other.
        joined = _joins_networks(readers)
        self._n_rounds = self.sweeps_per_draw if joined else 1
        self._sweeps_per_round = 1 if joined else self.sweeps_per_draw
        for sampler in self._samplers:
            sampler.read(initial_point)
        self._n_units = sum(sampler.n_units for sampler in self._samplers)
        self._start(get_random_generator(rng))

    def setup_chain(self, rng: RandomGenerator, tune: int, draws: int) -> None:
        """Seed the chain's stream and read shared data anew."""
        for sampler in self._samplers:
            sampler.start()
            if not sampler.changes:
                sampler.read({})
        self._start(get_random_generator(rng, copy=False))

    def _start(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.stream = seed_stream(rng)
        self._start_is_checked = False

    def step(self, point: PointType) -> tuple[PointType, StatsType]:
        """Draw all units of the step's variables once."""
        if not self._start_is_checked:
            self._check_values(point)
            self._start_is_checked = True
        new_point = point.copy()
        energies: dict[int, float] = {}
        n_changed = 0
        for i, sampler, old, new in self._each_sampler(new_point):
            energies[i], changed = sampler.draw(old, new, self._sweeps_per_round, self.stream)
            n_changed += changed
        flip_rate = n_changed / (self._n_rounds * self._n_units)
        return new_point, [{"energy": sum(energies.values()), "flip_rate": flip_rate}]

    def forced_step(self, point: PointType, bits: np.ndarray) -> tuple[PointType, np.ndarray]:
        """Make one step whose random decisions are given, from which its exact transition matrix is computed.

        Parameters
        ----------
        point : dict
        bits : ndarray of uint8
            The decisions, in the order in which the step makes them; zeros where they run out.

        Returns
        -------
        new_point : dict
        probabilities : ndarray of float64
            The probability with which each decision would have come out as 1, as the kernel itself computed it; as many
            as the step makes decisions.
        """
        new_point = point.copy()
        decisions = chain(bits.tolist(), repeat(0))
        probabilities: list[float] = []
        for _, sampler, old, new in self._each_sampler(new_point):
            probabilities += sampler.force(old, new, self._sweeps_per_round, decisions)
        return new_point, np.array(probabilities)

    def _each_sampler(
        self, point: PointType
    ) -> Iterator[tuple[int, RestrictedSampler | PairwiseSampler, Units, Units]]:
        """Go through the samplers; each gets old units and room for new ones, which the point then holds."""
        for _ in range(self._n_rounds):
            for i, sampler in enumerate(self._samplers):
                if sampler.changes:
                    sampler.read(point)
                old: Units = {name: point[name].ravel() for name in sampler.conditioned_on}
                fresh = {name: point[name].copy() for name in sampler.updated}
                yield i, sampler, old, {name: value.reshape(-1) for name, value in fresh.items()}
                point.update(fresh)

    def _check_values(self, point: Mapping[str, np.ndarray]) -> None:
        for name, layer in self._layers.items():
            check_units(np.asarray(point[name]), layer.values, f"the start value of {name!r}")

    @staticmethod
    def competence(var: Variable, has_grad: bool = False) -> Competence:
        """IDEAL for layers of networks, INCOMPATIBLE with everything else."""
        return Competence.IDEAL if is_layer(var) else Competence.INCOMPATIBLE

    @staticmethod
    def _progressbar_config(n_chains: int = 1) -> tuple[list[TextColumn], dict[str, list[float]]]:
        columns = [
            TextColumn("{task.fields[energy]:0.2f}", table_column=Column("Energy", ratio=1)),
            TextColumn("{task.fields[flip_rate]:0.2f}", table_column=Column("Flip rate", ratio=1)),
        ]
        return columns, {"energy": [0.0] * n_chains, "flip_rate": [0.0] * n_chains}

    @staticmethod
    def _make_progressbar_update_functions():
        def update_stats(step_stats):
            return {key: step_stats[key] for key in ("energy", "flip_rate")}

        return (update_stats,)


def _joins_networks(readers: Sequence[NetworkReader]) -> bool:
    """Whether a term depends on two of the networks; raise if it depends on both layers of one."""
    seen: set[Variable] = set()
    joined = False
    for reader in readers:
        own: set[Variable] = set()
        for terms in reader.terms.values():
            if both := own & set(terms):
                names = ", ".join(repr(term.name) for term in both)
                raise ValueError(
                    f"the term {names} of the model depends on both layers of {reader.name!r}, which are then not "
                    "independent given each other: give each of them a BlockGibbs of its own"
                )
            own |= set(terms)
        joined = joined or bool(seen & own)
        seen |= own
    return joined


def _at_least_one(argument: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{argument} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{argument} must be at least 1, got {value}")
    return int(value)
