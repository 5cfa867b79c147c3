"""Do probabilities mean what they say: temperature, ECE, Brier, negative log-likelihood."""

import numpy as np
from scipy.special import log_softmax, softmax


def fit_temperature(logit_MK: np.ndarray, y_M: np.ndarray) -> float:
    """The T > 0 that minimises the cross-entropy of softmax(logits / T) (Guo et al. 2017).

    Graph networks tend to be under-confident, so T < 1 is common. Searched in [1/50, 50]: on a handful
    of nodes that are all answered correctly the optimum would be 0.

    Args:
        logit_MK: scores; -inf for classes the probe cannot know. Nodes of such classes are left out.
        y_M: int classes.

    Returns:
        T; 1 where no node is left.
    """
    from scipy.optimize import minimize_scalar

    rows = np.flatnonzero(np.isfinite(logit_MK[np.arange(len(y_M)), y_M]))
    if not len(rows):
        return 1.0
    logit_RK, y_R = logit_MK[rows].astype(np.float64), y_M[rows]

    def cross_entropy(log_temperature: float) -> float:
        log_p_RK = log_softmax(logit_RK / np.exp(log_temperature), 1)
        return float(-log_p_RK[np.arange(len(rows)), y_R].mean())

    limit = np.log(50)
    found = minimize_scalar(cross_entropy, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def probabilities(logit_NK: np.ndarray, temperature: float) -> np.ndarray:
    """float64 softmax(logits / T); classes at -inf get exactly 0."""
    return np.asarray(softmax(logit_NK.astype(np.float64) / temperature, axis=1))


def reliability(
    confidence_M: np.ndarray, is_right_M: np.ndarray, *, num_bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and count of each equal-width bin that has members."""
    bin_M = np.minimum((confidence_M * num_bins).astype(np.int64), num_bins - 1)
    count_B = np.bincount(bin_M, minlength=num_bins)
    used = count_B > 0
    confidence_B = np.bincount(bin_M, weights=confidence_M, minlength=num_bins)[used] / count_B[used]
    accuracy_B = np.bincount(bin_M, weights=is_right_M, minlength=num_bins)[used] / count_B[used]
    return confidence_B, accuracy_B, count_B[used]


def expected_calibration_error(confidence_M: np.ndarray, is_right_M: np.ndarray, *, num_bins: int) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by members."""
    confidence_B, accuracy_B, count_B = reliability(confidence_M, is_right_M, num_bins=num_bins)
    return float((np.abs(confidence_B - accuracy_B) * count_B).sum() / count_B.sum())


def squared_error(p_MK: np.ndarray, y_M: np.ndarray) -> np.ndarray:
    """Squared distance of each node's probabilities from its one-hot truth, in [0, 2]; smaller is better.

    Its mean is the Brier score.
    """
    error_MK = p_MK.copy()
    error_MK[np.arange(len(y_M)), y_M] -= 1
    return np.asarray((error_MK**2).sum(1))


def negative_log_likelihood(p_M: np.ndarray) -> float:
    """Mean -log of the truth's probability in nats, held above 1e-12: one impossible class stays finite."""
    return float(-np.log(np.maximum(p_M, 1e-12)).mean())
