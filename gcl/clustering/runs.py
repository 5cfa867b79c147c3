"""The k-means fit that is published, and the refits with other seeds that show how stable it is."""

from dataclasses import dataclass

import numpy as np

from gcl.clustering.config import ClusterConfig
from gcl.clustering.kmeans import (
    KMeansFit,
    assign_nearest,
    fit_kmeans,
    fit_minibatch_kmeans,
    sampled_rows,
)
from gcl.random import derive_seed
from gcl.workspace import Workspace

_COMPARED_NODES = 100_000  # of very many nodes, at least
_COMPARED_NODES_A_CLUSTER = 10


@dataclass(frozen=True, eq=False)
class Runs:
    """Fits of one number of clusters with several seeds.

    Attributes:
        best: clusters of all nodes, by the run's own seed.
        partitions: int32 clusters of `nodes`, one array a seed, the run's own first.
        nodes: int64 ascending sample of nodes the seeds are compared on; None: all of them.
    """

    best: KMeansFit
    partitions: list[np.ndarray]
    nodes: np.ndarray | None


def fit_runs(
    z_ND: np.ndarray,
    num_clusters: int,
    config: ClusterConfig,
    *,
    seed: int,
    workspace: Workspace,
    is_search: bool = False,
) -> Runs:
    """Fit with the run's seed and with those that measure stability.

    Where nodes are so many that mini-batches are taken, the refits are mini-batch fits of a seeded sample of
    them, and compared on it: 100,000 nodes show the agreement of two partitions to within half a percent.

    Args:
        z_ND: float32 points, finite; may be memory-mapped.
        num_clusters: K, at most N.
        config: algorithm, starts, number of refits.
        seed: the run's seed.
        workspace: for what has the size of `z_ND`.
        is_search: K is one of several that are compared: fewer starts, and of very many nodes the run's own
            fit, too, is one of the sample, whose centroids then take in all nodes.
    """
    seeds = [derive_seed(seed, "cluster", run) for run in range(num_runs(config))]
    num_restarts = config.grid_restarts if is_search else config.num_restarts
    if not takes_minibatches(config, len(z_ND)):
        found = fit_kmeans(
            z_ND,
            num_clusters,
            seeds=seeds,
            num_restarts=num_restarts,
            max_iterations=config.max_iterations,
            workspace=workspace,
        )
        return Runs(found[0], [fit.cluster_N for fit in found], None)

    def fits(points_ND: np.ndarray, some: list[int]) -> list[KMeansFit]:
        return [_minibatch_fit(points_ND, num_clusters, config, one, num_restarts) for one in some]

    size = compared_nodes(config, len(z_ND), num_clusters)
    if size == len(z_ND):
        found = fits(z_ND, seeds)
        return Runs(found[0], [fit.cluster_N for fit in found], None)
    nodes = sampled_rows(len(z_ND), size, seed=seed, purpose="stability")
    z_SD = z_ND[nodes]
    if is_search:
        found = fits(z_SD, seeds)
        return Runs(assign_nearest(z_ND, found[0].centroid_KD), [fit.cluster_N for fit in found], nodes)
    (best,) = fits(z_ND, seeds[:1])
    return Runs(best, [best.cluster_N[nodes], *(fit.cluster_N for fit in fits(z_SD, seeds[1:]))], nodes)


def fit_once(
    z_ND: np.ndarray, num_clusters: int, config: ClusterConfig, *, seed: int, workspace: Workspace
) -> KMeansFit:
    """One fit, by the algorithm that the configuration names or that suits so many nodes."""
    if takes_minibatches(config, len(z_ND)):
        return _minibatch_fit(z_ND, num_clusters, config, seed, config.num_restarts)
    (fit,) = fit_kmeans(
        z_ND,
        num_clusters,
        seeds=[seed],
        num_restarts=config.num_restarts,
        max_iterations=config.max_iterations,
        workspace=workspace,
    )
    return fit


def _minibatch_fit(
    z_ND: np.ndarray, num_clusters: int, config: ClusterConfig, seed: int, num_restarts: int
) -> KMeansFit:
    return fit_minibatch_kmeans(
        z_ND,
        num_clusters,
        seed=seed,
        num_restarts=num_restarts,
        batch_size=config.minibatch_size,
        max_iterations=config.max_iterations,
    )


def compared_nodes(config: ClusterConfig, num_nodes: int, num_clusters: int) -> int:
    """On how many of the nodes `fit_runs` compares fits of different seeds."""
    if not takes_minibatches(config, num_nodes):
        return num_nodes
    return min(num_nodes, max(_COMPARED_NODES, _COMPARED_NODES_A_CLUSTER * num_clusters))


def takes_minibatches(config: ClusterConfig, num_nodes: int) -> bool:
    """Whether so many nodes are clustered by mini-batches."""
    if config.algorithm == "minibatch_kmeans":
        return True
    return config.algorithm in ("auto", "consensus") and num_nodes > config.minibatch_threshold


def num_runs(config: ClusterConfig) -> int:
    """The fit itself and the refits that show how stable it is."""
    return 1 + (config.num_stability_runs if config.num_stability_runs > 1 else 0)
