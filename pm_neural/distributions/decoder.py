"""The decoder of a variational autoencoder as a likelihood."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from numba import njit, objmode
from pymc.distributions.distribution import Distribution
from pymc.logprob.abstract import _logprob
from pytensor.tensor import TensorVariable, as_tensor_variable

from pm_neural.distributions._checks import binary_data, check_shape, real_data
from pm_neural.distributions._compiled_op import CompiledRV
from pm_neural.distributions._units import on_support
from pm_neural.distributions.torch_modules.op import TorchEnergy

if TYPE_CHECKING:
    from pm_neural.distributions.torch_modules.frozen_decoder import FrozenDecoder
    from pm_neural.training import VAE

__all__ = ["Decoder"]


class DecoderRV(CompiledRV):
    """Real pixels of the image that a code stands for."""

    name = "Decoder"
    dtype = "floatX"
    _print_name = ("Decoder", "\\operatorname{Decoder}")
    __props__ = (*CompiledRV.__props__, "module")

    def __init__(self, *, module: FrozenDecoder, **kwargs):
        kwargs.setdefault("signature", "(latent),(visible)->(visible)")
        super().__init__(**kwargs)
        self.module = module

    def __str__(self):
        return f"{self.name}_rv"

    def rng_fn(self, rng, latent, known, size):
        """Draw all pixels, in backends other than numba."""
        batch = np.broadcast_shapes(latent.shape[:-1], known.shape[:-1]) if size is None else tuple(size)
        shape = (*batch, self.module.n_visible)
        noise = rng.random(shape) if self.module.is_binary else rng.normal(size=shape)
        codes = np.broadcast_to(latent, (*batch, latent.shape[-1]))
        pixels = np.empty(shape)
        for index in np.ndindex(batch):
            pixels[index] = self.module.pixels(codes[index], noise[index])
        return pixels.astype(self.dtype if self.module.is_binary else pytensor.config.floatX)

    def numba_draw(self, node):
        """Draw all pixels, from compiled code."""
        pixels, is_binary, n_visible = self.module.pixels, self.module.is_binary, self.module.n_visible
        dtype = np.dtype(node.outputs[1].dtype)

        @njit
        def draw(rng, latent, known):
            noise = rng.random(n_visible) if is_binary else rng.normal(0.0, 1.0, n_visible)
            with objmode(result="float64[:]"):
                result = pixels(latent, noise)
            return result.astype(dtype)

        return draw

    def compiled_in(self):
        """The compiled form refers to the module, which only this process has."""
        return None


class BinaryDecoderRV(DecoderRV):
    """Binary pixels of the image that a code stands for."""

    name = "BinaryDecoder"
    dtype = "int64"


class Decoder(Distribution):
    r"""Images given their latent codes, as the decoder of a trained `training.VAE` paints them.

    .. math:: p(x \mid z) = \prod_i p(x_i \mid d_i(z)),

    normalized, with pixels that are Bernoulli or Gaussian as in the autoencoder. On a latent ``pm.Normal`` vector it
    makes the autoencoder's generative model a PyMC model, and with `observed` the true posterior of the code is
    sampled, where the encoder has but a guess.

    Parameters
    ----------
    vae : training.VAE
        The model keeps a copy with the weights as they are: training it later changes nothing here.
    latent : tensor_like, (..., n_latent)
        Codes. Leading axes are a batch of images.

    Raises
    ------
    TypeError
        If `vae` is not a VAE.
    ValueError
        If `latent` or `observed` have the wrong length, if `observed` is not 0 or 1 for Bernoulli pixels or not finite
        for Gaussian ones, or is masked everywhere, or if the parameters of `vae` are not finite.
    ModuleNotFoundError
        If torch is not installed.

    Notes
    -----
    Masked pixels take no part: ``observed=np.ma.masked_array(image, mask=unknown)`` gives the posterior of the code
    given the others. Given the code, pixels are independent, so that ``pm.sample_posterior_predictive`` draws the
    missing ones from p(unknown | known); it draws the known pixels anew as well. Under the mask, the group
    ``observed_data`` holds 0.

    Grey images, which a Bernoulli autoencoder may have been trained on, have no probability under it and are refused.

    References
    ----------
    .. [1] Kingma, Welling (2014). Auto-encoding variational Bayes. ICLR.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> vae = pmn.training.VAE(6, n_latent=2, n_hidden=[8])
    >>> history = vae.fit(np.eye(6), epochs=10, random_seed=1, progressbar=False)
    >>> with pm.Model():
    ...     z = pm.Normal("z", shape=2)
    ...     x = pmn.Decoder("x", vae, z, observed=np.eye(6)[0])
    ...     idata = pm.sample(100, tune=100, chains=2, cores=1, progressbar=False)
    """

    rv_type = DecoderRV

    def __new__(cls, name, vae, latent, *, observed=None, **kwargs):
        """Register the distribution as a variable of the current model."""
        module = _freeze(vae)
        known = None
        if observed is not None:
            check = binary_data if module.is_binary else real_data
            observed = check(name, observed, (module.n_visible,))
            if isinstance(observed, np.ma.MaskedArray):
                known = 1 - np.ma.getmaskarray(observed).astype(np.int64)
                observed = observed.data * known.astype(observed.dtype)
        return super().__new__(cls, name, module, latent, known=known, observed=observed, **kwargs)

    @classmethod
    def dist(cls, vae, latent, *, known=None, **kwargs):
        """Make a variable that belongs to no model.

        `known`, of 0 and 1 and broadcast to the images, says which pixels count in the log-probability; by default all.
        """
        module = _freeze(vae)
        latent = as_tensor_variable(latent).astype(pytensor.config.floatX)
        if latent.ndim == 0 or latent.type.shape[-1] not in (None, module.n_latent):
            raise ValueError(
                f"latent must have the shape (..., {module.n_latent}), one code of the VAE per image, "
                f"got {latent.type.shape}"
            )
        check_shape("Decoder", kwargs.get("shape"), module.n_visible)
        known = as_tensor_variable(np.ones(module.n_visible, np.int64) if known is None else known)
        return super().dist([latent, known], module=module, **kwargs)

    @classmethod
    def rv_op(cls, latent, known, *, module, size=None, rng=None):
        """Make the random variable."""
        if rng is None:
            rng = pt.random.shared_rng(seed=None)
        op = (BinaryDecoderRV if module.is_binary else DecoderRV)(module=module)
        return op(latent, known, size=size, rng=rng, return_next_rng=True)[1]

    def support_point(rv, size, latent, known):
        """Start without ink."""
        return pt.zeros(rv.shape, dtype=rv.dtype)


def _freeze(vae: VAE | FrozenDecoder) -> FrozenDecoder:
    try:
        frozen_decoder = import_module("pm_neural.distributions.torch_modules.frozen_decoder")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"pmn.Decoder needs {error.name}, which is not installed; it comes with the extra: "
            "pip install 'pm-neural[torch]'",
            name=error.name,
        ) from error
    if isinstance(vae, frozen_decoder.FrozenDecoder):
        return vae
    return frozen_decoder.FrozenDecoder(vae, pytensor.config.floatX)


@_logprob.register(DecoderRV)
def _decoder_logprob(op, values, rng, size, latent, known, **kwargs):
    (value,) = values
    return _log_likelihood(op, value, latent, known)


@_logprob.register(BinaryDecoderRV)
def _binary_decoder_logprob(op, values, rng, size, latent, known, **kwargs):
    (value,) = values
    return pt.switch(on_support(value), _log_likelihood(op, value, latent, known), -np.inf)


def _log_likelihood(op: DecoderRV, value: TensorVariable, latent: TensorVariable, known: Any) -> TensorVariable:
    pixels = pt.switch(pt.eq(known, 1), value.astype(latent.dtype), np.nan)
    # each takes the other's batch axes, by a zero of them
    codes = latent + pt.zeros_like(value[..., :1], dtype=latent.dtype)
    pixels = pixels + pt.zeros_like(latent[..., :1])
    return -TorchEnergy(op.module)(pt.concatenate([codes, pixels], axis=-1).astype(pytensor.config.floatX))[0]
