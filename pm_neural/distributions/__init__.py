"""Energy models as PyMC distributions."""

from pm_neural.distributions.rbm import BernoulliRBM, HiddenUnits

__all__ = ["BernoulliRBM", "HiddenUnits"]
