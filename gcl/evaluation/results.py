"""What goes into an evaluation and what comes out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from gcl.edge_holdout import HeldOutPairs
from gcl.graph import Graph, Labels, Split
from gcl.row_blocks import Matrix

if TYPE_CHECKING:
    from gcl.evaluation.oracle import Oracle

EMBEDDINGS = ("method", "smoothed", "random_init")


class HeldOut(Protocol):
    """Anything that carries the held-out pairs of a link prediction run."""

    @property
    def test(self) -> HeldOutPairs:
        """Pairs for the final score."""

    @property
    def validation(self) -> HeldOutPairs:
        """Pairs for choices on the way."""


@dataclass(frozen=True, eq=False)
class EvaluationInputs:
    """All an evaluation reads; the controls get the same probe and budget as the method.

    Attributes:
        embeddings: float32 [N, D] by name, in memory or read in blocks: ``method``, and the controls
            ``smoothed`` (the features the encoder saw) and ``random_init`` (the untrained encoder's).
        labels: None for a data set without.
        splits: the data set's own; may be empty.
        graph: the graph the embeddings were made with; its features are not read.
        held_out: pairs of a link prediction run.
        held_out_rate: share of edges held out for test; it is part of the protocol's name.
        cluster_N: int32 clusters of the pipeline's own clustering.
        cluster_protocol: what their rows are called.
        is_cluster_normalised: whether that clustering took rows of length 1, or as they are; then the method
            and its controls are clustered as they are too, for a comparison in one geometry.
        uncertainty_N: float32 uncertainty, larger is less sure, NaN where not scored.
        checks: epoch and float32 [N, k] embeddings of each check of the run, for the label oracle alone.
        rows_are_graphs: whether each row is a whole graph of a collection.
    """

    embeddings: Mapping[str, Matrix]
    graph: Graph
    labels: Labels | None = None
    splits: tuple[Split, ...] = ()
    held_out: HeldOut | None = None
    held_out_rate: float = 0.1
    cluster_N: np.ndarray | None = None
    cluster_protocol: Literal["clusters-artifact", "consensus-final"] = "clusters-artifact"
    is_cluster_normalised: bool = True
    uncertainty_N: np.ndarray | None = None
    checks: Iterable[tuple[int, np.ndarray]] | None = None
    rows_are_graphs: bool = False

    @property
    def row(self) -> str:
        """What messages call a row."""
        return "graph" if self.rows_are_graphs else "node"


@dataclass(frozen=True)
class MetricRow:
    """One figure: the mean of `n` values over `over`, with their standard deviation.

    Attributes:
        task: node_classification, graph_classification (of a collection), clustering, link_prediction or
            negatives.
        protocol: name in the protocol registry, or ``clusters-artifact``, ``consensus-final``,
            ``kmeans-oracle``, ``legacy_kmeans-oracle``.
        split: which part it was measured on; ``oracle`` where labels chose what was measured.
        seed: the run's seed.
        embedding: method, smoothed or random_init.
        metric: snake case; rates as fractions, not percent.
        value: mean.
        std: sample standard deviation (n - 1); 0 when n is 1, where it says nothing.
        n: how many values.
        over: what varied: splits, probe seeds, k-means seeds, ...
    """

    task: str
    protocol: str
    split: Literal["validation", "test", "all", "oracle"]
    seed: int
    embedding: str
    metric: str
    value: float
    std: float
    n: int
    over: str


@dataclass(frozen=True, eq=False)
class PredictedNodes:
    """The probe's answers for consecutive nodes, with how far to trust them.

    Attributes:
        predicted_B: int32 most probable class.
        confidence_B: float32 calibrated probability of that class.
        entropy_B: float32 entropy of the calibrated probabilities, in nats.
        abstain_B: bool, whether confidence lies below the threshold that keeps target_risk.
        set_BK: bool, the conformal prediction set; may be empty.
    """

    predicted_B: np.ndarray
    confidence_B: np.ndarray
    entropy_B: np.ndarray
    abstain_B: np.ndarray
    set_BK: np.ndarray


@dataclass(frozen=True, eq=False)
class Predictions:
    """An answer for every node of the graph, worked out while it is read.

    Attributes:
        blocks: gives the answers of all nodes in order, a block of nodes at a time; afresh at every call.
        protocol: whose first split trained the probe.
        threshold: confidence from which an answer is given; infinite when no threshold has the guarantee.
    """

    blocks: Callable[[], Iterator[PredictedNodes]]
    protocol: str
    threshold: float

    def whole(self) -> PredictedNodes:
        """All answers at once: N x K flags, for graphs that leave room for them."""
        blocks = list(self.blocks())
        return PredictedNodes(
            *(
                np.concatenate([getattr(block, part.name) for block in blocks])
                for part in fields(PredictedNodes)
            )
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures, predictions, curves by name as (x, y), what was left out and why, and the label oracle.

    `sample` says which nodes were measured, where they are not all that have a label.
    """

    metrics: list[MetricRow]
    predictions: Predictions | None = None
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    oracle: "Oracle | None" = None
    sample: dict[str, int] | None = None


def summarise(
    repeats: Iterable[Mapping[str, float]],
    *,
    task: str,
    protocol: str,
    split: Literal["validation", "test", "all", "oracle"],
    seed: int,
    embedding: str,
    over: str,
) -> list[MetricRow]:
    """One row a metric from one mapping a repeat; values that are not finite are left out, and n says so."""
    by_metric: dict[str, list[float]] = {}
    for repeat in repeats:
        for metric, value in repeat.items():
            by_metric.setdefault(metric, []).extend([value] if np.isfinite(value) else [])
    return [
        MetricRow(
            task, protocol, split, seed, embedding, metric,
            float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
            len(values), over,
        )
        for metric, values in by_metric.items()
        if values
    ]  # fmt: skip
