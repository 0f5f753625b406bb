"""Operations that carry their own compiled forms.

What is used here of PyTensor's backends is internal to them, and used nowhere else.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from inspect import getfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from pytensor.compile.mode import optdb
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.rewriting.basic import GraphRewriter
from pytensor.tensor.random.op import RandomVariable

from step_methods import kernels

__all__ = ["CompiledOp", "CompiledRV", "numba_type"]


class _Compiled:
    """What has a compiled form: the first one that is made, or unpickled, tells the backends.

    The numba backend takes half as long to import as PyMC itself, so nothing loads it before a model needs it.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        _tell_backends()
        super().__init__(*args, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        _tell_backends()
        self.__dict__.update(state)

    def compiled_in(self) -> Sequence[np.ndarray] | None:
        """Return the arrays that the compiled form contains, None if it cannot be kept on disk for other reasons."""
        return ()


class CompiledOp(_Compiled, Op):
    """An operation with a compiled form."""

    def numba_function(self, node: Apply) -> Callable[..., Any]:
        """Return a function that numba has been told to compile, from the inputs of a node to its outputs."""
        raise NotImplementedError


class CompiledRV(_Compiled, RandomVariable):
    """A random variable whose draws have a compiled form."""

    def numba_draw(self, node: Apply) -> Callable[..., Any]:
        """Return a function that numba has been told to compile, from a generator and parameters to one draw."""
        raise NotImplementedError


def numba_type(variable: Variable) -> Any:
    """Return the type that numba gives a variable."""
    return import_module("pytensor.link.numba.dispatch.basic").get_numba_type(variable.type)


@cache
def _tell_backends() -> None:
    basic = import_module("pytensor.link.numba.dispatch.basic")
    random = import_module("pytensor.link.numba.dispatch.random")
    basic.register_funcify_and_cache_key(CompiledOp)(_numba_function_and_key)
    random.numba_core_rv_funcify.register(CompiledRV)(_numba_draw_and_key)
    optdb.register("pm_neural_in_jax", _TellJAX(), "jax", position=0)


def _numba_function_and_key(op: CompiledOp, node: Apply, **kwargs: Any) -> tuple[Callable[..., Any], str | None]:
    version = _cache_version(op)
    if version is None:
        return op.numba_function(node), None
    dtypes = tuple(str(variable.dtype) for variable in (*node.inputs, *node.outputs))
    key_from_props = import_module("pytensor.link.numba.dispatch.basic").default_hash_key_from_props
    return op.numba_function(node), key_from_props(op, dtypes=dtypes, version=version)


def _numba_draw_and_key(op: CompiledRV, node: Apply) -> tuple[Callable[..., Any], int | None]:
    return op.numba_draw(node), _cache_version(op)


def _cache_version(op: _Compiled) -> int | None:
    """Return part of the key under which PyTensor keeps a compiled form on disk; None if it must not be kept."""
    limit = import_module("pytensor.link.numba.dispatch.basic").NUMBA_CONSTANT_SIZE_LIMIT
    arrays = op.compiled_in()
    if arrays is None or any(array.nbytes > limit for array in arrays):  # a large array is referred to in memory
        return None
    try:
        return _sources_version(getfile(type(op)))
    except (OSError, TypeError):  # declared in a session, without a file
        return None


@cache
def _sources_version(file: str) -> int:
    """Return a number that changes with a file, or with our sources: what is compiled contains functions of them."""
    folders = (Path(__file__).parent, Path(kernels.__file__).parent)
    files = {Path(file), *(path for folder in folders for path in folder.rglob("*.py"))}
    return zlib.crc32(b"".join(path.read_bytes() for path in sorted(files)))


class _TellJAX(GraphRewriter):
    """Rewrites nothing: where graphs are rewritten for JAX, it is loaded, and can be told what it lacks."""

    def apply(self, fgraph: FunctionGraph) -> None:
        import_module("pytensor.link.jax.dispatch").jax_funcify.register(_Compiled)(_refuse_jax)


def _refuse_jax(op: _Compiled, node: Any = None, **kwargs: Any) -> NoReturn:
    raise NotImplementedError(
        f"{type(op).__name__} of pm_neural cannot run in JAX, so that nuts_sampler='numpyro' and 'blackjax' cannot "
        "sample this model. Sample it with PyMC's own NUTS, nuts_sampler='pymc', or with nuts_sampler='nutpie'"
    )
