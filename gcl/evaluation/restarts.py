"""The probe of HeCo's protocol: a linear layer restarted many times, each metric read at its own best step.

Legend: T training, V validation, M measured nodes, D embedding, S restarts, C classes in training, K classes.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from gcl.errors import NotDefined
from gcl.evaluation.config import EvaluateConfig
from gcl.graph import Split
from gcl.random import numpy_generator

_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8  # of Adam


@dataclass(frozen=True, eq=False)
class _Best:
    """Weights [D + 1, S, C] at each restart's best step so far, and how good that was [S]."""

    theta: np.ndarray
    score_S: np.ndarray

    def take(self, theta: np.ndarray, score_S: np.ndarray) -> None:
        """Keep the restarts that are better than ever before; of equal steps the first stays."""
        better_S = score_S > self.score_S
        self.theta[:, better_S], self.score_S[better_S] = theta[:, better_S], score_S[better_S]


def restart_scores(
    z_ND: np.ndarray, y_N: np.ndarray, split: Split, config: EvaluateConfig, *, num_classes: int, seed: int
) -> dict[str, list[dict[str, float]]]:
    """Scores of every restart on the validation and the test nodes, macro_f1, micro_f1, accuracy and auc.

    One softmax layer, Xavier-uniform weights and zero biases, `probe_epochs` full-batch steps of Adam without
    decay, from `num_probe_seeds` starts. A restart's macro F1 is that of the step with the best macro F1 on
    validation; micro F1 and the one-vs-rest AUC, averaged over classes, are those of the step with the best
    micro F1 there. Test labels choose nothing. All restarts train at once as blocks of one wide layer: losses
    add up and Adam works element by element, so none feels another. Computed in float32.

    Args:
        z_ND: float32 embeddings, used as they are (see `gcl.evaluation.probe.prepared`).
        y_N: int labels; nodes of the split must have one.
        split: train to fit, validation to choose (the last step without any), test to measure.
        config: number of steps and restarts, step size.
        num_classes: K.
        seed: of the weights.

    Raises:
        NotDefined: with fewer than two classes in training.
    """
    classes, target_T = np.unique(y_N[split.train], return_inverse=True)
    if len(classes) < 2:
        raise NotDefined(f"split {split.name}: a probe needs two classes in training, not {len(classes)}")
    by_macro, by_micro = _fit(z_ND, y_N, split, config, classes, target_T, num_classes=num_classes, seed=seed)
    found: dict[str, list[dict[str, float]]] = {}
    for part in ("validation", "test"):
        nodes = getattr(split, part)
        if not len(nodes):
            found[part] = []
            continue
        macro_S = macro_f1_scores(
            classes[_logits(z_ND[nodes], by_macro.theta).argmax(2)], y_N[nodes], num_classes
        )
        logit_MSC = _logits(z_ND[nodes], by_micro.theta)
        micro_S = (classes[logit_MSC.argmax(2)] == y_N[nodes][:, None]).mean(0)
        auc_S = auc_scores(softmax(logit_MSC, 2), y_N[nodes], classes)
        found[part] = [
            {"accuracy": float(micro), "macro_f1": float(macro), "micro_f1": float(micro), "auc": float(auc)}
            for micro, macro, auc in zip(micro_S, macro_S, auc_S, strict=True)
        ]
    return found


