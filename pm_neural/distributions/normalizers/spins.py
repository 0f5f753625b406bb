"""Log Z of fields of two-valued units, by sums over spins.

Bits are spins with other parameters: with z = (s + 1)/2,

    b·z + c/2 zᵀJz = h·s + c/8 sᵀJs + (Σ b)/2 + c/8 Σ J,    h = b/2 + (c/4) J·1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from numba import njit
from pymc.distributions.custom import CustomDistRV
from pymc.distributions.dist_math import check_parameters
from pymc.distributions.transforms import _default_transform
from pytensor.graph.basic import Constant, Variable
from pytensor.scalar import Add, Cast, Mul, Neg, Sub
from pytensor.tensor import TensorVariable
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.random.op import RandomVariable

from pm_neural.distributions._couplings import Couplings
from pm_neural.distributions.lattice import lattice
from pm_neural.distributions.normalizers.elimination import (
    Elimination,
    elimination_log_partition,
    frontier_width,
    orders,
    plan_elimination,
)
from pm_neural.distributions.normalizers.kaufman import kaufman_log_partition
from pm_neural.distributions.normalizers.log_partition import MAX_ENUMERATED_UNITS, LogPartitionOp
from pm_neural.distributions.normalizers.normalizer import Normalizer
from step_methods.kernels.vectors.jit import cached_njit
from step_methods.reading.graphs import random_inputs

__all__ = ["Enumeration", "Field", "Kaufman", "TransferMatrix", "raveled"]

MAX_FRONTIER = 12


class Field(NamedTuple):
    """A field of two-valued units that are coupled in pairs.

    Attributes
    ----------
    couplings : Couplings
        J.
    shape : tuple of int
        The axes of the field.
    values : tuple of int
        The lower and the upper value of a unit.
    coupling : TensorVariable, shape (...)
        Multiplies J.
    biases : TensorVariable, shape (..., *shape)
    """

    couplings: Couplings
    shape: tuple[int, ...]
    values: tuple[int, int]
    coupling: TensorVariable
    biases: TensorVariable


class SpinLogPartition(LogPartitionOp):
    """Log Z of spins, ∂log Z/∂coupling = E[½ sᵀJs] and ∂log Z/∂h = E[s], from the scalar coupling and h (n,)."""

    gufunc_signature = "(),(n)->(),(),(n)"


class EliminationLogPartition(SpinLogPartition):
    """Log Z by summing out one spin after another, on any graph whose frontier stays narrow.

    Parameters
    ----------
    couplings : Couplings
    shape : tuple of int
        The axes of the field, along which an order is looked for.
    """

    __props__ = ("couplings", "shape")

    def __init__(self, couplings: Couplings, shape: tuple[int, ...]):
        super().__init__()
        self.couplings = couplings
        self.shape = shape

    @cached_property
    def plan(self) -> Elimination:
        """The steps of the sum."""
        return plan_elimination(self.couplings.matrix, _best_order(self.couplings, self.shape)[1])

    def log_partition(self, parameters: list[np.ndarray]) -> tuple[Any, ...]:
        """Compute log Z and its derivatives."""
        coupling, fields = parameters
        return elimination_log_partition(*self.plan, float(coupling), fields)

    def numba_function(self, node):
        """Compute log Z and its derivatives by numba."""
        sites, widths, starts, bits, couplings, removed_starts, removed_bits = self.plan

        @njit
        def compute(coupling, fields):
            return elimination_log_partition(
                sites, widths, starts, bits, couplings, removed_starts, removed_bits, coupling, fields
            )

        return _in_types_of(node, compute)

    def compiled_in(self):
        """Return the steps of the sum."""
        return self.plan


class TorusLogPartition(SpinLogPartition):
    """Log Z on a torus without a field, by Kaufman's equation.

    Parameters
    ----------
    rows, columns : int
    weight : float
        The entry of J for each bond, which the coupling multiplies.
    rounding : float
        How large the field may be, in units of the coupling.
    """

    __props__ = ("rows", "columns", "weight", "rounding")

    def __init__(self, rows: int, columns: int, weight: float, rounding: float):
        super().__init__()
        self.rows = rows
        self.columns = columns
        self.weight = weight
        self.rounding = rounding

    def log_partition(self, parameters: list[np.ndarray]) -> tuple[Any, ...]:
        """Compute log Z and its derivatives; the field must vanish, up to rounding of shifted bits."""
        coupling, fields = parameters
        return torus_log_partition(self.rows, self.columns, self.weight, self.rounding, float(coupling), fields)

    def numba_function(self, node):
        """Compute log Z and its derivatives by numba."""
        rows, columns, weight, rounding = self.rows, self.columns, self.weight, self.rounding

        @njit
        def compute(coupling, fields):
            return torus_log_partition(rows, columns, weight, rounding, coupling, fields)

        return _in_types_of(node, compute)


def _in_types_of(node, compute):
    """Wrap a function of (coupling, fields) in float64 in the types of a node."""
    value_dtype, coupling_dtype, fields_dtype = (np.dtype(output.dtype) for output in node.outputs)

    @njit
    def log_partition(coupling, fields):
        log_z, slope, means = compute(np.float64(coupling.item()), fields.astype(np.float64))
        return (
            np.asarray(log_z).astype(value_dtype),
            np.asarray(slope).astype(coupling_dtype),
            means.astype(fields_dtype),
        )

    return log_partition


@cached_njit()
def torus_log_partition(rows, columns, weight, rounding, coupling, fields):
    """Log Z on a torus and its derivatives, for a coupling of either sign where both sides are even.

    Reversing every second spin then turns one sign into the other. For a negative one on other sides the result is
    infinity and NaN: log Z exists, but its four terms cancel too well to be added.
    """
    K = weight * coupling
    if np.abs(fields).max() > rounding * abs(K):
        raise ValueError('normalize="kaufman" needs a model without a field, and the biases are not zero in spins')
    if K < 0 and (rows % 2 or columns % 2):
        return np.inf, np.nan, np.zeros(fields.size)
    log_z, slope = kaufman_log_partition(rows, columns, abs(K))
    return log_z, np.sign(K) * weight * slope, np.zeros(fields.size)


def raveled(field: TensorVariable, shape: tuple[int, ...]) -> TensorVariable:
    """Join the last axes of a field, of a known shape, into one."""
    if len(shape) == 1:
        return field
    batch = [field.shape[i] for i in range(field.ndim - len(shape))]
    return field.reshape((*batch, math.prod(shape)))


def _in_spins(couplings: Couplings, values: tuple[int, int], coupling: Any, biases: Any) -> tuple[Any, Any, Any]:
    """Return the coupling and the fields of spins, and what is added to their log Z, from biases (..., n)."""
    if values == (-1, 1):
        return coupling, biases, 0.0
    row_sums = couplings.matrix.sum(axis=1)
    fields = 0.5 * biases + 0.25 * coupling[..., None] * row_sums
    return 0.25 * coupling, fields, 0.5 * biases.sum(axis=-1) + 0.125 * coupling * row_sums.sum()


def _summed_over_spins(op: SpinLogPartition, field: Field) -> TensorVariable:
    biases = raveled(field.biases, field.shape)
    spin_coupling, fields, shift = _in_spins(field.couplings, field.values, field.coupling, biases)
    return Blockwise(op)(spin_coupling, fields)[0] + shift


@dataclass(frozen=True)
class Enumeration(Normalizer):
    """The sum over all states of a field, one spin after another."""

    needs = f"needs at most {MAX_ENUMERATED_UNITS} units"

    def obstacle(self, network: Field) -> str | None:
        """Count the units."""
        n_units = network.couplings.n_units
        return None if n_units <= MAX_ENUMERATED_UNITS else f"{n_units} units"

    def log_partition(self, network: Field) -> TensorVariable:
        """Return log Z, shape (...)."""
        return _summed_over_spins(EliminationLogPartition(network.couplings, network.shape), network)


@dataclass(frozen=True)
class TransferMatrix(Normalizer):
    """The same sum on any graph whose frontier stays narrow."""

    needs = "needs a narrow lattice, at most 12 sites wide and open along its length, or 6 if it is periodic both ways"

    def obstacle(self, network: Field) -> str | None:
        """Look for an order of the sites whose frontier is narrow."""
        width = _best_order(network.couplings, network.shape)[0]
        return None if width <= MAX_FRONTIER else f"couplings that reach across {width} sites"

    def log_partition(self, network: Field) -> TensorVariable:
        """Return log Z, shape (...)."""
        return _summed_over_spins(EliminationLogPartition(network.couplings, network.shape), network)


def _best_order(couplings: Couplings, shape: tuple[int, ...]) -> tuple[int, np.ndarray]:
    candidates = [(frontier_width(couplings.matrix, sites), sites) for sites in orders(couplings.matrix, shape)]
    return min(candidates, key=lambda candidate: candidate[0])


@dataclass(frozen=True)
class Kaufman(Normalizer):
    """Kaufman's equation for a torus without a field.

    Parameters
    ----------
    sure : bool
        Whether what is known only with the parameters is an obstacle.
    """

    sure: bool = False

    needs = (
        "needs a square lattice periodic along both axes, sides of at least 3, with one coupling for all bonds, no "
        "field, and a coupling that is not negative unless both sides are even"
    )

    def obstacle(self, network: Field) -> str | None:
        """Compare couplings, field and sign, where they are known."""
        couplings, shape, values, coupling, biases = network
        weight = _torus_weight(couplings, shape)
        if weight is None:
            return f"another network, of {couplings.matrix.nnz // 2} bonds on the shape {shape}"
        known_coupling, known_biases = _known(coupling), _known(biases)
        if known_biases is not None and (values == (-1, 1) or known_coupling is not None):
            K = np.asarray(0.0 if known_coupling is None else weight * known_coupling)
            flat = known_biases.reshape(*known_biases.shape[: -len(shape)], -1)
            fields = _in_spins(couplings, values, known_coupling, flat)[1]
            if np.abs(fields).max() > _rounding(biases.dtype) * np.abs(K).max():
                return "a field"
        elif self.sure or (values == (-1, 1) and random_inputs([biases])):
            return "a field that is not known to vanish"
        if shape[0] % 2 or shape[1] % 2:
            if known_coupling is None:
                if self.sure:
                    return f"a coupling of unknown sign on the sides {shape}"
                if _has_whole_line(coupling):
                    return (
                        f"a random coupling that may be negative on the sides {shape}; pm.HalfNormal is never negative"
                    )
                return None
            if (weight * known_coupling < 0).any():
                return f"a negative coupling on the sides {shape}"
        return None

    def log_partition(self, network: Field) -> TensorVariable:
        """Return log Z, shape (...)."""
        rows, columns = network.shape
        weight = float(network.couplings.matrix.data[0])
        return _summed_over_spins(TorusLogPartition(rows, columns, weight, _rounding(network.biases.dtype)), network)

    def normalized(self, logp: TensorVariable, network: Field) -> TensorVariable:
        """Return a log-probability less log Z, for couplings of the sign that is computed."""
        logp = super().normalized(logp, network)
        if all(side % 2 == 0 for side in network.shape):
            return logp
        weight = float(network.couplings.matrix.data[0])
        return check_parameters(logp, pt.ge(weight * network.coupling, 0), msg="coupling >= 0 where a side is odd")


def _torus_weight(couplings: Couplings, shape: tuple[int, ...]) -> float | None:
    """Return the weight of each bond if the couplings are those of a torus with sides of at least 3."""
    if len(shape) != 2 or min(shape) < 3 or couplings.matrix.nnz != 4 * couplings.n_units:
        return None
    weight = couplings.matrix.data[0]
    torus = lattice(shape, periodic=True).couplings
    same = np.all(couplings.matrix.data == weight) and (couplings.matrix != weight * torus).nnz == 0
    return float(weight) if same else None


def _rounding(dtype: str) -> float:
    """How large a field may be, in units of the coupling, that was meant to vanish."""
    return 16 * float(np.finfo(dtype).eps)


def _known(variable: Variable) -> np.ndarray | None:
    return variable.data if isinstance(variable, Constant) else None


def _has_whole_line(variable: TensorVariable) -> bool:
    """Whether a variable is, or is linear in, one that may have any real value by a distribution of PyMC."""
    node = variable.owner
    if node is None:
        return False
    if isinstance(node.op, RandomVariable):
        # The density of a CustomDist may vanish where only its author knows.
        continuous = variable.dtype.startswith("float") and not isinstance(node.op, CustomDistRV)
        return continuous and _default_transform(node.op, variable) is None
    if isinstance(node.op, DimShuffle) or (
        isinstance(node.op, Elemwise) and isinstance(node.op.scalar_op, Add | Cast | Mul | Neg | Sub)
    ):
        varying = [part for part in node.inputs if not isinstance(part, Constant)]
        return len(varying) == 1 and _has_whole_line(varying[0])
    return False
