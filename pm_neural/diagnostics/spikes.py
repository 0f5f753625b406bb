"""Spike rasters that were recorded while sampling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from step_methods.raster import unpack_spikes

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SpikeRaster", "spike_raster"]


@dataclass(frozen=True, eq=False)
class SpikeRaster:
    """The spikes of one chain.

    Attributes
    ----------
    neurons : ndarray of int64, shape (n_spikes,)
        The neuron of each spike, in order of time: numbers as in the step's ``neurons_of``.
    times : ndarray, shape (n_spikes,)
        When it fired, since the end of tuning: in steps, or in continuous time in refractory periods.
    n_neurons : int
        Auxiliary hidden neurons included, which come last.
    duration : float
        The time between the first draw's beginning and the last draw.
    continuous : bool
        Whether time is continuous: `times` are then in refractory periods, not in steps.
    tau : float or None
        The refractory period, in the unit of `times`; None if it is not known.
    once : bool
        Whether each neuron is updated once in a step, as it is not in random order.
    """

    neurons: np.ndarray = field(repr=False)
    times: np.ndarray = field(repr=False)
    n_neurons: int
    duration: float
    continuous: bool = False
    tau: float | None = None
    once: bool = True

    def states(self, tau: int | None = None) -> np.ndarray:
        """Return which neurons are on after each step, those that were on at the beginning left out.

        Only in discrete time, and for neurons that are updated once in each step: ``order`` "sequential" or "blocks".

        Parameters
        ----------
        tau : int, optional
            The refractory period; by default the one that was recorded.

        Returns
        -------
        ndarray of int8, shape (n_steps, n_neurons)

        Raises
        ------
        ValueError
            In continuous time, which has no steps; in random order, in which a neuron is on for another number of
            steps than `tau`; if `tau` is not the one that was recorded, or none was and none is given.
        """
        if self.continuous:
            raise ValueError(
                "the raster must be of discrete time for states after each step; in continuous time a neuron is on for "
                "one refractory period, the unit of times, after each of its spikes"
            )
        if not self.once:
            raise ValueError(
                "the raster must be of neurons that are updated once in a step; in random order some are updated "
                "several times and others not at all, and the spikes do not tell which: read the draws instead"
            )
        if self.tau is not None and tau is not None and tau != self.tau:
            raise ValueError(f"tau must be {self.tau}, with which the spikes were recorded, got {tau}")
        tau = tau if self.tau is None else int(self.tau)
        if tau is None:
            raise ValueError("tau must be given, since the raster was not recorded with it")
        last = np.full((int(self.duration), self.n_neurons), -np.inf)
        steps = self.times.astype(np.int64)
        last[steps, self.neurons] = steps
        last = np.maximum.accumulate(last, axis=0)
        return (np.arange(len(last))[:, None] - last < tau).astype(np.int8)


def spike_raster(idata: xr.DataTree, chain: int = 0, *, sampler: int = 0) -> SpikeRaster:
    """Read the spikes that ``NeuralSampling(..., record_spikes=True)`` has recorded.

    Parameters
    ----------
    idata : DataTree
        From ``pm.sample``.
    chain : int
        The chain, by its position.
    sampler : int
        Which step, by its position among the model's `NeuralSampling` steps that record their spikes.

    Returns
    -------
    SpikeRaster

    Raises
    ------
    ValueError
        If no spikes were recorded, the chain or the sampler does not exist, or draws were left out between others.
    """
    if "sample_stats" not in idata.children or "spike_raster" not in idata["sample_stats"]:
        raise ValueError("idata must hold recorded spikes: sample with NeuralSampling(..., record_spikes=True)")
    recorded = idata["sample_stats"]["spike_raster"]
    if "draw" in recorded.coords and (np.diff(np.asarray(recorded.coords["draw"])) != 1).any():
        raise ValueError(
            "idata must hold draws that follow each other, as spikes are those since the draw before; got a selection, "
            "such as every third: read the raster of all of them"
        )
    draws = np.asarray(recorded)
    if not 0 <= chain < len(draws):
        raise ValueError(f"chain must be one of the {len(draws)} chains of idata, counted from 0, got {chain}")
    # With several steps a draw is an object array of vectors, one for each of them.
    of_chain = draws[chain] if draws.dtype == object else draws[chain][:, None]
    n_samplers = of_chain.shape[1]
    if not 0 <= sampler < n_samplers:
        raise ValueError(
            f"sampler must be one of {n_samplers} that have recorded spikes, counted from 0, got {sampler}"
        )
    packed = [np.asarray(draw[sampler]) for draw in of_chain]
    spikes = [unpack_spikes(draw) for draw in packed]
    first = spikes[0]
    return SpikeRaster(
        neurons=np.concatenate([draw.units for draw in spikes]),
        times=np.concatenate([draw.times + k * first.duration for k, draw in enumerate(spikes)]),
        n_neurons=first.n_neurons,
        duration=first.duration * len(spikes),
        continuous=packed[0].dtype != np.uint8,
        tau=first.tau,
        once=first.once,
    )
