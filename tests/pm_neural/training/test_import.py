import importlib
import sys

import pytest

import pm_neural.training


@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "pm_neural.training")
    with pytest.raises(ModuleNotFoundError, match=rf"needs {package}.*pip install 'pm-neural\[torch\]'"):
        importlib.import_module("pm_neural.training")


def test_public_names():
    classes = ["EarlyStopping", "EnergyNetwork", "GaussianRBM", "LatentLogLikelihood", "Standardizer"]
    assert pm_neural.training.__all__ == ["RBM", "VAE", *classes]
