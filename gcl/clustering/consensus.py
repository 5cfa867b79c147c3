"""Consensus of several partitions by co-association: none of them is preferred, so no label is needed.

Which epoch of a training run clusters best cannot be told without labels: the loss, the silhouette and
stability each pick a bad epoch on some graph. The consensus takes all of them. Two nodes belong together
as often as the partitions say so (evidence accumulation, Fred and Jain 2005); that similarity, A = H H^T / C
with the one-hot matrix H of all C partitions, is cut into K clusters.

Shape legend: N nodes, C partitions, M clusters of all partitions together, K clusters of the consensus.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp

from gcl.clustering.kmeans import fit_kmeans
from gcl.errors import UnsuitableSetting
from gcl.random import derive_seed, numpy_generator
from gcl.threads import one_thread

MAX_AVERAGE_NODES = 5000
"""Nodes up to which average linkage is allowed: it keeps all N (N - 1) / 2 distances."""

_DENSE_CLUSTERS = 2048  # M up to which the M x M problem is solved whole


@dataclass(frozen=True, eq=False)
class Consensus:
    """One partition for many.

    Attributes:
        cluster_N: int32 ids from 0; not ordered, and fewer than asked where too few nodes differ.
        agreement_N: float32 in (0, 1], mean co-association of a node with its own cluster, itself counted.
        membership_NK: float32 mean co-association with each cluster, scaled to sum 1.
    """

    cluster_N: np.ndarray
    agreement_N: np.ndarray
    membership_NK: np.ndarray


def find_consensus(
    partitions: Sequence[np.ndarray],
    num_clusters: int,
    *,
    seed: int,
    linkage: Literal["spectral", "average"] = "spectral",
    num_restarts: int = 10,
) -> Consensus:
    """The partition into `num_clusters` that agrees with the co-association of `partitions`.

    The same bytes whatever the order of the partitions, the names of their clusters, and the threads.

    Args:
        partitions: int ids from 0, one array [N] a partition; at least one.
        num_clusters: K, at most N.
        seed: of the k-means starts; average linkage draws nothing.
        linkage: spectral clusters the leading eigenvectors of the normalised co-association, in memory
            linear in N, by a decomposition of H; average joins clusters by their mean co-association.
        num_restarts: k-means++ starts of spectral.

    Raises:
        UnsuitableSetting: average linkage of more than 5,000 nodes.
        ValueError: no partition, or partitions of different nodes.
    """
    if not partitions or len({len(cluster_N) for cluster_N in partitions}) != 1:
        raise ValueError("a consensus needs partitions, all of the same nodes")
    member_NM = _one_hot(_in_canonical_order(partitions))
    with one_thread():
        if num_clusters == 1:
            cluster_N = np.zeros(member_NM.shape[0], np.int32)
        elif linkage == "average":
            cluster_N = _cut_average(member_NM, len(partitions), num_clusters)
        else:
            points_NK = coassociation_embedding(member_NM, len(partitions), num_clusters, seed=seed)
            starts = [derive_seed(seed, "consensus")]
            (fit,) = fit_kmeans(points_NK, num_clusters, seeds=starts, num_restarts=num_restarts)
            cluster_N = fit.cluster_N
        cluster_N = np.unique(cluster_N, return_inverse=True)[1].astype(np.int32)
        mean_NK = _mean_coassociation(member_NM, len(partitions), cluster_N)
    agreement_N = mean_NK[np.arange(len(cluster_N)), cluster_N]
    membership_NK = mean_NK / mean_NK.sum(1, keepdims=True)
    return Consensus(cluster_N, agreement_N.astype(np.float32), membership_NK.astype(np.float32))


def coassociation_embedding(
    member_NM: sp.csr_matrix, num_partitions: int, num_components: int, *, seed: int
) -> np.ndarray:
    """float32 [N, K] leading eigenvectors of D^-1 A, A = H H^T / C, D its row sums; A is never formed.

    They come from the small side: with B = D^-1/2 H / sqrt(C), the eigenvectors of B^T B (M x M) give those
    of B B^T = D^-1/2 A D^-1/2. Directions without weight are left out, so there may be fewer columns.

    Args:
        member_NM: H, one-hot clusters of all partitions side by side.
        num_partitions: C.
        num_components: K.
        seed: of the start vector, where M is large and the decomposition iterative.
    """
    degree_N = np.asarray(member_NM @ np.asarray(member_NM.sum(0)).ravel()).ravel() / num_partitions
    scaled_NM = sp.diags(1 / np.sqrt(degree_N * num_partitions)) @ member_NM
    value_K, vector_MK = _leading_eigenvectors(scaled_NM.tocsr(), num_components, seed=seed)
    kept_K = value_K > 1e-12
    left_NK = (scaled_NM @ vector_MK[:, kept_K]) / np.sqrt(value_K[kept_K])
    points_NK = left_NK / np.sqrt(degree_N)[:, None]
    scale = np.sqrt(len(points_NK) / np.square(points_NK).sum(0))  # mean square 1
    return np.ascontiguousarray(points_NK * scale, dtype=np.float32)


def _leading_eigenvectors(
    scaled_NM: sp.csr_matrix, num_components: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues of B^T B and their vectors, float64 [K] and [M, K]."""
    size = scaled_NM.shape[1]
    wanted = min(num_components, size)
    if size <= max(_DENSE_CLUSTERS, 2 * wanted):
        from scipy.linalg import eigh

        value_K, vector_MK = eigh(
            (scaled_NM.T @ scaled_NM).toarray(), subset_by_index=(size - wanted, size - 1)
        )
    else:
        from scipy.sparse.linalg import LinearOperator, eigsh

        operator = LinearOperator(
            (size, size), matvec=lambda v_M: scaled_NM.T @ (scaled_NM @ v_M), dtype=np.float64
        )
        start_M = numpy_generator(seed, "consensus_eigenvectors").random(size)
        value_K, vector_MK = eigsh(operator, k=wanted, which="LA", v0=start_M)
    return np.asarray(value_K), np.asarray(vector_MK)


