"""Node features as a stream of blocks of rows: what does not fit in memory is read once more for each pass.

Shape legend: N nodes, F features, B rows of a block.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from gcl.graph import Features
from gcl.workspace import row_slices


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Features of all nodes, in blocks.

    Attributes:
        shape: N and F.
        blocks: a fresh pass: float32 blocks of rows in node order, dense or CSR, of any height.
    """

    shape: tuple[int, int]
    blocks: Callable[[], Iterator[Features]]

    @classmethod
    def of(cls, x_NF: Features) -> "FeatureRows":
        """The rows of a matrix, which may be memory-mapped."""
        num_rows, width = x_NF.shape

        def blocks() -> Iterator[Features]:
            for rows in row_slices(num_rows, 4 * width):
                yield x_NF[rows]

        return cls((num_rows, width), blocks)

    def map(self, function: Callable[[Features], Features]) -> "FeatureRows":
        """The rows as a function that treats each by itself makes them; the width stays."""

        def blocks() -> Iterator[Features]:
            for x_BF in self.blocks():
                yield function(x_BF)

        return FeatureRows(self.shape, blocks)

    def whole(self) -> Features:
        """All rows as one matrix in memory."""
        found: list[Any] = list(self.blocks())
        if len(found) == 1:
            return found[0]  # type: ignore[no-any-return]
        if any(sp.issparse(x_BF) for x_BF in found):
            return sp.csr_matrix(sp.vstack(found, format="csr"))
        return np.concatenate(found) if found else np.empty(self.shape, np.float32)


def standardised(rows: FeatureRows) -> FeatureRows:
    """Each column divided by its standard deviation and, if dense, moved to mean 0; constant ones become 0.

    For columns of different units (age, income): without it the largest unit decides every similarity.
    Sparse columns are scaled only, since moving them would fill them. Takes two passes.
    """
    num_rows = max(rows.shape[0], 1)
    mean_F = sum((_column_sums(x_BF) for x_BF in rows.blocks()), np.zeros(rows.shape[1])) / num_rows

    def squares(x_BF: Features) -> np.ndarray:
        if isinstance(x_BF, np.ndarray):
            return np.asarray(((x_BF - mean_F) ** 2).sum(0))
        # The entries that are not stored are zeros, at a distance of the mean each.
        stored_F = np.bincount(x_BF.indices, minlength=x_BF.shape[1])
        distance = (x_BF.data.astype(np.float64) - mean_F[x_BF.indices]) ** 2
        around_F = np.bincount(x_BF.indices, weights=distance, minlength=x_BF.shape[1])
        return np.asarray(around_F + (x_BF.shape[0] - stored_F) * mean_F**2)

    variance_F = sum((squares(x_BF) for x_BF in rows.blocks()), np.zeros(rows.shape[1])) / num_rows
    deviation_F = np.sqrt(variance_F)
    # What the rounding of the mean leaves of a constant column is not a deviation.
    varies_F = deviation_F > 1e-9 * np.abs(mean_F)
    scale_F = np.divide(1.0, deviation_F, out=np.zeros_like(deviation_F), where=varies_F)

    def scaled(x_BF: Features) -> Features:
        if isinstance(x_BF, np.ndarray):
            return np.asarray(((x_BF - mean_F) * scale_F).astype(np.float32))
        data = (x_BF.data * scale_F[x_BF.indices]).astype(np.float32)
        return sp.csr_matrix((data, x_BF.indices, x_BF.indptr), shape=x_BF.shape)

    return rows.map(scaled)


def finite(rows: FeatureRows) -> FeatureRows:
    """The rows, raising ValueError at the first block that holds NaN or infinity."""

    def checked(x_BF: Features) -> Features:
        if not np.isfinite(x_BF.data if sp.issparse(x_BF) else x_BF).all():
            raise ValueError(
                "features contain NaN or infinite values; smoothing would spread them to all neighbours"
            )
        return x_BF

    return rows.map(checked)


def _column_sums(x_BF: Features) -> np.ndarray:
    if isinstance(x_BF, np.ndarray):
        return np.asarray(x_BF.sum(0, dtype=np.float64))
    return np.bincount(x_BF.indices, weights=x_BF.data.astype(np.float64), minlength=x_BF.shape[1])
