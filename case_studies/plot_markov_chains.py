r"""
Markov chains: why sampling works, and when it does not
=======================================================

Every sampler in this package is a Markov chain: a rule that takes a state and draws the next one. Why should
the states that it visits be draws from the distribution that we want? On a small model the answer needs no faith. The
rule can be written down as a matrix, and all that theory says about it (the distribution that it keeps, the places
that it can reach, how fast it forgets) can be computed and compared with real runs. That is what this case study does,
first by hand for the weather, then for the step methods of PyMC and of pm_neural.

A rule is a matrix
------------------

Tomorrow's weather depends on today's. Row :math:`i` of the *transition matrix* :math:`T` holds the probabilities of
tomorrow's weather if today's is :math:`i`, so each row sums to one. If today is distributed like the row vector
:math:`q`, tomorrow is distributed like :math:`qT`, and the day after like :math:`qT^2`.
"""

import os

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm

import pm_neural as pmn

# sphinx_gallery_thumbnail_number = 4
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer runs and draws
diagnostics = pmn.diagnostics

weather = np.array(
    [
        [0.80, 0.15, 0.05],  # after a day of sun: sun, clouds, rain
        [0.30, 0.40, 0.30],  # after clouds
        [0.10, 0.40, 0.50],  # after rain
    ]
)
p = diagnostics.stationary_distribution(weather)
print("stationary distribution (sun, clouds, rain):", p.round(4))
print("after another day:                          ", (p @ weather).round(4))

# %%
# There is one distribution that the rule leaves as it is, :math:`pT = p`: the *stationary* or *invariant* one. In the
# language of matrices, :math:`p` is a left eigenvector of :math:`T` to the eigenvalue 1. If we want to sample
# :math:`p`, we need a rule that has it for an eigenvector. That is the first half of what makes a sampler right.
#
# Convergence is a matter of the other eigenvalues
# ------------------------------------------------
#
# The second half: whatever the weather today, the forecast for a distant day must tend to :math:`p`. Write today's
# distribution as a sum of left eigenvectors (nearly every matrix has enough of them). After :math:`t` days the part
# that belongs to eigenvalue :math:`\lambda_k` has been multiplied by :math:`\lambda_k^t`,
#
# .. math::
#
#     q T^t = p + \sum_{k \ge 2} c_k \lambda_k^t \, u_k,
#
# so that everything but :math:`p` dies out if all the other eigenvalues lie inside the unit circle. What lasts longest
# is the part of the second largest, :math:`|\lambda_2|`. Its distance from 1 is the *spectral gap*, and the
# inverse of the gap the *relaxation time*, the number of steps in which the chain forgets most of where it started.
#
# How far a distribution is from :math:`p` we measure by the *total variation distance*
# :math:`\tfrac{1}{2} \sum_i |q_i - p_i|`, the largest error in the probability of any event.

gap = diagnostics.spectral_gap(weather)
print("eigenvalues:", np.linalg.eigvals(weather).round(3))
print(f"spectral gap {gap:.3f}, relaxation time {diagnostics.relaxation_time(weather):.2f} days")

days = np.arange(15)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
forecast = np.array([np.linalg.matrix_power(weather, day)[2] for day in days])
for state, (name, color) in enumerate({"sun": "tab:orange", "clouds": "tab:gray", "rain": "tab:blue"}.items()):
    left.plot(days, forecast[:, state], "o-", ms=3, color=color, label=name)
    left.axhline(p[state], color=color, ls=":")
    right.semilogy(days, diagnostics.total_variation(weather, p, days, start=state), "o-", ms=3, color=color)
left.set(xlabel="day", ylabel="probability", title="forecast after a day of rain")
left.legend()
right.semilogy(days, (1 - gap) ** days, "k--", label=r"$|\lambda_2|^t$")
right.set(xlabel="day", ylabel="total variation distance", title="forgetting what today was like")
right.legend()

