"""Graph: what the science layer computes on. It has no labels, so no method can see them.

Shape legend, used in every module of gcl: N nodes, E directed edges, F features, D embedding,
K clusters or classes, B batch, V views.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

Features = np.ndarray | sp.csr_matrix


@dataclass(frozen=True, eq=False)
class Graph:
    """An attributed graph; edges sorted by (src, dst) without repeats, both directions if undirected.

    Attributes:
        num_nodes: N; nodes are 0..N-1.
        src_E: int64, source of each edge.
        dst_E: int64, target of each edge.
        x_NF: float32 features, dense or CSR; None for a graph without attributes.
        weight_E: float32 edge weights; None when every edge counts the same.
        is_undirected: whether every edge is present in both directions.
        node_ids: what the N nodes are called where the graph came from; None when they are 0..N-1 there too.
    """

    num_nodes: int
    src_E: np.ndarray
    dst_E: np.ndarray
    x_NF: Features | None = None
    weight_E: np.ndarray | None = None
    is_undirected: bool = True
    node_ids: tuple[Hashable, ...] | None = None

    @property
    def num_edges(self) -> int:
        """E, the number of directed edges stored."""
        return len(self.src_E)

    @property
    def num_features(self) -> int:
        """F; 0 for a graph without attributes."""
        return 0 if self.x_NF is None else int(self.x_NF.shape[1])

    @property
    def out_degree_N(self) -> np.ndarray:
        """int64 out-degrees."""
        return np.bincount(self.src_E, minlength=self.num_nodes)

    def adjacency_NN(self) -> sp.csr_matrix:
        """The float32 adjacency (row = src, column = dst), weighted if the graph is."""
        data = np.ones(self.num_edges, np.float32) if self.weight_E is None else self.weight_E
        indptr = np.zeros(self.num_nodes + 1, np.int64)
        np.cumsum(self.out_degree_N, out=indptr[1:])
        return sp.csr_matrix((data, self.dst_E, indptr), shape=(self.num_nodes, self.num_nodes))

    @classmethod
    def from_edges(
        cls, src: Any, dst: Any, x: Any = None, *, directed: bool = False, **options: Any
    ) -> "Graph":
        """A graph from positions [E] of sources and targets; options: see `gcl.interop.from_edges`."""
        graph: Graph = _interop().from_edges(src, dst, x, directed=directed, **options)
        return graph

    @classmethod
    def from_scipy(
        cls,
        adjacency: Any,
        x: Any = None,
        *,
        directed: bool = False,
        weighted: bool | None = None,
        self_loops: Literal["remove", "keep"] = "remove",
    ) -> "Graph":
        """A graph from an adjacency matrix [N, N], row = src; see `gcl.interop.from_scipy`.

        Args:
            adjacency: scipy sparse or dense; zeros are no edges.
            x: [N, F] features, dense or sparse.
            directed: keep one-way edges as they are instead of adding their opposites.
            weighted: whether values are weights; None: unless all are 1.
            self_loops: drop or keep edges from a node to itself.
        """
        graph: Graph = _interop().from_scipy(
            adjacency, x, directed=directed, weighted=weighted, self_loops=self_loops
        )
        return graph

    @classmethod
    def from_networkx(
        cls, nx_graph: Any, features: Any = None, *, weight: str | None = "weight", **options: Any
    ) -> "Graph":
        """A graph from a networkx graph; its nodes are kept in `node_ids`; see `gcl.interop.from_networkx`.

        Args:
            nx_graph: any networkx graph; a directed one stays directed unless ``directed=False``.
            features: node attribute or attributes, or a matrix [N, F] in the order of ``nx_graph.nodes``.
            weight: edge attribute with the weight; None: every edge counts the same.
            **options: ``directed``, ``self_loops``.
        """
        graph: Graph = _interop().from_networkx(nx_graph, features, weight=weight, **options)
        return graph

    @classmethod
    def from_dgl(cls, dgl_graph: Any, *, features: str | None = "feat", **options: Any) -> "Graph":
        """A graph from a homogeneous dgl graph; options: see `gcl.interop.from_dgl`."""
        graph: Graph = _interop().from_dgl(dgl_graph, features=features, **options)
        return graph

    @classmethod
    def from_pyg(cls, data: Any, *, directed: bool = False, **options: Any) -> "Graph":
        """A graph from a PyG ``Data`` or a pair (x, edge_index), no labels; see `gcl.interop.from_pyg`."""
        graph: Graph = _interop().from_pyg(data, directed=directed, **options)
        return graph


@dataclass(frozen=True, eq=False)
class Labels:
    """Node labels, kept apart from Graph; only evaluation and declared semi-supervised methods open them.

    Attributes:
        y_N: int32 class of each node, -1 where the node has none.
        class_names: one name a class; K = len(class_names).
    """

    y_N: np.ndarray
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)


@dataclass(frozen=True, eq=False)
class Split:
    """One train/validation/test split as sorted, disjoint int64 node ids; validation may be empty."""

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def _interop() -> ModuleType:
    """Found by name: a stage's key covers all that its modules import, and no stage converts graphs."""
    return import_module("gcl.interop")
