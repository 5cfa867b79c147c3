"""Evaluate: the stage where labels are opened; metrics with their controls, calibrated predictions."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_contracts.tables import TABLES
from gcl.edge_holdout import HeldOutPairs
from gcl.evaluation.config import EvaluateConfig
from gcl.evaluation.evaluate import evaluate_embeddings
from gcl.evaluation.links import LinkPairs
from gcl.evaluation.negatives import WeighedPairs, negative_weight_rows
from gcl.evaluation.results import Evaluation, EvaluationInputs, MetricRow, PredictedNodes
from gcl.graph import Labels
from gcl.workspace import Workspace
from tasks.convert import (
    read_checks,
    read_column,
    read_graph,
    read_labels,
    read_node_ids,
    read_splits,
    write_batches,
    write_columns,
)
from tasks.parquet_rows import ParquetRows
from tasks.stage import Stage
from tasks.work import Work

_BATCH_ROWS = 1 << 20


class EmbeddingsOfAnotherGraph(Exception):
    """Embeddings come from another graph than the one they are to be judged on: held-out edges may leak."""


def evaluate(work: Work, config: EvaluateConfig) -> None:
    """Judge the method's embeddings and the controls by the same probes."""
    _refuse_other_graph(work)
    labels, workspace = read_labels(work.input("labels")), work.workspace()
    graph_facts = work.metadata("graph")
    inputs = EvaluationInputs(
        embeddings={
            "method": ParquetRows(work.input("embeddings") / "embeddings.parquet", "z"),
            "smoothed": ParquetRows(work.input("smoothed") / "features.parquet", "x"),
            "random_init": ParquetRows(work.input("controls") / "embeddings.parquet", "z"),
        },
        graph=read_graph(work.input("graph"), with_features=False, workspace=workspace),
        labels=labels,
        splits=read_splits(work.input("labels")),
        held_out_rate=float(graph_facts["edge_holdout"]),
        held_out=_read_held_out(work.input("labels") / "held_out_edges.parquet"),
        cluster_N=read_column(work.input("clusters") / "clusters.parquet", "cluster"),
        cluster_protocol=_cluster_protocol(work),
        is_cluster_normalised=bool(work.metadata("clusters")["normalise"]),
        uncertainty_N=read_column(work.input("uncertainty") / "uncertainty.parquet", "uncertainty"),
        checks=_checks(work, workspace),
        rows_are_graphs=graph_facts.get("rows") == "graphs",
    )
    evaluation = evaluate_embeddings(inputs, config, seed=work.seed, workspace=workspace)
    if inputs.rows_are_graphs:
        evaluation.notes.append(
            f"rows are graphs; the control smoothed is what their nodes have: {graph_facts['features']}; "
            "random_init is the untrained encoder"
        )
        evaluation.notes.extend(_notes_of_source(graph_facts["notes"]))
    if "negatives" in work.inputs:
        pairs = _read_pairs(work.input("negatives") / "pairs.parquet")
        evaluation.metrics.extend(negative_weight_rows(pairs, labels, seed=work.seed))
    _write_metrics(work, evaluation)
    _write_predictions(work, evaluation, labels)


def _notes_of_source(facts: dict[str, Any]) -> list[str]:
    """What a reader of a collection's figures must know of its files."""
    if not (number := facts.get("graphs_without_nodes", 0)):
        return []
    return [
        f"{number} graphs have no nodes, the first of them graph {facts['first_graph_without_nodes']} of the "
        "source: they all have the same embedding, and count in the figures where they have labels"
    ]


def _refuse_other_graph(work: Work) -> None:
    """Everything that is judged must have been made from the very graph it is judged on."""
    graph = work.inputs["graph"].digest
    for kind in ("smoothed", "embeddings", "controls", *(["checks"] if "checks" in work.inputs else [])):
        if (found := work.metadata(kind).get("graph")) != graph:
            raise EmbeddingsOfAnotherGraph(
                f"{kind} were made from graph {found}, not from {graph}; edges held out of this graph may be "
                "known to them"
            )


def _cluster_protocol(work: Work) -> Literal["clusters-artifact", "consensus-final"]:
    is_consensus = work.metadata("clusters").get("algorithm") == "consensus"
    return "consensus-final" if is_consensus else "clusters-artifact"


def _checks(work: Work, workspace: Workspace) -> Iterator[tuple[int, np.ndarray]] | None:
    """The checks of the run, one at a time, if it has any; for the label oracle."""
    if "checks" not in work.inputs:
        return None
    num_nodes = int(work.metadata("checks")["num_nodes"])
    path = work.input("checks") / "checks.parquet"
    return read_checks(path, num_nodes=num_nodes, workspace=workspace)


def _read_held_out(path: Path) -> LinkPairs | None:
    if not path.exists():
        return None
    table = pq.read_table(path, read_dictionary=["role"])
    src, dst = table.column("src").to_numpy(), table.column("dst").to_numpy()
    is_edge = table.column("is_edge").to_numpy()
    is_of = {part: pc.equal(table.column("role"), part).to_numpy() for part in ("test", "validation")}
    return LinkPairs(**{part: HeldOutPairs(src[own], dst[own], is_edge[own]) for part, own in is_of.items()})


