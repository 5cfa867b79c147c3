"""Processes that outlive the command that started them, found again and stopped whole."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from flows.home import Home

_TERM_SECONDS = 10.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Service:
    """A background process that belongs to a home.

    A process is known by its pid and the moment it started, so that a pid that has gone to somebody else is
    never taken for ours.

    Attributes:
        home: where its pid and log are kept.
        name: of the document and the log.
    """

    home: Home
    name: str

    @property
    def process(self) -> psutil.Process | None:
        """The running process, or None."""
        known = self.home.read(self.name)
        try:
            process = psutil.Process(int(known["pid"]))
            is_ours = known["began"] == _beginning(process.pid)
            return process if is_ours and process.status() != psutil.STATUS_ZOMBIE else None
        except (psutil.Error, OSError, KeyError, TypeError, ValueError):
            return None

    @property
    def facts(self) -> dict[str, Any]:
        """What was kept beside its pid when it was started; empty where it never was."""
        return self.home.read(self.name)

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        folder: Path | None = None,
        **facts: int | str,
    ) -> "subprocess.Popen[bytes]":
        """Start it detached from the terminal, its output going to the log.

        Args:
            command: what to run.
            environment: its whole environment.
            folder: its working folder; this one unless given.
            facts: kept beside the pid, as the port.
        """
        descriptor = os.open(
            self.home.log(self.name), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600
        )
        try:
            child = subprocess.Popen(  # noqa: S603  our own commands
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        try:
            self.home.write(self.name, {"pid": child.pid, "began": _beginning(child.pid), **facts})
        except BaseException:  # a full disk, an interrupt: nothing may run that nobody knows of
            with contextlib.suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
            raise
        return child

    def end_children(self, *, seconds: float) -> None:
        """Ask what it has started to end, and wait for that; it runs on itself.

        Args:
            seconds: to wait at most.
        """
        process = self.process
        if process is None:
            return
        children = _children(process, recursive=False)
        for child in children:
            _signal(child, signal.SIGTERM)
        _ended(children, seconds)

    def stop(self, *, patience: Sequence[float] = (_TERM_SECONDS,)) -> bool:
        """End it and every process below it; returns whether it was running.

        Args:
            patience: seconds to wait after each SIGTERM; what still runs after the last is killed.
        """
        process = self.process
        if process is not None:
            family = [process, *_children(process)]
            for seconds in patience:
                _signal(process, signal.SIGTERM)
                if _ended([process], seconds):
                    break
            family += [child for child in _children(process) if child not in family]
            if not _ended(family, 0.0):  # what a service leaves behind is ended with it
                for member in family:
                    _signal(member, signal.SIGKILL)
                _ended(family, _TERM_SECONDS)
        self.home.forget(self.name)
        return process is not None


def _beginning(pid: int) -> str:
    """Which boot a process began in, and when; no clock that is set can change it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        status = Path("/proc", str(pid), "stat").read_text()
        return f"{boot} {status.rpartition(')')[2].split()[19]}"
    except FileNotFoundError:
        return f"{psutil.Process(pid).create_time():.0f}"


def _children(process: psutil.Process, *, recursive: bool = True) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=recursive))
    except psutil.Error:
        return []


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return


def _ended(processes: Sequence[psutil.Process], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(_is_alive(process) for process in processes):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
