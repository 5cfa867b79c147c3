"""R10: whoever holds a stage's lock is killed; the next goes on within a second, one after the other."""

import multiprocessing
import os
import select
import shutil
import signal
import time
from pathlib import Path

import pytest

from tasks.locks import FlockLockManager

pytestmark = pytest.mark.fault


def hold(folder: Path, report: int) -> None:
    FlockLockManager(folder).acquire_lock("stage-key", str(os.getpid()))
    os.write(report, f"{os.getpid()} {time.time()}\n".encode())
    time.sleep(100)


def test_waiters_survive_the_kill_of_every_holder_in_turn(tmp_path: Path) -> None:
    """Four processes queue; each holder is killed, and the next has the lock within a second."""
    context = multiprocessing.get_context("fork")
    reports, report = os.pipe()
    processes = [context.Process(target=hold, args=(tmp_path, report)) for _ in range(4)]
    killed_at: float | None = None
    try:
        for process in processes:
            process.start()
        for _ in processes:
            assert select.select([reports], [], [], 60)[0], "nobody got the lock"
            holder, got_it_at = os.read(reports, 100).decode().split()
            assert killed_at is None or float(got_it_at) - killed_at <= 1.0
            assert FlockLockManager(tmp_path).is_locked("stage-key")
            killed_at = time.time()
            os.kill(int(holder), signal.SIGKILL)
        assert FlockLockManager(tmp_path).acquire_lock("stage-key", "last", acquire_timeout=1)
    finally:
        for process in processes:
            process.kill()
            process.join()
        os.close(reports)
        os.close(report)


def test_deleted_lock_files_stop_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    first = FlockLockManager(folder)
    assert first.acquire_lock("stage-key", "first")
    shutil.rmtree(folder)
    assert FlockLockManager(folder).acquire_lock("stage-key", "second", acquire_timeout=1)
    first.release_lock("stage-key", "first")


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 4096, b'{"holder": "dead"}'])
def test_what_a_lock_file_holds_does_not_matter(tmp_path: Path, content: bytes) -> None:
    locks = FlockLockManager(tmp_path)
    locks._path("stage-key").write_bytes(content)
    assert not locks.is_locked("stage-key")
    assert locks.acquire_lock("stage-key", "me", acquire_timeout=1)
