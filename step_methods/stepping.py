"""What the step methods for networks have in common: how chains start, whose turn it is, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from pymc.blocking import PointType
from pymc.model import Model, modelcontext
from pymc.stats.convergence import SamplerWarning, WarningType
from pymc.step_methods.compound import BlockedStep, Competence, StepMethodState
from pymc.step_methods.state import dataclass_state
from pymc.util import RandomGenerator, get_random_generator, get_value_vars_from_user_vars
from pytensor.graph.basic import Variable

from step_methods._progress import ProgressColumns
from step_methods._variables import ChosenVariables, Variables
from step_methods.kernels.vectors.random import seed_stream
from step_methods.network import reduced_of
from step_methods.reading.default_starts import DefaultStarts
from step_methods.reading.evidence import read_evidence
from step_methods.reading.layers import check_units, free_variable, is_layer
from step_methods.reading.readers import NetworkReader, read_networks
from step_methods.reduced.reduced import Reduced, ReducedNetwork
from step_methods.sampler import Units

__all__ = ["NetworkStep", "NetworkStepState", "make_room"]


class _Sampler(Protocol):
    """What this file asks of samplers, of all kinds."""

    @property
    def reduced(self) -> Reduced: ...

    @property
    def margin(self) -> float: ...

    def start(self) -> None: ...

    def read(self, point: Mapping[str, np.ndarray]) -> None: ...


@dataclass_state
class NetworkStepState(StepMethodState):
    """What a step carries from draw to draw: its stream of random numbers, and how its chain has started."""

    stream: np.ndarray
    start_hash: int | None
    n_draws: int
    next_look: int


class NetworkStep(ProgressColumns, ChosenVariables, BlockedStep):
    """A step method that moves units by samplers of what is left of a model's networks.

    Each chain starts from a state of its own: the first draw begins from coins where the point has PyMC's default
    start. The step says where it cannot move from its state.

    A subclass gives `set_up` what reads the model and makes `samplers` of it.

    Attributes
    ----------
    model : Model
    start_hash : int or None
        Tells the state that the chain started in; None before its first draw.
    n_draws : int
        Draws of the chain so far.
    next_look : int
        The draw after which the step looks whether units can change; 0 once it has said that they cannot.
    """

    start_stats: ClassVar[dict[str, tuple[Any, Any]]] = {
        "start_hash": (np.int64, []),
        "warning": (SamplerWarning, None),
    }

    # The argument that says how many sweeps there are between two draws.
    sweeps_option: ClassVar[str]
    samplers: Sequence[_Sampler]
    # The values of a variable's units, by its name; None for real ones.
    values: dict[str, tuple[int, ...] | None]
    # Whether a term of the model depends on units of several samplers.
    joined: bool

    def set_up(
        self,
        vars: Variables,
        *,
        model: Model | None,
        rng: RandomGenerator,
        initial_point: PointType | None,
        blocked: bool,
        build: Callable[[PointType], None],
    ) -> None:
        """Do what the constructors of all step methods do; `build` reads the model and makes the samplers."""
        self.model = modelcontext(model)
        free = [free_variable(self.model, var) for var in self.choose(vars, self.model)]
        self.vars = get_value_vars_from_user_vars(list(dict.fromkeys(free)), self.model)
        self.blocked = blocked
        point = self.model.initial_point() if initial_point is None else initial_point
        build(point)
        names = {name for sampler in self.samplers for name in sampler.reduced.starts_of}
        own = [var for var in self.model.value_vars if var.name in names]
        self._defaults = DefaultStarts(self.model, own, point)
        if initial_point is not None:
            self._check_start(point)
        self._start(get_random_generator(rng))

    def read_networks(self, point: PointType, compile_kwargs: Mapping[str, Any] | None) -> list[ReducedNetwork]:
        """Read the networks of the step's variables; return what is left to sample of them, in their order.

        Sets `values` and `joined`.

        Raises
        ------
        ValueError
            See `read_networks` and `read_evidence` of `step_methods.reading`; also if a unit has none of its values at
            the point.
        """
        updated = {value.name: value for value in self.vars}
        rvs = [self.model.values_to_rvs[value] for value in self.vars]
        readers = read_networks(self.model, rvs, point, compile_kwargs)
        self.values = {name: layer.values for reader in readers for name, layer in reader.free_layers.items()}
        self._check_values(point)
        networks = []
        for reader in readers:
            evidence = read_evidence(self.model, reader, updated, point, compile_kwargs)
            networks.append(reduced_of(reader.network, reader, set(updated), evidence))
        self.joined = _joins_networks(readers)
        return networks

    @property
    def n_sweeps(self) -> int:
        """How many sweeps there are between two draws."""
        return getattr(self, self.sweeps_option)

    def with_one_sweep(self) -> Self:
        """Return a step that is the same, but makes one sweep between two draws."""
        arguments, options = self.__getnewargs_ex__()
        return type(self)(*arguments, **{**options, self.sweeps_option: 1})

    @property
    def refractory_periods(self) -> dict[str, int]:
        """The refractory periods of variables whose units are spiking neurons, by name; see `Certifiable`."""
        return {}

    @classmethod
    def takes(cls, rv: Variable) -> bool:
        """Whether a free random variable is for this step method where none is named."""
        return is_layer(rv)

    @staticmethod
    def competence(var: Variable, has_grad: bool = False) -> Competence:
        """INCOMPATIBLE with everything, so that it is only used where it is asked for."""
        return Competence.INCOMPATIBLE

    def setup_chain(self, rng: RandomGenerator, tune: int, draws: int) -> None:
        """Seed the chain's stream, and read shared data anew."""
        for sampler in self.samplers:
            sampler.start()
            if not sampler.reduced.changes:
                sampler.read({})
        self._start(get_random_generator(rng, copy=False))

    def _start(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.stream = seed_stream(rng)
        self.start_hash: int | None = None
        self.n_draws = 0
        self.next_look = 1

    def begin(self, point: PointType) -> PointType:
        """Return the state that the chain starts in."""
        self._check_values(point)
        names = {name for sampler in self.samplers for name in sampler.reduced.starts_of}
        by_default = {name for name in names if self._defaults.holds(name, point)}
        start = point.copy()
        for sampler in self.samplers:
            sampler.read(start)
            sampler.reduced.disperse(start, by_default, self.rng)
        self.start_hash = _hash_of(start, [str(var.name) for var in self.vars])
        return start

    def _check_values(self, point: Mapping[str, np.ndarray]) -> None:
        for name, values in self.values.items():
            check_units(np.asarray(point[name]), values, f"the start value of {name!r}")

    def _check_start(self, point: Mapping[str, np.ndarray]) -> None:
        """Raise if a start contradicts evidence that this step does not bring it in line with in time.

        Where it starts from coins it does, unless a step that follows a gradient goes first.

        Raises
        ------
        ValueError
        """
        own = set(self.vars)
        value_vars = self.model.value_vars
        others_first = any(
            value not in own and value.dtype.startswith("float")
            for value in value_vars[: min(value_vars.index(value) for value in own)]
        )
        names = {str(var.name) for var in self.vars}
        if not others_first:
            names = {name for name in names if not self._defaults.holds(name, point)}
        for sampler in self.samplers:
            sampler.reduced.check_start(point, names)

    def count_draw(self, before: PointType, after: PointType, stats: dict[str, Any]) -> None:
        """Count a draw, and add the statistics of the start to those of the draw."""
        self.n_draws += 1
        stats["start_hash"] = self.start_hash
        stats["warning"] = self._look(before, after) if self.n_draws == self.next_look else None

    def _look(self, before: PointType, after: PointType) -> SamplerWarning | None:
        """Return a warning if no unit can change any more."""
        # It costs as much as a few draws to look, so that it is done ever more rarely.
        self.next_look += 1 + self.n_draws // 2
        if not all(np.array_equal(before[var.name], after[var.name]) for var in self.vars) or not self._is_frozen(
            after
        ):
            return None
        self.next_look = 0
        names = ", ".join(repr(str(var.name)) for var in self.vars)
        return SamplerWarning(
            WarningType.CONVERGENCE,
            f"{type(self).__name__} cannot move: given the others, each unit of {names} has only one value that is "
            "possible, or that can be told from certain, although other states are possible, too. The chain will stay "
            "where it is, and neither ESS nor R-hat will show it. Soften what ties the units together (a large finite "
            "penalty in place of -inf, weaker couplings), or use a step method that moves several of them at once",
            "warn",
            step=self.n_draws,
        )

    def _is_frozen(self, point: PointType) -> bool:
        looks = []
        for sampler in self.samplers:
            sampler.read(point)
            looks.append(sampler.reduced.look(point, sampler.margin))
        if not all(certain for certain, _ in looks):
            return False
        return any(free for _, free in looks) or (self.joined and self._hold_each_other(point))

    def _hold_each_other(self, point: PointType) -> bool:
        """Whether what evidence excludes depends on other units of the step."""
        for reduced in (sampler.reduced for sampler in self.samplers):
            others = {
                name: sum(values) - point[name]
                for name, values in self.values.items()
                if values is not None and name not in reduced.updated
            }
            logits = reduced.logits_at(point)
            try:
                if any(
                    (np.isinf(logits[name]) & (of_others != logits[name])).any()
                    for name, of_others in reduced.logits_at({**point, **others}).items()
                ):
                    return True
            except ValueError:  # no value is left to a unit
                return True
        return False


def make_room(reduced: Reduced, point: PointType) -> tuple[Units, Units]:
    """Return the old units of what is sampled, raveled, and room for new ones, which the point then holds."""
    old: Units = {name: point[name].ravel() for name in reduced.conditioned_on}
    new: Units = {}
    for name in reduced.updated:
        point[name] = fresh = point[name].copy()
        new[name] = fresh.reshape(-1)
    return old, new


def _hash_of(point: Mapping[str, np.ndarray], names: Sequence[str]) -> int:
    """Return a hash of the values of some variables, of 64 bits."""
    digest = blake2b(digest_size=8)
    for name in names:
        digest.update(np.ascontiguousarray(point[name]).tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)


def _joins_networks(readers: Sequence[NetworkReader]) -> bool:
    """Whether networks depend on each other, or a term on two of them; raise if one depends on both layers of one."""
    layers = {layer.free_rv for reader in readers for layer in reader.free_layers.values()}
    seen: set[Variable] = set()
    joined = False
    for reader in readers:
        own: set[Variable] = set()
        for terms in reader.terms.values():
            if both := own & set(terms):
                names = ", ".join(repr(term.name) for term in both)
                raise ValueError(
                    f"the term {names} of the model depends on both layers of {reader.name!r}, which are then not "
                    "independent given each other: give each of them a BlockGibbs of its own, as blocked=False does "
                    "(in pm.sample: block_gibbs={'blocked': False})"
                )
            own |= set(terms)
        joined = joined or bool((seen | layers) & own)
        seen |= own
    return joined
