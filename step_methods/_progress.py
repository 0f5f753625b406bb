"""What the progress bar shows of a step method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from rich.progress import TextColumn
from rich.table import Column

__all__ = ["ProgressColumns"]


class ProgressColumns:
    """Show sampler statistics as columns of PyMC's progress bar.

    Attributes
    ----------
    progress_columns : dict
        Title and format of each statistic's column, by its name.
    """

    progress_columns: ClassVar[Mapping[str, tuple[str, str]]]

    @classmethod
    def _progressbar_config(cls, n_chains: int = 1) -> tuple[list[TextColumn], dict[str, list[float]]]:
        columns = [
            TextColumn(f"{{task.fields[{name}]:{format_}}}", table_column=Column(title, ratio=1))
            for name, (title, format_) in cls.progress_columns.items()
        ]
        return columns, {name: [0.0] * n_chains for name in cls.progress_columns}

    @classmethod
    def _make_progressbar_update_functions(cls) -> tuple[Callable[[Mapping[str, Any]], dict[str, Any]]]:
        return (lambda step_stats: {name: step_stats[name] for name in cls.progress_columns},)
