"""Independent draws from networks; compiled, without PyTensor."""

import numpy as np

from step_methods.kernels.vectors.jit import cached_njit

__all__ = ["MAX_EXACT_UNITS", "draw_gaussian_visible", "draw_hidden", "draw_pairwise", "draw_visible"]

MAX_EXACT_UNITS = 12


@cached_njit()
def _sigmoid(x):
    if x >= 0:
        return 1 / (1 + np.exp(-x))
    small = np.exp(x)
    return small / (1 + small)


@cached_njit()
def _softplus(x):
    return max(x, 0.0) + np.log1p(np.exp(-abs(x)))


@cached_njit()
def _draw_units(rng, biases, couplings, sources, out):
    """Draw each unit with probability sigmoid(bias + the couplings times the sources)."""
    for i in range(biases.size):
        field = biases[i]
        for j in range(sources.size):
            if sources[j]:
                field += couplings[i, j] * sources[j]
        out[i] = 1 if rng.random() < _sigmoid(field) else 0


@cached_njit()
def _draw_layer_exactly(rng, couplings, own_biases, other_biases):
    """Draw a layer from its marginal, by enumeration; couplings (n_own, n_other)."""
    n_own, n_other = couplings.shape
    n_states = 1 << n_own
    fields = other_biases.astype(np.float64)
    log_weights = np.empty(n_states)
    own_weight = 0.0
    state = 0
    for step in range(n_states):
        if step:  # Gray code: one unit changes from state to state
            flipped = 0
            while not (step >> flipped) & 1:
                flipped += 1
            sign = -1.0 if (state >> flipped) & 1 else 1.0
            state ^= 1 << flipped
            own_weight += sign * own_biases[flipped]
            for j in range(n_other):
                fields[j] += sign * couplings[flipped, j]
        log_weights[state] = own_weight
        for j in range(n_other):
            log_weights[state] += _softplus(fields[j])
    cumulative = np.cumsum(np.exp(log_weights - log_weights.max()))
    picked = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    layer = np.empty(n_own, np.int64)
    for i in range(n_own):
        layer[i] = (picked >> i) & 1
    return layer


@cached_njit()
def draw_visible(rng, W, a, b, n_sweeps):
    """Draw the visible units of an RBM.

    Exact, by enumeration, if the smaller layer has at most 12 units. Otherwise approximate: the end of `n_sweeps`
    sweeps of block Gibbs sampling from a start where each visible unit is 0 or 1 with equal probability.

    Parameters
    ----------
    rng : numpy.random.Generator
    W : ndarray, shape (n_visible, n_hidden)
    a : ndarray, shape (n_visible,)
    b : ndarray, shape (n_hidden,)
    n_sweeps : int

    Returns
    -------
    ndarray of int64, shape (n_visible,)
    """
    n_visible, n_hidden = W.shape
    visible = np.empty(n_visible, np.int64)
    if n_visible <= min(n_hidden, MAX_EXACT_UNITS):
        return _draw_layer_exactly(rng, W, a, b)
    if n_hidden <= MAX_EXACT_UNITS:
        _draw_units(rng, a, W, _draw_layer_exactly(rng, W.T, b, a), visible)
        return visible
    hidden = np.empty(n_hidden, np.int64)
    to_hidden = np.ascontiguousarray(W.T)
    for i in range(n_visible):
        visible[i] = 1 if rng.random() < 0.5 else 0
    for _ in range(n_sweeps):
        _draw_units(rng, b, to_hidden, visible, hidden)
        _draw_units(rng, a, W, hidden, visible)
    return visible


@cached_njit()
def draw_hidden(rng, v, W, b):
    """Draw the hidden units of an RBM given its visible units, exactly.

    Parameters
    ----------
    rng : numpy.random.Generator
    v : ndarray, shape (n_visible,)
        Zeros and ones, or real numbers.
    W : ndarray, shape (n_visible, n_hidden)
        What is multiplied with them: the couplings, of Gaussian units over their variances.
    b : ndarray, shape (n_hidden,)

    Returns
    -------
    ndarray of int64, shape (n_hidden,)
    """
    hidden = np.empty(b.size, np.int64)
    _draw_units(rng, b, W.T, v, hidden)
    return hidden


@cached_njit()
def _pair_field(data, indices, indptr, state, i):
    field = 0.0
    for k in range(indptr[i], indptr[i + 1]):
        field += data[k] * state[indices[k]]
    return field


