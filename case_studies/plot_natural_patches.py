r"""
What a Gaussian RBM finds in photographs
========================================

Cut small square patches out of photographs, remove what a Gaussian knows about them, and ask a Gaussian RBM what is
left. Its hidden units become detectors of edges, much as cells in the visual cortex do. This case study shows the
filters, says what sigma and the contrast of the patches have to do with them, and measures in nats what the machine
knows beyond a Gaussian.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images

import pm_neural as pmn

# sphinx_gallery_thumbnail_number = 2
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer patches, epochs and annealing steps
SIZE = 14
N_TRAIN, N_TEST = (5_000, 2_000) if SHORT else (20_000, 4_000)
EPOCHS = 20 if SHORT else 60

# %%
# Two photographs
# ---------------
#
# Scikit-learn brings two of them, a temple and a flower. The patches, 14×14 gray pixels, are cut at random places:
# those for training from the left four fifths of each picture, those for testing from the rest, so that no pixel is
# in both. (The test patches therefore come from other surroundings, and all models will find them less likely.)


def cut_patches(rng, picture, columns, n_patches):
    """Cut patches out of some columns of a picture, one per row."""
    windows = np.lib.stride_tricks.sliding_window_view(picture[:, columns], (SIZE, SIZE))
    top, left = (rng.integers(n, size=n_patches) for n in windows.shape[:2])
    return windows[top, left].reshape(n_patches, SIZE * SIZE)


rng = np.random.default_rng(1)
pictures = [image.mean(axis=-1) / 255 for image in load_sample_images().images]
border = int(0.8 * pictures[0].shape[1])
train = np.concatenate([cut_patches(rng, p, slice(None, border), N_TRAIN // 2) for p in pictures])
test = np.concatenate([cut_patches(rng, p, slice(border, None), N_TEST // 2) for p in pictures])

# %%
# Neighboring pixels are alike, and that is nearly all that meets the eye in the covariance of the patches. *Whitening*
# takes it away: a linear map after which all pixels are uncorrelated, with variance 1. Of all such maps, ZCA is the one
# that changes the patches least, so that they can still be looked at as images. The floor keeps it from blowing up the
# finest detail, where there is little but noise.

whiten = pmn.training.Standardizer.whitening(train, floor=1e-3)
white_train, white_test = whiten(train), whiten(test)

fig, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
shown = rng.choice(N_TRAIN, 64, replace=False)
pmn.plots.units_grid(train[shown], (SIZE, SIZE), ax=axes[0], cmap="gray")
pmn.plots.units_grid(white_train[shown], (SIZE, SIZE), ax=axes[1], cmap="gray", vmin=-3, vmax=3)
axes[0].set_title("patches")
axes[1].set_title("whitened")

# %%
# The contrast
# ------------
#
# A Gaussian of variance 1 in 196 directions has all its points at nearly the same distance from the center,
# :math:`\sqrt{196} = 14`. The whitened patches are at any distance: sky and out-of-focus background are close to zero,
# roof tiles far out. This spread of *contrast* is the most conspicuous thing that a Gaussian misses, and no linear map
# can take it away.

length = np.linalg.norm(white_train, axis=1)
normal_length = np.linalg.norm(rng.normal(size=white_train.shape), axis=1)
fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
bins = np.linspace(0, 45, 90)
ax.hist(length, bins, density=True, label="whitened patches", alpha=0.6)
ax.hist(normal_length, bins, density=True, label="white Gaussian noise", alpha=0.6)
ax.set(xlabel="contrast: norm of the patch", ylabel="density", yscale="log")
ax.legend()

# %%
# Training
# --------
#
# 196 pixels, 196 hidden units. Given the hidden units, a patch is Gaussian about :math:`a + W h`, a sum of columns of
# :math:`W`, with standard deviation :math:`\sigma`. With all hidden units off it is a Gaussian about zero, and sigma,
# below 1, suits the many patches of low contrast; each unit that turns on moves the center of the Gaussian outwards, to
# where patches of high contrast are that have the unit's pattern. For this it must be *rarely* on, and we say so by a
# target for its mean activity.


def train_machine(data, **options):
    """Train 196×196 units by CD-1."""
    machine = pmn.training.GaussianRBM(SIZE**2, 196, sigma=1.0)
    settings = {"epochs": EPOCHS, "sparsity_target": 0.03, "random_seed": 1, "progressbar": False}
    history = machine.fit(data, **settings | options)
    print(
        f"{history.attrs['training_seconds']:.0f} s, sigma {float(history['sigma'][-1]):.3f}, "
        f"norm of a filter {np.median(np.linalg.norm(machine.parameters_as_numpy()[0], axis=0)):.2f}"
    )
    return machine


rbm = train_machine(white_train)

W, a, b, sigma = rbm.parameters_as_numpy()
strongest = np.argsort(-np.linalg.norm(W, axis=0))[:100]
fig, ax = plt.subplots(figsize=(6, 6), layout="constrained")
pmn.plots.weights(W[:, strongest], (SIZE, SIZE), ax=ax, cmap="gray")
ax.set_title("the 100 strongest filters, columns of W")

# %%
# Edges, each at a place and in a direction of its own: where a patch deviates from a Gaussian, it is because there is
# an edge in it.
#
# The role of sigma
# -----------------
#
# What if the units are not asked to be rare? With the same rates and no target the weights shrink, sigma stays near 1,
# and the machine ends as what it started from, a Gaussian. Sigma explains the variance before the weights do, and with
# sigma at 1 they have nothing left to explain; then no unit has a reason to be on.

plain = train_machine(white_train, sparsity_target=None)
fig, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained", sharey=True)
for ax, (name, machine) in zip(axes, {"rare units": rbm, "no target": plain}.items(), strict=True):
    W, a, b, sigma = machine.parameters_as_numpy()
    activity = 1 / (1 + np.exp(-(b + white_train / sigma**2 @ W)))
    ax.plot(np.linalg.norm(W, axis=0), activity.mean(axis=0), ".")
    ax.set(xlabel="norm of the filter", title=f"{name}: sigma {sigma.mean():.2f}")
axes[0].set_ylabel("mean activity")

# %%
# How much does it know?
# ----------------------
#
# The likelihood needs :math:`Z`, which annealed importance sampling estimates, starting from a Gaussian with the means
# and variances of the data; run forwards it tends to overstate the likelihood, run backwards to understate it. The
# model to beat is a Gaussian with the full covariance. (On whitened patches that is white noise, or nearly. An
# invertible linear map shifts all log-likelihoods by the same constant, ``whiten.log_det``, so that differences are
# those of the patches themselves.)


def gaussian_log_likelihood(data, new):
    """Mean log-density of `new` under the Gaussian with the mean and the covariance of `data`."""
    root = np.linalg.cholesky(np.cov(data.T))
    standard = np.linalg.solve(root, (new - data.mean(axis=0)).T)
    return -(standard**2).sum(0).mean() / 2 - np.log(np.sqrt(2 * np.pi) * np.diag(root)).sum()


def report(name, machine, data, new):
    """Print the log-likelihoods of a machine and of the Gaussian."""
    steps = 500 if SHORT else 3000
    log_z = pmn.diagnostics.log_partition(machine, "ais", X=data, n_chains=100, n_steps=steps, random_seed=1)
    score = pmn.diagnostics.log_likelihood(machine, new, log_z=log_z)
    gaussian = gaussian_log_likelihood(data, new)
    lower, upper = score.bracket
    print(f"{name:22} Gaussian {gaussian:8.2f}   RBM {upper:8.2f} (reverse AIS {lower:8.2f})")


report("rare units, test", rbm, white_train, white_test)
report("rare units, training", rbm, white_train, white_train)
report("no target, test", plain, white_train, white_test)

# %%
# And without the contrast? We bring every whitened patch to the norm 14, the same direction at one distance, and train
# again. What is left for the machine is the shape alone.


def at_one_contrast(patches):
    """Scale every patch to the norm that white noise has."""
    return SIZE * patches / np.linalg.norm(patches, axis=1, keepdims=True)


flat_train, flat_test = at_one_contrast(white_train), at_one_contrast(white_test)
flat = train_machine(flat_train)
report("one contrast, test", flat, flat_train, flat_test)

W = flat.parameters_as_numpy()[0]
strongest = np.argsort(-np.linalg.norm(W, axis=0))[:100]
fig, ax = plt.subplots(figsize=(6, 6), layout="constrained")
pmn.plots.weights(W[:, strongest], (SIZE, SIZE), ax=ax, cmap="gray")
ax.set_title("filters learnt from patches of one contrast")
plt.show()
