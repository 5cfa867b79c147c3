"""Checks of ``gclflow doctor`` for what goes wrong slowly: what was on and is not, a disk that only fills."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flows.doctor import Finding
from flows.home import Home

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_GIGABYTE = 2**30


def lost(home: Home, client: "SyncPrefectClient") -> Iterator[Finding]:
    """Schedules and notices that were on when this home last knew of them, and are not now.

    Args:
        home: of ``gclflow up``.
        client: of its server.
    """
    from flows.deploy import switches

    now = switches(client)
    before = home.read("seen").get("switches", {})
    off = sorted(name for name, was_on in before.items() if was_on and not now.get(name, False))
    if off:
        advice = "switch it on in the UI; if it shall be off, gclflow up takes note of it"
        yield Finding("schedules", "warn", f"on at the last gclflow up, off now: {', '.join(off)}", advice)
    for name in home.read("notices").get("names", ()):
        known = client.read_automations_by_name(name)
        if not known:
            yield Finding("notices", "warn", f"{name} is gone", f"gclflow notify ADDRESS --name {name}")
        elif not known[0].enabled:
            yield Finding("notices", "warn", f"{name} is switched off", "switch its automation on in the UI")


def growth(home: Home, store: str, client: "SyncPrefectClient") -> Iterator[Finding]:
    """Whether runs come on schedule, and nothing removes what they leave behind.

    Args:
        home: of ``gclflow up``, with the server's database.
        store: directory of the artifacts.
        client: of the server.
    """
    from flows.deploy import names_of
    from tasks.store import local_path

    names = names_of(client)
    on = [names[d.id] for d in client.read_deployments() if any(found.active for found in d.schedules)]
    if any(name.startswith("maintenance/") for name in on):
        return
    if any(name.startswith("pipeline/") for name in on):
        root = local_path(store)
        database = sum(path.stat().st_size for path in home.folder.glob("prefect.db*"))
        sizes = {"store": _size(root), "quarantine": _size(root / ".quarantine"), "database": database}
        told = ", ".join(f"{name} {size / _GIGABYTE:.2f} GB" for name, size in sizes.items())
        detail = f"runs come on schedule, and none removes what is old: {told}"
        yield Finding("maintenance", "warn", detail, "switch the schedule of maintenance on in the UI")


def _size(folder: Path) -> int:
    """Bytes of all files below a folder; what goes away meanwhile counts nothing."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += Path(place, name).lstat().st_size
            except OSError:
                continue
    return total
