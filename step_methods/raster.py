"""Spike rasters as PyMC records them: one array of bytes or numbers a draw.

A sampler statistic that is a vector must have the same length in every draw, and no names of its own.
So the spikes of a draw are packed into one of two vectors that tell how to read them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

__all__ = ["Spikes", "pack_spikes", "unpack_spikes"]

# Numbers at the beginning: how many neurons, how long, the refractory period, and whether each neuron is updated once
# in a step.
_HEADER = 4


class Spikes(NamedTuple):
    """The spikes between two draws, and what they mean.

    Attributes
    ----------
    units : ndarray of int, shape (n_spikes,)
        The neuron of each spike, in order of time.
    times : ndarray, shape (n_spikes,)
        Steps from 0 on, or times in refractory periods.
    n_neurons : int
    duration : float
        Steps, or refractory periods, between the draws.
    tau : float
        The refractory period in steps; 1 in continuous time, whose unit it is.
    once : bool
        Whether each neuron is updated once in a step; not in random order.
    """

    units: np.ndarray
    times: np.ndarray
    n_neurons: int
    duration: float
    tau: float
    once: bool


def pack_spikes(
    units: np.ndarray, times: np.ndarray, n_neurons: int, duration: float, continuous: bool, tau: float, once: bool
) -> np.ndarray:
    """Put the spikes between two draws into one vector.

    Parameters
    ----------
    units : ndarray of int, shape (n_spikes,)
        The neuron of each spike.
    times : ndarray, shape (n_spikes,)
        Steps from 0 on, or times in refractory periods.
    n_neurons : int
    duration : float
        Steps, or refractory periods, between the draws.
    continuous : bool
    tau : float
    once : bool
        See `Spikes`.

    Returns
    -------
    ndarray
        In discrete time of uint8, with one bit for each neuron and step; in continuous time of float32, the times of
        each neuron in a row that is filled up with NaN.
    """
    if not continuous:
        n_steps = int(duration)
        grid = np.zeros((n_steps, n_neurons), bool)
        grid[times, units] = True
        header = np.array([n_neurons, n_steps, tau, once], np.int32).view(np.uint8)
        return np.concatenate([header, np.packbits(grid)])
    rows = np.full((n_neurons, math.ceil(duration) + 1), np.nan, np.float32)
    order = np.lexsort((times, units))
    units, times = units[order], times[order]
    rank = np.arange(units.size) - np.searchsorted(units, units)
    rows[units, rank] = times
    header = np.array([n_neurons, duration, 1, once], np.float64).view(np.float32)
    return np.concatenate([header, rows.ravel()])


def unpack_spikes(packed: np.ndarray) -> Spikes:
    """Read the spikes of a draw from the vector that they were put into."""
    if packed.dtype == np.uint8:
        n_neurons, n_steps, tau, once = packed[: 4 * _HEADER].copy().view(np.int32).tolist()
        bits = np.unpackbits(packed[4 * _HEADER :], count=n_steps * n_neurons)
        times, units = np.nonzero(bits.reshape(n_steps, n_neurons))
        return Spikes(units, times, n_neurons, n_steps, tau, bool(once))
    n_neurons, duration, tau, once = packed[: 2 * _HEADER].copy().view(np.float64).tolist()
    rows = packed[2 * _HEADER :].reshape(int(n_neurons), -1)
    units, places = np.nonzero(~np.isnan(rows))
    times = rows[units, places].astype(np.float64)
    order = np.argsort(times, kind="stable")
    return Spikes(units[order], times[order], int(n_neurons), duration, tau, bool(once))
