"""The RBM kernels against JAX, torch and NumPy: one chain, many chains, and the random numbers alone.

One thread, CPU time, compilation apart, methods of a problem in turn for several rounds, medians. A
unit update is one unit drawn once; a sweep updates all of them.
"""

from harness import Method, compare, print_comparison, time_in_turn  # isort: skip

from collections.abc import Callable, Iterator

import numpy as np

from step_methods.kernels.restricted.layers import sample_units
from step_methods.kernels.restricted.rbm import prepare, refill, sweep, sweep_chains
from step_methods.kernels.vectors.random import fill_uniform, seed_stream

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    jax = None
try:
    import torch
except ImportError:
    torch = None

SIZES = {"P1 64x100": (64, 100), "P2 784x500": (784, 500)}
# Weights N(0, 0.1). "half": mean activity about a half in both layers. "sparse": visible bias -3,
# as for digits on black.
SETTINGS = {"half": 0.0, "sparse": -3.0}
N_CHAINS = 500

type Parameters = tuple[np.ndarray, np.ndarray, np.ndarray]


def parameters(n_visible: int, n_hidden: int, visible_bias: float, dtype: type) -> Parameters:
    rng = np.random.default_rng(0)
    W = rng.normal(0, 0.1, (n_visible, n_hidden))
    a = rng.normal(visible_bias, 0.1, n_visible)
    b = rng.normal(0, 0.1, n_hidden)
    return W.astype(dtype), a.astype(dtype), b.astype(dtype)


# --- methods: each is a function that runs a number of sweeps ---------------------------------------------------------


def ours(W: np.ndarray, a: np.ndarray, b: np.ndarray, *, tables: bool) -> Callable[[int], object]:
    rbm = prepare(W, a, b, tables=tables)
    state = seed_stream(np.random.default_rng(1))
    v, h = np.zeros(a.size, np.uint8), np.zeros(b.size, np.uint8)
    return lambda n_sweeps: sweep(rbm, v, h, n_sweeps, state)


def ours_sums_of_rows(W: np.ndarray, a: np.ndarray, b: np.ndarray) -> Callable[[int], object]:
    rbm = prepare(W, a, b)
    state = seed_stream(np.random.default_rng(1))
    v, h = (np.zeros((N_CHAINS, bias.size), np.uint8) for bias in (a, b))
    return lambda n_sweeps: sweep_chains(rbm, v, h, n_sweeps, state)


def ours_matrix_product(W: np.ndarray, a: np.ndarray, b: np.ndarray) -> Callable[[int], object]:
    state = seed_stream(np.random.default_rng(1))
    transposed = np.ascontiguousarray(W.T)
    v, h = (np.zeros((N_CHAINS, bias.size), W.dtype) for bias in (a, b))

    def run(n_sweeps: int) -> None:
        for _ in range(n_sweeps):
            np.matmul(v, W, out=h)
            h.__iadd__(b)
            sample_units(h, state, h)
            np.matmul(h, transposed, out=v)
            v.__iadd__(a)
            sample_units(v, state, v)

    return run


def numpy_loop(W: np.ndarray, a: np.ndarray, b: np.ndarray, n_chains: int | None = None) -> Callable[[int], object]:
    rng = np.random.default_rng(1)
    shape = () if n_chains is None else (n_chains,)
    v = np.zeros((*shape, a.size), W.dtype)

    def draw(field: np.ndarray) -> np.ndarray:
        uniform = rng.random(field.shape, dtype=W.dtype)
        return (uniform < 1 / (1 + np.exp(-field))).astype(W.dtype)

    def run(n_sweeps: int) -> None:
        nonlocal v
        for _ in range(n_sweeps):
            v = draw(a + draw(b + v @ W) @ W.T)

    return run


def jax_scan(
    W: np.ndarray, a: np.ndarray, b: np.ndarray, n_chains: int | None = None
) -> Callable[[int], object] | None:
    if jax is None:
        return None
    jax.config.update("jax_enable_x64", W.dtype == np.float64)
    shape = () if n_chains is None else (n_chains,)
    W, a, b = (jnp.asarray(x) for x in (W, a, b))

    def draw(key, field):
        return (jax.random.uniform(key, field.shape, field.dtype) < jax.nn.sigmoid(field)).astype(field.dtype)

    def one_sweep(carry, _):
        key, v = carry
        key, hidden_key, visible_key = jax.random.split(key, 3)
        h = draw(hidden_key, b + v @ W)
        return (key, draw(visible_key, a + h @ W.T)), None

    @jax.jit(static_argnums=1)
    def sweeps(carry, n_sweeps):
        return jax.lax.scan(one_sweep, carry, None, n_sweeps)[0]

    carry = (jax.random.key(1), jnp.zeros((*shape, a.size), W.dtype))

    def run(n_sweeps: int) -> None:
        nonlocal carry
        carry = jax.block_until_ready(sweeps(carry, n_sweeps))

    return run


