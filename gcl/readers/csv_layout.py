"""A graph of one's own in two CSV files and a graph.toml."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from gcl.errors import SourceUnreadable
from gcl.readers.base import FileDatasetConfig, GraphSource, Reader, dataset_name
from gcl.readers.csv_tables import csv_batches, csv_columns
from gcl.readers.manifest import NodeTable
from gcl.readers.own_tables import TableFormat, expand_columns, float_column, open_tables, source_files

_ID_TYPES: dict[str, pa.DataType] = {"int64": pa.int64(), "string": pa.string()}


class CsvConfig(FileDatasetConfig):
    """Two CSV files described by graph.toml."""

    format: Literal["csv"] = "csv"
    name: str = dataset_name("csv")


def open_source(config: CsvConfig) -> GraphSource:
    """The graph that the folder's manifest describes."""
    return open_tables(config, TABLES)


def _texts(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    return csv_batches(path, dict.fromkeys(columns, pa.string()))


def _ids(path: Path, columns: Sequence[str], id_type: str) -> Iterator[pa.RecordBatch]:
    return csv_batches(path, dict.fromkeys(columns, _ID_TYPES[id_type]))


def _edges(path: Path, columns: Sequence[str], id_type: str, weight: str | None) -> Iterator[pa.RecordBatch]:
    types: dict[str, pa.DataType] = dict.fromkeys(columns, _ID_TYPES[id_type])
    if weight is not None:
        types[weight] = pa.float32()
    return csv_batches(path, types)


def _feature_blocks(
    path: Path, nodes: NodeTable
) -> tuple[int, Callable[[], Iterator[np.ndarray | sp.csr_matrix]]]:
    if nodes.features is not None:
        columns = expand_columns(nodes.features, csv_columns(path), what=path.name)
        return len(columns), lambda: _dense_blocks(path, columns)
    if not isinstance(nodes.sparse_features, str) or nodes.num_features is None:
        raise SourceUnreadable(f"{path.name}: in CSV, sparse_features is one column")
    column, num_features = nodes.sparse_features, nodes.num_features
    return num_features, lambda: _sparse_blocks(path, column, num_features)


def _dense_blocks(path: Path, columns: list[str]) -> Iterator[np.ndarray]:
    for batch in csv_batches(path, dict.fromkeys(columns, pa.float32())):
        yield np.column_stack([float_column(column, what=path.name) for column in batch.columns])


def _sparse_blocks(path: Path, column: str, num_features: int) -> Iterator[sp.csr_matrix]:
    first = 0
    for batch in csv_batches(path, {column: pa.string()}):
        indptr, indices, values = [0], [], []
        for row, text in enumerate(batch.column(0).to_pylist(), start=first):
            for item in (text or "").split():
                index, value = _entry(item, num_features, f"{path.name}: column {column!r}, node {row}")
                indices.append(index)
                values.append(value)
            indptr.append(len(indices))
        block = sp.csr_matrix(
            (np.array(values, np.float32), np.array(indices, np.int64), np.array(indptr)),
            shape=(batch.num_rows, num_features),
        )
        block.sum_duplicates()
        yield block
        first += batch.num_rows


def _entry(item: str, num_features: int, where: str) -> tuple[int, float]:
    """One "index" or "index:value"."""
    index_text, _, value_text = item.partition(":")
    try:
        index, value = int(index_text), float(value_text) if value_text else 1.0
    except ValueError as error:
        raise SourceUnreadable(f"{where}: {item[:80]!r} is neither index nor index:value") from error
    if not 0 <= index < num_features:
        raise SourceUnreadable(f"{where}: feature index {index} lies outside [0, {num_features})")
    return index, value


TABLES = TableFormat(_texts, _ids, _edges, _feature_blocks)

READER = Reader(
    config=CsvConfig,
    description="Your own graph in two CSV files",
    requires="path: folder with graph.toml and the node and edge tables it names (docs/own-data.md)",
    source_files=source_files,
    open=open_source,
)
