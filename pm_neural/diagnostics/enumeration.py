"""Exact answers for small networks, by enumerating the states of one layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pm_neural.diagnostics._activations import sigmoid, softplus
from pm_neural.diagnostics._parameters import (
    GaussianParameters,
    Parameters,
    ParametersLike,
    as_binary_rows,
    as_parameters,
)
from step_methods.kernels.vectors.jit import cached_njit

__all__ = ["ExactMarginals", "enumerate_states", "exact_log_partition", "exact_marginals"]

MAX_UNITS_LOG_PARTITION = 24
MAX_UNITS_MARGINALS = 20

# A block of 2^8 states keeps its tables of a hundred units inside the L2 cache.
_LOW_BITS = 8
# Rows of the outer table that are built at a time, which bounds the memory.
_HIGH_BLOCK = 1 << 10
_STATE_BLOCK = 1 << 13
# exp(700) is close to the largest float64.
_MAX_EXPONENT = 700.0


def enumerate_states(n: int, values: tuple[int, int] = (0, 1)) -> np.ndarray:
    """List all joint states of `n` two-valued units.

    Parameters
    ----------
    n : int
        Number of units, 1 to 20.
    values : tuple of two int
        The lower and the upper value of a unit: ``(0, 1)`` for bits, ``(-1, 1)`` for spins.

    Returns
    -------
    ndarray of int64, shape (2**n, n)
        The states in the order of ``itertools.product(values, repeat=n)``: the low value comes
        first and the last unit changes fastest.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is out of range or `values` is not an increasing pair.

    Examples
    --------
    >>> enumerate_states(2)
    array([[0, 0],
           [0, 1],
           [1, 0],
           [1, 1]])
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise TypeError(f"n must be an integer, got {n!r}")
    if not 1 <= n <= MAX_UNITS_MARGINALS:
        raise ValueError(f"n must be between 1 and {MAX_UNITS_MARGINALS}, got {n}: the table of states has 2**n rows")
    if len(values) != 2 or not values[0] < values[1]:
        raise ValueError(f"values must be the lower and the upper value of a unit, got {values!r}")
    return np.asarray(values, dtype=np.int64)[_bits(np.arange(1 << n), n)]


def _bits(numbers: np.ndarray, n: int) -> np.ndarray:
    """Write numbers in binary with `n` digits, one number per row, the highest digit first."""
    return (numbers[:, None] >> np.arange(n - 1, -1, -1)) & 1


# ------------------------------------------------------------------------------- log partition


def exact_log_partition(params: ParametersLike) -> float:
    """Compute log Z by enumerating the smaller layer (at most 24 units); see `log_partition`."""
    W, c, d = _smaller_layer_first(as_parameters(params))
    n_small = len(c)
    _check_size(n_small, MAX_UNITS_LOG_PARTITION, "log_partition(params, method='ais')")

    # Units of the larger layer whose fields could overflow are set apart, the others are put into
    # groups whose product cannot: see _log_sum_states.
    exponent = (np.abs(d) + np.abs(W).sum(axis=0)) / 2 + np.log(2)
    order = np.argsort(exponent, kind="stable")
    W, d, exponent = W[:, order], d[order], exponent[order]
    n_narrow = int(np.searchsorted(exponent, _MAX_EXPONENT, side="right"))
    group_ends = _group_ends(exponent[:n_narrow])

    # Σ softplus(f) = Σ f/2 + Σ log 2cosh(f/2); the first sum is linear in the state.
    linear = c + W.sum(axis=1) / 2
    n_low = min(n_small, _LOW_BITS)
    n_high = n_small - n_low
    low = _bits(np.arange(1 << n_low), n_low)
    low_field = np.ascontiguousarray((low @ W[n_high:]).T)
    low_linear = low @ linear[n_high:]

    log_sums = np.empty(1 << n_high)
    for start in range(0, len(log_sums), _HIGH_BLOCK):
        stop = min(start + _HIGH_BLOCK, len(log_sums))
        high = _bits(np.arange(start, stop), n_high)
        _log_sum_states(
            high @ linear[:n_high],
            d + high @ W[:n_high],
            low_linear,
            low_field,
            n_narrow,
            group_ends,
            log_sums[start:stop],
        )
    return float(np.logaddexp.reduce(log_sums) + d.sum() / 2)


def _smaller_layer_first(params: Parameters) -> Parameters:
    return params if params.W.shape[0] <= params.W.shape[1] else params.transposed()


def _check_size(n_units: int, limit: int, way_out: str, layer: str = "smaller") -> None:
    if n_units > limit:
        raise ValueError(
            f"params: the {layer} layer has {n_units} units, but at most {limit} can be "
            f"enumerated; use {way_out} instead"
        )


def _group_ends(exponent: np.ndarray) -> np.ndarray:
    """Cut units into runs whose exponents sum to at most `_MAX_EXPONENT`; return where they end."""
    ends = []
    total = 0.0
    for unit, value in enumerate(exponent):
        if total + value > _MAX_EXPONENT:
            ends.append(unit)
            total = 0.0
        total += value
    return np.array([*ends, len(exponent)], dtype=np.int64)


