"""Background processes: started once, found again, never taken for another's, stopped with all below them."""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.home import Home
from flows.service import Service

SLEEP = "import time; time.sleep(600)"
CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', '{SLEEP}'])"
PARENT = f"{CHILD}; print('up', flush=True); {SLEEP}"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); {SLEEP}"


@pytest.fixture
def service(tmp_path: Path) -> Service:
    home = Home(tmp_path / "home")
    with home.locked():
        return Service(home, "worker")


def start(service: Service, code: str) -> psutil.Process:
    service.start([sys.executable, "-c", code], os.environ, port=7)
    process = service.process
    assert process is not None
    return process


def wait_for_log(service: Service) -> None:
    deadline = time.monotonic() + 60
    while "up" not in service.home.log(service.name).read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_is_found_again_and_stopped(service: Service) -> None:
    process = start(service, SLEEP)
    assert Service(service.home, "worker").process == process
    assert service.home.read("worker")["port"] == 7
    assert service.stop()
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert service.process is None
    assert not service.stop(), "a second time there is nothing to stop"


def test_what_it_has_started_ends_with_it(service: Service) -> None:
    process = start(service, PARENT)
    wait_for_log(service)
    (child,) = process.children()
    service.stop()
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running()


def test_one_that_does_not_listen_is_killed(service: Service) -> None:
    process = start(service, STUBBORN)
    wait_for_log(service)
    began = time.monotonic()
    assert service.stop(patience=(0.2, 0.2))
    assert time.monotonic() - began < 30
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_pid_that_has_gone_to_another_process_is_not_touched(service: Service) -> None:
    other = psutil.Process()  # this one
    service.home.write("worker", {"pid": other.pid, "created": other.create_time() - 100.0})
    assert service.process is None
    assert not service.stop()
    assert other.is_running()


@pytest.mark.parametrize(
    "known", [{}, {"pid": 2**31 - 1, "created": 1.0}, {"pid": "x", "created": 1}, {"pid": 1}]
)
def test_a_record_of_nothing_is_nothing(service: Service, known: dict[str, object]) -> None:
    service.home.write("worker", known)
    assert service.process is None
