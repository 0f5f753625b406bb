"""Start values under the name of a network's variable whose data are masked.

PyMC knows the free part of such a variable under a name of its own, and leaves out without a word what ``initvals`` say
under the name that the user declared. Nothing asks a distribution or a step method, so the one function of PyMC that
reads the names is wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import pymc.initial_point
from pymc.model import Model

from step_methods.reading.layers import free_variable, is_binary_energy, is_layer

__all__ = ["refuse_names_of_masked_variables"]


def refuse_names_of_masked_variables() -> None:
    """Let PyMC raise where a start value is under a name that it would ignore; doing so twice is doing it once."""
    read_names = pymc.initial_point.convert_str_to_rv_dict
    if not hasattr(read_names, "__wrapped__"):
        pymc.initial_point.convert_str_to_rv_dict = _with_check(read_names)


def _with_check(read_names: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(read_names)
    def read_names_and_check(model: Model, start: Mapping[Any, Any]) -> Any:
        starts = read_names(model, start)
        for variable in starts:
            if variable in model.deterministics:
                free = free_variable(model, variable)
                if free is not variable and (is_layer(free) or is_binary_energy(free)):
                    raise ValueError(
                        f"initvals of {variable.name!r}, whose data are masked, must be those of its free units, "
                        f"{free.name!r}: initvals={{{free.name!r}: ...}}, a value for each masked entry in row-major "
                        f"order; got a start value for {variable.name!r}, which PyMC would ignore"
                    )
        return starts

    return read_names_and_check
