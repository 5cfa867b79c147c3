"""Affinity uncertainty: how clearly a node tells its own kind from the rest.

After AUGCL (arXiv 2301.13340): the similarities of one anchor to many candidates are parted in two, the
group that holds the anchor's positive and the other, and a candidate between the two is a hard one. AUGCL
trains an estimator of that hardness to weight negatives; here the two groups are taken as Gaussians, whose
posterior gives the ideal estimator in closed form, and a node's uncertainty is its mean over pairs.
"""

from typing import Literal

import numpy as np

from gcl.clustering.geometry import unit_rows
from gcl.graph import Graph
from gcl.random import numpy_generator

Estimator = Literal["softmax", "entropy", "gambler"]


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
) -> np.ndarray:
    """Mean pair uncertainty of every node against one shared sample of candidates and its own neighbours.

    Doubt about candidates anywhere says that the node has no clear kind; doubt about its own neighbours
    that it stands between kinds in the graph. The two means are mixed. A node near to none but itself is an
    outlier and gets full doubt: its groups are as clear as can be, so it would pass for the surest of all.

    Time O(N M D) and memory O(block x M) for M candidates; blocks change no more than the last bits.

    Args:
        z_ND: float32 embeddings; a zero row has no direction and is not scored.
        graph: whose neighbours join the candidates; None leaves them out.
        num_candidates: M, drawn once without replacement, all nodes if there are fewer.
        max_neighbours: at most so many neighbours, spread evenly over a longer list.
        estimator: see `pair_uncertainty`.
        reward: for the gambler.
        neighbour_weight: share of the mean over neighbours in the result; nodes without any use candidates.
        seed: of the candidate sample.
        rows_at_once: nodes a block.

    Returns:
        float32 [N], NaN where not scored.
    """
    unit_ND = unit_rows(z_ND)
    has_direction_N = (unit_ND != 0).any(1)
    count = min(num_candidates, len(z_ND))
    candidates = np.sort(numpy_generator(seed, "candidates").choice(len(z_ND), count, replace=False))
    candidates = candidates[has_direction_N[candidates]]
    neighbour_NV = _neighbour_table(graph, max_neighbours, len(z_ND))
    score_N = np.full(len(z_ND), np.nan, np.float32)
    full_doubt = float(pair_uncertainty(np.array(0.5), estimator=estimator, reward=reward))
    for start in range(0, len(z_ND), rows_at_once):
        nodes = np.arange(start, min(start + rows_at_once, len(z_ND)))
        similarity_BM = _similarities(unit_ND, has_direction_N, nodes, candidates, neighbour_NV[nodes])
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
    return score_N


def _mean_of_finite(value_BM: np.ndarray) -> np.ndarray:
    """Mean of each row's finite entries; NaN for a row without."""
    valid_BM = np.isfinite(value_BM)
    total_B = np.where(valid_BM, value_BM, 0).sum(1)
    return np.where(valid_BM.any(1), total_B / np.maximum(valid_BM.sum(1), 1), np.nan)


def _neighbour_table(graph: Graph | None, max_neighbours: int, num_nodes: int) -> np.ndarray:
    """int64 [N, V] neighbours of each node, -1 where it has fewer; a longer list is thinned evenly."""
    if graph is None or not graph.num_edges or not max_neighbours:
        return np.full((num_nodes, 0), -1, np.int64)
    degree_N = graph.out_degree_N
    start_N = np.concatenate([[0], np.cumsum(degree_N)[:-1]])
    width = min(max_neighbours, int(degree_N.max()))
    taken_N1 = np.minimum(degree_N, width)[:, None]
    place_V = np.arange(width)[None, :]
    offset_NV = place_V * degree_N[:, None] // np.maximum(taken_N1, 1)
    at_NV = np.minimum(start_N[:, None] + offset_NV, graph.num_edges - 1)
    return np.asarray(np.where(place_V < taken_N1, graph.dst_E[at_NV], -1))


def _similarities(
    unit_ND: np.ndarray,
    has_direction_N: np.ndarray,
    nodes: np.ndarray,
    candidates: np.ndarray,
    neighbour_BV: np.ndarray,
) -> np.ndarray:
    """float64 [B, 1 + M + V] cosines to itself, the candidates and the neighbours; NaN for none."""
    to_candidate_BM = (unit_ND[nodes] @ unit_ND[candidates].T).astype(np.float64)
    to_candidate_BM[nodes[:, None] == candidates] = np.nan
    to_neighbour_BV = np.einsum("bd,bvd->bv", unit_ND[nodes], unit_ND[neighbour_BV]).astype(np.float64)
    absent_BV = (neighbour_BV < 0) | ~has_direction_N[neighbour_BV] | (neighbour_BV == nodes[:, None])
    to_neighbour_BV[absent_BV] = np.nan
    return np.hstack([np.ones((len(nodes), 1)), to_candidate_BM, to_neighbour_BV])


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
