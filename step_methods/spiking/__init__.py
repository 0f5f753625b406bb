"""Sampling of what is left of a network, or of any binary model, by spiking neurons."""
