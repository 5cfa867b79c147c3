"""A matrix of a Parquet file that is read a block of rows at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.convert import matrix_blocks, matrix_shape


@dataclass(frozen=True)
class ParquetRows:
    """A fixed_size_list column of a table, as `gcl.row_blocks.RowBlocks`.

    Attributes:
        path: the file.
        column: the column's name.
    """

    path: Path
    column: str

    @property
    def shape(self) -> tuple[int, int]:
        """N and the length of the lists."""
        return matrix_shape(self.path, self.column)

    def blocks(self) -> Iterator[np.ndarray]:
        """Its rows as float32 [B, D], in order."""
        return matrix_blocks(self.path, self.column)
