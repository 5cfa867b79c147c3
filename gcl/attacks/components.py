"""The component-counting benchmark: graphs whose class is how many connected components they have.

Dai et al., Adversarial Attack on Graph Structured Data (ICML 2018). The class is a matter of the structure
alone and can be counted exactly, so an added edge within a component provably leaves it as it is.

Shape legend: G graphs; N nodes, C components and Q pieces of components of all graphs; E edges, T pairs.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from pydantic import Field, model_validator
from scipy.sparse.csgraph import connected_components

from gcl.config import Config
from gcl.graph import Graph
from gcl.graph_collection import GraphCollection
from gcl.random import numpy_generator

_PAIRS_AT_ONCE = 1 << 22


class ComponentsConfig(Config):
    """What is generated; the defaults are the smallest of the three regimes of the original."""

    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the graphs, apart from the victims'")
    graphs_per_class: int = Field(
        5000, ge=10, le=1_000_000, description="graphs a class, of training and test together: count >= 10"
    )
    min_nodes: int = Field(15, ge=3, le=1000, description="fewest nodes of a graph: count >= 3")
    max_nodes: int = Field(20, ge=3, le=1000, description="most nodes of a graph: count >= 3")
    edge_probability: float = Field(0.15, gt=0, le=1, description="p of each component's Erdos-Renyi graph")
    num_classes: int = Field(3, ge=2, le=20, description="classes: graphs of 1, 2, ... components")

    @model_validator(mode="after")
    def _components_have_nodes(self) -> "ComponentsConfig":
        if self.max_nodes < self.min_nodes or self.min_nodes < self.num_classes:
            raise ValueError("max_nodes must be at least min_nodes, and that at least num_classes")
        return self

    @property
    def num_test(self) -> int:
        """Test graphs a class; as many for validation."""
        return self.graphs_per_class // 10

    @property
    def num_train(self) -> int:
        """Training graphs of all classes."""
        return self.num_classes * (self.graphs_per_class - self.num_test)


@dataclass(frozen=True, eq=False)
class LabelledGraphs:
    """Graphs with their classes beside them.

    Attributes:
        graphs: G of them.
        y_G: int64, number of components less one.
    """

    graphs: GraphCollection
    y_G: np.ndarray


@dataclass(frozen=True, eq=False)
class ComponentGraphs:
    """The benchmark's graphs.

    Attributes:
        train: the first 90 % of each class.
        validation: as many as for testing, drawn besides, so that training has what the original had.
        test: the last 10 % of each class, which are attacked.
    """

    train: LabelledGraphs
    validation: LabelledGraphs
    test: LabelledGraphs


def generate(config: ComponentsConfig) -> ComponentGraphs:
    """Draw the benchmark, class by class; a function of the settings alone.

    Args:
        config: how many graphs of what size.
    """
    counts = {
        "train": config.graphs_per_class - config.num_test,
        "validation": config.num_test,
        "test": config.num_test,
    }
    return ComponentGraphs(**{part: _draw(config, part, count) for part, count in counts.items()})


def _draw(config: ComponentsConfig, part: str, graphs_per_class: int) -> LabelledGraphs:
    """Graphs of every class, by class."""
    pairs, sizes, num_nodes = [], [], 0
    for num_components in range(1, config.num_classes + 1):
        draws = numpy_generator(config.seed, f"components_{part}", num_components)
        low, high = config.min_nodes // num_components, config.max_nodes // num_components
        size_C = draws.integers(low, high + 1, graphs_per_class * num_components)
        pairs.append(_connected_components(size_C, config.edge_probability, draws) + num_nodes)
        sizes.append(size_C.reshape(-1, num_components).sum(1))
        num_nodes += int(size_C.sum())
    size_G = np.concatenate(sizes)
    y_G = np.repeat(np.arange(config.num_classes), graphs_per_class)
    return LabelledGraphs(_collection(np.concatenate(pairs), size_G), y_G)


def _connected_components(size_C: np.ndarray, probability: float, draws: np.random.Generator) -> np.ndarray:
    """Edges [E, 2] with u < v of Erdos-Renyi graphs side by side, each made connected.

    The pieces of a disconnected one are shuffled and chained: one edge from a random node of each to a
    random node of the next.
    """
    first_C = np.cumsum(size_C) - size_C
    edge_E2 = _erdos_renyi(size_C, first_C, probability, draws)
    num_nodes = int(size_C.sum())
    ones = np.ones(len(edge_E2), bool)
    adjacency = sp.csr_matrix((ones, (edge_E2[:, 0], edge_E2[:, 1])), shape=(num_nodes, num_nodes))
    num_pieces, piece_N = connected_components(adjacency, directed=False)
    by_piece_N = np.argsort(piece_N, kind="stable")
    count_Q = np.bincount(piece_N, minlength=num_pieces)
    first_Q = np.cumsum(count_Q) - count_Q
    component_Q = np.searchsorted(first_C, by_piece_N[first_Q], side="right") - 1
    order_Q = np.lexsort((draws.random(num_pieces), component_Q))
    before, after = order_Q[:-1], order_Q[1:]
    is_link = component_Q[before] == component_Q[after]
    ends = [
        by_piece_N[first_Q[piece] + (draws.random(len(piece)) * count_Q[piece]).astype(np.int64)]
        for piece in (before[is_link], after[is_link])
    ]
    return np.concatenate([edge_E2, np.sort(np.stack(ends, 1), 1)])


def _erdos_renyi(
    size_C: np.ndarray, first_C: np.ndarray, probability: float, draws: np.random.Generator
) -> np.ndarray:
    """Edges [E, 2] with u < v; graphs in blocks, so that all pairs are never held at once."""
    num_pairs_C = size_C * (size_C - 1) // 2
    u_T, v_T = np.triu_indices(int(size_C.max()), 1)
    order_T = np.lexsort((u_T, v_T))  # by v: the pairs of the first n nodes are the first n (n - 1) / 2
    u_T, v_T = u_T[order_T], v_T[order_T]
    blocks = np.searchsorted(np.cumsum(num_pairs_C), np.arange(0, num_pairs_C.sum(), _PAIRS_AT_ONCE))
    edges = []
    for start, stop in zip(blocks, [*blocks[1:], len(size_C)], strict=True):
        num_pairs_c, first_c = num_pairs_C[start:stop], first_C[start:stop]
        total = int(num_pairs_c.sum())
        taken = np.flatnonzero(draws.random(total) < probability)
        end_c = np.cumsum(num_pairs_c)
        of = np.searchsorted(end_c, taken, side="right")
        place = taken - (end_c[of] - num_pairs_c[of])
        edges.append(np.stack([u_T[place], v_T[place]], 1) + first_c[of, None])
    return np.concatenate(edges) if edges else np.empty((0, 2), np.int64)


def _collection(edge_E2: np.ndarray, size_G: np.ndarray) -> GraphCollection:
    num_nodes = int(size_G.sum())
    both = np.concatenate([edge_E2, edge_E2[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    union = Graph(num_nodes, both[:, 0].copy(), both[:, 1].copy(), np.ones((num_nodes, 1), np.float32))
    return GraphCollection(len(size_G), union, np.repeat(np.arange(len(size_G)), size_G))


def component_of(graphs: GraphCollection) -> np.ndarray:
    """int64 [N] connected component of each node, numbered over all graphs."""
    _, component_N = connected_components(graphs.union.adjacency_NN(), directed=False)
    return component_N.astype(np.int64)
