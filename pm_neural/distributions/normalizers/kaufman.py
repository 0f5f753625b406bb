"""The zero-field Ising model on a torus, solved."""

import numpy as np

from step_methods.kernels.vectors.jit import cached_njit

__all__ = ["kaufman_log_partition"]

# Above it flipped spins weigh less than exp(−8 * 40) together, for any lattice that fits in memory.
_LARGE_COUPLING = 40.0


@cached_njit()
def kaufman_log_partition(rows, columns, coupling):
    r"""Log partition function of spins on a torus without a field, and its derivative in the coupling.

    Kaufman's equation [1]_ has, with m rows, n columns and :math:`\cosh \gamma_l = \cosh 2K \coth 2K - \cos(l\pi/n)`,

    .. math::

        Z = \tfrac12 (2 \sinh 2K)^{mn/2} \left[
            \prod_{l \text{ odd}} 2\cosh \tfrac{m\gamma_l}{2} + \prod_{l \text{ odd}} 2\sinh \tfrac{m\gamma_l}{2} +
            \prod_{l \text{ even}} 2\cosh \tfrac{m\gamma_l}{2} + \prod_{l \text{ even}} 2\sinh \tfrac{m\gamma_l}{2}
        \right],

    l from 0 to 2n − 1, and :math:`\gamma_0 = 2K + \log \tanh K`, which is negative above the critical temperature.
    Here each factor has its share :math:`(2 \sinh 2K)^{m/2}`, so that nothing diverges at K = 0 and nothing cancels.

    Parameters
    ----------
    rows, columns : int
        At least 3 each.
    coupling : float
        K, at least 0.

    Returns
    -------
    log_z, derivative : float

    References
    ----------
    .. [1] B. Kaufman, "Crystal statistics. II. Partition function evaluated by spinor analysis", Physical Review 76
       (1949) 1232, eq. 82.
    """
    m, n, K = rows, columns, coupling
    if K > _LARGE_COUPLING:
        return np.log(2.0) + 2.0 * m * n * K, 2.0 * m * n
    S, C = np.sinh(2 * K), np.cosh(2 * K)
    logs, slopes = np.zeros(4), np.zeros(4)  # the products over odd l: cosh, sinh; over even l: cosh, sinh
    for index in range(1, 2 * n):  # l
        half = np.sin(0.5 * np.pi * index / n) ** 2
        below, above = (S - 1) ** 2 + 2 * S * half, (S + 1) ** 2 - 2 * S * (1 - half)  # a − S and a + S
        a, R = 0.5 * (below + above), np.sqrt(below * above)
        a_slope = 4 * C * S - 2 * C * (1 - 2 * half)
        g = np.log(2 * (a + R))  # γ + log(2 sinh 2K)
        g_slope = (a_slope + (a * a_slope - 2 * S * C) / R) / (a + R)
        q = S / (a + R)  # exp(−γ)
        q_slope = 2 * C / (a + R) - q * g_slope
        decay, decay_slope = q**m, m * q ** (m - 1) * q_slope
        rest = 1 - decay if decay < 0.5 else -np.expm1(-m * np.log1p((below + R) / S))
        first = 0 if index % 2 else 2
        logs[first] += 0.5 * m * g + np.log1p(decay)
        slopes[first] += 0.5 * m * g_slope + decay_slope / (1 + decay)
        logs[first + 1] += 0.5 * m * g + np.log(rest)
        slopes[first + 1] += 0.5 * m * g_slope - decay_slope / rest

    # l = 0: the two halves of the hyperbolic functions, (exp(2K) − 1)**m and (1 + exp(−2K))**m
    up = m * np.log(np.expm1(2 * K)) if K > 0 else -np.inf
    down = m * np.log1p(np.exp(-2 * K))
    up_slope = -2 * m / np.expm1(-2 * K) if K > 0 else 0.0
    down_slope = -2 * m / (1 + np.exp(2 * K))
    largest = max(up, down)
    up, down = np.exp(up - largest), np.exp(down - largest)
    logs[2:] += largest

    factors = np.array([1.0, 1.0, up + down, up - down])
    factor_slopes = np.array([0.0, 0.0, up * up_slope + down * down_slope, up * up_slope - down * down_slope])
    top = logs.max()
    weights = np.exp(logs - top)
    z = (weights * factors).sum()
    derivative = (weights * (factors * slopes + factor_slopes)).sum() / z
    return top + np.log(0.5 * z), derivative
