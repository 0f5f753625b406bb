"""Operations that PyTensor's numba backend has to be taught."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["CompiledOp"]


class CompiledOp:
    """Mixin of our operations: the first of them to be made, or unpickled, teaches the numba backend all of them.

    The backend takes half as long to import as PyMC itself, so nothing loads it before a model needs it.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        _teach_numba()
        super().__init__(*args, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        _teach_numba()
        self.__dict__.update(state)


def _teach_numba() -> None:
    import_module("pm_neural.distributions._numba")
