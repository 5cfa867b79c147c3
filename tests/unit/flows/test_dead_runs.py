"""The automations that close dead runs, as Prefect would read them; the runs of a dead worker."""

import os
import subprocess
import sys
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.exceptions import ObjectNotFound

from flows.dead_runs import SILENCES, Silence, automation, close_runs_of


@pytest.mark.parametrize("silence", SILENCES, ids=lambda silence: silence.name)
def test_an_automation_closes_each_run_for_itself_when_nothing_follows(silence: Silence) -> None:
    found = automation(silence)
    trigger = found.trigger
    assert trigger.posture.value == "Proactive"  # type: ignore[union-attr]
    assert trigger.for_each == {"prefect.resource.id"}  # type: ignore[union-attr]
    assert trigger.within.total_seconds() == silence.seconds  # type: ignore[union-attr]
    (action,) = found.actions
    assert action.state.value == silence.state  # type: ignore[union-attr]


@pytest.mark.parametrize("silence", SILENCES, ids=lambda silence: silence.name)
def test_every_end_of_a_run_counts_as_a_sign(silence: Silence) -> None:
    assert {"Completed", "Failed", "Cancelled", "Crashed"} <= set(silence.unless)


def test_a_run_that_has_begun_is_no_longer_expected_to_begin() -> None:
    heard = {silence.state: set(silence.unless) for silence in SILENCES[1:2]}
    assert heard["CRASHED"] >= {"Running", "heartbeat"}


class Runs:
    """A server with these open runs; what is set of them is written down."""

    def __init__(self, **workers: tuple[str | None, str]) -> None:
        self.ids = {name: uuid.uuid4() for name in workers}
        self.runs = [
            SimpleNamespace(
                id=self.ids[name], labels={"prefect.worker.name": worker} if worker else {}, state_type=kind
            )
            for name, (worker, kind) in workers.items()
        ]
        self.asked: Any = None
        self.closed: dict[str, tuple[str, str]] = {}

    def read_flow_runs(self, *, flow_run_filter: Any) -> list[SimpleNamespace]:
        self.asked = flow_run_filter
        return self.runs

    def set_flow_run_state(self, run: uuid.UUID, state: Any) -> None:
        (name,) = (name for name, known in self.ids.items() if known == run)
        self.closed[name] = (state.type.value, state.message)


def test_a_run_that_cannot_be_closed_is_left_to_its_silence(caplog: pytest.LogCaptureFixture) -> None:
    runs = Runs(deleted=("ours", "PENDING"))

    def refuse(*_: object) -> None:
        raise ObjectNotFound(KeyError("deleted meanwhile"))

    runs.set_flow_run_state = refuse  # type: ignore[method-assign]
    close_runs_of(runs, "ours")  # type: ignore[arg-type]
    assert "could not be closed" in caplog.text


def test_runs_of_a_dead_worker_without_a_process_are_closed_at_once() -> None:
    runs = Runs(
        never_began=("ours", "PENDING"),
        killed=("ours", "RUNNING"),
        stopping=("ours", "CANCELLING"),
        still_there=("ours", "PENDING"),
        of_another=("theirs", "PENDING"),
        of_nobody=(None, "PENDING"),
    )
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": str(runs.ids["still_there"])}
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"],
        env=environment, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        process.stdout.readline()
        close_runs_of(runs, "ours")  # type: ignore[arg-type]
    finally:
        process.kill()
        process.communicate()
    said = "its worker died, and no process of it is left"
    assert runs.closed == {
        "never_began": ("CRASHED", said),
        "killed": ("CRASHED", said),
        "stopping": ("CANCELLED", said),
    }
    assert {kind.value for kind in runs.asked.state.type.any_} == {"PENDING", "RUNNING", "CANCELLING"}
