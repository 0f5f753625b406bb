"""Spike rasters as PyMC records them: one array of bytes or numbers a draw.

A sampler statistic that is a vector must have the same length in every draw, and no names of its own.
So the spikes of a draw are packed into one of two vectors that tell how to read them.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["pack_spikes", "unpack_spikes"]

_HEADER = 2  # numbers at the beginning: how many neurons, how long


def pack_spikes(units: np.ndarray, times: np.ndarray, n_neurons: int, duration: float, continuous: bool) -> np.ndarray:
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
        header = np.array([n_neurons, n_steps], np.int32).view(np.uint8)
        return np.concatenate([header, np.packbits(grid)])
    rows = np.full((n_neurons, math.ceil(duration) + 1), np.nan, np.float32)
    order = np.lexsort((times, units))
    units, times = units[order], times[order]
    rank = np.arange(units.size) - np.searchsorted(units, units)
    rows[units, rank] = times
    header = np.array([n_neurons, duration], np.float64).view(np.float32)
    return np.concatenate([header, rows.ravel()])


def unpack_spikes(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Return the neurons and the times of the spikes in order of time, the number of neurons and the duration."""
    if packed.dtype == np.uint8:
        n_neurons, n_steps = (int(number) for number in packed[: 4 * _HEADER].copy().view(np.int32))
        bits = np.unpackbits(packed[4 * _HEADER :], count=n_steps * n_neurons)
        times, units = np.nonzero(bits.reshape(n_steps, n_neurons))
        return units, times, n_neurons, n_steps
    n_neurons, duration = packed[: 2 * _HEADER].copy().view(np.float64).tolist()
    n_neurons = int(n_neurons)
    rows = packed[2 * _HEADER :].reshape(n_neurons, -1)
    units, places = np.nonzero(~np.isnan(rows))
    times = rows[units, places].astype(np.float64)
    order = np.argsort(times, kind="stable")
    return units[order], times[order], n_neurons, duration
