r"""
A Boltzmann machine that thinks in spikes
=========================================

A restricted Boltzmann machine that has learnt digits is usually sampled layer by layer. Here its 64 visible and 100
hidden units become 164 stochastic spiking neurons, which hold each other in check through the learnt weights, with
nothing else changed: not the weights, not the distribution. We watch them write digits, complete a digit of which
only a part is shown, and change their mind about a picture that can be read in two ways. At the end we say what it
costs.

The training of the machine is another case study; the theory of sampling with spikes is a third.
"""

import os
import time
import warnings

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pm_neural as pmn

# sphinx_gallery_thumbnail_number = 3
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer epochs and draws
warnings.filterwarnings("ignore", category=pm.exceptions.ImputationWarning)

digits = pmn.datasets.load_digits()
image_shape = digits.image_shape
rbm = pmn.training.RBM(n_visible=64, n_hidden=100)
rbm.fit(digits.train, n_chains=100, epochs=60 if SHORT else 500, random_seed=1, progressbar=False)
W, a, b = rbm.parameters_as_numpy()

settings = {"tune": 100, "cores": 1, "random_seed": 1, "progressbar": False, "compute_convergence_checks": False}
tau = 20

# %%
# A network of 164 neurons
# ------------------------
#
# The neurons of one layer have no synapses among themselves, so they may be updated at the same time:
# ``order="blocks"``. A step updates both layers once; a spike keeps its neuron on for :math:`\tau = 20` steps.

with pm.Model():
    v = pmn.BernoulliRBM("v", W, a, b)
    h = pmn.HiddenUnits("h", v)
    step = pmn.NeuralSampling([v, h], tau=tau, order="blocks", steps_per_draw=5 * tau, record_spikes=True)
    print(f"visible neurons: {step.neurons_of['v']}, hidden neurons: {step.neurons_of['h']}")
    idata = pm.sample(300, chains=2, step=step, **settings)

fig, (left, right) = plt.subplots(
    1, 2, figsize=(11, 4.5), width_ratios=[2, 1], layout="constrained", gridspec_kw={"wspace": 0.05}
)
pmn.plots.spike_raster(idata, window=(0, 600), ax=left, markersize=2)
left.axhline(63.5, color="tab:red", linewidth=0.8)
left.set(title="spikes; visible neurons above the line, hidden ones below", xlabel="step")
pmn.plots.units_grid(idata.posterior["v"][0, :36], image_shape, n_columns=6, ax=right)
right.set_title("the visible neurons, every 100 steps")

# %%
# Rows without a mark are neurons that do not spike in a digit (pixels in the corners), and rows of marks spaced 20
# steps apart are neurons that are on all the time. What one reads as a digit is the pattern of who has spiked lately.
#
# A digit completed
# -----------------
#
# To ask the network a question, hold the visible neurons that are known: pixels that are on spike without pause, pixels
# that are off keep still. Mathematically that is conditioning, and exact. We show the upper half of a digit, and
# compare the average completion with that of block Gibbs sampling, the standard method.


def complete(image, unknown, method, n_draws, **options):
    """Sample the unknown pixels of an image."""
    with pm.Model():
        v = pmn.BernoulliRBM("v", W, a, b, observed=np.ma.masked_array(image, mask=unknown))
        return pm.sample(n_draws, chains=2, step=method([v], **options), **settings)


lower_half = np.arange(64) >= 32
original = digits.test[np.flatnonzero(digits.test_labels == 6)[0]]
spikes = {"tau": tau, "order": "blocks", "steps_per_draw": 10 * tau}
by_spikes = complete(original, lower_half, pmn.NeuralSampling, 500 if SHORT else 3000, **spikes)
by_gibbs = complete(original, lower_half, pmn.BlockGibbs, 500 if SHORT else 3000, sweeps_per_draw=50)
means = [idata.posterior["v"].mean(("chain", "draw")).values for idata in (by_spikes, by_gibbs)]

fig, axes = plt.subplots(1, 2, figsize=(9, 2.2), width_ratios=[1, 2], layout="constrained")
shown = [original, np.where(lower_half, 0.5, original)]
pmn.plots.units_grid(shown, image_shape, n_columns=2, ax=axes[0])
axes[0].set_title("original, what is shown")
pmn.plots.units_grid([*by_spikes.posterior["v"].values[0, ::100][:5], *means], image_shape, n_columns=7, ax=axes[1])
axes[1].set_title("five completions; mean by spikes, mean by Gibbs")

errors = [az.mcse(idata, var_names="v_unobserved")["v_unobserved"].values for idata in (by_spikes, by_gibbs)]
difference = np.abs(means[0] - means[1])[lower_half]
print(f"largest difference of a pixel's mean: {difference.max():.3f}")
print(f"largest Monte Carlo error: spikes {np.nanmax(errors[0]):.3f}, Gibbs {np.nanmax(errors[1]):.3f}")

# %%
# A picture that can be read in two ways
# --------------------------------------
#
# Look at a Necker cube for a while, and it flips. Perception settles on one reading of an ambiguous picture, then on
# the other. If perception is sampling from a posterior, that is what it should look like: a posterior with two
# modes, and a chain that stays in one of them for a time.
#
# A picture becomes ambiguous if too little of it is shown: only the upper three rows. Of some test digits we take the
# one whose completions disagree most evenly about what it is. A completion is read by a vote of its ten nearest
# training images.


