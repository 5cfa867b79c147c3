"""Arrays that need not fit in memory: small ones lie in memory, large ones in files that nobody sees.

A large array is a file without a name, mapped into memory. Its pages belong to the system's file cache, not
to the process: they are written back and dropped when memory is short, so the memory of a process does not
grow with its data. The file is gone with the last reference to the array, also when the process is killed.
"""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

IN_MEMORY_BYTES = 256 << 20
BLOCK_BYTES = 32 << 20


class Workspace:
    """Where large arrays are put.

    Args:
        folder: existing folder on a disk with room for them; None puts everything in memory.
        in_memory_bytes: arrays of at most this many bytes lie in memory all the same.
    """

    def __init__(self, folder: Path | None = None, *, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self.folder, self.in_memory_bytes = folder, in_memory_bytes

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike = np.float32) -> np.ndarray:
        """An uninitialised array in C order.

        Raises:
            OSError: the disk has no room for it; better now than by a signal at the first write.
        """
        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        if self.folder is None or num_bytes <= self.in_memory_bytes:
            return np.empty(shape, dtype)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
            mapped = np.memmap(file, dtype, mode="r+", shape=tuple(shape))
        return np.asarray(mapped)


MEMORY = Workspace()
"""Everything in memory."""


def row_slices(num_rows: int, row_bytes: int, *, block_bytes: int = BLOCK_BYTES) -> Iterator[slice]:
    """Consecutive ranges of rows, of at most `block_bytes` (but one row) each."""
    step = max(1, block_bytes // max(row_bytes, 1))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