def _cut_average(member_NM: sp.csr_matrix, num_partitions: int, num_clusters: int) -> np.ndarray:
    """Average linkage on 1 - A, cut to K; nodes that no partition tells apart are never separated."""
    from scipy.cluster.hierarchy import average, cut_tree
    from scipy.spatial.distance import squareform

    num_nodes = member_NM.shape[0]
    if num_nodes > MAX_AVERAGE_NODES:
        raise UnsuitableSetting(
            f"cluster.consensus_linkage=average is for at most {MAX_AVERAGE_NODES} nodes, not {num_nodes}; "
            "set cluster.consensus_linkage=spectral"
        )
    distance_NN = 1.0 - (member_NM @ member_NM.T).toarray() / num_partitions
    tree = average(squareform(distance_NN, checks=False))
    num_distinct = 1 + int((tree[:, 2] > 0).sum())
    return np.asarray(cut_tree(tree, n_clusters=[min(num_clusters, num_distinct)])).ravel()


def _mean_coassociation(member_NM: sp.csr_matrix, num_partitions: int, cluster_N: np.ndarray) -> np.ndarray:
    """float64 [N, K]: mean of A over the nodes of each cluster, by way of H (H^T Y), Y one-hot clusters."""
    size_K = np.bincount(cluster_N)
    own_NK = sp.csr_matrix((np.ones(len(cluster_N)), (np.arange(len(cluster_N)), cluster_N)))
    shared_MK = (member_NM.T @ own_NK).toarray()
    return np.asarray(member_NM @ shared_MK) / (num_partitions * size_K)


def _one_hot(partitions: Sequence[np.ndarray]) -> sp.csr_matrix:
    """H: float64 CSR [N, M], one 1 a node and partition."""
    offset_C = np.cumsum([0] + [int(cluster_N.max()) + 1 for cluster_N in partitions])
    column_NC = np.stack(partitions, 1).astype(np.int64) + offset_C[:-1]
    num_nodes, num_partitions = column_NC.shape
    indptr = np.arange(num_nodes + 1) * num_partitions
    return sp.csr_matrix(
        (np.ones(column_NC.size), column_NC.ravel(), indptr), shape=(num_nodes, int(offset_C[-1]))
    )


def _in_canonical_order(partitions: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Clusters named by their first node, partitions sorted: sums then round alike for any order."""
    renamed = []
    for cluster_N in partitions:
        _, first_K, inverse_N = np.unique(cluster_N, return_index=True, return_inverse=True)
        new_id_K = np.empty(len(first_K), np.int32)
        new_id_K[np.argsort(first_K)] = np.arange(len(first_K), dtype=np.int32)
        renamed.append(new_id_K[inverse_N])
    return sorted(renamed, key=lambda cluster_N: hashlib.sha256(cluster_N.tobytes()).digest())
