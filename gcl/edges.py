"""Canonical edges: any stream of raw edges, sorted by (src, dst), without repeats, under a declared policy.

The order, multiplicity and direction of edges in public files differ between copies of the same graph,
so none of them may reach a digest. An external bucket sort by source node brings every stream into one
form in memory that does not grow with the number of edges.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from gcl.edge_buckets import PLAIN_ROW, WEIGHTED_ROW, EdgeBucket, EdgeChunk, row_keys, sorted_rows
from gcl.edge_holdout import HeldOutEdges, HeldOutPairs, hold_out_edges
from gcl.errors import InvalidGraph

__all__ = [
    "CanonicalEdges",
    "EdgeChunk",
    "EdgeCounts",
    "EdgePolicy",
    "HeldOutEdges",
    "HeldOutPairs",
    "canonical_edges",
    "hold_out_edges",
]

MAX_NODES = 2**31  # (src * N + dst) * 2 + 1 must fit an int64 key


@dataclass(frozen=True)
class EdgePolicy:
    """What to do with edges a simple undirected graph does not have.

    Attributes:
        self_loops: drop them, keep them, or refuse the graph.
        duplicates: merge repeats of (src, dst), adding up their weights, or refuse the graph.
        one_way: for an edge whose opposite is absent: add the opposite, keep the graph directed, or refuse.
    """

    self_loops: Literal["remove", "keep", "reject"] = "remove"
    duplicates: Literal["merge", "reject"] = "merge"
    one_way: Literal["symmetrise", "keep", "reject"] = "symmetrise"


@dataclass(frozen=True)
class EdgeCounts:
    """What was met on the way, as counts of directed edges.

    Attributes:
        num_read: edges of the source.
        num_self_loops: of these, edges from a node to itself.
        num_duplicates: repeats of an earlier (src, dst), without removed self-loops.
        num_one_way: distinct edges whose opposite is not in the source.
        num_kept: canonical edges given out; both directions count.
    """

    num_read: int
    num_self_loops: int
    num_duplicates: int
    num_one_way: int
    num_kept: int


@dataclass
class _Finding:
    """Rows that break one rule: how many, and the first ten."""

    num_rows: int = 0
    sample: list[str] = field(default_factory=list)

    def add(self, src: np.ndarray, dst: np.ndarray) -> None:
        self.num_rows += len(src)
        for s, d in zip(src[: 10 - len(self.sample)], dst[: 10 - len(self.sample)], strict=True):
            self.sample.append(f"({int(s)}, {int(d)})")

    def raise_if_any(self, column: str, rule: str) -> None:
        if self.num_rows:
            raise InvalidGraph(
                table="graph.edges", column=column, rule=rule, num_rows=self.num_rows, sample=self.sample
            )


class CanonicalEdges:
    """Edges strictly increasing by (src, dst); iterate as often as needed while `scratch` exists.

    Rules of the policy that reject are decided on the whole stream: the last step of an iteration raises
    InvalidGraph with the full count, so write what it gives out where a failure leaves nothing behind.
    """

    def __init__(
        self, root: EdgeBucket, row: np.dtype, policy: EdgePolicy, *, num_read: int, num_self_loops: int
    ) -> None:
        self._root, self._row, self._policy = root, row, policy
        self._num_read, self._num_self_loops = num_read, num_self_loops
        self._counts: EdgeCounts | None = None

    @property
    def counts(self) -> EdgeCounts:
        """The counts; known once the edges have been iterated to the end."""
        if self._counts is None:
            raise ValueError("the counts of canonical edges are known after their first full iteration")
        return self._counts

    @property
    def has_weights(self) -> bool:
        """Whether chunks carry weights."""
        return bool(self._row == WEIGHTED_ROW)

    @property
    def is_undirected(self) -> bool:
        """Whether every edge given out has its opposite; known after the first full iteration."""
        return self._policy.one_way != "keep" or self.counts.num_one_way == 0

    def __iter__(self) -> Iterator[EdgeChunk]:
        merge = _Merge(self._root.num_nodes, self._policy)
        for rows in self._root.leaves(self._row):
            chunk = merge.merged(rows)
            if len(chunk.src):
                yield chunk
        merge.raise_findings()
        self._counts = EdgeCounts(
            self._num_read, self._num_self_loops, merge.num_duplicates, merge.num_one_way, merge.num_kept
        )


class _Merge:
    """Turns rows of complete source nodes into canonical edges, and counts."""

    def __init__(self, num_nodes: int, policy: EdgePolicy) -> None:
        self.num_nodes, self.policy = num_nodes, policy
        self.num_duplicates = self.num_one_way = self.num_kept = 0
        self.duplicate, self.one_way, self.disagreeing = _Finding(), _Finding(), _Finding()

    def merged(self, rows: np.ndarray) -> EdgeChunk:
        rows = sorted_rows(rows)
        keys = row_keys(rows)
        pair = keys >> 1
        start = np.flatnonzero(np.diff(pair, prepend=-1))
        # The opposite of every edge was added to the stream with the lowest bit of its key set.
        num_rows = np.diff(start, append=len(keys))
        num_opposite = np.add.reduceat(keys & 1, start) if len(start) else num_rows
        num_given = num_rows - num_opposite
        src, dst = pair[start] // self.num_nodes, pair[start] % self.num_nodes
        weight = None
        if rows.dtype == WEIGHTED_ROW:
            weight = self._weights(rows, start, src, dst, num_given, num_opposite)
        self._count(src, dst, num_given, num_opposite)
        kept = np.full(len(src), True) if self.policy.one_way == "symmetrise" else num_given > 0
        self.num_kept += int(kept.sum())
        return EdgeChunk(src[kept], dst[kept], None if weight is None else weight[kept])

    def raise_findings(self) -> None:
        if self.policy.duplicates == "reject":
            self.duplicate.raise_if_any("src, dst", "edges_unique")
        if self.policy.one_way == "reject":
            self.one_way.raise_if_any("src, dst", "both_directions_present")
        self.disagreeing.raise_if_any("weight", "weights_equal_in_both_directions")

    def _count(
        self, src: np.ndarray, dst: np.ndarray, num_given: np.ndarray, num_opposite: np.ndarray
    ) -> None:
        repeated = num_given > 1
        self.num_duplicates += int((num_given[repeated] - 1).sum())
        self.duplicate.add(src[repeated], dst[repeated])
        alone = (num_opposite == 0) & (src != dst)
        self.num_one_way += int(alone.sum())
        self.one_way.add(src[alone], dst[alone])

    def _weights(
        self,
        rows: np.ndarray,
        start: np.ndarray,
        src: np.ndarray,
        dst: np.ndarray,
        num_given: np.ndarray,
        num_opposite: np.ndarray,
    ) -> np.ndarray:
        """Sums of repeats in ascending order and double precision, so that input order cannot matter."""
        if not len(start):
            return np.empty(0, np.float32)
        weight, is_opposite = rows["weight"].astype(np.float64), (rows["key"] & 1).astype(bool)
        given = np.add.reduceat(np.where(is_opposite, 0, weight), start).astype(np.float32)
        opposite = np.add.reduceat(np.where(is_opposite, weight, 0), start).astype(np.float32)
        if self.policy.one_way != "keep":
            differs = (num_given > 0) & (num_opposite > 0) & (given != opposite)
            self.disagreeing.add(src[differs], dst[differs])
        weights: np.ndarray = np.where(num_given > 0, given, opposite)
        return weights


def canonical_edges(
    chunks: Iterable[EdgeChunk],
    *,
    num_nodes: int,
    policy: EdgePolicy,
    scratch: Path,
    bucket_rows: int = 4_000_000,
) -> CanonicalEdges:
    """Sort, merge and symmetrise a stream of raw edges; independent of its order and chunks.

    Args:
        chunks: raw edges as the source has them; consumed at once.
        num_nodes: N, at most 2**31; endpoints must lie in [0, N).
        policy: what to do with self-loops, repeats and edges in one direction.
        scratch: existing folder for spilled rows, needed beyond `bucket_rows`; the caller removes it.
        bucket_rows: rows sorted at a time (an edge is two); 8 or 12 bytes each, times about five.

    Returns:
        The edges, to be iterated; their counts are known afterwards. The weights of parallel edges in the
        same direction add up; an undirected edge listed in both directions must have one weight, which
        is not added twice.

    Raises:
        InvalidGraph: no nodes, endpoints outside the graph, weights not finite and positive, rejected
            self-loops; from the iteration: rejected repeats or directions, weights that depend on
            the direction.
    """
    if num_nodes == 0:
        raise InvalidGraph(
            table="graph.nodes", column="node", rule="graph_not_empty", num_rows=0, sample=["no nodes"]
        )
    if not 0 < num_nodes <= MAX_NODES:
        raise ValueError(f"num_nodes must lie in [1, {MAX_NODES}], not {num_nodes}")
    intake = _Intake(num_nodes, policy, scratch, bucket_rows)
    for chunk in chunks:
        intake.add(chunk)
    return intake.finish()


class _Intake:
    """Checks raw edges and keys them into buckets, each with its opposite."""

    def __init__(self, num_nodes: int, policy: EdgePolicy, scratch: Path, bucket_rows: int) -> None:
        self.num_nodes, self.policy = num_nodes, policy
        self.root = EdgeBucket(0, num_nodes, num_nodes=num_nodes, folder=scratch, max_rows=bucket_rows)
        self.num_read = self.num_self_loops = 0
        self.row: np.dtype | None = None
        self.bad_src, self.bad_dst, self.bad_weight = _Finding(), _Finding(), _Finding()
        self.loops = _Finding()

    def add(self, chunk: EdgeChunk) -> None:
        self.num_read += len(chunk.src)
        row = PLAIN_ROW if chunk.weight is None else WEIGHTED_ROW
        if self.row not in (None, row):
            raise ValueError("either every chunk of edges has weights, or none has")
        self.row = row
        chunk = self._within_range(chunk)
        is_loop = chunk.src == chunk.dst
        self.num_self_loops += int(is_loop.sum())
        self.loops.add(chunk.src[is_loop], chunk.dst[is_loop])
        if self.policy.self_loops != "keep":
            chunk = chunk.where(~is_loop)
        self.root.add(self._rows(chunk, is_opposite=False))
        # A self-loop is its own opposite: its row in this direction stands for both.
        opposite = chunk.where(chunk.src != chunk.dst)
        self.root.add(self._rows(EdgeChunk(opposite.dst, opposite.src, opposite.weight), is_opposite=True))

    def finish(self) -> CanonicalEdges:
        self.bad_src.raise_if_any("src", "endpoints_in_range")
        self.bad_dst.raise_if_any("dst", "endpoints_in_range")
        self.bad_weight.raise_if_any("weight", "weights_finite_and_positive")
        if self.policy.self_loops == "reject":
            self.loops.raise_if_any("src, dst", "no_self_loops")
        row = PLAIN_ROW if self.row is None else self.row
        return CanonicalEdges(
            self.root, row, self.policy, num_read=self.num_read, num_self_loops=self.num_self_loops
        )

    def _within_range(self, chunk: EdgeChunk) -> EdgeChunk:
        bad_src = (chunk.src < 0) | (chunk.src >= self.num_nodes)
        bad_dst = ((chunk.dst < 0) | (chunk.dst >= self.num_nodes)) & ~bad_src
        bad = bad_src | bad_dst
        self.bad_src.add(chunk.src[bad_src], chunk.dst[bad_src])
        self.bad_dst.add(chunk.src[bad_dst], chunk.dst[bad_dst])
        if chunk.weight is not None:
            bad_weight = ~(np.isfinite(chunk.weight) & (chunk.weight > 0))
            self.bad_weight.add(chunk.src[bad_weight], chunk.dst[bad_weight])
            bad |= bad_weight
        return chunk.where(~bad) if bad.any() else chunk

    def _rows(self, chunk: EdgeChunk, *, is_opposite: bool) -> np.ndarray:
        keys: np.ndarray = (chunk.src.astype(np.int64) * self.num_nodes + chunk.dst) * 2 + is_opposite
        if chunk.weight is None:
            return keys
        rows = np.empty(len(keys), WEIGHTED_ROW)
        rows["key"], rows["weight"] = keys, chunk.weight
        return rows
