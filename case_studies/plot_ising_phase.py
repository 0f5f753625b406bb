r"""
A magnet at its critical point, and chains that slow down
=========================================================

A magnet loses its magnetism when it is heated, and not little by little: there is a temperature at which it is gone.
The Ising model was made to explain this. For us it is the ideal test of a sampler: its energy is known exactly,
not only for an infinite magnet but for each finite lattice; and near the critical point every sampler that moves one
spin at a time gets into trouble. The trouble has a name, *critical slowing down*, and we can watch how the diagnostics
of ArviZ report it.

The model
---------

Spins :math:`s_i = \pm 1` sit on a square lattice whose opposite edges are joined, a torus. Neighbors that agree have
the energy −1, neighbors that disagree +1, and at temperature :math:`T = 1 / \beta`

.. math::

    p(s) = \frac{e^{-\beta E(s)}}{Z(\beta)}, \qquad E(s) = -\sum_{\langle ij \rangle} s_i s_j.

When it is hot, disorder wins: there are so many disordered states. When it is cold, energy wins, and the spins line up.
Onsager found in 1944 that an infinite lattice changes from one to the other at

.. math::

    T_c = \frac{2}{\log(1 + \sqrt 2)} \approx 2.269.
"""

import os

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from scipy.special import ellipk

import pm_neural as pmn

# sphinx_gallery_thumbnail_number = 2
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer temperatures and draws

critical = 2 / np.log(1 + np.sqrt(2))
sizes = [4, 12] if SHORT else [4, 12, 32]
largest = sizes[-1]
colors = dict(zip(sizes, ["tab:green", "tab:orange", "tab:blue"], strict=False))
rng = np.random.default_rng(1)

# %%
# One model for each size of the lattice. The inverse temperature is data that we change between the runs, so nothing is
# compiled twice. There is no need for :math:`Z` as long as :math:`\beta` is fixed in a run.

lattices = {size: pmn.lattice((size, size), periodic=True) for size in sizes}
models = {}
for size, torus in lattices.items():
    with pm.Model() as models[size]:
        inverse_temperature = pm.Data("beta", 1 / critical)
        pmn.Ising("s", torus, coupling=inverse_temperature)


def simulate(size, temperature, starts, draws, tune, sweeps):
    """Sample a lattice and return its magnetization and energy per spin in each draw."""
    with models[size]:
        pm.set_data({"beta": 1 / temperature})
        idata = pm.sample(
            draws,
            tune=tune,
            chains=len(starts),
            cores=1,
            initvals=[{"s": start} for start in starts],
            block_gibbs={"sweeps_per_draw": sweeps},
            random_seed=int(rng.integers(2**31)),
            progressbar=False,
            quiet=True,
            compute_convergence_checks=False,
        )
    spins = idata["posterior"]["s"]
    magnetization = spins.mean(spins.dims[2:])
    # The sampler statistic is the exponent of p(s), which is the energy times the inverse temperature.
    energy = idata["sample_stats"]["network_energy"] * temperature / size**2
    return magnetization.to_dataset(name="m").assign(energy=energy, size_of_m=np.abs(magnetization))


def ordered(size):
    """Return a lattice with all spins up, as at temperature 0."""
    return np.ones((size, size), dtype=int)


def disordered(size):
    """Return a lattice of coin flips, as at infinite temperature."""
    return rng.choice([-1, 1], size=(size, size))


# %%
# Three temperatures
# ------------------
#
# First a look at single states, each after a thousand sweeps from an ordered start. Hot: noise. Cold: one color with a
# few exceptions, each of them soon gone. In between, clusters of all sizes within clusters of the other color. (For
# this one a thousand sweeps are not nearly enough, as we shall see.)

