"""Affinity uncertainty: how clearly a node tells its own kind from the rest.

After AUGCL (arXiv 2301.13340): the similarities of one anchor to many candidates are parted in two, the
group that holds the anchor's positive and the other, and a candidate between the two is a hard one. AUGCL
trains an estimator of that hardness to weight negatives; here the two groups are taken as Gaussians, whose
posterior gives the ideal estimator in closed form, and a node's uncertainty is its mean over pairs.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np

from gcl.clustering.geometry import has_direction, unit_rows
from gcl.graph import Graph
from gcl.random import numpy_generator
from gcl.threads import one_thread
from gcl.workspace import MEMORY, Workspace

Estimator = Literal["softmax", "entropy", "gambler"]

_BLOCK_ELEMENTS = 1 << 24  # nodes x similarities a block: bounds a thread's memory at about 1 GB


def affinity_uncertainty(
    z_ND: np.ndarray,
    *,
    graph: Graph | None,
    num_candidates: int,
    max_neighbours: int,
    estimator: Estimator,
    reward: float,
    neighbour_weight: float,
    seed: int,
    rows_at_once: int = 1024,
    workspace: Workspace = MEMORY,
) -> np.ndarray:
    """Mean pair uncertainty of every node against one shared sample of candidates and its own neighbours.

    Doubt about candidates anywhere says that the node has no clear kind; doubt about its own neighbours
    that it stands between kinds in the graph. The two means are mixed. A node near to none but itself is an
    outlier and gets full doubt: its groups are as clear as can be, so it would pass for the surest of all.

    Time O(N M D) and memory O(block x M) a thread for M candidates, beside unit-length embeddings in the
    workspace. As many blocks are worked on at once as torch has threads, each by one thread, so their number
    changes nothing; the size of blocks changes no more than the last bits.

    Args:
        z_ND: float32 embeddings; a zero row has no direction and is not scored.
        graph: whose neighbours join the candidates; None leaves them out.
        num_candidates: M, drawn once without replacement, all nodes if there are fewer.
        max_neighbours: at most so many neighbours, spread evenly over a longer list.
        estimator: see `pair_uncertainty`.
        reward: for the gambler.
        neighbour_weight: share of the mean over neighbours in the result; nodes without any use candidates.
        seed: of the candidate sample.
        rows_at_once: nodes a block; fewer for very many candidates.
        workspace: where the embeddings of unit length are put.

    Returns:
        float32 [N], NaN where not scored.
    """
    import torch

    num_threads = torch.get_num_threads()
    unit_ND = unit_rows(z_ND, workspace=workspace)
    has_direction_N = has_direction(unit_ND)
    count = min(num_candidates, len(z_ND))
    candidates = np.sort(numpy_generator(seed, "candidates").choice(len(z_ND), count, replace=False))
    candidates = candidates[has_direction_N[candidates]]
    candidate_MD = unit_ND[candidates]
    neighbours = _Neighbours(graph, max_neighbours, len(z_ND))
    score_N = np.full(len(z_ND), np.nan, np.float32)
    full_doubt = float(pair_uncertainty(np.array(0.5), estimator=estimator, reward=reward))
    step = max(1, min(rows_at_once, _BLOCK_ELEMENTS // (1 + count + neighbours.width)))

    def score(start: int) -> None:
        nodes = np.arange(start, min(start + step, len(z_ND)))
        to_candidate_BM = (unit_ND[nodes] @ candidate_MD.T).astype(np.float64)
        to_candidate_BM[nodes[:, None] == candidates] = np.nan
        to_neighbour_BV = _neighbour_similarity(unit_ND, has_direction_N, nodes, neighbours.of(nodes))
        similarity_BM = np.hstack([np.ones((len(nodes), 1)), to_candidate_BM, to_neighbour_BV])
        near_BM, _ = two_means(similarity_BM)
        probability_BM = near_probability(similarity_BM, near_BM)
        pair_BM = pair_uncertainty(probability_BM, estimator=estimator, reward=reward)
        # The first column is the node against itself: the positive orients the groups, and is no question.
        first_neighbour = 1 + len(candidates)
        among_candidates_B = _mean_of_finite(pair_BM[:, 1:first_neighbour])
        among_neighbours_B = _mean_of_finite(pair_BM[:, first_neighbour:])
        weight_B = np.where(np.isfinite(among_neighbours_B), neighbour_weight, 0.0)
        mixed_B = (1 - weight_B) * among_candidates_B + weight_B * np.nan_to_num(among_neighbours_B)
        mixed_B = np.where(near_BM[:, 1:].any(1), mixed_B, full_doubt)
        score_N[nodes] = np.where(has_direction_N[nodes], mixed_B, np.nan)

    # Limits on OpenMP are a thread's own: those of this one do not bind the pool's.
    with one_thread(), ThreadPoolExecutor(num_threads, initializer=_stay_alone) as pool:
        for _ in pool.map(score, range(0, len(z_ND), step)):
            pass
    return score_N


def _stay_alone() -> None:
    import threadpoolctl  # type: ignore[import-untyped]

    threadpoolctl.threadpool_limits(limits=1)


def _mean_of_finite(value_BM: np.ndarray) -> np.ndarray:
    """Mean of each row's finite entries; NaN for a row without."""
    valid_BM = np.isfinite(value_BM)
    total_B = np.where(valid_BM, value_BM, 0).sum(1)
    return np.where(valid_BM.any(1), total_B / np.maximum(valid_BM.sum(1), 1), np.nan)


