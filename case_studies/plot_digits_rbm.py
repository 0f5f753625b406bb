r"""
A restricted Boltzmann machine learns to write digits
=====================================================

A restricted Boltzmann machine (RBM) is a probability distribution over binary images that is
learnt from examples. Once learnt, it can be asked for new images, for the probability of an image,
or for the missing half of one. This case study goes the whole way: what an RBM is, how it is
trained, how to tell whether it has learnt anything (and how *not* to tell), and how to use it as
an ordinary variable of a PyMC model.
"""

import os
import warnings

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pm_neural as pmn

# sphinx_gallery_thumbnail_number = 4
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer epochs and draws

digits = pmn.datasets.load_digits()  # 8x8 pixels, ink (1) or paper (0)
image_shape = digits.image_shape
print(f"{len(digits.train)} training images, {len(digits.test)} test images")

fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
pmn.plots.units_grid(digits.train[:50], image_shape, n_columns=10, ax=ax)
ax.set_title("training images")

# %%
# The model
# ---------
#
# An RBM has a layer of *visible* units :math:`v`, here one for each pixel, and a layer of *hidden*
# units :math:`h`, all of them 0 or 1. Every joint state has an energy,
#
# .. math::
#
#     E(v, h) = -a \cdot v - b \cdot h - v^\top W h, \qquad p(v, h) = \frac{e^{-E(v, h)}}{Z},
#
# so states of low energy are probable ones. The biases :math:`a` and :math:`b` say how much a unit
# likes to be on, the weight :math:`W_{ij}` how much pixel :math:`i` and hidden unit :math:`j` like
# to be on together. *Restricted* means that there are no weights inside a layer. That is what
# makes the model tractable. Given the pixels the hidden units are independent, and given the
# hidden units the pixels are:
#
# .. math::
#
#     p(h_j = 1 \mid v) = \sigma\bigl(b_j + (v^\top W)_j\bigr), \qquad
#     p(v_i = 1 \mid h) = \sigma\bigl(a_i + (W h)_i\bigr), \qquad \sigma(x) = \frac{1}{1 + e^{-x}}.
#
# Drawing all hidden units given the pixels, then all pixels given the hidden units, and so on, is
# *block Gibbs sampling*: a Markov chain whose stationary distribution is :math:`p(v, h)`.
#
# The hidden units can also be summed out, one by one, and leave the *free energy* of an image,
#
# .. math::
#
#     p(v) = \frac{e^{-F(v)}}{Z}, \qquad
#     F(v) = -a \cdot v - \sum_j \operatorname{softplus}\bigl(b_j + (v^\top W)_j\bigr), \qquad
#     \operatorname{softplus}(x) = \log(1 + e^x).
#
# What remains out of reach is :math:`Z`, a sum over all :math:`2^{64}` images. It is the reason
# for everything that follows.
#
# The gradient: a positive and a negative phase
# ---------------------------------------------
#
# Training maximizes the mean of :math:`\log p(v) = -F(v) - \log Z` over the training images. The
# derivative of :math:`\log Z` is an expectation under the model itself, and the gradient is a
# difference of two averages,
#
# .. math::
#
#     \frac{\partial \log p}{\partial W_{ij}}
#     = \langle v_i h_j \rangle_\text{data} - \langle v_i h_j \rangle_\text{model},
#
# and likewise :math:`\langle v_i \rangle` for the biases :math:`a` and :math:`\langle h_j \rangle`
# for :math:`b`. The first average is the *positive phase*, which lowers the energy of what was
# seen; the second is the *negative phase*, which raises the energy of what the model believes in.
# When the two agree, learning stops.
#
# For a machine small enough to enumerate, both phases are exact, and the formula can be checked
# against the slope of the log-likelihood, weight by weight:

rng = np.random.default_rng(1)
W, a, b = rng.normal(0, 0.5, (6, 4)), rng.normal(size=6), rng.normal(size=4)
images = rng.integers(0, 2, (20, 6))

h_given_images = 1 / (1 + np.exp(-(b + images @ W)))
positive = images.T @ h_given_images / len(images)
negative = pmn.diagnostics.exact_marginals((W, a, b)).visible_hidden_pairs

