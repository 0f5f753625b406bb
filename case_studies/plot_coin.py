r"""
The coin: a posterior by Metropolis, and how to read its chains
===============================================================

A coin shows seven heads in ten throws. How likely is it to show heads the next time? The question
is small enough to be answered with pencil and paper, which makes it the right place to meet a
Markov chain: whatever the chain says can be held against the truth.

This case study uses plain PyMC, nothing of pm_neural yet. What it introduces (proposal,
acceptance, burn-in, effective sample size) comes back in every other case study.

The model and its exact answer
------------------------------

Let :math:`p` be the probability of heads. Before the first throw we hold every value to be equally
credible, :math:`p \sim \mathrm{Uniform}(0, 1)`; given :math:`p`, the number of heads in ten throws
is binomial. Bayes' theorem multiplies the two,

.. math::

    \pi(p \mid 7 \text{ of } 10) \;\propto\; p^7 (1 - p)^3 \quad\text{on } [0, 1],

which is the shape of a Beta(8, 4) distribution. Its mean is :math:`8 / 12 = 2/3`: between the
seven tenths that were seen and the one half that the prior is centered at.
"""

import os

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
from scipy import stats

# sphinx_gallery_thumbnail_number = 3
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer draws, noisier pictures

heads, throws = 7, 10
exact = stats.beta(1 + heads, 1 + throws - heads)
lower, upper = exact.ppf([0.055, 0.945])
print(f"exact mean {exact.mean():.4f}, standard deviation {exact.std():.4f}")
print(f"exact 89 % interval: {lower:.3f} to {upper:.3f}")

# %%
# The Metropolis rule
# -------------------
#
# Suppose the integral of :math:`p^7 (1 - p)^3` were out of reach, as integrals usually are. We
# would then know the posterior only up to a constant factor. Metropolis and co-workers found in
# 1953 that this is enough. Stand at :math:`p`. *Propose* a place near it, :math:`p' = p +
# \varepsilon` with :math:`\varepsilon` drawn from a symmetric distribution. *Accept* it with
# probability
#
# .. math::
#
#     A(p \to p') = \min\!\left(1, \frac{\pi(p')}{\pi(p)}\right),
#
# and otherwise stay where you are, which counts as a draw of its own. The unknown constant cancels
# in the ratio. A proposal outside :math:`[0, 1]` has :math:`\pi(p') = 0` and is never accepted.
#
# Why does this lead to :math:`\pi`? Uphill moves are always taken, and downhill moves just often
# enough: :math:`\pi(p) A(p \to p') = \min(\pi(p), \pi(p')) = \pi(p') A(p' \to p)`. Between any two
# places as much probability flows there as back, so a cloud of walkers spread like :math:`\pi`
# stays spread like :math:`\pi`. This is called *detailed balance*. It makes :math:`\pi` a fixed
# point; that every start ends up there needs in addition that the walk can reach any place, as it
# can here.
#
# The rule in NumPy, for many independent chains side by side:


def log_posterior(p):
    """Return log p^7 (1 - p)^3, the posterior without its constant; -inf outside [0, 1]."""
    inside = (p > 0) & (p < 1)
    safe = np.where(inside, p, 0.5)
    return np.where(inside, heads * np.log(safe) + (throws - heads) * np.log1p(-safe), -np.inf)


def metropolis(start, width, n_draws, rng):
    """Run a chain from each start: draws, proposals and whether accepted, (n_chains, n_draws)."""
    p = np.array(start, dtype=float)
    draws, proposals = np.empty((2, p.size, n_draws))
    accepted = np.empty((p.size, n_draws), dtype=bool)
    for t in range(n_draws):
        proposal = p + width * rng.normal(size=p.size)
        accept = np.log(rng.random(p.size)) < log_posterior(proposal) - log_posterior(p)
        p = np.where(accept, proposal, p)
        draws[:, t], proposals[:, t], accepted[:, t] = p, proposal, accept
    return draws, proposals, accepted


