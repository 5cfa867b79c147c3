"""Heterogeneous graphs and metapaths as tables, and back."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from data_contracts.tables import TABLES
from gcl.graph import Features
from gcl.hetero_graph import EdgeType, HeteroGraph, Metapath
from gcl.metapath_steps import MetapathPlan, Step
from gcl.workspace import row_slices
from tasks.convert import read_column, sparse_lists, write_batches
from tasks.work import Work, read_metadata

_EDGE_ROWS = 1 << 20


def write_hetero(
    work: Work,
    graph: HeteroGraph,
    node_ids: Mapping[str, pa.Array],
    metapaths: tuple[MetapathPlan, ...],
    *,
    notes: Mapping[str, int | str],
) -> None:
    """Write the ``hetero`` artifact: nodes of all types, edges of all relations, features.

    Args:
        work: where to.
        graph: what to write; its types and relations stand in their order of names.
        node_ids: int64 or string ids of each type, in node order.
        metapaths: the source's own.
        notes: facts for the manifest.
    """
    types, relations = sorted(graph.num_nodes), sorted(graph.edges)
    featured = [type_ for type_ in types if type_ in graph.features]
    folder = work.output("hetero")
    _write_nodes(folder / "nodes.parquet", types, node_ids)
    num_edges = _write_edges(folder / "edges.parquet", graph, relations)
    num_rows = 0
    if featured:
        num_rows = _write_features(folder / "features.parquet", graph, types)
    work.describe(
        "hetero",
        {
            "target": graph.target,
            "node_types": types,
            "num_nodes": {type_: graph.num_nodes[type_] for type_ in types},
            "relations": [list(relation) for relation in relations],
            "num_edges": {"/".join(relation): len(graph.edges[relation][0]) for relation in relations},
            "num_features": {type_: int(graph.features[type_].shape[1]) for type_ in featured},
            "dense_features": [type_ for type_ in featured if isinstance(graph.features[type_], np.ndarray)],
            "id_types": {type_: str(node_ids[type_].type) for type_ in types},
            "metapaths": [_plan_fields(plan) for plan in metapaths],
            "notes": dict(notes),
        },
    )
    work.expect("hetero.nodes", num_nodes=sum(graph.num_nodes.values()), num_types=len(types))
    work.expect("hetero.edges", num_edges=num_edges, num_relations=len(relations))
    work.expect("hetero.features", num_rows=num_rows, num_types=len(types))


def read_hetero(folder: Path) -> HeteroGraph:
    """A ``hetero`` artifact as a HeteroGraph."""
    facts = read_metadata(folder)
    edges, weights = _read_edges(folder / "edges.parquet", [_triple(row) for row in facts["relations"]])
    return HeteroGraph(
        target=facts["target"],
        num_nodes=facts["num_nodes"],
        edges=edges,
        features=_read_features(folder / "features.parquet", facts) if facts["num_features"] else {},
        weights=weights,
    )


def read_target_ids(folder: Path) -> pa.Array:
    """The ids of the target nodes, in node order and of their own type."""
    facts = read_metadata(folder)
    table = pq.read_table(
        folder / "nodes.parquet",
        filters=pc.field("node_type") == facts["node_types"].index(facts["target"]),
        columns=["node_id"],
        use_threads=False,
    )
    ids = table.column("node_id").combine_chunks()
    return ids.cast(pa.int64() if facts["id_types"][facts["target"]] == "int64" else pa.string())


def read_plans(folder: Path) -> tuple[MetapathPlan, ...]:
    """The metapaths that the source of a ``hetero`` artifact declares."""
    return tuple(
        MetapathPlan(
            name=row["name"],
            steps=tuple(Step(_triple(step["relation"]), step["backward"]) for step in row["steps"]),
            self_loops=row["self_loops"],
            weight=row["weight"],
            max_fanout=row["max_fanout"],
            nnz=row["nnz"],
        )
        for row in read_metadata(folder)["metapaths"]
    )


def write_metapath_edges(
    path: Path, metapaths: Iterator[Metapath], *, has_weights: bool
) -> Iterator[Metapath]:
    """Write the ``metapaths.edges`` table, giving each metapath on when it is written.

    Args:
        path: the file; complete when the iteration ends.
        metapaths: in their order.
        has_weights: whether any of them has weights other than 1.
    """
    schema = TABLES["metapaths.edges"].schema(extra_columns=["weight"] if has_weights else [])
    with (
        path.open("wb") as file,
        pq.ParquetWriter(
            file, schema, compression="zstd", compression_level=1, write_page_checksum=True
        ) as writer,
    ):
        for number, metapath in enumerate(metapaths):
            for columns in _matrix_columns(metapath.adjacency_NN, has_weights=has_weights):
                numbers = pa.array(np.full(len(columns[0]), number, np.int32))
                writer.write_batch(pa.record_batch([numbers, *columns], schema=schema))
            yield metapath


def read_metapaths(folder: Path) -> tuple[Metapath, ...]:
    """A ``metapaths`` artifact as adjacencies, in the order of the run's configuration."""
    facts, path = read_metadata(folder), folder / "edges.parquet"
    return tuple(
        Metapath(row["name"], matrix)
        for row, matrix in zip(facts["metapaths"], _read_matrices(path, facts), strict=True)
    )


