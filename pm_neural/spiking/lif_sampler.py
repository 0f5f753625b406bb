"""Sampling of a given Boltzmann machine by noisy integrate-and-fire neurons, without training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.polynomial import Polynomial
from scipy.special import logit
from scipy.stats import skellam

from pm_neural.fitting.checks import check_integer, check_number
from pm_neural.spiking._machine import Machine
from pm_neural.spiking._samples import samples_as_datatree
from step_methods.kernels.lif.sampling import NoisyNeurons, NoisyState, run_noisy_lif
from step_methods.kernels.vectors.random import seed_stream

if TYPE_CHECKING:
    from xarray import DataTree

# Everything is in units of the refractory time, which is also the time constant of synapses and noise.
_STEPS = 100  # time steps per refractory time
_MEMBRANE_TIME = 0.01
_NOISE_RATE = 50.0  # excitatory, and as many inhibitory, spikes per refractory time
_LARGEST_KICK = 12  # spikes more of one kind than of the other in a step: more have probability 1e-15
_STEPS_PER_DRAW = 10
_SETTLING_TIME = 20

_POTENTIALS = np.linspace(-3.4, 2.4, 21)
_CALIBRATION_TIME = 20_000
_CALIBRATION_SEED = 20_160_101
_PAIRS = 10
_WELL_MEASURED = 4.5  # log-odds
_DEGREE = 5
_MAX_UNITS_EXACT = 12  # units for whose joint states samples are counted


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a noisy neuron does, measured by simulation of single ones.

    Voltages are in units of the standard deviation of the noise, relative to the threshold; times in refractory times.

    Attributes
    ----------
    potentials : ndarray
        Resting voltages.
    log_odds : ndarray
        Of a neuron at these to be refractory, from the fraction of time that it is.
    slope : float
        Of the logistic function that fits best, in log-odds per unit of voltage.
    effectiveness : float
        How much of the coupling that post-synaptic potentials of height coupling / slope stand for is found in the
        log-odds ratio of a pair of neurons. They start at that height, but decay, and outlast the refractory time.
    inverse : numpy.polynomial.Polynomial
        Resting voltage as a function of the log-odds, within ±4.5.
    """

    potentials: np.ndarray
    log_odds: np.ndarray
    slope: float
    effectiveness: float
    inverse: Polynomial

    def potential_of(self, log_odds: np.ndarray) -> np.ndarray:
        """Resting voltages at which neurons have the given log-odds; beyond ±4.5 along the tangent."""
        inside = np.clip(log_odds, -_WELL_MEASURED, _WELL_MEASURED)
        return self.inverse(inside) + self.inverse.deriv()(inside) * (log_odds - inside)

    def height_of(self, coupling: np.ndarray) -> np.ndarray:
        """Heights of post-synaptic potentials that stand for couplings."""
        return coupling / (self.slope * self.effectiveness)


class LIFSampler:
    """Leaky integrate-and-fire neurons with Poisson noise that sample from a Boltzmann machine, approximately.

    Background noise makes a neuron's firing stochastic, with a nearly logistic dependence on its mean voltage [1]_. So
    log-odds translate into voltages: biases into resting voltages, couplings into heights of post-synaptic potentials.
    A unit is 1 while its neuron is refractory. The result is an **approximate** sampler: a logistic function is not
    quite what neurons have, and a decaying potential not a constant shift. `sample` reports the divergence from the
    exact law. `pm_neural.BlockGibbs` is exact.

    Current-based synapses whose membrane follows within a hundredth of the refractory time stand for neurons in the
    high-conductance state. Synapses and noise have the refractory time as their time constant, and post-synaptic
    potentials are renewing: a spike lifts them to full height, and does not add to what is left.

    Made by `from_network`.

    Attributes
    ----------
    machine : (J, b)
        The Boltzmann machine that is sampled.
    leak : ndarray, (n,)
        Resting voltages, relative to the threshold, in standard deviations of the noise.
    weights : ndarray, (n, n)
        Heights of post-synaptic potentials, likewise: to each neuron (row) from each neuron.
    refractory_time : float
        In ms.
    calibration : Calibration

    References
    ----------
    .. [1] M. Petrovici, J. Bill, I. Bytschok, J. Schemmel and K. Meier, "Stochastic inference with spiking neurons in
       the high-conductance state", Physical Review E 94 (2016) 042312.
    """

    def __init__(self, machine: Machine, refractory_time: float, calibration: Calibration) -> None:
        self.machine = machine
        self.refractory_time = refractory_time
        self.calibration = calibration
        self.leak = calibration.potential_of(machine.b)
        self.weights = calibration.height_of(machine.J)

    @classmethod
    def from_network(cls, network: Any, *, refractory_time: float = 10.0) -> Self:
        """Translate a Boltzmann machine.

        The calibration is measured once in a process, which takes some seconds.

        Parameters
        ----------
        network : (J, b) or PyMC variable
            Couplings and biases, E(z) = −b·z − ½ zᵀJz; or a `BoltzmannMachine` or `Ising` variable with fixed
            parameters. Ising spins are sampled as bits, (s + 1) / 2.
        refractory_time : float
            In ms: the time scale of everything.

        Raises
        ------
        TypeError
            `network` is neither.
        ValueError
            Its arrays do not fit, or its parameters are not fixed or finite; or the refractory time is not positive.
        """
        refractory_time = check_number(refractory_time, "refractory_time", minimum=0, exclusive=True)
        return cls(Machine.read(network, "network"), refractory_time, calibrate())

    @property
    def n_neurons(self) -> int:
        """Number of neurons, one for each unit."""
        return len(self.leak)

    def sample(
        self,
        n_chains: int = 4,
        duration: float = 10_000.0,
        *,
        random_seed: int | np.random.Generator | None = None,
    ) -> DataTree:
        """Simulate, and read the neurons ten times in each refractory time.

        Parameters
        ----------
        n_chains : int
        duration : float
            In ms of simulated time of each chain, after 20 refractory times that are not kept.
        random_seed : int or Generator, optional

        Returns
        -------
        DataTree
            Group ``posterior`` with the variable ``z``, dims (chain, draw, neuron), int8. For up to 12 units its
            attributes have ``kl``, the Kullback-Leibler divergence KL(exact ‖ samples) in nats, its Monte Carlo
            standard error ``kl_error``, and ``kl_noise``, what kl would be on average if the sampler were right.

        Raises
        ------
        ValueError, TypeError
            An argument is bad, or the duration is shorter than 16 draws.
        """
        n_chains = check_integer(n_chains, "n_chains", minimum=1)
        shortest = 16 * _STEPS_PER_DRAW / _STEPS * self.refractory_time
        duration = check_number(duration, "duration", minimum=shortest)
        n_draws = round(duration / self.refractory_time * _STEPS / _STEPS_PER_DRAW)
        rng = np.random.default_rng(random_seed)
        draws = np.stack([simulate(self.leak, self.weights, n_draws, rng) for _ in range(n_chains)])
        law = self.machine.law() if self.n_neurons <= _MAX_UNITS_EXACT else None
        return samples_as_datatree(draws, "LIFSampler", law)


