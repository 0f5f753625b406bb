"""Inside pm.sample: BlockGibbs against BinaryGibbsMetropolis and the field's loops; first draw; import time.

RBMs of 64×100 units: trained on the digits, and with random weights that mix fast, N(0, 0.3), or slowly, N(0, 2). One
chain, one core, no progress bar, one thread, float64 unless said otherwise. A sweep updates all 164 units once; a draw
is one sweep unless said otherwise.
"""

from harness import print_table  # isort: skip

import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import arviz as az
import numpy as np
import pymc as pm
import pytensor

import pm_neural as pmn

N_VISIBLE, N_HIDDEN = 64, 100
ROUNDS = 3
TUNE = 50

type Parameters = tuple[np.ndarray, np.ndarray, np.ndarray]
type Method = Callable[[], "Run"]


class Run(NamedTuple):
    """What a method did: seconds a draw, sweeps a draw, and the effective sample size of the energy for each draw."""

    seconds: float
    sweeps: int
    efficiency: float


def random_parameters(scale: float) -> Parameters:
    rng = np.random.default_rng(0)
    W, a, b = (rng.normal(0, scale, shape) for shape in ((N_VISIBLE, N_HIDDEN), (N_VISIBLE,), (N_HIDDEN,)))
    return W, a, b


def trained_parameters() -> Parameters:
    rbm = pmn.training.RBM(N_VISIBLE, N_HIDDEN)
    rbm.fit(pmn.datasets.load_digits().train, epochs=300, progressbar=False, random_seed=0)
    W, a, b = (parameter.astype(np.float64) for parameter in rbm.parameters_as_numpy())
    return W, a, b


def efficiency(parameters: Parameters, v: np.ndarray, h: np.ndarray) -> float:
    """Effective sample size of E(v, h) over the number of draws; v and h are (n_draws, n_units)."""
    W, a, b = parameters
    energy = -(v @ a) - h @ b - ((v @ W) * h).sum(axis=1)
    return float(az.ess(energy[None, :])) / len(energy)


# --- methods -------------------------------------------------------------------------------------------------------


def in_pymc(
    parameters: Parameters, step_method: type, draws: int, sweeps: int = 1, floatX: str = "float64", **options
) -> Method:
    with pytensor.config.change_flags(floatX=floatX), pm.Model() as model:
        v = pmn.BernoulliRBM("v", *parameters)
        step = step_method([v, pmn.HiddenUnits("h", v)], **options)

    def run() -> Run:
        with pytensor.config.change_flags(floatX=floatX), model:
            idata = pm.sample(
                draws,
                tune=TUNE,
                chains=1,
                cores=1,
                step=step,
                random_seed=1,
                progressbar=False,
                compute_convergence_checks=False,
            )
        seconds = idata.sample_stats.attrs["sampling_time"] / (draws + TUNE)
        posterior = idata.posterior
        v, h = posterior["v"].values[0], posterior["h"].values[0]
        return Run(seconds, sweeps, efficiency(parameters, v, h))

    return run


