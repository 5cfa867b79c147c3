"""k-means with k-means++ starts, all restarts of all seeds advanced together.

One product with the centroids of every run costs far less than a product a run, because a single
run's few centroids leave the processor waiting for memory: 100 runs (10 seeds of 10 starts) on 2,708
nodes and 1,024 dimensions take seconds on one core. Arthur and Vassilvitskii (2007), greedy variant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcl.random import derive_seed, numpy_generator
from gcl.threads import one_thread

_RUN_ELEMENTS = 10_000_000  # nodes x runs advanced together: bounds memory at about 0.2 GB
_BLOCK_ELEMENTS = 4_000_000  # rows x centroids a product


@dataclass(frozen=True, eq=False)
class KMeansFit:
    """The best restart of one seed: int32 clusters, float32 centroids, sum of squared distances."""

    cluster_N: np.ndarray
    centroid_KD: np.ndarray
    inertia: float


def fit_kmeans(
    z_ND: np.ndarray,
    num_clusters: int,
    *,
    seeds: Sequence[int],
    num_restarts: int = 10,
    max_iterations: int = 300,
) -> list[KMeansFit]:
    """Lloyd's k-means from greedy k-means++ starts; the least inertia of `num_restarts` wins, a seed.

    Runs stop when no node changes cluster. An empty cluster moves to the node farthest from its own
    centroid; only where the points are fewer than K distinct ones can a cluster stay empty.

    Args:
        z_ND: float32 points, finite.
        num_clusters: K, at most N.
        seeds: one fit each, independent of each other.
        num_restarts: k-means++ starts a seed.
        max_iterations: Lloyd steps at most.

    Returns:
        One fit a seed, in order; the same bits for any number of threads.
    """
    mean_D: np.ndarray = z_ND.mean(0, dtype=np.float64).astype(np.float32)
    centred_ND = z_ND - mean_D  # squares of centred points lose the fewest digits
    runs = [(seed, restart) for seed in seeds for restart in range(num_restarts)]
    batch = max(1, _RUN_ELEMENTS // len(z_ND))
    best: dict[int, KMeansFit] = {}
    with one_thread():
        for start in range(0, len(runs), batch):
            some = runs[start : start + batch]
            generators = [numpy_generator(seed, "kmeans", restart) for seed, restart in some]
            centroid_RKD = _plus_plus(centred_ND, num_clusters, generators)
            label_NR, centroid_RKD, inertia_R = _lloyd(centred_ND, centroid_RKD, max_iterations)
            for r, (seed, _) in enumerate(some):
                if seed not in best or inertia_R[r] < best[seed].inertia:
                    best[seed] = KMeansFit(
                        label_NR[:, r].copy(), centroid_RKD[r] + mean_D, float(inertia_R[r])
                    )
    return [best[seed] for seed in seeds]


def fit_minibatch_kmeans(
    z_ND: np.ndarray, num_clusters: int, *, seed: int, num_restarts: int, batch_size: int, max_iterations: int
) -> KMeansFit:
    """scikit-learn's mini-batch k-means (Sculley 2010): memory and time of a batch a step."""
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(
        num_clusters,
        n_init=num_restarts,
        batch_size=batch_size,
        max_iter=max_iterations,
        random_state=derive_seed(seed, "minibatch_kmeans") % 2**32,
    )
    with one_thread():
        model.fit(z_ND)
    return KMeansFit(
        model.labels_.astype(np.int32), model.cluster_centers_.astype(np.float32), float(model.inertia_)
    )


def _plus_plus(z_ND: np.ndarray, num_clusters: int, generators: Sequence[np.random.Generator]) -> np.ndarray:
    """Starting centroids [R, K, D]: each next one the best of a few draws in proportion to d^2."""
    num_nodes, num_runs = len(z_ND), len(generators)
    num_trials = 2 + int(np.log(num_clusters))
    square_N = np.einsum("nd,nd->n", z_ND, z_ND)
    chosen_RK = np.empty((num_runs, num_clusters), np.int64)
    chosen_RK[:, 0] = [generator.integers(num_nodes) for generator in generators]
    nearest_NR = _distance_to_nodes(z_ND, square_N, chosen_RK[:, 0])
    for k in range(1, num_clusters):
        trial_RT = np.stack([_draw(nearest_NR[:, r], g, num_trials) for r, g in enumerate(generators)])
        after_NRT = _distance_to_nodes(z_ND, square_N, trial_RT.ravel()).reshape(num_nodes, num_runs, -1)
        np.minimum(after_NRT, nearest_NR[:, :, None], out=after_NRT)
        best_R = after_NRT.sum(0, dtype=np.float64).argmin(1)
        chosen_RK[:, k] = trial_RT[np.arange(num_runs), best_R]
        nearest_NR = np.take_along_axis(after_NRT, best_R[None, :, None], 2)[:, :, 0]
    return np.asarray(z_ND[chosen_RK])


