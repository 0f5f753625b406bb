"""Sums over all states of a layer of a restricted network: log Z and its gradient."""

import numpy as np

from step_methods.kernels.vectors.jit import cached_njit

# The states of the low units are tabled once; 2**8 rows of a hundred fields fit in the L2 cache.
_LOW_UNITS = 8
# A product of this many factors between 1 and 2 cannot overflow.
_FACTORS = 512


@cached_njit()
def log_partition_gradient(W, a, b):
    """Log partition function of an RBM and its gradient, which is a set of means.

    log Z = log Σ_h exp(b·h + Σ_i softplus(a_i + (Wh)_i)), or the same with the layers exchanged: the smaller one is
    enumerated. ∂log Z/∂W = E[v hᵀ], ∂log Z/∂a = E[v], ∂log Z/∂b = E[h].

    Parameters
    ----------
    W : ndarray of float64, shape (n_visible, n_hidden)
    a : ndarray of float64, shape (n_visible,)
    b : ndarray of float64, shape (n_hidden,)

    Returns
    -------
    log_z : float
    pair_means : ndarray, shape (n_visible, n_hidden)
        E[v_i h_j].
    visible_means : ndarray, shape (n_visible,)
        E[v_i].
    hidden_means : ndarray, shape (n_hidden,)
        E[h_j].
    """
    if W.shape[0] < W.shape[1]:
        log_z, pairs, small, large = _enumerate_columns(np.ascontiguousarray(W.T), b, a)
        return log_z, np.ascontiguousarray(pairs.T), small, large
    log_z, pairs, small, large = _enumerate_columns(np.ascontiguousarray(W), a, b)
    return log_z, pairs, large, small


@cached_njit()
def _enumerate_columns(W, large_biases, small_biases):
    n_large, n_small = W.shape
    n_low = min(n_small, _LOW_UNITS)
    n_states = 1 << n_low
    low_states = np.zeros((n_states, n_low))
    for s in range(n_states):
        for j in range(n_low):
            low_states[s, j] = (s >> j) & 1
    low_fields = low_states @ np.ascontiguousarray(W[:, :n_low].T)
    low_weights = low_states @ small_biases[:n_low]

    means = np.empty((n_states, n_large))  # E[large unit | state of the small layer]
    weights = np.empty(n_states)
    high_field = np.empty(n_large)
    pairs = np.zeros((n_large, n_small))
    small = np.zeros(n_small)
    large = np.zeros(n_large)
    total, largest = 0.0, -np.inf  # Z is total * exp(largest)
    for high in range(1 << (n_small - n_low)):
        high_field[:] = large_biases
        high_weight = 0.0
        for j in range(n_low, n_small):
            if (high >> (j - n_low)) & 1:
                high_field += W[:, j]
                high_weight += small_biases[j]
        for s in range(n_states):
            weights[s] = high_weight + low_weights[s] + _softplus_sum(high_field, low_fields[s], means[s])

        block_largest = weights.max()
        if block_largest > largest:
            shrink = np.exp(largest - block_largest)
            total *= shrink
            pairs *= shrink
            small *= shrink
            large *= shrink
            largest = block_largest
        for s in range(n_states):
            weights[s] = np.exp(weights[s] - largest)
            means[s] *= weights[s]

        block_total = weights.sum()
        block_large = np.zeros(n_large)
        for s in range(n_states):
            block_large += means[s]
        total += block_total
        large += block_large
        small[:n_low] += weights @ low_states
        pairs[:, :n_low] += means.T @ low_states
        for j in range(n_low, n_small):
            if (high >> (j - n_low)) & 1:
                small[j] += block_total
                pairs[:, j] += block_large
    return largest + np.log(total), pairs / total, small / total, large / total


@cached_njit()
def _softplus_sum(high_field, low_field, mean):
    """Sum of softplus(field) over units; writes sigmoid(field), which needs the same exponential."""
    result = 0.0
    product = 1.0
    for i in range(high_field.size):
        field = high_field[i] + low_field[i]
        small = np.exp(-abs(field))
        if field > 0:
            result += field
            mean[i] = 1 / (1 + small)
        else:
            mean[i] = small / (1 + small)
        product *= 1 + small
        if i % _FACTORS == _FACTORS - 1:
            result += np.log(product)
            product = 1.0
    return result + np.log(product)


