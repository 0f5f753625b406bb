"""Find networks, clamps, parameters and evidence in a PyMC model."""
