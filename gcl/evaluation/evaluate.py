"""The whole evaluation: every protocol on the method's embeddings and on the controls.

Legend: N nodes, R nodes whose rows are read (`gcl.evaluation.sample`), D columns.
"""

import logging
from dataclasses import dataclass, replace

import numpy as np

from gcl.errors import NotDefined, UnsuitableSetting
from gcl.evaluation.classification import classification_rows, usable_splits
from gcl.evaluation.clusters import clusters_artifact_rows, kmeans_rows, silhouette_nodes
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.judge import Everyone
from gcl.evaluation.links import assert_no_leak, link_rows
from gcl.evaluation.oracle import Oracle, label_oracle
from gcl.evaluation.predictions import Predicted, predict_nodes
from gcl.evaluation.protocols import PROTOCOLS, chosen_protocols
from gcl.evaluation.results import EMBEDDINGS, Evaluation, EvaluationInputs, MetricRow
from gcl.evaluation.sample import Sample, draw_sample
from gcl.evaluation.subgraph import induced_subgraph
from gcl.graph import Graph, Labels, Split
from gcl.row_blocks import row_blocks, take_rows, whole_matrix
from gcl.threads import one_thread
from gcl.workspace import MEMORY, Workspace

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Read:
    """What has been read: of the R nodes of the sample, float32 [R, D] by name, and where more is put."""

    inputs: EvaluationInputs
    sample: Sample
    embeddings: dict[str, np.ndarray]
    workspace: Workspace

    @property
    def labels(self) -> Labels:
        """Of the R nodes; NotDefined without labels."""
        if self.inputs.labels is None:
            raise NotDefined("the data set has no labels")
        return self.sample.local_labels(self.inputs.labels)


def evaluate_embeddings(
    inputs: EvaluationInputs, config: EvaluateConfig, *, seed: int, workspace: Workspace = MEMORY
) -> Evaluation:
    """Measure embeddings under the configured protocols; the same bytes for any number of threads.

    What is not defined for the data (no labels, a single class, no held-out edges) gives no row and a note.
    Memory is bounded by `config.max_nodes` and a few vectors of N.

    Args:
        inputs: embeddings and controls, labels, splits, graph.
        config: protocols, probe, calibration, how many nodes are measured.
        seed: the run's seed.
        workspace: where large arrays are put.

    Raises:
        LeakedEdges: when the graph holds edges that are to be predicted.
        ValueError: embeddings that are not finite, of an unknown name, or not one row a node.
    """
    _check(inputs)
    notes = ["no labels: classification and agreement with classes are not defined"] * (inputs.labels is None)
    rows: list[MetricRow] = []
    predicted: Predicted | None = None
    with one_thread():
        read = _read(inputs, config, workspace, seed=seed)
        notes += read.sample.notes
        for name in chosen_protocols(inputs, config):
            _log.info("evaluating protocol %s", name)
            try:
                if PROTOCOLS[name].task == "clustering":
                    rows += _clustering(read, config, notes, protocol=name, seed=seed)
                elif PROTOCOLS[name].task == "link_prediction":
                    rows += _links(read, seed=seed)
                elif PROTOCOLS[name].rows is not None:
                    rows += _own_rows(read, config, protocol=name, seed=seed)
                else:
                    splits = _splits_of(read, config, notes, protocol=name)
                    rows += _classification(read, splits, config, protocol=name, seed=seed)
                    if predicted is None:
                        predicted = _predict(read, splits[0], config, protocol=name, seed=seed)
            except NotDefined as reason:
                if config.protocols != "auto":
                    raise UnsuitableSetting(
                        f"evaluate.protocols names {name}: not defined, {reason}"
                    ) from None
                notes.append(f"{name}: not defined, {reason}")
        rows += _artifact_rows(read, config, seed=seed)
        oracle = _oracle(read, config, seed=seed)
    rows += [] if predicted is None else predicted.rows
    rows = [_named(row, rows_are_graphs=inputs.rows_are_graphs) for row in rows]
    found = Evaluation(rows, notes=notes, oracle=oracle, sample=read.sample.facts)
    if predicted is None:
        return found
    return replace(
        found,
        predictions=predicted.predictions,
        curves=predicted.curves,
        notes=notes + predicted.notes,
    )


def _check(inputs: EvaluationInputs) -> None:
    unknown = set(inputs.embeddings) - set(EMBEDDINGS)
    if unknown or "method" not in inputs.embeddings:
        raise ValueError(
            f"embeddings are {', '.join(EMBEDDINGS)}, method among them; not {sorted(inputs.embeddings)}"
        )
    num_nodes = inputs.graph.num_nodes
    lengths = {name: row_blocks(matrix).shape[0] for name, matrix in inputs.embeddings.items()}
    for name, array in (("cluster", inputs.cluster_N), ("uncertainty", inputs.uncertainty_N)):
        lengths |= {} if array is None else {name: len(array)}
    if inputs.labels is not None:
        lengths["labels"] = len(inputs.labels.y_N)
    wrong = {name: length for name, length in lengths.items() if length != num_nodes}
    if wrong:
        raise ValueError(f"the graph has {num_nodes} nodes, but rows are {wrong}")
    if inputs.held_out is not None:
        assert_no_leak(inputs.graph, inputs.held_out)


