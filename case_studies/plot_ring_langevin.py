r"""
A ring by an energy network, and how to sample it
=================================================

Any neural network that turns a point into a number can be the energy of a density. It is trained by letting Langevin
dynamics wander in it, and once trained it is a distribution in PyMC like any other. Here the points lie on a ring, in
the plane, where the trained density can be integrated: so we know what every sampler should find, and can tell how far
each of them is from it.
"""

import os
import time

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import torch
from torch import nn

import pm_neural as pmn

# sphinx_gallery_thumbnail_number = 1
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer epochs and draws
torch.set_num_threads(1)  # the networks are small

ring = pmn.datasets.load_ring(500, noise=0.1)

# %%
# The energy
# ----------
#
# A network with two hidden layers computes :math:`f(x)`, and the energy is that plus a Gaussian's,
#
# .. math::
#
#     E(x) = f(x) + \tfrac12 |x|^2, \qquad p(x) = \frac{e^{-E(x)}}{Z},
#
# as f alone says nothing far from the data: the Gaussian, called the base, keeps the density normalizable and the
# chains at home. The slope of the log-likelihood with respect to the weights is that of f at the model's points less
# that at the data. The model's points come from Langevin dynamics,
#
# .. math::
#
#     x \leftarrow x - \frac{\eta}{2} \nabla E(x) + \sqrt{\eta}\, N(0, I),
#
# whose chains do not start afresh for each update: they are kept in a buffer and go on from where they were.
# Each step may be accepted or rejected, so that the chains have exactly the density p whatever :math:`\eta` is.
#
# Without that, a step that is too long throws a chain out of any valley whose curvature is beyond :math:`4 / \eta`.
# Training then gets no warning from its chains when it digs such a hole, and the density may end up inside it: with the
# settings of the full version of this page, and no precaution, we have seen a score of −443 nats. The precaution here
# is a penalty on :math:`f^2`, which keeps the energy shallow.
#
# There is a third variant, which has trained networks on large images: noise *much smaller* than
# :math:`\sqrt\eta`. Chains like that sample another density, at a low temperature, and so the network that makes
# *them* look like the data is not the density of the data.

variants = {
    "with accept step": {},
    "without, penalized": {"adjusted": False, "energy_regularization": 0.01},
    "noise 0.005": {"adjusted": False, "noise": 0.005},
}


def make_network():
    """Make a new energy network, with random weights from a fixed seed."""
    torch.manual_seed(1)
    layers = [nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1), nn.Flatten(0)]
    return pmn.training.EnergyNetwork(nn.Sequential(*layers), shape=2)


networks = {}
for name, options in variants.items():
    networks[name] = make_network()
    history = networks[name].fit(
        ring.train,
        epochs=80 if SHORT else 400,
        learning_rate=1e-2 if SHORT else 3e-3,
        step_size=0.01,
        random_seed=1,
        progressbar=False,
        **options,
    )
    print(f"{name}: {history.attrs['training_seconds']:.0f} s")

# %%
# In the plane Z is an integral that a grid solves, and the score of a density is one too: the expected log-likelihood
# of a new point, :math:`\int p_\text{true}(x) \log p(x)\,dx`, which nothing can raise above that of the true density.

axis = np.linspace(-1.6, 1.6, 160)
grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
points, weights = ring.quadrature()

fig, axes = plt.subplots(1, 4, figsize=(11, 3.4), layout="constrained", sharey=True)
densities = {"truth": ring.log_density}
for name, network in networks.items():
    log_z = network.log_partition()
    densities[name] = lambda x, network=network, log_z=log_z: network.log_likelihood(x, log_z=log_z).per_row