class _Neighbours:
    """Which neighbours of each node are compared with it: all, or a longer list thinned evenly.

    Args:
        graph: its edges; None for no neighbours.
        most: neighbours of a node at most.
        num_nodes: N.
    """

    def __init__(self, graph: Graph | None, most: int, num_nodes: int) -> None:
        self.width, self._dst_E = 0, np.empty(0, np.int64)
        if graph is None or not graph.num_edges or not most:
            return
        self._dst_E, self._indptr = graph.dst_E, np.zeros(num_nodes + 1, np.int64)
        np.cumsum(graph.out_degree_N, out=self._indptr[1:])
        self.width = min(most, int(np.diff(self._indptr).max()))

    def of(self, nodes_B: np.ndarray) -> np.ndarray:
        """int64 [B, V] neighbours, -1 where a node has fewer."""
        if not self.width:
            return np.full((len(nodes_B), 0), -1, np.int64)
        start_B1 = self._indptr[nodes_B, None]
        degree_B1 = self._indptr[nodes_B + 1, None] - start_B1
        taken_B1 = np.minimum(degree_B1, self.width)
        place_V = np.arange(self.width)[None, :]
        offset_BV = place_V * degree_B1 // np.maximum(taken_B1, 1)
        at_BV = np.minimum(start_B1 + offset_BV, len(self._dst_E) - 1)
        return np.asarray(np.where(place_V < taken_B1, self._dst_E[at_BV], -1))


def _neighbour_similarity(
    unit_ND: np.ndarray, has_direction_N: np.ndarray, nodes: np.ndarray, neighbour_BV: np.ndarray
) -> np.ndarray:
    """float64 [B, V] cosines; NaN for no neighbour, one without direction, and the node itself."""
    cosine_BV: np.ndarray = np.einsum("bd,bvd->bv", unit_ND[nodes], unit_ND[neighbour_BV])
    cosine_BV = cosine_BV.astype(np.float64)
    absent_BV = (neighbour_BV < 0) | ~has_direction_N[neighbour_BV] | (neighbour_BV == nodes[:, None])
    cosine_BV[absent_BV] = np.nan
    return cosine_BV


def two_means(value_BM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact 2-means of every row at once, see `gcl.two_means`.

    Args:
        value_BM: float64; NaN entries take no part. Rows with fewer than two values are one group.

    Returns:
        near_BM: bool, the upper group (for similarities, the one that holds the positive); ties go down.
        cost_B: sum of squared distances to the own group's mean.
    """
    import torch

    from gcl.two_means import two_means as torch_two_means

    partition = torch_two_means(torch.from_numpy(value_BM))
    return partition.is_upper_BM.numpy(), partition.cost_B.numpy()


def near_probability(value_BM: np.ndarray, near_BM: np.ndarray) -> np.ndarray:
    """Posterior of the upper group under two Gaussians with the groups' shares, means and variances.

    Returns:
        float64 [B, M] in [0, 1]; 1 in rows of a single group; NaN where the value is. See
        `gcl.two_means.TwoGaussians` for what keeps it sane at the ends.
    """
    import torch

    from gcl.two_means import TwoGaussians

    value = torch.from_numpy(value_BM)
    return np.asarray(TwoGaussians.fit(value, torch.from_numpy(near_BM)).upper_probability(value).numpy())


def pair_uncertainty(probability: np.ndarray, *, estimator: Estimator, reward: float = 1.9) -> np.ndarray:
    """Uncertainty of a two-way decision from the probability of one side.

    softmax: 1 - q for the likelier side's q. entropy: in nats. gambler: the abstention that minimises the
    Deep Gamblers loss -log(p_y + p_abstain / o), which is min(1, (1 - q) o / (o - 1)).

    Args:
        probability: of either side, in [0, 1]; NaN stays NaN.
        estimator: which.
        reward: o in (1, 2).
    """
    doubt = np.minimum(probability, 1 - probability)
    if estimator == "softmax":
        return np.asarray(doubt)
    if estimator == "gambler":
        return np.asarray(np.minimum(1.0, doubt * reward / (reward - 1)))
    sure = 1 - doubt
    return np.asarray(-(doubt * np.log(np.maximum(doubt, 1e-300)) + sure * np.log(sure)))
