"""Losses as pure functions: tensors in, one scalar to minimise out; no state, no global randomness."""
