"""A standing installation survives what is killed in it: three of the rounds of `kill_rounds`."""

import json
from pathlib import Path

import pytest

from tests.faults.kill_rounds import main

pytestmark = [pytest.mark.slow, pytest.mark.fault, pytest.mark.nightly, pytest.mark.timeout(900)]


def test_rounds_of_kills_leave_nothing_torn_stuck_or_behind(tmp_path: Path) -> None:
    log = tmp_path / "rounds.jsonl"
    assert main(["--rounds", "3", "--folder", str(tmp_path / "work"), "--log", str(log)]) == 0
    rounds = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(rounds) == 3
    assert any(played["was_there"] for played in rounds)
    assert all(set(played["states"].values()) <= {"ran", "cached"} for played in rounds)
