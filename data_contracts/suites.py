"""The contract of each table: its clauses, and the Great Expectations suite made of them.

A clause whose fact the caller does not know is left out. To add one: one line in `CLAUSES`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from data_contracts import hashing
from data_contracts import predicates as p
from data_contracts.arrow import is_list, item_type
from data_contracts.clauses import Clause, Facts, exactly, fact, in_range, no_row
from data_contracts.columns import Column
from data_contracts.predicates import Predicate
from data_contracts.tables import table_named

if TYPE_CHECKING:
    import great_expectations as gx

ROLES = ("train", "validation", "test")
ORACLE = "oracle"
"""Split of figures that labels had a part in choosing; their table is their own."""
EMBEDDING_KINDS = ("method", "smoothed", "random_init")

ATTACKS = ("random", "grad_argmax", "genetic", "rl_s2v", "rl_s2v_best", "exhaustive")
SHIFT_MEASURES = ("known_shift", "outlier_share", "shift")

_UNIT = (0.0, 1.0)
METRIC_RANGES: dict[str, tuple[float | None, float | None]] = {
    **dict.fromkeys(("accuracy", "macro_f1", "micro_f1", "nmi", "fmi", "conductance"), _UNIT),
    **dict.fromkeys(("auc", "average_precision"), _UNIT),
    **dict.fromkeys(("auc_inner_product", "average_precision_inner_product"), _UNIT),
    **dict.fromkeys(("aurc", "e_aurc", "augrc", "risk_at_coverage", "answered", "answered_risk"), _UNIT),
    **dict.fromkeys(("aurc_uncertainty", "e_aurc_uncertainty", "augrc_uncertainty"), _UNIT),
    **dict.fromkeys(("calibrated_accuracy", "ece", "ece_uncalibrated", "coverage", "singleton_hit"), _UNIT),
    **dict.fromkeys(("ari", "silhouette", "modularity"), (-1.0, 1.0)),
    **dict.fromkeys(("nll", "mean_set_size", "temperature"), (0.0, None)),
    **dict.fromkeys(("false_negative_share", "false_negative_auc", "similarity_auc"), _UNIT),
    **dict.fromkeys(("weight_same_class", "weight_other_class"), (0.0, None)),
    "weight_similarity_correlation": (-1.0, 1.0),
    "brier": (0.0, 2.0),
}

# Columns that together name a row; no two rows may share them.
KEYS: dict[str, tuple[str, ...]] = {
    "graph.nodes": ("node_id",),
    "hetero.nodes": ("node_type", "node_id"),
    "labels.splits": ("split", "node"),
    "labels.held_out_edges": ("src", "dst"),
    "embeddings.embeddings": ("node_id",),
    "controls.embeddings": ("node_id",),
    "uncertainty.uncertainty": ("node_id",),
    "clusters.clusters": ("node_id",),
    "clusters.evidence": ("num_clusters", "measure"),
    "scores.embeddings": ("node_id",),
    "scores.clusters": ("node_id",),
    "scores.shift": ("measure",),
    "metrics.metrics": ("task", "protocol", "split", "seed", "embedding", "metric", "over"),
    "metrics.oracle": ("task", "protocol", "split", "seed", "embedding", "metric", "over"),
    "attacks.results": ("attack", "graph"),
    "predictions.predictions": ("node_id",),
}

# What the generic rule "every float is finite" is called where a table has a better name for it.
_FINITE_RULE = {
    "graph.edges": "weights_finite",
    "graph.features": "features_finite",
    "collection.features": "features_finite",
    "hetero.edges": "weights_finite",
    "hetero.features": "features_finite",
    "metapaths.edges": "weights_finite",
    "smoothed.features": "features_finite",
    "model.history": "losses_finite",
    "victim.history": "losses_finite",
    "embeddings.embeddings": "embeddings_finite",
    "controls.embeddings": "embeddings_finite",
    "checks.checks": "embeddings_finite",
    "scores.embeddings": "embeddings_finite",
}

_NUM_NODES = fact("num_nodes")
_LAST_NODE = fact("num_nodes", plus=-1)
_LAST_GRAPH = fact("num_graphs", plus=-1)
_LAST_CLASS = fact("num_classes", plus=-1)
_LAST_CLUSTER = fact("num_clusters", plus=-1)


def _unique(table: str) -> Clause:
    columns = KEYS[table]

    def offending(path: Path, table: str, _low: float | None, _high: float | None) -> Predicate:
        return hashing.repeated(path, table, columns)

    rule = "ids_unique" if columns == ("node_id",) else "keys_unique"
    return Clause(rule, columns, "keys.repeats", high=0, offending=offending)


def _symmetric(rule: str, figure: str, *, with_weight: bool) -> Clause:
    def offending(path: Path, table: str, _low: float | None, _high: float | None) -> Predicate:
        return hashing.one_way(path, table, with_weight=with_weight)

    columns = ("src", "dst", "weight") if with_weight else ("src", "dst")
    return Clause(rule, columns, figure, high=0, when=("is_undirected", True), offending=offending)


def _a_row_per_node(*, is_dense: bool = True) -> tuple[Clause, ...]:
    count = exactly("one_row_per_node", "rows", _NUM_NODES)
    return (count, no_row("ids_dense", p.out_of_place("node"))) if is_dense else (count,)


def _above(column: str, bound: str) -> Predicate:
    """Rows whose value is above the row's own bound; a null of either is above nothing."""

    def mask(window: p.Window) -> p.Mask:
        values_B, bounds_B = (window.batch.column(name) for name in (column, bound))
        above: p.Mask = values_B.to_numpy(zero_copy_only=False) > bounds_B.to_numpy(zero_copy_only=False)
        return above

    return Predicate(("measure", column, bound), mask)


