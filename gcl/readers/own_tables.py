"""A graph of one's own: a node table and an edge table that graph.toml describes, as CSV or as Parquet."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from gcl.edges import EdgeChunk
from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.graph import Split
from gcl.readers.base import ArrowArray, FileDatasetConfig, GraphSource, check_weights, existing_file
from gcl.readers.manifest import MANIFEST, GraphManifest, NodeTable, read_manifest
from gcl.readers.node_ids import NodeIds, UnknownEndpoints, exact_ids

_ROLES = ("train", "validation", "test")
_MAX_CLASSES = 100_000
SPLIT_NAME = "given"
_LOOKUP_ROWS = 1 << 23
"""Edges whose ids are looked up at once: hashing 10^7 ids takes seconds, 8 million edges some 0.4 GB."""

Batches = Callable[[Path, Sequence[str]], Iterator[pa.RecordBatch]]
FeatureBlocks = Callable[[Path, NodeTable], tuple[int, Callable[[], Iterator[np.ndarray | sp.csr_matrix]]]]


@dataclass(frozen=True)
class TableFormat:
    """How one file format gives columns.

    Attributes:
        texts: batches of columns as text (CSV), or in the file's own types (Parquet).
        ids: batches of columns of node ids, with their declared type.
        numbers: batches of columns of float32.
        feature_blocks: the number of features, and blocks of rows.
    """

    texts: Batches
    ids: Callable[[Path, Sequence[str], str], Iterator[pa.RecordBatch]]
    edges: Callable[[Path, Sequence[str], str, str | None], Iterator[pa.RecordBatch]]
    feature_blocks: FeatureBlocks


def source_files(config: FileDatasetConfig) -> dict[str, Path]:
    """The manifest and the two tables it names."""
    existing_file(config.path / MANIFEST, "manifest")
    manifest = read_manifest(config.path)
    return {
        "manifest": config.path / MANIFEST,
        "nodes": existing_file(config.path / manifest.nodes.file, "node table"),
        "edges": existing_file(config.path / manifest.edges.file, "edge table"),
    }


def open_tables(config: FileDatasetConfig, tables: TableFormat) -> GraphSource:
    """The graph; ids, labels' names and splits are read at once, edges, features and labels stream."""
    files = source_files(config)
    manifest = read_manifest(config.path)
    nodes = manifest.nodes
    ids = _node_ids(files["nodes"], nodes, tables)
    num_features, feature_chunks = 0, None
    if nodes.features is not None or nodes.sparse_features is not None:
        num_features, feature_chunks = tables.feature_blocks(files["nodes"], nodes)
    class_names, label_chunks = _labels(files["nodes"], nodes, tables)
    use_weights = check_weights(config, has_weights=manifest.edges.weight is not None)
    return GraphSource(
        num_nodes=len(ids.ids),
        node_ids=None if ids.is_range else ids.ids,
        edge_chunks=lambda: _edges(files["edges"], manifest, tables, ids, use_weights=use_weights),
        feature_chunks=feature_chunks,
        num_features=num_features,
        has_sparse_features=nodes.sparse_features is not None,
        label_chunks=label_chunks,
        class_names=class_names,
        splits=_splits(files["nodes"], nodes, tables),
        is_directed=manifest.edges.directed,
        has_weights=use_weights,
    )


def _node_ids(path: Path, nodes: NodeTable, tables: TableFormat) -> NodeIds:
    parts = [
        exact_ids(batch.column(0), nodes.id_type, what=path.name)
        for batch in tables.ids(path, [nodes.id], nodes.id_type)
    ]
    ids = pa.concat_arrays(parts) if parts else pa.array([], pa.int64())
    if ids.null_count:
        rows = np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))
        raise InvalidGraph(
            table="graph.nodes",
            column="node_id",
            rule="ids_present",
            num_rows=len(rows),
            sample=[f"node {row}" for row in rows[:10]],
        )
    return NodeIds(ids)


def _edges(
    path: Path, manifest: GraphManifest, tables: TableFormat, ids: NodeIds, *, use_weights: bool
) -> Iterator[EdgeChunk]:
    edges, id_type = manifest.edges, manifest.nodes.id_type
    unknown = [UnknownEndpoints("src"), UnknownEndpoints("dst")]
    first_row = 1
    weight_column = edges.weight if use_weights else None
    batches = tables.edges(path, [edges.source, edges.target], id_type, weight_column)
    for group in _groups(batches, min_rows=1 if ids.is_indexed else _LOOKUP_ROWS):
        ends = [
            pa.chunked_array([exact_ids(batch.column(side), id_type, what=path.name) for batch in group])
            for side in (0, 1)
        ]
        # Both sides in one call: where ids must be hashed, they are hashed once a call.
        num_rows = len(ends[0])
        positions = ids.positions(pa.chunked_array([*ends[0].chunks, *ends[1].chunks]))
        src, dst = positions[:num_rows], positions[num_rows:]
        for column, found, collected in zip(ends, (src, dst), unknown, strict=True):
            collected.add(column, found, first_row=first_row, what=path.name)
        first_row += num_rows
        weight = None
        if use_weights:
            what = f"{path.name}: {edges.weight}"
            weight = np.concatenate([float_column(batch.column(2), what=what) for batch in group])
        yield EdgeChunk(src, dst, weight)
    # After the last chunk: reported by the source's own ids, with the full count.
    for collected in unknown:
        collected.raise_if_any()


