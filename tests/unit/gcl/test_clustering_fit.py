import numpy as np
import pytest
import threadpoolctl

from gcl.clustering.config import ClusterConfig
from gcl.clustering.fit import cluster_embeddings, cluster_means
from gcl.clustering.geometry import unit_rows
from gcl.clustering.kmeans import fit_kmeans
from gcl.clustering.partition import adjusted_rand_index
from gcl.errors import NotDefined, UnsuitableSetting
from gcl.graph import Graph
from gcl.workspace import Workspace


def planted(num_nodes=240, num_clusters=4, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    y_N = rng.choice(num_clusters, size=num_nodes, p=np.arange(num_clusters, 0, -1) / 10)
    z_ND = np.eye(num_clusters, 8)[y_N] + noise * rng.normal(size=(num_nodes, 8))
    return z_ND.astype(np.float32), y_N


def test_planted_clusters_carry_ids_by_size_for_any_seed():
    z_ND, y_N = planted()
    for seed in range(3):
        found = cluster_embeddings(z_ND, ClusterConfig(num_clusters=4), seed=seed)
        np.testing.assert_array_equal(found.cluster_N, y_N)  # planted sizes fall with the id


def test_result_is_complete_and_consistent():
    z_ND, _ = planted(noise=0.4)
    found = cluster_embeddings(z_ND, ClusterConfig(num_clusters=4), seed=0)
    assert found.cluster_N.dtype == np.int32 and found.confidence_N.dtype == np.float32
    np.testing.assert_allclose(found.membership_NK.sum(1), 1, rtol=1e-5)
    rows = np.arange(len(z_ND))
    np.testing.assert_array_equal(found.confidence_N, found.membership_NK[rows, found.cluster_N])
    assert (found.membership_NK.argmax(1) == found.cluster_N).mean() > 0.99
    assert set(found.stability) == {
        "mean_pairwise_ari",
        "min_pairwise_ari",
        "mean_node_agreement",
        "silhouette",
    }
    assert found.agreement_N is not None and 0 <= found.agreement_N.min() <= found.agreement_N.max() <= 1


def test_same_seed_same_bytes():
    z_ND, _ = planted(noise=0.6)
    first, second = (cluster_embeddings(z_ND, ClusterConfig(num_clusters="2..5"), seed=1) for _ in range(2))
    for name in ("cluster_N", "confidence_N", "membership_NK", "centroid_KD"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    assert first.evidence == second.evidence and first.stability == second.stability


def test_stability_tells_clusters_from_noise():
    config = ClusterConfig(num_clusters=4, num_restarts=1)
    clear = cluster_embeddings(planted()[0], ClusterConfig(num_clusters=4), seed=0)
    noise = cluster_embeddings(np.random.default_rng(0).normal(size=(240, 8)), config, seed=0)
    assert clear.stability["mean_pairwise_ari"] == 1.0
    assert noise.stability["mean_pairwise_ari"] < 0.7


def test_one_stability_run_measures_nothing():
    found = cluster_embeddings(planted()[0], ClusterConfig(num_clusters=4, num_stability_runs=1), seed=0)
    assert set(found.stability) == {"silhouette"} and found.agreement_N is None


def test_ambiguous_nodes_have_less_confidence():
    z_ND, _ = planted(noise=0.05)
    z_ND[:10] = 0
    z_ND[:10, :2] = 0.5
    found = cluster_embeddings(z_ND, ClusterConfig(num_clusters=4), seed=0)
    assert found.confidence_N[:10].max() < found.confidence_N[10:].min()


def test_classes_takes_the_count_alone():
    z_ND, _ = planted()
    assert (
        cluster_embeddings(z_ND, ClusterConfig(num_clusters="classes"), seed=0, num_classes=3).num_clusters
        == 3
    )
    with pytest.raises(ValueError, match="needs labels"):
        cluster_embeddings(z_ND, ClusterConfig(num_clusters="classes"), seed=0)
    with pytest.raises(NotDefined, match="no class"):
        cluster_embeddings(z_ND, ClusterConfig(num_clusters="classes"), seed=0, num_classes=0)


@pytest.mark.parametrize("num_clusters", [5, "5..9"])
def test_more_clusters_than_nodes_is_a_setting_that_does_not_fit(num_clusters):
    with pytest.raises(UnsuitableSetting, match=r"cluster\.num_clusters=5.* 4 nodes"):
        cluster_embeddings(np.eye(4), ClusterConfig(num_clusters=num_clusters), seed=0)


@pytest.mark.parametrize("algorithm", ["auto", "minibatch_kmeans", "leiden"])
def test_one_node_and_collapsed_embeddings_are_not_defined(algorithm):
    config = ClusterConfig(algorithm=algorithm, num_clusters=2)
    with pytest.raises(NotDefined, match="single node"):
        cluster_embeddings(np.ones((1, 3)), config, seed=0)
    with pytest.raises(NotDefined, match="collapsed"):
        cluster_embeddings(np.ones((9, 3)), config, seed=0)


def test_collinear_embeddings_collapse_only_when_normalised():
    z_ND = np.arange(1, 9, dtype=np.float32)[:, None] * np.array([[4.0, 2.0]], np.float32)
    with pytest.raises(NotDefined):
        cluster_embeddings(z_ND, ClusterConfig(num_clusters=2), seed=0)
    found = cluster_embeddings(z_ND, ClusterConfig(num_clusters=2, normalise=False), seed=0)
    assert np.bincount(found.cluster_N).tolist() == [4, 4]


def test_fewer_distinct_embeddings_than_clusters_are_noted_not_left_empty():
    z_ND = np.repeat(np.eye(3), 5, axis=0)
    found = cluster_embeddings(z_ND, ClusterConfig(num_clusters=6), seed=0)
    assert np.bincount(found.cluster_N).min() > 0 and found.num_clusters == 3
    assert any("too few distinct" in note for note in found.notes)


def test_threshold_switches_to_minibatches():
    z_ND, y_N = planted()
    config = ClusterConfig(num_clusters=4, minibatch_threshold=100, minibatch_size=64)
    found = cluster_embeddings(z_ND, config, seed=0)
    assert adjusted_rand_index(found.cluster_N, y_N) > 0.9
    exact = cluster_embeddings(z_ND, ClusterConfig(num_clusters=4), seed=0)
    assert found.centroid_KD.tobytes() != exact.centroid_KD.tobytes()


def test_graph_of_another_size_is_refused():
    graph = Graph(3, np.array([0, 1]), np.array([1, 0]))
    with pytest.raises(ValueError, match="graph of 3"):
        cluster_embeddings(np.eye(4), ClusterConfig(num_clusters=2), seed=0, graph=graph)


def test_graph_adds_its_measures_to_the_evidence():
    z_ND, y_N = planted(num_nodes=60)
    src, dst = np.nonzero((y_N[:, None] == y_N) & ~np.eye(60, dtype=bool))
    found = cluster_embeddings(z_ND, ClusterConfig(num_clusters="2..6"), seed=0, graph=Graph(60, src, dst))
    assert {"modularity", "conductance"} <= {item.measure for item in found.evidence}
    assert found.num_clusters == 4


RESULTS = ("cluster_N", "confidence_N", "membership_NK", "centroid_KD")


@pytest.mark.parametrize(
    "config",
    [
        ClusterConfig(num_clusters=4),
        ClusterConfig(num_clusters=4, normalise=False),
        ClusterConfig(num_clusters="2..5", algorithm="minibatch_kmeans", minibatch_size=64),
        ClusterConfig(algorithm="leiden", num_neighbours=10, resolution=0.5),
        ClusterConfig(num_clusters=4, algorithm="consensus"),
    ],
    ids=lambda config: f"{config.algorithm}-{config.num_clusters}",
)
def test_a_workspace_and_small_blocks_change_no_byte(config, monkeypatch, tmp_path):
    monkeypatch.setattr("gcl.clustering.kmeans._BATCHES", 10)
    z_ND, _ = planted(noise=0.4)
    whole = cluster_embeddings(z_ND, config, seed=1, checks=[z_ND, z_ND[:, ::-1]])
    workspace = Workspace(tmp_path, in_memory_bytes=0)
    mapped_ND = workspace.empty(z_ND.shape)
    mapped_ND[:] = z_ND
    monkeypatch.setattr("gcl.clustering.geometry._ROWS_AT_ONCE", 16)
    monkeypatch.setattr("gcl.clustering.geometry._BLOCK_BYTES", 1)
    checks = [mapped_ND, z_ND[:, ::-1]]
    mapped = cluster_embeddings(mapped_ND, config, seed=1, checks=checks, workspace=workspace)
    assert isinstance(mapped.membership_NK.base, np.memmap)
    for name in RESULTS:
        assert getattr(whole, name).tobytes() == getattr(mapped, name).tobytes(), name
    assert whole.evidence == mapped.evidence and whole.stability == mapped.stability


def test_the_number_of_threads_changes_no_byte():
    z_ND = np.random.default_rng(0).normal(size=(9000, 128)).astype("f")
    config, found = ClusterConfig(num_clusters=20, num_restarts=1, num_stability_runs=0), []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            found.append(cluster_embeddings(z_ND, config, seed=0))
    for name in RESULTS:
        assert getattr(found[0], name).tobytes() == getattr(found[1], name).tobytes(), name
    assert found[0].stability == found[1].stability


@pytest.fixture
def few_compared(monkeypatch):
    monkeypatch.setattr("gcl.clustering.runs._COMPARED_NODES", 150)
    monkeypatch.setattr("gcl.clustering.kmeans._BATCHES", 10)


MANY = {"minibatch_threshold": 200, "minibatch_size": 64}


@pytest.mark.usefixtures("few_compared")
def test_stability_of_many_nodes_is_measured_on_a_sample_and_says_so():
    z_ND, y_N = planted()
    found = cluster_embeddings(z_ND, ClusterConfig(num_clusters=4, **MANY), seed=0)
    assert adjusted_rand_index(found.cluster_N, y_N) == 1.0
    assert found.notes == ["stability was measured on a sample of 150 of 240 nodes"]
    assert found.stability["mean_pairwise_ari"] == found.stability["mean_node_agreement"] == 1.0
    assert found.agreement_N is None
    config = ClusterConfig(num_clusters=4, num_stability_runs=0, **MANY)
    assert cluster_embeddings(z_ND, config, seed=0).notes == []


@pytest.mark.usefixtures("few_compared")
def test_stability_of_a_sample_tells_clusters_from_noise():
    noise_ND = np.random.default_rng(0).normal(size=(240, 8))
    found = cluster_embeddings(noise_ND, ClusterConfig(num_clusters=4, num_restarts=1, **MANY), seed=0)
    assert found.stability["mean_pairwise_ari"] < 0.7


@pytest.mark.usefixtures("few_compared")
def test_numbers_of_clusters_of_many_nodes_are_compared_on_a_sample_and_the_notes_say_so():
    z_ND, y_N = planted(noise=0.05)
    src, dst = np.nonzero((y_N[:, None] == y_N) & ~np.eye(240, dtype=bool))
    config = ClusterConfig(num_clusters="2..6", **MANY)
    found = cluster_embeddings(z_ND, config, seed=0, graph=Graph(240, src, dst))
    assert found.num_clusters == 4
    assert "numbers of clusters were compared by fits of 150 of 240 nodes" in found.notes
    value = {(item.num_clusters, item.measure): item.value for item in found.evidence}
    inertia = fit_kmeans(unit_rows(z_ND), 4, seeds=[0])[0].inertia
    assert value[4, "inertia"] == pytest.approx(inertia, rel=0.02), "of all nodes"
    assert value[4, "conductance"] == pytest.approx(0), "on the whole graph"


def test_cluster_means_of_blocks_round_as_the_whole_does(monkeypatch):
    rng = np.random.default_rng(0)
    z_ND, cluster_N = rng.normal(size=(1000, 3)).astype("f"), rng.integers(5, size=1000).astype(np.int32)
    whole = cluster_means(z_ND, cluster_N)
    np.testing.assert_allclose(whole[2], z_ND[cluster_N == 2].mean(0), rtol=1e-4)
    monkeypatch.setattr("gcl.clustering.geometry._ROWS_AT_ONCE", 7)
    monkeypatch.setattr("gcl.clustering.geometry._BLOCK_BYTES", 1)
    assert cluster_means(z_ND, cluster_N).tobytes() == whole.tobytes()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_clusters": 4}, False),
        ({"num_clusters": "classes"}, False),
        ({"num_clusters": "auto"}, True),
        ({"num_clusters": "2..5", "algorithm": "consensus"}, True),
        ({"algorithm": "leiden"}, False),
        ({"algorithm": "leiden", "leiden_graph": "graph"}, True),
    ],
)
def test_the_graph_is_needed_only_where_it_plays_a_part(settings, expected):
    assert ClusterConfig(**settings).needs_graph is expected
