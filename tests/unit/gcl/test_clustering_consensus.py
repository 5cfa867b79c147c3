import numpy as np
import pytest

from gcl.clustering.config import ClusterConfig
from gcl.clustering.consensus import (
    MAX_AVERAGE_NODES,
    Members,
    coassociation_embedding,
    find_consensus,
)
from gcl.clustering.fit import cluster_embeddings
from gcl.clustering.legacy_kmeans import fit_legacy_kmeans
from gcl.clustering.partition import adjusted_rand_index
from gcl.errors import UnsuitableSetting
from gcl.workspace import Workspace

LINKAGES = ["spectral", "average"]


def noisy_partitions(num_nodes=150, num_clusters=3, num_partitions=8, noise=0.25, seed=0):
    """Partitions that each move other nodes to a random cluster, under names of their own."""
    rng = np.random.default_rng(seed)
    y_N = rng.permutation(np.arange(num_nodes) % num_clusters)
    found = []
    for _ in range(num_partitions):
        moved = np.where(rng.random(num_nodes) < noise, rng.integers(num_clusters, size=num_nodes), y_N)
        found.append(rng.permutation(num_clusters)[moved].astype(np.int32))
    return found, y_N


def coassociation(partitions):
    return np.mean([one[:, None] == one for one in partitions], axis=0)


def planted_checks(num_checks=4, noise=0.35, num_nodes=120):
    rng = np.random.default_rng(3)
    y_N = np.sort(rng.integers(3, size=num_nodes))
    return [np.eye(3, 6)[y_N] + noise * rng.normal(size=(num_nodes, 6)) for _ in range(num_checks)], y_N


@pytest.mark.parametrize("linkage", LINKAGES)
def test_consensus_is_better_than_every_partition(linkage):
    partitions, y_N = noisy_partitions()
    found = find_consensus(partitions, 3, seed=0, linkage=linkage)
    assert adjusted_rand_index(found.cluster_N, y_N) > max(
        adjusted_rand_index(one, y_N) for one in partitions
    )
    assert adjusted_rand_index(found.cluster_N, y_N) > 0.95


