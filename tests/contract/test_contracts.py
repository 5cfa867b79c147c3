"""Every contract: a file that passes, and for every clause a file that breaks it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import TABLES, ContractViolation, check_table
from data_contracts.schema_check import SCHEMA_RULES
from data_contracts.suites import clauses_of
from data_contracts.tables import CONTRACT_KEY, VERSION_KEY
from tests.contract.attack_tables import ATTACK_BREAKS
from tests.contract.collection_tables import COLLECTION_BREAKS
from tests.contract.edits import drop_last_row, everything, know, put
from tests.contract.hetero_tables import HETERO_BREAKS

INF, NAN = float("inf"), float("nan")

SOUND = [
    *TABLES,
    "graph.nodes:collection",
    "graph.edges:weighted",
    "graph.features:sparse",
    "collection.features:sparse",
    "scores.embeddings:none",
]


# (sample, rule, column it is reported for, edit, first row of the sample shown or None)
_DENSE_TABLES = (
    "graph.nodes",
    "labels.labels",
    "smoothed.features",
    "embeddings.embeddings",
    "controls.embeddings",
    "uncertainty.uncertainty",
    "clusters.clusters",
    "predictions.predictions",
)
_ID_TABLES = tuple(name for name in _DENSE_TABLES if name not in ("labels.labels", "smoothed.features"))
BREAKS: list[tuple[str, str, str, Callable[[Any], None], int | None]] = [
    *((name, "one_row_per_node", "table", know(num_nodes=7), None) for name in _DENSE_TABLES),
    *((name, "ids_dense", "node", put("node", 4, 3), 4) for name in _DENSE_TABLES),
    *((name, "ids_unique", "node_id", put("node_id", 4, "b"), 1) for name in _ID_TABLES),
    ("graph.nodes:collection", "ids_unique", "node_id", put("node_id", 1, 2**53), 1),
    ("graph.nodes:collection", "graphs_in_range", "graph", put("graph", 5, 2), 5),
    ("graph.nodes", "values_present", "node_id", put("node_id", 2, None), 2),
    ("graph.edges", "endpoints_in_range", "src", put("src", 0, -1), 0),
    ("graph.edges", "endpoints_in_range", "src", put("src", 5, 6), 5),
    ("graph.edges", "endpoints_in_range", "dst", put("dst", 5, 2**32 + 1), 5),
    ("graph.edges", "endpoints_in_range", "dst", put("dst", 5, 6), 5),
    ("graph.edges", "edges_strictly_increasing", "src, dst", put("dst", 1, 1), 1),
    ("graph.edges", "edges_strictly_increasing", "src, dst", put("src", 5, 1), 5),
    ("graph.edges", "no_self_loops", "src, dst", put("dst", 5, 3), 5),
    ("graph.edges", "edges_symmetric", "src, dst", put("dst", 5, 4), 4),
    ("graph.edges", "every_edge_present", "table", know(num_edges=8), None),
    ("graph.edges", "values_present", "dst", put("dst", 3, None), 3),
    ("graph.edges:weighted", "weights_finite", "weight", put("weight", 1, INF), 1),
    ("graph.edges:weighted", "weights_symmetric", "src, dst, weight", put("weight", 3, 2.5), 1),
    ("graph.features", "one_row_per_node", "table", drop_last_row, None),
    ("graph.features", "width_is_declared", "x", know(num_features=3), None),
    ("graph.features", "features_finite", "x", put("x", 3, [0.0, NAN]), 3),
    ("graph.features", "features_finite", "x", put("x", 5, [-INF, 0.0]), 5),
    ("graph.features", "values_present", "x", put("x", 2, [0.0, None]), 2),
    ("graph.features:sparse", "indices_in_range", "indices", put("indices", 2, [3]), 2),
    ("graph.features:sparse", "indices_in_range", "indices", put("indices", 2, [-1]), 2),
    ("graph.features:sparse", "indices_strictly_increasing", "indices", put("indices", 3, [0, 0, 2]), 3),
    ("graph.features:sparse", "indices_match_values", "indices, values", put("values", 1, [1.0]), 1),
    ("graph.features:sparse", "features_finite", "values", put("values", 4, [NAN]), 4),
    ("labels.labels", "labels_in_range", "label", put("label", 1, 3), 1),
    ("labels.labels", "labels_in_range", "label", put("label", 1, -1), 1),
    ("labels.labels", "some_node_labelled", "label", everything("label", None), None),
    ("labels.labels", "values_present", "node", put("node", 5, None), 5),
    ("labels.splits", "nodes_in_range", "node", put("node", 2, 6), 2),
    ("labels.splits", "roles_known", "role", put("role", 1, "val"), 1),
    ("labels.splits", "every_split_trains", "split, role", put("role", 4, "test"), None),
    ("labels.splits", "every_split_tests", "split, role", put("role", 2, "validation"), None),
    ("labels.splits", "keys_unique", "split, node", put("node", 2, 0), 0),
    ("labels.splits", "values_present", "split", put("split", 0, None), 0),
    ("labels.held_out_edges", "endpoints_in_range", "dst", put("dst", 1, 6), 1),
    ("labels.held_out_edges", "roles_known", "role", put("role", 1, "?"), 1),
    ("labels.held_out_edges", "both_kinds_present", "is_edge", everything("is_edge", True), None),
    ("labels.held_out_edges", "both_kinds_present", "is_edge", everything("is_edge", False), None),
    (
        "labels.held_out_edges",
        "keys_unique",
        "src, dst",
        lambda s: (put("src", 1, 0)(s), put("dst", 1, 1)(s)),
        0,
    ),
    ("labels.held_out_edges", "values_present", "is_edge", put("is_edge", 2, None), 2),
    ("smoothed.features", "width_is_declared", "x", know(num_features=3), None),
    ("smoothed.features", "features_finite", "x", put("x", 1, [NAN, 0.0]), 1),
    ("smoothed.features", "values_bounded", "x", put("x", 1, [-2.5, 0.0]), 1),
    ("smoothed.features", "values_present", "x", put("x", 1, None), 1),
    ("model.history", "every_epoch_present", "table", drop_last_row, None),
    ("model.history", "epochs_not_negative", "epoch", put("epoch", 0, -1), 0),
    ("model.history", "epochs_increasing", "epoch", put("epoch", 2, 1), 2),
    ("model.history", "losses_finite", "contrastive", put("contrastive", 1, NAN), 1),
    ("model.history", "values_present", "loss", put("loss", 1, None), 1),
    *(
        entry
        for name in ("embeddings.embeddings", "controls.embeddings")
        for entry in (
            (name, "width_is_declared", "z", know(embedding_size=3), None),
            (name, "not_collapsed", "z", everything("z", [1.0, 2.0]), None),
            (name, "not_collapsed", "z", lambda s: s.data.update(z=[[k, 2 * k] for k in range(6)]), None),
            (name, "embeddings_finite", "z", put("z", 4, [NAN, NAN]), 4),
            (name, "values_present", "z", put("z", 4, [None, 1.0]), 4),
        )
    ),
    ("negatives.pairs", "anchors_in_range", "anchor", put("anchor", 1, 6), 1),
    ("negatives.pairs", "anchors_in_range", "anchor", put("anchor", 1, -1), 1),
    ("negatives.pairs", "candidates_in_range", "candidate", put("candidate", 2, 6), 2),
    ("negatives.pairs", "candidates_in_range", "candidate", put("candidate", 2, -1), 2),
    ("negatives.pairs", "similarities_within_bound", "similarity", put("similarity", 0, 1.5), 0),
    ("negatives.pairs", "similarities_within_bound", "similarity", put("similarity", 0, -1.5), 0),
    ("negatives.pairs", "weights_not_negative", "weight", put("weight", 0, -0.1), 0),
    ("negatives.pairs", "values_finite", "weight", put("weight", 0, NAN), 0),
    ("negatives.pairs", "values_present", "anchor", put("anchor", 0, None), 0),
    ("checks.checks", "every_check_whole", "table", drop_last_row, None),
    ("checks.checks", "epochs_in_range", "epoch", put("epoch", 0, 0), 0),
    ("checks.checks", "epochs_in_range", "epoch", put("epoch", 5, 5), 5),
    ("checks.checks", "nodes_in_range", "node", put("node", 0, -1), 0),
    ("checks.checks", "nodes_in_range", "node", put("node", 5, 3), 5),
    ("checks.checks", "checks_strictly_increasing", "epoch, node", put("node", 1, 0), 1),
    ("checks.checks", "checks_strictly_increasing", "epoch, node", put("epoch", 4, 3), 4),
    ("checks.checks", "every_check_present", "epoch", everything("epoch", 2), None),
    ("checks.checks", "width_is_declared", "z", know(num_components=3), None),
    ("checks.checks", "embeddings_finite", "z", put("z", 4, [NAN, 1.0]), 4),
    ("checks.checks", "values_present", "z", put("z", 4, [None, 1.0]), 4),
    ("uncertainty.uncertainty", "uncertainty_not_negative", "uncertainty", put("uncertainty", 3, -0.5), 3),
    ("uncertainty.uncertainty", "uncertainty_bounded", "uncertainty", put("uncertainty", 3, 1.5), 3),
    ("uncertainty.uncertainty", "some_node_scored", "uncertainty", everything("uncertainty", None), None),
    ("uncertainty.uncertainty", "values_finite", "uncertainty", put("uncertainty", 3, INF), 3),
    ("uncertainty.uncertainty", "values_present", "method", put("method", 3, None), 3),
    ("clusters.clusters", "clusters_in_range", "cluster", put("cluster", 3, -1), 3),
    ("clusters.clusters", "clusters_in_range", "cluster", put("cluster", 3, 2), 3),
    ("clusters.clusters", "no_empty_cluster", "cluster", everything("cluster", 1), None),
    ("clusters.clusters", "confidence_in_range", "confidence", put("confidence", 2, 1.5), 2),
    ("clusters.clusters", "memberships_are_distributions", "membership", put("membership", 2, [0.5, 0.4]), 2),
    (
        "clusters.clusters",
        "memberships_are_distributions",
        "membership",
        put("membership", 2, [1.5, -0.5]),
        2,
    ),
    ("clusters.clusters", "memberships_cover_clusters", "membership", put("membership", 2, [1.0]), None),
    (
        "clusters.clusters",
        "memberships_cover_clusters",
        "membership",
        put("membership", 2, [1.0, 0, 0]),
        None,
    ),
    ("clusters.clusters", "values_finite", "membership", put("membership", 2, [NAN, 1.0]), 2),
    ("clusters.clusters", "values_present", "membership", put("membership", 2, [None, 1.0]), 2),
    ("clusters.centroids", "one_row_per_cluster", "table", drop_last_row, None),
    ("clusters.centroids", "clusters_dense", "cluster", put("cluster", 1, 0), 1),
    ("clusters.centroids", "width_is_declared", "z", know(embedding_size=3), None),
    ("clusters.centroids", "values_finite", "z", put("z", 1, [NAN, 0.0]), 1),
    ("clusters.centroids", "values_present", "z", put("z", 1, None), 1),
    ("clusters.evidence", "num_clusters_positive", "num_clusters", put("num_clusters", 2, 0), 2),
    ("clusters.evidence", "keys_unique", "num_clusters, measure", put("num_clusters", 2, 2), 1),
    ("clusters.evidence", "values_finite", "value", put("value", 2, -INF), 2),
    ("clusters.evidence", "values_present", "measure", put("measure", 2, None), 2),
    *(
        entry
        for name in ("scores.embeddings", "scores.clusters")
        for entry in (
            (name, "every_wanted_node_scored", "table", know(num_scored=3), None),
            (name, "nodes_in_range", "node", put("node", 1, 6), 1),
            (name, "nodes_strictly_increasing", "node", put("node", 1, 1), 1),
            (name, "ids_unique", "node_id", put("node_id", 1, "b"), 0),
            (name, "values_present", "node_id", put("node_id", 1, None), 1),
        )
    ),
    ("scores.embeddings", "width_is_declared", "z", know(embedding_size=3), None),
    ("scores.embeddings", "embeddings_finite", "z", put("z", 1, [NAN, 1.0]), 1),
    ("scores.clusters", "clusters_in_range", "cluster", put("cluster", 0, 2), 0),
    ("scores.clusters", "distances_not_negative", "distance", put("distance", 0, -0.5), 0),
    ("scores.clusters", "values_finite", "distance", put("distance", 0, INF), 0),
    ("scores.shift", "measures_known", "measure", put("measure", 1, "drift"), 1),
    ("scores.shift", "shift_within_bounds", "measure, value, bound", put("value", 0, 0.03), 0),
    ("scores.shift", "keys_unique", "measure", put("measure", 1, "shift"), 1),
    ("scores.shift", "values_finite", "value", put("value", 0, NAN), 0),
    ("scores.shift", "values_present", "measure", put("measure", 0, None), 0),
    *(
        entry
        for name in ("metrics.metrics", "metrics.oracle")
        for entry in (
            (name, "metrics_in_range", "metric, value", put("value", 0, 81.5), 0),
            (name, "metrics_in_range", "metric, value", put("value", 1, -1.5), 1),
            (name, "embedding_known", "embedding", put("embedding", 1, "raw"), 1),
            (name, "deviation_not_negative", "std", put("std", 1, -0.1), 1),
            (name, "counts_positive", "n", put("n", 1, 0), 1),
            (
                name,
                "keys_unique",
                "task, protocol, split, seed, embedding, metric, over",
                lambda s: s.data.update({name: [values[1]] * 2 for name, values in s.data.items()}),
                0,
            ),
            (name, "values_finite", "value", put("value", 0, NAN), 0),
            (name, "values_present", "task", put("task", 0, None), 0),
        )
    ),
    ("metrics.metrics", "no_oracle_among_results", "split", put("split", 1, "oracle"), 1),
    ("metrics.oracle", "split_is_oracle", "split", put("split", 1, "test"), 1),
    ("metrics.oracle", "split_is_oracle", "split", put("split", 0, None), 0),
    ("predictions.predictions", "predictions_in_range", "predicted", put("predicted", 0, 3), 0),
    ("predictions.predictions", "confidence_in_range", "confidence", put("confidence", 0, -0.5), 0),
    ("predictions.predictions", "entropy_not_negative", "entropy", put("entropy", 0, -0.5), 0),
    ("predictions.predictions", "sets_in_range", "prediction_set", put("prediction_set", 0, [3]), 0),
    (
        "predictions.predictions",
        "sets_strictly_increasing",
        "prediction_set",
        put("prediction_set", 0, [1, 1]),
        0,
    ),
    ("predictions.predictions", "values_finite", "confidence", put("confidence", 0, NAN), 0),
    ("predictions.predictions", "values_present", "node_id", put("node_id", 0, None), 0),
    ("predictions.curves", "curves_ordered", "curve, x", put("x", 2, 0.25), 2),
    ("predictions.curves", "values_finite", "y", put("y", 2, NAN), 2),
    ("predictions.curves", "values_present", "x", put("x", 2, None), 2),
    *HETERO_BREAKS,
    *COLLECTION_BREAKS,
    *ATTACK_BREAKS,
]


@pytest.mark.parametrize("name", SOUND)
def test_contract_holds_for_sound_table(name: str, sample: Any, tmp_path: Path) -> None:
    sound = sample(name)
    result = check_table(sound.write(tmp_path / "t.parquet"), sound.table, context=sound.context)
    assert result.failed == 0
    assert result.passed >= len(result.rules) > len(SCHEMA_RULES)
    assert result.failures == ()


@pytest.mark.parametrize(
    ("name", "rule", "column", "edit", "first_row"),
    BREAKS,
    ids=[f"{entry[0]}-{entry[1]}-{position}" for position, entry in enumerate(BREAKS)],
)
def test_contract_reports_broken_clause(
    name: str,
    rule: str,
    column: str,
    edit: Callable[[Any], None],
    first_row: int | None,
    sample: Any,
    tmp_path: Path,
) -> None:
    broken = sample(name)
    edit(broken)
    with pytest.raises(ContractViolation) as caught:
        check_table(broken.write(tmp_path / "t.parquet"), broken.table, context=broken.context)
    failures = [f for f in caught.value.failures if f.rule == rule and f.column == column]
    assert failures, f"{rule} not among {[(f.rule, f.column) for f in caught.value.failures]}"
    if first_row is not None:
        assert failures[0].sample[0]["row"] == first_row
        assert failures[0].num_rows is not None
        assert failures[0].num_rows >= 1


def test_every_clause_has_a_broken_table(sample: Any) -> None:
    declared = set()
    for name in SOUND:
        table = TABLES[name.partition(":")[0]]
        schema = table.schema(**sample(name).schema)
        declared |= {(table.name, clause.rule) for clause in clauses_of(table.name, schema)}
    broken = {(name.partition(":")[0], rule) for name, rule, *_ in BREAKS}
    assert declared == broken


def test_every_table_has_a_sound_sample(sample_names: list[str]) -> None:
    assert {name.partition(":")[0] for name in sample_names} == set(TABLES)


def _with_metadata(schema: pa.Schema, key: str, value: str) -> pa.Schema:
    return schema.with_metadata({**schema.metadata, key.encode(): value.encode()})


SCHEMA_EDITS: dict[str, tuple[Callable[[pa.Schema], pa.Schema], str]] = {
    "another contract": (lambda s: _with_metadata(s, CONTRACT_KEY, "graph.nodes"), "contract_is_named"),
    "no metadata": (lambda s: s.remove_metadata(), "contract_is_named"),
    "another major version": (lambda s: _with_metadata(s, VERSION_KEY, "2.0"), "contract_version_compatible"),
    "dropped column": (lambda s: s.remove(1), "columns_as_declared"),
    "added column": (lambda s: s.append(pa.field("y", pa.int64())), "columns_as_declared"),
    "columns reordered": (
        lambda s: pa.schema([s.field(1), s.field(0)], s.metadata),
        "columns_as_declared",
    ),
    "int32 for int64": (lambda s: s.set(0, pa.field("src", pa.int32(), nullable=False)), "types_as_declared"),
    "float for int64": (
        lambda s: s.set(1, pa.field("dst", pa.float64(), nullable=False)),
        "types_as_declared",
    ),
    "nullable": (lambda s: s.set(0, s.field(0).with_nullable(True)), "nullability_as_declared"),
    "contradicting metadata": (lambda s: _with_metadata(s, "num_nodes", "5"), "metadata_agree"),
}


@pytest.mark.parametrize("edit", SCHEMA_EDITS)
def test_schema_drift_is_reported(edit: str, sample: Any, tmp_path: Path) -> None:
    edges = sample("graph.edges")
    edges.edit_schema, rule = SCHEMA_EDITS[edit]
    edges.data["y"] = edges.data["src"]
    with pytest.raises(ContractViolation) as caught:
        check_table(edges.write(tmp_path / "t.parquet"), "graph.edges", context=edges.context)
    assert rule in {failure.rule for failure in caught.value.failures}
    assert caught.value.result.failed >= 1


def test_minor_version_is_accepted(sample: Any, tmp_path: Path) -> None:
    edges = sample("graph.edges")
    edges.edit_schema = lambda schema: _with_metadata(schema, VERSION_KEY, "1.7")
    assert check_table(edges.write(tmp_path / "t.parquet"), "graph.edges", context={}).failed == 0


def test_all_failures_are_collected(sample: Any, tmp_path: Path) -> None:
    edges = sample("graph.edges")
    put("src", 0, -1)(edges)
    put("dst", 5, 3)(edges)
    edges.edit_schema = lambda schema: _with_metadata(schema, VERSION_KEY, "2.0")
    with pytest.raises(ContractViolation) as caught:
        check_table(edges.write(tmp_path / "t.parquet"), "graph.edges", context=edges.context)
    rules = {failure.rule for failure in caught.value.failures}
    assert {"contract_version_compatible", "endpoints_in_range", "no_self_loops", "edges_symmetric"} <= rules


def test_clause_is_left_out_when_its_fact_is_absent(sample: Any, tmp_path: Path) -> None:
    edges = sample("graph.edges")
    put("dst", 5, 4)(edges)
    path = edges.write(tmp_path / "t.parquet")
    result = check_table(path, "graph.edges", context={"is_undirected": False})
    assert "edges_symmetric" not in result.rules
    assert "every_edge_present" not in result.rules


def test_empty_edge_table_is_sound(sample: Any, tmp_path: Path) -> None:
    edges = sample("graph.edges")
    edges.data = {"src": [], "dst": []}
    facts = {**edges.context, "num_edges": 0}
    assert check_table(edges.write(tmp_path / "t.parquet"), "graph.edges", context=facts).failed == 0


def test_bipartite_edges_have_a_range_each(sample: Any, tmp_path: Path) -> None:
    edges = sample("graph.edges")
    path = edges.write(tmp_path / "t.parquet")
    facts = {"num_src_nodes": 4, "num_dst_nodes": 3}
    with pytest.raises(ContractViolation) as caught:
        check_table(path, "graph.edges", context=facts)
    assert [failure.column for failure in caught.value.failures] == ["dst"]


@pytest.mark.slow
def test_every_metric_of_a_run_has_a_range_and_every_range_a_metric(tmp_path: Path) -> None:
    from data_contracts.suites import METRIC_RANGES
    from tests.tiny_runs import run_direct, tiny

    state = run_direct(
        tiny(
            "dataset.edge_holdout=0.1",
            "evaluate.target_risk=0.9",
            "method.name=progcl",  # which weighs its negatives, so that those figures are there too
            "method.start_epoch=1",
        ),
        tmp_path / "store",
        until="evaluate",
    ).state
    table = pq.read_table(state.store.path(state.artifacts["metrics"]) / "metrics.parquet")
    assert set(table.column("metric").to_pylist()) == set(METRIC_RANGES)
