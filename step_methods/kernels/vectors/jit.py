"""Compilation of kernels, cached on disk."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core.caching import FunctionCache

if config.DISABLE_JIT:
    raise ImportError(
        "the samplers of this package are compiled by numba, and cannot run as Python code: unset the environment "
        "variable NUMBA_DISABLE_JIT (or numba's option disable_jit)"
    )


KERNELS = Path(__file__).parent.parent


def sources_stamp() -> tuple[tuple[str, int, int], ...]:
    """Name, time of change and size of every source file of the kernels, in all folders."""
    stats = ((path.relative_to(KERNELS).as_posix(), path.stat()) for path in sorted(KERNELS.rglob("*.py")))
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


_STAMP = sources_stamp()


class _Reported:
    """Whether it has been said that there is no cache: once is enough for all kernels of a process."""

    done = False


def _report(reason: object) -> None:
    if _Reported.done:
        return
    _Reported.done = True
    warnings.warn(
        f"compiled code cannot be kept on disk, and is compiled anew in each process ({reason}): set the environment "
        "variable NUMBA_CACHE_DIR to a folder that can be written to",
        RuntimeWarning,
        stacklevel=2,
    )


class _Cache(FunctionCache):
    """A cache that a kernel can do without: where reading or writing fails, it is compiled, and runs."""

    @contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        # A full disk, a folder that was removed or lost its rights, a file that was cut short or damaged: what comes of
        # unpickling that can be any error.
        try:
            yield
        except Exception as error:
            _report(error)


def cached_njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with numba and keep the machine code on disk, where there is a place for it.

    Parameters
    ----------
    **options
        Of ``numba.njit``.
    """

    def compile_with_cache(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**options)(function)
        try:
            dispatcher._cache = _Cache(function)
        except RuntimeError as error:  # numba finds no folder that can be written to
            _report(error)
        return dispatcher

    return compile_with_cache


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a kernel and keep the machine code on disk.

    Numba takes a cached kernel as fresh while the file of the kernel itself is unchanged. Kernels
    here are built from functions of several files and folders, so a cached one is fresh only while all files are.
    """
    dispatcher = cached_njit(error_model="numpy")(function)
    if isinstance(dispatcher._cache, _Cache):
        file = dispatcher._cache._cache_file
        file._source_stamp = file._source_stamp, _STAMP
    return dispatcher
