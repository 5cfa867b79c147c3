"""Dropout whose draws can be made again, so that a backward pass need not keep them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gcl.random import derive_seed, torch_generator

Generator = np.random.SFC64 | torch.Generator
"""numpy's fastest on a CPU, where torch's takes twice as long; torch's on CUDA."""


@dataclass(frozen=True)
class Dropout:
    """A dropout whose draws can be made again: they derive from a seed, a purpose and counters.

    Attributes:
        rate: share dropped, in [0, 1); kept entries are scaled by the inverse of what is left.
        seed: run seed.
        purpose: what it is for.
        counters: epoch, step, pass, layer, ...
    """

    rate: float
    seed: int
    purpose: str
    counters: tuple[int, ...] = ()

    @property
    def levels(self) -> int:
        """How many of 65,536 equally likely 16-bit numbers mean that an entry is dropped."""
        return min(round(self.rate * 65_536), 65_535)

    @property
    def scale(self) -> float:
        """What kept entries are multiplied by, so that the mean stays."""
        return 65_536 / (65_536 - self.levels)

    def numbered(self, *counters: int) -> "Dropout":
        """The same dropout with further counters: other draws."""
        return Dropout(self.rate, self.seed, self.purpose, (*self.counters, *counters))

    def generator(self, device: torch.device) -> Generator:
        """The source of its draws, from the beginning."""
        if device.type == "cpu":
            return np.random.SFC64(derive_seed(self.seed, self.purpose, *self.counters))
        return torch_generator(self.seed, self.purpose, *self.counters, device=str(device))

    def kept(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """float32 of `shape`, 1 where an entry is kept and 0 where it is dropped: 16 bits an entry.

        To compare into floats and multiply by them takes a fraction of the time that bools take on a CPU.
        """
        size = int(np.prod(shape))
        word_S = _words(size, generator)
        return torch.ge(word_S, self.levels - 32_768, out=torch.empty(size, device=word_S.device)).view(shape)


def _words(count: int, generator: Generator) -> Tensor:
    """int16 numbers, all equally likely; four to a draw."""
    num_draws = (count + 3) // 4
    if isinstance(generator, torch.Generator):
        draws = torch.empty(num_draws, dtype=torch.int64, device=generator.device)
        return draws.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
    return torch.from_numpy(generator.random_raw(num_draws).view(np.int16)[:count])
