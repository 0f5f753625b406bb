"""PyMC's default start values, told from those that a user gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytensor.tensor as pt
from pymc.distributions.distribution import PartialObservedRV, support_point
from pymc.model import Model
from pytensor import config
from pytensor.graph.basic import Variable
from pytensor.graph.replace import graph_replace

from step_methods.reading.graphs import evaluate, random_inputs

__all__ = ["DefaultStarts"]


class DefaultStarts:
    """Tell the start values that PyMC chooses from those that a user gives.

    PyMC starts a variable in one deterministic state if it is given none, and says nowhere which of them it did.

    Parameters
    ----------
    model : Model
    values : sequence of Variable
        Value variables.
    point : mapping
        A point that a chain may start from, whose other variables the defaults may depend on.
    """

    def __init__(self, model: Model, values: Sequence[Variable], point: Mapping[str, np.ndarray]):
        self._graphs: dict[str, tuple[Variable, dict[str, Variable]]] = {}
        # The graphs are small and many, and PyTensor would note down the code that makes each of their nodes.
        with config.change_flags(traceback__limit=0):
            for value in values:
                # What is declared with the variable is a user's as well, the name of a strategy included.
                rv = model.values_to_rvs[value]
                if model.rvs_to_initial_values.get(rv) is None and (graph := _default_start(model, rv)) is not None:
                    self._graphs[str(value.name)] = graph
            self._at_first = self._at(list(self._graphs), point)

    def holds(self, name: str, point: Mapping[str, np.ndarray]) -> bool:
        """Whether the value of a variable at the start of a chain is the default."""
        if name not in self._graphs:
            return False
        # The others may have been given values of their own for this chain, or have been moved by the steps before.
        return np.array_equal(point[name], self._at_first[name]) or np.array_equal(
            point[name], self._at([name], point)[name]
        )

    def _at(self, names: Sequence[str], point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        starts = [self._graphs[name][0] for name in names]
        inputs = {var: other for name in names for other, var in self._graphs[name][1].items()}
        if inputs:
            values = {var: var.type.filter_variable(np.asarray(point[other])) for var, other in inputs.items()}
            starts = graph_replace(starts, values, strict=False)
        return dict(zip(names, evaluate(starts), strict=True))


def _default_start(model: Model, rv: Variable) -> tuple[Variable, dict[str, Variable]] | None:
    """Return PyMC's start value of a variable and the value variables that it depends on; None if it is random."""
    try:
        start = support_point(rv)
    except NotImplementedError:  # then PyMC draws from the prior
        return None
    if isinstance(rv.owner.op, PartialObservedRV):
        # Of the whole variable, which is not in the model, the start needs the shape alone.
        whole, mask = rv.owner.inputs
        stand_in = whole.type.filter_variable(pt.zeros_like(mask, dtype=whole.dtype))
        (start,) = graph_replace([start], {whole: stand_in}, strict=False)
    if not random_inputs([start]):
        return start, {}
    (start,) = model.replace_rvs_by_values([start])
    random = random_inputs([start])
    inputs = {str(var.name): var for var in model.value_vars if var in set(random)}
    return (start, inputs) if len(inputs) == len(random) else None
