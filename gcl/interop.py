"""Graphs from and to the libraries people hold them in: edge arrays, scipy, networkx, dgl, PyG.

What comes in is brought into the one form of `gcl.graph.Graph` by `gcl.edges`: sorted by (src, dst), repeats
merged, both directions unless asked otherwise. What breaks a rule is refused as InvalidGraph, with the first
rows that do. Libraries are read through their own objects, so none of them is imported on the way in.

Direction: an edge (i, j) stays the edge src = i, dst = j. gcl aggregates over *out*-neighbours, dgl and PyG
over in-neighbours, so a directed graph that was built for them wants its edges turned round first.

Shape legend: N nodes, E edges as given, F features.
"""

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from gcl.graph import Features, Graph, Labels
from gcl.graph_arrays import SelfLoops, from_edges, from_scipy, labels_from, plain_array, refuse_features

__all__ = [
    "from_dgl",
    "from_edges",
    "from_networkx",
    "from_pyg",
    "from_scipy",
    "labels_from",
    "labels_from_dgl",
    "labels_from_networkx",
    "labels_from_pyg",
    "to_dgl",
    "to_networkx",
    "to_pyg",
]
_PYG_WEIGHT, _DGL_FEATURES, _DGL_WEIGHT, _NX_WEIGHT = "edge_weight", "feat", "weight", "weight"


def from_networkx(
    nx_graph: Any,
    features: Any = None,
    *,
    weight: str | None = _NX_WEIGHT,
    directed: bool | None = None,
    self_loops: SelfLoops = "remove",
) -> Graph:
    """A graph from a networkx graph, whose nodes may be anything; they are kept in `Graph.node_ids`.

    Args:
        nx_graph: Graph, DiGraph, MultiGraph or MultiDiGraph; weights of parallel edges add up.
        features: name of a node attribute (number or vector), several names (put side by side), or a
            matrix [N, F] with its rows in the order of ``nx_graph.nodes``; None for none.
        weight: edge attribute with the weight, 1 where an edge has none; None: every edge counts the same.
        directed: None does as the graph says; False adds the opposites of a directed graph's edges.
        self_loops: see `from_edges`.

    Raises:
        InvalidGraph: see `from_edges`; nodes without the attribute, or with vectors of unlike length.
    """
    node_ids = tuple(nx_graph.nodes)
    position = {node: index for index, node in enumerate(node_ids)}
    edges = [(position[u], position[v]) for u, v in nx_graph.edges()]
    ends_E2 = np.array(edges, np.int64).reshape(-1, 2)
    weights = None if weight is None else [value for _, _, value in nx_graph.edges(data=weight, default=1)]
    names = [features] if isinstance(features, str) else features
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        features = np.hstack([_attribute_rows(nx_graph, node_ids, name) for name in names])
    return from_edges(
        ends_E2[:, 0],
        ends_E2[:, 1],
        features,
        num_nodes=len(node_ids),
        weight=weights,
        directed=nx_graph.is_directed() if directed is None else directed,
        self_loops=self_loops,
        node_ids=node_ids,
    )


def from_dgl(
    dgl_graph: Any,
    *,
    features: str | None = _DGL_FEATURES,
    weight: str | None = _DGL_WEIGHT,
    directed: bool = False,
    self_loops: SelfLoops = "remove",
) -> Graph:
    """A graph from a homogeneous dgl graph.

    Args:
        dgl_graph: on any device.
        features: key of ``ndata``; the default may be absent. None for none.
        weight: key of ``edata``; the default may be absent. None: every edge counts the same.
        directed: see `from_edges`; an undirected graph is stored in dgl with both directions.
        self_loops: see `from_edges`.

    Raises:
        InvalidGraph: see `from_edges`.
        ValueError: a heterogeneous graph, or a key that is not there.
    """
    if not getattr(dgl_graph, "is_homogeneous", True):
        raise ValueError("the dgl graph is heterogeneous: take one node type, or dgl.to_homogeneous it first")
    src, dst = dgl_graph.edges()
    return from_edges(
        src,
        dst,
        _entry(dgl_graph.ndata, features, _DGL_FEATURES, "ndata"),
        num_nodes=int(dgl_graph.num_nodes()),
        weight=_entry(dgl_graph.edata, weight, _DGL_WEIGHT, "edata"),
        directed=directed,
        self_loops=self_loops,
    )


