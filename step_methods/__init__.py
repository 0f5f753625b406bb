"""Step methods for PyMC: for networks of binary units, and Langevin dynamics for continuous variables.

Importing the package makes them known to PyMC: a bare ``pymc.sample()`` then picks them for the
variables they are meant for; those that are for use on request stay out of its way.
"""

import pymc.step_methods

from step_methods.block_gibbs import BlockGibbs
from step_methods.langevin import SGLD, Langevin
from step_methods.neural_sampling import EnergyGibbs, NeuralSampling
from step_methods.starts import find_start

__all__ = ["SGLD", "BlockGibbs", "EnergyGibbs", "Langevin", "NeuralSampling", "find_start"]


def _register() -> None:
    """Put the step methods ahead of PyMC's own, where they win ties.

    PyMC's sampler holds a reference to this very list, so it is changed in place.
    """
    registered = pymc.step_methods.STEP_METHODS
    for step_method in (NeuralSampling, SGLD, Langevin, EnergyGibbs, BlockGibbs):
        if step_method not in registered:
            registered.insert(0, step_method)


_register()
