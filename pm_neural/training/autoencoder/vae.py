"""The variational autoencoder."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, Unpack, cast

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pm_neural.fitting.backend import TorchBackend
from pm_neural.fitting.checkpoint import load_checkpoint, load_parameters
from pm_neural.fitting.checks import check_dtype, check_integer, check_learnable, check_number, check_parameters
from pm_neural.fitting.learner import Plan
from pm_neural.fitting.loop import train
from pm_neural.fitting.optimizer import make_ascent
from pm_neural.fitting.options import FitArguments, FitOptions, takes_fit_options
from pm_neural.fitting.threads import threads_for
from pm_neural.training.autoencoder.latent_evidence import LatentLogLikelihood, anneal, average_weights, log_normal
from pm_neural.training.autoencoder.learner import VAELearner
from pm_neural.training.autoencoder.networks import convolutional_decoder, convolutional_encoder, draw_weights, mlp
from pm_neural.training.autoencoder.pixels import BernoulliPixels, GaussianPixels, Pixels, make_pixels

if TYPE_CHECKING:
    from xarray import DataTree

_WIDTHS = {"mlp": (256, 256), "convolutional": (16, 32)}
_SGD_LEARNING_RATE = 1e-3
_OUTPUTS_AT_ONCE = 4_000_000  # pixels that are decoded together, which bounds the memory of an estimate


class Code(NamedTuple):
    """The encoder's Gaussian for each image."""

    mean: Tensor
    """(n_images, n_latent)."""
    sd: Tensor
    """(n_images, n_latent)."""


