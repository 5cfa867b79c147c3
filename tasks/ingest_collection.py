"""Ingest of many graphs: the collection, a graph whose nodes are the graphs, and their labels.

That graph has no edges; its features are the sums of the features of each graph's nodes, which for one-hot
labels count how often each occurs. Everything after training works on it as on any other.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from gcl.errors import InvalidGraph
from gcl.graph import Graph
from gcl.graph_collection import GraphCollection
from gcl.readers.collection_base import (
    CollectionConfig,
    CollectionSource,
    canonical_collection_edges,
    node_features,
)
from tasks.collection_tables import write_collection
from tasks.convert import write_columns, write_matrix
from tasks.work import Work


def write_tables(work: Work, source: CollectionSource, config: CollectionConfig) -> None:
    """Bring the edges into canonical order, choose the features, and write the tables.

    Raises:
        InvalidGraph: there is no graph, or edges that the policy refuses.
        SourceUnreadable: features are asked for that the source does not have.
    """
    if not source.num_graphs or not source.num_nodes:
        raise InvalidGraph(
            table="collection.nodes",
            column="node",
            rule="some_node_present",
            num_rows=1,
            sample=[f"{source.num_graphs} graphs, {source.num_nodes} nodes"],
        )
    edges = canonical_collection_edges(
        source, config, Path(tempfile.mkdtemp(prefix="edges-", dir=work.scratch()))
    )
    chunks = [(chunk.src, chunk.dst) for chunk in edges] or [(np.empty(0, np.int64),) * 2]
    src_E, dst_E = (np.concatenate(part) for part in zip(*chunks, strict=True))
    x_NF, told = node_features(source, config, np.bincount(src_E, minlength=source.num_nodes))
    union = Graph(source.num_nodes, src_E, dst_E, x_NF)
    collection = GraphCollection(source.num_graphs, union, source.graph_N)
    write_collection(work.output("collection"), collection)
    counts = edges.counts
    facts = {
        "num_graphs": collection.num_graphs,
        "num_nodes": union.num_nodes,
        "num_edges": union.num_edges,
        "num_features": union.num_features,
        "features": told,
        "is_undirected": True,
        "source_edges": counts.num_read,
        "source_self_loops": counts.num_self_loops,
        "source_duplicates": counts.num_duplicates,
        "source_one_way": counts.num_one_way,
        "notes": dict(source.notes),
    }
    work.describe("collection", facts)
    _expect(work, collection, has_self_loops=config.self_loops == "keep")
    _write_graph(work, collection, source, told)
    _write_labels(work, source)


def _expect(work: Work, collection: GraphCollection, *, has_self_loops: bool) -> None:
    sizes = {"num_nodes": collection.union.num_nodes, "num_graphs": collection.num_graphs}
    work.expect("collection.nodes", **sizes)
    work.expect("collection.features", **sizes, num_features=collection.union.num_features)
    work.expect(
        "collection.edges",
        num_graphs=collection.num_graphs,
        num_edges=collection.union.num_edges,
        is_undirected=True,
        has_self_loops=has_self_loops,
    )


def _write_graph(work: Work, collection: GraphCollection, source: CollectionSource, told: str) -> None:
    """The graphs as nodes of a graph without edges."""
    folder, num_graphs = work.output("graph"), collection.num_graphs
    node = np.arange(num_graphs)
    node_id = pa.array(node) if source.graph_ids is None else source.graph_ids
    write_columns(
        folder / "nodes.parquet",
        "graph.nodes",
        {"node": node, "node_id": node_id},
        node_id_type=node_id.type,
    )
    none = np.empty(0, np.int64)
    write_columns(folder / "edges.parquet", "graph.edges", {"src": none, "dst": none})
    x_GF = collection.sum_of_features()
    metadata = {"num_features": str(x_GF.shape[1])}
    write_matrix(folder / "features.parquet", "graph.features", x_GF, metadata=metadata)
    work.describe(
        "graph",
        {
            "num_nodes": num_graphs,
            "num_edges": 0,
            "num_features": x_GF.shape[1],
            "has_features": True,
            "is_undirected": True,
            "has_weights": False,
            "edge_holdout": 0.0,
            "rows": "graphs",
            "features": f"sums over the nodes of {told}",
            "notes": dict(source.notes),
        },
    )
    work.expect("graph.nodes", num_nodes=num_graphs)
    work.expect("graph.features", num_nodes=num_graphs, num_features=x_GF.shape[1])
    work.expect("graph.edges", num_nodes=num_graphs, num_edges=0, is_undirected=True, has_self_loops=False)


def _write_labels(work: Work, source: CollectionSource) -> None:
    """The classes of the graphs, if they have any."""
    folder, num_classes = work.output("labels"), len(source.class_names)
    work.describe("labels", {"num_classes": num_classes if source.y_G is not None else None})
    if source.y_G is None:
        return
    write_columns(
        folder / "labels.parquet",
        "labels.labels",
        {"node": np.arange(source.num_graphs), "label": pa.array(source.y_G, mask=source.y_G < 0)},
        metadata={"class_names": json.dumps(list(source.class_names))},
    )
    work.expect("labels.labels", num_nodes=source.num_graphs, num_classes=num_classes)
