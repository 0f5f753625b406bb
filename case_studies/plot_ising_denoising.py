r"""
Cleaning a noisy picture with an Ising field
============================================

A black-and-white picture has been sent through a bad line, and some of its pixels arrive flipped. Nobody tells us
which, nor how many. All that we know is what pictures are like: a pixel mostly looks as its neighbors do. This case
study turns that one sentence into a prior, an *Ising field*, and lets PyMC find the picture, the noise level and the
strength of the prior together, each with its uncertainty.

The picture
-----------

The picture is a photograph that comes with scikit-learn. We average blocks of 6 by 6 pixels, cut out a square and call
bright white, 1, and dark black, 0. Then each pixel is flipped with probability 0.15.
"""

import itertools
import os

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import xarray as xr
from scipy.ndimage import median_filter
from sklearn.datasets import load_sample_image

import pm_neural as pmn

# sphinx_gallery_thumbnail_number = 3
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer chains and draws

photograph = load_sample_image("china.jpg").mean(axis=2)[:426, :636]
coarse = photograph.reshape(71, 6, 106, 6).mean(axis=(1, 3))
picture = (coarse > np.median(coarse))[1:65, 6:70].astype(int)

rng = np.random.default_rng(1)
flipped = rng.random(picture.shape) < 0.15
noisy = np.where(flipped, 1 - picture, picture)


def show(axes, images, titles, **style):
    """Draw pictures side by side."""
    for ax, image, title in zip(axes, images, titles, strict=True):
        ax.imshow(image, cmap="gray", interpolation="nearest", **style)
        ax.set(title=title, xticks=[], yticks=[])


fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
show(axes, [coarse[1:65, 6:70], picture, noisy], ["photograph", "black and white", "what arrives"])
print(f"{flipped.sum()} of {picture.size} pixels are flipped, a fraction of {flipped.mean():.3f}")

# %%
# The model
# ---------
#
# Let :math:`s_i` be the true pixel :math:`i`, now written −1 (black) or +1 (white): a *spin*. The prior gives each
# pair of neighbors :math:`\langle ij \rangle` that agree a bonus, and each pair that disagree a penalty:
#
# .. math::
#
#     p(s \mid \beta) = \frac{1}{Z(\beta)} \exp\Bigl(\beta \sum_{\langle ij \rangle} s_i s_j\Bigr).
#
# The coupling :math:`\beta` says how strongly pixels follow their neighbors. At :math:`\beta = 0` they are coin flips;
# at large :math:`\beta` nearly all of them agree. Physicists know this as the Ising model of a magnet, with
# :math:`\beta` for the inverse temperature, and know that in between something happens: at
# :math:`\beta_c = \tfrac{1}{2} \log(1 + \sqrt 2) \approx 0.4407` the field starts to have a color of its own.
#
# The line flips each pixel independently with an unknown probability :math:`\epsilon`:
#
# .. math::
#
#     p(y_i = 1 \mid s_i) = \begin{cases} 1 - \epsilon & s_i = +1 \\ \epsilon & s_i = -1. \end{cases}
#
# The constant that is not constant
# ---------------------------------
#
# Usually a sampler never needs :math:`Z`. Here it does. :math:`Z(\beta)` sums over all :math:`2^{4096}` pictures, and
# it depends on :math:`\beta`, which is unknown. If we left it out, the "posterior" of :math:`\beta` would rise without
# limit as soon as most neighbors agree: a bonus is always welcome if it costs nothing. ``pmn.Ising`` refuses such a
# model. With ``normalize="exact"`` it looks for a way to compute :math:`Z` and its slope without the sum, and for a
# square lattice whose opposite edges are joined, a *torus*, there is one: the formula that Bruria Kaufman found in
# 1949.
#
# The price is that the top row of our picture becomes a neighbor of the bottom row, and the left column of the right
# one. There the sky touches the ground, and the prior is wrong: for 128 pairs of neighbors out of 8192.

coords = {"row": np.arange(64), "column": np.arange(64)}
with pm.Model(coords=coords) as model:
    flip = pm.Beta("flip", 2, 8)
    beta = pm.HalfNormal("beta", 1)
    torus = pmn.lattice(picture.shape, periodic=True)
    s = pmn.Ising("s", torus, coupling=beta, normalize="exact", dims=("row", "column"))
    pm.Bernoulli("y", p=pm.math.switch(s > 0, 1 - flip, flip), observed=noisy, dims=("row", "column"))