def _read_matrices(path: Path, facts: dict[str, Any]) -> Iterator[sp.csr_matrix]:
    num_nodes, start = int(facts["num_nodes"]), 0
    columns = {name: read_column(path, name) for name in pq.read_schema(path).names if name != "metapath"}
    for row in facts["metapaths"]:
        part = slice(start, start + int(row["num_entries"]))
        start = part.stop
        src, dst = columns["src"][part], columns["dst"][part].astype(np.int32)
        data = columns["weight"][part] if "weight" in columns else np.ones(len(src), np.float32)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(src, minlength=num_nodes))])
        matrix = sp.csr_matrix((data, dst, indptr.astype(np.int32)), shape=(num_nodes, num_nodes))
        matrix.has_sorted_indices = True
        yield matrix


def _matrix_columns(matrix: sp.csr_matrix, *, has_weights: bool) -> Iterator[list[pa.Array]]:
    num_rows = matrix.shape[0]
    src = np.repeat(np.arange(num_rows), np.diff(matrix.indptr))
    for first in range(0, matrix.nnz, _EDGE_ROWS):
        part = slice(first, first + _EDGE_ROWS)
        columns = [pa.array(src[part]), pa.array(matrix.indices[part].astype(np.int64))]
        yield [*columns, pa.array(matrix.data[part].astype(np.float32))] if has_weights else columns


def _triple(names: list[str]) -> EdgeType:
    return (names[0], names[1], names[2])


def _plan_fields(plan: MetapathPlan) -> dict[str, Any]:
    steps = [{"relation": list(step.relation), "backward": step.backward} for step in plan.steps]
    names = ("name", "self_loops", "weight", "max_fanout", "nnz")
    return {name: getattr(plan, name) for name in names} | {"steps": steps}


def _write_nodes(path: Path, types: list[str], node_ids: Mapping[str, pa.Array]) -> None:
    found = {node_ids[type_].type for type_ in types}
    id_type = found.pop() if len(found) == 1 else pa.string()
    notes = {"node_types": json.dumps(types)}
    schema = TABLES["hetero.nodes"].schema(node_id_type=id_type, metadata=notes)

    def batches() -> Iterator[pa.RecordBatch]:
        for number, type_ in enumerate(types):
            ids = node_ids[type_].cast(id_type)
            for rows in row_slices(len(ids), 8):
                length = rows.stop - rows.start
                columns = [
                    pa.array(np.full(length, number, np.int32)),
                    pa.array(np.arange(rows.start, rows.stop)),
                    ids.slice(rows.start, length),
                ]
                yield pa.record_batch(columns, schema=schema)

    write_batches(path, schema, batches())


