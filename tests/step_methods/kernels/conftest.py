"""Fixtures for kernels."""

from collections.abc import Callable

import numpy as np
import pytest

from step_methods.kernels.vectors.random import LANES, seed_stream


@pytest.fixture
def state() -> np.ndarray:
    """A stream with a fixed seed."""
    return seed_stream(np.random.default_rng(20240607))


@pytest.fixture
def state_before() -> Callable[..., np.ndarray]:
    """A stream whose next word is a given one in every lane; what follows is random."""

    def make(word: int, rng: np.random.Generator) -> np.ndarray:
        state = seed_stream(rng)
        # The next word is the sum of the first and the last row.
        state[3] = np.uint64(word) - state[0]
        assert state.shape[1] == LANES
        return state

    return make


@pytest.fixture
def n_allocations() -> Callable[[Callable[[], object]], int]:
    """Counts the arrays that numba allocates while a function runs."""
    from numba.core.runtime import _nrt_python, rtsys

    def count(function: Callable[[], object]) -> int:
        _nrt_python.memsys_enable_stats()
        try:
            before = rtsys.get_allocation_stats().alloc
            function()
            return rtsys.get_allocation_stats().alloc - before
        finally:
            _nrt_python.memsys_disable_stats()

    return count
