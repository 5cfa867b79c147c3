import numpy as np
import pytest

from gcl.clustering.partition import (
    adjusted_rand_index,
    align_labels,
    mean_pairwise_ari,
    node_agreement,
    stable_order,
)


def test_adjusted_rand_index_equals_scikit_learn():
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(4, size=50), rng.integers(3, size=50)
        assert adjusted_rand_index(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)


def test_adjusted_rand_index_of_trivial_partitions():
    assert adjusted_rand_index(np.zeros(5, int), np.zeros(5, int)) == 1.0
    assert adjusted_rand_index(np.zeros(1, int), np.zeros(1, int)) == 1.0


def test_alignment_undoes_a_permutation():
    rng = np.random.default_rng(0)
    reference_N = rng.integers(6, size=200)
    shuffled_N = rng.permutation(6)[reference_N]
    np.testing.assert_array_equal(align_labels(shuffled_N, reference_N), reference_N)


def test_alignment_keeps_extra_clusters_apart():
    reference_N = np.array([0, 0, 0, 0, 1, 1])
    aligned_N = align_labels(np.array([2, 2, 2, 0, 1, 1]), reference_N)
    assert aligned_N.tolist() == [0, 0, 0, 2, 1, 1]


def test_order_is_by_size_then_centroid():
    cluster_N = np.array([2, 2, 2, 0, 0, 1, 1])
    centroid_KD = np.array([[5.0, 0], [1.0, 9], [7.0, 0], [0, 0]])
    assert stable_order(cluster_N, centroid_KD).tolist() == [2, 1, 0]


def test_agreement_counts_aligned_runs():
    cluster_N = np.array([0, 0, 1, 1])
    others = [np.array([1, 1, 0, 0]), np.array([0, 1, 1, 1])]
    np.testing.assert_allclose(node_agreement(cluster_N, others), [1, 0.5, 1, 1])


def test_pairwise_ari_of_one_partition_is_not_defined():
    assert np.isnan(mean_pairwise_ari([np.array([0, 1])]))
    assert mean_pairwise_ari([np.array([0, 1, 1]), np.array([1, 0, 0])]) == 1.0