_SCORED = (
    exactly("every_wanted_node_scored", "rows", fact("num_scored")),
    *in_range("nodes_in_range", "node", 0, _LAST_NODE),
    no_row("nodes_strictly_increasing", p.not_increasing("node")),
)

_FEATURE_ROWS = (
    *_a_row_per_node(is_dense=False),
    exactly("width_is_declared", "x.width", fact("num_features"), "x"),
    *in_range("indices_in_range", "indices", 0, fact("num_features", plus=-1)),
    no_row("indices_strictly_increasing", p.unordered_items("indices")),
    no_row("indices_match_values", p.unequal_lengths("indices", "values")),
)

_EMBEDDING = (
    *_a_row_per_node(),
    exactly("width_is_declared", "z.width", fact("embedding_size"), "z"),
    Clause("not_collapsed", ("z",), "z.effective_rank", low=fact("min_effective_rank")),
)

_FIGURES = (
    no_row("metrics_in_range", p.outside_named("metric", "value", METRIC_RANGES)),
    no_row("embedding_known", p.unknown("embedding", EMBEDDING_KINDS)),
    *in_range("deviation_not_negative", "std", 0.0, None),
    *in_range("counts_positive", "n", 1, None),
)

CLAUSES: dict[str, tuple[Clause, ...]] = {
    "graph.nodes": (
        *_a_row_per_node(),
        *in_range("graphs_in_range", "graph", 0, fact("num_graphs", plus=-1)),
    ),
    "graph.edges": (
        *in_range("endpoints_in_range", "src", 0, fact("num_src_nodes", "num_nodes", plus=-1)),
        *in_range("endpoints_in_range", "dst", 0, fact("num_dst_nodes", "num_nodes", plus=-1)),
        no_row("edges_strictly_increasing", p.not_increasing("src", "dst")),
        no_row("no_self_loops", p.equal("src", "dst"), when=("has_self_loops", False)),
        _symmetric("edges_symmetric", "edges.asymmetric", with_weight=False),
        _symmetric("weights_symmetric", "weights.asymmetric", with_weight=True),
        exactly("every_edge_present", "rows", fact("num_edges")),
    ),
    "graph.features": _FEATURE_ROWS,
    "hetero.nodes": (
        exactly("one_row_per_node", "rows", _NUM_NODES),
        *in_range("types_in_range", "node_type", 0, fact("num_types", plus=-1)),
        no_row("types_in_order", p.not_increasing("node_type", "node")),
        no_row("nodes_dense_within_type", p.gap_within("node_type", "node")),
    ),
    "hetero.edges": (
        *in_range("relations_in_range", "relation", 0, fact("num_relations", plus=-1)),
        no_row("sources_in_range", p.beyond_size("relation", "src", "num_src_nodes")),
        no_row("targets_in_range", p.beyond_size("relation", "dst", "num_dst_nodes")),
        no_row("edges_strictly_increasing", p.not_increasing("relation", "src", "dst")),
        exactly("every_edge_present", "rows", fact("num_edges")),
    ),
    "hetero.features": (
        exactly("every_row_present", "rows", fact("num_rows")),
        *in_range("types_in_range", "node_type", 0, fact("num_types", plus=-1)),
        no_row("types_in_order", p.not_increasing("node_type", "node")),
        no_row("nodes_dense_within_type", p.gap_within("node_type", "node")),
        no_row("indices_in_range", p.beyond_size("node_type", "indices", "widths")),
        no_row("indices_strictly_increasing", p.unordered_items("indices")),
        no_row("indices_match_values", p.unequal_lengths("indices", "values")),
    ),
    "metapaths.edges": (
        *in_range("metapaths_in_range", "metapath", 0, fact("num_metapaths", plus=-1)),
        *in_range("endpoints_in_range", "src", 0, _LAST_NODE),
        *in_range("endpoints_in_range", "dst", 0, _LAST_NODE),
        no_row("edges_strictly_increasing", p.not_increasing("metapath", "src", "dst")),
        exactly("every_edge_present", "rows", fact("num_edges")),
    ),
    "collection.nodes": (
        *_a_row_per_node(),
        *in_range("graphs_in_range", "graph", 0, _LAST_GRAPH),
        no_row("graphs_in_order", p.not_increasing("graph", "node")),
    ),
    "collection.edges": (
        *in_range("graphs_in_range", "graph", 0, _LAST_GRAPH),
        no_row("sources_in_their_graph", p.outside_group("graph", "src", "first_nodes")),
        no_row("targets_in_their_graph", p.outside_group("graph", "dst", "first_nodes")),
        no_row("edges_strictly_increasing", p.not_increasing("graph", "src", "dst")),
        no_row("no_self_loops", p.equal("src", "dst"), when=("has_self_loops", False)),
        _symmetric("edges_symmetric", "edges.asymmetric", with_weight=False),
        exactly("every_edge_present", "rows", fact("num_edges")),
    ),
    "collection.features": (*in_range("graphs_in_range", "graph", 0, _LAST_GRAPH), *_FEATURE_ROWS),
    "labels.labels": (
        *_a_row_per_node(),
        *in_range("labels_in_range", "label", 0, _LAST_CLASS),
        Clause("some_node_labelled", ("label",), "label.present", low=1),
    ),
    "labels.splits": (
        *in_range("nodes_in_range", "node", 0, _LAST_NODE),
        no_row("roles_known", p.unknown("role", ROLES)),
        Clause("every_split_trains", ("split", "role"), "splits.without_train", high=0),
        Clause("every_split_tests", ("split", "role"), "splits.without_test", high=0),
    ),
    "labels.held_out_edges": (
        *in_range("endpoints_in_range", "src", 0, _LAST_NODE),
        *in_range("endpoints_in_range", "dst", 0, _LAST_NODE),
        no_row("roles_known", p.unknown("role", ROLES)),
        Clause("both_kinds_present", ("is_edge",), "is_edge.min", high=0),
        Clause("both_kinds_present", ("is_edge",), "is_edge.max", low=1),
    ),
    "smoothed.features": (
        *_a_row_per_node(),
        exactly("width_is_declared", "x.width", fact("num_features"), "x"),
        Clause(
            "values_bounded",
            ("x",),
            "x.max_abs",
            high=fact("max_abs"),
            offending=lambda _path, _table, _low, high: p.outside(
                "x", low=None if high is None else -high, high=high
            ),
        ),
    ),
    **dict.fromkeys(
        ("model.history", "victim.history"),
        (
            exactly("every_epoch_present", "rows", fact("num_epochs")),
            *in_range("epochs_not_negative", "epoch", 0, None),
            no_row("epochs_increasing", p.not_increasing("epoch")),
        ),
    ),
    "negatives.pairs": (
        *in_range("anchors_in_range", "anchor", 0, _LAST_NODE),
        *in_range("candidates_in_range", "candidate", 0, _LAST_NODE),
        *in_range("similarities_within_bound", "similarity", fact("min_similarity"), fact("max_similarity")),
        *in_range("weights_not_negative", "weight", 0.0, None),
    ),
    "embeddings.embeddings": _EMBEDDING,
    "controls.embeddings": _EMBEDDING,
    "checks.checks": (
        exactly("every_check_whole", "rows", fact("num_rows")),
        *in_range("epochs_in_range", "epoch", 1, fact("num_epochs")),
        *in_range("nodes_in_range", "node", 0, _LAST_NODE),
        no_row("checks_strictly_increasing", p.not_increasing("epoch", "node")),
        Clause("every_check_present", ("epoch",), "epoch.distinct", low=fact("num_checks")),
        exactly("width_is_declared", "z.width", fact("num_components"), "z"),
    ),
    "uncertainty.uncertainty": (
        *_a_row_per_node(),
        *in_range("uncertainty_not_negative", "uncertainty", 0.0, None),
        *in_range("uncertainty_bounded", "uncertainty", None, fact("max_uncertainty")),
        Clause("some_node_scored", ("uncertainty",), "uncertainty.present", low=1),
    ),
    "clusters.clusters": (
        *_a_row_per_node(),
        *in_range("clusters_in_range", "cluster", 0, _LAST_CLUSTER),
        Clause("no_empty_cluster", ("cluster",), "cluster.distinct", low=fact("num_clusters")),
        *in_range("confidence_in_range", "confidence", 0.0, 1.0),
        no_row("memberships_are_distributions", p.not_a_distribution("membership", tolerance=1e-3)),
        Clause(
            "memberships_cover_clusters", ("membership",), "membership.min_length", low=fact("num_clusters")
        ),
        Clause(
            "memberships_cover_clusters", ("membership",), "membership.max_length", high=fact("num_clusters")
        ),
    ),
    "clusters.centroids": (
        exactly("one_row_per_cluster", "rows", fact("num_clusters")),
        no_row("clusters_dense", p.out_of_place("cluster")),
        exactly("width_is_declared", "z.width", fact("embedding_size"), "z"),
    ),
    "clusters.evidence": in_range("num_clusters_positive", "num_clusters", 1, _NUM_NODES),
    "scores.embeddings": (*_SCORED, exactly("width_is_declared", "z.width", fact("embedding_size"), "z")),
    "scores.clusters": (
        *_SCORED,
        *in_range("clusters_in_range", "cluster", 0, _LAST_CLUSTER),
        *in_range("distances_not_negative", "distance", 0.0, None),
    ),
    "scores.shift": (
        no_row("measures_known", p.unknown("measure", SHIFT_MEASURES)),
        no_row("shift_within_bounds", _above("value", "bound")),
    ),
    "attacks.results": (
        exactly("every_attack_on_every_graph", "rows", fact("num_rows")),
        *in_range("graphs_in_range", "graph", 0, fact("num_graphs", plus=-1)),
        no_row("attacks_known", p.unknown("attack", ATTACKS)),
        *(c for x in ("label", "clean", "attacked") for c in in_range("classes_in_range", x, 0, _LAST_CLASS)),
        no_row("no_self_loops", p.equal("src", "dst")),
    ),
    "metrics.metrics": (*_FIGURES, no_row("no_oracle_among_results", p.known("split", (ORACLE,)))),
    "metrics.oracle": (*_FIGURES, no_row("split_is_oracle", p.unknown("split", (ORACLE,)))),
    "predictions.predictions": (
        *_a_row_per_node(),
        *in_range("predictions_in_range", "predicted", 0, _LAST_CLASS),
        *in_range("confidence_in_range", "confidence", 0.0, 1.0),
        *in_range("entropy_not_negative", "entropy", 0.0, None),
        *in_range("sets_in_range", "prediction_set", 0, _LAST_CLASS),
        no_row("sets_strictly_increasing", p.unordered_items("prediction_set")),
    ),
    "predictions.curves": (no_row("curves_ordered", p.decreasing_within("curve", "x")),),
}


