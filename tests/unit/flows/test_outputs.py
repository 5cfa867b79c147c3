"""What --out gets: one run's files at a time."""

import threading
from pathlib import Path

from flows.outputs import _turn


def test_two_runs_that_write_into_one_folder_take_turns(tmp_path: Path) -> None:
    entered = threading.Event()

    def write() -> None:
        with _turn(tmp_path):
            entered.set()

    with _turn(tmp_path):
        second = threading.Thread(target=write)
        second.start()
        assert not entered.wait(0.3)
    assert entered.wait(10)
    second.join()
    assert list(tmp_path.iterdir()) == [], "the lock leaves no file"
