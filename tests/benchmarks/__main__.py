"""Run every benchmark of this folder, each in a process of its own on one thread: `make bench`."""

import importlib.util
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from harness import ONE_THREAD

PEERS = ("brian2", "jax", "nest", "nutpie", "sklearn", "thrml", "torch")


def main(names: list[str]) -> int:
    """Run the benchmarks named (all if none is), and return how many failed."""
    folder = Path(__file__).parent
    scripts = sorted(folder.glob("bench_*.py"))
    if names:
        scripts = [script for script in scripts if script.stem.removeprefix("bench_") in names]
    missing = [peer for peer in PEERS if importlib.util.find_spec(peer) is None]
    print(f"Python {platform.python_version()}, NumPy {version('numpy')}, PyMC {version('pymc')}")
    print(f"peers not installed, so not compared with: {', '.join(missing) or 'none'}", flush=True)
    failed = 0
    for script in scripts:
        print(f"\n== {script.stem} ==", flush=True)
        result = subprocess.run([sys.executable, script], env=os.environ | ONE_THREAD, check=False)
        failed += result.returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
