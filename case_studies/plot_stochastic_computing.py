r"""
Computing with chance: spiking neurons that learn to sample
===========================================================

A neuron that has just fired cannot fire again for a while: it is *refractory*. Read a refractory neuron as 1 and any
other as 0, and a population of neurons becomes a vector of bits that changes all the time. Driven by noise, it wanders
through the states of this vector, some more often than others: it *samples* from a distribution. Which one? That
depends on the synapses. In this case study we turn the question around, give a distribution, and train the synapses.

The neurons
-----------

Thirty-two leaky integrate-and-fire neurons are connected all to all, and receive spikes from 256 sources of Poisson
noise. Of each, the membrane voltage :math:`v` and the synaptic current :math:`i` follow

.. math::

    \tau_\mathrm{mem} \dot v = v_\mathrm{leak} - v + i, \qquad \tau_\mathrm{syn} \dot i = -i,

every spike adds its weight to :math:`i`, and where :math:`v` exceeds 1 the neuron fires, is reset to 0 and stays there,
refractory, for ten milliseconds. These are the equations of Norse, a library of spiking networks for torch, and the
network can be simulated by Norse's cell (``engine="norse"``). By default a kernel of our own does the same some forty
times faster.
"""

import os

import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import torch

import pm_neural as pmn

# sphinx_gallery_thumbnail_number = 1
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer epochs and shorter runs
EPOCHS = 60 if SHORT else 400

# %%
# A target that can be reached
# ----------------------------
#
# Any distribution over the readout neurons may be a target, but not all are within reach of such a network. One that
# surely is, is that of another network of the same kind: a *teacher* with random weights. ``fit`` lets it run for a
# million steps and takes the frequencies of its states for the target. The first three neurons are read out here, and
# five in a second pair of networks.


def teacher_and_student(n_readout):
    """Make two networks that differ in their random weights."""
    return [pmn.spiking.SamplingNetwork(n_readout=n_readout, random_seed=seed) for seed in (1, 2)]


teacher, student = teacher_and_student(3)
history = student.fit(teacher, epochs=EPOCHS, random_seed=3, progressbar=False)
print(f"{EPOCHS} epochs took {history.attrs['training_seconds']:.0f} s")
for name, text in {"kl": "whole batch", "kl_trial": "single trial"}.items():
    ours, theirs = float(history[name][-3:].mean()), history.attrs[f"teacher_{name}"]
    print(f"KL of the {text}: {ours:.4f}; of the teacher itself, run again: {theirs:.4f}")

# %%
# Each epoch runs 32 trials of one second under fresh noise. The loss is the Kullback-Leibler divergence between the
# target :math:`p` and the frequencies :math:`q` of the states over the whole batch,
#
# .. math:: \mathrm{KL}(p \,\|\, q) = \sum_s p(s) \log \frac{p(s)}{q(s)}.
#
# A spike is a step, and a step has no slope to descend. So in the backward pass its derivative is replaced by a smooth
# *surrogate*, :math:`1/(\alpha |v - 1| + 1)^2`, and the error goes back through all thousand steps.
#
# No training can bring the loss to zero, because frequencies in a finite run scatter. How low can it get? The teacher
# knows: run again under fresh noise, it misses its own distribution, too. That is the *floor*. Without it, a loss is a
# number that says little.
#
# What the network does
# ---------------------

inputs = student.draw_inputs(600, 32, random_seed=4)
with torch.no_grad():
    traces = student(inputs)
window = slice(200, 400)
time = np.arange(200)

fig, axes = plt.subplots(3, 1, figsize=(7, 9), layout="constrained")
for k in range(3):
    voltage = traces.voltages[window, 0, k].numpy()
    refractory = traces.refractory[window, 0, k].numpy() > 0
    axes[0].fill_between(time, 1.4 * k, 1.4 * k + 1, where=refractory, step="post", color="0.8", linewidth=0)
    axes[0].plot(time, 1.4 * k + np.clip(voltage, -0.3, 1), color=f"C{k}", linewidth=1)
axes[0].set(
    title="A  voltages (cut off below −0.3); gray where refractory", xlabel="time in ms", yticks=[0.5, 1.9, 3.3]
)
axes[0].set_yticklabels(["neuron 1", "neuron 2", "neuron 3"])


