r"""
Sampling with spikes
====================

Neurons in the brain are noisy, and speak in short pulses. Buesing, Bill, Nessler and Maass showed in 2011 that this
can be more than a nuisance: a network of stochastic spiking neurons can *sample*. Read as zeros and ones, its state
wanders through a probability distribution just as the state of a Markov chain Monte Carlo program does. This case study
goes through the theory, proves it on a small network by computing the whole transition matrix, shows how close the
ways are to get it wrong, and then lets forty neurons spike.

A neuron with a clock
---------------------

We want samples of binary variables :math:`z = (z_1, \ldots, z_n)`. Each is given a neuron, and :math:`z_k = 1` shall
mean that neuron :math:`k` has spiked within the last :math:`\tau` steps. So the neuron needs a clock: :math:`\zeta_k`
is set to :math:`\tau` by a spike, and counts down to 0; :math:`z_k = [\zeta_k \geq 1]`. All that the neuron must know
of the others is its membrane potential, the log-odds of its variable given all the rest,

.. math::

    u_k = \log \frac{p(z_k = 1 \mid z_{\setminus k})}{p(z_k = 0 \mid z_{\setminus k})},

which in a Boltzmann machine, :math:`p(z) \propto \exp(b \cdot z + \tfrac12 z^\top J z)`, is what every model neuron
computes: :math:`u_k = b_k + \sum_j J_{kj} z_j`, a bias and a weighted sum of rectangular pulses of length
:math:`\tau`.

The rule for one neuron: while :math:`\zeta \geq 2` it is refractory, and only its clock goes on. With :math:`\zeta`
at 1 or 0 it spikes with probability :math:`\sigma(u - \log \tau)`, where :math:`\sigma(x) = 1/(1 + e^{-x})`.
"""

import os
import warnings

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pm_neural as pmn
from pm_neural import diagnostics

# sphinx_gallery_thumbnail_number = 4
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer draws

rng = np.random.default_rng(5)


def random_couplings(n, scale):
    """Draw symmetric couplings without self-connections."""
    J = np.triu(rng.normal(0, scale, (n, n)), 1)
    return J + J.T


J, b = random_couplings(3, 1.0), rng.normal(0, 1, 3)
with pm.Model() as small:
    z = pmn.BoltzmannMachine("z", J, b)
    step = pmn.NeuralSampling([z], tau=10, record_spikes=True)
    idata = pm.sample(200, tune=50, chains=1, cores=1, step=step, random_seed=1, progressbar=False)

states = idata.posterior["z"].values[0]
fig, ax = plt.subplots(figsize=(9, 3), layout="constrained")
pmn.plots.refractory_states(states, b + states @ J, ax=ax)
ax.set(title="three neurons: on-periods shaded, membrane potentials (thin line: u = 0)", xlabel="step")

# %%
# Why it is right
# ---------------
#
# Look at one neuron whose potential stays where it is. Its clock is a small Markov chain, and it is quickly checked
# that the stationary probability of :math:`\zeta = 0` is :math:`1 - \sigma(u)`, and that all of :math:`1, \ldots,
# \tau` are equally likely: they follow one another at a steady pace. So the neuron is on with probability
# :math:`\sigma(u)`, as it should be. In a network, :math:`u` jumps whenever another neuron switches, and one would
# think that it cannot work: a neuron in the middle of its refractory period takes no notice. But it does. On the
# space of all clocks the distribution
#
# .. math::
#
#     p(z, \zeta) = p(z) \prod_{k:\, z_k = 1} \frac{1}{\tau}
#
# is left exactly as it is by the update of each neuron, whatever the others do, because that update is stationary for
# the conditional law of its clock. Neurons that are updated *one after the other* therefore sample from :math:`p(z)`.
#
# That is a statement about a finite matrix, so a computer can check it. ``certify`` takes the compiled kernel that
# samples, forces each of its random decisions both ways, collects the probabilities of all outcomes, from each of the
# :math:`(\tau + 1)^3` states of the clocks, and compares :math:`p T` with :math:`p`.

