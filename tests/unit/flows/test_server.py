"""The Prefect server of a run: the configured one, or a private one that is gone afterwards."""

import os
import socket
import stat
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flows import server
from flows.dead_runs import SILENCES
from flows.home import Home
from flows.server import ServerNotStarted, prefect_server, server_environment
from tests.healthy_server import healthy_server


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)


def servers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "prefect.server" in " ".join(p.cmdline())]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with healthy_server() as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        yield url


def test_a_configured_server_is_used_and_left_alone(tmp_path: Path, configured: str) -> None:
    before = len(servers())
    with prefect_server(tmp_path / "home", meanwhile=pytest.fail) as url:
        assert url == configured
        assert len(servers()) == before
    assert not (tmp_path / "home").exists()


def test_a_configured_server_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(ServerNotStarted, match="127.0.0.1:9"), prefect_server(tmp_path / "home"):
        pytest.fail("it must not get here")


@pytest.mark.slow
def test_a_private_server_answers_on_loopback_alone_and_is_stopped(tmp_path: Path, unset: None) -> None:
    environment, before = dict(os.environ), servers()
    meanwhile: list[tuple[str, bool]] = []

    def note() -> None:
        url = os.environ["PREFECT_API_URL"]
        meanwhile.append((url, server.answers(url)))

    with prefect_server(tmp_path / "home", meanwhile=note) as url:
        assert meanwhile == [(url, False)], "once, with its settings, before it is there"
        assert os.environ["PREFECT_API_URL"] == url
        with urllib.request.urlopen(f"{url}/health") as response:
            assert response.status == 200
        (process,) = (p for p in servers() if p not in before)
        listening = [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
        assert set(listening) == {"127.0.0.1"}
        assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
        with server._database_folder(tmp_path / "home") as other:
            assert other != tmp_path / "home", "a second run gets a database of its own"
        assert not other.exists()
    assert not process.is_running()
    assert dict(os.environ) == environment
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(url.split(":")[2].partition("/")[0]))) != 0


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, ImportError])
def test_a_private_server_is_stopped_when_what_goes_on_meanwhile_fails(
    tmp_path: Path, unset: None, error: type[BaseException]
) -> None:
    environment, before = dict(os.environ), servers()

    def fail() -> None:
        raise error

    with pytest.raises(error), prefect_server(tmp_path / "home", meanwhile=fail):
        pytest.fail("it must not get here")
    assert servers() == before
    assert dict(os.environ) == environment


def test_a_server_that_does_not_start_is_told_with_the_end_of_its_log(
    tmp_path: Path, unset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    false = tmp_path / "python"
    false.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such module')\n")
    false.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(false))
    with pytest.raises(ServerNotStarted, match="no such module"), prefect_server(tmp_path / "home"):
        pytest.fail("it must not get here")
    assert "PREFECT_API_URL" not in os.environ


def test_who_listens_in_the_place_of_a_dead_server_is_told_no_secret(tmp_path: Path, configured: str) -> None:
    home = Home(tmp_path / "home")
    with home.locked():
        home.choose_auth(wanted=True)
        port = int(configured.rpartition(":")[2].removesuffix("/api"))
        home.write("server", {"pid": 1, "began": "another boot 1", "port": port})
    assert server.client_environment(home) == {}


def test_clients_of_a_standing_server_send_heartbeats_as_often_as_dead_runs_are_looked_for(
    tmp_path: Path, configured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    with home.locked():
        home.write("server", {"port": int(configured.rpartition(":")[2].removesuffix("/api"))})
    monkeypatch.setattr(server.Service, "process", psutil.Process())
    settings = server.client_environment(home)
    assert int(settings["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) * 3 <= SILENCES[0].seconds
    assert "PREFECT_API_AUTH_STRING" not in settings


def test_pages_of_other_origins_are_answered_nothing_and_leases_outlive_a_restart(tmp_path: Path) -> None:
    settings = server.server_environment(tmp_path, 4300)
    assert settings["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4300"
    assert settings["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith(".filesystem")


def test_history_ends_after_so_many_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Prefect itself understands the settings: else its database grows for ever."""
    from datetime import timedelta

    from prefect.settings.models.server.events import ServerEventsSettings
    from prefect.settings.models.server.services import ServerServicesDBVacuumSettings

    monkeypatch.setattr(server, "HISTORY_DAYS", 11)  # Prefect's own are 90, and 7 for events
    for name, value in server_environment(tmp_path, 4200).items():
        monkeypatch.setenv(name, value)
    vacuum = ServerServicesDBVacuumSettings()
    assert vacuum.enabled_vacuum_types >= {"events", "flow_runs"}
    assert vacuum.retention_period == timedelta(days=11)
    assert ServerEventsSettings().retention_period == timedelta(days=11)
