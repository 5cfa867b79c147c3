"""The label oracle: the check that labels would have chosen. It is no result.

Papers on deep clustering often report the best epoch by test labels. We print that figure too, so that
theirs can be compared with something, and keep it out of everything that is a result.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from gcl.clustering.geometry import unit_rows
from gcl.errors import NotDefined
from gcl.evaluation.agreement import cluster_scores
from gcl.evaluation.clusters import kmeans_partitions
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.protocols import labelled_nodes
from gcl.evaluation.results import MetricRow, summarise
from gcl.graph import Labels
from gcl.random import derive_seed
from gcl.row_blocks import take_rows

PROTOCOL = "kmeans-oracle"


@dataclass(frozen=True)
class Oracle:
    """What labels would have chosen.

    Attributes:
        epoch: epochs finished at the check with the best accuracy; the earliest of equals.
        num_checks: how many there were to choose from.
        rows: its scores, under the split ``oracle``.
    """

    epoch: int
    num_checks: int
    rows: list[MetricRow]


def kmeans_oracle(
    checks: Iterable[tuple[int, np.ndarray]], labels: Labels, config: EvaluateConfig, *, seed: int
) -> Oracle:
    """Cluster every check as ``kmeans-final`` does the last, once, and keep the one labels like best.

    Args:
        checks: epoch and float32 [N, k] embeddings of each; may be memory-mapped.
        labels: at least two classes; those of the nodes that are measured.
        config: k-means++ starts.
        seed: the run's seed.

    Raises:
        NotDefined: no checks, or fewer than two classes.
        ValueError: checks of other nodes than the labels.
    """
    nodes = labelled_nodes(labels)
    classes, y_M = np.unique(labels.y_N[nodes], return_inverse=True)
    if len(classes) < 2:
        raise NotDefined(f"clustering scores need two classes; the labels hold {len(classes)}")
    scored: list[tuple[int, dict[str, float]]] = []
    for epoch, z_NK in checks:
        if len(z_NK) != len(labels.y_N):
            raise ValueError(f"a check of {len(z_NK)} nodes for {len(labels.y_N)} labels")
        points_MK = unit_rows(take_rows(z_NK, nodes))
        seeds = [derive_seed(seed, PROTOCOL)]
        (cluster_M,) = kmeans_partitions(points_MK, len(classes), config, seeds=seeds)
        scored.append((epoch, cluster_scores(cluster_M, y_M)))
    if not scored:
        raise NotDefined("the run took no checks")
    epoch, best = max(scored, key=lambda item: (item[1]["accuracy"], -item[0]))
    rows = summarise(
        [best],
        task="clustering",
        protocol=PROTOCOL,
        split="oracle",
        seed=seed,
        embedding="method",
        over="checks, best by labels",
    )
    return Oracle(epoch, len(scored), [replace(row, n=len(scored)) for row in rows])
