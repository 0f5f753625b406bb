"""Block Gibbs sampling of networks of binary units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

from step_methods.kernels import chain
from step_methods.kernels.random import seed_stream
from step_methods.kernels.rbm import PreparedRBM, prepare, refill
from step_methods.network import NetworkReader, free_variable, is_layer, read_networks

__all__ = ["BlockGibbs"]

type _Units = dict[str | None, np.ndarray]

_NO_UNITS = np.empty(0, np.int64)


@dataclass_state
class BlockGibbsState(StepMethodState):
    """What the step carries from draw to draw: its stream of random numbers."""

    stream: np.ndarray


@dataclass(slots=True)
class _Machine:
    """One RBM of a batch, reduced to its free units: the clamped ones act as biases.

    Attributes
    ----------
    index : tuple of int
        Its place in the batch.
    v, h : ndarray of int64, shapes (n_visible,) and (n_hidden,)
        Its clamped units, zero where a unit is free.
    v_free, h_free : ndarray of bool, same shapes
    visible, hidden : slice
        Its free units in the raveled values of the two layers' variables.
    rbm : tuple or None
        Its couplings and biases, as the kernels want them; None until they are read.
    clamped_energy : float
        The part of the energy that no free unit enters.
    """

    index: tuple[int, ...]
    v: np.ndarray
    v_free: np.ndarray
    h: np.ndarray
    h_free: np.ndarray
    visible: slice
    hidden: slice
    rbm: PreparedRBM | None = None
    clamped_energy: float = 0.0

    @property
    def is_free(self) -> bool:
        """Whether none of its units is clamped."""
        return bool(self.v_free.all() and self.h_free.all())

    def reduce(self, W: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the couplings and biases of the free units, and keep the energy of the clamped ones.

        E(v, h) splits into the energy of the free units, whose biases take in the fields of the clamped ones, and
        the energy of the clamped units among themselves.
        """
        if self.is_free:
            return W, a, b
        v_clamped, h_clamped = ~self.v_free, ~self.h_free
        to_hidden = self.v @ W
        to_visible = W @ self.h
        energy = a[v_clamped] @ self.v[v_clamped] + b[h_clamped] @ self.h[h_clamped] + to_hidden @ self.h
        self.clamped_energy = -float(energy)
        return (
            W[np.ix_(self.v_free, self.h_free)],
            (a + to_visible)[self.v_free].astype(a.dtype),
            (b + to_hidden)[self.h_free].astype(b.dtype),
        )


class _Sampler:
    """Sample the units of one network, which is a batch of one or more machines.

    Parameters
    ----------
    reader : NetworkReader
    updated : set of str
        Names of the value variables that the step method updates. On a layer that is not among them it
        conditions.
    """

    def __init__(self, reader: NetworkReader, updated: set[str]):
        self._reader = reader
        self._visible = reader.visible.value_name
        self._hidden = reader.hidden.value_name if reader.hidden else None
        self._updates_visible = self._visible in updated
        self._updates_hidden = self._hidden in updated
        if reader.hidden is None:
            self._kernel = chain.draw_marginal
        elif self._updates_visible and (self._updates_hidden or self._hidden is None):
            self._kernel = chain.draw_joint
        else:
            self._kernel = chain.draw_visible if self._updates_visible else chain.draw_hidden
        self._machines: list[_Machine] = []
        self._scratch = _NO_UNITS

    @property
    def changes(self) -> bool:
        """Whether the parameters have to be read at every step."""
        return self._reader.parameters.changes

    @property
    def n_units(self) -> int:
        """Number of units of the model that a draw updates."""
        return sum(
            int(machine.v_free.sum()) * self._updates_visible + int(machine.h_free.sum()) * self._updates_hidden
            for machine in self._machines
        )

    def start(self) -> None:
        """Forget, at the start of a chain, what may have changed since the last one."""
        if not self._reader.constant:
            self._machines = []

    def read(self, point: Mapping[str, np.ndarray]) -> None:
        """Read the parameters and, where they were forgotten, the clamped units."""
        if self._machines and not self.changes:
            return
        parameters = self._reader.parameters.read(point)
        if not self._machines:
            self._machines = _lay_out(self._reader, *(x.shape for x in parameters))
            if self._reader.hidden is None:
                self._scratch = np.zeros(parameters[0].shape[-1], np.int64)
        _set_parameters(self._machines, *parameters, tables=not self.changes)

    def draw(self, old: _Units, new: _Units, n_sweeps: int, stream: np.ndarray) -> tuple[float, int]:
        """Fill in the new units; return the energy after the last sweep and how many units changed."""
        v_old, v = old.get(self._visible, _NO_UNITS), new.get(self._visible, _NO_UNITS)
        h_old, h = old.get(self._hidden, _NO_UNITS), new.get(self._hidden, self._scratch)
        total_energy, total_changed = 0.0, 0
        for machine in self._machines:
            visible, hidden = machine.visible, machine.hidden
            energy, n_changed = self._kernel(
                machine.rbm, v_old[visible], v[visible], h_old[hidden], h[hidden], n_sweeps, stream
            )
            total_energy += energy + machine.clamped_energy
            total_changed += n_changed
        return total_energy, total_changed


