"""Attributed graphs of any size with known classes: a degree-corrected contextual stochastic block model.

Nodes are ranked by a computed permutation, and a class is a range of ranks; so the class of a node, and a
random node of a class, cost no memory, and the graph streams at any N. Edges and features are drawn in
blocks of fixed size, each from its own generator: the graph depends on the configuration alone.

Model (after Deshpande, Montanari, Mossel and Sen 2018, with unequal classes and degrees): an edge starts at
a random node and ends in the same class with probability `homophily`, otherwise in another class, chosen by
size; features are x = feature_signal * direction(class) + noise, the noise standard normal, directions of
length one.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from gcl.edges import EdgeChunk
from gcl.random import numpy_generator
from gcl.readers.base import CHUNK_VALUES, DatasetConfig, GraphSource, Reader, dataset_name
from gcl.readers.node_order import NodeOrder

# Part of what a seed means: another block size would be another graph.
EDGE_BLOCK = 1 << 16
NODE_BLOCK = 1 << 12


class SyntheticConfig(DatasetConfig):
    """A generated graph."""

    format: Literal["synthetic"] = "synthetic"
    name: str = dataset_name("synthetic")
    nodes: int = Field(1000, ge=1, le=2**31, description="N, count in [1, 2^31]")
    average_degree: float = Field(
        10.0, ge=0, le=10_000, description="mean degree before repeated edges are merged, in [0, 10000]"
    )
    features: int = Field(64, ge=1, le=65_536, description="F, count in [1, 65536]")
    classes: int = Field(5, ge=1, le=10_000, description="K, count in [1, 10000], at most N")
    imbalance: float = Field(
        1.0, ge=1, le=1000, description="size of the largest class over the smallest, >= 1"
    )
    homophily: float = Field(
        0.8, ge=0, le=1, description="probability in [0, 1] that an edge ends in the class it starts from"
    )
    feature_signal: float = Field(
        2.0, ge=0, le=1000, description="length of a class's mean in standard deviations of the noise, >= 0"
    )
    degree_exponent: float | None = Field(
        None,
        gt=2,
        le=10,
        description="exponent in (2, 10] of the degrees' power law; none: all nodes alike (Poisson)",
    )

    @model_validator(mode="after")
    def _classes_have_nodes(self) -> "SyntheticConfig":
        if self.classes > self.nodes:
            raise ValueError(f"{self.classes} classes need as many nodes, but there are {self.nodes}")
        return self


class SyntheticGraph:
    """The generator behind the reader."""

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        self.order = NodeOrder(config.nodes, config.seed)
        self.bounds = _class_bounds(config.nodes, config.classes, config.imbalance)
        self.num_edges = round(config.nodes * config.average_degree / 2) if config.nodes > 1 else 0

    def classes_of(self, node: np.ndarray) -> np.ndarray:
        """int32 classes of nodes."""
        return (np.searchsorted(self.bounds, self.order.rank(node), side="right") - 1).astype(np.int32)

    def edge_chunks(self) -> Iterator[EdgeChunk]:
        """Undirected edges, each once, without self-loops; repeats are possible and rare."""
        for start in range(0, self.num_edges, EDGE_BLOCK):
            size = min(EDGE_BLOCK, self.num_edges - start)
            generator = numpy_generator(self.config.seed, "synthetic-edges", start // EDGE_BLOCK)
            # Whole rows of draws, so that a shorter last block is the beginning of the full one.
            draws_E4 = generator.random((size, 4))
            class_E = self._sized_class(draws_E4[:, 0])
            other_E = self._other_class(class_E, draws_E4[:, 2])
            src_rank = self._rank_within(class_E, draws_E4[:, 1])
            dst_rank = self._rank_within(other_E, draws_E4[:, 3])
            dst_rank = np.where(src_rank == dst_rank, self._next_rank(dst_rank, other_E), dst_rank)
            yield EdgeChunk(self.order.node(src_rank), self.order.node(dst_rank))

    def feature_chunks(self) -> Iterator[np.ndarray]:
        """float32 blocks of rows."""
        config = self.config
        means_KF = numpy_generator(config.seed, "synthetic-means").standard_normal(
            (config.classes, config.features), np.float32
        )
        means_KF *= config.feature_signal / np.linalg.norm(means_KF, axis=1, keepdims=True)
        blocks = max(1, CHUNK_VALUES // (NODE_BLOCK * config.features))
        for start in range(0, config.nodes, blocks * NODE_BLOCK):
            stop = min(start + blocks * NODE_BLOCK, config.nodes)
            yield np.concatenate([self._block(first, means_KF) for first in range(start, stop, NODE_BLOCK)])

    def label_chunks(self) -> Iterator[np.ndarray]:
        """int32 classes, block by block."""
        for start in range(0, self.config.nodes, 1 << 20):
            yield self.classes_of(np.arange(start, min(start + (1 << 20), self.config.nodes)))

    def _block(self, first: int, means_KF: np.ndarray) -> np.ndarray:
        rows = min(NODE_BLOCK, self.config.nodes - first)
        generator = numpy_generator(self.config.seed, "synthetic-features", first // NODE_BLOCK)
        x_NF = generator.standard_normal((rows, self.config.features), np.float32)
        x_NF += means_KF[self.classes_of(np.arange(first, first + rows))]
        return x_NF

    def _sized_class(self, draw: np.ndarray) -> np.ndarray:
        """A class, with the probability of its share of the nodes."""
        rank = np.minimum((draw * self.config.nodes).astype(np.int64), self.config.nodes - 1)
        return np.searchsorted(self.bounds, rank, side="right") - 1

    def _other_class(self, class_E: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """The same class below `homophily`; otherwise another, by size, from what is left of the draw."""
        homophily = self.config.homophily
        if self.config.classes == 1 or homophily == 1:
            return class_E
        low, high = self.bounds[class_E], self.bounds[class_E + 1]
        num_others = self.config.nodes - (high - low)
        rank = np.minimum(
            ((draw - homophily) / (1 - homophily) * num_others).astype(np.int64), num_others - 1
        )
        rank = np.where(rank >= low, rank + (high - low), rank)  # step over the edge's own class
        other = np.searchsorted(self.bounds, np.maximum(rank, 0), side="right") - 1
        chosen: np.ndarray = np.where(draw < homophily, class_E, other)
        return chosen

    def _rank_within(self, class_E: np.ndarray, draw: np.ndarray) -> np.ndarray:
        """A rank of the class: uniform, or by a power law in which low ranks are the hubs."""
        low, size = self.bounds[class_E], self.bounds[class_E + 1] - self.bounds[class_E]
        if self.config.degree_exponent is not None:
            # Weights i^(-1/(g-1)) give degrees of exponent g (Chung and Lu 2002); this is their inverse.
            draw = draw ** ((self.config.degree_exponent - 1) / (self.config.degree_exponent - 2))
        rank: np.ndarray = low + np.minimum((draw * size).astype(np.int64), size - 1)
        return rank

    def _next_rank(self, rank: np.ndarray, class_E: np.ndarray) -> np.ndarray:
        """The rank after, within the class; beyond it where the class has one node only."""
        low, high = self.bounds[class_E], self.bounds[class_E + 1]
        within = np.where(rank + 1 < high, rank + 1, low)
        return np.where(high - low > 1, within, (rank + 1) % self.config.nodes)


def _class_bounds(num_nodes: int, num_classes: int, imbalance: float) -> np.ndarray:
    """K + 1 int64 bounds of rank; sizes fall geometrically, and no class is empty."""
    share = imbalance ** -(np.arange(num_classes) / max(1, num_classes - 1))
    spare = num_nodes - num_classes
    bounds = np.concatenate([[0.0], np.cumsum(share / share.sum())]) * spare
    return np.round(bounds).astype(np.int64) + np.arange(num_classes + 1)


def source_files(config: SyntheticConfig) -> dict[str, Path]:
    """None: the graph is computed."""
    return {}


def open_source(config: SyntheticConfig) -> GraphSource:
    """The graph; its memory does not depend on N."""
    graph = SyntheticGraph(config)
    return GraphSource(
        num_nodes=config.nodes,
        node_ids=None,
        edge_chunks=graph.edge_chunks,
        feature_chunks=graph.feature_chunks,
        num_features=config.features,
        has_sparse_features=False,
        label_chunks=graph.label_chunks,
        class_names=tuple(str(k) for k in range(config.classes)),
        splits=(),
        is_directed=False,
    )


READER = Reader(
    config=SyntheticConfig,
    description="Generated graph of any size with known classes (contextual stochastic block model)",
    requires="nothing; nodes, average_degree, features, classes, homophily, feature_signal, ...",
    source_files=source_files,
    open=open_source,
)
