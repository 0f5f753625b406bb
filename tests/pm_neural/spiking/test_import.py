import importlib
import subprocess
import sys

import pytest

import pm_neural.spiking


@pytest.mark.parametrize("package", ["torch", "norse", "nir", "safetensors"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch, package):
    for name in [name for name in sys.modules if name.startswith(("norse", "pm_neural.spiking"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {package}.*pip install 'pm-neural\[torch\]'"):
        importlib.import_module("pm_neural.spiking")


def test_import_does_not_warn_nor_set_up_logging():
    code = "import logging, pm_neural as pmn; pmn.spiking.SamplingNetwork; assert not logging.root.handlers"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr


def test_public_names():
    names = "Calibration EarlyStopping InputSpikes LIFSampler SamplingNetwork Traces joint_distribution"
    assert pm_neural.spiking.__all__ == names.split()
