"""Collections of graphs to and from their tables.

Found by name where a method reads them, so that it is no part of the keys of the others.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from data_contracts.tables import TABLES
from gcl.graph_collection import GraphCollection
from gcl.workspace import row_slices
from tasks.convert import read_column, read_graph, sparse_lists, write_batches, write_columns, write_matrix

_ROW_BYTES = 64  # of a sparse row, about


def write_collection(folder: Path, collection: GraphCollection) -> None:
    """Write the tables ``collection.nodes``, ``collection.edges`` and ``collection.features``.

    Args:
        folder: of the artifact.
        collection: with features.
    """
    union, graph_N = collection.union, collection.graph_N
    write_columns(
        folder / "nodes.parquet",
        "collection.nodes",
        {"graph": graph_N, "node": np.arange(union.num_nodes)},
    )
    write_columns(
        folder / "edges.parquet",
        "collection.edges",
        {"graph": graph_N[union.src_E], "src": union.src_E, "dst": union.dst_E},
        metadata={"first_nodes": json.dumps(collection.first_node_G.tolist())},
    )
    features, width = folder / "features.parquet", {"num_features": str(union.num_features)}
    if isinstance(union.x_NF, sp.csr_matrix):
        _write_sparse(features, union.x_NF, graph_N, width)
    elif union.x_NF is not None:
        others = {"graph": graph_N}
        write_matrix(features, "collection.features", union.x_NF, others=others, metadata=width)


def _write_sparse(path: Path, x_NF: sp.csr_matrix, graph_N: np.ndarray, metadata: dict[str, str]) -> None:
    schema = TABLES["collection.features"].schema(layout="sparse", metadata=metadata)

    def batches() -> Iterator[pa.RecordBatch]:
        for rows in row_slices(x_NF.shape[0], _ROW_BYTES):
            columns = [pa.array(graph_N[rows]), *sparse_lists(x_NF[rows])]
            yield pa.record_batch(columns, schema=schema)

    write_batches(path, schema, batches())


def read_collection(folder: Path) -> GraphCollection:
    """A collection artifact in memory."""
    facts = json.loads((folder / "metadata.json").read_bytes())
    graph_N = read_column(folder / "nodes.parquet", "graph")
    return GraphCollection(int(facts["num_graphs"]), read_graph(folder), graph_N)
