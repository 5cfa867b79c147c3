"""The contract between runs: what a run may lose, and what cannot be compared."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.config import PipelineConfig
from flows.wiring import PipelineState
from gcl.config import affects_results, result_fields
from tasks.convert import write_matrix
from tasks.errors import ArtifactCorrupted
from tasks.regression import Comparison, RunRegressed, compare_with_last_good
from tasks.regression_config import RegressionConfig
from tasks.runs import RunEntry, Runs
from tasks.store import Store
from tests.tiny_runs import describe_folder, key_of, tiny

N, D = 60, 6
BOUNDS = RegressionConfig()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def embedding(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N, D)).astype(np.float32)


def publish_run(
    store: Store,
    name: str,
    z_ND: np.ndarray,
    *,
    ids: Any = None,
    cluster_N: np.ndarray | None = None,
    accuracy: float | None = 0.9,
    config: dict[str, Any] | None = None,
) -> RunEntry:
    """A run that has embeddings and clusters alone, with the given accuracy."""
    count = len(z_ND)
    ids = np.arange(count) if ids is None else ids
    kind = pa.int64() if isinstance(ids, np.ndarray) else pa.string()
    key = key_of(name)
    with store.writing("train", key) as folder:
        (folder / "embeddings").mkdir()
        (folder / "clusters").mkdir()
        others = {"node": np.arange(count), "node_id": ids}
        path = folder / "embeddings" / "embeddings.parquet"
        write_matrix(path, "embeddings.embeddings", z_ND, column="z", others=others, node_id_type=kind)
        clusters = np.arange(count) % 3 if cluster_N is None else cluster_N
        columns = {**others, "cluster": clusters, "confidence": np.ones(count)}
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        pq.write_table(table, folder / "clusters" / "clusters.parquet")
        manifest = store.publish(folder, describe_folder(folder, "train", key))
    return RunEntry(
        series="nightly",
        config=config or {"dataset": {"name": "tiny"}, "method": {"name": "dmat_i"}},
        preset=None,
        seed=0,
        keys={"train": key},
        artifacts=manifest.artifacts,
        metrics=[] if accuracy is None else [metric(accuracy)],
        good=True,
        reason=None,
    )


def metric(value: float, **changes: Any) -> dict[str, Any]:
    return {
        "task": "node_classification", "protocol": "planetoid-public", "split": "test", "seed": 0,
        "embedding": "method", "metric": "accuracy", "value": value,
    } | changes  # fmt: skip


def compare(store: Store, before: RunEntry, now: RunEntry, bounds: RegressionConfig = BOUNDS) -> Comparison:
    runs = Runs(store)
    runs.advance(runs.record(before))
    return compare_with_last_good(runs, now, bounds)


def rows(comparison: Comparison) -> dict[str, Any]:
    return {row.name: row for row in comparison.rows}


def test_the_first_run_of_a_series_passes(store: Store) -> None:
    found = compare_with_last_good(Runs(store), publish_run(store, "first", embedding()), BOUNDS)
    assert found.passed
    assert found.against is None
    assert found.rows == ()


def test_the_same_result_again_passes_with_full_agreement(store: Store) -> None:
    before = publish_run(store, "before", embedding())
    found = compare(store, before, publish_run(store, "now", embedding()))
    assert found.passed
    assert found.reason is None
    assert found.against == before.run
    values = {name: row.now for name, row in rows(found).items()}
    assert values == {
        "accuracy (planetoid-public)": 0.9,
        "cluster_agreement": 1.0,
        "embedding_drift": pytest.approx(0, abs=1e-9),
        "neighbour_overlap": 1.0,
    }


@pytest.mark.parametrize(("now", "passed"), [(0.9, True), (0.88, True), (0.879, False), (0.99, True)])
def test_accuracy_may_fall_by_the_bound_and_rise_freely(store: Store, now: float, passed: bool) -> None:
    before = publish_run(store, "before", embedding())
    found = compare(store, before, publish_run(store, "now", embedding(), accuracy=now))
    assert found.passed is passed
    row = rows(found)["accuracy (planetoid-public)"]
    assert (row.before, row.now, row.bound, row.passed) == (0.9, now, 0.02, passed)
    if not passed:
        assert "fell from 0.9000 to 0.8790, more than the drop of 0.02" in str(found.reason)


def test_only_the_methods_test_accuracy_counts(store: Store) -> None:
    others = [
        metric(0.9, split="validation"), metric(0.9, embedding="smoothed"), metric(0.9, metric="macro_f1"),
        metric(0.9, split="all"),
    ]  # fmt: skip
    low = [row | {"value": 0.1} for row in others]
    others.append(metric(0.9, protocol="undefined") | {"value": None})
    before = publish_run(store, "before", embedding()).model_copy(update={"metrics": others})
    now = publish_run(store, "now", embedding()).model_copy(update={"metrics": low})
    found = compare(store, before, now)
    assert found.passed
    assert not any(name.startswith("accuracy") for name in rows(found))


def test_an_accuracy_that_is_no_longer_measured_fails(store: Store) -> None:
    before = publish_run(store, "before", embedding())
    now = publish_run(store, "now", embedding(), accuracy=None)
    found = compare(store, before, now)
    assert not found.passed
    assert "no longer measured" in str(found.reason)


def test_other_clusters_and_other_embeddings_fail(store: Store) -> None:
    before = publish_run(store, "before", embedding())
    shuffled = np.random.default_rng(5).permutation(np.arange(N) % 3)
    found = compare(store, before, publish_run(store, "now", embedding(7), cluster_N=shuffled))
    passed = {name: row.passed for name, row in rows(found).items()}
    assert passed == {
        "accuracy (planetoid-public)": True,
        "cluster_agreement": False,
        "embedding_drift": False,
        "neighbour_overlap": False,
    }
    assert all(name in str(found.reason) for name, is_good in passed.items() if not is_good)


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("max_accuracy_drop", "accuracy (planetoid-public)"),
        ("min_cluster_agreement", "cluster_agreement"),
        ("max_embedding_drift", "embedding_drift"),
        ("min_neighbour_overlap", "neighbour_overlap"),
    ],
)
def test_none_switches_one_bound_off(store: Store, field: str, name: str) -> None:
    before = publish_run(store, "before", embedding())
    now = publish_run(store, "now", embedding(7), accuracy=0.1, cluster_N=np.arange(N) // 20)
    found = rows(compare(store, before, now, RegressionConfig(**{field: None})))
    assert name not in found
    assert len(found) == 3
    assert not any(row.passed for row in found.values())


def test_switched_off_nothing_is_compared(store: Store) -> None:
    before = publish_run(store, "before", embedding())
    now = publish_run(store, "now", embedding(7), accuracy=0.1)
    assert compare(store, before, now, RegressionConfig(enabled=False)).rows == ()


def test_equal_results_need_not_be_read(store: Store) -> None:
    before = publish_run(store, "before", embedding())
    now = publish_run(store, "now", embedding())
    shutil.rmtree(store.stage_folder("train", before.keys["train"]))
    assert all(row.is_comparable for row in compare(store, before, now).rows)


def test_nodes_are_matched_by_their_own_ids_in_any_order_and_type(store: Store) -> None:
    order = np.random.default_rng(3).permutation(N)
    kept = order[:50]
    before = publish_run(store, "before", embedding())
    strangers = np.concatenate([kept, [1000, 1001]])
    z_PD = np.concatenate([embedding()[kept], np.full((2, D), 99, np.float32)])
    clusters = np.concatenate([kept % 3, [0, 1]])
    for name, ids in (("numbers", strangers), ("words", [str(node) for node in strangers])):
        found = rows(compare(store, before, publish_run(store, name, z_PD, ids=ids, cluster_N=clusters)))
        assert found["cluster_agreement"].now == 1
        assert found["embedding_drift"].now == pytest.approx(0, abs=1e-9)
        assert found["neighbour_overlap"].now == 1
        assert "50 nodes both have (before 60, now 52)" in found["embedding_drift"].reason


def test_without_common_nodes_nothing_can_be_said(store: Store) -> None:
    before = publish_run(store, "before", embedding())
    found = compare(store, before, publish_run(store, "now", embedding(), ids=np.arange(N) + 1000))
    row = rows(found)["embedding_drift"]
    assert row.passed
    assert not row.is_comparable
    assert "share 0 node" in row.reason


@pytest.mark.parametrize("damage", ["gone", "altered", "truncated", "no record"])
def test_what_was_good_may_be_gone_or_damaged(
    store: Store, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = publish_run(store, "before", embedding())
    folder = store.stage_folder("train", before.keys["train"])
    table = folder / "embeddings" / "embeddings.parquet"
    if damage == "gone":
        shutil.rmtree(folder)
    elif damage == "no record":
        before = before.model_copy(update={"artifacts": {}})
    else:
        content = table.read_bytes()
        table.chmod(0o600)
        table.write_bytes(content[:50] if damage == "truncated" else content[:-1] + b"\0")
    now = publish_run(store, "now", embedding(7), cluster_N=np.arange(N) // 20, accuracy=0.89)
    found = compare(store, before, now)
    assert found.passed, "it is not the run's fault"
    silent = {name for name, row in rows(found).items() if not row.is_comparable}
    assert silent == {"cluster_agreement", "embedding_drift", "neighbour_overlap"}
    assert all(row.reason.startswith("not comparable") for row in found.rows if not row.is_comparable)
    assert "not comparable" in caplog.text
    worse = publish_run(store, "worse", embedding(8), accuracy=0.5)
    assert not compare_with_last_good(Runs(store), worse, BOUNDS).passed, "accuracies need no artifact"


def test_a_damaged_result_of_the_run_itself_is_an_error(store: Store) -> None:
    before, now = publish_run(store, "before", embedding()), publish_run(store, "now", embedding(7))
    shutil.rmtree(store.stage_folder("train", now.keys["train"]))
    with pytest.raises(ArtifactCorrupted):
        compare(store, before, now)


def test_another_method_is_compared_and_said(store: Store) -> None:
    before = publish_run(store, "before", embedding())
    other = {"dataset": {"name": "tiny"}, "method": {"name": "grace"}}
    found = compare(store, before, publish_run(store, "now", embedding(), accuracy=0.5, config=other))
    assert found.notes == ("method.name 'dmat_i' -> 'grace'",)
    assert all("'dmat_i' -> 'grace'" in row.reason for row in found.rows)
    assert not found.passed


def test_a_series_starts_anew_with_another_data_set(store: Store) -> None:
    before = publish_run(store, "before", embedding())
    other = {"dataset": {"name": "cora"}, "method": {"name": "dmat_i"}}
    found = compare(store, before, publish_run(store, "now", embedding(seed=9), accuracy=0.1, config=other))
    assert found.passed
    assert found.rows == ()
    assert any("starts anew" in note for note in found.notes)


def test_a_regression_says_what_fell_and_how_to_accept_it(store: Store) -> None:
    before = publish_run(store, "before", embedding())
    now = publish_run(store, "now", embedding(), accuracy=0.5)
    error = RunRegressed(compare(store, before, now), "the/store")
    text = str(error)
    accept = f"gclflow store accept {now.run} --store the/store"
    for part in (now.run, before.run, "nightly", "0.9000 to 0.5000", "0.02", accept):
        assert part in text
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == text
    assert again.as_dict()["comparison"]["rows"][0]["passed"] is False


def test_an_accepted_run_is_what_the_next_is_compared_with(store: Store) -> None:
    runs = Runs(store)
    runs.advance(runs.record(publish_run(store, "before", embedding())))
    low = publish_run(store, "low", embedding(), accuracy=0.5)
    rejected = runs.record(low.model_copy(update={"good": False, "reason": "accuracy fell"}))
    accepted = runs.accept(rejected.run)
    assert accepted.good
    assert "accuracy fell" in str(accepted.reason)
    assert runs.last_good("nightly") == accepted
    following = publish_run(store, "following", embedding(), accuracy=0.49)
    assert compare_with_last_good(runs, following, BOUNDS).passed


def test_bounds_touch_no_key() -> None:
    assert not affects_results(PipelineConfig, "regression")
    assert result_fields(RegressionConfig()) == {}
    assert all(info.description for info in RegressionConfig.model_fields.values())
    names = [name for name in RegressionConfig.model_fields if name != "enabled"]
    changed = ("regression.enabled=false", *(f"regression.{name}=0.5" for name in names))
    assert result_fields(tiny()) == result_fields(tiny(*changed))


def test_stage_keys_are_the_same_under_other_bounds(store_copy: Path) -> None:
    from flows.wiring import request_ingest, request_smooth

    requests = []
    for config in (tiny(), tiny("regression.max_accuracy_drop=none", "regression.enabled=false")):
        state = PipelineState(config, Store(store_copy))
        manifest = next(state.store.recent("ingest", 1))
        assert manifest is not None
        state.artifacts.update(manifest.artifacts)
        requests.append((request_ingest(state).key, request_smooth(state).key))
    assert requests[0] == requests[1]


@pytest.mark.parametrize("text", ["none", "0.5"])
def test_bounds_are_set_on_the_command_line(text: str) -> None:
    config = tiny(f"regression.min_neighbour_overlap={text}")
    assert config.regression.min_neighbour_overlap == (None if text == "none" else 0.5)
