"""Samples of spiking networks for ArviZ."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pm_neural.diagnostics.divergences import kl_divergence, state_probabilities
from pm_neural.fitting.draws import draws_as_datatree

if TYPE_CHECKING:
    from xarray import DataTree


def samples_as_datatree(draws: np.ndarray, sampler: str, target: np.ndarray | None) -> DataTree:
    """Make a DataTree of draws (chain, draw, neuron) and, with a target, of how far they are from it."""
    tree = draws_as_datatree({"z": draws}, dims={"z": ["neuron"]})
    attrs: dict[str, str | float] = {"sampler": sampler, "exact": "no: this sampler is approximate"}
    if target is not None:
        kl = kl_divergence(target, state_probabilities(tree, "z", values=(0, 1)))
        attrs |= {"kl": kl.estimate, "kl_error": kl.standard_error, "kl_noise": float(kl.noise)}
    tree["posterior"].attrs.update(attrs)
    return tree
