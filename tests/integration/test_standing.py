"""gclflow up with a schedule that fires: runs come, the second cached; what died is started again; down."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flows.dead_runs import SILENCES
from flows.deploy import connect
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
    for service in (worker(home), server(home)):
        process = service.process
        assert process is not None
        process.send_signal(signal.SIGKILL)
        wait(lambda service=service: service.process is None, "the end of what was killed")
    assert "started" in gclflow(folder, "up")
    assert answers(client_environment(home)["PREFECT_API_URL"])
    assert "fail" not in gclflow(folder, "doctor")


def test_down_leaves_nothing_behind(folder: Path, home: Home) -> None:
    assert "stopped" in gclflow(folder, "down")
    assert processes_of(home) == []
    assert "nothing was running" in gclflow(folder, "down")
    assert entries(folder), "results stay"
