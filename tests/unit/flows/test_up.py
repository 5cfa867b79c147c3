"""What gclflow up decides before it starts anything: the port, and the deployments."""

import shutil
import socket
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from flows import deploy, installed, up
from flows.cli import app
from flows.config import ConfigurationError
from flows.deploy import _as_switched, deployments_file, file_switches, fingerprint, kept_switches
from flows.home import Home
from flows.installed import made_of
from flows.server import ServerNotStarted
from flows.service import Service


def test_a_port_that_is_taken_is_refused_if_asked_for_and_else_passed_over() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = int(other.getsockname()[1])
        with pytest.raises(ConfigurationError, match=f"--port {taken}: something else listens"):
            up._choose_port(taken, None)
        assert up._choose_port(None, taken) != taken


def test_the_last_port_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "_is_free", lambda port: True)
    assert up._choose_port(None, 4321) == 4321
    assert up._choose_port(None, None) == up.DEFAULT_PORT
    assert up._choose_port(4400, 4321) == 4400


def test_deployments_and_their_folder_stay_those_of_the_last_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, mine, elsewhere = Home(tmp_path / "home"), tmp_path / "prod.yaml", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for file in (mine, elsewhere / "prefect.yaml"):
        file.write_text("deployments: []\n")
    with home.locked():
        home.write("deployed", {"file": str(mine), "folder": str(tmp_path)})
    monkeypatch.chdir(elsewhere)
    assert up._deployments(home, None) == (mine, tmp_path)
    assert up._deployments(home, Path("prefect.yaml")) == (elsewhere / "prefect.yaml", elsewhere)
    mine.unlink()
    assert up._deployments(home, None) == (elsewhere / "prefect.yaml", elsewhere)


def test_what_points_at_another_server_is_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_KEY", "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_PROFILE", "PREFECT_HOME"):
        monkeypatch.setenv(name, "of another")
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
    plain = up._plain_environment()
    assert "of another" not in plain.values()
    assert plain["PREFECT_LOGGING_LEVEL"] == "DEBUG"


def test_a_switch_stays_unless_the_file_says_otherwise_than_before() -> None:
    switched = {"pipeline/nightly at-two": False, "pipeline/hourly often": True, "stage/train s": True}
    said = {"nightly at-two": True, "hourly often": True}
    assert kept_switches(switched, said, said) == switched
    says = {"nightly at-two": True, "hourly often": False, "train s": False}
    assert kept_switches(switched, said, says) == {"pipeline/nightly at-two": False, "stage/train s": True}


def test_what_a_file_says_of_its_schedules(tmp_path: Path) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text(
        "deployments:\n"
        "  - name: nightly\n"
        "    schedules: [{slug: a, active: false}, {slug: b}, {cron: '0 2 * * *'}]\n"
        "  - name: train\n"
    )
    assert file_switches(file) == {"nightly a": False, "nightly b": True}
    for broken in ("", "deployments: 3", "[", "deployments: [{schedules: [{slug: a}]}]"):
        file.write_text(broken)
        assert file_switches(file) == {}


def test_schedules_are_deployed_as_they_are_switched(tmp_path: Path) -> None:
    """Else one that is off would start runs until it is switched off again."""
    home, file = Home(tmp_path / "home"), tmp_path / "prefect.yaml"
    file.write_text(
        "name: x\ndeployments:\n"
        "  - {name: nightly, parameters: {a: '{{ b }}'}, schedules: [{slug: s, cron: '0 2 * * *'}]}\n"
        "  - {name: train, schedules: null}\n"
    )
    with home.locked():
        assert _as_switched(file, {"pipeline/nightly s": True, "pipeline/other s": False}, home) == file
        assert _as_switched(file, {"a/nightly s": True, "b/nightly s": False}, home) == file, "ambiguous"
        made = _as_switched(file, {"pipeline/nightly s": False}, home)
    assert file_switches(made) == {"nightly s": False}
    document, before = (yaml.safe_load(path.read_text()) for path in (made, file))
    del document["deployments"][0]["schedules"][0]["active"]
    assert document == before


