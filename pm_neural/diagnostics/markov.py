"""Finite Markov chains from their transition matrices: what they converge to, and how fast.

The convention is T[i, j] = P(j | i): rows sum to one, and a stationary distribution is a row vector with pT = p.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.sparse.linalg import ArpackError, eigs

__all__ = [
    "as_distribution",
    "as_transition_matrix",
    "closed_classes",
    "detailed_balance_gap",
    "is_aperiodic",
    "is_irreducible",
    "relaxation_time",
    "spectral_gap",
    "stationary_distribution",
    "total_variation",
]

# How far the sum of a row may be from 1, or a probability below 0.
_ROUNDING = 1e-6
# Above this size two eigenvalues are found by iteration instead of all of them.
_DENSE_EIGENVALUES = 512


def as_transition_matrix(T: ArrayLike) -> np.ndarray:
    """Check a transition matrix and return it in float64.

    Raises
    ------
    TypeError
        If `T` is not real numbers.
    ValueError
        If `T` is not a square matrix of probabilities whose rows sum to 1.
    """
    matrix = np.asarray(T)
    if matrix.dtype.kind not in "biuf":
        raise TypeError(f"T must hold real numbers, got dtype {matrix.dtype}")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"T must be a square matrix with T[i, j] = P(j | i), got shape {matrix.shape}")
    matrix = matrix.astype(np.float64)
    if not (np.isfinite(matrix).all() and (matrix >= -_ROUNDING).all()):
        raise ValueError("T must hold probabilities, got a negative or non-finite number")
    wrong = np.flatnonzero(np.abs(matrix.sum(axis=1) - 1) > _ROUNDING)
    if wrong.size:
        row = int(wrong[0])
        raise ValueError(
            f"the rows of T must sum to 1 with T[i, j] = P(j | i), but row {row} sums to {matrix[row].sum():g}"
        )
    return matrix


def as_distribution(p: ArrayLike, n_states: int, name: str = "p") -> np.ndarray:
    """Check a probability distribution over states and return it in float64.

    Raises
    ------
    TypeError
        If `p` is not real numbers.
    ValueError
        If its shape is not (`n_states`,), or it is not probabilities that sum to 1.
    """
    vector = np.asarray(p)
    if vector.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {vector.dtype}")
    if vector.shape != (n_states,):
        raise ValueError(f"{name} must have the shape ({n_states},), one probability per state, got {vector.shape}")
    vector = vector.astype(np.float64)
    if not (np.isfinite(vector).all() and (vector >= -_ROUNDING).all()) or abs(vector.sum() - 1) > _ROUNDING:
        raise ValueError(f"{name} must be probabilities that sum to 1, got the sum {vector.sum():g}")
    return vector


def is_irreducible(T: ArrayLike) -> bool:
    """Whether every state can be reached from every other.

    Parameters
    ----------
    T : array_like, shape (n_states, n_states)
        Transition matrix, T[i, j] = P(j | i).

    Returns
    -------
    bool

    Notes
    -----
    It looks at which elements are positive. A probability below 1e-308 has become zero in floating point.
    """
    return connected_components(_graph(as_transition_matrix(T)), connection="strong")[0] == 1


def is_aperiodic(T: ArrayLike) -> bool:
    """Whether a chain forgets the parity of its steps, or any other period.

    The period of a state is the greatest common divisor of the lengths of all paths that return to it; a chain
    is aperiodic if the period is 1. Of a reducible chain, the states from which there is no way out are looked at: all
    of them must have period 1.

    Parameters
    ----------
    T : array_like, shape (n_states, n_states)
        Transition matrix, T[i, j] = P(j | i).

    Returns
    -------
    bool
    """
    matrix = as_transition_matrix(T)
    return all(_period(matrix[np.ix_(members, members)]) == 1 for members in closed_classes(matrix))


def stationary_distribution(T: ArrayLike) -> np.ndarray:
    """Compute the stationary distribution p, with pT = p.

    Parameters
    ----------
    T : array_like, shape (n_states, n_states)
        Transition matrix, T[i, j] = P(j | i).

    Returns
    -------
    ndarray, shape (n_states,)
        Zero on transient states.

    Raises
    ------
    ValueError
        If it is not unique: the chain has several closed sets of states. Or if `T` is not a transition matrix.

    Notes
    -----
    By the elimination of Grassmann, Taksar and Heyman [1]_, which subtracts nothing: small probabilities are as
    accurate, relative to their size, as large ones. It takes time of order n_states³.

    References
    ----------
    .. [1] W. Grassmann, M. Taksar and D. Heyman, "Regenerative analysis and steady state distributions for
       Markov chains", Operations Research 33 (1985) 1107.

    Examples
    --------
    >>> stationary_distribution([[0.9, 0.1], [0.3, 0.7]])
    array([0.75, 0.25])
    """
    matrix = as_transition_matrix(T)
    closed = closed_classes(matrix)
    if len(closed) > 1:
        raise ValueError(
            f"T has {len(closed)} closed sets of states, and a stationary distribution on each: it must have one only"
        )
    members = closed[0]
    censored = matrix[np.ix_(members, members)]
    n = len(members)
    for k in range(n - 1, 0, -1):
        # Leave out state k: the chain watched only while it is in the states before k.
        censored[:k, k] /= censored[k, :k].sum()
        censored[:k, :k] += np.outer(censored[:k, k], censored[k, :k])
    weights = np.ones(n)
    for k in range(1, n):
        weights[k] = weights[:k] @ censored[:k, k]
        weights[: k + 1] /= weights[: k + 1].max()
    p = np.zeros(len(matrix))
    p[members] = weights / weights.sum()
    return p


def detailed_balance_gap(T: ArrayLike, p: ArrayLike) -> float:
    """Compute ``max |p_i T_ij − p_j T_ji|``, zero for a chain that is reversible with respect to `p`.

    Parameters
    ----------
    T : array_like, shape (n_states, n_states)
        Transition matrix, T[i, j] = P(j | i).
    p : array_like, shape (n_states,)

    Returns
    -------
    float
    """
    matrix = as_transition_matrix(T)
    flow = as_distribution(p, len(matrix))[:, None] * matrix
    return float(np.abs(flow - flow.T).max())


def spectral_gap(T: ArrayLike) -> float:
    """Compute the absolute spectral gap, ``1 − |λ₂|``.

    λ₂ is the eigenvalue second in modulus; the first is 1. Deviations from the stationary distribution die out as
    ``|λ₂|ᵗ`` after t steps. The gap is zero, exactly, for a periodic chain and for one with several sets of states that
    it never leaves: the graph of its transitions says so, not rounded eigenvalues.

    Parameters
    ----------
    T : array_like, shape (n_states, n_states)
        Transition matrix, T[i, j] = P(j | i). It need not be reversible.

    Returns
    -------
    float
        1 for a chain with a single state.
    """
    matrix = as_transition_matrix(T)
    if len(matrix) == 1:
        return 1.0
    closed = closed_classes(matrix)
    if len(closed) > 1 or _period(matrix[np.ix_(closed[0], closed[0])]) > 1:
        return 0.0
    modulus = np.sort(np.abs(_leading_eigenvalues(matrix)))[::-1]
    return float(np.clip(1 - modulus[1], 0, 1))


def relaxation_time(T: ArrayLike) -> float:
    """Compute 1 / `spectral_gap`, in steps; infinite without a gap.

    Parameters
    ----------
    T : array_like, shape (n_states, n_states)
        Transition matrix, T[i, j] = P(j | i).

    Returns
    -------
    float
    """
    gap = spectral_gap(T)
    return 1 / gap if gap > 0 else np.inf


def total_variation(
    T: ArrayLike, p: ArrayLike, steps: int | Sequence[int] | np.ndarray, start: int | ArrayLike | None = None
) -> np.ndarray:
    """Compute the total variation distance to `p` after a number of steps, ``½ Σ_j |P(j after t steps) − p_j|``.

    Parameters
    ----------
    T : array_like, shape (n_states, n_states)
        Transition matrix, T[i, j] = P(j | i).
    p : array_like, shape (n_states,)
        The distribution to compare with.
    steps : int or sequence of int
        Numbers of steps t, at least 0, in any order.
    start : int or array_like of shape (n_states,), optional
        The state, or the distribution, that the chain starts from. By default the worst of all states, which
        takes a product of matrices for each number of steps.

    Returns
    -------
    ndarray, shape of `steps`

    Raises
    ------
    TypeError
        If `steps` is not integers.
    ValueError
        If a number of steps is negative, or `start` is not a state or a distribution.
    """
    matrix = as_transition_matrix(T)
    p = as_distribution(p, len(matrix))
    times = np.asarray(steps)
    if times.dtype.kind not in "iu":
        raise TypeError(f"steps must be integers, got dtype {times.dtype}")
    if (times < 0).any():
        raise ValueError(f"steps must be at least 0, got {times.min()}")
    law = _start(start, len(matrix))
    distances = np.empty(times.shape)
    now = 0
    for time in np.unique(times):
        law = _advance(law, matrix, int(time) - now)
        now = int(time)
        distances[times == time] = np.abs(law - p).sum(axis=1).max() / 2
    return distances


def _start(start: int | ArrayLike | None, n_states: int) -> np.ndarray:
    """Return one row per starting distribution."""
    if start is None:
        return np.eye(n_states)
    if isinstance(start, int | np.integer) and not isinstance(start, bool):
        if not 0 <= start < n_states:
            raise ValueError(f"start must be a state between 0 and {n_states - 1}, got {start}")
        return np.eye(1, n_states, int(start))
    return as_distribution(start, n_states, "start")[None, :]


def _advance(law: np.ndarray, matrix: np.ndarray, n_steps: int) -> np.ndarray:
    if len(law) > 1:
        return law @ np.linalg.matrix_power(matrix, n_steps)
    for _ in range(n_steps):
        law = law @ matrix
    return law


def _graph(matrix: np.ndarray) -> csr_array:
    return csr_array(matrix > 0)


def closed_classes(matrix: np.ndarray) -> list[np.ndarray]:
    """List the sets of states that reach each other and nothing else."""
    graph = _graph(matrix)
    n_classes, label = connected_components(graph, connection="strong")
    source, target = graph.nonzero()
    leaves = np.zeros(n_classes, bool)
    leaves[label[source[label[source] != label[target]]]] = True
    return [np.flatnonzero(label == k) for k in np.flatnonzero(~leaves)]


def _period(matrix: np.ndarray) -> int:
    """Period of an irreducible chain: all edges lead from one distance to the next, modulo the period."""
    graph = _graph(matrix)
    distance = dijkstra(graph, unweighted=True, indices=0).astype(np.int64)
    source, target = graph.nonzero()
    return int(np.gcd.reduce(distance[source] + 1 - distance[target]))


def _leading_eigenvalues(matrix: np.ndarray) -> np.ndarray:
    """Return at least the two eigenvalues of largest modulus."""
    if len(matrix) > _DENSE_EIGENVALUES:
        start = np.random.default_rng(0).random(len(matrix))
        try:
            return eigs(matrix, k=2, which="LM", v0=start, return_eigenvectors=False)
        except ArpackError:  # no convergence: many eigenvalues of nearly the same modulus
            pass
    return np.linalg.eigvals(matrix)
