"""Densities whose energy a neural network computes."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pm_neural.diagnostics.partition import LogLikelihood, LogPartition, average_directions, normalized
from pm_neural.fitting.backend import TorchBackend
from pm_neural.fitting.checkpoint import load_checkpoint, load_parameters
from pm_neural.fitting.checks import check_integer, check_not_inference, check_number, check_real
from pm_neural.fitting.draws import draws_as_datatree
from pm_neural.fitting.learner import Plan
from pm_neural.fitting.loop import train
from pm_neural.fitting.optimizer import make_ascent
from pm_neural.fitting.options import FitArguments, FitOptions, takes_fit_options
from pm_neural.fitting.threads import threads_for
from pm_neural.training.energy.base import EnergyWithBase
from pm_neural.training.energy.langevin import LangevinChains, StepSizeTuner, check_noise
from pm_neural.training.energy.learner import EnergyLearner
from pm_neural.training.energy.partition import annealed_importance_sampling, log_partition_by_quadrature
from pm_neural.training.energy.replay import ReplayedLangevin

if TYPE_CHECKING:
    from xarray import DataTree

_SGD_LEARNING_RATE = 1e-3
_SAME_ENERGY = 1e-4
_NO_DROPOUT = (
    "module must give a point the same energy in every call and every batch (no dropout, no batch normalization)"
)


class EnergyNetwork(EnergyWithBase):
    r"""A density over real points whose energy is a Gaussian's plus that of a torch module.

    .. math::

        E(x) = f(x) + \sum_i \frac{(x_i - m_i)^2}{2 s_i^2}, \qquad p(x) = e^{-E(x)} / Z

    f is the module [1]_, m and s are the base's [2]_ and stay as they are. The base is where chains start; far from the
    data, where nothing tells f what to do, it keeps them from running away; and it is the end of the bridge on which Z
    is found. Make it wider than the data.

    As a torch module it maps points (batch, ...) to E, (batch,): what `pm_neural.Energy` takes.

    Parameters
    ----------
    module : torch.nn.Module
        Maps points (batch, ...) to f, (batch,), each point by itself: no batch normalization and no dropout. Its
        weights are trained, on the device and in the dtype where they are; that they are small or random to begin
        with is up to you.
    shape : int or tuple of int
        Shape of a point.
    base_mean, base_sd : float or array, of the shape of a point
        m and s.

    Raises
    ------
    ValueError, TypeError
        `shape`, `base_mean` or `base_sd` is bad, or the module does not map points to numbers as said.

    Attributes
    ----------
    module : torch.nn.Module
    base_mean, base_sd : Tensor, of the shape of a point

    References
    ----------
    .. [1] LeCun, Chopra, Hadsell, Ranzato, Huang (2006). A tutorial on energy-based learning.
    .. [2] Xie, Lu, Zhu, Wu (2016). A theory of generative ConvNet. ICML. The base is its reference measure.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from pm_neural.training import EnergyNetwork
    >>> X = np.random.default_rng(1).choice([-1.0, 1.0], size=(200, 1)) * 0.7
    >>> layers = [torch.nn.Linear(1, 16), torch.nn.SiLU(), torch.nn.Linear(16, 1), torch.nn.Flatten(0)]
    >>> network = EnergyNetwork(torch.nn.Sequential(*layers), shape=1)
    >>> history = network.fit(X, epochs=5, random_seed=1, progressbar=False)
    >>> draws = network.sample(n_chains=100, n_draws=1, random_seed=1)
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        module: nn.Module,
        shape: int | tuple[int, ...],
        *,
        base_mean: float | ArrayLike = 0.0,
        base_sd: float | ArrayLike = 1.0,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be a torch.nn.Module; got {type(module).__name__}")
        parameter = next(module.parameters(), None)
        if parameter is None or parameter.dtype not in (torch.float32, torch.float64):
            found = "no parameters" if parameter is None else parameter.dtype
            raise TypeError(f"module must have parameters in float32 or float64; got {found}")
        check_not_inference({f"module.{name}": parameter for name, parameter in module.named_parameters()})
        lengths = shape if isinstance(shape, tuple | list) else (shape,)
        self.shape = tuple(check_integer(length, "shape", minimum=1) for length in lengths)
        self.module = module
        self.register_buffer("base_mean", self._as_point(base_mean, "base_mean").to(parameter))
        self.register_buffer("base_sd", self._as_point(base_sd, "base_sd").to(parameter))
        if not (self.base_sd > 0).all():
            raise ValueError(f"base_sd must be positive; got {base_sd!r}")
        self._check_module()

    def _as_point(self, values: float | ArrayLike, name: str) -> Tensor:
        array = np.asarray(values)
        if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise ValueError(f"{name} must hold finite numbers; got {values!r}")
        if array.shape not in ((), self.shape):
            raise ValueError(f"{name} must be a number or have shape {self.shape}; got shape {array.shape}")
        return torch.as_tensor(np.broadcast_to(array, self.shape).astype(float))

    @torch.no_grad()
    def _check_module(self) -> None:
        points = (
            self.base_mean + torch.tensor([0.0, 1.0]).to(self.base_sd).reshape(2, *self.broadcast_axes) * self.base_sd
        )
        together = self._tried(points)
        if not isinstance(together, Tensor):
            raise TypeError(f"module must return a tensor; got {type(together).__name__}")
        if together.shape != (2,):
            raise ValueError(
                f"module must map (batch, *shape) to (batch,): for an input of shape {tuple(points.shape)} its output "
                f"must have shape (2,); got {tuple(together.shape)}"
            )
        if not torch.isfinite(together).all():
            raise ValueError(f"module must give finite energies around base_mean; got {together.tolist()}")
        alone = self._tried(points[:1])
        if not torch.allclose(alone, together[:1], rtol=_SAME_ENERGY, atol=_SAME_ENERGY):
            raise ValueError(
                f"{_NO_DROPOUT}; got {alone.item():g} alone and {together[0].item():g} beside another point"
            )

    @torch.no_grad()
    def _check_mode(self) -> None:
        """Refuse dropout and batch normalization that ``train()`` has switched on since the module was checked."""
        start, others = self.base_mean, (self.base_mean + self.base_sd, self.base_mean - self.base_sd)
        # In batches of one size and start, where rounding is the same however large the energies have become.
        first, second = (self._tried(torch.stack([start, other]))[0] for other in others)
        if not torch.allclose(first, second, rtol=_SAME_ENERGY, atol=_SAME_ENERGY, equal_nan=True):
            raise ValueError(f"{_NO_DROPOUT}; got {first:g} and {second:g}: switch it off with eval()")

    def _tried(self, points: Tensor) -> Any:
        try:
            return self.module(points)
        except (RuntimeError, ValueError, IndexError) as error:  # as torch raises where shapes do not fit
            raise ValueError(
                f"module must map points of shape {self.shape} to their energies, one alone and several in a batch; "
                f"for an input of shape {tuple(points.shape)} it raised: {error}"
            ) from error

    def extra_repr(self) -> str:
        """Describe the network, for its repr."""
        return f"shape={self.shape}"

    forward = EnergyWithBase.energy

    def _backend(self, rng: np.random.Generator) -> TorchBackend:
        return TorchBackend(self.base_mean.dtype, rng, self.base_mean.device)

    def _threads(self, n_points: int) -> Any:
        return threads_for(n_points * sum(p.numel() for p in self.parameters()))

    # Sampling

    @torch.inference_mode(False)
    @torch.no_grad()
    def sample(
        self,
        n_chains: int = 4,
        n_draws: int = 1000,
        *,
        steps_per_draw: int = 1,
        burn_in: int = 1000,
        step_size: float | None = None,
        noise: float | None = None,
        adjusted: bool = True,
        start: ArrayLike | Tensor | None = None,
        random_seed: int | np.random.Generator | None = None,
    ) -> DataTree:
        """Draw points by Langevin dynamics, all chains at once.

        Parameters
        ----------
        n_chains, n_draws : int
            Chains, and draws kept of each.
        steps_per_draw : int
            Steps from one draw to the next.
        burn_in : int
            Steps before the first draw's own.
        step_size : float, optional
            η in x ← x − η/2 ∇E(x) + √η N(0, I). If None, it is tuned during `burn_in` to an acceptance rate of 0.57,
            over all chains, and then held.
        noise : float, optional
            Standard deviation of the noise, with ``adjusted=False``; by default √η. With any other value the draws
            are **not from p**, but from about its power η/noise².
        adjusted : bool
            Whether each step is accepted or rejected, so that the chains have the right distribution (MALA), or
            not, which is biased, the more the larger `step_size`, which must then be given.
        start : array, (n_chains, ...), optional
            Points to start from; by default drawn from the base.
        random_seed : int or Generator, optional

        Returns
        -------
        DataTree
            Group ``posterior`` with the variable ``x``, dims (chain, draw, x_dim_0, ...), and ``sample_stats`` with
            ``network_energy``, E of each draw, and, if adjusted, ``acceptance_rate``, the mean over the steps of a
            draw. The step size is an attribute of ``sample_stats``.

        Raises
        ------
        ValueError, TypeError
            An argument is bad.
        FloatingPointError
            Chains without an accept step have diverged.
        """
        n_chains = check_integer(n_chains, "n_chains", minimum=1)
        n_draws = check_integer(n_draws, "n_draws", minimum=1)
        steps_per_draw = check_integer(steps_per_draw, "steps_per_draw", minimum=1)
        burn_in = check_integer(burn_in, "burn_in", minimum=0)
        if step_size is not None:
            step_size = check_number(step_size, "step_size", minimum=0, exclusive=True)
        elif not adjusted or not burn_in:
            raise ValueError("step_size must be given: it is tuned only with adjusted=True, during burn_in")
        check_noise(noise, adjusted)
        self._check_mode()
        backend = self._backend(np.random.default_rng(random_seed))
        with self._threads(n_chains):
            chains = LangevinChains(self, self._start(start, n_chains, backend), backend)
            tuner = StepSizeTuner(self.first_step_size() if step_size is None else step_size)
            for _ in range(burn_in):
                rate = chains.advance(tuner.step_size, noise, adjusted=adjusted)
                if step_size is None:
                    tuner.update(rate.mean().item())
            draws = torch.empty(n_chains, n_draws, *self.shape).to(self.base_mean)
            stats = {name: torch.zeros(n_chains, n_draws) for name in ("network_energy", "acceptance_rate")}
            for draw in range(n_draws):
                for _ in range(steps_per_draw):
                    stats["acceptance_rate"][:, draw] += chains.advance(tuner.step_size, noise, adjusted=adjusted).cpu()
                draws[:, draw] = chains.x
                stats["network_energy"][:, draw] = (chains.learnt_energy + self.base_energy(chains.x)).cpu()
        if not torch.isfinite(draws).all():
            raise FloatingPointError(f"chains diverged: lower step_size, {step_size:g}, or set adjusted=True")
        stats["acceptance_rate"] /= steps_per_draw
        if not adjusted:
            del stats["acceptance_rate"]
        tree = draws_as_datatree(
            {"x": draws.cpu().numpy()}, dims={}, sample_stats={name: values.numpy() for name, values in stats.items()}
        )
        tree["sample_stats"].attrs["step_size"] = tuner.step_size
        return tree

    def _start(self, start: ArrayLike | Tensor | None, n_chains: int, backend: TorchBackend) -> Tensor:
        if start is None:
            return self.base_draws(n_chains, backend)
        points = check_real(start, "start", *self.shape)
        if len(points) != n_chains:
            raise ValueError(f"start must have one row per chain, {n_chains}; got shape {points.shape}")
        return backend.floats(points)

    # Likelihood

    @torch.inference_mode(False)
    def log_partition(
        self,
        method: Literal["quadrature", "ais"] = "quadrature",
        *,
        n_chains: int = 500,
        n_steps: int = 1000,
        random_seed: int | np.random.Generator | None = None,
    ) -> LogPartition:
        """Compute log Z for points of one or two coordinates, or estimate it for any.

        ``method="quadrature"`` integrates over the line or the plane by the trapezoidal rule, on a grid that is made
        wider and finer until log Z changes by less than 1e-4, on a shifted grid, too, and until 512 Langevin chains of
        400 steps, started from the base and from the grid's density, come upon no point that rises above the grid
        around it. A well that is narrower than the grid and that no chain meets is not seen.

        ``method="ais"`` is an **estimate** by annealed importance sampling [1]_: chains start from the base, whose
        normalizer is known, and visit the energies base + β f for β from 0 to 1, with one accepted or rejected
        Langevin step at each. Its log tends to fall short of log Z, so that likelihoods come out **too high**.
        Chains in the other direction tend to give too much, but only if they start from the model. There are no
        exact draws from an energy network: they start from the forward chains, resampled by their weights and moved
        on, so that modes which the forward chains have not found are missing from both estimates.

        Parameters
        ----------
        method : {"quadrature", "ais"}
            The other parameters are for "ais" only.
        n_chains : int
            In each direction, at least 2.
        n_steps : int
            Number of temperature steps.
        random_seed : int or Generator, optional

        Returns
        -------
        pm_neural.diagnostics.LogPartition

        Raises
        ------
        ValueError
            An argument is bad, or quadrature is asked for in more than two dimensions, or for a density that has no
            normalizer or is too uneven for a grid.

        Warns
        -----
        UserWarning
            If the forward and the reverse estimate of "ais" differ by more than three of their combined standard
            errors: then neither is to be trusted.

        References
        ----------
        .. [1] Neal (2001). Annealed importance sampling. Statistics and Computing 11, 125-139.
        """
        self._check_mode()
        with self._threads(n_chains):
            if method == "quadrature":
                return LogPartition(log_partition_by_quadrature(self), 0.0, np.inf, method, np.empty(0))
            if method != "ais":
                raise ValueError(f"method must be 'quadrature' or 'ais'; got {method!r}")
            n_chains = check_integer(n_chains, "n_chains", minimum=2)
            n_steps = check_integer(n_steps, "n_steps", minimum=1)
            rng = np.random.default_rng(random_seed)
            forward, reverse = annealed_importance_sampling(
                self, n_chains=n_chains, n_steps=n_steps, backend=self._backend(rng), rng=rng
            )
        return average_directions(forward, reverse)

    @torch.no_grad()
    def log_likelihood(
        self,
        X: ArrayLike | Tensor,
        *,
        log_z: LogPartition | float | None = None,
        method: Literal["quadrature", "ais"] = "quadrature",
        random_seed: int | np.random.Generator | None = None,
    ) -> LogLikelihood:
        """Compute log p(x) = -E(x) - log Z of data, in nats.

        Parameters
        ----------
        X : array, (n, ...)
        log_z : LogPartition or float, optional
            log Z, if it is known already.
        method : {"quadrature", "ais"}
            How `log_partition` finds it otherwise, with its default settings.
        random_seed : int or Generator, optional

        Returns
        -------
        pm_neural.diagnostics.LogLikelihood
        """
        rows = self._backend(np.random.default_rng(0)).floats(check_real(X, "X", *self.shape))
        self._check_mode()
        if log_z is None:
            log_z = self.log_partition(method, random_seed=random_seed)
        with self._threads(len(rows)):
            return normalized(-self.energy(rows).cpu().double().numpy(), log_z)

    # Training

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], module: nn.Module) -> Self:
        """Make the network that a checkpoint of `fit` holds.

        Parameters
        ----------
        path : path-like
        module : torch.nn.Module
            Like the one that was trained, on the device where the network is to be; it takes the parameters.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            The file is cut short or no checkpoint, or of another version or network.
        """
        shape, mean, sd, *_ = load_checkpoint(path, kind=EnergyLearner.kind)["settings"]["network"]
        base_mean, base_sd = (np.reshape(values, shape) for values in (mean, sd))
        network = cls(module, tuple(shape), base_mean=base_mean, base_sd=base_sd)
        network._load_checkpoint(path)
        return network

    def load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Take the parameters that a checkpoint of `fit` holds; deprecated, see `from_checkpoint`."""
        warnings.warn(
            "EnergyNetwork.load_checkpoint is deprecated: use EnergyNetwork.from_checkpoint(path, module)",
            DeprecationWarning,
            stacklevel=2,
        )
        self._load_checkpoint(path)

    def _load_checkpoint(self, path: str | os.PathLike[str]) -> None:
        state = load_checkpoint(path, kind=EnergyLearner.kind)
        if state["settings"]["network"] != self.description():
            raise ValueError(
                f"checkpoint {os.fspath(path)!r} is that of another network: shapes, dtypes or base differ"
            )
        load_parameters(self, state["learner"]["parameters"])

    @torch.inference_mode(False)
    @torch.no_grad()
    @takes_fit_options(epochs=1000, batch_size=100, optimizer=torch.optim.Adam)
    def fit(
        self,
        X: ArrayLike | Tensor,
        *,
        n_steps: int = 20,
        step_size: float = 0.01,
        noise: float | None = None,
        adjusted: bool = True,
        buffer_size: int = 5000,
        reinitialized_fraction: float = 0.05,
        n_chains: int | None = None,
        energy_regularization: float = 0.0,
        max_gradient_norm: float | None = None,
        **options: Unpack[FitArguments],
    ) -> xr.Dataset:
        """Train by stochastic gradient ascent on the log-likelihood.

        The gradient is the mean of -df/dparameters over the data less that over the model [1]_. The model's states are
        those of Langevin chains, which go on from a buffer of earlier ones [2]_.

        Parameters
        ----------
        X : array, (n_rows, ...)
        n_steps : int
            Langevin steps per update.
        step_size : float
            η in x ← x − η/2 ∇E(x) + noise · N(0, I), in the units of x, squared. Its root must be small compared with
            the finest detail of the density.
        noise : float, optional
            Standard deviation of the noise, with ``adjusted=False``. If None it is √η, for which the chains have the
            distribution p, but for the bias of the step size. With any other value they are those of another
            temperature, noise²/η, and **what is learnt is not the density** of the data but, roughly, its power
            noise²/η: [2]_ has η = 20 and 0.005.
        adjusted : bool
            Whether the chains accept or reject each step, which takes away the bias of the step size, and costs nothing
            more. Where the acceptance rate in the history falls towards 0, lower `step_size`. Without it, chains are
            thrown out of any well of the energy whose curvature is above 4/η: training can dig one that they never
            show, into which the density then collapses. A low learning rate and `energy_regularization` help.
        buffer_size : int
            Chains that are kept. They start from the base.
        reinitialized_fraction : float
            Probability, in [0, 1], with which a chain is started anew, from the base, before it is moved.
        n_chains : int, optional
            Chains that are moved for one update, chosen at random from the buffer; by default as many as `batch_size`.
        learning_rate : float, optional
            By default a torch optimizer's own, and 0.001 for ``"sgd"``.
        energy_regularization : float
            Coefficient of the penalty mean f² over the data + mean f² over the chains [2]_, which keeps f small.
        max_gradient_norm : float, optional
            A longer ascent direction, over all parameters together, is cut to this Euclidean norm.
        validation_data : array, (n, ...), optional
            Adds the free-energy gap to the history.
        early_stopping : EarlyStopping, optional
            When the free-energy gap ends training; the parameters then go back to those of the last look within the
            tolerance.
        random_seed : int or Generator, optional
            Of all randomness here; the module's first weights are yours.

        Returns
        -------
        xarray.Dataset
            The history, over the dim ``epoch``: ``data_energy`` and ``chain_energy``, mean E of up to 500 training rows
            and chains of the buffer, which stay close while the chains follow the model; ``acceptance_rate`` of the
            last steps (1 without an accept step), ``seconds`` per epoch, and, with `validation_data`,
            ``free_energy_gap``: mean E(validation) less mean E(training), by how much the training data are ahead in
            log-likelihood per row, as log Z cancels. The attributes are the settings.

        Raises
        ------
        ValueError, TypeError
            An argument is bad, or a checkpoint is cut short, of another version, or of a training with other
            arguments or data.
        FloatingPointError
            The chains or the parameters are no longer finite.

        References
        ----------
        .. [1] Song, Kingma (2021). How to train your energy-based models. arXiv:2101.03288. Section 3.
        .. [2] Du, Mordatch (2019). Implicit generation and generalization in energy-based models. NeurIPS.
        """
        data_rows = check_real(X, "X", *self.shape)
        chosen = FitOptions(**options)
        chosen.check_watched()
        validation = chosen.validation_data
        validation = None if validation is None else check_real(validation, "validation_data", *self.shape)
        batch_size = min(chosen.batch_size, len(data_rows))
        energy_regularization = check_number(energy_regularization, "energy_regularization", minimum=0)
        if max_gradient_norm is not None:
            max_gradient_norm = check_number(max_gradient_norm, "max_gradient_norm", minimum=0, exclusive=True)
        if not self.learnt_parameters():
            raise ValueError("module must have parameters to be learnt; all are frozen, with requires_grad=False")
        self._check_mode()

        rng = np.random.default_rng(chosen.random_seed)
        backend = self._backend(rng)
        negatives = ReplayedLangevin(
            self,
            backend,
            n_chains=batch_size if n_chains is None else n_chains,
            n_steps=n_steps,
            step_size=step_size,
            noise=noise,
            adjusted=adjusted,
            buffer_size=buffer_size,
            reinitialized_fraction=reinitialized_fraction,
            rng=rng,
        )
        ascent = make_ascent(
            backend,
            self.learnt_parameters(),
            optimizer=chosen.optimizer,
            learning_rate=chosen.learning_rate,
            default_learning_rate=_SGD_LEARNING_RATE,
            momentum=0.0,
        )
        plan = Plan.make(chosen, ascent, backend, backend.floats(data_rows), data_rows, validation, rng)
        learner = EnergyLearner(
            self,
            plan,
            negatives=negatives,
            energy_regularization=energy_regularization,
            max_gradient_norm=max_gradient_norm,
        )
        with self._threads(batch_size):
            return train(learner, chosen)
