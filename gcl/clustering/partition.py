"""Partitions as such: ids that stay, matching to a reference, agreement between runs."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np


def contingency(first_N: np.ndarray, second_N: np.ndarray) -> np.ndarray:
    """int64 [A, B]: how many nodes have id a in the first and b in the second partition."""
    num_first, num_second = int(first_N.max()) + 1, int(second_N.max()) + 1
    flat = first_N.astype(np.int64) * num_second + second_N
    count = np.bincount(flat, minlength=num_first * num_second)
    return np.asarray(count.reshape(num_first, num_second))


def align_labels(cluster_N: np.ndarray, reference_N: np.ndarray) -> np.ndarray:
    """Rename clusters so that as many nodes as possible carry the reference's id (Hungarian).

    Clusters that match none, because there are more of them, get the ids after the reference's last.

    Args:
        cluster_N: int ids from 0.
        reference_N: int ids from 0, of the same nodes.

    Returns:
        int32 [N]; the partition itself is unchanged.
    """
    from scipy.optimize import linear_sum_assignment

    count_AB = contingency(cluster_N, reference_N)
    matched, target = linear_sum_assignment(-count_AB)
    new_id_A = np.full(len(count_AB), -1, np.int64)
    new_id_A[matched] = target
    rest = np.flatnonzero(new_id_A < 0)
    new_id_A[rest] = count_AB.shape[1] + np.arange(len(rest))
    return np.asarray(new_id_A[cluster_N], dtype=np.int32)


def stable_order(cluster_N: np.ndarray, centroid_KD: np.ndarray) -> np.ndarray:
    """Old ids in their new order: larger clusters first, ties by centroid; the seed plays no part.

    Returns:
        int64 [K']: ids of the clusters that have members; K' < K where some are empty.
    """
    size_K = np.bincount(cluster_N, minlength=len(centroid_KD))
    used = np.flatnonzero(size_K)
    return np.array(sorted(used, key=lambda k: (-size_K[k], tuple(centroid_KD[k].tolist()))), np.int64)


def adjusted_rand_index(first_N: np.ndarray, second_N: np.ndarray) -> float:
    """Agreement of two partitions, 1 when equal and 0 in expectation by chance (Hubert and Arabie 1985)."""
    count_AB = contingency(first_N, second_N).astype(np.float64)
    both = (count_AB**2).sum() - count_AB.sum()
    first, second = (count_AB.sum(axis) ** 2 for axis in (1, 0))
    first_pairs, second_pairs = first.sum() - len(first_N), second.sum() - len(second_N)
    all_pairs = len(first_N) * (len(first_N) - 1.0)
    if all_pairs == 0:
        return 1.0
    expected = first_pairs * second_pairs / all_pairs
    largest = (first_pairs + second_pairs) / 2
    return 1.0 if largest == expected else float((both - expected) / (largest - expected))


def mean_pairwise_ari(partitions: Sequence[np.ndarray]) -> float:
    """Mean adjusted Rand index over all pairs of partitions; NaN for fewer than two."""
    values = [adjusted_rand_index(a, b) for a, b in combinations(partitions, 2)]
    return float(np.mean(values)) if values else float("nan")


def node_agreement(cluster_N: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """Share of the other runs, each aligned to this one, that put a node in the same cluster.

    Returns:
        float32 [N] in [0, 1].
    """
    agree_N = np.zeros(len(cluster_N), np.float64)
    for other_N in others:
        agree_N += align_labels(other_N, cluster_N) == cluster_N
    return np.asarray(agree_N / max(len(others), 1), dtype=np.float32)