def test_switches_of_a_lost_database_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, file = Home(tmp_path / "home"), tmp_path / "prefect.yaml"
    file.write_text("deployments: [{name: nightly, schedules: [{slug: s, active: false}]}]\n")
    deployed: list[dict[str, bool]] = []
    monkeypatch.setattr(deploy, "_deploy", lambda made, *_: deployed.append(file_switches(made)))
    new = SimpleNamespace(read_deployments=list, read_flows=list)
    with home.locked():
        home.write("seen", {"switches": {"pipeline/nightly s": True}})
        deploy.make_deployments(new, home, file, tmp_path, {})
    assert deployed == [{"nightly s": True}]


def test_a_folder_without_deployments_gets_those_that_come_with_gclflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    switches = {"nightly nightly": False, "maintenance weekly": False, "score daily": False}
    assert file_switches(deployments_file()) == switches


@pytest.mark.parametrize("name", ["tasks.py", "flows/__init__.py"])
def test_a_folder_that_hides_our_packages_is_refused_before_anything_starts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home(tmp_path / "home")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("raise ImportError")
    with pytest.raises(ConfigurationError, match=f"holds {name}, which Prefect would import"):
        up.up(home)
    assert not up.server(home).facts and not home.read("wanted")


def test_folders_of_such_names_and_our_own_checkout_hide_nothing(tmp_path: Path) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "tasks").mkdir()
    assert not installed.hidden_by(tmp_path)
    assert not installed.hidden_by(Path(installed.__file__).parents[1])


class Processes:
    """Stands for the processes of a home: what is started is written down, nothing runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.answers = iter([True])
        monkeypatch.setattr(up.Service, "process", property(lambda service: service.facts or None))
        monkeypatch.setattr(
            up.Service, "start", lambda service, *_, folder=None, **facts: self.start(service, facts)
        )
        monkeypatch.setattr(up.Service, "stop", lambda service, **_: self.stop(service))
        monkeypatch.setattr(up, "wait_until_up", lambda *_: None)
        monkeypatch.setattr(up, "answers", lambda url: next(self.answers, False))
        monkeypatch.setattr(up, "_is_free", lambda port: True)
        monkeypatch.setattr(up, "_PROBE_PAUSE_SECONDS", 0.0)

    def start(self, service: Service, facts: dict[str, object]) -> None:
        self.done.append(f"{service.name} started")
        service.home.write(service.name, facts)

    def stop(self, service: Service) -> bool:
        was_there = bool(service.facts)
        self.done += [f"{service.name} stopped"] if was_there else []
        service.home.forget(service.name)
        return was_there


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    return Processes(monkeypatch)


@pytest.fixture
def standing(processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose server was started on port 5000."""
    monkeypatch.setattr(up.Service, "end_children", lambda service, *, seconds: None)
    home = Home(tmp_path / "home")
    with home.locked():
        assert up._start_server(home, 5000, auth=True)
        home.write("worker", {"server": "x"})
    processes.done.clear()
    return home


def test_a_port_that_was_asked_for_once_outlives_down(standing: Home, processes: Processes) -> None:
    up._stop_worker(standing)
    up.server(standing).stop()
    up._start_server(standing, None, auth=True)
    assert up.server(standing).facts["port"] == 5000


