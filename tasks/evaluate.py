"""Evaluate: the stage where labels are opened; metrics with their controls, calibrated predictions."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gcl.edge_holdout import HeldOutPairs
from gcl.evaluation import (
    EvaluateConfig,
    Evaluation,
    EvaluationInputs,
    LinkPairs,
    MetricRow,
    evaluate_embeddings,
)
from gcl.evaluation.negatives import WeighedPairs, negative_weight_rows
from gcl.graph import Labels
from tasks.convert import (
    read_checks,
    read_column,
    read_graph,
    read_labels,
    read_matrix,
    read_node_ids,
    read_splits,
    write_columns,
)
from tasks.stage import Stage
from tasks.work import Work


class EmbeddingsOfAnotherGraph(Exception):
    """Embeddings come from another graph than the one they are to be judged on: held-out edges may leak."""


def evaluate(work: Work, config: EvaluateConfig) -> None:
    """Judge the method's embeddings and the controls by the same probes."""
    _refuse_other_graph(work)
    labels = read_labels(work.input("labels"))
    inputs = EvaluationInputs(
        embeddings={
            "method": read_matrix(work.input("embeddings") / "embeddings.parquet", "z"),
            "smoothed": read_matrix(work.input("smoothed") / "features.parquet", "x"),
            "random_init": read_matrix(work.input("controls") / "embeddings.parquet", "z"),
        },
        graph=read_graph(work.input("graph"), with_features=False),
        labels=labels,
        splits=read_splits(work.input("labels")),
        held_out_rate=float(work.metadata("graph")["edge_holdout"]),
        held_out=_read_held_out(work.input("labels") / "held_out_edges.parquet"),
        cluster_N=read_column(work.input("clusters") / "clusters.parquet", "cluster"),
        cluster_protocol=_cluster_protocol(work),
        uncertainty_N=read_column(work.input("uncertainty") / "uncertainty.parquet", "uncertainty"),
        checks=_checks(work),
    )
    evaluation = evaluate_embeddings(inputs, config, seed=work.seed)
    if "negatives" in work.inputs:
        pairs = _read_pairs(work.input("negatives") / "pairs.parquet")
        evaluation.metrics.extend(negative_weight_rows(pairs, labels, seed=work.seed))
    _write_metrics(work, evaluation)
    _write_predictions(work, evaluation, labels)


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


def _checks(work: Work) -> Iterator[tuple[int, np.ndarray]] | None:
    """The checks of the run, one at a time, if it has any; for the label oracle."""
    if "checks" not in work.inputs:
        return None
    num_nodes = int(work.metadata("checks")["num_nodes"])
    return read_checks(work.input("checks") / "checks.parquet", num_nodes=num_nodes)


def _read_held_out(path: Path) -> LinkPairs | None:
    if not path.exists():
        return None
    table = pq.read_table(path)
    role = table.column("role").to_numpy(zero_copy_only=False)
    src, dst = table.column("src").to_numpy(), table.column("dst").to_numpy()
    is_edge = table.column("is_edge").to_numpy(zero_copy_only=False)
    return LinkPairs(
        **{
            part: HeldOutPairs(src[role == part], dst[role == part], is_edge[role == part])
            for part in ("test", "validation")
        }
    )


def _read_pairs(path: Path) -> WeighedPairs:
    names = ("anchor", "candidate", "similarity", "weight")
    return WeighedPairs(*(read_column(path, name) for name in names))


def _write_metrics(work: Work, evaluation: Evaluation) -> None:
    """Write the results; what labels chose goes to a table of its own."""
    folder, oracle = work.output("metrics"), evaluation.oracle
    write_columns(folder / "metrics.parquet", "metrics.metrics", _columns(evaluation.metrics))
    facts: dict[str, Any] = {"notes": list(evaluation.notes)}
    if oracle is not None:
        write_columns(folder / "oracle.parquet", "metrics.oracle", _columns(oracle.rows))
        facts["oracle"] = {"epoch": oracle.epoch, "num_checks": oracle.num_checks}
    work.describe("metrics", facts)


def _columns(metrics: Sequence[MetricRow]) -> dict[str, list[Any]]:
    rows = [asdict(row) for row in metrics]
    names = ("task", "protocol", "split", "seed", "embedding", "metric", "value", "std", "n", "over")
    return {name: [row[name] for row in rows] for name in names}


def _write_predictions(work: Work, evaluation: Evaluation, labels: Labels | None) -> None:
    """Write the predictions table; without labels it has its rows and no values, never a guess."""
    node_ids = read_node_ids(work.input("graph"))
    num_nodes, found = len(node_ids), evaluation.predictions
    num_classes = 0 if labels is None else labels.num_classes
    columns = {"node": np.arange(num_nodes), "node_id": node_ids}
    if found is None:
        empty = pa.nulls(num_nodes)
        columns |= {
            name: empty for name in ("predicted", "confidence", "entropy", "abstain", "prediction_set")
        }
    else:
        columns |= {
            "predicted": found.predicted_N,
            "confidence": found.confidence_N,
            "entropy": found.entropy_N,
            "abstain": found.abstain_N,
            "prediction_set": _sets(found.set_NK),
        }
    folder = work.output("predictions")
    write_columns(
        folder / "predictions.parquet",
        "predictions.predictions",
        columns,
        node_id_type=node_ids.type,
        metadata={"class_names": json.dumps(list(labels.class_names) if labels else [])},
    )
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


def _sets(set_NK: np.ndarray) -> pa.Array:
    """Boolean [N, K] as a list of class ids a node."""
    node, label = np.nonzero(set_NK)
    offsets = np.searchsorted(node, np.arange(len(set_NK) + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(label.astype(np.int32)))


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


EVALUATE = Stage(
    name="evaluate",
    version=1,
    body=evaluate,
    tables=("metrics.metrics", "predictions.predictions"),
    libraries=("numpy", "pyarrow", "scikit-learn", "scipy", "torch"),
)
