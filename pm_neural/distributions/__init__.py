"""Energy models as PyMC distributions."""

from pm_neural.distributions.boltzmann import BoltzmannMachine, Ising
from pm_neural.distributions.decoder import Decoder
from pm_neural.distributions.energy import Energy
from pm_neural.distributions.gaussian_rbm import GaussianRBM
from pm_neural.distributions.lattice import Lattice, lattice
from pm_neural.distributions.rbm import BernoulliRBM, HiddenUnits

__all__ = [
    "BernoulliRBM",
    "BoltzmannMachine",
    "Decoder",
    "Energy",
    "GaussianRBM",
    "HiddenUnits",
    "Ising",
    "Lattice",
    "lattice",
]
