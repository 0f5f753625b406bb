"""A report on chains of binary units: what the R-hat and ESS of single units do not say."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from pm_neural.diagnostics._short_chains import ShortChains, run_short_chains
from pm_neural.diagnostics._state_functions import (
    SAMPLE_DIMS,
    count_starts,
    energies,
    is_counted,
    r_hat_functions,
)
from step_methods.checks import at_least

if TYPE_CHECKING:
    import pymc as pm

__all__ = ["Report", "ShortChains", "report"]

_LABELS_SHOWN = 20
_HIGHEST_R_HAT = 1.05
_CHANCE_OF_ONE_START = 0.01


@dataclass(frozen=True, eq=False)
class Report:
    """Diagnostics of a set of chains; `print` shows them in short.

    What it finds fault with are its `complaints`; the rest is for you to judge.

    Units are named as in the rows of `summary`, so that ``summary.loc[frozen_units["v"]]`` works.

    Attributes
    ----------
    summary : pandas.DataFrame
        What ``arviz.summary`` says of each unit.
    overview : pandas.DataFrame
        One row for each variable: its number of units, the worst R-hat and the smallest bulk and
        tail ESS of the units that changed, and the bulk ESS of the total activity, the sum of the
        units. NaN where there is no such thing: no unit changed, too few draws, and no activity of
        a scalar or a continuous variable.
    frozen_units : dict of str to list of str
        Units with one and the same value in all draws of all chains.
    stuck_units : dict of str to list of str
        Units that never changed within at least one chain, but take other values elsewhere.
    n_clamped : dict of str to int
        Number of units held at observed values, of the variables where some were observed.
    ess_energy : dict of str to float
        Bulk ESS of the energy, one entry for each step method that recorded it.
    disagreeing_units : dict of str to list of str
        Units on which chains disagree: their R-hat is above 1.05.
    nan_units : dict of str to list of str
        Units that changed, or may have, but have no R-hat: it is NaN for a single chain, for fewer than four draws and
        where a draw is NaN.
    r_hat_functions : dict of str to float
        R-hat of functions of the state, which see what no single unit shows: the energies, the total activity of each
        variable with whole-numbered units, and the first principal component of each variable. The component is that
        of the first halves of the chains, and its R-hat that of the second halves: in as many dimensions as there are
        units, some direction always tells draws from those that it was chosen by. NaN where there is no R-hat.
    n_starts : dict of str to int
        In how many different states the chains began, one entry for each step method that recorded it.
    n_chains, n_draws : int
        Number of chains, and of draws in each.
    short_chains : ShortChains or None
        What short chains from over-dispersed starts say of the draws, if the report was given the model: its `table`
        has a row for each function of state with the range of the draws and how many short chains ended outside of it.
    """

    summary: pd.DataFrame = field(repr=False)
    overview: pd.DataFrame
    frozen_units: dict[str, list[str]]
    stuck_units: dict[str, list[str]]
    n_clamped: dict[str, int]
    ess_energy: dict[str, float]
    disagreeing_units: dict[str, list[str]]
    nan_units: dict[str, list[str]]
    r_hat_functions: dict[str, float]
    n_starts: dict[str, int]
    n_chains: int
    n_draws: int
    short_chains: ShortChains | None = field(default=None, repr=False)

    @property
    def complaints(self) -> list[str]:
        """Sentences on what is wrong with the chains, and what to do; none if nothing was found.

        A unit that never changed is no fault by itself, and not among them.
        """
        # Chains that coins start share a state by chance where few units are free.
        n_free = self.overview["units"].sum() - sum(map(len, self.frozen_units.values()))
        by_chance = 0.5 ** (n_free * (self.n_chains - 1)) > _CHANCE_OF_ONE_START
        sentences = [
            fill(
                f"All {self.n_chains} chains began in the same state ({name}), so that R-hat says little: they may all "
                "have missed the same parts of the distribution. Give each a start of its own, and the model to this "
                "report",
                width=100,
                subsequent_indent="    ",
            )
            for name, n_starts in self.n_starts.items()
            if n_starts == 1 and not by_chance
        ]
        sentences += self._sentences(
            self.disagreeing_units,
            f"differ between the chains (R-hat above {_HIGHEST_R_HAT})",
        )
        functions = [f"{name} {r_hat:.3g}" for name, r_hat in self.r_hat_functions.items() if r_hat > _HIGHEST_R_HAT]
        if functions:
            sentences.append(
                fill(
                    f"R-hat of functions of the state: {', '.join(functions)}. The chains are in different parts of "
                    "the distribution: sample longer, with more sweeps_per_draw, until they move between them",
                    width=100,
                    subsequent_indent="    ",
                )
            )
        sentences += self._sentences(self.nan_units, "have no R-hat (NaN), which takes two chains and four draws")
        return sentences + (self.short_chains.complaints if self.short_chains else [])

    def __str__(self) -> str:
        overview = self.overview.to_string(float_format="{:.4g}".format)
        lines = [f"{self.n_chains} chains of {self.n_draws} draws", "", overview, ""]
        lines += [f"ESS of {name}: {ess:.0f}" for name, ess in self.ess_energy.items()]
        lines += [
            f"{name}: {count} clamped units, which never change by design" for name, count in self.n_clamped.items()
        ]
        lines += self._sentences(self.frozen_units, "never changed, so that R-hat is silent on them")
        lines += self._sentences(self.stuck_units, "did not change in at least one chain")
        if self.short_chains:
            short = self.short_chains
            starts = "" if short.n_starts is None else f" from {short.n_starts} starts"
            lines.append(f"held against the ends of {short.n_chains} short chains of {short.n_draws} draws{starts}")
        lines += self.complaints
        return "\n".join(lines).rstrip()

    def _sentences(self, units: dict[str, list[str]], what: str) -> list[str]:
        sentences = []
        for name, labels in units.items():
            if labels:
                ellipsis = ["…"] if len(labels) > _LABELS_SHOWN else []
                shown = " ".join(labels[:_LABELS_SHOWN] + ellipsis)
                count = f"{len(labels)} of {self.overview.loc[name, 'units']} units"
                sentence = f"{name}: {count} {what}: {shown}"
                sentences.append(fill(sentence, width=100, subsequent_indent="    "))
        return sentences


def report(
    idata: xr.DataTree,
    var_names: str | Sequence[str] | None = None,
    *,
    model: pm.Model | None = None,
    chains: int = 32,
    draws: int | None = None,
    random_seed: int | np.random.Generator | None = None,
    **sample_kwargs: Any,
) -> Report:
    """Summarize chains, and say what their R-hat and ESS do not.

    A unit that never changes has no R-hat and the full ESS, so that the usual checks pass it in
    silence. That may be right, where its probability is close to 0 or 1, or a sign that the chains
    are stuck. And a network may be slow as a whole while each of its units seems well mixed: that
    shows in the ESS of the energy and of the total activity, and in R-hat of these and of the first principal
    component.

    Chains that all sit in one mode agree perfectly, and nothing in their draws tells. Given the `model`, the report
    runs many short chains of it, each from a start of its own, and looks where they end: a mode that they find and that
    the draws never visited is reported, and so is a part of the draws where none of them came. The energy, the total
    activity, the first principal component and scalars are compared, by an exact test on ranks that holds for any
    distribution. Where it finds something, it looks again with new chains, four times as long, and believes those:
    chains that had not yet settled are not taken for a mode.

    Parameters
    ----------
    idata : xarray.DataTree
        With a group ``posterior`` of dims chain and draw, as from ``pm.sample``. The energy is read
        from the sampler statistic ``network_energy``, where there is one.
    var_names : str or sequence of str, optional
        Variables to report on, all of them by default.
    model : pymc.Model, optional
        The model that `idata` was drawn from, with the same data in it. Without it no short chains are run.
    chains : int
        How many short chains to run, 2 at least. A mode that a fraction q of them falls into is missed with about
        probability (1 − q)^chains, a little more where the draws are few.
    draws : int, optional
        Length of the short chains, of whose draws only the last one is compared; they are preceded by as many tuning
        steps, 100 at least. By default ten autocorrelation times of the slowest function of the state, as far as
        `idata` knows, but 50 at least and a quarter of the length of the chains in `idata` at most.
    random_seed : int or Generator, optional
        Of the short chains.
    **sample_kwargs
        Further arguments of ``pm.sample`` for the short chains. Give those that `idata` was sampled with:
        ``block_gibbs={"sweeps_per_draw": 100}``, ``step=…``.

    Returns
    -------
    Report
        Of a variable ``v`` that was partly observed, the posterior has the free units alone as
        ``v_unobserved``, too: those are looked at instead of ``v``, and the others are counted in
        `n_clamped`. Without it nothing tells a clamped unit from a frozen one.

    Raises
    ------
    TypeError
        If `idata` is not a DataTree, `model` is not a model, or `chains` or `draws` is not an integer.
    ValueError
        If it has no posterior with chains and draws, or a variable is not in it; if `idata` is not from `model`; if
        `chains` or `draws` is too small; if arguments for short chains are given without a model.

    Notes
    -----
    The starts are those that the model's own step methods make: `BlockGibbs` and `NeuralSampling` toss a coin for each
    unit that evidence leaves a choice, NUTS jitters. Other step methods of PyMC start all chains alike, from where
    short chains find nothing; pass ``initvals`` for them.

    Of chains that mix well, short chains are reported with a probability below 1 %: that is Bonferroni's bound for one
    look, and a report takes two in a row. It presumes that the short chains have settled, and that the effective sample
    sizes are right; both fail for chains that mix badly, which the other complaints are for.

    Examples
    --------
    >>> import numpy as np, pymc as pm, pm_neural as pmn
    >>> J = 1.5 * (np.ones((10, 10)) - np.eye(10))
    >>> with pm.Model() as model:  # all units are up, or all are down
    ...     z = pmn.BoltzmannMachine("z", J, -J.sum(axis=0) / 2)
    ...     idata = pm.sample(chains=4, initvals={"z": np.ones(10, int)}, cores=1, progressbar=False)  # doctest: +SKIP
    >>> print(pmn.diagnostics.report(idata, model=model))  # doctest: +SKIP
    """
    # Like PyMC, we load ArviZ when it is needed; it takes longer than all the rest.
    from arviz_stats import rhat, summary

    posterior = read_posterior(idata)
    names = read_names(var_names, posterior)
    # A variable and its free units hold the same draws: look at the free units, once.
    looked_at = list(dict.fromkeys(_free_units(name, posterior) for name in names))
    n_clamped = {
        name: posterior[name][0, 0].size - posterior[_free_units(name, posterior)][0, 0].size
        for name in names
        if _free_units(name, posterior) != name
    }

    _check_arguments(model, looked_at, chains, draws, random_seed, sample_kwargs)
    units = posterior[looked_at]
    frozen = units.min(SAMPLE_DIMS) == units.max(SAMPLE_DIMS)
    stuck = (units.min("draw") == units.max("draw")).any("chain") & ~frozen
    with _quiet():
        r_hat = rhat(units).where(~frozen)
        disagreeing, is_nan = r_hat > _HIGHEST_R_HAT, r_hat.isnull() & ~frozen
        short_chains = None
        if model is not None:
            short_chains = run_short_chains(
                model,
                idata,
                units,
                lambda short: _same_variables(short, units),
                chains=chains,
                n_draws=draws,
                random_seed=random_seed,
                sample_kwargs=sample_kwargs,
            )
        return Report(
            summary=summary(posterior[names]),
            overview=_overview(units, r_hat, frozen),
            frozen_units={name: _labels(frozen[[name]]) for name in looked_at},
            stuck_units={name: _labels(stuck[[name]]) for name in looked_at},
            n_clamped=n_clamped,
            ess_energy=_ess_energy(idata),
            disagreeing_units={name: _labels(disagreeing[[name]]) for name in looked_at},
            nan_units={name: _labels(is_nan[[name]]) for name in looked_at},
            r_hat_functions=r_hat_functions(units, energies(idata)),
            n_starts=count_starts(idata),
            n_chains=units.sizes["chain"],
            n_draws=units.sizes["draw"],
            short_chains=short_chains,
        )


def _check_arguments(
    model: Any, names: Sequence[str], chains: Any, draws: Any, random_seed: Any, sample_kwargs: Mapping[str, Any]
) -> None:
    if model is None:
        given = [*sample_kwargs, *(["draws"] if draws is not None else [])]
        given += ["random_seed"] if random_seed is not None else []
        if given:
            raise ValueError(f"{', '.join(given)} are for the short chains of a model: pass model=…, too")
        return
    # PyMC is loaded by whoever has a model.
    import pymc as pm

    if not isinstance(model, pm.Model):
        raise TypeError(f"model must be a pymc.Model, got {type(model).__name__}")
    in_model = [var.name for var in model.unobserved_RVs]
    if missing := [name for name in names if name not in in_model]:
        raise ValueError(f"model must be the one that idata was drawn from: it has {in_model}, not {missing}")
    at_least(2, "chains", chains)
    if draws is not None:
        at_least(1, "draws", draws)


def read_posterior(idata: xr.DataTree) -> xr.Dataset:
    if not isinstance(idata, xr.DataTree):
        raise TypeError(f"idata must be an xarray.DataTree, got {type(idata).__name__}")
    if "posterior" not in idata.children:
        raise ValueError(f"idata must have a group 'posterior', got the groups {sorted(idata.children)}")
    posterior = idata["posterior"].to_dataset()
    if not all(posterior.sizes.get(dim, 1) for dim in SAMPLE_DIMS):
        raise ValueError(f"idata.posterior must have draws, got the sizes {dict(posterior.sizes)}")
    stats = idata["sample_stats"].sizes if "sample_stats" in idata.children else {}
    for dim in SAMPLE_DIMS:
        if stats.get(dim, posterior.sizes.get(dim)) != posterior.sizes.get(dim):
            raise ValueError(
                f"idata must have the same draws in posterior and sample_stats, got {posterior.sizes.get(dim)} and "
                f"{stats[dim]} along {dim!r}: thin both, as idata.isel(draw=...) does, or leave sample_stats out"
            )
    for name, draws in posterior.items():
        if not set(SAMPLE_DIMS) <= set(draws.dims):
            raise ValueError(f"idata.posterior[{name!r}] must have the dims chain and draw, got {draws.dims}")
        if draws.dtype == bool:  # which ArviZ cannot subtract
            posterior[name] = draws.astype(np.int64)
    return posterior.transpose(*SAMPLE_DIMS, ...)


def read_names(var_names: str | Sequence[str] | None, posterior: xr.Dataset) -> list[str]:
    if var_names is None:
        return [str(name) for name in posterior.data_vars]
    names = [var_names] if isinstance(var_names, str) else list(var_names)
    for name in names:
        if name not in posterior.data_vars:
            raise ValueError(
                f"var_names must name variables of the posterior, {list(posterior.data_vars)}, got {name!r}"
            )
    return names


def _free_units(name: str, posterior: xr.Dataset) -> str:
    """Name the variable with the free units of `name`, itself if none were observed."""
    free = f"{name}_unobserved"
    return free if free in posterior else name


def _quiet() -> warnings.catch_warnings:
    """Silence ArviZ where it divides by the variance of a constant."""
    return warnings.catch_warnings(action="ignore", category=RuntimeWarning)


def _same_variables(short: xr.DataTree, draws: xr.Dataset) -> xr.Dataset:
    """Return the variables of short chains that were looked at in the draws.

    Raises
    ------
    ValueError
        If their shapes differ.
    """
    posterior = read_posterior(short)[list(draws.data_vars)]
    for name, units in draws.items():
        if posterior[name].shape[2:] != units.shape[2:]:
            raise ValueError(
                f"model must be the one that idata was drawn from: {name!r} has shape {units.shape[2:]} in idata and "
                f"{posterior[name].shape[2:]} in the model"
            )
    return posterior


def _overview(draws: xr.Dataset, r_hat: xr.Dataset, frozen: xr.Dataset) -> pd.DataFrame:
    from arviz_stats import ess

    bulk, tail = (ess(draws, method=method).where(~frozen) for method in ("bulk", "tail"))
    rows = {
        name: {
            "units": frozen[name].size,
            "max r_hat": float(r_hat[name].max()),
            "min ess_bulk": float(bulk[name].min()),
            "min ess_tail": float(tail[name].min()),
            "ess activity": _ess_activity(draws[name]),
        }
        for name in draws.data_vars
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _ess_activity(draws: xr.DataArray) -> float:
    from arviz_stats import ess

    if not is_counted(draws):
        return np.nan
    activity = draws.sum([dim for dim in draws.dims if dim not in SAMPLE_DIMS])
    return float(ess(activity)) if activity.min() < activity.max() else np.nan


def _ess_energy(idata: xr.DataTree) -> dict[str, float]:
    from arviz_stats import ess

    recorded = energies(idata)
    return {str(name): float(value) for name, value in ess(recorded).items()} if recorded else {}


def _labels(flags: xr.Dataset) -> list[str]:
    """Name the units that are flagged as ArviZ names them."""
    from arviz_base import dataset_to_dataframe

    table = dataset_to_dataframe(flags.expand_dims("flag"), sample_dims=["flag"])
    return [str(label) for label, flagged in table.iloc[0].items() if flagged]