# %%
# The three lines on the right have different heights and the same slope: the start decides how far there is to go, the
# eigenvalue how fast.
#
# Two ways to fail
# ----------------
#
# When is 1 the only eigenvalue on the unit circle? For a finite chain there are two conditions.
#
# *Irreducible*: every state can be reached from every other. Two islands without a ferry break it. Each has
# a stationary distribution of its own, 1 is an eigenvalue twice, and where the chain ends depends on where it began.
#
# *Aperiodic*: returns are not tied to a rhythm. A walk around a square that always takes one step to a neighbor is
# back on its own diagonal after every second step, for ever. It leaves the uniform distribution as it is, yet it never
# gets there: −1 is an eigenvalue. To stay where one is with probability one half cures it.

walk = np.roll(np.eye(4), 1, axis=1) / 2 + np.roll(np.eye(4), -1, axis=1) / 2
chains = {
    "two islands": np.kron(np.eye(2), [[0.7, 0.3], [0.4, 0.6]]),
    "walk around a square": walk,
    "lazy walk": (walk + np.eye(4)) / 2,
}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True, layout="constrained")
circle = np.exp(1j * np.linspace(0, 2 * np.pi, 200))
for ax, (name, T) in zip(axes, chains.items(), strict=True):
    eigenvalues = np.linalg.eigvals(T).astype(complex)
    ax.plot(circle.real, circle.imag, color="0.7")
    ax.plot(eigenvalues.real, eigenvalues.imag, "o", alpha=0.5)
    for value in np.unique(eigenvalues.round(6)):
        if (count := np.isclose(eigenvalues, value).sum()) > 1:
            ax.annotate(f"{count} times", (value.real, value.imag), (0, 8), textcoords="offset points", ha="center")
    ax.set(aspect="equal", title=name, xlabel="real part", xlim=(-1.35, 1.35))
    print(
        f"{name}: irreducible {diagnostics.is_irreducible(T)}, aperiodic {diagnostics.is_aperiodic(T)}, "
        f"spectral gap {diagnostics.spectral_gap(T):.3f}"
    )
axes[0].set_ylabel("imaginary part")

# %%
# These are not curiosities. Both happen with step methods that people use, on models that look harmless. ``certify``
# takes a step method of a small PyMC model, forces every random decision of its code both ways, and so finds the exact
# transition matrix of the code that samples, not of what we believe it does.
#
# Two coins that are known to show the same face cannot be turned one at a time:

with pm.Model():
    coins = pm.Bernoulli("coins", 0.5, shape=2)
    pm.Potential("same", pm.math.switch(pm.math.eq(coins[0], coins[1]), 0.0, -np.inf))
    print(diagnostics.certify(pm.BinaryGibbsMetropolis([coins])))

# %%
# And three fair coins that are independent, as easy a target as there is. The step method proposes to turn each coin
# and accepts if the other face is as probable, which for fair coins is always:

with pm.Model():
    coins = pm.Bernoulli("coins", 0.5, shape=3)
    eager = diagnostics.certify(pm.BinaryGibbsMetropolis([coins], transit_p=1.0))
    default = diagnostics.certify(pm.BinaryGibbsMetropolis([coins]))
print(eager, default, sep="\n\n")

# %%
# Every step turns every coin, and the chain alternates between two states for ever: both conditions fail. It leaves
# the right distribution invariant, :math:`\max |pT - p|` is zero, and yet its draws are worthless: invariance alone is
# not enough. This is why PyMC by default proposes a turn with probability 0.8 only, which is our lazy walk once more.
#
# Detailed balance
# ----------------
#
# How does one find a rule with a given stationary distribution? The usual way is to ask for more than is needed:
#
# .. math::
#
#     p_i T_{ij} = p_j T_{ji} \quad\text{for all } i, j.
#
# Between any two states as much probability flows one way as the other. Sum over :math:`i`, and :math:`pT = p` is
# there. Chains of this kind are called *reversible*: a film of them looks the same played backwards. Metropolis and
# each single update of Gibbs are built to satisfy it. But it is not necessary. A walk that only ever goes clockwise
# has a steady current around the square, and the same uniform distribution:

