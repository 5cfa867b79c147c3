"""Sound tables of collections of graphs, and what breaks each of their clauses."""

from collections.abc import Callable
from typing import Any

from tests.contract.edits import drop_last_row, know, put

NAN = float("nan")
FIRST_NODES = {"metadata": {"first_nodes": "[0, 3, 5]"}}

# Rows, how to make the schema, and the facts to check with, as in a Sample.
COLLECTION_TABLES: dict[str, tuple[dict[str, list[Any]], dict[str, Any], dict[str, Any]]] = {
    "collection.nodes": (
        {"graph": [0, 0, 0, 1, 1], "node": [0, 1, 2, 3, 4]},
        {},
        {"num_nodes": 5, "num_graphs": 2},
    ),
    "collection.edges": (
        {"graph": [0, 0, 0, 0, 1, 1], "src": [0, 1, 1, 2, 3, 4], "dst": [1, 0, 2, 1, 4, 3]},
        FIRST_NODES,
        {"num_graphs": 2, "num_edges": 6, "is_undirected": True, "has_self_loops": False},
    ),
    "collection.features": (
        {"graph": [0, 0, 1], "x": [[1.0, 0.0], [0.0, 1.0], [0.5, 2.0]]},
        {"width": 2},
        {"num_nodes": 3, "num_graphs": 2, "num_features": 2},
    ),
    "collection.features:sparse": (
        {"graph": [0, 0, 1], "indices": [[0, 2], [], [1]], "values": [[1.0, 1.0], [], [0.5]]},
        {"layout": "sparse", "metadata": {"num_features": "3"}},
        {"num_nodes": 3, "num_graphs": 2, "num_features": 3},
    ),
}

_SPARSE = "collection.features:sparse"
COLLECTION_BREAKS: list[tuple[str, str, str, Callable[[Any], None], int | None]] = [
    ("collection.nodes", "one_row_per_node", "table", drop_last_row, None),
    ("collection.nodes", "ids_dense", "node", put("node", 4, 5), 4),
    ("collection.nodes", "graphs_in_range", "graph", put("graph", 4, 2), 4),
    ("collection.nodes", "graphs_in_range", "graph", put("graph", 0, -1), 0),
    ("collection.nodes", "graphs_in_order", "graph, node", put("graph", 1, 1), 2),
    ("collection.nodes", "values_present", "graph", put("graph", 4, None), 4),
    ("collection.edges", "graphs_in_range", "graph", put("graph", 5, 2), 5),
    ("collection.edges", "graphs_in_range", "graph", put("graph", 0, -1), 0),
    ("collection.edges", "sources_in_their_graph", "graph, src", put("src", 4, 2), 4),
    ("collection.edges", "targets_in_their_graph", "graph, dst", put("dst", 2, 3), 2),
    ("collection.edges", "targets_in_their_graph", "graph, dst", put("dst", 5, 5), 5),
    ("collection.edges", "edges_strictly_increasing", "graph, src, dst", put("dst", 2, 0), 2),
    ("collection.edges", "no_self_loops", "src, dst", put("dst", 0, 0), 0),
    ("collection.edges", "edges_symmetric", "src, dst", put("dst", 3, 0), None),
    ("collection.edges", "every_edge_present", "table", know(num_edges=7), None),
    ("collection.edges", "values_present", "dst", put("dst", 1, None), 1),
    ("collection.features", "one_row_per_node", "table", drop_last_row, None),
    ("collection.features", "graphs_in_range", "graph", put("graph", 2, 2), 2),
    ("collection.features", "graphs_in_range", "graph", put("graph", 0, -1), 0),
    ("collection.features", "width_is_declared", "x", know(num_features=3), None),
    ("collection.features", "features_finite", "x", put("x", 1, [NAN, 1.0]), 1),
    (_SPARSE, "indices_in_range", "indices", put("indices", 2, [3]), 2),
    (_SPARSE, "indices_in_range", "indices", put("indices", 0, [-1, 2]), 0),
    (_SPARSE, "indices_strictly_increasing", "indices", put("indices", 0, [2, 2]), 0),
    (_SPARSE, "indices_match_values", "indices, values", put("values", 1, [1.0]), 1),
    (_SPARSE, "values_present", "values", put("values", 1, None), 1),
    (_SPARSE, "features_finite", "values", put("values", 2, [NAN]), 2),
]
