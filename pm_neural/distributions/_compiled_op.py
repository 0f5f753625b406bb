"""Operations that PyTensor's backends have to be taught."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from pytensor.compile.mode import optdb
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import GraphRewriter

__all__ = ["CompiledOp"]


class CompiledOp:
    """Mixin of our operations: the first of them to be made, or unpickled, teaches the backends all of them.

    The numba backend takes half as long to import as PyMC itself, so nothing loads it before a model needs it. JAX has
    none of them, and is told so when it is first used.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        _teach_backends()
        super().__init__(*args, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        _teach_backends()
        self.__dict__.update(state)


class _TeachJAX(GraphRewriter):
    """Rewrites nothing: where graphs are rewritten for JAX, it is loaded, and can be told what it lacks."""

    def apply(self, fgraph: FunctionGraph) -> None:
        import_module("pm_neural.distributions._jax")


@cache
def _teach_backends() -> None:
    import_module("pm_neural.distributions._numba")
    optdb.register("pm_neural_in_jax", _TeachJAX(), "jax", position=0)
