"""Consensus of several partitions by co-association: none of them is preferred, so no label is needed.

Which epoch of a training run clusters best cannot be told without labels: the loss, the silhouette and
stability each pick a bad epoch on some graph. The consensus takes all of them. Two nodes belong together
as often as the partitions say so (evidence accumulation, Fred and Jain 2005); that similarity, A = H H^T / C
with the one-hot matrix H of all C partitions, is cut into K clusters.

Shape legend: N nodes, C partitions, M clusters of all partitions together, K clusters of the consensus.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse as sp

from gcl.clustering.kmeans import fit_kmeans, fit_minibatch_kmeans
from gcl.errors import UnsuitableSetting
from gcl.random import derive_seed, numpy_generator
from gcl.threads import one_thread
from gcl.workspace import MEMORY, Workspace, row_slices

MAX_AVERAGE_NODES = 5000
"""Nodes up to which average linkage is allowed: it keeps all N (N - 1) / 2 distances."""

_DENSE_CLUSTERS = 2048  # M up to which the M x M problem is solved whole
_ROWS_AT_ONCE = 1 << 18


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
    minibatch_threshold: int = 200_000,
    workspace: Workspace = MEMORY,
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
        minibatch_threshold: nodes above which spectral clusters by mini-batches.
        workspace: where what has N rows and K columns is put.

    Raises:
        UnsuitableSetting: average linkage of more than 5,000 nodes.
        ValueError: no partition, or partitions of different nodes.
    """
    if not partitions or len({len(cluster_N) for cluster_N in partitions}) != 1:
        raise ValueError("a consensus needs partitions, all of the same nodes")
    members = Members(partitions)
    with one_thread():
        if num_clusters == 1:
            cluster_N = np.zeros(members.num_nodes, np.int32)
        elif linkage == "average":
            cluster_N = _cut_average(members, num_clusters)
        else:
            points_NK = coassociation_embedding(members, num_clusters, seed=seed, workspace=workspace)
            one = derive_seed(seed, "consensus")
            if members.num_nodes > minibatch_threshold:
                fit = fit_minibatch_kmeans(
                    points_NK,
                    num_clusters,
                    seed=one,
                    num_restarts=num_restarts,
                    batch_size=4096,
                    max_iterations=300,
                )
            else:
                (fit,) = fit_kmeans(points_NK, num_clusters, seeds=[one], num_restarts=num_restarts)
            cluster_N = fit.cluster_N
        cluster_N = np.unique(cluster_N, return_inverse=True)[1].astype(np.int32)
        return _with_coassociation(members, cluster_N, workspace)


class Members:
    """H of several partitions, one-hot clusters side by side, given out a block of rows at a time.

    Clusters are named by their first node, and partitions sorted: sums then round alike for any order.

    Args:
        partitions: int ids from 0, one array [N] a partition.
    """

    def __init__(self, partitions: Sequence[np.ndarray]) -> None:
        named = sorted(
            (_named_by_first_node(cluster_N) for cluster_N in partitions), key=lambda pair: pair[0]
        )
        self._partitions = [cluster_N for _, cluster_N in named]
        self._size_M = np.concatenate([np.bincount(cluster_N) for cluster_N in self._partitions])
        self._offset_C = np.cumsum([0] + [int(cluster_N.max()) + 1 for cluster_N in self._partitions])

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self._partitions[0])

    @property
    def num_partitions(self) -> int:
        """C."""
        return len(self._partitions)

    @property
    def num_columns(self) -> int:
        """M, clusters of all partitions together."""
        return int(self._offset_C[-1])

    def blocks(self) -> Iterator[tuple[slice, sp.csr_matrix]]:
        """Rows and their float64 CSR [B, M], one 1 a node and partition."""
        for rows in row_slices(self.num_nodes, 1, block_bytes=_ROWS_AT_ONCE):
            column_BC = np.stack([cluster_N[rows] for cluster_N in self._partitions], 1).astype(np.int64)
            column_BC += self._offset_C[:-1]
            indptr = np.arange(len(column_BC) + 1) * self.num_partitions
            shape = (len(column_BC), self.num_columns)
            yield rows, sp.csr_matrix((np.ones(column_BC.size), column_BC.ravel(), indptr), shape=shape)

    def scaled_blocks(self) -> Iterator[tuple[slice, sp.csr_matrix, np.ndarray]]:
        """Rows, their B = D^-1/2 H / sqrt(C), and D, the row sums [B] of the co-association."""
        for rows, member_BM in self.blocks():
            degree_B = (member_BM @ self._size_M.astype(np.float64)) / self.num_partitions
            scaled_BM = sp.diags(1 / np.sqrt(degree_B * self.num_partitions)) @ member_BM
            yield rows, scaled_BM.tocsr(), degree_B


