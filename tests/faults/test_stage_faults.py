"""R2, R3, R4: a stage killed or failed at its file calls; run as a program, this file is the driver.

A shim counts the opens for writing, syncs and renames below the store, and at the n-th kills the process
or fails the call, for n = 1, 2, ... until a run is clean.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.injection import (
    REPOSITORY,
    Shim,
    act_of,
    fork,
    program,
    quick_contracts,
    quick_keys,
    quick_syncs,
)


def ingest(source: Path, store: Path) -> dict[str, str]:
    """Run the first stage; digests of what it published, or found."""
    from flows.config import load_config
    from tests.sources import planetoid
    from tests.tiny_runs import TINY, run_direct

    quick_contracts()
    source.mkdir(exist_ok=True)
    dataset = [f"dataset.{name}={value}" for name, value in planetoid(source).items()]
    plain = [item for item in TINY if not item.startswith("dataset.")]
    return run_direct(
        load_config(preset="none", overrides=[*plain, *dataset])[0], store, until="ingest"
    ).digests


def broken_run(mode: str, count: int, source: Path, store: Path, result: Path) -> None:
    """A run with the shim; writes what became of it."""
    from tasks.errors import StoreFull, StoreUnusable

    shim = Shim(store, count, act_of(mode))
    outcome: dict[str, Any] = {}
    shim.install()
    try:
        outcome["digests"] = ingest(source, store)
    except (StoreFull, StoreUnusable, OSError) as error:
        outcome["error"], outcome["message"] = type(error).__name__, str(error)
    outcome["calls"] = shim.seen
    descriptor = os.open(result, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, json.dumps(outcome).encode())


def drive(mode: str, step: int, folder: Path) -> None:
    """Break every `step`-th call, rerun, compare, until nothing breaks any more; prints the outcomes."""
    from tasks.maintenance import verify_store
    from tasks.store import Store

    quick_keys()
    quick_syncs()
    expected = ingest(folder / "source", folder / "undisturbed")
    outcomes = []
    for count in range(1, 1000, step):
        store, result = folder / f"store{count}", folder / f"result{count}.json"
        broken = lambda c=count, s=store, r=result: broken_run(mode, c, folder / "source", s, r)  # noqa: E731
        code = fork(broken)
        assert code == (-signal.SIGKILL if mode == "kill" and not result.exists() else 0), code
        outcome = json.loads(result.read_text()) if result.exists() else {"error": "killed"}
        outcomes.append(outcome)
        committed = list(Store(store).folders())
        assert verify_store(Store(store)) == [], f"call {count} tore an artifact"
        assert ingest(folder / "source", store) == expected, f"call {count} changed the result"
        again = list(Store(store).folders())
        assert len(again) == 1
        assert committed in ([], again)
        # What was published and then killed keeps its scratch until garbage collection; nothing reads it.
        for place in (".tmp", ".quarantine", *([] if committed else [".scratch"])):
            assert not list((store / place).iterdir()), f"call {count} left something in {place}"
        assert not [p for p in store.iterdir() if p.name not in ("store.json", "ingest") and p.name[0] != "."]
        if "error" not in outcome and len(outcome["calls"]) < count:
            print(json.dumps(outcomes))
            return


def outcomes_of(mode: str, step: int, folder: Path) -> list[dict[str, Any]]:
    outcomes: list[dict[str, Any]] = json.loads(program(__file__, mode, step, folder).splitlines()[-1])
    return outcomes


EVERY_CALL = pytest.param(1, marks=pytest.mark.nightly, id="every-call")


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.parametrize("step", [pytest.param(4, id="every-4th-call"), EVERY_CALL])
def test_ingest_survives_sigkill_at_writes_syncs_and_renames(tmp_path: Path, step: int) -> None:
    outcomes = outcomes_of("kill", step, tmp_path)
    assert len(outcomes) >= 20 // step
    assert [outcome.get("error") for outcome in outcomes] == ["killed"] * (len(outcomes) - 1) + [None]


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.parametrize("step", [pytest.param(4, id="every-4th-call"), EVERY_CALL])
@pytest.mark.parametrize("failure", ["ENOSPC", "EIO"])
def test_ingest_survives_a_failing_disk(tmp_path: Path, failure: str, step: int) -> None:
    outcomes = outcomes_of(failure, step, tmp_path)
    assert len(outcomes) >= 20 // step
    errors = [outcome.get("error") for outcome in outcomes]
    assert errors[-1] is None
    told = {error for error in errors[:-1] if error is not None}
    if failure == "EIO":
        assert told == {"OSError", "StoreUnusable"}
        return
    assert told == {"StoreFull", "StoreUnusable"}, "a full disk is always called that"
    full = [outcome["message"] for outcome in outcomes if outcome.get("error") == "StoreFull"]
    assert len(full) >= 10 // step
    assert all("bytes were being written" in message and "are free" in message for message in full)


@pytest.mark.fault
@pytest.mark.slow
def test_everything_is_synced_before_the_rename_and_the_folder_after(tmp_path: Path) -> None:
    """The order of system calls that a power cut cannot undo."""
    program = (
        "import json, sys; from pathlib import Path; from tests.faults.test_stage_faults import *;"
        "folder = Path(sys.argv[1]);"
        "broken_run('EIO', 10**6, folder / 'source', folder / 'store', folder / 'r')"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        env=environment,
        cwd=REPOSITORY,
        timeout=120,
    )
    calls = [tuple(call) for call in json.loads((tmp_path / "r").read_text())["calls"]]
    (commit,) = (i for i, (what, path) in enumerate(calls) if what == "rename" and "-> ingest/" in path)
    temporary, _, target = calls[commit][1].partition(" -> ")
    folder = tmp_path / "store" / target
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    folders = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_dir()]
    assert len(files) >= 8
    for name in [*files, *folders]:
        synced = calls.index(("fsync", f"{temporary}/{name}"))
        assert synced < commit
        assert ("open", f"{temporary}/{name}") not in calls[synced:], "written after it was synced"
    manifest = calls.index(("fsync", f"{temporary}/manifest.json"))
    assert all(calls.index(("fsync", f"{temporary}/{name}")) <= manifest for name in files), (
        "the manifest is last"
    )
    assert manifest < calls.index(("fsync", temporary)) < commit
    assert calls[commit + 1] == ("fsync", "ingest")
    (marked,) = (i for i, (what, path) in enumerate(calls) if what == "rename" and "-> store.json" in path)
    root = ("fsync", str(tmp_path / "store"))
    assert calls[marked + 1] == root, "the marker is in its folder for good"
    assert root in calls[calls.index(("fsync", temporary)) : commit], "and so is the stage's folder"


if __name__ == "__main__":
    drive(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
