"""What is left to sample of a network: its free units, with clamps and evidence folded in."""
