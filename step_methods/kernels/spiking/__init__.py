"""Networks of spiking neurons that sample."""
