"""Short chains of a model from over-dispersed starts, held against its draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from pm_neural.diagnostics._state_functions import (
    SAMPLE_DIMS,
    count_starts,
    energies,
    leading_directions,
    state_functions,
)

__all__ = ["FALSE_ALARM_RATE", "ShortChains", "compare", "run_short_chains"]

FALSE_ALARM_RATE = 0.01
_FEWEST_DRAWS = 50
_AUTOCORRELATION_TIMES = 10


@dataclass(frozen=True, eq=False)
class ShortChains:
    """Where short chains from over-dispersed starts ended, beside where the draws are.

    Attributes
    ----------
    table : pandas.DataFrame
        One row for each function of state. *low*, *high*: the range of the draws. *ess*: how many independent draws
        they are worth. *below*, *above*: how many short chains ended outside of that range. *p outside*: how probable
        as many are if short chains and draws have the same law. *unreached below*, *unreached above*: the share of the
        draws beyond where any short chain ended. *p unreached*: likewise.
    outside : list of str
        Functions of state by which short chains ended where no draw is.
    unreached : list of str
        Functions of state, others than those, by which draws are where no short chain ended.
    n_chains, n_draws : int
        Number of short chains, and of draws of each, of which the last one counts.
    n_starts : int or None
        In how many different states they began; None if the step methods do not record it.
    stuck : list of str
        Functions of state that are the same in all draws, and another number in short chains that do not move either.
    """

    table: pd.DataFrame
    outside: list[str]
    unreached: list[str]
    n_chains: int
    n_draws: int
    n_starts: int | None
    stuck: list[str] = field(default_factory=list)

    @property
    def complaints(self) -> list[str]:
        """Sentences that say what is wrong, and what to do."""
        sentences = []
        if self.n_starts == 1:
            sentences.append(
                f"The {self.n_chains} short chains all began in the same state, so that they say little: leave out "
                "initval where the model declares it, or pass different initvals"
            )
        if self.outside:
            counts = "; ".join(
                f"{name}: {row['below']:.0f} below {row['low']:.4g}, {row['above']:.0f} above {row['high']:.4g}"
                for name, row in self.table.loc[self.outside].iterrows()
            )
            sentences.append(
                f"Of {self.n_chains} short chains from over-dispersed starts, some ended where none of the draws is "
                f"({counts}). The draws miss a part of the distribution: their means and intervals cannot be trusted, "
                "whatever R-hat and ESS say. Sample more chains, each from a start of its own, with more "
                "sweeps_per_draw, until they visit it and move between the parts. If this sentence goes away with more "
                "draws of the short chains, they had not yet settled"
            )
        if self.stuck:
            sentences.append(
                f"None of the draws differs from the others in {', '.join(self.stuck)}, and short chains from "
                "over-dispersed starts stay elsewhere: chains do not leave where they come to, so that the draws say "
                "nothing about how probable that is. Use a step method that moves several units at once, or weaken "
                "what ties them together"
            )
        if self.unreached:
            shares = "; ".join(
                f"{name}: {max(row['unreached below'], row['unreached above']):.1%}"
                for name, row in self.table.loc[self.unreached].iterrows()
            )
            sentences.append(
                f"None of {self.n_chains} short chains from over-dispersed starts ended where a part of the draws is "
                f"({shares} of them). Either short chains need more draws to come there, or the chains began there and "
                "found no way out: sample more chains, each from a start of its own, with more sweeps_per_draw"
            )
        return [fill(sentence, width=100, subsequent_indent="    ") for sentence in sentences]


def run_short_chains(
    model: Any,
    idata: xr.DataTree,
    draws: xr.Dataset,
    read_draws: Callable[[xr.DataTree], xr.Dataset],
    *,
    chains: int,
    n_draws: int | None,
    random_seed: int | np.random.Generator | None,
    sample_kwargs: Mapping[str, Any],
) -> ShortChains:
    """Sample short chains of a model and compare them with draws.

    Where they differ, other and four times longer chains must differ as well: that tells a mode from chains that had
    not yet settled.

    Parameters
    ----------
    model : pymc.Model
    idata : DataTree
    draws : Dataset
        The variables of `idata` to look at.
    read_draws : callable
        Returns the same variables of another DataTree.
    chains, n_draws, random_seed, sample_kwargs
        As of `report`.

    Returns
    -------
    ShortChains
        Of the longer chains, if there were any.
    """
    import pymc as pm

    from step_methods.starts import starts_with_children

    if n_draws is None:
        n_draws = _enough_draws(draws, energies(idata))
    rng = np.random.default_rng(random_seed)
    options = {"tune": max(n_draws, 2 * _FEWEST_DRAWS), "cores": 1, "progressbar": False} | dict(sample_kwargs)
    for stage in (1, 4):
        options["tune"] *= stage
        if "initvals" not in sample_kwargs and (starts := starts_with_children(model, chains, rng)) is not None:
            options["initvals"] = starts
        with warnings.catch_warnings():
            # ArviZ takes a DataTree of more chains than draws for one whose dims are mixed up.
            warnings.filterwarnings("ignore", "Found chain dimension to be longer than draw", UserWarning)
            short = pm.sample(
                stage * n_draws,
                chains=chains,
                model=model,
                random_seed=rng,
                quiet=True,
                compute_convergence_checks=False,
                **options,
            )
        result = compare(
            draws, read_draws(short), energies(idata), energies(short), next(iter(count_starts(short).values()), None)
        )
        if not (result.outside or result.unreached):
            break
    return result


def compare(
    draws: xr.Dataset,
    short: xr.Dataset,
    energies_of_draws: xr.Dataset,
    energies_of_short: xr.Dataset,
    n_starts: int | None,
) -> ShortChains:
    """Hold the last states of short chains against draws, by functions of state.

    If both have the same law, each order of them is as probable as any other: the k largest of M draws and m short
    chains are all short chains with probability m(m − 1)⋯(m − k + 1) / (M + m)(M + m − 1)⋯(M + m − k + 1), whatever
    the law. M is the effective sample size of the function. The probabilities of both ends, of both questions and of
    all functions are corrected by Bonferroni's inequality, which keeps the rate of false alarms below
    `FALSE_ALARM_RATE`.

    Parameters
    ----------
    draws, short : Dataset
        Of dims chain, draw and those of the units.
    energies_of_draws, energies_of_short : Dataset
        Of dims chain and draw.
    n_starts : int or None

    Returns
    -------
    ShortChains
    """
    # Directions are found by the first halves of all chains, so that they do not know the states that they compare. As
    # short chains weigh as much as draws there, they see the directions in which the two differ.
    directions = leading_directions(_first_half(draws), _first_half(short))
    shared = [
        name
        for name in energies_of_draws
        if name in energies_of_short and len(energies_of_draws) == len(energies_of_short)
    ]
    functions = _with_scalars(draws, energies_of_draws[shared], directions)
    of_short = _with_scalars(short, energies_of_short[shared], directions)
    ends = of_short.isel(draw=-1)
    sizes = _effective_sizes(functions)
    rows = {name: _compare_one(functions[name].values, ends[name].values, sizes[name]) for name in sizes}
    table = pd.DataFrame.from_dict(rows, orient="index")
    level = FALSE_ALARM_RATE / (4 * max(len(rows), 1))
    return ShortChains(
        table=table,
        outside=[name for name, row in rows.items() if row["p outside"] < level],
        # Fewer chains than there are can reach the draws where some ended outside of them.
        unreached=[name for name, row in rows.items() if row["p unreached"] < level <= row["p outside"]],
        n_chains=short.sizes["chain"],
        n_draws=short.sizes["draw"],
        n_starts=n_starts,
        stuck=[name for name in sizes if _stay_elsewhere(functions[name].values, of_short[name].values)],
    )


def _stay_elsewhere(draws: np.ndarray, short: np.ndarray) -> bool:
    """Whether all draws are the same, and a short chain does not move either, but has another value."""
    if draws.min() < draws.max():
        return False
    late = short[:, short.shape[1] // 2 :]
    slack = 1e-9 * max(abs(float(draws.flat[0])), float(np.abs(late).max()))
    unmoved = late.max(axis=1) - late.min(axis=1) <= slack
    return bool((unmoved & (np.abs(late[:, -1] - draws.flat[0]) > slack)).any())


def _enough_draws(draws: xr.Dataset, energies_of_draws: xr.Dataset) -> int:
    """Return ten autocorrelation times of the slowest function of state in draws, at most a quarter of a chain."""
    n_draws = draws.sizes["draw"]
    functions = _with_scalars(draws, energies_of_draws, leading_directions(_first_half(draws)))
    slowest = min(_effective_sizes(functions).values(), default=np.inf)
    times = n_draws * draws.sizes["chain"] / slowest
    return int(np.clip(np.ceil(_AUTOCORRELATION_TIMES * times), _FEWEST_DRAWS, max(n_draws // 4, _FEWEST_DRAWS)))


def _first_half(draws: xr.Dataset) -> xr.Dataset:
    return draws.isel(draw=slice(max(draws.sizes["draw"] // 2, 1)))


def _with_scalars(draws: xr.Dataset, energies: xr.Dataset, directions: Mapping[str, np.ndarray]) -> xr.Dataset:
    functions = state_functions(draws, energies, directions)
    scalars = {name: (SAMPLE_DIMS, x.values.reshape(x.shape[:2])) for name, x in draws.items() if x[0, 0].size == 1}
    return functions.assign(scalars)


def _effective_sizes(functions: xr.Dataset) -> dict[str, float]:
    """Return how many independent values the draws of a function are worth, in the middle and in the tails."""
    from arviz_stats import ess

    if not functions:
        return {}
    n_chains, n_draws = functions.sizes["chain"], functions.sizes["draw"]
    bulk, tail = (ess(functions, method=method) for method in ("bulk", "tail"))
    sizes = {}
    for name, values in functions.items():
        size = np.fmin(float(bulk[name]), float(tail[name]))
        # Draws that are all the same, or too few, have no effective size: each chain is worth one of them at least.
        known = np.isfinite(size) and values.min() < values.max()
        sizes[str(name)] = float(min(max(size, 1.0), n_chains * n_draws)) if known else float(n_chains)
    return sizes


def _compare_one(draws: np.ndarray, ends: np.ndarray, size: float) -> dict[str, float]:
    low, high = draws.min(), draws.max()
    # Components are sums of floats: equal states must not differ by their last bits.
    slack = 1e-9 * max(abs(low), abs(high))
    below, above = np.sum(ends < low - slack), np.sum(ends > high + slack)
    unreached_below = np.mean(draws < ends.min() - slack)
    unreached_above = np.mean(draws > ends.max() + slack)
    return {
        "low": low,
        "high": high,
        "ess": size,
        "below": below,
        "above": above,
        "p outside": min(_p_extreme(k, ends.size, size) for k in (below, above)),
        "unreached below": unreached_below,
        "unreached above": unreached_above,
        "p unreached": min(_p_extreme(np.floor(x * size), size, ends.size) for x in (unreached_below, unreached_above)),
    }


def _p_extreme(k: float, n: float, n_others: float) -> float:
    """Return the probability that the k largest of n + n_others exchangeable values are all among the n."""
    i = np.arange(k)
    return float(np.prod((n - i) / (n + n_others - i)))
