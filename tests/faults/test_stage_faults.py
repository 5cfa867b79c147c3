"""Crashes and failing disks while a stage writes and publishes; run as a program, this file is the driver.

A shim counts the opens for writing, syncs and renames below the store, and at the n-th kills the process
or fails the call, for n = 1, 2, ... until a run is clean.
"""

import errno
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


class Shim:
    """Sees every open for writing, sync and rename below a folder, and acts at the n-th.

    Attributes:
        seen: the calls so far: what, and on which path.
    """

    def __init__(self, root: Path, count: int, act: Callable[[], None]) -> None:
        self.root, self.count, self.act = str(root), count, act
        self.seen: list[tuple[str, str]] = []

    def install(self) -> None:
        fsync, rename, replace, open_ = os.fsync, os.rename, os.replace, io.open

        def seen_open(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if isinstance(file, str | Path) and set(mode) & set("wax+"):
                self.note("open", str(file))
            return open_(file, mode, *rest, **more)

        def seen_fsync(descriptor: int) -> None:
            self.note("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))
            fsync(descriptor)

        def seen_rename(source: Any, target: Any) -> None:
            self.note("rename", f"{source} -> {target}")
            rename(source, target)

        def seen_replace(source: Any, target: Any) -> None:
            self.note("rename", f"{source} -> {target}")
            replace(source, target)

        io.open, os.fsync, os.rename, os.replace = seen_open, seen_fsync, seen_rename, seen_replace  # type: ignore[assignment]

    def note(self, what: str, path: str) -> None:
        if self.root not in path:
            return
        self.seen.append((what, path.replace(self.root + "/", "")))
        if len(self.seen) == self.count:
            self.act()


def one_page(folder: Path, results: Any) -> None:
    """Data Docs of one file: thirty more like it would be thirty more crashes, and no other case."""
    folder.mkdir()
    (folder / "index.html").write_text("docs")


def ingest(source: Path, store: Path) -> dict[str, str]:
    """Run the first stage; digests of what it published, or found."""
    import data_contracts.docs
    import tasks.stage
    from flows.config import load_config
    from tests.sources import planetoid
    from tests.tiny_runs import TINY, run_direct

    data_contracts.docs.write_data_docs = one_page  # type: ignore[assignment]
    tasks.stage.check_table = lambda *_, **__: SimpleNamespace(passed=1)  # type: ignore[assignment]  # writes nothing
    source.mkdir(exist_ok=True)
    dataset = [f"dataset.{name}={value}" for name, value in planetoid(source).items()]
    plain = [item for item in TINY if not item.startswith("dataset.")]
    return run_direct(
        load_config(preset="none", overrides=[*plain, *dataset])[0], store, until="ingest"
    ).digests


def fork(function: Callable[[], None]) -> int:
    """Run in a forked child; its exit code, negative for a signal."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        function()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def broken_run(mode: str, count: int, source: Path, store: Path, result: Path) -> None:
    """A run with the shim; writes what became of it."""
    from tasks.errors import StoreFull, StoreUnusable

    def act() -> None:
        if mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, mode)
        raise OSError(number, os.strerror(number))

    shim = Shim(store, count, act)
    outcome: dict[str, Any] = {}
    shim.install()
    try:
        outcome["digests"] = ingest(source, store)
    except (StoreFull, StoreUnusable, OSError) as error:
        outcome["error"], outcome["message"] = type(error).__name__, str(error)
    outcome["calls"] = shim.seen
    descriptor = os.open(result, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, json.dumps(outcome).encode())


def drive(mode: str, folder: Path) -> None:
    """Break, rerun, compare, until nothing breaks any more; prints the outcomes."""
    from tasks.maintenance import verify_store
    from tasks.store import Store

    expected = ingest(folder / "source", folder / "undisturbed")
    outcomes = []
    for count in range(1, 1000, 4 if mode == "EIO" else 1):
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


def run_driver(mode: str, folder: Path) -> list[dict[str, Any]]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, __file__, mode, str(folder)], capture_output=True, text=True, check=False,
        env=environment, timeout=280, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return outcomes


@pytest.mark.fault
@pytest.mark.slow
def test_ingest_survives_sigkill_at_every_write_sync_and_rename(tmp_path: Path) -> None:
    outcomes = run_driver("kill", tmp_path)
    assert len(outcomes) >= 20
    assert [outcome.get("error") for outcome in outcomes] == ["killed"] * (len(outcomes) - 1) + [None]


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.parametrize("failure", ["ENOSPC", "EIO"])
def test_ingest_survives_a_failing_disk_at_every_call(tmp_path: Path, failure: str) -> None:
    outcomes = run_driver(failure, tmp_path)
    assert len(outcomes) >= (20 if failure == "ENOSPC" else 6)
    errors = [outcome.get("error") for outcome in outcomes]
    assert errors[-1] is None
    told = {error for error in errors[:-1] if error is not None}
    if failure == "EIO":
        assert told == {"OSError", "StoreUnusable"}
        return
    assert told == {"StoreFull", "StoreUnusable"}, "a full disk is always called that"
    full = [outcome["message"] for outcome in outcomes if outcome.get("error") == "StoreFull"]
    assert len(full) >= 10
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


if __name__ == "__main__":
    drive(sys.argv[1], Path(sys.argv[2]))
