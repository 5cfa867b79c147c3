"""``gclflow store runs``, ``pin`` and ``unpin``, and what garbage collection prints."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli import app, main
from tasks.runs import RunEntry, Runs
from tasks.store import Store
from tests.tiny_runs import key_of, publish


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def run(store: Store, *arguments: str) -> str:
    result = CliRunner().invoke(
        app, ["store", *arguments, "--store", str(store.root)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


def end_of_main(monkeypatch: pytest.MonkeyPatch, store: Store, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["gclflow", "store", *arguments, "--store", str(store.root)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def record(store: Store, series: str = "nightly", **changes: Any) -> RunEntry:
    fields: dict[str, Any] = {
        "config": {"dataset": {"name": "cora"}, "method": {"name": "grace"}},
        "preset": None,
        "seed": 3,
        "keys": {},
        "artifacts": {},
        "metrics": [],
        "good": True,
        "reason": None,
    }
    return Runs(store).record(RunEntry(series=series, **fields | changes))


def row_of(output: str, entry: RunEntry) -> list[str]:
    (line,) = [line for line in output.splitlines() if entry.run in line]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_runs_are_listed_with_their_outcome_and_why_they_are_kept(store: Store) -> None:
    assert "no runs are recorded" in run(store, "runs")
    good, bad, other = record(store), record(store, good=False, reason="nmi [b]fell"), record(store, "weekly")
    Runs(store).advance(good)
    run(store, "pin", bad.run)
    output = run(store, "runs")
    assert row_of(output, good)[3:] == ["cora", "grace", "3", "good", "last good"]
    assert row_of(output, bad)[6:] == ["nmi [b]fell", "pinned"]
    assert other.run in output
    assert other.run not in run(store, "runs", "--series", "nightly")


def test_a_run_is_pinned_by_its_id_or_its_series(store: Store) -> None:
    entry = record(store)
    assert "is pinned" in run(store, "pin", "nightly")
    assert Runs(store).entries()[0].pinned
    assert "is not pinned" in run(store, "unpin", entry.run)
    assert not Runs(store).entries()[0].pinned


@pytest.mark.parametrize(
    "arguments", [("pin", "absent"), ("unpin", ""), ("runs", "--series", "../x"), ("pin", "nightly")]
)
def test_a_run_that_is_not_known_is_a_usage_error(
    store: Store, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    record(store, good=False, reason="bad")
    assert end_of_main(monkeypatch, store, *arguments) == 2


@pytest.mark.parametrize("command", [["runs"], ["pin", "x"], ["unpin", "x"]])
def test_looking_after_a_store_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gclflow", "store", *command, "--store", str(tmp_path / "absent")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert not (tmp_path / "absent").exists()


def test_garbage_collection_prints_what_went_of_each_kind(store: Store) -> None:
    for name, days in (("old", 30), ("new", 1)):
        publish(store, "ingest", key_of(name), {"graph/x": name.encode()})
        path = store.stage_folder("ingest", key_of(name)) / "manifest.json"
        os.utime(path, (time.time() - days * 86_400,) * 2)
    output = run(store, "gc")
    assert f"ingest/{key_of('old')}" in output
    assert "removed 1 stage folders" in output
    assert "removed 1 in all" in output


def test_verification_and_collection_cover_the_register(
    store: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    entry = record(store)
    (store.root / ".runs" / "nightly" / f"{entry.run}.json").write_bytes(b"{}")
    assert end_of_main(monkeypatch, store, "verify") == 5
    assert end_of_main(monkeypatch, store, "verify") == 0
    capfd.readouterr()
    assert end_of_main(monkeypatch, store, "gc") == 5
    output = capfd.readouterr().out
    assert f"perhaps a pinned run: run nightly/{entry.run}: in the quarantine" in output
    assert "no stage folder goes" in output