FACTS: frozenset[str] = frozenset(
    name for clauses in CLAUSES.values() for clause in clauses for name in clause.fact_names()
)


def clauses_of(table: str, schema: pa.Schema) -> tuple[Clause, ...]:
    """The table's own clauses on columns the file has, and those every table has: present, finite, unique."""
    own = list(CLAUSES[table])
    if table in KEYS:
        own.append(_unique(table))
    for column in table_named(table).expected_columns(schema):
        if schema.names.count(column.name) == 1:
            own += _generic(table, column, schema.field(column.name).type)
    return tuple(clause for clause in own if set(clause.columns) <= set(schema.names))


def _generic(table: str, column: Column, type_: pa.DataType) -> list[Clause]:
    name = column.name
    present: list[Clause] = []
    if not column.nullable:
        present.append(_present(name, f"{name}.nulls", p.missing(name)))
    if is_list(type_):
        present.append(_present(name, f"{name}.null_items", p.missing_items(name)))
    if pa.types.is_floating(item_type(type_)):
        rule = _FINITE_RULE.get(table, "values_finite")
        present.append(
            Clause(
                rule,
                (name,),
                f"{name}.non_finite",
                high=0,
                offending=lambda _path, _table, _low, _high: p.not_finite(name),
            )
        )
    return present


