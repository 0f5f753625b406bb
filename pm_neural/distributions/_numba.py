"""Teach PyTensor's numba backend our operations.

The functions imported here from PyTensor are internal to it; nothing else in the package touches them.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from numba import njit
from pytensor.link.numba.dispatch.basic import register_funcify_default_op_cache_key
from pytensor.link.numba.dispatch.random import numba_core_rv_funcify

from pm_neural.distributions import _draws
from pm_neural.distributions._draws import draw_hidden, draw_visible
from pm_neural.distributions.normalizer import MAX_ENUMERATED_UNITS, RBMLogPartition
from pm_neural.distributions.rbm import BernoulliRBMRV, HiddenUnitsRV
from step_methods.kernels import enumeration
from step_methods.kernels.enumeration import log_partition_gradient

__all__: list[str] = []

# Part of the key under which PyTensor keeps compiled functions on disk. They contain ours, so they are stale as
# soon as one of the files changes.
_CACHE_VERSION = zlib.crc32(
    b"".join(Path(path).read_bytes() for path in (__file__, _draws.__file__, enumeration.__file__))
)


@numba_core_rv_funcify.register(BernoulliRBMRV)
def _bernoulli_rbm(op, node):
    n_sweeps = op.n_sweeps

    @njit
    def draw(rng, W, a, b):
        return draw_visible(rng, W, a, b, n_sweeps)

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
