"""What a reader of many graphs gives: a CollectionSource, and the features that a configuration makes of it.

Shape legend: G graphs, N nodes of all of them, E directed edges, F features, L node labels.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
import scipy.sparse as sp
from pydantic import Field, model_validator

from gcl.edges import CanonicalEdges, EdgeChunk, EdgePolicy, canonical_edges
from gcl.errors import InvalidGraph, SourceUnreadable
from gcl.graph import Features, Graph, Labels
from gcl.graph_collection import GraphCollection
from gcl.readers.base import ArrowArray, FileDatasetConfig

_MAX_ONE_HOT = 65_536
_UNLABELLED = ("", "nan", "?")


class CollectionConfig(FileDatasetConfig):
    """Fields of formats that hold many graphs."""

    node_features: Literal["labels", "degree", "constant", "attributes", "labels_and_attributes"] = Field(
        "labels",
        description="features of nodes: their labels one-hot, or 1 where the source has none (labels); their "
        "degree one-hot; 1 for every node (constant); the source's attributes; labels and attributes",
    )
    max_degree: int = Field(
        100, ge=1, le=_MAX_ONE_HOT - 1, description="degree: larger degrees count as this one: count >= 1"
    )

    @model_validator(mode="after")
    def _no_holdout(self) -> Self:
        if self.edge_holdout > 0:
            raise ValueError("edge_holdout: links are held out of one graph, and these data are many")
        return self


@dataclass(frozen=True, eq=False)
class CollectionSource:
    """Many graphs as their source has them; nothing is merged, sorted or symmetrised yet.

    Attributes:
        num_graphs: G; a graph may have no nodes.
        graph_N: int64 graph of each node, ascending.
        edge_chunks: the raw edges, in positions 0..N-1, none of them between two graphs.
        graph_ids: the source's own ids of the graphs; None when they are 0..G-1.
        node_labels_Nc: int64, discrete labels of the nodes, of c kinds; None without.
        attributes_NF: float32; None without.
        y_G: int32 class of each graph, -1 for a graph without label; None without labels.
        class_names: one name a class.
        notes: facts for the manifest.
    """

    num_graphs: int
    graph_N: np.ndarray
    edge_chunks: Callable[[], Iterator[EdgeChunk]]
    graph_ids: ArrowArray | None = None
    node_labels_Nc: np.ndarray | None = None
    attributes_NF: np.ndarray | None = None
    y_G: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    notes: dict[str, int | str] = field(default_factory=dict)

    @property
    def num_nodes(self) -> int:
        """N."""
        return len(self.graph_N)


def canonical_collection_edges(
    source: CollectionSource, config: CollectionConfig, scratch: Path
) -> CanonicalEdges:
    """The edges of all graphs, sorted, without repeats, in both directions.

    Args:
        source: the graphs.
        config: its policy.
        scratch: a folder of its own for this call.
    """
    policy = EdgePolicy(self_loops=config.self_loops, duplicates=config.duplicates, one_way="symmetrise")
    return canonical_edges(source.edge_chunks(), num_nodes=source.num_nodes, policy=policy, scratch=scratch)


def node_features(
    source: CollectionSource, config: CollectionConfig, degree_N: np.ndarray
) -> tuple[Features, str]:
    """The features of all nodes, float32 [N, F], and what they are in a few words.

    Args:
        source: the graphs.
        config: which features.
        degree_N: int64 degrees in the canonical graph.

    Raises:
        SourceUnreadable: the source has no attributes, and they are asked for.
    """
    kind = config.node_features
    if kind in ("attributes", "labels_and_attributes") and source.attributes_NF is None:
        raise SourceUnreadable(f"dataset.node_features={kind}: the source has no node attributes")
    if kind == "degree":
        top = min(config.max_degree, int(degree_N.max(initial=0)))
        return _one_hot(np.minimum(degree_N, top), top + 1), f"one-hot degrees up to {top}"
    if kind == "attributes":
        assert source.attributes_NF is not None  # noqa: S101  seen above
        return source.attributes_NF, f"{source.attributes_NF.shape[1]} node attributes"
    if kind == "constant" or source.node_labels_Nc is None:
        attributes_NF, told = source.attributes_NF, "the constant 1"
        if kind == "labels_and_attributes" and attributes_NF is not None:
            return attributes_NF, f"{attributes_NF.shape[1]} node attributes, there being no node labels"
        told += ", there being no node labels" if kind == "labels" else ""
        if kind == "labels" and attributes_NF is not None:  # what was most likely meant
            told += f"; dataset.node_features=attributes takes the {attributes_NF.shape[1]} node attributes"
        return np.ones((source.num_nodes, 1), np.float32), told
    blocks = [_labels_one_hot(label_N) for label_N in source.node_labels_Nc.T]
    labels_NL = sp.csr_matrix(sp.hstack(blocks, format="csr")) if len(blocks) > 1 else blocks[0]
    told = f"one-hot node labels ({labels_NL.shape[1]})"
    if kind == "labels":
        return labels_NL, told
    return (
        np.hstack([labels_NL.toarray(), source.attributes_NF]).astype(np.float32),  # type: ignore[list-item]
        f"{told} and {source.attributes_NF.shape[1]} attributes",  # type: ignore[union-attr]
    )


def read_collection(config: CollectionConfig) -> tuple[GraphCollection, Labels | None]:
    """The graphs of a configuration in memory, as the pipeline has them, and their classes.

    Args:
        config: of a format that holds a collection.

    Raises:
        SourceUnreadable: files missing, or not what the format says.
        InvalidGraph: data that break a rule of a graph.
    """
    from gcl.readers import open_source

    source: CollectionSource = open_source(config)
    with tempfile.TemporaryDirectory(prefix="edges-") as scratch:
        chunks = list(canonical_collection_edges(source, config, Path(scratch)))
    none = [np.empty(0, np.int64)]
    src_E, dst_E = (
        np.concatenate([getattr(chunk, end) for chunk in chunks] or none) for end in ("src", "dst")
    )
    degree_N = np.bincount(src_E, minlength=source.num_nodes)
    x_NF, _ = node_features(source, config, degree_N)
    union = Graph(source.num_nodes, src_E, dst_E, x_NF)
    labels = None if source.y_G is None else Labels(source.y_G, source.class_names)
    return GraphCollection(source.num_graphs, union, source.graph_N), labels


def is_label(text: str) -> bool:
    """Whether there is a label in the place of one: nothing, ``nan`` and ``?`` are none.

    Args:
        text: as the source has it.
    """
    return text.strip().lower() not in _UNLABELLED


def classes_of(value_G: np.ndarray, is_known_G: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """int32 class of each graph, numbered by ascending label, -1 without; the labels as names.

    Args:
        value_G: int64 labels as the source has them, such as -1 and 1.
        is_known_G: which of the graphs have one.

    Returns:
        Classes and names; None and no names where no graph has a label.
    """
    if not is_known_G.any():
        return None, ()
    known, class_L = np.unique(value_G[is_known_G], return_inverse=True)
    y_G = np.full(len(value_G), -1, np.int32)
    y_G[is_known_G] = class_L
    return y_G, tuple(str(value) for value in known)


def check_edges(
    src_E: np.ndarray, dst_E: np.ndarray, graph_N: np.ndarray, where: Callable[[int], str]
) -> None:
    """Refuse edges that leave the nodes or join two graphs.

    Args:
        src_E: int64 sources.
        dst_E: int64 targets.
        graph_N: int64 graph of each node.
        where: of the place of an edge: how to name it, with its line.

    Raises:
        InvalidGraph: naming the first such edges.
    """
    inside_E = (src_E >= 0) & (src_E < len(graph_N)) & (dst_E >= 0) & (dst_E < len(graph_N))
    _refuse(np.flatnonzero(~inside_E), "endpoints_in_range", where)
    _refuse(np.flatnonzero(graph_N[src_E] != graph_N[dst_E]), "edges_within_one_graph", where)


def _refuse(wrong: np.ndarray, rule: str, where: Callable[[int], str]) -> None:
    if len(wrong):
        raise InvalidGraph(
            table="collection.edges",
            column="src, dst",
            rule=rule,
            num_rows=len(wrong),
            sample=[where(int(place)) for place in wrong[:10]],
        )


def _labels_one_hot(label_N: np.ndarray) -> sp.csr_matrix:
    known, column_N = np.unique(label_N, return_inverse=True)
    if len(known) > _MAX_ONE_HOT:
        raise SourceUnreadable(
            f"{len(known)} different node labels, more than {_MAX_ONE_HOT}: set "
            "dataset.node_features=constant"
        )
    return _one_hot(column_N, max(1, len(known)))


def _one_hot(column_N: np.ndarray, width: int) -> sp.csr_matrix:
    ones_N = np.ones(len(column_N), np.float32)
    return sp.csr_matrix((ones_N, column_N, np.arange(len(column_N) + 1)), shape=(len(column_N), width))