def simulate(leak: np.ndarray, weights: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Run one chain from any state, and keep draws (n_draws, n_neurons) once it has settled."""
    n = len(leak)
    mean = _NOISE_RATE / _STEPS
    spikes = np.arange(-_LARGEST_KICK, _LARGEST_KICK + 1)
    cumulative = skellam.cdf(spikes, mean, mean)
    cumulative[-1] = 1.0
    keep = np.exp(-1 / _STEPS)
    # In equilibrium the noise current then has the standard deviation 1.
    height = np.sqrt((1 - keep**2) / (2 * mean))
    neurons = NoisyNeurons(
        leak=np.ascontiguousarray(leak, dtype=float),
        weights=np.ascontiguousarray(weights.T, dtype=float),
        keep_noise=keep,
        keep_synapse=keep,
        approach=1 - np.exp(-1 / (_STEPS * _MEMBRANE_TIME)),
        refractory_steps=_STEPS,
        kicks=height * spikes,
        cumulative=cumulative,
    )
    zeros = np.zeros(n)
    state = NoisyState(rng.normal(size=n), zeros, zeros.copy(), zeros.copy(), np.zeros(n, dtype=np.int64))
    stream = seed_stream(rng)
    run_noisy_lif(stream, neurons, state, _STEPS, np.empty((_SETTLING_TIME, n), dtype=np.int8))
    draws = np.empty((n_draws, n), dtype=np.int8)
    run_noisy_lif(stream, neurons, state, _STEPS_PER_DRAW, draws)
    return draws


@cache
def calibrate() -> Calibration:
    """Measure noisy neurons, always with the same random numbers."""
    rng = np.random.default_rng(_CALIBRATION_SEED)
    n = len(_POTENTIALS)
    draws = simulate(_POTENTIALS, np.zeros((n, n)), _CALIBRATION_TIME * _STEPS // _STEPS_PER_DRAW, rng)
    log_odds = logit(draws.mean(axis=0))
    measured = np.abs(log_odds) < _WELL_MEASURED
    straight = np.abs(log_odds) < _WELL_MEASURED / 2
    slope = Polynomial.fit(_POTENTIALS[straight], log_odds[straight], 1).deriv()(0)
    domain = (-_WELL_MEASURED, _WELL_MEASURED)
    inverse = Polynomial.fit(log_odds[measured], _POTENTIALS[measured], _DEGREE, domain=domain)
    effectiveness = _measure_pairs(float(inverse(0.0)), float(slope), rng)
    return Calibration(_POTENTIALS, log_odds, float(slope), effectiveness, inverse)


def _measure_pairs(leak: float, slope: float, rng: np.random.Generator) -> float:
    """Measure the log-odds ratios of neurons coupled in pairs by ±1, relative to that, half of them with each sign."""
    couplings = np.tile([1.0, -1.0], _PAIRS // 2)
    n = 2 * _PAIRS
    weights = np.zeros((n, n))
    first = np.arange(0, n, 2)
    weights[first, first + 1] = weights[first + 1, first] = couplings / slope
    draws = simulate(np.full(n, leak), weights, _CALIBRATION_TIME * _STEPS // _STEPS_PER_DRAW, rng)
    states = 2 * draws[:, ::2] + draws[:, 1::2]
    counts = np.stack([np.bincount(pair, minlength=4) for pair in states.T])
    return float((np.log(counts) @ [1, -1, -1, 1] / couplings).mean())
