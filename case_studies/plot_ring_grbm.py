r"""
A Gaussian RBM learns a ring
============================

A restricted Boltzmann machine need not be about images, nor about zeros and ones. With Gaussian visible units it is a
density over real numbers, and in the plane everything about it can be drawn: the density itself, the chains that sample
it, and how far it is from the truth. The data are points scattered about a circle, which is harder than it looks for
models made of a few bumps.
"""

import os
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from matplotlib.animation import FuncAnimation
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

import pm_neural as pmn

# sphinx_gallery_thumbnail_number = 2
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer seeds, frames and draws

ring = pmn.datasets.load_ring(500, noise=0.1)

fig, ax = plt.subplots(figsize=(3.5, 3.5), layout="constrained")
ax.plot(*ring.train.T, ".", markersize=3)
ax.set(title="500 training points", aspect="equal")

# %%
# The model
# ---------
#
# There are two visible units, the coordinates, and a hundred hidden ones, which are 0 or 1:
#
# .. math::
#
#     E(v, h) = \sum_i \frac{(v_i - a_i)^2}{2 \sigma_i^2} - b \cdot h
#               - \Bigl(\frac{v}{\sigma^2}\Bigr)^\top W h, \qquad p(v, h) = \frac{e^{-E(v, h)}}{Z}.
#
# Given the hidden units the point is Gaussian, with mean :math:`a + W h` and standard deviation :math:`\sigma`; given
# the point the hidden units are independent. So the marginal :math:`p(v)` is a mixture of :math:`2^{100}` Gaussians of
# the same width, which share a hundred columns of :math:`W` among them. What :math:`\sigma` means is now plain: it is
# the finest detail that the density can have.
#
# ``fit`` follows the gradient of the log-likelihood by contrastive divergence. Sigma can stay as it is, or be learnt as
# :math:`\log\sigma`. We do both, from the same start, at twice the width of the ring.

machines = {
    "sigma fixed at 0.2": pmn.training.GaussianRBM(2, 100, sigma=0.2, learn_sigma=False),
    "sigma learnt": pmn.training.GaussianRBM(2, 100, sigma=0.2),
}
training = {
    "epochs": 500 if SHORT else 1000,
    "k": 10,
    "sigma_learning_rate": 1e-3,
    "random_seed": 1,
    "progressbar": False,
}
for name, machine in machines.items():
    options = training if "learnt" in name else training | {"sigma_learning_rate": None}
    history = machine.fit(ring.train, **options)
    print(
        f"{name}: {history.attrs['training_seconds']:.1f} s, sigma is now",
        machine.parameters_as_numpy()[3].round(3),
    )

fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
history["sigma"].plot(ax=ax)
ax.axhline(ring.noise, color="gray", linestyle=":", label="scatter about the circle")
ax.set(title="sigma, while it is learnt", ylabel="mean over the two units", ylim=(0, None))
ax.legend()

# %%
# As the ring forms, sigma shrinks to what is left to explain, the scatter about the circle. That is not a matter of
# course. At the very start the weights have found nothing, and a single wide Gaussian is the best explanation there
# is, so that sigma grows. It is a race, and it can be lost: with as high a learning rate as the weights have, sigma
# grows to the spread of all points before the weights have moved, and then there is nothing left for them to explain.
# Hence its own, lower rate.
#
# The density
# -----------
#
# :math:`Z` is an integral over the plane, and can be had to the last digit: a mixture of Gaussians of width
# :math:`\sigma` is integrated by the trapezoidal rule with an error below rounding, once the grid is finer than
# :math:`\sigma`. That makes :math:`p(v)` itself available, next to the true density, the convolution of a circle with
# a Gaussian, which is known too.

axis = np.linspace(-1.6, 1.6, 160)
grid = np.stack(np.meshgrid(axis, axis), axis=-1)
densities = {
    name: lambda points, machine=machine: pmn.diagnostics.log_likelihood(machine, points, method="quadrature").per_row
    for name, machine in machines.items()
}

fig, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained", sharey=True)
for ax, (name, log_density) in zip(axes, {"truth": ring.log_density, **densities}.items(), strict=True):
    density = np.exp(log_density(grid.reshape(-1, 2))).reshape(160, 160)
    image = ax.pcolormesh(axis, axis, density, vmin=0, vmax=0.75, cmap="magma_r", rasterized=True)
    ax.set(title=name, aspect="equal")
fig.colorbar(image, ax=axes, label="density", shrink=0.8)

# %%
# How good is it?
# ---------------
#
# The score is the expected log-likelihood of a new point, :math:`\int p_\text{true}(x) \log p(x)\,dx`. As the true
# density is known, that is one more integral over the plane, and no held-out points are needed, nor is there any noise
# of sampling them. Nothing can score better than the true density itself. For comparison: a mixture of ten Gaussians,
# each with a covariance of its own, and a kernel density estimate, whose width is chosen by cross-validation.

points, weights = ring.quadrature()
mixture = GaussianMixture(10, random_state=0, n_init=3).fit(ring.train)
widths = {"bandwidth": np.geomspace(0.03, 0.3, 15)}
order = np.random.default_rng(1).permutation(500)
kernels = GridSearchCV(KernelDensity(), widths, cv=5).fit(ring.train[order]).best_estimator_
others = {"Gaussian mixture, 10 components": mixture.score_samples, "kernel density": kernels.score_samples}

print("expected log-likelihood in nats, and that of 2000 test points")
for name, log_density in {"truth": ring.log_density, **densities, **others}.items():
    print(f"{name:32} {weights @ log_density(points):7.3f} {log_density(ring.test).mean():9.3f}")

