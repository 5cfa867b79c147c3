"""gclflow up with a schedule that fires: runs come, the second cached; what died is started again; down."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from prefect.states import Pending

from flows.dead_runs import SILENCES
from flows.deploy import WORK_POOL, connect, switches
from flows.home import Home
from flows.server import answers, client_environment
from flows.up import server, worker
from tests.standing import TINY, flow_runs, gclflow, processes_of, wait, write_deployments

pytestmark = pytest.mark.slow
INTERVAL_SECONDS = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("standing")
    often = [{"slug": "often", "interval": INTERVAL_SECONDS, "active": True}]
    write_deployments(folder, TINY, schedules=often)
    try:
        gclflow(folder, "up")
        yield folder
    finally:
        gclflow(folder, "down")


@pytest.fixture(scope="module")
def home(folder: Path) -> Home:
    return Home(folder / ".gclflow")


def entries(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / ".store" / ".runs" / "nightly").glob("2*.json"))
    return [json.loads(file.read_text()) for file in files]


def test_the_schedule_fires_and_the_second_run_is_cached(folder: Path, home: Home) -> None:
    wait(lambda: len(flow_runs(home, name="Completed")) >= 2, "two scheduled runs")
    assert all(run.auto_scheduled for run in flow_runs(home, name="Completed"))
    record = json.loads((folder / "out" / "nightly" / "run.json").read_text())
    assert [stage["state"] for stage in record["stages"]] == ["cached"] * 7
    assert len(entries(folder)) >= 2
    assert not flow_runs(home, name="Failed")
    assert not flow_runs(home, name="Crashed")


def test_a_login_is_asked_for(home: Home) -> None:
    import httpx

    url = client_environment(home)["PREFECT_API_URL"]
    assert httpx.post(f"{url}/flow_runs/filter", json={}).status_code == 401
    name, _, password = str(home.auth).partition(":")
    assert httpx.post(f"{url}/flow_runs/filter", json={}, auth=(name, password)).status_code == 200


def test_everything_listens_on_loopback_alone(home: Home) -> None:
    for service in (server(home), worker(home)):
        process = service.process
        assert process is not None
        for member in (process, *process.children(recursive=True)):
            listening = [c.laddr.ip for c in member.net_connections() if c.status == psutil.CONN_LISTEN]
            assert set(listening) <= {"127.0.0.1"}


def test_up_again_changes_nothing(folder: Path, home: Home) -> None:
    before = (server(home).process, worker(home).process, home.auth)
    with connect(client_environment(home)) as client:
        ids = {deployment.id for deployment in client.read_deployments()}
    assert "running already" in gclflow(folder, "up")
    assert (server(home).process, worker(home).process, home.auth) == before
    with connect(client_environment(home)) as client:
        assert {deployment.id for deployment in client.read_deployments()} == ids
        assert [len(client.read_automations_by_name(silence.name)) for silence in SILENCES] == [1, 1, 1]


def test_a_schedule_that_was_switched_off_stays_off_when_the_deployments_change(
    folder: Path, home: Home
) -> None:
    with connect(client_environment(home)) as client:
        nightly = client.read_deployment_by_name("pipeline/nightly")
        client.update_deployment_schedule(nightly.id, nightly.schedules[0].id, active=False)
    document = yaml.safe_load((folder / "prefect.yaml").read_text())
    maintenance = next(found for found in document["deployments"] if found["name"] == "maintenance")
    maintenance["parameters"]["keep_days"] = 31
    maintenance["schedules"][0]["active"] = True  # what is written anew in the file counts
    (folder / "prefect.yaml").write_text(yaml.safe_dump(document))
    gclflow(folder, "up")
    with connect(client_environment(home)) as client:
        weekly = client.read_deployment_by_name("maintenance/maintenance")
        assert weekly.parameters["keep_days"] == 31
        assert [schedule.active for schedule in weekly.schedules] == [True]
        nightly = client.read_deployment_by_name("pipeline/nightly")
        assert [schedule.active for schedule in nightly.schedules] == [False]


def test_what_was_killed_is_started_again(folder: Path, home: Home) -> None:
    """And a run that the worker had taken, and that never began, is closed at once."""
    with connect(client_environment(home)) as client:
        maintenance = client.read_deployment_by_name("maintenance/maintenance")
        taken = client.create_flow_run_from_deployment(maintenance.id, state=Pending()).id
        (name,) = (found.name for found in client.read_workers_for_work_pool(WORK_POOL))
        client.update_flow_run_labels(taken, {"prefect.worker.name": name})
    for service in (worker(home), server(home)):
        process = service.process
        assert process is not None
        process.send_signal(signal.SIGKILL)
        wait(lambda service=service: service.process is None, "the end of what was killed")
    assert "started" in gclflow(folder, "up")
    assert answers(client_environment(home)["PREFECT_API_URL"])
    with connect(client_environment(home)) as client:
        assert client.read_flow_run(taken).state_name == "Crashed"
    assert "fail" not in gclflow(folder, "doctor")


def test_what_began_with_other_versions_begins_anew(folder: Path, home: Home) -> None:
    before = (server(home).process, worker(home).process)
    home.write("server", {**server(home).facts, "made_of": "what was installed before"})
    assert "server and worker started" in gclflow(folder, "up")
    assert server(home).process not in (None, before[0])
    assert worker(home).process not in (None, before[1])
    assert "fail" not in gclflow(folder, "doctor")


def test_switches_outlive_the_database(folder: Path, home: Home) -> None:
    def on() -> dict[str, bool]:
        with connect(client_environment(home)) as client:
            return switches(client)

    with connect(client_environment(home)) as client:
        score = client.read_deployment_by_name("score/score")
        client.update_deployment_schedule(score.id, score.schedules[0].id, active=True)
    before = on()
    assert set(before.values()) == {True, False}
    gclflow(folder, "down")
    for path in home.folder.glob("prefect.db*"):
        path.unlink()
    gclflow(folder, "up")
    assert on() == before
    with connect(client_environment(home)) as client:
        nightly = client.read_deployment_by_name("pipeline/nightly")
        assert not [run for run in flow_runs(home) if run.deployment_id == nightly.id], "it was off"
        score = client.read_deployment_by_name("score/score")
        client.update_deployment_schedule(score.id, score.schedules[0].id, active=False)


def start_long_run(folder: Path, home: Home) -> Any:
    """A run whose training takes minutes; returns its id once it has written a checkpoint."""
    config = {**TINY, "seed": 1, "train": {"epochs": 100_000, "checkpoint_every": 50}}
    with connect(client_environment(home)) as client:
        nightly = client.read_deployment_by_name("pipeline/nightly")
        parameters = {**nightly.parameters, "config": config, "series": None}
        run = client.create_flow_run_from_deployment(nightly.id, parameters=parameters).id
    known = checkpoints(folder)
    wait(lambda: len(checkpoints(folder) - known) >= 2, "checkpoints")
    return run


def checkpoints(folder: Path) -> set[str]:
    return {path.name for path in folder.glob(".store/.scratch/train-*/checkpoints/*.json")}


def state_of(home: Home, run: Any) -> Any:
    with connect(client_environment(home)) as client:
        return client.read_flow_run(run).state


def test_a_cancelled_run_stops_soon_and_keeps_its_checkpoint(folder: Path, home: Home) -> None:
    from prefect.states import Cancelling

    run = start_long_run(folder, home)
    with connect(client_environment(home)) as client:
        client.set_flow_run_state(run, Cancelling())
    wait(lambda: state_of(home, run).type.value == "CANCELLED", "the end of a cancelled run", seconds=60)
    service = worker(home).process
    assert service is not None
    wait(lambda: not service.children(recursive=True), "the end of its processes", seconds=30)
    kept = checkpoints(folder)
    assert kept
    again = start_long_run(folder, home)  # the same settings: it goes on from there
    newest = max(checkpoints(folder))
    assert newest > max(kept)
    with connect(client_environment(home)) as client:
        client.set_flow_run_state(again, Cancelling())
    wait(lambda: state_of(home, again).type.value == "CANCELLED", "the end of a cancelled run", seconds=60)


def test_down_leaves_nothing_behind(folder: Path, home: Home) -> None:
    run = start_long_run(folder, home)
    assert "stopped" in gclflow(folder, "down")
    assert processes_of(home) == []
    assert "nothing was running" in gclflow(folder, "down")
    assert entries(folder), "results stay"

    gclflow(folder, "up")
    assert state_of(home, run).type.value == "CRASHED", "the run has said that it ended"
    gclflow(folder, "down")
    assert processes_of(home) == []
