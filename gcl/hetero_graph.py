"""Graphs with several types of nodes and edges, and what metapaths make of them.

Shape legend: N nodes of the target type, N_t of type t, E_r edges of relation r, F_t features of type t.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp

from gcl.graph import Features

EdgeType = tuple[str, str, str]
"""A canonical relation: source type, name, target type."""


@dataclass(frozen=True, eq=False)
class HeteroGraph:
    """Nodes of several types, edges of several relations; one type is to be embedded.

    Attributes:
        target: the type that is embedded.
        num_nodes: N_t of each type; nodes are 0..N_t-1 within their type.
        edges: for each relation int64 sources and targets [E_r], sorted by (source, target), no repeats.
            A relation stands in one direction; the opposite one is its transpose and is never stored.
        features: float32 [N_t, F_t] of the types that have any, dense or CSR.
        weights: float32 [E_r], finite and positive, of the relations whose edges have any.
    """

    target: str
    num_nodes: Mapping[str, int]
    edges: Mapping[EdgeType, tuple[np.ndarray, np.ndarray]]
    features: Mapping[str, Features] = field(default_factory=dict)
    weights: Mapping[EdgeType, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Metapath:
    """The target nodes that a metapath joins.

    Attributes:
        name: such as ``APA``.
        adjacency_NN: float32 CSR, sorted, a row for each target node; 1 where at least one walk joins two
            nodes, or as the metapath's declared weight has it.
    """

    name: str
    adjacency_NN: sp.csr_matrix
