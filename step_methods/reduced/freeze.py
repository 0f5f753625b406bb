"""Whether units can still change."""

from __future__ import annotations

from typing import Protocol

import numpy as np

__all__ = ["TwoLayers", "certainty", "look_at_units"]


class _Couplings(Protocol):
    """What a look needs of a symmetric matrix, such as a csr_array."""

    def __matmul__(self, units: np.ndarray) -> np.ndarray: ...

    def minimum(self, other: float) -> _Couplings: ...

    def maximum(self, other: float) -> _Couplings: ...


class TwoLayers:
    """The couplings of a restricted network as those of one layer, visible units first.

    Parameters
    ----------
    W : ndarray, shape (n_visible, n_hidden)
    """

    def __init__(self, W: np.ndarray):
        self._W = W

    def __matmul__(self, units: np.ndarray) -> np.ndarray:
        v, h = np.split(units, [self._W.shape[0]])
        return np.concatenate([self._W @ h, v @ self._W])

    def minimum(self, other: float) -> TwoLayers:
        """Return the couplings, or a number where it is less."""
        return TwoLayers(np.minimum(self._W, other))

    def maximum(self, other: float) -> TwoLayers:
        """Return the couplings, or a number where it is more."""
        return TwoLayers(np.maximum(self._W, other))


def certainty(dtype: np.dtype) -> float:
    """Return the logit beyond which the probability of a unit to change is below the spacing of the numbers at 1."""
    return -float(np.log(np.finfo(dtype).eps / 2))


def look_at_units(
    couplings: _Couplings,
    scale: float,
    biases: np.ndarray,
    ones: np.ndarray,
    decided: np.ndarray,
    auxiliary: np.ndarray,
    bound: float,
) -> tuple[bool, bool]:
    """Look whether units in {0, 1} can change.

    Parameters
    ----------
    couplings : TwoLayers or csr_array, shape (n_units, n_units)
        Symmetric.
    scale : float
        Multiplies the couplings.
    biases : ndarray, shape (n_units,)
        May be infinite where evidence decides a unit.
    ones : ndarray of bool, shape (n_units,)
        The state; of auxiliary units it is not looked at.
    decided : ndarray of bool, shape (n_units,)
        The units that a sampler decides on, auxiliary ones included.
    auxiliary : ndarray of bool, shape (n_units,)
        Units that are decided on before all others, given those.
    bound : float
        The logit beyond which a unit is certain.

    Returns
    -------
    certain : bool
        Whether every unit is certain to keep its value, the others being as they are.
    free : bool
        Whether some of them are not certain whatever the others are: then the state is one of several.
    """
    fields = biases + scale * (couplings @ np.where(auxiliary, False, ones))
    if (np.abs(fields[auxiliary]) <= bound).any():
        return False, False
    if auxiliary.any():
        ones = np.where(auxiliary, fields > 0, ones)
        fields = biases + scale * (couplings @ ones)
    if not (np.where(ones, fields, -fields)[decided] > bound).all():
        return False, False
    # What is certain for all states of the others makes others certain in turn.
    known = np.zeros(biases.size, bool)
    down, up = couplings.minimum(0), couplings.maximum(0)
    if scale < 0:
        down, up = up, down
    while True:
        at_known = biases + scale * (couplings @ (ones & known))
        lowest = at_known + scale * (down @ ~known)
        highest = at_known + scale * (up @ ~known)
        certain = ~known & ((lowest > bound) | (highest < -bound))
        if not certain.any():
            return True, bool((decided & ~known).any())
        ones = np.where(certain, lowest > bound, ones)
        known |= certain
