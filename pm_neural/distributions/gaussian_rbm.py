"""Restricted Boltzmann machines with Gaussian visible units, as PyMC distributions."""

from __future__ import annotations

from typing import Any

import pytensor.tensor as pt
from numba import njit
from pymc.distributions.dist_math import check_parameters
from pymc.distributions.distribution import Continuous
from pymc.distributions.shape_utils import rv_size_is_none
from pymc.logprob.abstract import _logprob
from pytensor.graph.basic import Variable
from pytensor.tensor import TensorVariable

from pm_neural.distributions._checks import (
    check_length,
    check_shape,
    check_start_of_masked,
    finite_parameter,
    known_value,
    machine_parameters,
    real_data,
    real_initval,
)
from pm_neural.distributions._draws import draw_gaussian_visible
from pm_neural.distributions._units import loop_over_batch
from pm_neural.distributions.normalizers.normalizer import UNSAID, Normalize, choose_normalizer
from pm_neural.distributions.normalizers.restricted import EnumeratedHiddenLayer
from pm_neural.distributions.rbm import VisibleUnitsRV
from step_methods.checks import at_least
from step_methods.network import GaussianRestrictedNetwork, network_of
from step_methods.reading.graphs import random_inputs
from step_methods.reading.parameters import unnormalized_message

__all__ = ["GaussianRBM"]


class GaussianRBMRV(VisibleUnitsRV):
    """Gaussian visible units."""

    name = "GaussianRBM"
    signature = "(v,h),(v),(h),(v)->(v)"
    dtype = "floatX"
    _print_name = ("GaussianRBM", "\\operatorname{GaussianRBM}")

    def rng_fn(self, rng, W, a, b, sigma, size):
        """Draw in backends other than numba."""

        def draw(W, b, sigma, a):
            return draw_gaussian_visible(rng, W, a, b, sigma, self.n_sweeps)

        return loop_over_batch(draw, (2, 1, 1, 1), (W, b, sigma, a), size, self.dtype)

    def numba_draw(self, node):
        """Draw by numba."""
        n_sweeps = self.n_sweeps

        @njit
        def draw(rng, W, a, b, sigma):
            return draw_gaussian_visible(rng, W, a, b, sigma, n_sweeps)

        return draw


