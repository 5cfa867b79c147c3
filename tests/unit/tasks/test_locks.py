"""Locks that die with their holder."""

import asyncio
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from tasks.locks import FlockLockManager

KEYS = ["plain", "with/slash", "lr0.01", "lr0.02", "../../outside", "x" * 5000]


@pytest.fixture
def locks(tmp_path: Path) -> FlockLockManager:
    return FlockLockManager(tmp_path / "locks")


@pytest.mark.parametrize("key", KEYS)
def test_a_lock_excludes_other_holders_until_it_is_given_back(locks: FlockLockManager, key: str) -> None:
    other = FlockLockManager(locks.folder)
    assert locks.acquire_lock(key, "me")
    assert locks.acquire_lock(key, "me"), "again, by the same holder"
    assert locks.is_locked(key)
    assert other.is_locked(key)
    assert locks.is_lock_holder(key, "me")
    assert not locks.is_lock_holder(key, "you")
    assert not locks.acquire_lock(key, "you", acquire_timeout=0)
    assert not other.acquire_lock(key, "you", acquire_timeout=0.2)
    assert not other.wait_for_lock(key, timeout=0.2)
    locks.release_lock(key, "me")
    assert other.wait_for_lock(key, timeout=0.2)
    assert other.acquire_lock(key, "you", acquire_timeout=0)


def test_keys_do_not_share_locks_and_stay_in_the_folder(locks: FlockLockManager) -> None:
    for key in KEYS:
        assert locks.acquire_lock(key, key, acquire_timeout=0)
    assert len(list(locks.folder.iterdir())) == len(KEYS)


def test_only_the_holder_can_release(locks: FlockLockManager) -> None:
    locks.acquire_lock("key", "me")
    with pytest.raises(ValueError, match="held by you"):
        locks.release_lock("key", "you")
    assert locks.is_locked("key")


def _hold(folder: Path, ready) -> None:  # type: ignore[no-untyped-def]
    FlockLockManager(folder).acquire_lock("key", "child")
    ready.set()
    time.sleep(60)


@pytest.mark.fault
def test_a_killed_holder_frees_its_lock_within_a_second(locks: FlockLockManager) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=_hold, args=(locks.folder, ready))
    child.start()
    assert ready.wait(10)
    assert not locks.acquire_lock("key", "me", acquire_timeout=0)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    started = time.monotonic()
    assert locks.acquire_lock("key", "me", acquire_timeout=5)
    assert time.monotonic() - started <= 1
    child.join()


def test_the_asynchronous_forms_agree(locks: FlockLockManager) -> None:
    async def use() -> None:
        assert await locks.aacquire_lock("key", "me")
        assert not await locks.aacquire_lock("key", "you", acquire_timeout=0.2)
        assert not await locks.await_for_lock("key", timeout=0.2)
        locks.release_lock("key", "me")
        assert await locks.await_for_lock("key", timeout=0.2)

    asyncio.run(use())


def test_a_lock_does_not_leak_into_programs_started_meanwhile(locks: FlockLockManager) -> None:
    import subprocess
    import sys

    locks.acquire_lock("key", "me")
    program = [sys.executable, "-c", "print(flush=True); input()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(program, close_fds=False, **pipes) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it runs; only then has the kernel closed what is not inherited
        locks.release_lock("key", "me")
        assert not FlockLockManager(locks.folder).is_locked("key")
        child.communicate(b"\n")