@cached_njit()
def _draw_pairwise_exactly(rng, data, indices, indptr, coupling, biases, low):
    n = biases.size
    n_states = 1 << n
    span = 1 - low
    state = np.full(n, low, np.int64)
    energy = 0.0  # relative to all units at the lower value
    log_weights = np.empty(n_states)
    gray = 0
    for step in range(n_states):
        if step:  # Gray code: one unit changes from state to state
            flipped = 0
            while not (step >> flipped) & 1:
                flipped += 1
            gray ^= 1 << flipped
            rise = span if state[flipped] == low else -span
            energy -= rise * (biases[flipped] + coupling * _pair_field(data, indices, indptr, state, flipped))
            state[flipped] += rise
        log_weights[gray] = -energy
    cumulative = np.cumsum(np.exp(log_weights - log_weights.max()))
    picked = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    for i in range(n):
        state[i] = low + span * ((picked >> i) & 1)
    return state


@cached_njit()
def draw_pairwise(rng, data, indices, indptr, coupling, biases, low, n_sweeps):
    """Draw units that are coupled in pairs.

    Exact, by enumeration, if there are at most 12 units. Otherwise approximate: the end of `n_sweeps` sweeps of Gibbs
    sampling, unit after unit, from a start where each unit has either value with equal probability.

    Parameters
    ----------
    rng : numpy.random.Generator
    data, indices, indptr : ndarray
        The couplings J in compressed rows.
    coupling : float
        Multiplies them.
    biases : ndarray, shape (n,)
    low : int
        The lower value of a unit, 0 or −1; the upper one is 1.
    n_sweeps : int

    Returns
    -------
    ndarray of int64, shape (n,)
    """
    n = biases.size
    if n <= MAX_EXACT_UNITS:
        return _draw_pairwise_exactly(rng, data, indices, indptr, coupling, biases, low)
    state = np.empty(n, np.int64)
    for i in range(n):
        state[i] = 1 if rng.random() < 0.5 else low
    for _ in range(n_sweeps):
        for i in range(n):
            field = biases[i] + coupling * _pair_field(data, indices, indptr, state, i)
            state[i] = 1 if rng.random() < _sigmoid((1 - low) * field) else low
    return state


@cached_njit()
def draw_gaussian_visible(rng, W, a, b, sigma, n_sweeps):
    """Draw the visible units of an RBM with Gaussian visible units.

    Exact if there are at most 12 hidden units: these are drawn from their marginal, in which the visible units couple
    them in pairs, by enumeration. Otherwise approximate: the end of `n_sweeps` sweeps of block Gibbs sampling from
    a start where each hidden unit is 0 or 1 with equal probability.

    Parameters
    ----------
    rng : numpy.random.Generator
    W : ndarray, shape (n_visible, n_hidden)
    a, sigma : ndarray, shape (n_visible,)
    b : ndarray, shape (n_hidden,)
    n_sweeps : int

    Returns
    -------
    ndarray, shape (n_visible,), of the type of `a`
    """
    n_hidden = b.size
    visible = np.empty_like(a)
    over_variance = np.ascontiguousarray(W.T) / (sigma * sigma)
    if n_hidden <= MAX_EXACT_UNITS:
        couplings = over_variance @ np.ascontiguousarray(W)
        biases = b + over_variance @ a + np.diag(couplings) / 2
        np.fill_diagonal(couplings, 0)
        columns = np.arange(n_hidden * n_hidden) % max(n_hidden, 1)
        rows = np.arange(n_hidden + 1) * n_hidden
        hidden = _draw_pairwise_exactly(rng, couplings.ravel(), columns, rows, 1.0, biases, 0)
        _draw_gaussian_units(rng, W, a, sigma, hidden, visible)
        return visible
    hidden = np.empty(n_hidden, np.int64)
    for j in range(n_hidden):
        hidden[j] = 1 if rng.random() < 0.5 else 0
    _draw_gaussian_units(rng, W, a, sigma, hidden, visible)
    for _ in range(n_sweeps):
        _draw_units(rng, b, over_variance, visible, hidden)
        _draw_gaussian_units(rng, W, a, sigma, hidden, visible)
    return visible


@cached_njit()
def _draw_gaussian_units(rng, W, a, sigma, hidden, out):
    for i in range(a.size):
        mean = a[i]
        for j in range(hidden.size):
            if hidden[j]:
                mean += W[i, j]
        out[i] = mean + sigma[i] * rng.standard_normal()