clockwise = (np.roll(np.eye(4), 1, axis=1) + np.eye(4)) / 2
uniform = np.full(4, 0.25)
for name, T in {"lazy walk": chains["lazy walk"], "clockwise": clockwise}.items():
    invariance = np.abs(uniform @ T - uniform).max()
    balance = diagnostics.detailed_balance_gap(T, uniform)
    print(f"{name}: max |pT - p| = {invariance:.1g}, detailed balance violated by {balance:.3g}")

# %%
# Four samplers of one small network
# ----------------------------------
#
# Now a real target: a restricted Boltzmann machine with three visible and two hidden units. It has 32 states, so
# :math:`p` and all matrices can be had exactly. Strong weights of both signs tie the units to each other.

W = np.array([[2.8, -2.1], [2.1, 1.4], [-1.4, 2.8]])
a, b = np.array([-0.5, -0.5, -0.2]), np.array([-0.5, -0.8])
with pm.Model() as machine:
    v = pmn.BernoulliRBM("v", W, a, b)
    h = pmn.HiddenUnits("h", v)
    steps = {
        "Metropolis, all units": pm.BinaryMetropolis([v, h], rng=1),
        "Metropolis, unit by unit": pm.BinaryGibbsMetropolis([v, h], rng=1),
        "block Gibbs": pmn.BlockGibbs([v, h], rng=1),
    }
    certificates = {name: diagnostics.certify(step) for name, step in steps.items()}

matrices = {name: certificate.transition.matrix for name, certificate in certificates.items()}
p = certificates["block Gibbs"].probabilities
states = certificates["block Gibbs"].transition.states
print(certificates["block Gibbs"])

# %%
# - *Metropolis, all units*: a fair coin for each unit says whether to turn it; then all is accepted or
#   rejected together.
# - *Metropolis, unit by unit*: each unit, in random order, is proposed to turn (with probability 0.8).
# - *Block Gibbs*: the whole hidden layer is drawn from its conditional distribution, then the whole visible one.
#
# The fourth is *Gibbs, unit by unit*: each unit in turn is drawn from its conditional distribution given all others.
# Its matrix is a product, one factor for each unit, and we build it here by hand. A factor moves probability only
# between the two states that differ in that unit, and divides it as :math:`p` does.


def gibbs_factor(unit):
    """Return the transition matrix of drawing one unit from its conditional distribution."""
    others = np.delete(states, unit, axis=1)
    partners = (others[:, None] == others).all(axis=-1)
    return partners * p / (partners * p).sum(axis=1, keepdims=True)


def gibbs(order):
    """Return the matrix of a sweep over units 0 to 2 (visible) and 3, 4 (hidden) in the given order."""
    return np.linalg.multi_dot([gibbs_factor(unit) for unit in order])


matrices["Gibbs, unit by unit"] = gibbs([0, 3, 1, 4, 2])

fig, axes = plt.subplots(1, 4, figsize=(11, 3.1), layout="constrained")
for ax, (name, T) in zip(axes, matrices.items(), strict=True):
    image = ax.imshow(np.sqrt(T), cmap="magma_r", vmin=0, vmax=1)
    ax.set(title=name, xlabel="to", xticks=[], yticks=[])
axes[0].set_ylabel("from")
fig.colorbar(image, ax=axes, label=r"$\sqrt{T_{ij}}$")

print(f"{'':26s} max |pT - p|   reversible   spectral gap   relaxation time")
for name, T in matrices.items():
    reversible = "yes" if diagnostics.detailed_balance_gap(T, p) < 1e-12 else "no"
    print(
        f"{name:26s} {np.abs(p @ T - p).max():10.1e} {reversible:>12s} {diagnostics.spectral_gap(T):14.3f} "
        f"{diagnostics.relaxation_time(T):14.2f} steps"
    )