temperatures = {"hot": 3.5, "critical": critical, "cold": 1.8}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
for ax, (name, temperature) in zip(axes, temperatures.items(), strict=True):
    with pm.Model():
        field = pmn.Ising("s", pmn.lattice((128, 128), periodic=True), coupling=1 / temperature)
        state = pm.sample(
            1,
            tune=0,
            chains=1,
            cores=1,
            initvals={"s": ordered(128)},
            block_gibbs={"sweeps_per_draw": 1000},
            random_seed=2,
            progressbar=False,
            quiet=True,
            compute_convergence_checks=False,
        )
    ax.imshow(state["posterior"]["s"][0, 0], cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    ax.set(title=f"{name}, T = {temperature:.3f}", xticks=[], yticks=[])

# %%
# Energy and magnetization against temperature
# --------------------------------------------
#
# The exact energy of a finite lattice comes from its partition function, :math:`\langle E \rangle = -\partial \log Z /
# \partial \beta`. For the torus :math:`Z` is known (Kaufman, 1949), and ``pmn.Ising`` uses it when asked for
# ``normalize="exact"``. Its log-probability of any state is :math:`-\beta E(s) - \log Z`, and PyTensor differentiates
# it for us. For the ordered state :math:`E = -2n` on :math:`n` spins.
#
# The infinite lattice has Onsager's energy, and the magnetization that Yang proved in 1952. Finite lattices have none
# that lasts: all spins up and all spins down are equally probable, and the mean of :math:`m` is zero at every
# temperature. One looks at :math:`\langle |m| \rangle` instead. For this no formula is known, but 4 by 4 spins have
# only 65 536 states, which we simply list.


def exact_energy(size, temperature):
    """Return the exact energy per spin of a torus at an array of temperatures, by the slope of log Z."""
    betas = pt.vector("betas")
    field = pmn.Ising.dist(lattices[size], coupling=betas, normalize="exact")
    all_up = np.ones((len(temperature), size, size), dtype=int)
    log_z = 2 * size**2 * betas - pm.logp(field, all_up)
    slope = pytensor.function([betas], pt.grad(log_z.sum(), betas), mode="FAST_COMPILE")
    return -slope(1 / temperature) / size**2


def onsager_energy(temperature):
    """Return the energy per spin of the infinite lattice (Onsager 1944)."""
    K = 2 / temperature
    k = 2 * np.sinh(K) / np.cosh(K) ** 2
    return -(1 + 2 / np.pi * (2 * np.tanh(K) ** 2 - 1) * ellipk(k**2)) / np.tanh(K)


def yang_magnetization(temperature):
    """Return the magnetization of the infinite lattice (Yang 1952), zero above the critical temperature."""
    return np.clip(1 - np.sinh(2 / temperature) ** -4.0, 0, None) ** 0.125


states = (2 * pmn.diagnostics.enumerate_states(16) - 1).astype(float)
energies = -0.5 * np.einsum("si,si->s", states, states @ lattices[4].couplings.toarray())


def exact_magnetization_4x4(temperature):
    """Return the mean of |m| on the torus of 4 by 4 spins, by enumeration."""
    weights = np.exp(-(energies - energies.min()) / temperature)
    return weights @ np.abs(states.mean(axis=1)) / weights.sum()


# %%
# Now the runs. Below :math:`T_c` all chains start in order, above it in disorder. Each draw is ten sweeps after the one
# before.

measured = np.array(
    [1.6, 2.0, 2.2, 2.3, 2.5, 3.0, 3.5] if SHORT else [1.6, 1.8, 2, 2.1, 2.2, 2.27, 2.35, 2.5, 2.7, 3, 3.5]
)
results = {}
for size in sizes:
    for temperature in measured:
        starts = [ordered(size) if temperature < critical else disordered(size) for _ in range(4)]
        results[size, temperature] = simulate(size, temperature, starts, 300 if SHORT else 1000, tune=200, sweeps=10)

fine = np.linspace(1.5, 3.6, 211)
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for size in sizes:
    runs = [results[size, temperature] for temperature in measured]
    label = f"{size} x {size}"
    left.plot(fine, exact_energy(size, fine), color=colors[size], lw=1)
    for ax, name in ((left, "energy"), (right, "size_of_m")):
        means = [float(run[name].mean()) for run in runs]
        errors = [2 * float(az.mcse(run[[name]])[name]) for run in runs]
        ax.errorbar(measured, means, errors, fmt="o", ms=4, color=colors[size], label=label)
right.plot(fine, [exact_magnetization_4x4(temperature) for temperature in fine], color=colors[4], lw=1)
left.plot(fine, onsager_energy(fine), "k:", label="infinite lattice (Onsager)")
right.plot(fine, yang_magnetization(fine), "k:", label="infinite lattice (Yang)")
for ax in (left, right):
    ax.axvline(critical, color="0.8", zorder=0)
    ax.set_xlabel("temperature")
left.set(title="energy per spin; lines: exact", ylabel=r"$\langle E \rangle / n$")
right.set(title="magnetization; line through 4 x 4: exact", ylabel=r"$\langle |m| \rangle$")
left.legend()
right.legend()

# %%
# The points lie on the lines. To see whether they lie there within their errors, the largest lattice in numbers: the
# deviation from the exact value in units of the Monte Carlo standard error that ArviZ estimates from the chains.

deviations = []
print(
    f"{largest} x {largest} spins\n   T      energy     exact   deviation/MCSE   ESS of E   ESS of |m|   R-hat of |m|"
)
for size in sizes:
    for temperature, truth in zip(measured, exact_energy(size, measured), strict=True):
        run = results[size, temperature]
        mean, error = float(run["energy"].mean()), float(az.mcse(run[["energy"]])["energy"])
        deviations.append((mean - truth) / error)
        if size == largest:
            ess = az.ess(run[["energy", "size_of_m"]], method="mean")
            rhat = az.rhat(run[["size_of_m"]])
            print(
                f"{temperature:5.2f} {mean:10.5f} {truth:9.5f} {deviations[-1]:16.2f} "
                f"{float(ess['energy']):10.0f} {float(ess['size_of_m']):12.0f} "
                f"{float(rhat['size_of_m']):14.3f}"
            )
print(f"root mean square deviation over all sizes: {np.sqrt(np.mean(np.square(deviations))):.2f} MCSE")

# %%
# Deviations of about one standard error are what one expects if everything is right. Now look at the last three
# columns: the same number of draws is worth thousands far from :math:`T_c`, and few of them near it, where R-hat is
# largest.
#
# Critical slowing down
# ---------------------
#
# A sweep changes spins where they are, and news travels from neighbor to neighbor. At the critical point the clusters
# are as large as the lattice, and to make or dissolve one takes as long as it takes news to diffuse across it, some
# :math:`L^2` sweeps for a lattice of side :math:`L`. Theory and simulations agree that the autocorrelation time grows
# as :math:`L^z` with :math:`z \approx 2.17` for every rule that updates spins locally.
#
# With ArviZ the time (strictly: how many sweeps make one independent draw) is the number of sweeps divided by the
# effective sample size. On the left a draw is ten sweeps, so no value can be much below ten.


def sweeps_per_independent_draw(size, run, sweeps):
    """Return the number of sweeps that one effective draw of |m| has taken."""
    ess = float(az.ess(run[["size_of_m"]], method="mean")["size_of_m"])
    return run["m"].size * sweeps / ess


near = np.linspace(2.0, 3.2, 5 if SHORT else 13)
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for size in sizes:
    times = []
    for temperature in near:
        run = simulate(size, temperature, [ordered(size)] * 4, 300 if SHORT else 2000, tune=100, sweeps=10)
        times.append(sweeps_per_independent_draw(size, run, 10))
    left.semilogy(near, times, "o-", ms=4, color=colors[size], label=f"{size} x {size}")
left.axvline(critical, color="0.8", zorder=0)
left.set(xlabel="temperature", ylabel="sweeps for one independent draw of |m|", title="slow where it is critical")
left.legend()

times = []
for size in sizes:
    sweeps = max(1, size**2 // 16)
    run = simulate(size, critical, [ordered(size)] * 4, 500 if SHORT else 2000, tune=100, sweeps=sweeps)
    times.append(sweeps_per_independent_draw(size, run, sweeps))
exponent = np.polyfit(np.log(sizes), np.log(times), 1)[0]
right.loglog(sizes, times, "o")
right.loglog(sizes, times[-1] * (np.array(sizes) / largest) ** 2.17, "k--", label="slope 2.17")
right.set(xlabel="side of the lattice", ylabel="sweeps for one independent draw of |m|", title="at the critical point")
right.set_xticks(sizes, [str(size) for size in sizes])
right.minorticks_off()
right.legend()
print("sweeps for one independent draw at T_c:", dict(zip(sizes, np.round(times, 1).tolist(), strict=True)))
print(f"fitted exponent: {exponent:.2f}")

# %%
# What R-hat says
# ---------------
#
# Now as one would do it without knowing any of this: four chains, a thousand draws of one sweep each, no burn-in beyond
# a hundred. Two chains start with all spins up, one with all spins down, one in disorder.

starts = [ordered(largest), ordered(largest), -ordered(largest), disordered(largest)]
looks = [("up", "tab:red"), ("up", "tab:orange"), ("down", "tab:blue"), ("disordered", "tab:cyan")]
fig, axes = plt.subplots(3, 1, figsize=(9, 6), sharex=True, sharey=True, layout="constrained")
for ax, (name, temperature) in zip(axes, temperatures.items(), strict=True):
    run = simulate(largest, temperature, starts, 1000, tune=100, sweeps=1)
    for chain, (label, color) in enumerate(looks):
        ax.plot(run["m"].sel(chain=chain), lw=0.7, color=color, label=label)
    rhat, ess = az.rhat(run), az.ess(run)
    ax.set(title=f"{name}, T = {temperature:.3f}", ylabel="m", ylim=(-1.05, 1.05))
    print(
        f"{name:9s} R-hat of m {float(rhat['m']):6.3f}, of |m| {float(rhat['size_of_m']):6.3f}, "
        f"of the energy {float(rhat['energy']):6.3f};   ESS of |m| {float(ess['size_of_m']):6.0f} of {run['m'].size}"
    )
axes[0].legend(ncols=4, fontsize="small")
axes[-1].set_xlabel("sweep")

# %%
# Hot, the four chains cannot be told apart, and R-hat is close to one. At the critical point each chain wanders so
# slowly that the four still differ: R-hat is too large, the effective sample size tiny. Both say that the run is too
# short, and they are right.
#
# Cold, it is a different matter. Each chain keeps its sign for longer than anyone can wait, since to turn it would
# have to pass through states of far too high an energy. The R-hat of :math:`m` reports it only because some chains
# differ. Had all of them started with their spins up, they would agree perfectly and all be wrong about the mean of
# :math:`m`, which is zero. R-hat compares what the chains have seen.
#
# For questions that do not depend on the sign, such as :math:`|m|` and the energy, an ordered start is the right one
# below :math:`T_c`: half of the states are as good as all, and the chain is in the right half from the beginning. From
# disorder a cold lattice grows domains of both colors, and these may meet around the torus as stripes, whose straight
# walls hardly move.
#
# References
# ----------
#
# - Onsager, L. (1944). Crystal statistics. I. A two-dimensional model with an order-disorder transition. Physical
#   Review 65, 117.
# - Kaufman, B. (1949). Crystal statistics. II. Partition function evaluated by spinor analysis. Physical Review 76,
#   1232.
# - Yang, C. N. (1952). The spontaneous magnetization of a two-dimensional Ising model. Physical Review 85, 808.
# - Nightingale, M. P. and Blöte, H. W. J. (1996). Dynamic exponent of the two-dimensional Ising model and Monte Carlo
#   computation of the subdominant eigenvalue from the stochastic matrix. Physical Review Letters 76, 4548.

plt.show()
