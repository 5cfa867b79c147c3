"""What ``--out`` gets: run.json, the report with this run's times, and the result tables."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flows.record import Metric, RunRecord, machine, stage_entry, versions
from flows.wiring import PipelineState
from gcl.locked_files import write_atomically
from tasks.convert import read_rows
from tasks.identity import resolve_device
from tasks.report import render_with_times
from tasks.small_files import sync_folder
from tasks.work import read_metadata

_TABLES = {
    "embeddings.parquet": ("embeddings", "embeddings.parquet"),
    "clusters.parquet": ("clusters", "clusters.parquet"),
    "uncertainty.parquet": ("uncertainty", "uncertainty.parquet"),
    "history.parquet": ("model", "history.parquet"),
    "predictions.parquet": ("predictions", "predictions.parquet"),
}


def run_record(state: PipelineState, *, preset: str | None) -> RunRecord:
    """The record of one run."""
    metrics, seed = _metrics(state), state.config.seed
    return RunRecord(
        config=state.config.model_dump(mode="json"),
        preset=preset,
        seeds=(seed,),
        versions=versions(),
        device=resolve_device(state.config.device),
        machine=machine(),
        store=state.store.address,
        stages=[{**stage_entry(report), "seed": seed} for report in state.reports],
        metrics=[metric for metric in metrics if metric.split != "validation"],
        validation_metrics=[metric for metric in metrics if metric.split == "validation"],
        oracle_metrics=_metrics(state, "oracle"),
        notes=_notes(state),
    )


def export_run(state: PipelineState, record: RunRecord, out: Path) -> None:
    """Write one run's results into `out`; every file appears whole or not at all, and all are of one run.

    ``run.json`` goes first and comes last: where it is, everything beside it is of the run it speaks of.
    Two runs that write into one folder take turns; what the later one writes stays.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _turn(out):
        _export(state, record, out)


@contextmanager
def _turn(out: Path) -> Iterator[None]:
    """Nobody else writes into this folder while the body runs."""
    descriptor = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # a network's file system may not lock folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _export(state: PipelineState, record: RunRecord, out: Path) -> None:
    (out / "run.json").unlink(missing_ok=True)
    sync_folder(out)  # before anything else appears there
    for name, (kind, table) in _TABLES.items():
        if kind in state.artifacts and (source := state.store.path(state.artifacts[kind]) / table).exists():
            replace_file(out / name, source.read_bytes())
        else:
            (out / name).unlink(missing_ok=True)
    if "report" in state.artifacts:
        html = (state.store.path(state.artifacts["report"]) / "report.html").read_text("utf-8")
        replace_file(out / "report.html", render_with_times(html, state.reports).encode())
    else:
        (out / "report.html").unlink(missing_ok=True)
    write_record(record, out)


def write_record(record: RunRecord, out: Path) -> None:
    """Write ``run.json``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "failure.json").unlink(missing_ok=True)
    replace_file(out / "run.json", (json.dumps(record.model_dump(mode="json"), indent=1) + "\n").encode())


def _metrics(state: PipelineState, table: str = "metrics") -> list[Metric]:
    if "metrics" not in state.artifacts:
        return []
    path = state.store.open(state.artifacts["metrics"]) / f"{table}.parquet"
    rows = read_rows(path) if path.exists() else []
    return [Metric.model_validate({name: row[name] for name in Metric.model_fields}) for row in rows]


def _notes(state: PipelineState) -> list[str]:
    notes: list[str] = []
    for kind in ("model", "clusters", "metrics"):
        if kind in state.artifacts:
            notes += read_metadata(state.store.path(state.artifacts[kind])).get("notes", [])
    return notes + [note for report in state.reports for note in report.notes]


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, also where the power goes."""
    write_atomically(path, content)
