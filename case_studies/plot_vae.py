r"""
Variational autoencoders, and the posterior that the encoder guesses
====================================================================

A restricted Boltzmann machine gives every image an energy, and leaves open how to draw one. A
*variational autoencoder* (VAE) goes the other way: it says how images are made. A short vector of
numbers, the *code*, is drawn from a normal distribution, and a neural network, the *decoder*, paints
the image that the code stands for. Drawing is then easy, and what is hard is the way back: which codes
can have made this image? That is a posterior distribution, and a second network, the *encoder*, is
trained to guess it.

This case study trains VAEs, puts their decoders into PyMC, and compares the guesses with the truth. It
needs the extras ``pm-neural[torch,mnist]``.
"""

import os
import warnings

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
from matplotlib.patches import Ellipse
from scipy.special import logsumexp, softmax
from scipy.stats import norm

import pm_neural as pmn

# sphinx_gallery_thumbnail_number = 1
SHORT = "PM_NEURAL_SHORT" in os.environ  # for a quick look: fewer epochs and draws

mnist = pmn.datasets.load_mnist_subset()  # 28x28 pixels, ink (1) or paper (0)
print(f"{len(mnist.train)} training images, {len(mnist.test)} test images")

# %%
# The model, and its bound
# ------------------------
#
# With the code :math:`z`, the decoder :math:`d`, and pixels that are independent *given the code*,
#
# .. math::
#
#     p(x) = \int p(z) \, p(x \mid z) \, dz, \qquad p(z) = N(z; 0, I), \qquad
#     p(x \mid z) = \prod_i \text{Bernoulli}\bigl(x_i; d_i(z)\bigr).
#
# The integral is out of reach, as was the RBM's :math:`Z`. But any distribution :math:`q(z \mid x)` bounds it
# from below,
#
# .. math::
#
#     \log p(x) \ge \underbrace{E_q \log p(x \mid z)}_\text{reconstruction}
#     - \underbrace{KL\bigl(q(z \mid x) \,\|\, p(z)\bigr)}_\text{price of the code}
#     = \log p(x) - KL\bigl(q(z \mid x) \,\|\, p(z \mid x)\bigr).
#
# This is the *evidence lower bound* (ELBO). The encoder makes :math:`q`: a normal distribution whose mean and
# standard deviations it computes from the image. Writing :math:`z = m(x) + s(x) \epsilon` with standard normal
# :math:`\epsilon`, one draw gives an unbiased gradient with regard to both networks, and both climb the bound
# together. The last form says what the encoder is after: it wants to be the posterior.
#
# Two numbers for an image
# ------------------------
#
# A code of length two can be looked at. We train a VAE with convolutions on MNIST digits, and decode a grid of
# codes, spaced so that each cell has the same prior probability.

plane = pmn.training.VAE(mnist.image_shape, n_latent=2, network="convolutional")
history = plane.fit(
    mnist.train,
    epochs=3 if SHORT else 40,
    batch_size=64,
    learning_rate=5e-3,
    validation_data=mnist.test,
    random_seed=1,
    progressbar=False,
)
last = history.isel(epoch=-1)
print(f"trained in {history.attrs['training_seconds']:.0f} s")
print(f"ELBO {float(last['elbo']):.1f} on training images, {float(last['validation_elbo']):.1f} on test images")
print(f"of which the code costs {float(last['kl']):.1f} nats")

n_cells = 15
axis = norm.ppf((np.arange(n_cells) + 0.5) / n_cells)
codes = np.stack(np.meshgrid(axis, axis[::-1]), axis=-1).reshape(-1, 2)  # upwards, as in the plot beside it

fig, (left, right) = plt.subplots(1, 2, figsize=(11, 5.4), layout="constrained")
pmn.plots.units_grid(plane.decode(codes).numpy(), mnist.image_shape, n_columns=n_cells, ax=left)
left.set_title("what the codes of a grid stand for")
mean, sd = (part.numpy() for part in plane.encode(mnist.test))
dots = right.scatter(*mean.T, c=mnist.test_labels, cmap="tab10", vmin=-0.5, vmax=9.5, s=12)
fig.colorbar(dots, ax=right, ticks=range(10), label="digit")
right.set(xlabel="$z_1$", ylabel="$z_2$", title="where the encoder puts the test images", aspect="equal")

