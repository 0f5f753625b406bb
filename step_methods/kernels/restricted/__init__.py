"""Networks of two layers."""
