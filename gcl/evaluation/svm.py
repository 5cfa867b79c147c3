"""The protocol of graph collections: a support vector machine with an RBF kernel, in ten folds.

What every published table of these collections rests on: frozen embeddings as they are, stratified folds,
the penalty chosen by an inner search on the training part alone. The same as scikit-learn's `GridSearchCV`
over `SVC()`, with distances computed once and each kernel shared by all penalties.

Legend: N rows, D columns, T rows of a training part, V of the part that is left out.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gcl.errors import NotDefined
from gcl.evaluation.agreement import classification_scores
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.results import MetricRow, summarise
from gcl.graph import Labels
from gcl.threads import one_thread

NUM_FOLDS, NUM_INNER_FOLDS = 10, 5
PENALTIES = tuple(10.0**power for power in range(-3, 4))
MAX_ROWS = 6000
"""Labelled rows above which the protocol is not defined: it holds a few kernels of N x N."""
_POOL_BYTES = 1 << 30  # of kernels of all folds that are worked on at a time
_CACHE_MEGABYTES = 256  # of libsvm, for rows of the kernel


def svm_rows(
    z_ND: np.ndarray, labels: Labels, config: EvaluateConfig, *, protocol: str, embedding: str, seed: int
) -> list[MetricRow]:
    """Accuracy and F1 on the left-out tenth, and the inner search's accuracy as validation; over the folds.

    Args:
        z_ND: float32 embeddings; they are not normalised.
        labels: rows without a label are left out.
        config: `split_seed` shuffles the folds, so that runs share them.
        protocol: for the figures.
        embedding: for the figures.
        seed: the run's seed, for the figures.

    Raises:
        NotDefined: fewer than two classes, a class with fewer rows than there are folds, or too many rows.
    """
    rows = np.flatnonzero(labels.y_N >= 0)
    y_N = labels.y_N[rows]
    _check(y_N, labels)
    squared_NN = _squared_distances(z_ND[rows].astype(np.float64))
    spread = _Spread(z_ND[rows].astype(np.float64))

    def judged(fold: tuple[np.ndarray, np.ndarray]) -> tuple[dict[str, float], dict[str, float]]:
        train_T, test_V = fold
        with one_thread():
            penalty, validated = _chosen_penalty(squared_NN, spread, y_N, train_T)
            predicted_V = _fitted(squared_NN, spread, y_N, train_T, test_V, (penalty,))[0]
        return {"accuracy": validated}, classification_scores(predicted_V, y_N[test_V])

    folds = list(_folds(y_N, NUM_FOLDS, seed=config.split_seed))
    with ThreadPoolExecutor(_num_threads(len(y_N))) as pool:
        parts = zip(*pool.map(judged, folds), strict=True)
    found = dict(zip(("validation", "test"), parts, strict=True))
    return [
        row
        for part in ("validation", "test")
        for row in summarise(
            found[part],
            task="node_classification",
            protocol=protocol,
            split="validation" if part == "validation" else "test",
            seed=seed,
            embedding=embedding,
            over="folds",
        )
    ]


class _Spread:
    """The width of the kernel, from the variance of all numbers of the training part, as `gamma="scale"`."""

    def __init__(self, z_ND: np.ndarray) -> None:
        self.sum_N, self.square_N, self.width = z_ND.sum(1), (z_ND**2).sum(1), z_ND.shape[1]

    def gamma(self, train_T: np.ndarray) -> float:
        """1 / (D var), 1 where nothing varies."""
        count = len(train_T) * self.width
        mean = self.sum_N[train_T].sum() / count
        variance = self.square_N[train_T].sum() / count - mean**2
        return 1.0 / (self.width * variance) if variance > 1e-12 * max(1.0, mean**2) else 1.0


def _chosen_penalty(
    squared_NN: np.ndarray, spread: _Spread, y_N: np.ndarray, train_T: np.ndarray
) -> tuple[float, float]:
    """The penalty with the best mean accuracy over the inner folds, the smallest of equals, and that mean."""
    accuracies = []
    for inner, left_out in _folds(y_N[train_T], NUM_INNER_FOLDS, seed=None):
        predicted = _fitted(squared_NN, spread, y_N, train_T[inner], train_T[left_out], PENALTIES)
        accuracies.append([float((answer == y_N[train_T[left_out]]).mean()) for answer in predicted])
    means = np.mean(accuracies, axis=0)
    best = int(np.argmax(means))
    return PENALTIES[best], float(means[best])


def _fitted(
    squared_NN: np.ndarray,
    spread: _Spread,
    y_N: np.ndarray,
    train_T: np.ndarray,
    test_V: np.ndarray,
    penalties: tuple[float, ...],
) -> list[np.ndarray]:
    """What machines of these penalties, fitted to some rows, say of others."""
    from sklearn.svm import SVC

    gamma = spread.gamma(train_T)
    kernel_TT = np.exp(-gamma * squared_NN[np.ix_(train_T, train_T)])
    kernel_VT = np.exp(-gamma * squared_NN[np.ix_(test_V, train_T)])
    return [
        SVC(C=penalty, kernel="precomputed", cache_size=_CACHE_MEGABYTES)
        .fit(kernel_TT, y_N[train_T])
        .predict(kernel_VT)
        for penalty in penalties
    ]


def _folds(y_N: np.ndarray, number: int, *, seed: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stratified folds: training part and left-out part; shuffled if there is a seed."""
    from sklearn.model_selection import StratifiedKFold

    shuffle = {} if seed is None else {"shuffle": True, "random_state": seed % 2**32}
    yield from StratifiedKFold(number, **shuffle).split(np.zeros(len(y_N)), y_N)


def _squared_distances(z_ND: np.ndarray) -> np.ndarray:
    """float64 [N, N], 0 on the diagonal."""
    # From the mean: large numbers would leave no digits for their differences.
    z_ND = z_ND - z_ND.mean(axis=0)
    square_N = (z_ND**2).sum(1)
    squared_NN: np.ndarray = square_N[:, None] + square_N - 2 * (z_ND @ z_ND.T)
    np.maximum(squared_NN, 0, out=squared_NN)
    np.fill_diagonal(squared_NN, 0)
    return squared_NN


def _num_threads(num_rows: int) -> int:
    """Folds at a time: as many as there are processors, and as `_POOL_BYTES` has room for."""
    return max(1, min(NUM_FOLDS, len(os.sched_getaffinity(0)), _POOL_BYTES // (16 * num_rows**2)))


def _check(y_N: np.ndarray, labels: Labels) -> None:
    if len(y_N) > MAX_ROWS:
        raise NotDefined(
            f"{len(y_N):,} labelled rows are more than {MAX_ROWS:,}, for kernels of all pairs; take "
            "evaluate.protocols=['random-80-10-10', 'kmeans-final']"
        )
    classes, count = np.unique(y_N, return_counts=True)
    if len(classes) < 2:
        raise NotDefined(f"a classifier needs two classes, and there are {len(classes)}")
    if count.min() < NUM_FOLDS:
        raise NotDefined(
            f"class {labels.class_names[classes[count.argmin()]]} has {count.min()} rows, fewer than the "
            f"{NUM_FOLDS} folds"
        )
