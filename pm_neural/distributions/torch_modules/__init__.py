"""Modules of torch inside PyTensor's graphs; only `op` can be imported without torch."""