# %%
# All four are exact: they keep :math:`p` to the last digit, reversible or not. (A single update of Gibbs is reversible,
# but a sweep that takes the units in a fixed order is not.) They differ in how fast they forget. To turn several
# units at once and to hope that the result is acceptable works badly, and the worse the more units there are: a row of
# that matrix has much of its weight on the diagonal, where nothing happens.
#
# Is block Gibbs better than Gibbs unit by unit, because it moves more at once? Not for that reason. The units of a
# layer do not interact, so to draw them together or one after another is the same thing. The matrix of block
# Gibbs *is* that of unit-by-unit Gibbs in the order that takes the hidden layer first:

layers_in_turn = gibbs([3, 4, 0, 1, 2])
difference = np.abs(matrices["block Gibbs"] - layers_in_turn).max()
print(f"block Gibbs and Gibbs in the order h, h, v, v, v: largest difference {difference:.1e}")
with machine:
    one_by_one = pmn.BlockGibbs([v, h], blocks={"h": [[0], [1]], "v": [[0], [1], [2]]})
difference = np.abs(np.asarray(diagnostics.transition_matrix(one_by_one)) - layers_in_turn).max()
print(f"the same by BlockGibbs with blocks of one unit: largest difference   {difference:.1e}")

# %%
# What a block gains is that a layer is one matrix product instead of a loop, which on a computer is worth far more than
# the small difference between the orders.
#
# Do real runs obey?
# ------------------
#
# A matrix predicts the distribution after any number of steps. We start the step methods in the state where all units
# are on, thousands of times, and count where they are after each step. Counting has an error of its own: even if the
# distribution were exactly :math:`p`, the frequencies of 32 states in so many runs would miss it by a little. So next
# to the predicted distance (lines) we draw what is to be expected of the counts (bands, nineteen in twenty of
# simulated counts).

n_runs, n_steps = (500, 12) if SHORT else (5000, 20)
start = {"v": np.ones(3, dtype=int), "h": np.ones(2, dtype=int)}
powers_of_two = 2 ** np.arange(5)[::-1]


def run(step):
    """Count the states after 0, 1, 2, ... steps over all runs, shape (n_steps + 1, 32)."""
    counts = np.zeros((n_steps + 1, len(states)))
    counts[0, -1] = n_runs
    for _ in range(n_runs):
        point = start
        for t in range(1, n_steps + 1):
            point, _ = step.step(point)
            counts[t, np.concatenate([point["v"], point["h"]]) @ powers_of_two] += 1
    return counts


rng = np.random.default_rng(1)
time = np.arange(n_steps + 1)
fig, ax = plt.subplots(figsize=(8, 4), layout="constrained")
for (name, step), color in zip(steps.items(), ["tab:red", "tab:orange", "tab:blue"], strict=True):
    T = matrices[name]
    step.stop_tuning()
    measured = np.abs(run(step) / n_runs - p).sum(axis=1) / 2
    laws = np.array([np.linalg.matrix_power(T, t)[-1] for t in time]).clip(0)
    simulated = rng.multinomial(n_runs, laws / laws.sum(axis=1, keepdims=True), size=(200, n_steps + 1)) / n_runs
    band = np.quantile(np.abs(simulated - p).sum(axis=-1) / 2, [0.025, 0.975], axis=0)
    ax.semilogy(time, diagnostics.total_variation(T, p, time, start=31), color=color, label=name)
    ax.fill_between(time, *band, color=color, alpha=0.2, lw=0)
    ax.semilogy(time, measured, "o", color=color, ms=4)
    inside = ((measured >= band[0] - 1e-9) & (measured <= band[1] + 1e-9)).mean()
    print(f"{name:26s} {inside:.0%} of the points lie in the band")
ax.set(xlabel="steps", ylabel="total variation distance", title=f"{n_runs} runs from the state with all units on")
ax.set_xticks(time[::2])
ax.set_ylim(1e-3, 1.5)
ax.legend()

