"""Scoring from the command line, through Prefect: new nodes, again, drift, and what the server shows."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_contracts.errors import ContractViolation
from flows.running import run_pipeline
from tests.growing import NUM_NEW, NUM_OLD, growing, write_source

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]


@pytest.fixture(scope="module")
def store(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a good run of the series ``nightly``."""
    folder = tmp_path_factory.mktemp("scoring")
    settings = growing(write_source(folder / "old"))
    run_pipeline(settings, seeds=[0], store=str(folder / "store"), out=folder / "out", series="nightly")
    return folder / "store"


class Command:
    """The program, with its exit code; ``gclflow score --model nightly`` on this store."""

    def __init__(self, store: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.out, self.monkeypatch = store, out, monkeypatch

    def __call__(self, *arguments: object, model: str = "nightly") -> object:
        from flows.cli import main

        given = ["--model", model, "--store", self.store, "--out", self.out, *arguments]
        self.monkeypatch.setattr("sys.argv", ["gclflow", "score", *map(str, given)])
        self.monkeypatch.setenv("COLUMNS", "400")
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    @property
    def record(self) -> dict[str, object]:
        return dict(json.loads((self.out / "score.json").read_text()))

    @property
    def states(self) -> list[str]:
        return [stage["state"] for stage in self.record["stages"]]  # type: ignore[attr-defined]


@pytest.fixture
def command(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(store, tmp_path / "scores", monkeypatch)


def last_flow_run() -> tuple[str, str, set[str]]:
    """Name, state and keys of the artifacts of the last flow run, as the server has them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        (last,) = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[last.id]))
        keys = {str(found.key) for found in client.read_artifacts(artifact_filter=wanted)}
        return last.name, str(last.state_name), keys


def test_new_nodes_are_scored_and_the_second_time_cached(
    command: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_source(tmp_path / "new", num_new=NUM_NEW)
    assert command("--path", source) == 0
    assert f"{NUM_NEW} nodes scored (ran)" in capfd.readouterr().out
    name, state, keys = last_flow_run()
    assert (name, state) == (f"growing-dmat_i-nightly-{NUM_NEW}-nodes", "Completed")
    assert {"shift", "stages", "contracts", "lineage"} <= keys
    record = command.record
    assert (record["num_known"], record["num_new"], record["num_scored"]) == (NUM_OLD, NUM_NEW, NUM_NEW)
    assert record["method"] == "dmat_i"
    first = (command.out / "scores.parquet").read_bytes()
    table = pq.read_table(command.out / "scores.parquet")
    assert table.column_names == ["node_id", "z", "cluster"]
    assert table.num_rows == NUM_NEW
    assert np.isfinite(table.column("z").combine_chunks().flatten().to_numpy()).all()
    assert set(table.column("cluster").to_pylist()) <= {0, 1, 2}

    assert command("--path", write_source(tmp_path / "copy", num_new=NUM_NEW)) == 0
    assert command.states == ["cached", "cached"]
    assert (command.out / "scores.parquet").read_bytes() == first
    assert command("--path", source, "--refresh") == 0
    assert command.states == ["cached", "ran"]
    assert (command.out / "scores.parquet").read_bytes() == first


def test_drift_ends_with_3_and_leaves_no_scores(
    command: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    elsewhere = write_source(tmp_path / "elsewhere", num_new=NUM_NEW, moved=8.0)
    assert command("--path", write_source(tmp_path / "new", num_new=NUM_NEW)) == 0
    assert command("--path", elsewhere) == 3
    assert "shift_within_bounds" in capfd.readouterr().err
    assert sorted(path.name for path in command.out.iterdir()) == ["failure.json"]
    failure = json.loads((command.out / "failure.json").read_text())
    assert (failure["exit_code"], failure["table"]) == (3, "scores.shift")
    assert last_flow_run()[1] == "Failed"
    any_ = [
        part for name in ("known_shift", "outlier_share", "shift") for part in ("--set", f"max_{name}=none")
    ]
    assert command("--path", elsewhere, *any_) == 0
    assert not (command.out / "failure.json").exists()


def test_a_scheduled_run_that_fails_says_so_where_programs_look(command: Command, tmp_path: Path) -> None:
    from flows.score import score

    assert command("--path", write_source(tmp_path / "new", num_new=NUM_NEW)) == 0
    elsewhere = write_source(tmp_path / "elsewhere", num_new=NUM_NEW, moved=8.0)
    with pytest.raises(ContractViolation):  # as the deployment calls it, with no command line around it
        score(path=str(elsewhere), store=str(command.store), out=str(command.out))
    assert [path.name for path in command.out.iterdir()] == ["failure.json"]
    assert json.loads((command.out / "failure.json").read_text())["exit_code"] == 3


def test_the_source_of_the_run_has_no_new_nodes(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert command() == 0
    assert "there are no new nodes" in capfd.readouterr().out
    assert command.record["num_scored"] == 0
    assert pq.read_table(command.out / "scores.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("arguments", "model", "told"),
    [
        ((), "weekly", "there is no model 'weekly'"),
        (("--nodes", "no-such-file"), "nightly", "--nodes takes new, all, or a file of ids"),
        (
            ("--set", "max_drift=1"),
            "nightly",
            "max_drift: Extra inputs are not permitted (there are: max_known",
        ),
        (("--set", "max_shift"), "nightly", "--set takes KEY=VALUE"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(
    arguments: tuple[str, ...], model: str, told: str, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments, model=model) == 2
    said = capfd.readouterr().err
    assert told in said
    assert len(said.strip().splitlines()) == 1
