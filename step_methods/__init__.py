"""Step methods for PyMC: for networks of binary units, and Langevin dynamics for continuous variables.

Importing the package makes them known to PyMC: a bare ``pymc.sample()`` then picks them for the
variables they are meant for; those that are for use on request stay out of its way. Start values under the name of a
network's masked variable, which PyMC would ignore, are refused from then on.
"""

import pymc.step_methods

from step_methods._masked_starts import refuse_names_of_masked_variables
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
refuse_names_of_masked_variables()
