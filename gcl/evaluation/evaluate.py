"""The whole evaluation: every protocol on the method's embeddings and on the controls."""

import logging

import numpy as np

from gcl.clustering.geometry import checked_embeddings
from gcl.errors import NotDefined, UnsuitableSetting
from gcl.evaluation.classification import classification_rows, usable_splits
from gcl.evaluation.clusters import clusters_artifact_rows, kmeans_final_rows
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.links import assert_no_leak, link_rows
from gcl.evaluation.oracle import Oracle, kmeans_oracle
from gcl.evaluation.predictions import Predicted, predict_nodes
from gcl.evaluation.protocols import PROTOCOLS, chosen_protocols
from gcl.evaluation.results import EMBEDDINGS, Evaluation, EvaluationInputs, MetricRow
from gcl.graph import Labels, Split
from gcl.threads import one_thread

_log = logging.getLogger(__name__)


def evaluate_embeddings(inputs: EvaluationInputs, config: EvaluateConfig, *, seed: int) -> Evaluation:
    """Measure embeddings under the configured protocols; the same bytes for any number of threads.

    What is not defined for the data (no labels, a single class, no held-out edges) gives no row and a note.

    Args:
        inputs: embeddings and controls, labels, splits, graph.
        config: protocols, probe, calibration.
        seed: the run's seed.

    Raises:
        LeakedEdges: when the graph holds edges that are to be predicted.
        ValueError: embeddings that are not finite, of an unknown name, or not one row a node.
    """
    _check(inputs)
    notes = ["no labels: classification and agreement with classes are not defined"] * (inputs.labels is None)
    rows: list[MetricRow] = []
    predicted: Predicted | None = None
    with one_thread():
        for name in chosen_protocols(inputs, config):
            _log.info("evaluating protocol %s", name)
            try:
                if PROTOCOLS[name].task != "node_classification":
                    rows += _other_rows(inputs, config, protocol=name, seed=seed)
                    continue
                if inputs.labels is None:
                    raise NotDefined("the data set has no labels")
                splits, found = _splits_of(inputs, inputs.labels, config, protocol=name)
                notes += found
                rows += _classification(inputs, inputs.labels, splits, config, protocol=name, seed=seed)
                if predicted is None:
                    predicted = _predict(inputs, inputs.labels, splits[0], config, protocol=name, seed=seed)
            except NotDefined as reason:
                if config.protocols != "auto":
                    raise UnsuitableSetting(
                        f"evaluate.protocols names {name}: not defined, {reason}"
                    ) from None
                notes.append(f"{name}: not defined, {reason}")
        rows += _artifact_rows(inputs, config, seed=seed)
        oracle = _oracle(inputs, config, seed=seed)
    if predicted is None:
        return Evaluation(rows, notes=notes, oracle=oracle)
    return Evaluation(
        rows + predicted.rows, predicted.predictions, predicted.curves, notes + predicted.notes, oracle
    )


def _check(inputs: EvaluationInputs) -> None:
    unknown = set(inputs.embeddings) - set(EMBEDDINGS)
    if unknown or "method" not in inputs.embeddings:
        raise ValueError(
            f"embeddings are {', '.join(EMBEDDINGS)}, method among them; not {sorted(inputs.embeddings)}"
        )
    num_nodes = inputs.graph.num_nodes
    lengths = {name: len(checked_embeddings(z_ND)) for name, z_ND in inputs.embeddings.items()}
    for name, array in (("cluster", inputs.cluster_N), ("uncertainty", inputs.uncertainty_N)):
        lengths |= {} if array is None else {name: len(array)}
    if inputs.labels is not None:
        lengths["labels"] = len(inputs.labels.y_N)
    wrong = {name: length for name, length in lengths.items() if length != num_nodes}
    if wrong:
        raise ValueError(f"the graph has {num_nodes} nodes, but rows are {wrong}")
    if inputs.held_out is not None:
        assert_no_leak(inputs.graph, inputs.held_out)


def _splits_of(
    inputs: EvaluationInputs, labels: Labels, config: EvaluateConfig, *, protocol: str
) -> tuple[tuple[Split, ...], list[str]]:
    rule = PROTOCOLS[protocol].splits
    if rule is None:
        raise NotDefined("the protocol has no splits")
    return usable_splits(rule(inputs, config), labels)


def _classification(
    inputs: EvaluationInputs,
    labels: Labels,
    splits: tuple[Split, ...],
    config: EvaluateConfig,
    *,
    protocol: str,
    seed: int,
) -> list[MetricRow]:
    rows: list[MetricRow] = []
    for embedding, z_ND in _in_order(inputs):
        rows += classification_rows(
            z_ND, labels, splits, config, protocol=protocol, embedding=embedding, seed=seed
        )
    return rows


def _predict(
    inputs: EvaluationInputs,
    labels: Labels,
    split: Split,
    config: EvaluateConfig,
    *,
    protocol: str,
    seed: int,
) -> Predicted:
    return predict_nodes(
        inputs.embeddings["method"],
        labels,
        split,
        inputs.graph,
        config,
        protocol=protocol,
        seed=seed,
        uncertainty_N=inputs.uncertainty_N,
    )


def _other_rows(
    inputs: EvaluationInputs, config: EvaluateConfig, *, protocol: str, seed: int
) -> list[MetricRow]:
    """Rows of the clustering and link prediction protocols."""
    rows: list[MetricRow] = []
    for embedding, z_ND in _in_order(inputs):
        if PROTOCOLS[protocol].task == "clustering":
            if inputs.labels is None:
                raise NotDefined("the data set has no labels")
            rows += kmeans_final_rows(
                z_ND, inputs.labels, inputs.graph, config, embedding=embedding, seed=seed
            )
        else:
            if inputs.held_out is None:
                raise NotDefined("no edges were held out; set dataset.edge_holdout")
            rows += link_rows(
                z_ND, inputs.held_out, embedding=embedding, seed=seed, rate=inputs.held_out_rate
            )
    return rows


def _artifact_rows(inputs: EvaluationInputs, config: EvaluateConfig, *, seed: int) -> list[MetricRow]:
    if inputs.cluster_N is None:
        return []
    return clusters_artifact_rows(
        inputs.cluster_N,
        inputs.embeddings["method"],
        inputs.labels,
        inputs.graph,
        config,
        seed=seed,
        protocol=inputs.cluster_protocol,
    )


def _oracle(inputs: EvaluationInputs, config: EvaluateConfig, *, seed: int) -> Oracle | None:
    if inputs.checks is None or inputs.labels is None:
        return None
    try:
        return kmeans_oracle(inputs.checks, inputs.labels, config, seed=seed)
    except NotDefined:  # the same reason as of kmeans-final, which has its note
        return None


def _in_order(inputs: EvaluationInputs) -> list[tuple[str, np.ndarray]]:
    return [(name, inputs.embeddings[name]) for name in EMBEDDINGS if name in inputs.embeddings]
