"""Dask loses a worker, its scheduler, or its owner, in the middle of smoothing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from gcl.graph import Graph
from gcl.smoothing import SmoothingConfig, smooth_features
from tasks.dask_pool import SchedulerLost, dask_map

pytestmark = [pytest.mark.fault, pytest.mark.slow]
CONFIG = SmoothingConfig(backend="dask", block_columns=2, num_steps=200)


@pytest.fixture(scope="module")
def graph() -> Graph:
    generator = np.random.default_rng(0)
    num_nodes = 20_000
    keys = np.unique(generator.integers(0, num_nodes**2, 300_000))
    x_NF = generator.standard_normal((num_nodes, 24)).astype(np.float32)
    return Graph(num_nodes, keys // num_nodes, keys % num_nodes, x_NF=x_NF, is_undirected=False)


def when_some_blocks_are_done(folder: Path, action: Callable[[], None]) -> threading.Thread:
    """Call `action` once, after the first output block appeared."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(folder.glob("out_*.npy")):
            time.sleep(0.005)
        action()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def worker_pids() -> list[int]:
    processes = psutil.Process().children(recursive=True)
    return [process.pid for process in processes if "spawn_main" in " ".join(process.cmdline())]


def wait_until_gone(pids: list[int], seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        running = [
            p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE
        ]
        if not running:
            return []
        time.sleep(0.1)
    return running


def test_smoothing_survives_a_killed_worker_with_the_same_bytes(graph, tmp_path):
    direct = smooth_features(graph, CONFIG.model_copy(update={"backend": "direct"}), seed=0)
    killed: list[int] = []

    def kill_one() -> None:
        killed.extend(worker_pids()[:1])
        os.kill(killed[0], signal.SIGKILL)

    with dask_map(num_workers=2, folder=tmp_path) as map_blocks:
        thread = when_some_blocks_are_done(tmp_path, kill_one)
        smoothed = smooth_features(graph, CONFIG, seed=0, map_blocks=map_blocks, scratch=tmp_path)
        num_blocks_at_kill = len(killed)
        thread.join()
        assert worker_pids() != killed
    assert num_blocks_at_kill == 1, "all blocks were done before the worker was killed"
    assert smoothed.x_NF.tobytes() == direct.x_NF.tobytes()


def test_smoothing_ends_cleanly_when_the_scheduler_dies(graph, tmp_path):
    python = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    address_file = tmp_path / "scheduler.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(address_file)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen([*python, *options], **quiet)
    worker = None
    try:
        deadline = time.monotonic() + 30
        while not address_file.exists() or not address_file.read_text().strip():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        address = json.loads(address_file.read_text())["address"]
        worker_options = [address, "--no-dashboard", "--nthreads", "1", "--local-directory", str(tmp_path)]
        worker = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", *worker_options], **quiet
        )
        work = tmp_path / "work"
        work.mkdir()
        thread = when_some_blocks_are_done(work, scheduler.kill)
        started = time.monotonic()
        with pytest.raises(SchedulerLost, match=address):
            with dask_map(address=address) as map_blocks:
                smooth_features(graph, CONFIG, seed=0, map_blocks=map_blocks, scratch=work)
        assert time.monotonic() - started < 60
        thread.join()
        assert 0 < len(list(work.glob("out_*.npy"))) < 12
    finally:
        for process in (scheduler, worker):
            if process is not None:
                process.kill()
                process.wait()


def test_workers_die_with_their_owner(tmp_path):
    code = (
        "import psutil, time\nfrom tasks.dask_pool import dask_map\n"
        "if __name__ == '__main__':\n"
        "    with dask_map(num_workers=2):\n"
        "        print([c.pid for c in psutil.Process().children(recursive=True)], flush=True)\n"
        "        time.sleep(60)\n"
    )
    program = tmp_path / "owner.py"
    program.write_text(code)
    owner = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    pids = [int(pid) for pid in owner.stdout.readline().strip("[]\n").split(",")]
    owner.kill()
    owner.wait()
    assert len(pids) >= 2
    assert wait_until_gone(pids, 20) == []
