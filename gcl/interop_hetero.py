"""Heterogeneous graphs from and to the libraries people hold them in: dgl and PyG.

Relations are sorted, repeats counted once (their weights add up). A relation that is another one turned
round, as both libraries want it for message passing, is recognised and left out: gcl walks both ways. Edges
that are the same both ways, and none at all, are told from a reverse by the name alone.

Shape legend: N_t nodes of type t, E_r edges of relation r, F_t features.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from gcl.graph import Features
from gcl.graph_arrays import checked_features, plain_array
from gcl.hetero_findings import Finding, raise_findings
from gcl.hetero_graph import EdgeType, HeteroGraph

logger = logging.getLogger(__name__)

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
        InvalidHetero: H06, positions that are no whole numbers, or beyond the nodes; H07, types without a
            number of nodes, weights of relations that are not there; H09, weights that are not finite and
            positive; H16, features, targets or weights of another number than nodes or edges.
        InvalidGraph: features that are not finite.
    """
    findings: list[Finding] = []
    named = {target, *(type_ for source, _, end in edges for type_ in (source, end))}
    unknown = sorted(named - set(num_nodes))
    if unknown:
        raise_findings([Finding.of("H07", "types_declared", "hetero.edges relation", unknown)])
    if lost := [_listed(relation) for relation in weights or {} if relation not in edges]:
        findings.append(Finding.of("H07", "weights_of_relations", "hetero.edges weight", lost))
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
    shape, what = (num_nodes[relation[0]], num_nodes[relation[2]]), f"edges {_listed(relation)}"
    src_E, dst_E = (
        _positions(part, name, what, findings) for part, name in ((src, "source"), (dst, "target"))
    )
    if src_E is None or dst_E is None:
        return None
    num_weights = len(src_E) if weight is None else plain_array(weight).size
    if not len(src_E) == len(dst_E) == num_weights:
        told = f"{len(src_E)} sources, {len(dst_E)} targets"
        told += "" if weight is None else f", {num_weights} weights"
        findings.append(Finding.of("H16", "a_target_and_weight_an_edge", what, [told]))
        return None
    outside = (src_E < 0) | (src_E >= shape[0]) | (dst_E < 0) | (dst_E >= shape[1])
    if outside.any():
        rows = [f"{src_E[row]}, {dst_E[row]}" for row in np.flatnonzero(outside)]
        findings.append(Finding.of("H06", "endpoints_known", what, rows))
        return None
    weight_E = np.ones(len(src_E), np.float32)
    if weight is not None:
        weight_E = plain_array(weight).reshape(-1).astype(np.float32)
        broken = np.flatnonzero(~(np.isfinite(weight_E) & (weight_E > 0)))
        if len(broken):
            rows = [f"edge {row}: {weight_E[row]}" for row in broken]
            findings.append(Finding.of("H09", "weights_finite_and_positive", what, rows))
            return None
    matrix = sp.csr_matrix((weight_E, (src_E, dst_E)), shape=shape)
    matrix.sum_duplicates()
    if weight is None:
        matrix.data = np.ones_like(matrix.data)
    return matrix


def _positions(value: Any, name: str, what: str, findings: list[Finding]) -> np.ndarray | None:
    """int64 [E]; None, and a finding, where they are no whole numbers: a cast would make some of them."""
    given = plain_array(value)
    if given.ndim == 1 and (given.dtype.kind in "iu" or not len(given)):
        return given.astype(np.int64)
    if given.ndim == 1 and given.dtype.kind == "f":
        is_whole = np.isfinite(given) & (given == np.round(given)) & (np.abs(given) < 2**63)
        rows = [f"{name} {value}" for value in given[~is_whole].tolist()]
        if not rows:
            return given.astype(np.int64)
    else:
        rows = [f"{name}s are an array of {given.dtype} of shape {given.shape}"]
    findings.append(Finding.of("H06", "positions_are_whole_numbers", what, rows))
    return None


def _one_way(matrices: Mapping[EdgeType, sp.csr_matrix]) -> Iterator[tuple[EdgeType, sp.csr_matrix]]:
    """The relations but those that are an earlier one turned round; those called reverses come last."""
    kept: dict[EdgeType, sp.csr_matrix] = {}

    def is_called_reverse(relation: EdgeType) -> bool:
        return any(_says_reverse(relation, other) for other in matrices)

    for relation in sorted(matrices, key=is_called_reverse):
        matrix = matrices[relation]
        original = next((other for other in kept if _is_reverse(relation, matrix, other, kept[other])), None)
        if original is None:
            kept[relation] = matrix
            yield relation, matrix
        elif not _says_reverse(relation, original):
            told = "relation %s is %s turned round and left out: metapaths walk that both ways"
            logger.info(told, _listed(relation), _listed(original))


def _is_reverse(relation: EdgeType, matrix: sp.csr_matrix, other: EdgeType, of_other: sp.csr_matrix) -> bool:
    """Whether a relation is another turned round, and does not merely look like it."""
    if (other[0], other[2]) != (relation[2], relation[0]) or abs(sp.csr_matrix(of_other.T) - matrix).nnz:
        return False
    by_chance = not matrix.nnz or (relation[0] == relation[2] and not abs(matrix - of_other).nnz)
    return not by_chance or _says_reverse(relation, other)


def _says_reverse(relation: EdgeType, other: EdgeType) -> bool:
    """Whether the name of a relation says that it is the reverse of another."""
    (source, name, end), (_, of_other, _) = relation, other
    names = (f"rev_{of_other}", f"{of_other}-rev", f"rev-{of_other}", f"{of_other}_rev")
    return name in names and (other[0], other[2]) == (end, source)


def _listed(relation: EdgeType) -> str:
    return "/".join(map(str, relation))


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