@cached_njit()
def _log_sum_states(
    high_linear: np.ndarray,
    high_field: np.ndarray,
    low_linear: np.ndarray,
    low_field: np.ndarray,
    n_narrow: int,
    group_ends: np.ndarray,
    out: np.ndarray,
) -> None:
    """Sum the weights of all states that share the same high bits, in logs.

    The field of a unit splits into a part of the high bits and one of the low bits, so that
    2cosh(f/2) = e^(f_high/2) e^(f_low/2) + e^(-f_high/2) e^(-f_low/2) needs no exponential per
    state, and one logarithm serves a whole group of units.
    """
    n_states = low_linear.size
    low_exp = np.exp(low_field[:n_narrow] / 2)
    low_exp_minus = 1 / low_exp
    log_weight = np.empty(n_states)
    product = np.empty(n_states)
    for i in range(high_linear.size):
        for s in range(n_states):
            log_weight[s] = high_linear[i] + low_linear[s]
        start = 0
        for end in group_ends:
            product[:] = 1.0
            for j in range(start, end):
                up = np.exp(high_field[i, j] / 2)
                down = 1 / up
                for s in range(n_states):
                    product[s] *= up * low_exp[j, s] + down * low_exp_minus[j, s]
            for s in range(n_states):
                log_weight[s] += np.log(product[s])
            start = end
        for j in range(n_narrow, high_field.shape[1]):
            for s in range(n_states):
                half = abs(high_field[i, j] + low_field[j, s]) / 2
                log_weight[s] += half + np.log1p(np.exp(-2 * half))
        largest = log_weight.max()
        total = 0.0
        for s in range(n_states):
            total += np.exp(log_weight[s] - largest)
        out[i] = largest + np.log(total)


# ----------------------------------------------------------------------------------- marginals


@dataclass(frozen=True, eq=False)
class ExactMarginals:
    """Exact first and second moments of an RBM.

    Since the units are 0 or 1, E[v_i v_k] is the probability that both are 1, and the diagonal of
    a layer's own second moments repeats its means.

    Attributes
    ----------
    visible : ndarray, shape (n_visible,)
        p(v_i = 1).
    hidden : ndarray, shape (n_hidden,)
        p(h_j = 1).
    visible_pairs : ndarray, shape (n_visible, n_visible)
        E[v_i v_k].
    hidden_pairs : ndarray, shape (n_hidden, n_hidden)
        E[h_j h_k].
    visible_hidden_pairs : ndarray, shape (n_visible, n_hidden)
        E[v_i h_j].
    log_partition : float
        log Z; with clamped units, the log of the sum over the states that agree with them.
    """

    visible: np.ndarray
    hidden: np.ndarray
    visible_pairs: np.ndarray
    hidden_pairs: np.ndarray
    visible_hidden_pairs: np.ndarray
    log_partition: float


def exact_marginals(params: ParametersLike, observed: ArrayLike | None = None) -> ExactMarginals:
    """Compute exact means and pair moments by enumerating the smaller layer.

    Parameters
    ----------
    params : tuple (W, a, b) or object with ``parameters_as_numpy()``
        An RBM with at most 20 units in the smaller of its layers; clamped units do not count.
    observed : masked array, shape (n_visible,), optional
        Clamped visible units, as `BernoulliRBM` takes them: where the mask is False, the unit is
        held at its value; the masked units are free. Then all moments are those of
        p(v, h | clamped units).

    Returns
    -------
    ExactMarginals

    Raises
    ------
    TypeError
        If `params` is not what is described above.
    ValueError
        If the smaller layer is too large, the shapes do not fit, `observed` is not binary, or
        it leaves no visible unit free.
    """
    params = as_parameters(params)
    if observed is None:
        return _marginals(params)
    value, free = _read_clamp(observed, len(params.a))
    W, a, b = params
    held = value[~free]
    conditional = _marginals(Parameters(W[free], a[free], b + held @ W[~free]))
    return _with_clamped_units(conditional, value, free, held @ a[~free])


