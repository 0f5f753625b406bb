"""Block Gibbs sampling of networks of units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, groupby, repeat
from typing import Any, ClassVar, Literal

import numpy as np
from pymc.blocking import PointType, StatsType
from pymc.model import Model
from pymc.step_methods.compound import Competence
from pymc.util import RandomGenerator
from pytensor.graph.basic import Variable

from step_methods._variables import Variables
from step_methods.checks import at_least
from step_methods.gibbs import gaussian, gaussian_restricted, pairwise, restricted  # noqa: F401 - registers samplers
from step_methods.kernels.vectors.random import fill_integers
from step_methods.network import sampler_of
from step_methods.reading.blocks import Blocks, blocks_by_name, parse_blocks
from step_methods.reading.layers import is_layer
from step_methods.reduced import independent  # noqa: F401 - registers what is left of units without couplings
from step_methods.reduced.reduced import ReducedNetwork
from step_methods.sampler import Decisions, Numbers, Sampler, Scan
from step_methods.stepping import NetworkStep, NetworkStepState, make_room

__all__ = ["BlockGibbs"]


class BlockGibbs(NetworkStep):
    r"""Block Gibbs sampling of restricted Boltzmann machines, Boltzmann machines, Ising fields and Gaussian vectors.

    Units that do not interact are independent given the others, so they are drawn together from their exact
    conditional. In a restricted machine these are its two layers: a sweep draws h given v, then v given h (Smolensky
    [1]_; Hinton [2]_, section 2). In a field of units that are coupled in pairs they are the colors of its graph, two
    on most lattices; a dense network is swept unit by unit. Each sweep leaves the posterior invariant, which
    ``pmn.diagnostics.certify`` proves on small models through the kernel that runs. Blocks of your own, and a random
    order of the blocks, are possible.

    Other terms of the model that depend on a unit, such as a likelihood or a child, are evidence: they enter the unit's
    logit as log p(unit = 1) − log p(unit = 0). Each element of a term may depend on one unit, through element-wise
    operations, constant indices, choices like ``mu[z]``, broadcasting and sums over other axes; other terms are
    refused, never ignored.

    The visible units of a `GaussianRBM` are real and drawn like those of any other restricted machine. The units of a
    ``pm.MvNormal``, however it is parametrized, are real, too: each block is drawn jointly from its Gaussian
    conditional given the others (Rue and Held [3]_, theorem 2.5), one coordinate at a time by default. The vector may
    have clamped coordinates, and depend on other variables. Other terms that depend on real units are refused; in a
    `GaussianRBM` sample the visible units with ``pm.NUTS`` then, and leave the hidden ones to this step.

    A plain ``pm.Bernoulli``, of any shape, is a field without couplings, whose log-odds may depend on other variables:
    given the evidence, all of its units are drawn together. It is left to PyMC's own steps unless you ask:
    ``pm.sample(step=pmn.BlockGibbs([z]))``.

    It is chosen by a bare ``pm.sample()`` for `BernoulliRBM`, `GaussianRBM`, `HiddenUnits`, `BoltzmannMachine` and
    `Ising`; options then go through ``pm.sample(block_gibbs={"sweeps_per_draw": 10})``. ``pm.MvNormal`` is left to NUTS
    unless you ask: ``pm.sample(step=pmn.BlockGibbs([x]))``.

    Each chain starts from a state of its own, made in its first draw: fair coins for two-valued units, restricted to
    what evidence allows, and for the real units of a `GaussianRBM` a draw given coins for the hidden ones. A
    ``pm.MvNormal`` keeps its start, and so does every variable that was given one, by `initvals` (other than PyMC's
    default) or `initval`.

    Parameters
    ----------
    vars : list of Variable or str, optional
        Layers or fields of one or more networks, or their names, clamped units (masked data) allowed; by default all
        that a bare ``pm.sample()`` chooses this step method for. With the visible units alone, hidden units are
        auxiliary: drawn within the step, and forgotten, if the model has no `HiddenUnits` of them. If it has, the step
        conditions on their current values. With `HiddenUnits` alone it conditions on the current visible units.
    sweeps_per_draw : int
        Sweeps between two draws, all inside one compiled call. A draw costs PyMC about 7 µs (on one core,
        without progress bar), a sweep of a small machine 1 µs: several sweeps a draw give less correlated draws
        for about the same time and memory. With ``cores=1`` no draw has to travel between processes, which
        costs more than 100 µs each.
    order : {"fixed", "random"}
        A sweep goes through the blocks in turn, or it is as many independent uniform picks of a block as there are
        blocks, counted over all variables of the step. A random order makes the step reversible with respect to the
        posterior; as a rule, a fixed one forgets faster.
    blocks : sequence, or dict from the name of a variable to a sequence, optional
        Which units are drawn together, in the order of a sweep; found by itself by default. A block is a sequence of
        flat (row-major) indices into the variable, a sequence of index tuples, or a boolean mask of its shape. The
        blocks must partition the free units, and units of a block must not interact unless they are Gaussian; a batch
        counts with all its axes.
        A step of several variables takes a dict, in which a variable that is left out keeps its own blocks, which come
        last in a sweep. For masked data give the name and the shape of the whole variable (but of the free rows alone,
        which are a variable of their own, where a mask takes whole rows of a batch of fields or Gaussian vectors). A
        block of visible units whose hidden units are auxiliary is drawn together with all of these: h given v, then the
        block given h.
        In a restricted machine, blocks are slower than whole layers: fields are summed coupling by coupling. The layers
        of a `GaussianRBM` are drawn whole: parts of them cannot be given.
    model : Model, optional
        The model of the context by default.
    rng : int, Generator or None
        Seed; ``pm.sample`` sets each chain's own.
    initial_point : dict, optional
        The point that ``pm.sample`` starts from; shapes are read from it.
    compile_kwargs : dict, optional
        For parameters that depend on other variables; they are compiled and read at each step. Constant parameters
        are read once, shared data (``pm.Data``) at the start of each chain.
    blocked : bool
        With False each variable gets a step of its own, which conditions on the others.

    Raises
    ------
    TypeError
        If `sweeps_per_draw` is not an integer, or `blocks` not blocks.
    ValueError
        If `order` is not known; if `blocks` do not partition the free units, or units of a block interact; if a
        variable is not a layer of a network or not in the model; if it has no free units; if an element of
        another term of the model depends on several units, if the term excludes both values of a unit, sees a
        minibatch, is drawn anew with each evaluation (``pm.Simulator``) or joins the two layers of one network; if
        parameters are random and the network is not normalized; if the start value is not one of the units' two values,
        or not finite; if it contradicts evidence, and was given or would be met by another step method first; if a
        standard deviation is not positive, or a covariance not symmetric and positive definite; if another term of the
        model depends on real units; if `blocks` are of a `GaussianRBM` or its hidden units.

    Notes
    -----
    Sampler statistics:

    - ``network_energy``: of the draw, E(v, h) where the model has hidden units and the free energy F(v) where they are
      auxiliary, ½ (x − μ)ᵀ Σ⁻¹ (x − μ) of a Gaussian vector, summed over all networks of the step, without evidence;
    - ``flip_rate``: the fraction of the step's two-valued units that changed their value since the last draw; 0 where
      it has none;
    - ``start_hash``: of the state of the step's variables that the chain started in, the same in all its draws;
    - ``warning``: said once if no unit can change alone, given the others. PyMC logs it and takes it out of the result.

    References
    ----------
    .. [1] P. Smolensky, "Information processing in dynamical systems: foundations of harmony theory", in
       Parallel Distributed Processing 1 (1986) 194.
    .. [2] G. Hinton, "Training products of experts by minimizing contrastive divergence", Neural Computation 14 (2002)
       1771.
    .. [3] H. Rue and L. Held, "Gaussian Markov Random Fields: Theory and Applications", Chapman and Hall/CRC, 2005.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> with pm.Model():
    ...     v = pmn.BernoulliRBM("v", np.ones((6, 4)), np.full(6, -2.0), np.full(4, -2.0))
    ...     step = pmn.BlockGibbs([v], sweeps_per_draw=5)
    ...     idata = pm.sample(100, tune=0, chains=2, cores=1, step=step, progressbar=False)
    """

    name = "block_gibbs"
    progress_columns: ClassVar[dict] = {"network_energy": ("Energy", "0.2f"), "flip_rate": ("Flip rate", "0.2f")}
    default_tune_steps = 100
    stats_dtypes_shapes: ClassVar[dict] = {
        "network_energy": (np.float64, []),
        "flip_rate": (np.float64, []),
        **NetworkStep.start_stats,
    }
    _state_class = NetworkStepState
    sweeps_option = "sweeps_per_draw"

    def __init__(
        self,
        vars: Variables = None,
        *,
        sweeps_per_draw: int = 1,
        order: Literal["fixed", "random"] = "fixed",
        blocks: Blocks | Mapping[str, Blocks] | None = None,
        model: Model | None = None,
        rng: RandomGenerator = None,
        initial_point: PointType | None = None,
        compile_kwargs: dict[str, Any] | None = None,
        blocked: bool = True,
    ):
        self.sweeps_per_draw = at_least(1, "sweeps_per_draw", sweeps_per_draw)
        if order not in ("fixed", "random"):
            raise ValueError(f"order must be 'fixed' or 'random', got {order!r}")
        self.order = order
        self.set_up(
            vars,
            model=model,
            rng=rng,
            initial_point=initial_point,
            blocked=blocked,
            build=partial(self._build, blocks, compile_kwargs),
        )

    def _build(
        self,
        blocks: Blocks | Mapping[str, Blocks] | None,
        compile_kwargs: Mapping[str, Any] | None,
        point: PointType,
    ) -> None:
        networks = self.read_networks(point, compile_kwargs)
        own_blocks = self._read_blocks(blocks, networks)
        self.samplers: list[Sampler] = [
            sampler_of(network, own_blocks, self.stages_in_random_order) for network in networks
        ]
        self._fixed_turns = self._sweep_in_turn()
        for sampler in self.samplers:
            sampler.read(point)
        self._n_units = sum(sampler.reduced.n_units for sampler in self.samplers)
        self._first_block = np.cumsum([0, *(sampler.n_blocks for sampler in self.samplers)])
        self._decisions: Decisions | None = None

    def _start(self, rng: np.random.Generator) -> None:
        super()._start(rng)
        self._read_at: dict[int, bytes] = {}

    def step(self, point: PointType) -> tuple[PointType, StatsType]:
        """Draw all units of the step's variables once."""
        if self.start_hash is None:
            point = self.begin(point)
        self._read_at.clear()
        new_point = point.copy()
        turns = self._fixed_turns if self.order == "fixed" else self._random_turns(self._draw_picks())
        energies: dict[int, float] = {}
        n_changed = 0
        for i, scan in turns:
            sampler = self.samplers[i]
            reduced = sampler.reduced
            if reduced.changes:
                sampler.read(new_point)
            old, new = make_room(reduced, new_point)
            energies[i], changed = sampler.draw(old, new, scan, self.stream)
            n_changed += changed
        if len(turns) > len(self.samplers):
            discrete = [name for name in self._updated() if self.values[name]]
            n_changed = sum(int(np.count_nonzero(new_point[name] != point[name])) for name in discrete)
        stats = {
            "network_energy": sum(energies.values()),
            "flip_rate": n_changed / max(self._n_units, 1),
        }
        self.count_draw(point, new_point, stats)
        return new_point, [stats]

    def _sweep_in_turn(self) -> list[tuple[int, Scan]]:
        """Return which sampler's turn it is, and how many sweeps it makes, in a fixed order."""
        n_rounds = self.sweeps_per_draw if self.joined else 1
        sweeps = 1 if self.joined else self.sweeps_per_draw
        turns: list[tuple[int, Scan]] = [(i, sweeps) for i in range(len(self.samplers))]
        return turns * n_rounds

    def _draw_picks(self) -> np.ndarray:
        n_blocks = int(self._first_block[-1])
        picks = np.empty(self.sweeps_per_draw * n_blocks, np.int64)
        fill_integers(self.stream, n_blocks, picks)
        return picks

    def _random_turns(self, picks: np.ndarray) -> list[tuple[int, Scan]]:
        """Return which sampler's turn it is, and which of its blocks it updates.

        The updates of networks that no term joins commute, so each of them makes its own at once. A sampler that no
        block was picked of has a turn all the same, to tell its energy.
        """
        sampler_of = np.searchsorted(self._first_block, picks, side="right") - 1
        blocks = picks - self._first_block[sampler_of]
        if not self.joined:
            return [(i, blocks[sampler_of == i]) for i in range(len(self.samplers))]
        idle = [(i, blocks[:0]) for i in range(len(self.samplers)) if i not in sampler_of]
        runs = groupby(zip(sampler_of.tolist(), blocks.tolist(), strict=True), key=lambda pick: pick[0])
        return idle + [(i, np.array([block for _, block in run], np.int64)) for i, run in runs]

    @property
    def stages_in_random_order(self) -> bool:
        """Whether a sweep is as many independent uniform picks of a stage as there are stages."""
        return self.order == "random"

    @property
    def n_stages(self) -> int:
        """Number of stages that a sweep is made of, in the eyes of `forced_stage`.

        In random order a stage is a block. In a fixed order it is a single unit, since units that are drawn together do
        not depend on each other; or the block of an RBM together with its auxiliary hidden units.
        """
        return int(self._decisions_of_a_sweep()[1].max()) + 1

    def forced_stage(self, stage: int, point: PointType, bits: np.ndarray) -> tuple[PointType, np.ndarray]:
        """Make one stage of a sweep, its random decisions given.

        The kernel makes a whole sweep all the same, in which the decisions of all other stages are forced to the values
        that `point` holds. The units of the stages before start from their other value: a field that does not
        follow their change then gives a wrong probability.

        Parameters
        ----------
        stage : int
            From 0 to `n_stages` − 1.
        point : dict
            The point at which the stage begins.
        bits : ndarray of uint8
            The decisions of the stage, zeros where they run out.

        Returns
        -------
        new_point : dict
            The point at which the stage ends.
        probabilities : ndarray of float64
            See `forced_step`.
        """
        units, stages = self._decisions_of_a_sweep()
        decisions = np.where(units < 0, 0, self._bits(point)[units])
        own = np.flatnonzero(stages == stage)
        decisions[own] = 0
        decisions[own[: len(bits)]] = bits
        start = self._with_flips(point, units[(stages < stage) & (units >= 0)])
        new_point, probabilities = self._force(start, self._one_sweep(), iter(decisions.tolist()))
        return new_point, np.array(probabilities)[own]

    def forced_step(self, point: PointType, bits: np.ndarray) -> tuple[PointType, np.ndarray]:
        """Make one step whose random decisions are given, from which its exact transition matrix is computed.

        Parameters
        ----------
        point : dict
        bits : ndarray of uint8
            The decisions, in the order in which the step makes them; zeros where they run out. In random order a pick
            comes first, for each block in turn whether it is this one, until there is but one left.

        Returns
        -------
        new_point : dict
        probabilities : ndarray of float64
            The probability with which each decision would have come out as 1, as the kernel itself computed it; as many
            as the step makes decisions.
        """
        decisions = chain(bits.tolist(), repeat(0))
        if self.order == "fixed":
            new_point, probabilities = self._force(point, self._fixed_turns, decisions)
            return new_point, np.array(probabilities)
        n_blocks = int(self._first_block[-1])
        picks, of_picks = _force_picks(n_blocks, self.sweeps_per_draw * n_blocks, decisions)
        new_point, probabilities = self._force(point, self._random_turns(picks), decisions)
        return new_point, np.array(of_picks + probabilities)

    @property
    def n_networks(self) -> int:
        """Number of networks that are swept by turns."""
        return len(self.samplers)

    def numbers_of_network(self, network: int, point: PointType) -> tuple[list[str], Numbers]:
        """Return what the random numbers of a sweep of one network are about.

        Parameters
        ----------
        network : int
            From 0 to `n_networks` − 1.
        point : dict
            From which parameters are read that change.

        Returns
        -------
        names : list of str
            The value variables that the sweep updates.
        numbers : Numbers
            Units are counted through the raveled values of these variables; −1 stands for auxiliary ones.
        """
        sampler = self.samplers[network]
        self._read_for(network, point)
        return list(sampler.reduced.updated), sampler.numbers()

    def force_network(self, network: int, point: PointType, numbers: np.ndarray) -> tuple[PointType, np.ndarray]:
        """Make one sweep of one network, in which each block is updated once, all random numbers given.

        Parameters
        ----------
        network : int
        point : dict
        numbers : ndarray of float64
            Decisions and standard normal numbers, as many as `numbers_of_network` tells.

        Returns
        -------
        new_point : dict
        probabilities : ndarray of float64
            The probability with which each decision would have come out as 1, as the kernel itself computed it; NaN for
            normal numbers.
        """
        _, scan = self._one_sweep()[network]
        new_point = point.copy()
        sampler = self.samplers[network]
        self._read_for(network, new_point)
        old, new = make_room(sampler.reduced, new_point)
        return new_point, np.array(sampler.force_numbers(old, new, scan, iter(numbers.tolist())))

    def decisions_of_a_step(self) -> tuple[list[str], np.ndarray]:
        """Return the unit of each decision that `forced_step` makes in a fixed order, as in `numbers_of_network`."""
        units, first = {}, 0
        for i, sampler in enumerate(self.samplers):
            own, _ = sampler.decisions()
            units[i] = np.where(own < 0, -1, own + first)
            first += sampler.reduced.n_units
        turns = [np.tile(units[i], scan) for i, scan in self._fixed_turns]
        return list(self._updated()), np.concatenate(turns)

    def _force(
        self, point: PointType, turns: Sequence[tuple[int, Scan]], decisions: Iterator[int]
    ) -> tuple[PointType, list[float]]:
        new_point = point.copy()
        probabilities: list[float] = []
        for i, scan in turns:
            sampler = self.samplers[i]
            self._read_for(i, new_point)
            old, new = make_room(sampler.reduced, new_point)
            probabilities += sampler.force(old, new, scan, decisions)
        return new_point, probabilities

    def _read_for(self, network: int, point: PointType) -> None:
        """Read parameters and evidence that change; of the many forced runs from one point, only the first does."""
        sampler = self.samplers[network]
        if sampler.reduced.changes:
            read_at = b"".join(np.asarray(point[name]).tobytes() for name in sampler.reduced.inputs)
            if self._read_at.get(network) != read_at:
                sampler.read(point)
                self._read_at[network] = read_at

    def _one_sweep(self) -> list[tuple[int, Scan]]:
        """Return the turns of a sweep that updates every block once."""
        if self.order == "fixed":
            return [(i, 1) for i in range(len(self.samplers))]
        return [(i, np.arange(sampler.n_blocks)) for i, sampler in enumerate(self.samplers)]

    def _decisions_of_a_sweep(self) -> Decisions:
        """Return the unit and the stage of each decision of a sweep, over all samplers."""
        if self._decisions is None:
            all_units, all_stages = [], []
            n_units = n_stages = 0
            for sampler in self.samplers:
                units, stages = sampler.decisions()
                all_units.append(np.where(units < 0, -1, units + n_units))
                all_stages.append(stages + n_stages)
                n_units += sampler.reduced.n_units
                n_stages += int(stages.max()) + 1
            self._decisions = np.concatenate(all_units), np.concatenate(all_stages)
        return self._decisions

    def _updated(self) -> Iterator[str]:
        """Yield the variables in the order in which the samplers concatenate them."""
        for sampler in self.samplers:
            yield from sampler.reduced.updated

    def _bits(self, point: PointType) -> np.ndarray:
        """Return all units of the step as zeros and ones."""
        return np.concatenate([point[name].ravel() == self._two_values(name)[1] for name in self._updated()]).astype(
            int
        )

    def _two_values(self, name: str) -> tuple[int, int]:
        values = self.values[name]
        assert values is not None  # decisions between other values cannot be forced, which their samplers say
        low, high = values
        return low, high

    def _with_flips(self, point: PointType, units: np.ndarray) -> PointType:
        """Return a point in which units, counted as in `_bits`, have their other value."""
        new_point = point.copy()
        start = 0
        for name in self._updated():
            value = point[name].copy()
            own = units[(units >= start) & (units < start + value.size)] - start
            value.flat[own] = sum(self._two_values(name)) - value.flat[own]
            new_point[name] = value
            start += value.size
        return new_point

    def _read_blocks(
        self, blocks: Blocks | Mapping[str, Blocks] | None, networks: Sequence[ReducedNetwork]
    ) -> dict[str, list[np.ndarray]]:
        """Return the blocks that were given, by the names of value variables."""
        free = {name: layer for network in networks for name, layer in network.reader.free_layers.items()}
        layers = {free[var.name].name: free[var.name] for var in self.vars}
        return {
            str(layers[name].value_name): parse_blocks(own, layers[name].read()[1], name)
            for name, own in blocks_by_name(blocks, list(layers)).items()
        }

    @staticmethod
    def competence(var: Variable, has_grad: bool = False) -> Competence:
        """IDEAL for layers of networks, INCOMPATIBLE with everything else."""
        return Competence.IDEAL if is_layer(var) else Competence.INCOMPATIBLE


def _force_picks(n_blocks: int, n_picks: int, decisions: Iterator[int]) -> tuple[np.ndarray, list[float]]:
    """Pick blocks uniformly by binary decisions, with the probability of a 1 for each of them."""
    picks = np.full(n_picks, n_blocks - 1)
    probabilities: list[float] = []
    for k in range(n_picks):
        for block in range(n_blocks - 1):
            probabilities.append(1 / (n_blocks - block))
            if next(decisions):
                picks[k] = block
                break
    return picks, probabilities
