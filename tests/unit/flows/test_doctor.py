"""The doctor: finds what is wrong, says what to do, and does not die of it."""

import importlib.metadata
from pathlib import Path

import pytest

from flows import doctor
from flows.doctor import Finding, examine
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
    def broken(home: Home) -> None:
        raise OSError("no such luck")

    monkeypatch.setattr(doctor, "_server", broken)
    found = by_name(tmp_path)
    assert found["server"].state == "fail"
    assert "no such luck" in found["server"].detail
    assert "disk" in found
