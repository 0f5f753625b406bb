"""The states of units that chains start in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pymc.blocking import PointType
from pytensor.graph.basic import Variable

__all__ = ["check_agrees", "disperse_units"]


def disperse_units(
    point: PointType,
    name: str,
    values: tuple[int, ...],
    logits: np.ndarray | None,
    *,
    by_default: bool,
    rng: np.random.Generator,
    terms: Sequence[Variable],
) -> None:
    """Give a variable a start of its own where it has the default, in place; check one that a user gave.

    Raises
    ------
    ValueError
        If it was given, and contradicts evidence.
    """
    if by_default:
        point[name] = _toss(rng, point[name], values, logits)
    elif logits is not None:
        check_agrees(point[name], name, values, logits, terms)


def _toss(
    rng: np.random.Generator, value: np.ndarray, values: tuple[int, ...], logits: np.ndarray | None
) -> np.ndarray:
    """Pick each unit's value uniformly, by a fair coin if it has two, where evidence leaves it a choice.

    Parameters
    ----------
    rng : Generator
    value : ndarray
        For shape and type.
    values : tuple of int
        The values of a unit.
    logits : ndarray, shape (n_units,), or None
        From `step_methods.reading.evidence.Evidence`: infinite for units that have no choice.
    """
    picks = rng.integers(0, len(values), value.size, dtype=np.int8)
    if logits is not None:
        certain = np.isinf(logits)
        picks[certain] = logits[certain] > 0
    return np.array(values, value.dtype)[picks].reshape(value.shape)


def check_agrees(
    value: np.ndarray, name: str, values: tuple[int, ...], logits: np.ndarray, terms: Sequence[Variable]
) -> None:
    """Raise if a unit starts at a value that evidence excludes.

    Raises
    ------
    ValueError
    """
    certain = np.where(logits > 0, values[1], values[0])
    wrong = np.flatnonzero(np.isinf(logits) & (value.ravel() != certain))
    if not wrong.size:
        return
    labels = [
        f"{name}[{', '.join(str(int(i)) for i in np.unravel_index(k, value.shape))}] must be {certain[k]}"
        if value.ndim
        else f"{name} must be {certain[k]}"
        for k in wrong[:5]
    ]
    more = f" (and {wrong.size - 5} more)" if wrong.size > 5 else ""
    names = ", ".join(repr(str(term.name)) for term in terms)
    raise ValueError(
        f"the start value of {name!r} contradicts the terms {names} of the model, which exclude the other value of a "
        f"unit: {'; '.join(labels)}{more}. pmn.find_start(model) finds starts that agree with all terms: "
        "pm.sample(chains=4, initvals=pmn.find_start(model, chains=4))"
    )
