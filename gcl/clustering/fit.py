"""Embeddings -> clusters: choose the algorithm and K, fit, order the ids, measure stability."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp

from gcl.clustering.choice import Evidence, choose_num_clusters, gather_evidence
from gcl.clustering.config import ClusterConfig
from gcl.clustering.consensus import find_consensus
from gcl.clustering.geometry import (
    aligned_rows,
    checked_embeddings,
    cluster_spread,
    is_one_point,
    soft_membership,
    unit_rows,
)
from gcl.clustering.legacy_kmeans import fit_legacy_kmeans
from gcl.clustering.leiden import leiden_partition, nearest_neighbour_graph, neighbour_membership
from gcl.clustering.partition import (
    adjusted_rand_index,
    mean_pairwise_ari,
    node_agreement,
    stable_order,
)
from gcl.clustering.quality import silhouette
from gcl.clustering.runs import Runs, compared_nodes, fit_once, fit_runs, num_runs
from gcl.errors import NotDefined, UnsuitableSetting
from gcl.graph import Graph
from gcl.random import derive_seed
from gcl.threads import one_thread
from gcl.workspace import MEMORY, Workspace


@dataclass(frozen=True, eq=False)
class Clustering:
    """Clusters of N nodes in D dimensions; ids 0..K-1 run from the largest cluster to the smallest.

    Attributes:
        cluster_N: int32 cluster of each node; every id has members.
        confidence_N: float32 membership in the own cluster, in (0, 1]; of a consensus, the mean share of
            checks in which the node was together with the nodes of its cluster.
        membership_NK: float32 distribution over clusters.
        centroid_KD: float32 means of the clusters' (normalised, if asked) embeddings.
        evidence: measures over the grid of K; empty where K was given.
        stability: ``mean_pairwise_ari``, ``min_pairwise_ari``, ``mean_node_agreement`` over refits with
            other seeds on these same embeddings (the variance of training is not in it), and
            ``silhouette``; empty where nothing was measured. Of a consensus ``mean_check_ari``,
            ``min_check_ari`` (with the partitions of the checks) and ``mean_node_agreement``.
        agreement_N: float32 share of the refits that put the node in the same cluster; None likewise, and
            where very many nodes are clustered by mini-batches: stability is that of a sample then. Of a
            consensus, its confidence.
        notes: what a reader should know (measures that disagree, fewer clusters than asked).
    """

    cluster_N: np.ndarray
    confidence_N: np.ndarray
    membership_NK: np.ndarray
    centroid_KD: np.ndarray
    evidence: list[Evidence] = field(default_factory=list)
    stability: dict[str, float] = field(default_factory=dict)
    agreement_N: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def num_clusters(self) -> int:
        """K."""
        return len(self.centroid_KD)


def cluster_embeddings(
    z_ND: np.ndarray,
    config: ClusterConfig,
    *,
    seed: int,
    num_classes: int | None = None,
    graph: Graph | None = None,
    checks: Iterable[np.ndarray] | None = None,
    workspace: Workspace = MEMORY,
) -> Clustering:
    """Cluster nodes by their embeddings; the same bytes for the same arguments, whatever the threads.

    Args:
        z_ND: float32 embeddings.
        config: algorithm, K or how to find it, soft membership.
        seed: the run's seed.
        num_classes: how many classes the labels declare; only for ``num_clusters="classes"``.
        graph: lets modularity and conductance join the evidence; needed for ``leiden_graph="graph"``.
        checks: float32 [N, k] embeddings of the same nodes at several epochs, for ``algorithm="consensus"``
            alone; read once, one after the other.
        workspace: where arrays of the size of `z_ND` and the membership are put.

    Raises:
        NotDefined: K > N, a single node, or embeddings that are all the same point.
        UnsuitableSetting: K that does not fit the nodes, or a consensus without checks.
        ValueError: embeddings not finite, or an option without what it needs.
    """
    points_ND = checked_embeddings(z_ND)
    if graph is not None and graph.num_nodes != len(points_ND):
        raise ValueError(f"{len(points_ND)} embeddings for a graph of {graph.num_nodes} nodes")
    if len(points_ND) < 2:
        raise NotDefined("clusters of a single node are not defined")
    if config.normalise:
        points_ND = unit_rows(points_ND, workspace=workspace)
    if is_one_point(points_ND):
        raise NotDefined(
            "all embeddings are the same point: the encoder collapsed, there is nothing to cluster"
        )
    with one_thread():
        if config.algorithm == "leiden":
            return _leiden_clustering(points_ND, config, seed=seed, graph=graph, workspace=workspace)
        num_clusters, evidence, notes = _settle_num_clusters(
            points_ND, config, seed=seed, num_classes=num_classes, graph=graph, workspace=workspace
        )
        if config.algorithm == "consensus":
            found = _consensus_clustering(
                points_ND, num_clusters, config, checks or (), seed=seed, workspace=workspace
            )
        else:
            found = _centroid_clustering(points_ND, num_clusters, config, seed=seed, workspace=workspace)
    return replace(found, evidence=evidence, notes=notes + found.notes)


def _centroid_clustering(
    z_ND: np.ndarray, num_clusters: int, config: ClusterConfig, *, seed: int, workspace: Workspace
) -> Clustering:
    runs = fit_runs(z_ND, num_clusters, config, seed=seed, workspace=workspace)
    order, notes = stable_order(runs.best.cluster_N, runs.best.centroid_KD), []
    if len(order) < num_clusters:
        notes.append(f"{num_clusters} clusters asked, {len(order)} found: too few distinct embeddings")
    if runs.nodes is not None and len(runs.partitions) > 1:
        notes.append(f"stability was measured on a sample of {len(runs.nodes):,} of {len(z_ND):,} nodes")
    cluster_N = _renamed(runs.best.cluster_N, order)
    centroid_KD = runs.best.centroid_KD[order]
    scale = 2 * config.membership_temperature * cluster_spread(z_ND, centroid_KD, cluster_N)
    membership_NK = soft_membership(z_ND, centroid_KD, scale=scale, workspace=workspace)
    compared = cluster_N if runs.nodes is None else cluster_N[runs.nodes]
    stability, agreement_N = _stability(compared, runs.partitions[1:])
    stability |= _finite(silhouette=silhouette(z_ND, cluster_N, sample=config.silhouette_sample, seed=seed))
    return Clustering(
        cluster_N,
        membership_NK[np.arange(len(cluster_N)), cluster_N],
        membership_NK,
        centroid_KD,
        stability=stability,
        agreement_N=agreement_N if runs.nodes is None else None,
        notes=notes,
    )


def _settle_num_clusters(
    z_ND: np.ndarray,
    config: ClusterConfig,
    *,
    seed: int,
    num_classes: int | None,
    graph: Graph | None,
    workspace: Workspace,
) -> tuple[int, list[Evidence], list[str]]:
    asked = num_classes if config.num_clusters == "classes" else config.num_clusters
    if asked is None:
        raise UnsuitableSetting("cluster.num_clusters=classes needs labels; give a count, a range or auto")
    if isinstance(asked, int):
        if asked > len(z_ND):
            raise UnsuitableSetting(
                f"cluster.num_clusters={config.num_clusters}: "
                f"{asked} clusters of {len(z_ND)} nodes are not defined"
            )
        if asked < 1:
            raise NotDefined("the labels declare no class, so their count cannot be the number of clusters")
        return asked, [], []
    grid = config.grid(len(z_ND))
    if not grid:
        raise UnsuitableSetting(
            f"cluster.num_clusters={asked}: no such number of clusters is possible for {len(z_ND)} nodes"
        )

    def fit(num_clusters: int) -> Runs:
        return fit_runs(z_ND, num_clusters, config, seed=seed, workspace=workspace, is_search=True)

    evidence = gather_evidence(z_ND, grid, fit, graph=graph, sample=config.silhouette_sample, seed=seed)
    chosen, notes = choose_num_clusters(evidence, stability_slack=config.stability_slack)
    size = compared_nodes(config, len(z_ND), max(grid))
    if size < len(z_ND):
        notes.append(f"numbers of clusters were compared by fits of {size:,} of {len(z_ND):,} nodes")
    return chosen, evidence, notes


_WAYS = {
    "kmeans": "",
    "legacy_kmeans": ", each clustered from a single start",
    "both": ", each clustered from several starts and from a single one",
}


def _consensus_clustering(
    z_ND: np.ndarray,
    num_clusters: int,
    config: ClusterConfig,
    checks: Iterable[np.ndarray],
    *,
    seed: int,
    workspace: Workspace,
) -> Clustering:
    """Cluster every check alike, then cut what they agree on; K was settled on the last embeddings."""
    partitions = [
        cluster_N
        for check_NK in checks
        for cluster_N in _check_partitions(check_NK, num_clusters, config, seed=seed, workspace=workspace)
    ]
    if not partitions:
        raise UnsuitableSetting(
            "cluster.algorithm=consensus needs checks of the training run; set train.num_checks, for example "
            "to 20"
        )
    if len(partitions[0]) != len(z_ND):
        raise ValueError(f"checks of {len(partitions[0])} nodes for {len(z_ND)} embeddings")
    found = find_consensus(
        partitions,
        num_clusters,
        seed=seed,
        linkage=config.consensus_linkage,
        num_restarts=config.num_restarts,
        minibatch_threshold=config.minibatch_threshold,
        workspace=workspace,
    )
    centroid_KD = cluster_means(z_ND, found.cluster_N)
    order, notes = stable_order(found.cluster_N, centroid_KD), []
    if len(order) < num_clusters:
        notes.append(f"{num_clusters} clusters asked, {len(order)} found: the checks tell no more apart")
    way = config.consensus_clustering
    num_checks = len(partitions) // (2 if way == "both" else 1)
    notes.append(f"clusters are the consensus of {num_checks} checks of the run" + _WAYS[way])
    cluster_N = _renamed(found.cluster_N, order)
    agreement = [adjusted_rand_index(cluster_N, one_N) for one_N in partitions]
    stability = _finite(
        mean_check_ari=float(np.mean(agreement)),
        min_check_ari=float(np.min(agreement)),
        mean_node_agreement=float(found.agreement_N.mean()),
        silhouette=silhouette(z_ND, cluster_N, sample=config.silhouette_sample, seed=seed),
    )
    for rows in aligned_rows(found.membership_NK):
        found.membership_NK[rows] = found.membership_NK[rows][:, order]
    return Clustering(
        cluster_N,
        found.agreement_N,
        found.membership_NK,
        centroid_KD[order],
        stability=stability,
        agreement_N=found.agreement_N,
        notes=notes,
    )


def _check_partitions(
    check_NK: np.ndarray, num_clusters: int, config: ClusterConfig, *, seed: int, workspace: Workspace
) -> Iterator[np.ndarray]:
    """The clusters of one check; their order plays no part, as starts depend on the seed, or on the bytes.

    Ids are of the least type that holds them: there may be many checks of many nodes.
    """
    points_NK = checked_embeddings(check_NK)
    points_NK = unit_rows(points_NK, workspace=workspace) if config.normalise else points_NK
    id_type = np.min_scalar_type(num_clusters)
    if config.consensus_clustering != "legacy_kmeans":
        one = derive_seed(seed, "check")
        best = fit_once(points_NK, num_clusters, config, seed=one, workspace=workspace)
        yield best.cluster_N.astype(id_type)
    if config.consensus_clustering != "kmeans":
        # A start of its own for each check: one for all would be one opinion asked again and again.
        digest = int.from_bytes(hashlib.sha256(points_NK.data).digest()[:8], "big")
        single = derive_seed(seed, "check", digest)
        yield fit_legacy_kmeans(points_NK, num_clusters, seed=single).cluster_N.astype(id_type)


def _leiden_clustering(
    z_ND: np.ndarray, config: ClusterConfig, *, seed: int, graph: Graph | None, workspace: Workspace
) -> Clustering:
    if config.leiden_graph == "graph":
        if graph is None:
            raise ValueError("cluster.leiden_graph=graph needs the graph")
        adjacency_NN = graph.adjacency_NN()
        adjacency_NN = sp.csr_matrix(adjacency_NN + adjacency_NN.T)
    else:
        adjacency_NN = nearest_neighbour_graph(z_ND, config.num_neighbours)
    found, *refits = [
        leiden_partition(adjacency_NN, resolution=config.resolution, seed=derive_seed(seed, "cluster", run))
        for run in range(num_runs(config))
    ]
    centroid_KD = cluster_means(z_ND, found)
    order = stable_order(found, centroid_KD)
    cluster_N = _renamed(found, order)
    membership_NK = neighbour_membership(adjacency_NN, cluster_N, workspace=workspace)
    stability, agreement_N = _stability(cluster_N, refits)
    stability |= _finite(silhouette=silhouette(z_ND, cluster_N, sample=config.silhouette_sample, seed=seed))
    own_N = membership_NK[np.arange(len(cluster_N)), cluster_N]
    return Clustering(cluster_N, own_N, membership_NK, centroid_KD[order], [], stability, agreement_N, [])


def cluster_means(z_ND: np.ndarray, cluster_N: np.ndarray) -> np.ndarray:
    """float32 [K, D] mean embedding of each cluster; every id must have members."""
    size_K = np.bincount(cluster_N)
    sum_KD = np.zeros((len(size_K), z_ND.shape[1]))
    for rows in aligned_rows(z_ND):
        # The sums so far join as the first rows: added one by one, blocks round as the whole does.
        cluster_B = np.concatenate([np.arange(len(size_K)), cluster_N[rows]])
        one_hot_KB = sp.csr_matrix((np.ones(len(cluster_B)), (cluster_B, np.arange(len(cluster_B)))))
        sum_KD = one_hot_KB @ np.concatenate([sum_KD, z_ND[rows]])
    return np.asarray(sum_KD / size_K[:, None], dtype=np.float32)


def _renamed(cluster_N: np.ndarray, order: np.ndarray) -> np.ndarray:
    new_id = np.empty(int(cluster_N.max()) + 1, np.int32)
    new_id[order] = np.arange(len(order), dtype=np.int32)
    return np.asarray(new_id[cluster_N])


def _stability(cluster_N: np.ndarray, refits: list[np.ndarray]) -> tuple[dict[str, float], np.ndarray | None]:
    if not refits:
        return {}, None
    agreement_N = node_agreement(cluster_N, refits)
    everyone = [cluster_N, *refits]
    pairs = [mean_pairwise_ari([a, b]) for i, a in enumerate(everyone) for b in everyone[:i]]
    figures = _finite(
        mean_pairwise_ari=float(np.mean(pairs)),
        min_pairwise_ari=float(np.min(pairs)),
        mean_node_agreement=float(agreement_N.mean()),
    )
    return figures, agreement_N


def _finite(**values: float) -> dict[str, float]:
    return {name: value for name, value in values.items() if np.isfinite(value)}
