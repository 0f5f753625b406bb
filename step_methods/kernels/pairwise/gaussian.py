"""One chain of a Gaussian vector: each block of its coordinates is drawn from its conditional given the others.

With the precision Λ and the deviations d = x − μ, block B given the rest R is Gaussian with mean −Λ_BB⁻¹ Λ_BR d_R and
covariance Λ_BB⁻¹. Both matrices are computed once; an update is two products with them. All randomness comes in as an
array of standard normal numbers, so the kernel that runs can be held against theory: it is an affine map of the state
and of these numbers.

References
----------
H. Rue and L. Held, "Gaussian Markov Random Fields: Theory and Applications", Chapman and Hall/CRC (2005), theorem 2.5.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from step_methods.kernels.vectors.jit import kernel

# What `sweep_gaussian` takes: the rows of −Λ_BB⁻¹ Λ_BR for all blocks, those of the factors of Λ_BB⁻¹, the coordinates
# that the rows belong to, and the first row of each block.
type PreparedGaussian = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def prepare_gaussian(precision: np.ndarray, blocks: Sequence[np.ndarray]) -> PreparedGaussian:
    """Compute the conditional of each block given the other coordinates.

    Parameters
    ----------
    precision : ndarray of float64, shape (n, n)
        Λ, symmetric and positive definite.
    blocks : sequence of ndarray of int
        Disjoint sets of coordinates, none of them empty.

    Returns
    -------
    tuple
        What `sweep_gaussian` calls `gaussian`: opaque arrays.
    """
    units = np.concatenate([np.empty(0, np.int64), *blocks])
    starts = np.cumsum([0, *(len(block) for block in blocks)])
    gains = np.empty((len(units), len(precision)))
    factors = np.zeros((len(units), max((len(block) for block in blocks), default=0)))
    for block, first, stop in zip(blocks, starts, starts[1:], strict=False):
        lower, _ = cho = cho_factor(precision[np.ix_(block, block)], lower=True)
        gains[first:stop] = -cho_solve(cho, precision[block])
        gains[first:stop, block] = 0.0
        # Λ_BB = C Cᵀ, so Λ_BB⁻¹ = C⁻ᵀ C⁻¹.
        factors[first:stop, : len(block)] = solve_triangular(lower, np.eye(len(block)), lower=True, trans="T")
    return gains, factors, units, starts


@kernel
def sweep_gaussian(gaussian, deviations, picks, noise):
    """Draw blocks one after the other, in place.

    Parameters
    ----------
    gaussian : tuple
        From `prepare_gaussian`.
    deviations : ndarray of float64, shape (n,)
        The state of the chain less its mean.
    picks : ndarray of int64
        The blocks in the order in which they are drawn.
    noise : ndarray of float64
        Independent standard normal numbers, as many as the picked blocks have coordinates together.
    """
    gains, factors, units, starts = gaussian
    used = 0
    for pick in picks:
        first, stop = starts[pick], starts[pick + 1]
        # The gains of a block's own coordinates are zero, so they may change while its other rows are computed.
        for row in range(first, stop):
            total = 0.0
            for other in range(deviations.size):
                total += gains[row, other] * deviations[other]
            for i in range(row - first, stop - first):
                total += factors[row, i] * noise[used + i]
            deviations[units[row]] = total
        used += stop - first


@kernel
def energy_gaussian(precision, deviations):
    """Energy ½ dᵀΛd of a state whose deviations from the mean are d."""
    total = 0.0
    for i in range(deviations.size):
        field = 0.0
        for j in range(deviations.size):
            field += precision[i, j] * deviations[j]
        total += deviations[i] * field
    return 0.5 * total
