"""The Prefect server a run talks to: the one that is configured, or a private one on loopback."""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_START_SECONDS = 120.0
_POLL_SECONDS = 0.1


class ServerNotStarted(Exception):
    """The private Prefect server did not come up; the message holds the end of its log."""


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """The API URL to use while the body runs, also exported as PREFECT_API_URL.

    Where PREFECT_API_URL is set already, that server is used and left alone. Otherwise a server is
    started on a free loopback port and stopped at the end. Its database lies in `home`, so that the
    next start need not create it; a second run at the same time gets a database of its own.

    Args:
        home: folder for the private server's database, log and client files.

    Raises:
        ServerNotStarted: the configured server does not answer, or the private one did not come up.
    """
    with ExitStack() as stack:
        url = os.environ.get("PREFECT_API_URL")
        if url and not _answers(url):
            raise ServerNotStarted(
                f"PREFECT_API_URL names {url}, which does not answer; unset it for a private server"
            )
        yield url or stack.enter_context(_private_server(home))


@contextmanager
def _private_server(home: Path) -> Iterator[str]:
    with ExitStack() as stack:
        folder = stack.enter_context(_database_folder(home))
        port = _free_port()
        url = f"http://127.0.0.1:{port}/api"
        private = _private_environment(folder, port)
        log = folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  our own interpreter, fixed arguments
                [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
                + ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
                + ["--timeout-graceful-shutdown", "2"],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **private},
                start_new_session=True,  # Ctrl-C reaches us first; we stop it
                preexec_fn=_die_with_parent,  # noqa: PLW1509  no threads run yet
            )
        before = {name: os.environ.get(name) for name in (*private, "PREFECT_API_URL")}
        try:
            os.environ.update(private, PREFECT_API_URL=url)
            _wait_until_up(url, process, log)
            yield url
        finally:
            _restore(before)
            _stop(process)


def _private_environment(folder: Path, port: int) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": os.environ.get("PREFECT_LOGGING_LEVEL", "WARNING"),
    }


def _die_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies, so that kill -9 leaves no server behind."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


@contextmanager
def _database_folder(home: Path) -> Iterator[Path]:
    """`home` if no other private server uses it, else a temporary folder."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            folder = Path(tempfile.mkdtemp(prefix="gclflow-server-"))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        else:
            yield home


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if _answers(url):
            return
        time.sleep(_POLL_SECONDS)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise ServerNotStarted(f"the private Prefect server did not start; its log ends:\n{tail}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=5) as response:  # noqa: S310
            return bool(response.status == 200)
    except (urllib.error.URLError, ValueError, OSError):
        return False


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