step = 1e-5
slope = np.empty_like(W)
for weight in np.ndindex(W.shape):
    change = np.zeros_like(W)
    change[weight] = step
    above = pmn.diagnostics.log_likelihood((W + change, a, b), images).mean
    below = pmn.diagnostics.log_likelihood((W - change, a, b), images).mean
    slope[weight] = (above - below) / (2 * step)
print(f"largest difference of slope and phases: {np.abs(slope - (positive - negative)).max():.1e}")

# %%
# Contrastive divergence, and its persistent form
# -----------------------------------------------
#
# With 64 pixels the negative phase has to be sampled. *Contrastive divergence* (CD-k) starts a
# chain at each training image, runs k sweeps, and takes what it finds for samples of the model.
# The chains have no time to leave the neighborhood of the data, so this is biased: what the model
# believes in far from any image is never seen, and never corrected. *Persistent* contrastive
# divergence (PCD-k) keeps its chains from one update to the next. The parameters move slowly, the
# chains follow them, and in time reach every place the model puts weight on. Their states are
# called *fantasy particles*.
#
# ``fit`` uses PCD-1 by default, with a learning rate that falls to zero, so that the chains can
# catch up. We keep a hundred of them, so that every kind of digit is present among the fantasies,
# and set a fifth of the training images aside to watch for over-fitting.

split = digits.split_validation(random_seed=1)
rbm = pmn.training.RBM(n_visible=64, n_hidden=100)
history = rbm.fit(
    split.train,
    validation_data=split.test,
    n_chains=100,
    epochs=100 if SHORT else 500,
    random_seed=1,
    progressbar=False,
)
print(f"trained in {history.attrs['training_seconds']:.1f} s")

fig, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
measured = ("pseudo_log_likelihood", "reconstruction_error", "free_energy_gap")
for ax, name in zip(axes, measured, strict=True):
    history[name].plot(ax=ax)
    ax.set(title=name.replace("_", " "), ylabel=history[name].attrs["units"])

# %%
# - The *pseudo-log-likelihood* asks how well each pixel is predicted from all the others. It needs
#   no :math:`Z`.
# - The *reconstruction error* asks how well an image survives a trip to the hidden layer and back.
#   More on it below.
# - The *free-energy gap* is the mean free energy of validation images less that of training images;
#   :math:`Z` cancels. It rises as the machine comes to prefer what it was trained on. A little of
#   that is the price of learning.
#
# What the hidden units have learnt
# ---------------------------------
#
# Column :math:`j` of :math:`W`, drawn as an image, shows which pixels hidden unit :math:`j` asks
# for (red) and which it forbids (blue). A few can be read as pieces of strokes. Most cannot: the
# hidden units describe a digit together, each adding a correction, and few mean anything alone.

W, a, b = rbm.parameters_as_numpy()
fig, ax = plt.subplots(figsize=(6, 6), layout="constrained")
pmn.plots.weights(W, image_shape, ax=ax)
ax.set_title("weights of the 100 hidden units")

# %%
# Fantasy digits
# --------------
#
# A hundred chains, each started from coin flips, a thousand sweeps later: what the machine takes
# for typical. Are they copies of what it was shown? We count the pixels that differ from the
# nearest training image, and do the same for test images, which are no copies.

fantasies = rbm.sample(n_chains=100, n_draws=1, burn_in=1000, random_seed=1)
fantasies = fantasies["posterior"]["v"].to_numpy().reshape(100, 64)
for name, images in {"fantasies": fantasies, "test images": digits.test[:100]}.items():
    nearest = (images[:, None] != digits.train).sum(axis=-1).min(axis=1)
    print(f"{name}: the nearest training image differs in {nearest.mean():.1f} pixels on average")

fig, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
pmn.plots.units_grid(fantasies, image_shape, n_columns=10, ax=axes[0])
pmn.plots.units_grid(digits.test[:100], image_shape, n_columns=10, ax=axes[1])
axes[0].set_title("fantasies")
axes[1].set_title("test images")

# %%
# How good is it? The likelihood of images it has never seen
# ----------------------------------------------------------
#
# Pictures can please and still be wrong: a machine that knew three digits by heart would draw nice
# ones. The honest score is :math:`\log p(v)` of test images, and now :math:`Z` can no longer be
# avoided. *Annealed importance sampling* (AIS) estimates it: chains start from independent pixels,
# whose :math:`Z` is known, and are led to the RBM through thousands of intermediate distributions;
# the weights that they collect on the way average to the ratio of the two. The average is of
# :math:`Z`, so its logarithm tends to be too small, and the likelihood too high. Running the
# chains backwards errs the other way. When both agree, the number can be trusted, unless there is
# a mode that neither has found.


