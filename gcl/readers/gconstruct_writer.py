"""Any heterogeneous source as a gconstruct folder in Parquet: one manifest for gclflow and GraphStorm."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from pydantic import ValidationError

from gcl.graph import Features
from gcl.hetero_findings import Finding, raise_findings
from gcl.hetero_graph import EdgeType
from gcl.metapath_steps import MetapathPlan, Step, reversed_by_name
from gcl.readers.base import ArrowArray
from gcl.readers.gconstruct_manifest import MANIFEST, MAX_BYTES, HeteroManifest, explained
from gcl.readers.hetero_base import HeteroSource
from gcl.readers.printable import printable

_ROLES = {"train": "train", "valid": "validation", "test": "test"}
_PARQUET = {"name": "parquet"}


def write_gconstruct(folder: Path, source: HeteroSource) -> None:
    """Write tables and manifest of a source, as `gcl.readers.gconstruct` reads them back.

    Args:
        folder: made where it does not exist; files of the same names are replaced.
        source: HeCo's, a CSVDataset's, or any other; ids, order of nodes, features, classes, splits and
            metapaths stay. Its metapaths are written as relation triples, steps backward as ``rev_NAME``.

    Raises:
        InvalidHetero: H07, names that a manifest does not take, as names of types and relations become those
            of files; nothing is written then.
    """
    manifest = _manifest(source)
    _refuse_what_is_not_read_back(source, manifest)
    folder.mkdir(parents=True, exist_ok=True)
    digests: dict[str, str] = manifest["x_hetero"]["sha256"]
    for entry in manifest["nodes"]:
        table = _node_table(source, entry["node_type"])
        digests[entry["files"]] = _write(folder / entry["files"], table)
    for entry in manifest["edges"]:
        table = _edge_table(source, tuple(entry["relation"]))
        digests[entry["files"]] = _write(folder / entry["files"], table)
    ids = source.node_ids[source.graph.target]
    for split in source.splits:
        for part, role in _ROLES.items():
            name = manifest["x_hetero"]["split_sets"][split.name][part]
            table = pa.table({"node_id": ids.take(pa.array(getattr(split, role)))})
            digests[name] = _write(folder / name, table)
    (folder / MANIFEST).write_text(_text(manifest), "utf-8")


def _manifest(source: HeteroSource) -> dict[str, Any]:
    """The manifest; digests, which files are yet to have, are zeros."""
    graph = source.graph
    more: dict[str, Any] = {
        "schema": "1",
        "target": graph.target,
        "node_count": dict(graph.num_nodes),
        "metapaths": [_metapath(plan) for plan in source.metapaths],
        "split_sets": {
            split.name: {part: f"splits/{split.name}/{part}.parquet" for part in _ROLES}
            for split in source.splits
        },
    }
    if source.y_N is not None:
        more["classes"] = list(source.class_names)
    nodes = [_node_entry(source, type_) for type_ in graph.num_nodes]
    edges = [
        {"relation": list(relation), "format": _PARQUET, "files": f"edges/{'__'.join(relation)}.parquet"}
        for relation in graph.edges
    ]
    files = [entry["files"] for entry in (*nodes, *edges)]
    files += [file for parts in more["split_sets"].values() for file in parts.values()]
    more["sha256"] = dict.fromkeys(files, "0" * 64)
    return {"version": "gconstruct-v0.1", "nodes": nodes, "edges": edges, "x_hetero": more}


def _node_entry(source: HeteroSource, type_: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"node_type": type_, "format": _PARQUET, "node_id_col": "node_id"}
    if type_ in source.graph.features:
        entry["features"] = [{"feature_col": "feat"}]
    if type_ == source.graph.target and source.y_N is not None:
        entry["labels"] = [{"label_col": "label", "task_type": "classification"}]
    return entry | {"files": f"nodes/{type_}.parquet"}


def _refuse_what_is_not_read_back(source: HeteroSource, manifest: dict[str, Any]) -> None:
    rows = []
    try:
        HeteroManifest.model_validate(manifest)
    except ValidationError as error:
        rows += _told(error)
    rows += [f"split {split.name!r}" for split in source.splits if split.name in (".", "..")]
    relations = source.graph.edges
    files = [entry["files"].casefold() for key in ("nodes", "edges") for entry in manifest[key]]
    rows += [f"two tables would be the file {name!r}" for name in sorted(set(files)) if files.count(name) > 1]
    rows += [
        f"{'/'.join(relation)}: called the reverse of a relation that it is not the reverse of"
        for relation in relations
        if reversed_by_name(relation) in relations
    ]
    if len(_text(manifest)) > MAX_BYTES:
        rows.append(f"the manifest would be larger than {MAX_BYTES} bytes")
    advice = "names are 1 to 64 of the letters A to Z, a to z, digits and _ . - (metapaths: no hyphen)"
    if rows:
        shown = list(dict.fromkeys(rows))
        raise_findings([Finding.of("H07", "names_fit_a_manifest", "hetero.nodes type", shown, advice=advice)])


def _told(error: ValidationError) -> list[str]:
    """The names that do not fit; where all do, the other fields that are wrong."""
    names = [one["input"] for one in error.errors() if one["type"] == "string_pattern_mismatch"]
    return [repr(printable(name)) for name in names] or [explained(error)]


def _text(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=1) + "\n"


def _node_table(source: HeteroSource, type_: str) -> pa.Table:
    fields = [pa.field("node_id", source.node_ids[type_].type)]
    columns: list[ArrowArray] = [source.node_ids[type_]]
    if type_ in source.graph.features:
        for field, column in _feature_columns(source.graph.features[type_]):
            fields.append(field)
            columns.append(column)
    if type_ == source.graph.target and source.y_N is not None:
        names = pa.array(source.class_names, pa.string())
        labels = pa.array(source.y_N, pa.int32(), mask=source.y_N < 0)
        fields.append(pa.field("label", pa.string()))
        columns.append(names.take(labels))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


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


def _edge_table(source: HeteroSource, relation: EdgeType) -> pa.Table:
    src_E, dst_E = source.graph.edges[relation]
    columns = {
        "src_id": source.node_ids[relation[0]].take(pa.array(src_E)),
        "dst_id": source.node_ids[relation[2]].take(pa.array(dst_E)),
    }
    if relation in source.graph.weights:
        columns["weight"] = pa.array(source.graph.weights[relation])
    return pa.table(columns)


def _write(path: Path, table: pa.Table) -> str:
    """Write a table; its digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _metapath(plan: MetapathPlan) -> dict[str, Any]:
    fields = ("name", "self_loops", "weight", "max_fanout", "nnz")
    return {name: getattr(plan, name) for name in fields} | {"path": [_triple(step) for step in plan.steps]}


def _triple(step: Step) -> list[str]:
    return [step.start, f"rev_{step.relation[1]}" if step.backward else step.relation[1], step.end]
