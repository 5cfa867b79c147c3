"""Ingest: source files in a public format become the graph and labels artifacts."""

import json
import tempfile
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from data_contracts.tables import TABLES
from gcl.edges import CanonicalEdges, EdgeChunk, HeldOutEdges, canonical_edges, hold_out_edges
from gcl.graph import Features
from gcl.readers import open_source, reader_of, source_files
from gcl.readers.base import DatasetConfig, GraphSource, edge_policy
from gcl.workspace import row_slices
from tasks.convert import (
    dense_lists,
    sparse_lists,
    split_columns,
    write_batches,
    write_columns,
)
from tasks.source_digests import digest_sources, unchanged
from tasks.stage import Stage
from tasks.store import Store
from tasks.work import Work

_NODE_ROWS = 1 << 20
# What writes the tables of the other kinds of data; found by name, so that neither is part of the key of a
# plain graph.
_WRITERS = {"hetero": "tasks.ingest_hetero", "collection": "tasks.ingest_collection"}


def code_of(config: DatasetConfig) -> tuple[str, ...]:
    """The modules that the kind of data selects."""
    holds = reader_of(config.format).holds
    return (_WRITERS[holds],) if holds in _WRITERS else ()


def source_digests(
    config: DatasetConfig, store: Store | None = None, *, full: bool = False
) -> dict[str, str]:
    """sha256 of every source file by its role: the content counts for the key, the path does not.

    Args:
        config: the data set.
        store: where readings are remembered, so that an unchanged file is not read again only to be hashed.
        full: hash every file whatever is remembered.

    Raises:
        SourceUnreadable: a file is missing, or changed while it was read.
    """
    found = digest_sources(source_files(config), store, full=full)
    return {f"source:{role}": digest for role, digest in found.items()}


def ingest(work: Work, config: DatasetConfig) -> None:
    """Read the source, bring its edges into canonical order, and write the tables.

    Raises:
        SourceUnreadable: a file is not what its format says, or has changed since its digest was taken.
    """
    with unchanged(source_files(config).values()):
        _write_tables(work, config)


def _write_tables(work: Work, config: DatasetConfig) -> None:
    source = open_source(config)
    if (holds := reader_of(config.format).holds) in _WRITERS:
        import_module(_WRITERS[holds]).write_tables(work, source, config)
        return
    edges = canonical_edges(
        source.edge_chunks(),
        num_nodes=source.num_nodes,
        policy=edge_policy(config, source),
        scratch=_spill(work),
    )
    training, held_out = _hold_out(edges, source, config)
    graph = work.output("graph")
    num_edges = _write_edges(graph / "edges.parquet", training, has_weights=edges.has_weights)
    _write_nodes(graph / "nodes.parquet", source)
    if source.feature_chunks is not None:
        _write_features(graph / "features.parquet", source, source.feature_chunks())
    _describe_graph(work, source, config, edges, num_edges)
    _write_labels(work, source, held_out)


def _spill(work: Work) -> Path:
    # A folder of its own for every attempt: two processes at the same key must not share buckets.
    return Path(tempfile.mkdtemp(prefix="edges-", dir=work.scratch()))


def _hold_out(
    edges: CanonicalEdges, source: GraphSource, config: DatasetConfig
) -> tuple[CanonicalEdges | Any, HeldOutEdges | None]:
    if config.edge_holdout == 0:
        return edges, None
    for _ in edges:  # counts, and the policy's rejections, are known after a full pass
        pass
    held_out = hold_out_edges(edges, num_nodes=source.num_nodes, rate=config.edge_holdout, seed=config.seed)
    return held_out.training, held_out


def _write_edges(path: Path, edges: Any, *, has_weights: bool) -> int:
    schema = TABLES["graph.edges"].schema(extra_columns=["weight"] if has_weights else [])

    def batches() -> Iterator[pa.RecordBatch]:
        chunk: EdgeChunk
        for chunk in edges:
            columns = [pa.array(chunk.src), pa.array(chunk.dst)]
            if has_weights:
                columns.append(pa.array(chunk.weight))
            yield pa.record_batch(columns, schema=schema)

    return write_batches(path, schema, batches())


