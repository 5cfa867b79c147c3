"""Chunks of edges, and the buckets by source node in which they wait, in memory or in scratch files.

An edge (src, dst) of a graph of N nodes is the key (src * N + dst) * 2, its opposite direction the same
with the lowest bit set; sorting keys sorts edges, and one integer a row keeps the sort fast.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_FANOUT = 64
WEIGHTED_ROW = np.dtype([("key", "<i8"), ("weight", "<f4")])
PLAIN_ROW = np.dtype("<i8")


@dataclass(frozen=True, eq=False)
class EdgeChunk:
    """Some edges of a stream.

    Attributes:
        src: int64 source positions.
        dst: int64 target positions, as many.
        weight: float32 weights, as many; None in a stream without weights.
    """

    src: np.ndarray
    dst: np.ndarray
    weight: np.ndarray | None = None

    def where(self, chosen: np.ndarray) -> "EdgeChunk":
        """The edges that a boolean mask chooses."""
        weight = None if self.weight is None else self.weight[chosen]
        return EdgeChunk(self.src[chosen], self.dst[chosen], weight)


class EdgeBucket:
    """Rows whose source lies in [low, high): in memory while few, in files by narrower ranges when many."""

    def __init__(self, low: int, high: int, *, num_nodes: int, folder: Path, max_rows: int) -> None:
        self.low, self.high, self.num_nodes, self.max_rows = low, high, num_nodes, max_rows
        self.folder = folder
        self.num_rows = 0
        self._parts: list[np.ndarray] = []
        self._children: list[EdgeBucket] | None = None
        self._file: Path | None = None

    def add(self, rows: np.ndarray) -> None:
        """Take rows of this range of sources; all of one dtype."""
        self.num_rows += len(rows)
        if self._children is not None:
            self._scatter(rows)
        elif self._file is not None:
            with self._file.open("ab") as file:
                file.write(rows.tobytes())
        else:
            self._parts.append(rows)
            if self.num_rows > self.max_rows and self.high - self.low > 1:
                self._split()

    def leaves(self, row: np.dtype) -> Iterator[np.ndarray]:
        """The rows, in ascending ranges of source nodes, unsorted within each."""
        if self._children is not None:
            for child in self._children:
                yield from child.leaves(row)
        elif self._file is None:
            yield np.concatenate(self._parts) if self._parts else np.empty(0, row)
        elif self.num_rows <= self.max_rows or self.high - self.low == 1:
            yield np.fromfile(self._file, row)
        else:
            yield from self._narrower(self._file, row)

    def _within(self, low: int, high: int, folder: Path) -> "EdgeBucket":
        return EdgeBucket(low, high, num_nodes=self.num_nodes, folder=folder, max_rows=self.max_rows)

    def _split(self) -> None:
        width, count = self.high - self.low, min(_FANOUT, self.high - self.low)
        bounds = [self.low + (width * i + count - 1) // count for i in range(count + 1)]
        self._children = []
        for low, high in zip(bounds[:-1], bounds[1:], strict=True):
            child = EdgeBucket(
                low, high, num_nodes=self.num_nodes, folder=self.folder, max_rows=self.max_rows
            )
            child._file = self.folder / f"edges-{low}-{high}.bin"
            child._file.write_bytes(b"")
            self._children.append(child)
        parts, self._parts = self._parts, []
        for part in parts:
            self._scatter(part)

    def _scatter(self, rows: np.ndarray) -> None:
        children = self._children or []
        src = row_keys(rows) // (2 * self.num_nodes)
        index = (src - self.low) * len(children) // (self.high - self.low)
        order = np.argsort(index, kind="stable")
        ends = np.searchsorted(index[order], np.arange(len(children)), side="right")
        for child, part in zip(children, np.split(rows[order], ends[:-1]), strict=True):
            if len(part):
                child.add(part)

    def _narrower(self, path: Path, row: np.dtype) -> Iterator[np.ndarray]:
        """Distribute an overfull file over narrower ranges, and give those out; they live only meanwhile."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            inner = self._within(self.low, self.high, Path(name))
            inner._split()
            with path.open("rb") as file:
                while len(rows := np.fromfile(file, row, count=self.max_rows)):
                    inner.add(rows)
            yield from inner.leaves(row)


def row_keys(rows: np.ndarray) -> np.ndarray:
    """int64 keys of plain or weighted rows."""
    keys: np.ndarray = rows["key"] if rows.dtype == WEIGHTED_ROW else rows
    return keys


def sorted_rows(rows: np.ndarray) -> np.ndarray:
    """Rows in ascending order of key, and of weight among equal keys."""
    if rows.dtype == WEIGHTED_ROW:
        return rows[np.lexsort((rows["weight"], rows["key"]))]
    return np.sort(rows)
