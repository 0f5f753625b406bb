"""Compiled kernels are kept on disk, and no longer than the sources they were made from."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import step_methods.kernels as kernels

SCRIPT = """
import json
import numpy as np
from step_methods.kernels.random import fill_uniform, seed_stream
from step_methods.kernels.layers import sample_units
state = seed_stream(np.random.default_rng(0))
field = np.zeros((2, 50), np.float32)
sample_units(field, state, field)
fill_uniform(state, np.zeros(3))
stats = [f.stats for f in (sample_units, fill_uniform)]
print(json.dumps({
    "hits": sum(sum(s.cache_hits.values()) for s in stats),
    "misses": sum(sum(s.cache_misses.values()) for s in stats),
}))
"""


@pytest.fixture
def run(tmp_path):
    """Runs the script in a process of its own on a copy of the kernels."""
    package = tmp_path / "step_methods"
    shutil.copytree(
        Path(kernels.__file__).parent,
        package / "kernels",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (package / "__init__.py").touch()

    def run():
        environment = os.environ | {
            "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
            "PYTHONPATH": str(tmp_path),
        }
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            cwd=tmp_path,
        )
        return json.loads(result.stdout)

    run.package = package / "kernels"
    return run


def test_cache_is_used_by_the_next_process_and_dropped_with_any_source(run):
    assert run()["misses"] == 2
    second = run()
    assert (second["hits"], second["misses"]) == (2, 0)
    # The sigmoid is not in the file of `sample_units`; a cache that looked only there would be
    # stale.
    source = run.package / "units.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert run()["misses"] == 2
