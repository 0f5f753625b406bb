"""Regular lattices, as couplings of a field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from pytensor.graph.basic import Variable
from scipy.sparse import coo_array, csr_array

__all__ = ["Lattice", "lattice"]


@dataclass(frozen=True, eq=False)
class Lattice:
    """Couplings of 1 between the nearest neighbors of a rectangular grid; made by `lattice`.

    ``beta * lattice`` multiplies them with a number or a tensor and means the same as ``coupling=beta``.

    Attributes
    ----------
    shape : tuple of int
        Lengths of the axes.
    periodic : tuple of bool
        For each axis, whether its two ends are neighbors.
    coupling : number or TensorVariable
        What multiplies the couplings.
    """

    # NumPy's numbers and arrays then leave a product with a lattice to the lattice.
    __array_ufunc__ = None

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]
    coupling: Any = 1.0

    @property
    def n_sites(self) -> int:
        """Number of sites."""
        return int(np.prod(self.shape))

    @cached_property
    def couplings(self) -> csr_array:
        """The couplings without the factor `coupling`, sites in row-major order; shape (n_sites, n_sites)."""
        sites = np.arange(self.n_sites).reshape(self.shape)
        bonds = []
        for axis, (length, periodic) in enumerate(zip(self.shape, self.periodic, strict=True)):
            if length == 1:
                continue
            following = np.roll(sites, -1, axis)
            bonded = slice(None) if periodic else slice(length - 1)
            keep = tuple(bonded if other == axis else slice(None) for other in range(sites.ndim))
            bonds.append((sites[keep].ravel(), following[keep].ravel()))
        one = np.concatenate([bond[0] for bond in bonds]) if bonds else np.empty(0, int)
        other = np.concatenate([bond[1] for bond in bonds]) if bonds else np.empty(0, int)
        ends = (np.concatenate([one, other]), np.concatenate([other, one]))
        return coo_array((np.ones(2 * one.size), ends), shape=(self.n_sites, self.n_sites)).tocsr()

    def __mul__(self, factor: Any) -> Lattice:
        if not isinstance(factor, Real | np.ndarray | np.number | Variable):
            return NotImplemented
        return replace(self, coupling=factor * self.coupling)

    __rmul__ = __mul__


def lattice(shape: int | Sequence[int], periodic: bool | Sequence[bool] = False) -> Lattice:
    """Nearest-neighbor couplings on a chain, a square lattice, a cubic lattice and so on.

    Parameters
    ----------
    shape : int or sequence of int
        Lengths of the axes.
    periodic : bool or sequence of bool
        Whether the two ends of an axis are neighbors: for all axes, or one by one. A lattice that is periodic along
        all axes is a torus.

    Returns
    -------
    Lattice
        Each bond has coupling 1. An axis of length 2 that is periodic has two bonds between its two sites, one
        inside and one around, so that every site has as many bonds as on a longer axis: their coupling is 2. An axis
        of length 1 has no bonds, periodic or not.

    Raises
    ------
    ValueError
        If a length is less than 1, or `periodic` has another number of entries than `shape`.
    TypeError
        If a length is not an integer or an entry of `periodic` not a bool.

    Examples
    --------
    >>> import pm_neural as pmn
    >>> pmn.lattice((3, 3), periodic=True).couplings.sum(axis=0)
    array([4., 4., 4., 4., 4., 4., 4., 4., 4.])
    """
    lengths = tuple(shape) if isinstance(shape, Sequence | np.ndarray) else (shape,)
    for length in lengths:
        if isinstance(length, bool) or not isinstance(length, int | np.integer):
            raise TypeError(f"shape must be integers, the lengths of the axes, got {length!r}")
    if not lengths or min(lengths) < 1:
        raise ValueError(f"shape must have lengths of at least 1, got {lengths}")
    ends = tuple(periodic) if isinstance(periodic, Sequence | np.ndarray) else (periodic,) * len(lengths)
    if not all(isinstance(end, bool | np.bool) for end in ends):
        raise TypeError(f"periodic must be True or False, or one of them for each axis, got {periodic!r}")
    if len(ends) != len(lengths):
        raise ValueError(f"periodic must have {len(lengths)} entries, one for each axis of the shape, got {len(ends)}")
    return Lattice(tuple(int(length) for length in lengths), tuple(bool(end) for end in ends))
