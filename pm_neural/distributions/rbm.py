"""Restricted Boltzmann machines with binary visible units, as PyMC distributions."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
from numba import njit
from pymc.distributions.dist_math import check_parameters
from pymc.distributions.shape_utils import rv_size_is_none
from pymc.logprob.abstract import _logprob
from pytensor.graph.basic import Variable
from pytensor.tensor import TensorVariable
from scipy.sparse import csr_array

from pm_neural.distributions._checks import check_length, check_shape, finite_parameter, machine_parameters
from pm_neural.distributions._compiled_op import CompiledRV
from pm_neural.distributions._draws import draw_hidden, draw_visible
from pm_neural.distributions._units import BinaryUnits, as_float, loop_over_batch, on_support
from pm_neural.distributions.normalizers.normalizer import UNSAID, Normalize, Normalizer, choose_normalizer
from pm_neural.distributions.normalizers.restricted import EnumeratedLayer
from step_methods.checks import at_least
from step_methods.network import (
    GaussianRestrictedNetwork,
    PairwiseNetwork,
    RestrictedNetwork,
    hidden_layer_of,
    network_of,
)
from step_methods.reading.graphs import evaluate, random_inputs
from step_methods.reading.layers import network_node
from step_methods.reading.parameters import unnormalized_message

__all__ = ["BernoulliRBM", "HiddenUnits"]


class VisibleUnitsRV(CompiledRV):
    """The visible units of an RBM, hidden units summed out; the parameters begin with W and a."""

    __props__ = (*CompiledRV.__props__, "normalize", "n_sweeps")

    def __init__(self, *, normalize: Normalizer | None = None, n_sweeps: int = 1000, **kwargs):
        super().__init__(**kwargs)
        self.normalize = normalize
        self.n_sweeps = n_sweeps

    def _supp_shape_from_params(self, dist_params, param_shapes=None):
        # From a, not from the rows of W: a broadcast W would hide the number of units.
        return [(param_shapes[1] if param_shapes is not None else dist_params[1].shape)[-1]]


class BernoulliRBMRV(VisibleUnitsRV):
    """Binary visible units."""

    name = "BernoulliRBM"
    signature = "(v,h),(v),(h)->(v)"
    dtype = "int64"
    _print_name = ("BernoulliRBM", "\\operatorname{BernoulliRBM}")

    def rng_fn(self, rng, W, a, b, size):
        """Draw in backends other than numba."""
        return loop_over_batch(lambda W, b, a: draw_visible(rng, W, a, b, self.n_sweeps), (2, 1, 1), (W, b, a), size)

    def numba_draw(self, node):
        """Draw by numba."""
        n_sweeps = self.n_sweeps

        @njit
        def draw(rng, W, a, b):
            return draw_visible(rng, W, a, b, n_sweeps)

        return draw


class BernoulliRBM(BinaryUnits):
    r"""Visible units of a restricted Boltzmann machine with binary units.

    The joint distribution of visible units v and hidden units h is

    .. math::

        p(v, h) = e^{-E(v, h)} / Z, \qquad E(v, h) = -a \cdot v - b \cdot h - v^T W h,

    and this distribution is its marginal over v in closed form (Hinton [1]_, section 2, and [2]_, eq. 3),

    .. math::

        \log p(v) = -F(v) - \log Z, \qquad
        F(v) = -a \cdot v - \sum_j \operatorname{softplus}(b_j + (v^T W)_j).

    Its log-probability is −inf off {0, 1}. `BlockGibbs` samples it by default.

    Parameters
    ----------
    W : tensor_like of float, shape (..., n_visible, n_hidden); or trained machine
        Couplings. Leading dimensions of the parameters are a batch of independent machines. A `training.RBM`, or
        another object with ``parameters_as_numpy()``, stands for W, a and b; they are copied.
    a : tensor_like of float, shape (..., n_visible)
        Biases of the visible units.
    b : tensor_like of float, shape (..., n_hidden)
        Biases of the hidden units.
    normalize : {None, "exact"} or Normalizer
        With None the constant log Z is left out: right for sampling with fixed parameters, and cheap. "exact"
        includes it by enumerating the smaller layer (at most 20 units), with its gradient in W, a and b;
        parameters that depend on other random variables need it, and so do ``pm.Mixture``, model comparison and
        LOO across networks. A network without it whose parameters are random is refused when its
        log-probability or a step method is built. `BernoulliRBM.dist` wants this argument said explicitly.
    n_sweeps : int
        For draws (``pm.draw``, prior and posterior predictive): the number of block Gibbs sweeps from a random
        start after which the state is taken for a draw. This is an approximation, good if the machine mixes
        within that many sweeps. It is not used where the smaller layer has at most 12 units: draws are then
        exact, by enumeration.

    Raises
    ------
    TypeError
        If parameters are missing, or given beside a trained machine.
    ValueError
        If the parameters do not fit together or are not finite; if `observed` or `initval` is not 0 or 1; if
        `observed` is masked everywhere; if `normalize` is unknown or impossible; if `n_sweeps` < 1.

    See Also
    --------
    HiddenUnits : the hidden units given the visible ones.

    Notes
    -----
    Masked data clamp units: ``observed=np.ma.masked_array(image, mask=unknown)`` holds the units where the mask
    is False, and the model's posterior is p(masked units | others). What is under the mask may be NaN. Draws
    from the prior ignore the clamp, as they ignore all data.

    ``pm.compute_log_likelihood`` gives log p(v) only with ``normalize="exact"``, otherwise log p(v) + log Z.

    References
    ----------
    .. [1] G. Hinton, "A practical guide to training restricted Boltzmann machines", in Neural Networks: Tricks
       of the Trade, LNCS 7700 (2012) 599.
    .. [2] R. Salakhutdinov and I. Murray, "On the quantitative analysis of deep belief networks", ICML (2008) 872.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> rng = np.random.default_rng(1)
    >>> W, a, b = rng.normal(size=(6, 4)), np.zeros(6), np.zeros(4)
    >>> with pm.Model():
    ...     v = pmn.BernoulliRBM("v", W, a, b)
    >>> pm.draw(v, random_seed=1).shape
    (6,)
    """

    rv_type = BernoulliRBMRV

    def __new__(cls, name, W, a=None, b=None, *, normalize: Normalize = None, **kwargs):
        """Register the distribution as a variable of the current model."""
        W, a, b = machine_parameters("BernoulliRBM", W, a, b)
        W = finite_parameter("W", W, 2)
        return super().__new__(cls, name, W, a, b, event_shape=W.type.shape[-2:-1], normalize=normalize, **kwargs)

    @classmethod
    def rv_op(cls, W, a, b, *, normalize, n_sweeps, size=None, rng=None):
        """Draw from the distribution, symbolically."""
        op = BernoulliRBMRV(normalize=normalize, n_sweeps=n_sweeps)
        if rng is None:
            rng = pt.random.shared_rng(seed=None)
        return op(W, a, b, size=size, rng=rng, return_next_rng=True)[1]

    @classmethod
    def dist(
        cls,
        W,
        a=None,
        b=None,
        *,
        normalize: Normalize = UNSAID,
        n_sweeps: int = 1000,
        **kwargs,
    ):
        """Make a variable that belongs to no model; `normalize` must be given."""
        W, a, b = machine_parameters("BernoulliRBM", W, a, b)
        W, a, b = (
            finite_parameter("W", W, 2),
            finite_parameter("a", a, 1),
            finite_parameter("b", b, 1),
        )
        n_visible, n_hidden = W.type.shape[-2:]
        check_length("a", a, n_visible, "n_visible", W)
        check_length("b", b, n_hidden, "n_hidden", W)
        check_shape("BernoulliRBM", kwargs.get("shape"), n_visible)
        network = RestrictedNetwork(W, a, b, normalized=True)
        normalizer = choose_normalizer("BernoulliRBM", normalize, network, {}, [("exact", EnumeratedLayer())])
        return super().dist([W, a, b], normalize=normalizer, n_sweeps=at_least(1, "n_sweeps", n_sweeps), **kwargs)

    def support_point(rv, size, W, a, b):
        """Start where each visible unit is on if its field is positive with all hidden units half on."""
        start = pt.gt(a + 0.5 * W.sum(axis=-1), 0)
        return start if rv_size_is_none(size) else pt.broadcast_to(start, rv.shape)


@_logprob.register(BernoulliRBMRV)
def _bernoulli_rbm_logprob(op, values, rng, size, W, a, b, **kwargs):
    (value,) = values
    random = random_inputs([W, a, b])
    if random and op.normalize is None:
        raise ValueError(unnormalized_message(getattr(value, "name", None) or "BernoulliRBM", random))
    v = as_float(value, W)
    hidden_fields = b + pt.matvec(W.mT, v)
    logp = (a * v).sum(axis=-1) + pt.softplus(hidden_fields).sum(axis=-1)
    if op.normalize is not None:
        logp = op.normalize.normalized(logp, RestrictedNetwork(W, a, b, normalized=True))
    logp = pt.switch(on_support(value), logp, -np.inf)
    return check_parameters(logp, pt.eq(W.shape[-2], a.shape[-1]), msg="W and a must fit")


@network_of.register(BernoulliRBMRV)
def _bernoulli_rbm_network(op, node):
    W, a, b = op.dist_params(node)
    return RestrictedNetwork(W, a, b, normalized=op.normalize is not None)


class HiddenUnitsRV(CompiledRV):
    """The hidden units of an RBM given its visible units."""

    name = "HiddenUnits"
    signature = "(v),(v,h),(h)->(h)"
    dtype = "int64"
    _print_name = ("HiddenUnits", "\\operatorname{HiddenUnits}")

    def rng_fn(self, rng, v, W, b, size):
        """Draw in backends other than numba."""
        return loop_over_batch(lambda v, W, b: draw_hidden(rng, v, W, b), (1, 2, 1), (v, W, b), size)

    def numba_draw(self, node):
        """Draw by numba."""

        @njit
        def draw(rng, v, W, b):
            return draw_hidden(rng, v, W, b)

        return draw


class HiddenUnits(BinaryUnits):
    r"""Hidden units of a restricted Boltzmann machine given its visible units.

    They are independent of each other given the visible units v,

    .. math::

        p(h_j = 1 \mid v) = \sigma(b_j + (v^T W)_j)

    (with v over the variances where the visible units are Gaussian), so that the product of this and the visible units'
    own distribution is exactly :math:`e^{-E(v, h)} / Z`: a model may contain the hidden units or leave them out, the
    visible units are distributed alike.

    Parameters
    ----------
    v : TensorVariable, shape (..., n_visible)
        A variable of a network's visible units, such as `BernoulliRBM` or `GaussianRBM`; its couplings and
        hidden biases are taken from there. It may have masked data.

    Raises
    ------
    TypeError
        If `v` is not the visible layer of a network.
    ValueError
        If `observed` or `initval` is not 0 or 1, or `observed` is masked everywhere.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> with pm.Model():
    ...     v = pmn.BernoulliRBM("v", np.ones((6, 4)), np.zeros(6), np.zeros(4))
    ...     h = pmn.HiddenUnits("h", v)
    >>> pm.draw(h, random_seed=1).shape
    (4,)
    """

    rv_type = HiddenUnitsRV

    @classmethod
    def rv_op(cls, v, W, b, *, size=None, rng=None):
        """Draw from the distribution, symbolically."""
        if rng is None:
            rng = pt.random.shared_rng(seed=None)
        return HiddenUnitsRV()(v, W, b, size=size, rng=rng, return_next_rng=True)[1]

    def __new__(cls, name, v, **kwargs):
        """Register the distribution as a variable of the current model."""
        event_shape = _network_of_visible(v).hidden_biases.type.shape[-1:]
        return super().__new__(cls, name, v, event_shape=event_shape, **kwargs)

    @classmethod
    def dist(cls, v, **kwargs):
        """Make a variable that belongs to no model."""
        network = _network_of_visible(v)
        check_shape("HiddenUnits", kwargs.get("shape"), network.hidden_biases.type.shape[-1])
        return super().dist([v, _couplings_to_hidden(network), network.hidden_biases], **kwargs)

    def support_point(rv, size, v, W, b):
        """Start where a hidden unit is on if its field is positive."""
        start = pt.gt(b + pt.matvec(W.mT, as_float(v, W)), 0)
        return start if rv_size_is_none(size) else pt.broadcast_to(start, rv.shape)


def _network_of_visible(v) -> RestrictedNetwork | GaussianRestrictedNetwork:
    network = _machine_of(v) if isinstance(v, TensorVariable) else None
    if network is None:
        raise TypeError(
            "v must be a variable of the visible units of a network, such as pmn.BernoulliRBM, got "
            f"{v if isinstance(v, TensorVariable) else type(v).__name__}"
        )
    return network


def _machine_of(v: Variable) -> RestrictedNetwork | GaussianRestrictedNetwork | None:
    """Return the restricted network that a variable is the visible layer of."""
    found = network_node(v)
    network = None if found is None else found[1]
    return network if isinstance(network, RestrictedNetwork | GaussianRestrictedNetwork) else None


def _couplings_to_hidden(network: RestrictedNetwork | GaussianRestrictedNetwork) -> Variable:
    """Return what the visible units are multiplied with in the fields of the hidden ones."""
    if isinstance(network, GaussianRestrictedNetwork):
        return network.couplings / pt.sqr(network.sigma)[..., None]
    return network.couplings


@_logprob.register(HiddenUnitsRV)
def _hidden_units_logprob(op, values, rng, size, v, W, b, **kwargs):
    (value,) = values
    fields = b + pt.matvec(W.mT, as_float(v, W))
    logp = (as_float(value, W) * fields - pt.softplus(fields)).sum(axis=-1)
    return pt.switch(on_support(value), logp, -np.inf)


@hidden_layer_of.register(HiddenUnitsRV)
def _hidden_units_layer(op, node):
    v, _, _ = op.dist_params(node)
    return None if _machine_of(v) is None else v


@network_of.register(HiddenUnitsRV)
def _hidden_units_network(op, node):
    """Return a network without couplings where ``pm.do`` has put data in the place of the visible units."""
    v, W, b = op.dist_params(node)
    if _machine_of(v) is not None:
        return None
    n_hidden = b.type.shape[-1]
    if n_hidden is None:
        if random_inputs([b]):
            return None
        n_hidden = int(evaluate([b.shape[-1]])[0])
    return PairwiseNetwork(
        couplings=csr_array((n_hidden, n_hidden), dtype=W.dtype),
        coupling=pt.constant(1.0, dtype=W.dtype),
        biases=b + pt.matvec(W.mT, as_float(v, W)),
        values=(0, 1),
        ndim=1,
        normalized=True,
    )
