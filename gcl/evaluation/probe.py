"""Probes on frozen embeddings: logistic regression and a softmax layer, both deterministic.

A probe sees training nodes to fit and validation nodes to choose (penalty, epoch), never test nodes.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from gcl.clustering.geometry import unit_rows
from gcl.errors import NotDefined
from gcl.evaluation.config import EvaluateConfig
from gcl.graph import Split
from gcl.random import numpy_generator


@dataclass(frozen=True, eq=False)
class Probe:
    """A fitted probe: class scores of any nodes.

    Attributes:
        weight_DC: float32 weights of the C classes that have training nodes.
        bias_C: float32 biases.
        classes_C: int ids of those classes, ascending.
        num_classes: K.
        chosen: the penalty C, or the epoch, that validation chose.
    """

    weight_DC: np.ndarray
    bias_C: np.ndarray
    classes_C: np.ndarray
    num_classes: int
    chosen: float

    def logits(self, z_MD: np.ndarray) -> np.ndarray:
        """float32 [M, K]; -inf for classes without a training node, which the probe cannot know.

        Args:
            z_MD: float32 embeddings as the probe was given them (see `prepared`).
        """
        logit_MK = np.full((len(z_MD), self.num_classes), -np.inf, np.float32)
        logit_MK[:, self.classes_C] = z_MD @ self.weight_DC + self.bias_C
        return logit_MK

    def predict(self, z_MD: np.ndarray) -> np.ndarray:
        """int64 most probable classes; arguments as `logits`."""
        return np.asarray(self.logits(z_MD).argmax(1))


def fit_probes(
    z_ND: np.ndarray, y_N: np.ndarray, split: Split, config: EvaluateConfig, *, num_classes: int, seed: int
) -> list[Probe]:
    """Fit the configured probe on `split`: one for logistic regression, one a probe seed for linear.

    Args:
        z_ND: float32 embeddings, used as they are (see `prepared`).
        y_N: int labels; nodes of the split must have one.
        split: train to fit, validation to choose; test is not read.
        config: which probe and its budget.
        num_classes: K, width of the scores.
        seed: of the linear probe's initialisation.

    Raises:
        NotDefined: with fewer than two classes in training.
    """
    classes, target = np.unique(y_N[split.train], return_inverse=True)
    if len(classes) < 2:
        raise NotDefined(f"split {split.name}: a probe needs two classes in training, not {len(classes)}")
    position_K = np.full(num_classes, -1)
    position_K[classes] = np.arange(len(classes))
    task = _ProbeTask(z_ND, split.train, target, split.validation, position_K[y_N[split.validation]])
    fitted = _logistic(task, config) if config.probe == "logistic" else _linear(task, config, seed=seed)
    return [
        Probe(weight_DC.astype(np.float32), bias_C.astype(np.float32), classes, num_classes, chosen)
        for weight_DC, bias_C, chosen in fitted
    ]


def prepared(z_ND: np.ndarray, config: EvaluateConfig) -> np.ndarray:
    """Embeddings as the probe takes them."""
    return unit_rows(z_ND) if config.normalise else np.ascontiguousarray(z_ND, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class _ProbeTask:
    """Training targets count the classes present; validation targets of absent classes are -1."""

    z_ND: np.ndarray
    train: np.ndarray
    target_T: np.ndarray
    validation: np.ndarray
    validation_target_V: np.ndarray

    def validation_score(self, logit_VK: np.ndarray) -> tuple[float, float]:
        """Accuracy, then minus the cross-entropy to break ties; absent classes are always missed."""
        known = self.validation_target_V >= 0
        accuracy = float((logit_VK.argmax(1) == self.validation_target_V).mean())
        log_p = log_softmax(logit_VK[known], 1)[np.arange(known.sum()), self.validation_target_V[known]]
        return accuracy, float(log_p.mean()) if known.any() else 0.0


Fitted = tuple[np.ndarray, np.ndarray, float]  # weight_DK, bias_K, chosen


def _logistic(task: _ProbeTask, config: EvaluateConfig) -> list[Fitted]:
    """min_W C sum_i CE_i + |W|^2 / 2 along ascending C, each started from the one before.

    The penalty ties the weights to the span of the training rows, so with fewer rows than columns the
    problem is solved exactly in the coordinates of that span.
    """
    z_TD = task.z_ND[task.train].astype(np.float64)
    basis_DR = None
    if len(z_TD) < z_TD.shape[1]:
        basis_DR, triangle = np.linalg.qr(z_TD.T)
        z_TD = triangle.T
    num_classes = int(task.target_T.max()) + 1
    theta = np.zeros((z_TD.shape[1] + 1) * num_classes)
    z_VD = task.z_ND[task.validation].astype(np.float64)
    best_score, best = (-np.inf, -np.inf), (np.zeros((0, 0)), np.zeros(0), 0.0)
    grid = config.probe_c if len(task.validation) else (1.0,)
    for c in grid:
        theta = _minimise(theta, z_TD, task.target_T, num_classes, c)
        weight, bias_K = theta[num_classes:].reshape(-1, num_classes), theta[:num_classes]
        weight_DK = weight if basis_DR is None else basis_DR @ weight
        score = task.validation_score(z_VD @ weight_DK + bias_K) if len(z_VD) else (0.0, 0.0)
        if score > best_score:
            best_score, best = score, (weight_DK.copy(), bias_K.copy(), c)
    return [best]


def _minimise(
    theta: np.ndarray, z_TD: np.ndarray, target_T: np.ndarray, num_classes: int, c: float
) -> np.ndarray:
    from scipy.optimize import minimize

    rows = np.arange(len(target_T))
    # Dividing by 1 + C T keeps the gradient of order 1 over the whole path, so one tolerance fits all.
    scale = 1.0 / (1.0 + c * len(rows))

    def value_and_gradient(theta: np.ndarray) -> tuple[float, np.ndarray]:
        weight_DK = theta[num_classes:].reshape(-1, num_classes)
        log_p_TK = log_softmax(z_TD @ weight_DK + theta[:num_classes], 1)
        value = -c * log_p_TK[rows, target_T].sum() + 0.5 * (weight_DK**2).sum()
        error_TK = np.exp(log_p_TK)
        error_TK[rows, target_T] -= 1
        gradient = np.concatenate([c * error_TK.sum(0), (c * z_TD.T @ error_TK + weight_DK).ravel()])
        return float(value * scale), gradient * scale

    found = minimize(
        value_and_gradient,
        theta,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 500, "gtol": 1e-7, "ftol": 1e-13},
    )
    return np.asarray(found.x)


def _linear(task: _ProbeTask, config: EvaluateConfig, *, seed: int) -> list[Fitted]:
    """One softmax layer by full-batch Adam, no decay, kept at its best validation epoch, a seed.

    All seeds train at once as blocks of one wide layer: their losses add up and Adam works element by
    element, so no seed feels another.
    """
    num_classes, num_seeds = int(task.target_T.max()) + 1, config.num_probe_seeds
    width = task.z_ND.shape[1]
    bound = 1.0 / np.sqrt(width)
    theta = np.stack(
        [
            numpy_generator(seed, "linear_probe", s).uniform(-bound, bound, (width + 1, num_classes))
            for s in range(num_seeds)
        ],
        axis=1,
    ).reshape(width + 1, -1)
    z_TD, z_VD = (_with_ones(task.z_ND[nodes]) for nodes in (task.train, task.validation))
    first, second = np.zeros_like(theta), np.zeros_like(theta)
    one_hot_TK = np.eye(num_classes)[task.target_T][:, None, :]
    best_score = [(-np.inf, -np.inf)] * num_seeds
    best_epoch, best_theta = [0] * num_seeds, theta.reshape(width + 1, num_seeds, num_classes).copy()
    for epoch in range(1, config.probe_epochs + 1):
        logit_TSK = (z_TD @ theta).reshape(len(z_TD), num_seeds, num_classes)
        error_TSK = np.exp(log_softmax(logit_TSK, 2)) - one_hot_TK
        gradient = z_TD.T @ error_TSK.reshape(len(z_TD), -1) / len(z_TD)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        step = (first / (1 - 0.9**epoch)) / (np.sqrt(second / (1 - 0.999**epoch)) + 1e-8)
        theta = theta - config.probe_learning_rate * step
        logit_VSK = (z_VD @ theta).reshape(len(z_VD), num_seeds, num_classes)
        for s in range(num_seeds):
            score = task.validation_score(logit_VSK[:, s]) if len(z_VD) else (float(epoch), 0.0)
            if score > best_score[s]:
                best_score[s], best_epoch[s] = score, epoch
                best_theta[:, s] = theta.reshape(width + 1, num_seeds, num_classes)[:, s]
    return [(best_theta[:-1, s], best_theta[-1, s], float(best_epoch[s])) for s in range(num_seeds)]


def _with_ones(z_MD: np.ndarray) -> np.ndarray:
    return np.hstack([z_MD.astype(np.float64), np.ones((len(z_MD), 1))])
