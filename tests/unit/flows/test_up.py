"""What gclflow up decides before it starts anything: the port, and the deployments."""

import socket
from pathlib import Path

import pytest

from flows import up
from flows.config import ConfigurationError
from flows.deploy import deployments_file, file_switches, kept_switches
from flows.home import Home


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


def test_a_folder_without_deployments_gets_those_that_come_with_gclflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    switches = {"nightly nightly": False, "maintenance weekly": False, "score daily": False}
    assert file_switches(deployments_file()) == switches