with small:
    print(diagnostics.certify(pmn.NeuralSampling([z], tau=3)))
    print(diagnostics.certify(pmn.BlockGibbs([z])))

# %%
# Both leave the distribution invariant, down to the rounding of the last digits. Neither is reversible. With Gibbs
# sampling that is due to the fixed order of the units, and updates of one unit, or in random order, are. The spiking
# chain is not in any order: its clocks run one way only, and a film of it shown backwards, in which clocks count up,
# would be noticed at once. Detailed balance, from which most samplers are derived, does not hold and is not needed.
#
# Three ways to get it wrong
# --------------------------
#
# Simulators of neural networks usually update all neurons at once, from the same old state. It is such a natural
# thing to do that it deserves a look. We write down the transition matrix of that rule, and of two other near misses:
# neurons that may spike only once their clock is at 0, and neurons whose probability is that of a Poisson process of
# rate :math:`e^u / \tau`.


def one_step(J, b, tau, firing, can_fire_at=(0, 1), at_once=False):
    """Return the transition matrix of a step of all neurons, for a firing probability as a function of u."""
    n = len(b)
    clocks = np.array(list(np.ndindex(*[tau + 1] * n)))
    places = (tau + 1) ** np.arange(n)[::-1]
    rows = np.arange(len(clocks))
    u = b + (clocks > 0) @ J

    def update(k):
        T = np.zeros((len(clocks), len(clocks)))
        fires = np.where(np.isin(clocks[:, k], can_fire_at), firing(u[:, k]), 0.0)
        T[rows, rows + (tau - clocks[:, k]) * places[k]] += fires
        T[rows, rows + (np.maximum(clocks[:, k] - 1, 0) - clocks[:, k]) * places[k]] += 1 - fires
        return T

    if not at_once:
        return np.linalg.multi_dot([update(k) for k in range(n)]), clocks
    T = np.ones((len(clocks), len(clocks)))
    for k in range(n):  # from each state, the neurons decide independently
        own = update(k)
        for target in range(tau + 1):
            into = own[:, clocks[:, k] == target].sum(axis=1)
            T[:, clocks[:, k] == target] *= into[:, None]
    return T, clocks


def bias(**rule):
    """Return the total variation distance between the stationary law of a rule and the Boltzmann machine."""
    T, clocks = one_step(J, b, tau, **rule)
    on = clocks > 0
    sampled = np.bincount(on @ [4, 2, 1], diagnostics.stationary_distribution(T))
    bits = diagnostics.enumerate_states(3)
    target = np.exp(bits @ b + np.einsum("si,ij,sj->s", bits, J, bits) / 2)
    return diagnostics.total_variation_distance(sampled, target / target.sum()).estimate


tau = 3


def exact(u):
    """Return the probability that the theory asks for."""
    return 1 / (1 + tau * np.exp(-u))


def poisson(u):
    """Return the probability of at least one event of a Poisson process."""
    return 1 - np.exp(-np.exp(u) / tau)


print("total variation distance to the right distribution:")
print(f"  one after the other        {bias(firing=exact):.1e}")
print(f"  all at once                {bias(firing=exact, at_once=True):.4f}")
print(f"  spiking only from clock 0  {bias(firing=exact, can_fire_at=(0,)):.4f}")
print(f"  Poisson probabilities      {bias(firing=poisson):.4f}")