def _read_pairs(path: Path) -> WeighedPairs:
    names = ("anchor", "candidate", "similarity", "weight")
    return WeighedPairs(*(read_column(path, name) for name in names))


def _write_metrics(work: Work, evaluation: Evaluation) -> None:
    """Write the results; what labels chose goes to a table of its own."""
    folder, oracle = work.output("metrics"), evaluation.oracle
    write_columns(folder / "metrics.parquet", "metrics.metrics", _columns(evaluation.metrics))
    facts: dict[str, Any] = {"notes": list(evaluation.notes)}
    if evaluation.sample is not None:
        facts["sample"] = evaluation.sample
    if oracle is not None:
        write_columns(folder / "oracle.parquet", "metrics.oracle", _columns(oracle.rows))
        facts["oracle"] = {"epochs": oracle.epochs, "num_checks": oracle.num_checks}
    work.describe("metrics", facts)


def _columns(metrics: Sequence[MetricRow]) -> dict[str, list[Any]]:
    rows = [asdict(row) for row in metrics]
    names = ("task", "protocol", "split", "seed", "embedding", "metric", "value", "std", "n", "over")
    return {name: [row[name] for row in rows] for name in names}


def _write_predictions(work: Work, evaluation: Evaluation, labels: Labels | None) -> None:
    """Write the predictions table; without labels it has its rows and no values, never a guess."""
    node_ids, found = read_node_ids(work.input("graph")), evaluation.predictions
    num_nodes, num_classes = len(node_ids), 0 if labels is None else labels.num_classes
    schema = TABLES["predictions.predictions"].schema(
        node_id_type=node_ids.type,
        metadata={"class_names": json.dumps(list(labels.class_names) if labels else [])},
    )
    answers = _no_answers(num_nodes) if found is None else map(_answer_columns, found.blocks())
    folder = work.output("predictions")
    write_batches(folder / "predictions.parquet", schema, _prediction_batches(schema, node_ids, answers))
    work.expect("predictions.predictions", num_nodes=num_nodes, num_classes=num_classes)
    work.describe(
        "predictions",
        {
            "protocol": None if found is None else found.protocol,
            "threshold": _finite(found.threshold if found else None),
        },
    )
    if evaluation.curves:
        lengths = [len(x) for x, _ in evaluation.curves.values()]
        write_columns(
            folder / "curves.parquet",
            "predictions.curves",
            {
                "curve": np.repeat(list(evaluation.curves), lengths).astype(object),
                "x": np.concatenate([x for x, _ in evaluation.curves.values()]).astype(np.float64),
                "y": np.concatenate([y for _, y in evaluation.curves.values()]).astype(np.float64),
            },
        )


def _prediction_batches(
    schema: pa.Schema, node_ids: pa.Array, answers: Iterable[list[pa.Array]]
) -> Iterator[pa.RecordBatch]:
    """Batches of `_BATCH_ROWS`, each a row group of the file, whatever blocks the answers come in."""
    held: list[pa.RecordBatch] = []
    start = 0
    for columns in answers:
        stop = start + len(columns[0])
        arrays = [pa.array(np.arange(start, stop)), node_ids.slice(start, stop - start), *columns]
        held.append(pa.record_batch(arrays, schema=schema))
        start = stop
        if sum(map(len, held)) >= _BATCH_ROWS:
            whole = pa.Table.from_batches(held).combine_chunks()
            full = len(whole) // _BATCH_ROWS * _BATCH_ROWS
            yield from whole.slice(0, full).to_batches(max_chunksize=_BATCH_ROWS)
            held = whole.slice(full).to_batches()
    yield from pa.Table.from_batches(held, schema).combine_chunks().to_batches()


def _no_answers(num_nodes: int) -> Iterator[list[pa.Array]]:
    names = ("predicted", "confidence", "entropy", "abstain", "prediction_set")
    types = [TABLES["predictions.predictions"].schema().field(name).type for name in names]
    for start in range(0, num_nodes, _BATCH_ROWS):
        yield [pa.nulls(min(_BATCH_ROWS, num_nodes - start), type_) for type_ in types]


def _answer_columns(found: PredictedNodes) -> list[pa.Array]:
    node, label = np.nonzero(found.set_BK)
    offsets = np.searchsorted(node, np.arange(len(found.set_BK) + 1)).astype(np.int32)
    sets = pa.ListArray.from_arrays(pa.array(offsets), pa.array(label.astype(np.int32)))
    flat = (found.predicted_B, found.confidence_B, found.entropy_B, found.abstain_B)
    return [*map(pa.array, flat), sets]


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


EVALUATE = Stage(
    name="evaluate",
    version=1,
    body=evaluate,
    tables=("metrics.metrics", "predictions.predictions"),
    libraries=("numpy", "pyarrow", "scikit-learn", "scipy", "torch"),
)
