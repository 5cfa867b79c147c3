"""k-means as deep graph clustering codes run it: one start chosen by total distance, one Lloyd run.

Kept for parity with published figures only. Its start is the random set of points with the least total
distance to *all* centroids, which prefers points near the mean of the data, and it never restarts, so its
partitions swing from call to call where those of `gcl.clustering.kmeans` stand still.
"""

import numpy as np

from gcl.clustering.geometry import checked_embeddings, squared_distance
from gcl.clustering.kmeans import KMeansFit
from gcl.random import numpy_generator
from gcl.threads import one_thread


def fit_legacy_kmeans(
    z_ND: np.ndarray,
    num_clusters: int,
    *,
    seed: int,
    num_draws: int = 20,
    tolerance: float = 1e-4,
    max_iterations: int = 500,
) -> KMeansFit:
    """Lloyd's k-means from the best of a few random sets of K points, by total distance to all of them.

    An empty cluster, which has no mean, moves to the node farthest from its own centroid; it stays empty
    only where there are fewer than K distinct points, and then keeps its centroid.

    Args:
        z_ND: float32 points, finite.
        num_clusters: K, at most N.
        seed: the draws derive from (seed, "legacy_kmeans", draw).
        num_draws: random sets of K different nodes; the first of the best is the start.
        tolerance: stop when the square of the summed shifts of the centroids falls below it.
        max_iterations: Lloyd steps at most.

    Returns:
        Clusters as last assigned, centroids as the means of these, and the sum of squared distances
        between the two.

    Raises:
        ValueError: K is not in 1..N, or a point is not finite.
    """
    z_ND = checked_embeddings(z_ND)
    num_nodes = len(z_ND)
    if not 1 <= num_clusters <= num_nodes:
        raise ValueError(f"num_clusters must lie in 1..{num_nodes}, not {num_clusters}")
    with one_thread():
        centroid_KD = _start(z_ND, num_clusters, seed=seed, num_draws=num_draws)
        for _ in range(max_iterations):
            distance_NK = squared_distance(z_ND, centroid_KD)
            cluster_N = distance_NK.argmin(1)
            _fill_empty(cluster_N, distance_NK)
            moved_KD = _means(z_ND, cluster_N, centroid_KD)
            shift = float(np.linalg.norm(moved_KD - centroid_KD, axis=1).sum())
            centroid_KD = moved_KD
            if shift**2 < tolerance:
                break
        own_N = squared_distance(z_ND, centroid_KD)[np.arange(num_nodes), cluster_N]
    return KMeansFit(cluster_N.astype(np.int32), centroid_KD, float(own_N.sum(dtype=np.float64)))


def _start(z_ND: np.ndarray, num_clusters: int, *, seed: int, num_draws: int) -> np.ndarray:
    """The drawn set with the least sum of squared distances from all points to all its members."""
    best_KD, least = z_ND[:num_clusters], np.inf
    for draw in range(num_draws):
        generator = numpy_generator(seed, "legacy_kmeans", draw)
        drawn_KD = z_ND[generator.choice(len(z_ND), num_clusters, replace=False)]
        total = float(squared_distance(z_ND, drawn_KD).sum(dtype=np.float64))
        if total < least:
            best_KD, least = drawn_KD, total
    return best_KD


def _fill_empty(cluster_N: np.ndarray, distance_NK: np.ndarray) -> None:
    """Give every empty cluster the node that fits worst, among nodes that are not alone in theirs."""
    num_clusters = distance_NK.shape[1]
    for empty in np.flatnonzero(np.bincount(cluster_N, minlength=num_clusters) == 0):
        own_N = distance_NK[np.arange(len(cluster_N)), cluster_N]
        size_K = np.bincount(cluster_N, minlength=num_clusters)
        own_N = np.where(size_K[cluster_N] > 1, own_N, -1)
        farthest = own_N.argmax()
        if own_N[farthest] <= 0:
            return
        cluster_N[farthest] = empty
        distance_NK[farthest, empty] = 0


def _means(z_ND: np.ndarray, cluster_N: np.ndarray, centroid_KD: np.ndarray) -> np.ndarray:
    """float32 means of the clusters; an empty one keeps its centroid."""
    num_clusters = len(centroid_KD)
    size_K1 = np.bincount(cluster_N, minlength=num_clusters)[:, None]
    member_KN = (np.arange(num_clusters)[:, None] == cluster_N).astype(np.float32)
    mean_KD = (member_KN @ z_ND) / np.maximum(size_K1, 1)
    return np.where(size_K1 > 0, mean_KD, centroid_KD).astype(np.float32)
