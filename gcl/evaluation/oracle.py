"""The label oracle: the check that labels would have chosen. It is no result.

Papers on deep clustering often report the best epoch by test labels. We print that figure too, so that
theirs can be compared with something, and keep it out of everything that is a result. Codes that report so
often cluster each epoch from a single start, whose luck the labels choose as well: ``legacy_kmeans-oracle``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from gcl.clustering.geometry import unit_rows
from gcl.clustering.legacy_kmeans import fit_legacy_kmeans
from gcl.errors import NotDefined
from gcl.evaluation.agreement import cluster_scores
from gcl.evaluation.clusters import kmeans_partitions
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.protocols import labelled_nodes
from gcl.evaluation.results import MetricRow, summarise
from gcl.graph import Labels
from gcl.random import derive_seed
from gcl.row_blocks import take_rows


@dataclass(frozen=True)
class Oracle:
    """What labels would have chosen.

    Attributes:
        epochs: by protocol, epochs finished at the check with the best accuracy; the earliest of equals.
        num_checks: how many there were to choose from.
        rows: the scores of these checks, under the split ``oracle``.
    """

    epochs: dict[str, int]
    num_checks: int
    rows: list[MetricRow]


def label_oracle(
    checks: Iterable[tuple[int, np.ndarray]], labels: Labels, config: EvaluateConfig, *, seed: int
) -> Oracle:
    """Cluster every check once in each way of `config.oracle_starts`, and keep the one labels like best.

    Args:
        checks: epoch and float32 [N, k] embeddings of each; may be memory-mapped.
        labels: at least two classes; those of the nodes that are measured.
        config: the ways of clustering, and k-means++ starts.
        seed: the run's seed.

    Raises:
        NotDefined: no checks, or fewer than two classes.
        ValueError: checks of other nodes than the labels.
    """
    nodes = labelled_nodes(labels)
    classes, y_M = np.unique(labels.y_N[nodes], return_inverse=True)
    if len(classes) < 2:
        raise NotDefined(f"clustering scores need two classes; the labels hold {len(classes)}")
    scored: dict[str, list[tuple[int, dict[str, float]]]] = {}
    for epoch, z_NK in checks:
        if len(z_NK) != len(labels.y_N):
            raise ValueError(f"a check of {len(z_NK)} nodes for {len(labels.y_N)} labels")
        points_MK = take_rows(z_NK, nodes)
        for name in config.oracle_starts:
            cluster_M = _PARTITION[name](points_MK, len(classes), config, seed, epoch)
            scored.setdefault(f"{name}-oracle", []).append((epoch, cluster_scores(cluster_M, y_M)))
    if not scored:
        raise NotDefined("the run took no checks")
    rows, epochs = [], {}
    for protocol, found in scored.items():
        epochs[protocol], best = max(found, key=lambda item: (item[1]["accuracy"], -item[0]))
        rows += summarise(
            [best],
            task="clustering",
            protocol=protocol,
            split="oracle",
            seed=seed,
            embedding="method",
            over="checks, best by labels",
        )
    num_checks = len(next(iter(scored.values())))
    return Oracle(epochs, num_checks, [replace(row, n=num_checks) for row in rows])


def _as_kmeans_final(
    z_MK: np.ndarray, num_clusters: int, config: EvaluateConfig, seed: int, epoch: int
) -> np.ndarray:
    seeds = [derive_seed(seed, "kmeans-oracle")]
    (cluster_M,) = kmeans_partitions(unit_rows(z_MK), num_clusters, config, seeds=seeds)
    return cluster_M


def _as_released(
    z_MK: np.ndarray, num_clusters: int, config: EvaluateConfig, seed: int, epoch: int
) -> np.ndarray:
    # Draws of its own at each check, or the labels would have one start to choose and not as many as checks.
    return fit_legacy_kmeans(
        z_MK, num_clusters, seed=derive_seed(seed, "legacy_kmeans-oracle", epoch)
    ).cluster_N


_PARTITION: dict[str, Callable[[np.ndarray, int, EvaluateConfig, int, int], np.ndarray]] = {
    "kmeans": _as_kmeans_final,
    "legacy_kmeans": _as_released,
}
