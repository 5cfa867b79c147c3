"""A run ends with the worker that has started it, and only then."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.home import Home
from flows.orphan import STARTED_BY_UP

RUN = """
import os, signal, sys, time
from flows.orphan import ends_with_worker
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with ends_with_worker(grace_seconds=0.5):
    print(os.getpid(), flush=True)
    time.sleep(600)
"""
WORKER = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {RUN!r}, *sys.argv[1:]])"


def start(
    *arguments: str, by_worker: bool, home: Path | None = None
) -> tuple["subprocess.Popen[str]", psutil.Process]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    environment |= {STARTED_BY_UP: "1", "GCLFLOW_HOME": str(home)} if home else {}
    environment |= {"PREFECT__FLOW_RUN_ID": "x"} if by_worker else {}
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    return worker, psutil.Process(int(worker.stdout.readline()))


def kill(worker: "subprocess.Popen[str]") -> None:
    worker.send_signal(signal.SIGKILL)
    worker.wait()


@pytest.mark.parametrize("arguments", [(), ("stubborn",)])
def test_a_run_ends_when_its_worker_is_killed(arguments: tuple[str, ...]) -> None:
    worker, run = start(*arguments, by_worker=True)
    assert run.is_running()
    kill(worker)
    gone, _ = psutil.wait_procs([run], timeout=60)
    assert gone, "it still runs"


def test_a_run_that_no_worker_has_started_goes_on() -> None:
    parent, run = start(by_worker=False)
    kill(parent)
    time.sleep(2.5)
    assert run.is_running()
    run.kill()


def test_a_run_that_is_not_the_recorded_workers_child_ends(tmp_path: Path) -> None:
    """Its worker died while it was starting, and who adopts orphans need not be process 1."""
    home = Home(tmp_path / "home")
    with home.locked():
        home.write("worker", {"pid": os.getpid()})
    adopter, run = start(by_worker=True, home=home.folder)
    gone, _ = psutil.wait_procs([run], timeout=60)
    assert gone, "it still runs"
    adopter.wait()
