"""What is running, as another process sees it: locks that are held, writers that live, files just written."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from tasks.in_use import (
    inputs_in_use,
    is_anything_running,
    is_held,
    is_running,
    last_written,
    remove_lock,
)
from tasks.locks import FlockLockManager
from tasks.store import Store
from tests.tiny_runs import key_of

KEY = key_of("running")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_nothing_runs_in_a_quiet_store(store: Store) -> None:
    (store.root / ".locks" / "free").write_bytes(b"")
    assert not is_anything_running(store) and not is_running(store, "train", KEY)
    assert inputs_in_use(store) == set()


def test_the_lock_of_a_stage_is_that_of_its_prefect_task(store: Store) -> None:
    manager = FlockLockManager(store.root / ".locks")
    assert manager.acquire_lock(f"train-{KEY}", "me", acquire_timeout=0)
    assert is_running(store, "train", KEY) and is_anything_running(store)
    assert not is_running(store, "train", key_of("another")) and not is_running(store, "cluster", KEY)
    manager.release_lock(f"train-{KEY}", "me")
    assert not is_running(store, "train", KEY)


def test_a_stage_that_is_being_written_runs(store: Store) -> None:
    with store.writing("train", KEY):
        assert is_running(store, "train", KEY) and is_anything_running(store)
        assert not is_running(store, "train", key_of("another")) and not is_running(store, "cluster", KEY)
    assert not is_running(store, "train", KEY)


def test_what_a_killed_writer_has_left_does_not_run(store: Store) -> None:
    (store.root / ".tmp" / f"{os.getpid()}.1-train-{KEY[:12]}-0123abcd").mkdir()  # a pid that was used again
    assert not is_running(Store(store.root), "train", KEY)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_inputs_that_cannot_be_read_are_none(store: Store, content: bytes) -> None:
    with store.writing("train", KEY) as folder:
        assert inputs_in_use(store) == set()
        (folder / "volatile").mkdir()
        (folder / "volatile" / "inputs.json").write_bytes(content)
        assert inputs_in_use(store) == set()
        (folder / "volatile" / "inputs.json").write_bytes(b'{"graph": "abc"}')
        assert inputs_in_use(store) == {"abc"}


def test_only_a_lock_that_is_free_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_held(path) and not remove_lock(path) and path.exists()
    assert not is_held(path) and remove_lock(path) and not path.exists()
    assert not is_held(path) and not remove_lock(path)


def test_asking_whether_a_lock_is_held_does_not_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_bytes(b"")
    assert not is_held(path) and not is_held(path)


def test_a_folder_was_last_written_when_anything_below_it_was(tmp_path: Path) -> None:
    inner = tmp_path / "folder" / "checks" / "epoch"
    inner.parent.mkdir(parents=True)
    inner.write_bytes(b"")
    now = time.time()
    for path, seconds in ((inner, 10), (inner.parent, 500), (tmp_path / "folder", 1000)):
        os.utime(path, (now - seconds,) * 2)
    assert last_written(tmp_path / "folder") == pytest.approx(now - 10, abs=1)
    assert last_written(inner) == pytest.approx(now - 10, abs=1)
