"""The log partition function of fields as PyTensor operations, with their gradients.

All methods sum over spins. Bits are spins with other parameters: with z = (s + 1)/2,

    b·z + c/2 zᵀJz = h·s + c/8 sᵀJs + (Σ b)/2 + c/8 Σ J,    h = b/2 + (c/4) J·1.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.custom import CustomDistRV
from pymc.distributions.transforms import _default_transform
from pytensor.graph.basic import Constant, Variable
from pytensor.scalar import Add, Cast, Mul, Neg, Sub
from pytensor.tensor import TensorVariable
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import DimShuffle, Elemwise
from pytensor.tensor.random.op import RandomVariable

from pm_neural.distributions._couplings import Couplings
from pm_neural.distributions._elimination import (
    Elimination,
    elimination_log_partition,
    frontier_width,
    orders,
    plan_elimination,
)
from pm_neural.distributions._kaufman import kaufman_log_partition
from pm_neural.distributions.lattice import lattice
from pm_neural.distributions.normalizer import LogPartitionOp
from step_methods.kernels.jit import cached_njit
from step_methods.network import random_inputs

__all__ = [
    "METHODS",
    "EliminationLogPartition",
    "TorusLogPartition",
    "choose_method",
    "field_log_partition",
    "kaufman_condition",
    "raveled",
    "torus_log_partition",
]

type Method = Literal["enumerate", "transfer", "kaufman"]

METHODS = ("enumerate", "transfer", "kaufman")
MAX_ENUMERATED_UNITS = 20
MAX_FRONTIER = 12

_REQUIREMENTS = {
    "enumerate": f"at most {MAX_ENUMERATED_UNITS} units",
    "transfer": "a narrow lattice, at most 12 sites wide and open along its length, or 6 if it is periodic both ways",
    "kaufman": "a square lattice periodic along both axes, sides of at least 3, with one coupling for all bonds, no "
    "field, and a coupling that is not negative unless both sides are even",
}


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


def _best_order(couplings: Couplings, shape: tuple[int, ...]) -> tuple[int, np.ndarray]:
    candidates = [(frontier_width(couplings.matrix, sites), sites) for sites in orders(couplings.matrix, shape)]
    return min(candidates, key=lambda candidate: candidate[0])


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


def choose_method(
    normalize: str | None,
    couplings: Couplings,
    shape: tuple[int, ...],
    values: tuple[int, int],
    coupling: TensorVariable,
    biases: TensorVariable,
) -> Method | None:
    """Decide how to compute log Z, or refuse.

    Parameters
    ----------
    normalize : {None, "enumerate", "transfer", "kaufman", "exact"}
    couplings : Couplings
    shape : tuple of int
        The axes of the field.
    values : tuple of int
        The lower and the upper value of a unit.
    coupling : TensorVariable
    biases : TensorVariable, shape (..., *shape)

    Returns
    -------
    str or None
        One of `METHODS`; None if log Z is left out.

    Raises
    ------
    ValueError
        If `normalize` is unknown, or if the method, or none, applies to the field.
    """
    if normalize is None:
        return None
    if not isinstance(normalize, str) or normalize not in (*METHODS, "exact"):
        choices = ", ".join(f'"{method}"' for method in METHODS)
        raise ValueError(f'normalize must be None, {choices} or "exact", got {normalize!r}')
    obstacles: dict[str, str] = {}
    if normalize in ("enumerate", "exact"):
        if couplings.n_units <= MAX_ENUMERATED_UNITS:
            return "enumerate"
        obstacles["enumerate"] = f"{couplings.n_units} units"
    if normalize in ("kaufman", "exact"):
        obstacle = _kaufman_obstacle(couplings, shape, values, coupling, biases, sure=normalize == "exact")
        if obstacle is None:
            return "kaufman"
        obstacles["kaufman"] = obstacle
    if normalize in ("transfer", "exact"):
        width = _best_order(couplings, shape)[0]
        if width <= MAX_FRONTIER:
            return "transfer"
        obstacles["transfer"] = f"couplings that reach across {width} sites"
    if normalize == "exact":
        reasons = "; ".join(f'"{method}" needs {_REQUIREMENTS[method]}, got {obstacles[method]}' for method in METHODS)
        raise ValueError(f'normalize="exact": no method applies to this field: {reasons}')
    raise ValueError(f'normalize="{normalize}" needs {_REQUIREMENTS[normalize]}; got {obstacles[normalize]}')


def _kaufman_obstacle(couplings, shape, values, coupling, biases, *, sure) -> str | None:
    """Say why Kaufman's equation does not apply; what is known only later is an obstacle if one must be sure."""
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
    elif sure or (values == (-1, 1) and random_inputs([biases])):
        return "a field that is not known to vanish"
    if shape[0] % 2 or shape[1] % 2:
        if known_coupling is None:
            if sure:
                return f"a coupling of unknown sign on the sides {shape}"
            if _has_whole_line(coupling):
                return f"a random coupling that may be negative on the sides {shape}; pm.HalfNormal is never negative"
            return None
        if (weight * known_coupling < 0).any():
            return f"a negative coupling on the sides {shape}"
    return None


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


def kaufman_condition(couplings: Couplings, shape: tuple[int, ...], coupling: TensorVariable) -> TensorVariable | None:
    """Return the condition on the coupling under which Kaufman's equation is computed, None if there is none."""
    if all(side % 2 == 0 for side in shape):
        return None
    return pt.ge(float(couplings.matrix.data[0]) * coupling, 0)


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


def field_log_partition(
    method: Method,
    couplings: Couplings,
    shape: tuple[int, ...],
    values: tuple[int, int],
    coupling: TensorVariable,
    biases: TensorVariable,
) -> TensorVariable:
    """Log partition function of a field, differentiable in its coupling and biases.

    Parameters
    ----------
    method : {"enumerate", "transfer", "kaufman"}
        As `choose_method` returns it.
    couplings : Couplings
    shape : tuple of int
        The axes of the field.
    values : tuple of int
        The lower and the upper value of a unit.
    coupling : TensorVariable, shape (...)
    biases : TensorVariable, shape (..., *shape)

    Returns
    -------
    TensorVariable, shape (...)
    """
    spin_coupling, fields, shift = _in_spins(couplings, values, coupling, raveled(biases, shape))
    op: SpinLogPartition
    if method == "kaufman":
        rows, columns = shape
        op = TorusLogPartition(rows, columns, float(couplings.matrix.data[0]), _rounding(biases.dtype))
    else:
        op = EliminationLogPartition(couplings, shape)
    return Blockwise(op)(spin_coupling, fields)[0] + shift
