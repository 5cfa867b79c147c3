"""Sound tables of heterogeneous graphs, and what breaks each of their clauses."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from tests.contract.edits import drop_last_row, know, put

INF, NAN = float("inf"), float("nan")

# Rows, how to make the schema, and the facts to check with, as in a Sample.
HETERO_TABLES: dict[str, tuple[dict[str, list[Any]], dict[str, Any], dict[str, Any]]] = {
    "hetero.nodes": (
        {"node_type": [0, 0, 0, 1, 1], "node": [0, 1, 2, 0, 1], "node_id": ["a", "b", "c", "a", "b"]},
        {"node_id_type": pa.string(), "metadata": {"node_types": '["user", "item"]'}},
        {"num_nodes": 5, "num_types": 2},
    ),
    "hetero.edges": (
        {
            "relation": [0, 0, 1, 1],
            "src": [0, 2, 0, 1],
            "dst": [1, 0, 2, 0],
            "weight": [1.0, 0.5, 1.0, 2.0],
        },
        {
            "extra_columns": ("weight",),
            "metadata": {"num_src_nodes": "[3, 2]", "num_dst_nodes": "[2, 3]"},
        },
        {"num_edges": 4, "num_relations": 2},
    ),
    "hetero.features": (
        {
            "node_type": [0, 0, 1],
            "node": [0, 1, 0],
            "indices": [[0, 2], [], [0, 1]],
            "values": [[1.0, 0.5], [], [0.0, 2.0]],
        },
        {"metadata": {"widths": "[3, 2]"}},
        {"num_rows": 3, "num_types": 2},
    ),
    "metapaths.edges": (
        {"metapath": [0, 0, 1], "src": [0, 1, 0], "dst": [0, 0, 2], "weight": [1.0, 2.0, 1.0]},
        {"extra_columns": ("weight",)},
        {"num_nodes": 3, "num_metapaths": 2, "num_edges": 3},
    ),
}

HETERO_BREAKS: list[tuple[str, str, str, Callable[[Any], None], int | None]] = [
    ("hetero.nodes", "one_row_per_node", "table", drop_last_row, None),
    ("hetero.nodes", "types_in_range", "node_type", put("node_type", 4, 2), 4),
    ("hetero.nodes", "types_in_range", "node_type", put("node_type", 0, -1), 0),
    ("hetero.nodes", "types_in_order", "node_type, node", put("node_type", 4, 0), 4),
    ("hetero.nodes", "nodes_dense_within_type", "node_type, node", put("node", 2, 3), 2),
    ("hetero.nodes", "nodes_dense_within_type", "node_type, node", put("node", 0, 1), 0),
    ("hetero.nodes", "keys_unique", "node_type, node_id", put("node_id", 4, "a"), 3),
    ("hetero.nodes", "values_present", "node_id", put("node_id", 4, None), 4),
    ("hetero.edges", "relations_in_range", "relation", put("relation", 3, 2), 3),
    ("hetero.edges", "relations_in_range", "relation", put("relation", 0, -1), 0),
    ("hetero.edges", "sources_in_range", "relation, src", put("src", 3, 2), 3),
    ("hetero.edges", "sources_in_range", "relation, src", put("src", 0, -1), 0),
    ("hetero.edges", "targets_in_range", "relation, dst", put("dst", 1, 2), 1),
    ("hetero.edges", "targets_in_range", "relation, dst", put("dst", 3, -1), 3),
    (
        "hetero.edges",
        "edges_strictly_increasing",
        "relation, src, dst",
        lambda s: (put("src", 1, 0)(s), put("dst", 1, 1)(s)),
        1,
    ),
    ("hetero.edges", "every_edge_present", "table", know(num_edges=5), None),
    ("hetero.edges", "weights_finite", "weight", put("weight", 1, INF), 1),
    ("hetero.edges", "values_present", "dst", put("dst", 1, None), 1),
    ("hetero.features", "every_row_present", "table", drop_last_row, None),
    ("hetero.features", "types_in_range", "node_type", put("node_type", 2, 2), 2),
    ("hetero.features", "types_in_range", "node_type", put("node_type", 0, -1), 0),
    ("hetero.features", "types_in_order", "node_type, node", put("node_type", 0, 1), 1),
    ("hetero.features", "nodes_dense_within_type", "node_type, node", put("node", 2, 1), 2),
    ("hetero.features", "indices_in_range", "node_type, indices", put("indices", 2, [0, 2]), 2),
    ("hetero.features", "indices_in_range", "node_type, indices", put("indices", 0, [-1, 2]), 0),
    ("hetero.features", "indices_strictly_increasing", "indices", put("indices", 0, [2, 2]), 0),
    ("hetero.features", "indices_match_values", "indices, values", put("values", 1, [1.0]), 1),
    ("hetero.features", "features_finite", "values", put("values", 0, [1.0, NAN]), 0),
    ("hetero.features", "values_present", "values", put("values", 1, None), 1),
    ("metapaths.edges", "metapaths_in_range", "metapath", put("metapath", 2, 2), 2),
    ("metapaths.edges", "metapaths_in_range", "metapath", put("metapath", 0, -1), 0),
    ("metapaths.edges", "endpoints_in_range", "src", put("src", 2, 3), 2),
    ("metapaths.edges", "endpoints_in_range", "dst", put("dst", 2, 3), 2),
    ("metapaths.edges", "endpoints_in_range", "dst", put("dst", 0, -1), 0),
    ("metapaths.edges", "edges_strictly_increasing", "metapath, src, dst", put("src", 1, 0), 1),
    ("metapaths.edges", "every_edge_present", "table", drop_last_row, None),
    ("metapaths.edges", "weights_finite", "weight", put("weight", 1, NAN), 1),
    ("metapaths.edges", "values_present", "src", put("src", 2, None), 2),
]