def timed(parameters: Parameters, draws: int, sample: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> Method:
    def run() -> Run:
        start = time.perf_counter()
        v, h = sample(draws)
        return Run((time.perf_counter() - start) / draws, 1, efficiency(parameters, v, h))

    return run


def numpy_loop(parameters: Parameters, draws: int) -> Method:
    W, a, b = parameters
    to_visible = np.ascontiguousarray(W.T)
    rng = np.random.default_rng(1)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        v, h = np.empty((n, N_VISIBLE)), np.empty((n, N_HIDDEN))
        state = np.zeros(N_VISIBLE)
        for i in range(n):
            h[i] = rng.random(N_HIDDEN) < 1 / (1 + np.exp(-(b + state @ W)))
            v[i] = state = (rng.random(N_VISIBLE) < 1 / (1 + np.exp(-(a + h[i] @ to_visible)))).astype(float)
        return v, h

    return timed(parameters, draws, sample)


def sklearn_loop(parameters: Parameters, draws: int) -> Method | None:
    try:
        from sklearn.neural_network import BernoulliRBM
    except ImportError:
        return None
    W, a, b = parameters
    rbm = BernoulliRBM(N_HIDDEN, random_state=1)
    rbm.components_, rbm.intercept_visible_, rbm.intercept_hidden_ = np.ascontiguousarray(W.T), a, b
    rng = np.random.default_rng(2)

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        v = np.empty((n, N_VISIBLE))
        state = np.zeros((1, N_VISIBLE))
        for i in range(n):
            state = rbm.gibbs(state)
            v[i] = state
        # gibbs() keeps the hidden units to itself: they are drawn anew, outside of the clock's long part.
        return v, rng.random((n, N_HIDDEN)) < 1 / (1 + np.exp(-(b + v @ W)))

    return timed(parameters, draws, sample)


def thrml_program(parameters: Parameters, draws: int) -> Method | None:
    try:
        import jax
        from thrml import Block, SamplingSchedule, SpinNode, sample_states
        from thrml.models import IsingEBM, IsingSamplingProgram, hinton_init
    except ImportError:
        return None
    W, a, b = parameters
    visible, hidden = ([SpinNode() for _ in range(n)] for n in W.shape)
    edges = [(v, h) for v in visible for h in hidden]
    # The same law for spins s = 2z − 1.
    biases = np.concatenate([a / 2 + W.sum(axis=1) / 4, b / 2 + W.sum(axis=0) / 4])
    model = IsingEBM([*visible, *hidden], edges, jax.numpy.asarray(biases), jax.numpy.asarray(W.ravel() / 4), 1.0)
    blocks = [Block(hidden), Block(visible)]
    program = IsingSamplingProgram(model, blocks, clamped_blocks=[])
    start = hinton_init(jax.random.key(0), model, blocks, ())
    schedule = SamplingSchedule(0, draws, 1)
    compiled = jax.jit(lambda key: sample_states(key, program, schedule, start, [], blocks))
    jax.block_until_ready(compiled(jax.random.key(1)))

    def sample(n: int) -> tuple[np.ndarray, np.ndarray]:
        h, v = jax.block_until_ready(compiled(jax.random.key(2)))
        return np.asarray(v), np.asarray(h)

    return timed(parameters, draws, sample)


# --- tables --------------------------------------------------------------------------------------------------------


def sampling_rows(parameters: Parameters) -> Iterator[dict]:
    """Sweeps per second, and effective draws of the energy per second, of methods that run in turn."""
    metropolis = "pm.BinaryGibbsMetropolis"
    methods = {
        metropolis: in_pymc(parameters, pm.BinaryGibbsMetropolis, 3000),
        f"{metropolis}, float32": in_pymc(parameters, pm.BinaryGibbsMetropolis, 3000, floatX="float32"),
        "BlockGibbs": in_pymc(parameters, pmn.BlockGibbs, 50_000),
        "BlockGibbs, float32": in_pymc(parameters, pmn.BlockGibbs, 50_000, floatX="float32"),
    }
    for sweeps in (10, 30, 100):
        for floatX in ("float64", "float32"):
            name = f"BlockGibbs, {sweeps} sweeps a draw" + ", float32" * (floatX == "float32")
            methods[name] = in_pymc(parameters, pmn.BlockGibbs, 30_000, sweeps, sweeps_per_draw=sweeps, floatX=floatX)
    methods |= {
        "NumPy loop": numpy_loop(parameters, 50_000),
        "scikit-learn gibbs loop": sklearn_loop(parameters, 20_000),
        "THRML, jitted": thrml_program(parameters, 20_000),
    }
    runs: dict[str, list[Run]] = {name: [] for name in methods}
    for _ in range(ROUNDS):
        for name, method in methods.items():
            if method is not None:
                runs[name].append(method())
    sweeps = {name: statistics.median(r.sweeps / r.seconds for r in rs) for name, rs in runs.items() if rs}
    ess = {name: statistics.median(r.efficiency / r.seconds for r in rs) for name, rs in runs.items() if rs}
    for name in methods:
        if name not in sweeps:
            yield {"method": name, "µs a draw": "not installed"}
            continue
        yield {
            "method": name,
            "µs a draw": f"{1e6 * statistics.median(r.seconds for r in runs[name]):.1f}",
            "sweeps/s": f"{sweeps[name]:,.0f}",
            "ratio": f"{sweeps[name] / sweeps[metropolis]:,.0f}",
            "energy ESS/s": f"{ess[name]:,.0f}",
            "ESS ratio": f"{ess[name] / ess[metropolis]:,.0f}",
        }


FIRST_DRAW = """
import logging, sys, time
import numpy as np, pymc as pm, pm_neural as pmn
logging.getLogger("pymc").setLevel(logging.ERROR)
rng = np.random.default_rng(0)
W, a, b = rng.normal(0, 0.3, (64, 100)), rng.normal(0, 0.3, 64), rng.normal(0, 0.3, 100)
with pm.Model():
    v = pmn.BernoulliRBM("v", W, a, b)
    h = pmn.HiddenUnits("h", v)
    start = time.perf_counter()
    step = getattr(sys.modules[sys.argv[1]], sys.argv[2])([v, h])
    first = []
    pm.sample(2, tune=0, chains=1, cores=1, step=step, progressbar=False, compute_convergence_checks=False,
              callback=lambda trace, draw: first.append(time.perf_counter()))
print(first[0] - start)
"""


def first_draw_rows() -> Iterator[dict]:
    """Seconds from building the step to its first draw in a fresh process, with and without compiled code on disk."""
    for module, name in (("pymc", "BinaryGibbsMetropolis"), ("pm_neural", "BlockGibbs")):
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | {
                "NUMBA_CACHE_DIR": f"{cache}/numba",
                "PYTENSOR_FLAGS": f"base_compiledir={cache}/pytensor",
            }
            seconds = [float(_python(FIRST_DRAW, module, name, env=environment)) for _ in range(1 + ROUNDS)]
        yield {
            "step method": f"{module}.{name}",
            "nothing cached (s)": f"{seconds[0]:.2f}",
            "cached (s)": f"{statistics.median(seconds[1:]):.2f}",
        }


def import_rows() -> Iterator[dict]:
    """Seconds to import pm_neural, over pymc alone, in fresh processes in turn."""
    seconds: dict[str, list[float]] = {"pymc": [], "pm_neural": []}
    for _ in range(1 + ROUNDS):
        for package, times in seconds.items():
            code = f"import time; t = time.perf_counter(); import {package}; print(time.perf_counter() - t)"
            times.append(float(_python(code)))
    medians = {package: statistics.median(times[1:]) for package, times in seconds.items()}
    loads_torch = _python("import sys, pm_neural; print('torch' in sys.modules)")
    for package, median in medians.items():
        yield {
            "import": package,
            "seconds": f"{median:.2f}",
            "over pymc": f"{median / medians['pymc']:.2f}",
            "loads torch": loads_torch if package == "pm_neural" else "",
        }


def _python(code: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=env
    )
    return result.stdout.strip().splitlines()[-1]


def main() -> None:
    logging.getLogger("pymc").setLevel(logging.ERROR)
    print_table("P1, trained on the digits, one chain", list(sampling_rows(trained_parameters())))
    for scale in (0.3, 2.0):
        print_table(f"P1, weights N(0, {scale}), one chain", list(sampling_rows(random_parameters(scale))))
    print_table("Time to the first draw", list(first_draw_rows()))
    print_table("Import", list(import_rows()))


if __name__ == "__main__":
    main()
