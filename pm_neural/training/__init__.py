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

from pm_neural.fitting.early_stopping import EarlyStopping
from pm_neural.training.autoencoder.latent_evidence import LatentLogLikelihood
from pm_neural.training.autoencoder.vae import VAE
from pm_neural.training.energy.network import EnergyNetwork
from pm_neural.training.restricted.gaussian_rbm import GaussianRBM
from pm_neural.training.restricted.rbm import RBM
from pm_neural.training.standardizer import Standardizer

__all__ = ["RBM", "VAE", "EarlyStopping", "EnergyNetwork", "GaussianRBM", "LatentLogLikelihood", "Standardizer"]