def _present(name: str, figure: str, absent: Predicate) -> Clause:
    return Clause(
        "values_present", (name,), figure, high=0, offending=lambda _path, _table, _low, _high: absent
    )


def settle(clauses: Sequence[Clause], facts: Facts) -> list[tuple[Clause, float | None, float | None]]:
    """The clauses that apply under these facts, with their bounds."""
    settled = [(clause, clause.bounds(facts)) for clause in clauses]
    return [(clause, *bounds) for clause, bounds in settled if bounds is not None]


def build_suite(
    table: str, settled: Sequence[tuple[Clause, float | None, float | None]]
) -> "gx.ExpectationSuite":
    """The suite over the one-row profile: one expectation a clause, its rule in the expectation's meta.

    The maximum of a column of one row is its value; that expectation needs one metric where
    `ExpectColumnValuesToBeBetween` needs six, and takes a quarter of its time.
    """
    import great_expectations as gx
    from great_expectations.expectations.core.expect_column_max_to_be_between import (
        ExpectColumnMaxToBeBetween,
    )

    return gx.ExpectationSuite(
        name=table,
        expectations=[
            ExpectColumnMaxToBeBetween(
                column=clause.figure,
                min_value=low,
                max_value=high,
                meta={"clause": position, "rule": clause.rule, "column": clause.column},
            )
            for position, (clause, low, high) in enumerate(settled)
        ],
    )
