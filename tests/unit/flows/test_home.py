"""The folder of gclflow up: its owner's alone, whole documents, a secret that is made once."""

import stat
from pathlib import Path

import pytest

from flows.config import ConfigurationError
from flows.home import Home


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_secret_is_for_its_owner_alone_and_stays_the_same(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.locked():
        home.choose_auth(wanted=True)
        first = home.auth
        home.choose_auth(wanted=True)
    assert first is not None
    assert home.auth == first
    name, _, password = first.partition(":")
    assert name == "gclflow"
    assert len(password) >= 20
    assert (mode(home.folder), mode(home.folder / "auth.json")) == (0o700, 0o600)
    assert home.asks_for_login
    home.choose_auth(wanted=True, anew=True)
    assert home.auth not in (first, None)
    home.choose_auth(wanted=False)
    assert home.auth is None
    assert not home.asks_for_login, "it stays declined until it is asked for"


def test_two_homes_have_two_secrets(tmp_path: Path) -> None:
    secrets = set()
    for name in "ab":
        home = Home(tmp_path / name)
        with home.locked():
            home.choose_auth(wanted=True)
        secrets.add(home.auth)
    assert len(secrets) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null"])
def test_a_damaged_document_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "server.json").write_bytes(content)
    assert Home(tmp_path).read("server") == {}


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"), Home(tmp_path / "file").locked():
        pytest.fail("it must not get here")


def test_the_place_comes_from_the_argument_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCLFLOW_HOME", str(tmp_path / "given"))
    assert Home().folder == tmp_path / "given"
    assert Home(tmp_path / "said").folder == tmp_path / "said"
    monkeypatch.delenv("GCLFLOW_HOME")
    monkeypatch.chdir(tmp_path)
    assert Home().folder == tmp_path / ".gclflow"


def test_a_home_that_was_never_up_asks_for_a_login(tmp_path: Path) -> None:
    assert Home(tmp_path).asks_for_login


def test_a_log_that_has_grown_is_set_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with home.locked():
        pass
    with home.log("server").open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        assert home.trim_logs(max_bytes=1000) == ()
        assert home.trim_logs(max_bytes=100) == ("server.log",)
        writer.write(b"new\n")
    assert home.log("server").read_bytes() == b"new\n"
    aside = home.folder / "server.log.1"
    assert aside.read_bytes() == b"old\n" * 100
    assert mode(aside) == 0o600
