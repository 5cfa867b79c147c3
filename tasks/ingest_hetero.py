"""Ingest of a heterogeneous graph: its nodes, relations and features, and the labels of its target nodes."""

import json
from typing import Any

import numpy as np
import pyarrow as pa

from gcl.readers.hetero_base import HeteroDatasetConfig, HeteroSource
from tasks.convert import split_columns, write_columns
from tasks.hetero_tables import write_hetero
from tasks.work import Work


def write_tables(work: Work, source: HeteroSource, config: HeteroDatasetConfig) -> None:
    """Write the ``hetero`` and ``labels`` artifacts; the graph of the target nodes is the metapaths' to make.

    Args:
        work: where to.
        source: the graph, checked.
        config: the data set.
    """
    write_hetero(work, source.graph, source.node_ids, source.metapaths, notes=source.notes)
    _write_labels(work, source)


def _write_labels(work: Work, source: HeteroSource) -> None:
    folder, num_nodes = work.output("labels"), source.graph.num_nodes[source.graph.target]
    num_classes = len(source.class_names)
    facts: dict[str, Any] = {"num_classes": None if source.y_N is None else num_classes}
    work.describe("labels", facts)
    if source.y_N is not None:
        write_columns(
            folder / "labels.parquet",
            "labels.labels",
            {"node": np.arange(num_nodes), "label": pa.array(source.y_N, mask=source.y_N < 0)},
            metadata={"class_names": json.dumps(list(source.class_names))},
        )
        work.expect("labels.labels", num_nodes=num_nodes, num_classes=num_classes)
    if source.splits:
        write_columns(folder / "splits.parquet", "labels.splits", split_columns(source.splits))
        work.expect("labels.splits", num_nodes=num_nodes)
