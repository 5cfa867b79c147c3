"""The MUSAE layout (Rozemberczki, Allen and Sarkar 2021): edges csv, features json, target csv."""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.readers.base import (
    FileDatasetConfig,
    GraphSource,
    Reader,
    dataset_name,
    edge_arrays,
    existing_file,
    feature_rows,
    label_array,
)
from gcl.readers.csv_tables import csv_batches, csv_columns
from gcl.readers.printable import printable

_MAX_JSON_BYTES = 1 << 28  # Python objects take twenty times the bytes of their text
_MAX_FEATURES = 1 << 24


class MusaeConfig(FileDatasetConfig):
    """Three files below one folder."""

    format: Literal["musae"] = "musae"
    name: str = dataset_name("musae")


def source_files(config: MusaeConfig) -> dict[str, Path]:
    """The three files."""
    name = config.name
    return {
        "edges": existing_file(config.path / "edges" / f"{name}_edges.csv", "musae edges"),
        "features": existing_file(config.path / "features" / f"{name}.json", "musae features"),
        "target": existing_file(config.path / "target" / f"{name}_target.csv", "musae target"),
    }


def open_source(config: MusaeConfig) -> GraphSource:
    """The graph; the last column of the target file is the label."""
    files = source_files(config)
    class_names, y_N = _labels(files["target"])
    x_NF = _features(files["features"], len(y_N))
    src, dst = _edges(files["edges"])
    return GraphSource(
        num_nodes=len(y_N),
        node_ids=None,
        edge_chunks=edge_arrays(src, dst),
        feature_chunks=feature_rows(x_NF),
        num_features=x_NF.shape[1],
        has_sparse_features=True,
        label_chunks=label_array(y_N),
        class_names=class_names,
        splits=(),
        is_directed=False,
    )


def _labels(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    columns = csv_columns(path)
    if columns[0] != "id" or len(columns) < 2:
        raise SourceUnreadable(f"{path.name}, line 1: expected the columns id, ..., label")
    batches = list(csv_batches(path, {"id": pa.int64(), columns[-1]: pa.string()}))
    table = pa.Table.from_batches(batches)
    if table.column(0).null_count:
        raise SourceUnreadable(f"{path.name}: a row without id")
    ids = table.column(0).to_numpy()
    order = np.argsort(ids, kind="stable")
    wrong = np.flatnonzero(ids[order] != np.arange(len(ids)))
    if len(wrong):
        raise InvalidGraph(
            table="graph.nodes",
            column="node_id",
            rule="ids_are_0_to_n_minus_1",
            num_rows=len(wrong),
            sample=[f"{path.name}: {ids[order[i]]} in place of {i}" for i in wrong[:10]],
        )
    names = table.column(1).to_pylist()
    class_names = sorted({name for name in names if name is not None})
    index: dict[str | None, int] = {name: k for k, name in enumerate(class_names)}
    y_N = np.array([index.get(name, -1) for name in names], np.int32)[order]
    return tuple(class_names), y_N


def _features(path: Path, num_nodes: int) -> sp.csr_matrix:
    """The binary matrix of a JSON object from a node to its list of features."""
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise SourceUnreadable(f"{path.name}: more than {_MAX_JSON_BYTES} bytes")
    try:
        lists: Any = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SourceUnreadable(f"{path.name}: not JSON: {printable(error)}") from error
    if not isinstance(lists, dict):
        raise SourceUnreadable(f"{path.name}: expected an object from node to list of features")
    rows: list[int] = []
    columns: list[int] = []
    for node, values in lists.items():
        is_node = node.isascii() and node.isdecimal() and len(node) < 12 and int(node) < num_nodes
        if not is_node:
            raise SourceUnreadable(f"{path.name}: {node[:40]!r} is not one of the {num_nodes} nodes")
        if not isinstance(values, list) or not all(
            type(value) is int and 0 <= value < _MAX_FEATURES for value in values
        ):
            raise SourceUnreadable(
                f"{path.name}: features of node {node} are not integers in [0, {_MAX_FEATURES})"
            )
        columns.extend(set(values))
        rows.extend([int(node)] * (len(columns) - len(rows)))
    num_features = max(columns, default=-1) + 1
    ones = np.ones(len(rows), np.float32)
    return sp.csr_matrix(
        (ones, (np.array(rows, int), np.array(columns, int))), shape=(num_nodes, num_features)
    )


def _edges(path: Path) -> tuple[np.ndarray, np.ndarray]:
    columns = csv_columns(path)
    if len(columns) != 2:
        raise SourceUnreadable(f"{path.name}, line 1: expected two columns, found {len(columns)}")
    table = pa.Table.from_batches(list(csv_batches(path, dict.fromkeys(columns, pa.int64()))))
    if any(column.null_count for column in table.columns):
        raise SourceUnreadable(f"{path.name}: an edge without an endpoint")
    return table.column(0).to_numpy(), table.column(1).to_numpy()


READER = Reader(
    config=MusaeConfig,
    description="MUSAE social and web graphs (Facebook pages, GitHub, Wikipedia, ...)",
    requires="path: folder with edges/NAME_edges.csv, features/NAME.json, target/NAME_target.csv; name: NAME",
    source_files=source_files,
    open=open_source,
)