class GaussianRBM(Continuous):
    r"""Real visible units of a restricted Boltzmann machine with binary hidden units.

    The joint distribution of visible units v and hidden units h is :math:`p(v, h) = e^{-E(v, h)} / Z` with

    .. math::

        E(v, h) = \sum_i \frac{(v_i - a_i)^2}{2 \sigma_i^2} - b \cdot h - \sum_{ij} \frac{v_i}{\sigma_i^2} W_{ij} h_j

    (Cho, Ilin and Raiko [1]_, eq. 2), so that v given h is Gaussian with mean a + W h and standard deviations σ, and
    h_j given v is 1 with probability :math:`\operatorname{sigmoid}(b_j + \sum_i v_i W_{ij} / \sigma_i^2)`. This
    distribution is the marginal over v in closed form, a mixture of :math:`2^{n_{hidden}}` Gaussians:

    .. math::

        \log p(v) = -F(v) - \log Z, \qquad
        F(v) = \sum_i \frac{(v_i - a_i)^2}{2 \sigma_i^2}
        - \sum_j \operatorname{softplus}\left(b_j + \sum_i \frac{v_i}{\sigma_i^2} W_{ij}\right).

    `BlockGibbs` samples it by default; it has a gradient, so that NUTS does, too.

    Parameters
    ----------
    W : tensor_like of float, shape (..., n_visible, n_hidden); or trained machine
        Couplings, in units of v. A `training.GaussianRBM`, or another object with ``parameters_as_numpy()``, stands for
        all four parameters; they are copied. Leading dimensions of the parameters are a batch of independent machines.
    a : tensor_like of float, shape (..., n_visible)
        Biases of the visible units, in units of v.
    b : tensor_like of float, shape (..., n_hidden)
        Biases of the hidden units.
    sigma : tensor_like of float, shape (..., n_visible)
        Standard deviation of each visible unit given the hidden ones, positive. A scalar holds for all of them.
    normalize : {None, "exact"} or Normalizer
        With None the constant log Z is left out: right for sampling with fixed parameters, and cheap. "exact"
        includes it, with its gradient in all parameters, by integrating over the visible units in closed form and
        enumerating the hidden ones (at most 20); parameters that depend on other random variables need it, and so do
        ``pm.Mixture``, model comparison and LOO across networks. A network without it whose parameters are random is
        refused when its log-probability or a step method is built. `GaussianRBM.dist` wants this argument said
        explicitly.
    n_sweeps : int
        For draws (``pm.draw``, prior and posterior predictive): the number of block Gibbs sweeps from a random
        start after which the state is taken for a draw. This is an approximation, good if the machine mixes
        within that many sweeps. It is not used where there are at most 12 hidden units: draws are then
        exact, by enumeration.

    Raises
    ------
    ValueError
        If the parameters do not fit together, are not finite, or `sigma` is not positive; if `observed` or
        `initval` is not finite; if `observed` is masked everywhere; if `normalize` is unknown or impossible; if
        `n_sweeps` < 1.
    TypeError
        If parameters or data are not real numbers; if parameters are missing, or given beside a trained machine.

    See Also
    --------
    training.GaussianRBM : the machine of that name that is trained on data, by torch; this is the PyMC distribution.
    HiddenUnits : the hidden units given the visible ones.

    Notes
    -----
    Masked data clamp units: ``observed=np.ma.masked_array(patch, mask=unknown)`` holds the units where the mask
    is False, and the model's posterior is p(masked units | others). What is under the mask may be NaN. Draws
    from the prior ignore the clamp, as they ignore all data.

    ``pm.compute_log_likelihood`` gives log p(v) only with ``normalize="exact"``, otherwise log p(v) + log Z.

    `BlockGibbs` cannot condition v on further terms of a model, such as a noisy measurement of v, and refuses such
    models. Sample v with ``pm.NUTS`` there; `HiddenUnits` may stay with `BlockGibbs`.

    References
    ----------
    .. [1] K. Cho, A. Ilin and T. Raiko, "Improved learning of Gaussian-Bernoulli restricted Boltzmann machines", ICANN
       (2011) 10.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> rng = np.random.default_rng(1)
    >>> W, a, b = rng.normal(size=(2, 4)), np.zeros(2), np.zeros(4)
    >>> with pm.Model():
    ...     v = pmn.GaussianRBM("v", W, a, b, sigma=0.5)
    >>> pm.draw(v, random_seed=1).shape
    (2,)
    """

    rv_type = GaussianRBMRV

    def __new__(
        cls, name, W, a=None, b=None, sigma=None, *, normalize: Normalize = None, observed=None, initval=None, **kwargs
    ):
        """Register the distribution as a variable of the current model."""
        W, a, b, sigma = machine_parameters("GaussianRBM", W, a, b, sigma)
        W = finite_parameter("W", W, 2)
        event_shape = W.type.shape[-2:-1]
        if observed is not None:
            observed = real_data(name, observed, event_shape)
            check_start_of_masked(name, observed, initval)
        initval = real_initval(name, initval, event_shape)
        return super().__new__(
            cls, name, W, a, b, sigma, normalize=normalize, observed=observed, initval=initval, **kwargs
        )

    @classmethod
    def rv_op(cls, W, a, b, sigma, *, normalize, n_sweeps, size=None, rng=None):
        """Draw from the distribution, symbolically."""
        op = GaussianRBMRV(normalize=normalize, n_sweeps=n_sweeps)
        if rng is None:
            rng = pt.random.shared_rng(seed=None)
        return op(W, a, b, sigma, size=size, rng=rng, return_next_rng=True)[1]

    @classmethod
    def dist(
        cls,
        W,
        a=None,
        b=None,
        sigma=None,
        *,
        normalize: Normalize = UNSAID,
        n_sweeps: int = 1000,
        **kwargs,
    ):
        """Make a variable that belongs to no model; `normalize` must be given."""
        W, a, b, sigma = machine_parameters("GaussianRBM", W, a, b, sigma)
        W = finite_parameter("W", W, 2)
        a, b = (finite_parameter(argument, value, 1) for argument, value in (("a", a), ("b", b)))
        sigma = _positive_parameter("sigma", sigma)
        if sigma.ndim == 0:
            sigma = pt.full(a.shape[-1:], sigma)
        n_visible, n_hidden = W.type.shape[-2:]
        check_length("a", a, n_visible, "n_visible", W)
        check_length("b", b, n_hidden, "n_hidden", W)
        check_length("sigma", sigma, n_visible, "n_visible", W)
        check_shape("GaussianRBM", kwargs.get("shape"), n_visible)
        network = GaussianRestrictedNetwork(W, a, b, sigma, normalized=True)
        normalizer = choose_normalizer("GaussianRBM", normalize, network, {}, [("exact", EnumeratedHiddenLayer())])
        return super().dist(
            [W, a, b, sigma], normalize=normalizer, n_sweeps=at_least(1, "n_sweeps", n_sweeps), **kwargs
        )

    def support_point(rv, size, W, a, b, sigma):
        """Start at the mean of the visible units with all hidden units half on."""
        start = a + 0.5 * W.sum(axis=-1)
        return start if rv_size_is_none(size) else pt.broadcast_to(start, rv.shape)


def _positive_parameter(argument: str, value: Any) -> TensorVariable:
    tensor = finite_parameter(argument, value, 0)
    known = known_value(value if isinstance(value, Variable) else tensor)
    if known is not None and not (known > 0).all():
        raise ValueError(f"{argument} must be positive, got {known[~(known > 0)].flat[0]}")
    return tensor


@_logprob.register(GaussianRBMRV)
def _gaussian_rbm_logprob(op, values, rng, size, W, a, b, sigma, **kwargs):
    (value,) = values
    random = random_inputs([W, a, b, sigma])
    if random and op.normalize is None:
        raise ValueError(unnormalized_message(getattr(value, "name", None) or "GaussianRBM", random))
    precision = 1 / pt.sqr(sigma)
    hidden_fields = b + pt.matvec(W.mT, value * precision)
    logp = pt.softplus(hidden_fields).sum(axis=-1) - 0.5 * (pt.sqr(value - a) * precision).sum(axis=-1)
    if op.normalize is not None:
        logp = op.normalize.normalized(logp, GaussianRestrictedNetwork(W, a, b, sigma, normalized=True))
    return check_parameters(
        logp,
        pt.all(sigma > 0, axis=-1),
        pt.eq(W.shape[-2], a.shape[-1]),
        msg="sigma > 0, W and a must fit",
    )


@network_of.register(GaussianRBMRV)
def _gaussian_rbm_network(op, node):
    W, a, b, sigma = op.dist_params(node)
    return GaussianRestrictedNetwork(W, a, b, sigma, normalized=op.normalize is not None)
