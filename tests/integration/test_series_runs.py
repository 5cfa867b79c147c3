"""Runs of a series through Prefect: the second regresses, is kept, refused, and then accepted."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from flows.config import ConfigurationError
from flows.exit_codes import exit_code
from flows.record import RunRecord
from flows.running import run_pipeline
from tasks.regression import RunRegressed
from tasks.runs import Runs
from tasks.store import Store
from tests.tiny_runs import TINY, tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]
# Two epochs of a tiny encoder differ a lot from two epochs from elsewhere; the drift alone is judged here.
ONLY_DRIFT = (
    "regression.max_accuracy_drop=none", "regression.min_cluster_agreement=none",
    "regression.min_neighbour_overlap=none", "regression.max_embedding_drift=0.0001",
)  # fmt: skip


def run(
    store: Path, *overrides: str, seed: int = 0, series: str | None = "nightly", **options: Any
) -> RunRecord:
    settings = tiny(*ONLY_DRIFT, *overrides)
    out = store.parent / "out"
    return run_pipeline(settings, seeds=[seed], store=str(store), out=out, series=series, **options)


def last_flow_run() -> tuple[str, str, dict[str, str]]:
    """State, message and the newest artifacts (by key) of the last flow run, as the server has them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        (last,) = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[last.id]))
        artifacts = {found.key: str(found.data) for found in client.read_artifacts(artifact_filter=wanted)}
        return str(last.state_name), str(last.state and last.state.message), artifacts


def events(name: str) -> list[dict[str, Any]]:
    """Events of this name that the server has received, newest first; waits for the first."""
    from prefect.client.orchestration import get_client

    deadline = time.monotonic() + 60
    while True:
        with get_client(sync_client=True) as client:
            body = {"filter": {"event": {"name": [name]}}, "limit": 20}
            found = client.request("POST", "/events/filter", json=body).json()["events"]
        if found:
            return list(found)
        assert time.monotonic() < deadline, f"no event {name}"
        time.sleep(0.2)


def test_a_run_that_regresses_fails_is_kept_and_can_be_accepted(store_copy: Path) -> None:
    runs, out = Runs(Store(store_copy)), store_copy.parent / "out"
    run(store_copy)
    good = runs.last_good("nightly")
    assert good is not None
    assert (good.good, good.reason, good.seed) == (True, None, 0)
    assert len(good.keys) == 7
    assert any(row["metric"] == "accuracy" for row in good.metrics)

    with pytest.raises(RunRegressed, match="embedding_drift") as caught:
        run(store_copy, seed=1)
    assert exit_code(caught.value) == 6
    state, message, artifacts = last_flow_run()
    assert state == "Failed"
    assert "gclflow store accept" in message
    assert "embedding&#95;drift" in artifacts["regression"]
    assert "**no**" in artifacts["regression"]
    assert "endpoints_in_range" in artifacts["contracts"]
    bad = runs.entries("nightly")[-1]
    assert (bad.good, bad.seed) == (False, 1)
    assert "embedding_drift" in str(bad.reason)
    assert runs.last_good("nightly") == good, "the pointer stays"
    failure = json.loads((out / "failure.json").read_text())
    assert (failure["exit_code"], failure["error"]) == (6, "RunRegressed")
    assert failure["comparison"]["against"] == good.run
    assert json.loads((out / "run.json").read_text())["seeds"] == [1], "its results are where results are"
    assert all(Store(store_copy).open(artifact) for artifact in bad.artifacts.values())
    (event, *_) = events("gclflow.run.regressed")
    assert event["resource"]["prefect.resource.id"] == "gclflow.series.nightly"
    assert event["payload"]["against"] == good.run
    related = {found["prefect.resource.role"]: found for found in event["related"]}
    assert related["flow-run"]["prefect.resource.name"] == "tiny-dmat_i-seed1"

    runs.accept(bad.run)
    run(store_copy, seed=1)
    assert not (out / "failure.json").exists()
    assert last_flow_run()[0] == "Completed"
    assert [entry.good for entry in runs.entries("nightly")] == [True, True, True]
    (finished, *_) = events("gclflow.run.finished")
    assert set(finished["payload"]["stages"].values()) <= {"ran", "cached"}
    assert finished["payload"]["metrics_digest"]


def test_without_a_series_nothing_is_recorded_or_compared(store_copy: Path) -> None:
    run(store_copy, series=None)
    run(store_copy, series=None, seed=1)
    assert Runs(Store(store_copy)).entries() == []


def test_a_run_that_stops_early_says_nothing_about_the_series(store_copy: Path) -> None:
    run(store_copy, until="cluster")
    assert Runs(Store(store_copy)).entries() == []
    run(store_copy, until="report")
    assert len(Runs(Store(store_copy)).entries("nightly")) == 1, "all stages, however it was asked for"


def test_series_do_not_mix(store_copy: Path) -> None:
    run(store_copy, series="one")
    run(store_copy, series="other", seed=1)
    found = Runs(Store(store_copy))
    assert {(entry.series, entry.good) for entry in found.entries()} == {("one", True), ("other", True)}


def test_a_series_takes_one_seed_and_a_plain_name(store_copy: Path) -> None:
    with pytest.raises(ConfigurationError, match="one seed"):
        run_pipeline(tiny(), seeds=[0, 1], store=str(store_copy), out=store_copy.parent, series="nightly")
    with pytest.raises(Exception, match="series"):
        run(store_copy, series="../elsewhere")
    assert Runs(Store(store_copy)).entries() == []


def test_the_command_line_ends_with_6_and_accepts(
    store_copy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from flows.cli import main

    def command(*arguments: str) -> object:
        monkeypatch.setattr("sys.argv", ["gclflow", *arguments, "--store", str(store_copy)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    monkeypatch.setenv("COLUMNS", "400")
    given = [part for setting in (*TINY, *ONLY_DRIFT) for part in ("--set", setting)]
    nightly = [
        "run",
        "--preset",
        "none",
        *given,
        "--series",
        "nightly",
        "--out",
        str(store_copy.parent / "out"),
    ]
    assert command(*nightly) == 0
    assert command(*nightly, "--seeds", "1") == 6
    told = capfd.readouterr().err
    bad = Runs(Store(store_copy)).entries("nightly")[-1]
    assert f"accept it with: gclflow store accept {bad.run} --store {store_copy}" in told
    assert command("store", "accept", bad.run) == 0
    assert f"{bad.run} is the last good run of series nightly now" in capfd.readouterr().out
    assert command(*nightly, "--seeds", "1") == 0
