"""Small machines and data that the tests of training share."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pm_neural.training import RBM


@pytest.fixture
def random_rbm(rng: np.random.Generator) -> Callable[..., RBM]:
    """Make an RBM with parameters from N(0, sd²)."""

    def make(n_visible: int = 4, n_hidden: int = 3, sd: float = 1.0, **options) -> RBM:
        rbm = RBM(n_visible, n_hidden, **{"dtype": torch.float64, **options})
        with torch.no_grad():
            for parameter in rbm.parameters():
                values = rng.normal(scale=sd, size=tuple(parameter.shape))
                parameter.copy_(torch.as_tensor(values))
        return rbm

    return make


@pytest.fixture
def stripes() -> np.ndarray:
    """MacKay's bars and stripes: all 30 images of 4×4 pixels whose rows, or columns, are alike."""
    rows = (np.arange(16)[:, None] >> np.arange(4)) & 1
    across = np.repeat(rows, 4, axis=1)
    down = np.tile(rows, (1, 4))
    return np.unique(np.concatenate([across, down]), axis=0).astype(float)
