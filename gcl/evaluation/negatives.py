"""Whether the weights a method gives its negatives spare the false ones: pairs of nodes of one class."""

from dataclasses import dataclass

import numpy as np

from gcl.evaluation.results import MetricRow, summarise
from gcl.graph import Labels

PROTOCOL = "negative-weights"


@dataclass(frozen=True, eq=False)
class WeighedPairs:
    """A sample of pairs with the weights of a trained method.

    Attributes:
        anchor_P: int64 nodes.
        candidate_P: int64 nodes.
        similarity_P: float32 cosines, as the loss sees them.
        weight_P: float32 weights, 1 where all weigh the same.
    """

    anchor_P: np.ndarray
    candidate_P: np.ndarray
    similarity_P: np.ndarray
    weight_P: np.ndarray


def negative_weight_rows(pairs: WeighedPairs, labels: Labels | None, *, seed: int) -> list[MetricRow]:
    """Figures of the weights; those on false negatives only where both nodes of a pair have a class.

    weight_similarity_correlation: Pearson, negative where similar pairs weigh less (the papers' claim).
    weight_same_class, weight_other_class: mean weights of false and of true negatives.
    false_negative_share: share of pairs of one class. false_negative_auc: probability that a false negative
    weighs less than a true one, 1/2 for uniform weights. similarity_auc: the same for lower similarity,
    what weights that follow the similarity alone would reach.
    """
    weight_P, similarity_P = pairs.weight_P.astype(np.float64), pairs.similarity_P.astype(np.float64)
    scores = {"weight_similarity_correlation": _correlation(weight_P, similarity_P)}
    if labels is not None:
        first_P, second_P = labels.y_N[pairs.anchor_P], labels.y_N[pairs.candidate_P]
        known_P = (first_P >= 0) & (second_P >= 0)
        false_P = (first_P == second_P)[known_P]
        if 0 < false_P.sum() < len(false_P):
            weight_P, similarity_P = weight_P[known_P], similarity_P[known_P]
            scores |= {
                "weight_same_class": float(weight_P[false_P].mean()),
                "weight_other_class": float(weight_P[~false_P].mean()),
                "false_negative_share": float(false_P.mean()),
                "false_negative_auc": _auc(-weight_P, false_P),
                "similarity_auc": _auc(similarity_P, false_P),
            }
    return summarise(
        [scores],
        task="negatives",
        protocol=PROTOCOL,
        split="all",
        seed=seed,
        embedding="method",
        over="samples of pairs",
    )


def _correlation(first_P: np.ndarray, second_P: np.ndarray) -> float:
    """Pearson's, 0 where one of them is constant."""
    if np.ptp(first_P) == 0 or np.ptp(second_P) == 0:
        return 0.0
    return float(np.corrcoef(first_P, second_P)[0, 1])


def _auc(score_P: np.ndarray, is_positive_P: np.ndarray) -> float:
    """Probability that a positive scores higher than a negative; ties count half."""
    from scipy.stats import rankdata

    num_positive = int(is_positive_P.sum())
    rank_sum = float(rankdata(score_P)[is_positive_P].sum())
    area = rank_sum - num_positive * (num_positive + 1) / 2
    return area / (num_positive * (len(is_positive_P) - num_positive))
