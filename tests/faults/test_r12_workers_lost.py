"""R12, R13: Dask workers that exit, crash, leave or run out of memory, and what a stage makes of it."""

import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.exit_codes import describe, exit_code
from tasks.dask_pool import ALLOWED_WORKER_DEATHS, SchedulerLost, WorkerLost, dask_map
from tests.tiny_runs import run_direct, tiny

pytestmark = [pytest.mark.fault, pytest.mark.slow]
BLOCKS = [bytes([number]) * 1000 for number in range(12)]
BAD = BLOCKS[5]


@pytest.fixture(scope="module")
def pool() -> Iterator[Any]:
    with dask_map(num_workers=2) as map_blocks:
        yield map_blocks


def breaking(mode: str, marks: Path, *, times: int) -> Callable[[bytes], str]:
    """A function of blocks whose first `times` executions of one block take their worker with them.

    Nested functions travel by value, so workers need not be able to import this file.
    """

    def hash_or_die(block: bytes) -> str:
        import ctypes
        import os
        import time

        from distributed import get_worker

        if block[0] == 5 and len(list(marks.iterdir())) < times:
            (marks / f"{os.getpid()}-{time.monotonic_ns()}").touch()
            if mode == "exit":
                os._exit(0)
            elif mode == "segfault":
                ctypes.string_at(0)
            else:  # the worker takes its leave while the block is running
                worker = get_worker()
                worker.loop.add_callback(worker.close, nanny=False, executor_wait=False)
                time.sleep(60)
        return hashlib.sha256(block).hexdigest()

    return hash_or_die


@pytest.mark.parametrize("mode", ["exit", "segfault", "leave"])
def test_blocks_survive_workers_that(mode: str, tmp_path: Path, pool: Any) -> None:
    """As many deaths as are allowed; smoothing itself loses a worker in test_dask_faults.py."""
    times = 1 if mode == "leave" else ALLOWED_WORKER_DEATHS
    started = time.monotonic()
    found = pool(breaking(mode, tmp_path, times=times), BLOCKS)
    assert len(list(tmp_path.iterdir())) == times
    assert found == [hashlib.sha256(block).hexdigest() for block in BLOCKS]
    assert time.monotonic() - started < 120


def test_a_poisoned_block_ends_the_work_and_is_named(pool: Any, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(WorkerLost) as caught:
        pool(breaking("exit", tmp_path, times=1000), BLOCKS)
    assert caught.value.block == repr(BAD)
    assert time.monotonic() - started < 120, "not stuck"
    assert len(list(tmp_path.iterdir())) == ALLOWED_WORKER_DEATHS + 1
    assert exit_code(caught.value) == 5
    assert "smooth.block_columns" in describe(caught.value)
    assert pool(os.getenv, ["OMP_NUM_THREADS"]) == ["1"], "the pool itself goes on"


def test_a_block_beyond_its_memory_limit_is_named_and_the_machine_survives() -> None:
    """The nanny ends a worker at 95 % of its limit; 400 MB hold the libraries, and 900 MB more do not fit."""

    def hoard(block: int) -> int:
        import os
        import time

        kept = bytearray(os.urandom(1 << 20)) * block
        time.sleep(120)
        return len(kept)

    started = time.monotonic()
    with dask_map(num_workers=1, memory_limit=400 << 20) as map_blocks:
        with pytest.raises(WorkerLost, match="900") as caught:
            map_blocks(hoard, [900])
    assert time.monotonic() - started < 120
    assert "out of memory" in str(caught.value)


@pytest.mark.usefixtures("quick")
def test_rerun_after_a_lost_scheduler_computes_that_stage_alone(tmp_path: Path) -> None:
    """The stage fails as a whole and publishes nothing; where Dask is not to be had, the same bytes come."""
    lost = tiny("smooth.backend=dask", "smooth.dask_address=tcp://127.0.0.1:9", "smooth.block_columns=3")
    import tasks.dask_pool

    connect = functools.partial(tasks.dask_pool.dask_map, connect_seconds=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.dask_pool, "dask_map", connect)
        with pytest.raises(SchedulerLost) as caught:
            run_direct(lost, tmp_path / "store", until="smooth")
    assert exit_code(caught.value) == 5
    assert [path.parent.name for path in (tmp_path / "store").glob("[!.]*/*")] == ["ingest"]
    assert not list((tmp_path / "store" / ".tmp").iterdir())
    again = run_direct(tiny("smooth.backend=direct"), tmp_path / "store", until="smooth")
    assert again.ran == ["smooth"]
    assert again.digests == run_direct(tiny(), tmp_path / "other", until="smooth").digests
