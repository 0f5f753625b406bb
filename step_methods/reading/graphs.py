"""Graphs whose values are known without compiling them, and those that are random."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pytensor import function
from pytensor.compile.mode import Mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.type import RandomType

__all__ = ["evaluate", "random_inputs"]

# Evaluates constant graphs in milliseconds, where compiling them would take seconds.
_EVALUATE = Mode(linker="py", optimizer=None)


def evaluate(variables: Sequence[Variable]) -> list[np.ndarray]:
    """Return the values of variables that depend on constants and shared data only, without compiling them."""
    return function([], list(variables), mode=_EVALUATE, on_unused_input="ignore")()


def random_inputs(variables: Sequence[Variable]) -> list[Variable]:
    """Find what makes variables random: draws, or free inputs that stand for draws.

    Constants and shared data are fixed; a random variable, and in a log-probability the value that took
    its place, are not.

    Parameters
    ----------
    variables : sequence of Variable

    Returns
    -------
    list of Variable
        Empty if the variables are fixed.
    """
    return [
        variable
        for variable in ancestors(variables)
        if not isinstance(variable.type, RandomType)
        and (
            any(isinstance(source.type, RandomType) for source in variable.owner.inputs)
            if variable.owner
            else not isinstance(variable, Constant | SharedVariable)
        )
    ]
