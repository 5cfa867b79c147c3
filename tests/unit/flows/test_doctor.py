"""The doctor: finds what is wrong, says what to do, and does not die of it."""

import importlib.metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import doctor
from flows.doctor import Finding, examine
from flows.doctor_upkeep import growth, lost
from flows.home import Home


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_SERVER_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)


def by_name(tmp_path: Path, store: str = "store") -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(Home(tmp_path / "home"), str(tmp_path / store))}


def test_a_fresh_installation_is_in_order(tmp_path: Path) -> None:
    found = by_name(tmp_path)
    assert {name for name, finding in found.items() if finding.state == "fail"} == set()
    assert {"python", "libraries", "store", "disk", "server"} <= set(found)
    assert not list(tmp_path.iterdir()), "looking makes nothing"


def test_a_library_out_of_range_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.163.2" if name == "fastapi" else real(name)
    )
    finding = by_name(tmp_path)["libraries"]
    assert finding.state == "fail"
    assert "fastapi is 0.163.2, not <0.151" in finding.detail
    assert "requirements.lock" in finding.advice


def test_a_folder_that_is_no_store_and_one_open_to_others(tmp_path: Path) -> None:
    from tasks.store import Store

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("")
    Store(tmp_path / "open")
    (tmp_path / "open").chmod(0o755)
    assert by_name(tmp_path, "open")["store"].state == "warn"
    assert "chmod 700" in by_name(tmp_path, "open")["store"].advice
    (tmp_path / "thesis" / "store.json").write_text("{")
    assert by_name(tmp_path, "thesis")["store"].state == "fail"


def test_a_full_disk_fails_and_says_what_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 5 << 20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: usage)
    finding = by_name(tmp_path)["disk"]
    assert finding.state == "fail"
    assert "gc" in finding.advice


def test_a_server_that_was_up_and_is_dead_fails(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.locked():
        home.write("server", {"pid": 1, "began": "another boot 1", "port": 9})
    finding = by_name(tmp_path)["server"]
    assert (finding.state, finding.advice) == ("fail", "gclflow up starts it again")


def test_a_secret_that_others_can_read_fails(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.locked():
        home.choose_auth(wanted=True)
    (home.folder / "auth.json").chmod(0o644)
    assert by_name(tmp_path)["secret"].state == "fail"


def test_an_empty_auth_string_locks_everybody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "")
    assert by_name(tmp_path)["login"].state == "fail"


def test_a_server_elsewhere_without_a_login_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://user:hunter2@192.0.2.1:4200/api")
    monkeypatch.setattr("flows.server.answers", lambda url: True)
    found = examine(Home(tmp_path / "home"), str(tmp_path / "store"))
    assert any(finding.name == "exposure" and finding.state == "fail" for finding in found)
    assert not any("hunter2" in finding.detail + finding.advice for finding in found)


def test_a_check_that_breaks_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(home: Home, store: str) -> None:
        raise OSError("no such luck")

    monkeypatch.setattr(doctor, "_server", broken)
    found = by_name(tmp_path)
    assert found["server"].state == "fail"
    assert "no such luck" in found["server"].detail
    assert "disk" in found


class Server:
    """A client whose server has these schedules and automations."""

    def __init__(self, on: dict[str, bool], notices: dict[str, bool]) -> None:
        self.on, self.notices = on, notices

    def read_flows(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(id=name, name=name.partition("/")[0]) for name in self.on]

    def read_deployments(self) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(
                id=name,
                flow_id=name,
                name=name.partition("/")[2],
                schedules=[SimpleNamespace(slug="s", active=on)],
            )
            for name, on in self.on.items()
        ]

    def read_automations_by_name(self, name: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(enabled=self.notices[name])] if name in self.notices else []


def test_what_was_on_and_no_longer_is_is_told(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    on = {"pipeline/nightly": True, "score/score": False}
    with home.locked():
        assert not list(lost(home, Server(on, {})))
        home.write("seen", {"switches": {"pipeline/nightly s": True, "score/score s": False}})
        home.write("notices", {"names": ["gclflow-notices", "mine"]})
    assert not list(lost(home, Server(on, {"gclflow-notices": True, "mine": True})))
    schedules, gone, off = lost(home, Server({}, {"mine": False}))
    assert schedules.detail.endswith("off now: pipeline/nightly s")
    assert (gone.detail, off.detail) == ("gclflow-notices is gone", "mine is switched off")
    assert {schedules.state, gone.state, off.state} == {"warn"}


def test_a_nightly_without_maintenance_is_told_with_what_it_takes(tmp_path: Path) -> None:
    home, store = Home(tmp_path / "home"), tmp_path / "store"
    (store / ".quarantine").mkdir(parents=True)
    for path, megabytes in ((store / "a", 512), (store / ".quarantine" / "b", 256)):
        with path.open("wb") as file:
            file.truncate(megabytes << 20)
    for on in ({"pipeline/nightly": True, "maintenance/maintenance": True}, {"pipeline/nightly": False}):
        assert not list(growth(home, str(store), Server(on, {})))
    (found,) = growth(home, str(store), Server({"pipeline/nightly": True, "maintenance/m": False}, {}))
    assert found.state == "warn"
    assert "store 0.75 GB, quarantine 0.25 GB, database 0.00 GB" in found.detail
