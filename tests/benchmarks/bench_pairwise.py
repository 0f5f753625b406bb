"""The kernels of pairwise networks against THRML, JAX, NumPy, mcising and dwave-samplers: one chain, one thread.

CPU time, compilation apart, methods of a problem in turn for several rounds, medians. A unit update is one unit drawn
once; a sweep updates all of them. Peers that draw one sweep per call are given many sweeps in a call where they can.
"""

from harness import Method, compare, print_comparison, time_in_turn  # isort: skip

from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse

from step_methods.kernels.pairwise.network import energy_pairwise, prepare_pairwise, sweep_pairwise
from step_methods.kernels.vectors.random import seed_stream

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    jax = None
try:
    import thrml
    from thrml.models.ising import IsingEBM, IsingSamplingProgram
except ImportError:
    thrml = None
try:
    import mcising
except ImportError:
    mcising = None
try:
    from dwave.samplers import SimulatedAnnealingSampler
except ImportError:
    SimulatedAnnealingSampler = None

CHUNK = 100  # sweeps in a call of the peers that compile a loop of fixed length
SIDE, BETA = 64, 0.4
N_DENSE = 20

type Spins = tuple[scipy.sparse.csr_array, np.ndarray]  # couplings and biases of -1/+1


def torus(side: int) -> Spins:
    ring = scipy.sparse.diags_array([1.0, 1.0, 1.0, 1.0], offsets=[1, -1, side - 1, 1 - side], shape=(side, side))
    J = scipy.sparse.kronsum(ring, ring, format="csr") * BETA
    return scipy.sparse.csr_array(J), np.zeros(side**2)


def dense_network(n: int) -> Spins:
    rng = np.random.default_rng(0)
    J = np.triu(rng.normal(0, 1 / np.sqrt(n), (n, n)), 1)
    return scipy.sparse.csr_array(J + J.T), rng.normal(0, 0.1, n)


def random_graph(n: int, n_couplings: int) -> Spins:
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, n, (2, n_couplings))
    J = scipy.sparse.coo_array((rng.normal(0, 0.5, (i != j).sum()), (i[i != j], j[i != j])), shape=(n, n)).tocsr()
    return scipy.sparse.csr_array(J + J.T), rng.normal(0, 0.1, n)


# --- methods: each is a function that runs a number of sweeps ---------------------------------------------------------


def ours(J: scipy.sparse.csr_array, h: np.ndarray, dtype: type, sweeps_per_call: int = 0) -> Callable[[int], object]:
    """Run all sweeps in one call, or so many in each."""
    network = prepare_pairwise((4 * J).astype(dtype))
    bias = (2 * h - 2 * J.sum(axis=1)).astype(dtype)
    z = np.zeros(h.size, np.int64)
    state = seed_stream(np.random.default_rng(1))

    def run(n_sweeps: int) -> None:
        per_call = sweeps_per_call or n_sweeps
        for _ in range(0, n_sweeps, per_call):
            sweep_pairwise(network, z, bias, 1.0, per_call, state)

    return run


def numpy_checkerboard(side: int) -> Callable[[int], object]:
    rng = np.random.default_rng(1)
    s = np.ones((side, side), np.float32)
    colors = [(np.indices(s.shape).sum(axis=0) % 2 == color) for color in (0, 1)]

    def run(n_sweeps: int) -> None:
        for _ in range(n_sweeps):
            for color in colors:
                field = np.roll(s, 1, 0) + np.roll(s, -1, 0) + np.roll(s, 1, 1) + np.roll(s, -1, 1)
                up = rng.random(s.shape, dtype=np.float32) < 1 / (1 + np.exp(-2 * np.float32(BETA) * field))
                np.copyto(s, np.where(up, np.float32(1), np.float32(-1)), where=color)

    return run


