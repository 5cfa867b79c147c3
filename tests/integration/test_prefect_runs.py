"""Runs through Prefect: what is computed, what is cached, and the states as Prefect's own API tells them."""

import json
from pathlib import Path

import pytest

from data_contracts.errors import ContractNotEvaluated, ContractViolation
from flows.exit_codes import exit_code
from flows.record import RunRecord
from flows.running import run_pipeline
from tasks.runs import UnknownRun
from tasks.store import Store
from tests.tiny_runs import PLAIN_STAGES, tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]
STAGES = list(PLAIN_STAGES)


def run(store: Path, *overrides: str, out: Path | None = None, **options: object) -> RunRecord:
    out = out or store.parent / "out"
    return run_pipeline(tiny(*overrides), seeds=[0], store=str(store), out=out, **options)  # type: ignore[arg-type]


def ran(record: RunRecord) -> list[str]:
    return [stage["stage"] for stage in record.stages if stage["state"] == "ran"]


def digests(record: RunRecord) -> dict[str, str]:
    return {kind: digest for stage in record.stages for kind, digest in stage["artifacts"].items()}


def reasons(record: RunRecord) -> dict[str, str]:
    return {stage["stage"]: stage["reason"] for stage in record.stages}


def prefect_states() -> dict[str, str]:
    """Stage name to state name of the last flow run, as the server has them."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        (last,) = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[last.id])))
        states = {task.name.partition("-")[0]: str(task.state_name) for task in tasks}
        return {"flow": str(last.state_name)} | states


@pytest.fixture(scope="module")
def first(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunRecord]:
    """A store filled by one run through Prefect."""
    store = tmp_path_factory.mktemp("first") / "store"
    return store, run(store)


@pytest.fixture
def store(first: tuple[Path, RunRecord], tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(first[0], tmp_path / "store"))


def test_a_second_run_is_cached_throughout_by_prefects_own_account(
    first: tuple[Path, RunRecord], store: Path
) -> None:
    assert ran(first[1]) == STAGES
    again = run(store)
    assert ran(again) == []
    assert digests(again) == digests(first[1])
    assert prefect_states() == {"flow": "Completed"} | dict.fromkeys(STAGES, "Cached")
    assert all("is in the store, intact" in reason for reason in reasons(again).values())
    assert [metric.value for metric in again.metrics] == [metric.value for metric in first[1].metrics]


def test_a_run_agrees_with_one_without_prefect(first: tuple[Path, RunRecord], finished_store: Path) -> None:
    direct = {a.digest for m in Store(finished_store).manifests() for a in m.artifacts.values()}
    assert set(digests(first[1]).values()) == direct


def test_damage_reruns_just_the_damaged_stages(first: tuple[Path, RunRecord], store: Path) -> None:
    opened = Store(store)
    folders = {stage: opened.stage_folder(stage, key) for stage, key in opened.folders()}
    embeddings = folders["train"] / "embeddings" / "embeddings.parquet"
    content = bytearray(embeddings.read_bytes())
    content[100] ^= 1
    embeddings.chmod(0o600)
    embeddings.write_bytes(content)
    (folders["cluster"] / "manifest.json").unlink()
    for path in sorted(folders["smooth"].rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folders["smooth"].rmdir()
    record = run(store)
    assert ran(record) == ["smooth", "train", "cluster"]
    assert digests(record) == digests(first[1])
    assert {stage for stage, state in prefect_states().items() if state == "Cached"} == {
        "ingest", "uncertainty", "evaluate", "report"
    }  # fmt: skip
    why = reasons(record)
    assert "missing" in why["smooth"]
    assert "damaged" in why["train"]
    assert "damaged" in why["cluster"]
    assert len(list((store / ".quarantine").glob("*.json"))) == 2


@pytest.mark.parametrize("damage", ["delete", "junk", "foreign"])
def test_prefects_records_can_be_lost_or_damaged(
    first: tuple[Path, RunRecord], store: Path, damage: str
) -> None:
    records = {path.name.partition("-")[0]: path for path in (store / ".results").iterdir()}
    assert sorted(records) == sorted(STAGES)
    if damage == "delete":
        records["train"].unlink()
    elif damage == "junk":
        records["train"].write_bytes(b"\0junk")
    else:
        records["train"].write_bytes(records["smooth"].read_bytes())
    record = run(store)
    assert ran(record) == [], "the store knows better"
    assert digests(record) == digests(first[1])


def test_refresh_runs_that_stage_alone_when_its_bytes_come_out_the_same(
    first: tuple[Path, RunRecord], store: Path
) -> None:
    for _ in range(2):  # the second must not resume from what the first left behind
        record = run(store, refresh=("train",))
        assert ran(record) == ["train"]
        assert reasons(record)["train"] == "refresh was asked for"
        assert digests(record) == digests(first[1])
        expected = dict.fromkeys(STAGES, "Cached") | {"flow": "Completed", "train": "Completed"}
        assert prefect_states() == expected
        assert not list((store / ".scratch").iterdir())


def test_a_changed_setting_is_the_reason_given(store: Path) -> None:
    record = run(store, "uncertainty.estimator=entropy", until="uncertainty")
    assert ran(record) == ["uncertainty"]
    assert "gambler -> entropy" in reasons(record)["uncertainty"]


def test_until_stops_after_that_stage(tmp_path: Path) -> None:
    record = run(tmp_path / "store", until="smooth")
    assert [stage["stage"] for stage in record.stages] == ["ingest", "smooth"]
    assert {stage for stage, _ in Store(tmp_path / "store").folders()} == {"ingest", "smooth"}
    assert set(prefect_states()) == {"flow", "ingest", "smooth"}
    out = tmp_path / "out"
    assert (out / "run.json").exists()
    assert not (out / "report.html").exists()


def test_two_stores_in_one_process_never_mix(
    first: tuple[Path, RunRecord], store: Path, tmp_path: Path
) -> None:
    other = run(tmp_path / "other" / "store", until="smooth")
    assert ran(other) == ["ingest", "smooth"], "nothing is taken from the full store beside it"
    assert ran(run(store)) == []
    assert {stage for stage, _ in Store(tmp_path / "other" / "store").folders()} == {"ingest", "smooth"}


def test_several_seeds_share_what_does_not_depend_on_them(store: Path, tmp_path: Path) -> None:
    record = run_pipeline(tiny(), seeds=[0, 1], store=str(store), out=tmp_path / "out", until="evaluate")
    assert record.seeds == (0, 1)
    assert [(s["seed"], s["stage"]) for s in record.stages if s["state"] == "ran"] == [
        (1, stage) for stage in ("train", "uncertainty", "cluster", "evaluate")
    ]
    assert {metric.over for metric in record.metrics} == {"encoder seeds"}
    assert {metric.n for metric in record.metrics} == {2}
    for name in ("run.json", "seed-0/run.json", "seed-1/embeddings.parquet"):
        assert (tmp_path / "out" / name).exists()


def broken_body(work, config):  # type: ignore[no-untyped-def]
    """Smooths, then writes a NaN where the contract wants numbers."""
    import numpy as np

    from tasks.convert import write_matrix

    x_NF = np.full((work.metadata("graph")["num_nodes"], 8), np.nan, np.float32)
    write_matrix(
        work.output("smoothed") / "features.parquet",
        "smoothed.features",
        x_NF,
        others={"node": np.arange(len(x_NF))},
    )
    work.expect("smoothed.features", num_nodes=len(x_NF), num_features=8)


def test_a_broken_contract_stops_the_run_and_keeps_the_evidence(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.smooth import SMOOTH

    monkeypatch.setitem(SMOOTH.__dict__, "body", broken_body)
    out = store.parent / "out"
    with pytest.raises(ContractViolation) as caught:
        run(store, "smooth.alpha=0.3", refresh=("smooth",))
    assert exit_code(caught.value) == 3
    assert caught.value.table == "smoothed.features"
    states = prefect_states()
    assert (states["flow"], states["smooth"]) == ("Failed", "Failed")
    assert set(states) == {"flow", "ingest", "smooth"}, "the next stage was not started"
    assert len(list((store / "smooth").iterdir())) == 1, "nothing new was published"
    (kept,) = (path for path in (store / ".quarantine").iterdir() if path.is_dir())
    assert (kept / "smoothed" / "features.parquet").exists()
    assert "smoothed.features" in (kept / "volatile" / "data_docs" / "index.html").read_text()
    failure = json.loads((out / "failure.json").read_text())
    assert (failure["exit_code"], failure["error"]) == (3, "ContractViolation")
    assert failure["failures"][0]["sample"], "offending rows are shown"
    assert not (out / "run.json").exists()
    assert not list((store / ".tmp").iterdir())


def test_a_contract_that_cannot_be_evaluated_is_another_failure(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object, **options: object) -> object:
        raise ContractNotEvaluated("smoothed.features", "finite", "an internal error")

    monkeypatch.setattr("tasks.stage.check_table", fails)
    with pytest.raises(ContractNotEvaluated) as caught:
        run(store, "smooth.alpha=0.3")
    assert exit_code(caught.value) == 5
    assert prefect_states()["smooth"] == "Failed"
    assert len(list((store / "smooth").iterdir())) == 1
    assert not list((store / ".quarantine").iterdir())


def test_an_unwritable_output_directory_is_refused_before_the_work(store: Path, tmp_path: Path) -> None:
    from flows.config import ConfigurationError

    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="--out"):
        run(store, out=tmp_path / "file")


def test_a_stage_of_a_series_without_a_good_run_says_so_where_programs_look(store: Path) -> None:
    from flows.stages import stage

    out = store.parent / "again"
    with pytest.raises(UnknownRun):
        stage("train", "unheard-of", store=str(store), out=str(out))
    assert "unheard-of has no good run" in json.loads((out / "failure.json").read_text())["message"]
