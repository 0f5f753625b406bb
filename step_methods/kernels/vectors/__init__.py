"""Vectors in registers, random numbers, and what happens to a vector of units."""