def _draw(distance_N: np.ndarray, generator: np.random.Generator, count: int) -> np.ndarray:
    cumulative_N = np.cumsum(distance_N, dtype=np.float64)
    where = np.searchsorted(cumulative_N, generator.random(count) * cumulative_N[-1], side="right")
    return np.asarray(np.minimum(where, len(distance_N) - 1))


def _distance_to_nodes(z_ND: np.ndarray, square_N: np.ndarray, nodes_M: np.ndarray) -> np.ndarray:
    distance_NM: np.ndarray = z_ND @ z_ND[nodes_M].T
    distance_NM *= -2
    distance_NM += square_N[:, None]
    distance_NM += square_N[nodes_M]
    distance_NM[nodes_M, np.arange(len(nodes_M))] = 0
    np.maximum(distance_NM, 0, out=distance_NM)
    return distance_NM


def _lloyd(
    z_ND: np.ndarray, centroid_RKD: np.ndarray, max_iterations: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Advance all runs; a run that stands still leaves the batch."""
    centroid_RKD = centroid_RKD.copy()
    num_runs = len(centroid_RKD)
    label_NR = np.full((len(z_ND), num_runs), -1, np.int32)
    inertia_R = np.zeros(num_runs)
    active = np.arange(num_runs)
    for _ in range(max_iterations):
        label_NA, inertia_A, moved_AKD = _step(z_ND, centroid_RKD[active])
        has_moved_A = (label_NA != label_NR[:, active]).any(0)
        label_NR[:, active], inertia_R[active] = label_NA, inertia_A
        centroid_RKD[active[has_moved_A]] = moved_AKD[has_moved_A]
        active = active[has_moved_A]
        if not len(active):
            return label_NR, centroid_RKD, inertia_R
    label_NR[:, active], inertia_R[active], _ = _step(z_ND, centroid_RKD[active])
    return label_NR, centroid_RKD, inertia_R


def _step(z_ND: np.ndarray, centroid_RKD: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Assign every node, then the means of the assigned: labels [N, R], inertia [R], means [R, K, D]."""
    num_runs, num_clusters, width = centroid_RKD.shape
    flat_MD = centroid_RKD.reshape(-1, width)
    square_M = np.einsum("md,md->m", flat_MD, flat_MD)
    sums_MD, count_M = np.zeros((len(flat_MD), width)), np.zeros(len(flat_MD))
    label_NR = np.empty((len(z_ND), num_runs), np.int32)
    gap_NR = np.empty((len(z_ND), num_runs), np.float32)
    rows_at_once = max(64, _BLOCK_ELEMENTS // len(flat_MD))
    offset_R = np.arange(num_runs) * num_clusters
    for start in range(0, len(z_ND), rows_at_once):
        rows = slice(start, start + rows_at_once)
        z_BD = z_ND[rows]
        gap_BM = z_BD @ flat_MD.T
        gap_BM *= -2
        gap_BM += square_M
        gap_BRK = gap_BM.reshape(len(z_BD), num_runs, num_clusters)
        label_NR[rows] = gap_BRK.argmin(2)
        gap_NR[rows] = np.take_along_axis(gap_BRK, label_NR[rows][:, :, None], 2)[:, :, 0]
        member_BM = gap_BM  # reuse the block: the distances are spent
        member_BM.fill(0)
        member_BM[np.arange(len(z_BD))[:, None], label_NR[rows] + offset_R] = 1
        sums_MD += member_BM.T @ z_BD
        count_M += member_BM.sum(0, dtype=np.float64)
    gap_NR += np.einsum("nd,nd->n", z_ND, z_ND)[:, None]
    np.maximum(gap_NR, 0, out=gap_NR)
    moved_MD = (sums_MD / np.maximum(count_M, 1)[:, None]).astype(np.float32)
    _refill(moved_MD, count_M, gap_NR, z_ND, num_clusters)
    return label_NR, gap_NR.sum(0, dtype=np.float64), moved_MD.reshape(centroid_RKD.shape)


def _refill(
    moved_MD: np.ndarray, count_M: np.ndarray, gap_NR: np.ndarray, z_ND: np.ndarray, num_clusters: int
) -> None:
    """Give every empty cluster one of the nodes that fit worst in its run."""
    empty_M = np.flatnonzero(count_M == 0)
    for run in np.unique(empty_M // num_clusters):
        empty = empty_M[empty_M // num_clusters == run]
        farthest = np.argsort(-gap_NR[:, run], kind="stable")[: len(empty)]
        moved_MD[empty[: len(farthest)]] = z_ND[farthest]