# %%
# The points follow the lines down to where counting can no longer tell, and there they level off as they should.
# (Points of one color come from the same runs, so where one of them is high or low its neighbors are, too.) Mind that
# the steps are not equally dear: the first asks for one log-probability, the second for up to five, the third for
# none.
#
# From eigenvalues to effective sample sizes
# ------------------------------------------
#
# Usually one has a single long run, and correlations between its draws. They, too, are in the matrix. For a
# function :math:`f` of the state with mean zero under :math:`p`, the variance of the average of :math:`n` draws is
# larger than that of independent ones by the factor
#
# .. math::
#
#     \tau = 1 + 2 \sum_{t \ge 1} \frac{\sum_i p_i f_i (T^t f)_i}{\sum_i p_i f_i^2},
#
# so that :math:`n` draws are worth :math:`n / \tau`. ArviZ estimates the same number from the draws alone.

coordinates = states - p @ states
inverse = np.linalg.inv
draws = 500 if SHORT else 5000
for name, step in steps.items():
    T = matrices[name]
    forever = np.tile(p, (len(p), 1))
    summed = inverse(np.eye(len(p)) - T + forever) @ coordinates  # the sum over all t of T^t f
    variance = p @ coordinates**2
    tau = 2 * (p @ (coordinates * summed)) / variance - 1
    with machine:
        sampled = pm.sample(
            draws,
            tune=100,
            chains=4,
            cores=1,
            step=step,
            random_seed=1,
            progressbar=False,
            compute_convergence_checks=False,
        )
    ess = az.ess(sampled, method="mean")
    print(
        f"{name:26s} effective draws of {4 * draws}, three visible units: "
        f"predicted {(4 * draws / tau[:3]).round().astype(int)}, ArviZ {ess['v'].to_numpy().round().astype(int)}"
    )

# %%
# So what ArviZ calls the effective sample size is a property of the transition matrix. In models too large for a matrix
# it is all that we can see of it.
#
# Where there is no matrix: Gibbs on a continuous space
# -----------------------------------------------------
#
# Nothing depends on the states being countable. Take two normal variables with means 0, variances 1 and covariance
# :math:`\rho = \tfrac{1}{2}`. Given one, the other is normal with mean :math:`\rho` times the first and variance
# :math:`1 - \rho^2`. Gibbs sampling draws them in turn, so its path is made of horizontal and vertical pieces. PyMC
# knows the two as an ``MvNormal``, which it would give to NUTS; ``BlockGibbs`` samples it when asked to. We start it
# far out, at (3, −3). In place of a table of probabilities, the operator is now a rule that takes one density to the
# next, and the normal density is the one that it leaves as it is.

rho = 0.5
with pm.Model() as normal:
    xy = pm.MvNormal("xy", mu=np.zeros(2), cov=np.array([[1, rho], [rho, 1]]), initval=np.array([3.0, -3.0]))
    sweep = pmn.BlockGibbs([xy], rng=3)
start = normal.initial_point()


def sweeps_from_the_start(n_sweeps):
    """Return the states after 0, 1, ..., n_sweeps sweeps, shape (n_sweeps + 1, 2)."""
    point, visited = start, [start["xy"]]
    for _ in range(n_sweeps):
        point, _ = sweep.step(point)
        visited.append(point["xy"])
    return np.array(visited)


visited = sweeps_from_the_start(40)
# A sweep draws x first: on the way from one state to the next the chain is at the new x and the old y.
corners = np.column_stack([visited[1:, 0], visited[:-1, 1]])
path = np.concatenate([visited[:1], np.stack([corners, visited[1:]], axis=1).reshape(-1, 2)])

n_chains, n_sweeps = (2000, 3) if SHORT else (20_000, 5)
y = np.array([sweeps_from_the_start(n_sweeps)[:, 1] for _ in range(n_chains)])
error = 2 * y.std(axis=0) / np.sqrt(n_chains)

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
cloud = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=2000)
left.plot(*cloud.T, ".", ms=2, color="0.75", label="direct draws")
left.plot(*path.T, color="tab:blue", lw=0.8)
left.plot(*visited.T, "o", color="tab:blue", ms=3, label="after each sweep")
left.plot(*visited[0], "o", color="tab:red", label="start")
left.set(aspect="equal", title="forty sweeps from (3, −3)", xlabel="x", ylabel="y")
left.legend(loc="upper left")

