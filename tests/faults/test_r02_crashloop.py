"""R2, R4: the store killed or failed at every call of every operation it has, and stages end to end.

Run as a program this file is the driver: ``python test_r02_crashloop.py store|pipeline MODE STEP FOLDER``.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.injection import Shim, act_of, fork, load_libraries, program, quick_keys, quick_syncs

DAY = 86_400
STAGES = ("ingest", "smooth", "train", "uncertainty", "cluster", "evaluate")


def prepared(folder: Path) -> Path:
    """A store with an old graph that nothing needs, a newer one, a damaged one, and a run in the register."""
    from tasks.runs import Runs
    from tasks.store import Store
    from tests.tiny_runs import key_of, publish

    store = Store(folder)
    for name, days in (("old", 9), ("new", 1), ("damaged", 1)):
        manifest = publish(store, "ingest", key_of(name), {"graph/a": name.encode(), "graph/b": b"y" * 9000})
        path = store.stage_folder("ingest", manifest.key) / "manifest.json"
        os.utime(path, (time.time() - days * DAY,) * 2)
    path = store.stage_folder("ingest", key_of("damaged")) / "graph" / "a"
    path.chmod(0o600)
    path.write_bytes(b"DAMAGED")
    Runs(store).record(entry("20260101T000000000Z-000001"))
    return folder


def entry(run: str) -> Any:
    from tasks.runs import RunEntry

    return RunEntry(
        series="nightly", run=run, finished="2026-01-01T00:00:00.000+00:00", config={}, preset=None, seed=0,
        keys={}, artifacts={}, metrics=[], good=True, reason=None,
    )  # fmt: skip


def operations(folder: Path) -> None:
    """All that a store does: publish, replace, quarantine, register, forget, collect; it may be repeated."""
    from tasks.maintenance import collect_garbage
    from tasks.runs import Runs
    from tasks.store import Store
    from tests.tiny_runs import key_of, publish

    store = Store(folder)
    made = {"smoothed/x": b"x" * 20_000, "volatile/times": b"1"}
    publish(store, "smooth", key_of("made"), made)
    publish(store, "ingest", key_of("new"), {"graph/a": b"replaced"}, replace=True)
    assert store.find("ingest", key_of("damaged"), full=True) is None
    runs = Runs(store)
    for number in (2, 3):
        runs.record(entry(f"20260101T000000000Z-00000{number}"))
    runs.advance(runs.find("20260101T000000000Z-000003"))
    runs.forget("nightly", keep=1)
    collect_garbage(store, keep_days=7)


def state_of(folder: Path) -> dict[str, Any]:
    """What readers can see; checks that every one of it is whole."""
    from tasks.maintenance import verify_store
    from tasks.runs import Runs
    from tasks.store import Store
    from tests.tiny_runs import key_of

    store = Store(folder)
    torn = [line for line in verify_store(store) if key_of("damaged") not in line]
    assert not torn, torn
    runs = Runs(store)
    listed = [path.stem for path in (folder / ".runs" / "nightly").glob("[0-9]*.json")]
    assert sorted(listed) == [e.run for e in runs.entries()], "an entry of the register is torn"
    artifacts = {m.key: {k: a.digest for k, a in m.artifacts.items()} for m in store.manifests()}
    last_good = runs.last_good("nightly")
    return {"artifacts": artifacts, "runs": listed, "last_good": last_good.run if last_good else None}


def broken(folder: Path, mode: str, count: int, result: Path) -> None:
    """The operations with the shim; writes how it ended, unless killed."""
    from tasks.errors import StoreFull, StoreUnusable

    shim = Shim(folder, count, act_of(mode))
    shim.install(removals=True)
    outcome = "clean"
    try:
        operations(folder)
    except (StoreFull, StoreUnusable, OSError) as error:
        outcome = type(error).__name__
    if len(shim.seen) < count:
        outcome = "over"
    descriptor = os.open(result, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, outcome.encode())


def drive_store(mode: str, step: int, folder: Path) -> None:
    """Break at a call, look, do all again, compare; until there is no such call. Prints the outcomes."""
    quick_syncs()
    expected_folder = prepared(folder / "undisturbed")
    before = state_of(shutil.copytree(expected_folder, folder / "before"))
    operations(expected_folder)
    expected, outcomes = state_of(expected_folder), []
    for count in range(1, 1000, step):
        store, result = prepared(folder / f"store{count}"), folder / f"result{count}"
        code = fork(lambda s=store, r=result, c=count: broken(s, mode, c, r))  # type: ignore[misc]
        assert code == (0 if result.exists() else -signal.SIGKILL), code
        outcomes.append(result.read_text() if result.exists() else "killed")
        found = state_of(store)
        for key, artifacts in found["artifacts"].items():
            allowed = (before["artifacts"].get(key), expected["artifacts"].get(key))
            assert artifacts in allowed, f"call {count}: {key[:8]} is neither what it was nor what it became"
        assert found["last_good"] is not None, f"call {count} lost the last good run"
        operations(store)
        assert state_of(store) == expected, f"call {count} changed the result"
        assert not list((store / ".tmp").iterdir()), f"call {count} left something behind"
        shutil.rmtree(store)
        if outcomes[-1] == "over":
            print(json.dumps(outcomes))
            return


def drive_pipeline(mode: str, step: int, folder: Path) -> None:
    """The same with all stages up to the evaluation, their contracts and Data Docs; prints the outcomes."""
    from tasks.errors import StoreFull, StoreUnusable
    from tasks.maintenance import verify_store
    from tasks.store import Store
    from tests.tiny_runs import run_direct, tiny

    load_libraries()
    quick_keys()
    quick_syncs()
    config = tiny("train.epochs=1", "train.checkpoint_every=1")
    expected = run_direct(config, folder / "undisturbed", until="evaluate").digests
    outcomes, bases = [], [folder / "empty"]
    bases[0].mkdir()
    for stage in STAGES[:-1]:  # each stage begins where the one before it has ended
        bases.append(shutil.copytree(bases[-1], folder / f"after-{stage}"))
        run_direct(config, bases[-1], until=stage)

    def attempt(store: Path, stage: str, count: int, result: Path) -> None:
        shim, outcome = Shim(store, count, act_of(mode)), "clean"
        shim.install(removals=True)
        try:
            run_direct(config, store, until=stage)
        except (StoreFull, StoreUnusable, OSError) as error:
            outcome = type(error).__name__
        descriptor = os.open(result, os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, ("over" if len(shim.seen) < count else outcome).encode())

    for stage, base in zip(STAGES, bases, strict=True):
        for count in range(1, 5000, step):
            store, result = folder / "store", folder / "result"
            result.unlink(missing_ok=True)
            shutil.copytree(base, store)
            code = fork(lambda s=store, g=stage, c=count, r=result: attempt(s, g, c, r))  # type: ignore[misc]
            assert code == (0 if result.exists() else -signal.SIGKILL), code
            outcomes.append(result.read_text() if result.exists() else "killed")
            assert verify_store(Store(store)) == [], f"{stage}, call {count} tore an artifact"
            again = run_direct(config, store, until=stage)
            assert again.ran in ([], [stage]), f"{stage}, call {count}: {again.ran}"
            assert again.digests.items() <= expected.items(), f"{stage}, call {count} changed the result"
            assert not list((store / ".tmp").iterdir()), f"{stage}, call {count} left something behind"
            shutil.rmtree(store)
            if outcomes[-1] == "over":
                break
    print(json.dumps(outcomes))


def outcomes_of(what: str, mode: str, step: int, folder: Path, *, seconds: float = 280) -> list[str]:
    printed = program(__file__, what, mode, step, folder, seconds=seconds)
    outcomes: list[str] = json.loads(printed.splitlines()[-1])
    return outcomes


@pytest.mark.fault
@pytest.mark.parametrize("mode", ["kill", "ENOSPC", pytest.param("EIO", marks=pytest.mark.nightly)])
def test_store_survives_a_break_at_every_call_of_every_operation(tmp_path: Path, mode: str) -> None:
    outcomes = outcomes_of("store", mode, 1, tmp_path)
    assert len(outcomes) >= 45
    assert outcomes[-1] == "over"
    if mode == "kill":
        assert set(outcomes[:-1]) == {"killed"}
    else:
        assert set(outcomes[:-1]) <= {"StoreFull", "StoreUnusable", "OSError", "clean"}


@pytest.mark.fault
@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", ["kill", "ENOSPC", "EIO"])
def test_every_stage_survives_a_break_at_every_call(tmp_path: Path, mode: str) -> None:
    outcomes = outcomes_of(
        "pipeline", mode, int(os.environ.get("GCLFLOW_FAULT_STEP", "1")), tmp_path, seconds=3500
    )
    assert outcomes.count("over") == len(STAGES)
    assert set(outcomes) <= {"over"} | (
        {"killed"} if mode == "kill" else {"StoreFull", "StoreUnusable", "OSError", "clean"}
    )


if __name__ == "__main__":
    driver = {"store": drive_store, "pipeline": drive_pipeline}[sys.argv[1]]
    driver(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
