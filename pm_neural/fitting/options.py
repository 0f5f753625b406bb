"""The arguments that every `fit` has beside its own."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from pm_neural.fitting.checks import check_integer
from pm_neural.fitting.early_stopping import EarlyStopping
from pm_neural.fitting.optimizer import OptimizerFactory
from pm_neural.fitting.schedule import check_schedule

__all__ = ["FitArguments", "FitOptions", "takes_fit_options"]

_N_MEASUREMENTS = 100

# What a docstring says of an argument where it does not say anything of its own.
_TEXTS = """
epochs : int
    Passes over the data.
batch_size : int
    Rows of data per update.
optimizer : "sgd", torch.optim.Optimizer, or callable
    Gradient ascent, an optimizer of the learnt parameters, or what makes one of them, such as ``torch.optim.Adam``.
learning_rate : float, optional
    None keeps a torch optimizer's own.
learning_rate_schedule : {"cosine", "linear", "constant"}
    How the learning rate falls over all updates.
validation_data : array, optional
    Rows like those of the data.
early_stopping : EarlyStopping, optional
    When validation data end training; the parameters then go back to those of the last look within the tolerance.
measure_every : int, optional
    Epochs from one look at the model to the next; by default there are about 100 looks.
checkpoint : path-like, optional
    A file that holds all of the training's state, written every `checkpoint_every` epochs and at the end. It replaces
    a file of that name, at once: no crash leaves half of it.
checkpoint_every : int
    Epochs.
resume : bool
    Go on from `checkpoint` if that file exists, with the same arguments otherwise. On the CPU the result is that of an
    uninterrupted run, bit for bit; `random_seed` is then the checkpoint's.
progressbar : bool
    Whether to show one.
random_seed : int or Generator, optional
    Of all randomness in the training.
"""


class FitArguments(TypedDict, total=False):
    """The types of the arguments, for those who check calls of `fit`."""

    epochs: int
    batch_size: int
    optimizer: Literal["sgd"] | torch.optim.Optimizer | OptimizerFactory
    learning_rate: float | None
    learning_rate_schedule: Literal["constant", "linear", "cosine"]
    validation_data: ArrayLike | Tensor | None
    early_stopping: EarlyStopping | None
    measure_every: int | None
    checkpoint: str | os.PathLike[str] | None
    checkpoint_every: int
    resume: bool
    progressbar: bool
    random_seed: int | np.random.Generator | None


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How long to train, by what steps, and what to do between epochs.

    Without `measure_every` there are about 100 looks at the model.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError, PermissionError
        One of them is bad.
    """

    epochs: int = 1000
    batch_size: int = 10
    optimizer: Literal["sgd"] | torch.optim.Optimizer | OptimizerFactory = "sgd"
    learning_rate: float | None = None
    learning_rate_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    validation_data: ArrayLike | Tensor | None = None
    early_stopping: EarlyStopping | None = None
    measure_every: int | None = None
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: int = 10
    resume: bool = False
    progressbar: bool = True
    random_seed: int | np.random.Generator | None = None

    def __post_init__(self) -> None:
        if self.checkpoint is None and self.resume:
            raise ValueError("resume=True needs the path of a checkpoint")
        if self.checkpoint is not None and not Path(self.checkpoint).parent.is_dir():
            raise FileNotFoundError(f"checkpoint: there is no folder {Path(self.checkpoint).parent}")
        if self.checkpoint is not None and not os.access(Path(self.checkpoint).parent, os.W_OK):
            raise PermissionError(f"checkpoint: the folder {Path(self.checkpoint).parent} is read-only")
        if self.checkpoint is not None and Path(self.checkpoint).is_dir():
            raise ValueError(f"checkpoint must be the path of a file; got the folder {os.fspath(self.checkpoint)!r}")
        if not isinstance(self.early_stopping, EarlyStopping | None):
            raise TypeError(f"early_stopping must be an EarlyStopping; got {self.early_stopping!r}")
        check_integer(self.epochs, "epochs", minimum=1)
        if self.measure_every is not None:
            check_integer(self.measure_every, "measure_every", minimum=1)
        check_integer(self.checkpoint_every, "checkpoint_every", minimum=1)
        check_schedule(self.learning_rate_schedule)
        check_integer(self.batch_size, "batch_size", minimum=1)

    @property
    def epochs_between_looks(self) -> int:
        """Epochs from one look at the model to the next."""
        return int(self.measure_every or max(1, self.epochs // _N_MEASUREMENTS))

    def check_watched(self) -> None:
        """Refuse early stopping that has nothing to watch."""
        if self.validation_data is None and self.early_stopping is not None:
            raise ValueError("early_stopping watches validation_data, and none were given")


def takes_fit_options[Fit: Callable[..., Any]](
    *, without: tuple[str, ...] = (), **defaults: Any
) -> Callable[[Fit], Fit]:
    """Let a `fit` take the arguments of `FitOptions` beside its own, and say so in its signature and its docstring.

    The function is declared with ``**options: Unpack[FitArguments]`` and is given all of them. What its docstring
    says about an argument stays; texts for the others are put behind its own parameters.

    Parameters
    ----------
    without : tuple of str
        Arguments that it does not take.
    **defaults
        Defaults of its own.

    Raises
    ------
    TypeError
        In calls with an argument that there is not; the error names the nearest that there is.
    """
    own_defaults = {field.name: field.default for field in fields(FitOptions) if field.name not in without} | defaults

    def decorate(fit: Fit) -> Fit:
        signature = inspect.signature(fit)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        hints = FitOptions.__annotations__
        shared = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
            for name, default in own_defaults.items()
        ]
        known = [parameter.name for parameter in (*own[1:], *shared)]

        @wraps(fit)
        def fit_with_options(self: Any, *args: Any, **arguments: Any) -> Any:
            for name in arguments:
                if name not in known:
                    (nearest,) = get_close_matches(name, known, n=1, cutoff=0)
                    raise TypeError(
                        f"{type(self).__name__}.fit() got an unexpected keyword argument {name!r}; "
                        f"did you mean {nearest!r}?"
                    )
            return fit(self, *args, **{**own_defaults, **arguments})

        fit_with_options.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
        if fit.__doc__ is not None:
            fit_with_options.__doc__ = _documented(inspect.cleandoc(fit.__doc__), list(own_defaults))
        return fit_with_options  # type: ignore[return-value]

    return decorate


def _documented(doc: str, names: list[str]) -> str:
    """Put the texts of arguments that a docstring does not have behind its parameters."""
    own = _entries(doc)
    texts = _entries(_TEXTS)
    parameters, returns, rest = doc.partition("\n\nReturns\n-------\n")
    return "\n".join([parameters, *(texts[name] for name in names if name not in own)]) + returns + rest


def _entries(doc: str) -> dict[str, str]:
    """Return the entries of parameters in a docstring without indentation, each by all names that it begins with."""
    entries = re.findall(r"^((\w[\w, ]*) :.*(?:\n    .*)*)", doc, re.MULTILINE)
    return {name: text for text, names in entries for name in names.split(", ")}
