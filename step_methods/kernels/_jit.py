"""Compilation of kernels, cached on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit


def _package_stamp() -> tuple[tuple[str, int, int], ...]:
    """Name, time of change and size of every source file of this package."""
    stats = ((path.name, path.stat()) for path in sorted(Path(__file__).parent.glob("*.py")))
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


_STAMP = _package_stamp()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function with numba and keep the machine code on disk.

    Numba takes a cached kernel as fresh while the file of the kernel itself is unchanged. Kernels
    here are built from functions of several files, so a cached one is fresh only while all files of
    the package are.
    """
    dispatcher = njit(cache=True, error_model="numpy")(function)
    dispatcher._cache._cache_file._source_stamp = _STAMP
    return dispatcher
