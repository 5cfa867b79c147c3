"""Heterogeneous graphs from and to the libraries people hold them in: dgl and PyG.

Relations are sorted, repeats counted once (their weights add up). A relation that is another one turned
round, as both libraries want it for message passing, is recognised and left out: gcl walks both ways.

Shape legend: N_t nodes of type t, E_r edges of relation r, F_t features.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from gcl.graph import Features
from gcl.graph_arrays import checked_features, plain_array
from gcl.hetero_findings import Finding, raise_findings
from gcl.hetero_graph import EdgeType, HeteroGraph
from gcl.metapath_steps import reversed_by_name

__all__ = ["from_arrays", "from_dgl", "from_pyg", "to_dgl", "to_pyg"]
_PYG_WEIGHT, _DGL_FEATURES, _DGL_WEIGHT = "edge_weight", "feat", "weight"


def from_arrays(
    edges: Mapping[EdgeType, tuple[Any, Any]],
    num_nodes: Mapping[str, int],
    *,
    target: str,
    features: Mapping[str, Any] | None = None,
    weights: Mapping[EdgeType, Any] | None = None,
) -> HeteroGraph:
    """A heterogeneous graph from arrays of positions.

    Args:
        edges: sources and targets [E_r] of each relation (source type, name, target type).
        num_nodes: N_t of every type.
        target: the type that is embedded.
        features: [N_t, F_t], dense or scipy sparse, of the types that have any.
        weights: [E_r] of the relations whose edges have any.

    Raises:
        InvalidHetero: H06, positions beyond the nodes; H07, types without a number of nodes; H09, weights
            that are not finite and positive; H16, features of another number of rows.
        InvalidGraph: features that are not finite.
    """
    findings: list[Finding] = []
    named = {target, *(type_ for source, _, end in edges for type_ in (source, end))}
    unknown = sorted(named - set(num_nodes))
    if unknown:
        raise_findings([Finding.of("H07", "types_declared", "hetero.edges relation", unknown)])
    matrices: dict[EdgeType, sp.csr_matrix] = {}
    weighted: set[EdgeType] = set()
    for relation, (src, dst) in edges.items():
        weight = (weights or {}).get(relation)
        found = _matrix(relation, src, dst, weight, num_nodes, findings)
        if found is not None:
            matrices[relation] = found
            weighted |= {relation} if weight is not None else set()
    x_by_type: dict[str, Features] = {}
    for type_, value in (features or {}).items():
        x_by_type[type_] = checked_features(value)
        if x_by_type[type_].shape[0] != num_nodes.get(type_):
            rows = [f"{type_}: {x_by_type[type_].shape[0]} rows, {num_nodes.get(type_)} nodes"]
            findings.append(Finding.of("H16", "a_row_of_features_a_node", "hetero.features x", rows))
    raise_findings(findings)
    kept = dict(_one_way(matrices))
    return HeteroGraph(
        target=target,
        num_nodes=dict(num_nodes),
        edges={relation: _ends(matrix) for relation, matrix in kept.items()},
        features=x_by_type,
        weights={relation: kept[relation].data for relation in kept if relation in weighted},
    )


def from_dgl(
    dgl_graph: Any, *, target: str, features: str = _DGL_FEATURES, weight: str = _DGL_WEIGHT
) -> HeteroGraph:
    """A heterogeneous graph from a dgl heterograph.

    Args:
        dgl_graph: on any device.
        target: the node type that is embedded.
        features: node data with the features, of the types that have it.
        weight: edge data with the weights, of the relations that have it.

    Raises:
        InvalidHetero, InvalidGraph: see `from_arrays`.
    """
    relations = list(dgl_graph.canonical_etypes)
    return from_arrays(
        {relation: dgl_graph.edges(etype=relation) for relation in relations},
        {type_: int(dgl_graph.num_nodes(type_)) for type_ in dgl_graph.ntypes},
        target=target,
        features={
            type_: dgl_graph.nodes[type_].data[features]
            for type_ in dgl_graph.ntypes
            if features in dgl_graph.nodes[type_].data
        },
        weights={
            relation: dgl_graph.edges[relation].data[weight]
            for relation in relations
            if weight in dgl_graph.edges[relation].data
        },
    )


def from_pyg(data: Any, *, target: str, weight: str = _PYG_WEIGHT) -> HeteroGraph:
    """A heterogeneous graph from a PyG ``HeteroData`` with ``edge_index``, and ``x`` where a type has any.

    Args:
        data: its labels ``data[target].y`` are not read; see `gcl.interop.labels_from_pyg`.
        target: the node type that is embedded.
        weight: edge attribute with the weights, of the relations that have it.

    Raises:
        InvalidHetero, InvalidGraph: see `from_arrays`.
    """
    relations = [(source, name, end) for source, name, end in data.edge_types]
    given = {type_: getattr(data[type_], "x", None) for type_ in data.node_types}
    weights = {relation: getattr(data[relation], weight, None) for relation in relations}
    return from_arrays(
        {relation: tuple(data[relation].edge_index) for relation in relations},
        {type_: int(data[type_].num_nodes) for type_ in data.node_types},
        target=target,
        features={type_: x for type_, x in given.items() if x is not None},
        weights={relation: values for relation, values in weights.items() if values is not None},
    )


def to_dgl(graph: HeteroGraph, *, features: str = _DGL_FEATURES, weight: str = _DGL_WEIGHT) -> Any:
    """A dgl heterograph on the CPU: each relation, and its reverse as ``rev_NAME``.

    Args:
        graph: the graph.
        features: node data that take dense features.
        weight: edge data that take weights.
    """
    os.environ.setdefault("DGLBACKEND", "pytorch")  # else dgl writes a file into the home folder
    try:
        import dgl
    except ImportError as error:
        raise ImportError("to_dgl needs dgl 1.x, which is not installed") from error
    import torch

    ends = {relation: (src, dst) for relation, src, dst, _ in _both_ways(graph)}
    tensors = {relation: (torch.tensor(src), torch.tensor(dst)) for relation, (src, dst) in ends.items()}
    result = dgl.heterograph(tensors, num_nodes_dict=dict(graph.num_nodes))
    for type_, x_NF in graph.features.items():
        result.nodes[type_].data[features] = torch.tensor(_dense(x_NF))
    for relation, _, _, weight_E in _both_ways(graph):
        if weight_E is not None:
            result.edges[relation].data[weight] = torch.tensor(weight_E)
    return result


def to_pyg(graph: HeteroGraph) -> Any:
    """A PyG ``HeteroData``: each relation, and its reverse as ``rev_NAME``; ``x`` is dense."""
    try:
        from torch_geometric.data import HeteroData
    except ImportError as error:
        raise ImportError("to_pyg needs torch_geometric, which is not installed") from error
    import torch

    data = HeteroData()
    for type_, count in graph.num_nodes.items():
        data[type_].num_nodes = count
    for type_, x_NF in graph.features.items():
        data[type_].x = torch.tensor(_dense(x_NF))
    for relation, src, dst, weight_E in _both_ways(graph):
        data[relation].edge_index = torch.tensor(np.stack([src, dst]))
        if weight_E is not None:
            data[relation].edge_weight = torch.tensor(weight_E)
    return data


def _matrix(
    relation: EdgeType,
    src: Any,
    dst: Any,
    weight: Any,
    num_nodes: Mapping[str, int],
    findings: list[Finding],
) -> sp.csr_matrix | None:
    """The edges as a matrix; None, and findings, where they are not sound."""
    src_E, dst_E = plain_array(src).astype(np.int64), plain_array(dst).astype(np.int64)
    shape, what = (num_nodes[relation[0]], num_nodes[relation[2]]), "/".join(relation)
    outside = (src_E < 0) | (src_E >= shape[0]) | (dst_E < 0) | (dst_E >= shape[1])
    if outside.any():
        rows = [f"{src_E[row]}, {dst_E[row]}" for row in np.flatnonzero(outside)]
        findings.append(Finding.of("H06", "endpoints_known", f"edges {what}", rows))
        return None
    weight_E = np.ones(len(src_E), np.float32)
    if weight is not None:
        weight_E = plain_array(weight).reshape(-1).astype(np.float32)
        broken = np.flatnonzero(~(np.isfinite(weight_E) & (weight_E > 0)))
        if len(broken):
            rows = [f"edge {row}: {weight_E[row]}" for row in broken]
            findings.append(Finding.of("H09", "weights_finite_and_positive", f"edges {what}", rows))
            return None
    matrix = sp.csr_matrix((weight_E, (src_E, dst_E)), shape=shape)
    matrix.sum_duplicates()
    if weight is None:
        matrix.data = np.ones_like(matrix.data)
    return matrix


def _one_way(matrices: Mapping[EdgeType, sp.csr_matrix]) -> Iterator[tuple[EdgeType, sp.csr_matrix]]:
    """The relations but those that are an earlier one turned round; those called reverses come last."""
    kept: list[tuple[EdgeType, sp.csr_matrix]] = []
    for relation in sorted(matrices, key=lambda relation: reversed_by_name(relation) in matrices):
        matrix = matrices[relation]
        opposite = [
            other
            for known, other in kept
            if (known[0], known[2]) == (relation[2], relation[0]) and other.shape[::-1] == matrix.shape
        ]
        if not any(abs(sp.csr_matrix(other.T) - matrix).nnz == 0 for other in opposite):
            kept.append((relation, matrix))
            yield relation, matrix


def _ends(matrix: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    src_E = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return src_E, matrix.indices.astype(np.int64)


def _both_ways(
    graph: HeteroGraph,
) -> Iterator[tuple[EdgeType, np.ndarray, np.ndarray, np.ndarray | None]]:
    """Each relation, then its reverse: name, sources, targets, weights."""
    for relation, (src_E, dst_E) in graph.edges.items():
        weight_E = graph.weights.get(relation)
        yield relation, src_E, dst_E, weight_E
        yield (relation[2], f"rev_{relation[1]}", relation[0]), dst_E, src_E, weight_E


def _dense(x_NF: Features) -> np.ndarray:
    return np.asarray(x_NF.toarray() if sp.issparse(x_NF) else x_NF)
