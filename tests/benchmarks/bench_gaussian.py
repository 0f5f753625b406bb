"""Gaussian RBMs: many chains against NumPy, torch and JAX, and BlockGibbs against NUTS in ESS per second.

One thread, CPU time, compilation apart, methods of a problem in turn for several rounds, medians. A unit update is one
unit drawn once; a sweep updates all of them. The peers are loops as their users write them, in the same float type.
"""

from __future__ import annotations

from harness import Method, compare, print_comparison  # isort: skip

import logging
import time
from collections.abc import Callable, Iterator

import arviz as az
import numpy as np
import pymc as pm
import xarray as xr
from bench_kernels import jax, torch
from pymc.step_methods.compound import BlockedStep

import pm_neural as pmn
from step_methods.kernels.restricted.gaussian_chains import sweep_gaussian_chains
from step_methods.kernels.restricted.gaussian_rbm import draw_joint, prepare
from step_methods.kernels.vectors.random import seed_stream

if jax is not None:
    import jax.numpy as jnp
try:
    import nutpie
except ImportError:
    nutpie = None

SIZES = {"P5 2x100": (2, 100), "784x500": (784, 500)}
N_CHAINS = 500
DRAWS = 4000

type Parameters = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def parameters(n_visible: int, n_hidden: int, dtype: type) -> Parameters:
    """Give a machine whose hidden units are on about half of the time."""
    rng = np.random.default_rng(0)
    W = rng.normal(0, 0.5 / np.sqrt(n_visible), (n_visible, n_hidden))
    a, b, sigma = rng.normal(size=n_visible), rng.normal(0, 0.1, n_hidden), rng.uniform(0.5, 1, n_visible)
    return tuple(x.astype(dtype) for x in (W, a, b, sigma))


# --- methods: each is a function that runs a number of sweeps ---------------------------------------------------------


def ours(W: np.ndarray, a: np.ndarray, b: np.ndarray, sigma: np.ndarray) -> Callable[[int], object]:
    state = seed_stream(np.random.default_rng(1))
    v, h = (np.zeros((N_CHAINS, bias.size), W.dtype) for bias in (a, b))
    return lambda n_sweeps: sweep_gaussian_chains(W, a, b, sigma, v, h, n_sweeps, state)


def ours_one_chain(W: np.ndarray, a: np.ndarray, b: np.ndarray, sigma: np.ndarray) -> Callable[[int], object]:
    rbm = prepare(W, a, b, sigma)
    state = seed_stream(np.random.default_rng(1))
    v, h = np.zeros(a.size, W.dtype), np.zeros(b.size, np.int64)
    return lambda n_sweeps: draw_joint(rbm, v, v, h, h, n_sweeps, state)


def numpy_loop(
    W: np.ndarray, a: np.ndarray, b: np.ndarray, sigma: np.ndarray, n_chains: int = N_CHAINS
) -> Callable[[int], object]:
    rng = np.random.default_rng(1)
    to_hidden = W / (sigma**2)[:, None]
    v = np.zeros((n_chains, a.size), W.dtype)

    def run(n_sweeps: int) -> None:
        nonlocal v
        for _ in range(n_sweeps):
            field = v @ to_hidden + b
            h = (rng.random(field.shape, dtype=W.dtype) < 1 / (1 + np.exp(-field))).astype(W.dtype)
            v = a + h @ W.T + sigma * rng.standard_normal(v.shape, dtype=W.dtype)

    return run


def torch_loop(
    W: np.ndarray, a: np.ndarray, b: np.ndarray, sigma: np.ndarray, n_chains: int = N_CHAINS
) -> Callable[[int], object] | None:
    if torch is None:
        return None
    torch.set_num_threads(1)
    W, a, b, sigma = (torch.from_numpy(x) for x in (W, a, b, sigma))
    to_hidden = W / (sigma**2)[:, None]
    generator = torch.Generator().manual_seed(1)
    v = torch.zeros((n_chains, len(a)), dtype=W.dtype)

    @torch.no_grad()
    def run(n_sweeps: int) -> None:
        nonlocal v
        for _ in range(n_sweeps):
            field = v @ to_hidden + b
            h = (torch.rand(field.shape, generator=generator, dtype=W.dtype) < torch.sigmoid(field)).to(W.dtype)
            v = a + h @ W.T + sigma * torch.randn(v.shape, generator=generator, dtype=W.dtype)

    return run