def from_pyg(
    data: Any,
    *,
    num_nodes: int | None = None,
    weight: str | None = _PYG_WEIGHT,
    directed: bool = False,
    self_loops: SelfLoops = "remove",
) -> Graph:
    """A graph from a PyG ``Data``, or from the pair (x, edge_index) that PyG layers take.

    Labels do not come along: see `labels_from_pyg`.

    Args:
        data: ``Data`` with ``edge_index`` [2, E] and perhaps ``x`` [N, F], or (x or None, edge_index).
        num_nodes: N; None takes what the data say, the rows of x, or one more than the largest position.
        weight: attribute of ``Data`` with a weight an edge; the default may be absent, and ``edge_attr`` is
            only read when named. None: every edge counts the same.
        directed: see `from_edges`; an undirected graph is stored in PyG with both directions.
        self_loops: see `from_edges`.

    Raises:
        InvalidGraph: see `from_edges`.
        ValueError: no ``edge_index`` of shape [2, E], a heterogeneous graph, a weight that is not there.
    """
    if hasattr(data, "edge_types"):
        raise ValueError("the PyG data are heterogeneous: take one node type, or .to_homogeneous() first")
    is_pair = isinstance(data, tuple | list)
    x, edge_index = data if is_pair else (getattr(data, "x", None), getattr(data, "edge_index", None))
    if edge_index is None:
        raise ValueError("the PyG data have no edge_index (a ToSparseTensor transform replaces it by adj_t)")
    if len(edge_index.shape) != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index has shape {tuple(edge_index.shape)}, not (2, E)")
    values = None
    if not is_pair:
        present = {} if weight is None else {weight: getattr(data, weight, None)}
        values = _entry({k: v for k, v in present.items() if v is not None}, weight, _PYG_WEIGHT, "Data")
        num_nodes = getattr(data, "num_nodes", None) if num_nodes is None else num_nodes
    return from_edges(
        edge_index[0],
        edge_index[1],
        x,
        num_nodes=num_nodes,
        weight=None if values is None else plain_array(values).reshape(-1),
        directed=directed,
        self_loops=self_loops,
    )


def labels_from_pyg(data: Any) -> Labels:
    """The labels ``data.y`` of PyG data, apart from the graph; see `labels_from`."""
    if getattr(data, "y", None) is None:
        raise ValueError("the PyG data have no labels y")
    return labels_from(data.y)


def labels_from_dgl(dgl_graph: Any, name: str = "label") -> Labels:
    """The labels ``dgl_graph.ndata[name]``, apart from the graph; see `labels_from`."""
    return labels_from(_entry(dgl_graph.ndata, name, None, "ndata"))


def labels_from_networkx(nx_graph: Any, name: str) -> Labels:
    """The node attribute `name` as labels, in the order of ``nx_graph.nodes``; see `labels_from`."""
    values = np.empty(len(nx_graph), object)
    values[:] = [attributes.get(name) for _, attributes in nx_graph.nodes(data=True)]
    if all(value is None for value in values):
        raise ValueError(f"no node has the attribute {name!r}")
    try:
        return labels_from(np.array(values.tolist(), np.int64))
    except (TypeError, ValueError, OverflowError):  # not all of them numbers
        return labels_from(values)


