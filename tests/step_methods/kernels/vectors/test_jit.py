"""Compiled kernels are kept on disk, and no longer than the sources they were made from."""

import json
import os
import pickle
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import step_methods.kernels as kernels

SCRIPT = """
import json
import numpy as np
from step_methods.kernels.vectors.random import fill_uniform, seed_stream
from step_methods.kernels.restricted.layers import sample_units
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
    """Run the script in a process of its own on a copy of the kernels; count warnings that name NUMBA_CACHE_DIR."""
    package = tmp_path / "step_methods"
    shutil.copytree(
        Path(kernels.__file__).parent,
        package / "kernels",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (package / "__init__.py").touch()

    def start(before="", **environment):
        return subprocess.Popen(
            [sys.executable, "-c", before + SCRIPT],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path), "PYTHONWARNINGS": "always"}
            | environment,
            cwd=tmp_path,
        )

    def finish(process):
        output, errors = process.communicate()
        assert not process.returncode, errors
        return json.loads(output) | {"warnings": errors.count("NUMBA_CACHE_DIR")}

    def run(*arguments, **environment):
        return finish(start(*arguments, **environment))

    run.start, run.finish = start, finish
    run.package, run.cache = package / "kernels", tmp_path / "cache"
    return run


def test_cache_is_used_by_the_next_process_and_dropped_with_any_source(run):
    assert run()["misses"] == 2
    second = run()
    assert (second["hits"], second["misses"], second["warnings"]) == (2, 0, 0)
    # The sigmoid is not in the file of `sample_units`; a cache that looked only there would be
    # stale.
    source = run.package / "vectors" / "units.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert run()["misses"] == 2


OUTSIDE = """
from step_methods.kernels.vectors.jit import kernel
@kernel
def add(x):
    return x + {}
print(add(1.0))
"""


def test_a_kernel_of_others_is_compiled_anew_where_its_own_file_changes(tmp_path):
    script = tmp_path / "own.py"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    for number in (1, 1, 100):
        script.write_text(OUTSIDE.format(number))
        result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, env=environment)
        assert float(result.stdout) == 1 + number


NO_FOLDER = """
from numba.core import caching
caching.CacheImpl._locator_classes = []
"""
FULL_DISK = """
import errno
from numba.core.caching import IndexDataCacheFile
def save(self, key, data):
    raise OSError(errno.ENOSPC, "No space left on device")
IndexDataCacheFile.save = save
"""


def test_without_a_folder_for_the_cache_kernels_are_compiled_anew_with_one_warning(run):
    assert run(NO_FOLDER) == {"hits": 0, "misses": 2, "warnings": 1}


@pytest.mark.slow
def test_a_full_disk_does_not_stop_a_kernel(run):
    result = run(FULL_DISK)
    assert (result["misses"], result["warnings"]) == (2, 1)
    assert run()["misses"] == 2


@pytest.mark.slow
def test_files_of_the_cache_that_were_cut_short_do_not_stop_a_kernel(run):
    run()
    for file in run.cache.rglob("*.nb[ic]"):
        file.write_bytes(file.read_bytes()[:20])
    assert run()["warnings"] == 1


@pytest.mark.slow
def test_files_of_the_cache_that_were_damaged_do_not_stop_a_kernel(run):
    run()
    for file in run.cache.rglob("*.nbi"):  # the name of a module in it
        content = file.read_bytes()
        assert b"abstract" in content
        file.write_bytes(content.replace(b"abstract", b"a`stract"))
    again = run()
    assert (again["misses"], again["warnings"]) == (2, 1)


@pytest.mark.slow
def test_the_cache_of_another_numba_is_not_used(run):
    run()
    indices = list(run.cache.rglob("*.nbi"))
    assert indices
    for index in indices:
        content = index.read_bytes()
        version = pickle.loads(content)
        index.write_bytes(pickle.dumps("0.0.1") + content[len(pickle.dumps(version)) :])
    again = run()
    assert (again["hits"], again["misses"], again["warnings"]) == (0, 2, 0)


@pytest.mark.slow
def test_the_cache_of_another_processor_is_not_used(run):
    run()
    for expected in ((0, 2), (2, 0)):
        other = run(NUMBA_CPU_NAME="x86-64" if platform.machine() == "x86_64" else "generic", NUMBA_CPU_FEATURES="")
        assert (other["hits"], other["misses"]) == expected
    assert run()["hits"] == 2


@pytest.mark.slow
def test_processes_that_compile_for_the_first_time_at_once(run):
    for process in [run.start() for _ in range(3)]:
        assert run.finish(process)["warnings"] == 0
    assert run()["hits"] == 2


def test_without_compilation_there_is_an_error_that_names_the_variable(run):
    process = run.start(NUMBA_DISABLE_JIT="1")
    _, errors = process.communicate()
    assert process.returncode
    assert "unset the environment variable NUMBA_DISABLE_JIT" in errors