def coassociation_embedding(
    members: Members, num_components: int, *, seed: int, workspace: Workspace = MEMORY
) -> np.ndarray:
    """float32 [N, K] leading eigenvectors of D^-1 A, A = H H^T / C, D its row sums; A is never formed.

    They come from the small side: with B = D^-1/2 H / sqrt(C), the eigenvectors of B^T B (M x M) give those
    of B B^T = D^-1/2 A D^-1/2. Directions without weight are left out, so there may be fewer columns.

    Args:
        members: H.
        num_components: K.
        seed: of the start vector, where M is large and the decomposition iterative.
        workspace: where the result is put.
    """
    value_K, vector_MK = _leading_eigenvectors(members, num_components, seed=seed)
    kept_K = value_K > 1e-12
    vector_MK, root_K = vector_MK[:, kept_K], np.sqrt(value_K[kept_K])

    def blocks() -> Iterator[tuple[slice, np.ndarray]]:
        for rows, scaled_BM, degree_B in members.scaled_blocks():
            yield rows, (scaled_BM @ vector_MK) / root_K / np.sqrt(degree_B)[:, None]

    square_K = sum(np.square(points_BK).sum(0) for _, points_BK in blocks())
    scale = np.sqrt(members.num_nodes / square_K)  # mean square 1
    points_NK = workspace.empty((members.num_nodes, len(root_K)))
    for rows, points_BK in blocks():
        points_NK[rows] = points_BK * scale
    return points_NK


def _leading_eigenvectors(
    members: Members, num_components: int, *, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues of B^T B and their vectors, float64 [K] and [M, K]."""
    size = members.num_columns
    wanted = min(num_components, size)
    if size <= max(_DENSE_CLUSTERS, 2 * wanted):
        from scipy.linalg import eigh

        gram_MM = sum((scaled_BM.T @ scaled_BM).toarray() for _, scaled_BM, _ in members.scaled_blocks())
        value_K, vector_MK = eigh(gram_MM, subset_by_index=(size - wanted, size - 1))
    else:
        from scipy.sparse.linalg import LinearOperator, eigsh

        operator = LinearOperator(
            (size, size),
            matvec=lambda v_M: sum(
                scaled_BM.T @ (scaled_BM @ v_M) for _, scaled_BM, _ in members.scaled_blocks()
            ),
            dtype=np.float64,
        )
        start_M = numpy_generator(seed, "consensus_eigenvectors").random(size)
        value_K, vector_MK = eigsh(operator, k=wanted, which="LA", v0=start_M)
    return np.asarray(value_K), np.asarray(vector_MK)


def _cut_average(members: Members, num_clusters: int) -> np.ndarray:
    """Average linkage on 1 - A, cut to K; nodes that no partition tells apart are never separated."""
    from scipy.cluster.hierarchy import average, cut_tree
    from scipy.spatial.distance import squareform

    num_nodes = members.num_nodes
    if num_nodes > MAX_AVERAGE_NODES:
        raise UnsuitableSetting(
            f"cluster.consensus_linkage=average is for at most {MAX_AVERAGE_NODES} nodes, not {num_nodes}; "
            "set cluster.consensus_linkage=spectral"
        )
    member_NM = sp.vstack([member_BM for _, member_BM in members.blocks()])
    distance_NN = 1.0 - (member_NM @ member_NM.T).toarray() / members.num_partitions
    tree = average(squareform(distance_NN, checks=False))
    num_distinct = 1 + int((tree[:, 2] > 0).sum())
    return np.asarray(cut_tree(tree, n_clusters=[min(num_clusters, num_distinct)])).ravel()


def _with_coassociation(members: Members, cluster_N: np.ndarray, workspace: Workspace) -> Consensus:
    """Mean of A over the nodes of each cluster, by way of H (H^T Y), Y one-hot clusters."""
    size_K = np.bincount(cluster_N)
    shared_MK = np.zeros((members.num_columns, len(size_K)))
    for rows, member_BM in members.blocks():
        num_rows = member_BM.shape[0]
        own_BK = sp.csr_matrix(
            (np.ones(num_rows), (np.arange(num_rows), cluster_N[rows])), shape=(num_rows, len(size_K))
        )
        shared_MK += (member_BM.T @ own_BK).toarray()
    agreement_N = np.empty(len(cluster_N), np.float32)
    membership_NK = workspace.empty((len(cluster_N), len(size_K)))
    for rows, member_BM in members.blocks():
        mean_BK = np.asarray(member_BM @ shared_MK) / (members.num_partitions * size_K)
        agreement_N[rows] = mean_BK[np.arange(len(mean_BK)), cluster_N[rows]]
        membership_NK[rows] = mean_BK / mean_BK.sum(1, keepdims=True)
    return Consensus(cluster_N, agreement_N, membership_NK)


def _named_by_first_node(cluster_N: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Ids in the order in which their clusters appear, of the least type that holds them; and a digest."""
    _, first_K, inverse_N = np.unique(cluster_N, return_index=True, return_inverse=True)
    new_id_K = np.empty(len(first_K), np.int32)
    new_id_K[np.argsort(first_K)] = np.arange(len(first_K), dtype=np.int32)
    renamed_N = new_id_K[inverse_N]
    return hashlib.sha256(renamed_N.tobytes()).digest(), renamed_N.astype(np.min_scalar_type(len(first_K)))
