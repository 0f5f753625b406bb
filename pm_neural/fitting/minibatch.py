"""Shuffled minibatches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pm_neural.fitting.backend import Array, Backend


class Minibatches:
    """All rows of a data set once per epoch, in a new random order; the last batch may be smaller.

    Parameters
    ----------
    backend : Backend
    data : array of the backend, (n_rows, n_columns)
    batch_size : int
    rng : numpy.random.Generator
        Draws the order.
    """

    def __init__(self, backend: Backend, data: Array, *, batch_size: int, rng: np.random.Generator) -> None:
        self._backend = backend
        self._data = data
        self._starts = range(0, len(data), batch_size)
        self.batch_size = batch_size
        self.settings = {"batch_size": batch_size}
        self._rng = rng

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Array]:
        order = self._backend.array(self._rng.permutation(len(self._data)))
        shuffled = self._data[order]
        for start in self._starts:
            yield shuffled[start : start + self.batch_size]
