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
    """Exact 2-means of every row at once: sort, prefix sums, and the best of all cuts.

    The global optimum of one-dimensional 2-means, in O(M log M) a row and without a start to choose.

    Args:
        value_BM: float64; NaN entries take no part. Rows with fewer than two values are one group.

    Returns:
        near_BM: bool, the upper group (for similarities, the one that holds the positive); ties go down.
        cost_B: sum of squared distances to the own group's mean.
    """
    num_rows, width = value_BM.shape
    sorted_BM = np.sort(value_BM, axis=1)  # NaN last
    count_B1 = np.isfinite(value_BM).sum(1, keepdims=True)
    centre_B1 = np.nansum(value_BM, 1, keepdims=True) / np.maximum(count_B1, 1)
    centred_BM = np.nan_to_num(sorted_BM - centre_B1)
    sum_BM, square_BM = np.cumsum(centred_BM, 1), np.cumsum(centred_BM**2, 1)
    lower_M = np.arange(1, width + 1)[None, :]
    upper_BM = count_B1 - lower_M
    total_B1, square_B1 = sum_BM[:, -1:], square_BM[:, -1:]
    between_BM = sum_BM**2 / lower_M + (total_B1 - sum_BM) ** 2 / np.maximum(upper_BM, 1)
    # A cut between equal values would part them by their order alone.
    is_cut_BM = (upper_BM > 0) & (np.diff(sorted_BM, axis=1, append=np.nan) > 0)
    between_BM = np.where(is_cut_BM, between_BM, -np.inf)
    cut_B = between_BM.argmax(1)
    rows = np.arange(num_rows)
    is_parted_B = is_cut_BM[rows, cut_B]
    threshold_B = np.where(is_parted_B, sorted_BM[rows, cut_B], -np.inf)
    cost_B = square_B1[:, 0] - np.where(is_parted_B, between_BM[rows, cut_B], 0)
    return value_BM > threshold_B[:, None], np.maximum(cost_B, 0)


def near_probability(value_BM: np.ndarray, near_BM: np.ndarray) -> np.ndarray:
    """Posterior of the upper group under two Gaussians with the groups' shares, means and variances.

    Variances are held above 1e-4 of the row's own plus 1e-12, so that a group of equal values keeps a
    density. Below the lower mean and above the upper one the posterior is frozen at the mean's: the wider
    Gaussian would otherwise win far out on the wrong side.

    Returns:
        float64 [B, M] in [0, 1]; 1 in rows of a single group; NaN where the value is.
    """
    valid_BM = np.isfinite(value_BM)
    filled_BM = np.where(valid_BM, value_BM, 0)
    low_mean, low_variance, low_share = _moments(filled_BM, valid_BM & ~near_BM)
    top_mean, top_variance, top_share = _moments(filled_BM, valid_BM & near_BM)
    _, row_variance, _ = _moments(filled_BM, valid_BM)
    floor = 1e-4 * row_variance + 1e-12
    low_variance, top_variance = np.maximum(low_variance, floor), np.maximum(top_variance, floor)
    held_BM = np.clip(filled_BM, np.minimum(low_mean, top_mean), np.maximum(low_mean, top_mean))
    logit_BM = (
        np.log(np.maximum(top_share, 1e-300)) - np.log(np.maximum(low_share, 1e-300))
        + 0.5 * (np.log(low_variance) - np.log(top_variance))
        + 0.5 * ((held_BM - low_mean) ** 2 / low_variance - (held_BM - top_mean) ** 2 / top_variance)
    )  # fmt: skip
    probability_BM = 1 / (1 + np.exp(-np.clip(logit_BM, -700, 700)))
    probability_BM = np.where(low_share > 0, probability_BM, 1.0)
    return np.asarray(np.where(valid_BM, probability_BM, np.nan))


def _moments(value_BM: np.ndarray, member_BM: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variance and count of the members of each row, as columns."""
    count_B1 = member_BM.sum(1, keepdims=True)
    divisor_B1 = np.maximum(count_B1, 1)
    mean_B1 = np.where(member_BM, value_BM, 0).sum(1, keepdims=True) / divisor_B1
    variance_B1 = np.where(member_BM, (value_BM - mean_B1) ** 2, 0).sum(1, keepdims=True) / divisor_B1
    return mean_B1, variance_B1, count_B1


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
