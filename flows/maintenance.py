"""Keeping a store healthy, as a Prefect flow: what a schedule runs at a quiet hour."""

import logging
import shutil
from typing import Annotated

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from flows.home import Home
from flows.orphan import ends_with_worker
from tasks.maintenance import Collected, collect_garbage, open_store, verify_store
from tasks.runs import KEPT_RUNS, Runs

logger = logging.getLogger(__name__)
_SHOWN = 20


class StoreDamaged(Exception):
    """Something in the store did not hold the bytes it was published with, or an entry cannot be read."""


class MaintenanceRecord(BaseModel):
    """What a maintenance run has found and done.

    Attributes:
        store: the store's directory.
        is_dry_run: whether it only looked.
        num_checked: count of stage folders verified; None where verification was left out.
        damaged: what did not verify, and why, one line each.
        collected: what garbage collection removed, and the bytes that took.
        forgotten: ids of the entries that left the register of runs, by series.
        free_bytes: what is free now on the store's disk.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str
    is_dry_run: bool
    num_checked: int | None
    damaged: tuple[str, ...]
    collected: Collected
    forgotten: dict[str, tuple[str, ...]]
    free_bytes: int


@flow(name="maintenance", flow_run_name="maintenance-of-{store}", persist_result=False)
@ends_with_worker()
def maintenance(
    store: str = ".store",
    keep_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30,
    keep_runs: Annotated[int, Field(ge=0)] = KEPT_RUNS,
    verify: bool = True,
    dry_run: bool = False,
) -> MaintenanceRecord:
    """Look after a store: verify every byte, remove what nothing recent was made from, forget old runs.

    Logs of the standing server and worker that have grown large are set aside, too. Whatever is damaged is
    moved to the quarantine and computed again by the next run that needs it. The flow then fails, after it
    has finished its work: bytes that change by themselves are a sign of a bad disk. While an entry of the
    register of runs cannot be read, there or in the quarantine, no result is removed, since that run may be
    pinned; the flow fails until somebody has dealt with it.

    Pinned runs, the last good run of each series, the newest result of each stage, all that these were made
    from, and work under way are never removed.

    Args:
        store: Directory of the store, relative to the folder the worker was started in. It must exist.
        keep_days: Days. Results published in the last so many days stay, with all that they were made from;
            quarantined folders, unfinished trainings and logs stay as long. 0 keeps only what is always kept.
        keep_runs: Count of entries the register keeps of each series, the newest. Pinned ones and the last
            good one stay beyond it.
        verify: Read every byte of the store and compare it with what was published; about a second for each
            gigabyte.
        dry_run: Only say what would be removed, forgotten or quarantined; change nothing.

    Returns:
        What was found and what was freed.
    """
    opened = open_store(store)
    num_checked = sum(1 for _ in opened.folders()) if verify else None
    damaged = _verify(store, dry_run=dry_run) if verify else []
    collected = _collect(store, keep_days=keep_days, dry_run=dry_run)
    record = MaintenanceRecord(
        store=opened.address,
        is_dry_run=dry_run,
        num_checked=num_checked,
        damaged=tuple(damaged),
        collected=collected,
        forgotten=_forget(store, keep_runs=keep_runs, dry_run=dry_run),
        free_bytes=shutil.disk_usage(opened.root).free,
    )
    if not dry_run:
        for name in Home().trim_logs():
            get_run_logger().info("%s had grown large and was set aside", name)
    _show(record)
    if damaged or collected.blocked:
        raise StoreDamaged("; ".join(filter(None, (damage_message(record), blocked_message(record)))))
    return record


@task(name="verify", cache_policy=NO_CACHE, persist_result=False)
def _verify(store: str, *, dry_run: bool) -> list[str]:
    return verify_store(open_store(store), quarantine=not dry_run)


@task(name="collect garbage", cache_policy=NO_CACHE, persist_result=False)
def _collect(store: str, *, keep_days: float, dry_run: bool) -> Collected:
    return collect_garbage(open_store(store), keep_days=keep_days, dry_run=dry_run)


@task(name="forget runs", cache_policy=NO_CACHE, persist_result=False)
def _forget(store: str, *, keep_runs: int, dry_run: bool) -> dict[str, tuple[str, ...]]:
    runs = Runs(open_store(store))
    surplus = {name: tuple(runs.forget(name, keep=keep_runs, dry_run=dry_run)) for name in runs.series()}
    return {name: ids for name, ids in surplus.items() if ids}


def damage_message(record: MaintenanceRecord) -> str:
    """What is damaged, where it is now and what to do, in one line; empty where nothing is."""
    if not record.damaged:
        return ""
    place = "left where it is (dry run)" if record.is_dry_run else "in the quarantine now"
    more = f"; and {len(record.damaged) - 3} more" if len(record.damaged) > 3 else ""
    return (
        f"{len(record.damaged)} damaged in store {record.store}, {place}: "
        f"{'; '.join(record.damaged[:3])}{more}. "
        "The next run computes again what it needs of it; if this happens again, check the disk"
    )


def blocked_message(record: MaintenanceRecord) -> str:
    """Why no result was removed, and what to do, in one line; empty where nothing stood in the way."""
    blocked = record.collected.blocked
    if not blocked:
        return ""
    more = f"; and {len(blocked) - 3} more" if len(blocked) > 3 else ""
    return (
        f"no result of store {record.store} was removed, since a run that cannot be read may be pinned: "
        f"{'; '.join(blocked[:3])}{more}. Put a copy back or delete it from the quarantine (docs/store.md)"
    )


def maintenance_markdown(record: MaintenanceRecord) -> str:
    """The record as the page the UI shows."""
    verb = "would be removed" if record.is_dry_run else "removed"
    checked = "not verified" if record.num_checked is None else f"{record.num_checked} stage folders verified"
    lines = [f"# Store `{record.store}`", ""]
    lines += [f"{checked}, {len(record.damaged)} damaged. {record.free_bytes / 2**30:.1f} GB free."]
    lines += ["", f"| {verb} | count | MB |", "|---|---:|---:|"]
    lines += [
        f"| {kind.kind} | {kind.num_paths} | {kind.num_bytes / 2**20:.1f} |"
        for kind in record.collected.kinds
    ]
    lines += [f"| entries of series {name} | {len(ids)} | |" for name, ids in record.forgotten.items()]
    if not record.collected.kinds and not record.forgotten:
        lines += ["| nothing | 0 | 0 |"]
    lines += _listed("Damaged", record.damaged)
    lines += _listed("Cannot be read, so no result was removed", record.collected.blocked)
    return "\n".join(lines)


def _listed(title: str, found: tuple[str, ...]) -> list[str]:
    if not found:
        return []
    more = [f"- and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return ["", f"## {title}", "", *(f"- `{line.replace('`', chr(39))}`" for line in found[:_SHOWN]), *more]


def _show(record: MaintenanceRecord) -> None:
    log = get_run_logger()
    for line in record.damaged:
        log.error("damaged: %s", line)
    log.info(
        "%s %d paths, %.1f MB; %d entries forgotten; %.1f GB free",
        "would remove" if record.is_dry_run else "removed",
        len(record.collected.folders),
        record.collected.num_bytes / 2**20,
        sum(len(ids) for ids in record.forgotten.values()),
        record.free_bytes / 2**30,
    )
    try:
        create_markdown_artifact(
            key="maintenance", markdown=maintenance_markdown(record), description="Maintenance of a store"
        )
    except Exception:  # the work is done; a server that takes no page must not fail it
        logger.exception("the page about this maintenance could not be written")