# %%
# With sigma learnt the machine is within a few hundredths of a nat of the truth, and well ahead of the mixture and of
# the kernels: its parts share weights, and a ring takes few of them. With sigma fixed at twice the width of the ring
# nothing helps, as no detail can be finer than sigma.
#
# Five hundred chains
# -------------------
#
# Block Gibbs sampling draws all hidden units given the point, then the point given these. Five hundred chains take a
# thousand steps each, from hidden units that are fair coins. The points that they reach at the last step:

rbm = machines["sigma learnt"]
draws = rbm.sample(n_chains=500, n_draws=1000, burn_in=0, random_seed=1)
v = draws["posterior"]["v"].to_numpy()  # chain, draw, visible

fig, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained", sharey=True)
axes[0].plot(*ring.train.T, ".", markersize=3)
axes[0].set(title="training points", aspect="equal")
axes[1].plot(*v[:, -1].T, ".", markersize=3, color="C1")
axes[1].set(title="500 chains at step 1000", aspect="equal")

# %%
# A fair sample, it seems. But *each* chain moves slowly. To go from one place on the ring to another, hidden units
# have to change one by one, and a step is hardly longer than sigma. We measure it by the correlation of a chain's
# direction, seen from the center, with that a number of steps later.

direction = v[..., 0] + 1j * v[..., 1]
direction /= np.abs(direction)
lags = np.arange(0, 400, 10)
correlation = [(direction[:, 200 + lag :] * direction[:, 200 : 1000 - lag].conj()).mean().real for lag in lags]
around = lags[np.argmax(np.array(correlation) < np.exp(-1))]

fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.plot(lags, correlation)
ax.axhline(np.exp(-1), color="gray", linestyle=":")
ax.set(xlabel="steps", ylabel="correlation", title=f"direction: 1/e after about {around} steps")

# %%
# All chains, step by step. From the start, in the middle of nowhere, they reach the ring at once; along it they only
# diffuse.


def draw_frames(frames, positions, title):
    """Animate points: `positions` maps the number of a frame to the points drawn in it."""
    fig, ax = plt.subplots(figsize=(3.5, 3.5), dpi=70, layout="constrained")
    ax.plot(*ring.train.T, ".", markersize=2, color="lightgray")
    (dots,) = ax.plot([], [], ".-" if "one" in title else ".", markersize=4, linewidth=0.5, color="C1")
    ax.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal")

    def update(frame):
        dots.set_data(*positions(frame).T)
        ax.set_title(f"{title}, step {frame}")
        return (dots,)

    return FuncAnimation(fig, update, frames=frames, interval=100, blit=False)


n_frames = 15 if SHORT else 40
everyone = draw_frames(range(1, n_frames + 1), lambda frame: v[:, frame - 1], "all chains")

# %%
# And the path of a single one, from its first step on:

steps = range(10, 10 * n_frames + 1, 10)
alone = draw_frames(steps, lambda frame: v[0, :frame], "one chain")

# %%
# What this means for training
# ----------------------------
#
# *Persistent* contrastive divergence, the better choice for binary images, has chains that must follow the model while
# it is trained, and we have seen how slowly they move. Does it matter? We train with either method, with sigma learnt
# and with sigma fixed at its right value, and compare.

n_seeds = 1 if SHORT else 3
for method in ("cd", "pcd"):
    for learn_sigma in (True, False):
        scores, sigmas = [], []
        for seed in range(n_seeds):
            machine = pmn.training.GaussianRBM(2, 100, sigma=0.2 if learn_sigma else 0.1, learn_sigma=learn_sigma)
            machine.fit(ring.train, method=method, k=10, epochs=training["epochs"], random_seed=seed, progressbar=False)
            log_p = pmn.diagnostics.log_likelihood(machine, points, method="quadrature").per_row
            scores.append(weights @ (log_p - ring.log_density(points)))
            sigmas.append(machine.parameters_as_numpy()[3].mean())
        kind = "learnt" if learn_sigma else "fixed "
        print(f"{method:3}, sigma {kind} at {np.mean(sigmas):.3f}: {np.mean(scores):.3f} nats from the truth")

# %%
# With sigma fixed both methods end up equally close to the truth: that the chains are slow does no harm by itself. What
# persistent chains lose, they lose by way of sigma, which settles higher.
#
# The same machine in PyMC
# ------------------------
#
# ``pmn.GaussianRBM`` makes the trained machine a random variable, which ``pm.sample`` draws by ``BlockGibbs``. Say we
# know the first coordinate of a point and want the second: a masked array clamps it. At 0.9 the ring has two sides
# close to each other, and the chains go back and forth between them.

warnings.filterwarnings("ignore", category=pm.exceptions.ImputationWarning)

W, a, b, sigma = rbm.parameters_as_numpy()
with pm.Model(coords={"axis": ["x", "y"]}):
    pmn.GaussianRBM("v", W, a, b, sigma, observed=np.ma.masked_array([0.9, 0.0], mask=[False, True]), dims="axis")
    idata = pm.sample(
        200 if SHORT else 2000,
        tune=100,
        chains=4,
        cores=1,
        block_gibbs={"sweeps_per_draw": 100},
        random_seed=1,
        progressbar=False,
    )

y = idata["posterior"]["v"].sel(axis="y").to_numpy().ravel()
line = np.linspace(-1.5, 1.5, 301)
conditional = np.exp(densities["sigma learnt"](np.column_stack([np.full(301, 0.9), line])))
conditional /= conditional.sum() * (line[1] - line[0])

fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
ax.hist(y, bins=60, range=(-1.5, 1.5), density=True, alpha=0.5, label="draws")
ax.plot(line, conditional, label="by quadrature")
ax.set(xlabel="y", ylabel="density", title="y, given x = 0.9")
ax.set_ylim(0, 1.35 * conditional.max())
ax.legend(loc="upper center", ncols=2)
plt.show()
