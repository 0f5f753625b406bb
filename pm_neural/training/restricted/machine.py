"""What restricted Boltzmann machines have in common: binary hidden units, sampling, and training."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pm_neural.fitting.checkpoint import load_checkpoint, load_parameters
from pm_neural.fitting.checks import check_dtype, check_integer, check_learnable, check_number, check_parameters
from pm_neural.fitting.draws import draws_as_datatree
from pm_neural.fitting.learner import Plan
from pm_neural.fitting.loop import train
from pm_neural.fitting.optimizer import make_ascent
from pm_neural.fitting.options import FitOptions
from pm_neural.fitting.threads import threads_for
from pm_neural.training.restricted.chains import Chains
from pm_neural.training.restricted.gradient import LikelihoodGradient
from pm_neural.training.restricted.layers import Layers
from pm_neural.training.restricted.learner import RBMLearner
from pm_neural.training.restricted.negative_phase import NegativePhase, make_negative_phase

if TYPE_CHECKING:
    from xarray import DataTree


class RestrictedMachine(nn.Module):
    """A restricted Boltzmann machine with binary hidden units; its kind of visible units is a subclass.

    Attributes
    ----------
    W : torch.nn.Parameter, (n_visible, n_hidden)
        Couplings.
    a, b : torch.nn.Parameter, (n_visible,) and (n_hidden,)
        Visible and hidden biases.
    """

    kind: ClassVar[str]
    """What a checkpoint of it is called."""
    measurements: ClassVar[Mapping[str, Mapping[str, str]]]
    """Attributes of what `measure` returns."""
    displayed: ClassVar[Mapping[str, str]]
    """Measurements that the progress bar shows, and what it calls them."""
    draw_dtype: torch.dtype | None
    """Type of the visible states in a DataTree; None for that of the parameters."""
    default_learning_rate: ClassVar[float]
    """Of plain gradient ascent."""

    @torch.inference_mode(False)
    def __init__(
        self, n_visible: int, n_hidden: int, *, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        n_visible = check_integer(n_visible, "n_visible", minimum=1)
        n_hidden = check_integer(n_hidden, "n_hidden", minimum=1)
        check_dtype(dtype)
        self.W = nn.Parameter(torch.zeros(n_visible, n_hidden, dtype=dtype, device=device))
        self.a = nn.Parameter(torch.zeros(n_visible, dtype=dtype, device=device))
        self.b = nn.Parameter(torch.zeros(n_hidden, dtype=dtype, device=device))

    @property
    def n_visible(self) -> int:
        """Number of visible units."""
        return self.W.shape[0]

    @property
    def n_hidden(self) -> int:
        """Number of hidden units."""
        return self.W.shape[1]

    def extra_repr(self) -> str:
        """Describe the module, for its repr."""
        return f"n_visible={self.n_visible}, n_hidden={self.n_hidden}"

    @abstractmethod
    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -log sum_h exp(-E(v, h)), (...) for v (..., n_visible)."""

    @abstractmethod
    def measure(self, v: Tensor) -> dict[str, Tensor]:
        """Measure, after some training, what can be measured on `v`, (n, n_visible), alone."""

    @abstractmethod
    def _check_visible(self, v: ArrayLike | Tensor, name: str) -> np.ndarray:
        """Return visible states as an array, (n, n_visible), or say what is wrong with them."""

    @abstractmethod
    def _layers(self, rng: np.random.Generator) -> Layers:
        """Make the conditionals, which draw from a backend seeded from `rng`."""

    @abstractmethod
    def _gradient(self, layers: Any, negative_phase: NegativePhase, **options: Any) -> LikelihoodGradient:
        """Make the gradient of the log-likelihood."""

    @abstractmethod
    def _initial_weight_sd(self) -> float | np.ndarray:
        """Return the standard deviation of the weights that a machine starts with, one or one for each row of W."""

    @abstractmethod
    def _initial_visible_bias(self, data: np.ndarray) -> np.ndarray:
        """Return the visible biases that fit the data without weights."""

    def _initialize(self, data: np.ndarray, rng: np.random.Generator) -> None:
        """Start a machine without weights near independent units; biases that it has stay."""
        if self.W.any():
            return
        self.W.copy_(torch.as_tensor(self._initial_weight_sd() * rng.normal(size=self.W.shape)))
        if not (self.a.any() or self.b.any()):
            self.a.copy_(torch.as_tensor(self._initial_visible_bias(data)))

    @abstractmethod
    def _start_state(self, n_chains: int, rng: np.random.Generator) -> np.ndarray:
        """Draw visible states for chains to start from."""

    @abstractmethod
    def _start_chains(self, start: np.ndarray, rng: np.random.Generator) -> Chains:
        """Start block Gibbs chains."""

    @classmethod
    def _options(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what else a machine is made with, from the settings of its training."""
        return {}

    def _checked(self) -> tuple[Tensor, ...]:
        """Return the parameters, which the user may have changed, even their shapes: kernels would not notice."""
        parameters = dict(self.named_parameters())
        shape = self.W.shape
        expected = {"a": shape[:1], "b": shape[1:], "log_sigma": shape[:1]}
        for name, parameter in parameters.items():
            if parameter.shape != expected.get(name, parameter.shape):
                raise ValueError(
                    f"{name} must have shape {tuple(expected[name])} to fit W of shape {tuple(shape)}; "
                    f"got {tuple(parameter.shape)}"
                )
        return check_parameters(parameters)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> Self:
        """Make the machine that a checkpoint of `fit` holds, on the CPU.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            The file is cut short or no checkpoint, or of another version or model.
        """
        state = load_checkpoint(path, kind=cls.kind)
        parameters = state["learner"]["parameters"]
        W = torch.as_tensor(parameters["W"])
        machine = cls(*W.shape, dtype=W.dtype, **cls._options(state["settings"]))
        load_parameters(machine, parameters)
        return machine

    # Sampling

    @torch.no_grad()
    def gibbs(
        self,
        v: ArrayLike | Tensor,
        n_sweeps: int = 1,
        *,
        random_seed: int | np.random.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run block Gibbs sampling: h given v, then v given h, `n_sweeps` times, all rows at once.

        Parameters
        ----------
        v : array, (n_chains, n_visible)
            Visible states to start from.
        n_sweeps : int
        random_seed : int or Generator, optional

        Returns
        -------
        v, h : Tensor, (n_chains, n_visible) and (n_chains, n_hidden)
            The last visible states and the hidden states that they were drawn from.
        """
        start = self._check_visible(v, "v")
        n_sweeps = check_integer(n_sweeps, "n_sweeps", minimum=1)
        chains = self._start_chains(start, np.random.default_rng(random_seed))
        chains.sweep(n_sweeps)
        return chains.v.to(self.W.dtype), chains.h.to(self.W.dtype)

    @torch.no_grad()
    def sample(
        self,
        n_chains: int = 4,
        n_draws: int = 1000,
        *,
        sweeps_per_draw: int = 1,
        burn_in: int = 100,
        start: ArrayLike | Tensor | None = None,
        random_seed: int | np.random.Generator | None = None,
    ) -> DataTree:
        """Draw visible states by block Gibbs sampling, all chains at once.

        Parameters
        ----------
        n_chains, n_draws : int
            Chains, and draws kept of each. They take a byte per binary unit, four or eight per Gaussian one;
            where only the last states are of interest, use ``n_draws=1`` and a long `burn_in`.
        sweeps_per_draw : int
            Sweeps from one draw to the next.
        burn_in : int
            Sweeps before the first draw's own.
        start : array, (n_chains, n_visible), optional
            Visible states to start from, for example images. If None, binary units start as fair coins, and Gaussian
            ones as drawn given hidden units that are fair coins.
        random_seed : int or Generator, optional

        Returns
        -------
        DataTree
            Group ``posterior`` with the variable ``v``, dims (chain, draw, visible). Binary units are int8 to
            save memory: convert them before arithmetic that leaves -128 to 127.
        """
        n_chains = check_integer(n_chains, "n_chains", minimum=1)
        n_draws = check_integer(n_draws, "n_draws", minimum=1)
        sweeps_per_draw = check_integer(sweeps_per_draw, "sweeps_per_draw", minimum=1)
        burn_in = check_integer(burn_in, "burn_in", minimum=0)
        self._checked()
        rng = np.random.default_rng(random_seed)
        if start is None:
            first = self._start_state(n_chains, rng)
        else:
            first = self._check_visible(start, "start")
            if len(first) != n_chains:
                raise ValueError(f"start must have one row per chain, {n_chains}; got shape {first.shape}")
        chains = self._start_chains(first, rng)
        shape = n_draws, n_chains, self.n_visible
        draws = torch.empty(shape, dtype=self.draw_dtype or self.W.dtype, device=self.W.device)
        chains.sweep(burn_in)
        for draw in draws:
            chains.sweep(sweeps_per_draw)
            draw[...] = chains.v
        return draws_as_datatree({"v": draws.transpose(0, 1).cpu().numpy()}, dims={"v": ["visible"]})

    # Training

    def _fit(
        self,
        X: ArrayLike | Tensor,
        options: FitOptions,
        *,
        method: str,
        k: int,
        n_chains: int | None,
        n_temperatures: int | None,
        momentum: float,
        own_rates: Mapping[str, tuple[nn.Parameter, float | None]] = MappingProxyType({}),
        max_gradient_norm: float | None = None,
        **of_gradient: Any,
    ) -> xr.Dataset:
        """Train, as the subclasses' `fit` say; `own_rates` are those of `make_ascent`, the rest is for the gradient."""
        data_rows = self._check_visible(X, "X")
        check_learnable({"W": self.W, "a": self.a, "b": self.b})
        options.check_watched()
        validation = options.validation_data
        validation = None if validation is None else self._check_visible(validation, "validation_data")
        batch_size = min(options.batch_size, len(data_rows))
        if max_gradient_norm is not None:
            max_gradient_norm = check_number(max_gradient_norm, "max_gradient_norm", minimum=0, exclusive=True)

        rng = np.random.default_rng(options.random_seed)
        layers = self._layers(rng)
        backend = layers.backend
        negative_phase = make_negative_phase(
            layers,
            method=method,
            k=k,
            batch_size=batch_size,
            n_chains=n_chains,
            n_temperatures=n_temperatures,
            rng=rng,
        )
        gradient = self._gradient(
            layers,
            negative_phase,
            batch_size=batch_size,
            visible_mean=data_rows.mean(0),
            **of_gradient,
        )
        ascent = make_ascent(
            backend,
            (self.W, self.a, self.b),
            optimizer=options.optimizer,
            learning_rate=options.learning_rate,
            default_learning_rate=self.default_learning_rate,
            momentum=momentum,
            own_rates=own_rates,
        )
        data = backend.floats(data_rows)
        self._initialize(data_rows, rng)
        gradient.start_from(data)
        plan = Plan.make(options, ascent, backend, data, data_rows, validation, rng)
        learner = RBMLearner(self, plan, gradient=gradient, max_gradient_norm=max_gradient_norm)
        with threads_for(batch_size * self.W.numel()):
            return train(learner, options)
