"""What benchmarks share: one thread, methods that are timed in turn, and tables.

NumPy, torch and JAX read their number of threads when they are imported: import this before them.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1") | {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
}
for variable, value in ONE_THREAD.items():
    os.environ.setdefault(variable, value)

ROUNDS = 7
SECONDS = 0.1  # of a method in a round

type Method = tuple[str, Callable[[int], object] | None]  # None where it is not installed


def time_in_turn(methods: list[Method], multiple: int = 1) -> list[float | None]:
    """Median CPU seconds of each method for one repetition, after some that compile it.

    Repetitions come in multiples, which what is compiled for so many of them needs.
    """
    repetitions = []
    for _, run in methods:
        n = multiple
        while run is not None:
            run(n)
            elapsed = _cpu_seconds(run, n)
            if elapsed > SECONDS / 4:
                n = multiple * max(1, round(n * SECONDS / elapsed / multiple))
                run(n)
                break
            n *= 8
        repetitions.append(n)
    times: list[list[float]] = [[] for _ in methods]
    for _ in range(ROUNDS):
        for (_, run), n, measured in zip(methods, repetitions, times, strict=True):
            if run is not None:
                measured.append(_cpu_seconds(run, n) / n)
    return [statistics.median(measured) if measured else None for measured in times]


def _cpu_seconds(run: Callable[[int], object], n: int) -> float:
    start = time.process_time()
    run(n)
    return time.process_time() - start


def compare(problem: str, methods: list[Method], n_updates: int, multiple: int = 1) -> Iterator[dict[str, object]]:
    """Rows of one problem. The names of our methods begin with "pm_neural"."""
    measured = time_in_turn(methods, multiple)
    peers = [
        seconds
        for (name, _), seconds in zip(methods, measured, strict=True)
        if seconds and not name.startswith("pm_neural")
    ]
    for (name, _), seconds in zip(methods, measured, strict=True):
        row: dict[str, object] = {"problem": problem, "method": name}
        if seconds is None:
            row["note"] = "not installed"
        else:
            row["microseconds"] = seconds * 1e6
            row["millions per second"] = n_updates / seconds / 1e6
            if peers:
                row["times the best peer"] = min(peers) / seconds
        yield row


def print_comparison(
    rows: Iterable[dict[str, object]],
    columns: Iterable[str] = ("microseconds", "millions per second", "times the best peer"),
) -> None:
    """Print each row as it comes."""
    print(f"{'problem':<42}{'method':<42}" + "".join(f"{column:>21}" for column in columns))
    for row in rows:
        cells = [f"{row[column]:>21.2f}" if column in row else f"{'':>21}" for column in columns]
        print(f"{row['problem']:<42}{row['method']:<42}" + "".join(cells) + f"{row.get('note', '')}", flush=True)


def print_table(title: str, rows: list[dict]) -> None:
    """Print rows whose columns are as wide as they need."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    print(f"\n{title}")
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
