"""Randomness derived from (seed, purpose, counters): no global generator, nothing to save on a checkpoint."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed for one purpose, the same on every machine and Python version.

    Args:
        seed: the run's seed.
        purpose: what the numbers are for, e.g. ``"augment"``; different purposes are independent.
        *counters: epoch, step, view, ...
    """
    text = ":".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A numpy generator (Philox) for (seed, purpose, counters)."""
    return np.random.Generator(np.random.Philox(derive_seed(seed, purpose, *counters)))


def torch_generator(seed: int, purpose: str, *counters: int, device: str = "cpu") -> "torch.Generator":
    """A torch generator for (seed, purpose, counters) on `device`."""
    import torch

    generator = torch.Generator(device=device)
    generator.manual_seed(derive_seed(seed, purpose, *counters))
    return generator
