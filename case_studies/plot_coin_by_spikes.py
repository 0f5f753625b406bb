r"""
The coin once more, by spiking neurons
======================================

Another case study infers the bias of a coin by Metropolis. Here the same posterior is sampled by eight spiking
neurons. It is an odd thing to do, and a good test of a claim: that neural sampling works for *any* distribution over
binary variables, not only for Boltzmann machines with their pairwise weights.

A number in eight bits
----------------------

The probability of heads :math:`p` is a number, and neurons are on or off. So :math:`p` is written in binary: neuron
:math:`k` stands for the digit :math:`2^{-k}`,

.. math::

    p = \sum_{k=1}^{8} 2^{-k} z_k + 2^{-9},

the middles of 256 cells between 0 and 1. If all bits are coin flips, all cells are equally likely, which is the uniform
prior. Ten throws have been observed, seven of them heads. The posterior of :math:`p` is then Beta(8, 4), but for the
width of the cells.
"""

import os

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from scipy import stats

import pm_neural as pmn

# sphinx_gallery_thumbnail_number = 1
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer draws

throws = np.array([1, 1, 0, 1, 1, 0, 1, 1, 0, 1])
worth = 0.5 ** np.arange(1, 9)
tau = 10

with pm.Model(coords={"digit": [f"1/{2**k}" for k in range(1, 9)]}) as model:
    bits = pm.Bernoulli("bits", 0.5, dims="digit")
    p = pm.Deterministic("p", pm.math.dot(bits, worth) + worth[-1] / 2)
    pm.Bernoulli("throws", p, observed=throws)
    step = pmn.NeuralSampling([bits], tau=tau, steps_per_draw=tau, record_spikes=True)
    idata = pm.sample(500 if SHORT else 5000, tune=200, chains=4, cores=1, step=step, random_seed=1, progressbar=False)

# %%
# The neurons' membrane potentials are :math:`u_k = \log p(z_k = 1, \text{rest}) - \log p(z_k = 0, \text{rest})`, as
# always. There is no weight matrix to compute them from: neurons that stand for digits of one number interact all
# together, not in pairs. ``NeuralSampling`` takes them from the log-probability that PyMC compiles for the model,
# evaluated with the digit on and off.
#
# Against the truth
# -----------------

exact = stats.beta(8, 4)
draws = idata.posterior["p"]
fig, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
cells = np.linspace(0, 1, 33)
ax.hist(draws.values.ravel(), bins=cells, density=True, color="lightsteelblue", label="spiking neurons")
grid = np.linspace(0, 1, 300)
ax.plot(grid, exact.pdf(grid), "k", label="Beta(8, 4)")
ax.set(xlabel="probability of heads p", ylabel="density", yticks=[])
ax.legend()

mcse = float(az.mcse(idata, var_names="p")["p"])
print(f"mean               {float(draws.mean()):.4f} +- {mcse:.4f}   exact {exact.mean():.4f}")
print(f"standard deviation {float(draws.std()):.4f}            exact {exact.std():.4f}")
largest = max(abs(float((draws < q).mean()) - exact.cdf(q)) for q in cells)
print(f"largest difference of the distribution functions: {largest:.4f}")

# %%
# What the neurons do
# -------------------
#
# The first neuron says whether :math:`p` is above one half. Seven heads in ten make that likely, so it spikes as soon
# as its refractory period is over, most of the time. The last neuron stands for 1/256, about which ten throws say
# nothing: its potential is close to zero, and it is on half of the time.

raster = pmn.diagnostics.spike_raster(idata)
states = raster.states(tau)[1000:1400]
logp = model.compile_logp(vars=[model["throws"]])


def potentials(state):
    """Return the log-odds of all digits, each given the other ones."""
    u = np.empty(8)
    for k in range(8):
        high, low = state.copy(), state.copy()
        high[k], low[k] = 1, 0
        u[k] = logp({"bits": high}) - logp({"bits": low})
    return u


u = np.array([potentials(state.astype(np.int64)) for state in states])
fig, ax = plt.subplots(figsize=(9, 4), layout="constrained")
pmn.plots.refractory_states(states, u, labels=list(model.coords["digit"]), ax=ax)
ax.set(title="on-periods (shaded) and membrane potentials", xlabel="step", ylabel="digit")
print(
    "fraction of time on:",
    dict(zip(model.coords["digit"], raster.states(tau).mean(axis=0).round(3).tolist(), strict=True)),
)

# %%
# The price of digits
# -------------------
#
# Binary numbers have cliffs. From 0.0111... to 0.1000... is the smallest of steps for :math:`p`, but all eight
# neurons would have to switch for it; in between lie states of quite different :math:`p`. So the first digit moves
# more slowly than the last. A draw here is :math:`\tau` steps after the one before, and ten throws leave much room,
# so that most draws count:

ess = az.ess(idata, var_names=["bits", "p"])
first, last = (float(ess["bits"].sel(digit=digit)) for digit in ("1/2", "1/256"))
print(
    f"{draws.size} draws; effective: {first:.0f} of the first digit, {last:.0f} of the last, {float(ess['p']):.0f} of p"
)

# %%
# Updates that do not depend on a coding would do better, and for one number between 0 and 1 nobody needs more than
# plain Metropolis, or a pencil. What the example shows is that a population of spiking neurons can carry a posterior
# over something that is not binary at all, in a code, and that nothing in the theory asks for symmetric pairwise
# synapses.
#
# References
# ----------
#
# - Buesing, L., Bill, J., Nessler, B. and Maass, W. (2011). Neural dynamics as sampling: a model for stochastic
#   computation in recurrent networks of spiking neurons. PLoS Computational Biology 7, e1002211.
# - Pecevski, D., Buesing, L. and Maass, W. (2011). Probabilistic inference in general graphical models through
#   sampling in stochastic networks of spiking neurons. PLoS Computational Biology 7, e1002294.

plt.show()