# %%
# Nobody told the machine about classes, and yet they come out as regions, with all shades of handwriting in between:
# digits that look alike are neighbors. Where classes overlap, two numbers are not enough to tell them apart.
#
# How likely is an image?
# -----------------------
#
# The ELBO is a bound, and how far below the truth it is depends on the encoder. Three estimates come closer:
#
# - *importance sampling* from the encoder's distribution, whose mean weight is an unbiased estimate of
#   :math:`p(x)`. Its logarithm is a bound that rises with the number of draws;
# - *annealed importance sampling* (AIS), whose chains are led from the encoder's distribution to the posterior
#   in small steps, with Hamiltonian Monte Carlo at each. It forgives a bad encoder;
# - AIS *backwards*, from the posterior to the encoder's distribution, which errs upwards.

few = mnist.test[:5]
options = {"n_chains": 8 if SHORT else 16, "n_steps": 10 if SHORT else 100}
elbo = plane.elbo(few, n_samples=200, random_seed=1).numpy()
importance = plane.log_likelihood(few, n_importance=500 if SHORT else 5000, random_seed=1)
annealed = plane.annealed_log_likelihood(few, random_seed=1, **options)
print(f"{'digit':>5} {'ELBO':>9} {'importance':>18} {'AIS':>18} {'reverse AIS':>18}")
for row, label in enumerate(mnist.test_labels[:5]):
    estimates = (
        f"{estimate.per_row[row]:9.2f} ± {estimate.per_row_error[row]:.2f} "
        for estimate in (importance, annealed, annealed.reverse)
    )
    print(f"{label:5d} {elbo[row]:9.2f} " + " ".join(f"{text:>18}" for text in estimates))

# %%
# Where the AIS columns agree, the truth is known to their common digits. The ELBO's distance from it is
# :math:`KL(q \,\|\, p(z \mid x))`: what the encoder lacks. Where that is much, importance sampling can be off by more
# than its own error says: it knows nothing of codes that never came up.
#
# The posterior of a code
# -----------------------
#
# To see what it lacks, we put the decoder into PyMC. ``pmn.Decoder`` is the likelihood :math:`p(x \mid z)` with the
# gradient of the network, and NUTS does the rest. We take the image on which the encoder is worst, of the five.

worst = int(np.argmax(annealed.per_row - elbo))
settings = {"chains": 2, "cores": 1, "random_seed": 1, "progressbar": False}
with pm.Model():
    z = pm.Normal("z", shape=2)
    pmn.Decoder("x", plane, z, observed=few[worst])
    idata = pm.sample(200 if SHORT else 1000, tune=150 if SHORT else 300, initvals={"z": mean[worst]}, **settings)
print(az.summary(idata, kind="all").to_string())

draws = idata["posterior"]["z"].to_numpy().reshape(-1, 2)
center, spread = draws.mean(axis=0), draws.std(axis=0)
low = np.minimum(center - 5 * spread, mean[worst] - 3.5 * sd[worst])
high = np.maximum(center + 5 * spread, mean[worst] + 3.5 * sd[worst])
axes = np.linspace(low, high, 61)
grid = np.stack(np.meshgrid(*axes.T), axis=-1)
with np.errstate(divide="ignore"):
    ink = plane.decode(grid).double().numpy()
    log_joint = np.where(few[worst] == 1, np.log(ink), np.log1p(-ink)).sum(-1) + norm.logpdf(grid).sum(-1)
density = np.exp(log_joint - log_joint.max())

fig, ax = plt.subplots(figsize=(5.5, 5), layout="constrained")
ax.contour(*axes.T, density, levels=np.exp([-4.5, -2, -0.5]), colors="gray")
ax.plot(*draws.T, ".", ms=2, alpha=0.5, label="NUTS")
for n_sd in (1, 2, 3):
    ring = Ellipse(mean[worst], *(2 * n_sd * sd[worst]), fill=False, color="C1", label="encoder" if n_sd == 1 else None)
    ax.add_patch(ring)
ax.set(xlabel="$z_1$", ylabel="$z_2$", title="posterior of a code: exact (gray), sampled, guessed")
ax.legend()

cell = np.prod(axes[1] - axes[0])
by_quadrature = np.log(np.exp(log_joint - log_joint.max()).sum() * cell) + log_joint.max()
print(f"log p(x) by quadrature over this grid: {by_quadrature:.2f}, by AIS: {annealed.per_row[worst]:.2f}")
print(f"sd by NUTS {draws.std(axis=0).round(3)}, by the encoder {sd[worst].round(3)}")

# %%
# The gray lines, which would enclose one, two and three standard deviations of a Gaussian, are exact, and NUTS fills
# them. The encoder has one forward pass for every image, axes along the coordinates, and no second thoughts. It was
# trained to do well on average. On this image it is off by more than its own width, and it does not know.
#
# The missing half
# ----------------
#
# As for the RBM, we show the upper half of a digit and ask for the rest. The encoder cannot answer, as it was never
# shown half an image. PyMC can: masked pixels drop out of the likelihood, the code is sampled given the pixels that
# are left, and the missing ones are drawn from the decoder. We use a longer code, and train an RBM beside it.