def _groups(batches: Iterator[pa.RecordBatch], *, min_rows: int) -> Iterator[list[pa.RecordBatch]]:
    """Batches in groups of at least so many rows, the last one apart."""
    group: list[pa.RecordBatch] = []
    num_rows = 0
    for batch in batches:
        group.append(batch)
        num_rows += batch.num_rows
        if num_rows >= min_rows:
            yield group
            group, num_rows = [], 0
    if group:
        yield group


def _texts(path: Path, column: str, tables: TableFormat) -> Iterator[ArrowArray]:
    for batch in tables.texts(path, [column]):
        values: ArrowArray = batch.column(0)
        values = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
        if pa.types.is_integer(values.type) or pa.types.is_large_string(values.type):
            values = values.cast(pa.string())
        if not pa.types.is_string(values.type):
            raise SourceUnreadable(
                f"{path.name}: column {column!r} holds {values.type}, expected text or integers"
            )
        yield pc.if_else(pc.equal(values, pa.scalar("")), pa.scalar(None, pa.string()), values)


def _labels(
    path: Path, nodes: NodeTable, tables: TableFormat
) -> tuple[tuple[str, ...], Callable[[], Iterator[np.ndarray]] | None]:
    """Class names in ascending order (integers by value), and the stream of class ids."""
    if nodes.label is None:
        return (), None
    column = nodes.label
    names: set[str] = set()
    for values in _texts(path, column, tables):
        names.update(name for name in pc.unique(values).to_pylist() if name is not None)
        if len(names) > _MAX_CLASSES:
            raise SourceUnreadable(f"{path.name}: column {column!r} has more than {_MAX_CLASSES} classes")
    class_names = tuple(sorted(names, key=_class_order(names)))
    value_set = pa.array(class_names, pa.string())

    def chunks() -> Iterator[np.ndarray]:
        for values in _texts(path, column, tables):
            found: ArrowArray = pc.index_in(values, value_set=value_set, skip_nulls=True)
            yield found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)

    return class_names, chunks


def _class_order(names: set[str]) -> Callable[[str], tuple[int, str]]:
    are_numbers = all(
        name.isascii() and name.removeprefix("-").isdecimal() and len(name) <= 18 for name in names
    )
    return lambda name: (int(name) if are_numbers else 0, name)


def _splits(path: Path, nodes: NodeTable, tables: TableFormat) -> tuple[Split, ...]:
    if nodes.split is None:
        return ()
    found: dict[str, list[np.ndarray]] = {role: [np.empty(0, np.int64)] for role in _ROLES}
    first = 0
    for values in _texts(path, nodes.split, tables):
        known = pc.is_in(values, value_set=pa.array(_ROLES, pa.string()), skip_nulls=True)
        strange = pc.and_(pc.invert(known), values.is_valid()).to_numpy(zero_copy_only=False)
        if strange.any():
            row = int(np.flatnonzero(strange)[0])
            raise SourceUnreadable(
                f"{path.name}: column {nodes.split!r}, node {first + row}: {values[row].as_py()[:80]!r} "
                f"is none of {', '.join(_ROLES)}"
            )
        for role in _ROLES:
            is_role: ArrowArray = pc.equal(values, pa.scalar(role))
            chosen = is_role.fill_null(False).to_numpy(zero_copy_only=False)
            found[role].append(first + np.flatnonzero(chosen))
        first += len(values)
    return (Split(SPLIT_NAME, *(np.concatenate(found[role]) for role in _ROLES)),)


def float_column(column: ArrowArray, *, what: str) -> np.ndarray:
    """A column of numbers as float32; null becomes NaN, which the contracts report with its place."""
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise SourceUnreadable(f"{what}: holds {column.type}, expected numbers")
    with np.errstate(over="ignore"):
        values: np.ndarray = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return values.astype(np.float32)


def expand_columns(wanted: tuple[str, ...] | str, present: Sequence[str], *, what: str) -> list[str]:
    """Feature columns by name, PREFIX* standing for all that begin so, in the order of the file."""
    columns: list[str] = []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        matches = [c for c in present if c.startswith(name[:-1])] if name.endswith("*") else [name]
        missing = [c for c in matches if c not in present] if matches else [name]
        if missing:
            raise SourceUnreadable(f"{what}: no feature column {missing[0]!r}")
        columns.extend(matches)
    if len(set(columns)) < len(columns):
        raise SourceUnreadable(f"{what}: a feature column is named twice")
    return columns