def _write_nodes(path: Path, source: GraphSource) -> None:
    type_ = pa.int64() if source.node_ids is None else source.node_ids.type
    schema = TABLES["graph.nodes"].schema(node_id_type=type_)

    def batches() -> Iterator[pa.RecordBatch]:
        bounds = [*range(0, source.num_nodes, _NODE_ROWS), source.num_nodes]
        for start, stop in pairwise(bounds):
            node = pa.array(np.arange(start, stop, dtype=np.int64))
            ids = node if source.node_ids is None else source.node_ids.slice(start, stop - start)
            yield pa.record_batch([node, ids], schema=schema)

    write_batches(path, schema, batches())


def _write_features(path: Path, source: GraphSource, blocks: Iterator[Features]) -> None:
    layout = "sparse" if source.has_sparse_features else "dense"
    schema = TABLES["graph.features"].schema(
        layout=layout, width=source.num_features, metadata={"num_features": str(source.num_features)}
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for block in blocks:
            for part in row_slices(block.shape[0], 4 * block.shape[1]):
                rows = block[part]
                columns = (
                    sparse_lists(rows) if sp.issparse(rows) else (dense_lists(np.ascontiguousarray(rows)),)
                )
                yield pa.record_batch(list(columns), schema=schema)

    write_batches(path, schema, batches())


def _describe_graph(
    work: Work, source: GraphSource, config: DatasetConfig, edges: CanonicalEdges, num_edges: int
) -> None:
    counts = edges.counts
    work.describe(
        "graph",
        {
            "num_nodes": source.num_nodes,
            "num_edges": num_edges,
            "num_features": source.num_features,
            "has_features": source.feature_chunks is not None,
            "is_undirected": edges.is_undirected,
            "has_weights": edges.has_weights,
            "edge_holdout": config.edge_holdout,
            "source_edges": counts.num_read,
            "source_self_loops": counts.num_self_loops,
            "source_duplicates": counts.num_duplicates,
            "source_one_way": counts.num_one_way,
            "notes": dict(source.notes),
        },
    )
    work.expect("graph.nodes", num_nodes=source.num_nodes)
    work.expect("graph.features", num_nodes=source.num_nodes, num_features=source.num_features)
    work.expect(
        "graph.edges",
        num_nodes=source.num_nodes,
        num_edges=num_edges,
        is_undirected=edges.is_undirected,
        has_self_loops=config.self_loops == "keep",
    )


def _write_labels(work: Work, source: GraphSource, held_out: HeldOutEdges | None) -> None:
    folder, num_classes = work.output("labels"), len(source.class_names)
    work.describe("labels", {"num_classes": num_classes if source.label_chunks is not None else None})
    if source.label_chunks is not None:
        y_N = np.concatenate(list(source.label_chunks()))
        write_columns(
            folder / "labels.parquet",
            "labels.labels",
            {"node": np.arange(len(y_N)), "label": pa.array(y_N, mask=y_N < 0)},
            metadata={"class_names": json.dumps(list(source.class_names))},
        )
        work.expect("labels.labels", num_nodes=source.num_nodes, num_classes=num_classes)
    if source.splits:
        write_columns(folder / "splits.parquet", "labels.splits", split_columns(source.splits))
        work.expect("labels.splits", num_nodes=source.num_nodes)
    if held_out is not None:
        write_columns(folder / "held_out_edges.parquet", "labels.held_out_edges", _held_out_columns(held_out))
        work.expect("labels.held_out_edges", num_nodes=source.num_nodes)


def _held_out_columns(held_out: HeldOutEdges) -> dict[str, np.ndarray]:
    parts = {"test": held_out.test, "validation": held_out.validation}
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts.values()])
        for name in ("src", "dst", "is_edge")
    }
    columns["role"] = np.repeat(list(parts), [len(part.src) for part in parts.values()]).astype(object)
    return columns


INGEST = Stage(
    name="ingest",
    version=1,
    body=ingest,
    tables=(),
    libraries=("numpy", "pyarrow", "scipy", "scikit-learn"),
)