@pytest.mark.parametrize("linkage", LINKAGES)
def test_order_of_partitions_and_names_of_clusters_change_no_byte(linkage):
    partitions, _ = noisy_partitions(noise=0.5)
    rng = np.random.default_rng(1)
    others = [rng.permutation(3)[partitions[place]] for place in rng.permutation(len(partitions))]
    first, second = (find_consensus(some, 3, seed=2, linkage=linkage) for some in (partitions, others))
    for name in ("cluster_N", "agreement_N", "membership_NK"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_what_is_summed_has_one_order_and_one_set_of_names():
    """Equal results could be luck where nodes are clear-cut: the sums themselves must be the same."""
    partitions, _ = noisy_partitions(noise=0.5)
    rng = np.random.default_rng(1)
    others = [rng.permutation(3)[partitions[place]] for place in rng.permutation(len(partitions))]
    ((_, first_NM),), ((_, second_NM),) = Members(partitions).blocks(), Members(others).blocks()
    assert first_NM.indices.tobytes() == second_NM.indices.tobytes()
    assert first_NM[0].indices.tolist() == list(range(0, 24, 3)), "clusters are named by their first node"
    assert set(first_NM.indices) == set(range(24))


def test_agreement_and_membership_are_means_of_the_coassociation():
    partitions, _ = noisy_partitions(noise=0.4)
    found = find_consensus(partitions, 3, seed=0)
    shared_NN = coassociation(partitions)
    mean_NK = np.stack([shared_NN[:, found.cluster_N == k].mean(1) for k in range(3)], 1)
    np.testing.assert_allclose(found.agreement_N, mean_NK[np.arange(150), found.cluster_N], rtol=1e-6)
    np.testing.assert_allclose(found.membership_NK, mean_NK / mean_NK.sum(1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(found.membership_NK.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("dense_clusters", [2048, 0])
def test_embedding_is_that_of_the_whole_matrix(monkeypatch, dense_clusters):
    """Against the N x N matrix A that is never formed; also by the iterative decomposition."""
    monkeypatch.setattr("gcl.clustering.consensus._DENSE_CLUSTERS", dense_clusters)
    partitions, _ = noisy_partitions(num_clusters=5, noise=0.4)
    points_NK = coassociation_embedding(Members(partitions), 4, seed=0).astype(float)
    shared_NN = coassociation(partitions)
    degree_N = shared_NN.sum(1)
    _, vectors_NN = np.linalg.eigh(shared_NN / np.sqrt(np.outer(degree_N, degree_N)))
    expected_NK = vectors_NN[:, -4:] / np.sqrt(degree_N)[:, None]
    expected_NK *= np.sqrt(150 / np.square(expected_NK).sum(0))
    assert points_NK.shape == (150, 4)
    cosine_KK = points_NK.T @ expected_NK / 150
    order = np.abs(cosine_KK).argmax(1)
    assert sorted(order) == [0, 1, 2, 3]
    np.testing.assert_allclose(np.abs(cosine_KK[np.arange(4), order]), 1, atol=1e-5)


def test_equal_partitions_are_their_consensus():
    partitions, _ = noisy_partitions(num_partitions=1)
    for linkage in LINKAGES:
        found = find_consensus(partitions * 3, 3, seed=0, linkage=linkage)
        assert adjusted_rand_index(found.cluster_N, partitions[0]) == 1
        np.testing.assert_allclose(found.agreement_N, 1)


@pytest.mark.parametrize("linkage", LINKAGES)
def test_nodes_that_no_partition_tells_apart_stay_together(linkage):
    partitions = [np.repeat([0, 1, 2], 4).astype(np.int32)] * 2
    found = find_consensus(partitions, 6, seed=0, linkage=linkage)
    assert adjusted_rand_index(found.cluster_N, partitions[0]) == 1
    assert found.membership_NK.shape == (12, 3)


def test_one_cluster_takes_all():
    found = find_consensus(noisy_partitions()[0], 1, seed=0)
    assert not found.cluster_N.any()
    np.testing.assert_allclose(found.membership_NK, 1)


def test_unfit_partitions_are_refused():
    with pytest.raises(ValueError, match="same nodes"):
        find_consensus([], 2, seed=0)
    with pytest.raises(ValueError, match="same nodes"):
        find_consensus([np.zeros(3, int), np.zeros(4, int)], 2, seed=0)
    many = [np.arange(MAX_AVERAGE_NODES + 1, dtype=np.int32) % 4]
    with pytest.raises(UnsuitableSetting, match="consensus_linkage=spectral"):
        find_consensus(many, 4, seed=0, linkage="average")


def test_memory_is_linear_in_the_nodes():
    """A dense co-association of 60,000 nodes alone would be 14 GB."""
    import tracemalloc

    partitions, y_N = noisy_partitions(num_nodes=60_000, num_partitions=5, noise=0.2)
    tracemalloc.start()
    found = find_consensus(partitions, 3, seed=0, num_restarts=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
    assert adjusted_rand_index(found.cluster_N, y_N) > 0.9


@pytest.mark.parametrize("dense_clusters", [2048, 0])
def test_blocks_of_nodes_give_the_same_consensus(monkeypatch, tmp_path, dense_clusters):
    monkeypatch.setattr("gcl.clustering.consensus._DENSE_CLUSTERS", dense_clusters)
    partitions, _ = noisy_partitions(noise=0.4)
    whole = find_consensus(partitions, 3, seed=0)
    monkeypatch.setattr("gcl.clustering.consensus._ROWS_AT_ONCE", 7)
    parts = find_consensus(partitions, 3, seed=0, workspace=Workspace(tmp_path, in_memory_bytes=0))
    assert isinstance(parts.membership_NK.base, np.memmap)
    for name in ("cluster_N", "agreement_N", "membership_NK"):
        assert getattr(whole, name).tobytes() == getattr(parts, name).tobytes()


def test_many_nodes_are_cut_by_minibatches(monkeypatch):
    partitions, y_N = noisy_partitions(num_nodes=400)
    monkeypatch.setattr("gcl.clustering.consensus.fit_kmeans", None)
    found = find_consensus(partitions, 3, seed=0, minibatch_threshold=399)
    assert adjusted_rand_index(found.cluster_N, y_N) > 0.95


def test_clusters_of_checks_are_complete_and_deterministic():
    checks, y_N = planted_checks()
    config = ClusterConfig(algorithm="consensus", num_clusters=3)
    first, second = (
        cluster_embeddings(checks[-1], config, seed=0, checks=order) for order in (checks, checks[::-1])
    )
    for name in ("cluster_N", "confidence_N", "membership_NK", "centroid_KD"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    assert (np.diff(np.bincount(first.cluster_N)) <= 0).all()
    assert first.centroid_KD.shape == (3, 6)
    assert set(first.stability) == {"mean_check_ari", "min_check_ari", "mean_node_agreement", "silhouette"}
    assert first.notes == ["clusters are the consensus of 4 checks of the run"]
    last = cluster_embeddings(checks[-1], ClusterConfig(num_clusters=3), seed=0)
    assert adjusted_rand_index(first.cluster_N, y_N) > adjusted_rand_index(last.cluster_N, y_N)


def test_single_starts_differ_from_check_to_check_and_not_with_their_order(monkeypatch):
    checks, y_N = planted_checks()
    config = ClusterConfig(algorithm="consensus", num_clusters=3, consensus_clustering="legacy_kmeans")
    seeds = []

    def spy(z_NK, num_clusters, *, seed):
        seeds.append(seed)
        return fit_legacy_kmeans(z_NK, num_clusters, seed=seed)

    monkeypatch.setattr("gcl.clustering.fit.fit_legacy_kmeans", spy)
    first, second = (
        cluster_embeddings(checks[-1], config, seed=0, checks=order) for order in (checks, checks[::-1])
    )
    assert len(set(seeds)) == len(checks) and seeds == seeds[: len(checks)] + seeds[len(checks) - 1 :: -1]
    for name in ("cluster_N", "confidence_N", "membership_NK", "centroid_KD"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    (note,) = first.notes
    assert note.endswith("4 checks of the run, each clustered from a single start")
    assert adjusted_rand_index(first.cluster_N, y_N) > 0.5
    cluster_embeddings(checks[-1], config, seed=1, checks=checks)
    assert not set(seeds[-len(checks) :]) & set(seeds[: len(checks)])


def test_both_ways_of_clustering_give_a_partition_of_either_kind_a_check(monkeypatch):
    checks, y_N = planted_checks()
    given = []

    def spy(partitions, *arguments, **options):
        given.append(sorted(cluster_N.tobytes() for cluster_N in partitions))
        return find_consensus(partitions, *arguments, **options)

    monkeypatch.setattr("gcl.clustering.fit.find_consensus", spy)
    for way in ("kmeans", "legacy_kmeans", "both"):
        config = ClusterConfig(algorithm="consensus", num_clusters=3, consensus_clustering=way)
        found = cluster_embeddings(checks[-1], config, seed=0, checks=checks)
        assert "4 checks of the run" in found.notes[0]
    best, single, both = given
    assert both == sorted(best + single) and best != single


def test_number_of_clusters_is_settled_on_the_last_embeddings():
    checks, _ = planted_checks(noise=0.1)
    config = ClusterConfig(algorithm="consensus", num_clusters="2..5")
    found = cluster_embeddings(checks[-1], config, seed=0, checks=checks)
    alone = cluster_embeddings(checks[-1], ClusterConfig(num_clusters="2..5"), seed=0)
    assert found.num_clusters == alone.num_clusters == 3
    assert found.evidence == alone.evidence


def test_normalisation_is_honoured_for_checks():
    directions = np.repeat(np.eye(2), 20, axis=0)
    lengths = np.tile([1.0, 100.0], 20)[:, None]
    check = directions * lengths + 1e-3 * np.random.default_rng(0).normal(size=(40, 2))
    for normalise, expected in ((True, [20, 20]), (False, [30, 10])):
        config = ClusterConfig(algorithm="consensus", num_clusters=2, normalise=normalise)
        found = cluster_embeddings(check, config, seed=0, checks=[check])
        assert np.bincount(found.cluster_N).tolist() == expected


def test_large_checks_use_minibatches():
    checks, y_N = planted_checks(noise=0.1)
    config = ClusterConfig(
        algorithm="consensus", num_clusters=3, minibatch_threshold=50, minibatch_size=64, num_restarts=3
    )
    found = cluster_embeddings(checks[-1], config, seed=0, checks=checks)
    assert adjusted_rand_index(found.cluster_N, y_N) > 0.9


@pytest.mark.parametrize("checks", [None, []])
def test_without_checks_the_setting_to_change_is_named(checks):
    config = ClusterConfig(algorithm="consensus", num_clusters=3)
    with pytest.raises(UnsuitableSetting, match=r"set train\.num_checks"):
        cluster_embeddings(planted_checks()[0][0], config, seed=0, checks=checks)


def test_checks_of_other_nodes_are_refused():
    checks, _ = planted_checks()
    config = ClusterConfig(algorithm="consensus", num_clusters=3)
    with pytest.raises(ValueError, match="119 nodes"):
        cluster_embeddings(checks[0], config, seed=0, checks=[checks[1][1:]])
