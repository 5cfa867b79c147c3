"""Any heterogeneous source as a gconstruct folder in Parquet: one manifest for gclflow and GraphStorm."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from gcl.graph import Features
from gcl.hetero_graph import EdgeType
from gcl.metapath_steps import MetapathPlan, Step
from gcl.readers.base import ArrowArray
from gcl.readers.gconstruct_manifest import MANIFEST
from gcl.readers.hetero_base import HeteroSource

_ROLES = {"train": "train", "valid": "validation", "test": "test"}
_PARQUET = {"name": "parquet"}


def write_gconstruct(folder: Path, source: HeteroSource) -> None:
    """Write tables and manifest of a source, as `gcl.readers.gconstruct` reads them back.

    Args:
        folder: made where it does not exist; files of the same names are replaced.
        source: HeCo's, a CSVDataset's, or any other; ids, order of nodes, features, classes, splits and
            metapaths stay. Its metapaths are written as relation triples, steps backward as ``rev_NAME``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digests: dict[str, str] = {}
    nodes = [_write_nodes(folder, source, type_, digests) for type_ in source.graph.num_nodes]
    edges = [_write_edges(folder, source, relation, digests) for relation in source.graph.edges]
    more: dict[str, Any] = {
        "schema": "1",
        "target": source.graph.target,
        "node_count": dict(source.graph.num_nodes),
        "metapaths": [_metapath(plan) for plan in source.metapaths],
        "split_sets": _write_splits(folder, source, digests),
        "sha256": digests,
    }
    if source.y_N is not None:
        more["classes"] = list(source.class_names)
    manifest = {"version": "gconstruct-v0.1", "nodes": nodes, "edges": edges, "x_hetero": more}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def _write_nodes(folder: Path, source: HeteroSource, type_: str, digests: dict[str, str]) -> dict[str, Any]:
    fields = [pa.field("node_id", source.node_ids[type_].type)]
    columns: list[ArrowArray] = [source.node_ids[type_]]
    entry: dict[str, Any] = {"node_type": type_, "format": _PARQUET, "node_id_col": "node_id"}
    if type_ in source.graph.features:
        for field, column in _feature_columns(source.graph.features[type_]):
            fields.append(field)
            columns.append(column)
        entry["features"] = [{"feature_col": "feat"}]
    if type_ == source.graph.target and source.y_N is not None:
        names = pa.array(source.class_names, pa.string())
        labels = pa.array(source.y_N, pa.int32(), mask=source.y_N < 0)
        fields.append(pa.field("label", pa.string()))
        columns.append(names.take(labels))
        entry["labels"] = [{"label_col": "label", "task_type": "classification"}]
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields))
    return entry | {"files": _write(folder, f"nodes/{type_}.parquet", table, digests)}


def _feature_columns(x_NF: Features) -> list[tuple[Any, ArrowArray]]:
    """Dense rows as lists of one length, sparse ones as indices and values."""
    width = int(x_NF.shape[1])
    if isinstance(x_NF, np.ndarray):
        lists = pa.FixedSizeListArray.from_arrays(pa.array(x_NF.reshape(-1)), width)
        return [(pa.field("feat", lists.type), lists)]
    rows = sp.csr_matrix(x_NF)
    offsets = pa.array(rows.indptr.astype(np.int32))
    indices = pa.ListArray.from_arrays(offsets, pa.array(rows.indices.astype(np.int32)))
    values = pa.ListArray.from_arrays(offsets, pa.array(rows.data.astype(np.float32)))
    notes = {"num_features": str(width)}
    return [
        (pa.field("feat_indices", indices.type, metadata=notes), indices),
        (pa.field("feat_values", values.type), values),
    ]


def _write_edges(
    folder: Path, source: HeteroSource, relation: EdgeType, digests: dict[str, str]
) -> dict[str, Any]:
    src_E, dst_E = source.graph.edges[relation]
    columns = {
        "src_id": source.node_ids[relation[0]].take(pa.array(src_E)),
        "dst_id": source.node_ids[relation[2]].take(pa.array(dst_E)),
    }
    if relation in source.graph.weights:
        columns["weight"] = pa.array(source.graph.weights[relation])
    name = f"edges/{'__'.join(relation)}.parquet"
    files = _write(folder, name, pa.table(columns), digests)
    return {"relation": list(relation), "format": _PARQUET, "files": files}


def _write_splits(folder: Path, source: HeteroSource, digests: dict[str, str]) -> dict[str, dict[str, str]]:
    ids, found = source.node_ids[source.graph.target], {}
    for split in source.splits:
        parts = {}
        for part, role in _ROLES.items():
            table = pa.table({"node_id": ids.take(pa.array(getattr(split, role)))})
            parts[part] = _write(folder, f"splits/{split.name}/{part}.parquet", table, digests)
        found[split.name] = parts
    return found


def _write(folder: Path, name: str, table: pa.Table, digests: dict[str, str]) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return name


def _metapath(plan: MetapathPlan) -> dict[str, Any]:
    fields = ("name", "self_loops", "weight", "max_fanout", "nnz")
    return {name: getattr(plan, name) for name in fields} | {"path": [_triple(step) for step in plan.steps]}


def _triple(step: Step) -> list[str]:
    return [step.start, f"rev_{step.relation[1]}" if step.backward else step.relation[1], step.end]