def _read(inputs: EvaluationInputs, config: EvaluateConfig, workspace: Workspace, *, seed: int) -> _Read:
    """The rows of the sample, method and controls in the order they are reported in."""
    sample = draw_sample(inputs, config, seed=seed)
    embeddings = {
        name: take_rows(inputs.embeddings[name], sample.nodes_R, workspace)
        for name in EMBEDDINGS
        if name in inputs.embeddings
    }
    return _Read(inputs, sample, embeddings, workspace)


def _splits_of(read: _Read, config: EvaluateConfig, notes: list[str], *, protocol: str) -> tuple[Split, ...]:
    """The splits of a protocol, by positions in the sample; what a reader must know joins `notes`."""
    inputs, sample = read.inputs, read.sample
    rule = PROTOCOLS[protocol].splits
    if inputs.labels is None:
        raise NotDefined("the data set has no labels")
    if rule is None:
        raise NotDefined("the protocol has no splits")
    given = rule(replace(inputs, labels=sample.labels, splits=sample.splits), config)
    splits, found = usable_splits(given, inputs.labels, row=inputs.row)
    notes += found
    return tuple(sample.local_split(split) for split in splits)


def _classification(
    read: _Read, splits: tuple[Split, ...], config: EvaluateConfig, *, protocol: str, seed: int
) -> list[MetricRow]:
    rows: list[MetricRow] = []
    for embedding, z_RD in read.embeddings.items():
        rows += classification_rows(
            z_RD, read.labels, splits, config, protocol=protocol, embedding=embedding, seed=seed
        )
    return rows


def _own_rows(read: _Read, config: EvaluateConfig, *, protocol: str, seed: int) -> list[MetricRow]:
    """Of a protocol that gives its figures itself."""
    rows_of = PROTOCOLS[protocol].rows
    if read.sample.labels is None or rows_of is None:
        raise NotDefined("the data set has no labels")
    labels = read.sample.local_labels(read.sample.labels)
    return [
        row
        for embedding, z_RD in read.embeddings.items()
        for row in rows_of(z_RD, labels, config, protocol=protocol, embedding=embedding, seed=seed)
    ]


def _named(row: MetricRow, *, rows_are_graphs: bool) -> MetricRow:
    """A collection's rows are graphs, and what is classified are they."""
    is_of_graphs = rows_are_graphs and row.task == "node_classification"
    return replace(row, task="graph_classification") if is_of_graphs else row


def _predict(read: _Read, split: Split, config: EvaluateConfig, *, protocol: str, seed: int) -> Predicted:
    inputs, nodes_R = read.inputs, read.sample.nodes_R
    return predict_nodes(
        read.embeddings["method"],
        read.labels,
        split,
        Everyone(inputs.embeddings["method"], inputs.graph, nodes_R, read.workspace),
        config,
        protocol=protocol,
        seed=seed,
        uncertainty_R=None if inputs.uncertainty_N is None else inputs.uncertainty_N[nodes_R],
        row=inputs.row,
    )


def _clustering(
    read: _Read, config: EvaluateConfig, notes: list[str], *, protocol: str, seed: int
) -> list[MetricRow]:
    """Rows of k-means; of a sample, graph figures are those of its own subgraph, and `notes` say so."""
    if read.sample.labels is None:
        raise NotDefined("the data set has no labels")
    labels = read.sample.local_labels(read.sample.labels)
    graph: Graph = induced_subgraph(read.inputs.graph, read.sample.nodes_R, read.workspace)
    rows: list[MetricRow] = []
    for embedding, z_RD in read.embeddings.items():
        rows += kmeans_rows(z_RD, labels, graph, config, embedding=embedding, seed=seed, protocol=protocol)
    if read.sample.facts is not None:
        notes.append(f"{protocol}: modularity and conductance are those of the subgraph of the sample")
    return rows


def _links(read: _Read, *, seed: int) -> list[MetricRow]:
    inputs = read.inputs
    if inputs.held_out is None:
        raise NotDefined("no edges were held out; set dataset.edge_holdout")
    rows: list[MetricRow] = []
    for embedding in read.embeddings:
        z_ND = whole_matrix(inputs.embeddings[embedding], read.workspace)
        rows += link_rows(z_ND, inputs.held_out, embedding=embedding, seed=seed, rate=inputs.held_out_rate)
    return rows


def _artifact_rows(read: _Read, config: EvaluateConfig, *, seed: int) -> list[MetricRow]:
    inputs, sample = read.inputs, read.sample
    if inputs.cluster_N is None:
        return []
    nodes = silhouette_nodes(inputs.graph.num_nodes, config, seed=seed)
    return clusters_artifact_rows(
        inputs.cluster_N,
        read.embeddings["method"][sample.positions(nodes)],
        sample.labels,
        inputs.graph,
        config,
        seed=seed,
        protocol=inputs.cluster_protocol,
        is_unit=inputs.is_cluster_normalised,
    )


def _oracle(read: _Read, config: EvaluateConfig, *, seed: int) -> Oracle | None:
    checks, labels = read.inputs.checks, read.sample.labels
    if checks is None or labels is None:
        return None
    try:
        return label_oracle(checks, labels, config, seed=seed)
    except NotDefined:  # the same reason as of kmeans-final, which has its note
        return None
