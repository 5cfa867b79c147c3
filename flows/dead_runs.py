"""Closing the runs of a standing server whose process can no longer do it: by its silence, and at once."""

import logging
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import httpx
import psutil

from flows.orphan import STARTED_BY_WORKER
from flows.server import HEARTBEAT_SECONDS

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events import AutomationCore

logger = logging.getLogger(__name__)

GRACE_SECONDS = 4.0 * HEARTBEAT_SECONDS
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Paused")


@dataclass(frozen=True)
class Silence:
    """A silence that means death.

    Attributes:
        name: of the automation.
        after: what was heard last.
        unless: what would have had to follow.
        seconds: within which.
        state: what becomes of the run.
    """

    name: str
    after: tuple[str, ...]
    unless: tuple[str, ...]
    seconds: float
    state: Literal["CRASHED", "CANCELLED"]


# A process that was killed with its worker, or whose machine went down, cannot report its own end: its run
# would stay open for ever and hold its deployment's slot. It may also die while it starts, or while it stops.
SILENCES = (
    Silence(
        "gclflow: a run that falls silent has crashed",
        after=("Running", "heartbeat"),
        unless=("heartbeat", *_ENDS),
        seconds=3.0 * HEARTBEAT_SECONDS,
        state="CRASHED",
    ),
    Silence(
        "gclflow: a run that never starts has crashed",
        after=("Pending", "Submitting"),
        unless=("Running", "heartbeat", *_ENDS),
        seconds=300.0,
        state="CRASHED",
    ),
    Silence(
        "gclflow: a run that never stops is cancelled",
        after=("Cancelling",),
        unless=_ENDS,
        seconds=300.0,
        state="CANCELLED",
    ),
)


def watch_for_dead_runs(client: "SyncPrefectClient") -> None:
    """Install what is missing of the automations; one that somebody has switched off stays off."""
    for silence in SILENCES:
        known = client.read_automations_by_name(silence.name)
        for extra in known[1:]:
            client.delete_automation(extra.id)
        if not known:
            client.create_automation(automation(silence))


_PUT_OFF = """
UPDATE automation_bucket SET "end" = max("end", strftime('%Y-%m-%d %H:%M:%f000', 'now', ?))
WHERE automation_id IN (SELECT id FROM automation WHERE name = ?)
"""


def give_grace(database: Path, *, seconds: float = GRACE_SECONDS) -> None:
    """Let runs be heard again before a server that was down takes them for dead.

    It keeps the deadlines that have passed meanwhile, and would end a run whose heartbeats nobody could
    receive. There is no way to ask it for this before it looks at them, so it is done while it is down.

    Args:
        database: of a server that does not run; nothing is done where there is none.
        seconds: from now, the least that a run then has.
    """
    if not database.is_file():
        return
    try:
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.executemany(_PUT_OFF, [(f"+{seconds} seconds", silence.name) for silence in SILENCES])
    except sqlite3.Error:  # a database of another version: runs that go on may be taken for dead
        logger.warning("deadlines of runs could not be put off", exc_info=True)


def close_runs_of(client: "SyncPrefectClient", worker: str) -> None:
    """Close the runs that a worker of this machine had taken, where no process of theirs is left.

    A run whose process is still there ends by itself, since its worker is gone. Of one whose worker died as
    it took it, before it was noted whose it is, nothing is known: it is left to its silence.

    Args:
        client: of the server.
        worker: by name; none of that name may run.
    """
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.exceptions import PrefectException
    from prefect.states import Cancelled, Crashed

    kinds = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    is_open = FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds))
    alive = _runs_with_process()
    try:
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=is_open)):
            if run.labels.get("prefect.worker.name") != worker or str(run.id) in alive:
                continue
            end = Cancelled if run.state_type == StateType.CANCELLING else Crashed
            client.set_flow_run_state(run.id, end(message="its worker died, and no process of it is left"))
    except (httpx.HTTPError, PrefectException):  # the automations will do it
        logger.warning("runs of a dead worker could not be closed", exc_info=True)


def _runs_with_process() -> set[str]:
    """Flow runs that a process of this user on this machine belongs to."""
    found = set()
    for process in psutil.process_iter():
        try:
            found.add(process.environ().get(STARTED_BY_WORKER, ""))
        except psutil.Error:  # gone, or another user's, and no worker of ours
            continue
    return found


def automation(silence: Silence) -> "AutomationCore":
    """The automation that acts on a silence."""
    from prefect.client.schemas.objects import StateType
    from prefect.events import AutomationCore
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture

    trigger = EventTrigger(
        match={"prefect.resource.id": ["prefect.flow-run.*"]},
        for_each={"prefect.resource.id"},
        after={f"prefect.flow-run.{name}" for name in silence.after},
        expect={f"prefect.flow-run.{name}" for name in silence.unless},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=silence.seconds),
    )
    message = f"nothing heard for {silence.seconds:.0f} s: the process of this run is dead"
    return AutomationCore(
        name=silence.name,
        description="Frees the place of runs whose process died without a word. Installed by gclflow up.",
        trigger=trigger,
        actions=[ChangeFlowRunState(state=StateType(silence.state), message=message)],
    )
