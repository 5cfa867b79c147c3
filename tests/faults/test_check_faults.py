"""R2, R15: a training that takes checks is killed at writes of checks and checkpoints; resumed, all is equal.

Run as a program this file is the driver: it only forks, so that every child starts with the libraries loaded.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.faults.injection import (
    Shim,
    act_of,
    fork,
    load_libraries,
    program,
    quick_contracts,
    quick_keys,
    quick_syncs,
)

SETTINGS = ("train.epochs=2", "train.num_checks=2", "train.checkpoint_every=1")


def run(store: Path, result: Path, *, until: str = "train", kill_at: int | None = None) -> None:
    """Run up to a stage and write the digests, or be killed at the n-th write below the scratch folder."""
    from tests.tiny_runs import run_direct, tiny

    quick_contracts()
    if kill_at is not None:
        scratch = store / ".scratch"
        Shim(scratch, kill_at, act_of("kill")).install()
    digests = run_direct(tiny(*SETTINGS), store, until=until).digests
    descriptor = os.open(result, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, json.dumps(digests).encode())


def drive(step: int, folder: Path) -> None:
    """Kill at every `step`-th write, resume, compare, until a run is over before it; prints that write."""
    load_libraries()
    quick_keys()
    quick_syncs()
    base, expected = folder / "base", folder / "expected.json"
    assert fork(lambda: run(base, folder / "base.json", until="smooth")) == 0
    shutil.copytree(base, folder / "unbroken")
    assert fork(lambda: run(folder / "unbroken", expected)) == 0
    for kill_at in range(1, 200, step):
        store = folder / f"store{kill_at}"
        killed, resumed = folder / f"killed{kill_at}.json", folder / f"resumed{kill_at}.json"
        shutil.copytree(base, store)
        code = fork(lambda s=store, r=killed, n=kill_at: run(s, r, kill_at=n))  # type: ignore[misc]
        assert code == (0 if killed.exists() else -signal.SIGKILL), code
        if killed.exists():
            print(kill_at - 1)
            return
        assert fork(lambda s=store, r=resumed: run(s, r)) == 0  # type: ignore[misc]
        assert resumed.read_text() == expected.read_text(), f"write {kill_at} changed the result"
        shutil.rmtree(store)


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "step",
    [pytest.param(9, id="every-9th-write"), pytest.param(1, marks=pytest.mark.nightly, id="every-write")],
)
def test_checks_survive_sigkill_at_writes(tmp_path: Path, step: int) -> None:
    assert int(program(__file__, step, tmp_path, seconds=850).split()[-1]) >= 20


if __name__ == "__main__":
    drive(int(sys.argv[1]), Path(sys.argv[2]))
