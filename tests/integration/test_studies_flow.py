"""Studies through Prefect: cells are cached runs, failures are recorded, and a stop loses nothing."""

import json
from pathlib import Path

import pytest

from flows.exit_codes import Interrupted
from flows.study_record import CellRecord, StudyRecord
from flows.study_running import run_study
from tests.tiny_runs import TINY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two variants on a tiny graph, and on a data set that is not there."""
    path = tmp_path_factory.mktemp("study") / "tiny.toml"
    path.write_text(
        f"""
        title = "Tiny"
        question = "Is it warm?"
        reference = "warm"
        seeds = "0,1"
        figures = ["clustering/kmeans-final/nmi", "history/loss", "seconds/epoch", "peak_rss_bytes/train"]

        [[datasets]]
        name = "generated"
        settings = {json.dumps(list(TINY))}

        [[datasets]]
        name = "absent"
        paths = ["nowhere"]
        settings = ["dataset.format=csv", "dataset.name=absent"]

        [[variants]]
        name = "warm"

        [[variants]]
        name = "cold"
        settings = ["method.temperature=0.1"]
        """
    )
    return path


def by_place(record: StudyRecord) -> dict[tuple[str, str, int], CellRecord]:
    return {(cell.dataset, cell.variant, cell.seed): cell for cell in record.cells}


def run(file: Path, store: Path, out: Path, *only: str) -> StudyRecord:
    return run_study(str(file), store=str(store), out=out, data=file.parent, only=only)


@pytest.fixture(scope="module")
def first(prefect_api: str, file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyRecord]:
    """The folder with store and results of a finished study, and its record."""
    folder = tmp_path_factory.mktemp("first")
    return folder, run(file, folder / "store", folder / "out")


def test_a_cell_that_fails_is_recorded_with_its_reason_and_the_others_finish(
    first: tuple[Path, StudyRecord],
) -> None:
    cells = by_place(first[1])
    assert len(cells) == first[1].num_planned == 8
    assert {place[0] for place, cell in cells.items() if cell.state == "failed"} == {"absent"}
    assert len(first[1].failed) == 4
    assert all("source unreadable" in str(cell.reason) for cell in first[1].failed)
    assert {row.dataset for row in first[1].summary} == {"generated"}


def test_results_lie_in_the_folder(first: tuple[Path, StudyRecord]) -> None:
    out = first[0] / "out"
    written = StudyRecord.model_validate_json((out / "study.json").read_text())
    assert written == first[1]
    assert written.call is not None
    assert written.call.has_data
    assert str(first[0]) not in (out / "study.json").read_text().replace("nowhere", ""), "no path of here"
    assert "generated: clustering kmeans-final nmi, %" in (out / "table.md").read_text()
    assert len(list(out.glob("generated-*.png"))) == 4
    cell = by_place(first[1])["generated", "warm", 0]
    assert {"ingest", "train", "evaluate", "epoch"} <= cell.seconds.keys()
    assert cell.peak_rss_bytes["train"] > 1e7
    assert cell.history["loss"] is not None
    assert cell.validation_metrics


def test_seeds_share_what_does_not_depend_on_them(first: tuple[Path, StudyRecord]) -> None:
    cells = by_place(first[1])
    assert cells["generated", "warm", 0].num_cached == 0
    assert cells["generated", "cold", 1].num_cached == 2, "graph and smoothed features"


def test_again_everything_is_cached_and_the_figures_are_those_of_the_run_that_computed_them(
    first: tuple[Path, StudyRecord], file: Path, tmp_path: Path
) -> None:
    again = run(file, first[0] / "store", tmp_path, "*/generated")
    assert {cell.num_cached for cell in again.cells} == {6}
    assert not again.failed
    before = by_place(first[1])
    for place, cell in by_place(again).items():
        assert (cell.seconds, cell.peak_rss_bytes) == (before[place].seconds, before[place].peak_rss_bytes)
    assert again.summary == first[1].summary


def test_a_stop_loses_nothing(
    first: tuple[Path, StudyRecord], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import flows.studies

    inner, calls = flows.studies.pipeline, 0

    def stopped_at_the_third(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt("signal SIGTERM")
        return inner(*arguments, **named)

    monkeypatch.setattr(flows.studies, "pipeline", stopped_at_the_third)
    with pytest.raises(Interrupted):
        run(file, first[0] / "store", tmp_path, "*/generated")
    left = StudyRecord.model_validate_json((tmp_path / "study.json").read_text())
    assert (len(left.cells), left.num_planned) == (2, 4)
    assert json.loads((tmp_path / "failure.json").read_text())["exit_code"] == 130


def test_the_command_prints_the_tables_and_its_exit_code_tells_of_failures(
    first: tuple[Path, StudyRecord], file: Path, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from flows.cli import app

    options = ["--store", str(first[0] / "store"), "--out", str(tmp_path), "--data", str(file.parent)]
    done = CliRunner().invoke(app, ["study", str(file), *options, "--seeds", "0", "--only", "warm"])
    assert done.exit_code == 5
    assert "Is it warm?" in done.output
    assert "Cells that failed" in done.output


def test_prefect_has_a_subflow_a_cell_and_the_tables(first: tuple[Path, StudyRecord], file: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterKey,
        FlowFilter,
        FlowFilterName,
    )

    def named(name: str) -> FlowFilter:
        return FlowFilter(name=FlowFilterName(any_=[name]))

    with get_client(sync_client=True) as client:
        studies = client.read_flow_runs(flow_filter=named("study"))
        runs = client.read_flow_runs(flow_filter=named("pipeline"))
        tables = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["study-tiny"]))
        )
    assert "study-tiny" in {run.name for run in studies}  # others of this session use the server too
    assert "Failed" in {run.state_name for run in studies}
    assert len(runs) >= 8
    assert any("Is it warm?" in str(table.data) for table in tables)
