"""Sampler statistics beside those of PyMC's step methods."""

import arviz as az
import numpy as np
import pymc as pm
import pytest

import pm_neural as pmn

QUIET = {"progressbar": False, "compute_convergence_checks": False, "cores": 1}


@pytest.mark.parametrize("step_method", [pmn.BlockGibbs, pmn.NeuralSampling])
def test_the_energy_of_nuts_stays_its_own(step_method):
    with pm.Model():
        bias = pm.Normal("bias")
        z = pmn.BoltzmannMachine("z", np.zeros((2, 2)), 0.0)
        pm.Normal("y", bias + z, 1, observed=[1.0, -1.0])
        steps = [pm.NUTS([bias]), step_method([z])]
        idata = pm.sample(20, tune=20, chains=2, step=steps, random_seed=1, **QUIET)
    stats = idata["sample_stats"]
    assert stats["energy"].dims == stats["network_energy"].dims == ("chain", "draw")
    bfmi = az.bfmi(idata)
    assert bfmi["energy"].dims == ("chain",)
    assert np.isfinite(bfmi["energy"]).all()
    az.plot_energy(idata, backend="none")


def test_the_energy_of_nuts_stays_its_own_beside_langevin():
    with pm.Model():
        x, y = pm.Normal("x"), pm.Normal("y")
        steps = [pm.NUTS([x]), pmn.Langevin([y])]
        idata = pm.sample(20, tune=20, chains=2, step=steps, random_seed=1, **QUIET)
    assert idata["sample_stats"]["energy"].dims == ("chain", "draw")
    az.plot_energy(idata, backend="none")
