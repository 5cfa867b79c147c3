"""The Prefect server a run talks to: the one that is configured, or a private one on loopback."""

import ctypes
import fcntl
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.home import Home
from flows.proxies import is_on_loopback, opener, without_proxy
from flows.server_safety import without_userinfo
from flows.service import Service

HEARTBEAT_SECONDS = 30  # the shortest that Prefect allows; runs that are silent for three are taken for dead
HISTORY_DAYS = 90
"""How long the server remembers runs; the register of runs in the store remembers longer."""
_KEPT_DEADLINES_DAYS = 7
_START_SECONDS = 120.0
_POLL_SECONDS = 0.1


class ServerNotStarted(Exception):
    """The private Prefect server did not come up; the message holds the end of its log."""


@contextmanager
def prefect_server(home: Path, *, meanwhile: Callable[[], object] | None = None) -> Iterator[str]:
    """The API URL to use while the body runs, also exported as PREFECT_API_URL.

    Where PREFECT_API_URL is set already, that server is used and left alone; else the one that ``gclflow up``
    has started from here. Otherwise a server is started on a free loopback port and stopped at the end. Its
    database lies in `home`, so that the next start need not create it; a second run at the same time gets a
    database of its own.

    Args:
        home: folder for the private server's database, log and client files.
        meanwhile: called while a private server starts, which takes seconds; with its settings exported.

    Raises:
        ServerNotStarted: the configured server does not answer, or the private one did not come up.
    """
    with ExitStack() as stack:
        if lasting := lasting_server():
            yield stack.enter_context(_exported(lasting))["PREFECT_API_URL"]
        else:
            yield stack.enter_context(_private_server(home, meanwhile))


def lasting_server() -> dict[str, str]:
    """What a client must export to reach the server that outlives a run; empty where there is none.

    It is the one that PREFECT_API_URL names, else the one that ``gclflow up`` has started from here.

    Raises:
        ServerNotStarted: the one that is configured does not answer.
    """
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return client_environment(Home())
    if not answers(url):
        raise ServerNotStarted(
            f"PREFECT_API_URL names {without_userinfo(url)}, which does not answer; unset it to do without"
        )
    auth = os.environ.get("PREFECT_API_AUTH_STRING")
    straight = without_proxy() if is_on_loopback(url) else {}
    return {"PREFECT_API_URL": url, **straight} | ({"PREFECT_API_AUTH_STRING": auth} if auth else {})


def client_environment(home: Home) -> dict[str, str]:
    """What a client of the server that ``gclflow up`` has started must export; empty where none answers."""
    service = Service(home, "server")
    port = service.facts.get("port")
    url = f"http://127.0.0.1:{port}/api"
    # Whoever else listens there now must not be sent the secret.
    if not isinstance(port, int) or service.process is None or not answers(url):
        return {}
    settings = {
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(home.folder / "client"),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        **without_proxy(),
    }
    return settings | ({"PREFECT_API_AUTH_STRING": home.auth} if home.auth else {})


@contextmanager
def _private_server(home: Path, meanwhile: Callable[[], object] | None) -> Iterator[str]:
    with ExitStack() as stack:
        folder = stack.enter_context(_database_folder(home))
        port = free_port()
        url = f"http://127.0.0.1:{port}/api"
        private = server_environment(folder, port) | _WITHOUT_SCHEDULES | without_proxy()
        log = folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603  our own interpreter, fixed arguments
                server_command(port),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **private},
                start_new_session=True,  # Ctrl-C reaches us first; we stop it
                preexec_fn=_die_with_parent,  # noqa: PLW1509  no threads run yet
            )
        try:
            with _exported({**private, "PREFECT_API_URL": url}):
                if meanwhile is not None:
                    meanwhile()
                wait_until_up(url, process, log)
                yield url
        finally:
            _stop(process)


_WITHOUT_SCHEDULES = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
}


def server_command(port: int) -> list[str]:
    """The command of a Prefect server with API, UI and services on loopback."""
    return [
        *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
        *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
        *("--timeout-graceful-shutdown", "2"),
    ]


def server_environment(folder: Path, port: int) -> dict[str, str]:
    """Settings of a server whose database and client files lie in `folder`; nothing calls home."""
    return {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": f"http://127.0.0.1:{port}/api",
        # A page of another origin in the user's browser is answered nothing.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
        # Kept in memory, a restarted server would not know the leases of running flows, and end them.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # The database forgets runs that ended long ago, and their events, pages and log lines.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(HISTORY_DAYS * 86_400),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"P{HISTORY_DAYS}D",
        # A deadline that passed while the server was down is acted on when it is up again. Prefect would drop
        # it, at start, before it has looked at it: dead runs would stay open, an overdue series unposted.
        "PREFECT_SERVER_EVENTS_EXPIRED_BUCKET_BUFFER": f"P{_KEPT_DEADLINES_DAYS}D",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
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


def free_port() -> int:
    """A port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a server that has just been started answers.

    Raises:
        ServerNotStarted: it ended, or does not answer within two minutes; with the end of its log.
    """
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if answers(url):
            return
        time.sleep(_POLL_SECONDS)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise ServerNotStarted(f"the Prefect server did not start; its log ends:\n{tail}")


def answers(url: str) -> bool:
    """Whether a Prefect server is there; needs no secret."""
    health = f"{without_userinfo(url).rstrip('/')}/health"
    try:
        with opener(health).open(health, timeout=5) as response:
            return bool(response.status == 200)
    except (http.client.HTTPException, ValueError, OSError):
        return False


@contextmanager
def _exported(settings: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Environment variables that hold while the body runs."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield settings
    finally:
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
