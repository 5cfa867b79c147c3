"""A data set in memory: what the pipeline's readers stream into tables, as one Graph, for notebooks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from gcl.errors import UnsuitableSetting
from gcl.estimator_settings import checked_config
from gcl.graph import Features, Graph, Labels, Split
from gcl.graph_arrays import checked_features, graph_of_chunks
from gcl.readers import open_source, reader_of
from gcl.readers.base import DatasetConfig, edge_policy


@dataclass(frozen=True, eq=False)
class Dataset:
    """A graph, and apart from it what the source says of its nodes.

    Attributes:
        graph: the graph, with the source's node ids.
        labels: None where the source has none.
        splits: the source's own splits.
    """

    graph: Graph
    labels: Labels | None
    splits: tuple[Split, ...]


def read_dataset(format: str, **fields: Any) -> Dataset:  # noqa: A002  the name the pipeline has for it
    """Read a data set in one of the formats of `gclflow datasets`; the graph is the pipeline's.

    Args:
        format: ``planetoid``, ``csv``, ``digits_knn``, ...: a key of `gcl.readers.READERS`.
        **fields: the other ``dataset.*`` settings of that format, such as ``path`` and ``name``.

    Raises:
        SourceUnreadable: files missing, or not what the format says.
        InvalidGraph: data that break a rule of a graph.
        ValueError: an unknown format or field, or a value out of its bounds.
        UnsuitableSetting: an edge holdout, which belongs to a run of the pipeline, or data of many graphs.
    """
    config: DatasetConfig = checked_config(reader_of(format).config, fields)
    if config.edge_holdout > 0:
        raise UnsuitableSetting("edge_holdout: link prediction is a run of the pipeline, see gclflow run")
    if reader_of(format).holds == "collection":
        raise UnsuitableSetting(f"{format} holds many graphs: gcl.readers.collection_base.read_collection")
    source = open_source(config)
    blocks: list[Any] = [] if source.feature_chunks is None else list(source.feature_chunks())
    x_NF: Features | None = None
    if blocks:
        x_NF = checked_features(sp.vstack(blocks) if source.has_sparse_features else np.concatenate(blocks))
    graph = graph_of_chunks(
        source.edge_chunks(),
        num_nodes=source.num_nodes,
        policy=edge_policy(config, source),
        x_NF=x_NF,
        node_ids=None if source.node_ids is None else tuple(source.node_ids.to_pylist()),
    )
    labels = None
    if source.label_chunks is not None:
        labels = Labels(np.concatenate(list(source.label_chunks())), source.class_names)
    return Dataset(graph, labels, source.splits)
