"""Canonical edges: order, counts, policies, weights, spilling; held-out edges."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gcl.edges import CanonicalEdges, EdgeChunk, EdgePolicy, canonical_edges, hold_out_edges
from gcl.errors import InvalidGraph


def edges_of(
    pairs: list[tuple[int, int]],
    scratch: Path,
    *,
    num_nodes: int = 6,
    weight: list[float] | None = None,
    bucket_rows: int = 4_000_000,
    **policy: Any,
) -> CanonicalEdges:
    src, dst = np.array(pairs, np.int64).reshape(-1, 2).T
    weights = None if weight is None else np.array(weight, np.float32)
    return canonical_edges(
        [EdgeChunk(src, dst, weights)],
        num_nodes=num_nodes,
        policy=EdgePolicy(**policy),
        scratch=scratch,
        bucket_rows=bucket_rows,
    )


def pairs_of(edges: Any) -> list[tuple[int, int]]:
    return [(int(s), int(d)) for chunk in edges for s, d in zip(chunk.src, chunk.dst, strict=True)]


def weights_of(edges: CanonicalEdges) -> list[float]:
    return [float(w) for chunk in edges for w in chunk.weight]


def test_edges_are_sorted_symmetric_and_counted(tmp_path: Path) -> None:
    edges = edges_of([(3, 1), (1, 3), (0, 2), (0, 2), (4, 4)], tmp_path)
    assert pairs_of(edges) == [(0, 2), (1, 3), (2, 0), (3, 1)]
    counts = edges.counts
    assert (counts.num_read, counts.num_self_loops, counts.num_duplicates) == (5, 1, 1)
    assert (counts.num_one_way, counts.num_kept) == (1, 4)
    assert edges.is_undirected


def test_edges_iterate_twice_with_the_same_counts(tmp_path: Path) -> None:
    edges = edges_of([(3, 1), (0, 2), (0, 2)], tmp_path, bucket_rows=2)
    first = pairs_of(edges)
    counts = edges.counts
    assert pairs_of(edges) == first
    assert edges.counts == counts


def test_counts_before_iteration_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="first full iteration"):
        _ = edges_of([(0, 1)], tmp_path).counts


def test_self_loops_kept_stand_once(tmp_path: Path) -> None:
    edges = edges_of([(2, 2), (2, 2), (0, 1)], tmp_path, self_loops="keep")
    assert pairs_of(edges) == [(0, 1), (1, 0), (2, 2)]
    assert edges.counts.num_duplicates == 1
    assert edges.counts.num_one_way == 1


def test_directed_graph_is_kept_and_known_as_such(tmp_path: Path) -> None:
    edges = edges_of([(2, 0), (0, 1), (1, 0)], tmp_path, one_way="keep")
    assert pairs_of(edges) == [(0, 1), (1, 0), (2, 0)]
    assert not edges.is_undirected


def test_directed_policy_on_symmetric_edges_is_undirected(tmp_path: Path) -> None:
    edges = edges_of([(0, 1), (1, 0)], tmp_path, one_way="keep")
    list(edges)
    assert edges.is_undirected


@pytest.mark.parametrize(
    ("policy", "pairs", "rule", "num_rows"),
    [
        ({"self_loops": "reject"}, [(1, 1), (2, 2), (0, 1)], "no_self_loops", 2),
        ({"duplicates": "reject"}, [(0, 1), (0, 1), (2, 3)], "edges_unique", 1),
        ({"one_way": "reject"}, [(0, 1), (1, 0), (2, 3)], "both_directions_present", 1),
    ],
)
def test_rejecting_policy_refuses_with_count_and_rows(
    policy: dict[str, str], pairs: list[tuple[int, int]], rule: str, num_rows: int, tmp_path: Path
) -> None:
    with pytest.raises(InvalidGraph) as caught:
        list(edges_of(pairs, tmp_path, **policy))
    assert (caught.value.table, caught.value.rule, caught.value.num_rows) == ("graph.edges", rule, num_rows)
    assert caught.value.sample


@pytest.mark.parametrize("bad", [-1, 6, 2**31, -(2**31), 2**62])
@pytest.mark.parametrize("column", ["src", "dst"])
def test_endpoint_out_of_range_is_refused_with_the_first_ten(bad: int, column: str, tmp_path: Path) -> None:
    pair = (bad, 0) if column == "src" else (0, bad)
    with pytest.raises(InvalidGraph) as caught:
        edges_of([(0, 1)] + [pair] * 12, tmp_path)
    error = caught.value
    assert (error.column, error.rule, error.num_rows) == (column, "endpoints_in_range", 12)
    assert error.sample == (f"({pair[0]}, {pair[1]})",) * 10


def test_last_node_is_in_range(tmp_path: Path) -> None:
    assert pairs_of(edges_of([(5, 0)], tmp_path)) == [(0, 5), (5, 0)]


def test_no_nodes_is_an_invalid_graph_and_no_edges_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidGraph, match="graph_not_empty"):
        edges_of([], tmp_path, num_nodes=0)
    edges = edges_of([], tmp_path, num_nodes=1)
    assert pairs_of(edges) == []
    assert edges.counts.num_kept == 0


def test_weights_of_repeats_add_up_whatever_their_order(tmp_path: Path) -> None:
    # Summed from the largest down, the smallest are lost and the result rounds the other way.
    values = [1.0, 2.0**-24, *[2.0**-54] * 4]
    results = {
        tuple(weights_of(edges_of([(0, 1)] * 6, tmp_path, weight=list(order))))
        for order in (values, values[::-1], values[3:] + values[:3])
    }
    assert results == {(1 + 2.0**-23,) * 2}


def test_weight_listed_in_both_directions_counts_once(tmp_path: Path) -> None:
    assert weights_of(edges_of([(0, 1), (1, 0)], tmp_path, weight=[2.5, 2.5])) == [2.5, 2.5]


def test_weights_that_disagree_are_refused_unless_directed(tmp_path: Path) -> None:
    with pytest.raises(InvalidGraph, match="weights_equal_in_both_directions"):
        list(edges_of([(0, 1), (1, 0)], tmp_path, weight=[2, 3]))
    assert weights_of(edges_of([(0, 1), (1, 0)], tmp_path, weight=[2, 3], one_way="keep")) == [2, 3]


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weight_not_finite_and_positive_is_refused(weight: float, tmp_path: Path) -> None:
    with pytest.raises(InvalidGraph, match="weights_finite_and_positive"):
        edges_of([(0, 1)], tmp_path, weight=[weight])


def test_weighted_and_plain_chunks_do_not_mix(tmp_path: Path) -> None:
    one = np.array([0]), np.array([1])
    chunks = [EdgeChunk(*one), EdgeChunk(*one, np.ones(1, np.float32))]
    with pytest.raises(ValueError, match="either every chunk"):
        canonical_edges(chunks, num_nodes=2, policy=EdgePolicy(), scratch=tmp_path)


@pytest.mark.parametrize("weighted", [False, True])
def test_spilled_edges_equal_edges_in_memory(weighted: bool, tmp_path: Path) -> None:
    """Few rows a bucket and a hub: files, files split again, and one node beyond the limit."""
    rng = np.random.default_rng(5)
    src = np.concatenate([rng.integers(700, size=3000), np.full(400, 13)])
    dst = rng.integers(700, size=3400)
    weight = (1 + (src + dst) % 7).tolist() if weighted else None
    pairs = list(zip(src.tolist(), dst.tolist(), strict=True))
    few, many = tmp_path / "few", tmp_path / "many"
    few.mkdir()
    many.mkdir()
    plain = edges_of(pairs, few, num_nodes=700, weight=weight, one_way="keep")
    spilled = edges_of(pairs, many, num_nodes=700, weight=weight, one_way="keep", bucket_rows=40)
    assert pairs_of(spilled) == pairs_of(plain)
    assert spilled.counts == plain.counts
    assert not weighted or weights_of(spilled) == weights_of(plain)
    assert not list(few.iterdir())
    assert list(many.iterdir())
    assert max(len(chunk.src) for chunk in spilled) < 900  # the hub's row, not the graph


def ring(num_nodes: int, scratch: Path, step: int = 1) -> CanonicalEdges:
    return edges_of([(i, (i + step) % num_nodes) for i in range(num_nodes)], scratch, num_nodes=num_nodes)


def test_held_out_edges_partition_the_graph(tmp_path: Path) -> None:
    edges = ring(4000, tmp_path)
    held = hold_out_edges(edges, num_nodes=4000, rate=0.1, seed=3)
    training = {pair for pair in pairs_of(held.training) if pair[0] < pair[1]}
    test = {
        (int(s), int(d)) for s, d, e in zip(held.test.src, held.test.dst, held.test.is_edge, strict=True) if e
    }
    validation = {
        (int(s), int(d))
        for s, d, e in zip(held.validation.src, held.validation.dst, held.validation.is_edge, strict=True)
        if e
    }
    assert training | test | validation == {pair for pair in pairs_of(edges) if pair[0] < pair[1]}
    assert len(training) + len(test) + len(validation) == 4000
    # Binomial: five standard deviations around 400 and 200.
    assert abs(len(test) - 400) < 5 * 19
    assert abs(len(validation) - 200) < 5 * 14


def test_training_edges_keep_both_directions(tmp_path: Path) -> None:
    held = hold_out_edges(ring(500, tmp_path), num_nodes=500, rate=0.3, seed=1)
    pairs = set(pairs_of(held.training))
    assert {(d, s) for s, d in pairs} == pairs


def test_non_edges_are_absent_distinct_and_as_many(tmp_path: Path) -> None:
    edges = ring(300, tmp_path)
    present = set(pairs_of(edges))
    held = hold_out_edges(edges, num_nodes=300, rate=0.2, seed=1)
    seen: set[tuple[int, int]] = set()
    for part in (held.test, held.validation):
        assert (part.src < part.dst).all()
        assert int(part.is_edge.sum()) * 2 == len(part.src)
        absent = [
            (int(s), int(d)) for s, d in zip(part.src[~part.is_edge], part.dst[~part.is_edge], strict=True)
        ]
        assert not present & set(absent)
        assert not seen & set(absent)
        seen |= set(absent)


def test_fate_of_an_edge_does_not_depend_on_the_others(tmp_path: Path) -> None:
    """Growing a graph moves no edge between training and test."""
    small = edges_of([(0, 1), (2, 3)], tmp_path, num_nodes=50)
    large = edges_of([(i, i + 1) for i in range(49)], tmp_path, num_nodes=50)
    for seed in range(20):
        kept_small = set(pairs_of(hold_out_edges(small, num_nodes=50, rate=0.3, seed=seed).training))
        kept_large = set(pairs_of(hold_out_edges(large, num_nodes=50, rate=0.3, seed=seed).training))
        assert kept_small == kept_large & set(pairs_of(small))


def test_other_seed_holds_out_other_edges(tmp_path: Path) -> None:
    edges = ring(200, tmp_path)
    kept = [pairs_of(hold_out_edges(edges, num_nodes=200, rate=0.3, seed=s).training) for s in (0, 1, 0)]
    assert kept[0] == kept[2] != kept[1]


def test_rate_zero_holds_out_nothing(tmp_path: Path) -> None:
    edges = ring(30, tmp_path)
    held = hold_out_edges(edges, num_nodes=30, rate=0.0, seed=0)
    assert pairs_of(held.training) == pairs_of(edges)
    assert len(held.test.src) == len(held.validation.src) == 0


def test_self_loops_and_weights_stay_in_training(tmp_path: Path) -> None:
    edges = edges_of(
        [(i, i) for i in range(20)],
        tmp_path,
        num_nodes=20,
        weight=[float(i + 1) for i in range(20)],
        self_loops="keep",
    )
    held = hold_out_edges(edges, num_nodes=20, rate=0.49, seed=0)
    assert [float(w) for chunk in held.training for w in chunk.weight] == [i + 1.0 for i in range(20)]


@pytest.mark.parametrize("one_way", ["symmetrise", "keep"])
def test_graph_without_room_for_non_edges_is_refused(one_way: str, tmp_path: Path) -> None:
    every = [(i, j) for i in range(30) for j in range(i)]
    edges = edges_of(every, tmp_path, num_nodes=30, one_way=one_way)
    with pytest.raises(ValueError, match="too dense"):
        hold_out_edges(edges, num_nodes=30, rate=0.4, seed=0)


@pytest.mark.parametrize("rate", [-0.1, 0.5, float("nan")])
def test_rate_out_of_range_is_refused(rate: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rate"):
        hold_out_edges(ring(5, tmp_path), num_nodes=5, rate=rate, seed=0)
