"""The automations that close dead runs: as Prefect would read them."""

import pytest

from flows.dead_runs import SILENCES, Silence, automation


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
