"""The generator: what its parameters promise, determinism, and memory that does not grow with N."""

import itertools
import tracemalloc

import numpy as np
import pytest
from pydantic import ValidationError

from gcl.readers import synthetic
from gcl.readers.node_order import NodeOrder
from gcl.readers.synthetic import SyntheticConfig, SyntheticGraph, open_source


def edges_of(config: SyntheticConfig) -> tuple[np.ndarray, np.ndarray]:
    chunks = list(SyntheticGraph(config).edge_chunks())
    return np.concatenate([c.src for c in chunks]), np.concatenate([c.dst for c in chunks])


@pytest.mark.parametrize("num_nodes", [1, 2, 3, 5, 64, 1000, 4097])
def test_node_order_is_a_permutation_and_its_own_inverse(num_nodes: int) -> None:
    order = NodeOrder(num_nodes, seed=4)
    nodes = np.arange(num_nodes)
    ranks = order.rank(nodes)
    assert np.array_equal(np.sort(ranks), nodes)
    assert np.array_equal(order.node(ranks), nodes)


def test_node_order_mixes_and_depends_on_the_seed() -> None:
    nodes = np.arange(10_000)
    first, second = NodeOrder(10_000, 0).rank(nodes), NodeOrder(10_000, 1).rank(nodes)
    assert abs(np.corrcoef(nodes, first)[0, 1]) < 0.05
    assert (first == second).mean() < 0.01


@pytest.mark.parametrize("homophily", [0.0, 0.3, 0.9, 1.0])
def test_share_of_edges_within_a_class_is_the_homophily(homophily: float) -> None:
    config = SyntheticConfig(nodes=5000, average_degree=20, homophily=homophily, imbalance=4)
    src, dst = edges_of(config)
    graph = SyntheticGraph(config)
    share = (graph.classes_of(src) == graph.classes_of(dst)).mean()
    assert abs(share - homophily) < 0.01
    assert len(src) == 50_000
    assert (src != dst).all()


def test_class_sizes_follow_the_imbalance_and_none_is_empty() -> None:
    config = SyntheticConfig(nodes=9000, classes=6, imbalance=8)
    sizes = np.bincount(np.concatenate(list(SyntheticGraph(config).label_chunks())))
    assert sizes.sum() == 9000
    assert abs(sizes[0] / sizes[-1] - 8) < 0.1
    tight = SyntheticConfig(nodes=7, classes=7, imbalance=1000)
    assert np.bincount(np.concatenate(list(SyntheticGraph(tight).label_chunks()))).tolist() == [1] * 7


def test_features_lie_at_the_class_means_and_classes_separate_with_the_signal() -> None:
    config = SyntheticConfig(nodes=6000, features=16, classes=3, feature_signal=3)
    graph = SyntheticGraph(config)
    x_NF, y_N = np.concatenate(list(graph.feature_chunks())), np.concatenate(list(graph.label_chunks()))
    for k in range(3):
        assert abs(np.linalg.norm(x_NF[y_N == k].mean(axis=0)) - 3) < 0.2
        assert abs(x_NF[y_N == k].std(axis=0).mean() - 1) < 0.05


def test_degree_exponent_makes_hubs() -> None:
    plain, hubs = (
        np.bincount(np.concatenate(edges_of(SyntheticConfig(nodes=5000, degree_exponent=exponent))))
        for exponent in (None, 2.5)
    )
    assert plain.max() < 35
    assert hubs.max() > 200


def test_graph_depends_on_the_seed_alone() -> None:
    first, again, other = (edges_of(SyntheticConfig(nodes=500, seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_features_do_not_depend_on_the_size_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = SyntheticGraph(SyntheticConfig(nodes=10_000, features=3))
    whole = np.concatenate(list(graph.feature_chunks()))
    monkeypatch.setattr(synthetic, "CHUNK_VALUES", 1)
    small = list(graph.feature_chunks())
    assert len(small) > 1
    assert np.array_equal(whole, np.concatenate(small))


def test_short_last_block_is_the_beginning_of_a_full_one() -> None:
    """More edges on the same nodes leave the first ones as they are."""
    few, many = (edges_of(SyntheticConfig(nodes=1000, average_degree=degree)) for degree in (10, 200))
    assert np.array_equal(few[0], many[0][:5000])
    assert np.array_equal(few[1], many[1][:5000])


def test_a_billion_nodes_stream_in_constant_memory() -> None:
    config = SyntheticConfig(nodes=2**30, features=4, average_degree=8, degree_exponent=2.5)
    tracemalloc.start()
    source = open_source(config)
    chunk = next(source.edge_chunks())
    labels = next(source.label_chunks())
    blocks = list(itertools.islice(source.feature_chunks(), 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400 << 20
    assert chunk.src.max() > 2**29
    assert len(labels) == 1 << 20
    assert blocks[0].shape[1] == 4


def test_smallest_graphs_are_possible() -> None:
    assert list(SyntheticGraph(SyntheticConfig(nodes=1, classes=1)).edge_chunks()) == []
    src, dst = edges_of(SyntheticConfig(nodes=2, classes=2, homophily=1))
    assert (src != dst).all()
    src, _ = edges_of(SyntheticConfig(nodes=10, classes=1, average_degree=0.2))
    assert len(src) == 1


def test_more_classes_than_nodes_is_refused() -> None:
    with pytest.raises(ValidationError, match="6 classes need as many nodes"):
        SyntheticConfig(nodes=5, classes=6)
