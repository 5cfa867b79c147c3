import numpy as np
import pytest

from gcl.clustering.quality import conductance, modularity, silhouette
from gcl.graph import Graph


def two_triangles(weight=None):
    """Nodes 0-1-2 and 3-4-5, joined by the edge 2-3."""
    pairs = [(0, 1), (1, 2), (0, 2), (3, 4), (4, 5), (3, 5), (2, 3)]
    edges = np.array(sorted(pairs + [(b, a) for a, b in pairs]))
    weight_E = None if weight is None else np.full(len(edges), weight, np.float32)
    return Graph(6, edges[:, 0], edges[:, 1], weight_E=weight_E)


HALVES = np.array([0, 0, 0, 1, 1, 1])


def test_modularity_by_hand():
    assert modularity(two_triangles(), HALVES) == pytest.approx(12 / 14 - 0.5)


def test_modularity_equals_scikit_network():
    from sknetwork.clustering import get_modularity

    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(30, size=(200, 2)), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    edges = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    graph = Graph(30, edges[:, 0], edges[:, 1])
    cluster_N = rng.integers(4, size=30)
    expected = get_modularity(graph.adjacency_NN(), cluster_N)
    assert modularity(graph, cluster_N) == pytest.approx(expected, abs=1e-9)


def test_conductance_by_hand():
    assert conductance(two_triangles(), HALVES) == pytest.approx(1 / 7)


def test_uniform_weights_change_nothing():
    for measure in (modularity, conductance):
        assert measure(two_triangles(3.0), HALVES) == pytest.approx(measure(two_triangles(), HALVES))


def test_graph_measures_without_edges_are_not_defined():
    none = Graph(3, np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert np.isnan(modularity(none, np.array([0, 1, 1])))
    assert np.isnan(conductance(none, np.array([0, 1, 1])))


def test_silhouette_equals_scikit_learn():
    from sklearn.metrics import silhouette_score

    rng = np.random.default_rng(0)
    z_ND, cluster_N = rng.normal(size=(80, 5)).astype("f"), rng.integers(3, size=80)
    cluster_N[0] = 3  # a cluster of one counts 0
    expected = silhouette_score(z_ND.astype(np.float64), cluster_N)
    assert silhouette(z_ND, cluster_N, sample=100, seed=0) == pytest.approx(expected, abs=1e-9)


def test_silhouette_of_one_cluster_is_not_defined():
    assert np.isnan(silhouette(np.eye(4, dtype="f"), np.zeros(4, int), sample=10, seed=0))


def test_silhouette_sample_is_seeded():
    rng = np.random.default_rng(0)
    z_ND, cluster_N = rng.normal(size=(300, 5)).astype("f"), rng.integers(3, size=300)
    values = [silhouette(z_ND, cluster_N, sample=50, seed=seed) for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("is_weighted", [False, True])
def test_blocks_of_edges_change_no_digit(monkeypatch, is_weighted):
    rng = np.random.default_rng(0)
    src, dst = np.nonzero(rng.random((60, 60)) < 0.2)
    # Eighths are added without round-off, so that the total, which is summed by halves, is the same, too.
    weight = (rng.integers(1, 80, len(src)) / 8).astype(np.float32) if is_weighted else None
    graph, cluster_N = Graph(60, src, dst, weight_E=weight), rng.integers(4, size=60).astype(np.int32)
    whole = modularity(graph, cluster_N), conductance(graph, cluster_N)
    monkeypatch.setattr("gcl.clustering.quality._EDGES_AT_ONCE", 7)
    assert (modularity(graph, cluster_N), conductance(graph, cluster_N)) == whole