def _fit(
    z_ND: np.ndarray,
    y_N: np.ndarray,
    split: Split,
    config: EvaluateConfig,
    classes: np.ndarray,
    target_T: np.ndarray,
    *,
    num_classes: int,
    seed: int,
) -> tuple[_Best, _Best]:
    """The weights at the best steps by macro and by micro F1."""
    num_restarts, width, height = config.num_probe_seeds, len(classes), z_ND.shape[1]
    theta = _starts(height, width, num_restarts, seed)
    best = [_Best(theta.copy(), np.full(num_restarts, -np.inf)) for _ in range(2)]
    z_TD, z_VD = z_ND[split.train], z_ND[split.validation]
    y_V = y_N[split.validation]
    one_hot_T1C = np.eye(width, dtype=np.float32)[target_T][:, None, :]
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    for step in range(1, config.probe_epochs + 1):
        error_TSC = np.exp(log_softmax(_logits(z_TD, theta), 2)) - one_hot_T1C
        gradient = _transposed_product(z_TD, error_TSC) / np.float32(len(z_TD))
        first += (1 - _FIRST) * (gradient - first)
        second += (1 - _SECOND) * (gradient**2 - second)
        size = config.probe_learning_rate / (1 - _FIRST**step)
        theta -= size * first / (np.sqrt(second / np.float32(1 - _SECOND**step)) + np.float32(_TINY))
        scores = [np.full(num_restarts, float(step))] * 2
        if len(z_VD):
            given_VS = classes[_logits(z_VD, theta).argmax(2)]
            scores = [macro_f1_scores(given_VS, y_V, num_classes), (given_VS == y_V[:, None]).mean(0)]
        for kept, score_S in zip(best, scores, strict=True):
            kept.take(theta, score_S)
    return best[0], best[1]


def _starts(height: int, width: int, num_restarts: int, seed: int) -> np.ndarray:
    """float32 [D + 1, S, C]: Xavier-uniform weights, and a last row of biases, 0."""
    limit = np.sqrt(6.0 / (height + width))
    theta = np.zeros((height + 1, num_restarts, width), np.float32)
    for s in range(num_restarts):
        theta[:-1, s] = numpy_generator(seed, "restarts", s).uniform(-limit, limit, (height, width))
    return theta


def _logits(z_MD: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """float32 [M, S, C]."""
    flat_MQ = z_MD @ theta[:-1].reshape(z_MD.shape[1], -1)
    logit_MSC: np.ndarray = flat_MQ.reshape(len(z_MD), *theta.shape[1:]) + theta[-1]
    return logit_MSC


def _transposed_product(z_TD: np.ndarray, error_TSC: np.ndarray) -> np.ndarray:
    """float32 [D + 1, S, C] gradient of weights and, last, of biases."""
    weights = (z_TD.T @ error_TSC.reshape(len(z_TD), -1)).reshape(-1, *error_TSC.shape[1:])
    return np.concatenate([weights, error_TSC.sum(0, keepdims=True)])


def macro_f1_scores(given_MS: np.ndarray, y_M: np.ndarray, num_classes: int) -> np.ndarray:
    """Macro F1 [S] of each column of predictions, over the classes that occur in it or in the labels.

    Args:
        given_MS: int predicted classes.
        y_M: int classes.
        num_classes: K.
    """
    total_S, counted_S = np.zeros(given_MS.shape[1]), np.zeros(given_MS.shape[1])
    for k in range(num_classes):
        is_given_MS, is_k_M = given_MS == k, y_M == k
        size_S = is_given_MS.sum(0) + is_k_M.sum()
        total_S += 2 * (is_given_MS & is_k_M[:, None]).sum(0) / np.maximum(size_S, 1)
        counted_S += size_S > 0
    return np.asarray(total_S / counted_S)


def auc_scores(p_MSC: np.ndarray, y_M: np.ndarray, classes_C: np.ndarray) -> np.ndarray:
    """One-vs-rest area under the ROC curve [S], averaged over the classes with and without members in `y_M`.

    A class the probe cannot know counts as a coin's throw.

    Args:
        p_MSC: float probabilities of the C classes.
        y_M: int classes.
        classes_C: int ids of the C classes.
    """
    from scipy.stats import rankdata

    areas = []
    for k in np.unique(y_M):
        is_k_M = y_M == k
        num_in, num_out = int(is_k_M.sum()), int((~is_k_M).sum())
        if not num_out:
            continue
        place = np.flatnonzero(classes_C == k)
        if not len(place):
            areas.append(np.full(p_MSC.shape[1], 0.5))
            continue
        rank_MS = rankdata(p_MSC[:, :, place[0]], axis=0)
        areas.append((rank_MS[is_k_M].sum(0) - num_in * (num_in + 1) / 2) / (num_in * num_out))
    return np.mean(areas, axis=0) if areas else np.full(p_MSC.shape[1], np.nan)
