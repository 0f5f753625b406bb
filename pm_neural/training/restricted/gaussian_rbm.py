"""The restricted Boltzmann machine with Gaussian visible and binary hidden units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from pm_neural.fitting.backend import backend_for
from pm_neural.fitting.checks import check_positive, check_real
from pm_neural.fitting.options import FitArguments, FitOptions, takes_fit_options
from pm_neural.training.restricted.chains import Chains, GaussianChains, LayerChains
from pm_neural.training.restricted.gradient import GaussianGradient
from pm_neural.training.restricted.layers import GaussianLayers
from pm_neural.training.restricted.machine import RestrictedMachine
from pm_neural.training.restricted.negative_phase import NegativePhase

_INITIAL_WEIGHT_SD = 0.05
_MEASUREMENTS = {
    "reconstruction_error": {
        "long_name": "squared error of the mean-field reconstruction, summed over visible units",
        "units": "that of v, squared, per row",
    },
    "weight_norm": {"long_name": "Frobenius norm of W", "units": "that of v"},
    "sigma": {"long_name": "mean of sigma over the visible units", "units": "that of v"},
}


class GaussianRBM(RestrictedMachine):
    r"""Restricted Boltzmann machine with Gaussian visible and binary hidden units.

    .. math::

        E(v, h) = \sum_i \frac{(v_i - a_i)^2}{2 \sigma_i^2} - b \cdot h
        - \left(\frac{v}{\sigma^2}\right)^\top W h, \qquad p(v, h) = e^{-E(v, h)} / Z

    Given the hidden units the visible ones are independent, :math:`v \mid h \sim N(a + W h, \sigma^2)`, so that
    :math:`p(v)` is a mixture of :math:`2^{n_\text{hidden}}` Gaussians of one and the same shape. Given the visible
    units, the hidden ones are 1 with probability :math:`\text{sigmoid}(b + (v / \sigma^2) W)` [1]_ [2]_.

    This is what is trained on data; `pm_neural.GaussianRBM` is the PyMC distribution of its visible units, and takes
    it as ``pmn.GaussianRBM("v", machine)``.

    A new one has W, a and b at zero. `fit` starts it from small random weights and the data's mean.

    Parameters
    ----------
    n_visible, n_hidden : int
        Number of units.
    sigma : float or array, (n_visible,)
        Standard deviation of the visible units given the hidden ones, to begin with, in the units of v. Where it is
        as large as the spread of the data, the Gaussian explains all of them, and the weights have little to grow
        from; a fraction of the spread is a better start for data with structure finer than that.
    learn_sigma : bool
        Whether `fit` learns sigma, as log sigma of each visible unit, or leaves it as it is.
    dtype : torch.dtype
        float32 (the default) or float64.
    device : torch.device or str, optional
        Where the parameters live; `fit` and `sample` work there.

    Attributes
    ----------
    W : torch.nn.Parameter, (n_visible, n_hidden)
        Couplings, in the units of v.
    a, b : torch.nn.Parameter, (n_visible,) and (n_hidden,)
        Means of the visible units where all hidden ones are 0, and hidden biases.
    log_sigma : torch.nn.Parameter, (n_visible,)
        Of which `sigma` is the exponential.

    References
    ----------
    .. [1] Cho, Ilin, Raiko (2011). Improved learning of Gaussian-Bernoulli restricted Boltzmann machines. ICANN.
    .. [2] Melchior, Wang, Wiskott (2017). Gaussian-binary restricted Boltzmann machines for modeling natural image
       statistics. PLoS ONE 12, e0171015.
    """

    kind = "GaussianRBM"
    measurements = _MEASUREMENTS
    displayed: ClassVar = {"reconstruction_error": "error", "sigma": "sigma", "free_energy_gap": "gap"}
    draw_dtype = None
    default_learning_rate = 0.03

    @torch.inference_mode(False)
    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        *,
        sigma: float | ArrayLike = 1.0,
        learn_sigma: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(n_visible, n_hidden, dtype=dtype, device=device)
        log_sigma = np.log(check_positive(sigma, "sigma", self.n_visible))
        self.log_sigma = nn.Parameter(
            torch.tensor(log_sigma, dtype=dtype, device=device), requires_grad=bool(learn_sigma)
        )

    @property
    def sigma(self) -> Tensor:
        """Standard deviation of the visible units given the hidden ones, (n_visible,)."""
        return self.log_sigma.exp()

    # Energies and conditionals, differentiable, on batches of any leading shape

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h).

        Parameters
        ----------
        v : Tensor, (..., n_visible)
        h : Tensor, (..., n_hidden)

        Returns
        -------
        Tensor, (...)
        """
        return self._distance(v) - (self._hidden_field(v) * h).sum(-1)

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -log sum_h exp(-E(v, h)): minus the log-density of v, up to log Z.

        Parameters
        ----------
        v : Tensor, (..., n_visible)

        Returns
        -------
        Tensor, (...)
        """
        return self._distance(v) - functional.softplus(self._hidden_field(v)).sum(-1)

    forward = free_energy

    def hidden_probabilities(self, v: Tensor) -> Tensor:
        """p(h=1 | v) = sigmoid(b + (v/sigma²)W), (..., n_hidden)."""
        return torch.sigmoid(self._hidden_field(v))

    def visible_means(self, h: Tensor) -> Tensor:
        """E[v | h] = a + Wh, (..., n_visible); the standard deviation is `sigma`."""
        return self.a + h @ self.W.T

    def reconstruction_error(self, v: Tensor) -> Tensor:
        """Squared error of E[v | p(h=1 | v)], summed over the visible units.

        No measure of likelihood: it may fall while the likelihood gets worse.

        Parameters
        ----------
        v : Tensor, (..., n_visible)

        Returns
        -------
        Tensor, (...)
        """
        return (v - self.visible_means(self.hidden_probabilities(v))).square().sum(-1)

    def _distance(self, v: Tensor) -> Tensor:
        return ((v - self.a) / self.sigma).square().sum(-1) / 2

    def _hidden_field(self, v: Tensor) -> Tensor:
        return self.b + (v / self.sigma.square()) @ self.W

    def parameters_as_numpy(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return copies of (W, a, b, sigma): what `pm_neural.diagnostics.log_likelihood` takes."""
        W, a, b, sigma = (p.detach().cpu().numpy().copy() for p in (self.W, self.a, self.b, self.sigma))
        return W, a, b, sigma

    def measure(self, v: Tensor) -> dict[str, Tensor]:
        """Measure what `fit` writes down about training data; see there."""
        return {
            "reconstruction_error": self.reconstruction_error(v).mean(),
            "weight_norm": self.W.norm(),
            "sigma": self.sigma.mean(),
        }

    @classmethod
    def _options(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"learn_sigma": settings["learn_sigma"]}

    def _check_visible(self, v: ArrayLike | Tensor, name: str) -> np.ndarray:
        return check_real(v, name, self.n_visible)

    def _layers(self, rng: np.random.Generator) -> GaussianLayers:
        self._checked()
        backend = backend_for(self.W, rng)
        return GaussianLayers(backend, *(backend.view(p) for p in (self.W, self.a, self.b, self.log_sigma)))

    def _gradient(self, layers: GaussianLayers, negative_phase: NegativePhase, **options: Any) -> GaussianGradient:
        return GaussianGradient(layers, negative_phase, learn_sigma=self.log_sigma.requires_grad, **options)

    def _start_state(self, n_chains: int, rng: np.random.Generator) -> np.ndarray:
        W, a, _, sigma = self.parameters_as_numpy()
        h = rng.integers(2, size=(n_chains, self.n_hidden))
        return a + h @ W.T + sigma * rng.normal(size=(n_chains, self.n_visible))

    def _start_chains(self, start: np.ndarray, rng: np.random.Generator) -> Chains:
        if self.W.device.type == "cpu":
            self._checked()
            return GaussianChains((self.W, self.a, self.b, self.sigma), start, rng)
        return LayerChains(self._layers(rng), start)

    # Training

    @torch.inference_mode(False)
    @torch.no_grad()
    @takes_fit_options(epochs=1000, batch_size=50)
    def fit(
        self,
        X: ArrayLike | Tensor,
        *,
        method: Literal["cd", "pcd", "pt"] = "cd",
        k: int = 1,
        n_chains: int | None = None,
        n_temperatures: int | None = None,
        sigma_learning_rate: float | None = None,
        momentum: float = 0.0,
        max_gradient_norm: float | None = None,
        centered: bool = True,
        weight_decay: float = 0.0,
        sparsity_target: float | None = None,
        sparsity_cost: float = 0.1,
        **options: Unpack[FitArguments],
    ) -> xr.Dataset:
        """Train by stochastic gradient ascent on the log-likelihood.

        As `RBM.fit`, whose docstring explains what is not said here. The steps of W and a follow the gradient times
        sigma², so that a learning rate means the same whatever the unit of measurement of `X`; what matters is the
        spread of the data in units of sigma. Bring the columns of `X` to one scale first (see `Standardizer`), and
        let sigma start well below it.

        The defaults were chosen on a ring in the plane, from 500 points. Contrastive divergence is the default here:
        given the hidden units the visible ones can move by about sigma, so that Gibbs chains diffuse slowly, and
        persistent chains that lag behind the data make sigma grow.

        Parameters
        ----------
        X : array, (n_rows, n_visible)
            Real numbers.
        method : {"cd", "pcd", "pt"}
            Where the model's states come from: k sweeps from the minibatch itself, persistent chains, or
            persistent chains with parallel tempering.
        k : int
            Sweeps per update.
        n_chains : int, optional
            Persistent chains, or ladders of tempered ones; by default as many as `batch_size`.
        n_temperatures : int, optional
            For ``"pt"``: inverse temperatures of b and W, evenly from 1 to 0; by default 10.
        optimizer : "sgd", torch.optim.Optimizer, or callable
            Gradient ascent with `momentum`, an optimizer of the learnt parameters, or what makes one of them.
        learning_rate : float, optional
            By default 0.03 for ``"sgd"``, and a torch optimizer's own.
        sigma_learning_rate : float, optional
            That of log sigma, by default a tenth of `learning_rate` for ``"sgd"``, and a torch optimizer's own.
            Where sigma learns as fast as the weights, it may grow to the spread of the data before the weights have
            found any structure, and they then shrink to zero.
        learning_rate_schedule : {"cosine", "linear", "constant"}
            How the learning rates fall over all updates.
        momentum : float
            For ``"sgd"``, in [0, 1).
        max_gradient_norm : float, optional
            A longer ascent direction, over all parameters together, is cut to this Euclidean norm.
        centered : bool
            Whether the gradient is that of the centered parameters.
        weight_decay : float
            Coefficient of the penalty ``weight_decay / 2 * sum((W / sigma)**2)``, sigma in it held fixed.
        sparsity_target : float, optional
            Wanted mean activity of each hidden unit, in (0, 1).
        sparsity_cost : float
            How strongly the hidden biases are pulled there.
        validation_data : array, (n, n_visible), optional
            Adds the free-energy gap to the history.
        early_stopping : EarlyStopping, optional
            When the free-energy gap ends training.

        Returns
        -------
        xarray.Dataset
            The history, over the dim ``epoch``: ``reconstruction_error`` of training rows, ``weight_norm``,
            ``sigma`` (its mean over the visible units), ``seconds`` per epoch, and, with `validation_data`,
            ``free_energy_gap``. The attributes are the settings.

        Raises
        ------
        ValueError, TypeError
            An argument is bad, or a checkpoint is cut short, of another version, or of a training with other
            arguments or data.
        FloatingPointError
            The parameters are no longer finite.

        Examples
        --------
        >>> import numpy as np
        >>> from pm_neural.training import GaussianRBM
        >>> X = np.random.default_rng(1).normal(size=(200, 2)) * [1.0, 0.2]
        >>> rbm = GaussianRBM(n_visible=2, n_hidden=10, sigma=0.2)
        >>> history = rbm.fit(X, epochs=20, random_seed=1, progressbar=False)
        >>> W, a, b, sigma = rbm.parameters_as_numpy()
        """
        return self._fit(
            X,
            FitOptions(**options),
            own_rates=self._own_rates(sigma_learning_rate),
            method=method,
            k=k,
            n_chains=n_chains,
            n_temperatures=n_temperatures,
            momentum=momentum,
            max_gradient_norm=max_gradient_norm,
            centered=centered,
            weight_decay=weight_decay,
            sparsity_target=sparsity_target,
            sparsity_cost=sparsity_cost,
        )

    def _own_rates(self, sigma_learning_rate: float | None) -> dict[str, tuple[nn.Parameter, float | None]]:
        if self.log_sigma.requires_grad:
            return {"sigma_learning_rate": (self.log_sigma, sigma_learning_rate)}
        if sigma_learning_rate is not None:
            raise ValueError("sigma_learning_rate: sigma is not learnt; make the machine with learn_sigma=True")
        return {}

    def _initial_weight_sd(self) -> np.ndarray:
        """Return it in units of sigma."""
        scale = _INITIAL_WEIGHT_SD * self.parameters_as_numpy()[3]
        return scale[:, None]

    def _initial_visible_bias(self, data: np.ndarray) -> np.ndarray:
        return data.mean(0)
