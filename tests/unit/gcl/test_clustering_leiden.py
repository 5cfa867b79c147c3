import numpy as np
import pytest

from gcl.clustering.config import ClusterConfig
from gcl.clustering.fit import cluster_embeddings
from gcl.clustering.leiden import leiden_partition, nearest_neighbour_graph, neighbour_membership
from gcl.clustering.partition import adjusted_rand_index
from gcl.graph import Graph


def planted_graph(num_nodes=120, num_blocks=4, seed=0):
    rng = np.random.default_rng(seed)
    y_N = np.arange(num_nodes) % num_blocks
    p_NN = np.where(y_N[:, None] == y_N, 0.4, 0.01)
    upper = np.triu(rng.random((num_nodes, num_nodes)) < p_NN, 1)
    src, dst = np.nonzero(upper | upper.T)
    return Graph(num_nodes, src, dst), y_N


def test_communities_of_a_planted_graph_are_found():
    graph, y_N = planted_graph()
    z_ND = np.random.default_rng(1).normal(size=(120, 4))
    config = ClusterConfig(algorithm="leiden", leiden_graph="graph")
    found = cluster_embeddings(z_ND, config, seed=0, graph=graph)
    assert adjusted_rand_index(found.cluster_N, y_N) == 1.0
    assert found.stability["mean_pairwise_ari"] == 1.0
    np.testing.assert_allclose(found.membership_NK.sum(1), 1, rtol=1e-5)
    assert (np.diff(np.bincount(found.cluster_N)) <= 0).all()


def test_neighbour_graph_of_embeddings_finds_planted_clusters():
    rng = np.random.default_rng(0)
    y_N = np.arange(150) % 3
    z_ND = np.eye(3)[y_N] + 0.05 * rng.normal(size=(150, 3))
    config = ClusterConfig(algorithm="leiden", num_neighbours=10, resolution=0.5)
    first, second = (cluster_embeddings(z_ND, config, seed=3) for _ in range(2))
    assert adjusted_rand_index(first.cluster_N, y_N) == 1.0
    assert first.membership_NK.tobytes() == second.membership_NK.tobytes()


def test_isolated_nodes_keep_their_own_community():
    graph = Graph(4, np.array([0, 1]), np.array([1, 0]))
    config = ClusterConfig(algorithm="leiden", leiden_graph="graph", num_stability_runs=0)
    found = cluster_embeddings(np.eye(4), config, seed=0, graph=graph)
    assert np.bincount(found.cluster_N).tolist() == [2, 1, 1]
    assert found.confidence_N.tolist() == [1, 1, 1, 1]


def test_membership_is_the_share_of_edges_with_oneself_counted_once():
    graph = Graph(4, np.array([0, 0, 0, 1, 2, 3]), np.array([1, 2, 3, 0, 0, 0]))
    member_NK = neighbour_membership(graph.adjacency_NN(), np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(member_NK[0], [3 / 4, 1 / 4])


def test_graph_leiden_without_a_graph_is_refused():
    with pytest.raises(ValueError, match="needs the graph"):
        cluster_embeddings(np.eye(4), ClusterConfig(algorithm="leiden", leiden_graph="graph"), seed=0)


def test_exact_neighbour_search_on_a_huge_set_is_refused(monkeypatch):
    monkeypatch.setattr("gcl.clustering.leiden._KNN_LIMIT", 3)
    with pytest.raises(ValueError, match="leiden_graph=graph"):
        cluster_embeddings(np.eye(4), ClusterConfig(algorithm="leiden"), seed=0)


def test_a_partition_is_that_of_its_seed_whatever_was_fitted_before():
    z_ND = np.random.default_rng(0).normal(size=(120, 8))
    adjacency_NN = nearest_neighbour_graph(z_ND, 10)
    found = {leiden_partition(adjacency_NN, resolution=0.5, seed=3).tobytes() for _ in range(60)}
    assert len(found) == 1