vae = pmn.training.VAE(784, n_latent=8)
history = vae.fit(
    mnist.train,
    epochs=5 if SHORT else 30,
    batch_size=64,
    warm_up=1 if SHORT else 10,
    validation_data=mnist.test,
    measure_every=6,
    random_seed=1,
    progressbar=False,
)
last = history.isel(epoch=-1)
print(f"ELBO {float(last['elbo']):.1f} on training images, {float(last['validation_elbo']):.1f} on test images")
rbm = pmn.training.RBM(784, 200)
rbm.fit(
    mnist.train,
    epochs=10 if SHORT else 100,
    batch_size=50,
    learning_rate=0.1,
    random_seed=1,
    progressbar=False,
)

chosen = [np.flatnonzero(mnist.test_labels == label)[1] for label in (3, 4, 8)]
originals = mnist.test[chosen]
lower_half = np.broadcast_to(np.arange(784) >= 392, originals.shape)
shown = np.ma.masked_array(originals, mask=lower_half)

with pm.Model():
    z = pm.Normal("z", shape=(len(chosen), 8))
    pmn.Decoder("x", vae, z, observed=shown)
    codes = pm.sample(100 if SHORT else 1000, tune=150 if SHORT else 300, **settings)
    predicted = pm.sample_posterior_predictive(codes, random_seed=1, progressbar=False)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", pm.exceptions.ImputationWarning)  # which is what we want
    with pm.Model():
        pmn.BernoulliRBM("v", *rbm.parameters_as_numpy(), observed=shown)
        by_rbm = pm.sample(
            20 if SHORT else 50,
            tune=20 if SHORT else 50,
            compute_convergence_checks=False,
            block_gibbs={"sweeps_per_draw": 20 if SHORT else 100},
            **settings,
        )


def completions(images):
    """Seven draws, and the mean of all; what was shown stays as it was."""
    images = images.stack(sample=("chain", "draw")).transpose("sample", ...).to_numpy()
    drawn = images[np.linspace(0, len(images) - 1, 7).astype(int)]
    return np.where(lower_half, [*drawn, images.mean(axis=0)], originals)


columns = [originals, np.where(lower_half, 0.5, originals)]
fig, axs = plt.subplots(2, 1, figsize=(8, 5.2), layout="constrained")
sources = {"VAE": predicted["posterior_predictive"]["x"], "RBM": by_rbm["posterior"]["v"]}
for ax, (name, images) in zip(axs, sources.items(), strict=True):
    tiles = np.stack([*columns, *completions(images)], axis=1)
    pmn.plots.units_grid(tiles, mnist.image_shape, n_columns=10, ax=ax)
    ax.set_title(f"{name}: original | what is shown | seven completions | their mean")

# %%
# Different draws are different answers, of both machines, where the upper half leaves the digit open. The speckles have
# the same reason in both: given the code, or the hidden units, pixels are independent, and what these leave open is
# filled with noise pixel by pixel. Eight numbers leave more open than two hundred units.
#
# Which is the better model?
# --------------------------
#
# The likelihood of the test images, in nats. For the RBM it is known up to what AIS leaves open, for the VAE up to
# what importance sampling leaves open: both errors are far smaller than the difference.

n_test = 200 if SHORT else 1000
log_z = pmn.diagnostics.log_partition(
    rbm, "ais", X=mnist.train, n_chains=50 if SHORT else 100, n_steps=300 if SHORT else 3000, random_seed=1
)
scores = {
    "VAE, code of 2": plane.log_likelihood(mnist.test[: 10 if SHORT else 300], n_importance=200, random_seed=1),
    "VAE, code of 8": vae.log_likelihood(mnist.test[:n_test], n_importance=300, random_seed=1),
    "RBM, 200 hidden": pmn.diagnostics.log_likelihood(rbm, mnist.test[:n_test], log_z=log_z),
}
for name, score in scores.items():
    print(f"MNIST, {name}: {score.mean:.1f} ± {score.standard_error:.1f} nats per image")

# %%
# The RBM wins. It is no matter of size, as the VAE has more than three times as many weights, but of where the
# variation is kept. All that an image has of its own must go through the code, each number of which costs nats, and
# what does not fit is left to independent pixels: a stroke that is a little thicker than the code says is paid for,
# pixel by pixel. The RBM describes an image by two hundred features, switched on and off in all combinations, and pays
# for none, as they are summed out. And a larger network learns more of its 4000 images by heart: the ELBO of training
# images, printed before the completions, is ahead of that of test images. What the VAE offers in return is a code, and
# draws that are independent at once.
#
# The same on the small digits of scikit-learn, with a mixture of Bernoullis as the model to beat: a fixed set of
# templates, fitted by expectation maximization.


