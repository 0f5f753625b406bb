"""Networks with couplings between any units, two-valued or real."""
