"""A graph of one's own in two Parquet files and a graph.toml."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.readers.base import ArrowArray, FileDatasetConfig, GraphSource, Reader, dataset_name
from gcl.readers.manifest import NodeTable
from gcl.readers.own_tables import TableFormat, expand_columns, float_column, open_tables, source_files
from gcl.readers.parquet_footer import check_num_values, check_ratio
from gcl.readers.printable import printable
from gcl.readers.sparse_parts import csr_from_parts

_BATCH_ROWS = 65_536
_BATCH_VALUES = 1 << 24
FREE_TEXT_BYTES = 1 << 30
_READ_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError, ValueError)


class ParquetConfig(FileDatasetConfig):
    """Two Parquet files described by graph.toml."""

    format: Literal["parquet"] = "parquet"
    name: str = dataset_name("parquet")


def open_source(config: ParquetConfig) -> GraphSource:
    """The graph that the folder's manifest describes."""
    for role, path in source_files(config).items():
        if role != "manifest":
            check_num_values(path)
    return open_tables(config, TABLES)


def _batches(
    path: Path, columns: Sequence[str], *, batch_rows: int = _BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Columns batch by batch, fully validated; page checksums verified where present.

    Text comes as the dictionary that the file has, so that repeats are counted before they are spelled out.
    """
    try:
        texts = _text_columns(path, columns)
        num_text_bytes = 0
        with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts) as file:
            for batch in file.iter_batches(batch_size=batch_rows, columns=list(columns), use_threads=False):
                batch.validate(full=True)
                num_text_bytes += sum(_text_bytes(column) for column in batch.columns)
                check_ratio(path, num_text_bytes, free=FREE_TEXT_BYTES, what="bytes of text")
                yield batch.select(list(columns))
    except _READ_ERRORS as error:
        raise SourceUnreadable(f"{path.name}: not a readable Parquet file: {printable(error)}") from error


def _text_columns(path: Path, columns: Sequence[str]) -> list[str]:
    """Those of `columns` that hold text; each must be there once."""
    schema = pq.read_schema(path)
    for column in columns:
        if schema.names.count(column) != 1:
            raise SourceUnreadable(f"{path.name}: there must be one column named {column!r}")
    return [name for name in columns if schema.field(name).type in (pa.string(), pa.large_string())]


def _text_bytes(column: ArrowArray) -> int:
    if not pa.types.is_dictionary(column.type):
        return 0
    lengths: ArrowArray = pc.binary_length(column.dictionary)
    return int(pc.sum(lengths.take(column.indices), min_count=0).as_py())


def _ids(path: Path, columns: Sequence[str], id_type: str) -> Iterator[pa.RecordBatch]:
    return _batches(path, columns)


def _edges(path: Path, columns: Sequence[str], id_type: str, weight: str | None) -> Iterator[pa.RecordBatch]:
    return _batches(path, [*columns] if weight is None else [*columns, weight], batch_rows=1 << 20)


def _feature_blocks(
    path: Path, nodes: NodeTable
) -> tuple[int, Callable[[], Iterator[np.ndarray | sp.csr_matrix]]]:
    try:
        schema = pq.read_schema(path)
    except _READ_ERRORS as error:
        raise SourceUnreadable(f"{path.name}: not a readable Parquet file: {printable(error)}") from error
    if nodes.features is not None:
        columns = expand_columns(nodes.features, schema.names, what=path.name)
        if len(columns) == 1 and _is_list(schema.field(columns[0]).type):
            width = _list_width(path, columns[0])
            return width, lambda: _list_blocks(path, columns[0], width)
        return len(columns), lambda: _dense_blocks(path, columns)
    if not isinstance(nodes.sparse_features, tuple) or nodes.num_features is None:
        raise SourceUnreadable(f"{path.name}: in Parquet, sparse_features is two columns: indices and values")
    pair, num_features = nodes.sparse_features, nodes.num_features
    return num_features, lambda: _sparse_blocks(path, pair, num_features)


def _is_list(type_: pa.DataType) -> bool:
    return any(
        is_kind(type_) for is_kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )


def _rows_of(width: int) -> int:
    return min(_BATCH_ROWS, max(1, _BATCH_VALUES // max(1, width)))


def _dense_blocks(path: Path, columns: list[str]) -> Iterator[np.ndarray]:
    for batch in _batches(path, columns, batch_rows=_rows_of(len(columns))):
        yield np.column_stack(
            [float_column(c, what=f"{path.name}: {n}") for n, c in zip(columns, batch.columns, strict=True)]
        )


def _lists(path: Path, column: str, array: ArrowArray) -> tuple[np.ndarray, ArrowArray]:
    """int64 row pointers and the flat values of a column of lists; a null list counts as empty."""
    if not _is_list(array.type):
        raise SourceUnreadable(f"{path.name}: column {column!r} holds {array.type}, expected lists")
    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), array.flatten()


def _list_width(path: Path, column: str) -> int:
    for batch in _batches(path, [column], batch_rows=1):
        return int(_lists(path, column, batch.column(0))[0][-1])
    return 0


def _list_blocks(path: Path, column: str, width: int) -> Iterator[np.ndarray]:
    first = 0
    for batch in _batches(
        path, [column], batch_rows=min(_BATCH_ROWS, max(1, _BATCH_VALUES // max(1, width)))
    ):
        indptr, flat = _lists(path, column, batch.column(0))
        wrong = np.flatnonzero(np.diff(indptr) != width)
        if len(wrong):
            raise InvalidGraph(
                table="graph.features",
                column="x",
                rule="same_width_in_every_row",
                num_rows=len(wrong),
                sample=[
                    f"node {first + row}: {indptr[row + 1] - indptr[row]}, not {width}" for row in wrong[:10]
                ],
            )
        yield float_column(flat, what=f"{path.name}: {column}").reshape(batch.num_rows, width)
        first += batch.num_rows


def _sparse_blocks(path: Path, pair: tuple[str, str], num_features: int) -> Iterator[sp.csr_matrix]:
    for batch in _batches(path, pair):
        indptr, indices = _lists(path, pair[0], batch.column(0))
        value_indptr, values = _lists(path, pair[1], batch.column(1))
        if not pa.types.is_integer(indices.type) or indices.null_count:
            raise SourceUnreadable(
                f"{path.name}: column {pair[0]!r} must hold lists of integers without nulls"
            )
        if not np.array_equal(indptr, value_indptr):
            raise SourceUnreadable(f"{path.name}: lists of {pair[0]!r} and {pair[1]!r} differ in length")
        yield csr_from_parts(
            float_column(values, what=f"{path.name}: {pair[1]}"),
            indices.to_numpy(zero_copy_only=False),
            indptr,
            shape=(batch.num_rows, num_features),
            what=path.name,
        )


TABLES = TableFormat(_batches, _ids, _edges, _feature_blocks)

READER = Reader(
    config=ParquetConfig,
    description="Your own graph in two Parquet files",
    requires="path: folder with graph.toml and the node and edge tables it names (docs/own-data.md)",
    source_files=source_files,
    open=open_source,
)
