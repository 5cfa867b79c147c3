"""Heterogeneous graphs that a notebook holds, as a source: with labels, splits and metapaths, and checked.

`gcl.readers.gconstruct_writer.write_gconstruct` makes of it a folder that the pipeline reads.

Shape legend: N target nodes.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gcl.graph import Labels
from gcl.graph_arrays import labels_from, plain_array
from gcl.hetero_findings import Finding, raise_findings
from gcl.hetero_graph import HeteroGraph
from gcl.interop_hetero import from_dgl, from_pyg
from gcl.metapaths import MetapathsConfig, chosen_metapaths
from gcl.readers.base import ArrowArray
from gcl.readers.hetero_base import EdgesRead, HeteroDatasetConfig, HeteroRead, HeteroSource, NodesRead
from gcl.readers.hetero_checks import checked

__all__ = ["held_source", "source_from_dgl", "source_from_pyg"]
_MASKS = {"train": "train_mask", "validation": "val_mask", "test": "test_mask"}
_SPLIT_NAME = "masks"
_AS_IT_IS = HeteroDatasetConfig(format="held", path=Path(), self_loops="keep", weights="honour")


def held_source(
    graph: HeteroGraph,
    *,
    labels: Any = None,
    splits: Mapping[str, Mapping[str, Any]] | None = None,
    metapaths: Iterable[str] = (),
    node_ids: Mapping[str, Any] | None = None,
) -> HeteroSource:
    """A graph with what belongs to its target nodes, checked as what readers read.

    Args:
        graph: nodes, relations and features.
        labels: [N] classes by number or name, as `gcl.graph_arrays.labels_from` takes them.
        splits: ids of target nodes by split name and role: train, validation, test.
        metapaths: ``author-paper-author``, or with relations; see `gcl.metapath_steps.parse_metapath`.
        node_ids: ids of the nodes of a type, whole numbers or text; positions where a type has none here.

    Raises:
        InvalidHetero: every H03, H04, H11 and H14 there is; H16, ids or labels of another number than nodes.
        ValueError: labels that are neither.
    """
    ids: dict[str, ArrowArray] = {
        type_: pa.array(plain_array((node_ids or {}).get(type_, np.arange(count))))
        for type_, count in graph.num_nodes.items()
    }
    known = None if labels is None else labels_from(labels)
    _refuse_other_numbers(graph, ids, known)
    read = HeteroRead(target=graph.target, node_count=dict(graph.num_nodes))
    for type_, of_type in ids.items():
        texts = _texts(known) if known is not None and type_ == graph.target else None
        read.nodes[type_] = NodesRead(type_, of_type, graph.features.get(type_), texts)
    read.classes = known.class_names if known is not None else None
    for relation, (src_E, dst_E) in graph.edges.items():
        ends = (ids[relation[0]].take(pa.array(src_E)), ids[relation[2]].take(pa.array(dst_E)))
        read.edges[relation] = EdgesRead("/".join(relation), *ends, graph.weights.get(relation))
    for name, roles in (splits or {}).items():
        read.splits[name] = {role: pa.array(plain_array(nodes)) for role, nodes in roles.items()}
    if paths := tuple(metapaths):
        plans = chosen_metapaths(MetapathsConfig(paths=paths), (), sorted(graph.edges), target=graph.target)
        read.metapaths = list(plans)
    return checked(read, _AS_IT_IS)


def source_from_pyg(data: Any, *, target: str, metapaths: Iterable[str] = ()) -> HeteroSource:
    """A PyG ``HeteroData`` with labels ``y`` and the split of its masks, called masks, where it has them.

    Args:
        data: see `gcl.interop_hetero.from_pyg`.
        target: the node type that is embedded.
        metapaths: see `held_source`.

    Raises:
        InvalidHetero, InvalidGraph: see `held_source` and `gcl.interop_hetero.from_arrays`.
    """
    names = ("y", *_MASKS.values())
    of_target = {name: getattr(data[target], name, None) for name in names}
    return _of_target(from_pyg(data, target=target), of_target, "y", metapaths)


def source_from_dgl(
    dgl_graph: Any, *, target: str, metapaths: Iterable[str] = (), label: str = "label"
) -> HeteroSource:
    """A dgl heterograph with its labels and the split of its masks, called masks, where it has them.

    Args:
        dgl_graph: see `gcl.interop_hetero.from_dgl`.
        target: the node type that is embedded.
        metapaths: see `held_source`.
        label: node data of the target with the classes.

    Raises:
        InvalidHetero, InvalidGraph: see `held_source` and `gcl.interop_hetero.from_arrays`.
    """
    data = dgl_graph.nodes[target].data
    of_target = {name: data.get(name) for name in (label, *_MASKS.values())}
    return _of_target(from_dgl(dgl_graph, target=target), of_target, label, metapaths)


def _of_target(
    graph: HeteroGraph, of_target: Mapping[str, Any], label: str, metapaths: Iterable[str]
) -> HeteroSource:
    roles = {
        role: np.flatnonzero(plain_array(of_target[name]))
        for role, name in _MASKS.items()
        if of_target[name] is not None
    }
    splits = {_SPLIT_NAME: roles} if roles.keys() == _MASKS.keys() else {}
    return held_source(graph, labels=of_target[label], splits=splits, metapaths=metapaths)


def _refuse_other_numbers(graph: HeteroGraph, ids: Mapping[str, ArrowArray], labels: Labels | None) -> None:
    wrong = [
        f"{type_}: {len(ids[type_])} ids, {count} nodes"
        for type_, count in graph.num_nodes.items()
        if len(ids[type_]) != count
    ]
    num_targets = graph.num_nodes[graph.target]
    if labels is not None and len(labels.y_N) != num_targets:
        wrong.append(f"{graph.target}: {len(labels.y_N)} labels, {num_targets} nodes")
    if wrong:
        raise_findings([Finding.of("H16", "an_id_and_label_a_node", "hetero.nodes node", wrong)])


def _texts(labels: Labels) -> ArrowArray:
    """The name of each node's class, null without."""
    names = pa.array(labels.class_names, pa.string())
    return names.take(pa.array(labels.y_N, mask=labels.y_N < 0))
