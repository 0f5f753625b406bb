"""Spikes of the inputs, as events."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pm_neural.fitting.checks import check_integer, check_number
from step_methods.kernels.lif.gradient import place_poisson_spikes
from step_methods.kernels.vectors.random import seed_stream

_SLACK = 6.0  # standard deviations of the number of spikes for which room is made at first


@dataclass(frozen=True, eq=False)
class InputSpikes:
    """Which inputs spike in which step of which chain.

    Few of them do in any step, so that this takes much less memory, and time to read, than a tensor of zeros and ones.

    Attributes
    ----------
    shape : (int, int, int)
        Steps, chains and inputs.
    offsets : ndarray of int64, (n_steps * n_chains + 1,)
        The spikes of step t in chain c are ``sources[offsets[row]:offsets[row + 1]]`` with
        ``row = t * n_chains + c``.
    sources : ndarray of int32, (n_spikes,)
        Numbers of the inputs that spike.

    Raises
    ------
    ValueError, TypeError
        The arrays are no such events: the simulators would read beyond their ends.
    """

    shape: tuple[int, int, int]
    offsets: np.ndarray
    sources: np.ndarray

    def __post_init__(self) -> None:
        n_steps, n_chains, n_inputs = self.shape
        if self.offsets.dtype != np.int64 or self.sources.dtype != np.int32:
            raise TypeError(
                f"offsets must be int64 and sources int32; got {self.offsets.dtype} and {self.sources.dtype}"
            )
        if self.offsets.shape != (n_steps * n_chains + 1,) or self.sources.ndim != 1:
            raise ValueError(
                f"offsets must have shape ({n_steps * n_chains + 1},) and sources (n_spikes,); "
                f"got {self.offsets.shape} and {self.sources.shape}"
            )
        first, last = self.offsets[[0, -1]]
        if first != 0 or last != len(self.sources) or (np.diff(self.offsets) < 0).any():
            raise ValueError(f"offsets must rise from 0 to the number of spikes, {len(self.sources)}")
        if self.sources.size and not 0 <= self.sources.min() <= self.sources.max() < n_inputs:
            raise ValueError(
                f"sources must be numbers of inputs, from 0 to {n_inputs - 1}; "
                f"got some from {self.sources.min()} to {self.sources.max()}"
            )

    @classmethod
    def poisson(
        cls, n_steps: int, n_chains: int, n_inputs: int, *, probability: float, stream: np.ndarray | np.random.Generator
    ) -> Self:
        """Let each input spike with a `probability` in (0, 1) in each step, independently.

        Parameters
        ----------
        n_steps, n_chains, n_inputs : int
        probability : float
        stream : ndarray or Generator
            State of a stream of the kernels, which advances, or what seeds one.

        Raises
        ------
        ValueError, TypeError
            A number is none of these.
        """
        n_steps = check_integer(n_steps, "n_steps", minimum=1)
        n_chains = check_integer(n_chains, "n_chains", minimum=1)
        n_inputs = check_integer(n_inputs, "n_inputs", minimum=1)
        probability = check_number(probability, "probability", minimum=0, below=1, exclusive=True)
        if isinstance(stream, np.random.Generator):
            stream = seed_stream(stream)
        n_rows = n_steps * n_chains
        mean = n_rows * n_inputs * probability
        room = math.ceil(mean + _SLACK * math.sqrt(mean)) + 1
        offsets = np.zeros(n_rows + 1, dtype=np.int64)
        cursor = np.zeros(3, dtype=np.int64)
        sources = np.empty(room, dtype=np.int32)
        log_silence = math.log1p(-probability)
        place_poisson_spikes(stream, log_silence, n_inputs, offsets, sources, cursor)
        while cursor[0] < n_rows:
            sources = np.concatenate([sources, np.empty(room, dtype=np.int32)])
            place_poisson_spikes(stream, log_silence, n_inputs, offsets, sources, cursor)
        return cls((n_steps, n_chains, n_inputs), offsets, sources[: cursor[2]])

    @classmethod
    def from_dense(cls, spikes: Tensor) -> Self:
        """Find the spikes in a tensor of zeros and ones, (n_steps, n_chains, n_inputs).

        Raises
        ------
        ValueError
            It has other values or dimensions.
        """
        if spikes.ndim != 3:
            raise ValueError(f"inputs must have shape (n_steps, n_chains, n_inputs); got {tuple(spikes.shape)}")
        values = spikes.detach().cpu().numpy()
        wrong = (values != 0) & (values != 1)
        if wrong.any():
            raise ValueError(f"inputs must hold only 0 and 1; got {values[wrong][0]}")
        n_steps, n_chains, n_inputs = values.shape
        rows, sources = np.nonzero(values.reshape(n_steps * n_chains, n_inputs))
        counts = np.bincount(rows, minlength=n_steps * n_chains)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls((n_steps, n_chains, n_inputs), offsets, sources.astype(np.int32))

    def to_dense(self, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> Tensor:
        """Return a tensor of zeros and ones, (n_steps, n_chains, n_inputs)."""
        n_steps, n_chains, n_inputs = self.shape
        dense = torch.zeros(n_steps * n_chains, n_inputs, dtype=dtype)
        rows = np.repeat(np.arange(n_steps * n_chains), np.diff(self.offsets))
        dense[torch.from_numpy(rows), torch.from_numpy(self.sources.astype(np.int64))] = 1
        return dense.reshape(self.shape).to(device)
