"""Arrow tables to and from the objects of gcl: where the two meet; sparse features in a module of their own.

Files are written through Python file objects, with page checksums, so that every open and fsync can be
seen (and failed) by a test.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from data_contracts.tables import TABLES
from gcl.feature_rows import FeatureRows
from gcl.graph import Features, Graph, Labels, Split
from gcl.workspace import BLOCK_BYTES, MEMORY, Workspace, row_slices
from tasks.sparse_features import read_sparse, sparse_blocks, sparse_shape

_EDGE_ROWS = 1 << 20
_ROW_GROUP_BYTES = BLOCK_BYTES
_COLUMN_BYTES = 256 << 20


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Stream record batches into a Parquet file; returns how many rows were written."""
    rows = 0
    with (
        path.open("wb") as file,
        pq.ParquetWriter(
            file, schema, compression="zstd", compression_level=1, write_page_checksum=True
        ) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def write_columns(path: Path, table: str, columns: Mapping[str, Any], **schema_options: Any) -> int:
    """Write a contracted table from whole columns, converted and written in row blocks.

    Args:
        path: the file.
        table: contract name, e.g. ``labels.labels``.
        columns: arrays by column name; numpy (may be memory-mapped, or a broadcast constant), Arrow or lists.
        **schema_options: passed to the table's schema: ``node_id_type``, ``metadata``, ``extra_columns``.

    Raises:
        ValueError: columns of different lengths.
    """
    schema = TABLES[table].schema(**schema_options)
    lengths = {name: len(columns[name]) for name in schema.names}
    num_rows = lengths[schema.names[0]]
    if set(lengths.values()) != {num_rows}:
        raise ValueError(f"columns of table {table} have different lengths: {lengths}")
    widths = [values.shape[1] for values in columns.values() if getattr(values, "ndim", 1) == 2]
    step = min(_EDGE_ROWS, max(1, _COLUMN_BYTES // (4 * max(widths, default=1))))

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, num_rows, step):
            arrays = [_as_array(columns[field.name][start : start + step], field.type) for field in schema]
            yield pa.record_batch(arrays, schema=schema)

    return write_batches(path, schema, batches())


def write_matrix(
    path: Path,
    table: str,
    matrix_NF: np.ndarray,
    *,
    column: str = "x",
    others: Mapping[str, Any] | None = None,
    **schema_options: Any,
) -> int:
    """Write a table whose `column` holds one fixed-size float32 list a row, in bounded row groups.

    Args:
        path: the file.
        table: contract name, e.g. ``smoothed.features``.
        matrix_NF: float32 [N, F], may be memory-mapped.
        column: name of the list column.
        others: the other columns, whole.
        **schema_options: passed to the table's schema.
    """
    num_rows, width = matrix_NF.shape
    blocks = (matrix_NF[rows] for rows in row_slices(num_rows, 4 * width, block_bytes=_ROW_GROUP_BYTES))
    return write_matrix_blocks(
        path, table, blocks, width=width, column=column, others=others, **schema_options
    )


def write_matrix_blocks(
    path: Path,
    table: str,
    blocks: Iterable[np.ndarray],
    *,
    width: int,
    column: str = "x",
    others: Mapping[str, Any] | None = None,
    **schema_options: Any,
) -> int:
    """Write such a table from blocks of rows, a row group each.

    Args:
        path: the file.
        table: contract name.
        blocks: float32 [B, width] in order; their heights are part of the file's bytes.
        width: of the rows.
        column: name of the list column.
        others: the other columns, whole.
        **schema_options: passed to the table's schema.
    """
    schema = TABLES[table].schema(width=width, **schema_options)
    arrays = {name: _as_array(values, schema.field(name).type) for name, values in (others or {}).items()}

    def batches() -> Iterator[pa.RecordBatch]:
        start = 0
        for block in blocks:
            lists = dense_lists(np.ascontiguousarray(block, np.float32))
            yield pa.record_batch(
                [
                    lists if field.name == column else arrays[field.name].slice(start, len(block))
                    for field in schema
                ],
                schema=schema,
            )
            start += len(block)

    return write_batches(path, schema, batches())


def write_checks(path: Path, checks: Iterable[tuple[int, np.ndarray]], *, width: int) -> int:
    """Write the ``checks.checks`` table, one check after the other; returns how many rows were written.

    Args:
        path: the file.
        checks: epoch and float32 [N, k] of each, by ascending epoch; taken one at a time.
        width: k.
    """
    schema = TABLES["checks.checks"].schema(width=width)

    def batches() -> Iterator[pa.RecordBatch]:
        for epoch, z_NK in checks:
            for rows in row_slices(len(z_NK), 4 * width, block_bytes=_ROW_GROUP_BYTES):
                columns = [
                    pa.array(np.full(rows.stop - rows.start, epoch, np.int32)),
                    pa.array(np.arange(rows.start, rows.stop)),
                    dense_lists(np.ascontiguousarray(z_NK[rows], np.float32)),
                ]
                yield pa.record_batch(columns, schema=schema)

    return write_batches(path, schema, batches())


def read_checks(
    path: Path, *, num_nodes: int, workspace: Workspace = MEMORY
) -> Iterator[tuple[int, np.ndarray]]:
    """Epoch and float32 [N, k] of each check of a ``checks.checks`` table, one at a time.

    Args:
        path: the file.
        num_nodes: N.
        workspace: where a check is put.
    """
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    width = file.schema_arrow.field("z").type.list_size
    z_NK, filled = workspace.empty((num_nodes, width)), 0
    rows = min(num_nodes, max(1, _ROW_GROUP_BYTES // (4 * width)))
    for batch in file.iter_batches(batch_size=rows, columns=["epoch", "z"]):
        epoch_B = batch.column(0).to_numpy()
        z_BK = batch.column(1).flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
        while len(z_BK):
            part = z_BK[: num_nodes - filled]
            z_NK[filled : filled + len(part)] = part
            filled += len(part)
            if filled == num_nodes:
                yield int(epoch_B[len(part) - 1]), z_NK
                z_NK, filled = workspace.empty((num_nodes, width)), 0
            z_BK, epoch_B = z_BK[len(part) :], epoch_B[len(part) :]


def dense_lists(block_NF: np.ndarray) -> pa.Array:
    """float32 [n, F] as fixed_size_list<float32 not null>[F]."""
    values = pa.array(block_NF.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, block_NF.shape[1])


def sparse_lists(block_NF: sp.csr_matrix) -> tuple[pa.Array, pa.Array]:
    """CSR rows as (list<int32> sorted indices, list<float32> values)."""
    block_NF.sort_indices()
    offsets = pa.array(block_NF.indptr.astype(np.int32))
    indices = pa.ListArray.from_arrays(offsets, pa.array(block_NF.indices.astype(np.int32)))
    values = pa.ListArray.from_arrays(offsets, pa.array(block_NF.data.astype(np.float32)))
    return indices, values


def read_schema(path: Path) -> pa.Schema:
    """The Arrow schema of a Parquet file, with its metadata."""
    return pq.read_schema(path)


def schema_metadata(path: Path, name: str) -> Any:
    """A JSON value from a table's schema metadata; None where it is absent."""
    raw = (pq.read_schema(path).metadata or {}).get(name.encode())
    return None if raw is None else json.loads(raw)


def num_rows(path: Path) -> int:
    """Rows of a Parquet file, from its footer."""
    return int(pq.read_metadata(path).num_rows)


def read_column(path: Path, column: str) -> np.ndarray:
    """One flat column as numpy; nulls of a float column become NaN, of a label column -1."""
    array = pq.read_table(path, columns=[column], use_threads=False).column(column).combine_chunks()
    if array.null_count and pa.types.is_integer(array.type):
        array = array.fill_null(-1)
    return np.asarray(array.to_numpy(zero_copy_only=False))


def read_matrix(path: Path, column: str, workspace: Workspace = MEMORY) -> np.ndarray:
    """A fixed_size_list column as float32 [N, width].

    Args:
        path: the file.
        column: its name.
        workspace: where the array is put.
    """
    num_rows, width = matrix_shape(path, column)
    matrix = workspace.empty((num_rows, width))
    start = 0
    for block in matrix_blocks(path, column):
        matrix[start : start + len(block)] = block
        start += len(block)
    return matrix


def matrix_shape(path: Path, column: str) -> tuple[int, int]:
    """Rows and width of a fixed_size_list column, from the file's footer."""
    return num_rows(path), int(pq.read_schema(path).field(column).type.list_size)


def matrix_blocks(path: Path, column: str) -> Iterator[np.ndarray]:
    """The rows of a fixed_size_list column as float32 blocks of at most 32 MiB, in order."""
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    width = file.schema_arrow.field(column).type.list_size
    for batch in file.iter_batches(batch_size=max(1, _ROW_GROUP_BYTES // (4 * width)), columns=[column]):
        yield batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(-1, width)


def read_node_ids(folder: Path) -> pa.Array:
    """The source's own ids, in node order, from a graph artifact."""
    return pq.read_table(folder / "nodes.parquet", columns=["node_id"]).column("node_id").combine_chunks()


def read_graph(folder: Path, *, with_features: bool = True, workspace: Workspace = MEMORY) -> Graph:
    """A graph artifact as a Graph. Labels are elsewhere.

    Args:
        folder: the artifact.
        with_features: whether its features are read, too.
        workspace: where edges and dense features are put.
    """
    metadata = json.loads((folder / "metadata.json").read_bytes())
    edges, features = _read_edges(folder / "edges.parquet", workspace), folder / "features.parquet"
    return Graph(
        num_nodes=int(metadata["num_nodes"]),
        src_E=edges["src"],
        dst_E=edges["dst"],
        x_NF=_read_features(features, workspace) if with_features and features.exists() else None,
        weight_E=edges.get("weight"),
        is_undirected=bool(metadata["is_undirected"]),
    )


def _read_edges(path: Path, workspace: Workspace) -> dict[str, np.ndarray]:
    """The columns of an edges table."""
    file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    columns = {
        field.name: workspace.empty((file.metadata.num_rows,), field.type.to_pandas_dtype())
        for field in file.schema_arrow
    }
    start = 0
    for batch in file.iter_batches(batch_size=_EDGE_ROWS):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            columns[name][start : start + batch.num_rows] = column.to_numpy()
        start += batch.num_rows
    return columns


def read_feature_rows(folder: Path) -> FeatureRows | None:
    """The features of a graph artifact, streamed; None for a graph without."""
    path = folder / "features.parquet"
    if not path.exists():
        return None
    if "x" not in pq.read_schema(path).names:
        return FeatureRows(sparse_shape(path), lambda: sparse_blocks(path))
    return FeatureRows(matrix_shape(path, "x"), lambda: iter(matrix_blocks(path, "x")))


def _read_features(path: Path, workspace: Workspace) -> Features:
    if "x" in pq.read_schema(path).names:
        return read_matrix(path, "x", workspace)
    return read_sparse(path, workspace)


def read_labels(folder: Path) -> Labels | None:
    """A labels artifact as Labels; None where the source has no labels."""
    path = folder / "labels.parquet"
    if not path.exists():
        return None
    names = schema_metadata(path, "class_names") or []
    return Labels(y_N=read_column(path, "label").astype(np.int32), class_names=tuple(names))


def read_splits(folder: Path) -> tuple[Split, ...]:
    """The splits that came with the source, in their order."""
    path = folder / "splits.parquet"
    if not path.exists():
        return ()
    # As dictionaries: spelled out, the names of ten million rows are as many Python strings.
    table = pq.read_table(path, read_dictionary=["split", "role"])
    names, roles, nodes = (table.column(name) for name in ("split", "role", "node"))

    def part(name: str, role: str) -> np.ndarray:
        chosen = pc.and_(pc.equal(names, name), pc.equal(roles, role))
        return np.asarray(nodes.filter(chosen).to_numpy())

    return tuple(
        Split(str(name), *(part(name, role) for role in ("train", "validation", "test")))
        for name in pc.unique(names).to_pylist()
    )


def split_columns(splits: Sequence[Split]) -> dict[str, Any]:
    """Splits as the columns of the ``labels.splits`` table."""
    parts = [
        (split.name, role, getattr(split, role))
        for split in splits
        for role in ("train", "validation", "test")
    ]
    nodes = [part for _, _, part in parts]
    return {
        "split": np.repeat([name for name, _, _ in parts], [len(part) for part in nodes]).astype(object),
        "node": np.concatenate(nodes).astype(np.int64) if nodes else np.empty(0, np.int64),
        "role": np.repeat([role for _, role, _ in parts], [len(part) for part in nodes]).astype(object),
    }


def _as_array(values: Any, type_: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return values if values.type == type_ else values.cast(type_)
    if pa.types.is_fixed_size_list(type_):
        return dense_lists(np.ascontiguousarray(values, np.float32)).cast(type_)
    if pa.types.is_list(type_) and isinstance(values, np.ndarray) and values.ndim == 2:
        return dense_lists(np.ascontiguousarray(values, np.float32)).cast(type_)
    return pa.array(values, type=type_, from_pandas=True)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """A small table as one dictionary a row."""
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
