"""Sound tables of the robustness study, and what breaks each of their clauses."""

from collections.abc import Callable
from typing import Any

from tests.contract.edits import drop_last_row, know, put

# Rows, how to make the schema, and the facts to check with, as in a Sample.
ATTACK_TABLES: dict[str, tuple[dict[str, list[Any]], dict[str, Any], dict[str, Any]]] = {
    "victim.history": (
        {"epoch": [0, 1], "loss": [1.0, 0.5]},
        {"extra_columns": ("loss",)},
        {"num_epochs": 2},
    ),
    "attacks.results": (
        {
            "graph": [0, 1, 0, 1],
            "attack": ["random", "random", "exhaustive", "exhaustive"],
            "label": [0, 1, 0, 1],
            "clean": [0, 2, 0, 2],
            "attacked": [0, 2, 1, 2],
            "src": [3, None, 0, None],
            "dst": [5, None, 2, None],
        },
        {},
        {"num_rows": 4, "num_graphs": 2, "num_classes": 3},
    ),
}

ATTACK_BREAKS: list[tuple[str, str, str, Callable[[Any], None], int | None]] = [
    ("victim.history", "every_epoch_present", "table", drop_last_row, None),
    ("victim.history", "epochs_not_negative", "epoch", put("epoch", 0, -1), 0),
    ("victim.history", "epochs_increasing", "epoch", put("epoch", 1, 0), 1),
    ("victim.history", "losses_finite", "loss", put("loss", 1, float("nan")), 1),
    ("victim.history", "values_present", "loss", put("loss", 1, None), 1),
    ("attacks.results", "every_attack_on_every_graph", "table", drop_last_row, None),
    ("attacks.results", "graphs_in_range", "graph", put("graph", 1, 2), 1),
    ("attacks.results", "attacks_known", "attack", put("attack", 0, "rl"), 0),
    *(
        ("attacks.results", "classes_in_range", column, put(column, 2, 3), 2)
        for column in ("label", "clean", "attacked")
    ),
    ("attacks.results", "classes_in_range", "clean", know(num_classes=2), 1),
    ("attacks.results", "no_self_loops", "src, dst", put("dst", 0, 3), 0),
    ("attacks.results", "keys_unique", "attack, graph", put("graph", 1, 0), 0),
    ("attacks.results", "values_present", "attacked", put("attacked", 3, None), 3),
]
