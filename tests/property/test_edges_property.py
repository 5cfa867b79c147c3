"""Canonical edges against a naive reference, on any edges, in any order, at any bucket size."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gcl.edges import EdgeChunk, EdgeCounts, EdgePolicy, canonical_edges, hold_out_edges

NUM_NODES = 40
PAIRS = st.lists(st.tuples(st.integers(0, NUM_NODES - 1), st.integers(0, NUM_NODES - 1)), max_size=80)
POLICIES = st.builds(
    EdgePolicy,
    self_loops=st.sampled_from(["remove", "keep"]),
    one_way=st.sampled_from(["symmetrise", "keep"]),
)


def run(
    pairs: list[tuple[int, int]],
    policy: EdgePolicy,
    *,
    bucket_rows: int,
    chunk_size: int,
    weighted: bool = False,
) -> tuple[list[tuple[int, ...]], EdgeCounts, list[tuple[int, ...]]]:
    """Edges with weights, counts, and the pairs that a holdout of 0.2 keeps."""
    src, dst = np.array(pairs, np.int64).reshape(-1, 2).T
    weight = (1 + (src * dst + src + dst) % 5).astype(np.float32) if weighted else None
    chunks = [
        EdgeChunk(
            src[i : i + chunk_size],
            dst[i : i + chunk_size],
            None if weight is None else weight[i : i + chunk_size],
        )
        for i in range(0, len(src), chunk_size)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        edges = canonical_edges(
            chunks, num_nodes=NUM_NODES, policy=policy, scratch=Path(scratch), bucket_rows=bucket_rows
        )
        rows = [
            tuple(map(float if weighted else int, row))
            for c in edges
            for row in zip(*((c.src, c.dst) + ((c.weight,) if weighted else ())), strict=True)
        ]
        held = hold_out_edges(edges, num_nodes=NUM_NODES, rate=0.2, seed=1)
        pairs_held = [tuple(map(int, row)) for part in (held.test, held.validation)
                      for row in zip(part.src, part.dst, part.is_edge, strict=True)]  # fmt: skip
        return rows, edges.counts, pairs_held


def reference(pairs: list[tuple[int, int]], policy: EdgePolicy) -> list[tuple[int, int]]:
    kept = {(s, d) for s, d in pairs if s != d or policy.self_loops == "keep"}
    if policy.one_way == "symmetrise":
        kept |= {(d, s) for s, d in kept}
    return sorted(kept)


@settings(max_examples=60, deadline=None)
@given(PAIRS, POLICIES, st.integers(1, 50), st.integers(1, 90))
def test_edges_equal_a_naive_reference(
    pairs: list[tuple[int, int]], policy: EdgePolicy, bucket_rows: int, chunk_size: int
) -> None:
    rows, counts, _ = run(pairs, policy, bucket_rows=bucket_rows, chunk_size=chunk_size)
    given_edges = [p for p in pairs if p[0] != p[1] or policy.self_loops == "keep"]
    assert rows == reference(pairs, policy)
    assert counts == EdgeCounts(
        num_read=len(pairs),
        num_self_loops=sum(s == d for s, d in pairs),
        num_duplicates=len(given_edges) - len(set(given_edges)),
        num_one_way=sum((d, s) not in set(given_edges) for s, d in set(given_edges)),
        num_kept=len(rows),
    )


@settings(max_examples=60, deadline=None)
@given(st.data(), PAIRS, POLICIES, st.booleans())
def test_order_and_chunks_of_the_source_cannot_matter(
    data: st.DataObject, pairs: list[tuple[int, int]], policy: EdgePolicy, weighted: bool
) -> None:
    if weighted and policy.one_way == "symmetrise":
        pairs = list(dict.fromkeys(pairs))  # repeats in one direction only would make the weights disagree
    shuffled = data.draw(st.permutations(pairs))
    bucket_rows, chunk_size = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 90))
    expected = run(pairs, policy, bucket_rows=1000, chunk_size=1000, weighted=weighted)
    assert (
        run(shuffled, policy, bucket_rows=bucket_rows, chunk_size=chunk_size, weighted=weighted) == expected
    )