def test_log_likelihood(params):
    """Mean log-likelihood of the test images in nats, by forward AIS with reverse AIS beside it."""
    log_z = pmn.diagnostics.log_partition(params, "ais", X=digits.train, n_steps=1000 if SHORT else 3000, random_seed=1)
    return pmn.diagnostics.log_likelihood(params, digits.test, log_z=log_z)


print("RBM:               ", test_log_likelihood(rbm))

ink = (digits.train.sum(axis=0) + 1) / (len(digits.train) + 2)
independent = np.log(np.where(digits.test == 1, ink, 1 - ink)).sum(axis=1)
print(f"independent pixels: {independent.mean():.3f} nats per row")

# %%
# Why not to trust the reconstruction error
# -----------------------------------------
#
# It is cheap, it falls during training, and many programs report nothing else. To see what it is
# worth, we train a second machine as it was done in the first years: plain CD-1, a constant
# learning rate, no weight decay. From time to time we stop and measure both.

plain = pmn.training.RBM(n_visible=64, n_hidden=100)
epochs = [3, 10, 30, 100, 300] if SHORT else [3, 10, 30, 100, 300, 1000]
scores = []
for done, until in zip([0, *epochs], epochs, strict=False):
    log = plain.fit(
        digits.train,
        method="cd",
        epochs=until - done,
        learning_rate=0.1,
        learning_rate_schedule="constant",
        centered=False,
        weight_decay=0.0,
        random_seed=until,
        progressbar=False,
    )
    score = test_log_likelihood(plain)
    scores.append((float(log["reconstruction_error"][-1]), score.mean, *score.bracket))
    print(
        f"after {until:4d} epochs: reconstruction error {scores[-1][0]:5.2f}, "
        f"test log-likelihood {score.mean:7.2f} (reverse AIS: {score.bracket[0]:7.2f})"
    )

error, forward, reverse, _ = np.transpose(scores)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), sharex=True, layout="constrained")
left.semilogx(epochs, error, "o-")
left.set(xlabel="epochs", ylabel="squared error per image", title="reconstruction error: ever better")
right.semilogx(epochs, forward, "o-", label="forward AIS")
right.semilogx(epochs, reverse, "x--", label="reverse AIS")
right.set(xlabel="epochs", ylabel="nats per image", title="test log-likelihood: soon worse")
right.legend()

# %%
# The reconstruction error keeps falling, while the test likelihood rises at first and then falls
# for good. Nothing is wrong with either number: a machine with strong weights reconstructs well
# *because* one sweep no longer moves it away from where it is, and a chain that does not move is
# just what makes CD blind. Where the two AIS curves part, sampling has become hard for AIS as
# well, and the gap says so.
#
# The same machine in PyMC
# ------------------------
#
# So far the RBM was a thing of its own. ``BernoulliRBM`` makes it a random variable: the marginal
# over the pixels, with the hidden units summed out. ``HiddenUnits`` adds them back where they are
# of interest. Nothing has to be said about samplers: PyMC finds that ``BlockGibbs`` fits these
# variables. Each draw is ten sweeps after the one before.

# The R-hat of a unit that never changes is 0/0 (the report names such units), and PyMC points out
# that it will impute what is masked (which is what we want further down).
warnings.filterwarnings("ignore", "invalid value encountered", RuntimeWarning)
warnings.filterwarnings("ignore", category=pm.exceptions.ImputationWarning)

coords = {"pixel": np.arange(64), "feature": np.arange(100)}
settings = {"chains": 4, "cores": 1, "random_seed": 1, "progressbar": False}
with pm.Model(coords=coords) as model:
    v = pmn.BernoulliRBM("v", W, a, b, dims="pixel")
    h = pmn.HiddenUnits("h", v, dims="feature")
    hasty = pm.sample(500, tune=200, block_gibbs={"sweeps_per_draw": 10}, **settings)

print(pmn.diagnostics.report(hasty))

