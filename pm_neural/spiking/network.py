"""A population of spiking neurons whose refractory states are samples."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, Unpack

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pm_neural.fitting.backend import backend_for
from pm_neural.fitting.checkpoint import load_checkpoint, load_parameters
from pm_neural.fitting.checks import check_dtype, check_integer, check_learnable, check_number, check_parameters
from pm_neural.fitting.loop import train
from pm_neural.fitting.optimizer import make_ascent
from pm_neural.fitting.options import FitArguments, FitOptions, takes_fit_options
from pm_neural.fitting.threads import single_thread
from pm_neural.spiking._inputs import InputSpikes
from pm_neural.spiking._law import MAX_NEURONS, joint_distribution
from pm_neural.spiking._learner import SpikingLearner, batch_divergences
from pm_neural.spiking._nir import build_graph
from pm_neural.spiking._samples import samples_as_datatree
from pm_neural.spiking._target import read_target
from pm_neural.spiking.simulators.cell import refractory_step, run_cell
from pm_neural.spiking.simulators.fused import run_fused
from pm_neural.spiking.simulators.norse import (
    LIFParameters,
    LIFRefracParameters,
    LIFRefracRecurrentCell,
    LIFRefracState,
    LIFState,
)
from step_methods.kernels.vectors.random import seed_stream

if TYPE_CHECKING:
    from nir import NIRGraph
    from xarray import DataTree

type FusedRun = Callable[..., tuple[Tensor, Tensor, Tensor, LIFRefracState]]

ENGINES = ("fused", "norse")
STEP = 1e-3
"""Seconds of one time step."""

_SETTLING_STEPS = 200  # twenty membrane time constants
_CHUNK_ROWS = 1 << 15  # chains times steps that are simulated at once: some 20 MB of records
_TEACHER_CHAINS = 32
_TEACHER_STEPS = 1_000_000  # over all chains
_TEACHER_SEED = 20_090_101  # any: so that a teacher means the same target whenever it is asked for
_FLOOR_RUNS = 8
_SGD_LEARNING_RATE = 0.1


class Traces(NamedTuple):
    """What a run of a `SamplingNetwork` shows, as tensors (time, batch, neuron).

    Attributes
    ----------
    refractory : Tensor
        1 while a neuron is refractory after a spike, else 0: the samples.
    spikes : Tensor
        1 where a neuron fires, else 0.
    voltages : Tensor
        Membrane voltages; the threshold is 1 and the reset 0.
    state : norse.torch.LIFRefracState
        From which a next run goes on.
    """

    refractory: Tensor
    spikes: Tensor
    voltages: Tensor
    state: LIFRefracState


class SamplingNetwork(nn.Module):
    """Leaky integrate-and-fire neurons, driven by Poisson noise, whose refractory states are binary samples.

    A neuron that fires is refractory for some steps, and reads as 1 in them, else as 0. `fit` trains the weights so
    that the joint states of the first `n_readout` neurons follow a target distribution. This is an **approximate**
    sampler: nothing guarantees the target, and `fit` and `sample` report how far off it is. `pm_neural.BlockGibbs`
    samples Boltzmann machines exactly.

    The dynamics are those of Norse's ``LIFRefracRecurrentCell`` [1]_ at its time constants (membrane 10 ms, synapses
    5 ms) in steps of 1 ms, without autapses. A new network has weights from N(0, 2/n_neurons).

    Parameters
    ----------
    n_neurons, n_inputs, n_readout : int
        Neurons, noise sources, and neurons that are read: the first ones, at most 20.
    leak : float or array_like of shape (n_neurons,)
        Resting voltage, in units in which a neuron fires above 1 and is reset to 0.
    refractory_time : int
        Steps for which a neuron is refractory.
    input_rate : float
        Mean rate of each noise source in Hz, below 1000.
    sharpness : float
        α of the surrogate derivative 1 / (α ``|x|`` + 1)² of a step at x [2]_. Small ones let gradients grow over time.
    engine : {"fused", "norse"}
        What simulates: one kernel for the whole run and one for its gradient, compiled by numba for the CPU and by
        Triton for CUDA devices; or Norse's cell stepped in Python, on any device. Spikes and gradients are the same up
        to rounding.
    dtype : torch.dtype
        float32 (the default) or float64.
    device : torch.device or str, optional
    random_seed : int or Generator, optional
        Of the weights.

    Attributes
    ----------
    input_weights : torch.nn.Parameter, (n_neurons, n_inputs)
    recurrent_weights : torch.nn.Parameter, (n_neurons, n_neurons)
        To each neuron (row) from each neuron; the diagonal has no effect.

    Raises
    ------
    ValueError, TypeError
        An argument is bad, or the engine is "fused" and the device neither the CPU nor CUDA.
    ImportError
        The engine is "fused", the device CUDA, and Triton missing.

    References
    ----------
    .. [1] C. Pehle and J. Pedersen, "Norse: a deep learning library for spiking neural networks" (2021),
       https://doi.org/10.5281/zenodo.4422025
    .. [2] F. Zenke and S. Ganguli, "SuperSpike: supervised learning in multilayer spiking neural networks", Neural
       Computation 30 (2018) 1514.
    """

    leak: Tensor

    @torch.inference_mode(False)
    def __init__(
        self,
        n_neurons: int = 32,
        n_inputs: int = 256,
        n_readout: int = 3,
        *,
        leak: float | ArrayLike = 1.0,
        refractory_time: int = 10,
        input_rate: float = 30.0,
        sharpness: float = 100.0,
        engine: Literal["fused", "norse"] = "fused",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        random_seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        n_neurons = check_integer(n_neurons, "n_neurons", minimum=1)
        n_inputs = check_integer(n_inputs, "n_inputs", minimum=1)
        self.n_readout = check_integer(n_readout, "n_readout", minimum=1)
        if self.n_readout > min(n_neurons, MAX_NEURONS):
            raise ValueError(f"n_readout must be at most {min(n_neurons, MAX_NEURONS)}; got {n_readout}")
        self.refractory_time = check_integer(refractory_time, "refractory_time", minimum=1)
        self.input_rate = check_number(input_rate, "input_rate", minimum=0, below=1 / STEP, exclusive=True)
        self.sharpness = check_number(sharpness, "sharpness", minimum=0, exclusive=True)
        check_dtype(dtype)
        self.engine = engine
        rng = np.random.default_rng(random_seed)
        scale = np.sqrt(2 / n_neurons)
        options: Any = {"dtype": dtype, "device": device}
        self.input_weights = nn.Parameter(torch.tensor(rng.normal(0, scale, (n_neurons, n_inputs)), **options))
        self.recurrent_weights = nn.Parameter(torch.tensor(rng.normal(0, scale, (n_neurons, n_neurons)), **options))
        self.register_buffer("leak", torch.tensor(_check_leak(leak, n_neurons), **options))
        self._fused_run()  # refuses an engine that the device does not have

    @property
    def n_neurons(self) -> int:
        """Number of neurons."""
        return self.input_weights.shape[0]

    @property
    def n_inputs(self) -> int:
        """Number of noise sources."""
        return self.input_weights.shape[1]

    def extra_repr(self) -> str:
        """Describe the module, for its repr."""
        return (
            f"n_neurons={self.n_neurons}, n_inputs={self.n_inputs}, n_readout={self.n_readout}, "
            f"refractory_time={self.refractory_time}, input_rate={self.input_rate}, engine={self.engine!r}"
        )

    @property
    def neuron_parameters(self) -> LIFRefracParameters:
        """The neurons in Norse's terms."""
        p = LIFParameters()
        constants = (p.tau_syn_inv, p.tau_mem_inv, p.v_th, p.v_reset)
        tau_syn_inv, tau_mem_inv, v_th, v_reset = (self.leak.new_tensor(round(float(c), 6)) for c in constants)
        lif = LIFParameters(
            tau_syn_inv=tau_syn_inv,
            tau_mem_inv=tau_mem_inv,
            v_leak=self.leak,
            v_th=v_th,
            v_reset=v_reset,
            alpha=self.sharpness,
        )
        return LIFRefracParameters(lif, self.leak.new_tensor(self.refractory_time))

    def options(self) -> dict[str, Any]:
        """Return the arguments, as JSON values, with which a network of this kind is made; its weights are apart."""
        return {
            "n_neurons": self.n_neurons,
            "n_inputs": self.n_inputs,
            "n_readout": self.n_readout,
            "leak": self.leak.tolist(),
            "refractory_time": self.refractory_time,
            "input_rate": self.input_rate,
            "sharpness": self.sharpness,
            "engine": self.engine,
            "dtype": str(self.leak.dtype).removeprefix("torch."),
        }

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> Self:
        """Make the network that a checkpoint of `fit` holds, on the CPU.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            The file is cut short or no checkpoint, or of another version or model.
        """
        state = load_checkpoint(path, kind=SpikingLearner.kind)["learner"]
        options = state["network"]
        network = cls(**{**options, "dtype": getattr(torch, options["dtype"])})
        load_parameters(network, state["parameters"])
        return network

    def to_nir(self) -> NIRGraph:
        """Describe the network in the neuromorphic intermediate representation, for ``nir.write`` [1]_.

        The graph has the nodes ``input``, ``input_weights``, ``neurons`` (CubaLIF), ``recurrent_weights`` and
        ``output``; times are in seconds. The representation knows no refractory neurons: the refractory time is in the
        graph's metadata, with the time step, the input rate in Hz and the number of readout neurons, and a tool that
        loads the graph has to be told of it.

        Returns
        -------
        nir.NIRGraph

        References
        ----------
        .. [1] J. Pedersen et al., "Neuromorphic intermediate representation: a unified instruction set for
           interoperable brain-inspired computing", Nature Communications 15 (2024) 8122.
        """
        return build_graph(
            self.input_weights,
            self._without_autapses(self.recurrent_weights),
            self.neuron_parameters,
            dt=STEP,
            input_rate=self.input_rate,
            n_readout=self.n_readout,
        )

    # Simulation

    def draw_inputs(
        self, n_steps: int, n_chains: int, *, random_seed: int | np.random.Generator | None = None
    ) -> InputSpikes:
        """Draw Poisson noise for a run: each source spikes in each step with probability ``input_rate / 1000``."""
        return self._draw_inputs(n_steps, n_chains, np.random.default_rng(random_seed))

    def _draw_inputs(self, n_steps: int, n_chains: int, stream: np.ndarray | np.random.Generator) -> InputSpikes:
        return InputSpikes.poisson(n_steps, n_chains, self.n_inputs, probability=STEP * self.input_rate, stream=stream)

    def initial_state(self, n_chains: int) -> LIFRefracState:
        """Return neurons at 0.9 of the threshold, none of them refractory, and no currents."""
        zeros = self.leak.new_zeros(check_integer(n_chains, "n_chains", minimum=1), self.n_neurons)
        return LIFRefracState(LIFState(zeros, zeros + 0.9, zeros), zeros)

    def forward(self, inputs: InputSpikes | Tensor, state: LIFRefracState | None = None) -> Traces:
        """Run the network.

        Parameters
        ----------
        inputs : InputSpikes or Tensor of 0 and 1, (n_steps, n_chains, n_inputs)
            Spikes of the noise sources, as from `draw_inputs`.
        state : norse.torch.LIFRefracState, optional
            Where to start, such as the last state of another run; by default `initial_state`. Gradients do not go
            through it.

        Returns
        -------
        Traces
            Differentiable by the weights, through surrogate derivatives.

        Raises
        ------
        ValueError
            `inputs` or `state` does not fit, or a weight is not finite.
        FloatingPointError
            Currents or voltages left the range of numbers.
        """
        run = self._fused_run()
        input_weights, recurrent_weights = check_parameters(
            {"input_weights": self.input_weights, "recurrent_weights": self.recurrent_weights}
        )
        n_chains = self._check_inputs(inputs)
        state = self.initial_state(n_chains) if state is None else self._checked_state(state, n_chains)
        recurrent_weights = self._without_autapses(recurrent_weights)
        p = self.neuron_parameters
        if run is not None:
            events = InputSpikes.from_dense(inputs) if isinstance(inputs, Tensor) else inputs
            traces = Traces(*run(events, state, input_weights, recurrent_weights, p, STEP))
        else:
            if isinstance(inputs, InputSpikes):
                inputs = inputs.to_dense(dtype=self.leak.dtype, device=self.leak.device)
            cell = LIFRefracRecurrentCell(
                self.n_inputs,
                self.n_neurons,
                p,
                input_weights=input_weights,
                recurrent_weights=recurrent_weights,
                autapses=True,  # of which `recurrent_weights` has none: Norse's own hook would be lost in copies
                dt=STEP,
            )
            cell.activation = refractory_step
            traces = Traces(*run_cell(cell, inputs, state))
        _check_finite(traces.state)
        return traces

    def settled_state(self, n_chains: int, stream: np.ndarray) -> LIFRefracState:
        """Run from `initial_state` until it is forgotten; `stream` is a state of the kernels' random numbers."""
        with torch.no_grad():
            return self.run_law(_SETTLING_STEPS, n_chains, stream, self.initial_state(n_chains))[1]

    def run_law(
        self, n_steps: int, n_chains: int, stream: np.ndarray, state: LIFRefracState
    ) -> tuple[Tensor, LIFRefracState]:
        """Run on under fresh noise; return the law of each chain's readout, (n_chains, 2**n_readout), and the end."""
        traces = self(self._draw_inputs(n_steps, n_chains, stream), state)
        return joint_distribution(traces.refractory[..., : self.n_readout]), traces.state

    # Sampling

    @torch.no_grad()
    def sample(
        self,
        n_chains: int = 32,
        n_draws: int = 1000,
        *,
        target: Any = None,
        random_seed: int | np.random.Generator | None = None,
        n_steps: int | None = None,
    ) -> DataTree:
        """Draw states of the readout neurons, one each step: approximate samples of what the network was trained for.

        Parameters
        ----------
        n_chains, n_draws : int
            Independent runs, and draws of each: its steps, after 200 that are not kept.
        target : optional
            A distribution as for `fit`, to compare the samples with.
        random_seed : int or Generator, optional
        n_steps : int, optional
            Deprecated name of `n_draws`.

        Returns
        -------
        DataTree
            Group ``posterior`` with the variable ``z``, dims (chain, draw, neuron). It is int8 to save memory: convert
            it before arithmetic that leaves -128 to 127. With `target` its attributes have ``kl``, the
            Kullback-Leibler divergence KL(target ‖ samples) in nats, its Monte Carlo standard error ``kl_error``, and
            ``kl_noise``, what kl would be on average if the sampler were right. It is infinite where a possible state
            was never visited.

        Raises
        ------
        ValueError, TypeError
            An argument is bad.
        """
        n_chains = check_integer(n_chains, "n_chains", minimum=1)
        if n_steps is not None:
            warnings.warn("n_steps is called n_draws now", DeprecationWarning, stacklevel=2)
            n_draws = n_steps
        n_draws = check_integer(n_draws, "n_draws", minimum=1)
        probabilities = None if target is None else self._target_of(target)
        stream = seed_stream(np.random.default_rng(random_seed))
        state = self.settled_state(n_chains, stream)
        draws = np.empty((n_draws, n_chains, self.n_readout), dtype=np.int8)
        chunk = max(1, _CHUNK_ROWS // n_chains)
        for start in range(0, n_draws, chunk):
            part = draws[start : start + chunk]
            traces = self(self._draw_inputs(len(part), n_chains, stream), state)
            part[...] = traces.refractory[..., : self.n_readout].cpu().numpy()
            state = traces.state
        return samples_as_datatree(draws.transpose(1, 0, 2), "SamplingNetwork", probabilities)

    def _target_of(self, target: Any) -> np.ndarray:
        """Probabilities of all states; those of a teacher from a run of 10⁶ steps, always the same one."""
        if isinstance(target, SamplingNetwork):
            return self._teacher_law(target, _teacher_stream())
        return read_target(target, self.n_readout)

    def _target_and_floor(self, target: Any, n_steps: int, n_chains: int) -> tuple[np.ndarray, dict[str, float]]:
        """Probabilities of all states and, with a teacher, how far its own runs under fresh noise are from them."""
        if not isinstance(target, SamplingNetwork):
            return self._target_of(target), {}
        stream = _teacher_stream()
        law = self._teacher_law(target, stream)
        state = target.settled_state(n_chains, stream)
        scores = []
        with torch.no_grad():
            for _ in range(_FLOOR_RUNS):
                part, state = target.run_law(n_steps, n_chains, stream, state)
                scores.append(batch_divergences(torch.as_tensor(law), part.cpu(), n_steps))
        kl, kl_trial = np.mean(scores, axis=0)
        return law, {"teacher_kl": float(kl), "teacher_kl_trial": float(kl_trial)}

    def _teacher_law(self, teacher: SamplingNetwork, stream: np.ndarray) -> np.ndarray:
        if teacher.n_readout != self.n_readout:
            raise ValueError(f"target must have n_readout={self.n_readout}; got a network with {teacher.n_readout}")
        state = teacher.settled_state(_TEACHER_CHAINS, stream)
        law = np.zeros(2**self.n_readout)
        n_runs = -(-_TEACHER_STEPS // _CHUNK_ROWS)
        with torch.no_grad():
            for _ in range(n_runs):
                part, state = teacher.run_law(_CHUNK_ROWS // _TEACHER_CHAINS, _TEACHER_CHAINS, stream, state)
                law += part.double().mean(0).cpu().numpy()
        return law / n_runs

    # Training

    @torch.inference_mode(False)
    @takes_fit_options(
        without=("batch_size", "validation_data"), epochs=400, optimizer=torch.optim.Adam, learning_rate=0.01
    )
    def fit(
        self,
        target: Any,
        *,
        n_steps: int = 1000,
        n_chains: int = 32,
        momentum: float = 0.0,
        **options: Unpack[FitArguments],
    ) -> xr.Dataset:
        """Train the weights until the readout neurons sample from a target, by descent of KL(target ‖ sampled).

        Each epoch runs all chains on for `n_steps` under fresh noise, counts the joint states of the readout over the
        whole batch, and propagates the divergence back through all steps. Half a visit is added to each state, so that
        the divergence and its gradient are finite.

        Parameters
        ----------
        target : array_like, PyMC variable, (J, b) or SamplingNetwork
            Probabilities of all 2**n_readout states in the order of `pm_neural.diagnostics.enumerate_states`; or
            samples (n, n_readout) of 0 and 1; or a `BoltzmannMachine` or `Ising` variable with fixed parameters, or
            couplings and biases of one, for its exact law; or another network, for its law in a run of 10⁶ steps.
        epochs : int
            Updates of the weights.
        n_steps, n_chains : int
            Steps of an epoch, and runs side by side, at least 2.
        learning_rate : float or None
            None keeps a torch optimizer's own; 0.1 for ``"sgd"``.
        momentum : float
            For ``"sgd"``, in [0, 1).
        early_stopping : EarlyStopping, optional
            When ``kl`` ends training; its tolerance is in nats, so 0.01 rather than the default.

        Returns
        -------
        xarray.Dataset
            The history, over the dim ``epoch``: ``loss`` of the epoch; on fresh noise ``kl``, the divergence of the
            law of the whole batch, ``kl_noise``, what a perfect sampler with the same scatter from trial to trial
            would show, and ``kl_trial``, the mean over the divergences of single trials; ``seconds`` per epoch. The
            attributes are the settings, and with a teacher ``teacher_kl`` and ``teacher_kl_trial``: how the teacher
            itself does, run again. That is the floor.

        Raises
        ------
        ValueError, TypeError
            An argument is bad, or a checkpoint is cut short, of another version, or of a training with other arguments
            or another target.
        FloatingPointError
            Loss, gradient, weights, currents or voltages are no longer finite; says which and in what epoch.

        Examples
        --------
        >>> from pm_neural.spiking import SamplingNetwork
        >>> network = SamplingNetwork(n_neurons=8, n_inputs=64, n_readout=1, random_seed=1)
        >>> history = network.fit([0.3, 0.7], epochs=20, random_seed=1, progressbar=False)
        """
        chosen = FitOptions(**options)
        n_steps = check_integer(n_steps, "n_steps", minimum=1)
        n_chains = check_integer(n_chains, "n_chains", minimum=2)
        check_learnable(dict(self.named_parameters()))
        with single_thread():
            probabilities, floor = self._target_and_floor(target, n_steps, n_chains)
            rng = np.random.default_rng(chosen.random_seed)
            backend = backend_for(self.leak, rng)
            ascent = make_ascent(
                backend,
                tuple(self.parameters()),
                optimizer=chosen.optimizer,
                learning_rate=chosen.learning_rate,
                default_learning_rate=_SGD_LEARNING_RATE,
                momentum=momentum,
            )
            learner = SpikingLearner(
                self,
                target=probabilities,
                backend=backend,
                ascent=ascent,
                learning_rate_schedule=chosen.learning_rate_schedule,
                epochs=int(chosen.epochs),
                n_steps=n_steps,
                n_chains=n_chains,
                rng=rng,
                settings=floor,
            )
            return train(learner, chosen)

    def _without_autapses(self, recurrent_weights: Tensor) -> Tensor:
        autapses = torch.eye(self.n_neurons, dtype=torch.bool, device=recurrent_weights.device)
        return recurrent_weights.masked_fill(autapses, 0)

    def _fused_run(self) -> FusedRun | None:
        """Return what runs the engine "fused" where the network is, or None for "norse"."""
        if self.engine not in ENGINES:
            raise ValueError(f"engine must be one of {', '.join(map(repr, ENGINES))}; got {self.engine!r}")
        return _fused_simulator(self.leak.device) if self.engine == "fused" else None

    def _check_inputs(self, inputs: InputSpikes | Tensor) -> int:
        shape = tuple(inputs.shape)
        if len(shape) != 3 or shape[2] != self.n_inputs or not shape[0] or not shape[1]:
            raise ValueError(f"inputs must have shape (n_steps, n_chains, {self.n_inputs}); got {shape}")
        return shape[1]

    def _checked_state(self, state: LIFRefracState, n_chains: int) -> LIFRefracState:
        """Return `state` cut off from the run that led there."""
        tensors = {"z": state.lif.z, "v": state.lif.v, "i": state.lif.i, "rho": state.rho}
        for name, tensor in tensors.items():
            expected = (n_chains, self.n_neurons), self.leak.dtype, self.leak.device
            if (tuple(tensor.shape), tensor.dtype, tensor.device) != expected:
                raise ValueError(
                    "state must hold {} of shape {}, {}, on {}; ".format(name, *expected)
                    + f"got {tuple(tensor.shape)}, {tensor.dtype}, on {tensor.device}"
                )
        z, v, i, rho = (tensor.detach() for tensor in tensors.values())
        return LIFRefracState(LIFState(z, v, i), rho)


def _fused_simulator(device: torch.device) -> FusedRun:
    """Return what the engine "fused" runs on a device."""
    if device.type == "cpu":
        return run_fused
    if device.type != "cuda":
        raise ValueError(f"engine='fused' runs on the CPU and on CUDA; got device {device}: use engine='norse' there")
    try:
        from pm_neural.spiking.simulators.fused_cuda import run_fused_cuda
    except ImportError as error:
        raise ImportError(
            "engine='fused' needs Triton on CUDA devices, which comes with torch on Linux; use engine='norse'"
        ) from error
    return run_fused_cuda


def _teacher_stream() -> np.ndarray:
    return seed_stream(np.random.default_rng(_TEACHER_SEED))


def _check_leak(leak: float | ArrayLike, n_neurons: int) -> np.ndarray:
    values = np.asarray(leak)
    if values.dtype.kind not in "iuf":
        raise TypeError(f"leak must be a number or an array of numbers; got {leak!r}")
    if values.shape not in ((), (n_neurons,)) or not np.isfinite(values).all():
        raise ValueError(f"leak must be finite, one number or {n_neurons}; got shape {values.shape} and {leak!r}")
    return np.broadcast_to(values, n_neurons).copy()


def _check_finite(state: LIFRefracState) -> None:
    for name, tensor in (("current", state.lif.i), ("voltage", state.lif.v)):
        finite = torch.isfinite(tensor)
        if not finite.all():
            chain, neuron = (~finite).nonzero()[0].tolist()
            value = tensor[chain, neuron].item()
            raise FloatingPointError(f"the simulation diverged: {name} {value} of neuron {neuron} in chain {chain}")
