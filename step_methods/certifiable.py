"""What a certificate asks of a step method, beyond what PyMC does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

import numpy as np
from pymc.blocking import PointType
from pymc.model import Model
from pytensor.graph.basic import Variable

__all__ = ["Certifiable", "counters_of"]


def counters_of(name: str) -> str:
    """Return under which name a point has the refractory counters of a variable whose units are spiking neurons."""
    return f"{name}__refractory"


class Certifiable(Protocol):
    """A step method whose random decisions can be forced, sweep by sweep and stage by stage.

    `pmn.diagnostics.certify` and `pmn.diagnostics.check_conditionals` look at what these methods do, so that they must
    run the same code as `step`.

    Attributes
    ----------
    name : str
    model : Model
        The model that the step samples.
    vars : sequence of Variable
        The value variables that it updates.
    n_sweeps : int
        How many sweeps there are between two draws.
    refractory_periods : mapping
        Of the variables whose units are spiking neurons, by name; the key `counters_of(name)` of a point then holds
        their counters. Empty for all other step methods.
    n_stages : int
        Number of stages that a sweep is made of.
    stages_in_random_order : bool
        Whether a sweep is as many independent uniform picks of a stage as there are stages, instead of all in turn.
    """

    name: str
    model: Model
    vars: Sequence[Variable]

    @property
    def n_sweeps(self) -> int:
        """How many sweeps there are between two draws."""

    @property
    def refractory_periods(self) -> Mapping[str, int]:
        """Refractory periods of variables, by name."""

    @property
    def n_stages(self) -> int:
        """Number of stages that a sweep is made of."""

    @property
    def stages_in_random_order(self) -> bool:
        """Whether stages are picked at random."""

    def with_one_sweep(self) -> Self:
        """Return a step that is the same, but makes one sweep between two draws."""

    def forced_stage(self, stage: int, point: PointType, bits: np.ndarray) -> tuple[PointType, np.ndarray]:
        """Make one stage of a sweep, its random decisions given.

        Parameters
        ----------
        stage : int
            From 0 to `n_stages` − 1.
        point : dict
            The point at which the stage begins.
        bits : ndarray of uint8
            The decisions of the stage, zeros where they run out.

        Returns
        -------
        new_point : dict
        probabilities : ndarray of float64
            The probability with which each decision would have come out as 1, as many as there are decisions.
        """

    def forced_step(self, point: PointType, bits: np.ndarray) -> tuple[PointType, np.ndarray]:
        """Make one step whose random decisions are given; see `forced_stage`."""
