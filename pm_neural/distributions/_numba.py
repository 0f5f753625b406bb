"""Teach PyTensor's numba backend our operations.

The functions imported here from PyTensor are internal to it; nothing else in the package touches them.
"""

from __future__ import annotations

import logging
import zlib
from hashlib import sha256
from pathlib import Path
from threading import current_thread, main_thread

import numpy as np
from numba import njit, objmode, types
from pytensor.link.numba.dispatch.basic import (
    NUMBA_CONSTANT_SIZE_LIMIT,
    get_numba_type,
    register_funcify_and_cache_key,
    register_funcify_default_op_cache_key,
)
from pytensor.link.numba.dispatch.random import numba_core_rv_funcify

from pm_neural.distributions import _draws, _elimination, _kaufman, boltzmann, spin_normalizer
from pm_neural.distributions._draws import draw_gaussian_visible, draw_hidden, draw_pairwise, draw_visible
from pm_neural.distributions._elimination import elimination_log_partition
from pm_neural.distributions.boltzmann import PairSum, PairwiseRV, pair_sum
from pm_neural.distributions.decoder import DecoderRV
from pm_neural.distributions.energy import EnergyRV, TorchEnergy, no_draws
from pm_neural.distributions.gaussian_rbm import GaussianRBMRV
from pm_neural.distributions.normalizer import MAX_ENUMERATED_UNITS, QuadraticLogPartition, RBMLogPartition
from pm_neural.distributions.rbm import BernoulliRBMRV, HiddenUnitsRV
from pm_neural.distributions.spin_normalizer import (
    EliminationLogPartition,
    TorusLogPartition,
    torus_log_partition,
)
from step_methods.kernels import enumeration
from step_methods.kernels.enumeration import log_partition_gradient, quadratic_log_partition

__all__: list[str] = []

_log = logging.getLogger("pm_neural")

# Part of the key under which PyTensor keeps compiled functions on disk. They contain ours, so they are stale as
# soon as one of the files changes.
_MODULES = (_draws, _elimination, _kaufman, boltzmann, spin_normalizer, enumeration)
_SOURCES = (__file__, *(str(module.__file__) for module in _MODULES))
_CACHE_VERSION = zlib.crc32(b"".join(Path(path).read_bytes() for path in _SOURCES))


@numba_core_rv_funcify.register(BernoulliRBMRV)
def _bernoulli_rbm(op, node):
    n_sweeps = op.n_sweeps

    @njit
    def draw(rng, W, a, b):
        return draw_visible(rng, W, a, b, n_sweeps)

    return draw, _CACHE_VERSION


@numba_core_rv_funcify.register(GaussianRBMRV)
def _gaussian_rbm(op, node):
    n_sweeps = op.n_sweeps

    @njit
    def draw(rng, W, a, b, sigma):
        return draw_gaussian_visible(rng, W, a, b, sigma, n_sweeps)

    return draw, _CACHE_VERSION


@numba_core_rv_funcify.register(HiddenUnitsRV)
def _hidden_units(op, node):
    @njit
    def draw(rng, v, W, b):
        return draw_hidden(rng, v, W, b)

    return draw, _CACHE_VERSION


@register_funcify_default_op_cache_key(RBMLogPartition)
def _rbm_log_partition(op, node, **kwargs):
    dtypes = [np.dtype(output.dtype) for output in node.outputs]
    value_dtype, W_dtype, a_dtype, b_dtype = dtypes
    limit = MAX_ENUMERATED_UNITS

    @njit
    def log_partition(W, a, b):
        if min(W.shape) > limit:
            raise ValueError('normalize="exact": too many units in the smaller layer')
        log_z, pairs, visible, hidden = log_partition_gradient(
            W.astype(np.float64), a.astype(np.float64), b.astype(np.float64)
        )
        return (
            np.asarray(log_z).astype(value_dtype),
            pairs.astype(W_dtype),
            visible.astype(a_dtype),
            hidden.astype(b_dtype),
        )

    return log_partition, _CACHE_VERSION


@register_funcify_default_op_cache_key(QuadraticLogPartition)
def _quadratic_log_partition(op, node, **kwargs):
    value_dtype, G_dtype, c_dtype = (np.dtype(output.dtype) for output in node.outputs)
    limit = MAX_ENUMERATED_UNITS

    @njit
    def log_partition(G, c):
        if c.size > limit:
            raise ValueError('normalize="exact": too many hidden units')
        log_sum, pairs, means = quadratic_log_partition(
            np.ascontiguousarray(G.astype(np.float64)), np.ascontiguousarray(c.astype(np.float64))
        )
        return np.asarray(log_sum).astype(value_dtype), pairs.astype(G_dtype), means.astype(c_dtype)

    return log_partition, _CACHE_VERSION