# %%
# Sampling
# --------
#
# A plain ``pm.sample()`` chooses two step methods that take turns. NUTS moves the noise level and the coupling for a
# given field; ``BlockGibbs`` moves the field for given parameters. It colors the lattice like a chess board. The
# white squares have only black neighbors, so given the black ones they are independent, and all of them are drawn at
# once; then the black ones. The noisy picture enters as *evidence*, by
# :math:`\log p(y_i \mid s_i = +1) - \log p(y_i \mid s_i = -1)` in the log-odds of each pixel.
#
# A sweep over the field costs far less than a NUTS step, so we take ten for each draw. Nothing else needs to be said.
# The chains start from a field of coin flips, which has no color of its own. Does it matter where they start? We come
# back to that.

settings = {"cores": 1, "random_seed": 1, "progressbar": False, "compute_convergence_checks": False}
settings["block_gibbs"] = {"sweeps_per_draw": 10}

with model:
    draws, tune, chains = (200, 100, 2) if SHORT else (1000, 500, 4)
    idata = pm.sample(draws, tune=tune, chains=chains, **settings)

# %%
# The two parameters first. What to look at: R-hat near 1 (the chains agree), an effective sample size
# (ESS) of hundreds in the bulk and in the tails, and Monte Carlo errors (mcse) that are small against the standard
# deviations. In the figure, left, each chain's estimate of the density; right, how far the ranks of each chain's draws
# are from being spread evenly among all draws. The p-value would fall below α if they were too far to be chance.

print(az.summary(idata, var_names=["flip", "beta"], round_to=4).to_string())

az.plot_rank_dist(idata, var_names=["flip", "beta"])

# %%
# The two are correlated: where the noise is said to be weaker, more of the specks must belong to the picture, and
# neighbors agree less. And the field? 4096 summaries are too many to read, and take longer than the sampling. The
# report gives the worst of them; we hand it every fourth row and column. It also counts pixels that hardly ever
# change, of which R-hat knows nothing: far from any edge a pixel leaves no doubt.

parameters = idata["posterior"].to_dataset()[["flip", "beta"]].to_dataframe()
print(f"correlation of flip and beta: {parameters.corr().loc['flip', 'beta']:.2f}\n")
thinned = idata["posterior"].to_dataset()[["s"]].isel(row=slice(None, None, 4), column=slice(None, None, 4))
print(pmn.diagnostics.report(xr.DataTree.from_dict({"posterior": thinned})))

# %%
# The picture that comes out
# --------------------------
#
# The posterior mean of a spin gives the probability that its pixel is white. For a single answer we take the more
# probable color pixel by pixel, which makes the expected number of wrong pixels as small as possible. For comparison:
# the median of each pixel and its eight neighbors, a classic filter that has no parameters and gives no uncertainty.

white = (idata["posterior"]["s"].mean(("chain", "draw")).to_numpy() + 1) / 2
restored = (white > 0.5).astype(int)
filtered = median_filter(noisy, size=3)

fig, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
titles = ["what arrives", "median filter", "P(white)", "more probable color"]
show(axes, [noisy, filtered, white, restored], titles, vmin=0, vmax=1)

for name, image in {"what arrives": noisy, "median filter": filtered, "Ising field": restored}.items():
    print(f"{name:14s} {(image != picture).mean():7.2%} of the pixels are wrong")

# %%
# Two thirds of the errors are gone. But the median filter does about as well, in a millisecond, and we should not hide
# it. What the filter does not give is what a posterior is for: the noise level, and for each pixel how sure one can
# be. The gray of the third picture is that doubt: it sits at edges, and at pixels that differ from all around them. Is
# it honest? If the field says 80 %, it should be right four times in five:

certainty = np.maximum(white, 1 - white)
right = restored == picture
edges = [0.5, 0.7, 0.9, 0.97, 0.99, 1.0]
for low, high in itertools.pairwise(edges):
    chosen = (certainty >= low) & ((certainty < high) | (high == 1.0))
    print(f"certainty {low:.2f} to {high:.2f}: {chosen.sum():5d} pixels, {right[chosen].mean():.1%} right")

