"""The gradient of the log-likelihood of an RBM, centered or not, estimated on one minibatch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from pm_neural.fitting.backend import Array
from pm_neural.fitting.checks import check_number
from pm_neural.training.restricted.layers import BernoulliLayers, GaussianLayers, Layers
from pm_neural.training.restricted.negative_phase import NegativePhase

_RUNNING_MEAN_RATE = 0.01  # as in Melchior et al. (2016)
_N_OFFSET_ROWS = 2


class _Rows(NamedTuple):
    """Views of the work space for one size of minibatch."""

    visible: Array
    hidden: Array
    visible_states: Array
    hidden_states: Array
    sign: Array
    v_data: Array
    h_data: Array
    v_model: Array
    h_model: Array
    data_mean: Array


class LikelihoodGradient[L: Layers](ABC):
    r"""Ascent direction of the penalized log-likelihood, written into arrays that are used again.

    With offsets :math:`\mu` and :math:`\lambda` near the means of the units, the centred gradient
    [1]_, written as an update of the ordinary RBM [2]_, is

    .. math::

        \nabla W &= \langle (v - \mu)(h - \lambda)^\top \rangle_d
                  - \langle (v - \mu)(h - \lambda)^\top \rangle_m \\
        \nabla a &= \langle v \rangle_d - \langle v \rangle_m - \nabla W \lambda \\
        \nabla b &= \langle h \rangle_d - \langle h \rangle_m - \nabla W^\top \mu

    (d the data, m the model), and with both offsets at zero it is the ordinary gradient. This is so for binary
    visible units; see `GaussianGradient` for the others.

    Parameters
    ----------
    layers : Layers
    negative_phase : NegativePhase
    batch_size : int
        The largest minibatch.
    visible_mean : ndarray, (n_visible,)
        Mean of the data.
    centered : bool
        Whether the offsets are this mean and the running mean of the hidden units given the data,
        or zero.
    weight_decay : float
        Coefficient of the penalty ``weight_decay / 2 * sum(W**2)``.
    sparsity_target : float or None
        Wanted mean activity of every hidden unit.
    sparsity_cost : float
        Strength of the pull towards it, which acts on the hidden biases only [3]_.

    References
    ----------
    .. [1] Montavon, Müller (2012). Deep Boltzmann machines and the centering trick. In Neural
       Networks: Tricks of the Trade.
    .. [2] Melchior, Fischer, Wiskott (2016). How to center deep Boltzmann machines. JMLR 17(99).
    .. [3] Lee, Ekanadham, Ng (2008). Sparse deep belief net model for visual area V2. NIPS.
    """

    def __init__(
        self,
        layers: L,
        negative_phase: NegativePhase,
        *,
        batch_size: int,
        visible_mean: np.ndarray,
        centered: bool,
        weight_decay: float,
        sparsity_target: float | None,
        sparsity_cost: float,
    ) -> None:
        backend = layers.backend
        n_visible, n_hidden = layers.n_visible, layers.n_hidden
        self._layers = layers
        self._negative_phase = negative_phase
        self._centered = bool(centered)
        self._weight_decay = check_number(weight_decay, "weight_decay", minimum=0)
        self._sparsity_cost = check_number(sparsity_cost, "sparsity_cost", minimum=0)
        self._sparsity_target = sparsity_target
        if sparsity_target is not None:
            self._sparsity_target = check_number(sparsity_target, "sparsity_target", minimum=0, below=1, exclusive=True)
        self.settings = {
            **negative_phase.settings,
            "centered": self._centered,
            "weight_decay": self._weight_decay,
            "sparsity_target": self._sparsity_target,
            "sparsity_cost": self._sparsity_cost,
        }

        self._visible_mean = backend.array(visible_mean)
        self._hidden_mean = backend.empty(n_hidden)
        # One row for each model state and each image, below two rows for the offsets: a single
        # matrix product then gives the statistics of the data less those of the model, centred.
        n_rows = _N_OFFSET_ROWS + negative_phase.n_model(batch_size) + batch_size
        self._visible = backend.array(np.zeros((n_rows, n_visible)))
        self._hidden = backend.array(np.zeros((n_rows, n_hidden)))
        self._rows: dict[int, _Rows] = {}
        self._gradient: tuple[Array, ...] = (
            backend.empty(n_visible, n_hidden),
            backend.empty(n_visible),
            backend.empty(n_hidden),
        )

    def start_from(self, data: Array) -> None:
        """Start the running mean of the hidden units at their present mean, given the data."""
        some = data[:: max(1, len(data) // 1000)]
        h_mean = self._layers.backend.empty(len(some), self._layers.n_hidden)
        self._layers.hidden_mean(some, out=h_mean)
        self._hidden_mean[...] = h_mean.mean(0)

    def __call__(self, data: Array) -> tuple[Array, ...]:
        """Estimate the ascent direction of the parameters on one minibatch.

        Parameters
        ----------
        data : array of the backend, (n_images, n_visible)

        Returns
        -------
        tuple of arrays, (n_visible, n_hidden), (n_visible,), (n_hidden,), ...
            Of W, a, b and what else there is. Valid until the next call.
        """
        rows = self._rows_for(len(data))
        matmul = self._layers.backend.matmul
        grad_W, grad_a, grad_b = self._gradient[:3]

        rows.v_data[...] = data
        self._negative_phase.fill(rows.v_data, rows.h_data, rows.v_model, rows.h_model)
        self._follow_activity(rows)

        matmul(rows.visible_states.T, rows.sign, out=grad_a)
        matmul(rows.hidden_states.T, rows.sign, out=grad_b)
        signed = rows.hidden_states
        signed *= rows.sign[:, None]
        if self._centered:
            # sum_n s_n (v_n - mu)(h_n - lambda)' with sum_n s_n = 0
            #     = sum_n s_n v_n h_n' - mu grad_b' - grad_a lambda'
            rows.visible[0], rows.hidden[0] = self._visible_mean, -grad_b
            rows.visible[1], rows.hidden[1] = grad_a, -self._hidden_mean
        matmul(rows.visible.T, rows.hidden, out=grad_W)

        self._visit(rows)
        if self._weight_decay:
            grad_W -= self._weight_decay * self._layers.W
        if self._sparsity_target is not None:
            grad_b += self._sparsity_cost * (self._sparsity_target - self._hidden_mean)
        if self._centered:
            grad_a -= grad_W @ self._hidden_mean
            grad_b -= self._visible_field_of(grad_W)
        return self._gradient

    @abstractmethod
    def _visit(self, rows: _Rows) -> None:
        """Do what a kind of visible units needs, between the statistics and the penalties."""

    @abstractmethod
    def _visible_field_of(self, W: Array) -> Array:
        """Return what `W` adds to the hidden fields where the visible units are at their offsets."""

    def _follow_activity(self, rows: _Rows) -> None:
        self._hidden_mean *= 1 - _RUNNING_MEAN_RATE
        self._hidden_mean += rows.h_data.T @ rows.data_mean

    def _rows_for(self, n_data: int) -> _Rows:
        if n_data not in self._rows:
            self._rows[n_data] = self._view_rows(n_data)
        return self._rows[n_data]

    def _view_rows(self, n_data: int) -> _Rows:
        backend = self._layers.backend
        n_model = self._negative_phase.n_model(n_data)
        end = _N_OFFSET_ROWS + n_model + n_data
        model = slice(_N_OFFSET_ROWS, _N_OFFSET_ROWS + n_model)
        data = slice(_N_OFFSET_ROWS + n_model, end)
        states = slice(_N_OFFSET_ROWS, end)
        sign = np.repeat([-1 / n_model, 1 / n_data], [n_model, n_data])
        return _Rows(
            visible=self._visible[:end],
            hidden=self._hidden[:end],
            visible_states=self._visible[states],
            hidden_states=self._hidden[states],
            sign=backend.array(sign),
            v_data=self._visible[data],
            h_data=self._hidden[data],
            v_model=self._visible[model],
            h_model=self._hidden[model],
            data_mean=backend.array(np.full(n_data, _RUNNING_MEAN_RATE / n_data)),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the running mean and the chains, by reference."""
        return {
            "hidden_mean": self._layers.backend.tensor(self._hidden_mean),
            "negative_phase": self._negative_phase.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds: the same, with NumPy arrays."""
        self._hidden_mean[...] = self._layers.backend.array(state["hidden_mean"])
        self._negative_phase.load_state_dict(state["negative_phase"])


class BernoulliGradient(LikelihoodGradient[BernoulliLayers]):
    """The gradient for binary visible units."""

    def _visit(self, rows: _Rows) -> None:
        pass

    def _visible_field_of(self, W: Array) -> Array:
        return self._visible_mean @ W


class GaussianGradient(LikelihoodGradient[GaussianLayers]):
    r"""The gradient for Gaussian visible units.

    The directions of W and a are the gradient times σ²: what is written for binary units, for Gaussian ones then
    holds in the units of measurement of v, whatever they are. That of log σ, if it is learnt, is the gradient

    .. math::

        \left\langle \frac{(v_i - a_i)^2}{\sigma_i^2} - 2 \frac{v_i (W h)_i}{\sigma_i^2} \right\rangle_d
        - \left\langle \cdots \right\rangle_m,

    the other parameters held fixed, centered or not. The hidden means stand in for h.
    """

    def __init__(self, layers: GaussianLayers, negative_phase: NegativePhase, *, learn_sigma: bool, **options: Any):
        super().__init__(layers, negative_phase, **options)
        self.settings["learn_sigma"] = learn_sigma
        if learn_sigma:
            self._gradient += (layers.backend.empty(layers.n_visible),)

    def _visit(self, rows: _Rows) -> None:
        if len(self._gradient) == 3:
            return
        layers = self._layers
        W, a = layers.W, layers.a
        grad_W, grad_a, grad_b, grad_log_sigma = self._gradient
        # sum_n s_n v_n (W h_n), from the products of v and h that grad_W holds
        correlation = (W * grad_W).sum(1)
        if self._centered:
            correlation += self._visible_mean * (W @ grad_b) + grad_a * (W @ self._hidden_mean)
        grad_log_sigma[...] = (rows.visible_states**2).T @ rows.sign
        grad_log_sigma -= 2 * (a * grad_a + correlation)
        grad_log_sigma *= layers.precision

    def _visible_field_of(self, W: Array) -> Array:
        return (self._visible_mean * self._layers.precision) @ W


def clip_norm(gradient: tuple[Array, ...], max_norm: float | None) -> tuple[Array, ...]:
    """Shorten a gradient, in place, whose norm over all parameters is more than `max_norm`; None is no limit."""
    if max_norm is not None:
        norm = float(sum((g * g).sum() for g in gradient)) ** 0.5
        if norm > max_norm:
            for g in gradient:
                g *= max_norm / norm
    return gradient