def mixture_log_likelihood(train, test, n_templates, n_iterations=30):
    """Fit templates with one pseudocount to each; return log p of test images."""
    rng = np.random.default_rng(1)
    ink = rng.uniform(0.25, 0.75, (n_templates, train.shape[1]))
    weight = np.full(n_templates, 1 / n_templates)

    def log_joint(images):
        return images @ np.log(ink).T + (1 - images) @ np.log1p(-ink).T + np.log(weight)

    for _ in range(n_iterations):
        share = softmax(log_joint(train), axis=1)
        size = share.sum(axis=0)
        weight = (size + 1) / (size.sum() + n_templates)
        ink = (share.T @ train + train.mean(axis=0).clip(0.01, 0.99)) / (size[:, None] + 1)
        ink = ink.clip(1e-3, 1 - 1e-3)
    return logsumexp(log_joint(test), axis=1)


digits = pmn.datasets.load_digits()
small_rbm = pmn.training.RBM(64, 100)
small_rbm.fit(digits.train, epochs=100 if SHORT else 1000, random_seed=1, progressbar=False)
small_vae = pmn.training.VAE(64, n_latent=8)
small_vae.fit(digits.train, epochs=15 if SHORT else 150, random_seed=1, progressbar=False)

log_z = pmn.diagnostics.log_partition(small_rbm, "ais", X=digits.train, n_steps=300 if SHORT else 3000, random_seed=1)
per_image = {
    "RBM, 100 hidden": pmn.diagnostics.log_likelihood(small_rbm, digits.test, log_z=log_z).per_row,
    "VAE, code of 8": small_vae.log_likelihood(digits.test, n_importance=500 if SHORT else 5000, random_seed=1).per_row,
    "200 Bernoullis": mixture_log_likelihood(digits.train, digits.test, 200),
}
for name, values in per_image.items():
    print(f"digits, {name}: {values.mean():.2f} nats per image")

fig, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
ax.boxplot(list(per_image.values()), tick_labels=list(per_image), orientation="horizontal", whis=(5, 95), sym="")
ax.plot([values.mean() for values in per_image.values()], [1, 2, 3], "k|", ms=14, label="mean")
ax.set(xlabel="log-likelihood of a test image (nats)", title="small digits: half of the images, and 90 %")
ax.legend(loc="upper left")

# %%
# When a code says nothing
# ------------------------
#
# It is common to give the pixels of a VAE a Gaussian distribution of variance one around the decoder's mean: minus the
# log-likelihood is then the familiar squared error. On gray digits scaled to :math:`[0, 1]` such a VAE learns nothing,
# and the divergence of its codes from the prior goes to zero:

gray = pmn.datasets.load_digits(binarize=None).train / 16
for sigma in (1.0, "learnt"):
    gaussian = pmn.training.VAE(64, n_latent=8, likelihood="gaussian", sigma=sigma)
    log = gaussian.fit(gray, epochs=6 if SHORT else 100, random_seed=1, progressbar=False)
    print(f"sigma {sigma}: KL {float(log['kl'][-1]):5.2f} nats, noise of a pixel {gaussian.sigma:.2f}")
print(f"largest eigenvalue of the covariance: {np.linalg.eigvalsh(np.cov(gray.T))[-1]:.2f}")

# %%
# The reason is in the last line. A number of the code earns its price only if the image varies with it by more than the
# noise that the model takes for granted: in a linear decoder, a direction is kept if and only if its variance, an
# eigenvalue of the covariance of the data, is larger than :math:`\sigma^2` [1]_. With pixels between 0 and 1 none is.
# Nothing is wrong with the optimizer, or with the bound: unit variance says that the digits are noise. With sigma
# learnt along with the weights, or with the binary pixels used above, codes come to life.
#
# References
# ----------
#
# .. [1] Lucas, J., Tucker, G., Grosse, R. and Norouzi, M. (2019). Don't blame the ELBO! A linear VAE perspective on
#    posterior collapse. NeurIPS.
#
# - Kingma, D. P. and Welling, M. (2014). Auto-encoding variational Bayes. ICLR.
# - Burda, Y., Grosse, R. and Salakhutdinov, R. (2016). Importance weighted autoencoders. ICLR.
# - Wu, Y., Burda, Y., Salakhutdinov, R. and Grosse, R. (2017). On the quantitative analysis of decoder-based generative
#   models. ICLR.

plt.show()