sweeps = np.arange(n_sweeps + 1)
right.plot(sweeps, -3 * rho ** (2.0 * sweeps), "k--", label=r"$-3\,\rho^{2t}$")
right.errorbar(sweeps, y.mean(axis=0), error, fmt="o", capsize=3, label=f"mean of y over {n_chains} chains")
right.set(xlabel="sweeps t", title="the start is forgotten at the rate ρ²", xticks=sweeps)
right.legend()
print(
    "mean of y, with two standard errors:", *(f"{m:.3f} ± {e:.3f}" for m, e in zip(y.mean(axis=0), error, strict=True))
)
print("predicted:                          ", *(f"{m:.3f}" for m in -3 * rho ** (2.0 * sweeps)))

# %%
# A sweep multiplies the mean of :math:`y` by :math:`\rho^2 = \tfrac{1}{4}`: that is the second eigenvalue of this
# chain, whose first is 1. The stronger the correlation, the shorter the steps: at :math:`\rho = 0.99` the eigenvalue
# is 0.98, and the chain needs fifty sweeps to forget. The same happens to a Boltzmann machine with strong weights, to
# an Ising magnet at its critical point, and to every sampler that moves little at a time.
#
# Here a larger block is a better one. The two variables do interact, and to draw them together, from their joint
# distribution, is not the same as to draw them in turn: each draw is then independent of the one before. An average
# of the :math:`y` of :math:`n` sweeps is worth :math:`n (1 - \rho^2) / (1 + \rho^2)` independent draws if the
# coordinates are taken in turn, and :math:`n` if they are one block.

correlations = np.array([0.0, 0.5, 0.9]) if SHORT else np.array([0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
draws = 500 if SHORT else 2500
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for label, blocks, color in (
    ("x and y in turn", [[0], [1]], "tab:blue"),
    ("x and y as one block", [[0, 1]], "tab:orange"),
):
    worth = []
    for rho in correlations:
        with pm.Model():
            xy = pm.MvNormal("xy", mu=np.zeros(2), cov=np.array([[1, rho], [rho, 1]]))
            sampled = pm.sample(
                draws,
                tune=50,
                chains=4,
                cores=1,
                step=pmn.BlockGibbs([xy], blocks=blocks),
                random_seed=1,
                progressbar=False,
                quiet=True,
                compute_convergence_checks=False,
            )
        worth.append(float(az.ess(sampled, method="mean")["xy"][1]) / (4 * draws))
    ax.plot(correlations, worth, "o", color=color, label=label)
    print(f"{label}: effective draws per sweep", *(f"{value:.2f}" for value in worth))
fine = np.linspace(0, 1, 200)
ax.plot(fine, (1 - fine**2) / (1 + fine**2), color="tab:blue")
ax.axhline(1, color="tab:orange")
ax.set(xlabel="correlation ρ", ylabel="effective draws per sweep", ylim=(0, 1.3))
ax.legend(loc="lower left")

# %%
# Lines are theory, points ArviZ. It is the interaction of the units that decides what to draw together. Units that do
# not interact gain nothing by it but speed; units that pull hard at each other should be one block, where their
# joint conditional distribution can be had. For normal variables it costs the Cholesky factor of a covariance,
# and ``BlockGibbs`` takes any blocks of an ``MvNormal``. For binary units it can be had only by going through all
# states of a block; so of their blocks ``BlockGibbs`` asks that the units do not interact.
#
# References
# ----------
#
# - Levin, D. A. and Peres, Y. (2017). Markov Chains and Mixing Times, 2nd edition. American Mathematical Society.
# - Metropolis, N., Rosenbluth, A. W., Rosenbluth, M. N., Teller, A. H. and Teller, E. (1953). Equation of state
#   calculations by fast computing machines. Journal of Chemical Physics 21, 1087.
# - Geman, S. and Geman, D. (1984). Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images.
#   IEEE Transactions on Pattern Analysis and Machine Intelligence 6, 721.
# - Liu, J. S. (1996). Peskun's theorem and a modified discrete-state Gibbs sampler. Biometrika 83, 681.

plt.show()