@cached_njit()
def quadratic_log_partition(G, c):
    """Log of the sum of exp(c·h + ½ hᵀGh) over all h in {0, 1}ⁿ, and its gradient, which is a set of means.

    The gradient in c is E[h], that in G is ½ E[h hᵀ].

    Parameters
    ----------
    G : ndarray of float64, shape (n, n)
        Symmetric; its diagonal counts, too.
    c : ndarray of float64, shape (n,)

    Returns
    -------
    log_z : float
    pair_means : ndarray, shape (n, n)
        E[h_i h_j].
    means : ndarray, shape (n,)
        E[h_i].
    """
    n = c.size
    n_low = min(n, _LOW_UNITS)
    n_states = 1 << n_low
    low_states = np.zeros((n_states, n_low))
    for s in range(n_states):
        for j in range(n_low):
            low_states[s, j] = (s >> j) & 1
    low_weights = low_states @ c[:n_low]
    low_to_low = np.ascontiguousarray(G[:n_low, :n_low])
    for s in range(n_states):
        low_weights[s] += low_states[s] @ (low_to_low @ low_states[s]) / 2

    weights = np.empty(n_states)
    low_field = np.empty(n_low)
    high_state = np.zeros(n)
    low_totals = np.zeros(n_states)
    high_pairs = np.zeros((n, n))  # with a high unit in the row
    largest = -np.inf  # all sums are in units of exp(largest)
    for high in range(1 << (n - n_low)):
        high_weight = 0.0
        low_field[:] = 0.0
        for j in range(n_low, n):
            high_state[j] = (high >> (j - n_low)) & 1
            if high_state[j]:
                high_weight += c[j] + G[j, j] / 2
                for k in range(n_low, j):
                    high_weight += G[j, k] * high_state[k]
                for k in range(n_low):
                    low_field[k] += G[j, k]
        weights[:] = low_weights + high_weight
        if high:
            weights += low_states @ low_field

        block_largest = weights.max()
        if block_largest > largest:
            shrink = np.exp(largest - block_largest)
            low_totals *= shrink
            high_pairs *= shrink
            largest = block_largest
        for s in range(n_states):
            weights[s] = np.exp(weights[s] - largest)
        low_totals += weights
        if high:
            block_total = weights.sum()
            block_low = weights @ low_states
            for j in range(n_low, n):
                if high_state[j]:
                    high_pairs[j, :n_low] += block_low
                    high_pairs[j, n_low:] += block_total * high_state[n_low:]

    total = low_totals.sum()
    pairs = high_pairs / total
    for j in range(n_low, n):
        pairs[:n_low, j] = pairs[j, :n_low]
    for s in range(n_states):
        for j in range(n_low):
            if low_states[s, j]:
                pairs[j, :n_low] += low_states[s] * (low_totals[s] / total)
    return largest + np.log(total), pairs, np.diag(pairs).copy()


def gaussian_log_partition(W, a, b, sigma):
    """Log partition function of an RBM with Gaussian visible units, the hidden units enumerated.

    The integral over the visible units leaves the hidden ones coupled in pairs,

        Z = ∏ √(2π) σ_i · Σ_h exp(c·h + ½ hᵀGh),  c = b + Wᵀ(a / σ²),  G = Wᵀ diag(1 / σ²) W.

    Parameters
    ----------
    W : ndarray of float64, shape (n_visible, n_hidden)
    a, sigma : ndarray of float64, shape (n_visible,)
    b : ndarray of float64, shape (n_hidden,)

    Returns
    -------
    float
    """
    over_variance = W.T / sigma**2
    log_sum, _, _ = quadratic_log_partition(over_variance @ W, b + over_variance @ a)
    return float(log_sum + np.log(sigma).sum() + a.size / 2 * np.log(2 * np.pi))