def torch_loop(
    W: np.ndarray, a: np.ndarray, b: np.ndarray, n_chains: int | None = None
) -> Callable[[int], object] | None:
    if torch is None:
        return None
    torch.set_num_threads(1)
    W, a, b = (torch.from_numpy(x) for x in (W, a, b))
    shape = () if n_chains is None else (n_chains,)
    generator = torch.Generator().manual_seed(1)
    v = torch.zeros((*shape, len(a)), dtype=W.dtype)

    def draw(field):
        uniform = torch.rand(field.shape, generator=generator, dtype=field.dtype)
        return (uniform < torch.sigmoid(field)).to(field.dtype)

    @torch.no_grad()
    def run(n_sweeps: int) -> None:
        nonlocal v
        for _ in range(n_sweeps):
            v = draw(a + draw(b + v @ W) @ W.T)

    return run


# --- problems ---------------------------------------------------------------------------------------------------------


def one_chain_rows() -> Iterator[dict[str, object]]:
    for size, (n_visible, n_hidden) in SIZES.items():
        for dtype in (np.float32, np.float64):
            for setting, visible_bias in SETTINGS.items():
                model = parameters(n_visible, n_hidden, visible_bias, dtype)
                methods: list[Method] = [
                    ("pm_neural", ours(*model, tables=True)),
                    ("pm_neural, no tables", ours(*model, tables=False)),
                    ("JAX scan", jax_scan(*model)),
                    ("NumPy", numpy_loop(*model)),
                ]
                problem = f"{size}, one chain, {np.dtype(dtype)}, {setting}"
                yield from compare(problem, methods, n_visible + n_hidden)


def many_chain_rows() -> Iterator[dict[str, object]]:
    for size, (n_visible, n_hidden) in SIZES.items():
        for dtype in (np.float32, np.float64):
            model = parameters(n_visible, n_hidden, 0.0, dtype)
            methods: list[Method] = [
                ("pm_neural, sums of rows", ours_sums_of_rows(*model)),
                ("pm_neural, matrix product", ours_matrix_product(*model)),
                ("torch", torch_loop(*model, N_CHAINS)),
                ("JAX scan", jax_scan(*model, N_CHAINS)),
                ("NumPy", numpy_loop(*model, N_CHAINS)),
            ]
            problem = f"{size}, {N_CHAINS} chains, {np.dtype(dtype)}"
            yield from compare(problem, methods, N_CHAINS * (n_visible + n_hidden))


def preparation_rows() -> Iterator[dict[str, object]]:
    """New parameters, in microseconds: what a step pays whose parameters change from draw to draw."""
    for size, (n_visible, n_hidden) in SIZES.items():
        for dtype in (np.float32, np.float64):
            model = parameters(n_visible, n_hidden, 0.0, dtype)
            for tables in (True, False):
                rbm = prepare(*model, tables=tables)

                def run(n: int, rbm=rbm, model=model) -> None:
                    for _ in range(n):
                        refill(rbm, *model)

                (seconds,) = time_in_turn([("refill", run)])
                assert seconds is not None
                yield {
                    "problem": f"{size}, refill, {np.dtype(dtype)}",
                    "method": "pm_neural" if tables else "pm_neural, no tables",
                    "microseconds": seconds * 1e6,
                }


def random_rows(n: int = 10_000) -> Iterator[dict[str, object]]:
    for dtype in (np.float32, np.float64):
        state = seed_stream(np.random.default_rng(1))
        rng = np.random.default_rng(1)
        out = np.empty(n, dtype)

        def repeat(function: Callable[[], object]) -> Callable[[int], object]:
            return lambda times: [function() for _ in range(times)]

        methods: list[Method] = [
            ("pm_neural", repeat(lambda state=state, out=out: fill_uniform(state, out))),
            ("NumPy PCG64", repeat(lambda rng=rng, out=out: rng.random(out=out, dtype=out.dtype))),
        ]
        if torch is None:
            methods.append(("torch.rand", None))
        else:
            tensor = torch.from_numpy(out)
            methods.append(("torch.rand", repeat(lambda tensor=tensor: tensor.uniform_())))
        yield from compare(f"{n} random numbers, {np.dtype(dtype)}", methods, n)


def rows() -> Iterator[dict[str, object]]:
    """Measure everything."""
    yield from one_chain_rows()
    yield from many_chain_rows()
    yield from preparation_rows()
    yield from random_rows()


if __name__ == "__main__":
    print_comparison(rows())
