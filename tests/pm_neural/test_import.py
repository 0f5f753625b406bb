"""What `import pm_neural` loads, and which way the imports point."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pm_neural
import step_methods


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_does_not_load_torch():
    assert run("import sys, pm_neural; print(sorted({'torch', 'norse'} & set(sys.modules)))") == "[]"


def test_training_is_loaded_on_first_use():
    pytest.importorskip("torch")
    code = "import sys, pm_neural; pm_neural.training; print('torch' in sys.modules)"
    assert run(code) == "True"


def test_training_without_torch_names_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pm_neural\n"
        "try: pm_neural.training\n"
        "except ImportError as error: print(error)"
    )
    assert "pm-neural[torch]" in run(code)


def test_unknown_names_are_no_attributes():
    with pytest.raises(AttributeError, match="no attribute 'trainig'"):
        pm_neural.trainig  # noqa: B018
    assert {"BernoulliRBM", "training"} <= set(dir(pm_neural))


def test_energy_without_torch_names_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import pm_neural\n"
        "try: pm_neural.Energy.dist(None, shape=2, normalize=None)\n"
        "except ImportError as error: print(error)\n"
        "try: pm_neural.Decoder.dist(None, [0.0])\n"
        "except ImportError as error: print(error)"
    )
    assert run(code).count("pm-neural[torch]") == 2


# Wrap torch modules; imported when the first `Energy` or `Decoder` is made, not before.
LOADED_ON_USE = ("frozen_module.py", "frozen_decoder.py")


def imports_of(package):
    for path in Path(package.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield path, node.module


@pytest.mark.parametrize(
    ("package", "folder", "forbidden"),
    [
        (step_methods, "", ("pm_neural", "torch", "norse")),
        (step_methods, "kernels", ("pymc", "pytensor", "arviz")),
        (pm_neural, "distributions", ("torch", "norse")),
        (pm_neural, "diagnostics", ("torch", "norse")),
        (pm_neural, "fitting", ("pymc", "pytensor")),
        (pm_neural, "training", ("pymc", "pytensor")),
        (pm_neural, "spiking", ("pymc", "pytensor")),
    ],
)
def test_arrows_point_one_way(package, folder, forbidden):
    root = Path(package.__file__).parent / folder
    wrong = [
        (path.name, name)
        for path, name in imports_of(package)
        if path.is_relative_to(root) and name.split(".")[0] in forbidden and path.name not in LOADED_ON_USE
    ]
    assert not wrong


def modules():
    """Return the files of both packages by the names of their modules."""
    return {
        ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for root in (Path(package.__file__).parent for package in (step_methods, pm_neural))
        for path in root.rglob("*.py")
    }


def imported_names(path):
    """Yield what a file imports anywhere in it: for types, in functions, and by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


FILES = modules()
# A name that is not a module is one of the module before its last dot.
IMPORTS = {
    module: {name if name in FILES else name.rpartition(".")[0] for name in imported_names(path)} & FILES.keys()
    for module, path in FILES.items()
}


def test_imports_run_in_no_circle():
    """Imports for types and by name are counted; a package's own file stands for what it hands on."""
    graph = {module: set(names) - {module} for module, names in IMPORTS.items()}
    assert graph["pm_neural.distributions.rbm"] >= {"step_methods.network"}
    while ground := {module for module, names in graph.items() if not names}:
        graph = {module: names - ground for module, names in graph.items() if module not in ground}
    assert not graph


# From the ground up: what stands in a row imports nothing of the rows after it.
FLOORS = {
    "step_methods": (
        ("kernels", "checks", "_progress", "_adaptation", "raster"),
        ("network", "certifiable", "_variables"),
        ("reading",),
        ("_masked_starts", "reduced"),
        ("sampler",),
        ("gibbs", "spiking"),
        ("stepping",),
        ("block_gibbs", "neural_sampling", "langevin"),
        ("starts",),
    ),
    "pm_neural": (
        ("_arrays", "datasets"),
        ("diagnostics", "fitting"),
        ("spiking", "training"),
        ("distributions", "plots", "testing"),
    ),
}


@pytest.mark.parametrize("package", FLOORS)
def test_the_house_has_floors(package):
    floor_of = {name: floor for floor, names in enumerate(FLOORS[package]) for name in names}
    rooms = {module.split(".")[1] for module in FILES if module.startswith(f"{package}.")}
    assert rooms == set(floor_of)
    within = [
        (module, name)
        for module, names in IMPORTS.items()
        for name in names
        if module.startswith(f"{package}.") and name.startswith(f"{package}.")
    ]
    assert len(within) > 50
    assert not [(a, b) for a, b in within if floor_of[a.split(".")[1]] < floor_of[b.split(".")[1]]]
