"""What the wheel must do where torch is not installed: import, sample, say what is missing."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pymc as pm

import pm_neural as pmn


def main() -> None:
    """Sample a small RBM, and fail if torch was there or was loaded."""
    if importlib.util.find_spec("torch") is not None:
        sys.exit("this environment has torch, so it proves nothing")
    if not Path(pmn.__file__).is_relative_to(sys.prefix):
        sys.exit(f"pm_neural was imported from {pmn.__file__}, not from the wheel")

    rng = np.random.default_rng(0)
    W, a, b = rng.normal(0, 0.5, (6, 4)), rng.normal(size=6), rng.normal(size=4)
    with pm.Model():
        pmn.BernoulliRBM("v", W, a, b)
        idata = pm.sample(draws=2000, cores=1, progressbar=False, random_seed=0)
    v = idata["posterior"]["v"].to_numpy().reshape(-1, 6)
    exact = pmn.diagnostics.exact_marginals((W, a, b)).visible
    error = np.abs(v.mean(axis=0) - exact).max()
    if error > 0.05:
        sys.exit(f"sampled and exact means of the visible units differ by {error:.3f}")

    try:
        pmn.training.RBM(6, 4)
    except ImportError as missing:
        if "pm-neural[torch]" not in str(missing):
            sys.exit(f"the error does not say which extra to install: {missing}")
    else:
        sys.exit("pmn.training worked without torch")
    if "torch" in sys.modules:
        sys.exit("torch was loaded")
    print(f"pm_neural {pmn.__file__!r} samples without torch; largest error of a mean {error:.3f}")


if __name__ == "__main__":
    main()
