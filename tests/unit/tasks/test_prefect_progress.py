"""A loop of any length leaves ten lines in the log, the last one among them."""

import logging

import pytest

from tasks.prefect_progress import ProgressLog
from tasks.progress import Progress


@pytest.mark.parametrize("total", [1, 7, 10, 1000])
def test_a_loop_leaves_at_most_ten_lines_and_its_end(total: int, caplog: pytest.LogCaptureFixture) -> None:
    heard = ProgressLog(logging.getLogger("run"))
    with caplog.at_level(logging.INFO, logger="run"):
        for done in range(1, total + 1):
            heard(Progress("train", done, total, f"loss {done}"))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == min(total, 10)
    assert lines[-1] == f"train: {total} of {total}  loss {total}"


def test_a_stage_without_an_end_in_sight_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    ProgressLog(logging.getLogger("run"))(Progress("train", 0, 0))
    assert not caplog.records
