"""What all tests share: no windows, quick compilation, a generator per test, no global state, the GPU rule."""

import os
import zlib
from collections.abc import Iterator

import numpy as np
import pytensor
import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


# To compile graphs for numba, as PyTensor does by default, takes most of the time of these tests.
QUICK_MODE = "FAST_COMPILE"
DEFAULT_MODE = pytensor.config.mode


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add an option that compiles all graphs as users do."""
    parser.addoption("--numba", action="store_true", help="compile all graphs with PyTensor's default backend")


def pytest_configure(config: pytest.Config) -> None:
    """Evaluate graphs in Python, but for the tests marked `numba`."""
    if not config.getoption("--numba"):
        pytensor.config.mode = QUICK_MODE


@pytest.fixture(autouse=True)
def default_mode_where_it_is_asked_for(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compile as users do in the tests marked `numba`."""
    mode = DEFAULT_MODE if request.node.get_closest_marker("numba") else pytensor.config.mode
    with pytensor.config.change_flags(mode=mode):
        yield


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Give each test a generator of its own, the same one in every run."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(autouse=True)
def global_random_state_is_left_alone() -> Iterator[None]:
    """Fail a test whose code draws from, or seeds, NumPy's global random state."""
    before = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    yield
    after = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    assert before["pos"] == after["pos"], "NumPy's global random state was used"
    assert np.array_equal(before["key"], after["key"]), "NumPy's global random state was used"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where torch sees no CUDA device."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
