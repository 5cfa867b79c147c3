"""Answering only when sure: risk-coverage curves, their areas, and a threshold with a guarantee.

Nodes are taken from the surest down; the selective risk R_k is the error rate of the first k of n.
"""

import numpy as np


def risk_coverage(uncertainty_M: np.ndarray, is_wrong_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage k/n and selective risk R_k for k = 1..n, float64.

    Within a tie no order is surer than another: the errors of a tie are spread evenly over its places.
    """
    order = np.argsort(uncertainty_M, kind="stable")
    _, tie_M, size_T = np.unique(uncertainty_M[order], return_inverse=True, return_counts=True)
    wrong_M = (np.bincount(tie_M, weights=is_wrong_M[order].astype(np.float64)) / size_T)[tie_M]
    places_M = np.arange(1, len(order) + 1)
    return places_M / len(order), np.cumsum(wrong_M) / places_M


def selective_scores(uncertainty_M: np.ndarray, is_wrong_M: np.ndarray) -> dict[str, float]:
    """aurc, e_aurc, augrc; all are means over k = 1..n, not trapezoids, and smaller is better.

    aurc = mean_k R_k; e_aurc = aurc minus that of the perfect order, which has all errors last; augrc =
    mean_k (k/n) R_k (Traub et al. 2024), the risk of undetected failures.
    """
    coverage_M, risk_M = risk_coverage(uncertainty_M, is_wrong_M)
    _, best_risk_M = risk_coverage(is_wrong_M.astype(np.float64), is_wrong_M)
    aurc = float(risk_M.mean())
    return {
        "aurc": aurc,
        "e_aurc": max(0.0, aurc - float(best_risk_M.mean())),
        "augrc": float((coverage_M * risk_M).mean()),
    }


def risk_at_coverage(uncertainty_M: np.ndarray, is_wrong_M: np.ndarray, coverage: float) -> float:
    """Selective risk of the surest nodes that make up at least `coverage` of all."""
    coverage_M, risk_M = risk_coverage(uncertainty_M, is_wrong_M)
    return float(risk_M[min(int(np.searchsorted(coverage_M, coverage - 1e-12)), len(risk_M) - 1)])


def clopper_pearson_upper(num_wrong: int, num_answered: int, *, delta: float) -> float:
    """The error rate that is exceeded with probability at most `delta`, given errors among answers."""
    from scipy.stats import beta

    if num_wrong >= num_answered:
        return 1.0
    return float(beta.ppf(1 - delta, num_wrong + 1, num_answered - num_wrong))


def guaranteed_threshold(
    candidates: np.ndarray,
    confidence_M: np.ndarray,
    is_wrong_M: np.ndarray,
    *,
    target_risk: float,
    delta: float,
) -> float:
    """The confidence from which answers have an error rate below `target_risk`, with probability 1 - delta.

    Of the candidates, the one that answers most nodes whose Clopper-Pearson bound is at most the target.
    The bounds share delta (Bonferroni), so the guarantee survives the choice; it needs candidates that
    were fixed without these calibration nodes, and calibration nodes exchangeable with those answered.

    Args:
        candidates: thresholds to try.
        confidence_M: confidence of the calibration nodes.
        is_wrong_M: whether their answers are wrong.
        target_risk: error rate allowed among answers.
        delta: probability of failing it.

    Returns:
        A candidate, or infinity (never answer) where none qualifies.
    """
    thresholds = np.unique(candidates)
    for threshold in thresholds:
        answered_M = confidence_M >= threshold
        num_wrong, num_answered = int(is_wrong_M[answered_M].sum()), int(answered_M.sum())
        if num_answered and (
            clopper_pearson_upper(num_wrong, num_answered, delta=delta / len(thresholds)) <= target_risk
        ):
            return float(threshold)
    return float("inf")