def to_networkx(graph: Graph, *, features: str | None = None, weight: str = _NX_WEIGHT) -> Any:
    """A networkx Graph, or DiGraph if edges lack their opposites, on `Graph.node_ids` if there are any.

    Args:
        graph: the graph; edges in both directions become one.
        features: node attribute that takes the row of features, float32 [F]; None leaves features out.
        weight: edge attribute for the weights of a weighted graph.
    """
    try:
        import networkx
    except ImportError as error:
        raise ImportError("to_networkx needs networkx, which is not installed") from error
    result = networkx.Graph() if graph.is_undirected else networkx.DiGraph()
    names: Sequence[Hashable] = graph.node_ids or range(graph.num_nodes)
    result.add_nodes_from(names)
    ends = [(names[s], names[d]) for s, d in zip(graph.src_E.tolist(), graph.dst_E.tolist(), strict=True)]
    if graph.weight_E is None:
        result.add_edges_from(ends)
    else:
        values = graph.weight_E.tolist()
        result.add_weighted_edges_from(((*e, w) for e, w in zip(ends, values, strict=True)), weight=weight)
    if features is not None and graph.x_NF is not None:
        for name, row_F in zip(names, _dense(graph.x_NF), strict=True):
            result.nodes[name][features] = row_F
    return result


def to_dgl(graph: Graph, *, features: str = _DGL_FEATURES, weight: str = _DGL_WEIGHT) -> Any:
    """A dgl graph on the CPU with ``ndata[features]`` (dense) and, if weighted, ``edata[weight]``."""
    os.environ.setdefault(
        "DGLBACKEND", "pytorch"
    )  # else dgl writes a configuration file into the home folder
    try:
        import dgl
    except ImportError as error:
        raise ImportError("to_dgl needs dgl 1.x, which is not installed") from error
    import torch

    result = dgl.graph((torch.tensor(graph.src_E), torch.tensor(graph.dst_E)), num_nodes=graph.num_nodes)
    if graph.x_NF is not None:
        result.ndata[features] = torch.tensor(_dense(graph.x_NF))
    if graph.weight_E is not None:
        result.edata[weight] = torch.tensor(graph.weight_E)
    return result


def to_pyg(graph: Graph) -> Any:
    """A PyG ``Data`` with ``edge_index``, ``num_nodes``, ``x`` (dense) and, if weighted, ``edge_weight``."""
    try:
        from torch_geometric.data import Data
    except ImportError as error:
        raise ImportError("to_pyg needs torch_geometric, which is not installed") from error
    import torch

    parts = {"edge_index": torch.tensor(np.stack([graph.src_E, graph.dst_E])), "num_nodes": graph.num_nodes}
    if graph.x_NF is not None:
        parts["x"] = torch.tensor(_dense(graph.x_NF))
    if graph.weight_E is not None:
        parts[_PYG_WEIGHT] = torch.tensor(graph.weight_E)
    return Data(**parts)


def _attribute_rows(nx_graph: Any, node_ids: Sequence[Hashable], name: str) -> np.ndarray:
    """[N, f] values of one node attribute, numbers or vectors."""
    found = [nx_graph.nodes[node].get(name) for node in node_ids]
    without = [repr(node) for node, value in zip(node_ids, found, strict=True) if value is None]
    refuse_features(name, "attribute_on_every_node", without)
    rows = [np.asarray(plain_array(value), np.float64).reshape(-1) for value in found]
    width = len(rows[0]) if rows else 0
    unlike = [repr(node) for node, row in zip(node_ids, rows, strict=True) if len(row) != width]
    refuse_features(name, "vectors_of_one_length", unlike)
    return np.array(rows).reshape(len(rows), width)


def _entry(table: Mapping[str, Any], name: str | None, optional: str | None, where: str) -> Any:
    """`table[name]`; None without a name, or where the library's usual name is not in use."""
    if name is None:
        return None
    if name not in table and name != optional:
        raise ValueError(
            f"there is no {name!r} in {where}; there are: {', '.join(map(str, table)) or 'none'}"
        )
    return table.get(name)


def _dense(x_NF: Features) -> np.ndarray:
    return np.asarray(x_NF.toarray() if sp.issparse(x_NF) else x_NF)
