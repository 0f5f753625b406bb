"""Training of energy models in torch.

Needs the extra ``pm-neural[torch]``. No PyMC here: `parameters_as_numpy` of a machine gives what the PyMC
distributions take.
"""

try:
    import safetensors  # noqa: F401
    import torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"pm_neural.training needs {error.name}, which is not installed; "
        "it comes with the extra: pip install 'pm-neural[torch]'",
        name=error.name,
    ) from error

from pm_neural.training._early_stopping import EarlyStopping
from pm_neural.training._latent_evidence import LatentLogLikelihood
from pm_neural.training.energy_network import EnergyNetwork
from pm_neural.training.gaussian_rbm import GaussianRBM
from pm_neural.training.rbm import RBM
from pm_neural.training.standardizer import Standardizer
from pm_neural.training.vae import VAE

__all__ = ["RBM", "VAE", "EarlyStopping", "EnergyNetwork", "GaussianRBM", "LatentLogLikelihood", "Standardizer"]
