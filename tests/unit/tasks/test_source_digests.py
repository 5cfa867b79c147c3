"""Digests of source files: what is remembered, when it is trusted, and sources that change under us."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

from flows.config import validate_config
from gcl.errors import SourceUnreadable
from tasks import source_digests as module
from tasks.ingest import INGEST, source_digests
from tasks.source_digests import Reading, Status, digest_sources, remember, remembered, unchanged
from tasks.store import Store
from tests.sources import planetoid

LATER_NS = 10_000_000_000


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "edges.csv"
    path.write_bytes(b"0,1\n")
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read to be hashed."""
    names: list[str] = []
    read = module._read

    def noted(path: Path) -> Reading:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(module, "_read", noted)
    return names


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock of readings stands ten seconds ahead, so that files written now have settled."""
    now = time.time_ns
    monkeypatch.setattr(module.time, "time_ns", lambda: now() + LATER_NS)
    yield


def digest(source: Path, store: Store, **options: Any) -> str:
    return digest_sources({"edges": source}, store, **options)["edges"]


@pytest.mark.usefixtures("later")
def test_a_file_that_has_settled_is_hashed_once(source: Path, store: Store, hashed: list[str]) -> None:
    assert digest(source, store) == digest(source, Store(store.root)) == sha(b"0,1\n")
    assert hashed == ["edges.csv"]


@pytest.mark.usefixtures("later")
def test_full_hashes_every_file_whatever_is_remembered(source: Path, store: Store, hashed: list[str]) -> None:
    digest(source, store)
    path = source.resolve()
    entry = remembered(store)[str(path)]
    remember(store, {str(path): entry.model_copy(update={"sha256": sha(b"wrong")})})
    assert digest(source, store) == sha(b"wrong")
    assert digest(source, store, full=True) == sha(b"0,1\n")
    assert digest(source, store) == sha(b"0,1\n"), "what full finds is remembered"
    assert len(hashed) == 2


def test_without_a_store_every_file_is_hashed(source: Path, hashed: list[str]) -> None:
    assert digest_sources({"a": source, "b": source}, None) == {"a": sha(b"0,1\n"), "b": sha(b"0,1\n")}
    assert len(hashed) == 2


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("change", ["size", "mtime", "inode", "content, with the old time set again"])
def test_any_change_of_the_status_has_the_file_hashed_again(
    source: Path, store: Store, hashed: list[str], change: str
) -> None:
    digest(source, store)
    status = source.stat()
    if change == "size":
        source.write_bytes(b"0,1\n1,2\n")
        os.utime(source, ns=(status.st_mtime_ns, status.st_mtime_ns))
    elif change == "mtime":
        os.utime(source, ns=(status.st_mtime_ns + 1, status.st_mtime_ns + 1))
    elif change == "inode":
        other = source.with_name("other")
        other.write_bytes(b"0,2\n")
        os.utime(other, ns=(status.st_mtime_ns, status.st_mtime_ns))
        other.replace(source)
    else:
        source.write_bytes(b"0,2\n")
        os.utime(source, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert digest(source, store) == sha(source.read_bytes())
    assert len(hashed) == 2


def status_of(**changes: int) -> Status:
    return Status(**({"size": 4, "mtime_ns": LATER_NS, "ctime_ns": LATER_NS, "inode": 7} | changes))


@pytest.mark.parametrize("name", ["size", "mtime_ns", "ctime_ns", "inode"])
def test_a_reading_holds_for_the_very_same_status_only(name: str) -> None:
    reading = Reading(status=status_of(), sha256=sha(b""), taken_ns=10 * LATER_NS)
    assert reading.holds_for(status_of())
    assert not reading.holds_for(status_of(**{name: 5}))


@pytest.mark.parametrize("name", ["mtime_ns", "ctime_ns"])
def test_a_reading_within_two_seconds_of_the_last_write_is_not_trusted(name: str) -> None:
    for delay, trusted in ((0, False), (1_999_999_999, False), (2_000_000_000, True), (-LATER_NS, False)):
        status = status_of(**{"mtime_ns": 1, "ctime_ns": 1} | {name: LATER_NS})
        reading = Reading(status=status, sha256=sha(b""), taken_ns=LATER_NS + delay)
        assert reading.holds_for(status) is trusted


def test_a_file_written_just_now_is_not_remembered(source: Path, store: Store, hashed: list[str]) -> None:
    os.utime(source)
    digest(source, store)
    assert remembered(store) == {}
    digest(source, store)
    assert len(hashed) == 2


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"[]",
        b'{"body":{"x":1},"checksum":""}\n',
        b'{"body":{"/x":{"sha256":"../../etc"}},"checksum":"0"}\n',
    ],
)
def test_a_damaged_register_is_an_empty_one(
    source: Path, store: Store, hashed: list[str], content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    digest(source, store)
    (store.root / ".sources.json").write_bytes(content)
    assert remembered(store) == {}
    assert "damaged" in caplog.text
    assert digest(source, store) == sha(b"0,1\n")
    assert len(hashed) == 2 and len(remembered(store)) == 1


@pytest.mark.usefixtures("later")
def test_an_entry_of_another_form_makes_the_register_empty(source: Path, store: Store) -> None:
    from tasks.small_files import write_small

    digest(source, store)
    entry = remembered(store)[str(source.resolve())].model_dump()
    for changed in (entry | {"sha256": "x"}, entry | {"taken_ns": "now"}, entry | {"more": 1}):
        write_small(store, store.root / ".sources.json", {str(source): changed})
        assert remembered(store) == {}


def test_the_register_is_bounded_and_the_oldest_give_way(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    status = Status(size=1, mtime_ns=1, ctime_ns=1, inode=1)
    for number in range(5):
        taken_ns = LATER_NS * (10 - number)
        remember(store, {f"/{number}": Reading(status=status, sha256=sha(b""), taken_ns=taken_ns)})
    assert sorted(remembered(store)) == ["/0", "/1", "/2"]


@pytest.mark.usefixtures("later")
def test_writers_at_once_leave_a_whole_register(tmp_path: Path, store: Store) -> None:
    paths = [tmp_path / f"{number}.csv" for number in range(20)]
    for path in paths:
        path.write_bytes(path.name.encode())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda path: digest(path, store), paths))
    assert found == [sha(path.name.encode()) for path in paths]
    document = json.loads((store.root / ".sources.json").read_bytes())
    assert remembered(store).keys() == document["body"].keys() and document["body"]


@pytest.mark.usefixtures("later")
def test_a_register_that_cannot_be_written_costs_time_and_not_the_run(
    source: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    (store.root / ".sources.json").mkdir()
    assert digest(source, store) == sha(b"0,1\n")
    assert "was not written" in caplog.text


def test_a_missing_file_is_unreadable(tmp_path: Path, store: Store) -> None:
    with pytest.raises(SourceUnreadable, match="absent.csv: No such file"):
        digest(tmp_path / "absent.csv", store)


def test_a_file_that_changes_while_it_is_hashed_is_unreadable(
    source: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_digest = hashlib.file_digest

    def slow(*arguments: Any) -> Any:
        found = file_digest(*arguments)
        source.write_bytes(b"0,1\n1,2\n")
        return found

    monkeypatch.setattr(module.hashlib, "file_digest", slow)
    with pytest.raises(SourceUnreadable, match="changed while it was read"):
        digest(source, store)


@pytest.mark.parametrize("when", ["before", "within", "within, replaced"])
def test_a_source_that_changes_after_its_digest_was_taken_is_refused(
    source: Path, store: Store, when: str
) -> None:
    digest(source, store)
    if when == "before":
        source.write_bytes(b"0,2\n")
    with pytest.raises(SourceUnreadable, match="changed while it was read"), unchanged([source]):
        if when == "within":
            source.write_bytes(b"0,2\n")
        elif when == "within, replaced":
            other = source.with_name("other")
            other.write_bytes(b"0,1\n")
            other.replace(source)


def test_a_second_write_in_one_tick_of_the_clock_is_noticed(source: Path, store: Store) -> None:
    digest(source, store)
    status = source.stat()
    with pytest.raises(SourceUnreadable), unchanged([source]):
        source.write_bytes(b"0,2\n")  # the same length, and the same times as far as they can be set
        os.utime(source, ns=(status.st_mtime_ns, status.st_mtime_ns))


def test_a_source_that_is_only_linked_or_touched_by_a_backup_is_fine(source: Path, store: Store) -> None:
    digest(source, store)
    with unchanged([source]):
        source.chmod(0o444)
        source.with_name("backup").hardlink_to(source)


@pytest.mark.usefixtures("later")
def test_an_unchanged_source_is_not_hashed_again_after_reading(
    source: Path, store: Store, hashed: list[str]
) -> None:
    digest(source, store)
    with unchanged([source]):
        source.read_bytes()
    assert hashed == ["edges.csv"]


def test_a_promise_is_of_its_own_flow(source: Path, store: Store) -> None:
    """Another flow in this process, which has read the newer file, does not vouch for ours."""
    digest(source, store)
    source.write_bytes(b"0,2\n")
    copy_context().run(digest, source, store)
    with pytest.raises(SourceUnreadable), unchanged([source]):
        pass


def test_an_error_of_the_reader_is_not_hidden(source: Path, store: Store) -> None:
    digest(source, store)
    with pytest.raises(KeyError), unchanged([source]):
        raise KeyError("reader")


def test_a_graph_whose_source_changed_meanwhile_is_not_published(tmp_path: Path, store: Store) -> None:
    config = validate_config({"dataset": planetoid(tmp_path)}).dataset
    request = INGEST.request(config, store=store, inputs={}, sources=source_digests(config, store))
    index = tmp_path / "ind.tiny.test.index"
    content = index.read_bytes()
    index.write_bytes(content + b"\n")
    with pytest.raises(SourceUnreadable, match="changed while it was read"):
        INGEST.execute(request, store)
    assert not list(store.folders()) and not list((store.root / ".tmp").iterdir())
    index.write_bytes(content)
    INGEST.execute(request, store)
    assert len(list(store.folders())) == 1


def test_the_register_is_no_part_of_a_key(tmp_path: Path, store: Store) -> None:
    config = validate_config({"dataset": planetoid(tmp_path)}).dataset
    first = source_digests(config, store)
    assert source_digests(config) == first == source_digests(config, Store(tmp_path / "other"))
    assert set(first) == {
        f"source:{role}" for role in ("graph", "x", "y", "tx", "ty", "allx", "ally", "test.index")
    }
