"""The binary restricted Boltzmann machine."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from pm_neural.fitting.backend import backend_for
from pm_neural.fitting.checks import check_binary
from pm_neural.fitting.options import FitArguments, FitOptions, takes_fit_options
from pm_neural.training.restricted.chains import BitChains, Chains, LayerChains
from pm_neural.training.restricted.gradient import BernoulliGradient
from pm_neural.training.restricted.layers import BernoulliLayers
from pm_neural.training.restricted.machine import RestrictedMachine
from pm_neural.training.restricted.negative_phase import NegativePhase

_INITIAL_WEIGHT_SD = 0.01
# What the pseudo-log-likelihood costs at most at a look, in images * visible units * hidden units, unless that is less
# than a few images.
_PSEUDO_LIKELIHOOD_COST, _LEAST_PSEUDO_LIKELIHOOD_IMAGES = 300_000, 16
_MEASUREMENTS = {
    "reconstruction_error": {
        "long_name": "squared error of the mean-field reconstruction, summed over visible units",
        "units": "1 per image",
    },
    "pseudo_log_likelihood": {
        "long_name": "sum over visible units of log p(unit | all others)",
        "units": "nats per image",
    },
    "weight_norm": {"long_name": "Frobenius norm of W", "units": "1"},
}


class RBM(RestrictedMachine):
    r"""Restricted Boltzmann machine with binary visible and hidden units.

    .. math:: E(v, h) = -a \cdot v - b \cdot h - v^\top W h, \qquad p(v, h) = e^{-E(v, h)} / Z

    A new one has all parameters at zero: fair coins. `fit` starts it from small random weights and
    the data's log odds. ``pmn.BernoulliRBM("v", machine)`` is the PyMC distribution of its visible units.

    Parameters
    ----------
    n_visible, n_hidden : int
        Number of units.
    dtype : torch.dtype
        float32 (the default) or float64.
    device : torch.device or str, optional
        Where the parameters live; `fit` and `sample` work there.

    Attributes
    ----------
    W : torch.nn.Parameter, (n_visible, n_hidden)
        Couplings.
    a, b : torch.nn.Parameter, (n_visible,) and (n_hidden,)
        Visible and hidden biases.

    References
    ----------
    .. [1] Hinton (2012). A practical guide to training restricted Boltzmann machines.
    .. [2] Fischer, Igel (2014). Training restricted Boltzmann machines: an introduction. Pattern
       Recognition 47, 25-39.
    """

    kind = "RBM"
    measurements = _MEASUREMENTS
    displayed: ClassVar = {"pseudo_log_likelihood": "PLL", "free_energy_gap": "gap"}
    draw_dtype = torch.int8
    default_learning_rate = 0.2

    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(n_visible, n_hidden, dtype=dtype, device=device)

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
        return -(v @ self.a) - h @ self.b - ((v @ self.W) * h).sum(-1)

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -log sum_h exp(-E(v, h)): minus the log-probability of v, up to log Z.

        Parameters
        ----------
        v : Tensor, (..., n_visible)

        Returns
        -------
        Tensor, (...)
        """
        return -(v @ self.a) - functional.softplus(self.b + v @ self.W).sum(-1)

    forward = free_energy

    def hidden_probabilities(self, v: Tensor) -> Tensor:
        """p(h=1 | v) = sigmoid(b + vW), (..., n_hidden)."""
        return torch.sigmoid(self.b + v @ self.W)

    def visible_probabilities(self, h: Tensor) -> Tensor:
        """p(v=1 | h) = sigmoid(a + Wh), (..., n_visible)."""
        return torch.sigmoid(self.a + h @ self.W.T)

    def reconstruction_error(self, v: Tensor) -> Tensor:
        """Squared error of p(v=1 | p(h=1 | v)), summed over the visible units.

        No measure of likelihood: it may fall while the likelihood gets worse.

        Parameters
        ----------
        v : Tensor, (..., n_visible)

        Returns
        -------
        Tensor, (...)
        """
        return (v - self.visible_probabilities(self.hidden_probabilities(v))).square().sum(-1)

    @torch.no_grad()
    def pseudo_log_likelihood(self, v: ArrayLike | Tensor) -> Tensor:
        """Sum over the visible units of log p(v_i | all other visible units).

        In nats per image, as a log-likelihood, so it grows with the number of units. All units
        enter; none is drawn at random. Not differentiable.

        Parameters
        ----------
        v : array of 0 and 1, (n, n_visible)

        Returns
        -------
        Tensor, (n,)

        References
        ----------
        .. [1] Besag (1975). Statistical analysis of non-lattice data. The Statistician 24, 179-195.
        """
        images = check_binary(v, "v", self.n_visible)
        layers = self._layers(np.random.default_rng(0))  # nothing is drawn
        backend = layers.backend
        return backend.tensor(layers.pseudo_log_likelihood(backend.floats(images)))

    def parameters_as_numpy(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return copies of (W, a, b): what `pm_neural.BernoulliRBM` takes."""
        W, a, b = (p.detach().cpu().numpy().copy() for p in (self.W, self.a, self.b))
        return W, a, b

    def measure(self, v: Tensor) -> dict[str, Tensor]:
        """Measure what `fit` writes down about training images; see there."""
        n_pseudo = max(_LEAST_PSEUDO_LIKELIHOOD_IMAGES, _PSEUDO_LIKELIHOOD_COST // self.W.numel())
        return {
            "pseudo_log_likelihood": self.pseudo_log_likelihood(v[:n_pseudo]).mean(),
            "reconstruction_error": self.reconstruction_error(v).mean(),
            "weight_norm": self.W.norm(),
        }

    def _check_visible(self, v: ArrayLike | Tensor, name: str) -> np.ndarray:
        return check_binary(v, name, self.n_visible)

    def _layers(self, rng: np.random.Generator) -> BernoulliLayers:
        backend = backend_for(self.W, rng)
        return BernoulliLayers(backend, *(backend.view(p) for p in self._checked()))

    def _gradient(self, layers: BernoulliLayers, negative_phase: NegativePhase, **options: Any) -> BernoulliGradient:
        return BernoulliGradient(layers, negative_phase, **options)

    def _start_state(self, n_chains: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(2, size=(n_chains, self.n_visible))

    def _start_chains(self, start: np.ndarray, rng: np.random.Generator) -> Chains:
        if self.W.device.type == "cpu":
            return BitChains(self._checked(), start, rng)
        return LayerChains(self._layers(rng), start)

    # Training

    @torch.inference_mode(False)
    @torch.no_grad()
    @takes_fit_options(epochs=1000, batch_size=10)
    def fit(
        self,
        X: ArrayLike | Tensor,
        *,
        method: Literal["cd", "pcd", "pt"] = "pcd",
        k: int = 1,
        n_chains: int | None = None,
        n_temperatures: int | None = None,
        momentum: float = 0.0,
        centered: bool = True,
        weight_decay: float = 1.5e-3,
        sparsity_target: float | None = None,
        sparsity_cost: float = 0.1,
        **options: Unpack[FitArguments],
    ) -> xr.Dataset:
        """Train by stochastic gradient ascent on the log-likelihood.

        The gradient is the mean of -dE/dparameters over the data (positive phase) less that over
        the model (negative phase); `method` says how the model is sampled. A new RBM, whose
        parameters are all zero, starts with weights from N(0, 0.01²) and the visible biases at the
        data's log odds [1]_; one that has parameters goes on from them.

        The defaults were chosen on a validation part of the binarized 8×8 digits.

        Parameters
        ----------
        X : array of 0 and 1, (n_images, n_visible)
        method : {"pcd", "cd", "pt"}
            Where the model's states come from: chains that persist from update to update
            (persistent contrastive divergence [2]_), k sweeps from the minibatch itself
            (contrastive divergence [3]_: biased), or persistent chains with parallel tempering
            [4]_, for models on which plain chains no longer mix.
        k : int
            Sweeps per update.
        n_chains : int, optional
            Persistent chains, or ladders of tempered ones; by default as many as `batch_size`.
        n_temperatures : int, optional
            For ``"pt"``: inverse temperatures, evenly from 1 to 0; by default 10.
        optimizer : "sgd", torch.optim.Optimizer, or callable
            Gradient ascent with `momentum`, an optimizer of this module's parameters, or what makes
            one of them, such as ``torch.optim.Adam``.
        learning_rate : float, optional
            By default 0.2 for ``"sgd"``, and a torch optimizer's own.
        learning_rate_schedule : {"cosine", "linear", "constant"}
            How the learning rate falls over all updates. Under a constant one the chains of PCD
            never catch up with the model.
        momentum : float
            For ``"sgd"``, in [0, 1).
        centered : bool
            Whether the gradient is that of the centered parameters [5]_, [6]_, which makes training
            nearly independent of whether units are mostly on or off.
        weight_decay : float
            Coefficient of the penalty ``weight_decay / 2 * sum(W**2)``.
        sparsity_target : float, optional
            Wanted mean activity of each hidden unit, in (0, 1).
        sparsity_cost : float
            How strongly the hidden biases are pulled there [7]_.
        validation_data : array of 0 and 1, (n, n_visible), optional
            Adds the free-energy gap to the history.
        early_stopping : EarlyStopping, optional
            When the free-energy gap ends training; the parameters then go back to those of the last
            look within the tolerance.

        Returns
        -------
        xarray.Dataset
            The history, over the dim ``epoch``: ``pseudo_log_likelihood`` and
            ``reconstruction_error`` of training images, ``weight_norm``, ``seconds`` per epoch,
            and, with `validation_data`, ``free_energy_gap``: mean F(validation) less mean
            F(training), which is by how much the training data are ahead in log-likelihood per
            image, as log Z cancels ([1]_, section 6). A look at large data uses some hundred
            evenly spaced images of each set, and fewer for the pseudo-log-likelihood. The
            attributes are the settings.

        Raises
        ------
        ValueError, TypeError
            An argument is bad, or a checkpoint is cut short, of another version, or of a training
            with other arguments or data.
        FloatingPointError
            The parameters are no longer finite.

        References
        ----------
        .. [1] Hinton (2012). A practical guide to training restricted Boltzmann machines.
        .. [2] Tieleman (2008). Training restricted Boltzmann machines using approximations to the
           likelihood gradient. ICML.
        .. [3] Hinton (2002). Training products of experts by minimizing contrastive divergence.
           Neural Computation 14, 1771-1800.
        .. [4] Desjardins, Courville, Bengio, Vincent, Delalleau (2010). Tempered Markov chain Monte
           Carlo for training of restricted Boltzmann machines. AISTATS.
        .. [5] Montavon, Müller (2012). Deep Boltzmann machines and the centering trick. In Neural
           Networks: Tricks of the Trade.
        .. [6] Melchior, Fischer, Wiskott (2016). How to center deep Boltzmann machines. JMLR 17,
           99.
        .. [7] Lee, Ekanadham, Ng (2008). Sparse deep belief net model for visual area V2. NIPS.

        Examples
        --------
        >>> import numpy as np
        >>> from pm_neural.training import RBM
        >>> images = np.repeat(np.eye(6), 20, axis=0)
        >>> rbm = RBM(n_visible=6, n_hidden=4)
        >>> history = rbm.fit(images, epochs=50, random_seed=1, progressbar=False)
        >>> W, a, b = rbm.parameters_as_numpy()
        """
        return self._fit(
            X,
            FitOptions(**options),
            method=method,
            k=k,
            n_chains=n_chains,
            n_temperatures=n_temperatures,
            momentum=momentum,
            centered=centered,
            weight_decay=weight_decay,
            sparsity_target=sparsity_target,
            sparsity_cost=sparsity_cost,
        )

    def _initial_weight_sd(self) -> float:
        return _INITIAL_WEIGHT_SD

    def _initial_visible_bias(self, images: np.ndarray) -> np.ndarray:
        """Return the log odds, half an image added to each side."""
        ones = images.sum(0) + 0.5
        return np.log(ones) - np.log(len(images) + 1 - ones)
