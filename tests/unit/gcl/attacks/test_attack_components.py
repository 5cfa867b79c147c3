import time

import numpy as np
import pytest

from gcl.attacks import components as module
from gcl.attacks.components import ComponentsConfig, component_of, generate
from gcl.random import numpy_generator

REGIMES = [(15, 20, 0.15), (40, 50, 0.05), (90, 100, 0.02)]


def config(regime=REGIMES[0], *, graphs_per_class=30, **settings):
    low, high, p = regime
    return ComponentsConfig(
        min_nodes=low, max_nodes=high, edge_probability=p, graphs_per_class=graphs_per_class, **settings
    )


def component_sizes(collection, graph):
    """Sizes of a graph's components by a walk over its edges, and its number of undirected edges."""
    first, last = collection.first_node_G[graph : graph + 2]
    neighbours = {node: set() for node in range(first, last)}
    for u, v in zip(collection.union.src_E, collection.union.dst_E, strict=True):
        if first <= u < last:
            neighbours[u].add(v)
    sizes, left = [], set(neighbours)
    while left:
        reached, pending = set(), [left.pop()]
        while pending:
            node = pending.pop()
            reached.add(node)
            pending += neighbours[node] - reached
        left -= reached
        sizes.append(len(reached))
    return sizes, sum(map(len, neighbours.values())) // 2


@pytest.mark.parametrize("regime", REGIMES)
def test_class_is_the_number_of_components_and_sizes_are_in_range(regime):
    test = generate(config(regime)).test
    for graph, label in enumerate(test.y_G):
        sizes, _ = component_sizes(test.graphs, graph)
        assert len(sizes) == label + 1
        assert all(regime[0] // len(sizes) <= size <= regime[1] // len(sizes) for size in sizes)


def test_parts_are_nine_tenths_one_tenth_and_a_validation_part_besides():
    graphs = generate(config(graphs_per_class=50))
    for part, count in ((graphs.train, 45), (graphs.validation, 5), (graphs.test, 5)):
        assert np.bincount(part.y_G).tolist() == [count] * 3
        assert part.graphs.num_graphs == len(part.y_G)
    sizes = [np.diff(part.graphs.first_node_G)[:5].tolist() for part in (graphs.validation, graphs.test)]
    assert sizes[0] != sizes[1]


def test_union_is_undirected_sorted_and_constant():
    union = generate(config()).train.graphs.union
    assert (np.diff(union.src_E * union.num_nodes + union.dst_E) > 0).all()
    assert not (union.src_E == union.dst_E).any()
    assert (union.adjacency_NN() != union.adjacency_NN().T).nnz == 0
    assert (union.x_NF == 1).all()


def test_without_random_edges_components_are_trees_and_with_all_they_are_complete():
    sparse = generate(config((15, 20, 1e-12))).train.graphs
    full = generate(config((15, 20, 1.0))).train.graphs
    for graph in range(0, sparse.num_graphs, 7):
        sizes, num_edges = component_sizes(sparse, graph)
        assert num_edges == sum(sizes) - len(sizes)
        sizes, num_edges = component_sizes(full, graph)
        assert num_edges == sum(size * (size - 1) // 2 for size in sizes)


def test_pieces_are_chained_in_random_order_by_random_nodes():
    """Of three single nodes each is in the middle of the chain as often."""
    draws = numpy_generator(0, "trees")
    edges = module._connected_components(np.full(4000, 3), 1e-12, draws)
    middle = np.array(
        [np.bincount(pair.ravel() % 3, minlength=3).argmax() for pair in by_component(edges, 3)]
    )
    assert np.bincount(middle, minlength=3).min() > 4000 / 3 - 5 * (4000 * 2 / 9) ** 0.5


def by_component(edges, size):
    order = np.argsort(edges[:, 0] // size, kind="stable")
    return edges[order].reshape(-1, size - 1, 2)


def test_edges_have_their_probability_wherever_they_are():
    size_C = np.full(20_000, 6)
    edges = module._erdos_renyi(size_C, np.cumsum(size_C) - size_C, 0.3, numpy_generator(0, "edges")) % 6
    counts = np.bincount(edges[:, 0] * 6 + edges[:, 1], minlength=36).reshape(6, 6)
    drawn = counts[np.triu_indices(6, 1)]
    assert counts.sum() == drawn.sum()
    assert np.abs(drawn - 6000).max() < 5 * (20_000 * 0.3 * 0.7) ** 0.5


def test_blocks_change_nothing(monkeypatch):
    whole = generate(config()).train.graphs.union
    monkeypatch.setattr(module, "_PAIRS_AT_ONCE", 97)
    parts = generate(config()).train.graphs.union
    assert np.array_equal(whole.src_E, parts.src_E)
    assert np.array_equal(whole.dst_E, parts.dst_E)


def test_the_seed_says_everything():
    one, same, other = (generate(config(seed=seed)).train.graphs.union for seed in (1, 1, 2))
    assert np.array_equal(one.src_E, same.src_E)
    assert not np.array_equal(one.src_E[:50], other.src_E[:50])


def test_component_of_numbers_them_over_all_graphs():
    test = generate(config()).test
    component_N = component_of(test.graphs)
    assert len(np.unique(component_N)) == (test.y_G + 1).sum()


def test_fifteen_thousand_graphs_take_seconds():
    started = time.process_time()
    generate(ComponentsConfig())
    assert time.process_time() - started < 5


@pytest.mark.parametrize("settings", [{"min_nodes": 21}, {"min_nodes": 3, "num_classes": 4}])
def test_sizes_that_do_not_fit_are_refused(settings):
    with pytest.raises(ValueError, match="max_nodes must be at least min_nodes"):
        ComponentsConfig(**settings)
