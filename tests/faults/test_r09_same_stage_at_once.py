"""R9: a stage started by eight processes at once, without the lock that spares double work; one is killed.

Run as a program this file is the driver: ``python test_r09_same_stage_at_once.py STAGE ROUNDS FOLDER``.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.injection import (
    Shim,
    act_of,
    load_libraries,
    program,
    quick_contracts,
    quick_keys,
    quick_syncs,
)

NUM_PROCESSES = 8
BEFORE = {"ingest": None, "smooth": "ingest", "train": "smooth", "evaluate": "cluster"}


def config() -> Any:
    from tests.tiny_runs import tiny

    return tiny("train.epochs=3", "train.num_checks=2", "train.checkpoint_every=1")


def take_part(stage: str, store: Path, barrier: Any, result: Path, kill_at: int | None) -> None:
    """One of the eight; writes the digests it ended with."""
    from tests.tiny_runs import run_direct

    if kill_at is not None:
        Shim(store, kill_at, act_of("kill")).install(removals=True)
    barrier.wait()
    digests = run_direct(config(), store, until=stage).digests  # type: ignore[arg-type]
    descriptor = os.open(result, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, json.dumps(digests).encode())
    os._exit(0)


def drive(stage: str, num_rounds: int, folder: Path) -> None:
    """Rounds of eight at once, one of them killed in every second round; prints how many were killed."""
    from tasks.maintenance import verify_store
    from tasks.store import Store
    from tests.tiny_runs import run_direct

    load_libraries()
    quick_keys()
    quick_syncs()
    quick_contracts()
    base, expected, draws, num_killed = folder / "base", folder / "expected", random.Random(9), 0
    base.mkdir()
    if (before := BEFORE[stage]) is not None:
        run_direct(config(), base, until=before)  # type: ignore[arg-type]
    shutil.copytree(base, expected)
    digests = run_direct(config(), expected, until=stage).digests  # type: ignore[arg-type]
    context = multiprocessing.get_context("fork")
    for number in range(num_rounds):
        store = shutil.copytree(base, folder / f"store{number}")
        barrier, results = (
            context.Barrier(NUM_PROCESSES),
            [folder / f"{number}-{i}" for i in range(NUM_PROCESSES)],
        )
        victim = draws.randrange(NUM_PROCESSES) if number % 2 else None
        processes = [
            context.Process(
                target=take_part,
                args=(stage, store, barrier, result, draws.randrange(1, 30) if i == victim else None),
            )
            for i, result in enumerate(results)
        ]
        for process in processes:
            process.start()
        for i, (process, result) in enumerate(zip(processes, results, strict=True)):
            process.join(200)
            if i == victim and process.exitcode == -signal.SIGKILL:
                num_killed += 1
                continue
            assert process.exitcode == 0, f"round {number}, process {i}: {process.exitcode}"
            assert json.loads(result.read_text()) == digests, f"round {number}, process {i}"
        opened = Store(store)  # sweeps what the killed one left
        assert verify_store(opened) == []
        assert len([name for name, _ in opened.folders() if name == stage]) == 1, "one was published"
        assert not list((store / ".tmp").iterdir())
        assert not list((store / ".quarantine").iterdir())
        assert run_direct(config(), store, until=stage).ran == []  # type: ignore[arg-type]
        shutil.rmtree(store)
    print(num_killed)


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("stage", "num_rounds"),
    [("ingest", 2), ("train", 2), *(pytest.param(stage, 20, marks=pytest.mark.nightly) for stage in BEFORE)],
)
def test_stage_survives_eight_starts_at_once(tmp_path: Path, stage: str, num_rounds: int) -> None:
    num_killed = int(program(__file__, stage, num_rounds, tmp_path, seconds=1700))
    assert num_killed >= num_rounds // 4


if __name__ == "__main__":
    drive(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
