"""What a sampler is given: what is left to sample once a model has been read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from pymc.blocking import PointType

from step_methods.reading.evidence import Evidence
from step_methods.reading.readers import NetworkReader
from step_methods.reduced.starts import check_agrees, disperse_units

__all__ = ["NO_UNITS", "Reduced", "ReducedNetwork"]

NO_UNITS = np.empty(0, np.int64)


class Reduced(ABC):
    """Units that are left to sample, and what their law depends on.

    Attributes
    ----------
    changes : bool
        Whether it has to be read at every step.
    inputs : list of str
        The value variables that are read then.
    conditioned_on, updated : list of str
        Names of the value variables that a draw depends on, and of those that it draws.
    """

    changes: bool
    inputs: list[str]
    conditioned_on: list[str]
    updated: list[str]

    @property
    @abstractmethod
    def n_units(self) -> int:
        """Number of units with few values that a draw updates."""

    @property
    def starts_of(self) -> list[str]:
        """Names of the value variables that a start is made for: those that are drawn, and others of the network.

        A first draw of one layer given the other at PyMC's default would be as good as no start of its own.
        """
        return self.updated

    @abstractmethod
    def start(self) -> None:
        """Forget, at the start of a chain, what may have changed since the last one."""

    @abstractmethod
    def read(self, point: Mapping[str, np.ndarray]) -> bool:
        """Read what has changed since the last time; return whether anything had to be read."""

    @abstractmethod
    def check_start(self, point: Mapping[str, np.ndarray], names: set[str]) -> None:
        """Raise if one of some variables starts at a value that evidence excludes.

        Raises
        ------
        ValueError
        """

    @abstractmethod
    def disperse(self, point: PointType, by_default: set[str], rng: np.random.Generator) -> None:
        """Give the chain a start of its own, in place, where PyMC's default is what it starts from.

        It must have been read at that point, as for `look`.

        Raises
        ------
        ValueError
            If a start that a user gave contradicts evidence.
        """

    def look(self, point: Mapping[str, np.ndarray], margin: float = 0.0) -> tuple[bool, bool]:
        """Return whether all units are certain to stay, and whether some of them could be elsewhere all the same.

        By default units can change, as real ones always do. See `step_methods.reduced.freeze.look_at_units`.

        Parameters
        ----------
        point : mapping
        margin : float
            By how much more than usual a logit must be beyond the bound at which a unit is certain.
        """
        return False, False

    def logits_at(self, point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the evidence on the units at a point, by the names of the variables that it is about."""
        return {}


class ReducedNetwork(Reduced):
    """What is left to sample of one network, which is a batch of one or more: its free units, all else folded in.

    A subclass says of what parts it consists (`lay_out`), and what their couplings and biases are (`reduce`).

    Parameters
    ----------
    reader : NetworkReader
    updated : set of str
        Names of the value variables that the step method updates. On a layer that is not among them it conditions.
    evidence : mapping
        What other terms say about the units of the variables that are updated, by name.

    Attributes
    ----------
    name : str
        Of the network, for errors.
    evidence : dict
        What other terms say about its units, by the names of value variables.
    parameters : tuple of ndarray
        Those of the network, in its order, as they were last read.
    is_stale : bool
        Whether clamped units are to be read again.
    """

    def __init__(self, reader: NetworkReader, updated: set[str], evidence: Mapping[str, Evidence]):
        self.reader = reader
        self.name = reader.name
        self.evidence = {name: evidence[name] for name in reader.free_layers if name in evidence}
        self.parameters: tuple[np.ndarray, ...] = ()
        self.changes = reader.parameters.changes or not all(e.fixed for e in self.evidence.values())
        self.inputs = [*reader.parameters.inputs, *(name for e in self.evidence.values() for name in e.inputs)]
        self.conditioned_on = list(reader.free_layers)
        self.updated = [name for name in reader.free_layers if name in updated]
        self.is_stale = True

    @property
    def values(self) -> tuple[int, ...] | None:
        """The values of a unit of the visible layer, in ascending order; None for real units."""
        return self.reader.network.values

    @abstractmethod
    def lay_out(self) -> None:
        """Read the clamped units, and find the parts of the batch."""

    @abstractmethod
    def reduce(self, logits: Mapping[str, np.ndarray], *, parameters_are_new: bool) -> None:
        """Fold clamps and evidence into the parameters of each part."""

    def check_parameters(self) -> None:
        """Raise if parameters that were read are impossible."""

    def start(self) -> None:
        """Forget, at the start of a chain, what may have changed since the last one."""
        for evidence in self.evidence.values():
            evidence.start()
        if self.evidence or not self.reader.constant:
            self.is_stale = True

    def read(self, point: Mapping[str, np.ndarray]) -> bool:
        """Read parameters and evidence and, where they were forgotten, the clamped units.

        Returns
        -------
        bool
            Whether anything had to be read.
        """
        if not (self.is_stale or self.changes):
            return False
        parameters_are_new = self.is_stale or self.reader.parameters.changes
        if parameters_are_new:
            self.parameters = self.reader.parameters.read(point)
            self.check_parameters()
        if self.is_stale:
            self.lay_out()
            self.is_stale = False
        self.reduce(self.logits_at(point), parameters_are_new=parameters_are_new)
        return True

    def logits_at(self, point: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the evidence on the units at a point, by the names of the variables that it is about."""
        return {name: evidence.logits(point) for name, evidence in self.evidence.items()}

    def check_start(self, point: Mapping[str, np.ndarray], names: set[str]) -> None:
        """Raise if one of some variables starts at a value that evidence excludes.

        Raises
        ------
        ValueError
        """
        for name, logits in self.logits_at(point).items():
            if name in names and (values := self.reader.free_layers[name].values) is not None:
                check_agrees(point[name], name, values, logits, self.reader.terms[name])

    @property
    def starts_of(self) -> list[str]:
        """See `Reduced.starts_of`: real units of another step keep theirs."""
        others = [name for name in self.conditioned_on if name not in self.updated]
        return [*self.updated, *(name for name in others if self.reader.free_layers[name].values is not None)]

    def disperse(self, point: PointType, by_default: set[str], rng: np.random.Generator) -> None:
        """Give the chain a start of its own, in place: see `Reduced.disperse`."""
        logits = self.logits_at(point)
        for name in self.starts_of:
            if (values := self.reader.free_layers[name].values) is not None:
                disperse_units(
                    point,
                    name,
                    values,
                    logits.get(name),
                    by_default=name in by_default,
                    rng=rng,
                    terms=self.reader.terms.get(name, []),
                )
