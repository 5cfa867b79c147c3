"""``gclflow up`` and ``gclflow down``: a standing server, work pool, deployments and worker on loopback."""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from flows.config import ConfigurationError
from flows.dead_runs import close_runs_of, give_grace, watch_for_dead_runs
from flows.deploy import (
    WORK_POOL,
    connect,
    deployments_file,
    file_switches,
    fingerprint,
    make_deployments,
    make_work_pool,
    remember_switches,
    remove_deployments,
)
from flows.home import Home
from flows.installed import hidden_by, made_of
from flows.orphan import STARTED_BY_UP
from flows.proxies import without_proxy
from flows.server import (
    ServerNotStarted,
    answers,
    client_environment,
    free_port,
    server_command,
    server_environment,
    wait_until_up,
)
from flows.service import Service

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

DEFAULT_PORT = 4200
_BUSY_SECONDS, _PROBE_PAUSE_SECONDS = 60.0, 2.0  # a server that is busy may be silent for so long
_BEGINS_SECONDS = 180.0
_HEARD_SECONDS = 90.0  # a worker is off line for Prefect when it has been silent for three of its heartbeats
# A worker that is asked to stop kills its runs, which then cannot say so. Asked themselves, they write a
# checkpoint and report that they have crashed; for that, server and worker must still be there.
_RUNS_SECONDS, _WORKER_PATIENCE = 20.0, (5.0, 15.0)


@dataclass(frozen=True)
class Standing:
    """What runs after ``gclflow up``.

    Attributes:
        ui: address to open.
        auth: ``user:password`` of the login page, or None where none is asked for.
        started: which services were not running before.
        deployed: the prefect.yaml whose deployments the server holds.
    """

    ui: str
    auth: str | None
    started: tuple[str, ...]
    deployed: Path


def up(
    home: Home, *, port: int | None = None, auth: bool | None = None, deployments: Path | None = None
) -> Standing:
    """Start what is not running yet: the server, the worker; register pool, deployments and automations.

    Calling it again changes nothing that is in order, starts again what has died, and keeps what was chosen
    the last time where nothing else is asked for.

    Args:
        home: where processes, logs, secret and database are kept.
        port: of the server; none takes the last one, else 4200, else a free one.
        auth: whether clients and the UI must log in; none keeps it as it was, and asks where nothing was.
        deployments: a prefect.yaml, whose relative paths start from this folder; none takes the last one,
            else that of this folder, else the one that comes with gclflow.

    Raises:
        ConfigurationError: the port is taken, there are no deployments, or their folder hides our packages.
        ServerNotStarted: the server did not come up, or refused the deployments.
    """
    with home.locked():
        home.trim_logs()
        file, folder = _deployments(home, deployments)
        _refuse_hidden(folder)
        home.write("wanted", {"up": True})
        _stop_outdated(home)
        is_new = _start_server(home, port, auth=home.asks_for_login if auth is None else auth)
        environment = client_environment(home)
        if not environment:
            raise ServerNotStarted(f"the server ended at once; see {home.log('server')}")
        with connect(environment) as client:
            make_work_pool(client)
            watch_for_dead_runs(client)
            begun = _begin_worker(home, client, environment, folder)
            _register(home, client, file, folder, environment)  # while the worker loads what it needs
            if begun is not None:
                _wait_for_worker(home, client, since=begun)
    started = [name for name, is_begun in (("server", is_new), ("worker", begun is not None)) if is_begun]
    return Standing(environment["PREFECT_API_URL"].removesuffix("/api"), home.auth, tuple(started), file)


def down(home: Home) -> tuple[str, ...]:
    """Stop the worker, its runs, and the server; returns what was running. Data and settings stay.

    Runs that are interrupted are reported as crashed, and go on from their last finished stage when started
    again.
    """
    if not home.folder.is_dir():
        return ()
    with home.locked():
        home.write("wanted", {"up": False})
        if environment := client_environment(home):
            with contextlib.suppress(httpx.HTTPError), connect(environment) as client:
                remember_switches(client, home)
        stopped = {"worker": _stop_worker(home), "server": server(home).stop()}
    return tuple(name for name, was_running in stopped.items() if was_running)


def is_to_stay_down(home: Home) -> bool:
    """Whether ``gclflow down`` was the last word."""
    return home.read("wanted").get("up") is False


def server(home: Home) -> Service:
    """The Prefect server of a home."""
    return Service(home, "server")


def worker(home: Home) -> Service:
    """The worker of a home."""
    return Service(home, "worker")


def _deployments(home: Home, given: Path | None) -> tuple[Path, Path]:
    """The prefect.yaml, and the folder its relative paths start from."""
    known = home.read("deployed")
    file, folder = Path(str(known.get("file", ""))), Path(str(known.get("folder", "")))
    if given is None and known and file.is_file() and folder.is_dir():
        return file, folder
    return deployments_file(given), Path.cwd()


def _refuse_hidden(folder: Path) -> None:
    if hidden := hidden_by(folder):
        raise ConfigurationError(
            f"{folder} holds {' and '.join(hidden)}, which Prefect would import there in the place of "
            "gclflow's packages of that name: rename them, or call gclflow up from a folder without"
        )


def _stop_outdated(home: Home) -> None:
    """End what began with other versions or settings; the runs first, which can then say so."""
    service = server(home)
    facts = service.facts
    settings = server_environment(home.folder, facts.get("port", 0))
    if service.process is not None and facts.get("made_of") != made_of(settings):
        _stop_worker(home)
        service.stop()


