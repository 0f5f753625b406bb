"""The progress bar of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

type Report = Callable[[int, Mapping[str, float]], None]


@contextmanager
def training_progress(epochs: int, *, enabled: bool) -> Iterator[Report]:
    """Show a bar; yields a function of the epochs done and the latest measurements."""
    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[measured]}"),
    )
    with Progress(*columns, disable=not enabled, refresh_per_second=4) as progress:
        task = progress.add_task("epochs", total=epochs, measured="")

        def report(done: int, row: Mapping[str, float]) -> None:
            if enabled:
                measured = "  ".join(f"{name} {value:.2f}" for name, value in row.items())
                progress.update(task, completed=done, measured=measured)

        yield report
