"""Variational autoencoders: test likelihood, beside that of an RBM, and the cost of the posterior of a code.

One thread, CPU time of the process; the posterior without compilation.
"""

import harness  # noqa: F401 # isort: skip

import time
from collections.abc import Iterator
from typing import Any

import arviz as az
import pandas as pd
import pymc as pm

import pm_neural as pmn
from pm_neural.datasets import ImageData, load_digits, load_mnist_subset
from pm_neural.diagnostics import log_likelihood, log_partition
from pm_neural.training import RBM, VAE

type Row = dict[str, Any]

DIGITS = {"epochs": 150}
MNIST = {"epochs": 30, "batch_size": 64, "warm_up": 10}
MNIST_RBM = {"epochs": 100, "batch_size": 50, "learning_rate": 0.1}
SEEDS = (0, 1, 2)
N_IMAGES, TUNE, DRAWS = 3, 500, 1000
WANTED = 400


def vae_row(problem: str, data: ImageData, options: dict[str, Any], n_importance: int, seed: int = 0) -> Row:
    """Mean test log-likelihood by importance sampling, with the ELBO beside it."""
    start = time.process_time()
    vae = VAE(data.train.shape[1], n_latent=8)
    vae.fit(data.train, random_seed=seed, progressbar=False, **options)
    seconds = time.process_time() - start
    likelihood = vae.log_likelihood(data.test, n_importance=n_importance, random_seed=0)
    return {
        "problem": problem,
        "model": "VAE, latent 8",
        "seed": seed,
        "CPU seconds": seconds,
        "ELBO": float(vae.elbo(data.test, random_seed=0).mean()),
        "estimate": likelihood.mean,
        "other bound": float("nan"),
    }


def rbm_row(problem: str, data: ImageData, n_hidden: int, options: dict[str, Any]) -> Row:
    """Mean test log-likelihood by forward and by reverse AIS."""
    start = time.process_time()
    rbm = RBM(data.train.shape[1], n_hidden)
    rbm.fit(data.train, random_seed=0, progressbar=False, **options)
    seconds = time.process_time() - start
    log_z = log_partition(rbm, "ais", X=data.train, n_chains=100, random_seed=0)
    likelihood = log_likelihood(rbm, data.test, log_z=log_z)
    return {
        "problem": problem,
        "model": f"RBM, {n_hidden} hidden",
        "seed": 0,
        "CPU seconds": seconds,
        "ELBO": float("nan"),
        "estimate": likelihood.mean,
        "other bound": likelihood.bracket[0],
    }


def posterior_rows(problem: str, data: ImageData, options: dict[str, Any]) -> Iterator[Row]:
    """Seconds that NUTS takes, tuning included, to the wanted effective draws of the worst coordinate of a code."""
    vae = VAE(data.train.shape[1], n_latent=8)
    vae.fit(data.train, random_seed=0, progressbar=False, **options)
    for image in data.test[:N_IMAGES]:
        with pm.Model():
            z = pm.Normal("z", shape=8)
            pmn.Decoder("x", vae, z, observed=image)
            idata = pm.sample(
                DRAWS, tune=TUNE, chains=1, cores=1, random_seed=0, progressbar=False, compute_convergence_checks=False
            )
        seconds = idata["posterior"].attrs["sampling_time"]
        ess = float(az.ess(idata, var_names="z")["z"].min())
        gradients = float(idata["sample_stats"]["n_steps"].mean())
        share = (TUNE + DRAWS * WANTED / ess) / (TUNE + DRAWS)
        yield {
            "problem": problem,
            "seconds": seconds,
            "gradients a draw": gradients,
            "ESS": ess,
            f"seconds to {WANTED}": seconds * share,
        }


def likelihood_rows() -> Iterator[Row]:
    """Digits and MNIST."""
    digits, mnist = load_digits(), load_mnist_subset()
    for seed in SEEDS:
        yield vae_row("digits 8×8", digits, DIGITS, 5000, seed)
    for seed in SEEDS:
        yield vae_row("MNIST 28×28", mnist, MNIST, 1000, seed)
    yield rbm_row("MNIST 28×28", mnist, 200, MNIST_RBM)


if __name__ == "__main__":
    print("test log-likelihood, nats per image: importance-weighted (VAE); forward and reverse AIS (RBM)")
    print(pd.DataFrame(likelihood_rows()).to_string(index=False, float_format="{:.2f}".format))
    print("\nposterior of a code by NUTS, one chain")
    for problem in (("digits 8×8", load_digits(), DIGITS), ("MNIST 28×28", load_mnist_subset(), MNIST)):
        print(pd.DataFrame(posterior_rows(*problem)).to_string(index=False, float_format="{:.2f}".format))