def _start_server(home: Home, port: int | None, *, auth: bool) -> bool:
    """Start the server unless it runs as asked; returns whether it was started."""
    service = server(home)
    known, process = service.facts.get("port"), service.process
    is_as_asked = port in (None, known) and (home.auth is not None) == auth
    if process is not None and is_as_asked and _answers_at_last(f"http://127.0.0.1:{known}/api"):
        return False
    service.stop()
    # It died, and somebody else listens in its place: our worker has told them the secret.
    is_taken = process is None and isinstance(known, int) and not _is_free(known)
    home.choose_auth(wanted=auth, anew=is_taken)
    chosen = _choose_port(port, known or home.read("port").get("port"))
    settings = server_environment(home.folder, chosen)
    login = {"PREFECT_SERVER_API_AUTH_STRING": home.auth} if home.auth else {}
    give_grace(home.folder / "prefect.db")
    environment = {**_plain_environment(), **settings, **login}
    child = service.start(server_command(chosen), environment, port=chosen, made_of=made_of(settings))
    try:
        import_module("prefect.client.orchestration")  # needed next, and a matter of seconds
        wait_until_up(f"http://127.0.0.1:{chosen}/api", child, home.log("server"))
    except BaseException:
        service.stop()
        raise
    home.write("port", {"port": chosen})  # for the time after the next `down`
    return True


def _answers_at_last(url: str) -> bool:
    """Whether a server answers that may be busy: it is asked for a minute before it is given up."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while not answers(url):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PROBE_PAUSE_SECONDS)
    return True


def _register(
    home: Home, client: "SyncPrefectClient", file: Path, folder: Path, environment: Mapping[str, str]
) -> None:
    """Make the deployments, if anything about them has changed since the last time."""
    known, wanted = home.read("deployed"), fingerprint(file, folder)
    if known.get("fingerprint") == wanted and client.read_deployments():
        remember_switches(client, home)
        return
    names = make_deployments(client, home, file, folder, {**_plain_environment(), **environment})
    remove_deployments(client, set(known.get("names", ())) - set(names))
    remember_switches(client, home)
    document = {"fingerprint": wanted, "file": str(file), "folder": str(folder), "names": list(names)}
    home.write("deployed", {**document, "switches": file_switches(file)})


def _begin_worker(
    home: Home, client: "SyncPrefectClient", environment: Mapping[str, str], folder: Path
) -> datetime | None:
    """Start the worker unless it runs and the server hears it; returns when it was started, if it was."""
    service, name = worker(home), _worker_name(home)
    of_server = {key: value for key, value in environment.items() if key.startswith("PREFECT_")}
    speaks_with = made_of(of_server)
    if service.process is not None:
        if service.facts.get("server") == speaks_with and _is_heard(client, service, name):
            return None
        _stop_worker(home)  # it knows the old address, the old secret, or is dead inside
    close_runs_of(client, name)
    command = [sys.executable, "-m", "prefect", "worker", "start"]
    command += ["--pool", WORK_POOL, "--type", "process", "--name", name]
    settings = {**environment, "PREFECT_WORKER_QUERY_SECONDS": "5", STARTED_BY_UP: "1"}
    settings["GCLFLOW_HOME"] = str(home.folder)
    began = datetime.now(UTC)
    service.start(command, {**_plain_environment(), **settings}, folder=folder, server=speaks_with)
    return began


def _wait_for_worker(home: Home, client: "SyncPrefectClient", *, since: datetime) -> None:
    """Wait until the server hears the worker that was started then."""
    service = worker(home)
    if not _is_heard(client, service, _worker_name(home), since=since):
        service.stop()
        tail = "\n".join(home.log("worker").read_text(errors="replace").splitlines()[-15:])
        raise ServerNotStarted(f"the worker did not start; its log ends:\n{tail}")


def _worker_name(home: Home) -> str:
    return f"gclflow-{home.folder.parent.name}"


def _is_heard(
    client: "SyncPrefectClient", service: Service, name: str, *, since: datetime | None = None
) -> bool:
    """Whether the server hears the worker, which has some time for it: the server may have just come back.

    Args:
        client: of the server.
        service: the worker.
        name: that it goes by.
        since: when it began; none where it is heard if Prefect says so.
    """
    deadline = time.monotonic() + (_HEARD_SECONDS if since is None else _BEGINS_SECONDS)
    while service.process is not None and time.monotonic() < deadline:
        for found in client.read_workers_for_work_pool(WORK_POOL):
            is_online = str(getattr(found.status, "value", found.status)) == "ONLINE"
            heard = found.last_heartbeat_time
            if found.name == name and is_online and (since is None or (heard and heard >= since)):
                return True
        time.sleep(_PROBE_PAUSE_SECONDS / 4)
    return False


def _stop_worker(home: Home) -> bool:
    service = worker(home)
    service.end_children(seconds=_RUNS_SECONDS)
    return service.stop(patience=_WORKER_PATIENCE)


def _plain_environment() -> dict[str, str]:
    """The environment without what points at another Prefect server or profile; no proxy for this machine."""
    elsewhere = ("PREFECT_API_", "PREFECT_SERVER_", "PREFECT_HOME", "PREFECT_PROFILE")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(elsewhere)}
    return plain | without_proxy()


def _choose_port(asked: int | None, known: object) -> int:
    for port in (asked, known if isinstance(known, int) else None, DEFAULT_PORT):
        if port is None:
            continue
        if _is_free(port):
            return port
        if port == asked:
            raise ConfigurationError(f"--port {port}: something else listens there already")
    return free_port()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
