"""How many threads matrix products use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from threadpoolctl import threadpool_limits

_SMALL_PRODUCT = 5_000_000  # multiplications; below, handing work to threads costs more than it saves


@contextmanager
def single_thread() -> Iterator[None]:
    """Restrict BLAS and torch to one thread, and restore what was."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(n_threads)


def threads_for(n_multiplications: int) -> AbstractContextManager[None]:
    """Context for work whose largest matrix product needs `n_multiplications`."""
    return single_thread() if n_multiplications < _SMALL_PRODUCT else nullcontext()
