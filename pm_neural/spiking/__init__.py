"""Spiking networks that learn to sample.

Needs the extra ``pm-neural[torch]``, which brings torch and Norse. No PyMC here.
"""

try:
    import nir  # noqa: F401
    import safetensors  # noqa: F401
    import torch  # noqa: F401

    from pm_neural.spiking.simulators import norse  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"pm_neural.spiking needs {error.name}, which is not installed; "
        "it comes with the extra: pip install 'pm-neural[torch]'",
        name=error.name,
    ) from error

from pm_neural.fitting.early_stopping import EarlyStopping
from pm_neural.spiking._inputs import InputSpikes
from pm_neural.spiking._law import joint_distribution
from pm_neural.spiking.lif_sampler import Calibration, LIFSampler
from pm_neural.spiking.network import SamplingNetwork, Traces

__all__ = [
    "Calibration",
    "EarlyStopping",
    "InputSpikes",
    "LIFSampler",
    "SamplingNetwork",
    "Traces",
    "joint_distribution",
]