def state_names(n):
    """Name the states as bits, 00…0 first."""
    return ["".join(map(str, state)) for state in pmn.diagnostics.enumerate_states(n)]


def trial_laws(network, n_trials=32):
    """Frequencies of the states in each of many runs of one second."""
    z = network.sample(n_trials, 1000, random_seed=5)["posterior"].z.to_numpy()
    return pmn.spiking.joint_distribution(torch.tensor(z.transpose(1, 0, 2), dtype=torch.float64)).numpy()


def law_of(network, n_steps):
    """Frequencies of the states in a long run."""
    return pmn.diagnostics.state_probabilities(network.sample(32, n_steps, random_seed=6), "z", values=(0, 1))


def compare(ax, target, trials, n):
    """Draw the target beside what was sampled, with the scatter from trial to trial."""
    states = np.arange(2**n)
    ax.bar(states - 0.2, target, 0.4, color="0.6", label="target")
    ax.bar(states + 0.2, trials.mean(0), 0.4, yerr=trials.std(0), color="C0", ecolor="0.2", label="sampled, ± sd")
    ax.set_xticks(states, state_names(n), rotation=90 if n > 3 else 0, fontsize="small")
    ax.set(ylabel="probability")
    ax.legend(frameon=False)


target = law_of(teacher, 5_000 if SHORT else 30_000)
compare(axes[1], target.probabilities, trial_laws(student), 3)
axes[1].set(title="B  three readout neurons: frequencies in trials of 1 s")
axes[2].semilogy(history.epoch, history.kl, label="student, fresh noise")
axes[2].axhline(history.attrs["teacher_kl"], color="0.3", linestyle="--", label="floor: the teacher run again")
axes[2].set(title="C  Kullback-Leibler divergence", xlabel="epoch", ylabel="KL in nats")
axes[2].legend(frameon=False)

# %%
# A: a spike takes the voltage to 0, and the gray bars are the ones of the sample. B: the bars agree; the whiskers show
# that one second is a short time to sample from three bits. C: the curve comes down towards the floor. No training can
# take it below, but for chance.
#
# Five neurons, thirty-two states
# -------------------------------

teacher5, student5 = teacher_and_student(5)
history5 = student5.fit(teacher5, epochs=EPOCHS, random_seed=3, progressbar=False)
fig, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
compare(ax, law_of(teacher5, 5_000 if SHORT else 30_000).probabilities, trial_laws(student5), 5)
ax.set(title="five readout neurons")
print(f"KL {float(history5.kl[-3:].mean()):.4f}, floor {history5.attrs['teacher_kl']:.4f}")

# %%
# What helps, and what does not
# -----------------------------
#
# Three questions that come up at once: do longer runs help, do more noise sources, and does the optimizer matter? All
# networks have the same teacher. Longer runs lower the floor first of all: each number is to be read beside its own.

SETTINGS = {
    "250 steps an epoch": {"n_steps": 250},
    "1000 steps": {},
    "4000 steps": {"n_steps": 4000},
    "64 noise sources": {"n_inputs": 64},
    "512 noise sources": {"n_inputs": 512},
    "SGD, rate 0.1": {"optimizer": "sgd", "learning_rate": 0.1},
    "RMSprop, rate 0.01": {"optimizer": torch.optim.RMSprop},
    "Adam, rate 0.001": {"learning_rate": 0.001},
}
if SHORT:
    SETTINGS = {name: SETTINGS[name] for name in ("1000 steps", "SGD, rate 0.1")}