def jax_scan(
    W: np.ndarray, a: np.ndarray, b: np.ndarray, sigma: np.ndarray, n_chains: int = N_CHAINS
) -> Callable[[int], object] | None:
    if jax is None:
        return None
    jax.config.update("jax_enable_x64", W.dtype == np.float64)
    W, a, b, sigma = (jnp.asarray(x) for x in (W, a, b, sigma))
    to_hidden = W / (sigma**2)[:, None]

    def one_sweep(carry, _):
        key, v = carry
        key, hidden_key, visible_key = jax.random.split(key, 3)
        field = v @ to_hidden + b
        h = (jax.random.uniform(hidden_key, field.shape, field.dtype) < jax.nn.sigmoid(field)).astype(field.dtype)
        return (key, a + h @ W.T + sigma * jax.random.normal(visible_key, v.shape, v.dtype)), None

    @jax.jit(static_argnums=1)
    def sweeps(carry, n_sweeps):
        return jax.lax.scan(one_sweep, carry, None, n_sweeps)[0]

    carry = (jax.random.key(1), jnp.zeros((n_chains, a.size), W.dtype))

    def run(n_sweeps: int) -> None:
        nonlocal carry
        carry = jax.block_until_ready(sweeps(carry, n_sweeps))

    return run


def chain_rows() -> Iterator[dict[str, object]]:
    """Unit updates a second of many chains, and of one."""
    for size, (n_visible, n_hidden) in SIZES.items():
        for dtype in (np.float32, np.float64):
            model = parameters(n_visible, n_hidden, dtype)
            many: list[Method] = [
                ("pm_neural", ours(*model)),
                ("NumPy", numpy_loop(*model)),
                ("torch", torch_loop(*model)),
                ("JAX scan", jax_scan(*model)),
            ]
            n_units = n_visible + n_hidden
            yield from compare(f"{size}, {N_CHAINS} chains, {np.dtype(dtype)}", many, N_CHAINS * n_units)
            one: list[Method] = [
                ("pm_neural", ours_one_chain(*model)),
                ("NumPy", numpy_loop(*model, 1)),
                ("JAX scan", jax_scan(*model, 1)),
            ]
            yield from compare(f"{size}, one chain, {np.dtype(dtype)}", one, n_units)


# --- effective sample sizes ---------------------------------------------------------------------------------------


QUIET = {"progressbar": False, "compute_convergence_checks": False, "chains": 1, "cores": 1, "random_seed": 1}


def worst_ess(idata: xr.DataTree) -> float:
    """Effective sample size of the worst of E[v] and E[v²]."""
    v = idata.posterior["v"].values
    return float(az.ess(az.convert_to_dataset({"x": np.concatenate([v, v**2], axis=-1)}))["x"].min())


def pymc_rate(model: pm.Model, tune: int, step: BlockedStep) -> float:
    """Effective samples per CPU-second of sampling; tuning counts, compilation does not."""
    with model:
        pm.sample(10, tune=10, step=step, **QUIET)
        start = time.process_time()
        idata = pm.sample(DRAWS, tune=tune, step=step, **QUIET)
        seconds = time.process_time() - start
    return worst_ess(idata) / seconds


def nutpie_rate(model: pm.Model, tune: int) -> float:
    """Measure the same of nutpie's NUTS."""
    compiled = nutpie.compile_pymc_model(model)
    start = time.process_time()
    idata = nutpie.sample(compiled, draws=DRAWS, tune=tune, chains=1, cores=1, seed=1, progress_bar=False)
    seconds = time.process_time() - start
    return worst_ess(idata) / seconds


def ess_rows() -> Iterator[dict[str, object]]:
    """Effective samples a second, of BlockGibbs and of NUTS on the same marginal density."""
    for n_visible, n_hidden in ((2, 100), (20, 50)):
        with pm.Model() as model:
            v = pmn.GaussianRBM("v", *parameters(n_visible, n_hidden, np.float64))
            rates = {
                "pm_neural BlockGibbs": pymc_rate(model, 100, pmn.BlockGibbs([v])),
                "pm_neural BlockGibbs, 20 sweeps": pymc_rate(model, 100, pmn.BlockGibbs([v], sweeps_per_draw=20)),
                "PyMC NUTS": pymc_rate(model, 1000, pm.NUTS([v])),
            }
        if nutpie is not None:
            rates["nutpie NUTS"] = nutpie_rate(model, 1000)
        best = max(rate for name, rate in rates.items() if not name.startswith("pm_neural"))
        for name, rate in rates.items():
            problem = f"{n_visible}x{n_hidden}, float64"
            yield {"problem": problem, "method": name, "ESS per second": rate, "times the best peer": rate / best}


def main() -> None:
    """Print the tables."""
    logging.getLogger("pymc").setLevel(logging.ERROR)
    for rows, column in ((chain_rows(), "millions per second"), (ess_rows(), "ESS per second")):
        print_comparison(rows, (column, "times the best peer"))


if __name__ == "__main__":
    main()