def jax_checkerboard(side: int) -> Callable[[int], object] | None:
    """Each color in an array of its own, so that no number is drawn in vain."""
    if jax is None:
        return None
    odd_row = (jnp.arange(side) % 2 == 1)[:, None]

    def draw(key, other, shift_right):
        beside = jnp.where(shift_right, jnp.roll(other, -1, 1), jnp.roll(other, 1, 1))
        field = other + beside + jnp.roll(other, 1, 0) + jnp.roll(other, -1, 0)
        up = jax.random.uniform(key, other.shape) < jax.nn.sigmoid(2 * BETA * field)
        return jnp.where(up, 1.0, -1.0)

    def one_sweep(carry, _):
        key, one, other = carry
        key, first, second = jax.random.split(key, 3)
        one = draw(first, other, odd_row)
        other = draw(second, one, ~odd_row)
        return (key, one, other), None

    @jax.jit
    def sweeps(carry):
        return jax.lax.scan(one_sweep, carry, None, CHUNK)[0]

    carry = (jax.random.key(1), jnp.ones((side, side // 2)), jnp.ones((side, side // 2)))

    def run(n_sweeps: int) -> None:
        nonlocal carry
        for _ in range(0, n_sweeps, CHUNK):
            carry = jax.block_until_ready(sweeps(carry))

    return run


def numpy_one_by_one(J: scipy.sparse.csr_array, h: np.ndarray) -> Callable[[int], object]:
    rng = np.random.default_rng(1)
    couplings = J.toarray()
    s = np.ones(h.size)

    def run(n_sweeps: int) -> None:
        for _ in range(n_sweeps):
            uniform = rng.random(h.size)
            for i in range(h.size):
                s[i] = 1.0 if uniform[i] < 1 / (1 + np.exp(-2 * (h[i] + couplings[i] @ s))) else -1.0

    return run


def thrml_blocks(J: scipy.sparse.csr_array, h: np.ndarray, colors: np.ndarray) -> Callable[[int], object] | None:
    if thrml is None or jax is None:
        return None
    nodes = [thrml.SpinNode() for _ in range(h.size)]
    upper = scipy.sparse.triu(J).tocoo()
    edges = [(nodes[i], nodes[j]) for i, j in zip(*upper.coords, strict=True)]
    model = IsingEBM(nodes, edges, jnp.asarray(h, jnp.float32), jnp.asarray(upper.data, jnp.float32), jnp.asarray(1.0))
    blocks = [thrml.Block([nodes[i] for i in np.flatnonzero(colors == color)]) for color in np.unique(colors)]
    program = IsingSamplingProgram(model, blocks, clamped_blocks=[])
    start = [jnp.ones(len(block.nodes), bool) for block in blocks]

    @jax.jit
    def sweeps(key, states):
        schedule = thrml.SamplingSchedule(n_warmup=CHUNK, n_samples=1, steps_per_sample=1)
        return thrml.sample_states(key, program, schedule, states, [], blocks)

    key = jax.random.key(1)

    def run(n_sweeps: int) -> None:
        nonlocal key, start
        for _ in range(0, n_sweeps, CHUNK):
            key, own = jax.random.split(key)
            start = [x[-1] for x in jax.block_until_ready(sweeps(own, start))]

    return run


def dwave_annealing(J: scipy.sparse.csr_array, h: np.ndarray) -> Callable[[int], object] | None:
    """Heat-bath sweeps at a constant temperature; they start anew at every call."""
    if SimulatedAnnealingSampler is None:
        return None
    sampler = SimulatedAnnealingSampler()
    upper = scipy.sparse.triu(J).tocoo()
    couplings = {(int(i), int(j)): -float(x) for i, j, x in zip(*upper.coords, upper.data, strict=True)}
    biases = {i: -float(x) for i, x in enumerate(h)}

    def run(n_sweeps: int) -> None:
        sampler.sample_ising(
            biases,
            couplings,
            num_reads=1,
            num_sweeps=n_sweeps,
            num_sweeps_per_beta=n_sweeps,
            beta_schedule_type="custom",
            beta_schedule=[1.0],
            proposal_acceptance_criteria="Gibbs",
            randomize_order=False,
            seed=1,
        )

    return run


def mcising_torus(side: int) -> Callable[[int], object] | None:
    """Metropolis sweeps in Rust, which offers no heat bath."""
    if mcising is None:
        return None
    simulation = mcising.IsingSimulation(side, 1.0, 0.0, 0.0, 0.0, 1)
    return lambda n_sweeps: simulation.sweep(n_sweeps, temperature=1 / BETA)


# --- problems ---------------------------------------------------------------------------------------------------------


def torus_rows() -> Iterator[dict[str, object]]:
    model = torus(SIDE)
    n = SIDE**2
    local = np.random.default_rng(0).normal(0, 0.1, n)
    methods: list[Method] = [
        ("pm_neural, float32", ours(*model, np.float32)),
        ("pm_neural, float64", ours(*model, np.float64)),
        ("pm_neural, float32, a field at each site", ours(model[0], local, np.float32)),
        ("pm_neural, float32, a sweep a call", ours(*model, np.float32, sweeps_per_call=1)),
        ("pm_neural, float64, a sweep a call", ours(*model, np.float64, sweeps_per_call=1)),
        ("mcising (Rust, Metropolis)", mcising_torus(SIDE)),
        ("THRML", thrml_blocks(*model, np.indices((SIDE, SIDE)).sum(axis=0).ravel() % 2)),
        ("dwave-samplers (C++)", dwave_annealing(*model)),
        ("JAX scan", jax_checkerboard(SIDE)),
        ("NumPy", numpy_checkerboard(SIDE)),
    ]
    yield from compare(f"P3 torus {SIDE}x{SIDE}, beta {BETA}", methods, n, CHUNK)


def dense_rows() -> Iterator[dict[str, object]]:
    model = dense_network(N_DENSE)
    methods: list[Method] = [
        ("pm_neural, float32", ours(*model, np.float32)),
        ("pm_neural, float64", ours(*model, np.float64)),
        ("pm_neural, float64, a sweep a call", ours(*model, np.float64, sweeps_per_call=1)),
        ("dwave-samplers (C++)", dwave_annealing(*model)),
        ("THRML", thrml_blocks(*model, np.arange(N_DENSE))),
        ("NumPy", numpy_one_by_one(*model)),
    ]
    yield from compare(f"P4 dense, {N_DENSE} units", methods, N_DENSE, CHUNK)


def own_rows() -> Iterator[dict[str, object]]:
    """Other sizes and structures, without peers."""
    problems = {
        "torus 1000x1000": torus(1000),
        "torus 63x63, odd sides": torus(63),
        "dense, 200 units": dense_network(200),
        "dense, 1000 units": dense_network(1000),
        "random graph, 10^4 couplings": random_graph(5_000, 10**4),
        "random graph, 10^5 couplings": random_graph(50_000, 10**5),
        "random graph, 10^6 couplings": random_graph(500_000, 10**6),
    }
    for problem, model in problems.items():
        methods: list[Method] = [(f"pm_neural, {np.dtype(t)}", ours(*model, t)) for t in (np.float32, np.float64)]
        yield from compare(problem, methods, model[1].size, CHUNK)


def preparation_rows() -> Iterator[dict[str, object]]:
    """What is done once, and the energy of a state, in microseconds."""
    for problem, (J, h) in {
        "torus 64x64": torus(64),
        "random graph, 10^6 couplings": random_graph(500_000, 10**6),
    }.items():
        J = J.astype(np.float32)
        network, z, bias = prepare_pairwise(J), np.zeros(h.size, np.int64), h.astype(np.float32)
        for name, run in (
            ("prepare", lambda J=J: prepare_pairwise(J)),
            ("energy", lambda network=network, z=z, bias=bias: energy_pairwise(network, z, bias, 1.0)),
        ):
            (seconds,) = time_in_turn([("", lambda n, run=run: [run() for _ in range(n)])])
            assert seconds is not None
            yield {"problem": problem, "method": f"pm_neural, {name}", "microseconds": seconds * 1e6}


def rows() -> Iterator[dict[str, object]]:
    """Measure everything."""
    yield from torus_rows()
    yield from dense_rows()
    yield from own_rows()
    yield from preparation_rows()


if __name__ == "__main__":
    print_comparison(rows())