def _lay_out(
    reader: NetworkReader, W_shape: tuple[int, ...], a_shape: tuple[int, ...], b_shape: tuple[int, ...]
) -> list[_Machine]:
    """Cut the layers of a network into machines, still without parameters."""
    *_, n_visible, n_hidden = W_shape
    v, v_free = reader.visible.read()
    batch = v.shape[:-1]
    if reader.hidden is None:
        h, h_free = np.zeros((*batch, n_hidden), np.int64), np.ones((*batch, n_hidden), bool)
    else:
        h, h_free = reader.hidden.read()
    for what, got, expected in (
        ("the visible units", v.shape, (*batch, n_visible)),
        ("the hidden units", h.shape, (*batch, n_hidden)),
        ("a", a_shape[-1:], (n_visible,)),
        ("b", b_shape[-1:], (n_hidden,)),
    ):
        if got != expected:
            raise ValueError(
                f"{what} of {reader.name!r} must have the shape {expected} to fit W of shape {W_shape}, got {got}"
            )
    machines = []
    v_stop = h_stop = 0
    for i in np.ndindex(batch):
        v_start, v_stop = v_stop, v_stop + int(v_free[i].sum())
        h_start, h_stop = h_stop, h_stop + int(h_free[i].sum())
        # Auxiliary hidden units have no values: all machines use the same scratch.
        hidden = slice(0, n_hidden) if reader.hidden is None else slice(h_start, h_stop)
        machines.append(_Machine(i, v[i], v_free[i], h[i], h_free[i], slice(v_start, v_stop), hidden))
    return machines


def _set_parameters(machines: Sequence[_Machine], W: np.ndarray, a: np.ndarray, b: np.ndarray, *, tables: bool) -> None:
    """Give each machine of a batch its couplings and biases; those that are alike share them."""
    alike = all(machine.is_free for machine in machines) and all(
        np.prod(x.shape[:-n_core]) == 1 for x, n_core in ((W, 2), (a, 1), (b, 1))
    )
    batch = [i + 1 for i in machines[-1].index]
    W, a, b = (np.broadcast_to(x, (*batch, *x.shape[-n_core:])) for x, n_core in ((W, 2), (a, 1), (b, 1)))
    first = machines[0]
    for machine in machines:
        if alike and machine is not first:
            machine.rbm = first.rbm
            continue
        reduced = machine.reduce(W[machine.index], a[machine.index], b[machine.index])
        if machine.rbm is None:
            machine.rbm = prepare(*reduced, tables=tables)
        else:
            refill(machine.rbm, *reduced)


class BlockGibbs(BlockedStep):
    r"""Block Gibbs sampling of restricted Boltzmann machines.

    The units of one layer are independent given the other layer, so a whole layer is drawn at once from its
    exact conditional: a sweep draws h given v, then v given h (Smolensky [1]_; Hinton [2]_, section 2). Each
    sweep leaves the posterior invariant; the kernel's transition matrix is tested for it.

    It is chosen by a bare ``pm.sample()`` for `BernoulliRBM` and `HiddenUnits`; options then go through
    ``pm.sample(block_gibbs={"sweeps_per_draw": 10})``.

    Parameters
    ----------
    vars : list of Variable
        Layers of one or more networks, clamped units (masked data) allowed. With the visible units alone,
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
        If a variable is not a layer of a network or not in the model; if it has no free units; if another term
        of the model depends on it; if parameters are random and the network is not normalized; if the start
        value is not 0 or 1.

    Notes
    -----
    Sampler statistics:

    - ``energy``: of the draw, E(v, h) where the model has hidden units and the free energy F(v) where they are
      auxiliary, summed over all networks of the step;
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
        self._updated = [value.name for value in self.vars]
        readers = read_networks(model, rvs, initial_point, compile_kwargs)
        self._samplers = [_Sampler(reader, set(self._updated)) for reader in readers]
        self._read = sorted({name for reader in readers for name in reader.value_names})
        self._check_values(initial_point)
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
        old: _Units = {name: point[name].ravel() for name in self._read}
        new: _Units = {}
        for name in self._updated:
            new_point[name] = value = np.empty_like(point[name])
            new[name] = value.reshape(-1)

        energy, n_changed = 0.0, 0
        for sampler in self._samplers:
            if sampler.changes:
                sampler.read(point)
            sampler_energy, sampler_changed = sampler.draw(old, new, self.sweeps_per_draw, self.stream)
            energy += sampler_energy
            n_changed += sampler_changed
        return new_point, [{"energy": energy, "flip_rate": n_changed / self._n_units}]

    def _check_values(self, point: Mapping[str, np.ndarray]) -> None:
        for name in self._read:
            value = np.asarray(point[name])
            if not np.isin(value, (0, 1)).all():
                wrong = value[~np.isin(value, (0, 1))].flat[0]
                raise ValueError(f"the start value of {name!r} must be 0 or 1 everywhere, got {wrong}")

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


def _at_least_one(argument: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{argument} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{argument} must be at least 1, got {value}")
    return int(value)
