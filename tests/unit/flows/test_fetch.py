"""Fetching public data: pinned hashes, a clear word where there is no network, nothing left behind."""

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import fetch
from flows.config import ConfigurationError
from flows.exit_codes import exit_code
from flows.fetch import PUBLIC, PublicDataset, PublicFile, fetch_dataset
from gcl.errors import SourceUnreadable

CONTENT = b"three nodes"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A machine without network; the attempts made."""
    attempts: list[object] = []

    def refuse(*arguments: object, **options: object) -> None:
        attempts.append(arguments)
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return attempts


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """A data set of one file, whose download gives these bytes."""
    import pooch

    file = PublicFile("sub/data.bin", "https://example.invalid/data.bin", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(fetch.PUBLIC, "made-up", PublicDataset("csv", "nowhere", (file,)))

    def serve(content: bytes) -> None:
        def download(url: str, output: str, _: object) -> None:
            Path(output).write_bytes(content)

        monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar=False: download)

    return serve


def test_without_network_the_error_says_what_to_do_and_nothing_is_left(
    tmp_path: Path, offline: list[object]
) -> None:
    with pytest.raises(SourceUnreadable) as caught:
        fetch_dataset("cora", tmp_path / "data" / "deep")
    assert exit_code(caught.value) == 4
    assert "offline" in str(caught.value)
    assert "sha256 must be" in str(caught.value)
    assert offline, "it tried"
    assert not list(tmp_path.iterdir())


def test_files_that_are_there_stay_where_a_later_one_fails(tmp_path: Path, offline: list[object]) -> None:
    (tmp_path / "cora").mkdir()
    (tmp_path / "cora" / "mine.txt").write_text("kept")
    with pytest.raises(SourceUnreadable):
        fetch_dataset("cora", tmp_path)
    assert [path.name for path in (tmp_path / "cora").iterdir()] == ["mine.txt"]


def test_an_unknown_name_lists_the_known_ones_without_network(tmp_path: Path, offline: list[object]) -> None:
    with pytest.raises(ConfigurationError, match="'corra'.*cora"):
        fetch_dataset("corra", tmp_path)
    assert not offline


def test_a_downloaded_file_is_kept_and_not_fetched_again(
    tmp_path: Path, served: Callable[[bytes], None], offline: list[object]
) -> None:
    served(CONTENT)
    folder = fetch_dataset("made-up", tmp_path)
    assert (folder / "sub" / "data.bin").read_bytes() == CONTENT
    served(b"never asked for")
    fetch_dataset("made-up", tmp_path)
    assert (folder / "sub" / "data.bin").read_bytes() == CONTENT
    assert not offline


def test_other_bytes_than_pinned_are_refused_and_not_kept(
    tmp_path: Path, served: Callable[[bytes], None]
) -> None:
    served(b"something else")
    with pytest.raises(SourceUnreadable, match="hash"):
        fetch_dataset("made-up", tmp_path / "data")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_file_is_pinned_and_stays_in_its_folder(name: str) -> None:
    for file in PUBLIC[name].files:
        assert file.url.startswith("https://")
        assert len(bytes.fromhex(file.sha256)) == 32
        assert not Path(file.name).is_absolute()
        assert ".." not in Path(file.name).parts