def _write_edges(path: Path, graph: HeteroGraph, relations: list[EdgeType]) -> int:
    notes = {
        "relations": json.dumps([list(relation) for relation in relations]),
        "num_src_nodes": json.dumps([graph.num_nodes[relation[0]] for relation in relations]),
        "num_dst_nodes": json.dumps([graph.num_nodes[relation[2]] for relation in relations]),
    }
    has_weights = bool(graph.weights)
    schema = TABLES["hetero.edges"].schema(extra_columns=["weight"] if has_weights else [], metadata=notes)

    def batches() -> Iterator[pa.RecordBatch]:
        for number, relation in enumerate(relations):
            src_E, dst_E = graph.edges[relation]
            weight_E = graph.weights.get(relation)
            for first in range(0, len(src_E), _EDGE_ROWS):
                part = slice(first, first + _EDGE_ROWS)
                length = len(src_E[part])
                columns = [np.full(length, number, np.int32), src_E[part], dst_E[part]]
                if has_weights:
                    columns.append(np.ones(length, np.float32) if weight_E is None else weight_E[part])
                yield pa.record_batch([pa.array(column) for column in columns], schema=schema)

    return write_batches(path, schema, batches())


def _read_edges(
    path: Path, relations: list[EdgeType]
) -> tuple[dict[EdgeType, tuple[np.ndarray, np.ndarray]], dict[EdgeType, np.ndarray]]:
    names = pq.read_schema(path).names
    columns = {name: read_column(path, name) for name in names}
    bounds = np.searchsorted(columns["relation"], np.arange(len(relations) + 1))
    edges, weights = {}, {}
    for relation, first, last in zip(relations, bounds, bounds[1:], strict=False):
        edges[relation] = (columns["src"][first:last], columns["dst"][first:last])
        if "weight" in columns:
            weights[relation] = columns["weight"][first:last]
    return edges, weights


def _write_features(path: Path, graph: HeteroGraph, types: list[str]) -> int:
    widths = [graph.features[type_].shape[1] if type_ in graph.features else 0 for type_ in types]
    schema = TABLES["hetero.features"].schema(metadata={"widths": json.dumps(widths)})

    def batches() -> Iterator[pa.RecordBatch]:
        for number, type_ in enumerate(types):
            if type_ not in graph.features:
                continue
            x_NF = graph.features[type_]
            for rows in row_slices(x_NF.shape[0], 8 * x_NF.shape[1]):
                columns = [
                    pa.array(np.full(rows.stop - rows.start, number, np.int32)),
                    pa.array(np.arange(rows.start, rows.stop)),
                    *sparse_lists(_as_rows(x_NF[rows])),
                ]
                yield pa.record_batch(columns, schema=schema)

    return write_batches(path, schema, batches())


def _as_rows(x_BF: Features) -> sp.csr_matrix:
    """Rows as CSR; of dense ones every value is stored, zeros too."""
    if sp.issparse(x_BF):
        return sp.csr_matrix(x_BF)
    num_rows, width = x_BF.shape
    indices, indptr = np.tile(np.arange(width, dtype=np.int32), num_rows), np.arange(num_rows + 1) * width
    return sp.csr_matrix((np.asarray(x_BF).ravel(), indices, indptr), shape=(num_rows, width))


def _read_features(path: Path, facts: dict[str, Any]) -> dict[str, Features]:
    features: dict[str, Features] = {}
    for type_, width in facts["num_features"].items():
        table = pq.read_table(
            path,
            filters=pc.field("node_type") == facts["node_types"].index(type_),
            columns=["indices", "values"],
            use_threads=False,
        )
        indices, values = (table.column(name).combine_chunks() for name in ("indices", "values"))
        flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False))
        if type_ in facts["dense_features"]:
            features[type_] = flat.reshape(-1, width)
            continue
        lengths = indices.value_lengths().to_numpy(zero_copy_only=False)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        features[type_] = sp.csr_matrix(
            (flat, indices.flatten().to_numpy(zero_copy_only=False), indptr),
            shape=(table.num_rows, width),
            dtype=np.float32,
        )
    return features
