"""``gclflow doctor``: is this installation fit to run tonight?"""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from flows.home import Home
from flows.server_safety import server_warnings, without_userinfo

_GIGABYTE = 2**30
_ENOUGH_DISK, _LITTLE_DISK = 10 * _GIGABYTE, 1 * _GIGABYTE


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        state: ``fail`` where runs cannot work, ``warn`` where something is not as it should be.
        advice: what to do about it; empty where all is well.
    """

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    advice: str = ""


def examine(home: Home, store: str) -> list[Finding]:
    """Make every check; one that breaks is a failure of its own and does not end the others.

    Args:
        home: of ``gclflow up``.
        store: directory of the artifacts; not made here.
    """
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("python", _python),
        ("libraries", _libraries),
        ("store", lambda: _store(store)),
        ("disk", lambda: _disk(store)),
        ("secret", lambda: _secret(home)),
        ("server", lambda: _server(home, store)),
        ("exposure", _exposure),
    )
    return [finding for name, check in checks for finding in _guarded(name, check)]


def _guarded(name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except Exception as error:  # noqa: BLE001  a doctor that dies of a finding is no doctor
        return [Finding(name, "fail", f"the check itself failed: {type(error).__name__}: {error}")]


def _python() -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 11):
        yield Finding("python", "ok", found)
    else:
        yield Finding(
            "python",
            "warn",
            f"{found}; dgl 1.1.3 has wheels up to 3.11",
            "make the environment with python3.11",
        )


def _libraries() -> Iterator[Finding]:
    """Installed versions against the ranges that gclflow itself declares."""
    from packaging.requirements import Requirement

    wrong = []
    for text in importlib.metadata.requires("gclflow") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    if wrong:
        yield Finding("libraries", "fail", "; ".join(wrong), "pip install -r requirements.lock")
    else:
        yield Finding("libraries", "ok", "as declared")


def _store(address: str) -> Iterator[Finding]:
    from tasks.errors import StoreUnusable
    from tasks.store import MARKER, Store, local_path

    try:
        root = local_path(address)
        if not (root / MARKER).exists():
            parent = next(path for path in (root, *root.parents) if path.exists())
            can_make = os.access(parent, os.W_OK | os.X_OK)
            detail = f"none at {root} yet" + ("" if can_make else f", and {parent} cannot be written")
            yield Finding("store", "ok" if can_make else "fail", detail)
            return
        store = Store(root)
    except StoreUnusable as error:
        yield Finding("store", "fail", str(error))
        return
    num_folders = sum(1 for _ in store.folders())
    mode = root.stat().st_mode & 0o077
    if mode:
        yield Finding("store", "warn", f"{root} is open to other users", f"chmod 700 {root}")
    else:
        yield Finding("store", "ok", f"{root}: {num_folders} stage folders")
    num_bad = len(list((root / ".quarantine").glob("*.json")))
    if num_bad:
        yield Finding(
            "quarantine",
            "warn",
            f"{num_bad} folders were damaged or broke a contract",
            "see .quarantine/*.json",
        )


def _disk(address: str) -> Iterator[Finding]:
    from tasks.store import local_path

    root = local_path(address)
    place = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(place).free
    state: Literal["ok", "warn", "fail"] = (
        "ok" if free >= _ENOUGH_DISK else "warn" if free >= _LITTLE_DISK else "fail"
    )
    advice = "" if state == "ok" else "gclflow store gc frees what nothing recent needs"
    yield Finding("disk", state, f"{free / _GIGABYTE:.1f} GB free at {place}", advice)


def _secret(home: Home) -> Iterator[Finding]:
    if os.environ.get("PREFECT_SERVER_API_AUTH_STRING") == "":
        yield Finding(
            "login",
            "fail",
            "PREFECT_SERVER_API_AUTH_STRING is set and empty, which locks everybody out",
            "unset it",
        )
    if not home.folder.is_dir():
        return
    loose = [path for path in (home.folder, *home.folder.glob("*.json")) if path.stat().st_mode & 0o077]
    if loose:
        yield Finding("secret", "fail", f"{loose[0]} can be read by other users", f"chmod go= {loose[0]}")


def _server(home: Home, store: str) -> Iterator[Finding]:
    from flows.server import answers, client_environment

    environment = client_environment(home)
    configured = os.environ.get("PREFECT_API_URL")
    if configured and configured != environment.get("PREFECT_API_URL"):
        state: Literal["ok", "fail"] = "ok" if answers(configured) else "fail"
        detail = f"PREFECT_API_URL names {without_userinfo(configured)}"
        advice = "" if state == "ok" else "it does not answer: start it, or unset the variable"
        yield Finding("server", state, detail, advice)
        return
    if not environment:
        yield from _no_server(home)
        return
    url = environment["PREFECT_API_URL"].removesuffix("/api")
    if home.auth:
        yield Finding("server", "ok", f"{url}, with a login")
    else:
        yield Finding("server", "warn", f"{url} asks for no login", "gclflow up --auth")
    yield from _inside(home, store, environment)


def _no_server(home: Home) -> Iterator[Finding]:
    from flows.server import answers

    known = home.read("server")
    if not known:
        yield Finding("server", "ok", "none stands; gclflow run starts its own")
        return
    detail = "was up, and is dead"
    if answers(f"http://127.0.0.1:{known.get('port')}/api"):
        detail += f"; something else answers on its port {known.get('port')}"
    yield Finding("server", "fail", detail, "gclflow up starts it again")


def _exposure() -> Iterator[Finding]:
    """Whether the Prefect that the settings name can be reached by others, and used without a login."""
    from prefect.settings import get_current_settings

    known = {**get_current_settings().to_environment_variables(exclude_unset=True), **os.environ}
    for warning in server_warnings(known):
        yield Finding("exposure", "fail", warning)


def _inside(home: Home, store: str, environment: dict[str, str]) -> Iterator[Finding]:
    """What the server knows: its worker, deployments, automations."""
    from flows.dead_runs import SILENCES
    from flows.deploy import WORK_POOL, connect
    from flows.doctor_upkeep import growth, lost
    from flows.up import worker

    again = "gclflow up puts it right"
    process = worker(home).process
    with connect(environment) as client:
        pools = [pool for pool in client.read_work_pools() if pool.name == WORK_POOL]
        online = [
            found.name for pool in pools for found in client.read_workers_for_work_pool(pool.name)
            if str(getattr(found.status, "value", found.status)) == "ONLINE"
        ]  # fmt: skip
        if process and online:
            yield Finding("worker", "ok", f"process {process.pid}, heard by the server")
        else:
            yield Finding("worker", "fail", "not heard by the server" if process else "dead", again)
        if any(pool.is_paused for pool in pools):
            yield Finding("work pool", "warn", f"{WORK_POOL} is paused", "nothing starts until it is resumed")
        deployments = client.read_deployments()
        active = [d.name for d in deployments if any(schedule.active for schedule in d.schedules)]
        detail = f"{len(deployments)}; on schedule: {', '.join(active) or 'none'}"
        yield Finding("deployments", "ok" if deployments else "fail", detail, "" if deployments else again)
        watched = [
            found.enabled for silence in SILENCES for found in client.read_automations_by_name(silence.name)
        ]
        if watched.count(True) == len(SILENCES):
            yield Finding("dead runs", "ok", "are closed")
        else:
            advice = "switch their automations on" if len(watched) == len(SILENCES) else again
            yield Finding("dead runs", "warn", "stay open", advice)
        yield from lost(home, client)
        yield from growth(home, store, client)