# %%
# Forty steps from a bad start
# ----------------------------
#
# We let one chain start at :math:`p = 0.01`, where the posterior density is practically zero. The
# first draws are a climb: they tell where the chain came from, not what the posterior looks like.
# These are the *burn-in* (PyMC calls it *tune*, and uses the time to adapt the proposal), and they
# are thrown away.

rng = np.random.default_rng(7)
draws, proposals, accepted = metropolis([0.01], width=0.15, n_draws=40, rng=rng)

fig, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
step = np.arange(40)
yes, no = accepted[0], ~accepted[0]
ax.axhspan(lower, upper, color="tab:green", alpha=0.12, label="exact 89 % interval")
ax.step(step, draws[0], where="mid", color="0.3", label="the chain")
ax.plot(step[yes], proposals[0, yes], "o", color="tab:blue", label="accepted proposals")
ax.plot(step[no], proposals[0, no], "x", color="tab:red", label="rejected proposals")
ax.set(xlabel="step", ylabel="p", title="Metropolis from p = 0.01", ylim=(-0.25, 1.25))
ax.legend(ncols=2, fontsize="small")

# %%
# How wide should a proposal be?
# ------------------------------
#
# A timid chain has nearly everything accepted and gets nowhere; a bold one proposes places far
# outside the posterior and stands still. Both show up in the same way: neighboring draws resemble
# each other. Four chains for each width, all with the same number of steps:

n_draws = 1000 if SHORT else 4000
fig, axes = plt.subplots(3, 1, figsize=(8, 5.5), sharex=True, sharey=True, layout="constrained")
by_width = {}
for ax, width in zip(axes, (0.01, 0.3, 5.0), strict=True):
    draws, _, accepted = metropolis(exact.rvs(4, random_state=rng), width, n_draws, rng)
    by_width[width] = az.from_dict({"posterior": {"p": draws}})
    ess = float(az.ess(by_width[width], method="mean")["p"])
    ax.plot(draws[0, :500], lw=0.8)
    share = f"{accepted.mean():.0%} accepted"
    ax.set(title=f"width {width:g}: {share}, {draws.size} draws worth {ess:.0f}", ylabel="p")
axes[-1].set_xlabel("step (the first 500 of one chain)")

# %%
# The same model in PyMC
# ----------------------
#
# In PyMC we write the model down and choose the step method. ``pm.Metropolis`` is the rule above,
# with a proposal that is tuned during burn-in and works on an unbounded transform of :math:`p`.
# Next to it PyMC's default, NUTS, which follows the gradient of the log posterior and so proposes
# far away without being rejected.

with pm.Model() as coin:
    p = pm.Uniform("p", 0, 1)
    pm.Binomial("heads", n=throws, p=p, observed=heads)
    settings = {
        "draws": 500 if SHORT else 2000,
        "chains": 4,
        "progressbar": False,
        "random_seed": 7,
    }
    by_metropolis = pm.sample(step=pm.Metropolis(), **settings)
    by_nuts = pm.sample(**settings)

summaries = [az.summary(by_metropolis, round_to=3), az.summary(by_nuts, round_to=3)]
print(pd.concat(summaries, keys=["Metropolis", "NUTS"]).to_string())

# %%
# How to read a row of the summary:
#
# - ``mean`` and ``sd`` estimate the mean 0.6667 and standard deviation 0.1307 of Beta(8, 4);
# - ``eti89_lb`` and ``eti89_ub`` bound the 89 % *credible interval*: given the model and the ten
#   throws, :math:`p` lies in it with probability 0.89, and is as likely to lie below it as above.
#   (A confidence interval could not say this about the one coin in front of us.)
# - ``ess_bulk`` and ``ess_tail`` are effective sample sizes, explained below, for the middle and
#   for the tails of the distribution;
# - ``r_hat`` compares the chains with each other: below 1.01 if they all tell the same story;
# - ``mcse_mean`` is how far off the mean may be because the chains are of finite length.
#
# Against the exact density:

