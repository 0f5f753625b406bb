"""Sampling with networks of spiking neurons."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from pymc.blocking import PointType, StatsType
from pymc.model import Model
from pymc.step_methods.compound import Competence
from pymc.step_methods.state import dataclass_state
from pymc.util import RandomGenerator
from pytensor.graph.basic import Variable

from step_methods._variables import Variables
from step_methods.certifiable import counters_of
from step_methods.network import reduced_of
from step_methods.raster import pack_spikes
from step_methods.reading.evidence import Evidence, MixedUnitsError, read_evidence
from step_methods.reading.layers import distribution_of, is_binary_energy, is_layer, two_values
from step_methods.reading.readers import NetworkReader, read_networks
from step_methods.reduced.logp import ReducedLogp
from step_methods.sampler import Units
from step_methods.spiking.logp import SpikingLogp
from step_methods.spiking.networks import Recorder, SpikingNetwork, spiking_sampler_of
from step_methods.spiking.refractory import (
    Dynamics,
    GivenDecisions,
    Order,
    RandomDecisions,
    RefractoryFunction,
    refractory_function,
)
from step_methods.stepping import NetworkStep, NetworkStepState, make_room

__all__ = ["EnergyGibbs", "NeuralSampling"]

type _Sampler = SpikingNetwork | SpikingLogp

_LARGEST_TAU = 2**24


@dataclass_state
class NeuralSamplingState(NetworkStepState):
    """What the step carries from draw to draw: also the state of its neurons."""

    neurons: list[Any]


class NeuralSampling(NetworkStep):
    r"""Sample networks of binary units, and any binary model, by the dynamics of spiking neurons.

    Each unit is a neuron. A spike switches it on for a refractory period of `tau` steps, and its logit, the membrane
    potential u_k = log p(z_k = 1, rest) − log p(z_k = 0, rest), says how likely it is to spike: with the
    probability sigmoid(u_k − log tau) at each step in which it is off, or in the last one in which it is on. With
    counters ζ, z = [ζ ≥ 1], one update of a neuron is

    - ζ ≥ 2: ζ becomes ζ − 1;
    - ζ = 0 or 1: ζ becomes tau with probability sigmoid(u − log tau), and 0 otherwise.

    Neurons that interact are updated one after the other. This leaves the posterior invariant exactly
    (Buesing et al. [1]_), on the space of the counters, which are uniform on 1..tau for a neuron that is on.
    ``pmn.diagnostics.certify`` proves it on small models. Unlike Gibbs sampling the chain is not reversible, and it
    takes more sweeps to forget its state: use it to study sampling with spikes, or with ``tau=1``, which is Gibbs
    sampling, for models that `BlockGibbs` does not take.

    Each chain starts from a state of its own, made in its first draw: a fair coin for each unit, restricted to what
    evidence allows or, through the log-probability, tossed in random order wherever both values of a unit are possible.
    A variable that was given a start, by `initvals` (other than PyMC's default) or `initval`, keeps it.

    The refractory counters are kept between draws. Where another step method changes a unit, its counter is drawn
    anew from its stationary law.

    Three kinds of variables can be given, in any combination:

    - layers and fields of networks (`BernoulliRBM`, `HiddenUnits`, `BoltzmannMachine`, `Ising`), with all that
      `BlockGibbs` allows: evidence, clamped units, random parameters. Hidden units that the model does not
      have are neurons all the same;
    - ``pm.Bernoulli`` variables of any model, and binary `Energy` variables. Their logits come from the model's
      compiled log-probability, which takes microseconds instead of nanoseconds for each update;
    - networks in which a term of the model joins several units, such as ``pm.Potential("p", z.sum() ** 2)``, go the
      same way as Bernoulli variables. `through_logp` names the variables that do.

    It is never chosen by itself, but for a binary `Energy`, which a bare ``pm.sample()`` gives to `EnergyGibbs`: this
    step method with ``tau=1``.

    Parameters
    ----------
    vars : list of Variable or str, optional
        Networks' layers and fields, ``pm.Bernoulli`` and binary `Energy` variables, or their names; all of the model by
        default.
    tau : int or float
        The refractory period in steps, at least 1. In continuous time any positive number: the unit of time.
    time : {"discrete", "continuous"}
        In continuous time a neuron spikes at the rate exp(u) / tau while it is off, and is on for exactly tau
        after a spike. This is simulated event by event, and exact.
    refractory : {"absolute", "relative"}
        Approximate if ``"relative"``: neurons may then spike again before their refractory period is over, with the
        probability f(u) g(ζ). f is such that a neuron with constant u has the right odds; in a network u is not
        constant, and the law that is sampled differs from the posterior. A warning says so.
    steps_per_draw : int or float
        Steps between two draws, in which each neuron is updated once; in continuous time the time in units of tau.
        Draws are the states at equally spaced times.
    order : {"sequential", "random", "blocks"}
        The order of updates within a step: one neuron after another; as many picks as there are neurons, independent
        and uniform; or one block of neurons that do not interact after another, such as the layers of an RBM.
        Continuous time has no order.
    g : str, callable or array_like, optional
        The refractory function of the relative mechanism: how ready a neuron is to spike. ``"linear"`` (the default)
        recovers from 0 after a spike to 1 in a straight line. Three others are those of the paper (Table 1 of [1]_),
        flat at both ends of their rise: ``"smooth"`` recovers over the whole period, ``"early"`` in its first
        quarter, ``"late"`` in its second half. They are taken at s = (ζ − 1) / (tau − 1), the fraction of the
        period that is left, where the paper has ζ / tau: a neuron must be fully ready for the counters 0 and 1. A
        callable takes these fractions, tau + 1 numbers (the counters 0 to tau) from 0 to 1; an array has the tau + 1
        values. g must be in [0, 1], and 1 for the counters 0 and 1.
    record_spikes : bool
        Keep the raster of all spikes, a bit for each neuron and step or a float32 for each possible spike, as the
        sampler statistic ``spike_raster``, which `pmn.diagnostics.spike_raster` reads and `pmn.plots.spike_raster`
        draws. In random order a neuron may spike twice within a step, which the raster shows as one spike.
    model : Model, optional
        The model of the context by default.
    rng : int, Generator or None
        Seed; ``pm.sample`` sets each chain's own.
    initial_point : dict, optional
        The point that ``pm.sample`` starts from; shapes are read from it.
    compile_kwargs : dict, optional
        For log-probabilities, and parameters that depend on other variables.
    blocked : bool
        With False each variable gets a step of its own, which conditions on the others.

    Raises
    ------
    TypeError
        If `tau` or `steps_per_draw` is no number, or in discrete time no integer; if `record_spikes` is no bool.
    ValueError
        If an option has an unknown value, or does not go with another; if a variable is neither a layer of a network
        nor ``pm.Bernoulli`` nor a binary `Energy`, is real, or is not in the model; if it has no free units; if a
        term sees a minibatch, or is drawn anew with each evaluation as ``pm.Simulator`` is; if parameters are random
        and the network is not normalized; if a start value is not one of the units' two values, or contradicts evidence
        and was given or would be met by another step method first.

    Attributes
    ----------
    through_logp : tuple of str
        Names of the value variables whose logits come from the compiled log-probability.
    dynamics : Dynamics
        What all neurons have in common: ``dynamics.g`` is the refractory function at the counters 0 to tau, None for
        the absolute refractory period.
    neurons_of : dict
        The numbers of a variable's neurons in a raster, as a range, by the name of its value variable; those of
        auxiliary hidden units come last.

    Notes
    -----
    Sampler statistics:

    - ``spikes``: the number of spikes since the last draw, of all neurons of the step, auxiliary ones included;
    - ``rate``: spikes per neuron and refractory period. For absolute refractoriness its mean is the mean of
      z over all neurons;
    - ``network_energy``: of the draw; for networks as `BlockGibbs` has it, without evidence; of variables that go
      through the log-probability minus the sum of all terms of the model that depend on them;
    - ``start_hash``: of the state of the step's variables that the chain started in, the same in all its draws;
    - ``warning``: said once if no unit can change alone, given the others. PyMC logs it and takes it out of the result;
    - ``spike_raster``: only with ``record_spikes=True``.

    Three ways to do this wrong are biased, by up to 0.6 in total variation: to update all neurons at once, as
    simulators of neural networks do; to let a neuron spike only from ζ = 0, or with a probability of
    1 − exp(−exp(u) / tau); and to start units that are on with ζ = tau.

    References
    ----------
    .. [1] L. Buesing, J. Bill, B. Nessler, W. Maass, "Neural dynamics as sampling: a model for stochastic computation
       in recurrent networks of spiking neurons", PLoS Computational Biology 7 (2011) e1002211; eq. 11 is the condition
       on f.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> with pm.Model():
    ...     z = pmn.BoltzmannMachine("z", np.ones((4, 4)) - np.eye(4), np.full(4, -2.0))
    ...     step = pmn.NeuralSampling([z], tau=20, steps_per_draw=20)
    ...     idata = pm.sample(100, tune=0, chains=2, cores=1, step=step, progressbar=False)
    """

    name = "neural_sampling"
    progress_columns: ClassVar[dict] = {"network_energy": ("Energy", "0.2f"), "rate": ("Rate", "0.2f")}
    default_tune_steps = 100
    stats_dtypes_shapes: ClassVar[dict] = {
        "spikes": (np.int64, []),
        "rate": (np.float64, []),
        "network_energy": (np.float64, []),
        **NetworkStep.start_stats,
    }
    _state_class = NeuralSamplingState
    sweeps_option = "steps_per_draw"

    def __init__(
        self,
        vars: Variables = None,
        *,
        tau: float = 20,
        time: Literal["discrete", "continuous"] = "discrete",
        refractory: Literal["absolute", "relative"] = "absolute",
        steps_per_draw: float = 1,
        order: Order = "sequential",
        g: RefractoryFunction | None = None,
        record_spikes: bool = False,
        model: Model | None = None,
        rng: RandomGenerator = None,
        initial_point: PointType | None = None,
        compile_kwargs: dict[str, Any] | None = None,
        blocked: bool = True,
    ):
        self.dynamics = _checked_dynamics(tau, time, refractory, order, g)
        self.steps_per_draw = _checked_number("steps_per_draw", steps_per_draw, self.dynamics.continuous)
        if not isinstance(record_spikes, bool):
            raise TypeError(f"record_spikes must be True or False, got {record_spikes!r}")
        self.record_spikes = record_spikes
        if record_spikes:
            # PyMC reads what to record off the instance: of each statistic its type, and also its shape.
            raster: dict[str, Any] = {"spike_raster": (object, [])}
            self.__dict__["stats_dtypes_shapes"] = self.stats_dtypes_shapes | raster
            self.stats_dtypes = [{name: kind for name, (kind, _) in self.stats_dtypes_shapes.items()}]
        self.set_up(
            vars,
            model=model,
            rng=rng,
            initial_point=initial_point,
            blocked=blocked,
            build=partial(self._build, compile_kwargs),
        )

    def _build(self, compile_kwargs: Mapping[str, Any] | None, point: PointType) -> None:
        model = self.model
        rvs = [model.values_to_rvs[value] for value in self.vars]
        readers = read_networks(model, [rv for rv in rvs if is_layer(rv)], point, compile_kwargs)
        values = {value.name: _values_of(rv) for value, rv in zip(self.vars, rvs, strict=True)}
        self.values = dict(values)
        self._check_values(point)
        self.neurons_of: dict[str, range] = {}
        first_number = {}
        n_neurons = 0
        for value in self.vars:
            first_number[value.name] = n_neurons
            self.neurons_of[value.name] = range(n_neurons, n_neurons := n_neurons + point[value.name].size)

        self.samplers: list[_Sampler] = []
        self._terms: list[set[Variable]] = []
        updated = {value.name: value for value in self.vars}
        for reader in readers:
            evidence = _evidence(model, reader, updated, point, compile_kwargs)
            if evidence is None:
                continue
            reduced = reduced_of(reader.network, reader, set(updated), evidence)
            sampler = spiking_sampler_of(reduced, self.dynamics, first_number, n_neurons)
            if sampler is None:
                continue
            sampler.read(point)
            n_neurons += sampler.n_neurons - sum(point[name].size for name in reduced.updated)
            self.samplers.append(sampler)
            own_rvs = {model.values_to_rvs[updated[name]] for name in reduced.updated}
            self._terms.append(own_rvs.union(*reader.terms.values()))
        by_network = {name for sampler in self.samplers for name in sampler.reduced.updated}
        self.through_logp = tuple(name for name in updated if name not in by_network)
        if self.through_logp:
            if self.dynamics.order == "blocks":
                raise ValueError(
                    "order='blocks' needs to know which neurons interact, which the compiled log-probability of "
                    f"{', '.join(map(repr, self.through_logp))} does not say; use 'sequential' or 'random'"
                )
            units = {updated[name]: values[name] for name in self.through_logp}
            through_logp = ReducedLogp(model, units, point, self.dynamics.tau, compile_kwargs)
            through_logp.read(point)
            self.samplers.append(SpikingLogp(through_logp, self.dynamics, first_number))
            self._terms.append(through_logp.terms)
        self._n_neurons = sum(sampler.n_neurons for sampler in self.samplers)
        # Networks that a term joins are updated in turn, for at most one step or refractory period each.
        self.joined = sum(map(len, self._terms)) > len(set().union(*self._terms))
        self._n_rounds = math.ceil(self.steps_per_draw) if self.joined else 1

    @property
    def neurons(self) -> list[Any]:
        """The state of all neurons: their refractory counters, and what auxiliary ones were drawn with."""
        return [sampler.state for sampler in self.samplers]

    @neurons.setter
    def neurons(self, states: list[Any]) -> None:
        for sampler, state in zip(self.samplers, states, strict=True):
            sampler.state = state

    def step(self, point: PointType) -> tuple[PointType, StatsType]:
        """Let the neurons spike until the next draw."""
        if self.start_hash is None:
            point = self.begin(point)
        new_point = point.copy()
        recorder = Recorder(self.record_spikes)
        source = RandomDecisions(self.rng)
        duration = self.steps_per_draw / self._n_rounds
        energies = [0.0] * len(self.samplers)
        for round_ in range(self._n_rounds):
            recorder.start = round_ * duration if self.dynamics.continuous else round_ * int(duration)
            for i, sampler, old, new in self._each_sampler(new_point):
                energies[i] = sampler.spike(old, new, duration, self.stream, source, recorder)
        periods = self.steps_per_draw * self.dynamics.periods_per_step
        stats: dict[str, Any] = {
            "spikes": recorder.n_spikes,
            "rate": recorder.n_spikes / (self._n_neurons * periods),
            "network_energy": sum(energies),
        }
        self.count_draw(point, new_point, stats)
        if self.record_spikes:
            stats["spike_raster"] = self._packed(recorder)
        return new_point, [stats]

    @property
    def refractory_periods(self) -> dict[str, int]:
        """The refractory period of each variable's neurons, from whose counters its values follow.

        At points that are forced on, the key `step_methods.certifiable.counters_of` holds the counters. Empty in
        continuous time.
        """
        if self.dynamics.continuous:
            return {}
        return {value.name: int(self.dynamics.tau) for value in self.vars}

    @property
    def n_stages(self) -> int:
        """The stages of a step: a neuron or a block each; all in one if auxiliary neurons are drawn first.

        In random order the picks are stages, too, where each can be any neuron.
        """
        return sum(sampler.n_stages for sampler in self.samplers) if self._has_stages else 1

    @property
    def stages_in_random_order(self) -> bool:
        """Whether a step is `n_stages` independent uniform picks of stages."""
        return self._has_stages and self.dynamics.order == "random"

    @property
    def n_populations(self) -> int:
        """Number of populations of neurons, each of which has steps of its own: machines, fields, variables."""
        return sum(sampler.n_populations for sampler in self.samplers)

    @property
    def n_auxiliary(self) -> int:
        """Number of auxiliary neurons, which stand for hidden units that the model does not have."""
        return self._n_neurons - sum(map(len, self.neurons_of.values()))

    @property
    def _has_stages(self) -> bool:
        if any(sampler.auxiliary for sampler in self.samplers):
            return False
        return self.dynamics.order != "random" or self.n_populations == 1

    def forced_stage(self, stage: int, point: PointType, bits: np.ndarray) -> tuple[PointType, np.ndarray]:
        """Make one stage of a step, its random decisions given.

        Parameters
        ----------
        stage : int
        point : dict
            With the counters of each variable.
        bits : ndarray of uint8
            The decisions, in the order in which the stage makes them; zeros where they run out.

        Returns
        -------
        new_point : dict
        probabilities : ndarray of float64
            The probability with which each decision would have come out as 1, as the kernel itself computed it; as many
            as the stage makes decisions.

        Raises
        ------
        TypeError
            In continuous time.
        """
        return self._force(stage if self._has_stages else None, point, bits)

    def forced_step(self, point: PointType, bits: np.ndarray) -> tuple[PointType, np.ndarray]:
        """Make one step (of each neuron, whatever `steps_per_draw`), its random decisions given; see `forced_stage`."""
        return self._force(None, point, bits)

    def _force(self, stage: int | None, point: PointType, bits: np.ndarray) -> tuple[PointType, np.ndarray]:
        if self.dynamics.continuous:
            raise TypeError(
                "in continuous time a step makes no finite number of decisions, so that they cannot be forced; with "
                "time='discrete' they can"
            )
        new_point = point.copy()
        source = GivenDecisions(bits)
        for _, sampler, old, new in self._each_sampler(new_point):
            if stage is not None and not 0 <= stage < sampler.n_stages:
                stage -= sampler.n_stages
                continue
            names = {name: counters_of(name) for name in sampler.reduced.updated}
            counters: Units = {name: np.array(point[key], np.int64).ravel() for name, key in names.items()}
            sampler.force_stage(old, new, counters, stage, source)
            for name, key in names.items():
                new_point[key] = counters[name].reshape(point[key].shape)
            if stage is not None:
                break
        return new_point, np.array(source.probabilities)

    def _each_sampler(self, point: PointType) -> Iterator[tuple[int, _Sampler, Units, Units]]:
        """Go through the samplers; each gets old units and room for new ones, which the point then holds."""
        for i, sampler in enumerate(self.samplers):
            if sampler.reduced.changes:
                sampler.read(point)
            yield i, sampler, *make_room(sampler.reduced, point)

    def _packed(self, recorder: Recorder) -> np.ndarray:
        units = np.concatenate([np.empty(0, np.int32), *(units for units, _ in recorder.events)])
        times = np.concatenate([np.empty(0, np.int32), *(times for _, times in recorder.events)])
        return pack_spikes(
            units,
            times,
            self._n_neurons,
            self.steps_per_draw,
            self.dynamics.continuous,
            self.dynamics.tau,
            self.dynamics.order != "random",
        )

    @classmethod
    def takes(cls, rv: Variable) -> bool:
        """Whether a free random variable is for this step method where none is named."""
        return two_values(rv) is not None


class EnergyGibbs(NeuralSampling):
    """Gibbs sampling of binary energies: `NeuralSampling` with ``tau=1``, which it is chosen by itself for.

    Parameters
    ----------
    vars : list of Variable or str, optional
        Binary `Energy` variables, and whatever else `NeuralSampling` takes; by default the binary `Energy` variables of
        the model.
    **options
        The options of `NeuralSampling` other than `tau`.

    Raises
    ------
    TypeError, ValueError
        See `NeuralSampling`.
    """

    name = "energy_gibbs"

    def __init__(self, vars: Variables = None, **options: Any):
        if "tau" in options:
            raise TypeError("EnergyGibbs has tau = 1; for another one use NeuralSampling")
        super().__init__(vars, tau=1, **options)

    @classmethod
    def takes(cls, rv: Variable) -> bool:
        """Whether a free random variable is for this step method where none is named."""
        return is_binary_energy(rv)

    @staticmethod
    def competence(var: Variable, has_grad: bool = False) -> Competence:
        """IDEAL for binary energies, INCOMPATIBLE with everything else."""
        return Competence.IDEAL if is_binary_energy(var) else Competence.INCOMPATIBLE


def _evidence(
    model: Model,
    reader: NetworkReader,
    updated: Mapping[str, Variable],
    point: PointType,
    compile_kwargs: Mapping[str, Any] | None,
) -> dict[str, Evidence] | None:
    """Read what other terms say about the units of a network; None if a term joins several of them."""
    terms = [term for own_terms in reader.terms.values() for term in own_terms]
    if len(set(terms)) < len(terms):
        return None  # a term on both layers
    try:
        return read_evidence(model, reader, updated, point, compile_kwargs)
    except MixedUnitsError:
        return None


def _values_of(rv: Variable) -> tuple[int, int]:
    """Return the two values of a variable's units; raise if it has no two."""
    values = two_values(rv)
    if values is None and is_layer(rv):
        raise ValueError(
            f"NeuralSampling takes units with two values, and those of {rv.name!r} are real: sample it with "
            "BlockGibbs or pymc.NUTS"
        )
    if values is None:
        raise ValueError(
            "NeuralSampling takes layers and fields of networks, pm.Bernoulli variables and binary energies, got "
            f"{rv.name!r} with the distribution {distribution_of(rv)}"
        )
    return values


def _checked_dynamics(tau: float, time: str, refractory: str, order: Order, g: RefractoryFunction | None) -> Dynamics:
    for name, value, known in (
        ("time", time, ("discrete", "continuous")),
        ("refractory", refractory, ("absolute", "relative")),
        ("order", order, get_args(Order.__value__)),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    continuous = time == "continuous"
    tau = _checked_number("tau", tau, continuous)
    if tau >= _LARGEST_TAU:
        raise ValueError(f"tau must be below {_LARGEST_TAU}, got {tau}")
    if continuous and order != "sequential":
        raise ValueError(f"order={order!r} has no meaning in continuous time, in which no two neurons spike at once")
    if refractory == "absolute":
        if g is not None:
            raise ValueError("g is the refractory function of refractory='relative', got it with 'absolute'")
        return Dynamics(tau, continuous, order, None)
    if continuous:
        raise ValueError("refractory='relative' is for discrete time, got it with time='continuous'")
    if tau == 1:
        raise ValueError("refractory='relative' needs tau of at least 2, since with 1 no step is refractory")
    warnings.warn(
        "refractory='relative' is approximate: in a network, its neurons do not sample the posterior exactly. "
        "refractory='absolute' does",
        UserWarning,
        stacklevel=3,
    )
    return Dynamics(tau, continuous, order, refractory_function("linear" if g is None else g, int(tau)))


def _checked_number(argument: str, value: float, continuous: bool) -> float:
    kinds: Any = int | float | np.integer | np.floating if continuous else int | np.integer
    if isinstance(value, bool) or not isinstance(value, kinds):
        expected = "a number" if continuous else "an integer in discrete time"
        raise TypeError(f"{argument} must be {expected}, got {value!r}")
    if continuous:
        if not 0 < value < math.inf:
            raise ValueError(f"{argument} must be positive and finite, got {value}")
        return float(value)
    if value < 1:
        raise ValueError(f"{argument} must be at least 1, got {value}")
    return int(value)
