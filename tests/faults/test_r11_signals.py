"""R11: SIGTERM and Ctrl-C at random times of a stage; it stops soon, leaves a checkpoint and no process."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks.maintenance import verify_store
from tasks.store import Store
from tests.faults.injection import REPOSITORY
from tests.tiny_runs import run_direct, tiny

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.usefixtures("quick")]
EPOCHS = 400
LONG = (f"train.epochs={EPOCHS}", "train.checkpoint_every=20")
PROGRAM = """
import sys
from pathlib import Path
from gcl.errors import TrainingInterrupted
from tests.faults.injection import quick_contracts
from tests.tiny_runs import run_direct, tiny
quick_contracts()
if __name__ == "__main__":
    try:
        run_direct(tiny(*sys.argv[3:]), Path(sys.argv[1]), until=sys.argv[2])
    except TrainingInterrupted as error:
        print("interrupted:", error, flush=True)
        raise
"""


def start(folder: Path, until: str, *settings: str) -> "subprocess.Popen[str]":
    program = folder / "program.py"
    program.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(program), str(folder / "store"), until, *settings],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for(process: "subprocess.Popen[str]", folder: Path, pattern: str) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_training_survives_a_signal_at_a_random_time(  # SIGTERM to a whole run: test_store_faults.py
    number: signal.Signals, tmp_path: Path
) -> None:
    """It writes a checkpoint of the last whole epoch, and then lets the signal do its work."""
    process = start(tmp_path, "train", *LONG)
    try:
        wait_for(process, tmp_path, "store/.scratch/train-*/checkpoints/*.json")
        time.sleep(random.Random(int(number)).random())
        sent = time.monotonic()
        process.send_signal(number)
        printed, errors = process.communicate(timeout=30)
        assert time.monotonic() - sent < 10
    finally:
        process.kill()
    assert process.returncode != 0
    said = [line for line in printed.splitlines() if line.startswith("interrupted:")]
    names = [path.stem for path in tmp_path.glob("store/.scratch/train-*/checkpoints/*.json")]
    newest = max(int(name.removeprefix("epoch-")) for name in names)
    if said:  # where the signal came as the handler was already back, its checkpoint is a round one
        assert f"signal {number.name} received; {newest} of {EPOCHS} epochs are finished" in said[0]
    assert "Traceback" in errors or process.returncode == -number
    store = Store(tmp_path / "store")
    assert verify_store(store) == []
    again = run_direct(tiny(*LONG), tmp_path / "store", until="train")
    assert again.ran == ["train"]
    assert again.digests == run_direct(tiny(*LONG), tmp_path / "unbroken", until="train").digests
    (seconds,) = (tmp_path / "store").glob("train/*/volatile/epoch_seconds.json")
    assert len(json.loads(seconds.read_bytes())) == EPOCHS - newest


def test_smoothing_on_workers_survives_sigterm_without_orphans(tmp_path: Path) -> None:
    """The stage's process dies of the signal, its workers see that and end; the rerun takes no harm."""
    slow = ("smooth.backend=dask", "smooth.block_columns=1", "smooth.num_steps=1000", "smooth.num_workers=2")
    process = start(tmp_path, "smooth", *slow)
    try:
        wait_for(process, tmp_path, "store/.scratch/smooth-*/blocks-*/plan.json")
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    finally:
        process.kill()
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert not list((tmp_path / "store").glob("smooth/*"))
    again = run_direct(tiny("smooth.num_steps=1000"), tmp_path / "store", until="smooth")
    assert again.ran == ["smooth"]
    assert not list((tmp_path / "store" / ".scratch").iterdir()), "what the killed one left goes too"
    assert not list((tmp_path / "store" / ".tmp").iterdir())