print(f"{'':20} {'KL':>8} {'floor':>8} {'seconds':>8}")
for name, setting in SETTINGS.items():
    options = dict(setting)
    network = pmn.spiking.SamplingNetwork(n_inputs=options.pop("n_inputs", 256), random_seed=2)
    result = network.fit(teacher, epochs=EPOCHS // 2, random_seed=3, progressbar=False, **options)
    row = float(result.kl[-3:].mean()), result.attrs["teacher_kl"], result.attrs["training_seconds"]
    print(f"{name:20} {row[0]:8.4f} {row[1]:8.4f} {row[2]:8.1f}")

# %%
# With 200 epochs each, all that use Adam or RMSprop at a rate of 0.01 end near their floors: with sixteen times the
# steps both are about ten times lower. A few dozen noise sources are enough. Plain gradient descent is slow, and so is
# Adam at a tenth of the rate: they would get there with more epochs.
#
# A given distribution, without training
# --------------------------------------
#
# Where the target is a Boltzmann machine, :math:`p(z) \propto \exp(b \cdot z + \tfrac{1}{2} z^\top J z)`, the synapses
# can be written down. The noise makes a neuron fire with a probability that depends on its mean voltage nearly as a
# logistic function, and in a Boltzmann machine a unit is 1 with just such a probability, of its field
# :math:`b_k + \sum_j J_{kj} z_j`. So ``LIFSampler`` measures the function once and translates log-odds into voltages:
# biases into resting voltages, couplings into the heights of post-synaptic potentials.

rng = np.random.default_rng(7)
upper = np.triu(rng.normal(0, 0.6, (3, 3)), 1)
J, b = upper + upper.T, rng.normal(-0.5, 0.6, 3)
sampler = pmn.spiking.LIFSampler.from_network((J, b))

calibration = sampler.calibration
fig, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
ax.plot(calibration.potentials, calibration.log_odds, "o", label="one neuron, measured")
middle = float(calibration.potential_of(np.zeros(1))[0])
ax.plot(calibration.potentials, calibration.slope * (calibration.potentials - middle), label="logistic")
ax.set(xlabel="resting voltage less threshold, in sd of the noise", ylabel="log-odds of being refractory")
ax.set(title="activation of a noisy neuron")
ax.legend(frameon=False)

# %%
# The same machine goes to three samplers made of neurons: the ones just made; a network trained to its exact law; and
# ``NeuralSampling``, whose abstract neurons fire with the probability that the theory asks for, and which is exact.
# Each divergence is to be read beside what chance alone would make of it.

duration = 5_000 if SHORT else 100_000  # ms, of each of four chains
with pm.Model():
    z = pmn.BoltzmannMachine("z", J, b)
    exact = pmn.diagnostics.exact_state_probabilities(z)
    step = pmn.NeuralSampling([z], tau=10, steps_per_draw=5)  # a step is a ms
    settings = {"tune": 100, "chains": 4, "cores": 1, "progressbar": False, "compute_convergence_checks": False}
    neural = pm.sample(duration // 5, step=step, random_seed=8, **settings)

trained = pmn.spiking.SamplingNetwork(random_seed=9)
trained.fit(exact, epochs=EPOCHS, random_seed=10, progressbar=False)
samples = {
    "LIFSampler": sampler.sample(4, duration, random_seed=11),
    "trained network": trained.sample(32, duration // 8, random_seed=12),
    "NeuralSampling": neural,
}
fig, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
ax.bar(np.arange(8) - 0.3, exact.probabilities, 0.2, color="0.6", label="exact")
for place, (name, tree) in enumerate(samples.items()):
    law = pmn.diagnostics.state_probabilities(tree, "z", values=(0, 1))
    ax.bar(np.arange(8) - 0.1 + 0.2 * place, law.probabilities, 0.2, color=f"C{place}", label=name)
    print(f"{name:16} KL {pmn.diagnostics.kl_divergence(exact, law)}")
ax.set_xticks(np.arange(8), state_names(3))
ax.set(title="a Boltzmann machine of three units", ylabel="probability")
ax.legend(frameon=False)

# %%
# The first two samplers are *approximate*, and the attributes of what they return say so, and how far off they are
# where that is known. With couplings as weak as these it can hardly be told from chance. With stronger ones it can, as
# the decaying potentials of real synapses stand less and less well for the constant shifts that the theory asks for:

for scale in (1, 2, 4):
    attrs = pmn.spiking.LIFSampler.from_network((scale * J, b)).sample(4, duration, random_seed=13).posterior.attrs
    print(f"couplings × {scale}: KL {attrs['kl']:.5f} ± {attrs['kl_error']:.5f} (noise alone: {attrs['kl_noise']:.5f})")
plt.show()
