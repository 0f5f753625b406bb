"""Plain `pm.Bernoulli` switches of occupancy models: BlockGibbs against PyMC's own step, alone and inside pm.sample.

Sites are visited five times; how likely one is occupied, and how likely the species is seen there, are unknown. One
core, no progress bar, one thread, float64.
"""

from harness import print_table, time_in_turn  # isort: skip

from collections.abc import Callable, Iterator

import arviz as az
import numpy as np
import pymc as pm
from pymc.step_methods.compound import BlockedStep

import pm_neural as pmn

N_VISITS = 5
STEPS: dict[str, type[BlockedStep]] = {
    "pm.BinaryGibbsMetropolis": pm.BinaryGibbsMetropolis,
    "BlockGibbs": pmn.BlockGibbs,
}


def occupancy(n_sites: int) -> pm.Model:
    """Declare the model, with data drawn from it."""
    rng = np.random.default_rng(1)
    altitude = rng.normal(size=n_sites)
    is_occupied = rng.random(n_sites) < 1 / (1 + np.exp(-(0.3 + altitude)))
    with pm.Model() as model:
        intercept = pm.Normal("intercept", 0, 1.5)
        slope = pm.Normal("slope", 0, 1.5)
        detection = pm.Beta("detection", 1, 1)
        z = pm.Bernoulli("z", logit_p=intercept + slope * altitude, shape=n_sites)
        pm.Binomial("seen", N_VISITS, detection * z, observed=rng.binomial(N_VISITS, 0.4 * is_occupied))
    return model


def draws_of(step: BlockedStep, model: pm.Model) -> Callable[[int], object]:
    """Return what makes draws of one chain by a step alone."""
    point = model.initial_point() | {"z": np.ones(model["z"].type.shape, np.int64)}

    def run(n: int) -> None:
        nonlocal point
        for _ in range(n):
            point, _ = step.step(point)

    return run


def step_rows() -> Iterator[dict]:
    """Time of a draw of all switches, the other variables held."""
    for n_sites in (200, 5000):
        with occupancy(n_sites) as model:
            methods = [(name, draws_of(make([model["z"]]), model)) for name, make in STEPS.items()]
            times = time_in_turn(list(methods))
        for (name, _), seconds in zip(methods, times, strict=True):
            assert seconds is not None
            assert times[0] is not None
            yield {
                "sites": n_sites,
                "step": name,
                "ms a draw": f"{1e3 * seconds:.4g}",
                "ratio": f"{times[0] / seconds:,.0f}",
            }


def sample_rows(n_sites: int = 200, tune: int = 500, draws: int = 2000) -> Iterator[dict]:
    """Effective draws per second of the switch that is slowest, of those that are not certain."""
    reference = None
    for name, make in STEPS.items():
        with occupancy(n_sites) as model:
            idata = pm.sample(
                draws,
                tune=tune,
                chains=4,
                cores=1,
                step=make([model["z"]]),
                random_seed=1,
                progressbar=False,
                compute_convergence_checks=False,
            )
        seconds = idata["sample_stats"].attrs["sampling_time"]
        ess = az.ess(idata["posterior"].to_dataset(), method="mean")["z"].values
        moving = idata["posterior"]["z"].values.std(axis=(0, 1)) > 0
        rate = float(ess[moving].min()) / seconds
        reference = reference or rate
        yield {
            "step": f"{name} + NUTS",
            "ms a draw": f"{1e3 * seconds / (4 * (tune + draws)):.3f}",
            "min ESS/s of z": f"{rate:.4g}",
            "ratio": f"{rate / reference:.1f}",
            "detection": f"{float(idata['posterior']['detection'].mean()):.3f}",
        }


if __name__ == "__main__":
    print_table("Occupancy: a draw of the switches", list(step_rows()))
    print_table("Occupancy, 200 sites: pm.sample", list(sample_rows()))
