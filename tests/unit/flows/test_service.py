"""Background processes: started once, found again, never taken for another's, stopped with all below them."""

import os
import sys
import time
from collections.abc import Iterator
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
def service(tmp_path: Path) -> Iterator[Service]:
    before = set(psutil.Process().children())
    home = Home(tmp_path / "home")
    with home.locked():
        yield Service(home, "worker")
    psutil.wait_procs(set(psutil.Process().children()) - before, timeout=10)  # no zombies for other tests


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


def test_what_it_has_started_can_be_ended_alone(service: Service) -> None:
    process = start(service, PARENT)
    wait_for_log(service)
    (child,) = process.children()
    service.end_children(seconds=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert service.process == process
    service.stop()
    service.end_children(seconds=10)  # nothing is there any more


def test_one_that_does_not_listen_is_killed(service: Service) -> None:
    process = start(service, STUBBORN)
    wait_for_log(service)
    began = time.monotonic()
    assert service.stop(patience=(0.2, 0.2))
    assert time.monotonic() - began < 30
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_pid_that_has_gone_to_another_process_is_not_touched(service: Service) -> None:
    other = psutil.Process()  # this one
    service.home.write("worker", {"pid": other.pid, "began": "another boot 1"})
    assert service.process is None
    assert not service.stop()
    assert other.is_running()


@pytest.mark.parametrize(
    "known", [{}, {"pid": 2**31 - 1, "began": 1.0}, {"pid": "x", "began": 1}, {"pid": 1}]
)
def test_a_record_of_nothing_is_nothing(service: Service, known: dict[str, object]) -> None:
    service.home.write("worker", known)
    assert service.process is None


def test_what_cannot_be_recorded_does_not_run(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Home, name: str, content: object) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(Home, "write", full)
    before = set(psutil.Process().children())
    with pytest.raises(OSError, match="no space"):
        service.start([sys.executable, "-c", SLEEP], os.environ)
    left = set(psutil.Process().children()) - before
    psutil.wait_procs(left, timeout=10)
    assert not [process for process in left if process.is_running()]


def test_a_clock_that_is_set_changes_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    process = start(service, SLEEP)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 0.0)
    assert service.process is not None
    assert service.process.pid == process.pid
    service.stop()