fig, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
grid = np.linspace(0, 1, 401)
for name, idata in {"Metropolis": by_metropolis, "NUTS": by_nuts}.items():
    p_draws = idata["posterior"]["p"].to_numpy().ravel()
    ax.hist(p_draws, bins=40, range=(0, 1), density=True, histtype="step", label=name)
ax.plot(grid, exact.pdf(grid), "k", label="Beta(8, 4)")
ax.axvspan(lower, upper, color="tab:green", alpha=0.12, label="exact 89 % interval")
ax.set(xlabel="p", ylabel="posterior density")
ax.legend()

# %%
# Trace and rank
# --------------
#
# The trace should look like noise around one level, with all chains on top of each other: a drift
# means that the burn-in was too short, a plateau that proposals are being rejected.

az.plot_trace_dist(by_metropolis)

# %%
# The eye forgives a trace a lot. Ranks are stricter: sort the draws of all chains together, and
# look at where those of each chain ended up. If the chains sample the same distribution, the ranks
# of each are uniform, and the difference between their cumulative curve and the diagonal stays
# inside the band. ``method="envelope"`` first thins the chains to about as many draws as they are
# worth: the band, and also the test that ArviZ applies by default, hold for independent draws, and
# without thinning that test calls practically every correct Metropolis chain suspicious.

az.plot_rank(by_metropolis, method="envelope")

# %%
# What the effective sample size says
# -----------------------------------
#
# Draws of a Markov chain are correlated, so :math:`N` of them are worth fewer. With the
# autocorrelation :math:`\rho_t` at lag :math:`t`,
#
# .. math::
#
#     N_\text{eff} = \frac{N}{1 + 2 \sum_{t \ge 1} \rho_t},
#
# and the Monte Carlo standard error of the mean is :math:`\mathrm{sd} / \sqrt{N_\text{eff}}`. In
# words: for the mean of :math:`p`, this chain is as good as :math:`N_\text{eff}` independent
# draws.

for name, idata in {"Metropolis": by_metropolis, "NUTS": by_nuts}.items():
    p_draws = idata["posterior"]["p"]
    mean, mcse = float(p_draws.mean()), float(az.mcse(p_draws, method="mean"))
    print(
        f"{name:>10}: {p_draws.size} draws are worth {float(az.ess(p_draws, method='mean')):.0f}; "
        f"mean {mean:.4f} +/- {mcse:.4f}, {abs(mean - exact.mean()) / mcse:.1f} errors from 2/3"
    )

# %%
# That is a claim about chains we have not run, so it can be tested: run many, and see how much
# their means really scatter. A thousand independent chains, each started from the posterior:

n_chains, length = 1000, 500
draws, _, _ = metropolis(exact.rvs(n_chains, random_state=rng), 0.3, length, rng)
means = draws.mean(axis=1)
worth = float(az.ess(by_width[0.3], method="mean")["p"]) / by_width[0.3]["posterior"]["p"].size * length
print(f"spread of {n_chains} means, observed:  {means.std():.4f}")
print(f"predicted, sd / sqrt(N_eff):     {exact.std() / np.sqrt(worth):.4f}  (N_eff = {worth:.0f})")
print(f"were the draws independent:      {exact.std() / np.sqrt(length):.4f}  (N = {length})")

# %%
# The formula that counts correlated draws is right, and the one that takes them for independent
# ones is wrong by a factor of about two. When you report a posterior mean, report the effective
# sample size with it.
#
# References
# ----------
#
# - Metropolis, N., Rosenbluth, A. W., Rosenbluth, M. N., Teller, A. H. and Teller, E. (1953).
#   Equation of state calculations by fast computing machines. Journal of Chemical Physics 21, 1087.
# - Vehtari, A., Gelman, A., Simpson, D., Carpenter, B. and Bürkner, P.-C. (2021). Rank-normalization,
#   folding, and localization: an improved R-hat for assessing convergence of MCMC. Bayesian
#   Analysis 16, 667.

plt.show()