def _cache_version(arrays) -> int | None:
    """Return a key for a function that has arrays compiled in, None if one is large: it then refers to memory."""
    return None if any(array.nbytes > NUMBA_CONSTANT_SIZE_LIMIT for array in arrays) else _CACHE_VERSION


def _cache_key(op, node, arrays) -> str | None:
    if _cache_version(arrays) is None:
        return None
    dtypes = [str(variable.dtype) for variable in (*node.inputs, *node.outputs)]
    return sha256(repr((type(op), op._props_dict(), dtypes, _CACHE_VERSION)).encode()).hexdigest()


@numba_core_rv_funcify.register(PairwiseRV)
def _pairwise(op, node):
    data, indices, indptr = op.couplings.arrays
    low, n_sweeps, shape = op.values[0], op.n_sweeps, op.event_shape

    @njit
    def draw(rng, coupling, biases):
        flat = np.ascontiguousarray(biases).reshape(-1)
        return draw_pairwise(rng, data, indices, indptr, coupling.item(), flat, low, n_sweeps).reshape(shape)

    return draw, _cache_version(op.couplings.arrays)


@register_funcify_and_cache_key(PairSum)
def _pair_sum(op, node, **kwargs):
    data, indices, indptr = op.pairs.data, op.pairs.indices, op.pairs.indptr
    dtype = np.dtype(node.outputs[0].dtype)

    @njit
    def sum_of_pairs(state):
        return np.asarray(pair_sum(data, indices, indptr, state)).astype(dtype)

    return sum_of_pairs, _cache_key(op, node, op.couplings.arrays)


def _spin_log_partition(compute, node):
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


@register_funcify_and_cache_key(EliminationLogPartition)
def _elimination_log_partition(op, node, **kwargs):
    sites, widths, starts, bits, couplings, removed_starts, removed_bits = op.plan

    @njit
    def compute(coupling, fields):
        return elimination_log_partition(
            sites, widths, starts, bits, couplings, removed_starts, removed_bits, coupling, fields
        )

    return _spin_log_partition(compute, node), _cache_key(op, node, op.plan)


@register_funcify_and_cache_key(TorusLogPartition)
def _torus_log_partition(op, node, **kwargs):
    rows, columns, weight, rounding = op.rows, op.columns, op.weight, op.rounding

    @njit
    def compute(coupling, fields):
        return torus_log_partition(rows, columns, weight, rounding, coupling, fields)

    return _spin_log_partition(compute, node), _cache_key(op, node, ())


@numba_core_rv_funcify.register(EnergyRV)
def _no_draws(op, node):
    raise no_draws()


@register_funcify_and_cache_key(TorchEnergy)
def _torch_energy(op, node, **kwargs):
    """Call the module from compiled code; PyTensor's own way of doing so warns, as it means a slow operation."""
    compute = _without_errors_in_threads(op)
    output_types = [get_numba_type(output.type) for output in node.outputs]
    result_type = types.Tuple(output_types) if op.with_gradient else output_types[0]

    @njit
    def energy(points):
        with objmode(result=result_type):
            result = compute(points)
        return result

    return energy, None


@numba_core_rv_funcify.register(DecoderRV)
def _decoder(op, node):
    pixels, is_binary, n_visible = op.module.pixels, op.module.is_binary, op.module.n_visible
    dtype = np.dtype(node.outputs[1].dtype)

    @njit
    def draw(rng, latent, known):
        noise = rng.random(n_visible) if is_binary else rng.normal(0.0, 1.0, n_visible)
        with objmode(result="float64[:]"):
            result = pixels(latent, noise)
        return result.astype(dtype)

    return draw, None


def _without_errors_in_threads(op):
    """Let no Python error out into threads of other runtimes, such as nutpie's, which it would crash.

    There the first error is logged and the energy is NaN, which samplers reject and count as a divergence. Elsewhere
    errors come out as they are.
    """
    compute = op.module.energy_and_gradient if op.with_gradient else op.module.energy
    logged = False

    def compute_or_nan(points):
        nonlocal logged
        try:
            return compute(points)
        except Exception:
            if current_thread() is main_thread():
                raise
            if not logged:
                _log.exception("the module of an Energy raised an error; its energy is taken as NaN")
                logged = True
            energies = np.full(points.shape[: points.ndim - len(op.module.event_shape)], np.nan, points.dtype)
            return (energies, np.full_like(points, np.nan)) if op.with_gradient else energies

    return compute_or_nan
