"""What --out gets: one run's files at a time, and a sign of the last run where that has failed."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.logging import disable_run_logger

from data_contracts.errors import ContractNotEvaluated
from flows import outputs, pipeline
from flows.config import ConfigurationError
from flows.outputs import _turn, export_run, replace_file, run_record
from flows.record import RunRecord
from flows.wiring import PipelineState
from tasks.artifact import ContractSummary
from tasks.errors import StoreUnusable
from tasks.regression import Comparison, RunRegressed
from tasks.stage import StageReport
from tasks.store import Store
from tests.tiny_runs import key_of, publish, tiny

RECORD = RunRecord(
    config={}, seeds=(0,), versions={}, device="cpu", machine={}, store="s", stages=[], metrics=[]
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with the results of an earlier run."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("run.json", "clusters.parquet", "report.html"):
        (folder / name).write_text('"yesterday"')
    return folder


def clustered(tmp_path: Path) -> Any:
    """A pipeline that has got as far as its clusters."""
    store = Store(tmp_path / "store")
    manifest = publish(store, "cluster", key_of("c"), {"clusters/clusters.parquet": b"tonight"})
    return SimpleNamespace(store=store, artifacts=manifest.artifacts, reports=[])


def run(out: Path | None, **changes: Any) -> RunRecord:
    """The flow's own function."""
    with disable_run_logger():
        return pipeline.pipeline.fn(
            tiny(),
            store=str(changes.pop("store", "unused")),
            out=None if out is None else str(out),
            **changes,
        )


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException, place: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    for name in ("run_stages", "show_run", "conclude"):
        monkeypatch.setattr(pipeline, name, fail if name == place else lambda *_, **__: None)
    monkeypatch.setattr(pipeline, "run_record", lambda *_, **__: RECORD)


@pytest.mark.parametrize("error", [ContractNotEvaluated("t", "rule", "why"), KeyboardInterrupt("SIGTERM")])
def test_a_scheduled_run_that_fails_leaves_no_record_of_an_earlier_one(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    fail_with(monkeypatch, error, "run_stages")
    with pytest.raises(type(error)):
        run(out, store=tmp_path / "store")
    assert not (out / "run.json").exists()
    assert json.loads((out / "failure.json").read_text())["error"] == type(error).__name__
    with pytest.raises(type(error)):
        run(None, store=tmp_path / "store")


def test_a_scheduled_run_that_cannot_start_leaves_a_sign_too(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable):
        run(out, store=tmp_path / "file")
    assert json.loads((out / "failure.json").read_text())["exit_code"] == 2

    def refuse(device: str) -> None:
        raise ConfigurationError(device)

    (out / "failure.json").unlink()
    monkeypatch.setattr(pipeline, "_check_device", refuse)
    with pytest.raises(ConfigurationError):
        run(out)
    assert (out / "failure.json").exists() and not (out / "run.json").exists()


def test_a_failure_that_cannot_be_written_does_not_hide_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, RuntimeError("the cause"), "run_stages")
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match="the cause"):
        run(tmp_path / "file" / "out", store=tmp_path / "store")


def test_a_scheduled_run_that_regresses_keeps_its_results_beside_the_failure(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = Comparison(series="nightly", run="r", against="before", rows=(), notes=())
    fail_with(monkeypatch, RunRegressed(comparison, "s"), "conclude")
    with pytest.raises(RunRegressed):
        run(out, store=tmp_path / "store", series="nightly")
    assert json.loads((out / "run.json").read_text())["seeds"] == [0]
    assert json.loads((out / "failure.json").read_text())["exit_code"] == 6
    fail_with(monkeypatch, RuntimeError(), "nowhere")
    run(out, store=tmp_path / "store", series="nightly")
    assert (out / "run.json").exists() and not (out / "failure.json").exists()


def test_the_record_has_the_notes_of_artifacts_and_of_stages(tmp_path: Path) -> None:
    config, store = tiny(), Store(tmp_path / "store")
    files = {"clusters/metadata.json": b'{"notes": ["of its clusters"]}'}
    artifacts = publish(store, "cluster", key_of("c"), files).artifacts
    report = StageReport(
        stage="cluster", state="ran", reason="", key=key_of("c"), seconds=1.0, peak_rss_bytes=2,
        artifacts=artifacts, contracts=ContractSummary(passed=0), notes=("of its memory",),
    )  # fmt: skip
    record = run_record(PipelineState(config, store, artifacts=artifacts, reports=[report]), preset=None)
    assert record.notes == ["of its clusters", "of its memory"]
    assert record.stages[0]["notes"] == ["of its memory"]


@pytest.mark.parametrize("call", range(2))
def test_killed_between_two_files_no_record_stands_beside_tables_of_another_run(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    calls = iter(range(10))

    def killed(path: Path, content: bytes) -> None:
        if next(calls) == call:
            raise SystemExit
        replace_file(path, content)

    monkeypatch.setattr(outputs, "replace_file", killed)
    state = clustered(tmp_path)
    with pytest.raises(SystemExit):
        export_run(state, RECORD, out)
    assert not (out / "run.json").exists()
    assert (out / "clusters.parquet").read_text() == ("tonight" if call else '"yesterday"')
    export_run(state, RECORD, out)
    assert sorted(path.name for path in out.iterdir()) == ["clusters.parquet", "run.json"]


def test_results_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: calls.append("fsync") or fsync(file))  # type: ignore[func-returns-value]
    monkeypatch.setattr(Path, "replace", lambda self, to: calls.append("rename") or replace(self, to))  # type: ignore[func-returns-value]
    replace_file(tmp_path / "x", b"content")
    assert calls == ["fsync", "rename", "fsync"]


def test_two_runs_that_write_into_one_folder_take_turns(tmp_path: Path) -> None:
    entered = threading.Event()

    def write() -> None:
        with _turn(tmp_path):
            entered.set()

    with _turn(tmp_path):
        second = threading.Thread(target=write)
        second.start()
        assert not entered.wait(0.3)
    assert entered.wait(10)
    second.join()
    assert list(tmp_path.iterdir()) == [], "the lock leaves no file"
