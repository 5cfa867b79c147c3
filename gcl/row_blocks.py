"""Matrices with a row a node that are read a block of rows at a time, and the rows taken out of them.

Legend: N nodes, D columns, R rows taken, B rows of a block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gcl.workspace import MEMORY, Workspace, row_slices


class RowBlocks(Protocol):
    """A float32 matrix [N, D] that need not lie in memory."""

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""

    def blocks(self) -> Iterator[np.ndarray]:
        """Its rows as float32 [B, D], in order; from the first one on at every call."""


Matrix = np.ndarray | RowBlocks
"""A matrix in memory (or mapped), or one that is read in blocks."""


@dataclass(frozen=True, eq=False)
class ArrayBlocks:
    """An array, in blocks of its rows."""

    array_ND: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        num_rows, width = self.array_ND.shape
        return num_rows, width

    def blocks(self) -> Iterator[np.ndarray]:
        """Views of 32 MiB; copies where the array is not float32 in C order."""
        for rows in row_slices(len(self.array_ND), 4 * self.array_ND.shape[1]):
            yield np.ascontiguousarray(self.array_ND[rows], np.float32)


def row_blocks(matrix: Matrix) -> RowBlocks:
    """`matrix` as one that is read in blocks.

    Raises:
        ValueError: when it is not a matrix of at least one row and column.
    """
    if len(matrix.shape) != 2 or 0 in matrix.shape:
        raise ValueError(f"embeddings must be a non-empty N x D matrix, not of shape {matrix.shape}")
    return ArrayBlocks(matrix) if isinstance(matrix, np.ndarray) else matrix


def take_rows(matrix: Matrix, rows_R: np.ndarray, workspace: Workspace = MEMORY) -> np.ndarray:
    """Some rows of a matrix, all rows of which are checked on the way.

    Args:
        matrix: float32 [N, D].
        rows_R: int64, ascending, of 0..N-1.
        workspace: where the result is put.

    Returns:
        float32 [R, D] in C order; an array of float32 itself where all its rows are taken.

    Raises:
        ValueError: when it is no matrix, or holds NaN or infinity, in whichever row.
    """
    source = row_blocks(matrix)
    taken_RD = _itself(matrix, rows_R)
    is_copied = taken_RD is None
    if taken_RD is None:
        taken_RD = workspace.empty((len(rows_R), source.shape[1]))
    start, filled, num_bad = 0, 0, 0
    for z_BD in source.blocks():
        is_finite = np.isfinite(z_BD)
        num_bad += 0 if is_finite.all() else int((~is_finite).any(1).sum())
        after = int(np.searchsorted(rows_R, start + len(z_BD)))
        if is_copied:
            taken_RD[filled:after] = z_BD[rows_R[filled:after] - start]
        start, filled = start + len(z_BD), after
    if num_bad:
        raise ValueError(f"{num_bad} embedding row(s) are not finite")
    return taken_RD


def _itself(matrix: Matrix, rows_R: np.ndarray) -> np.ndarray | None:
    """The array, if it is one and all its rows are asked for; else None."""
    is_fit = isinstance(matrix, np.ndarray) and matrix.dtype == np.float32 and matrix.flags.c_contiguous
    return matrix if isinstance(matrix, np.ndarray) and is_fit and len(rows_R) == len(matrix) else None


def whole_matrix(matrix: Matrix, workspace: Workspace = MEMORY) -> np.ndarray:
    """All rows as one float32 [N, D]: for access in any order.

    Args:
        matrix: float32 [N, D]; an array comes back as it is.
        workspace: where the rows of another are put.
    """
    if isinstance(matrix, np.ndarray):
        return matrix
    whole_ND, start = workspace.empty(matrix.shape), 0
    for z_BD in matrix.blocks():
        whole_ND[start : start + len(z_BD)] = z_BD
        start += len(z_BD)
    return whole_ND
