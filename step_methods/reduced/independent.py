"""What is left to sample of units without couplings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pytensor import config
from scipy.sparse import csr_array

from step_methods.network import IndependentNetwork, reduced_of
from step_methods.reading.evidence import Evidence
from step_methods.reading.readers import NetworkReader
from step_methods.reduced.pairwise import ReducedPairwise

__all__ = ["ReducedIndependent"]


@reduced_of.register(IndependentNetwork)
def _reduced(
    network: IndependentNetwork, reader: NetworkReader, updated: set[str], evidence: Mapping[str, Evidence]
) -> ReducedIndependent:
    return ReducedIndependent(reader, updated, evidence)


class ReducedIndependent(ReducedPairwise):
    """Units without couplings as one field of a pairwise network; see `ReducedNetwork` for the parameters."""

    def __init__(self, reader: NetworkReader, updated: set[str], evidence: Mapping[str, Evidence]):
        values, _ = reader.visible.read()
        if not values.size:
            raise ValueError(f"{reader.name!r} has the shape {values.shape}: there is no unit in it to sample")
        self._shape = values.shape
        couplings = csr_array((values.size, values.size), dtype=config.floatX)
        super().__init__(couplings, IndependentNetwork.values, values.ndim, reader, updated, evidence)

    def reduce(self, logits: Mapping[str, np.ndarray], *, parameters_are_new: bool) -> None:
        (field,) = self.fields
        if parameters_are_new:
            (parameter,) = self.parameters
            log_odds = np.broadcast_to(parameter, self._shape).ravel()
            # What is certain adds nothing to the energy of a state that is possible.
            finite = np.where(np.isinf(log_odds), 0, log_odds)
            self._log_odds = log_odds[field.free]
            field.plain_biases[:] = finite[field.free]
            field.constant_energy = -float(finite @ field.bits)
        own_logits = logits.get(self.variable)
        with np.errstate(invalid="ignore"):
            field.biases[:] = self._log_odds if own_logits is None else self._log_odds + own_logits
        if own_logits is not None and np.isnan(field.biases).any():
            names = ", ".join(repr(str(term.name)) for term in self.reader.terms[self.variable])
            unit = int(np.isnan(field.biases).argmax())
            raise ValueError(
                f"the terms {names} of the model leave no value to the unit {unit} of {self.name!r}: they exclude the "
                "only one that its probability of 0 or 1 allows"
            )
