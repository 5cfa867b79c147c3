"""Agreement of predictions or clusters with labels."""

import numpy as np

from gcl.clustering.partition import adjusted_rand_index, contingency


def classification_scores(predicted_M: np.ndarray, y_M: np.ndarray) -> dict[str, float]:
    """accuracy, macro_f1 (over the classes that occur in either) and micro_f1 of int class ids.

    With one label a node, micro F1 equals accuracy; it is printed because tables ask for it.
    """
    accuracy = float((predicted_M == y_M).mean())
    return {"accuracy": accuracy, "macro_f1": macro_f1(predicted_M, y_M), "micro_f1": accuracy}


def macro_f1(predicted_M: np.ndarray, y_M: np.ndarray) -> float:
    """Unweighted mean of the classes' F1; a class predicted or labelled but never hit counts 0."""
    size = int(max(predicted_M.max(), y_M.max())) + 1
    hit_K = np.bincount(y_M[predicted_M == y_M], minlength=size)
    total_K = np.bincount(y_M, minlength=size) + np.bincount(predicted_M, minlength=size)
    return float((2 * hit_K / np.maximum(total_K, 1))[total_K > 0].mean())


def cluster_scores(cluster_M: np.ndarray, y_M: np.ndarray) -> dict[str, float]:
    """Scores accuracy and macro_f1 after Hungarian matching, nmi (arithmetic mean), ari, fmi.

    Where clusters outnumber classes, the unmatched ones count as wrong.

    Args:
        cluster_M: int clusters of labelled nodes, ids from 0.
        y_M: int classes of the same nodes, ids from 0.
    """
    from scipy.optimize import linear_sum_assignment

    _, cluster_M = np.unique(cluster_M, return_inverse=True)
    _, y_M = np.unique(y_M, return_inverse=True)
    count_AB = contingency(cluster_M, y_M)
    matched, target = linear_sum_assignment(-count_AB)
    class_A = np.arange(count_AB.shape[0]) + count_AB.shape[1]
    class_A[matched] = target
    predicted_M = class_A[cluster_M]
    return {
        "accuracy": float((predicted_M == y_M).mean()),
        "macro_f1": _matched_macro_f1(predicted_M, y_M),
        "nmi": _normalised_mutual_information(count_AB),
        "ari": adjusted_rand_index(cluster_M, y_M),
        "fmi": _fowlkes_mallows(count_AB),
    }


def _matched_macro_f1(predicted_M: np.ndarray, y_M: np.ndarray) -> float:
    """Macro F1 over the classes: a cluster without a class costs its members' recall, and adds no class."""
    num_classes = int(y_M.max()) + 1
    hit_K = np.bincount(y_M[predicted_M == y_M], minlength=num_classes)
    given_K = np.bincount(predicted_M[predicted_M < num_classes], minlength=num_classes)
    return float((2 * hit_K / (np.bincount(y_M) + given_K)).mean())


def _normalised_mutual_information(count_AB: np.ndarray) -> float:
    joint_AB = count_AB / count_AB.sum()
    first_A, second_B = joint_AB.sum(1), joint_AB.sum(0)
    mean_entropy = (_entropy(first_A) + _entropy(second_B)) / 2
    if mean_entropy == 0:
        return 1.0  # both are a single cluster: equal partitions
    mutual = _entropy(first_A) + _entropy(second_B) - _entropy(joint_AB.ravel())
    return float(np.clip(mutual / mean_entropy, 0, 1))


def _entropy(share: np.ndarray) -> float:
    positive = share[share > 0]
    return float(-(positive * np.log(positive)).sum())


def _fowlkes_mallows(count_AB: np.ndarray) -> float:
    """Geometric mean of pair precision and pair recall (Fowlkes and Mallows 1983)."""
    count_AB = count_AB.astype(np.float64)
    size = count_AB.sum()
    both = (count_AB**2).sum() - size
    first, second = (count_AB.sum(1) ** 2).sum() - size, (count_AB.sum(0) ** 2).sum() - size
    return float(both / np.sqrt(first * second)) if both > 0 else 0.0
