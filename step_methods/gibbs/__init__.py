"""Block Gibbs sampling of what is left of a network."""
