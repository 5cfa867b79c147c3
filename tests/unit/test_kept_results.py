"""What is kept of runs and studies: no paths; seeds or data sets are joined only where all else is equal."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.benchmark_programs import beside_programs, metric, program


@pytest.fixture(scope="module", autouse=True)
def beside() -> Iterator[None]:
    with beside_programs():
        yield


@pytest.fixture(scope="module")
def keeper() -> ModuleType:
    return program("results")


def study_of(*datasets: str, **changes: Any) -> dict[str, Any]:
    """The record of a study with one cell a data set."""
    cells = [
        {"dataset": name, "variant": "default", "point": {}, "seed": 0, "state": "failed", "reason": "none",
         "preset": "none", "overrides": ["seed=0"], "metrics": [metric("nmi", 0.5)]}
        for name in datasets
    ]  # fmt: skip
    rows = [
        {"figure": "nmi", "dataset": name, "variant": "default", "point": {}, "mean": 0.5, "std": None,
         "n": 1, "values": {0: 0.5}}
        for name in datasets
    ]  # fmt: skip
    study = {"name": "tiny", "title": "Tiny", "question": "?", "figures": ["*"],
             "datasets": [{"name": "one"}, {"name": "two"}]}  # fmt: skip
    return {
        "study": study, "call": {"only": [f"*/{name}" for name in datasets]}, "seeds": [0],
        "num_planned": len(cells), "versions": {"torch": "2"}, "machine": {"cores": 2}, "cells": cells,
        "summary": rows,
    } | changes  # fmt: skip


def test_runs_and_studies_are_kept_without_paths(
    keeper: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "RESULTS", tmp_path / "results")
    stage = {"stage": "train", "state": "ran", "seconds": 2.0, "peak_rss_bytes": 5}
    cached = {"stage": "smooth", "state": "cached", "seconds": 0.1, "peak_rss_bytes": 9}
    run = {"config": {"dataset": {"name": "cora", "path": "secret/data"}, "method": {"name": "grace"}},
           "preset": None,
           "seeds": [0], "versions": {}, "device": "cpu", "machine": {}, "store": "secret/store",
           "stages": [stage, cached], "metrics": [], "validation_metrics": [], "notes": []}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(run))
    keeper.add(tmp_path, "cora-grace", "gclflow run")
    record = study_of("one")
    (tmp_path / "study.json").write_text(json.dumps(record))
    keeper.add_study(tmp_path)
    kept = {path.name: path.read_text() for path in (tmp_path / "results").rglob("*.json")}
    assert set(kept) == {"cora-grace.json", "tiny.json"}
    assert not any("secret" in text for text in kept.values())
    run = json.loads(kept["cora-grace.json"])
    assert (run["stage_seconds"], run["peak_rss_bytes"]) == ({"train": 2.0}, 5)
    assert json.loads(kept["tiny.json"])["cells"][0]["metrics"] == []


def pool_of(tables: Any, seeds: list[int], **changes: Any) -> dict[str, Any]:
    """What is kept of a run whose accuracy was `tables` by seed."""
    values = np.array(tables)
    row = metric("accuracy", float(values.mean()), std=float(values.std(ddof=1)), n=len(values))
    return {
        "config": {"seed": seeds[0], "method": {"name": "hsan"}}, "preset": "x", "device": "cpu",
        "versions": {"torch": "2"}, "machine": {"cores": 2}, "command": f"--seeds {seeds}", "seeds": seeds,
        "metrics": [row], "validation_metrics": [], "oracle_metrics": [], "peak_rss_bytes": len(seeds),
    } | changes  # fmt: skip


def test_pooled_seeds_are_what_one_run_over_all_of_them_would_give(keeper: ModuleType) -> None:
    values = [0.7, 0.75, 0.72, 0.9, 0.65]
    both = keeper.pooled(pool_of(values[:2], [0, 1]), pool_of(values[2:], [2, 3, 4]))
    assert both["seeds"] == [0, 1, 2, 3, 4]
    assert both["metrics"][0]["n"] == 5
    assert both["metrics"][0]["value"] == pytest.approx(np.mean(values))
    assert both["metrics"][0]["std"] == pytest.approx(np.std(values, ddof=1))
    assert (both["peak_rss_bytes"], len(both["machines"])) == (3, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": [1, 5]},
        {"preset": "y"},
        {"chosen_with_labels": True},
        {"versions": {"torch": "3"}},
        {"config": {"seed": 2, "method": {"name": "grace"}}},
        {"metrics": [metric("accuracy", 0.5, over="k-means seeds")]},
        {"metrics": [metric("accuracy", 0.5, n=1)]},
    ],
)
def test_what_is_not_the_same_is_not_pooled(keeper: ModuleType, changes: dict[str, Any]) -> None:
    with pytest.raises(SystemExit):
        keeper.pooled(pool_of([0.7, 0.8], [0, 1]), pool_of([0.6, 0.9], [2, 3]) | changes)


def test_a_figure_of_one_group_alone_stays_as_it_is(keeper: ModuleType) -> None:
    first, second = pool_of([0.7, 0.8], [0, 1]), pool_of([0.6, 0.9], [2, 3])
    alone = {**second["metrics"][0], "metric": "answered_risk"}
    second["metrics"].append(alone)
    both = keeper.pooled(first, second)["metrics"]
    assert [row for row in both if row["metric"] == "answered_risk"] == [alone]
    assert len(both) == len(first["metrics"]) + 1


def kept_study(keeper: ModuleType, folder: Path, record: dict[str, Any], *, pool: bool) -> dict[str, Any]:
    (folder / "study.json").write_text(json.dumps(record))
    keeper.add_study(folder, pool=pool)
    kept: dict[str, Any] = json.loads((folder / "results" / "studies" / "tiny.json").read_text())
    return kept


def test_more_data_sets_of_a_study_join_what_is_kept(
    keeper: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "RESULTS", tmp_path / "results")
    kept_study(keeper, tmp_path, study_of("one"), pool=False)
    both = kept_study(keeper, tmp_path, study_of("two"), pool=True)
    assert both == kept_study(keeper, tmp_path, study_of("one", "two"), pool=False)
    assert [cell["dataset"] for cell in both["cells"]] == ["one", "two"]


@pytest.mark.parametrize(
    "second",
    [
        study_of("one"),
        study_of("two", settings=["train.epochs=2"]),
        study_of("two", versions={"torch": "3"}),
        study_of("two", seeds=[0, 1]),
        study_of("two", call={"only": ["*/two"], "large": True}),
        study_of("two", call=None),
    ],
)
def test_studies_that_differ_are_not_joined(
    keeper: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: dict[str, Any]
) -> None:
    monkeypatch.setattr(keeper, "RESULTS", tmp_path / "results")
    first = kept_study(keeper, tmp_path, study_of("one"), pool=False)
    with pytest.raises(SystemExit):
        kept_study(keeper, tmp_path, second, pool=True)
    assert json.loads((tmp_path / "results" / "studies" / "tiny.json").read_text()) == first
