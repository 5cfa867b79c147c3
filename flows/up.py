"""``gclflow up`` and ``gclflow down``: a standing server, work pool, deployments and worker on loopback."""

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.config import ConfigurationError
from flows.deploy import (
    HEARTBEAT_SECONDS,
    WORK_POOL,
    connect,
    deployments_file,
    fingerprint,
    make_dead_run_automation,
    make_deployments,
    make_work_pool,
)
from flows.home import Home
from flows.server import (
    answers,
    client_environment,
    free_port,
    server_command,
    server_environment,
    wait_until_up,
)
from flows.service import Service

DEFAULT_PORT = 4200
# A worker that is asked to stop waits for its runs; asked again, it ends them and reports them as crashed.
_WORKER_PATIENCE = (5.0, 15.0)


@dataclass(frozen=True)
class Standing:
    """What runs after ``gclflow up``.

    Attributes:
        ui: address to open.
        auth: ``user:password`` of the login page, or None where none is asked for.
        started: which services were not running before.
        deployed: whether the deployments were made or brought up to date.
    """

    ui: str
    auth: str | None
    started: tuple[str, ...]
    deployed: bool


def up(
    home: Home, *, port: int | None = None, auth: bool = True, deployments: Path | None = None
) -> Standing:
    """Start what is not running yet: the server, the worker; register pool, deployments and automation.

    Calling it again changes nothing that is in order, and starts again what has died.

    Args:
        home: where processes, logs, secret and database are kept.
        port: of the server; none takes the last one, else 4200, else a free one.
        auth: whether clients and the UI must log in.
        deployments: a prefect.yaml; none takes that of this folder, else the one that comes with gclflow.

    Raises:
        ConfigurationError: the port is taken, or there are no deployments.
        ServerNotStarted: the server did not come up, or refused the deployments.
    """
    file = deployments_file(deployments)
    with home.locked():
        started = [name for name, began in (("server", _start_server(home, port, auth=auth)),) if began]
        environment = client_environment(home)
        deployed = _register(home, file, environment, is_new="server" in started)
        if _start_worker(home, environment):
            started.append("worker")
    return Standing(environment["PREFECT_API_URL"].removesuffix("/api"), home.auth, tuple(started), deployed)


def down(home: Home) -> tuple[str, ...]:
    """Stop the worker, its runs, and the server; returns what was running. Data and settings stay.

    Runs that are interrupted are reported as crashed, and go on from their last finished stage when started
    again.
    """
    if not home.folder.is_dir():
        return ()
    with home.locked():
        stopped = [
            service.name
            for service, patience in ((worker(home), _WORKER_PATIENCE), (server(home), (10.0,)))
            if service.stop(patience=patience)
        ]
    return tuple(stopped)


def server(home: Home) -> Service:
    """The Prefect server of a home."""
    return Service(home, "server")


def worker(home: Home) -> Service:
    """The worker of a home."""
    return Service(home, "worker")


def _start_server(home: Home, port: int | None, *, auth: bool) -> bool:
    """Start the server unless it runs as asked; returns whether it was started."""
    service, known = server(home), home.read("server").get("port")
    has_auth = home.auth is not None
    if service.process is not None:
        if port in (None, known) and has_auth == auth and answers(f"http://127.0.0.1:{known}/api"):
            return False
        worker(home).stop(patience=_WORKER_PATIENCE)  # it talks to the old address, with the old secret
        service.stop()
    home.choose_auth(wanted=auth)
    chosen = _choose_port(port, known)
    settings = server_environment(home.folder, chosen)
    if home.auth:
        settings["PREFECT_SERVER_API_AUTH_STRING"] = home.auth
    command = server_command(chosen)
    child = service.start(command, {**_plain_environment(), **settings}, port=chosen)
    wait_until_up(f"http://127.0.0.1:{chosen}/api", child, home.log("server"))
    return True


def _register(home: Home, file: Path, environment: Mapping[str, str], *, is_new: bool) -> bool:
    """Pool, deployments, automation; the deployments only where the file has changed since the last time."""
    wanted = fingerprint(file)
    with connect(environment) as client:
        make_work_pool(client)
        is_known = home.read("deployed").get("fingerprint") == wanted
        missing = not client.read_deployments() if is_known else True
        if missing:
            make_deployments(client, file, environment)
        if missing or is_new:
            make_dead_run_automation(client)
    home.write("deployed", {"fingerprint": wanted, "file": str(file)})
    return missing


def _start_worker(home: Home, environment: Mapping[str, str]) -> bool:
    service = worker(home)
    if service.process is not None:
        return False
    command = [sys.executable, "-m", "prefect", "worker", "start"]
    command += ["--pool", WORK_POOL, "--type", "process", "--name", f"gclflow-{home.folder.parent.name}"]
    settings = {
        **environment,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_WORKER_QUERY_SECONDS": "5",
    }
    service.start(command, {**_plain_environment(), **settings})
    return True


def _plain_environment() -> dict[str, str]:
    """The environment without what points at another Prefect server or profile."""
    elsewhere = ("PREFECT_API_", "PREFECT_SERVER_", "PREFECT_HOME", "PREFECT_PROFILE")
    return {name: value for name, value in os.environ.items() if not name.startswith(elsewhere)}


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