def _read_clamp(observed: ArrayLike, n_visible: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the visible state, zero where it is free, and which units are free."""
    free = np.ma.getmaskarray(np.ma.asarray(observed))
    if free.shape != (n_visible,):
        raise ValueError(f"observed must have the shape ({n_visible},), got {free.shape}")
    if not free.any():
        raise ValueError("observed must leave at least one unit masked, got no masked unit")
    value = np.ma.filled(np.ma.asarray(observed), 0)
    return as_binary_rows(value[None, :], n_visible, name="observed")[0], free


def _marginals(params: Parameters) -> ExactMarginals:
    enumerated = _smaller_layer_first(params)
    _check_size(len(enumerated.a), MAX_UNITS_MARGINALS, "many samples of the model")
    log_partition = exact_log_partition(params)

    small, large = len(enumerated.a), len(enumerated.b)
    small_pairs = np.zeros((small, small))
    large_pairs = np.zeros((large, large))
    cross_pairs = np.zeros((small, large))
    large_mean = np.zeros(large)
    for states, log_weight, mean in _state_blocks(enumerated):
        probability = np.exp(log_weight - log_partition)[:, None]
        small_pairs += states.T @ (probability * states)
        cross_pairs += (probability * states).T @ mean
        large_pairs += mean.T @ (probability * mean)
        large_mean += (probability * mean).sum(axis=0)
    # Given the enumerated layer, the units of the other are independent of each other, but not of
    # themselves: E[x²] = E[x].
    np.fill_diagonal(large_pairs, large_mean)

    of_small = np.diag(small_pairs).copy(), small_pairs
    of_large = large_mean, large_pairs
    visible_is_small = enumerated is params
    (visible, visible_pairs), (hidden, hidden_pairs) = (
        (of_small, of_large) if visible_is_small else (of_large, of_small)
    )
    return ExactMarginals(
        visible=visible,
        hidden=hidden,
        visible_pairs=visible_pairs,
        hidden_pairs=hidden_pairs,
        visible_hidden_pairs=cross_pairs if visible_is_small else cross_pairs.T,
        log_partition=log_partition,
    )


def _state_blocks(params: Parameters) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield blocks of all states of the first layer, their log p* and the second layer's means."""
    W, c, d = params
    n_states = 1 << len(c)
    for start in range(0, n_states, _STATE_BLOCK):
        numbers = np.arange(start, min(start + _STATE_BLOCK, n_states))
        states = _bits(numbers, len(c)).astype(np.float64)
        field = d + states @ W
        yield states, states @ c + softplus(field).sum(axis=1), sigmoid(field)


def exact_gaussian_log_partition(params: GaussianParameters) -> float:
    """Compute log Z of a Gaussian RBM by enumerating its hidden layer, at most 20 units.

    Given h, the integral over v is that of a Gaussian: Z = Π_i √(2π) σ_i · Σ_h exp(w(h)), where
    w(h) = b·h + Σ_i (a_i (Wh)_i + (Wh)²_i/2)/σ²_i, of which v has the mean a + Wh.
    """
    _check_size(len(params.b), MAX_UNITS_MARGINALS, "log_partition(params, method='ais')", layer="hidden")
    log_weights = np.concatenate([block[1] for block in _hidden_blocks(params)])
    return float(log_normal_volume(params.sigma) + np.logaddexp.reduce(log_weights))


def log_normal_volume(sd: np.ndarray) -> float:
    """Log of the integral of exp(−Σ_i x_i²/2sd_i²)."""
    return float(np.log(np.sqrt(2 * np.pi) * sd).sum())


def _hidden_blocks(params: GaussianParameters) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield blocks of all hidden states of a Gaussian RBM, and the logs of their weights w."""
    W, a, b, sigma = params
    scaled = W / sigma[:, None]
    coupling = scaled.T @ scaled
    bias = b + (a / sigma) @ scaled
    for start in range(0, 1 << len(b), _STATE_BLOCK):
        states = _bits(np.arange(start, min(start + _STATE_BLOCK, 1 << len(b))), len(b)).astype(np.float64)
        yield states, states @ bias + ((states @ coupling) * states).sum(axis=1) / 2


def exact_gaussian_draws(params: GaussianParameters, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw visible states of a Gaussian RBM from the table of its hidden states, at most 20 units."""
    blocks = list(_hidden_blocks(params))
    picks = _draw_rows(np.concatenate([block[1] for block in blocks]), n_draws, rng)
    mean = params.a + _bits(picks, len(params.b)) @ params.W.T
    return mean + params.sigma * rng.normal(size=mean.shape)


def _draw_rows(log_weight: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    cumulative = np.cumsum(np.exp(log_weight - log_weight.max()))
    cumulative /= cumulative[-1]
    return np.searchsorted(cumulative, rng.random(n_draws), side="right")


def exact_draws(params: Parameters, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw visible states from the model itself, shape (n_draws, n_visible).

    The smaller layer, at most 20 units, is drawn from the table of all its states.
    """
    enumerated = _smaller_layer_first(params)
    n_small = len(enumerated.a)
    picks = _draw_rows(np.concatenate([block[1] for block in _state_blocks(enumerated)]), n_draws, rng)
    drawn = _bits(picks, n_small).astype(np.float64)
    if enumerated is params:
        return drawn
    probability = sigmoid(enumerated.b + drawn @ enumerated.W)
    return (rng.random(probability.shape) < probability).astype(np.float64)


def _with_clamped_units(
    conditional: ExactMarginals, value: np.ndarray, free: np.ndarray, clamped_log_weight: float
) -> ExactMarginals:
    """Put the clamped units, which are constants, back among the free ones."""
    visible = value.copy()
    visible[free] = conditional.visible
    visible_pairs = np.outer(visible, visible)
    visible_pairs[np.ix_(free, free)] = conditional.visible_pairs
    visible_hidden_pairs = np.outer(visible, conditional.hidden)
    visible_hidden_pairs[free] = conditional.visible_hidden_pairs
    return ExactMarginals(
        visible=visible,
        hidden=conditional.hidden,
        visible_pairs=visible_pairs,
        hidden_pairs=conditional.hidden_pairs,
        visible_hidden_pairs=visible_hidden_pairs,
        log_partition=conditional.log_partition + float(clamped_log_weight),
    )
