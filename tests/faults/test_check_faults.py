"""A training that takes checks is killed at every write of checks and checkpoints; resumed, nothing differs.

Run as a program this file is the driver: it only forks, so that every child starts with the libraries loaded.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = ("train.epochs=2", "train.num_checks=2", "train.checkpoint_every=1")


def run(store: Path, result: Path, *, until: str = "train", kill_at: int | None = None) -> None:
    """Run up to a stage and write the digests, or be killed at the n-th write below the scratch folder."""
    import data_contracts.docs
    import tasks.stage
    from tests.faults.test_stage_faults import Shim, one_page
    from tests.tiny_runs import run_direct, tiny

    data_contracts.docs.write_data_docs = one_page  # type: ignore[assignment]
    tasks.stage.check_table = lambda *_, **__: SimpleNamespace(passed=1)  # type: ignore[assignment]
    if kill_at is not None:
        scratch = store / ".scratch"
        Shim(scratch, kill_at, lambda: os.kill(os.getpid(), signal.SIGKILL)).install()
    digests = run_direct(tiny(*SETTINGS), store, until=until).digests
    descriptor = os.open(result, os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, json.dumps(digests).encode())


def drive(folder: Path) -> None:
    """Kill, resume, compare, until a run is over before the kill; prints how many kills there were."""
    for name in ("pandas", "torch._dynamo", "gcl.methods.dmat_i", "gcl.trainer", "tests.tiny_runs"):
        import_module(name)  # once, before the first fork
    from tests.faults.test_stage_faults import fork

    base, expected = folder / "base", folder / "expected.json"
    assert fork(lambda: run(base, folder / "base.json", until="smooth")) == 0
    shutil.copytree(base, folder / "unbroken")
    assert fork(lambda: run(folder / "unbroken", expected)) == 0
    for kill_at in range(1, 200):
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
def test_checks_survive_sigkill_at_every_write(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)], capture_output=True, text=True, check=False,
        env=environment, timeout=850, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) >= 20


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
