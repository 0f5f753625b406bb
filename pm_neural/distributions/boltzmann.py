"""Boltzmann machines and Ising models: fields of two-valued units that are coupled in pairs, as PyMC distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pytensor.tensor as pt
from numba import njit
from pymc.distributions.shape_utils import convert_dims, convert_shape, shape_from_dims
from pymc.logprob.abstract import _logprob
from pymc.model import modelcontext
from pymc.pytensorf import extract_obs_data
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.tensor import TensorVariable, as_tensor_variable, tensor
from pytensor.tensor.blockwise import Blockwise
from scipy.sparse import csr_array, triu
from scipy.special import logit

from pm_neural.distributions._checks import finite_parameter
from pm_neural.distributions._compiled_op import CompiledOp, CompiledRV
from pm_neural.distributions._couplings import Couplings, as_couplings
from pm_neural.distributions._draws import draw_pairwise
from pm_neural.distributions._units import BinaryUnits, as_float, loop_over_batch, on_support
from pm_neural.distributions.lattice import Lattice
from pm_neural.distributions.normalizers.normalizer import UNSAID, Normalize, Normalizer, choose_normalizer
from pm_neural.distributions.normalizers.spins import Enumeration, Field, Kaufman, TransferMatrix, raveled
from step_methods.checks import at_least
from step_methods.kernels.vectors.jit import cached_njit
from step_methods.network import PairwiseNetwork, network_of
from step_methods.reading.graphs import random_inputs
from step_methods.reading.parameters import unnormalized_message

__all__ = ["BoltzmannMachine", "Ising"]

_NORMALIZERS = {"enumerate": Enumeration(), "transfer": TransferMatrix(), "kaufman": Kaufman()}
_EXACT = [("enumerate", Enumeration()), ("kaufman", Kaufman(sure=True)), ("transfer", TransferMatrix())]


@cached_njit()
def pair_sum(data, indices, indptr, state):
    """Compute sᵀUs with U in compressed rows."""
    total = 0.0
    for i in range(state.size):
        field = 0.0
        for k in range(indptr[i], indptr[i + 1]):
            field += data[k] * state[indices[k]]
        total += field * state[i]
    return total


class PairSum(CompiledOp):
    """The sum over all pairs, ½ sᵀJs, of s (n,); each pair is visited once."""

    __props__ = ("couplings",)
    gufunc_signature = "(n)->()"

    def __init__(self, couplings: Couplings):
        super().__init__()
        self.couplings = couplings

    @cached_property
    def pairs(self) -> csr_array:
        """The couplings above the diagonal."""
        return csr_array(triu(self.couplings.matrix, format="csr"))

    def make_node(self, state) -> Apply:
        """Make a node from a vector of floats."""
        state = as_tensor_variable(state)
        return Apply(self, [state], [tensor(dtype=state.dtype, shape=())])

    def infer_shape(self, node, input_shapes):
        """Return the shape of the output."""
        return [()]

    def perform(self, node, inputs, output_storage) -> None:
        """Compute the output in backends other than numba."""
        output_storage[0][0] = np.asarray(inputs[0] @ (self.pairs @ inputs[0]), node.outputs[0].dtype)

    def numba_function(self, node):
        """Compute the output by numba."""
        data, indices, indptr = self.pairs.data, self.pairs.indices, self.pairs.indptr
        dtype = np.dtype(node.outputs[0].dtype)

        @njit
        def sum_of_pairs(state):
            return np.asarray(pair_sum(data, indices, indptr, state)).astype(dtype)

        return sum_of_pairs

    def compiled_in(self):
        """Return the couplings."""
        return self.couplings.arrays


class PairwiseRV(CompiledRV):
    """A field of units coupled in pairs; its axes are those of the biases."""

    dtype = "int64"
    values: tuple[int, int]
    __props__ = (*CompiledRV.__props__, "couplings", "event_shape", "normalize", "n_sweeps")

    def __init__(
        self,
        *,
        couplings: Couplings,
        event_shape: tuple[int, ...],
        normalize: Normalizer | None = None,
        n_sweeps: int = 1000,
        **kwargs,
    ):
        axes = ",".join(f"axis_{i}" for i in range(len(event_shape)))
        kwargs.setdefault("signature", f"(),({axes})->({axes})")
        super().__init__(**kwargs)
        self.couplings = couplings
        self.event_shape = event_shape
        self.normalize = normalize
        self.n_sweeps = n_sweeps

    def __str__(self):
        return f"{self.name}_rv{self.event_shape}"

    def _supp_shape_from_params(self, dist_params, param_shapes=None):
        return [pt.constant(length, dtype="int64") for length in self.event_shape]

    def rng_fn(self, rng, coupling, biases, size):
        """Draw in backends other than numba."""

        def draw(coupling, biases):
            flat = draw_pairwise(
                rng, *self.couplings.arrays, coupling.item(), biases.ravel(), self.values[0], self.n_sweeps
            )
            return flat.reshape(self.event_shape)

        return loop_over_batch(draw, (0, len(self.event_shape)), (coupling, biases), size)

    def numba_draw(self, node):
        """Draw by numba."""
        data, indices, indptr = self.couplings.arrays
        low, n_sweeps, shape = self.values[0], self.n_sweeps, self.event_shape

        @njit
        def draw(rng, coupling, biases):
            flat = np.ascontiguousarray(biases).reshape(-1)
            return draw_pairwise(rng, data, indices, indptr, coupling.item(), flat, low, n_sweeps).reshape(shape)

        return draw

    def compiled_in(self):
        """Return the couplings."""
        return self.couplings.arrays


class BoltzmannMachineRV(PairwiseRV):
    """A field of units in {0, 1}."""

    name = "BoltzmannMachine"
    values = (0, 1)
    _print_name = ("BoltzmannMachine", "\\operatorname{BoltzmannMachine}")


class IsingRV(PairwiseRV):
    """A field of units in {−1, +1}."""

    name = "Ising"
    values = (-1, 1)
    _print_name = ("Ising", "\\operatorname{Ising}")


class _Layout(NamedTuple):
    """What J says, checked: couplings, the axes of the field, and the factor of a lattice."""

    couplings: Couplings
    event_shape: tuple[int, ...]
    factor: Any


def _read_field(distribution: str, J: Any, shape: Any, event_ndim: int | None) -> _Layout:
    """Check J and find the axes of the field."""
    if isinstance(J, _Layout):
        return J
    if event_ndim is not None and (isinstance(event_ndim, bool) or not isinstance(event_ndim, int | np.integer)):
        raise TypeError(f"event_ndim must be an integer, the number of axes of one field, got {event_ndim!r}")
    if event_ndim is not None and event_ndim < 1:
        raise ValueError(f"event_ndim must be at least 1, got {event_ndim}")
    lengths = None if shape is None else [_known_length(length) for length in convert_shape(shape)]
    if isinstance(J, Lattice):
        if event_ndim not in (None, len(J.shape)):
            raise ValueError(f"event_ndim must be {len(J.shape)}, the axes of the lattice {J.shape}, got {event_ndim}")
        if lengths is not None and tuple(lengths[-len(J.shape) :]) != J.shape:
            raise ValueError(
                f"the last axes of the shape (or dims, or data) of {distribution} must have the lengths {J.shape} of "
                f"the lattice, got {_describe(lengths)}"
            )
        return _Layout(as_couplings(J.couplings), J.shape, J.coupling)
    couplings = as_couplings(J)
    n_units = couplings.n_units
    if lengths is None:
        if event_ndim not in (None, 1):
            raise ValueError(f"event_ndim={event_ndim} needs the lengths of the axes too: give shape or dims")
        return _Layout(couplings, (n_units,), 1.0)
    rank = len(lengths) if event_ndim is None else event_ndim
    event_shape = tuple(length for length in lengths[-rank:] if length is not None)
    if len(event_shape) != rank or not rank or math.prod(event_shape) != n_units:
        hint = "; if leading axes are a batch of fields, say event_ndim" if event_ndim is None and rank > 1 else ""
        raise ValueError(
            f"the axes of the field must hold n = {n_units} units, as J says: got the shape (or dims, or data) "
            f"{_describe(lengths)} for {distribution} with event_ndim={event_ndim}{hint}"
        )
    return _Layout(couplings, event_shape, 1.0)


def _known_length(length: Any) -> int | None:
    """Return the length of an axis, None if it is symbolic."""
    if isinstance(length, SharedVariable | Constant):
        return int(extract_obs_data(length))
    return None if isinstance(length, Variable) else int(length)


def _describe(lengths: Sequence[int | None]) -> str:
    return f"({', '.join('unknown' if length is None else str(length) for length in lengths)})"


def _full_biases(argument: str, value: Any, event_shape: tuple[int, ...]) -> TensorVariable:
    """Convert biases to a tensor that has all axes of the field."""
    biases = finite_parameter(argument, value, 0)
    shape = biases.type.shape
    if isinstance(value, SharedVariable):
        shape = value.get_value(borrow=True).shape
    n_axes = len(event_shape)
    pairs = zip(reversed(shape), reversed(event_shape), strict=False)
    if any(got not in (None, 1, expected) for got, expected in pairs):
        raise ValueError(
            f"{argument} must be a number or have one entry for each unit, last axes {event_shape}, "
            f"got the shape {shape}"
        )
    if isinstance(biases, Constant):
        full = np.broadcast_to(biases.data, np.broadcast_shapes(biases.data.shape, event_shape))
        return pt.constant(np.ascontiguousarray(full), dtype=biases.dtype)
    if biases.type.shape[-n_axes:] == event_shape:
        return biases
    return biases + np.zeros(event_shape, biases.dtype)


class _Pairwise(BinaryUnits):
    """What the two distributions share; a subclass has the values of a unit and the name of its biases."""

    biases_name: str

    def __new__(cls, name, J, biases, *, event_ndim=None, dims=None, observed=None, **kwargs):
        """Register the distribution as a variable of the current model."""
        shape = kwargs.get("shape")
        if shape is None and kwargs.get("size") is None:
            if dims is not None:
                shape = shape_from_dims(convert_dims(dims), modelcontext(None))
            elif observed is not None:
                shape = np.shape(extract_obs_data(observed) if isinstance(observed, Variable) else observed)
        field = _read_field(cls.__name__, J, shape, event_ndim)
        return super().__new__(
            cls, name, field, biases, event_shape=field.event_shape, dims=dims, observed=observed, **kwargs
        )

    @classmethod
    def _dist(
        cls,
        J,
        biases,
        *,
        coupling,
        normalize: Normalize,
        event_ndim: int | None = None,
        n_sweeps: int = 1000,
        **kwargs,
    ):
        field = _read_field(cls.__name__, J, kwargs.get("shape"), event_ndim)
        coupling = finite_parameter("coupling", coupling, 0)
        if isinstance(field.factor, Variable) or field.factor != 1:
            factor = finite_parameter("the factor of the lattice", field.factor, 0)
            known = isinstance(factor, Constant) and isinstance(coupling, Constant)
            coupling = pt.constant(factor.data * coupling.data) if known else factor * coupling
        biases = _full_biases(cls.biases_name, biases, field.event_shape)
        network = Field(field.couplings, field.event_shape, cls.values, coupling, biases)
        normalizer = choose_normalizer(cls.__name__, normalize, network, _NORMALIZERS, _EXACT)
        return super().dist(
            [coupling, biases],
            couplings=field.couplings,
            event_shape=field.event_shape,
            normalize=normalizer,
            n_sweeps=at_least(1, "n_sweeps", n_sweeps),
            **kwargs,
        )


def _symbolic_draw(op: PairwiseRV, coupling, biases, size, rng) -> TensorVariable:
    if rng is None:
        rng = pt.random.shared_rng(seed=None)
    return op(coupling, biases, size=size, rng=rng, return_next_rng=True)[1]


def _start(rv, coupling, biases):
    """Start in one fixed draw of the units, each given its field while the others are half up.

    Without a field that is disorder of no scale. A uniform start would be a typical state of the field as a strong
    coupling would have it, which a sampler that moves one variable given the others may never leave.
    """
    op = rv.owner.op
    low, high = op.values
    if (low, high) == (0, 1):
        row_sums = op.couplings.matrix.sum(axis=1).reshape(op.event_shape)
        logits = biases + 0.5 * pt.shape_padright(coupling, len(op.event_shape)) * row_sums
    else:
        logits = 2 * biases
    thresholds = logit(_scattered(op.couplings.n_units)).reshape(op.event_shape).astype(biases.dtype)
    start = pt.switch(logits > thresholds, high, low)
    return start if start.type.shape == rv.type.shape == op.event_shape else pt.broadcast_to(start, rv.shape)


def _scattered(n: int) -> np.ndarray:
    """Return numbers between 0 and 1 that are spread evenly and do not depend on each other, the same in every run.

    They are a hash of the index, the finalizer of SplitMix64, so that no lattice sees a pattern.
    """
    x = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54


class BoltzmannMachine(_Pairwise):
    r"""A field of units in {0, 1}, coupled in pairs: a Boltzmann machine without hidden units.

    .. math::

        p(z) = e^{-E(z)} / Z, \qquad E(z) = -b \cdot z - \tfrac{c}{2} z^T J z,

    with the scalar `coupling` c (Ackley, Hinton and Sejnowski [1]_). Its log-probability is −inf off {0, 1}.

    Parameters
    ----------
    J : array_like, sparse array or matrix, networkx graph or Lattice; shape (n, n)
        Couplings: constant data, symmetric with zero diagonal. Sparse matrices stay sparse. A graph's couplings are
        the attribute "weight" of its edges, 1 without one, in the order of its nodes; see `lattice` for lattices.
    b : tensor_like of float, shape (..., axes of the field)
        Biases; a number for all units, or what broadcasts over the axes of the field. Leading dimensions of the
        parameters are a batch of independent fields.
    coupling : tensor_like of float, shape (...)
        Multiplies J; nothing is rebuilt when it changes. ``beta * lattice`` in place of J means the same.
    normalize : {None, "enumerate", "transfer", "kaufman", "exact"} or Normalizer
        With None the constant log Z is left out: right for sampling with fixed parameters, and cheap. The other
        choices include it, with its gradient in `coupling` and b; parameters that depend on other random variables
        need it, and so do ``pm.Mixture``, model comparison and LOO across fields. "enumerate" takes at most 20
        units, any couplings; "transfer" lattices at most 12 sites wide and open along their length, or 6 if they
        are periodic both ways (and any sparse network that is as narrow in its order, or in one that is found);
        "kaufman" square lattices of any size, periodic along both axes, with sides of at least 3, one coupling for
        all bonds, no field (b = −c/2 J·1), and a coupling that is not negative unless both sides are even.
        "exact" picks the one that applies, or refuses. `dist` wants this argument said explicitly.
    event_ndim : int, optional
        Number of axes of one field; leading axes beyond it are a batch. By default those of the lattice, or else
        all axes that `shape`, `dims` or the data give, or else 1. The product of their lengths is n.
    n_sweeps : int
        For draws (``pm.draw``, prior and posterior predictive): the number of Gibbs sweeps from a random start after
        which the state is taken for a draw. This is an approximation, good if the field mixes within that many
        sweeps. It is not used for at most 12 units: draws are then exact, by enumeration.

    Raises
    ------
    ValueError
        If J is not square, symmetric, finite and zero on its diagonal; if biases, axes or data do not fit it; if
        parameters are not finite; if `observed` or `initval` is not 0 or 1; if `observed` is masked everywhere; if
        `normalize` is unknown or does not apply; if `n_sweeps` < 1.
    TypeError
        If J is symbolic: only `coupling` and b may vary.

    See Also
    --------
    Ising : the same model of units in {−1, +1}.

    Notes
    -----
    Masked data clamp units: ``observed=np.ma.masked_array(image, mask=unknown)`` holds the units where the mask is
    False, and the model's posterior is p(masked units | others). Draws from the prior ignore the clamp.

    References
    ----------
    .. [1] D. H. Ackley, G. E. Hinton and T. J. Sejnowski, "A learning algorithm for Boltzmann machines", Cognitive
       Science 9 (1985) 147, eqs. 1 and 4.

    Examples
    --------
    >>> import pymc as pm, pm_neural as pmn
    >>> with pm.Model():
    ...     z = pmn.BoltzmannMachine("z", [[0, 1.5], [1.5, 0]], [-1, -1])
    >>> pm.draw(z, random_seed=1).shape
    (2,)
    """

    rv_type = BoltzmannMachineRV
    values = (0, 1)
    biases_name = "b"

    def __new__(cls, name, J, b, *, coupling=1.0, normalize: Normalize = None, **kwargs):
        """Register the distribution as a variable of the current model."""
        return super().__new__(cls, name, J, b, coupling=coupling, normalize=normalize, **kwargs)

    @classmethod
    def dist(cls, J, b, *, coupling=1.0, normalize: Normalize = UNSAID, **kwargs):
        """Make a variable that belongs to no model; `normalize` must be given."""
        return cls._dist(J, b, coupling=coupling, normalize=normalize, **kwargs)

    @classmethod
    def rv_op(cls, coupling, b, *, size=None, rng=None, **properties):
        """Draw from the distribution, symbolically."""
        return _symbolic_draw(BoltzmannMachineRV(**properties), coupling, b, size, rng)

    def support_point(rv, size, coupling, b):
        """Start each unit by its field with all others half on, in disorder without one."""
        return _start(rv, coupling, b)


class Ising(_Pairwise):
    r"""A field of spins in {−1, +1}, coupled in pairs: an Ising model.

    .. math::

        p(s) = e^{-E(s)} / Z, \qquad E(s) = -h \cdot s - \tfrac{c}{2} s^T J s,

    with the scalar `coupling` c; on a lattice, where each bond of J is 1, c is the inverse temperature in units of the
    bond. Its log-probability is −inf off {−1, +1}.

    Parameters
    ----------
    J : array_like, sparse array or matrix, networkx graph or Lattice; shape (n, n)
        Couplings: constant data, symmetric with zero diagonal, as in `BoltzmannMachine`.
    h : tensor_like of float, shape (..., axes of the field)
        The field; a number for all spins, or what broadcasts over the axes.
    coupling, normalize, event_ndim, n_sweeps
        As in `BoltzmannMachine`. "kaufman" needs h = 0 [1]_.

    Raises
    ------
    ValueError, TypeError
        As `BoltzmannMachine`; `observed` and `initval` must be −1 or 1.

    See Also
    --------
    BoltzmannMachine : the same model of units in {0, 1}: with z = (s + 1)/2, J' = 4J and b = 2h − 2 J·1.

    Notes
    -----
    Data that are 0 and 1 become spins by ``2 * data - 1``. Of PyMC's own step methods, those for binary variables
    propose 1 − s, which is no spin: on an Ising field they never move.

    References
    ----------
    .. [1] B. Kaufman, "Crystal statistics. II. Partition function evaluated by spinor analysis", Physical Review 76
       (1949) 1232.

    Examples
    --------
    >>> import pymc as pm, pm_neural as pmn
    >>> with pm.Model():
    ...     beta = pm.HalfNormal("beta")
    ...     s = pmn.Ising("s", pmn.lattice((3, 3), periodic=True), coupling=beta, normalize="exact")
    >>> pm.draw(s, random_seed=1).shape
    (3, 3)
    """

    rv_type = IsingRV
    values = (-1, 1)
    biases_name = "h"

    def __new__(cls, name, J, h=0.0, *, coupling=1.0, normalize: Normalize = None, **kwargs):
        """Register the distribution as a variable of the current model."""
        return super().__new__(cls, name, J, h, coupling=coupling, normalize=normalize, **kwargs)

    @classmethod
    def dist(cls, J, h=0.0, *, coupling=1.0, normalize: Normalize = UNSAID, **kwargs):
        """Make a variable that belongs to no model; `normalize` must be given."""
        return cls._dist(J, h, coupling=coupling, normalize=normalize, **kwargs)

    @classmethod
    def rv_op(cls, coupling, h, *, size=None, rng=None, **properties):
        """Draw from the distribution, symbolically."""
        return _symbolic_draw(IsingRV(**properties), coupling, h, size, rng)

    def support_point(rv, size, coupling, h):
        """Start each spin along its own field if that is strong, in disorder without one."""
        return _start(rv, coupling, h)


@_logprob.register(PairwiseRV)
def _pairwise_logprob(op, values, rng, size, coupling, biases, **kwargs):
    (value,) = values
    random = random_inputs([coupling, biases])
    if random and op.normalize is None:
        raise ValueError(unnormalized_message(getattr(value, "name", None) or op.name, random))
    shape = op.event_shape
    axes = tuple(range(-len(shape), 0))
    state = as_float(value, biases)
    flat = raveled(state, shape)
    logp = (biases * state).sum(axis=axes) + coupling * Blockwise(PairSum(op.couplings))(flat)
    if op.normalize is not None:
        logp = op.normalize.normalized(logp, Field(op.couplings, shape, op.values, coupling, biases))
    return pt.switch(on_support(value, op.values, len(shape)), logp, -np.inf)


@network_of.register(PairwiseRV)
def _pairwise_network(op, node):
    coupling, biases = op.dist_params(node)
    return PairwiseNetwork(
        couplings=op.couplings.matrix,
        coupling=coupling,
        biases=raveled(biases, op.event_shape),
        values=op.values,
        ndim=len(op.event_shape),
        normalized=op.normalize is not None,
    )