# %%
# No number of samples makes these errors smaller, and no convergence diagnostic shows them: the chains
# converge well, to something else.
#
# A fourth mistake is in the start. A program that is handed a state :math:`z` has to choose clocks for the neurons
# that are on. Setting them all to :math:`\tau` looks harmless, but then they all stay on for :math:`\tau` steps while
# others join them. ``NeuralSampling`` draws them uniformly from 1 to :math:`\tau`, and again whenever another step
# method of the model has changed a unit; otherwise clocks are part of the chain's state and kept from draw to draw.
#
# Neurons that recover
# --------------------
#
# Real neurons are not silent for a fixed time and then as good as new: they are hard to excite right after a spike, and
# recover little by little. The *relative* refractory mechanism has that. A neuron spikes with probability
# :math:`f(u)\, g(\zeta)`, where the refractory function :math:`g` says how ready it is, from :math:`g(\tau) = 0` right
# after a spike to 1 when its clock has run out, and :math:`f` how much its input makes of that. Spiking again while it
# is on sets its clock back to :math:`\tau`.
#
# :math:`g` can be chosen; :math:`f` then cannot. If the potential stays where it is, the clock is again a small Markov
# chain. Its stationary law falls by the factor :math:`1 - f\, g(\eta)` at each clock :math:`\eta` that is left without
# a spike, and what comes to 0 leaves it with probability :math:`f`. So the neuron is on with the right odds if
#
# .. math::
#
#     e^u = \frac{p(z = 1)}{p(z = 0)}
#         = \frac{f \sum_{\zeta=1}^{\tau} \prod_{\eta=\zeta+1}^{\tau} (1 - f\, g(\eta))}
#                {\prod_{\eta=1}^{\tau} (1 - f\, g(\eta))}.
#
# The right side grows with :math:`f` from 0 to infinity, so that each :math:`u` has its :math:`f(u)`. To draw it there
# is nothing to solve: we take :math:`f`, and compute the :math:`u` that it belongs to.

tau = 20


def tabulated(name):
    """Return a named refractory function at the clocks 0 to tau."""
    with pm.Model(), warnings.catch_warnings(action="ignore"):
        one = pmn.BoltzmannMachine("one", np.zeros((1, 1)), np.zeros(1))
        return pmn.NeuralSampling([one], tau=tau, refractory="relative", g=name).dynamics.g


def potential(f, g):
    """Return the u at which neurons that spike with probability f g are on with the right odds."""
    silent = np.cumprod(1 - np.outer(f, g[:0:-1]), axis=1)  # the share of clocks that pass tau, ..., 1 without a spike
    return np.log(f * (1 + silent[:, :-1].sum(axis=1)) / silent[:, -1])


readiness = {"absolute": np.where(np.arange(tau + 1) <= 1, 1.0, 0.0)}
readiness |= {name: tabulated(name) for name in ("late", "linear", "smooth", "early")}

fig, (ax_g, ax_f) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
f = 1 / (1 + np.exp(-np.linspace(-10, 8, 400)))
for name, g in readiness.items():
    style = {"color": "black", "linestyle": "--", "zorder": 3} if name == "absolute" else {}
    ax_g.plot(g[::-1], marker=".", label=name, **style)
    ax_f.plot(potential(f, g), f, label=name, **style)
ax_g.set(title="refractory function $g$", xlabel="steps since the spike", xticks=range(0, tau + 1, 5))
ax_f.set(title="and the $f$ that goes with it", xlabel="membrane potential $u$", xlim=(-6, 8))
ax_f.legend()

# %%
# *Late*, *smooth* and *early* are the paper's; any other function can be given. A neuron that is soon ready prolongs
# its on-time with further spikes, and needs a smaller :math:`f` for the same odds. Where spikes are rare there is no
# difference: all curves begin as :math:`e^u / \tau`.
#
# All that holds for a potential that does not change. The absolute mechanism is exact in every network because the
# clock of a neuron that is on has the same law whatever :math:`u` is. Here that law depends on :math:`u`, and lags
# behind when :math:`u` jumps. So networks of such neurons are biased, and in the examples of the page on exactness the
# more so the sooner they are ready.
#
# Forty neurons
# -------------
#
# Now a network of the size of the paper's example: forty neurons, weights of standard deviation 0.3, biases around
# −1.5, :math:`\tau = 20` steps (think of 20 ms). Three kinds of neurons shall sample it:
#
# - *absolute*: the rule above, exact;
# - *relative*: neurons that recover in a straight line, closer to biology and approximate;
# - *continuous*: no steps at all. A neuron that is off spikes at rate :math:`e^u / \tau`, then is on for exactly
#   :math:`\tau`. Exact again; it is simulated from event to event.