for ax, (name, log_density) in zip(axes, densities.items(), strict=True):
    density = np.exp(log_density(grid)).reshape(160, 160)
    image = ax.pcolormesh(axis, axis, density, vmin=0, vmax=0.75, cmap="magma_r", rasterized=True)
    score = weights @ log_density(points)
    ax.set(title=f"{name}\nscore {score:.3f}", aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
fig.colorbar(image, ax=axes, label="density", shrink=0.8)

# %%
# With the accept step the network comes close to the truth. The penalized one stays further away. The low noise leaves
# a smear: energies whose *cold* chains look like a ring are far too flat.
#
# The same energy in PyMC
# -----------------------
#
# ``pmn.Energy`` makes the network a random variable. Its value and its gradient come from torch, and every step method
# for continuous variables can have it: NUTS, Metropolis, and Langevin with and without its accept step. What the
# expectations should be we know from the grid. We look at the mean squared distance from the circle, the ring's width
# so to speak, which a step that is too long gets wrong first.

trained = networks["with accept step"]
fine = np.linspace(-2.5, 2.5, 801)
plane = np.stack(np.meshgrid(fine, fine), axis=-1).reshape(-1, 2)
log_p = trained.log_likelihood(plane, log_z=trained.log_partition()).per_row
mass = np.exp(log_p) * (fine[1] - fine[0]) ** 2


def squared_distance(x):
    """Squared distance from the circle."""
    return (np.hypot(x[..., 0], x[..., 1]) - 1) ** 2


exact = mass @ squared_distance(plane)
print(f"the grid holds {mass.sum():.6f} of the mass; the mean squared distance is {exact:.5f}")

n_draws = 600 if SHORT else 10_000
samplers = {
    "NUTS": (pm.NUTS, {}, n_draws // (10 if SHORT else 5)),
    "Metropolis": (pm.Metropolis, {}, n_draws),
    "Langevin": (pmn.Langevin, {}, n_draws),
}
step_sizes = [0.002, 0.005, 0.01, 0.02]
for step_size in step_sizes:
    samplers[f"unadjusted, step size {step_size}"] = (
        pmn.Langevin,
        {"step_size": step_size, "adjusted": False},
        n_draws,
    )

relative = {}
print(f"{'':28} {'bias, %':>8} {'± MCSE':>8} {'ESS/s of it':>12} {'ESS/s of x':>11}")
for name, (step_method, options, draws) in samplers.items():
    with pm.Model():
        pmn.Energy("x", trained, shape=2, initval=[1.0, 0.0])
        step = step_method(**options)
        start = time.process_time()
        idata = pm.sample(
            draws,
            tune=200 if SHORT else 1000,
            chains=4,
            cores=1,
            step=step,
            random_seed=1,
            progressbar=False,
            compute_convergence_checks=False,
        )
        seconds = time.process_time() - start
    x = idata["posterior"]["x"].to_numpy()
    distance = squared_distance(x)
    bias, error = distance.mean() / exact - 1, float(az.mcse(distance)) / exact
    relative[name] = bias, error
    rates = [float(az.ess(values)) / seconds for values in (distance, x[..., 0])]
    print(f"{name:28} {100 * bias:8.1f} {100 * error:8.1f} {rates[0]:12.0f} {rates[1]:11.0f}")

# %%
# NUTS, Metropolis and Langevin with its accept step have no bias beyond their Monte Carlo error. Without the accept
# step the ring becomes wider, the more the longer the step. Theory says of a Gaussian of variance v that it becomes one
# of variance :math:`v / (1 - \eta / 4 v)`, and across the ring the density is nearly Gaussian:

etas = np.linspace(0, 0.021, 50)
fig, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
biases, errors = 100 * np.array([relative[f"unadjusted, step size {eta}"] for eta in step_sizes]).T
ax.errorbar(step_sizes, biases, 2 * errors, fmt="o", label="unadjusted, ± 2 MCSE")
ax.plot(etas, 100 * (1 / (1 - etas / (4 * exact)) - 1), color="gray", label="theory, for a Gaussian")
ax.axhline(100 * relative["Langevin"][0], color="C1", linestyle=":", label="with accept step")
ax.set(xlabel="step size", ylabel="bias of the squared distance, %")
ax.legend()

# %%
# How fast a sampler is depends on what it is asked. Across the ring a Langevin chain forgets where it was in a few
# steps. *Around* it, which is what the coordinate x measures, the gradient is of no help, and the chain diffuses in
# steps that fit the width of the ring. NUTS follows the ring, and pays for it with many gradients a draw. Metropolis
# needs no gradient; in two dimensions, where a long blind jump still lands on the ring now and then, that is enough to
# keep up with NUTS around it.
#
# Many chains at once
# -------------------
#
# Where all that is wanted are draws, ``EnergyNetwork.sample`` runs as many chains as one likes in one batch: two
# thousand cost hardly more than one, as the network then works on large matrices.

start = time.process_time()
tree = trained.sample(n_chains=2000, n_draws=1, burn_in=100 if SHORT else 500, random_seed=1)
x = tree["posterior"]["x"].to_numpy()[:, 0]
distance = squared_distance(x)
tuned = tree["sample_stats"].attrs["step_size"]
print(f"2000 chains in {time.process_time() - start:.1f} s, step size tuned to {tuned:.4f}")
print(
    f"bias {100 * (distance.mean() / exact - 1):.1f} %, standard error {100 * distance.std() / 2000**0.5 / exact:.1f} %"
)

fig, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained", sharey=True)
axes[0].plot(*ring.train.T, ".", markersize=3)
axes[0].set(title="500 training points", aspect="equal")
axes[1].plot(*x[:500].T, ".", markersize=3, color="C1")
axes[1].set(title="500 of the chains", aspect="equal")
plt.show()
