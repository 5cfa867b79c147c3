"""Deadlines that pass while the standing server is down are acted on when it is up again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.dead_runs import SILENCES, give_grace
from flows.server import server_environment

REPOSITORY = Path(__file__).resolve().parents[2]
CRASHED, OVERDUE = SILENCES[0].name, "gclflow-notices-overdue"

ARMED = """
import asyncio
from datetime import timedelta
from uuid import uuid4

import sqlalchemy as sa
from prefect.server.database import provide_database_interface
from prefect.server.events.models.automations import create_automation
from prefect.server.events.schemas.automations import Automation
from prefect.types._datetime import now

from flows.dead_runs import SILENCES, automation
from flows.notices import Overdue, overdue_automation


async def arm(db, core):
    data = core.model_dump(mode="json", exclude={"owner_resource"})
    async with db.session_context(begin_transaction=True) as session:
        made = await create_automation(session=session, automation=Automation(**data))
    end, within = now("UTC") - timedelta(days=2), made.trigger.within
    bucket = {"automation_id": made.id, "trigger_id": made.trigger.id, "bucketing_key": ["some.resource"]}
    bucket |= {"count": 0, "start": end - within, "end": end, "last_operation": "test"}
    async with db.session_context(begin_transaction=True) as session:
        await session.execute(sa.insert(db.AutomationBucket).values(**bucket))


async def main():
    db = provide_database_interface()
    await db.create_db()
    await arm(db, automation(SILENCES[0]))
    await arm(db, overdue_automation(uuid4(), Overdue("nightly", timedelta(hours=26))))


asyncio.run(main())
"""

# What the server's service does with triggers, which looks again and again.
STARTED = """
import asyncio, time

from prefect.server.events import triggers


async def fire(session, firing):
    print(round(time.monotonic() - began), firing.trigger.automation.name, flush=True)


async def main():
    global began
    triggers.fire = fire
    async with triggers.consumer():
        await asyncio.sleep(1)  # the first look was before any trigger was known
        began = time.monotonic()
        for _ in range(8):
            await triggers.evaluate_proactive_triggers()
            await asyncio.sleep(1)


asyncio.run(main())
"""


@pytest.mark.slow
def test_deadlines_of_days_without_a_server_are_acted_on(tmp_path: Path) -> None:
    """A run that died, and a series that is overdue; a run that lives may be heard first."""
    server(ARMED, tmp_path)
    give_grace(tmp_path / "prefect.db", seconds=15)
    assert server(STARTED, tmp_path) == [f"0 {OVERDUE}"]
    give_grace(tmp_path / "prefect.db", seconds=0)
    assert [line.partition(" ")[2] for line in server(STARTED, tmp_path)] == [CRASHED]


def server(code: str, folder: Path) -> list[str]:
    """The lines that code of the server prints, in a process of its own, which reads its settings once."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {**plain, **server_environment(folder, 4200), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_without_a_database_there_is_nothing_to_put_off(tmp_path: Path) -> None:
    give_grace(tmp_path / "prefect.db")
    assert not list(tmp_path.iterdir())
    (tmp_path / "prefect.db").write_bytes(b"another version")
    give_grace(tmp_path / "prefect.db")
