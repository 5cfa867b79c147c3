"""Communities of a graph by Leiden (Traag, Waltman, van Eck 2019): no number of clusters needed."""

import ctypes
import threading

import numpy as np
import scipy.sparse as sp

from gcl.errors import UnsuitableSetting
from gcl.random import derive_seed
from gcl.threads import one_thread
from gcl.workspace import MEMORY, Workspace, row_slices

_KNN_LIMIT = 100_000
# scikit-network refines by C's rand(), which the whole process shares and `random_state` leaves alone.
_C_LIBRARY = ctypes.CDLL(None)
_ONE_DRAWER = threading.Lock()


def nearest_neighbour_graph(z_ND: np.ndarray, num_neighbours: int) -> sp.csr_matrix:
    """Symmetric 0/1 adjacency that joins every node to its nearest ones (Euclidean, exact).

    Raises:
        ValueError: above 100,000 nodes, where an exact search takes hours; use the graph itself there.
    """
    from sklearn.neighbors import kneighbors_graph

    if len(z_ND) > _KNN_LIMIT:
        raise UnsuitableSetting(
            f"the exact nearest-neighbour graph is for at most {_KNN_LIMIT} nodes, not {len(z_ND)}; "
            "set cluster.leiden_graph=graph or an algorithm of the k-means family"
        )
    count = min(num_neighbours, len(z_ND) - 1)
    with one_thread():
        directed_NN = kneighbors_graph(z_ND, count, mode="connectivity", include_self=False)
    return sp.csr_matrix(directed_NN.maximum(directed_NN.T))


def leiden_partition(adjacency_NN: sp.csr_matrix, *, resolution: float, seed: int) -> np.ndarray:
    """int32 [N] community of each node, repeatable by its seed; one without edges is its own community."""
    from sknetwork.clustering import Leiden

    if adjacency_NN.nnz == 0:
        return np.arange(adjacency_NN.shape[0], dtype=np.int32)
    random_state = derive_seed(seed, "leiden") % 2**31
    model = Leiden(
        resolution=resolution,
        shuffle_nodes=True,
        return_probs=False,
        return_aggregate=False,
        random_state=random_state,
    )
    with _ONE_DRAWER:
        _C_LIBRARY.srand(ctypes.c_uint(random_state))
        label_N = model.fit_predict(sp.csr_matrix(adjacency_NN, dtype=np.float64))
    return np.unique(label_N, return_inverse=True)[1].astype(np.int32)


def neighbour_membership(
    adjacency_NN: sp.csr_matrix, cluster_N: np.ndarray, *, workspace: Workspace = MEMORY
) -> np.ndarray:
    """Share of a node's edge weight in each cluster, itself counted once at its mean edge weight.

    Args:
        adjacency_NN: edge weights.
        cluster_N: int ids from 0.
        workspace: where the result is put.

    Returns:
        float32 [N, K], rows sum to 1.
    """
    num_nodes, num_clusters = len(cluster_N), int(cluster_N.max()) + 1
    one_hot = sp.csr_matrix(
        (np.ones(num_nodes), (np.arange(num_nodes), cluster_N)), shape=(num_nodes, num_clusters)
    )
    member_NK = workspace.empty((num_nodes, num_clusters))
    for rows in row_slices(num_nodes, 8 * num_clusters):
        adjacency_BN = adjacency_NN[rows]
        weight_BK = np.asarray((adjacency_BN @ one_hot).todense(), dtype=np.float64)
        total_B = weight_BK.sum(1)
        own_B = np.where(total_B > 0, total_B / np.maximum(np.diff(adjacency_BN.indptr), 1), 1.0)
        weight_BK[np.arange(len(weight_BK)), cluster_N[rows]] += own_B
        member_NK[rows] = weight_BK / weight_BK.sum(1, keepdims=True)
    return member_NK
