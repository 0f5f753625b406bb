"""Energy models and neural sampling for PyMC.

``import pymc as pm; import pm_neural as pmn``. Distributions and step methods are here; the other parts are loaded on
first use: ``pmn.training`` and ``pmn.spiking`` (which need torch), ``pmn.diagnostics``, ``pmn.datasets`` and
``pmn.plots``.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from pm_neural.distributions import (
    BernoulliRBM,
    BoltzmannMachine,
    Decoder,
    Energy,
    GaussianRBM,
    HiddenUnits,
    Ising,
    Lattice,
    lattice,
)
from step_methods import SGLD, BlockGibbs, EnergyGibbs, Langevin, NeuralSampling, find_start

if _TYPE_CHECKING:
    from pm_neural import datasets, diagnostics, plots, spiking, training

__version__ = "0.1.0"

__all__ = [
    "SGLD",
    "BernoulliRBM",
    "BlockGibbs",
    "BoltzmannMachine",
    "Decoder",
    "Energy",
    "EnergyGibbs",
    "GaussianRBM",
    "HiddenUnits",
    "Ising",
    "Langevin",
    "Lattice",
    "NeuralSampling",
    "datasets",
    "diagnostics",
    "find_start",
    "lattice",
    "plots",
    "spiking",
    "training",
]

_LOADED_ON_USE = frozenset({"datasets", "diagnostics", "plots", "spiking", "training"})


def __getattr__(name: str) -> object:
    if name in _LOADED_ON_USE:
        return _import_module(f"pm_neural.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LOADED_ON_USE})
