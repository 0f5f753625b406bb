"""Which variables of a model a step method is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pymc.model import Model, modelcontext
from pytensor.graph.basic import Variable

__all__ = ["ChosenVariables", "Variables"]

type Variables = Sequence[Variable | str] | Variable | str | None


class ChosenVariables:
    """Let a step method be given variables, their names, or none: then it takes those that are for it.

    To be placed ahead of `BlockedStep` among the bases, which splits variables into steps of their own.
    """

    def __new__(cls, vars: Variables = None, *args: Any, **kwargs: Any) -> Self:
        """Find the variables before PyMC sees them."""
        model = modelcontext(kwargs.get("model"))
        return super().__new__(cls, cls.choose(vars, model), *args, **kwargs)  # type: ignore[call-arg]

    @classmethod
    def takes(cls, rv: Variable) -> bool:
        """Whether a free random variable is for this step method where none is named."""
        raise NotImplementedError

    @classmethod
    def choose(cls, vars: Variables, model: Model) -> list[Variable]:
        """Return the variables that are meant.

        Raises
        ------
        ValueError
            If a name is not one of a variable of the model, or if none is given and the model has none that is for this
            step method.
        """
        if vars is None:
            chosen = [rv for rv in model.free_RVs if cls.takes(rv)]
            if not chosen:
                raise ValueError(
                    f"the model has no variable for {cls.__name__}: its free variables are "
                    f"{', '.join(repr(str(rv.name)) for rv in model.free_RVs) or 'none'}"
                )
            return chosen
        several = isinstance(vars, Sequence) and not isinstance(vars, str)
        return [_named(var, model) if isinstance(var, str) else var for var in (vars if several else [vars])]


def _named(name: str, model: Model) -> Variable:
    if name not in model.named_vars:
        raise ValueError(f"vars must name variables of the model, {sorted(model.named_vars)}, got {name!r}")
    return model[name]