# %%
# It is, nearly. That is worth a remark, because the model is not true, as we see next.
#
# What the model gets wrong
# -------------------------
#
# The pixels were flipped with probability 0.15, and the posterior of ``flip`` lies well below. The chains are fine; it
# is the model. A typical draw from the Ising field near its critical point is full of small specks, so the
# model takes some of the flipped pixels for specks of the picture. Real pictures have large areas without any, next to
# edges that are long and straight. One number, :math:`\beta`, cannot say both. Two looks at the same disagreement: the
# restored pictures that the model believes in (one draw of the posterior) have more specks than the true one, and a
# draw from the prior at the same :math:`\beta` looks like no photograph at all.

with pm.Model():
    prior_field = pmn.Ising("s", torus, coupling=float(idata["posterior"]["beta"].mean()), n_sweeps=500)
    from_prior = pm.draw(prior_field, random_seed=3)
one_draw = idata["posterior"]["s"].isel(chain=0, draw=-1).to_numpy()

fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
show(axes, [picture, one_draw, from_prior], ["the truth", "a draw of the posterior", "a draw of the prior"])

agree = {
    "picture": np.mean([(picture == np.roll(picture, 1, axis)).mean() for axis in (0, 1)]),
    "posterior": np.mean([(one_draw == np.roll(one_draw, 1, axis)).mean() for axis in (0, 1)]),
}
print(f"neighbors that agree: {agree['picture']:.1%} in the picture, {agree['posterior']:.1%} in the draw")

# %%
# What the chains do not show
# ---------------------------
#
# Coin flips are a good place to start from: the data decide which regions turn white and which black, before the prior
# has grown domains of its own. What happens to chains that start from an all-black field, which seems as innocent?

black = {"s": np.full(noisy.shape, -1)}
with model:
    draws, tune, chains = (50, 50, 2) if SHORT else (100, 200, 4)
    blank = pm.sample(draws, tune=tune, chains=chains, initvals=black, **settings)


def log_likelihood(draws):
    """Return log p(y | s, flip) of each draw."""
    wrong = (draws["s"] != 2 * noisy - 1).sum(("row", "column"))
    return wrong * np.log(draws["flip"]) + (noisy.size - wrong) * np.log1p(-draws["flip"])


for chain in blank["posterior"]["chain"].to_numpy():
    draws = blank["posterior"].sel(chain=chain)
    print(
        f"chain {chain} from the black field: flip {float(draws['flip'].mean()):.2f}, "
        f"beta {float(draws['beta'].mean()):.2f}, {float((draws['s'] > 0).mean()):.0%} white, "
        f"largest log p(y | s) {float(log_likelihood(draws).max()):.0f}"
    )

last = idata["posterior"].isel(chain=0, draw=-1)
prior = pmn.Ising.dist(torus, coupling=float(last["beta"]), normalize="exact")
log_joint = float(pm.logp(prior, last["s"].to_numpy()).eval() + log_likelihood(last))
print(f"one draw of the chains from coin flips: log p(s) + log p(y | s) = {log_joint:.0f}")

# %%
# They stay where they are, with a field that is black, and call everything white an error of the line: an absurd noise
# level near one half, and a coupling so strong that hardly a pixel dares to leave. The two explain each other, so
# neither step method alone gets out. This is a second mode, and a sampler that moves one variable given the others
# crosses from mode to mode very rarely.
#
# These chains may even agree with each other, and R-hat is content: it compares chains, and knows nothing of places
# that none of them has seen. Which mode is right? The numbers above decide. Whatever weight the black mode has in
# total, it is at most its likelihood, because the prior probabilities of its fields sum to no more than 1. A *single*
# field of the other mode, prior and likelihood together, is worth more than all that by a factor of many powers of
# ten, and there are countless such fields. (The priors of the two parameters change this by a few units only.) So the
# black mode may be left out, and the chains from coin flips are in the right place. But it took an argument: chains in
# good agreement could not have told us.
#
# References
# ----------
#
# - Geman, S. and Geman, D. (1984). Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images.
#   IEEE Transactions on Pattern Analysis and Machine Intelligence 6, 721.
# - Besag, J. (1986). On the statistical analysis of dirty pictures. Journal of the Royal Statistical Society B 48, 259.
# - Kaufman, B. (1949). Crystal statistics. II. Partition function evaluated by spinor analysis. Physical Review 76,
#   1232.

plt.show()
