import numpy as np
import pytest

from gcl.clustering.geometry import unit_rows
from gcl.clustering.quality import silhouette
from gcl.errors import NotDefined
from gcl.evaluation.clusters import clusters_artifact_rows, kmeans_rows, silhouette_nodes
from gcl.evaluation.config import EvaluateConfig
from gcl.graph import Graph, Labels

CONFIG = EvaluateConfig(num_clustering_seeds=4, num_restarts=3)


def task(num_nodes=120):
    rng = np.random.default_rng(0)
    y_N = (np.arange(num_nodes) % 3).astype(np.int32)
    z_ND = (np.eye(3, 6)[y_N] + 0.1 * rng.normal(size=(num_nodes, 6))).astype("f")
    src, dst = np.nonzero((y_N[:, None] == y_N) & ~np.eye(num_nodes, dtype=bool))
    return (
        z_ND * rng.uniform(0.5, 20, (num_nodes, 1)),
        Labels(y_N, ("a", "b", "c")),
        Graph(num_nodes, src, dst),
    )


def values(rows):
    return {row.metric: row for row in rows}


def test_planted_classes_are_recovered_on_the_sphere():
    """Lengths vary forty-fold: without L2 normalisation the classes are lost."""
    rows = values(kmeans_rows(*task(), CONFIG, embedding="method", seed=0))
    for metric in ("accuracy", "macro_f1", "nmi", "ari", "fmi"):
        assert rows[metric].value == pytest.approx(1.0)
        assert (rows[metric].n, rows[metric].std, rows[metric].over) == (4, 0.0, "k-means seeds")
    assert rows["modularity"].value == pytest.approx(2 / 3, abs=0.01)
    assert rows["conductance"].value == pytest.approx(0, abs=1e-9)
    assert rows["silhouette"].value > 0.5


def test_classes_that_differ_in_length_alone_are_recovered_on_rows_as_they_are():
    """On the sphere they are one point each: whoever scales rows to length 1 cannot tell them apart."""
    _, labels, graph = task()
    rng = np.random.default_rng(0)
    z_ND = (1 + 10 * labels.y_N[:, None]) * np.ones((1, 6)) + 0.1 * rng.normal(size=(120, 6))
    z_ND = z_ND.astype("f")
    raw = values(
        kmeans_rows(z_ND, labels, graph, CONFIG, embedding="smoothed", seed=0, protocol="kmeans-raw")
    )
    unit = values(kmeans_rows(z_ND, labels, graph, CONFIG, embedding="smoothed", seed=0))
    assert (raw["accuracy"].protocol, unit["accuracy"].protocol) == ("kmeans-raw", "kmeans-final")
    assert raw["accuracy"].value == 1.0
    assert unit["accuracy"].value < 0.8
    assert raw["silhouette"].value > unit["silhouette"].value


def test_unlabelled_nodes_are_left_out_of_every_count():
    z_ND, labels, graph = task()
    y_N = labels.y_N.copy()
    y_N[:30] = -1
    z_ND[:30] = np.random.default_rng(1).normal(size=(30, 6))
    rows = values(
        kmeans_rows(z_ND, Labels(y_N, labels.class_names), graph, CONFIG, embedding="method", seed=0)
    )
    assert rows["accuracy"].value == 1.0
    assert rows["modularity"].value == pytest.approx(2 / 3, abs=0.01)


def test_clusters_are_as_many_as_classes_present():
    z_ND, labels, graph = task()
    labels = Labels(labels.y_N, ("a", "b", "c", "never"))
    rows = values(kmeans_rows(z_ND, labels, graph, CONFIG, embedding="method", seed=0))
    assert rows["accuracy"].value == 1.0


def test_one_class_is_not_defined():
    z_ND, _, graph = task()
    with pytest.raises(NotDefined, match="two classes"):
        kmeans_rows(z_ND, Labels(np.zeros(120, np.int32), ("a",)), graph, CONFIG, embedding="method", seed=0)


def test_large_sets_use_minibatches_and_still_find_planted_classes():
    config = EvaluateConfig(num_clustering_seeds=2, num_restarts=3, minibatch_threshold=50)
    rows = values(kmeans_rows(*task(), config, embedding="method", seed=0))
    assert rows["accuracy"].value > 0.95


def test_artifact_without_labels_has_the_label_free_figures():
    z_ND, labels, graph = task()
    z_SD = z_ND[silhouette_nodes(len(z_ND), CONFIG, seed=0)]
    without = values(clusters_artifact_rows(labels.y_N, z_SD, None, graph, CONFIG, seed=0))
    assert set(without) == {"modularity", "conductance", "silhouette"}
    with_labels = values(clusters_artifact_rows((labels.y_N + 1) % 3, z_SD, labels, graph, CONFIG, seed=0))
    assert with_labels["accuracy"].value == 1.0 and with_labels["accuracy"].protocol == "clusters-artifact"
    one_class = Labels(np.zeros(120, np.int32), ("a",))
    assert "accuracy" not in values(
        clusters_artifact_rows(labels.y_N, z_SD, one_class, graph, CONFIG, seed=0)
    )


@pytest.mark.parametrize("num_nodes", [40, 3001])
def test_the_silhouette_of_the_clusters_is_that_of_the_whole(num_nodes):
    """`silhouette_nodes` must name the nodes that `silhouettes` would draw, or rows of others are read."""
    rng, config = np.random.default_rng(0), EvaluateConfig(silhouette_sample=50)
    z_ND = rng.normal(size=(num_nodes, 4)).astype("f")
    cluster_N, graph = rng.integers(3, size=num_nodes), Graph(num_nodes, *np.zeros((2, 0), np.int64))
    nodes = silhouette_nodes(num_nodes, config, seed=7)
    rows = values(clusters_artifact_rows(cluster_N, z_ND[nodes], None, graph, config, seed=7))
    assert rows["silhouette"].value == silhouette(unit_rows(z_ND), cluster_N, sample=50, seed=7)
    raw = values(clusters_artifact_rows(cluster_N, z_ND[nodes], None, graph, config, seed=7, is_unit=False))
    assert raw["silhouette"].value == silhouette(z_ND, cluster_N, sample=50, seed=7)