def test_services_of_other_versions_are_stopped_and_those_of_these_left_alone(
    standing: Home, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    up._stop_outdated(standing)
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")  # of this shell
    up._stop_outdated(standing)
    assert processes.done == []
    monkeypatch.setattr("flows.installed.versions", lambda: {"prefect": "99"})
    up._stop_outdated(standing)
    assert processes.done == ["worker stopped", "server stopped"], "runs first, which then can say so"


def test_settings_that_a_newer_gclflow_gives_its_server_count_as_new(standing: Home) -> None:
    settings = up.server_environment(standing.folder, 5000)
    assert up.server(standing).facts["made_of"] == made_of(settings)
    assert made_of(settings) != made_of({**settings, "PREFECT_SERVER_NEW": "1"})


def test_a_busy_server_is_asked_again_and_one_that_stays_silent_is_replaced(
    standing: Home, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes.answers = iter([False, False, True])
    assert not up._start_server(standing, None, auth=True)
    assert processes.done == []
    monkeypatch.setattr(up, "_BUSY_SECONDS", 0.05)
    assert up._start_server(standing, None, auth=True)
    assert processes.done == ["server stopped", "server started"]


class Pool:
    """A client whose server knows one worker."""

    def __init__(self, *statuses: str, name: str = "w") -> None:
        self.statuses, self.name = list(statuses), name

    def read_workers_for_work_pool(self, name: str) -> list[SimpleNamespace]:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return [SimpleNamespace(name=self.name, status=status, last_heartbeat_time=datetime.now(UTC))]


def test_a_worker_is_waited_for_until_it_is_heard(standing: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "_HEARD_SECONDS", 0.05)
    service = up.worker(standing)
    assert up._is_heard(Pool("OFFLINE", "OFFLINE", "ONLINE"), service, "w", since=datetime.now(UTC))
    assert not up._is_heard(Pool("OFFLINE"), service, "w"), "alive, and dead inside"
    service.stop()
    assert not up._is_heard(Pool("ONLINE"), service, "w", since=datetime.now(UTC)), "its process is gone"


@pytest.mark.parametrize("statuses", [("ONLINE",), ("OFFLINE",)])
def test_deployments_are_made_while_the_worker_begins_and_one_that_does_not_is_told(
    standing: Home, processes: Processes, monkeypatch: pytest.MonkeyPatch, statuses: tuple[str, ...]
) -> None:
    client = Pool(*statuses, name=up._worker_name(standing))
    monkeypatch.setattr(up, "_BEGINS_SECONDS", 0.05)
    monkeypatch.setattr(up, "client_environment", lambda home: {"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    monkeypatch.setattr(up, "connect", lambda environment: nullcontext(client))
    for name in ("make_work_pool", "watch_for_dead_runs", "_stop_outdated"):
        monkeypatch.setattr(up, name, lambda *_: None)
    monkeypatch.setattr(up, "_register", lambda *_: processes.done.append("registered"))
    monkeypatch.setattr(up, "close_runs_of", lambda _, name: processes.done.append(f"runs of {name} closed"))
    up._stop_worker(standing)
    standing.log("worker").write_text("what it last said")
    processes.done.clear()
    begun = [f"runs of {client.name} closed", "worker started", "registered"]
    if statuses == ("ONLINE",):
        processes.answers = iter([True, True])
        assert up.up(standing).started == ("worker",)
        assert processes.done == begun
        assert up.up(standing).started == ()
        assert processes.done == [*begun, "registered"], "a worker that is there has its runs"
    else:
        with pytest.raises(ServerNotStarted, match="worker did not start; its log ends:\nwhat it last said"):
            up.up(standing)
        assert processes.done == [*begun, "worker stopped"]


def test_down_is_the_last_word_until_up(
    standing: Home, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "client_environment", lambda home: {})
    assert not up.is_to_stay_down(standing)
    assert up.down(standing) == ("worker", "server")
    assert up.is_to_stay_down(standing)
    done = CliRunner().invoke(app, ["up", "--if-wanted", "--home", str(standing.folder)])
    assert done.exit_code == 0
    assert processes.done == ["worker stopped", "server stopped"]


def test_deployments_are_made_again_when_a_flow_of_ones_own_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text("deployments: [{name: mine, entrypoint: 'mine.py:mine'}, {name: ours}]\n")
    (tmp_path / "mine.py").write_text("def mine(a=1): ...\n")
    before = fingerprint(file, tmp_path)
    assert fingerprint(file, tmp_path) == before
    (tmp_path / "mine.py").write_text("def mine(a=1, b=2): ...\n")
    assert fingerprint(file, tmp_path) != before


def test_deployments_are_made_again_when_a_flow_of_ours_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text("deployments: []\n")
    before, sources = fingerprint(file, tmp_path), tmp_path / "flows"
    shutil.copytree(Path(installed.__file__).parent, sources, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(installed, "__file__", str(sources / "installed.py"))
    assert fingerprint(file, tmp_path) == before
    maintenance = sources / "maintenance.py"
    maintenance.write_text(maintenance.read_text().replace("keep_days: ", "keep_gb: float = 0, keep_days: "))
    assert fingerprint(file, tmp_path) != before
