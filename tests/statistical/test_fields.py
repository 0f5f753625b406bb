"""BlockGibbs on Ising fields against the exact energy of the torus, and on the posterior of a noisy picture."""

import arviz as az
import numpy as np
import pymc as pm
import pytest

import pm_neural as pmn
from pm_neural.distributions.normalizers.kaufman import kaufman_log_partition

CRITICAL = np.log(1 + np.sqrt(2)) / 2
QUIET = {"cores": 1, "progressbar": False, "compute_convergence_checks": False}


def energy_of_torus(side, couplings, sweeps, draws):
    """Yield the deviation of the mean energy from its exact value in Monte Carlo standard errors, and R-hat."""
    torus = pmn.lattice((side, side), periodic=True)
    with pm.Model():
        coupling = pm.Data("coupling", 1.0)
        pmn.Ising("s", torus, coupling=coupling)
        for K in couplings:
            pm.set_data({"coupling": K})
            start = {"s": np.ones(torus.shape, dtype=int)} if K > CRITICAL - 0.01 else None
            options = {"block_gibbs": {"sweeps_per_draw": sweeps}, "initvals": start, "random_seed": 1}
            idata = pm.sample(draws, tune=draws // 5, chains=4, **options, **QUIET)
            energy = (idata["sample_stats"]["network_energy"] / K).to_dataset(name="energy")
            exact = -kaufman_log_partition(side, side, K)[1]
            error = float(energy["energy"].mean()) - exact
            yield error / float(az.mcse(energy)["energy"]), float(az.rhat(energy)["energy"])


def test_energy_of_a_small_torus():
    """Within 4 Monte Carlo standard errors of Kaufman's value at 3 couplings; false-alarm rate 2e-4."""
    for deviation, rhat in energy_of_torus(16, (0.3, 0.44, 0.6), sweeps=20, draws=1000):
        assert abs(deviation) < 4
        assert rhat < 1.02


@pytest.mark.slow
def test_energy_of_a_torus_of_64():
    """Within 4 Monte Carlo standard errors of Kaufman's value at 3 couplings; false-alarm rate 2e-4."""
    for deviation, rhat in energy_of_torus(64, (0.3, 0.44, 0.6), sweeps=100, draws=2000):
        assert abs(deviation) < 4
        assert rhat < 1.02


def test_a_noisy_picture_is_found_from_the_default_start():
    """A bare pm.sample() finds the disk in each chain: of 114 wrong pixels fewer than 40 stay, typically 24.

    Of chains that start from a field of one color some stay there, and miss the 376 pixels of the disk.
    """
    side = 32
    rng = np.random.default_rng(3)
    rows, columns = np.indices((side, side)) - (side - 1) / 2
    clean = rows**2 + columns**2 < 120
    noisy = clean ^ (rng.random(clean.shape) < 0.11)
    with pm.Model():
        flip = pm.Beta("flip", 2, 8)
        beta = pm.HalfNormal("beta", 1)
        s = pmn.Ising("s", pmn.lattice((side, side), periodic=True), coupling=beta, normalize="exact")
        pm.Bernoulli("y", pm.math.switch(s > 0, 1 - flip, flip), observed=noisy)
        idata = pm.sample(300, tune=300, chains=3, random_seed=1, **QUIET)
    restored = idata["posterior"]["s"].mean("draw") > 0
    wrong = (restored.to_numpy() != clean).sum(axis=(1, 2))
    assert (wrong < 40).all()
