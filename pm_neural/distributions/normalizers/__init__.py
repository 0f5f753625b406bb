"""Ways to compute the normalizer log Z of a distribution."""

from pm_neural.distributions.normalizers.normalizer import Normalizer

__all__ = ["Normalizer"]
