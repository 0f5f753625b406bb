"""The project's own files agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest

import pm_neural

ROOT = Path(__file__).parent.parent


def test_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text()
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [pm_neural.__version__]
    assert re.search(r"^## (\S+)", changelog, re.MULTILINE).group(1) == pm_neural.__version__


def requirements():
    """Yield the name of each package that pyproject.toml asks for, its own extras left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for requirement in [*project["dependencies"], *(name for extra in extras for name in extra)]:
        name = re.match(r"[\w.-]+", requirement).group()
        if name != project["name"]:
            yield name


@pytest.mark.parametrize("name", sorted(requirements()))
def test_every_dependency_has_a_tested_version(name):
    constraints = (ROOT / "constraints.txt").read_text()
    assert re.search(rf"^{re.escape(name)}==\S+$", constraints, re.MULTILINE)


def test_numba_has_an_upper_bound_behind_the_version_that_is_tested():
    """Kernels are built on internal parts of numba and LLVM, which a new version may change."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (requirement,) = [name for name in dependencies if re.match(r"numba\b", name)]
    tested = re.search(r"^numba==(\d+)\.(\d+)\.", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    bound = re.search(r"<(\d+)\.(\d+)$", requirement)
    assert [int(part) for part in bound.groups()] == [int(tested[1]), int(tested[2]) + 1]