# %%
# The report gives the worst R-hat and the smallest effective sample size of each layer, those of
# its total activity (how many units are on) and of the energy. Had we looked at the energy alone,
# all would seem well. But the slowest pixel has an effective sample size many times smaller, and
# PyMC warns of it too: digits of different shape have much the same energy, and it takes a chain
# hundreds of sweeps to get from one to another. The report also names units that never changed.
# Here they are pixels at the edge, which hardly ever see ink; elsewhere they may be the sign of a
# chain that is stuck, and R-hat does not tell.
#
# A sweep costs about a microsecond, so the cure is cheap:

with model:
    idata = pm.sample(500 if SHORT else 1000, tune=100, block_gibbs={"sweeps_per_draw": 100}, **settings)

print(pmn.diagnostics.report(idata))

# %%
# Now the rank plot of the energy, and four of the pixels in the usual summary:

az.plot_rank(idata, group="sample_stats", var_names="network_energy", method="envelope")
print(az.summary(idata, var_names="v", coords={"pixel": [10, 20, 42, 59]}).to_string())

# %%
# What the chains took for digits, twenty draws of each:

fig, ax = plt.subplots(figsize=(8, 2), layout="constrained")
draws = idata["posterior"]["v"].thin(draw=idata.posterior.sizes["draw"] // 20)
pmn.plots.units_grid(draws, image_shape, n_columns=20, ax=ax)
ax.set_title("one row for each chain")

# %%
# Two samplers, one in PyMC and one in torch, and the data. The pixel means of the first two should
# agree within their Monte Carlo errors; the third differs by what the machine has not learnt.

sampled = rbm.sample(n_chains=500, n_draws=100, burn_in=2000, sweeps_per_draw=10, random_seed=2)
means = {
    "PyMC": idata["posterior"]["v"].mean(("chain", "draw")).to_numpy(),
    "torch": sampled["posterior"]["v"].mean(("chain", "draw")).to_numpy(),
    "data": split.train.mean(axis=0),
}
for other in ("torch", "data"):
    difference = np.abs(means["PyMC"] - means[other]).max()
    print(f"largest difference of a pixel's mean, PyMC and {other}: {difference:.3f}")
print(f"largest Monte Carlo error, PyMC: {float(az.mcse(idata, var_names='v')['v'].max()):.3f}")

# %%
# The missing half
# ----------------
#
# Now what a distribution can do and a classifier cannot: we show the upper half of a test digit
# and ask for the rest. In PyMC this is an observed variable with masked data. The known pixels are
# held where they are (*clamped*), and the posterior of the others is :math:`p(\text{lower half}
# \mid \text{upper half})`. Five digits at a time, as a batch:

chosen = [np.flatnonzero(digits.test_labels == label)[0] for label in (0, 2, 3, 5, 6)]
originals = digits.test[chosen]
lower_half = np.broadcast_to(np.arange(64) >= 32, originals.shape)

with pm.Model():
    pmn.BernoulliRBM("v", W, a, b, observed=np.ma.masked_array(originals, mask=lower_half))
    completed = pm.sample(500, tune=100, block_gibbs={"sweeps_per_draw": 100}, **settings)

print(pmn.diagnostics.report(completed).overview.to_string(float_format="{:.4g}".format))

completions = completed["posterior"]["v"].stack(sample=("chain", "draw")).transpose("sample", ...)
shown = completions.isel(sample=np.linspace(0, completions.sizes["sample"] - 1, 7).astype(int))
rows = [originals, np.where(lower_half, 0.5, originals), *shown.values, completions.mean("sample")]

fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
pmn.plots.units_grid(np.stack(rows, axis=1), image_shape, n_columns=len(rows), ax=ax)
ax.set_title("original | what is shown | seven completions | their mean")

# %%
# Each completion is a draw, and different draws are different answers: where the upper half leaves
# the digit open, the completions disagree, and their mean is gray. That disagreement is the
# uncertainty, and it comes for free.
#
# References
# ----------
#
# - Hinton, G. E. (2002). Training products of experts by minimizing contrastive divergence. Neural
#   Computation 14, 1771.
# - Tieleman, T. (2008). Training restricted Boltzmann machines using approximations to the
#   likelihood gradient. ICML, 1064.
# - Salakhutdinov, R. and Murray, I. (2008). On the quantitative analysis of deep belief networks.
#   ICML, 872.
# - Fischer, A. and Igel, C. (2010). Empirical analysis of the divergence of Gibbs sampling based
#   learning algorithms for restricted Boltzmann machines. ICANN, 208.

plt.show()