n = 40
J, b = random_couplings(n, 0.3), rng.normal(-1.5, 0.5, n)
n_draws = 1000 if SHORT else 20_000
settings = {"chains": 2, "cores": 1, "tune": 100, "random_seed": 1, "progressbar": False}

with pm.Model(coords={"neuron": range(n), "chosen": range(5)}):
    z = pmn.BoltzmannMachine("z", J, b, dims="neuron")
    pm.Deterministic("five", z[:5], dims="chosen")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        relative = pmn.NeuralSampling([z], tau=20, refractory="relative", steps_per_draw=20)
    print("warning:", caught[0].message)
    steps = {
        "absolute": pmn.NeuralSampling([z], tau=20, steps_per_draw=20, record_spikes=True),
        "relative": relative,
        "continuous": pmn.NeuralSampling([z], time="continuous", steps_per_draw=1.0),
    }
    runs = {name: pm.sample(n_draws, step=step, **settings) for name, step in steps.items()}
    gibbs = pm.sample(4 * n_draws, step=pmn.BlockGibbs([z], sweeps_per_draw=5), **settings)

fig, ax = plt.subplots(figsize=(9, 4), layout="constrained")
pmn.plots.spike_raster(runs["absolute"], window=(0, 1000), ax=ax)
ax.set(title="spikes of the first 1000 steps", xlabel="step")

# %%
# There are :math:`2^{40}` states, too many to compare one by one, but the joint law of the first five neurons
# has 32. A long run of Gibbs sampling serves as the reference.

laws = {"Gibbs": diagnostics.state_probabilities(gibbs, "five")}
laws |= {name: diagnostics.state_probabilities(idata, "five") for name, idata in runs.items()}
fig, ax = plt.subplots(figsize=(10, 4), layout="constrained")
pmn.plots.state_probabilities(laws, n_largest=16, ax=ax)
ax.set(title="the 16 most probable states of five neurons")

for name in runs:
    distance = diagnostics.total_variation_distance(laws[name], np.asarray(laws["Gibbs"]))
    print(f"{name:<11} total variation distance to Gibbs: {distance}")

# %%
# The distance of two samples is never zero, which is why its noise level is printed beside it. With weights as small
# as these the relative mechanism is nearly right. With strong weights it is not.
#
# What the spikes cost
# --------------------
#
# A neuron that has spiked keeps its state for :math:`\tau` steps, so the chain moves slowly by construction. How many
# sweeps lie between two independent draws is the autocorrelation time, here of the number of neurons that are on:

with pm.Model(coords={"neuron": range(n)}):
    z = pmn.BoltzmannMachine("z", J, b, dims="neuron")
    methods = {"Gibbs": pmn.BlockGibbs([z])}
    methods |= {f"spikes, tau = {tau}": pmn.NeuralSampling([z], tau=tau) for tau in (1, 5, 20)}
    for name, step in methods.items():
        idata = pm.sample(10 * n_draws, step=step, **settings)
        active = az.convert_to_dataset({"active": idata.posterior["z"].sum("neuron").values.astype(float)})
        print(f"{name:<16} {20 * n_draws / float(az.ess(active)['active']):5.1f} sweeps per effective draw")

# %%
# So nobody should sample a Boltzmann machine by spikes because it is fast: Gibbs sampling, which is :math:`\tau = 1`,
# needs the fewest sweeps. The point is the other way round: sampling is something that a network of spiking neurons
# *can do*, with local rules and in continuous time, and here the claim can be put to the test, with exact samplers,
# inside any PyMC model.
#
# References
# ----------
#
# - Buesing, L., Bill, J., Nessler, B. and Maass, W. (2011). Neural dynamics as sampling: a model for stochastic
#   computation in recurrent networks of spiking neurons. PLoS Computational Biology 7, e1002211.
# - Petrovici, M. A., Bill, J., Bytschok, I., Schemmel, J. and Meier, K. (2016). Stochastic inference with spiking
#   neurons in the
#   high-conductance state. Physical Review E 94, 042312.

plt.show()
