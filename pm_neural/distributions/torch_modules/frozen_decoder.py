"""A trained decoder behind NumPy arrays. Imported when the first `Decoder` is made."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pm_neural.distributions.torch_modules.frozen_module import FrozenModule
from pm_neural.training.autoencoder.vae import VAE

__all__ = ["FrozenDecoder"]


class _NegativeLogLikelihood(nn.Module):
    """Energies −log p(x | z) of points that are codes and pixels one after the other; pixels that are NaN are left out.

    Parameters
    ----------
    vae : VAE
    """

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, points: Tensor) -> Tensor:
        z, x = points.split([self.vae.n_latent, self.vae.n_visible], dim=-1)
        log_likelihood = self.vae.conditional_log_likelihood(x.nan_to_num(0.0), z)
        return -torch.where(x.isnan(), 0.0, log_likelihood).sum(-1)


class FrozenDecoder(FrozenModule):
    """A copy of a VAE's decoder, as an energy of codes and pixels, and with draws of pixels.

    Parameters
    ----------
    vae : VAE
    dtype : str
        PyTensor's float type.

    Raises
    ------
    TypeError
        If it is not a VAE.
    ValueError
        If it has parameters that are not finite.
    """

    def __init__(self, vae: Any, dtype: str):
        if not isinstance(vae, VAE):
            raise TypeError(f"vae must be a pm_neural.training.VAE, got {type(vae).__name__}")
        self.n_latent, self.n_visible = vae.n_latent, vae.n_visible
        self.is_binary = vae.options["likelihood"] == "bernoulli"
        super().__init__(_NegativeLogLikelihood(vae), (self.n_latent + self.n_visible,), dtype)
        start = np.zeros(self.event_shape, dtype)
        self.check(start, np.ones_like(start), with_gradient=True)

    def pixels(self, z: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Turn noise into pixels given a code.

        Parameters
        ----------
        z : ndarray, (n_latent,)
        noise : ndarray, (n_visible,)
            Draws from [0, 1) for Bernoulli pixels, and from N(0, 1) for Gaussian ones.

        Returns
        -------
        ndarray, (n_visible,), in the type of the noise
        """
        vae = cast(VAE, self._module.vae)
        mean = vae.decode(z).to("cpu", torch.float64).numpy()
        if vae.sigma is None:
            return (noise < mean).astype(noise.dtype)
        return mean + vae.sigma * noise