def read(images):
    """Label images by the ten nearest training images."""
    distance = images @ (1 - digits.train).T + (1 - images) @ digits.train.T
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :10]
    votes = np.apply_along_axis(np.bincount, 1, digits.train_labels[nearest], minlength=10)
    return votes.argmax(axis=1)


def evenness(labels):
    """Return the frequency of the second most frequent label."""
    return np.sort(np.bincount(labels, minlength=10) / len(labels))[-2]


shown_part = np.arange(64) < 24  # the upper three rows
candidates = digits.test[: 12 if SHORT else 40]
with pm.Model():
    v = pmn.BernoulliRBM(
        "v", W, a, b, observed=np.ma.masked_array(candidates, mask=np.tile(~shown_part, (len(candidates), 1)))
    )
    quick = pm.sample(100, chains=1, step=pmn.BlockGibbs([v], sweeps_per_draw=50), **settings)
completions = quick.posterior["v"].values[0]
chosen = max(range(len(candidates)), key=lambda k: evenness(read(completions[:, k])))
ambiguous = candidates[chosen]

watched = complete(ambiguous, ~shown_part, pmn.NeuralSampling, 1500, tau=tau, order="blocks", steps_per_draw=tau)
labels = read(watched.posterior["v"].values[0])
counts = np.bincount(labels, minlength=10)
first, second = np.argsort(-counts)[:2]
print(
    f"read as {first}: {counts[first] / counts.sum():.2f}, as {second}: {counts[second] / counts.sum():.2f} of the time"
)

fig, axes = plt.subplots(1, 2, figsize=(11, 3), width_ratios=[1, 4], layout="constrained")
of_both = [watched.posterior["v"].values[0][labels == label].mean(axis=0) for label in (first, second)]
pmn.plots.units_grid([np.where(shown_part, ambiguous, 0.5), *of_both], image_shape, n_columns=1, ax=axes[0])
axes[0].set_title("shown, and\nboth readings")
axes[1].plot(np.arange(len(labels)) * tau, labels, ".", markersize=2, color="black")
axes[1].set(yticks=range(10), xlabel="step", ylabel="label of the completion", title="what the network sees")

# %%
# The shown rows do not change, and nothing in the network gets tired: the switches come from the noise of the spikes
# alone. How long a percept lasts follows from the posterior and the dynamics together.
#
# What it costs
# -------------
#
# Both samplers have the same stationary distribution, and differ in how fast they move. We follow the energy of a
# free-running network, and the number of active pixels, and count effective draws: per sweep (an update of each unit)
# and per second of computing.

runs = {"Gibbs": (pmn.BlockGibbs, {"sweeps_per_draw": 2})}
for period in (1, 5, 20):
    runs[f"spikes, tau = {period}"] = (
        pmn.NeuralSampling,
        {"tau": period, "order": "blocks", "steps_per_draw": 2},
    )

fig, axes = plt.subplots(len(runs), 1, figsize=(9, 5), sharex=True, sharey=True, layout="constrained")
n_draws = 5000 if SHORT else 50_000
for ax, (name, (method, options)) in zip(axes, runs.items(), strict=True):
    with pm.Model():
        v = pmn.BernoulliRBM("v", W, a, b)
        h = pmn.HiddenUnits("h", v)
        step = method([v, h], **options)
        start = time.process_time()
        idata = pm.sample(n_draws, chains=2, step=step, **settings)
        seconds = time.process_time() - start
    energy = idata.sample_stats["network_energy"]
    ink = idata.posterior["v"].sum("v_dim_0")
    measured = az.convert_to_dataset({"energy": energy.values, "ink": ink.values.astype(float)})
    ess = az.ess(measured)
    sweeps = 2 * n_draws * 2
    print(
        f"{name:<17} 1000 sweeps: {1000 * float(ess['energy']) / sweeps:6.2f} effective draws of the energy, "
        f"{1000 * float(ess['ink']) / sweeps:6.2f} of the ink; {float(ess['ink']) / seconds:6.0f} of the ink a second"
    )
    ax.plot(np.arange(500) * 2, energy[0, :500], linewidth=0.6, color="black")
    ax.set_title(name, fontsize="medium", loc="left", pad=2)
axes[-1].set(xlabel="sweep")
fig.supylabel("energy")

# %%
# With :math:`\tau = 1` the neurons do what Gibbs sampling does. The longer the refractory period, the longer a state
# lasts, and the more sweeps a new one takes. As a sampler for a computer, block Gibbs sampling wins.
#
# What spikes are for is another question. The exercise of the lecture that this package grew from asks for a
# Boltzmann machine made of spiking neurons. Usually that is done by simulating leaky integrate-and-fire neurons,
# whose parameters are tuned until their firing looks like sampling; what is then measured is a mixture of the idea
# and of the errors of its implementation. Here the idea comes alone: neurons with spikes, refractory periods and
# local rules, whose distribution is provably that of the machine. Any model of neurons, any neuromorphic chip, can be
# held against it.
#
# References
# ----------
#
# - Buesing, L., Bill, J., Nessler, B. and Maass, W. (2011). Neural dynamics as sampling: a model for stochastic
#   computation in recurrent networks of spiking neurons. PLoS Computational Biology 7, e1002211.
# - Gershman, S. J., Vul, E. and Tenenbaum, J. B. (2012). Multistability and perceptual inference. Neural Computation
#   24, 1.

plt.show()