class VAE(nn.Module):
    r"""Variational autoencoder: a latent Gaussian code, a decoder that paints it, an encoder that guesses it.

    .. math::

        p(x) = \int N(z; 0, I) \prod_i p(x_i \mid d_i(z)) \, dz, \qquad
        q(z \mid x) = N(z; m(x), \operatorname{diag} s(x)^2),

    where the decoder d and the encoder (m, log s) are neural networks. They are trained together on the evidence lower
    bound

    .. math:: \log p(x) \ge E_q \log p(x \mid z) - KL(q(z \mid x) \,\|\, N(0, I)).

    A new one has all parameters at zero: every image has the code N(0, I). `fit` starts it from random weights.

    Parameters
    ----------
    shape : int or (int, int)
        Number of pixels, or height and width. Images are rows, their pixels in reading order.
    n_latent : int
        Length of a code.
    network : {"mlp", "convolutional"}
        Fully connected layers; or convolutions with a stride of 2, which need height and width.
    n_hidden : sequence of int, optional
        Units of the encoder's hidden layers, or channels of its convolutions; the decoder has them the other way
        round. By default (256, 256), or (16, 32).
    likelihood : {"bernoulli", "gaussian"}
        Of a pixel. Bernoulli pixels are 0 or 1; in training, grey values between them count as probabilities.
    sigma : float or "learnt", optional
        For ``"gaussian"``: standard deviation of every pixel about the decoder's mean, in the units of the data.
    dtype : torch.dtype
        float32 (the default) or float64.
    device : torch.device or str, optional
        Where the parameters live and `fit` works.

    Attributes
    ----------
    encoder, decoder : torch.nn.Sequential
        From rows (n, n_visible) to the means and log standard deviations of codes (n, 2 n_latent); and from codes
        (n, n_latent) to (n, n_visible).
    pixel_bias : torch.nn.Parameter, (n_visible,)
        Added to the decoder's output, which is then the log-odds, or the mean, of the pixels.

    Notes
    -----
    A Gaussian likelihood whose sigma is larger than the spread of the data along every direction has its best bound
    with a code that says nothing (KL = 0): in the linear model a direction is kept if and only if its variance, an
    eigenvalue of the data's covariance, exceeds sigma² [3]_. Grey digits scaled to [0, 1] have 0.7 at most, so that
    sigma = 1 collapses; learn sigma.

    References
    ----------
    .. [1] Kingma, Welling (2014). Auto-encoding variational Bayes. ICLR. Equation 7.
    .. [2] Rezende, Mohamed, Wierstra (2014). Stochastic backpropagation and approximate inference in deep generative
       models. ICML.
    .. [3] Lucas, Tucker, Grosse, Norouzi (2019). Don't blame the ELBO! A linear VAE perspective on posterior collapse.
       NeurIPS.
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        shape: int | tuple[int, int],
        n_latent: int,
        *,
        network: Literal["mlp", "convolutional"] = "mlp",
        n_hidden: Sequence[int] | None = None,
        likelihood: Literal["bernoulli", "gaussian"] = "bernoulli",
        sigma: float | Literal["learnt"] | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if network not in _WIDTHS:
            raise ValueError(f"network must be 'mlp' or 'convolutional'; got {network!r}")
        check_dtype(dtype)
        image_shape = _check_lengths([shape] if isinstance(shape, int | np.integer) else shape, "shape", (1, 2))
        widths = _check_lengths(_WIDTHS[network] if n_hidden is None else n_hidden, "n_hidden", None)
        self.n_visible = math.prod(image_shape)
        self.n_latent = check_integer(n_latent, "n_latent", minimum=1)
        self.pixels = make_pixels(likelihood, sigma, dtype=dtype, device=device)
        self.options: dict[str, Any] = {
            "shape": list(image_shape),
            "n_latent": self.n_latent,
            "network": network,
            "n_hidden": list(widths),
            "likelihood": likelihood,
            "sigma": sigma.item() if isinstance(sigma, np.number) else sigma,  # a checkpoint holds JSON values
            "dtype": str(dtype).removeprefix("torch."),
        }
        if network == "mlp":
            encoder = mlp(self.n_visible, widths, 2 * self.n_latent)
            decoder = mlp(self.n_latent, widths[::-1], self.n_visible, bias=False)
        else:
            if len(image_shape) != 2:
                raise ValueError(f"shape must be (height, width) for network='convolutional'; got {shape!r}")
            encoder = convolutional_encoder(image_shape, widths, 2 * self.n_latent)
            decoder = convolutional_decoder(self.n_latent, widths, image_shape)
        self.encoder, self.decoder = (part.to(device=device, dtype=dtype) for part in (encoder, decoder))
        self.pixel_bias = nn.Parameter(torch.zeros(self.n_visible, dtype=dtype, device=device))
        with torch.no_grad():
            for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
                parameter.zero_()

    @property
    def sigma(self) -> float | None:
        """Standard deviation of Gaussian pixels, None for Bernoulli ones."""
        return math.exp(self.pixels.log_sigma.item()) if isinstance(self.pixels, GaussianPixels) else None

    def extra_repr(self) -> str:
        """Describe the module, for its repr."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items() if value is not None)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str]) -> Self:
        """Make the autoencoder that a checkpoint of `fit` holds, on the CPU.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            The file is cut short or no checkpoint, or of another version or model.
        """
        state = load_checkpoint(path, kind=VAELearner.kind)
        options = {name: state["settings"][name] for name in ("n_latent", "network", "n_hidden", "likelihood", "sigma")}
        shape = state["settings"]["shape"]
        parameters = state["learner"]["parameters"]
        dtype = torch.as_tensor(parameters["pixel_bias"]).dtype
        vae = cls(shape[0] if len(shape) == 1 else tuple(shape), **options, dtype=dtype)
        load_parameters(vae, parameters)
        return vae

    # Codes and pixels

    @torch.no_grad()
    def encode(self, X: ArrayLike | Tensor) -> Code:
        """Return the encoder's Gaussian q(z | x) of each image.

        Parameters
        ----------
        X : array, (n_images, n_visible)

        Returns
        -------
        mean, sd : Tensor, (n_images, n_latent)
        """
        mean, log_sd = self._encoded(self._checked_rows(X))
        return Code(mean, log_sd.exp())

    @torch.no_grad()
    def decode(self, z: ArrayLike | Tensor) -> Tensor:
        """Return the expected pixels of codes, (..., n_visible): for Bernoulli pixels the probabilities of a 1.

        Parameters
        ----------
        z : array, (..., n_latent)
        """
        return self._pixels.mean(self._outputs(self._checked_codes(z)))

    @torch.no_grad()
    def draw(self, z: ArrayLike | Tensor, *, random_seed: int | np.random.Generator | None = None) -> Tensor:
        """Draw the pixels of codes, (..., n_visible).

        Parameters
        ----------
        z : array, (..., n_latent)
        random_seed : int or Generator, optional
        """
        codes = self._checked_codes(z)
        return self._pixels.draw(self._outputs(codes), self._generator(np.random.default_rng(random_seed)))

    def conditional_log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x_i | z) of every pixel, differentiable.

        Parameters
        ----------
        x : Tensor, (..., n_visible)
        z : Tensor, (..., n_latent)

        Returns
        -------
        Tensor, (..., n_visible)
        """
        return self._pixels.log_probability(x, self._outputs(z))

    def elbo_terms(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two parts of the evidence lower bound, differentiable.

        Parameters
        ----------
        x : Tensor, (n, n_visible)
        noise : Tensor, (..., n, n_latent)
            Draws from N(0, 1): the codes are ``mean + sd * noise``.

        Returns
        -------
        reconstruction : Tensor, (..., n)
            log p(x | z).
        kl : Tensor, (n,)
            KL(q(z | x) || N(0, I)).
        """
        mean, log_sd = self._encoded(x)
        reconstruction = self.conditional_log_likelihood(x, mean + log_sd.exp() * noise).sum(-1)
        kl = (0.5 * (mean**2 + torch.exp(2 * log_sd) - 1) - log_sd).sum(-1)
        return reconstruction, kl

    def rows(self, X: ArrayLike | Tensor) -> Tensor:
        """Return images as a tensor of the parameters' dtype and device."""
        values = X if isinstance(X, Tensor) else np.array(X)  # torch refuses views that are read-only or run backwards
        return torch.as_tensor(values, dtype=self.pixel_bias.dtype, device=self.pixel_bias.device)

    @property
    def _pixels(self) -> Pixels:
        return cast(Pixels, self.pixels)

    def _checked_rows(self, X: ArrayLike | Tensor, name: str = "X") -> Tensor:
        check_parameters(dict(self.named_parameters()))
        return self.rows(self._pixels.check(X, name, self.n_visible))

    def _checked_codes(self, z: ArrayLike | Tensor) -> Tensor:
        codes = self.rows(z)
        if codes.ndim == 0 or codes.shape[-1] != self.n_latent:
            raise ValueError(f"z must have shape (..., {self.n_latent}); got {tuple(codes.shape)}")
        return codes

    def _encoded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_sd = self.encoder(x).chunk(2, -1)
        return mean, log_sd

    def _outputs(self, z: Tensor) -> Tensor:
        outputs = self.decoder(z.reshape(-1, self.n_latent)) + self.pixel_bias
        return outputs.reshape(*z.shape[:-1], self.n_visible)

    def _generator(self, rng: np.random.Generator) -> torch.Generator:
        return torch.Generator(self.pixel_bias.device).manual_seed(int(rng.integers(2**63)))

    # Sampling

    @torch.no_grad()
    def sample(self, n_draws: int = 1000, *, random_seed: int | np.random.Generator | None = None) -> DataTree:
        """Draw codes from N(0, I) and images given them: independent draws, of one chain.

        Parameters
        ----------
        n_draws : int
        random_seed : int or Generator, optional

        Returns
        -------
        DataTree
            Groups ``prior`` with ``z``, dims (chain, draw, latent), and ``prior_predictive`` with ``x``, dims (chain,
            draw, visible). Binary pixels are int8 to save memory: convert them before arithmetic.
        """
        n_draws = check_integer(n_draws, "n_draws", minimum=1)
        generator = self._generator(np.random.default_rng(random_seed))
        check_parameters(dict(self.named_parameters()))
        z = self._normal((n_draws, self.n_latent), generator)
        x = self._pixels.draw(self._outputs(z), generator)
        if isinstance(self.pixels, BernoulliPixels):
            x = x.to(torch.int8)
        return _as_datatree(z.cpu().numpy(), x.cpu().numpy())

    # Likelihood

    @torch.no_grad()
    def elbo(
        self,
        X: ArrayLike | Tensor,
        *,
        n_samples: int = 10,
        random_seed: int | np.random.Generator | None = None,
    ) -> Tensor:
        """Estimate the evidence lower bound of each image, in nats.

        Parameters
        ----------
        X : array, (n_images, n_visible)
        n_samples : int
            Codes per image that estimate the expected log p(x | z); the divergence is exact.
        random_seed : int or Generator, optional

        Returns
        -------
        Tensor, (n_images,)
            Unbiased, at most log p(x) in expectation.
        """
        rows = self._checked_rows(X)
        n_samples = check_integer(n_samples, "n_samples", minimum=1)
        generator = self._generator(np.random.default_rng(random_seed))
        parts = []
        for part in rows.split(self._rows_at_once(n_samples)):
            reconstruction, kl = self.elbo_terms(part, self._normal((n_samples, len(part), self.n_latent), generator))
            parts.append(reconstruction.mean(0) - kl)
        return torch.cat(parts)

    @torch.no_grad()
    def log_likelihood(
        self,
        X: ArrayLike | Tensor,
        *,
        n_importance: int = 1000,
        random_seed: int | np.random.Generator | None = None,
    ) -> LatentLogLikelihood:
        r"""Estimate log p(x) of each image by importance sampling from the encoder's Gaussian.

        .. math::

            \hat p(x) = \frac{1}{K} \sum_{k=1}^K \frac{p(x \mid z_k) \, p(z_k)}{q(z_k \mid x)}, \qquad z_k \sim q,

        is unbiased, so that its log is a lower bound in expectation, which rises with K from the ELBO to log p(x) [1]_.

        Parameters
        ----------
        X : array, (n_images, n_visible)
            Zeros and ones for Bernoulli pixels: grey values have no probability under them.
        n_importance : int
            Codes per image, K, at least 2.
        random_seed : int or Generator, optional

        Returns
        -------
        LatentLogLikelihood
            With `mean`, `standard_error`, the values `per_row`, their Monte Carlo errors `per_row_error`, and
            `effective_sample_size`, which says where to distrust them.

        References
        ----------
        .. [1] Burda, Grosse, Salakhutdinov (2016). Importance weighted autoencoders. ICLR. Equation 8.
        """
        rows = self._scorable_rows(X)
        n_importance = check_integer(n_importance, "n_importance", minimum=2)
        generator = self._generator(np.random.default_rng(random_seed))
        at_once = max(1, _OUTPUTS_AT_ONCE // self.n_visible)
        parts = []
        for part in rows.split(self._rows_at_once(min(n_importance, at_once))):
            mean, log_sd = self._encoded(part)
            weights = []
            for start in range(0, n_importance, at_once):
                noise = self._normal((min(at_once, n_importance - start), len(part), self.n_latent), generator)
                log_joint = self._log_joint(part, mean + log_sd.exp() * noise)
                weights.append(log_joint - log_normal(noise) + log_sd.sum(-1))
            parts.append(torch.cat(weights))
        return average_weights(torch.cat(parts, dim=1), "importance")

    @torch.inference_mode(False)
    def annealed_log_likelihood(
        self,
        X: ArrayLike | Tensor,
        *,
        n_chains: int = 16,
        n_steps: int = 200,
        random_seed: int | np.random.Generator | None = None,
    ) -> LatentLogLikelihood:
        r"""Estimate log p(x) of a few images by annealed importance sampling, from below and from above.

        Chains start from the encoder's Gaussian and are led to the posterior of the code through

        .. math:: p_\beta(z) \propto q(z \mid x)^{1 - \beta} \bigl(p(z) \, p(x \mid z)\bigr)^\beta,

        with one Hamiltonian Monte Carlo move at each of `n_steps` values of β [1]_, [2]_. The encoder need not be
        right for the estimate to be. Chains that go from the posterior back to the Gaussian tend to give too large a
        value [3]_: log p(x) lies between the two, as far as the former have found all of the posterior. The reverse
        chains start from the forward ones, resampled by their weights and led on by `n_steps` moves.

        Parameters
        ----------
        X : array, (n_images, n_visible)
        n_chains : int
            Chains of each image, at least 2.
        n_steps : int
            Temperature steps.
        random_seed : int or Generator, optional

        Returns
        -------
        LatentLogLikelihood
            The forward estimate, with `reverse`.

        References
        ----------
        .. [1] Neal (2001). Annealed importance sampling. Statistics and Computing 11, 125-139.
        .. [2] Wu, Burda, Salakhutdinov, Grosse (2017). On the quantitative analysis of decoder-based generative models.
           ICLR. Section 3.
        .. [3] Grosse, Ancha, Roy (2016). Measuring the reliability of MCMC inference with bidirectional Monte Carlo.
           NeurIPS.
        """
        rows = self._scorable_rows(X)
        n_chains = check_integer(n_chains, "n_chains", minimum=2)
        n_steps = check_integer(n_steps, "n_steps", minimum=1)
        mean, sd = self.encode(rows)
        return anneal(
            lambda z: self._log_joint(rows, z),
            mean=mean,
            sd=sd,
            n_chains=n_chains,
            n_steps=n_steps,
            generator=self._generator(np.random.default_rng(random_seed)),
        )

    def _scorable_rows(self, X: ArrayLike | Tensor) -> Tensor:
        rows = self._checked_rows(X)
        if isinstance(self.pixels, BernoulliPixels):
            grey = (rows != 0) & (rows != 1)
            if grey.any():
                raise ValueError(
                    "X must hold only 0 and 1: grey values have no probability under a Bernoulli likelihood; "
                    f"got {float(rows[grey][0])}"
                )
        return rows

    def _log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """Log p(x, z), (n_samples, n), for x (n, n_visible) and z (n_samples, n, n_latent)."""
        return self.conditional_log_likelihood(x, z).sum(-1) + log_normal(z)

    def _normal(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=self.pixel_bias.dtype, device=self.pixel_bias.device)

    def _rows_at_once(self, n_samples: int) -> int:
        return max(1, _OUTPUTS_AT_ONCE // (self.n_visible * n_samples))

    # Training

    @torch.inference_mode(False)
    @torch.no_grad()
    @takes_fit_options(epochs=100, batch_size=32, optimizer=torch.optim.Adam, learning_rate=2e-3)
    def fit(
        self,
        X: ArrayLike | Tensor,
        *,
        beta: float = 1.0,
        warm_up: int = 0,
        **options: Unpack[FitArguments],
    ) -> xr.Dataset:
        """Train by stochastic gradient ascent on the evidence lower bound, with one code per image and update [1]_.

        A new autoencoder starts from random weights and from pixels that are independent; one that has parameters goes
        on from them.

        Parameters
        ----------
        X : array, (n_images, n_visible)
            Zeros and ones, or grey values between them, for Bernoulli pixels; any real numbers for Gaussian ones.
        beta : float
            Weight of the Kullback-Leibler divergence. 1 is the bound of log p(x); other values trade reconstructions
            against codes that look like N(0, I) [2]_.
        warm_up : int
            Epochs over which the weight rises from 0 to `beta`, against codes that are given up early [3]_.
        validation_data : array, (n, n_visible), optional
            Adds their bound to the history.
        early_stopping : EarlyStopping, optional
            When the objective of the validation data, with the full `beta`, ends training; its tolerance is in nats
            per image. The parameters then go back to those of the last look within the tolerance.

        Returns
        -------
        xarray.Dataset
            The history, over the dim ``epoch``: ``elbo`` of training images and its parts ``reconstruction`` and
            ``kl``, ``seconds`` per epoch, and, with `validation_data`, ``validation_elbo`` and ``validation_kl``. The
            bound is that with ``beta=1``. A look at large data uses a thousand evenly spaced images of each set, and
            the same noise every time. The attributes are the settings.

        Raises
        ------
        ValueError, TypeError
            An argument is bad, or a checkpoint is cut short, of another version, or of a training with other arguments
            or data.
        FloatingPointError
            The parameters are no longer finite.

        References
        ----------
        .. [1] Kingma, Welling (2014). Auto-encoding variational Bayes. ICLR. Algorithm 1.
        .. [2] Higgins et al. (2017). beta-VAE: learning basic visual concepts with a constrained variational framework.
           ICLR.
        .. [3] Sønderby, Raiko, Maaløe, Sønderby, Winther (2016). Ladder variational autoencoders. NeurIPS. Section 2.3.

        Examples
        --------
        >>> import numpy as np
        >>> from pm_neural.training import VAE
        >>> images = np.repeat(np.eye(6), 20, axis=0)
        >>> vae = VAE(6, n_latent=2, n_hidden=[16])
        >>> history = vae.fit(images, epochs=20, random_seed=1, progressbar=False)
        >>> vae.encode(images).mean.shape
        torch.Size([120, 2])
        """
        images = self._pixels.check(X, "X", self.n_visible)
        chosen = FitOptions(**options)
        chosen.check_watched()
        validation = None
        if chosen.validation_data is not None:
            validation = self._pixels.check(chosen.validation_data, "validation_data", self.n_visible)
        beta = check_number(beta, "beta", minimum=0)
        warm_up = check_integer(warm_up, "warm_up", minimum=0)
        check_parameters(dict(self.named_parameters()))
        check_learnable(dict(self.named_parameters()))

        rng = np.random.default_rng(chosen.random_seed)
        backend = TorchBackend(self.pixel_bias.dtype, rng, self.pixel_bias.device)
        ascent = make_ascent(
            backend,
            tuple(self.parameters()),
            optimizer=chosen.optimizer,
            learning_rate=chosen.learning_rate,
            default_learning_rate=_SGD_LEARNING_RATE,
            momentum=0.0,
        )
        self._initialize(images, rng)
        plan = Plan.make(chosen, ascent, backend, self.rows(images), images, validation, rng)
        learner = VAELearner(self, plan, beta=beta, warm_up=warm_up)
        largest_layer = max(parameter.numel() for parameter in self.parameters())
        with threads_for(plan.minibatches.batch_size * largest_layer):
            return train(learner, chosen)

    @torch.no_grad()
    def _initialize(self, images: np.ndarray, rng: np.random.Generator) -> None:
        """Start a new autoencoder, all of whose parameters are zero."""
        if any(p.any() for p in self.parameters()):
            return
        generator = self._generator(rng)
        for network in (self.encoder, self.decoder):
            draw_weights(network, generator)
        self.pixel_bias.copy_(self.rows(self._pixels.start(images)))


def _check_lengths(values: Any, name: str, allowed: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return `values` as a tuple of positive integers; `allowed` are its possible lengths, None for any but 0."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a sequence of integers; got {values!r}")
    if not values or (allowed is not None and len(values) not in allowed):
        raise ValueError(f"{name} must have {allowed or 'at least 1'} entries; got {values!r}")
    return tuple(check_integer(value, f"an entry of {name}", minimum=1) for value in values)


def _as_datatree(z: np.ndarray, x: np.ndarray) -> DataTree:
    from arviz import from_dict  # takes seconds to import, and training does without it

    groups = {"prior": {"z": z[None]}, "prior_predictive": {"x": x[None]}}
    return from_dict(groups, dims={"z": ["latent"], "x": ["visible"]})
