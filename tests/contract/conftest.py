"""One sound file of every table, and the means to break it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import TABLES
from tests.contract.attack_tables import ATTACK_TABLES
from tests.contract.collection_tables import COLLECTION_TABLES
from tests.contract.hetero_tables import HETERO_TABLES

NUM_NODES = 6
IDS = ["a", "b", "c", "d", "e", "<script>f"]
DENSE = {"node": list(range(NUM_NODES)), "node_id": IDS}
VECTORS = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5], [0.0, -1.0], [2.0, 0.25], [0.5, -2.0]]
TEXT = {"node_id_type": pa.string()}


@dataclass
class Sample:
    """A table before it is written: rows, how to make its schema, and the facts to check it with."""

    table: str
    data: dict[str, list[Any]]
    schema: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    edit_schema: Callable[[pa.Schema], pa.Schema] = lambda schema: schema

    def write(self, path: Path) -> Path:
        """Write the rows; fields become nullable where rows have nulls a sound schema would not admit."""
        schema = self.edit_schema(TABLES[self.table].schema(**self.schema))
        arrays = []
        for position, name in enumerate(schema.names):
            arrays.append(pa.array(self.data[name], schema.field(position).type))
            if arrays[-1].null_count and not schema.field(position).nullable:
                schema = schema.set(position, schema.field(position).with_nullable(True))
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path)
        return path


def _metric_rows() -> dict[str, list[Any]]:
    return {
        "task": ["classification", "clustering"],
        "protocol": ["planetoid-public", "kmeans-final"],
        "split": ["public", None],
        "seed": [0, None],
        "embedding": ["method", "random_init"],
        "metric": ["accuracy", "ari"],
        "value": [0.8, -0.1],
        "std": [None, 0.02],
        "n": [1000, 10],
        "over": [None, "encoder seeds"],
    }


_SAMPLES = {
    "graph.nodes": Sample("graph.nodes", dict(DENSE), TEXT, {"num_nodes": 6}),
    "graph.nodes:collection": Sample(
        "graph.nodes",
        {
            "graph": [0, 0, 0, 1, 1, 1],
            "node": list(range(6)),
            "node_id": [2**63 - 1, 2**53 + 1, 2**53, -1, 7, 5],
        },
        {"extra_columns": ("graph",)},
        {"num_nodes": 6, "num_graphs": 2},
    ),
    "graph.edges": Sample(
        "graph.edges",
        {"src": [0, 0, 1, 2, 2, 3], "dst": [1, 2, 0, 0, 3, 2]},
        {},
        {"num_nodes": 6, "num_edges": 6, "is_undirected": True, "has_self_loops": False},
    ),
    "graph.edges:weighted": Sample(
        "graph.edges",
        {"src": [0, 0, 1, 2], "dst": [1, 2, 0, 0], "weight": [0.5, 2.0, 0.5, 2.0]},
        {"extra_columns": ("weight",)},
        {"num_nodes": 6, "num_edges": 4, "is_undirected": True},
    ),
    "graph.features": Sample(
        "graph.features", {"x": VECTORS}, {"width": 2}, {"num_nodes": 6, "num_features": 2}
    ),
    "graph.features:sparse": Sample(
        "graph.features",
        {
            "indices": [[0, 2], [], [1], [0, 1, 2], [2], []],
            "values": [[1.0, 1.0], [], [0.5], [1.0, 2.0, 3.0], [1.0], []],
        },
        {"layout": "sparse", "metadata": {"num_features": "3"}},
        {"num_nodes": 6},
    ),
    "labels.labels": Sample(
        "labels.labels",
        {"node": list(range(6)), "label": [0, 1, None, 2, 0, 1]},
        {"metadata": {"class_names": '["A", "B", "C"]'}},
        {"num_nodes": 6},
    ),
    "labels.splits": Sample(
        "labels.splits",
        {
            "split": ["one"] * 3 + ["two"] * 2,
            "node": [0, 3, 5, 0, 1],
            "role": ["train", "validation", "test", "test", "train"],
        },
        {},
        {"num_nodes": 6},
    ),
    "labels.held_out_edges": Sample(
        "labels.held_out_edges",
        {
            "src": [0, 1, 2, 3],
            "dst": [1, 2, 3, 5],
            "role": ["train", "validation", "test", "test"],
            "is_edge": [True, False, True, False],
        },
        {},
        {"num_nodes": 6},
    ),
    "smoothed.features": Sample(
        "smoothed.features",
        {"node": list(range(6)), "x": VECTORS},
        {"width": 2},
        {"num_nodes": 6, "num_features": 2, "max_abs": 2.0},
    ),
    "model.history": Sample(
        "model.history",
        {"epoch": [0, 1, 2], "loss": [3.0, 2.0, 1.5], "contrastive": [1.0, 1.0, 0.5]},
        {"extra_columns": ("loss", "contrastive")},
        {"num_epochs": 3},
    ),
    "negatives.pairs": Sample(
        "negatives.pairs",
        {
            "anchor": [0, 0, 3],
            "candidate": [1, 5, 2],
            "similarity": [0.5, -1.0, 1.0],
            "weight": [0.5, 1.5, 1.0],
        },
        {},
        {"num_nodes": 6, "min_similarity": -1.001, "max_similarity": 1.001},
    ),
    "checks.checks": Sample(
        "checks.checks",
        {"epoch": [2, 2, 2, 4, 4, 4], "node": [0, 1, 2, 0, 1, 2], "z": VECTORS},
        {"width": 2},
        {"num_nodes": 3, "num_rows": 6, "num_epochs": 4, "num_checks": 2, "num_components": 2},
    ),
    "uncertainty.uncertainty": Sample(
        "uncertainty.uncertainty",
        {**DENSE, "uncertainty": [0.0, 0.5, None, 1.0, 0.25, 0.75], "method": ["ensemble"] * 6},
        TEXT,
        {"num_nodes": 6, "max_uncertainty": 1.0},
    ),
    "clusters.clusters": Sample(
        "clusters.clusters",
        {
            **DENSE,
            "cluster": [0, 1, 0, 1, 1, 0],
            "confidence": [1.0, 0.5, 0.75, None, 0.9, 1.0],
            "membership": [[1.0, 0.0], [0.5, 0.5], [0.75, 0.25], None, [0.1, 0.9], [1.0, 0.0]],
        },
        TEXT,
        {"num_nodes": 6, "num_clusters": 2},
    ),
    "clusters.centroids": Sample(
        "clusters.centroids",
        {"cluster": [0, 1], "z": VECTORS[:2]},
        {"width": 2},
        {"num_clusters": 2, "embedding_size": 2},
    ),
    "clusters.evidence": Sample(
        "clusters.evidence",
        {"num_clusters": [2, 2, 3], "measure": ["silhouette", "bic", "bic"], "value": [0.5, -12.0, -10.0]},
        {},
        {"num_nodes": 6},
    ),
    "scores.embeddings": Sample(
        "scores.embeddings",
        {"node": [1, 4], "node_id": ["b", "<e>"], "z": VECTORS[:2]},
        {**TEXT, "width": 2},
        {"num_nodes": 6, "num_scored": 2, "embedding_size": 2},
    ),
    "scores.embeddings:none": Sample(
        "scores.embeddings",
        {"node": [], "node_id": [], "z": []},
        {**TEXT, "width": 2},
        {"num_nodes": 6, "num_scored": 0, "embedding_size": 2},
    ),
    "scores.clusters": Sample(
        "scores.clusters",
        {
            "node": [1, 4],
            "node_id": ["b", "<e>"],
            "cluster": [1, 0],
            "distance": [0.5, 0.0],
            "is_outlier": [False, True],
        },
        TEXT,
        {"num_nodes": 6, "num_scored": 2, "num_clusters": 2},
    ),
    "scores.shift": Sample(
        "scores.shift",
        {
            "measure": ["known_shift", "outlier_share", "shift"],
            "value": [0.01, 0.9, None],
            "bound": [0.02, None, 0.1],
        },
    ),
    "metrics.metrics": Sample("metrics.metrics", _metric_rows()),
    "metrics.oracle": Sample("metrics.oracle", _metric_rows() | {"split": ["oracle", "oracle"]}),
    "predictions.predictions": Sample(
        "predictions.predictions",
        {
            **DENSE,
            "predicted": [0, 1, None, 2, 0, 1],
            "confidence": [0.5, 1.0, None, 0.75, 0.5, 0.5],
            "entropy": [0.5, 0.0, None, 0.25, 0.5, 0.5],
            "abstain": [True, False, None, False, True, True],
            "prediction_set": [[0, 1], [1], None, [2], [], [0, 1, 2]],
        },
        TEXT,
        {"num_nodes": 6, "num_classes": 3},
    ),
    "predictions.curves": Sample(
        "predictions.curves",
        {
            "curve": ["risk-coverage"] * 3 + ["reliability"] * 2,
            "x": [0.1, 0.5, 1.0, 0.0, 0.5],
            "y": [0.0] * 5,
        },
    ),
}
for _name in ("embeddings.embeddings", "controls.embeddings"):
    _SAMPLES[_name] = Sample(
        _name,
        {**DENSE, "z": VECTORS},
        {**TEXT, "width": 2},
        {"num_nodes": 6, "embedding_size": 2, "min_effective_rank": 1.5},
    )
for _name, _fields in (HETERO_TABLES | COLLECTION_TABLES | ATTACK_TABLES).items():
    _SAMPLES[_name] = Sample(_name.partition(":")[0], *_fields)


@pytest.fixture
def sample() -> Callable[[str], Sample]:
    """A fresh copy of a sound table: ``sample("graph.edges")`` or ``sample("graph.edges:weighted")``."""
    return lambda name: copy.deepcopy(_SAMPLES[name])


@pytest.fixture
def sample_names() -> list[str]:
    """The names `sample` knows."""
    return list(_SAMPLES)
